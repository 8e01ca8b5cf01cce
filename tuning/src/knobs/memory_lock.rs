//! RLIMIT_MEMLOCK: reported, since the unit sets it for the broker.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading};
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "memory-lock",
    area: Area::Limits,
    what: "Memory a process may lock (RLIMIT_MEMLOCK)",
    why: "A ring's own memory counts against it for users without CAP_IPC_LOCK, 128 to 256 KiB for each shard, and a broker that is refused it does not start; systemd's default of 8 MiB ends at 32 shards. Pages that fetch.path=send_zc sends come on top",
    source: "io_uring_setup(2), ENOMEM; systemd.exec(5), LimitMEMLOCK; measured by starting one and two shards with less and less (6.18)",
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
