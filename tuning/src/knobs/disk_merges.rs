//! Merging of adjacent requests: on, since write-back makes many.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, exactly};
use crate::knobs::disk_scheduler::per_disk;
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "disk-merges",
    area: Area::Disk,
    what: "Merging of adjacent requests (/sys/block/DISK/queue/nomerges, 0 is on)",
    why: "Write-back of a log is long runs of adjacent pages: merged, they are few large requests. Brokers that write past the page cache turn it off; Ringlane does not",
    source: "kernel Documentation/ABI/stable/sysfs-block, nomerges; measured (results/, knobs): nothing on a virtual disk, with an fdatasync before each acknowledgement",
    risk: "none: 0 is the kernel's default",
    dev: false,
    check,
};

fn check(host: &Host, plan: &Plan) -> Vec<Reading> {
    per_disk(plan, |disk| exactly(host, Place::file(format!("/sys/block/{disk}/queue/nomerges")), "0"))
}
