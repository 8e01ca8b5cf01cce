//! Compaction of this core's logs: one at a time, the most urgent first, a slice per turn of the loop, so that no request waits for more
//! than a slice.

use super::Broker;
use crate::ids::{JobOwner, Now};
use crate::io::disk::Disk;
use crate::storage::Cleaning;

/// How long a log that waits for a job is left alone, should the job's end not wake it.
const WAIT_NS: u64 = 20_000_000;

/// Where compaction stands.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    /// The log that is being cleaned.
    slot: Option<u32>,
    /// When to go on (monotonic ns).
    next_ns: u64,
}

impl Broker {
    /// When `compact` is due (monotonic ns).
    pub fn compaction_next_ns(&self) -> u64 {
        if self.config.cleaner_enable { self.compaction.next_ns } else { u64::MAX }
    }

    /// Looks for a log to clean, or works on one for a slice.
    pub fn compact(&mut self, disk: &mut dyn Disk, now: Now) {
        let backoff_ns = self.config.cleaner_backoff_ms.saturating_mul(1_000_000);
        let slot = self.compaction.slot.or_else(|| self.most_urgent(now));
        self.compaction.slot = slot;
        self.compaction.next_ns = now.monotonic_ns.saturating_add(backoff_ns);
        let Some(partition) = slot.and_then(|slot| self.partitions.get_mut(slot as usize)).and_then(Option::as_mut)
        else {
            self.compaction.slot = None;
            return;
        };
        match partition.log.clean(disk, now) {
            Ok(Cleaning::More) => self.compaction.next_ns = now.monotonic_ns,
            Ok(Cleaning::Waits) => self.compaction.next_ns = now.monotonic_ns + WAIT_NS,
            Ok(Cleaning::Nothing) => self.compaction.slot = None,
            Err(error) => {
                log::error!("{}-{}: compaction: {error}", partition.topic, partition.index);
                self.compaction.slot = None;
            }
        }
    }

    /// A job of a log ended: if that log is being cleaned, it may be what the cleaning waited for.
    pub(super) fn wake_compaction(&mut self, owner: JobOwner, now: Now) {
        if self.compaction.slot.is_some_and(|slot| self.owner(slot) == owner) {
            self.compaction.next_ns = now.monotonic_ns;
        }
    }

    fn most_urgent(&self, now: Now) -> Option<u32> {
        let urgency = |slot: usize| self.partitions[slot].as_ref().and_then(|p| p.log.cleanable(now));
        let all = (0..self.partitions.len()).filter_map(|slot| Some((slot, urgency(slot)?)));
        all.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(slot, _)| slot as u32)
    }
}
