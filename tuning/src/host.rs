//! The host: the one door to the kernel, either the live one or a tree copied from some machine.
//!
//! Reads never fail loudly: whatever is missing, forbidden or odd is an `Unreadable` that a knob turns into a finding.
//! In a tree, writes are answered as the kernel would show them, and nothing outside the tree can be reached.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::ethtool;
use crate::mounts::{self, Mount};
use crate::place::{self, Place};

pub struct Host {
    root: PathBuf,
    live: bool,
}

/// Why a value could not be read here. Never a failure of the tuner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    Missing,
    Denied,
    Other(String),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::Missing => out.write_str("not offered by this kernel or machine"),
            Unreadable::Denied => out.write_str("may not be read; run as root"),
            Unreadable::Other(why) => out.write_str(why),
        }
    }
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Unreadable {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Unreadable::Missing,
            io::ErrorKind::PermissionDenied => Unreadable::Denied,
            _ => Unreadable::Other(error.to_string()),
        }
    }
}

/// A kernel file longer than this is not one.
const FILE_BYTES_MAX: u64 = 4 << 20;

impl Host {
    /// `/` is the live host; any other directory is a copied tree.
    pub fn at(root: &Path) -> Host {
        Host { root: root.to_path_buf(), live: root == Path::new("/") }
    }

    pub fn is_live(&self) -> bool {
        self.live
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where `/proc/x` is for this host.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub fn text(&self, path: &str) -> Result<String, Unreadable> {
        let real = self.path(path);
        if fs::metadata(&real)?.len() > FILE_BYTES_MAX {
            return Err(Unreadable::Other(format!("{path} is too large to be a kernel file")));
        }
        let bytes = fs::read(&real)?;
        String::from_utf8(bytes).map_err(|_| Unreadable::Other(format!("{path} does not hold text")))
    }

    /// One trimmed line; None for everything that is not there.
    pub fn word(&self, path: &str) -> Option<String> {
        self.text(path).ok().map(|text| text.trim().to_string())
    }

    pub fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// Names in a directory, numbers in their natural order (`rx-2` before `rx-10`).
    pub fn list(&self, path: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(path)) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_by_key(|name| natural(name));
        names
    }

    pub fn mounts(&self) -> Vec<Mount> {
        mounts::parse(&self.text("/proc/self/mounts").or_else(|_| self.text("/proc/mounts")).unwrap_or_default())
    }

    pub fn memory_bytes(&self) -> Option<u64> {
        let text = self.text("/proc/meminfo").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    }

    /// Some(free, size) in bytes of the file system that holds `path`. A tree keeps it in `/statvfs`, as "free size".
    pub fn space(&self, path: &Path) -> Option<(u64, u64)> {
        if !self.live {
            let text = self.text("/statvfs").ok()?;
            let (free, size) = text.trim().split_once(' ')?;
            return Some((free.parse().ok()?, size.parse().ok()?));
        }
        let nearest = path.ancestors().find(|at| at.exists())?;
        let stat = nix::sys::statvfs::statvfs(nearest).ok()?;
        Some((stat.blocks_available() * stat.fragment_size(), stat.blocks() * stat.fragment_size()))
    }

    /// The comparable word at a place.
    pub fn read(&self, place: &Place) -> Result<String, Unreadable> {
        let raw = self.raw(place)?;
        Ok(match place {
            Place::File { path } => place::value_of(path, &raw),
            _ => raw.trim().to_string(),
        })
    }

    /// What is saved for undo: the text as it stands.
    pub fn raw(&self, place: &Place) -> Result<String, Unreadable> {
        match place {
            Place::File { path } => self.text(path),
            Place::Atime { mount } => mounts::atime(&self.mounts(), mount).ok_or(Unreadable::Missing),
            Place::Nic { nic, key } if self.live => ethtool::get(nic, key),
            Place::Nic { nic, key } => self.text(&format!("/ethtool/{nic}/{key}")),
            Place::FlowRule { nic, port } if self.live => ethtool::rule(nic, *port),
            Place::FlowRule { nic, port } => {
                Ok(rule_in(&self.text(&rules_path(nic))?, *port).unwrap_or("none").to_string())
            }
            Place::Unit { name } if self.live => unit_state(self, name),
            Place::Unit { name } => self.text(&format!("/systemd/{name}")),
        }
    }

    pub fn write(&self, place: &Place, value: &str) -> io::Result<()> {
        if !self.live {
            return self.write_tree(place, value);
        }
        match place {
            // No O_CREAT and no O_TRUNC: a kernel file is there or it is not, and takes one write.
            Place::File { path } => {
                use io::Write;
                fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
            }
            Place::Nic { nic, key } => ethtool::set(nic, key, value),
            Place::FlowRule { nic, port } => ethtool::set_rule(nic, *port, value),
            Place::Unit { name } => {
                run("systemctl", &[if value == "active" { "start" } else { "stop" }, name]).map(|_| ())
            }
            Place::Atime { mount } => mounts::remount(&self.mounts(), mount, value),
        }
    }

