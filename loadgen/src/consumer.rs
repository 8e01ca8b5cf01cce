//! One consuming connection: fetches its partitions from their leader, one request at a time, and either discards
//! what comes (reading batch headers only) or verifies it: checksums, dense offsets, and per producer no gap,
//! no duplicate and no change of order. Partitions are assigned by hand; no group coordinator takes part.

use crate::batch::{Stamp, crc32c, field};
use crate::clock::{Clock, Nanos};
use crate::link::Link;
use crate::recorder::{Counts, Recorder};
use crate::ring::{Received, Ring};
use crate::wire::{self, FetchLimits, FetchPart};
use crate::workload::Check;
use anyhow::{Result, bail};
use std::collections::HashMap;
use std::io::IoSlice;

/// One partition as this connection reads it.
pub struct Place {
    pub part: FetchPart,
    /// Where replaying begins again.
    pub start: i64,
    /// Producer -> number of the record expected next.
    next: HashMap<u32, u64>,
}

impl Place {
    pub fn new(partition: i32, start: i64) -> Self {
        Place { part: FetchPart { partition, offset: start }, start, next: HashMap::new() }
    }
}

/// What a consumer is told once.
#[derive(Clone, Copy)]
pub struct Habits {
    pub run: u32,
    pub check: Check,
    /// Goes back to the start at the end of the partition, instead of waiting for more.
    pub replay: bool,
    /// Records how long each fetch took; not where producers record their own latency.
    pub latency: bool,
    /// Mean value size, to tell payload from wire bytes without decoding records.
    pub record_size_mean: f64,
}

pub struct Consumer {
    pub link: Link,
    version: i16,
    topic: String,
    limits: FetchLimits,
    habits: Habits,
    places: Vec<Place>,
    correlation: i32,
    request: Vec<u8>,
    request_sent: usize,
    /// When the unanswered request was sent.
    asked: Option<Nanos>,
}

impl Consumer {
    pub fn new(link: Link, version: i16, topic: &str, limits: FetchLimits, habits: Habits, places: Vec<Place>) -> Self {
        Consumer {
            link,
            version,
            topic: topic.into(),
            limits,
            habits,
            places,
            correlation: 0,
            request: Vec::new(),
            request_sent: 0,
            asked: None,
        }
    }

    /// Sends the next request, or the rest of it.
    pub fn pump(&mut self, ring: &mut Ring, clock: &Clock) -> Result<()> {
        if self.asked.is_none() {
            self.correlation = self.correlation.wrapping_add(1);
            // The first partition is served first; turning them keeps it fair.
            let turn = 1.min(self.places.len());
            self.places.rotate_left(turn);
            let memory = std::mem::take(&mut self.request);
            let parts = self.places.iter().map(|p| p.part);
            self.request = wire::fetch(memory, self.version, self.correlation, &self.topic, parts, &self.limits);
            self.request_sent = 0;
            self.asked = Some(clock.now());
        }
        while self.link.writable && self.request_sent < self.request.len() {
            self.request_sent += self.link.send(ring, &[IoSlice::new(&self.request[self.request_sent..])])?;
        }
        Ok(())
    }

    /// Takes in what has arrived; asks again as soon as a reply is complete.
    pub fn received(
        &mut self,
        ring: &mut Ring,
        received: Received,
        clock: &Clock,
        recorder: &mut Recorder,
    ) -> Result<()> {
        self.link.received(ring, received)?;
        while let Some(frame) = self.link.next_frame()? {
            let now = clock.now();
            let Some(asked) = self.asked.take() else {
                bail!("broker {} sent a reply that nobody asked for", self.link.peer)
            };
            let size = frame.len() as u64 + 4;
            let records = self.take_in(frame, clock, now, recorder)?;
            let payload_bytes = (records as f64 * self.habits.record_size_mean) as u64;
            recorder.consumed(now, &Counts { requests: 1, records, payload_bytes, wire_bytes: size });
            if self.habits.latency {
                recorder.fetch_answered(now, asked);
            }
            self.pump(ring, clock)?;
        }
        self.link.receive(ring)
    }

    fn take_in(
        &mut self,
        frame: std::ops::Range<usize>,
        clock: &Clock,
        now: Nanos,
        recorder: &mut Recorder,
    ) -> Result<u64> {
        let Consumer { link, version, habits, places, correlation, .. } = self;
        let (answered, reply) = wire::Reader::reply(link.bytes(frame))?;
        if answered != *correlation {
            bail!("broker {} answered request {answered}, not {correlation}", link.peer);
        }
        let mut records = 0;
        let error = wire::fetch_reply(*version, reply, |fetched| {
            let Some(place) = places.iter_mut().find(|p| p.part.partition == fetched.partition) else {
                bail!("broker {} sent partition {}, which was not asked for", link.peer, fetched.partition)
            };
            if fetched.error != 0 {
                recorder.error(wire::error_name(fetched.error));
                if fetched.error == wire::OFFSET_OUT_OF_RANGE {
                    place.part.offset = if habits.replay { place.start } else { fetched.high_watermark.max(0) };
                    place.next.clear();
                }
                return Ok(());
            }
            let before = place.part.offset;
            let mut rest = fetched.records;
            while let Some((batch, after)) = next_batch(rest) {
                let count = read_batch(batch, place, habits, clock, now, recorder);
                records += count;
                rest = after;
            }
            let stuck = place.part.offset == before && !fetched.records.is_empty();
            if stuck {
                recorder.error("BATCH_LARGER_THAN_REPLY".into());
            }
            if habits.replay && (place.part.offset >= fetched.high_watermark || stuck) {
                place.part.offset = place.start;
                place.next.clear();
            }
            Ok(())
        })?;
        if error != 0 {
            recorder.error(wire::error_name(error));
        }
        Ok(records)
    }
}

