//! Record batches v2 as a producer builds them, in two ways.
//!
//! *Prebuilt*: the records are encoded once; per request only the head (timestamps, checksum, and the stamp in the
//! first record's value) is rewritten, and the unchanged tail's checksum is combined with the new head's.
//! *Fresh*: every record is encoded and every byte checksummed again, into a recycled buffer.
//! Both ways produce the same layout, and a reader can find the stamp again.

use crate::codec::Codec;
use crate::wire;
use crate::workload::{Keys, RecordSize};
use crc_fast::CrcAlgorithm::Crc32Iscsi;
use std::ops::Range;
use std::sync::Arc;

/// Offsets of the fixed fields inside a batch.
pub mod field {
    use std::ops::Range;
    pub const BASE_OFFSET: Range<usize> = 0..8;
    pub const BATCH_LENGTH: Range<usize> = 8..12;
    pub const LEADER_EPOCH: Range<usize> = 12..16;
    pub const MAGIC: usize = 16;
    pub const CRC: Range<usize> = 17..21;
    pub const ATTRIBUTES: Range<usize> = 21..23;
    pub const LAST_OFFSET_DELTA: Range<usize> = 23..27;
    pub const BASE_TIMESTAMP: Range<usize> = 27..35;
    pub const MAX_TIMESTAMP: Range<usize> = 35..43;
    pub const RECORD_COUNT: Range<usize> = 57..61;
    pub const RECORDS: usize = 61;
}

/// What the first record of a batch says about itself: enough to find gaps, duplicates and the time on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub run: u32,
    pub producer: u32,
    /// Number of the batch's first record among those this producer sent to this partition.
    pub sequence: u64,
    /// Intended send time, nanoseconds since the Unix epoch.
    pub intended_ns: u64,
}

const STAMP_MAGIC: [u8; 4] = *b"RLLG";
pub const STAMP_SIZE: usize = 28;

impl Stamp {
    fn write(&self, out: &mut [u8]) {
        out[..4].copy_from_slice(&STAMP_MAGIC);
        out[4..8].copy_from_slice(&self.run.to_be_bytes());
        out[8..12].copy_from_slice(&self.producer.to_be_bytes());
        out[12..20].copy_from_slice(&self.sequence.to_be_bytes());
        out[20..28].copy_from_slice(&self.intended_ns.to_be_bytes());
    }

    /// The stamp of a batch, if it has one.
    pub fn read(batch: &[u8]) -> Option<Stamp> {
        let mut at = field::RECORDS;
        varint_skip(batch, &mut at)?; // record length
        at += 1; // attributes
        varint_skip(batch, &mut at)?; // timestamp delta
        varint_skip(batch, &mut at)?; // offset delta
        let key = varint_read(batch, &mut at)?;
        at = at.checked_add(key.max(0) as usize)?;
        if varint_read(batch, &mut at)? < STAMP_SIZE as i64 {
            return None;
        }
        let b = batch.get(at..at.checked_add(STAMP_SIZE)?)?;
        let u32_at = |i: usize| u32::from_be_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        let u64_at = |i: usize| (u32_at(i) as u64) << 32 | u32_at(i + 4) as u64;
        (b[..4] == STAMP_MAGIC).then(|| Stamp {
            run: u32_at(4),
            producer: u32_at(8),
            sequence: u64_at(12),
            intended_ns: u64_at(20),
        })
    }
}

pub fn varint_write(out: &mut Vec<u8>, value: i64) {
    let mut z = ((value << 1) ^ (value >> 63)) as u64;
    while z >= 0x80 {
        out.push(z as u8 | 0x80);
        z >>= 7;
    }
    out.push(z as u8);
}

fn varint_skip(b: &[u8], at: &mut usize) -> Option<()> {
    varint_read(b, at).map(|_| ())
}

