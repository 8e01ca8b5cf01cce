//! Both ends of a log: new segments at the one, retired segments at the other, and the short way between them (recycling):
//! a file that retention retires becomes the same log's next segment if its pages are resident and nobody else holds it.

use std::path::PathBuf;
use std::rc::Rc;

use super::log::Log;
use super::segment::{Indexes, Segment, Stage};
use super::zero_tail::ZeroTail;
use super::{LOG, OFFSET_INDEX, SNAPSHOT, StorageError, TIME_INDEX, TXN_INDEX, failed, file_path, retain};
use crate::ids::{Now, Offset, Position};
use crate::io::disk::{Disk, Job};

/// Places of a file that are probed for residency before it is used again.
const PROBES: u64 = 16;

impl Log {
    /// Seals the active segment, if there is one, and begins a new one at `base_offset`. Retention is looked at first, as what
    /// it retires is what the new segment can be made of. `coming`: bytes that will be written to it at once, which count
    /// for retention: full segments are a little shorter than `segment.bytes`, and without them one more would be kept. 0: the
    /// log may rest from now on, and no file is recycled.
    pub(super) fn roll(
        &mut self,
        disk: &mut dyn Disk,
        base_offset: Offset,
        coming: u32,
        now: Now,
    ) -> Result<(), StorageError> {
        // A recycled file gets its name before the next segment begins, so that recovery has to look for one such file at most,
        // and finds it behind all others. `must_roll` lets the segment grow until then.
        if self.active_is_unnamed() {
            return Err(StorageError::Unnamed { path: self.dir.to_path_buf() });
        }
        let retired = self.deletable(coming, now);
        let recycled = coming > 0 && retired > 0 && self.can_recycle(disk);
        let mut fresh = Segment::new(base_offset, now.wall_ms);
        fresh.used_ms = now.monotonic_ms();
        // Created before anything is changed: if the device has no room, nothing has happened.
        if !recycled {
            let path = file_path(&self.dir, base_offset, LOG);
            let made = self.segments.is_empty() && self.log_end_offset == self.log_start_offset;
            fresh.file = Some(disk.open(&path, true).map_err(failed("create", &path))?);
            if made {
                self.write_metadata(disk);
            }
        }
        self.seal(disk, now);
        if recycled {
            let old = self.segments.pop_front().expect("retired");
            self.remove_derived(&old);
            let mut indexes: Box<Indexes> = old.indexes.unwrap_or_default();
            indexes.clear();
            fresh.named = old.named;
            fresh.zero_tail = ZeroTail::of_recycled(old.size.max(old.zero_tail.filled_to()));
            fresh.indexes = Some(indexes);
            fresh.file = old.file;
            fresh.writebacks = old.writebacks;
            self.durability.new_active(u64::from(old.size));
            self.durability.recycled += 1;
        } else {
            self.durability.new_active(0);
        }
        self.segments.push_back(fresh);
        self.name_active(disk);
        self.retire(retired.saturating_sub(usize::from(recycled)).min(self.segments.len() - 1));
        self.tidy(disk);
        Ok(())
    }

    /// The active segment is a recycled file that has its former name.
    fn active_is_unnamed(&self) -> bool {
        self.segments.back().is_some_and(|s| s.named != s.base_offset)
    }

    /// Gives the active segment its name, if it has that of a former life.
    pub(super) fn name_active(&mut self, disk: &mut dyn Disk) {
        if self.durability.renaming || !self.active_is_unnamed() {
            return;
        }
        let Some(active) = self.segments.back() else { return };
        let (from, to) = (file_path(&self.dir, active.named, LOG), file_path(&self.dir, active.base_offset, LOG));
        self.durability.renaming = true;
        self.durability.start(disk, self.owner, Job::Rename { from, to });
    }

    /// The active segment is full.
    fn seal(&mut self, disk: &mut dyn Disk, now: Now) {
        let snapshot = self.producers.encode();
        let Some(active) = self.segments.back_mut() else { return };
        if active.size == 0 {
            // Nothing was written to it (its offsets ran out of reach): it leaves no trace.
            let empty = self.segments.pop_back().expect("active");
            self.remove_files(empty);
            self.tidy(disk);
            return;
        }
        active.complete_time_index();
        // Cut to size after a rest just now: the job's end finds it sealed.
        if active.stage == Stage::Active {
            active.stage = Stage::ToTruncate;
        }
        active.sealed_ms = now.monotonic_ms();
        active.end_snapshot = Some(snapshot.into_boxed_slice());
    }

