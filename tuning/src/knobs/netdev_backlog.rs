//! net.core.netdev_max_backlog: packets that may wait for a core when RPS or the loopback hands them over.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, at_least};
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "netdev-backlog",
    area: Area::Net,
    what: "Packets queued per core before the stack sees them (net.core.netdev_max_backlog)",
    why: "Used when packets are handed to another core (RPS) and by the loopback, so it matters on hosts whose NIC cannot steer; the second column of /proc/net/softnet_stat counts what was dropped here",
    source: "kernel Documentation/networking/scaling.rst and admin-guide/sysctl/net.rst, netdev_max_backlog; measured (results/, knobs): 1000 or 4096 is the same to fetches over loopback",
    risk: "a longer queue holds more memory and hides an overloaded core for longer",
    dev: true,
    check,
};

fn check(host: &Host, _: &Plan) -> Vec<Reading> {
    let dropped = softnet_column(host, 1).map_or(String::new(), |count| format!("dropped since boot: {count}"));
    vec![at_least(host, Place::sysctl("net.core.netdev_max_backlog"), 4096).with_note(&dropped)]
}

/// Sum over the cores of one column of /proc/net/softnet_stat: 1 is dropped, 2 is out of budget.
pub fn softnet_column(host: &Host, column: usize) -> Option<u64> {
    let text = host.text("/proc/net/softnet_stat").ok()?;
    let cell = |line: &str| u64::from_str_radix(line.split_whitespace().nth(column)?, 16).ok();
    text.lines().map(cell).sum()
}