    fn write_tree(&self, place: &Place, value: &str) -> io::Result<()> {
        let replace = |path: &str, text: String| fs::write(self.inside(path)?, text);
        match place {
            Place::File { path } => {
                let raw = fs::read_to_string(self.inside(path)?)?;
                let text = place::rendered(path, &raw, value).ok_or(io::ErrorKind::InvalidInput)?;
                replace(path, text)
            }
            Place::Nic { nic, key } => {
                let path = format!("/ethtool/{nic}/{key}");
                let raw = fs::read_to_string(self.inside(&path)?)?;
                if raw.contains("[fixed]") {
                    return Err(io::ErrorKind::Unsupported.into());
                }
                replace(&path, format!("{value}\n"))
            }
            Place::FlowRule { nic, port } => {
                let path = rules_path(nic);
                let raw = fs::read_to_string(self.inside(&path)?)?;
                let mut lines: Vec<String> =
                    raw.lines().filter(|line| rule_in(line, *port).is_none()).map(|line| format!("{line}\n")).collect();
                if value != "none" {
                    lines.push(format!("{port} {value}\n"));
                }
                replace(&path, lines.concat())
            }
            Place::Unit { name } => replace(&format!("/systemd/{name}"), format!("{value}\n")),
            Place::Atime { mount } => {
                let path = if self.exists("/proc/self/mounts") { "/proc/self/mounts" } else { "/proc/mounts" };
                let raw = fs::read_to_string(self.inside(path)?)?;
                replace(path, mounts::with_atime(&raw, mount, value))
            }
        }
    }

    /// Puts back what `raw` once returned.
    pub fn restore(&self, place: &Place, before: &str) -> io::Result<()> {
        match place {
            Place::File { path } if !self.live => fs::write(self.inside(path)?, before),
            Place::Nic { nic, key } if !self.live => fs::write(self.inside(&format!("/ethtool/{nic}/{key}"))?, before),
            Place::Unit { name } if !self.live => fs::write(self.inside(&format!("/systemd/{name}"))?, before),
            Place::File { path } => self.write(place, &place::value_of(path, before)),
            _ => self.write(place, before.trim()),
        }
    }

    /// A link in a copied tree may point anywhere; writing must not leave the tree.
    fn inside(&self, path: &str) -> io::Result<PathBuf> {
        let real = self.path(path).canonicalize()?;
        if real.starts_with(self.root.canonicalize()?) {
            return Ok(real);
        }
        Err(io::Error::other(format!("{path} is a link that leads out of the tree")))
    }

    /// Some(reason) when no one may write there, root included: what containers do to /sys and /proc/sys.
    pub fn read_only(&self, place: &Place) -> Option<String> {
        let Place::File { path } = place else { return None };
        let mounts = self.mounts();
        let mount = mounts::covering(&mounts, path)?;
        mount.has("ro").then(|| format!("{} is mounted read-only here (a container?); set it on the host", mount.point))
    }
}

fn rules_path(nic: &str) -> String {
    format!("/ethtool/{nic}/rules")
}

/// A tree keeps flow rules as lines of "port queue".
fn rule_in(text: &str, port: u16) -> Option<&str> {
    text.lines().find_map(|line| line.split_once(' ').filter(|(at, _)| *at == port.to_string()).map(|(_, queue)| queue))
}

/// systemd gives every running unit a control group or, for timers, a file in its own run directory; asking `systemctl`
/// is the only way that covers both.
fn unit_state(host: &Host, name: &str) -> Result<String, Unreadable> {
    if !host.exists("/run/systemd/system") {
        return Err(Unreadable::Other("systemd does not run here".to_string()));
    }
    if host.exists(&format!("/sys/fs/cgroup/system.slice/{name}")) {
        return Ok("active".to_string());
    }
    match run("systemctl", &["is-active", name]) {
        Ok(state) if state.trim() == "active" => Ok("active".to_string()),
        _ => Ok("inactive".to_string()),
    }
}

/// Runs a tool and returns what it printed; its own complaint becomes the error.
pub fn run(tool: &str, arguments: &[&str]) -> io::Result<String> {
    let output = Command::new(tool).args(arguments).env("LC_ALL", "C").output().map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            io::Error::new(io::ErrorKind::Unsupported, format!("`{tool}` is not installed"))
        } else {
            error
        }
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("failed without a word").trim().to_string();
    let kind = if ["not supported", "not permitted", "not found"].iter().any(|word| said.contains(word)) {
        io::ErrorKind::Unsupported
    } else {
        io::ErrorKind::Other
    };
    Err(io::Error::new(kind, format!("{tool} {}: {said}", arguments.join(" "))))
}

/// Sort key: digits compare as numbers.
fn natural(name: &str) -> (String, u64, String) {
    let letters: String = name.chars().take_while(|c| !c.is_ascii_digit()).collect();
    let digits: String = name.chars().skip(letters.len()).take_while(char::is_ascii_digit).collect();
    let number = digits.parse().unwrap_or(0);
    (letters, number, name.to_string())
}
