//! vm.dirty_ratio and vm.dirty_background_ratio: when the kernel writes back by itself, and when it stops a writer.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, at_least, at_most};
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "dirty-bytes",
    area: Area::Memory,
    what: "How much unwritten data may wait in the page cache (vm.dirty_ratio, vm.dirty_background_ratio)",
    why: "A shard appends to the page cache and starts write-back itself. Half-way between the two bounds the kernel begins to pause writers, and a paused shard is a paused core: the upper one must be out of reach",
    source: "kernel Documentation/admin-guide/sysctl/vm.rst, dirty_ratio; the half-way point is balance_dirty_pages() in mm/page-writeback.c; measured (results/, knobs): on a virtual disk no difference that stands out of a noise of several times, even at 1 %",
    risk: "more data is lost in a power failure where neither flush.messages nor replication covers it, and sync(2) takes longer",
    dev: false,
    check,
};

fn check(host: &Host, _: &Plan) -> Vec<Reading> {
    // Setting the bytes form zeroes the ratio form and the other way round: whoever chose bytes has thought about it.
    let one = |name: &str, reading: fn(&Host, Place, u64) -> Reading, bound: u64| {
        let bytes = host.read(&Place::sysctl(&format!("vm.{name}_bytes")));
        match bytes.ok().and_then(|bytes| bytes.parse::<u64>().ok()) {
            Some(bytes) if bytes > 0 => Reading::info(format!("{bytes} bytes"), "set in bytes by hand; left as it is"),
            _ => reading(host, Place::sysctl(&format!("vm.{name}_ratio")), bound),
        }
        .item(format!("{name} %"))
    };
    vec![one("dirty", at_least, 40), one("dirty_background", at_most, 10)]
}
