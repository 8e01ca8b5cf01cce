//! A place is one value in the kernel that can be read and, most of them, written.
//!
//! Files in /proc and /sys speak three dialects: plain words, a choice (`mq-deadline [none]`) and a CPU mask. `value_of`
//! turns each into one comparable word; what is saved for undo is always the raw text.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cpus;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Place {
    /// A file below /proc or /sys.
    File { path: String },
    /// What `ethtool` shows of a network interface, by `ring/rx`, `channel/combined`, `coalesce/adaptive-rx`,
    /// `feature/rx-gro`.
    Nic { nic: String, key: String },
    /// The receive queue that TCP over IPv4 to this port is steered to, or `none`.
    FlowRule { nic: String, port: u16 },
    /// Whether a systemd unit runs: `active` or `inactive`.
    Unit { name: String },
    /// When a mount writes access times: `noatime`, `relatime` or `strictatime`.
    Atime { mount: String },
}

impl Place {
    pub fn file(path: impl Into<String>) -> Place {
        Place::File { path: path.into() }
    }

    /// `sysctl("net.core.somaxconn")`.
    pub fn sysctl(name: &str) -> Place {
        Place::file(format!("/proc/sys/{}", name.replace('.', "/")))
    }

    pub fn nic(nic: &str, key: &str) -> Place {
        Place::Nic { nic: nic.to_string(), key: key.to_string() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { path } => out.write_str(path),
            Place::Nic { nic, key } => write!(out, "{nic} {key}"),
            Place::FlowRule { nic, port } => write!(out, "{nic} flow rule for TCP port {port}"),
            Place::Unit { name } => write!(out, "unit {name}"),
            Place::Atime { mount } => write!(out, "access times of {mount}"),
        }
    }
}

fn is_mask(path: &str) -> bool {
    ["/rps_cpus", "/xps_cpus", "/smp_affinity"].iter().any(|name| path.ends_with(name))
}

/// The one word that is compared and, on a live kernel, written back.
pub fn value_of(path: &str, raw: &str) -> String {
    if is_mask(path) {
        return cpus::canonical_mask(raw).unwrap_or_else(|| raw.trim().to_string());
    }
    match chosen(raw) {
        Some(word) => word.to_string(),
        None => raw.split_whitespace().collect::<Vec<_>>().join(" "),
    }
}

/// The word in brackets of `a [b] c`.
fn chosen(raw: &str) -> Option<&str> {
    raw.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))
}

/// The text that the kernel would show after `value` has been written where `raw` was; None when it would refuse.
/// Only copied trees need it: a live kernel does this itself.
pub fn rendered(path: &str, raw: &str, value: &str) -> Option<String> {
    let end = if raw.ends_with('\n') { "\n" } else { "" };
    if is_mask(path) {
        let digits = cpus::canonical_mask(value)?;
        let width: usize = raw.trim().split(',').map(str::len).sum();
        let padded = format!("{digits:0>width$}");
        let groups: Vec<String> =
            padded.as_bytes().rchunks(8).rev().map(|group| String::from_utf8_lossy(group).into_owned()).collect();
        return Some(groups.join(",") + end);
    }
    if let Some(old) = chosen(raw) {
        if !raw.split_whitespace().any(|word| word == value || word.trim_matches(['[', ']']) == value) {
            return None;
        }
        let words = raw.trim_end().split(' ').map(|word| {
            if word == format!("[{old}]") && old != value {
                old.to_string()
            } else if word == value {
                format!("[{value}]")
            } else {
                word.to_string()
            }
        });
        return Some(words.collect::<Vec<_>>().join(" ") + end);
    }
    Some(format!("{value}{end}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_dialects_compare_as_one_word() {
        assert_eq!(value_of("/sys/block/a/queue/scheduler", "mq-deadline kyber [none]\n"), "none");
        assert_eq!(value_of("/proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n"), "4096 131072 6291456");
        assert_eq!(value_of("/x/rps_cpus", "00000000,000000ff\n"), "ff");
    }

    #[test]
    fn a_tree_answers_like_the_kernel() {
        let scheduler = "mq-deadline kyber [none]\n";
        assert_eq!(rendered("/s", scheduler, "kyber").as_deref(), Some("mq-deadline [kyber] none\n"));
        assert_eq!(rendered("/s", scheduler, "none").as_deref(), Some(scheduler));
        assert_eq!(rendered("/s", scheduler, "bfq"), None);
        assert_eq!(rendered("/x/rps_cpus", "00000000,0000000f\n", "3").as_deref(), Some("00000000,00000003\n"));
        assert_eq!(rendered("/x/rps_cpus", "0\n", "1f").as_deref(), Some("1f\n"));
        assert_eq!(rendered("/proc/x", "1\n", "2").as_deref(), Some("2\n"));
    }
}
