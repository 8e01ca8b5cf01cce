//! The way of a sealed segment to rest: cut to its size, synced, its indexes and the producers' state written. Only then does the
//! recovery point pass it. One segment after another; the active one is synced when that is asked for.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use super::log::Log;
use super::segment::{Segment, Stage};
use super::{LOG, OFFSET_INDEX, SNAPSHOT, TIME_INDEX, checkpoint, file_path, leader_epochs};
use crate::ids::Offset;
use crate::io::disk::{Disk, Job};
use crate::parts::OpenFile;

/// A sealed segment is synced after this, unless retention retired it meanwhile: data that is dropped within seconds
/// need never reach the device.
const SETTLE_AFTER_MS: u64 = 10_000;
/// More sealed bytes than this are not left unsynced: they bound what a recovery has to scan.
const UNSYNCED_BYTES_MAX: u64 = 2 << 30;

impl Log {
    /// When a sealed segment is to be synced. At once where the log is compacted: nothing but compaction drops its data, and
    /// that waits for segments at rest, on top of the `log.cleaner.backoff.ms` that everybody reckons with.
    pub(super) fn settle_due_ms(&self, segment: &Segment) -> u64 {
        segment.sealed_ms + if self.config.compact { 0 } else { SETTLE_AFTER_MS }
    }

    /// Lets sealed segments take their next step, and syncs the active one when that was asked for.
    pub(super) fn advance(&mut self, disk: &mut dyn Disk) {
        if self.durability.failed {
            return;
        }
        let now_ms = self.durability.now_ms;
        let unsynced: u64 = self
            .segments
            .iter()
            .filter(|s| matches!(s.stage, Stage::ToTruncate | Stage::Truncating | Stage::ToSync | Stage::Syncing))
            .map(|s| u64::from(s.size))
            .sum();
        let wanted = self.durability.sync_wanted;
        if let Some(index) = self.segments.iter().position(|s| !matches!(s.stage, Stage::Settled | Stage::Swapping)) {
            let owner = self.owner;
            let due_ms = self.settle_due_ms(&self.segments[index]);
            let segment = &mut self.segments[index];
            if segment.file.is_none() && segment.stage == Stage::ToTruncate {
                // Found without indexes at start-up.
                segment.file = disk.open(&file_path(&self.dir, segment.named, LOG), false).ok();
            }
            let due = now_ms >= due_ms || unsynced > UNSYNCED_BYTES_MAX || wanted > segment.base_offset;
            // A sync of its last days as the active segment is still under way.
            let busy = self.durability.active_sync.is_some_and(|(base, _)| base == segment.base_offset);
            match (segment.stage, segment.file.clone()) {
                (Stage::ToTruncate, Some(file)) if due && !busy => {
                    segment.stage = Stage::Truncating;
                    self.durability.start(disk, owner, Job::Truncate { file, size: u64::from(segment.size) });
                }
                (Stage::ToSync, Some(file)) if due && !busy => {
                    segment.stage = Stage::Syncing;
                    self.durability.start(disk, owner, Job::Sync { file });
                }
                // The recovery point must not pass batches whose epochs are only in memory.
                (Stage::ToWriteFiles, _) if !self.durability.epochs_dirty && !self.durability.epochs_writing => {
                    self.write_files(disk, index);
                }
                _ => {}
            }
        }
        let all_sealed_synced = self.segments.iter().all(|s| {
            matches!(
                s.stage,
                Stage::Active | Stage::ToWriteFiles | Stage::WritingFiles(_) | Stage::Swapping | Stage::Settled
            )
        });
        if wanted > self.durability.synced_offset
            && all_sealed_synced
            && self.durability.active_sync.is_none()
            && let Some(active) = self.segments.back()
            && let Some(file) = active.file.clone()
        {
            self.durability.active_sync = Some((active.base_offset, self.log_end_offset));
            self.durability.unsynced_since_ms = 0;
            self.durability.start(disk, self.owner, Job::Sync { file });
        }
    }

    /// Writes what is derived from a sealed segment: its indexes, and the producers' state at its end.
    fn write_files(&mut self, disk: &mut dyn Disk, index: usize) {
        let end = self.segments.get(index + 1).map_or(self.log_end_offset, |next| next.base_offset);
        let segment = &mut self.segments[index];
        segment.complete_time_index();
        let Some(indexes) = &segment.indexes else {
            segment.stage = Stage::Settled;
            return;
        };
        let base = segment.base_offset;
        let mut files = vec![
            (file_path(&self.dir, base, OFFSET_INDEX), indexes.offsets.encode()),
            (file_path(&self.dir, base, TIME_INDEX), indexes.times.encode()),
        ];
        if let Some(snapshot) = segment.end_snapshot.take() {
            files.push((file_path(&self.dir, end, SNAPSHOT), snapshot.into_vec()));
        }
        segment.stage = Stage::WritingFiles(files.len() as u8);
        for (path, bytes) in files {
            self.durability.start(disk, self.owner, Job::Replace { path, bytes, sync: true });
        }
    }

    pub(super) fn synced(&mut self, file: &Rc<OpenFile>, result: io::Result<()>) {
        let ok = self.or_fail("sync", result);
        let Some(segment) = self.segment_of(file) else {
            self.durability.active_sync = None;
            return;
        };
        let base = segment.base_offset;
        let was_sealed_sync = segment.stage == Stage::Syncing;
        if was_sealed_sync && ok {
            segment.stage = Stage::ToWriteFiles;
        }
        if !ok {
            return;
        }
        let upto = if was_sealed_sync {
            let index = self.segments.partition_point(|s| s.base_offset <= base);
            self.segments.get(index).map_or(base, |next| next.base_offset)
        } else {
            self.durability.active_sync.take().map_or(base, |(_, upto)| upto)
        };
        self.durability.synced_offset = self.durability.synced_offset.max(upto);
    }

    pub(super) fn replaced(&mut self, path: PathBuf, result: io::Result<()>) {
        if let Err(e) = &result {
            log::warn!("cannot write {}: {e}", path.display());
        }
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if name == leader_epochs::FILE_NAME {
            self.durability.epochs_writing = false;
            if result.is_err() {
                self.durability.epochs_dirty = true;
                self.durability.retry_later();
            }
        } else if name == checkpoint::PARTITION_FILE_NAME {
            self.durability.checkpoint_writing = false;
            self.durability.recycling_noted = self.durability.recycling_writing && result.is_ok();
            // It may be what says which records were deleted.
            if result.is_err() {
                self.durability.checkpoint_dirty = true;
                self.durability.retry_later();
            }
        } else if super::parse_file_name(name).is_some()
            && let Some(segment) = self.segments.iter_mut().find(|s| matches!(s.stage, Stage::WritingFiles(_)))
            && let Stage::WritingFiles(left) = segment.stage
        {
            if left > 1 {
                segment.stage = Stage::WritingFiles(left - 1);
            } else {
                segment.stage = Stage::Settled;
                // The recovery point may pass the segment now.
                self.durability.checkpoint_dirty = true;
            }
        }
    }

    /// Where recovery must begin: every segment before it is synced and has its derived files.
    pub(super) fn settled_offset(&self) -> Offset {
        self.segments
            .iter()
            .find(|s| !matches!(s.stage, Stage::Settled | Stage::Swapping))
            .map_or(self.log_end_offset, |s| s.base_offset)
    }
}
