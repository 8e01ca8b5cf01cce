//! ringlane-tune: list, check, apply, undo, script. What the user typed is read here; the work is in the library.
//!
//! Exit code: 0 all is well, 1 something is short (`check`) or failed (`apply`, `undo`), 2 the command cannot be done.

mod args;
mod output;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{CommandFactory, Parser};
use ringlane_tune::apply::{self, Outcome, Step};
use ringlane_tune::knob::Knob;
use ringlane_tune::plan::Plan;
use ringlane_tune::state::{self, StateFile};
use ringlane_tune::{Host, findings, knobs, script};

use crate::args::{Args, Command};
use crate::output::Output;

fn main() -> ExitCode {
    let args = Args::parse();
    let output = if args.common.json { Output::Json } else { args.common.output };
    match run(&args, output) {
        Ok(code) => code,
        Err(error) => {
            // A reader such as `head` that has seen enough is no error.
            let pipe =
                error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe);
            if pipe {
                return ExitCode::SUCCESS;
            }
            eprintln!("ringlane-tune: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args, output: Output) -> Result<ExitCode> {
    let common = &args.common;
    let deployment = common.deployment()?;
    let host = Host::at(&common.root);
    if !common.root.is_dir() {
        bail!("--root {}: no such directory", common.root.display());
    }
    let plan = || Plan::new(&host, &deployment);
    let chosen = |names: &[String]| -> Result<Vec<&'static Knob>> {
        match names {
            [] => Ok(knobs::in_profile(deployment.profile)),
            _ => knobs::named(names),
        }
    };
    match &args.command {
        Command::List { names } => {
            output.list(&if names.is_empty() { knobs::ALL.to_vec() } else { knobs::named(names)? })?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Check { names, short } => {
            let found = findings::check(&host, &plan()?, &chosen(names)?);
            output.findings(&found, *short)?;
            Ok(if findings::nothing_short(&found) { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
        Command::Apply { names, dry_run: true } => {
            output.steps(&apply::dry_run(&host, &plan()?, &chosen(names)?), "nothing to do")?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Apply { names, dry_run: false } => {
            let (plan, knobs) = (plan()?, chosen(names)?);
            needs_root(&host)?;
            if apply::settings(&host, &plan, &knobs).next().is_none() {
                output.steps(&[], "nothing to do")?;
                return Ok(ExitCode::SUCCESS);
            }
            let mut file = StateFile::create(&host, &state_path(args))?;
            let mut shown = |step: &Step| output.progress(step);
            let steps = apply::apply(&host, &plan, &knobs, &mut file, &mut |_| {}, &mut shown)?;
            file.close()?;
            output.finished(&steps)?;
            Ok(exit_code(&steps))
        }
        Command::Undo { names, force } => {
            needs_root(&host)?;
            let only = if names.is_empty() { Vec::new() } else { knobs::named(names)? };
            let steps = match StateFile::open(&host, &state_path(args))? {
                None => Vec::new(),
                Some(mut file) => {
                    let steps = apply::undo(&host, &only, &mut file, *force)?;
                    file.close()?;
                    steps
                }
            };
            output.steps(&steps, "nothing to undo")?;
            Ok(exit_code(&steps))
        }
        Command::Script { names, sysctl, unit } => {
            let (plan, knobs) = (plan()?, chosen(names)?);
            let settings = apply::settings(&host, &plan, &knobs);
            let text = match (sysctl, unit) {
                (true, _) => script::sysctl_lines(settings),
                (_, true) => script::unit(&plan),
                _ => script::script(&host, settings),
            };
            output.script(&text)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Generate { directory } => generate(directory),
    }
}

fn exit_code(steps: &[Step]) -> ExitCode {
    let failed = steps.iter().any(|step| step.outcome == Outcome::Failed);
    if failed { ExitCode::from(1) } else { ExitCode::SUCCESS }
}

fn needs_root(host: &Host) -> Result<()> {
    if host.is_live() && !nix::unistd::geteuid().is_root() {
        bail!(
            "changing the host needs root: run it with sudo, or look first with --dry-run, or print `ringlane-tune script`"
        );
    }
    Ok(())
}

fn state_path(args: &Args) -> PathBuf {
    let default = || args.common.root.join(state::DEFAULT_PATH.trim_start_matches('/'));
    args.common.state.clone().unwrap_or_else(default)
}

/// Man pages and shell completions, for packages.
fn generate(directory: &Path) -> Result<ExitCode> {
    std::fs::create_dir_all(directory)?;
    let mut command = Args::command();
    clap_mangen::generate_to(command.clone(), directory)?;
    for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "ringlane-tune", directory)?;
    }
    Ok(ExitCode::SUCCESS)
}
