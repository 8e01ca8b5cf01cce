//! How a log's bytes reach the device, in the background: space is reserved ahead of the writer, write-back is started early,
//! sealed segments come to rest (`settle`), files nobody uses are removed and closed.
//! Everything here is a job; nothing waits. At most one step of each kind is under way per log.

use std::cmp::Ordering;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use super::log::Log;
use super::segment::{Segment, Stage};
use super::zero_tail::ZeroTail;
use super::{LOG, StorageError, checkpoint, leader_epochs};
use crate::ids::{JobOwner, Now, Offset, Position};
use crate::io::disk::{Disk, Job};
use crate::parts::OpenFile;

/// Smaller logs get no space reserved: most partitions stay small.
const PREALLOCATE_FROM: u64 = 1 << 20;
/// A log that fills a segment within this time gets space for the next one from its beginning.
const FAST_SEGMENT_MS: u64 = 10_000;
/// Of smaller files the pages are freed by the close.
const DROP_PAGES_FROM: u64 = 1 << 20;
/// Write-back ranges of one log under way.
const WRITE_BACKS_MAX: u8 = 2;
/// Space is reserved ahead only while the device has so many times as much.
const RESERVE_OF_USABLE: u64 = 16;
/// A small file that could not be written is tried again after so long.
const RETRY_AFTER_MS: u64 = 1_000;
/// Files and indexes that were not used for so long are let go.
const IDLE_AFTER_MS: u64 = 60_000;

/// What is under way and what is still to be done for one log.
#[derive(Debug, Default)]
pub(super) struct Durability {
    /// Everything before this is on the device: the recovery point.
    pub synced_offset: Offset,
    /// A sync was asked for up to here.
    pub sync_wanted: Offset,
    /// The active segment's sync under way: its base offset, and the log end when it began.
    pub active_sync: Option<(Offset, Offset)>,
    /// Monotonic time of the oldest append since the last sync; 0: none. For `flush.ms`.
    pub unsynced_since_ms: u64,
    /// Bytes reserved in the active segment's file.
    pub preallocated: u64,
    preallocating: bool,
    /// When the active segment began (monotonic ms).
    active_since_ms: u64,
    /// The segment before the active one was filled within `FAST_SEGMENT_MS`.
    fills_fast: bool,
    /// Write-back was started up to here: a segment's base offset, a position in it.
    write_back_from: (Offset, u32),
    write_backs: u8,
    write_back_due: WriteBackDue,
    /// Paths to remove, one after another, so that neither a crash nor a stop leaves a younger segment removed and an older one
    /// there. A path stays until it is removed.
    pub removals: std::collections::VecDeque<PathBuf>,
    /// A job removes the first of them.
    removing: bool,
    /// Files to close once nobody else holds them, and the size of what the page cache is to let go of before.
    closing: Vec<(Rc<OpenFile>, u64)>,
    pub checkpoint_dirty: bool,
    pub checkpoint_writing: bool,
    pub epochs_dirty: bool,
    pub epochs_writing: bool,
    /// A small file could not be written: none that is still dirty is tried again before this (monotonic ms).
    retry_ms: u64,
    /// `partition.checkpoint` says on the device that this log recycles files, so recovery is careful enough for it.
    pub recycling_noted: bool,
    /// What the checkpoint under way will have noted.
    pub recycling_writing: bool,
    /// Monotonic time of the last call that knew it.
    pub now_ms: u64,
    /// The log was written to since it was opened, so closing it has something to write.
    pub touched_since_open: bool,
    /// How often a retired file became the next segment.
    pub recycled: u64,
    /// Jobs under way.
    jobs: u32,
    /// Of these, those that go by a path in the log's directory.
    path_jobs: u32,
    /// The recycled file that is the active segment is getting its name.
    pub renaming: bool,
    /// A sync or the like failed: what is on the device is not known any more.
    pub failed: bool,
}

