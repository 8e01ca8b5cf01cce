//! net.core.somaxconn: how many finished handshakes may wait for accept.

use crate::knob::{Area, Knob, at_least};
use crate::place::Place;

pub const KNOB: Knob = Knob {
    name: "somaxconn",
    area: Area::Net,
    what: "Length of the accept queue (net.core.somaxconn)",
    why: "Every shard has its own listener; when all clients of a restarted host come back at once, what does not fit in the queue is dropped and retried by the client a second later. The lower of this and the broker's socket.listen.backlog.size counts, and that is 50, as in Kafka, unless raised (the package raises it)",
    source: "listen(2); kernel Documentation/admin-guide/sysctl/net.rst, default 4096 since 5.4; measured (results/, knobs): 300 clients that come while a shard is busy are all served 11 ms after it is free with both at 4096, after 0.7 s with somaxconn 128, after 1 to 2 s with the broker's at 50",
    risk: "none: memory is used only by connections that wait",
    dev: true,
    check: |host, _| vec![at_least(host, Place::sysctl("net.core.somaxconn"), 4096)],
};
