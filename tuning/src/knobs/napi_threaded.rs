//! Threaded NAPI: packet handling in a kernel thread of its own. Off, so that it stays on the shard's core.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, exactly};
use crate::knobs::nic_queues::no_nic;
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "napi-threaded",
    area: Area::Nic,
    what: "Packet handling in kernel threads (/sys/class/net/NIC/threaded)",
    why: "The threads run where the scheduler likes, so packets are handled on another core than the shard that reads them; in the interrupt they stay on its core",
    source: "kernel Documentation/networking/napi.rst, threaded NAPI",
    risk: "none: off is the kernel's default",
    dev: false,
    check,
};

fn check(host: &Host, plan: &Plan) -> Vec<Reading> {
    let Some(nic) = &plan.nic else { return vec![no_nic()] };
    vec![exactly(host, Place::file(format!("/sys/class/net/{nic}/threaded")), "0")]
}
