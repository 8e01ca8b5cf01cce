//! What the user typed.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use ringlane_tune::{Deployment, Profile, cpus};

use crate::output::Output;

/// Shows what a Linux host holds back from a Ringlane broker, applies it, and undoes it.
///
/// Settings last until the host restarts; ringlane-tune.service applies them at every boot.
#[derive(Parser)]
#[command(name = "ringlane-tune", version, arg_required_else_help = true)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(clap::Args)]
pub struct Common {
    /// Work on a copy of /proc, /sys and /etc below this directory
    #[arg(long, global = true, default_value = "/", value_name = "DIR")]
    pub root: PathBuf,
    /// Network interface that clients come in by [default: the one with the default route]
    #[arg(long, global = true)]
    nic: Option<String>,
    /// Disk that holds the data [default: the one under --data-dir]
    #[arg(long, global = true)]
    disk: Option<String>,
    /// Cores with a shard, in shard order, such as 0-7 [default: all]
    #[arg(long, global = true, value_name = "LIST")]
    cores: Option<String>,
    /// Port of shard 0; shard i listens on port + i
    #[arg(long, global = true, default_value_t = 9092)]
    port: u16,
    /// Where the broker keeps its logs
    #[arg(long, global = true, default_value = "/var/lib/ringlane", value_name = "DIR")]
    data_dir: PathBuf,
    /// The host is there for the broker [default]
    #[arg(long, global = true, conflicts_with = "dev")]
    production: bool,
    /// Only what costs other programs on this host nothing
    #[arg(long, global = true)]
    dev: bool,
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub output: Output,
    /// Short for --output json
    #[arg(long, global = true)]
    pub json: bool,
    /// Where apply saves what was there before [default: /var/lib/ringlane-tune/state.json below --root]
    #[arg(long, global = true, value_name = "FILE")]
    pub state: Option<PathBuf>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Every knob: what it is, why it matters, what it risks, where that comes from
    List { names: Vec<String> },
    /// What each knob is set to and whether that holds the broker back; exit code 1 when something does
    Check {
        names: Vec<String>,
        /// Only what is short
        #[arg(long)]
        short: bool,
    },
    /// Sets what is short, after saving what was there
    Apply {
        names: Vec<String>,
        /// Show what would be done and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Puts back what apply changed
    Undo {
        names: Vec<String>,
        /// Also what somebody else has changed since
        #[arg(long)]
        force: bool,
    },
    /// Prints what apply would do as a shell script
    Script {
        names: Vec<String>,
        /// Only the sysctl settings, as a sysctl.d file
        #[arg(long)]
        sysctl: bool,
        /// The cores as a drop-in for ringlane.service
        #[arg(long, conflicts_with = "sysctl")]
        unit: bool,
    },
    /// Writes man pages and shell completions into a directory
    #[command(hide = true)]
    Generate { directory: PathBuf },
}

impl Common {
    pub fn deployment(&self) -> Result<Deployment> {
        let cores = match &self.cores {
            None => None,
            Some(text) => match cpus::parse_list(text) {
                Some(cores) => Some(cores),
                None => bail!("--cores {text}: not a list of cores, such as 0-3,8"),
            },
        };
        Ok(Deployment {
            nic: self.nic.clone(),
            disk: self.disk.clone(),
            cores,
            port: self.port,
            data_dir: self.data_dir.clone(),
            // --production is the default and exists to be said; clap keeps the two apart.
            profile: if self.dev && !self.production { Profile::Dev } else { Profile::Production },
        })
    }
}
