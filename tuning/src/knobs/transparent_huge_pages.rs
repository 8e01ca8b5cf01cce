//! Transparent huge pages: on request, and never by stalling the one who asks.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, judge};
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "transparent-huge-pages",
    area: Area::Memory,
    what: "When memory is backed by 2 MiB pages (transparent_hugepage/enabled and defrag)",
    why: "`always` lets any page fault stop to compact memory, and a shard that faults stops its core; `madvise` leaves the choice to programs that ask",
    source: "kernel Documentation/admin-guide/mm/transhuge.rst, the global controls and defrag; measured (results/, knobs): madvise or always is the same to produce requests while memory is plentiful",
    risk: "other programs that rely on `always` (some JVM set-ups) lose huge pages they did not ask for",
    dev: false,
    check,
};

fn check(host: &Host, _: &Plan) -> Vec<Reading> {
    const AT: &str = "/sys/kernel/mm/transparent_hugepage";
    vec![
        judge(host, Place::file(format!("{AT}/enabled")), "madvise or never", "madvise", |now| {
            ["always", "madvise", "never"].contains(&now).then_some(now != "always")
        })
        .item("enabled"),
        judge(host, Place::file(format!("{AT}/defrag")), "not always", "madvise", |now| {
            ["always", "defer", "defer+madvise", "madvise", "never"].contains(&now).then_some(now != "always")
        })
        .item("defrag"),
    ]
}
