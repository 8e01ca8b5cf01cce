//! Read-ahead of the disk: cold fetches are sequential.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, judge};
use crate::knobs::disk_scheduler::per_disk;
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "disk-read-ahead",
    area: Area::Disk,
    what: "Read-ahead (/sys/block/DISK/queue/read_ahead_kb)",
    why: "A consumer that replays reads a segment from front to back. The broker asks for cold ranges ahead by itself, so more than this only makes the kernel read beside it, and less makes many small reads",
    source: "kernel Documentation/ABI/stable/sysfs-block, read_ahead_kb; measured (results/, knobs) by a replay from a virtual disk, against 512 KiB: 4 KiB give 0.3x, the kernel's default of 128 KiB 0.6x, 2 MiB and 8 MiB a quarter. Another disk may have its best elsewhere, so 128 KiB is left alone",
    risk: "other programs that read large files from front to back may want more",
    dev: false,
    check,
};

fn check(host: &Host, plan: &Plan) -> Vec<Reading> {
    per_disk(plan, |disk| {
        let place = Place::file(format!("/sys/block/{disk}/queue/read_ahead_kb"));
        judge(host, place, "128..512", "512", |now| Some((128..=512).contains(&now.parse::<u64>().ok()?)))
    })
}