    /// May the oldest segment's file be overwritten? Only if nobody reads it or still has its pages in a send queue, no job but
    /// write-back works on it, its pages are resident, and recovery knows that this happens.
    fn can_recycle(&mut self, disk: &mut dyn Disk) -> bool {
        // Recovery looks for a recycled file where the oldest one is: none may be left before it.
        if !self.recycles() || !self.durability.recycling_noted || self.durability.removes_logs() {
            return false;
        }
        let Some(oldest) = self.segments.front() else { return false };
        let Some(file) = &oldest.file else { return false };
        let resting = matches!(
            oldest.stage,
            Stage::Active | Stage::ToTruncate | Stage::ToSync | Stage::ToWriteFiles | Stage::Settled
        );
        let alone = Rc::strong_count(file) == 1 + usize::from(oldest.writebacks) && !file.tainted.get();
        if !resting || !alone || oldest.named != oldest.base_offset || self.durability.syncs(oldest.base_offset) {
            return false;
        }
        let mut byte = [0u8];
        let step = u64::from(oldest.size) / PROBES;
        (0..PROBES).all(|i| matches!(disk.read_resident(file, Position(i * step), &mut byte), Ok(1)))
    }

    /// How many segments retention wants gone, if so many bytes come to them now.
    fn deletable(&self, coming: u32, now: Now) -> usize {
        let offsets = retain::Offsets {
            log_start: self.log_start_offset,
            log_end: self.log_end_offset,
            limit: self.retention_limit,
        };
        retain::deletable(&self.segments, &self.config, offsets, coming, now)
    }

    /// Removes the `count` oldest segments.
    pub(super) fn retire(&mut self, count: usize) {
        for _ in 0..count {
            // A job works on it, or its files are being written: it goes next time.
            if self.segments.front().is_none_or(|s| {
                matches!(s.stage, Stage::Truncating | Stage::Syncing | Stage::WritingFiles(_) | Stage::Swapping)
                    || s.named != s.base_offset
                    || self.durability.syncs(s.base_offset)
            }) {
                break;
            }
            let segment = self.segments.pop_front().expect("looked at");
            self.remove_files(segment);
        }
        self.start_moved();
    }

    /// The log starts where its first segment does, at the earliest.
    fn start_moved(&mut self) {
        let first = self.segments.front().map_or(self.log_end_offset, |s| s.base_offset);
        if first > self.log_start_offset {
            self.log_start_offset = first;
        }
        self.durability.synced_offset = self.durability.synced_offset.max(first);
        // Not written now: what the file says of records that are gone is dropped when it is read.
        self.epochs.truncate_from_start(self.log_start_offset);
    }

    fn remove_files(&mut self, mut segment: Segment) {
        self.durability.remove_later(file_path(&self.dir, segment.named, LOG));
        self.remove_derived(&segment);
        if let Some(file) = segment.file.take() {
            self.durability.close_later(&file);
        }
    }

    fn remove_derived(&mut self, segment: &Segment) {
        // Files that were never written are no error to remove, but cost a job each.
        if segment.stage == Stage::Settled || segment.stage == Stage::ToWriteFiles {
            for suffix in [OFFSET_INDEX, TIME_INDEX, SNAPSHOT, TXN_INDEX] {
                self.durability.remove_later(file_path(&self.dir, segment.base_offset, suffix));
            }
        } else {
            self.durability.remove_later(file_path(&self.dir, segment.base_offset, SNAPSHOT));
        }
    }

    /// Applies `retention.ms` and `retention.bytes` and removes what was deleted by `delete_records_before`: to be called every
    /// `log.retention.check.interval.ms`. Returns the number of segments removed.
    pub fn apply_retention(&mut self, disk: &mut dyn Disk, now: Now) -> Result<usize, StorageError> {
        let mut count = self.deletable(0, now);
        if count == 0 {
            return Ok(0);
        }
        let before = self.segments.len();
        if count == before {
            // The active one is to go too: an empty one takes its place, so that the log end is not forgotten. It is not made
            // of a retired file, as the log may rest from now on.
            if self.has_staged() || self.active_is_unnamed() {
                count -= 1;
            } else {
                self.usable()?;
                self.roll(disk, self.log_end_offset, 0, now)?;
                return Ok(before + 1 - self.segments.len());
            }
        }
        self.retire(count);
        self.tidy(disk);
        Ok(before - self.segments.len())
    }

    /// Deletes the records before `offset` (DeleteRecords). Whole segments go at once, the rest with retention.
    pub fn delete_records_before(&mut self, disk: &mut dyn Disk, offset: Offset) {
        let offset = offset.min(self.log_end_offset);
        if offset <= self.log_start_offset {
            return;
        }
        self.log_start_offset = offset;
        let gone = self.segments.partition_point(|s| s.base_offset <= offset).saturating_sub(1);
        self.retire(gone);
        self.durability.note_checkpoint();
        self.tidy(disk);
    }

    /// Retention takes only records below this (the high watermark).
    pub fn set_retention_limit(&mut self, high_watermark: Offset) {
        self.retention_limit = high_watermark;
    }

