//! isolcpus and nohz_full: reported.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading};
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "isolated-cores",
    area: Area::Cpu,
    what: "Cores kept from the scheduler and from the timer tick (isolcpus, nohz_full)",
    why: "On isolated cores nothing but the shard runs, which steadies the tail of a latency report; the broker's pinning works without",
    source: "kernel Documentation/admin-guide/kernel-parameters.txt, isolcpus and nohz_full; timers/no_hz.rst",
    risk: "reported only: a boot option; nohz_full makes each system call dearer",
    dev: false,
    check,
};

fn check(host: &Host, _: &Plan) -> Vec<Reading> {
    let one = |name: &str| {
        let reading = match host.word(&format!("/sys/devices/system/cpu/{name}")) {
            Some(list) if list.is_empty() || list == "(null)" => Reading::info("none", ""),
            Some(list) => Reading::info(list, ""),
            None => Reading::unavailable("not offered by this kernel"),
        };
        reading.item(name)
    };
    vec![one("isolated"), one("nohz_full")]
}
