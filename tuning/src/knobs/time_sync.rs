//! Time synchronisation: retention, timestamps and end-to-end latency depend on it.

use crate::host::{Host, Unreadable};
use crate::knob::{Area, Knob, Reading};
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "time-sync",
    area: Area::Host,
    what: "A daemon that keeps the clock (chrony, systemd-timesyncd, ntpd)",
    why: "Retention by time and LogAppendTime use the wall clock, and an end-to-end latency between two hosts is only as true as their clocks agree",
    source: "Apache Kafka documentation, log.message.timestamp.type and log.retention.ms",
    risk: "reported only: installing one is yours to choose",
    dev: false,
    check,
};

fn check(host: &Host, _: &Plan) -> Vec<Reading> {
    let mut unreadable: Option<Unreadable> = None;
    let mut known = false;
    for name in ["chrony.service", "chronyd.service", "systemd-timesyncd.service", "ntpsec.service", "ntpd.service"] {
        match host.read(&Place::Unit { name: name.to_string() }) {
            Ok(state) if state == "active" => return vec![Reading::ok(name.trim_end_matches(".service"), "one")],
            Ok(_) => known = true,
            Err(why) => unreadable = Some(why),
        }
    }
    match (known, unreadable) {
        (false, Some(why)) => vec![why.into()],
        _ => vec![Reading::by_hand("none runs", "one", "install chrony, or start systemd-timesyncd")],
    }
}
