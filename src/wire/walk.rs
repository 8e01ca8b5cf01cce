//! The walk over the framing of a batch's records: every produced record goes through here, so that no client can store
//! what would break consumers. Records of one batch mostly lie alike, so there are three ways, each for what the one before
//! it does not take: a record that lies as the last one did is judged by a few masked comparisons (2 to 3 ns); one of the
//! usual shape field by field (7 ns); any other the long way, which alone finds faults (10 to 13 ns).

use std::ops::Range;

use super::batch::BatchError;
use super::record::{RecordFault, number, skip_nullable, varint, walk_headers};

/// What a walk over the records finds on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordFacts {
    /// Largest timestamp of a record.
    pub timestamp_max: i64,
    /// Smallest timestamp of a record.
    pub timestamp_min: i64,
    /// Whether a record has no key: a compacted topic cannot take it.
    pub key_missing: bool,
}

/// Walks `count` records that must fill `bytes` exactly, offset deltas 0, 1, 2...
pub fn walk(bytes: &[u8], count: i32, base_timestamp: i64) -> Result<RecordFacts, BatchError> {
    let mut walk = Walk::new(count);
    walk.go_on(bytes, count)?;
    walk.end(bytes, base_timestamp)
}

/// A walk that can be gone on with.
pub struct Walk {
    /// The next record: its position and index.
    at: usize,
    index: i32,
    /// Records in all.
    count: i32,
    found: Found,
}

impl Walk {
    /// Over `count` records.
    pub fn new(count: i32) -> Walk {
        Walk { at: 0, index: 0, count, found: Found { delta_max: i64::MIN, delta_min: i64::MAX, key_missing: false } }
    }
    /// Walks some records, `piece` at most; `bytes` are those of all. False: that were the last.
    #[inline(always)]
    pub fn go_on(&mut self, bytes: &[u8], piece: i32) -> Result<bool, BatchError> {
        let until = self.count.min(self.index.saturating_add(piece));
        let mut rest = &bytes[self.at..];
        let (mut index, mut pause) = (self.index, 0);
        while index < until {
            let Some((layout, walked)) = walk_short(rest, index) else {
                let walked = walk_long(&mut rest, index).map_err(|fault| BatchError::Record { index, fault })?;
                self.found.note(&walked);
                index += 1;
                continue;
            };
            self.found.note(&walked);
            index += 1;
            let record = rest;
            rest = &rest[layout.size..];
            if pause > 0 {
                pause -= 1;
            } else if let Some(shape) = Shape::of(record, &layout) {
                let alike = shape.run(rest, index..until, &mut self.found);
                index += alike as i32;
                rest = &rest[alike * layout.size..];
                pause = if alike < RUN_MIN { PAUSE } else { 0 };
            }
        }
        (self.at, self.index) = (bytes.len() - rest.len(), index);
        Ok(index < self.count)
    }
    /// All were walked.
    pub fn end(&self, bytes: &[u8], base_timestamp: i64) -> Result<RecordFacts, BatchError> {
        let Walk { at, count, ref found, .. } = *self;
        if at < bytes.len() {
            return Err(BatchError::Record { index: count - 1, fault: RecordFault::BytesLeft(bytes.len() - at) });
        }
        Ok(RecordFacts {
            timestamp_max: base_timestamp.wrapping_add(found.delta_max),
            timestamp_min: base_timestamp.wrapping_add(found.delta_min),
            key_missing: found.key_missing,
        })
    }
}

/// Fewer records alike do not pay for the comparison: it is not tried again for the next `PAUSE` records.
const RUN_MIN: usize = 4;
const PAUSE: u32 = 60;

struct Found {
    delta_max: i64,
    delta_min: i64,
    key_missing: bool,
}

impl Found {
    fn note(&mut self, walked: &Walked) {
        self.note_delta(walked.timestamp_delta);
        self.key_missing |= walked.key_size < 0;
    }
    fn note_delta(&mut self, delta: i64) {
        self.delta_max = self.delta_max.max(delta);
        self.delta_min = self.delta_min.min(delta);
    }
}

struct Walked {
    timestamp_delta: i64,
    key_size: i32,
}

/// Where the fields of a record are, from its first byte on.
struct Layout {
    timestamp_at: usize,
    offset_at: usize,
    key_at: usize,
    key_end: usize,
    value_at: usize,
    value_end: usize,
    /// Of the whole record with its size field.
    size: usize,
}

