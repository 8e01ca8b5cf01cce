//! Descriptors in the NIC's rings: how long a core may look away before packets are lost.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, at_least};
use crate::knobs::nic_queues::no_nic;
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "nic-rings",
    area: Area::Nic,
    what: "Ring sizes of the NIC (ethtool -G rx, tx)",
    why: "A shard handles a whole turn of its loop between two looks at the NIC; at 25 Gbit/s 1024 descriptors of 1500 bytes fill in half a millisecond, and what does not fit is lost and sent again after a timeout",
    source: "ethtool(8), -G; 1024 x 1500 B / 25 Gbit/s = 0.49 ms",
    risk: "larger rings hold more packet memory than the last-level cache; the link stops for a moment",
    dev: false,
    check,
};

/// More than this leaves the cache on every NIC we know of.
const DESCRIPTORS: u64 = 4096;

fn check(host: &Host, plan: &Plan) -> Vec<Reading> {
    let Some(nic) = &plan.nic else { return vec![no_nic()] };
    let one = |ring: &str| {
        let most = host.read(&Place::nic(nic, &format!("ring/{ring}-max")));
        match most.map(|most| most.parse::<u64>().unwrap_or(0)) {
            Ok(most) => at_least(host, Place::nic(nic, &format!("ring/{ring}")), DESCRIPTORS.min(most)),
            Err(why) => why.into(),
        }
        .item(ring)
    };
    vec![one("rx"), one("tx")]
}
