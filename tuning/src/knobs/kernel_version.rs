//! The kernel release: what the broker needs at least, and what later ones bring. Reported.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading};
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "kernel-version",
    area: Area::Host,
    what: "Kernel release (/proc/sys/kernel/osrelease)",
    why: "The ring uses SINGLE_ISSUER and DEFER_TASKRUN, which 6.1 has; cachestat(2), by which a shard knows what is in the page cache, came with 6.5",
    source: "io_uring_setup(2); cachestat(2)",
    risk: "a newer kernel is an upgrade of the host",
    dev: true,
    check,
};

fn check(host: &Host, _: &Plan) -> Vec<Reading> {
    let Some(release) = host.word("/proc/sys/kernel/osrelease") else {
        return vec![Reading::unavailable("no /proc/sys/kernel/osrelease here")];
    };
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>());
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return vec![Reading::unavailable(format!("not a kernel release: {release}"))];
    };
    vec![match (major, minor) {
        (..6, _) | (6, 0) => Reading::by_hand(release, ">= 6.1", "the broker needs 6.1; install a newer kernel"),
        (6, 1..5) => Reading::ok(release, ">= 6.1").note("6.5 and later also have cachestat(2)"),
        _ => Reading::ok(release, ">= 6.1"),
    }]
}
