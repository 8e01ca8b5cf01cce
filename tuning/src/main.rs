//! ringlane-tune.
fn main() {}
