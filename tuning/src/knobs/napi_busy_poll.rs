//! net.core.busy_poll and busy_read, and a NIC's deferred interrupts: reported.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, shown};
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "napi-busy-poll",
    area: Area::Net,
    what: "Busy polling of the NIC (net.core.busy_poll, busy_read; napi_defer_hard_irqs, gro_flush_timeout)",
    why: "The two sysctls act on poll(2) and blocking reads, which a shard does not use: it waits in io_uring. What they would cost is a spinning core for every other program, so they stay off",
    source: "kernel Documentation/networking/napi.rst, busy polling and software IRQ coalescing",
    risk: "reported only",
    dev: false,
    check,
};

fn check(host: &Host, plan: &Plan) -> Vec<Reading> {
    let mut readings = vec![
        shown(host, Place::sysctl("net.core.busy_poll"), "0 is off").item("busy_poll"),
        shown(host, Place::sysctl("net.core.busy_read"), "0 is off").item("busy_read"),
    ];
    if let Some(nic) = &plan.nic {
        for name in ["napi_defer_hard_irqs", "gro_flush_timeout"] {
            readings.push(shown(host, Place::file(format!("/sys/class/net/{nic}/{name}")), "0 is off").item(name));
        }
    }
    readings
}
