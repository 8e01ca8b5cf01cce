//! fstrim: telling the disk which blocks are free, once a week and not on every unlink.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, exactly};
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "fstrim",
    area: Area::Disk,
    what: "Weekly trim of free blocks (fstrim.timer), or the mount option discard",
    why: "A log deletes whole segments all day; a flash disk that is never told copies their dead pages around, and writes get slower over weeks. The timer costs minutes a week, `discard` a little on every unlink",
    source: "fstrim(8); xfs(5) and ext4(5), discard",
    risk: "a trim of a very full disk slows I/O while it runs",
    dev: false,
    check,
};

fn check(host: &Host, plan: &Plan) -> Vec<Reading> {
    if plan.mount.as_ref().is_some_and(|mount| mount.has("discard")) {
        return vec![Reading::ok("discard", "timer or discard")];
    }
    let discards = |disk: &String| {
        host.word(&format!("/sys/block/{disk}/queue/discard_max_bytes")).is_some_and(|bytes| bytes != "0")
    };
    if !plan.disks.iter().any(discards) {
        return vec![Reading::info("no discard", "the disk does not take trims")];
    }
    vec![exactly(host, Place::Unit { name: "fstrim.timer".to_string() }, "active")]
}
