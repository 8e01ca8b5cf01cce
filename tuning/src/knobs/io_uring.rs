//! kernel.io_uring_disabled: without io_uring there is no Ringlane.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, judge};
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "io-uring",
    area: Area::Limits,
    what: "Who may create an io_uring (kernel.io_uring_disabled, io_uring_group)",
    why: "Every shard is one ring; the broker cannot start without. 2 forbids it to everybody, 1 to all but members of kernel.io_uring_group and CAP_SYS_ADMIN",
    source: "kernel Documentation/admin-guide/sysctl/kernel.rst, io_uring_disabled (6.6 and later)",
    risk: "io_uring is a large kernel interface that some sites forbid on purpose; set a group and 1 instead to limit it",
    dev: true,
    check,
};

fn check(host: &Host, _: &Plan) -> Vec<Reading> {
    let place = Place::sysctl("kernel.io_uring_disabled");
    if !host.exists("/proc/sys/kernel/io_uring_disabled") {
        return vec![Reading::info("no such switch", "kernels before 6.6 allow io_uring to everybody")];
    }
    let group = host.word("/proc/sys/kernel/io_uring_group").unwrap_or_default();
    let reading = judge(host, place, "0", "0", |now| match now {
        "0" => Some(true),
        "1" => Some(group.parse::<i64>().is_ok_and(|group| group >= 0)),
        "2" => Some(false),
        _ => None,
    });
    let restricted = reading.now == "1" && reading.setting.is_none();
    vec![match restricted {
        true => reading.note(format!("only for members of group {group}: the user ringlane must be one")),
        false => reading,
    }]
}
