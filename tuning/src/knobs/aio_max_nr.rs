//! fs.aio-max-nr: reported. Ringlane uses io_uring; some brokers it is compared with use the older interface.

use crate::knob::{Area, Knob, shown};
use crate::place::Place;

pub const KNOB: Knob = Knob {
    name: "aio-max-nr",
    area: Area::Limits,
    what: "Requests of the old asynchronous I/O interface (fs.aio-max-nr)",
    why: "Nothing to Ringlane, which uses io_uring only; a broker built on seastar needs some 11000 per core and refuses to start without",
    source: "kernel Documentation/admin-guide/sysctl/fs.rst, aio-nr and aio-max-nr",
    risk: "reported only",
    dev: true,
    check: |host, _| vec![shown(host, Place::sysctl("fs.aio-max-nr"), "for other brokers in a comparison")],
};