/// How a record lies whose numbers from the size to the key's size take 8 bytes at most: all of them but timestamp and offset,
/// and how many bytes these two have.
struct Shape {
    size: usize,
    /// Of the first 8 bytes: bits that must be `expected`, the offset's added to it. Left out are attributes, the timestamp's
    /// number bits, and what comes after the key's size.
    mask: u64,
    expected: u64,
    timestamp: Number,
    offset: Number,
    value_at: usize,
    value_mask: u32,
    value_expected: u32,
}

/// A number of one to three bytes within the first 8 bytes of a record.
struct Number {
    shift: u32,
    mask: u32,
    /// The bits of its bytes that say that another one follows.
    more: u32,
}

impl Number {
    fn at(from: usize, to: usize) -> Number {
        let mask = low_bytes(to - from);
        Number { shift: 8 * from as u32, mask, more: CONTINUATION & mask >> 8 }
    }
    /// The number bits, where they are.
    fn bits(&self) -> u64 {
        u64::from(self.mask & !CONTINUATION) << self.shift
    }
    /// Such a number, where it is.
    fn encode(&self, raw: u32) -> u64 {
        u64::from(raw & 0x7f | (raw & 0x3f80) << 1 | (raw & 0x001f_c000) << 2 | self.more) << self.shift
    }
    fn decode(&self, head: u64) -> u32 {
        let bytes = (head >> self.shift) as u32 & self.mask;
        bytes & 0x7f | bytes >> 1 & 0x3f80 | bytes >> 2 & 0x001f_c000
    }
    /// The first number that has more bytes.
    fn bound(&self) -> u32 {
        1 << (7 * (self.more.count_ones() + 1))
    }
}

const CONTINUATION: u32 = 0x0080_8080;
/// Offset deltas that differ in the first byte of their number only.
const BLOCK: i32 = 64;

fn low_bytes(count: usize) -> u32 {
    (1u64 << (8 * count)).wrapping_sub(1) as u32
}

impl Shape {
    /// Of a record that was walked. None: it is none of those that many are like.
    fn of(record: &[u8], layout: &Layout) -> Option<Shape> {
        let record = &record[..layout.size];
        let (head, value) = (head(record)?, word(record, layout.value_at)?);
        if layout.key_end > size_of::<u64>() {
            return None;
        }
        let timestamp = Number::at(layout.timestamp_at, layout.offset_at);
        let offset = Number::at(layout.offset_at, layout.key_at);
        let attributes = 0xff << (8 * (layout.timestamp_at - 1));
        let mask = (u64::MAX >> (64 - 8 * layout.key_end)) & !(attributes | timestamp.bits());
        let value_mask = low_bytes(layout.value_end - layout.value_at);
        Some(Shape {
            size: layout.size,
            mask,
            expected: head & mask & !(u64::from(offset.mask) << offset.shift),
            timestamp,
            offset,
            value_at: layout.value_at,
            value_mask,
            value_expected: value & value_mask,
        })
    }

    /// How many records from the beginning of `bytes` lie like this, with offset deltas from `indexes.start` on.
    fn run(&self, bytes: &[u8], indexes: Range<i32>, found: &mut Found) -> usize {
        let (mut index, end) = (indexes.start, indexes.end.min((self.offset.bound() / 2) as i32));
        let (timestamp_bits, mut last_timestamp) = (self.timestamp.bits(), u64::MAX);
        let mut records = bytes.chunks_exact(self.size);
        while index < end {
            let block_end = end.min((index | (BLOCK - 1)) + 1);
            let mut expected = self.expected | self.offset.encode((index as u32) << 1);
            while index < block_end {
                // Each is as long as the record the shape is of, which has both.
                let fields = records.next().and_then(|r| Some((r, head(r)?, word(r, self.value_at)?)));
                let Some((record, head, value)) = fields else { return (index - indexes.start) as usize };
                let differs = (head ^ expected) & self.mask;
                let value_differs = (value ^ self.value_expected) & self.value_mask;
                // The last byte is the count of headers.
                if differs | u64::from(value_differs) | u64::from(record[self.size - 1]) != 0 {
                    return (index - indexes.start) as usize;
                }
                let timestamp = head & timestamp_bits;
                if timestamp != last_timestamp {
                    last_timestamp = timestamp;
                    found.note_delta(unzigzag(self.timestamp.decode(head)).into());
                }
                expected = expected.wrapping_add(2 << self.offset.shift);
                index += 1;
            }
        }
        (index - indexes.start) as usize
    }
}

