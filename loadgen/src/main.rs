//! loadgen: measures Ringlane and any other Kafka-compatible broker, and draws reports people can compare.
//! This file is the table of contents: parse, pick a command, exit code.

mod admin;
mod args;
mod batch;
mod ceiling;
mod clock;
mod codec;
mod consumer;
mod foreign;
mod link;
mod machine;
mod measure;
mod pacer;
mod producer;
mod progress;
mod recorder;
mod report;
mod run;
mod run_file;
mod target;
mod wire;
mod worker;
mod workload;

use anyhow::{Context, Result};
use args::{CeilingArgs, Cli, Command, MatrixArgs, PeerArgs, ReportArgs, RunArgs};
use clap::Parser;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        None => run(&cli.run),
        Some(Command::Run(args)) => run(&args),
        Some(Command::Matrix(args)) => matrix(&args),
        Some(Command::Ceiling(args)) => ceiling(&args),
        Some(Command::Report(args)) => report(&args),
        Some(Command::Peer(args)) => peer(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("loadgen: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &RunArgs) -> Result<()> {
    let name = args.bootstrap.clone().or(args.peer.clone()).unwrap_or_else(|| "ringlane".into());
    let mut session = run::Session::open(&args.place, &args.workload, &[name], args.broker_pid)?;
    let ending = session.run_all();
    session.close(ending)
}

fn matrix(args: &MatrixArgs) -> Result<()> {
    let mut session = run::Session::open(&args.place, &args.workload, &args.targets, None)?;
    let ending = session.run_all();
    session.close(ending)
}

fn ceiling(args: &CeilingArgs) -> Result<()> {
    let (broker, generator) = run::split_cores(&args.place)?;
    let dir = args.place.data_dir.clone().unwrap_or_else(std::env::temp_dir);
    let each = Duration::from_secs_f64(args.place.ceiling.unwrap_or(1.0).max(0.01));
    let show = |f: &ceiling::Figure| {
        if !args.json {
            let value = if f.unit == "B/s" {
                report::human_bytes(f.value) + "/s"
            } else {
                format!("{} {}", report::human(f.value), f.unit)
            };
            println!("{:<36} {value:>14}   {}", f.name, f.what);
        }
    };
    let ceiling = ceiling::measure(broker[0], generator[0], each, &dir, show)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&ceiling)?);
    }
    Ok(())
}

fn report(args: &ReportArgs) -> Result<()> {
    let runs = args
        .runs
        .iter()
        .map(|path| {
            let path = if path.is_dir() { path.join("run.json") } else { path.clone() };
            run_file::RunFile::load(&path)
        })
        .collect::<Result<Vec<_>>>()?;
    match &args.markdown {
        Some(path) => {
            std::fs::write(path, report::markdown(&runs)).with_context(|| format!("write {}", path.display()))
        }
        None => {
            print!("{}", report::text(&runs));
            Ok(())
        }
    }
}

/// Keeps a broker running for other tools until Ctrl-C.
fn peer(args: &PeerArgs) -> Result<()> {
    let (cores, _) = run::split_cores(&args.place)?;
    let data_dir = args.place.data_dir.clone().unwrap_or_else(std::env::temp_dir);
    let place = target::Place { cores, data_dir, overrides: args.place.overrides.clone(), preheat_s: None };
    let (stop, stopped) = std::sync::mpsc::channel();
    ctrlc::set_handler(move || {
        let _ = stop.send(());
    })
    .context("catch Ctrl-C")?;
    let target = target::Target::open(&args.name, &place, None)?;
    println!("{}", target.facts.bootstrap);
    let _ = stopped.recv();
    Ok(())
}
