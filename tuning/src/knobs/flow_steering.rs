//! Flow steering: destination port `port + i` to queue `i`, whose interrupt is on the core of shard `i`.
//!
//! This is what a port per core is for: the NIC brings each packet to the core that owns the data. Rules have no netlink
//! message; the program `ethtool` is run for them.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, exactly, judge};
use crate::knobs::nic_queues::{no_nic, receive_queues};
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "flow-steering",
    area: Area::Nic,
    what: "One NIC rule per shard: TCP port + i to queue i (ethtool -K rx-ntuple-filter, -N)",
    why: "Without it the NIC hashes each connection to any queue: its packets are handled on one core and read on another, through that core's cold cache",
    source: "kernel Documentation/networking/scaling.rst, accelerated RFS and n-tuple filters; ethtool(8), -N",
    risk: "uses one filter entry per shard; other rules on the NIC stay",
    dev: false,
    check,
};

fn check(host: &Host, plan: &Plan) -> Vec<Reading> {
    let Some(nic) = &plan.nic else { return vec![no_nic()] };
    let feature = Place::nic(nic, "feature/rx-ntuple-filter");
    match host.read(&feature) {
        Ok(now) if now == "off [fixed]" => {
            let note = "this NIC cannot steer by port; RPS and RFS bring packets to the reading core instead";
            return vec![Reading::info(now, note)];
        }
        Ok(_) => {}
        Err(why) => return vec![why.into()],
    }
    let queues = receive_queues(host, nic);
    let mut readings = vec![match host.read(&feature).as_deref() {
        Ok("on [fixed]") => Reading::ok("on", "on"),
        _ => exactly(host, feature, "on"),
    }
    .item("filters")];
    for shard in 0..plan.cores.len() {
        let port = plan.port + shard as u16;
        let item = format!("port{port}");
        let place = Place::FlowRule { nic: nic.clone(), port };
        readings.push(match shard < queues {
            true => {
                let queue = shard.to_string();
                judge(host, place, "its shard's queue", &queue, |now| Some(now == queue)).item(item)
            }
            false => Reading::info("none", format!("no queue of its own: the NIC has {queues}")).item(item),
        });
    }
    readings
}

/// Whether the NIC can bring each shard's packets to its core: then software must not move them again.
pub fn can_steer(host: &Host, plan: &Plan) -> bool {
    let Some(nic) = &plan.nic else { return false };
    let feature = host.read(&Place::nic(nic, "feature/rx-ntuple-filter"));
    receive_queues(host, nic) >= plan.cores.len() && feature.is_ok_and(|now| now != "off [fixed]")
}
