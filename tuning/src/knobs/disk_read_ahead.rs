//! Read-ahead of the disk: cold fetches are sequential.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, exactly};
use crate::knobs::disk_scheduler::per_disk;
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "disk-read-ahead",
    area: Area::Disk,
    what: "Read-ahead (/sys/block/DISK/queue/read_ahead_kb)",
    why: "A consumer that replays reads a segment from front to back. The broker asks for cold ranges ahead by itself, a megabyte at a time; the kernel's default of 128 KiB covers the rest. Less makes many small reads, and more has made replays slower wherever it was measured",
    source: "kernel Documentation/ABI/stable/sysfs-block, read_ahead_kb; measured (results/, knobs) by a replay from a virtual disk: 4 KiB give 0.4x of what 128 KiB give, 512 KiB, 2 MiB and 8 MiB a quarter",
    risk: "other programs that read large files from front to back may want more",
    dev: false,
    check,
};

fn check(host: &Host, plan: &Plan) -> Vec<Reading> {
    per_disk(plan, |disk| exactly(host, Place::file(format!("/sys/block/{disk}/queue/read_ahead_kb")), "128"))
}