/// Which appended bytes are old enough to be written back.
#[derive(Debug, Default)]
struct WriteBackDue {
    /// Everything before this: a segment's base offset, a position in it.
    until: (Offset, u32),
    /// Where the log ended at a time (monotonic ms) that is not long enough ago.
    mark: (Offset, u32),
    marked_ms: u64,
}

impl WriteBackDue {
    fn appended(&mut self, end: (Offset, u32), now_ms: u64, after_ms: u64) {
        if after_ms == 0 {
            self.until = end;
        } else if now_ms >= self.marked_ms + after_ms {
            self.until = self.mark;
            (self.mark, self.marked_ms) = (end, now_ms);
        }
    }
}

fn is_log(path: &std::path::Path) -> bool {
    path.extension().is_some_and(|extension| extension == super::LOG)
}

impl Durability {
    /// Files that were to be closed.
    pub fn into_closing(self) -> Vec<Rc<OpenFile>> {
        self.closing.into_iter().map(|(file, _)| file).collect()
    }
    /// Marks a segment as used now.
    pub fn touch(&self, segment: &mut Segment) {
        segment.used_ms = self.now_ms;
    }
    /// Closes a file once this shard no longer uses it.
    pub fn close_later(&mut self, file: &Rc<OpenFile>) {
        self.closing.push((file.clone(), 0));
    }
    /// The same for a file whose name goes to another, or to nobody: its pages are let go of in small steps, as freeing all of
    /// them at once (20 ms for 128 MiB) would keep a core from its shard.
    pub fn drop_later(&mut self, file: &Rc<OpenFile>, size: u64) {
        self.closing.push((file.clone(), if size < DROP_PAGES_FROM { 0 } else { size }));
    }
    /// Removes a file once those asked for before are gone.
    pub fn remove_later(&mut self, path: PathBuf) {
        self.removals.push_back(path);
    }
    /// The active segment's file is another one, with so many bytes reserved.
    pub fn new_active(&mut self, preallocated: u64) {
        self.preallocated = preallocated;
        self.preallocating = false;
        self.fills_fast = self.active_since_ms > 0 && self.now_ms < self.active_since_ms + FAST_SEGMENT_MS;
        self.active_since_ms = self.now_ms;
    }
    /// Is a segment's file still to be removed?
    pub fn removes_logs(&self) -> bool {
        self.removals.iter().any(|path| is_log(path))
    }
    /// Are files still to be removed?
    pub fn removes(&self) -> bool {
        !self.removals.is_empty()
    }
    /// It is at least so late.
    pub fn note_now(&mut self, now: Now) {
        self.now_ms = self.now_ms.max(now.monotonic_ms());
    }
    /// `partition.checkpoint` is to be written.
    pub fn note_checkpoint(&mut self) {
        self.checkpoint_dirty = true;
    }
    /// `leader-epoch-checkpoint` is to be written.
    pub fn note_epochs(&mut self) {
        self.epochs_dirty = true;
    }
    /// A small file could not be written, on a full disk say.
    pub fn retry_later(&mut self) {
        self.retry_ms = self.now_ms + RETRY_AFTER_MS;
    }
    /// When a small file that could not be written is to be tried again (monotonic ms).
    pub fn retry_due_ms(&self) -> Option<u64> {
        let dirty = self.checkpoint_dirty || self.epochs_dirty;
        (dirty && !self.may_retry()).then_some(self.retry_ms)
    }
    fn may_retry(&self) -> bool {
        self.now_ms >= self.retry_ms
    }
    /// The log was opened and everything before `synced_offset` is on the device.
    pub fn opened(&mut self, synced_offset: Offset, touched: bool) {
        self.synced_offset = synced_offset;
        self.write_back_from = (synced_offset, 0);
        self.touched_since_open = touched;
    }
    /// Starts a job of this log.
    pub fn start(&mut self, disk: &mut dyn Disk, owner: JobOwner, job: Job) {
        self.jobs += 1;
        self.path_jobs += u32::from(job.goes_by_path());
        disk.start(owner, job);
    }
    /// Is a sync of the active segment under way?
    pub fn syncs(&self, base_offset: Offset) -> bool {
        self.active_sync.is_some_and(|(base, _)| base == base_offset)
    }
}

