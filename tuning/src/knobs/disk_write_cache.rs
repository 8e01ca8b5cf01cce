//! The disk's own write cache: reported, because it is what fdatasync waits for.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading};
use crate::knobs::disk_scheduler::per_disk;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "disk-write-cache",
    area: Area::Disk,
    what: "Write cache of the disk and forced unit access (queue/write_cache, fua)",
    why: "`write back` makes each fdatasync wait until the disk has emptied its cache; `write through` (disks with power-loss protection often say so) makes it nearly free. It decides every figure with flush.messages set",
    source: "kernel Documentation/block/writeback_cache_control.rst; ABI/stable/sysfs-block, write_cache and fua",
    risk: "reported only: calling a volatile cache `write through` loses acknowledged data at a power failure",
    dev: false,
    check,
};

fn check(host: &Host, plan: &Plan) -> Vec<Reading> {
    per_disk(plan, |disk| {
        let word = |file: &str| host.word(&format!("/sys/block/{disk}/queue/{file}"));
        match (word("write_cache"), word("fua")) {
            (Some(cache), Some(fua)) if fua == "1" => Reading::info(cache, "with forced unit access"),
            (Some(cache), _) => Reading::info(cache, "without forced unit access"),
            (None, _) => Reading::unavailable("not told here"),
        }
    })
}
