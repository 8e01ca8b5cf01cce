//! vm.zone_reclaim_mode: whether a full node throws its page cache away instead of using its neighbour.

use crate::knob::{Area, Knob, exactly};
use crate::place::Place;

pub const KNOB: Knob = Knob {
    name: "zone-reclaim",
    area: Area::Memory,
    what: "Reclaim on the local NUMA node before using another (vm.zone_reclaim_mode)",
    why: "With it on, one node's page cache is thrown away while the other has free memory; for a broker that cache is the data consumers are about to read",
    source: "kernel Documentation/admin-guide/sysctl/vm.rst, zone_reclaim_mode: \"for file servers\" leave it off",
    risk: "none: 0 is the kernel's default",
    dev: true,
    check: |host, _| vec![exactly(host, Place::sysctl("vm.zone_reclaim_mode"), "0")],
};