pub fn varint_read(b: &[u8], at: &mut usize) -> Option<i64> {
    let (mut z, mut shift) = (0u64, 0);
    loop {
        let byte = *b.get(*at)?;
        *at += 1;
        z |= ((byte & 0x7f) as u64) << shift;
        if byte < 0x80 {
            return Some((z >> 1) as i64 ^ -((z & 1) as i64));
        }
        shift += 7;
        if shift > 63 {
            return None;
        }
    }
}

fn varint_size(value: i64) -> usize {
    let z = ((value << 1) ^ (value >> 63)) as u64;
    (64 - (z | 1).leading_zeros() as usize).div_ceil(7)
}

pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(Crc32Iscsi, bytes) as u32
}

/// A small fast generator for payload, keys and sizes. Seeded, so that two runs send the same bytes.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn seeded(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    /// 0 <= result < bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((self.next() as u128 * bound.max(1) as u128) >> 64) as u64
    }
    /// 0.0 <= result < 1.0.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Encodes records one after the other. Values are slices of a fixed pool of random letters.
pub struct RecordEncoder {
    pool: Vec<u8>,
    pool_at: usize,
    size: RecordSize,
    keys: Keys,
    random: Random,
    key: Vec<u8>,
}

const POOL_SIZE: usize = 256 << 10;

impl RecordEncoder {
    pub fn new(size: RecordSize, keys: Keys, seed: u64) -> Self {
        let mut random = Random::seeded(seed);
        let pool = (0..POOL_SIZE + size.max()).map(|_| b'a' + random.below(26) as u8).collect();
        RecordEncoder { pool, pool_at: 0, size, keys, random, key: Vec::new() }
    }

    /// Appends one record; returns where its value lies in `out`.
    fn encode(&mut self, out: &mut Vec<u8>, offset_delta: usize) -> Range<usize> {
        let value_size = self.size.draw(&mut self.random);
        self.key.clear();
        let key_size = match self.keys.draw(&mut self.random) {
            None => -1,
            Some(key) => {
                self.key.extend_from_slice(b"key-");
                self.key.extend((0..8).rev().map(|i| b'0' + (key / 10u64.pow(i) % 10) as u8));
                self.key.len() as i64
            }
        };
        let body_size = 1
            + 1
            + varint_size(offset_delta as i64)
            + varint_size(key_size)
            + self.key.len()
            + varint_size(value_size as i64)
            + value_size
            + 1;
        out.reserve(body_size + 5);
        varint_write(out, body_size as i64);
        out.extend_from_slice(&[0, 0]); // attributes, timestamp delta
        varint_write(out, offset_delta as i64);
        varint_write(out, key_size);
        out.extend_from_slice(&self.key);
        varint_write(out, value_size as i64);
        let value = out.len()..out.len() + value_size;
        out.extend_from_slice(&self.pool[self.pool_at..self.pool_at + value_size]);
        self.pool_at += value_size;
        if self.pool_at >= POOL_SIZE {
            self.pool_at -= POOL_SIZE;
        }
        out.push(0); // no headers
        value
    }

    /// Appends records until `limit` would be passed or `count_max` are in; at least one. Returns how many, the sum of
    /// their value sizes, and where the first value lies.
    fn encode_many(&mut self, out: &mut Vec<u8>, limit: usize, count_max: usize) -> (usize, usize, Range<usize>) {
        let first = self.encode(out, 0);
        let (mut count, mut values) = (1, first.len());
        let record_size_max = self.size.max() + 40;
        while count < count_max && out.len() + record_size_max <= limit {
            values += self.encode(out, count).len();
            count += 1;
        }
        (count, values, first)
    }
}

/// How large a batch may get.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimit {
    pub bytes: usize,
    pub records: usize,
}

/// One Produce request ready to be sent: a head owned by the request, and for prebuilt payload a shared tail.
#[derive(Default)]
pub struct Frame {
    pub head: Vec<u8>,
    pub tail: Option<Arc<Vec<u8>>>,
    pub records: u64,
    /// Sum of the value sizes: the payload a user would count.
    pub payload_bytes: u64,
}

