//! net.ipv4.tcp_wmem: how far the kernel may grow a send buffer by itself.

use crate::knob::{Area, Knob};
use crate::knobs::tcp_rmem::third_at_least;

pub const KNOB: Knob = Knob {
    name: "tcp-wmem",
    area: Area::Net,
    what: "Bounds of TCP send buffers (net.ipv4.tcp_wmem: least, first, most)",
    why: "Ringlane fixes its own send buffers (socket.send.buffer.bytes), so this bounds only the clients on this host and a broker set to -1; the kernel's default of 4 MiB is enough for both",
    source: "kernel Documentation/networking/ip-sysctl.rst, tcp_wmem; measured: sending 1 MiB replies costs 0.15 s/GB with 128-256 KiB, 0.34-0.41 s/GB autotuned to megabytes",
    risk: "none at the kernel's default",
    dev: true,
    check: |host, _| vec![third_at_least(host, "net.ipv4.tcp_wmem", 4 << 20)],
};
