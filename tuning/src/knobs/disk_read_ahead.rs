//! Read-ahead of the disk: cold fetches are sequential.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, at_least};
use crate::knobs::disk_scheduler::per_disk;
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "disk-read-ahead",
    area: Area::Disk,
    what: "Read-ahead (/sys/block/DISK/queue/read_ahead_kb)",
    why: "A consumer that replays reads a segment from front to back. The broker asks for cold ranges ahead by itself; the kernel's default of 128 KiB covers the rest, and less makes many small reads",
    source: "kernel Documentation/ABI/stable/sysfs-block, read_ahead_kb; readahead(2)",
    risk: "far more than needed evicts page cache that other consumers are about to read",
    dev: false,
    check,
};

fn check(host: &Host, plan: &Plan) -> Vec<Reading> {
    per_disk(plan, |disk| at_least(host, Place::file(format!("/sys/block/{disk}/queue/read_ahead_kb")), 128))
}
