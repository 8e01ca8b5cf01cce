//! How many receive queues the NIC has: one per shard, so that each shard's packets can come to its own core.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, at_least};
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "nic-queues",
    area: Area::Nic,
    what: "Queues of the NIC (ethtool -L combined)",
    why: "A queue per shard is what flow steering and interrupt placement need; with fewer, shards share a queue and one of them handles the other's packets",
    source: "kernel Documentation/networking/scaling.rst, RSS: IRQ and queue configuration",
    risk: "the link stops for a moment while the driver rebuilds its queues; connections survive",
    dev: false,
    check,
};

fn check(host: &Host, plan: &Plan) -> Vec<Reading> {
    let Some(nic) = &plan.nic else { return vec![no_nic()] };
    let shards = plan.cores.len() as u64;
    let most = match host.read(&Place::nic(nic, "channel/combined-max")) {
        Ok(most) => most.parse::<u64>().unwrap_or(0),
        Err(why) => return vec![why.into()],
    };
    let note = match most < shards {
        true => format!("the NIC has {most} queues at most for {shards} shards: RPS and RFS do the rest"),
        false => String::new(),
    };
    vec![at_least(host, Place::nic(nic, "channel/combined"), shards.min(most)).with_note(&note)]
}

pub fn no_nic() -> Reading {
    Reading::unavailable("no network interface found; name one with --nic")
}

/// Receive queues as the kernel has them now.
pub fn receive_queues(host: &Host, nic: &str) -> usize {
    host.list(&format!("/sys/class/net/{nic}/queues")).iter().filter(|name| name.starts_with("rx-")).count()
}
