//! The kernel's random numbers: reported.

use crate::knob::{Area, Knob, shown};
use crate::place::Place;

pub const KNOB: Knob = Knob {
    name: "entropy",
    area: Area::Host,
    what: "Whether the random number generator is seeded (kernel.random.entropy_avail)",
    why: "Topic and producer ids are random; getrandom(2) blocks only until the generator is seeded once. Since 5.18 this file shows 256 from then on, whatever is drawn",
    source: "random(4); kernel Documentation/admin-guide/sysctl/kernel.rst, random",
    risk: "reported only",
    dev: false,
    check: |host, _| vec![shown(host, Place::sysctl("kernel.random.entropy_avail"), "bits; 256 is full")],
};
