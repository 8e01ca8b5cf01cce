//! Ringlane: parse, pick a command, exit code.

fn main() {}
