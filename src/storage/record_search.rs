//! From a batch to the one of its records that is meant by a time, piece by piece as a budget allows. Of what is read or
//! decompressed nothing is kept but the beginning of a record that is not whole yet, and of a record only its head is looked at.

use std::io;
use std::ops::Range;

use super::budget::{Budget, READ_NS, decompress_cost};
use crate::ids::{LeaderEpoch, Offset, Position};
use crate::io::disk::Disk;
use crate::limits::DECOMPRESSED_SIZE_MAX;
use crate::parts::FileRange;
use crate::wire::batch::{Codec, HEADER_SIZE, HeaderView, MAGIC, TimestampType};
use crate::wire::compression::Decompressor;
use crate::wire::record::RecordHead;

/// Bytes of the file read at once.
const READ_SIZE: usize = 64 << 10;
/// What looking at a record's head is taken for, in bytes read.
const HEAD_COST: usize = 128;

/// What is told of an offset; -1 where there is nothing to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundOffset {
    /// Of the record, if a time was asked for.
    pub timestamp: i64,
    /// The offset.
    pub offset: Offset,
    /// The leader epoch it was written under.
    pub epoch: LeaderEpoch,
}

/// How far a search has come.
#[derive(Clone, Debug)]
pub enum Searched {
    /// The budget is spent, and there is more to do.
    NotYet,
    /// The record. `None`: consumers may not read it yet.
    Ended(Option<FoundOffset>),
    /// Only deleted records of the batch are as new as that: go on with the batch from here on.
    Beyond(Offset),
    /// Read this ahead (`Job::ReadAhead`), then search anew.
    Cold(FileRange),
}

/// Why a search fails.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// KAFKA_STORAGE_ERROR.
    #[error("cannot read a batch: {0}")]
    Read(#[from] io::Error),
    /// CORRUPT_MESSAGE.
    #[error("no batch header where one should be")]
    Corrupt,
}

/// A search in one batch for its first record that is not older than a time.
pub struct RecordSearch {
    batch: BatchFile,
    at_least: i64,
    /// From the log's start to what consumers may read.
    visible: Range<Offset>,
    /// Its header has been read.
    records: Option<Records>,
}

impl std::fmt::Debug for RecordSearch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordSearch").field("range", &self.batch.range).finish_non_exhaustive()
    }
}

impl RecordSearch {
    /// In the batch at `range`, whose largest timestamp is at least `at_least`.
    pub fn new(range: FileRange, at_least: i64, visible: Range<Offset>) -> RecordSearch {
        RecordSearch { batch: BatchFile { range, read: 0 }, at_least, visible, records: None }
    }

    /// Goes on until it has ended or the budget is spent.
    pub fn go_on(&mut self, disk: &mut dyn Disk, budget: &mut Budget) -> Result<Searched, SearchError> {
        while !budget.is_spent() {
            let Some(records) = &mut self.records else {
                let mut bytes = Vec::new();
                if matches!(self.batch.read(disk, &mut bytes, budget)?, Filled::Cold) || bytes.len() < HEADER_SIZE {
                    return Ok(Searched::Cold(self.batch.range.clone()));
                }
                let records = Records::begin(bytes, self.visible.start).ok_or(SearchError::Corrupt)?;
                if records.all_alike {
                    return Ok(self.ended(records.otherwise));
                }
                self.records = Some(records);
                continue;
            };
            let filled = records.source.fill(&mut self.batch, disk, &mut records.heads.bytes, budget)?;
            if let Filled::Cold = filled {
                return Ok(Searched::Cold(self.batch.range.clone()));
            }
            let found = records.find(self.visible.start, self.at_least, budget);
            if found.is_some() || matches!(filled, Filled::Last) || records.heads.left <= 0 {
                let is_partly_deleted = records.base_offset < self.visible.start;
                return Ok(match found {
                    None if is_partly_deleted => Searched::Beyond(records.end),
                    found => {
                        let found = found.unwrap_or(records.otherwise);
                        self.ended(found)
                    }
                });
            }
        }
        Ok(Searched::NotYet)
    }

    /// What consumers may not read yet is not told either.
    fn ended(&self, found: FoundOffset) -> Searched {
        Searched::Ended((found.offset < self.visible.end).then_some(found))
    }
}

/// The bytes of a batch in its file, one piece after the other.
struct BatchFile {
    range: FileRange,
    read: u32,
}

/// What came of asking for more bytes.
enum Filled {
    /// More may follow.
    More,
    /// Nothing will follow.
    Last,
    Cold,
}

impl BatchFile {
    /// Appends the next piece to `out`.
    fn read(&mut self, disk: &mut dyn Disk, out: &mut Vec<u8>, budget: &mut Budget) -> io::Result<Filled> {
        let start = out.len();
        let size = READ_SIZE.min((self.range.size - self.read) as usize);
        if size == 0 {
            return Ok(Filled::Last);
        }
        out.resize(start + size, 0);
        let position = Position(self.range.position.0 + u64::from(self.read));
        let count = match disk.read_resident(&self.range.file, position, &mut out[start..]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            read => read?,
        };
        out.truncate(start + count);
        budget.spend(count, READ_NS);
        self.read += count as u32;
        Ok(match count {
            0 => Filled::Cold,
            _ if self.read == self.range.size => Filled::Last,
            _ => Filled::More,
        })
    }
}