fn be_u32(b: &[u8], range: std::ops::Range<usize>) -> u32 {
    b[range].iter().fold(0, |sum, byte| sum << 8 | *byte as u32)
}

fn be_i64(b: &[u8], range: std::ops::Range<usize>) -> i64 {
    b[range].iter().fold(0u64, |sum, byte| sum << 8 | *byte as u64) as i64
}

/// Cuts one whole batch off; the last one in a reply may be cut short and is then asked for again.
fn next_batch(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    if bytes.len() < field::RECORDS {
        return None;
    }
    let size = (be_u32(bytes, field::BATCH_LENGTH) as usize).checked_add(field::BATCH_LENGTH.end)?;
    if size < field::RECORDS { None } else { bytes.split_at_checked(size) }
}

/// Moves `place` behind the batch; returns its record count.
fn read_batch(
    batch: &[u8],
    place: &mut Place,
    habits: &Habits,
    clock: &Clock,
    now: Nanos,
    recorder: &mut Recorder,
) -> u64 {
    let base_offset = be_i64(batch, field::BASE_OFFSET);
    let count = be_u32(batch, field::RECORD_COUNT) as u64;
    let after = base_offset + be_u32(batch, field::LAST_OFFSET_DELTA) as i64 + 1;
    let verify = habits.check == Check::Verify;
    if verify {
        if crc32c(&batch[field::ATTRIBUTES.start..]) != be_u32(batch, field::CRC) {
            recorder.error("CORRUPT_BATCH".into());
        }
        if base_offset != place.part.offset {
            recorder.error(if base_offset > place.part.offset { "OFFSET_GAP" } else { "OFFSET_REPEATED" }.into());
        }
    }
    let uncompressed = batch[field::ATTRIBUTES.end - 1] & 7 == 0;
    if (verify || !habits.replay)
        && uncompressed
        && let Some(stamp) = Stamp::read(batch)
        && stamp.run == habits.run
    {
        if !habits.replay {
            recorder.arrived(clock.unix_ns(now).saturating_sub(stamp.intended_ns));
        }
        if verify {
            let next = place.next.insert(stamp.producer, stamp.sequence + count);
            if let Some(next) = next
                && next != stamp.sequence
            {
                recorder.error(if stamp.sequence > next { "RECORD_GAP" } else { "RECORD_DUPLICATE" }.into());
            }
        }
    }
    place.part.offset = after;
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchLimit, Destination, Frame, Fresh, Moment, RecordEncoder};
    use crate::codec::Codec;
    use crate::recorder::Schedule;
    use crate::workload::{Keys, RecordSize};

    fn batch(sequence: u64, base_offset: i64) -> Vec<u8> {
        let to = Destination { version: 7, topic: "t", partition: 0, acks: 1 };
        let encoder = RecordEncoder::new(RecordSize::Fixed(100), Keys::None, 3);
        let limit = BatchLimit { bytes: 100_000, records: 10 };
        let stamp = Stamp { run: 1, producer: 5, sequence, intended_ns: 0 };
        let mut frame = Frame::default();
        let at = Moment { correlation: 0, now_ms: 0, stamp };
        Fresh::new(&to, encoder, limit, Codec::None).build(&mut frame, at).unwrap();
        let head = wire::produce_head(7, "t", 0, 1, 0).len();
        let mut batch = frame.head.split_off(head);
        batch[field::BASE_OFFSET].copy_from_slice(&base_offset.to_be_bytes());
        batch
    }

    #[test]
    fn verifying_finds_gaps_duplicates_and_corruption() {
        let (tx, rx) = std::sync::mpsc::channel();
        let schedule = Schedule { start: 0, measure_from: 0, measure_until: u64::MAX / 2 };
        let mut recorder = Recorder::new(schedule, tx);
        let clock = Clock::start();
        let habits = Habits { run: 1, check: Check::Verify, replay: false, latency: false, record_size_mean: 100.0 };
        let mut place = Place::new(0, 0);
        let mut bad = batch(40, 50);
        let last = bad.len() - 1;
        bad[last] ^= 1;
        // In order, then a lost batch (20..30), a repeated one, and a damaged one at a gap of offsets.
        for b in [batch(0, 0), batch(10, 10), batch(30, 20), batch(30, 30), bad] {
            assert_eq!(read_batch(&b, &mut place, &habits, &clock, 0, &mut recorder), 10);
        }
        recorder.finish();
        let errors = rx.recv().unwrap().errors;
        let expected = [("CORRUPT_BATCH", 1), ("OFFSET_GAP", 1), ("RECORD_DUPLICATE", 1), ("RECORD_GAP", 1)];
        assert_eq!(errors.iter().map(|(k, v)| (k.as_str(), *v)).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_batch_cut_short_is_left_for_the_next_reply() {
        let b = batch(0, 0);
        assert!(next_batch(&b[..b.len() - 1]).is_none());
        assert_eq!(next_batch(&b).unwrap().1.len(), 0);
        assert!(next_batch(&[0; 61]).is_none());
    }
}
