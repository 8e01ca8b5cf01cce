//! Ringlane.
fn main() {}
