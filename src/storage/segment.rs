//! One `.log` file with its two indexes: plain state, acted on by `log`, `lookup`, `durability` and `recover`.

use std::rc::Rc;

use super::offset_index::{self, OffsetIndex};
use super::time_index::{self, TimeIndex};
use super::zero_tail::ZeroTail;
use crate::ids::{Offset, Position};
use crate::parts::OpenFile;

/// Both indexes of a segment, in memory.
#[derive(Debug, Default)]
pub(super) struct Indexes {
    pub offsets: OffsetIndex,
    pub times: TimeIndex,
    /// Bytes appended since the last entry.
    pub bytes_since_entry: u32,
}

impl Indexes {
    pub fn clear(&mut self) {
        self.offsets.clear();
        self.times.clear();
        self.bytes_since_entry = 0;
    }
}

/// How far a segment is on its way from being written to being left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The last of its log, being appended to.
    Active,
    /// Sealed; the file may be longer than the segment.
    ToTruncate,
    /// A job cuts the file.
    Truncating,
    /// Its bytes may not be on the device yet.
    ToSync,
    /// A job syncs it.
    Syncing,
    /// Its indexes, and the producers' state as of its end, are only in memory.
    ToWriteFiles,
    /// So many jobs still write them.
    WritingFiles(u8),
    /// Compaction is putting it in the place of others, or others in its place.
    Swapping,
    /// Only reads from now on.
    Settled,
}

/// What is known of one batch when it is appended or scanned.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchSpan {
    pub base_offset: Offset,
    pub last_offset: Offset,
    pub max_timestamp: i64,
    pub size: u32,
}

/// A segment. `base_offset <= every offset in it < base offset of the next`.
#[derive(Debug)]
pub(super) struct Segment {
    pub base_offset: Offset,
    /// Bytes of whole batches; the file may be longer (recycled) and is cut when the segment is sealed.
    pub size: u32,
    /// `size` is only what the file system says: whether it ends with a whole batch is seen when somebody reads here.
    pub end_unseen: bool,
    /// What lies behind its last batch.
    pub zero_tail: ZeroTail,
    /// Largest timestamp and the last offset of its batch; timestamp -1: none.
    pub largest_timestamp: i64,
    pub offset_of_largest: Offset,
    /// Largest timestamp of the first batch, from which `segment.ms` counts; -1: not known.
    pub first_timestamp: i64,
    /// Wall clock when it came to be.
    pub created_ms: i64,
    /// Base offset in the file's present name; differs from `base_offset` until a recycled file is renamed.
    pub named: Offset,
    pub file: Option<Rc<OpenFile>>,
    /// `None`: only on disk.
    pub indexes: Option<Box<Indexes>>,
    /// Monotonic time of the last use, by which idle files are closed.
    pub used_ms: u64,
    pub stage: Stage,
    /// Write-back jobs of this file under way; each holds an `Rc` of it.
    pub writebacks: u8,
    /// The producers' state at the segment's end, to be written with the indexes.
    pub end_snapshot: Option<Box<[u8]>>,
    /// Monotonic time when it was sealed.
    pub sealed_ms: u64,
}

impl Segment {
    pub fn new(base_offset: Offset, created_ms: i64) -> Segment {
        Segment {
            base_offset,
            size: 0,
            end_unseen: false,
            zero_tail: ZeroTail::default(),
            largest_timestamp: -1,
            offset_of_largest: base_offset,
            first_timestamp: -1,
            created_ms,
            named: base_offset,
            file: None,
            indexes: None,
            used_ms: 0,
            stage: Stage::Active,
            writebacks: 0,
            end_snapshot: None,
            sealed_ms: 0,
        }
    }
    /// An offset as the indexes keep it.
    pub fn relative(&self, offset: Offset) -> u32 {
        (offset - self.base_offset) as u32
    }
    /// Can an index of this segment name the offset?
    pub fn can_hold(&self, offset: Offset) -> bool {
        (0..=i64::from(i32::MAX)).contains(&(offset - self.base_offset))
    }
    pub fn end(&self) -> Position {
        Position(u64::from(self.size))
    }
    /// Takes note of a batch at the segment's end.
    pub fn note(&mut self, batch: BatchSpan, index_interval_bytes: u32) {
        let (base, last, position) = (self.relative(batch.base_offset), self.relative(batch.last_offset), self.size);
        if position == 0 {
            self.first_timestamp = batch.max_timestamp;
        }
        if batch.max_timestamp > self.largest_timestamp {
            self.largest_timestamp = batch.max_timestamp;
            self.offset_of_largest = batch.last_offset;
        }
        let largest =
            time_index::Entry { timestamp: self.largest_timestamp, offset: self.relative(self.offset_of_largest) };
        let indexes = self.indexes.get_or_insert_default();
        if indexes.bytes_since_entry > index_interval_bytes {
            indexes.offsets.push(offset_index::Entry { base, last, position });
            indexes.times.maybe_push(largest);
            indexes.bytes_since_entry = 0;
        }
        indexes.bytes_since_entry += batch.size;
        self.size += batch.size;
    }
    /// Makes the time index end with the largest timestamp, as it must once the segment is sealed.
    pub fn complete_time_index(&mut self) {
        let largest =
            time_index::Entry { timestamp: self.largest_timestamp, offset: self.relative(self.offset_of_largest) };
        if let Some(indexes) = &mut self.indexes {
            indexes.times.maybe_push(largest);
        }
    }
}