impl Log {
    /// Everything before this is on the device.
    pub fn synced_offset(&self) -> Offset {
        self.durability.synced_offset
    }

    /// When a small file that could not be written is to be tried again (monotonic ns): housekeeping does it.
    pub fn retry_ns(&self) -> Option<u64> {
        self.durability.retry_due_ms().map(|ms| ms * 1_000_000)
    }

    /// Is no job of this log under way? A log is closed when it is quiet.
    pub fn is_quiet(&self) -> bool {
        self.durability.jobs == 0
    }

    /// Jobs under way that go by a path in the log's directory.
    pub fn path_jobs(&self) -> u32 {
        self.durability.path_jobs
    }

    /// A job failed, and with it the log: it takes and gives nothing until the next start.
    pub fn has_failed(&self) -> bool {
        self.durability.failed
    }

    /// Err: this log failed before.
    pub(super) fn usable(&self) -> Result<(), StorageError> {
        if self.durability.failed { Err(StorageError::Failed { path: self.dir.to_path_buf() }) } else { Ok(()) }
    }

    /// Follows up on an append. True: it is to be acknowledged only once it is synced.
    pub(super) fn appended(&mut self, disk: &mut dyn Disk, now: Now) -> bool {
        self.durability.now_ms = now.monotonic_ms();
        if let Some(active) = self.segments.back() {
            let end = (active.base_offset, active.size);
            self.durability.write_back_due.appended(end, now.monotonic_ms(), self.config.write_back_after_ms);
        }
        self.durability.touched_since_open = true;
        self.preallocate(disk);
        self.note_recycling();
        self.write_back(disk);
        if self.durability.checkpoint_dirty {
            self.write_checkpoint(disk);
        }
        if self.durability.unsynced_since_ms == 0 {
            self.durability.unsynced_since_ms = now.monotonic_ms().max(1);
        }
        let wait = self.log_end_offset - self.durability.synced_offset >= self.config.flush_messages;
        if wait {
            self.sync(disk);
        }
        wait
    }

    /// Asks for everything written so far to be synced. One sync serves all who ask while it is under way;
    /// `synced_offset` moves with `job_done`.
    pub fn sync(&mut self, disk: &mut dyn Disk) {
        self.durability.sync_wanted = self.log_end_offset;
        self.advance(disk);
    }

    /// Reserves space ahead of the writer, which spares each append the file system's own reckoning. The steps grow with the
    /// segment, so a small one reserves little, unless the one before was filled in no time.
    fn preallocate(&mut self, disk: &mut dyn Disk) {
        let Some(active) = self.segments.back() else { return };
        let size = u64::from(active.size);
        let full = u64::from(self.config.segment_bytes);
        let expected = if self.durability.fills_fast { full } else { size };
        let step = expected.min(self.config.preallocate_step_bytes);
        let position = self.durability.preallocated.max(size);
        if expected < PREALLOCATE_FROM
            || self.durability.preallocating
            || position >= full
            || position - size > step / 2
        {
            return;
        }
        let Some(file) = active.file.clone() else { return };
        let size = step.min(full - position);
        // On a device that is nearly full, what one log reserves is missing where another appends.
        if disk.space().is_ok_and(|space| space.usable / RESERVE_OF_USABLE < size) {
            self.durability.preallocated = position + size;
            return;
        }
        self.durability.preallocating = true;
        self.durability.start(disk, self.owner, Job::Preallocate { file, position: Position(position), size });
    }

