//! Log: the records of one partition. Batches are staged while requests are handled and written once a turn;
//! reads get file ranges, never bytes. `log_start_offset <= log_end_offset <= next_offset`, segments are contiguous.
//! A log without a record has no directory and holds no memory beyond this struct.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::cleaner::Cleaner;
use super::durability::Durability;
use super::leader_epochs::LeaderEpochs;
use super::log_config::LogConfig;
use super::producer_state::{Appended, ProducerStamp, ProducerState, SequenceCheck};
use super::segment::{BatchSpan, Segment, Stage};
use super::{StorageError, failed};
use crate::ids::{JobOwner, LeaderEpoch, Now, Offset, Position, TopicId};
use crate::io::disk::Disk;
use crate::parts::{Buffers, OpenFile, Slice};

/// What is known of a log before its directory is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Start {
    /// Written to `partition.metadata` with the first record.
    pub topic_id: TopicId,
    /// Records before this were deleted.
    pub log_start: Option<Offset>,
    /// Everything before this is on the device.
    pub recovery_point: Offset,
    /// Compaction has cleaned up to here.
    pub cleaned: Option<Offset>,
    /// The broker was stopped in good order: nothing needs to be scanned.
    pub clean: bool,
    /// The partition's leader epoch, if known: no record was appended under a later one.
    pub leader_epoch: Option<LeaderEpoch>,
}

impl Start {
    /// Can a batch have this leader epoch? Its checksum does not cover it.
    pub(super) fn can_have(&self, epoch: LeaderEpoch) -> bool {
        self.leader_epoch.is_none_or(|latest| epoch <= latest)
    }
}

/// What opening a log found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Bytes read and checked.
    pub scanned_bytes: u64,
    /// Bytes cut off as torn or left over from a file's former life.
    pub cut_bytes: u64,
    /// Segments whose indexes were made anew.
    pub indexes_rebuilt: u32,
    /// Segments that were dropped: behind a damaged one, or half overwritten.
    pub segments_dropped: u32,
}

/// One batch that has passed all checks and carries its offsets: to be written at the end of this turn.
#[derive(Clone, Copy, Debug)]
pub struct StagedBatch {
    /// Must be the log's `next_offset` (or, on a follower of a compacted leader, above).
    pub base_offset: Offset,
    pub last_offset: Offset,
    pub max_timestamp: i64,
    pub leader_epoch: LeaderEpoch,
    pub producer: ProducerStamp,
    pub transactional: bool,
    pub control: bool,
    /// Where its bytes are.
    pub slice: Slice,
}

impl StagedBatch {
    fn span(&self) -> BatchSpan {
        BatchSpan {
            base_offset: self.base_offset,
            last_offset: self.last_offset,
            max_timestamp: self.max_timestamp,
            size: self.slice.size,
        }
    }
    fn appended(&self) -> Appended {
        Appended {
            producer: self.producer,
            base_offset: self.base_offset,
            last_offset: self.last_offset,
            timestamp: self.max_timestamp,
            transactional: self.transactional,
            control: self.control,
        }
    }
}

/// What a flush wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushInfo {
    /// Offset of the first record.
    pub first: Offset,
    /// Offset of the last record.
    pub last: Offset,
    /// `flush.messages` is reached: acknowledge once `synced_offset` is above `last`. The sync is under way.
    pub ack_when_synced: bool,
}

/// One partition's records.
#[derive(Debug)]
pub struct Log {
    pub(super) dir: Box<Path>,
    pub(super) owner: JobOwner,
    pub(super) config: Rc<LogConfig>,
    pub(super) topic_id: TopicId,
    pub(super) log_start_offset: Offset,
    pub(super) log_end_offset: Offset,
    next_offset: Offset,
    /// In order of base offset; the last is the active one.
    pub(super) segments: VecDeque<Segment>,
    staged: Vec<StagedBatch>,
    pub(super) epochs: LeaderEpochs,
    /// What was known when it was opened.
    pub(super) start: Start,
    pub(super) producers: ProducerState,
    pub(super) durability: Durability,
    /// Retention takes only records below it.
    pub(super) retention_limit: Offset,
    /// Compaction has cleaned up to here; `None`: it never ran.
    pub(super) cleaned: Option<Offset>,
    /// A cleaning under way.
    pub(super) cleaner: Option<Box<Cleaner>>,
    /// Compaction found something it cannot read: it leaves this log alone until the next start.
    pub(super) uncleanable: bool,
}

