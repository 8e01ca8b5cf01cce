//! Open files: the kernel's two bounds, and the bound of the process.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, at_least};
use crate::knobs::memory_lock::limit;
use crate::place::Place;
use crate::plan::Plan;

const WANTED: u64 = 1_048_576;

pub const KNOB: Knob = Knob {
    name: "open-files",
    area: Area::Limits,
    what: "Open files, for the host and for one process (fs.file-max, fs.nr_open, RLIMIT_NOFILE)",
    why: "One file per segment, two per segment for its indexes, one per connection: 10000 partitions and as many clients pass 65536",
    source: "kernel Documentation/admin-guide/sysctl/fs.rst; systemd.exec(5), LimitNOFILE",
    risk: "none: kernel memory is used only by files that are open",
    dev: true,
    check,
};

fn check(host: &Host, _: &Plan) -> Vec<Reading> {
    let process = match limit(host, "Max open files") {
        None => Reading::unavailable("no /proc/self/limits here"),
        Some(now) => Reading::info(now, "of this shell; ringlane.service sets LimitNOFILE itself").wanted(WANTED.to_string()),
    };
    vec![
        at_least(host, Place::sysctl("fs.file-max"), WANTED).item("fs.file-max"),
        at_least(host, Place::sysctl("fs.nr_open"), WANTED).item("fs.nr_open"),
        process.item("process"),
    ]
}
