//! Work the NIC or the stack does per large packet instead of per small one.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, judge};
use crate::knobs::nic_queues::no_nic;
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "nic-offloads",
    area: Area::Nic,
    what: "Offloads: checksums, segmentation (TSO, GSO), GRO, scatter-gather on; LRO off (ethtool -K)",
    why: "sendfile hands page-cache pages to the NIC; without scatter-gather and checksum offload each byte is copied first, without segmentation and GRO each 1448 bytes cost a walk through the stack",
    source: "kernel Documentation/networking/segmentation-offloads.rst and checksum-offloads.rst",
    risk: "a driver with a broken offload corrupts or stalls; LRO off matters to hosts that also route",
    dev: false,
    check,
};

const WANTED: [(&str, &str); 7] = [
    ("rx-checksum", "on"),
    ("rx-gro", "on"),
    ("rx-lro", "off"),
    ("tx-scatter-gather", "on"),
    ("tx-generic-segmentation", "on"),
    ("tx-tcp-segmentation", "on"),
    ("tx-tcp6-segmentation", "on"),
];

fn check(host: &Host, plan: &Plan) -> Vec<Reading> {
    let Some(nic) = &plan.nic else { return vec![no_nic()] };
    let one = |(name, wanted): (&str, &str)| {
        let place = Place::nic(nic, &format!("feature/{name}"));
        let reading = match host.read(&place) {
            Ok(now) if now == format!("{wanted} [fixed]") => Reading::ok(now, wanted),
            Ok(now) if now.ends_with("[fixed]") => Reading::info(now, "the driver does not let it be changed"),
            Ok(_) => judge(host, place, wanted, wanted, |now| {
                ["on", "off"].contains(&now).then_some(now == wanted)
            }),
            Err(why) => why.into(),
        };
        reading.item(name)
    };
    WANTED.map(one).into()
}