    /// How often a retired file became the next segment.
    pub fn recycled_count(&self) -> u64 {
        self.durability.recycled
    }

    /// `partition.metadata`: which topic the directory belongs to.
    fn write_metadata(&mut self, disk: &mut dyn Disk) {
        if self.topic_id.is_nil() {
            return;
        }
        let (path, bytes) = (self.path(super::METADATA_FILE_NAME), super::encode_metadata(self.topic_id).into_bytes());
        self.durability.start(disk, self.owner, Job::Replace { path, bytes, sync: false });
    }

    /// Does `close` leave this segment as it is?
    fn is_at_rest(&self, index: usize) -> bool {
        let last = index + 1 == self.segments.len();
        self.segments[index].stage == Stage::Settled || (last && !self.durability.touched_since_open)
    }

    /// Does `close` have nothing to write?
    pub fn is_closed_already(&self) -> bool {
        (0..self.segments.len()).all(|index| self.is_at_rest(index))
    }

    /// Stops in good order: everything is cut to size and written, so that the next start (ours or Apache Kafka's) has nothing to scan. It is
    /// made durable at once, or, where very many logs are closed, left to the caller to sync with the others.
    /// Returns the entries for the data directory's checkpoints.
    pub fn close(&mut self, disk: &mut dyn Disk, sync: bool) -> Result<ClosedLog, StorageError> {
        self.usable()?;
        self.drop_staged();
        self.end_cleaning(disk)?;
        let dir = self.dir.clone();
        let mut wrote = false;
        for index in 0..self.segments.len() {
            let end = self.segments.get(index + 1).map_or(self.log_end_offset, |next| next.base_offset);
            let last = index + 1 == self.segments.len();
            if last && self.segments[index].stage == Stage::Active {
                let snapshot = self.producers.encode().into_boxed_slice();
                self.segments[index].end_snapshot = Some(snapshot);
                self.segments[index].complete_time_index();
            }
            if self.is_at_rest(index) {
                continue;
            }
            let segment = &mut self.segments[index];
            let path = file_path(&dir, segment.named, LOG);
            wrote = true;
            let file = match &segment.file {
                Some(file) => file.clone(),
                None => disk.open(&path, false).map_err(failed("open", &path))?,
            };
            segment.file = Some(file.clone());
            let size = u64::from(segment.size);
            disk.run(Job::Truncate { file: file.clone(), size }).map_err(failed("truncate", &path))?;
            if sync {
                disk.run(Job::Sync { file }).map_err(failed("sync", &path))?;
            }
            if segment.named != segment.base_offset {
                let to = file_path(&dir, segment.base_offset, LOG);
                match disk.run(Job::Rename { from: path.clone(), to }) {
                    // The rename that was under way came first.
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                    other => other.map_err(failed("rename", &path))?,
                }
                segment.named = segment.base_offset;
            }
            segment.complete_time_index();
            let indexes = segment.indexes.get_or_insert_default();
            let mut files: Vec<(PathBuf, Vec<u8>)> = vec![
                (file_path(&dir, segment.base_offset, OFFSET_INDEX), indexes.offsets.encode()),
                (file_path(&dir, segment.base_offset, TIME_INDEX), indexes.times.encode()),
            ];
            if let Some(snapshot) = segment.end_snapshot.take() {
                files.push((file_path(&dir, end, SNAPSHOT), snapshot.into_vec()));
            }
            for (path, bytes) in files {
                disk.run(Job::Replace { path: path.clone(), bytes, sync }).map_err(failed("write", &path))?;
            }
            segment.stage = Stage::Settled;
        }
        if wrote {
            let path = self.path(super::leader_epochs::FILE_NAME);
            let bytes = self.epochs.encode().into_bytes();
            disk.run(Job::Replace { path: path.clone(), bytes, sync }).map_err(failed("write", &path))?;
        }
        for path in std::mem::take(&mut self.durability.removals) {
            disk.run(Job::Remove { path: path.clone() }).map_err(failed("remove", &path))?;
        }
        self.durability.synced_offset = self.log_end_offset;
        let first = self.segments.front().map_or(self.log_end_offset, |s| s.base_offset);
        Ok(ClosedLog {
            recovery_point: self.log_end_offset,
            log_start_offset: (self.log_start_offset > first).then_some(self.log_start_offset),
            cleaned: self.cleaned,
            durable: sync || !wrote,
        })
    }
}

/// What a log that was closed contributes to the data directory's checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedLog {
    /// For `recovery-point-offset-checkpoint`: the log end.
    pub recovery_point: Offset,
    /// For `log-start-offset-checkpoint`: only if it is not the first segment's base offset, as Kafka writes it.
    pub log_start_offset: Option<Offset>,
    /// For `cleaner-offset-checkpoint`.
    pub cleaned: Option<Offset>,
    /// False: what was written is still to be synced.
    pub durable: bool,
}
