//! The settings as a shell script, for those who want to read before they run, or have no tuner on the host.

use crate::cpus;
use crate::host::Host;
use crate::knob::{Knob, Setting};
use crate::place::Place;
use crate::plan::Plan;

const HEAD: &str = "#!/bin/sh\n\
# Host settings for Ringlane, written by `ringlane-tune script`. Run as root; a restart of the host undoes it all.\n\
# Each line names in a comment what was there when this script was written.\n\
set -u\n\
set_to() { # file value\n\
\x20 if [ -w \"$1\" ]; then printf '%s\\n' \"$2\" > \"$1\" || echo \"refused: $1\" >&2\n\
\x20 else echo \"skipped, not writable here: $1\" >&2; fi\n\
}\n";

pub fn script<'a>(host: &Host, settings: impl Iterator<Item = (&'a Knob, Setting)>) -> String {
    let mut text = HEAD.to_string();
    let mut last = "";
    for (knob, setting) in settings {
        if knob.name != last {
            text.push_str(&format!("\n# {}: {}\n# {}\n", knob.name, knob.what, knob.why));
            last = knob.name;
        }
        let was = host.read(&setting.place).unwrap_or_default();
        text.push_str(&format!("{}  # was {}\n", command(&setting), if was.is_empty() { "empty" } else { &was }));
    }
    if last.is_empty() {
        text.push_str("\n# Nothing is short on this host.\n");
    }
    text
}

fn command(setting: &Setting) -> String {
    let value = quoted(&setting.value);
    match &setting.place {
        Place::File { path } => format!("set_to {} {value}", quoted(path)),
        Place::Nic { nic, key } => match key.split_once('/') {
            Some(("ring", name)) => format!("ethtool -G {nic} {name} {value}"),
            Some(("channel", name)) => format!("ethtool -L {nic} {name} {value}"),
            Some(("coalesce", name)) => format!("ethtool -C {nic} {name} {value}"),
            _ => format!("ethtool -K {nic} {} {value}", key.trim_start_matches("feature/")),
        },
        Place::FlowRule { nic, port } => format!("ethtool -N {nic} flow-type tcp4 dst-port {port} action {value}"),
        Place::Unit { name } => {
            format!("systemctl {} {}", if setting.value == "active" { "start" } else { "stop" }, quoted(name))
        }
        Place::Atime { mount } => format!("mount -o remount,bind,{} {}", setting.value, quoted(mount)),
    }
}

fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:,@".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_string();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// The part of a sysctl.d file that does not depend on the machine: every /proc/sys setting the knobs would make.
pub fn sysctl_lines<'a>(settings: impl Iterator<Item = (&'a Knob, Setting)>) -> String {
    let mut text = String::new();
    for (knob, setting) in settings {
        let Place::File { path } = &setting.place else { continue };
        let Some(name) = path.strip_prefix("/proc/sys/") else { continue };
        text.push_str(&format!("# {}\n{} = {}\n", knob.what, name.replace('/', "."), setting.value));
    }
    text
}

/// A drop-in for ringlane.service: what of the unit differs between hosts. The control thread and the ring's worker
/// threads stay on the shards' cores, so that other cores are free for others.
pub fn unit(plan: &Plan) -> String {
    format!(
        "# /etc/systemd/system/ringlane.service.d/cores.conf, written by `ringlane-tune script --unit`.\n\
         # The options of `ringlane serve` themselves are in /etc/default/ringlane: --cores {cores} there too.\n\
         [Service]\nCPUAffinity={}\n",
        cpus::list(&plan.cores).replace(',', " "),
        cores = cpus::list(&plan.cores),
    )
}