#[inline(always)]
fn head(record: &[u8]) -> Option<u64> {
    record.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

#[inline(always)]
fn word(record: &[u8], at: usize) -> Option<u32> {
    record.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// Bytes looked at together on the short way: more than the numbers before a key or a value can take.
const WINDOW: usize = 32;

/// A record without headers, with a value, whose numbers have at most three bytes; none if it has another shape, or
/// if too few bytes follow.
#[inline(always)]
fn walk_short(bytes: &[u8], index: i32) -> Option<(Layout, Walked)> {
    let window = bytes.first_chunk::<WINDOW>()?;
    let (size, size_end) = short_number(window, 0)?;
    let (end, timestamp_at) = (size_end + (size >> 1) as usize, size_end + 1);
    let (timestamp_delta, offset_at) = short_number(window, timestamp_at)?;
    let (offset_delta, key_at) = short_number(window, offset_at)?;
    let (key_size, key_end) = short_number(window, key_at)?;
    let (value_size, value_at, value_end) = if key_size == ZIGZAG_NULL {
        let (value_size, value_end) = short_number(window, key_end)?;
        (value_size, key_end, value_end)
    } else {
        let value_at = key_end + (key_size >> 1) as usize;
        let (value_size, size) = short_number(bytes.get(value_at..)?.first_chunk()?, 0)?;
        (value_size, value_at, value_at + size)
    };
    let header_count_at = value_end + (value_size >> 1) as usize;
    let as_expected = offset_delta == (index as u32) << 1
        && (size | value_size) & 1 == 0
        && (key_size & 1 == 0 || key_size == ZIGZAG_NULL)
        && header_count_at + 1 == end
        && bytes.get(header_count_at) == Some(&0);
    let walked = Walked { timestamp_delta: unzigzag(timestamp_delta).into(), key_size: unzigzag(key_size) };
    let layout = Layout { timestamp_at, offset_at, key_at, key_end, value_at, value_end, size: end };
    as_expected.then_some((layout, walked))
}
const ZIGZAG_NULL: u32 = 1;

/// A number of at most three bytes, still zigzag, and where the next one begins.
#[inline(always)]
fn short_number(window: &[u8; WINDOW], at: usize) -> Option<(u32, usize)> {
    // The remainder costs nothing and spares the bounds check; no caller comes near the end of the window.
    let byte = |i: usize| u32::from(window[(at + i) % WINDOW]);
    let mut raw = byte(0);
    if raw < 0x80 {
        return Some((raw, at + 1));
    }
    raw = raw & 0x7f | (byte(1) & 0x7f) << 7;
    if byte(1) < 0x80 {
        return Some((raw, at + 2));
    }
    (byte(2) < 0x80).then(|| (raw | byte(2) << 14, at + 3))
}
fn unzigzag(raw: u32) -> i32 {
    (raw >> 1) as i32 ^ -((raw & 1) as i32)
}

#[inline(never)]
fn walk_long(rest: &mut &[u8], index: i32) -> Result<Walked, RecordFault> {
    let size = varint(rest)?;
    let size = usize::try_from(size).map_err(|_| RecordFault::Number)?;
    let (mut record, after) = rest.split_at_checked(size).ok_or(RecordFault::Cut)?;
    *rest = after;
    let (_attributes, tail) = record.split_first().ok_or(RecordFault::Cut)?;
    record = tail;
    let timestamp_delta = number(&mut record, |r| r.varlong("timestamp delta"))?;
    let offset_delta = varint(&mut record)?;
    if offset_delta != index {
        return Err(RecordFault::OffsetDelta(offset_delta));
    }
    let key_size = skip_nullable(&mut record)?;
    skip_nullable(&mut record)?;
    match varint(&mut record)? {
        0 => {}
        header_count => walk_headers(&mut record, header_count)?,
    }
    if record.is_empty() { Ok(Walked { timestamp_delta, key_size }) } else { Err(RecordFault::Longer) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::record::{Records, write_record};
    use crate::wire::shape::tests::Random;

    fn walk_the_long_way(bytes: &[u8], count: i32) -> Result<(), (i32, RecordFault)> {
        let mut rest = bytes;
        for index in 0..count {
            walk_long(&mut rest, index).map_err(|fault| (index, fault))?;
        }
        if rest.is_empty() { Ok(()) } else { Err((count - 1, RecordFault::BytesLeft(rest.len()))) }
    }

    fn walk_in_pieces(bytes: &[u8], count: i32) -> Result<RecordFacts, BatchError> {
        let mut walk = Walk::new(count);
        while walk.go_on(bytes, 7)? {}
        walk.end(bytes, 0)
    }

    /// The short way may only ever save time: whatever the bytes, both ways judge the same.
    #[test]
    fn short_and_long_way_agree_on_mutated_records() {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let (mut good, mut bad, mut short) = (0, 0, 0);
        for _ in 0..20_000 {
            let mut bytes = Vec::new();
            let count = 1 + random.below(6) as i32;
            for i in 0..count {
                let size = if random.below(8) == 0 { random.below(20_000) } else { random.below(90) };
                let value = vec![b'v'; size];
                let key = vec![b'k'; random.below(70)];
                let header: &[(&[u8], Option<&[u8]>)] = &[(b"h", None), (b"i", Some(b"x"))];
                let bits = random.below(40);
                let timestamp_delta = random.below(1 << bits) as i64 - 9;
                write_record(
                    &mut bytes,
                    i,
                    timestamp_delta,
                    (random.below(3) > 0).then_some(&key[..]),
                    (random.below(6) > 0).then_some(&value[..]),
                    &header[..if random.below(4) == 0 { 2 } else { 0 }],
                );
            }
            for _ in 0..random.below(3) {
                let at = random.below(bytes.len().min(200));
                bytes[at] = match random.below(3) {
                    0 => random.below(256) as u8,
                    1 => bytes[at] ^ 1 << random.below(8),
                    _ => bytes[at].wrapping_add(2),
                };
            }
            short += u32::from(walk_short(&bytes, 0).is_some());
            let long = walk_the_long_way(&bytes, count);
            match walk(&bytes, count, 0) {
                Ok(_) => {
                    assert_eq!(long, Ok(()), "{bytes:?}");
                    assert!(Records::new(&bytes, count).all(|r| r.is_ok()), "{bytes:?}");
                    good += 1;
                }
                Err(BatchError::Record { index, fault }) => {
                    assert_eq!(long, Err((index, fault)), "{bytes:?}");
                    bad += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert!(good > 2000 && bad > 2000 && short > 2000, "{good} good, {bad} bad, {short} short");
    }

    /// Runs of records that lie alike, broken here and there: the fast way must end exactly where the long way finds a fault.
    #[test]
    fn records_alike_are_judged_as_the_long_way_does() {
        let mut random = Random(7);
        let (mut good, mut bad) = (0, 0);
        for _ in 0..3_000 {
            let mut bytes = Vec::new();
            let count = 1 + random.below(300) as i32;
            let (key, value) = (vec![b'k'; random.below(70)], vec![b'v'; random.below(200)]);
            let key = (random.below(3) > 0).then_some(&key[..]);
            let step = [0, 1, 50, 9_000][random.below(4)];
            for i in 0..count {
                let value = if random.below(40) == 0 { &value[..value.len() / 2] } else { &value[..] };
                let delta = random.below(1 + step) as i64 - (step / 2) as i64;
                write_record(&mut bytes, i, delta, key, Some(value), &[]);
            }
            if random.below(2) == 0 {
                let at = random.below(bytes.len());
                bytes[at] = bytes[at].wrapping_add([1, 2, 0x80][random.below(3)]);
            }
            let long = walk_the_long_way(&bytes, count);
            let whole = walk(&bytes, count, 0);
            assert_eq!(walk_in_pieces(&bytes, count), whole, "{bytes:?}");
            match whole {
                Ok(facts) => {
                    assert_eq!(long, Ok(()), "{bytes:?}");
                    let stored = Records::new(&bytes, count).map(|record| record.expect("walked").timestamp_delta);
                    let (min, max) = stored.fold((i64::MAX, i64::MIN), |(min, max), d| (min.min(d), max.max(d)));
                    assert_eq!((facts.timestamp_min, facts.timestamp_max), (min, max), "{bytes:?}");
                    good += 1;
                }
                Err(BatchError::Record { index, fault }) => {
                    assert_eq!(long, Err((index, fault)), "{bytes:?}");
                    bad += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert!(good > 1000 && bad > 100, "{good} good, {bad} bad");
    }
}
