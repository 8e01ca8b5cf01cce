//! Records inside a batch, decompressed. The produce path only walks their framing (`walk`); compaction, the offsets
//! topic, dump-log and the console read them (`Records`) and write them (`BatchBuilder`).
//!
//! ```text
//! size varint | attributes i8 | timestamp delta varlong | offset delta varint | key size varint, key
//!             | value size varint, value | header count varint, (key size varint, key, value size varint, value)*
//! ```
//! A size of -1 is null. Only a header's key cannot be null.

use std::fmt;

use super::batch::{Attributes, HEADER_SIZE, MAGIC, field, seal};
use super::reader::{DecodeError, Reader};
use super::writer;
use crate::ids::{LeaderEpoch, Offset};

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordFault {
    /// It ends before its fields do, or a field is longer than the record.
    Cut,
    /// A number of the framing is longer than its type, or a size is below -1.
    Number,
    /// Its offset delta is not its place in the batch.
    OffsetDelta(i32),
    /// Bytes are left after its last field.
    Longer,
    /// Bytes are left after the last record.
    BytesLeft(usize),
}

impl fmt::Display for RecordFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordFault::Cut => write!(f, "ends before its fields do"),
            RecordFault::Number => write!(f, "has a malformed number or size"),
            RecordFault::OffsetDelta(delta) => write!(f, "has offset delta {delta}"),
            RecordFault::Longer => write!(f, "is longer than its fields"),
            RecordFault::BytesLeft(bytes) => write!(f, "is the last, and {bytes} bytes follow it"),
        }
    }
}

pub(super) fn walk_headers(record: &mut &[u8], header_count: i32) -> Result<(), RecordFault> {
    if header_count < 0 {
        return Err(RecordFault::Number);
    }
    for _ in 0..header_count {
        if skip_nullable(record)? < 0 {
            return Err(RecordFault::Number);
        }
        skip_nullable(record)?;
    }
    Ok(())
}

/// Skips a key or a value; gives its size, -1 for null.
pub(super) fn skip_nullable(rest: &mut &[u8]) -> Result<i32, RecordFault> {
    let size = varint(rest)?;
    if size < -1 {
        return Err(RecordFault::Number);
    }
    *rest = rest.get(size.max(0) as usize..).ok_or(RecordFault::Cut)?;
    Ok(size)
}
pub(super) fn varint(rest: &mut &[u8]) -> Result<i32, RecordFault> {
    number(rest, |r| r.varint("number"))
}
pub(super) fn number<T>(
    rest: &mut &[u8],
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<T, RecordFault> {
    let mut r = Reader::new(rest);
    let number = read(&mut r).map_err(fault)?;
    *rest = rest.get(r.position()..).unwrap_or_default();
    Ok(number)
}
fn fault(error: DecodeError) -> RecordFault {
    match error {
        DecodeError::Missing(_) => RecordFault::Cut,
        DecodeError::Negative(_) | DecodeError::Invalid(_) => RecordFault::Number,
    }
}

/// One record, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Added to the batch's base offset.
    pub offset_delta: i32,
    /// Added to the batch's base timestamp.
    pub timestamp_delta: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// The headers, as on the wire.
    headers: &'a [u8],
    header_count: i32,
}

impl<'a> Record<'a> {
    /// Key and value of each header.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let mut r = Reader::new(self.headers);
        // `Records` walked them already, so they cannot fail.
        (0..self.header_count).map_while(move |_| {
            let key = nullable(&mut r).ok()??;
            Some((key, nullable(&mut r).ok()?))
        })
    }
    pub fn header_count(&self) -> usize {
        self.header_count as usize
    }
}

/// What stands before a record's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHead {
    /// Bytes of the whole record, those that say its size included.
    pub size: usize,
    /// Added to the batch's base timestamp.
    pub timestamp_delta: i64,
    /// Added to the batch's base offset.
    pub offset_delta: i32,
}