impl Frame {
    pub fn size(&self) -> usize {
        self.head.len() + self.tail.as_ref().map_or(0, |t| t.len())
    }
    /// The bytes from `sent` on, as at most two slices.
    pub fn rest(&self, sent: usize) -> [&[u8]; 2] {
        let tail: &[u8] = self.tail.as_ref().map_or(&[], |t| t);
        if sent < self.head.len() { [&self.head[sent..], tail] } else { [&tail[sent - self.head.len()..], &[]] }
    }
}

/// Where a request goes.
pub struct Destination<'a> {
    pub version: i16,
    pub topic: &'a str,
    pub partition: i32,
    pub acks: i16,
}

/// What changes from one request to the next.
#[derive(Clone, Copy)]
pub struct Moment {
    pub correlation: i32,
    pub now_ms: i64,
    pub stamp: Stamp,
}

fn write_header(batch: &mut [u8], codec: Codec, records: usize) {
    let length = (batch.len() - 12) as u32;
    batch[field::BASE_OFFSET].fill(0);
    batch[field::BATCH_LENGTH].copy_from_slice(&length.to_be_bytes());
    batch[field::LEADER_EPOCH].fill(0xff);
    batch[field::MAGIC] = 2;
    batch[field::ATTRIBUTES].copy_from_slice(&(codec as i16).to_be_bytes());
    batch[field::LAST_OFFSET_DELTA].copy_from_slice(&(records as u32 - 1).to_be_bytes());
    batch[43..57].fill(0xff); // no producer id, epoch or sequence
    batch[field::RECORD_COUNT].copy_from_slice(&(records as u32).to_be_bytes());
}

fn write_times(batch: &mut [u8], now_ms: i64) {
    batch[field::BASE_TIMESTAMP].copy_from_slice(&now_ms.to_be_bytes());
    batch[field::MAX_TIMESTAMP].copy_from_slice(&now_ms.to_be_bytes());
}

/// Encodes and checksums every record of every request.
pub struct Fresh {
    encoder: RecordEncoder,
    limit: BatchLimit,
    codec: Codec,
    head: Vec<u8>,
    raw: Vec<u8>,
}

impl Fresh {
    pub fn new(to: &Destination<'_>, encoder: RecordEncoder, limit: BatchLimit, codec: Codec) -> Self {
        let head = wire::produce_head(to.version, to.topic, to.partition, to.acks, 0);
        Fresh { encoder, limit, codec, head, raw: Vec::new() }
    }

    pub fn build(&mut self, frame: &mut Frame, at: Moment) -> anyhow::Result<()> {
        let out = &mut frame.head;
        out.clear();
        out.extend_from_slice(&self.head);
        let batch_at = out.len();
        out.resize(batch_at + field::RECORDS, 0);
        let limit = self.limit.bytes + batch_at;
        let (records, values) = if self.codec == Codec::None {
            let (records, values, first) = self.encoder.encode_many(out, limit, self.limit.records);
            if first.len() >= STAMP_SIZE {
                at.stamp.write(&mut out[first]);
            }
            (records, values)
        } else {
            self.raw.clear();
            let (records, values, _) = self.encoder.encode_many(&mut self.raw, self.limit.bytes, self.limit.records);
            self.codec.compress(&self.raw, out)?;
            (records, values)
        };
        let batch = &mut out[batch_at..];
        write_header(batch, self.codec, records);
        write_times(batch, at.now_ms);
        let crc = crc32c(&batch[field::ATTRIBUTES.start..]);
        batch[field::CRC].copy_from_slice(&crc.to_be_bytes());
        let batch_size = batch.len() as u32;
        out[batch_at - 4..batch_at].copy_from_slice(&batch_size.to_be_bytes());
        out[wire::CORRELATION].copy_from_slice(&at.correlation.to_be_bytes());
        let size = out.len() - 4;
        wire::set_size(out, size);
        (frame.records, frame.payload_bytes, frame.tail) = (records as u64, values as u64, None);
        Ok(())
    }
}

