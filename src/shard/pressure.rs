//! A budget of memory that stays used up: how long it has been, and closing the connections that hold most.

use super::Shard;
use crate::ids::{ConnectionId, Now};
use crate::io::Ring;
use crate::io::disk::Disk;

/// How long something has been so without a break.
#[derive(Default)]
pub(super) struct Lasting {
    since_ns: Option<u64>,
}

impl Lasting {
    /// Is it so now?
    pub fn note(&mut self, is_so: bool, now: Now) {
        self.since_ns = if is_so { self.since_ns.or(Some(now.monotonic_ns)) } else { None };
    }

    /// As of the last `note`.
    pub fn ns(&self, now: Now) -> u64 {
        self.since_ns.map_or(0, |since_ns| now.monotonic_ns.saturating_sub(since_ns))
    }
}

impl<I: Ring + Disk> Shard<I> {
    /// Closes those of the connections, each with what it holds, that hold most, until `wanted` bytes are free. Returns how
    /// many are.
    pub(super) fn close_largest(
        &mut self,
        mut holders: Vec<(usize, ConnectionId)>,
        wanted: usize,
        what: &str,
        now: Now,
    ) -> usize {
        holders.sort_unstable_by_key(|(size, _)| std::cmp::Reverse(*size));
        let mut freed = 0;
        for (size, id) in holders {
            if freed >= wanted {
                break;
            }
            freed += size;
            self.refuse(id, &format_args!("{size} bytes {what}"), now);
        }
        freed
    }
}
