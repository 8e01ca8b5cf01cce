//! Queue depth and write-back throttling of the disk: reported.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, shown};
use crate::knobs::disk_scheduler::per_disk;
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "disk-queue-depth",
    area: Area::Disk,
    what: "Requests a disk takes at once, and write-back throttling (queue/nr_requests, wbt_lat_usec)",
    why: "Write-back is paced by the broker with few ranges in flight, so depth is not what bounds it; throttling above the shown read latency protects cold reads from it",
    source: "kernel Documentation/ABI/stable/sysfs-block, nr_requests and wbt_lat_usec",
    risk: "reported only",
    dev: false,
    check,
};

fn check(host: &Host, plan: &Plan) -> Vec<Reading> {
    let depth = |disk: &str| shown(host, Place::file(format!("/sys/block/{disk}/queue/nr_requests")), "requests");
    let throttle = |disk: &str| {
        shown(host, Place::file(format!("/sys/block/{disk}/queue/wbt_lat_usec")), "us of read latency; 0 is no throttling")
    };
    [per_disk(plan, depth), per_disk(plan, throttle)].concat()
}
