//! vm.min_free_kbytes: pages kept free for those who cannot wait, above all the network receive path.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, at_least};
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "min-free-kbytes",
    area: Area::Memory,
    what: "Free memory the kernel keeps in reserve (vm.min_free_kbytes)",
    why: "The page cache takes all free memory; packets then arrive when no page is free and are dropped, and a shard's append stops to reclaim. The reserve also sets when reclaim in the background starts",
    source: "kernel Documentation/admin-guide/sysctl/vm.rst, min_free_kbytes and watermark_scale_factor",
    risk: "that memory is never used as cache; far too high a value makes the host run out of memory early",
    dev: false,
    check,
};

fn check(host: &Host, _: &Plan) -> Vec<Reading> {
    let Some(memory) = host.memory_bytes() else { return vec![Reading::unavailable("no /proc/meminfo to judge by")] };
    // Half a percent, in whole MiB, between what the kernel takes at most by itself on small hosts and one GiB.
    let wanted_kib = (memory / 200 / (1 << 20)).clamp(32, 1024) * 1024;
    vec![at_least(host, Place::sysctl("vm.min_free_kbytes"), wanted_kib)]
}
