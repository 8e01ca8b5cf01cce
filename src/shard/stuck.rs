//! The budget for received bytes is used up by requests that do not come to their end, and nobody who waits for it goes on.
//! Who is to blame cannot be told from who waits: a connection that waits for memory is not received from, so that even its
//! end is not seen. The connections that hold most are closed.

use super::Shard;
use super::connection::{Connection, Paused};
use crate::ids::{ConnectionId, Now};
use crate::io::Ring;
use crate::io::disk::Disk;

/// After so long those are closed that are silent, or wait themselves.
const STUCK_NS_MAX: u64 = 1_000_000_000;
/// After so long it is anybody, though some bytes come now and then.
const TRICKLE_NS_MAX: u64 = 10_000_000_000;

/// How long nobody has gone on.
#[derive(Default)]
pub(super) struct Stuck {
    since_ns: Option<u64>,
}

impl Stuck {
    /// After a turn: do some wait for memory, and none of them got it?
    pub fn note(&mut self, is_stuck: bool, now: Now) {
        self.since_ns = if is_stuck { self.since_ns.or(Some(now.monotonic_ns)) } else { None };
    }

    fn lasts_ns(&self, now: Now) -> u64 {
        self.since_ns.map_or(0, |since_ns| now.monotonic_ns.saturating_sub(since_ns))
    }
}

fn is_silent(connection: &Connection, now: Now) -> bool {
    connection.paused != Paused::No || now.monotonic_ns.saturating_sub(connection.active_ns) >= STUCK_NS_MAX
}

impl<I: Ring + Disk> Shard<I> {
    /// Closes the connections that hold most, until half of what is held is free.
    pub(super) fn close_stuck(&mut self, now: Now) {
        let lasts_ns = self.stuck.lasts_ns(now);
        if lasts_ns < STUCK_NS_MAX {
            return;
        }
        let anybody = lasts_ns >= TRICKLE_NS_MAX;
        let holders = || self.connections.iter().flatten().filter(|c| c.reserved > 0);
        let all: usize = holders().map(|c| c.reserved).sum();
        let mut closed: Vec<(usize, ConnectionId)> =
            holders().filter(|c| anybody || is_silent(c, now)).map(|c| (c.reserved, c.id)).collect();
        closed.sort_unstable_by_key(|(size, _)| std::cmp::Reverse(*size));
        let mut left = all;
        for (size, id) in closed {
            if left <= all / 2 {
                break;
            }
            left -= size;
            self.refuse(
                id,
                &format_args!("{size} bytes are reserved for its request, and others wait for memory"),
                now,
            );
        }
        if left < all {
            self.stuck.note(false, now);
        }
    }
}
