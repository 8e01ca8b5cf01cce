//! vm.max_map_count: how many mappings one process may have.

use crate::knob::{Area, Knob, at_least};
use crate::place::Place;

pub const KNOB: Knob = Knob {
    name: "max-map-count",
    area: Area::Memory,
    what: "Memory mappings per process (vm.max_map_count)",
    why: "Ringlane maps little, but Apache Kafka beside it in a comparison maps two indexes per segment and dies of `Map failed` at the default of 65530; a comparison needs both on the same host",
    source: "kernel Documentation/admin-guide/sysctl/vm.rst, max_map_count; Apache Kafka documentation, section OS",
    risk: "none: kernel memory is used only for mappings that exist",
    dev: true,
    check: |host, _| vec![at_least(host, Place::sysctl("vm.max_map_count"), 262_144)],
};
