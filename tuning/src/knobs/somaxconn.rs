//! net.core.somaxconn: how many finished handshakes may wait for accept.

use crate::knob::{Area, Knob, at_least};
use crate::place::Place;

pub const KNOB: Knob = Knob {
    name: "somaxconn",
    area: Area::Net,
    what: "Length of the accept queue (net.core.somaxconn)",
    why: "Every shard has its own listener; when all clients of a restarted host come back at once, what does not fit in the queue is dropped and retried by the client a second later",
    source: "kernel Documentation/admin-guide/sysctl/net.rst; the kernel's own default is 4096 since 5.4",
    risk: "none: memory is used only by connections that wait",
    dev: true,
    check: |host, _| vec![at_least(host, Place::sysctl("net.core.somaxconn"), 4096)],
};
