//! net.ipv4.tcp_rmem: how far the kernel may grow a receive buffer by itself.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, judge};
use crate::place::Place;
use crate::plan::Plan;

/// The kernel's own default since 6.16.
const MAX_BYTES: u64 = 32 << 20;

pub const KNOB: Knob = Knob {
    name: "tcp-rmem",
    area: Area::Net,
    what: "Bounds of TCP receive buffers (net.ipv4.tcp_rmem: least, first, most)",
    why: "Ringlane leaves receive buffers to the kernel (socket.receive.buffer.bytes=-1), so the third number bounds what one producer can have in flight: 6 MiB fill 25 Gbit/s for 2 ms only",
    source: "kernel Documentation/networking/ip-sysctl.rst; default raised to 32 MiB in 6.16; measured: autotuned receive costs 0.14 s/GB, fixed 64-256 KiB buffers 0.22-0.45; 6 or 32 MiB: too noisy to tell over loopback, which has no round trip (results/, knobs)",
    risk: "a slow shard may hold up to this much per connection, within net.ipv4.tcp_mem",
    dev: true,
    check,
};

fn check(host: &Host, _: &Plan) -> Vec<Reading> {
    vec![third_at_least(host, "net.ipv4.tcp_rmem", MAX_BYTES)]
}

/// Judges the third of three numbers and keeps the first two.
pub fn third_at_least(host: &Host, name: &str, least: u64) -> Reading {
    let place = Place::sysctl(name);
    let now = host.read(&place).unwrap_or_default();
    let numbers = |text: &str| -> Option<[u64; 3]> {
        let parsed: Option<Vec<u64>> = text.split(' ').map(|n| n.parse().ok()).collect();
        parsed?.try_into().ok()
    };
    let value = numbers(&now).map_or(String::new(), |[low, first, _]| format!("{low} {first} {least}"));
    judge(host, place, &format!("third >= {least}"), &value, |now| Some(numbers(now)?[2] >= least))
}