/// Encodes once; each request rewrites only its head.
#[derive(Clone)]
pub struct Prebuilt {
    head: Vec<u8>,
    batch_at: usize,
    stamp: Option<Range<usize>>,
    tail: Option<Arc<Vec<u8>>>,
    tail_crc: u32,
    records: u64,
    payload_bytes: u64,
}

/// A batch smaller than this is sent as one piece: checksumming it whole is cheaper than combining two checksums.
const TAIL_SIZE_MIN: usize = 8 << 10;

impl Prebuilt {
    pub fn new(to: &Destination<'_>, encoder: RecordEncoder, limit: BatchLimit, codec: Codec) -> anyhow::Result<Self> {
        let mut frame = Frame::default();
        let stamp = Stamp { run: 0, producer: 0, sequence: 0, intended_ns: 0 };
        let at = Moment { correlation: 0, now_ms: 0, stamp };
        Fresh::new(to, encoder, limit, codec).build(&mut frame, at)?;
        let batch_at = wire::produce_head(to.version, to.topic, to.partition, to.acks, 0).len();
        let batch = &frame.head[batch_at..];
        let stamp = (codec == Codec::None && Stamp::read(batch).is_some())
            .then(|| batch.windows(4).position(|w| w == STAMP_MAGIC))
            .flatten()
            .map(|start| batch_at + start..batch_at + start + STAMP_SIZE);
        let cut = stamp.as_ref().map_or(batch_at + field::RECORDS, |s| s.end);
        let mut head = frame.head;
        let tail = (head.len() - cut >= TAIL_SIZE_MIN).then(|| Arc::new(head.split_off(cut)));
        let tail_crc = tail.as_ref().map_or(0, |t| crc32c(t));
        Ok(Prebuilt {
            head,
            batch_at,
            stamp,
            tail,
            tail_crc,
            records: frame.records,
            payload_bytes: frame.payload_bytes,
        })
    }

    /// Records of one request.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The same batch for another partition; the tail is shared.
    pub fn for_destination(&self, to: &Destination<'_>) -> Self {
        let batch_size = self.head.len() - self.batch_at + self.tail.as_ref().map_or(0, |t| t.len());
        let mut head = wire::produce_head(to.version, to.topic, to.partition, to.acks, batch_size);
        let batch_at = head.len();
        head.extend_from_slice(&self.head[self.batch_at..]);
        let stamp = self.stamp.as_ref().map(|s| s.start - self.batch_at + batch_at..s.end - self.batch_at + batch_at);
        Prebuilt { head, batch_at, stamp, ..self.clone() }
    }