impl RecordHead {
    /// Of the record that begins here. `None`: the bytes end within it.
    pub fn read(bytes: &[u8]) -> Result<Option<RecordHead>, RecordFault> {
        let mut r = Reader::new(bytes);
        let fields = (|| {
            let size = r.varint("size")?;
            let start = r.position();
            r.i8("attributes")?;
            Ok((size, start, r.varlong("timestamp delta")?, r.varint("offset delta")?))
        })();
        match fields {
            Ok((size, start, timestamp_delta, offset_delta)) => {
                let size = start + usize::try_from(size).map_err(|_| RecordFault::Number)?;
                let head = RecordHead { size, timestamp_delta, offset_delta };
                if size < r.position() { Err(RecordFault::Cut) } else { Ok(Some(head)) }
            }
            Err(DecodeError::Missing(_)) => Ok(None),
            Err(error) => Err(fault(error)),
        }
    }
}

/// Reads the records of a batch in order; stops after the first that is malformed.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    left: i32,
}

impl<'a> Records<'a> {
    /// `count` records, decompressed.
    pub fn new(bytes: &'a [u8], count: i32) -> Records<'a> {
        Records { rest: bytes, left: count }
    }
    /// The bytes after the records that were read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
    fn read(&mut self) -> Result<Record<'a>, RecordFault> {
        let size = varint(&mut self.rest)?;
        let size = usize::try_from(size).map_err(|_| RecordFault::Number)?;
        let (record, after) = self.rest.split_at_checked(size).ok_or(RecordFault::Cut)?;
        self.rest = after;
        let mut r = Reader::new(record);
        let record = (|| {
            r.i8("attributes")?;
            let timestamp_delta = r.varlong("timestamp delta")?;
            let offset_delta = r.varint("offset delta")?;
            let (key, value) = (nullable(&mut r)?, nullable(&mut r)?);
            let header_count = r.varint("header count")?;
            Ok(Record { offset_delta, timestamp_delta, key, value, headers: r.rest(), header_count })
        })()
        .map_err(fault)?;
        let mut headers = record.headers;
        walk_headers(&mut headers, record.header_count)?;
        if headers.is_empty() { Ok(record) } else { Err(RecordFault::Longer) }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordFault>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.left <= 0 {
            return None;
        }
        self.left -= 1;
        let record = self.read();
        if record.is_err() {
            self.left = 0;
        }
        Some(record)
    }
}

fn nullable<'a>(r: &mut Reader<'a>) -> Result<Option<&'a [u8]>, DecodeError> {
    match r.varint("size")? {
        -1 => Ok(None),
        size => {
            let size = usize::try_from(size).map_err(|_| DecodeError::Negative("size"))?;
            r.take(size, "bytes").map(Some)
        }
    }
}

/// Appends one record to `out`.
pub fn write_record(
    out: &mut Vec<u8>,
    offset_delta: i32,
    timestamp_delta: i64,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[(&[u8], Option<&[u8]>)],
) {
    let sized = |bytes: Option<&[u8]>| {
        let size = bytes.map_or(-1, |bytes| bytes.len() as i64);
        writer::varlong_size(size) + size.max(0) as usize
    };
    let size = 1
        + writer::varlong_size(timestamp_delta)
        + writer::varlong_size(offset_delta.into())
        + sized(key)
        + sized(value)
        + writer::varlong_size(headers.len() as i64)
        + headers.iter().map(|(key, value)| sized(Some(key)) + sized(*value)).sum::<usize>();
    writer::varint(out, size as i32);
    writer::i8(out, 0);
    writer::varlong(out, timestamp_delta);
    writer::varint(out, offset_delta);
    write_nullable(out, key);
    write_nullable(out, value);
    writer::varint(out, headers.len() as i32);
    for (key, value) in headers {
        write_nullable(out, Some(key));
        write_nullable(out, *value);
    }
}
fn write_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    writer::varint(out, bytes.map_or(-1, |bytes| bytes.len() as i32));
    out.extend_from_slice(bytes.unwrap_or_default());
}

/// The fields of a batch's header that its records do not give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchFields {
    pub base_offset: Offset,
    pub leader_epoch: LeaderEpoch,
    pub attributes: Attributes,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
}

impl Default for BatchFields {
    /// Offset 0, no producer id.
    fn default() -> BatchFields {
        BatchFields {
            base_offset: Offset(0),
            leader_epoch: LeaderEpoch(-1),
            attributes: Attributes(0),
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
        }
    }
}

