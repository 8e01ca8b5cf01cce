//! net.ipv4.tcp_max_syn_backlog: how many handshakes may be half done.

use crate::knob::{Area, Knob, at_least};
use crate::place::Place;

pub const KNOB: Knob = Knob {
    name: "syn-backlog",
    area: Area::Net,
    what: "Half-open connections per listener (net.ipv4.tcp_max_syn_backlog)",
    why: "A reconnect storm of thousands of clients arrives within one round trip; beyond this bound the kernel falls back to SYN cookies, which lose TCP options such as window scaling when timestamps are off",
    source: "kernel Documentation/networking/ip-sysctl.rst, tcp_max_syn_backlog and tcp_syncookies; measured (results/, knobs): too noisy to tell over loopback, where no handshake stays half-open",
    risk: "none: some hundred bytes for each half-open connection",
    dev: true,
    check: |host, _| vec![at_least(host, Place::sysctl("net.ipv4.tcp_max_syn_backlog"), 4096)],
};
