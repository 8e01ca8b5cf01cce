//! irqbalance: a daemon that would move the interrupts that `irq-affinity` places.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, exactly};
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "irqbalance",
    area: Area::Cpu,
    what: "The irqbalance daemon (irqbalance.service stopped)",
    why: "It rewrites the affinity of every interrupt each ten seconds and knows nothing of shards: the queue of shard 3 ends up on the core of shard 5",
    source: "irqbalance(1); kernel Documentation/networking/scaling.rst, RSS IRQ configuration",
    risk: "other devices' interrupts stay where they are; to keep the daemon, ban the NIC's interrupts with --banirq",
    dev: false,
    check,
};

fn check(host: &Host, _: &Plan) -> Vec<Reading> {
    vec![exactly(host, Place::Unit { name: "irqbalance.service".to_string() }, "inactive")]
}
