//! Receive flow steering: where RPS spreads, bring each connection to the core that reads it.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, at_least};
use crate::knobs::flow_steering::can_steer;
use crate::knobs::nic_queues::{no_nic, receive_queues};
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "rfs",
    area: Area::Nic,
    what: "Software steering to the reading core (net.core.rps_sock_flow_entries, rx-*/rps_flow_cnt)",
    why: "Shards are pinned, so the core that read a connection last is the core that will read it next: RFS learns exactly that. Needed only where the NIC cannot steer by port",
    source: "kernel Documentation/networking/scaling.rst, RFS: 32768 entries for a busy server; measured (results/, knobs): over loopback RPS with RFS halves fetches and a small request takes 1.3x, so never without need; its use with a single-queue NIC is not measured",
    risk: "256 KiB of tables; no effect where RPS is off",
    dev: false,
    check,
};

const ENTRIES: u64 = 32768;

fn check(host: &Host, plan: &Plan) -> Vec<Reading> {
    let Some(nic) = &plan.nic else { return vec![no_nic()] };
    if can_steer(host, plan) || plan.cores.len() == 1 {
        return vec![Reading::info("not needed", "the NIC steers, or there is one shard")];
    }
    let mut readings = vec![at_least(host, Place::sysctl("net.core.rps_sock_flow_entries"), ENTRIES).item("table")];
    let queues = receive_queues(host, nic) as u64;
    for queue in 0..queues {
        let place = Place::file(format!("/sys/class/net/{nic}/queues/rx-{queue}/rps_flow_cnt"));
        readings.push(at_least(host, place, ENTRIES / queues).item(format!("rx-{queue}")));
    }
    readings
}
