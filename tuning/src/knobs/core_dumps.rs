//! Core dumps: where they would go. Reported.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading};
use crate::knobs::memory_lock::limit;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "core-dumps",
    area: Area::Limits,
    what: "Whether a crash leaves a core dump, and where (kernel.core_pattern, RLIMIT_CORE)",
    why: "The broker stops on its own bugs rather than serve wrong data; a dump tells which. It is as large as the process and must not land on the data disk",
    source: "core(5); kernel Documentation/admin-guide/sysctl/kernel.rst, core_pattern",
    risk: "reported only",
    dev: false,
    check,
};

fn check(host: &Host, _: &Plan) -> Vec<Reading> {
    let pattern = match host.word("/proc/sys/kernel/core_pattern") {
        Some(pattern) => Reading::info(pattern, "a leading | is a program that takes the dump"),
        None => Reading::unavailable("no core_pattern here"),
    };
    let size = match limit(host, "Max core file size") {
        Some(size) => Reading::info(size, "of this shell; ringlane.service sets LimitCORE itself"),
        None => Reading::unavailable("no /proc/self/limits here"),
    };
    vec![pattern.item("pattern"), size.item("size")]
}
