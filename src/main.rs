//! Ringlane: parse, pick a command, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringlane::cli::main()
}
