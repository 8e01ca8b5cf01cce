//! The state file: what was there before each change, from which `undo` works.
//!
//! A change is saved (written, synced, renamed into place) before the kernel sees it, so a crash at any point leaves a file
//! that covers everything that may have happened. The kernel forgets all of it at a restart, and so does this file: it
//! carries the boot it belongs to.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::place::Place;

/// Raised whenever an older tuner could misread the file.
const VERSION: u32 = 1;
pub const DEFAULT_PATH: &str = "/var/lib/ringlane-tune/state.json";

#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    version: u32,
    /// /etc/machine-id
    machine: String,
    /// /proc/sys/kernel/random/boot_id
    boot: String,
    /// Directories made for this file, removed with it.
    directories_made: Vec<PathBuf>,
    /// In the order in which they were made.
    pub changes: Vec<Change>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub knob: String,
    pub place: Place,
    /// The raw text that was there.
    pub before: String,
    /// The word that was written.
    pub wrote: String,
}

pub struct StateFile {
    path: PathBuf,
    pub state: State,
    /// Keeps a second tuner out; None when only looking.
    _lock: Option<Flock<fs::File>>,
}

impl StateFile {
    /// For `apply`: creates the directory, keeps others out, drops what an earlier boot left.
    pub fn create(host: &Host, path: &Path) -> Result<StateFile> {
        let directory = directory_of(path);
        let made: Vec<PathBuf> = directory.ancestors().take_while(|at| !at.exists()).map(Path::to_path_buf).collect();
        fs::create_dir_all(directory).with_context(|| cannot("create", directory))?;
        let lock = locked(directory)?;
        let mut file = StateFile::load(host, path, Some(lock))?;
        if file.state.changes.is_empty() {
            file.state.directories_made.extend(made);
        }
        Ok(file)
    }

    /// For `undo`: None when there is nothing to undo.
    pub fn open(host: &Host, path: &Path) -> Result<Option<StateFile>> {
        if !path.exists() {
            return Ok(None);
        }
        let lock = locked(directory_of(path))?;
        StateFile::load(host, path, Some(lock)).map(Some)
    }

    fn load(host: &Host, path: &Path, lock: Option<Flock<fs::File>>) -> Result<StateFile> {
        let machine = host.word("/etc/machine-id").unwrap_or_default();
        let boot = host.word("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let fresh = State {
            version: VERSION,
            machine: machine.clone(),
            boot: boot.clone(),
            directories_made: vec![],
            changes: vec![],
        };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(StateFile { path: path.to_path_buf(), state: fresh, _lock: lock });
            }
            Err(error) => return Err(error).with_context(|| cannot("read", path)),
        };
        let remedy = format!("move {} away to start anew (what it would have undone stays as it is)", path.display());
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        match serde_json::from_str::<Version>(&text) {
            Ok(Version { version: VERSION }) => {}
            Ok(Version { version }) => {
                bail!(
                    "the state file has version {version}, this ringlane-tune knows {VERSION}: use the version that wrote it, or {remedy}"
                )
            }
            Err(_) => bail!("the state file is not one of ringlane-tune's: {remedy}"),
        }
        let Ok(mut state) = serde_json::from_str::<State>(&text) else { bail!("the state file is damaged: {remedy}") };
        if state.machine != machine {
            bail!("the state file is of another host (machine-id {}, here {machine}): {remedy}", state.machine);
        }
        if state.boot != boot {
            // A restart has undone everything; only the directories are still ours.
            state = State { directories_made: state.directories_made, ..fresh };
        }
        Ok(StateFile { path: path.to_path_buf(), state, _lock: lock })
    }

    /// Saved before the change is made. The first value ever seen at a place is the one to go back to.
    pub fn record(&mut self, change: Change) -> Result<()> {
        match self.state.changes.iter_mut().find(|is| is.place == change.place) {
            Some(known) => known.wrote = change.wrote,
            None => self.state.changes.push(change),
        }
        self.save()
    }

    /// The change did not happen, or has been undone.
    pub fn forget(&mut self, place: &Place) -> Result<()> {
        self.state.changes.retain(|change| change.place != *place);
        self.save()
    }

    fn save(&mut self) -> Result<()> {
        let fresh = self.path.with_extension("json.new");
        let text = serde_json::to_string_pretty(&self.state)? + "\n";
        let written = || -> io::Result<()> {
            let mut file = fs::File::create(&fresh)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&fresh, &self.path)?;
            fs::File::open(directory_of(&self.path))?.sync_all()
        };
        written().with_context(|| cannot("write", &self.path))
    }

    /// Removes the file, and the directories made for it, once it holds nothing more.
    pub fn close(self) -> Result<()> {
        if !self.state.changes.is_empty() {
            return Ok(());
        }
        for leftover in [&self.path, &self.path.with_extension("json.new")] {
            match fs::remove_file(leftover) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| cannot("remove", leftover));
                }
                _ => {}
            }
        }
        for directory in &self.state.directories_made {
            // Not empty means somebody else uses it by now.
            if fs::remove_dir(directory).is_err() {
                break;
            }
        }
        Ok(())
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn cannot(verb: &str, path: &Path) -> String {
    format!("cannot {verb} {}: run as root, or name another place with --state FILE", path.display())
}

/// The directory itself is locked, so that no lock file is left behind.
fn locked(directory: &Path) -> Result<Flock<fs::File>> {
    let opened = fs::File::open(directory).with_context(|| cannot("open", directory))?;
    Flock::lock(opened, FlockArg::LockExclusiveNonblock)
        .map_err(|_| anyhow::anyhow!("another ringlane-tune is at work here; try again when it is done"))
}