/// The records of a batch.
struct Records {
    base_offset: Offset,
    /// First offset behind them.
    end: Offset,
    base_timestamp: i64,
    /// Told where the records do not tell.
    otherwise: FoundOffset,
    /// The batch's timestamp is that of each record.
    all_alike: bool,
    source: Source,
    heads: Heads,
}

impl Records {
    /// Those of a batch that begins with these bytes. `None`: they are not the header of a batch.
    fn begin(mut bytes: Vec<u8>, log_start: Offset) -> Option<Records> {
        let header = HeaderView::read(&bytes).filter(|header| header.magic() == MAGIC)?;
        let (base_offset, timestamp) = (header.base_offset(), header.max_timestamp());
        let otherwise = FoundOffset { timestamp, offset: base_offset.max(log_start), epoch: header.leader_epoch() };
        let (base_timestamp, left) = (header.base_timestamp(), header.count());
        let all_alike = header.attributes().timestamp_type() == TimestampType::LogAppendTime;
        let (codec, end) = (header.attributes().codec()?, header.last_offset() + 1);
        bytes.drain(..HEADER_SIZE);
        let (source, bytes) = match codec {
            Codec::None => (Source::File, bytes),
            codec => (Source::Gather(codec, bytes), Vec::new()),
        };
        let heads = Heads { bytes, pass: 0, left };
        Some(Records { base_offset, end, base_timestamp, otherwise, all_alike, source, heads })
    }

    fn find(&mut self, log_start: Offset, at_least: i64, budget: &mut Budget) -> Option<FoundOffset> {
        let (base_offset, base_timestamp, epoch) = (self.base_offset, self.base_timestamp, self.otherwise.epoch);
        let told = |head: RecordHead| FoundOffset {
            timestamp: base_timestamp.wrapping_add(head.timestamp_delta),
            offset: base_offset + i64::from(head.offset_delta),
            epoch,
        };
        let mut all = std::iter::from_fn(|| self.heads.next(budget)).map(told);
        let found = all.find(|record| record.offset >= log_start && record.timestamp >= at_least);
        self.heads.forget_passed();
        found
    }
}

/// Where a batch's records come from.
enum Source {
    /// The file itself.
    File,
    /// The file, but all of it must be there before anything is decompressed.
    Gather(Codec, Vec<u8>),
    Stream(Box<Decompressor<Vec<u8>>>),
}

impl Source {
    /// Appends the next piece to `out`.
    fn fill(
        &mut self,
        batch: &mut BatchFile,
        disk: &mut dyn Disk,
        out: &mut Vec<u8>,
        budget: &mut Budget,
    ) -> io::Result<Filled> {
        match self {
            Source::File => batch.read(disk, out, budget),
            Source::Gather(codec, bytes) => {
                let filled = batch.read(disk, bytes, budget)?;
                let Filled::Last = filled else { return Ok(filled) };
                let stream = Decompressor::new(*codec, std::mem::take(bytes), DECOMPRESSED_SIZE_MAX);
                *self = Source::Stream(Box::new(stream));
                Ok(Filled::More)
            }
            Source::Stream(stream) => {
                let before = out.len();
                let (size, ns) = decompress_cost(stream.codec());
                let more = stream.read(out, size);
                budget.spend(out.len() - before, ns);
                // Records that cannot be decompressed were never looked at before; whoever reads from the batch's beginning
                // misses nothing.
                Ok(if more.unwrap_or(false) { Filled::More } else { Filled::Last })
            }
        }
    }
}

/// The heads of records whose bytes come in pieces.
struct Heads {
    /// What came, from the first record on that has not been passed.
    bytes: Vec<u8>,
    /// Bytes of them, and perhaps of what will come, that belong to records already looked at.
    pass: usize,
    /// Records not looked at.
    left: i32,
}

impl Heads {
    /// The next record's head. `None`: it is not there yet, or there is none, or it is malformed and nothing is `left`.
    fn next(&mut self, budget: &mut Budget) -> Option<RecordHead> {
        let rest = self.bytes.get(self.pass..).filter(|_| self.left > 0)?;
        match RecordHead::read(rest) {
            Ok(head) => {
                let head = head?;
                budget.spend(HEAD_COST, READ_NS);
                (self.pass, self.left) = (self.pass + head.size, self.left - 1);
                Some(head)
            }
            Err(_) => {
                self.left = 0;
                None
            }
        }
    }

    fn forget_passed(&mut self) {
        let passed = self.pass.min(self.bytes.len());
        self.bytes.drain(..passed);
        self.pass -= passed;
    }
}
