//! What a worker measures, cut into one-second slices that go to the collecting thread.
//!
//! Throughput counts what was acknowledged inside the measured time. Latency is recorded once per request, from the
//! intended send time and from the real one. A request acknowledged after the end adds its latency and no throughput.

use crate::clock::{Nanos, SECOND};
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::sync::mpsc::Sender;

/// Values are nanoseconds; three digits, up to ten minutes.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(100, 600 * SECOND, 3).unwrap_or_else(|e| unreachable!("constant bounds: {e}"))
}

#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    pub requests: u64,
    pub records: u64,
    pub payload_bytes: u64,
    pub wire_bytes: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        self.requests += other.requests;
        self.records += other.records;
        self.payload_bytes += other.payload_bytes;
        self.wire_bytes += other.wire_bytes;
    }
}

/// One second of one worker, or of all workers once merged.
pub struct Slice {
    /// Seconds since measuring began; negative during warm-up.
    pub second: i64,
    pub produced: Counts,
    pub consumed: Counts,
    pub from_intended: Histogram<u64>,
    pub from_send: Histogram<u64>,
    pub end_to_end: Histogram<u64>,
    pub errors: BTreeMap<String, u64>,
}

impl Slice {
    pub fn new(second: i64) -> Self {
        Slice {
            second,
            produced: Counts::default(),
            consumed: Counts::default(),
            from_intended: histogram(),
            from_send: histogram(),
            end_to_end: histogram(),
            errors: BTreeMap::new(),
        }
    }

    pub fn merge(&mut self, other: &Slice) {
        self.produced.add(&other.produced);
        self.consumed.add(&other.consumed);
        for (mine, theirs) in [
            (&mut self.from_intended, &other.from_intended),
            (&mut self.from_send, &other.from_send),
            (&mut self.end_to_end, &other.end_to_end),
        ] {
            mine.add(theirs).unwrap_or_else(|e| unreachable!("equal bounds: {e}"));
        }
        for (name, count) in &other.errors {
            *self.errors.entry(name.clone()).or_default() += count;
        }
    }
}

/// When a measurement begins and ends.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    pub start: Nanos,
    pub measure_from: Nanos,
    pub measure_until: Nanos,
}

impl Schedule {
    fn second(&self, now: Nanos) -> i64 {
        let last = (self.measure_until - self.measure_from).div_ceil(SECOND) as i64 - 1;
        ((now as i64 - self.measure_from as i64).div_euclid(SECOND as i64)).min(last.max(0))
    }
}

pub struct Recorder {
    schedule: Schedule,
    slice: Slice,
    slices: Sender<Slice>,
    /// Errors since the last success: a broker that only refuses must end the run.
    pub errors_in_a_row: u64,
    pub last_error: String,
    /// Acknowledged payload since the start, warm-up included.
    pub payload_bytes_total: u64,
}

impl Recorder {
    pub fn new(schedule: Schedule, slices: Sender<Slice>) -> Self {
        Recorder {
            schedule,
            slice: Slice::new(schedule.second(schedule.start)),
            slices,
            errors_in_a_row: 0,
            last_error: String::new(),
            payload_bytes_total: 0,
        }
    }

    /// Cuts a slice when a second has passed. Called once per turn of the worker's loop.
    pub fn roll(&mut self, now: Nanos) {
        let second = self.schedule.second(now);
        if second != self.slice.second {
            let done = std::mem::replace(&mut self.slice, Slice::new(second));
            // The collector may be gone when the run was interrupted; then nobody wants the slice.
            let _ = self.slices.send(done);
        }
    }

    pub fn finish(self) {
        let _ = self.slices.send(self.slice);
    }

    pub fn produced(&mut self, now: Nanos, intended: Nanos, sent: Nanos, counts: &Counts) {
        let _ = self.slice.from_intended.record(now.saturating_sub(intended));
        let _ = self.slice.from_send.record(now.saturating_sub(sent));
        if now < self.schedule.measure_until {
            self.slice.produced.add(counts);
        }
        self.payload_bytes_total += counts.payload_bytes;
        self.errors_in_a_row = 0;
    }

    pub fn consumed(&mut self, now: Nanos, counts: &Counts) {
        if now < self.schedule.measure_until {
            self.slice.consumed.add(counts);
        }
        self.errors_in_a_row = 0;
    }

    pub fn fetch_answered(&mut self, now: Nanos, sent: Nanos) {
        let _ = self.slice.from_send.record(now.saturating_sub(sent));
        let _ = self.slice.from_intended.record(now.saturating_sub(sent));
    }

    pub fn arrived(&mut self, way_ns: u64) {
        let _ = self.slice.end_to_end.record(way_ns);
    }

    pub fn error(&mut self, name: String) {
        self.last_error.clone_from(&name);
        *self.slice.errors.entry(name).or_default() += 1;
        self.errors_in_a_row += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_and_drain_do_not_count_as_throughput() {
        let (tx, rx) = std::sync::mpsc::channel();
        let schedule = Schedule { start: 0, measure_from: 2 * SECOND, measure_until: 4 * SECOND };
        let mut recorder = Recorder::new(schedule, tx);
        let one = Counts { requests: 1, records: 10, payload_bytes: 1000, wire_bytes: 1100 };
        for at in [SECOND, 2 * SECOND + 1, 3 * SECOND + 1, 5 * SECOND] {
            recorder.roll(at);
            recorder.produced(at, at - 1_000_000, at - 500_000, &one);
        }
        recorder.finish();
        let slices: Vec<Slice> = rx.iter().collect();
        let seconds: Vec<(i64, u64, u64)> =
            slices.iter().map(|s| (s.second, s.produced.records, s.from_intended.len())).collect();
        assert_eq!(seconds, [(-2, 0, 0), (-1, 10, 1), (0, 10, 1), (1, 10, 2)]);
    }

    #[test]
    fn recording_is_cheap() {
        let (tx, _rx) = std::sync::mpsc::channel();
        let schedule = Schedule { start: 0, measure_from: 0, measure_until: u64::MAX / 2 };
        let mut recorder = Recorder::new(schedule, tx);
        let one = Counts::default();
        for i in 0..1_000_000u64 {
            recorder.produced(i * 1000, i * 900, i * 950, &one);
        }
        assert_eq!(recorder.slice.from_intended.len(), 1_000_000);
    }
}