/// Builds one batch at the end of `out`. The first record's timestamp is the base, unless `with_base_timestamp` says.
#[derive(Debug)]
pub struct BatchBuilder<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    fields: BatchFields,
    count: i32,
    last_offset_delta: i32,
    base_timestamp: Option<i64>,
    timestamp_max: i64,
}

impl<'a> BatchBuilder<'a> {
    pub fn new(out: &'a mut Vec<u8>, fields: BatchFields) -> BatchBuilder<'a> {
        let start = out.len();
        out.resize(start + HEADER_SIZE, 0);
        BatchBuilder { out, start, fields, count: 0, last_offset_delta: -1, base_timestamp: None, timestamp_max: -1 }
    }
    /// Sets the base timestamp, as compaction must to keep it, or to state a delete horizon.
    pub fn with_base_timestamp(mut self, ms: i64) -> BatchBuilder<'a> {
        self.base_timestamp = Some(ms);
        self
    }
    /// Appends a record at the next offset.
    pub fn push(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) {
        self.push_at(self.last_offset_delta + 1, timestamp, key, value, headers);
    }
    /// Appends a record at an offset delta beyond the last: compaction leaves gaps.
    pub fn push_at(
        &mut self,
        offset_delta: i32,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) {
        assert!(offset_delta > self.last_offset_delta, "offsets rise within a batch");
        let base = *self.base_timestamp.get_or_insert(timestamp);
        write_record(self.out, offset_delta, timestamp.wrapping_sub(base), key, value, headers);
        self.last_offset_delta = offset_delta;
        self.timestamp_max = self.timestamp_max.max(timestamp);
        self.count += 1;
    }
    /// Records so far.
    pub fn count(&self) -> i32 {
        self.count
    }
    /// Bytes of the batch so far.
    pub fn size(&self) -> usize {
        self.out.len() - self.start
    }
    /// Ends a batch whose last offset is the last record's.
    pub fn finish(self) {
        let last_offset_delta = self.last_offset_delta.max(0);
        self.finish_at(last_offset_delta);
    }
    /// Ends the batch; it spans offsets up to `last_offset_delta` even if compaction removed the last records.
    pub fn finish_at(self, last_offset_delta: i32) {
        assert!(last_offset_delta >= self.last_offset_delta, "a batch spans its records' offsets");
        let max_timestamp = self.timestamp_max;
        self.finish_with(last_offset_delta, max_timestamp);
    }
    /// Ends the batch with a `max_timestamp` of its own, as batches in LogAppendTime have.
    pub fn finish_with(self, last_offset_delta: i32, max_timestamp: i64) {
        let BatchBuilder { out, start, fields, count, base_timestamp, .. } = self;
        let batch = &mut out[start..];
        let length = batch.len() - field::COUNTED;
        assert!(length <= i32::MAX as usize, "a batch of {length} bytes has no length");
        batch[field::BASE_OFFSET].copy_from_slice(&fields.base_offset.0.to_be_bytes());
        batch[field::BATCH_LENGTH].copy_from_slice(&(length as i32).to_be_bytes());
        batch[field::LEADER_EPOCH].copy_from_slice(&fields.leader_epoch.0.to_be_bytes());
        batch[field::MAGIC] = MAGIC as u8;
        batch[field::ATTRIBUTES].copy_from_slice(&fields.attributes.0.to_be_bytes());
        batch[field::LAST_OFFSET_DELTA].copy_from_slice(&last_offset_delta.to_be_bytes());
        batch[field::BASE_TIMESTAMP].copy_from_slice(&base_timestamp.unwrap_or(-1).to_be_bytes());
        batch[field::MAX_TIMESTAMP].copy_from_slice(&max_timestamp.to_be_bytes());
        batch[field::PRODUCER_ID].copy_from_slice(&fields.producer_id.to_be_bytes());
        batch[field::PRODUCER_EPOCH].copy_from_slice(&fields.producer_epoch.to_be_bytes());
        batch[field::BASE_SEQUENCE].copy_from_slice(&fields.base_sequence.to_be_bytes());
        batch[field::COUNT].copy_from_slice(&count.to_be_bytes());
        seal(batch);
    }
}