    pub fn build(&self, frame: &mut Frame, at: Moment) {
        let out = &mut frame.head;
        out.clear();
        out.extend_from_slice(&self.head);
        out[wire::CORRELATION].copy_from_slice(&at.correlation.to_be_bytes());
        if let Some(range) = &self.stamp {
            at.stamp.write(&mut out[range.clone()]);
        }
        let batch = &mut out[self.batch_at..];
        write_times(batch, at.now_ms);
        let mut crc = crc32c(&batch[field::ATTRIBUTES.start..]);
        if let Some(tail) = &self.tail {
            crc = crc_fast::checksum_combine(Crc32Iscsi, crc as u64, self.tail_crc as u64, tail.len() as u64) as u32;
        }
        batch[field::CRC].copy_from_slice(&crc.to_be_bytes());
        frame.tail.clone_from(&self.tail);
        (frame.records, frame.payload_bytes) = (self.records, self.payload_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(frame: &Frame) -> Vec<u8> {
        frame.rest(0).concat()
    }

    fn check(frame: &[u8], to: &Destination<'_>, records: u64, stamp: Option<Stamp>) {
        assert_eq!(u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize, frame.len() - 4);
        let batch = &frame[wire::produce_head(to.version, to.topic, to.partition, to.acks, 0).len()..];
        let crc = u32::from_be_bytes(batch[field::CRC].try_into().unwrap());
        assert_eq!(crc, crc32c(&batch[field::ATTRIBUTES.start..]));
        assert_eq!(u32::from_be_bytes(batch[field::BATCH_LENGTH].try_into().unwrap()) as usize, batch.len() - 12);
        assert_eq!(u32::from_be_bytes(batch[field::RECORD_COUNT].try_into().unwrap()) as u64, records);
        assert_eq!(Stamp::read(batch), stamp);
        let (mut at, mut seen) = (field::RECORDS, 0);
        while at < batch.len() {
            let size = varint_read(batch, &mut at).unwrap() as usize;
            at += size;
            seen += 1;
        }
        assert_eq!((at, seen), (batch.len(), records));
    }

    #[test]
    fn prebuilt_and_fresh_batches_are_well_formed_at_every_size() {
        let to = Destination { version: 7, topic: "t", partition: 3, acks: 1 };
        let stamp = Stamp { run: 7, producer: 9, sequence: 1 << 40, intended_ns: u64::MAX / 3 };
        let at = Moment { correlation: 77, now_ms: 1_700_000_000_123, stamp };
        for (size, bytes) in [(100, 900_000), (1024, 16_000), (10, 4096), (10_240, 1), (28, 200)] {
            let size = RecordSize::Fixed(size);
            let limit = BatchLimit { bytes, records: usize::MAX };
            for keys in [Keys::None, Keys::Uniform(1000)] {
                let mut frame = Frame::default();
                let expected = (size.max() >= STAMP_SIZE).then_some(stamp);
                let encoder = || RecordEncoder::new(size.clone(), keys.clone(), 1);
                Fresh::new(&to, encoder(), limit, Codec::None).build(&mut frame, at).unwrap();
                check(&whole(&frame), &to, frame.records, expected);
                assert!(frame.size() <= bytes.max(size.max()) + 200);
                Prebuilt::new(&to, encoder(), limit, Codec::None).unwrap().build(&mut frame, at);
                check(&whole(&frame), &to, frame.records, expected);
                assert_eq!(frame.payload_bytes, frame.records * size.max() as u64);
            }
        }
    }

    #[test]
    fn a_warm_builder_allocates_nothing() {
        let to = Destination { version: 7, topic: "t", partition: 3, acks: 1 };
        let limit = BatchLimit { bytes: 100_000, records: usize::MAX };
        let encoder = || RecordEncoder::new(RecordSize::Uniform(50, 150), Keys::Uniform(1000), 1);
        let mut fresh = Fresh::new(&to, encoder(), limit, Codec::None);
        let prebuilt = Prebuilt::new(&to, encoder(), limit, Codec::None).unwrap();
        let stamp = Stamp { run: 7, producer: 9, sequence: 1, intended_ns: 2 };
        let at = Moment { correlation: 77, now_ms: 1_700_000_000_123, stamp };
        let mut frames = [Frame::default(), Frame::default()];
        let mut build = || {
            fresh.build(&mut frames[0], at).unwrap();
            prebuilt.build(&mut frames[1], at);
        };
        build();
        let info = allocation_counter::measure(|| (0..100).for_each(|_| build()));
        assert_eq!(info.count_total, 0, "{info:?}");
    }

    #[test]
    fn varints_round_trip_and_their_size_is_known() {
        for v in [0, 1, -1, 63, 64, -64, -65, 8191, 8192, 1 << 20, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            varint_write(&mut out, v);
            assert_eq!(out.len(), varint_size(v), "{v}");
            assert_eq!(varint_read(&out, &mut 0), Some(v));
        }
        assert_eq!(varint_read(&[0xff; 11], &mut 0), None);
    }
}