impl Log {
    /// A log without a record.
    pub(super) fn empty(dir: &Path, owner: JobOwner, config: Rc<LogConfig>, start: Start) -> Log {
        let mut log = Log {
            dir: dir.into(),
            owner,
            config,
            topic_id: start.topic_id,
            log_start_offset: Offset(0),
            log_end_offset: Offset(0),
            next_offset: Offset(0),
            segments: VecDeque::new(),
            staged: Vec::new(),
            epochs: LeaderEpochs::default(),
            start,
            producers: ProducerState::default(),
            durability: Durability::default(),
            retention_limit: Offset(i64::MAX),
            cleaned: start.cleaned,
            cleaner: None,
            uncleanable: false,
        };
        log.restart_at(start.log_start.unwrap_or_default());
        log
    }
    /// The log is given up, its topic deleted: the files it had open, to be closed once nobody holds them.
    pub fn into_files(self) -> Vec<Rc<OpenFile>> {
        let mut files = self.durability.into_closing();
        files.extend(self.segments.into_iter().filter_map(|segment| segment.file));
        files
    }
    /// Nothing is in the log, and the next record gets this offset.
    pub(super) fn restart_at(&mut self, offset: Offset) {
        self.log_start_offset = offset;
        self.set_end(offset);
        self.durability.synced_offset = offset;
    }
    pub(super) fn set_end(&mut self, end: Offset) {
        assert!(self.staged.is_empty(), "the log end moved under staged batches");
        (self.log_end_offset, self.next_offset) = (end, end);
    }
    /// Offset of the first record that may be read.
    pub fn log_start_offset(&self) -> Offset {
        self.log_start_offset
    }
    /// Offset after the last written record.
    pub fn log_end_offset(&self) -> Offset {
        self.log_end_offset
    }
    /// Offset the next staged batch gets: the log end, staged batches included.
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }
    /// Bytes of all segments.
    pub fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|s| u64::from(s.size)).sum()
    }
    /// Number of segments.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }
    /// Base offset of the n-th segment.
    pub fn segment_base(&self, index: usize) -> Option<Offset> {
        self.segments.get(index).map(|s| s.base_offset)
    }
    /// The partition's directory, relative to the data directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    /// Is there a directory? It is made with the first record.
    pub fn has_directory(&self) -> bool {
        !self.segments.is_empty()
    }
    /// The settings it runs with.
    pub fn config(&self) -> &Rc<LogConfig> {
        &self.config
    }
    /// New settings, effective from the next append on.
    pub fn set_config(&mut self, config: Rc<LogConfig>) {
        self.config = config;
    }
    /// Leader epochs of this log.
    pub fn leader_epochs(&self) -> &LeaderEpochs {
        &self.epochs
    }
    /// The largest epoch not above `epoch` and its end offset; `None`: not known here.
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.epochs.end_offset_for(epoch, self.log_end_offset)
    }
    /// Idempotent producers, for DescribeProducers.
    pub fn producers(&self) -> &ProducerState {
        &self.producers
    }

    /// How an idempotent batch of `count` records fits what is stored and staged.
    pub fn check_sequence(&self, stamp: ProducerStamp, count: i32) -> SequenceCheck {
        self.producers.check(stamp, count, self.staged.iter().rev().map(StagedBatch::appended))
    }

    /// Stages one checked and stamped batch. Its bytes stay where they are until `flush`.
    pub fn stage(&mut self, batch: StagedBatch) {
        assert!(
            batch.base_offset >= self.next_offset && batch.last_offset >= batch.base_offset,
            "batch {}..={} staged where {} was expected",
            batch.base_offset,
            batch.last_offset,
            self.next_offset
        );
        self.next_offset = batch.last_offset + 1;
        self.staged.push(batch);
    }

    /// Is anything staged?
    pub fn has_staged(&self) -> bool {
        !self.staged.is_empty()
    }

    /// Forgets what is staged.
    pub fn drop_staged(&mut self) {
        self.staged.clear();
        self.next_offset = self.log_end_offset;
    }

    /// Writes what is staged: one write per segment touched. On error what is not written is forgotten, and the log end is
    /// where the last whole write ended (unchanged, unless the staged batches crossed a segment's end).
    pub fn flush(
        &mut self,
        disk: &mut dyn Disk,
        buffers: &dyn Buffers,
        now: Now,
    ) -> Result<Option<FlushInfo>, StorageError> {
        let (Some(first), Some(last)) = (self.staged.first(), self.staged.last()) else { return Ok(None) };
        let (first, last) = (first.base_offset, last.last_offset);
        let mut staged = std::mem::take(&mut self.staged);
        let result = self.write_all(disk, buffers, &staged, now);
        staged.clear();
        self.staged = staged;
        self.next_offset = self.log_end_offset;
        result?;
        let ack_when_synced = self.appended(disk, now);
        Ok(Some(FlushInfo { first, last, ack_when_synced }))
    }

    fn write_all(
        &mut self,
        disk: &mut dyn Disk,
        buffers: &dyn Buffers,
        mut staged: &[StagedBatch],
        now: Now,
    ) -> Result<(), StorageError> {
        self.usable()?;
        while let Some(first) = staged.first() {
            if self.segments.back().is_none_or(|active| self.must_roll(active, first, 0, now)) {
                self.roll(disk, first.base_offset, first.slice.size, now)?;
            }
            self.make_appendable(disk, now)?;
            let active = self.segments.back().expect("rolled");
            let mut bytes = 0;
            let mut count = 0;
            for batch in staged {
                if count > 0 && self.must_roll(active, batch, bytes, now) {
                    break;
                }
                bytes += batch.slice.size;
                count += 1;
            }
            let (group, rest) = staged.split_at(count);
            self.write_group(disk, buffers, group, now)?;
            staged = rest;
        }
        Ok(())
    }

    /// Must a new segment begin with this batch? `pending`: bytes that go into the segment before it.
    fn must_roll(&self, active: &Segment, batch: &StagedBatch, pending: u32, now: Now) -> bool {
        let size = u64::from(active.size) + u64::from(pending);
        if size == 0 {
            return !active.can_hold(batch.last_offset);
        }
        // It is getting its name: nothing may come behind it until then, and nobody waits for that.
        let grown = size + u64::from(batch.slice.size);
        if active.named != active.base_offset && grown <= i32::MAX as u64 && active.can_hold(batch.last_offset) {
            return false;
        }
        let waited_ms = if active.first_timestamp >= 0 {
            batch.max_timestamp - active.first_timestamp
        } else {
            now.wall_ms - active.created_ms
        };
        // It is being cut to size after a rest: nothing may be written to it until that is over.
        let busy = active.stage != Stage::Active;
        let entries_max = self.config.segment_index_bytes as usize / super::offset_index::ENTRY_SIZE;
        busy || size + u64::from(batch.slice.size) > u64::from(self.config.segment_bytes)
            || waited_ms > self.config.segment_ms_max() - self.config.segment_jitter_ms
            || active.indexes.as_ref().is_some_and(|i| i.offsets.len() >= entries_max)
            || !active.can_hold(batch.last_offset)
    }

    /// Writes batches that belong into the active segment in one go.
    fn write_group(
        &mut self,
        disk: &mut dyn Disk,
        buffers: &dyn Buffers,
        group: &[StagedBatch],
        now: Now,
    ) -> Result<(), StorageError> {
        let active = self.segments.back_mut().expect("an active segment");
        active.used_ms = now.monotonic_ms();
        let file = active.file.clone().expect("opened");
        let bytes: u32 = group.iter().map(|batch| batch.slice.size).sum();
        let zeros =
            active.zero_tail.behind(active.size, active.size + bytes, self.durability.preallocated, now.monotonic_ms());
        let written = if group.len() < 8 {
            write_slices::<8>(disk, &file, active.end(), buffers, group, zeros)
        } else {
            write_slices::<1024>(disk, &file, active.end(), buffers, group, zeros)
        };
        written.map_err(|source| StorageError::Io {
            operation: "append to",
            path: super::file_path(&self.dir, active.named, super::LOG),
            source,
        })?;
        let mut new_epoch = false;
        for batch in group {
            active.note(batch.span(), self.config.index_interval_bytes);
            if self.epochs.latest() != Some(batch.leader_epoch) {
                new_epoch |= self.epochs.assign(batch.leader_epoch, batch.base_offset);
            }
            if batch.producer.id >= 0 {
                self.producers.note(&batch.appended());
            }
        }
        self.log_end_offset = group[group.len() - 1].last_offset + 1;
        if new_epoch {
            self.write_epochs(disk);
        }
        Ok(())
    }

    /// Opens the active segment's file and loads its indexes, if a rest has let them go.
    fn make_appendable(&mut self, disk: &mut dyn Disk, now: Now) -> Result<(), StorageError> {
        let index = self.segments.len() - 1;
        self.open_segment(disk, index, now)?;
        let active = &self.segments[index];
        if active.size > 0 && active.indexes.is_none() {
            self.load_indexes(disk, index)?;
        }
        Ok(())
    }

    /// Opens a segment's file if it is not.
    pub(super) fn open_segment(&mut self, disk: &mut dyn Disk, index: usize, now: Now) -> Result<(), StorageError> {
        let segment = &mut self.segments[index];
        segment.used_ms = segment.used_ms.max(now.monotonic_ms());
        if segment.file.is_none() {
            let path = super::file_path(&self.dir, segment.named, super::LOG);
            segment.file = Some(disk.open(&path, false).map_err(failed("open", &path))?);
        }
        Ok(())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// One gathered write (one per `N` batches), then `zeros`.
fn write_slices<const N: usize>(
    disk: &mut dyn Disk,
    file: &crate::parts::OpenFile,
    mut position: Position,
    buffers: &dyn Buffers,
    group: &[StagedBatch],
    zeros: &'static [u8],
) -> std::io::Result<()> {
    let mut chunks = group.chunks(N - 1).peekable();
    while let Some(chunk) = chunks.next() {
        let mut slices = [IoSlice::new(&[]); N];
        let mut bytes = 0;
        for (slice, batch) in slices.iter_mut().zip(chunk) {
            *slice = IoSlice::new(buffers.bytes(batch.slice));
            bytes += u64::from(batch.slice.size);
        }
        let mut count = chunk.len();
        if chunks.peek().is_none() && !zeros.is_empty() {
            slices[count] = IoSlice::new(zeros);
            count += 1;
        }
        disk.write(file, position, &slices[..count])?;
        position += bytes;
    }
    Ok(())
}
