//! The disk's I/O scheduler: none where the device orders requests itself.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, judge};
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "disk-scheduler",
    area: Area::Disk,
    what: "I/O scheduler (/sys/block/DISK/queue/scheduler)",
    why: "NVMe and virtual disks have deep queues of their own, and a scheduler before them costs a lock and a copy of their work; a turning disk needs mq-deadline so that write-back does not starve cold reads",
    source: "kernel Documentation/block/switching-sched.rst, deadline-iosched.rst and kyber; measured (results/, knobs): nothing for fdatasync on a virtual disk, too noisy to tell for replays",
    risk: "without a scheduler I/O priorities of other programs are not honoured",
    dev: false,
    check,
};

fn check(host: &Host, plan: &Plan) -> Vec<Reading> {
    per_disk(plan, |disk| {
        // Virtual disks often call themselves rotational.
        let virtual_disk = disk.starts_with("vd") || disk.starts_with("xvd");
        let turns = host.word(&format!("/sys/block/{disk}/queue/rotational")).as_deref() == Some("1") && !virtual_disk;
        let (wanted, value): (&[&str], &str) =
            if turns { (&["mq-deadline", "bfq"], "mq-deadline") } else { (&["none"], "none") };
        let place = Place::file(format!("/sys/block/{disk}/queue/scheduler"));
        judge(host, place, &wanted.join(" or "), value, |now| {
            let word = !now.is_empty() && now.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
            word.then_some(wanted.contains(&now))
        })
    })
}

/// One reading per disk under the data, named after it.
pub fn per_disk(plan: &Plan, reading: impl Fn(&str) -> Reading) -> Vec<Reading> {
    if plan.disks.is_empty() {
        return vec![Reading::unavailable("no disk found under the data directory; name one with --disk")];
    }
    plan.disks.iter().map(|disk| reading(disk).item(disk.as_str())).collect()
}
