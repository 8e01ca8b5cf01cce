//! net.ipv4.tcp_congestion_control: reported, because a comparison of two hosts needs to know it.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, shown};
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "congestion-control",
    area: Area::Net,
    what: "TCP congestion control and default queueing discipline",
    why: "Within one rack cubic and bbr differ little; across sites they differ much, so two reports are comparable only when both say which it was",
    source: "kernel Documentation/networking/ip-sysctl.rst, tcp_congestion_control",
    risk: "reported only",
    dev: false,
    check,
};

fn check(host: &Host, _: &Plan) -> Vec<Reading> {
    let note = host
        .word("/proc/sys/net/ipv4/tcp_available_congestion_control")
        .map_or(String::new(), |all| format!("available: {all}"));
    vec![
        shown(host, Place::sysctl("net.ipv4.tcp_congestion_control"), &note).item("tcp"),
        shown(host, Place::sysctl("net.core.default_qdisc"), "").item("qdisc"),
    ]
}
