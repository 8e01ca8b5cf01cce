//! Compaction of this core's logs: one at a time, the most urgent first, a slice per turn of the loop. A slice is made of small pieces and
//! ends when a request has come; between two slices the core belongs to requests for twice as long.

use super::Broker;
use crate::ids::{JobOwner, Now};
use crate::io::disk::Disk;
use crate::storage::{Cleaned, Cleaning};

/// How long a log that waits for a job is left alone, should the job's end not wake it.
const WAIT_NS: u64 = 20_000_000;

/// After a slice compaction rests for so many times as long.
const REST: u64 = 2;

/// Where compaction stands.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    /// The log that is being cleaned.
    slot: Option<u32>,
    /// When to go on (monotonic ns), or when a job of the log ended.
    next_ns: u64,
    waits: bool,
    /// Slices of the log that is being cleaned.
    slices: Slices,
    /// It was just cleaned.
    cleaned: Option<Cleaned>,
}

/// How long slices took: counted in steps of a quarter of a power of two.
#[derive(Debug, Default)]
struct Slices {
    counts: [u32; 32],
    longest_us: u64,
}

impl Slices {
    fn note(&mut self, us: u64) {
        self.longest_us = self.longest_us.max(us);
        let step = (0..self.counts.len() - 1).find(|step| us <= Slices::bound_us(*step));
        self.counts[step.unwrap_or(self.counts.len() - 1)] += 1;
    }
    /// Largest number of microseconds that is counted there: 16, 20, 24, 28, 32, 40, ...
    fn bound_us(step: usize) -> u64 {
        (4 + step as u64 % 4) << (2 + step / 4)
    }
    fn count(&self) -> u32 {
        self.counts.iter().sum()
    }
    /// So many microseconds or fewer took 99 of 100.
    fn p99_us(&self) -> u64 {
        let mut above = self.count() / 100;
        for step in (0..self.counts.len()).rev() {
            match above.checked_sub(self.counts[step]) {
                Some(left) => above = left,
                None => return Slices::bound_us(step).min(self.longest_us),
            }
        }
        0
    }
}

impl Broker {
    /// When `compact` is due (monotonic ns).
    pub fn compaction_next_ns(&self) -> u64 {
        if self.config.cleaner_enable { self.compaction.next_ns } else { u64::MAX }
    }

    /// Looks for a log to clean, or works on one for a piece of a slice. At the slice's end `compaction_took` is to be told how long it was.
    pub fn compact(&mut self, disk: &mut dyn Disk, now: Now) {
        let backoff_ns = self.config.cleaner_backoff_ms.saturating_mul(1_000_000);
        let slot = self.compaction.slot.or_else(|| self.most_urgent(now));
        self.compaction.slot = slot;
        self.compaction.next_ns = now.monotonic_ns.saturating_add(backoff_ns);
        self.compaction.waits = false;
        let Some(partition) = slot.and_then(|slot| self.partitions.get_mut(slot as usize)).and_then(Option::as_mut)
        else {
            self.compaction.slot = None;
            return;
        };
        match partition.log.clean(disk, now) {
            Ok(Cleaning::More(bytes)) => {
                // `log.cleaner.io.max.bytes.per.second`; there is none by default.
                let seconds = bytes as f64 / self.config.cleaner_bytes_per_second_max;
                self.compaction.next_ns = now.monotonic_ns.saturating_add((seconds * 1e9) as u64);
            }
            Ok(Cleaning::Waits) => {
                self.compaction.waits = true;
                self.compaction.next_ns = now.monotonic_ns + WAIT_NS;
            }
            Ok(Cleaning::Nothing) => self.compaction.slot = None,
            Ok(Cleaning::Done(cleaned)) => {
                // Another log may have waited meanwhile. Not in this slice: it belongs to this log's account.
                self.compaction.next_ns = now.monotonic_ns + 1;
                self.compaction.cleaned = Some(cleaned);
            }
            Err(error) => {
                log::error!("{}-{}: compaction: {error}", partition.topic, partition.index);
                self.compaction.slot = None;
            }
        }
    }

    /// How long the last call of `compact`, begun `now`, took.
    pub fn compaction_took(&mut self, now: Now, ns: u64) {
        let Compaction { slot, next_ns, slices, cleaned, .. } = &mut self.compaction;
        if slot.is_some() {
            slices.note(ns / 1000);
            // From the slice's end on.
            *next_ns = (*next_ns).max(now.monotonic_ns + ns + ns * REST);
        }
        let Some(cleaned) = cleaned.take() else { return };
        let slices = std::mem::take(slices);
        if let Some(partition) = slot.take().and_then(|slot| self.partitions[slot as usize].as_ref()) {
            log::info!(
                "{}-{}: compacted up to offset {}: {} bytes became {} in {} ms; {} slices, p99 {} us, longest {} us",
                partition.topic,
                partition.index,
                cleaned.end,
                cleaned.bytes_before,
                cleaned.bytes_after,
                cleaned.took_ns / 1_000_000,
                slices.count(),
                slices.p99_us(),
                slices.longest_us,
            );
        }
    }

    /// A job of a log ended: if that log is being cleaned, it may be what the cleaning waited for.
    pub(super) fn wake_compaction(&mut self, owner: JobOwner, now: Now) {
        if self.compaction.waits && self.compaction.slot.is_some_and(|slot| self.owner(slot) == owner) {
            self.compaction.next_ns = now.monotonic_ns;
        }
    }

    fn most_urgent(&self, now: Now) -> Option<u32> {
        let urgency = |slot: usize| self.partitions[slot].as_ref().and_then(|p| p.log.cleanable(now));
        let all = (0..self.partitions.len()).filter_map(|slot| Some((slot, urgency(slot)?)));
        all.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(slot, _)| slot as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_counted() {
        let bounds: Vec<u64> = (0..10).map(Slices::bound_us).collect();
        assert_eq!(bounds, [16, 20, 24, 28, 32, 40, 48, 56, 64, 80]);
        let mut slices = Slices::default();
        (0..990).for_each(|_| slices.note(50));
        (0..9).for_each(|_| slices.note(300));
        assert_eq!((slices.count(), slices.p99_us()), (999, 56));
        (0..9).for_each(|_| slices.note(300));
        slices.note(4_000_000);
        assert_eq!((slices.count(), slices.p99_us(), slices.longest_us), (1009, 320, 4_000_000));
    }
}
