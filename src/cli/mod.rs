//! Commands, and what they have in common: logging, exit codes. `ringlane` alone serves with its defaults.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod serve;

/// A Kafka-compatible broker in which every core is a broker.
#[derive(Parser)]
#[command(name = "ringlane", version, about, after_help = serve::EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::Arguments,
}

#[derive(Subcommand)]
enum Command {
    /// Starts the broker (the default)
    #[command(after_help = serve::EXAMPLES)]
    Serve(serve::Arguments),
}

/// Runs the command that was typed.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    env_logger::Builder::from_env(env_logger::Env::default().filter_or("RINGLANE_LOG", "info"))
        .format_timestamp_millis()
        .format_target(false)
        .init();
    let arguments = match cli.command {
        Some(Command::Serve(arguments)) => arguments,
        None => cli.serve,
    };
    match serve::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringlane: {error:#}");
            ExitCode::FAILURE
        }
    }
}
