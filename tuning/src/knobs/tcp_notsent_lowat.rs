//! net.ipv4.tcp_notsent_lowat: reported; Ringlane bounds its send buffers itself.

use crate::knob::{Area, Knob, shown};
use crate::place::Place;

pub const KNOB: Knob = Knob {
    name: "tcp-notsent-lowat",
    area: Area::Net,
    what: "Unsent bytes above which a socket is not writable (net.ipv4.tcp_notsent_lowat)",
    why: "Bounds what waits in a socket beyond the congestion window; with send buffers fixed at 100 KiB there is little left to bound, so the default (4294967295, off) stays",
    source: "kernel Documentation/networking/ip-sysctl.rst, tcp_notsent_lowat; measured (results/, knobs): off or 16 KiB is the same to fetches",
    risk: "low values cause more wake-ups per byte sent, for every program on the host",
    dev: false,
    check: |host, _| vec![shown(host, Place::sysctl("net.ipv4.tcp_notsent_lowat"), "left as it is")],
};
