//! Interrupt moderation of the NIC: adaptive, so that load gets batches and a lone request gets its interrupt.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, exactly, shown};
use crate::knobs::nic_queues::no_nic;
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "nic-coalescing",
    area: Area::Nic,
    what: "Interrupt moderation (ethtool -C adaptive-rx; rx-usecs shown)",
    why: "A fixed delay is added to every lone request, none at all interrupts a busy shard for every few packets; adaptive moderation follows the load",
    source: "kernel Documentation/networking/net_dim.rst; ethtool(8), -C",
    risk: "latency varies a little more at medium load; for a latency run with little load rx-usecs 0 by hand may be better",
    dev: false,
    check,
};

fn check(host: &Host, plan: &Plan) -> Vec<Reading> {
    let Some(nic) = &plan.nic else { return vec![no_nic()] };
    vec![
        exactly(host, Place::nic(nic, "coalesce/adaptive-rx"), "on").item("adaptive-rx"),
        shown(host, Place::nic(nic, "coalesce/rx-usecs"), "").item("rx-usecs"),
    ]
}
