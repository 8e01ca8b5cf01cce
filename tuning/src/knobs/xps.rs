//! Transmit packet steering: shard `i` sends through queue `i`, so its acknowledgements come back to its own core.

use crate::cpus;
use crate::host::Host;
use crate::knob::{Area, Knob, Reading, judge};
use crate::knobs::nic_queues::no_nic;
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "xps",
    area: Area::Nic,
    what: "Which core sends through which queue (queues/tx-*/xps_cpus)",
    why: "A queue of its own means no lock shared with another shard, and completions (freed pages) on the core that sent",
    source: "kernel Documentation/networking/scaling.rst, XPS",
    risk: "threads on cores without a queue of their own fall back to hashing",
    dev: false,
    check,
};

fn check(host: &Host, plan: &Plan) -> Vec<Reading> {
    let Some(nic) = &plan.nic else { return vec![no_nic()] };
    let queues = host.list(&format!("/sys/class/net/{nic}/queues"));
    let queues: Vec<&String> = queues.iter().filter(|name| name.starts_with("tx-")).collect();
    if queues.len() < plan.cores.len() {
        let note = format!("{} shards share them; the kernel's own choice stays", plan.cores.len());
        return vec![Reading::info(format!("{} queues", queues.len()), note)];
    }
    let one = |(queue, core): (&&String, &usize)| {
        let mask = cpus::mask(&[*core]);
        let place = Place::file(format!("/sys/class/net/{nic}/queues/{queue}/xps_cpus"));
        let canonical = cpus::canonical_mask(&mask);
        let good = |now: &str| cpus::canonical_mask(now).map(|now| Some(now) == canonical);
        judge(host, place, "its shard's core", &mask, good).item(queue.as_str())
    };
    queues.iter().zip(&plan.cores).map(one).collect()
}
