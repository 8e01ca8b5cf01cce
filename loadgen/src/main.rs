//! loadgen: measures Ringlane and any other Kafka-compatible broker, and draws reports people can compare.
//! This file is the table of contents: parse, pick a command, exit code.

mod admin;
mod args;
mod batch;
mod ceiling;
mod clock;
mod codec;
mod compare;
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
mod ring;
mod run;
mod run_file;
mod saturate;
mod sink;
mod target;
mod wire;
mod worker;
mod workload;

use anyhow::{Context, Result};
use args::{CeilingArgs, Cli, Command, MatrixArgs, PeerArgs, ReportArgs, RunArgs, SaturateArgs};
use clap::Parser;
use run_file::RunFile;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        None => run(&cli.run),
        Some(Command::Run(args)) => run(&args),
        Some(Command::Matrix(args)) => matrix(&args),
        Some(Command::Ceiling(args)) => ceiling(&args),
        Some(Command::Saturate(args)) => saturate(&args),
        Some(Command::Report(args)) => report(&args, report::text, report::markdown),
        Some(Command::Compare(args)) => report(&args, compare::text, compare::markdown),
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
    let name = args.target_name();
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

fn saturate(args: &SaturateArgs) -> Result<()> {
    let name = args.run.target_name();
    let mut words = args.run.workload.clone();
    words.repeats = words.repeats.or(Some(1));
    let mut session = run::Session::open(&args.run.place, &words, &[name], args.run.broker_pid)?;
    let bound = saturate::Bound { percentile: args.percentile, ms: args.bound_ms, steps: args.steps };
    let ending = saturate::run_all(&mut session, &bound);
    session.close(ending)
}

fn load(paths: &[PathBuf]) -> Result<Vec<RunFile>> {
    let file = |path: &PathBuf| if path.is_dir() { path.join("run.json") } else { path.clone() };
    paths.iter().map(|path| RunFile::load(&file(path))).collect()
}

/// Writes the files that were asked for, or text to standard output when none was.
fn report(
    args: &ReportArgs,
    text: impl Fn(&[RunFile]) -> String,
    markdown: impl Fn(&[RunFile]) -> String,
) -> Result<()> {
    let runs = load(&args.runs)?;
    if let Some(path) = &args.html {
        report::write_html(&runs, path)?;
    }
    if let Some(path) = &args.svg {
        report::write_svg(&runs, path)?;
    }
    if let Some(path) = &args.markdown {
        std::fs::write(path, markdown(&runs)).with_context(|| format!("write {}", path.display()))?;
    }
    if args.html.is_none() && args.svg.is_none() && args.markdown.is_none() {
        print!("{}", text(&runs));
    }
    Ok(())
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
