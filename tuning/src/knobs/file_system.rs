//! The file system with the data: advice.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading};
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "file-system",
    area: Area::Disk,
    what: "Type of the file system with the data: XFS or ext4",
    why: "Both preallocate segments and take plain writes into the page cache, which is how the broker appends. ext4: every append takes the inode lock and a journal handle. XFS: allocation groups let shards allocate at the same time, and from 7.0 on buffered writes through io_uring do not need a worker. Others copy (btrfs, zfs, overlay), keep nothing (tmpfs) or are elsewhere (nfs)",
    source: "kernel commit 66fa3cedf16a (XFS, non-blocking buffered writes); xfs(5), ext4(5); measured on ext4: 0.28-0.31 s/GB into new pages, 0.16 over resident ones",
    risk: "reported only: changing it means moving the data",
    dev: false,
    check,
};

fn check(_: &Host, plan: &Plan) -> Vec<Reading> {
    let Some(mount) = &plan.mount else { return vec![Reading::unavailable("no mount found for the data directory")] };
    let reading = match mount.file_system.as_str() {
        good @ ("xfs" | "ext4") => Reading::ok(good, "xfs or ext4"),
        other => Reading::by_hand(other, "xfs or ext4", "mount a file system of its own at the data directory"),
    };
    vec![reading.item(mount.point.as_str())]
}