    /// Starts write-back of the next ranges, oldest first, skipping segments that are gone.
    fn write_back(&mut self, disk: &mut dyn Disk) {
        let step = self.config.write_back_bytes.clamp(1 << 16, 1 << 30) as u32;
        while self.durability.write_backs < WRITE_BACKS_MAX {
            let (base, from) = self.durability.write_back_from;
            let index = self.segments.partition_point(|s| s.base_offset < base);
            let Some(segment) = self.segments.get_mut(index) else { return };
            let from = if segment.base_offset == base { from } else { 0 };
            let sealed = segment.stage != Stage::Active;
            let (due_base, due_until) = self.durability.write_back_due.until;
            let size = match due_base.cmp(&segment.base_offset) {
                Ordering::Less => return,
                Ordering::Equal => due_until,
                Ordering::Greater => segment.size,
            };
            let left = size.saturating_sub(from);
            if segment.file.is_none() || (sealed && (left == 0 || segment.stage == Stage::Settled)) {
                if !sealed {
                    return;
                }
                self.durability.write_back_from = (segment.base_offset + 1, 0);
                continue;
            }
            if left < step && !sealed {
                return;
            }
            let size = left.min(step);
            let file = segment.file.clone().expect("checked");
            segment.writebacks += 1;
            self.durability.write_backs += 1;
            self.durability.write_back_from = (segment.base_offset, from + size);
            let (position, size) = (Position(u64::from(from)), u64::from(size));
            self.durability.start(disk, self.owner, Job::StartWriteback { file, position, size });
        }
    }

    /// Takes a job's end. Every job this log started comes back here.
    pub fn job_done(&mut self, disk: &mut dyn Disk, job: Job, result: io::Result<()>, now: Now) {
        self.durability.now_ms = now.monotonic_ms();
        self.durability.jobs = self.durability.jobs.saturating_sub(1);
        let by_path = u32::from(job.goes_by_path());
        self.durability.path_jobs = self.durability.path_jobs.saturating_sub(by_path);
        if let (Job::ReadAhead { .. }, Err(_)) = (&job, &result) {
            self.or_fail("read", result);
            return self.tidy(disk);
        }
        if self.cleaner_job_done(&job, &result) {
            drop(job);
            self.tidy(disk);
            return;
        }
        match job {
            Job::Preallocate { file, position, size } => {
                let active = self.segments.back().and_then(|s| s.file.as_ref());
                if active.is_some_and(|f| Rc::ptr_eq(f, &file)) {
                    // A device that cannot reserve is one that can be appended to all the same: the append will tell.
                    self.durability.preallocated = position.0 + size;
                    self.durability.preallocating = false;
                }
            }
            Job::StartWriteback { file, .. } => {
                self.durability.write_backs -= 1;
                if let Some(segment) = self.segment_of(&file) {
                    segment.writebacks -= 1;
                }
                drop(file);
                if let Err(e) = result {
                    log::warn!("{}: write-back: {e}", self.dir.display());
                }
                self.write_back(disk);
            }
            Job::Truncate { file, .. } => {
                // Not cut: the tail is ignored by size while we run, and by the next recovery's scan.
                let ok = self.or_fail("truncate", result);
                let last = self.segments.back().map(|s| s.base_offset);
                if let Some(segment) = self.segment_of(&file).filter(|s| ok && s.stage == Stage::Truncating) {
                    let rested = last == Some(segment.base_offset);
                    segment.stage = if rested { Stage::Active } else { Stage::ToSync };
                    segment.zero_tail = ZeroTail::default();
                    if rested {
                        self.durability.preallocated = 0;
                    }
                }
            }
            Job::Sync { file } => self.synced(&file, result),
            Job::Rename { from, to } => self.renamed(from, to, result),
            Job::Remove { path } => {
                self.durability.removing = false;
                self.durability.removals.pop_front();
                if let Err(e) = result {
                    log::warn!("cannot remove {}: {e}", path.display());
                }
            }
            Job::Replace { path, .. } => self.replaced(path, result),
            Job::DropPages { file, .. } => self.durability.close_later(&file),
            Job::Close { .. } | Job::ReadAhead { .. } | Job::RemoveDir { .. } | Job::SyncFileSystems { .. } => {}
        }
        self.tidy(disk);
    }

