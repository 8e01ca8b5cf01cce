//! net.ipv4.tcp_slow_start_after_idle: whether a connection that paused starts small again.

use crate::knob::{Area, Knob, exactly};
use crate::place::Place;

pub const KNOB: Knob = Knob {
    name: "tcp-slow-start-after-idle",
    area: Area::Net,
    what: "Whether an idle connection shrinks its congestion window (net.ipv4.tcp_slow_start_after_idle)",
    why: "Consumers that long-poll and producers that linger are idle for longer than one retransmission timeout again and again; each large reply after that takes extra round trips",
    source: "kernel Documentation/networking/ip-sysctl.rst, tcp_slow_start_after_idle; RFC 2861",
    risk: "after a pause a burst goes out at the old rate, which a changed path may drop",
    dev: false,
    check: |host, _| vec![exactly(host, Place::sysctl("net.ipv4.tcp_slow_start_after_idle"), "0")],
};
