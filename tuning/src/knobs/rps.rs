//! Receive packet steering: the kernel's way to spread packets over cores when the NIC cannot.

use crate::cpus;
use crate::host::Host;
use crate::knob::{Area, Knob, Reading, judge};
use crate::knobs::flow_steering::can_steer;
use crate::knobs::nic_queues::no_nic;
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "rps",
    area: Area::Nic,
    what: "Spreading received packets in software (queues/rx-*/rps_cpus)",
    why: "With a queue per shard and flow steering packets are already where they belong and RPS would move them away; with fewer queues it takes the protocol work off the one core that has the interrupt",
    source: "kernel Documentation/networking/scaling.rst, RPS; measured (results/, knobs) where packets are already on the right core, as over loopback: with RPS on fetches in 16 KiB replies fall to 0.6x, a small request takes 1.15x",
    risk: "on, it costs an interrupt between cores per batch of packets",
    dev: false,
    check,
};

fn check(host: &Host, plan: &Plan) -> Vec<Reading> {
    let Some(nic) = &plan.nic else { return vec![no_nic()] };
    let cores = if can_steer(host, plan) || plan.cores.len() == 1 { Vec::new() } else { plan.cores.clone() };
    let mask = cpus::mask(&cores);
    let wanted = if cores.is_empty() { "off".to_string() } else { format!("cores {}", plan.cores_text()) };
    let canonical = cpus::canonical_mask(&mask);
    let queues = host.list(&format!("/sys/class/net/{nic}/queues"));
    let one = |queue: &String| {
        let place = Place::file(format!("/sys/class/net/{nic}/queues/{queue}/rps_cpus"));
        let good = |now: &str| cpus::canonical_mask(now).map(|now| Some(now) == canonical);
        judge(host, place, &wanted, &mask, good).item(queue.as_str())
    };
    let readings: Vec<Reading> = queues.iter().filter(|name| name.starts_with("rx-")).map(one).collect();
    if readings.is_empty() { vec![Reading::unavailable(format!("{nic} shows no receive queues"))] } else { readings }
}