    /// Does what does not depend on time: next steps, next removal, closing of files nobody holds, dirty small files.
    pub(super) fn tidy(&mut self, disk: &mut dyn Disk) {
        if self.durability.epochs_dirty && self.durability.may_retry() {
            self.write_epochs(disk);
        }
        self.advance(disk);
        if !self.durability.removing
            && let Some(path) = self.durability.removals.front().cloned()
        {
            self.durability.removing = true;
            self.durability.start(disk, self.owner, Job::Remove { path });
        }
        // This list holds one `Rc`; another is with a job, a reader, or a segment.
        let mut at = 0;
        while let Some((file, _)) = self.durability.closing.get(at) {
            if Rc::strong_count(file) == 1 {
                let job = match self.durability.closing.swap_remove(at) {
                    (file, 0) => Job::Close { file },
                    (file, size) => Job::DropPages { file, position: Position(0), size },
                };
                self.durability.start(disk, self.owner, job);
            } else {
                at += 1;
            }
        }
        if self.durability.checkpoint_dirty {
            self.write_checkpoint(disk);
        }
    }

    /// Writes `leader-epoch-checkpoint`, now or after the write under way.
    pub(super) fn write_epochs(&mut self, disk: &mut dyn Disk) {
        self.durability.epochs_dirty = self.durability.epochs_writing;
        if !self.durability.epochs_writing {
            self.durability.epochs_writing = true;
            let (path, bytes) = (self.path(leader_epochs::FILE_NAME), self.epochs.encode().into_bytes());
            self.durability.start(disk, self.owner, Job::Replace { path, bytes, sync: true });
        }
    }

    fn write_checkpoint(&mut self, disk: &mut dyn Disk) {
        if self.durability.checkpoint_writing || self.segments.is_empty() || !self.durability.may_retry() {
            return;
        }
        (self.durability.checkpoint_dirty, self.durability.checkpoint_writing) = (false, true);
        let note = checkpoint::PartitionCheckpoint {
            recovery_point: self.settled_offset(),
            log_start_offset: self.log_start_offset,
            recycling: self.recycles(),
            cleaned: self.cleaned,
        };
        self.durability.recycling_writing = note.recycling;
        let (path, bytes) = (self.path(checkpoint::PARTITION_FILE_NAME), note.encode().into_bytes());
        self.durability.start(disk, self.owner, Job::Replace { path, bytes, sync: true });
    }

    /// Does this log reuse the files of retired segments?
    pub(super) fn recycles(&self) -> bool {
        let config = &self.config;
        let dense = !config.compact && self.cleaned.is_none();
        config.recycle && config.delete && dense && (config.retention_bytes >= 0 || config.retention_ms >= 0)
    }

    /// Recovery must know before the first file is reused: noted early enough to be on the device by then.
    fn note_recycling(&mut self) {
        if self.durability.recycling_noted || self.durability.checkpoint_writing || !self.recycles() {
            return;
        }
        let near_roll = self.segments.back().is_some_and(|s| s.size > self.config.segment_bytes / 4);
        self.durability.checkpoint_dirty |= near_roll || self.segments.len() > 1;
    }

    /// What time brings: to be called at the deadline it gave (monotonic ns), or earlier.
    pub fn housekeep(&mut self, disk: &mut dyn Disk, now: Now) -> Option<u64> {
        let now_ms = now.monotonic_ms();
        self.durability.now_ms = now_ms;
        let flush_due_ms = (self.durability.unsynced_since_ms > 0 && self.config.flush_ms < i64::MAX)
            .then(|| self.durability.unsynced_since_ms.saturating_add(self.config.flush_ms.max(0) as u64));
        if flush_due_ms.is_some_and(|due| now_ms >= due) {
            self.sync(disk);
        }
        self.name_active(disk);
        self.tidy(disk);
        self.close_idle(disk);
        let settle_ms = self.segments.iter().find(|s| s.stage == Stage::ToTruncate).map(|s| self.settle_due_ms(s));
        let idle_ms = self.segments.iter().filter(|s| s.file.is_some()).map(|s| s.used_ms + IDLE_AFTER_MS).min();
        let later = |ms: u64| ms.max(now_ms + 1);
        [
            flush_due_ms.filter(|_| self.durability.unsynced_since_ms > 0),
            settle_ms,
            idle_ms,
            self.durability.retry_due_ms(),
        ]
        .into_iter()
        .flatten()
        .map(later)
        .min()
        .map(|ms| ms * 1_000_000)
    }

