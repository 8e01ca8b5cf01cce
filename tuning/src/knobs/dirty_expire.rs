//! vm.dirty_expire_centisecs and dirty_writeback_centisecs: how old unwritten data may get.

use crate::knob::{Area, Knob, at_most};
use crate::place::Place;

pub const KNOB: Knob = Knob {
    name: "dirty-expire",
    area: Area::Memory,
    what: "Age at which unwritten data is written (vm.dirty_expire_centisecs, dirty_writeback_centisecs)",
    why: "Bounds what a power failure can take from a partition without flush.ms. The kernel's 30 s and 5 s are right for a log whose segments may be retired before they need to reach the disk",
    source: "kernel Documentation/admin-guide/sysctl/vm.rst, dirty_expire_centisecs and dirty_writeback_centisecs; measured (results/, knobs): on a virtual disk no difference to 1 s that stands out of a noise of several times",
    risk: "shorter times write data that retention would have dropped",
    dev: false,
    check: |host, _| {
        vec![
            at_most(host, Place::sysctl("vm.dirty_expire_centisecs"), 3000).item("expire"),
            at_most(host, Place::sysctl("vm.dirty_writeback_centisecs"), 500).item("writeback"),
        ]
    },
};
