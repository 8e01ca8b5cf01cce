//! RLIMIT_MEMLOCK: reported, since the unit sets it for the broker.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading};
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "memory-lock",
    area: Area::Limits,
    what: "Memory a process may lock (RLIMIT_MEMLOCK)",
    why: "Buffers registered with a ring are pinned and counted against it for users without CAP_IPC_LOCK",
    source: "io_uring_register(2), IORING_REGISTER_BUFFERS; systemd.exec(5), LimitMEMLOCK",
    risk: "locked memory is not reclaimed when the host runs short",
    dev: true,
    check,
};

fn check(host: &Host, _: &Plan) -> Vec<Reading> {
    vec![match limit(host, "Max locked memory") {
        None => Reading::unavailable("no /proc/self/limits here"),
        Some(now) => {
            let note = "of this shell; ringlane.service sets LimitMEMLOCK itself, elsewhere use limits.d/90-ringlane.conf";
            Reading::info(now, note).wanted("unlimited")
        }
    }]
}

/// The soft limit as /proc/self/limits has it.
pub fn limit(host: &Host, name: &str) -> Option<String> {
    let text = host.text("/proc/self/limits").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next().map(str::to_string)
}