    /// Lets go of files and indexes that were not used for a while. The active segment is cut to its size first, so that a
    /// resting log occupies no more than its records; its indexes stay, as they are nowhere else.
    fn close_idle(&mut self, disk: &mut dyn Disk) {
        let now_ms = self.durability.now_ms;
        for index in 0..self.segments.len() {
            let segment = &mut self.segments[index];
            let Some(file) = &segment.file else { continue };
            if now_ms < segment.used_ms + IDLE_AFTER_MS {
                continue;
            }
            segment.used_ms = now_ms;
            let busy = segment.writebacks > 0 || segment.named != segment.base_offset;
            match segment.stage {
                Stage::Active if busy || segment.size == 0 || self.durability.active_sync.is_some() => {}
                Stage::Active if self.durability.preallocated > 0 => {
                    let (file, size) = (file.clone(), u64::from(segment.size));
                    segment.stage = Stage::Truncating;
                    segment.used_ms = now_ms - IDLE_AFTER_MS;
                    self.durability.start(disk, self.owner, Job::Truncate { file, size });
                }
                Stage::Active | Stage::Settled if !busy => {
                    if segment.stage == Stage::Settled {
                        segment.indexes = None;
                    }
                    let file = segment.file.take().expect("seen");
                    self.durability.closing.push((file, 0));
                }
                _ => {}
            }
        }
        self.tidy(disk);
    }

    /// Does this log wait for peers to acknowledge bytes (`Ring::release_acknowledged`), to close a file or to use it again?
    pub fn wants_acknowledgements(&self) -> bool {
        let held = |file: &Rc<OpenFile>, own: usize| Rc::strong_count(file) > own;
        if self.durability.closing.iter().any(|(file, _)| held(file, 1)) {
            return true;
        }
        // The roll is near, and the file it would use again is still held.
        let (Some(active), Some(oldest)) = (self.segments.back(), self.segments.front()) else { return false };
        self.durability.recycling_noted
            && active.size > self.config.segment_bytes - self.config.segment_bytes / 8
            && oldest.file.as_ref().is_some_and(|file| held(file, 1 + usize::from(oldest.writebacks)))
    }

    /// True if the job succeeded. Otherwise nothing is known of what the device holds: the log takes nothing more.
    pub(super) fn or_fail(&mut self, operation: &str, result: io::Result<()>) -> bool {
        if let Err(e) = &result {
            log::error!("{}: cannot {operation}: {e}; the partition goes offline", self.dir.display());
            self.durability.failed = true;
        }
        result.is_ok()
    }

    pub(super) fn segment_of(&mut self, file: &Rc<OpenFile>) -> Option<&mut Segment> {
        self.segments.iter_mut().rev().find(|s| s.file.as_ref().is_some_and(|f| Rc::ptr_eq(f, file)))
    }

    fn renamed(&mut self, from: PathBuf, to: PathBuf, result: io::Result<()>) {
        self.durability.renaming = false;
        match result {
            Ok(()) => {
                let to = to.file_name().and_then(|n| n.to_str()).and_then(super::parse_file_name);
                if let Some(segment) = self.segments.iter_mut().find(|s| to == Some((s.base_offset, LOG))) {
                    segment.named = segment.base_offset;
                }
            }
            // The file works under its old name too: recovery goes by its contents. Housekeeping tries again.
            Err(e) => log::warn!("cannot rename {} to {}: {e}", from.display(), to.display()),
        }
    }
}
