//! Free space for the data.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading};
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "free-space",
    area: Area::Disk,
    what: "Free space in the file system with the data",
    why: "Segments are preallocated, and a partition whose disk is full goes offline; nearly full flash and file systems also get slow before they get full",
    source: "statvfs(3); Apache Kafka documentation, log.retention.bytes",
    risk: "reported only: lower log.retention.bytes or add disk",
    dev: true,
    check,
};

fn check(host: &Host, plan: &Plan) -> Vec<Reading> {
    let Some((free, size)) = host.space(&plan.data_dir).filter(|(_, size)| *size > 0) else {
        return vec![Reading::unavailable("not told here")];
    };
    let percent = free as f64 * 100.0 / size as f64;
    let now = format!("{percent:.0} % of {} GiB", size >> 30);
    vec![match percent >= 10.0 {
        true => Reading::ok(now, ">= 10 %"),
        false => Reading::by_hand(now, ">= 10 %", "lower log.retention.bytes, or add disk"),
    }]
}
