//! kernel.numa_balancing: the kernel moving pages after threads, for threads that never move.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, exactly};
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "numa-balancing",
    area: Area::Cpu,
    what: "Automatic NUMA balancing (kernel.numa_balancing)",
    why: "It unmaps memory at intervals to see who faults on it. Shards are pinned and allocate on their own node, so the faults cost and tell nothing",
    source: "kernel Documentation/admin-guide/sysctl/kernel.rst, numa_balancing",
    risk: "other programs on the host that are not pinned lose it",
    dev: false,
    check,
};

fn check(host: &Host, _: &Plan) -> Vec<Reading> {
    if host.list("/sys/devices/system/node").iter().filter(|name| is_node(name)).count() < 2 {
        return vec![Reading::info("one node", "nothing to balance")];
    }
    vec![exactly(host, Place::sysctl("kernel.numa_balancing"), "0")]
}

/// `node0`, and not `nodes_online` or `has_cpu`.
pub fn is_node(name: &str) -> bool {
    name.strip_prefix("node").is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}
