//! vm.swappiness: whether a shard's memory may be swapped to keep page cache.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, at_most};
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "swappiness",
    area: Area::Memory,
    what: "Readiness to swap out program memory in favour of page cache (vm.swappiness)",
    why: "The broker fills all memory with page cache by design; a shard that waits for its own buffers to be swapped in stops its whole core",
    source: "kernel Documentation/admin-guide/sysctl/vm.rst, swappiness",
    risk: "under memory pressure page cache goes first, so cold reads come from the disk sooner",
    dev: false,
    check,
};

fn check(host: &Host, _: &Plan) -> Vec<Reading> {
    let devices = host.text("/proc/swaps").map(|text| text.lines().skip(1).count());
    let place = Place::sysctl("vm.swappiness");
    if devices == Ok(0)
        && let Ok(now) = host.read(&place)
    {
        return vec![Reading::info(now, "no swap is in use here, so it does nothing")];
    }
    vec![at_most(host, place, 1)]
}
