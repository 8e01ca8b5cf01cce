//! The budget for received bytes is used up by requests that do not come to their end, and nobody who waits for it goes on.
//! Who is to blame cannot be told from who waits: a connection that waits for memory is not received from, so that even its
//! end is not seen. The connections that hold most are closed.

use super::Shard;
use super::connection::{Connection, Paused};
use crate::ids::Now;
use crate::io::Ring;
use crate::io::disk::Disk;

/// After so long those are closed that are silent, or wait themselves.
const STUCK_NS_MAX: u64 = 1_000_000_000;
/// After so long it is anybody, though some bytes come now and then.
const TRICKLE_NS_MAX: u64 = 10_000_000_000;

fn is_silent(connection: &Connection, now: Now) -> bool {
    let waits = !matches!(connection.paused, Paused::No | Paused::PutOff);
    waits || now.monotonic_ns.saturating_sub(connection.active_ns) >= STUCK_NS_MAX
}

impl<I: Ring + Disk> Shard<I> {
    /// Closes the connections that hold most, until half of what is held is free.
    pub(super) fn close_stuck(&mut self, now: Now) {
        let lasts_ns = self.stuck.ns(now);
        if lasts_ns < STUCK_NS_MAX {
            return;
        }
        let anybody = lasts_ns >= TRICKLE_NS_MAX;
        let holders = || self.connections.iter().flatten().filter(|c| c.reserved > 0);
        let all: usize = holders().map(|c| c.reserved).sum();
        let to_blame = holders().filter(|c| anybody || is_silent(c, now)).map(|c| (c.reserved, c.id)).collect();
        let what = "are reserved for its request, and others wait for memory";
        if self.close_largest(to_blame, all - all / 2, what, now) > 0 {
            self.stuck.note(false, now);
        }
    }
}
