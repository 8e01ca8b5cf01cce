//! Opening a log. After a clean stop only sizes, the last batches and the small files are looked at. After an unclean one
//! everything from the recovery point is read and checked; a torn tail is cut; indexes are made anew.
//!
//! Recycled files need care (docs/formats/log.md): a file may not have its new name yet, may hold batches of its former life behind those of
//! its present one, and after a power cut may be any mixture of both. So once a log noted that it recycles, a batch counts only if its offset
//! is exactly the next one and its leader epoch does not go back, and the oldest file is checked as well.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::rc::Rc;

use super::checkpoint::{PARTITION_FILE_NAME, PartitionCheckpoint};
use super::header::Header;
use super::leader_epochs::{self, LeaderEpochs};
use super::log::{Log, RecoveryReport, Start};
use super::log_config::LogConfig;
use super::offset_index::OffsetIndex;
use super::producer_state::ProducerState;
use super::recover_recycled::find_recycled;
use super::scan::{Scan, Verdict, header_at};
use super::segment::{Segment, Stage};
use super::swaps::{Directory, remove};
use super::time_index::{self, TimeIndex};
use super::zero_tail;
use super::{LOG, OFFSET_INDEX, SNAPSHOT, StorageError, TIME_INDEX, failed, file_path, read_text};
use crate::ids::{JobOwner, Now, Offset};
use crate::io::disk::{Disk, Job};
use crate::parts::OpenFile;

impl Log {
    /// Opens the log in `dir`. A directory that is not there is an empty log: nothing is made before the first append.
    pub fn open(
        disk: &mut dyn Disk,
        dir: &Path,
        owner: JobOwner,
        config: Rc<LogConfig>,
        start: Start,
        now: Now,
    ) -> Result<(Log, RecoveryReport), StorageError> {
        let mut log = Log::empty(dir, owner, config, start);
        let mut report = RecoveryReport::default();
        let entries = match disk.list(dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((log, report)),
            Err(e) => return Err(failed("list", dir)(e)),
        };
        let mut found = Directory::read(disk, dir, entries)?;
        let mut note = None;
        if found.note {
            let path = dir.join(PARTITION_FILE_NAME);
            if start.clean {
                // Another broker took over after we crashed, and stopped in good order: its word is younger.
                remove(disk, &path)?;
            } else {
                let text = read_text(disk, &path).map_err(failed("read", &path))?;
                note = text.as_deref().and_then(PartitionCheckpoint::decode);
                if note.is_none() {
                    log::warn!("{}: damaged, the whole log is checked", path.display());
                }
            }
        }
        let recycling = found.note && note.is_none_or(|n| n.recycling) && !start.clean;
        let recovery_point = match (found.note, note) {
            (_, Some(note)) => note.recovery_point,
            (true, None) if !start.clean => Offset(0),
            _ => start.recovery_point,
        };
        if let Some(note) = note {
            log.log_start_offset = log.log_start_offset.max(note.log_start_offset);
            log.cleaned = note.cleaned.or(log.cleaned);
        }
        log.durability.recycling_noted = recycling;
        log.restart_at(log.log_start_offset);

        let mut adopted = None;
        // A note that is missing may have said so.
        if recycling || (!found.note && !start.clean) {
            adopted = find_recycled(disk, dir, &mut found)?;
        }
        log.make_segments(disk, &mut found, now)?;
        let scan_from = if start.clean {
            log.segments.len()
        } else {
            log.segments.partition_point(|s| s.base_offset <= recovery_point).saturating_sub(1)
        };
        log.load_epochs(disk, &found, scan_from)?;
        log.load_producers(disk, &found.snapshots, scan_from)?;
        if recycling && scan_from > 0 && !log.segments.is_empty() {
            log.check_oldest(disk, &mut report)?;
        }
        let scan_from = scan_from.min(log.segments.len());
        log.load_settled(disk, &found, scan_from, &mut report)?;
        // What compaction left has gaps, and a log that is compacted does not recycle.
        let strict = recycling && !log.config.compact && log.cleaned.is_none();
        log.scan_unsettled(disk, scan_from, strict, &mut report)?;
        if let Some((named, base, size)) = adopted {
            log.adopt(disk, named, base, size, &mut report, now)?;
        }
        log.finish_open(disk, recovery_point, &found.snapshots, &report, now)?;
        Ok((log, report))
    }

    /// A segment for each file, without those that are wholly before the log start or empty in the middle.
    fn make_segments(&mut self, disk: &mut dyn Disk, found: &mut Directory, now: Now) -> Result<(), StorageError> {
        let bases: Vec<Offset> = found.logs.keys().copied().collect();
        for (i, base) in bases.iter().enumerate() {
            let size = found.logs[base];
            let before_start = bases.get(i + 1).is_some_and(|next| *next <= self.log_start_offset);
            // Compaction may have emptied the first one, which keeps the log's start.
            let empty = size == 0 && i > 0 && i + 1 < bases.len();
            if before_start || empty {
                self.remove_segment_files(disk, *base)?;
                found.logs.remove(base);
                continue;
            }
            let mut segment = Segment::new(*base, now.wall_ms);
            segment.size = u32::try_from(size).unwrap_or(u32::MAX);
            segment.end_unseen = size > 0;
            self.segments.push_back(segment);
        }
        Ok(())
    }

    pub(super) fn remove_segment_files(&mut self, disk: &mut dyn Disk, base: Offset) -> Result<(), StorageError> {
        for suffix in [LOG, OFFSET_INDEX, TIME_INDEX, SNAPSHOT] {
            remove(disk, &file_path(&self.dir, base, suffix))?;
        }
        Ok(())
    }

    /// Segments that are not scanned: their indexes must be there; after an unclean stop also sound.
    fn load_settled(
        &mut self,
        disk: &mut dyn Disk,
        found: &Directory,
        scan_from: usize,
        report: &mut RecoveryReport,
    ) -> Result<(), StorageError> {
        for index in 0..scan_from {
            let base = self.segments[index].base_offset;
            let last = index + 1 == self.segments.len();
            let mut sound = true;
            if self.segments[index].size > 0 {
                sound = found.indexes.contains(&base) && found.time_indexes.contains(&base);
                sound = sound && self.load_times(disk, index, last)?;
                if sound && (!self.start.clean || last) {
                    let offsets = self.read_offsets(disk, index, last)?;
                    sound = offsets.is_some();
                    self.segments[index].indexes.get_or_insert_default().offsets = offsets.unwrap_or_default();
                }
            }
            if !sound {
                log::warn!("{}: indexes missing or damaged, made anew", file_path(&self.dir, base, LOG).display());
                report.indexes_rebuilt += 1;
                self.rebuild_indexes(disk, index)?;
                self.segments[index].stage = Stage::ToTruncate;
            } else {
                self.segments[index].stage = Stage::Settled;
            }
            if last {
                self.find_end(disk, index, report)?;
            } else if sound {
                // Loaded again when somebody reads there.
                self.segments[index].indexes = None;
            }
        }
        Ok(())
    }

    /// Reads the end of the time index: the segment's largest timestamp. False: not sound.
    fn load_times(&mut self, disk: &mut dyn Disk, index: usize, last: bool) -> Result<bool, StorageError> {
        let segment = &mut self.segments[index];
        let path = file_path(&self.dir, segment.base_offset, TIME_INDEX);
        let written = disk.read_written(&path).map_err(failed("read", &path))?;
        let Some(times) = written.and_then(|bytes| TimeIndex::decode(&bytes)) else { return Ok(false) };
        if let Some(time_index::Entry { timestamp, offset }) = times.last() {
            segment.largest_timestamp = timestamp;
            segment.offset_of_largest = segment.base_offset + i64::from(offset);
        } else if !last {
            // That of a sealed segment ends with its largest timestamp.
            return Ok(false);
        }
        segment.indexes.get_or_insert_default().times = times;
        Ok(true)
    }

    /// Reads a segment's offset index. `None`: not sound. The end of the `last` segment is looked for from its last entry, so
    /// that must be true: what is behind a wrong one would be cut.
    fn read_offsets(
        &mut self,
        disk: &mut dyn Disk,
        index: usize,
        last: bool,
    ) -> Result<Option<OffsetIndex>, StorageError> {
        let (base, size) = (self.segments[index].base_offset, self.segments[index].size);
        let path = file_path(&self.dir, base, OFFSET_INDEX);
        let written = disk.read_written(&path).map_err(failed("read", &path))?;
        let Some(offsets) = written.and_then(|bytes| OffsetIndex::decode(&bytes, size)) else { return Ok(None) };
        if let (true, Some(entry)) = (last, offsets.last()) {
            let named = header_at(disk, &file_path(&self.dir, base, LOG), entry.position)?;
            if named.is_none_or(|header| {
                header.last_offset != base + i64::from(entry.last) || header.size > size - entry.position
            }) {
                return Ok(None);
            }
        }
        Ok(Some(offsets))
    }

    /// Where the last segment ends: from its last index entry on, headers are followed. What is no whole batch is cut.
    fn find_end(&mut self, disk: &mut dyn Disk, index: usize, report: &mut RecoveryReport) -> Result<(), StorageError> {
        let segment = &self.segments[index];
        let base = segment.base_offset;
        let (mut end, mut largest) = (base, (segment.largest_timestamp, segment.offset_of_largest));
        let from = segment.indexes.as_ref().and_then(|i| i.offsets.last()).map_or(0, |e| e.position);
        let path = file_path(&self.dir, base, LOG);
        let size = segment.size;
        let mut valid = from;
        let mut first_timestamp = segment.first_timestamp;
        if size > 0 {
            let file = disk.open(&path, false).map_err(failed("open", &path))?;
            let mut scan = Scan::headers(from, size);
            let walked = scan.run(disk, &file, |position, header, _| {
                if header.base_offset < end || !segment.can_hold(header.last_offset) {
                    return Verdict::Stop;
                }
                end = header.last_offset + 1;
                valid = position + header.size;
                if header.max_timestamp > largest.0 {
                    largest = (header.max_timestamp, header.last_offset);
                }
                if position == 0 {
                    first_timestamp = header.max_timestamp;
                }
                Verdict::Good
            });
            walked.map_err(failed("read", &path))?;
            if valid < size {
                report_cut(disk, &file, &path, (valid, size), report).map_err(failed("read", &path))?;
                let cut = Job::Truncate { file: file.clone(), size: u64::from(valid) };
                disk.run(cut).map_err(failed("truncate", &path))?;
            }
            disk.run(Job::Close { file }).map_err(failed("close", &path))?;
        }
        let segment = &mut self.segments[index];
        segment.size = valid;
        segment.end_unseen = false;
        segment.first_timestamp = first_timestamp;
        (segment.largest_timestamp, segment.offset_of_largest) = largest;
        segment.stage = Stage::Active;
        // Loaded again by the first append or read: an idle partition holds no index in memory.
        if segment.indexes.as_ref().is_some_and(|_| report.indexes_rebuilt == 0 && report.cut_bytes == 0) {
            segment.indexes = None;
        }
        self.set_end(end);
        Ok(())
    }

    /// Reads and checks the segments from `scan_from` on, and makes their indexes.
    fn scan_unsettled(
        &mut self,
        disk: &mut dyn Disk,
        scan_from: usize,
        strict: bool,
        report: &mut RecoveryReport,
    ) -> Result<(), StorageError> {
        let mut index = scan_from;
        while index < self.segments.len() {
            let next = self.segments.get(index + 1).map(|s| s.base_offset);
            let (end, cut) = self.scan_segment(disk, index, strict, next, report)?;
            self.set_end(end);
            self.segments[index].stage = if next.is_some() { Stage::ToTruncate } else { Stage::Active };
            // A cut that reaches the next segment's start only took away a former life.
            if cut > 0 && next.is_some_and(|next| next != end) {
                log::error!(
                    "{}: ends at offset {end}, the segments behind it are dropped",
                    file_path(&self.dir, self.segments[index].base_offset, LOG).display()
                );
                while self.segments.len() > index + 1 {
                    let base = self.segments.pop_back().expect("counted").base_offset;
                    self.remove_segment_files(disk, base)?;
                    report.segments_dropped += 1;
                }
                self.segments[index].stage = Stage::Active;
            }
            index += 1;
        }
        Ok(())
    }

    /// Checks one segment byte by byte and makes its indexes; cuts what does not belong to it. Returns its end and the bytes cut.
    pub(super) fn scan_segment(
        &mut self,
        disk: &mut dyn Disk,
        index: usize,
        strict: bool,
        next: Option<Offset>,
        report: &mut RecoveryReport,
    ) -> Result<(Offset, u32), StorageError> {
        let interval = self.config.index_interval_bytes;
        let (base, size) = (self.segments[index].base_offset, self.segments[index].size);
        let path = file_path(&self.dir, base, LOG);
        let file = disk.open(&path, false).map_err(failed("open", &path))?;
        let mut segment = Segment::new(base, self.segments[index].created_ms);
        segment.indexes = Some(Box::default());
        let mut end = base;
        let mut epoch = self.epochs.latest();
        let (epochs, producers, start) = (&mut self.epochs, &mut self.producers, self.start);
        let mut scan = Scan::checked(0, size);
        let walked = scan.run(disk, &file, |_, header, _| {
            let in_line = if strict { header.base_offset == end } else { header.base_offset >= end };
            let epoch_goes_back = strict && epoch.is_some_and(|e| header.leader_epoch < e);
            let beyond = next.is_some_and(|next| header.last_offset >= next) || !segment.can_hold(header.last_offset);
            if !in_line || epoch_goes_back || beyond {
                return Verdict::Stop;
            }
            end = header.last_offset + 1;
            segment.note(header.span(), interval);
            // Believed, a damaged one would make all that follows, and what is appended from now on, go back behind it.
            if start.can_have(header.leader_epoch) && epochs.assign(header.leader_epoch, header.base_offset) {
                epoch = Some(header.leader_epoch);
            }
            if header.producer.id >= 0 {
                producers.note(&header.appended());
            }
            Verdict::Good
        });
        walked.map_err(failed("read", &path))?;
        report.scanned_bytes += u64::from(segment.size);
        report.indexes_rebuilt += 1;
        let cut = size - segment.size;
        if cut > 0 {
            report_cut(disk, &file, &path, (segment.size, size), report).map_err(failed("read", &path))?;
            let size = u64::from(segment.size);
            disk.run(Job::Truncate { file: file.clone(), size }).map_err(failed("truncate", &path))?;
        }
        segment.file = Some(file);
        self.segments[index] = segment;
        Ok((end, cut))
    }

    /// Loads `leader-epoch-checkpoint` as far as the scan does not find it out itself; makes it from the batches if it is damaged.
    fn load_epochs(&mut self, disk: &mut dyn Disk, found: &Directory, scan_from: usize) -> Result<(), StorageError> {
        let path = self.path(leader_epochs::FILE_NAME);
        let read = match read_text(disk, &path) {
            Ok(text) => text.as_deref().and_then(LeaderEpochs::decode),
            Err(e) if e.kind() == io::ErrorKind::NotFound && found.logs.values().all(|size| *size == 0) => {
                Some(LeaderEpochs::default())
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(failed("read", &path)(e)),
        };
        let start = self.start;
        if let Some(epochs) = read.filter(|epochs| epochs.latest().is_none_or(|epoch| start.can_have(epoch))) {
            self.epochs = epochs;
        } else {
            log::warn!("{}: missing or damaged, made anew from the batches", path.display());
            for index in 0..scan_from {
                let mut epochs = std::mem::take(&mut self.epochs);
                let walked = self.walk_headers(disk, index, |header| {
                    if start.can_have(header.leader_epoch) {
                        epochs.assign(header.leader_epoch, header.base_offset);
                    }
                });
                self.epochs = epochs;
                walked?;
            }
            self.durability.note_epochs();
        }
        if let Some(first) = self.segments.get(scan_from) {
            // The scan finds these again, and perhaps others.
            self.epochs.truncate_from_end(first.base_offset);
            self.durability.note_epochs();
        }
        Ok(())
    }

    /// The producers' state where the scan begins: the youngest sound snapshot up to there, and the batches after it.
    fn load_producers(
        &mut self,
        disk: &mut dyn Disk,
        snapshots: &BTreeSet<Offset>,
        scan_from: usize,
    ) -> Result<(), StorageError> {
        let upto = self.segments.get(scan_from).map(|s| s.base_offset);
        let mut from = Offset(0);
        // What came between an older snapshot and the first segment is gone. A producer that is not known may go on; one that is
        // known by an old state would be refused.
        let first = self.segments.front().map_or(Offset(0), |s| s.base_offset);
        let usable = |offset: &&Offset| **offset >= first && upto.is_none_or(|upto| **offset <= upto);
        for offset in snapshots.iter().rev().filter(usable) {
            let path = file_path(&self.dir, *offset, SNAPSHOT);
            let bytes = disk.read_file(&path).map_err(failed("read", &path))?;
            if let Some(state) = ProducerState::decode(&bytes) {
                (self.producers, from) = (state, *offset);
                break;
            }
            log::warn!("{}: damaged, an older one is taken", path.display());
        }
        if from == Offset(0) && scan_from > 0 {
            log::warn!(
                "{}: no producer snapshot, what producers sent is found out from the batches",
                self.dir.display()
            );
        }
        for index in 0..scan_from {
            let end = self.segments.get(index + 1).map(|s| s.base_offset);
            if end.is_some_and(|end| end <= from) {
                continue;
            }
            // The last segment's end is not known yet; a snapshot at a clean stop is taken exactly there.
            if end.is_none() && self.ends_at(disk, index, from)? {
                continue;
            }
            let mut producers = std::mem::take(&mut self.producers);
            let walked = self.walk_headers(disk, index, |header| {
                if header.base_offset >= from && header.producer.id >= 0 {
                    producers.note(&header.appended());
                }
            });
            self.producers = producers;
            walked?;
        }
        Ok(())
    }

    /// Does the segment end before `offset`? Asked of its last index entry and the batches after it.
    fn ends_at(&mut self, disk: &mut dyn Disk, index: usize, offset: Offset) -> Result<bool, StorageError> {
        if self.segments[index].size == 0 {
            return Ok(true);
        }
        let from = self.read_offsets(disk, index, true).ok().flatten().and_then(|offsets| offsets.last());
        let mut end = self.segments[index].base_offset;
        self.walk_from(disk, index, from.map_or(0, |e| e.position), |header| end = header.last_offset + 1)?;
        Ok(end <= offset)
    }

    /// Makes a segment's indexes from its headers. It ends where they do; the last one's end is `find_end`'s to say.
    pub(super) fn rebuild_indexes(&mut self, disk: &mut dyn Disk, index: usize) -> Result<(), StorageError> {
        let interval = self.config.index_interval_bytes;
        let mut fresh = Segment::new(self.segments[index].base_offset, 0);
        fresh.indexes = Some(Box::default());
        // `None` from the first batch on that is not in line.
        let mut end = Some(fresh.base_offset);
        self.walk_headers(disk, index, |header| {
            let in_line = |end: &Offset| header.base_offset >= *end && fresh.can_hold(header.last_offset);
            end = end.filter(in_line).map(|_| header.last_offset + 1);
            if end.is_some() {
                fresh.note(header.span(), interval);
            }
        })?;
        if index + 1 < self.segments.len() {
            self.end_seen(index, fresh.size);
        }
        let segment = &mut self.segments[index];
        segment.indexes = fresh.indexes;
        segment.first_timestamp = fresh.first_timestamp;
        (segment.largest_timestamp, segment.offset_of_largest) = (fresh.largest_timestamp, fresh.offset_of_largest);
        if segment.stage != Stage::Active {
            segment.complete_time_index();
        }
        Ok(())
    }

    /// A segment that rests ends with this position, whatever its file holds behind it: the next segment follows there.
    pub(super) fn end_seen(&mut self, index: usize, end: u32) {
        let path = file_path(&self.dir, self.segments[index].named, LOG);
        let segment = &mut self.segments[index];
        if end < segment.size {
            let bytes = segment.size - end;
            log::warn!("{}: {bytes} bytes behind position {end} are no whole batch: it ends there", path.display());
            segment.size = end;
        }
        segment.end_unseen = false;
    }

    fn walk_headers(&self, disk: &mut dyn Disk, index: usize, each: impl FnMut(&Header)) -> Result<(), StorageError> {
        self.walk_from(disk, index, 0, each)
    }

    /// Calls `each` for every header of a segment, until its end or what is no batch.
    fn walk_from(
        &self,
        disk: &mut dyn Disk,
        index: usize,
        from: u32,
        mut each: impl FnMut(&Header),
    ) -> Result<(), StorageError> {
        let segment = &self.segments[index];
        let path = file_path(&self.dir, segment.named, LOG);
        let (file, opened) = match &segment.file {
            Some(file) => (file.clone(), false),
            None => (disk.open(&path, false).map_err(failed("open", &path))?, true),
        };
        let walked = Scan::headers(from, segment.size).run(disk, &file, |_, header, _| {
            each(header);
            Verdict::Good
        });
        walked.map_err(failed("read", &path))?;
        if opened {
            disk.run(Job::Close { file }).map_err(failed("close", &path))?;
        }
        Ok(())
    }

    fn finish_open(
        &mut self,
        disk: &mut dyn Disk,
        recovery_point: Offset,
        snapshots: &BTreeSet<Offset>,
        report: &RecoveryReport,
        now: Now,
    ) -> Result<(), StorageError> {
        let first = self.segments.front().map(|s| s.base_offset);
        if let Some(first) = first {
            self.log_start_offset = self.log_start_offset.max(first);
        }
        if self.log_end_offset() < self.log_start_offset {
            // A log that was emptied: it goes on where it was, in a new segment.
            while let Some(segment) = self.segments.pop_back() {
                self.remove_segment_files(disk, segment.base_offset)?;
                if let Some(file) = segment.file {
                    self.durability.close_later(&file);
                }
            }
            self.set_end(self.log_start_offset);
        }
        let end = self.log_end_offset();
        if end < recovery_point {
            log::error!("{}: ends at offset {end}, but was whole up to {recovery_point}", self.dir.display());
        }
        self.epochs.truncate_from_end(end);
        self.epochs.truncate_from_start(self.log_start_offset);
        self.producers.expire(now.wall_ms, self.config.producer_id_expiration_ms);
        self.remove_stray_snapshots(disk, snapshots)?;
        let clean = self.start.clean;
        let synced = if clean { end } else { self.settled_offset() };
        self.durability.opened(synced, !clean || *report != RecoveryReport::default());
        Ok(())
    }

    /// Snapshots are kept where a segment begins, and the youngest.
    fn remove_stray_snapshots(&self, disk: &mut dyn Disk, snapshots: &BTreeSet<Offset>) -> Result<(), StorageError> {
        let end = self.log_end_offset();
        let youngest = snapshots.iter().rev().find(|offset| **offset <= end);
        for offset in snapshots {
            let at_segment = self.segments.binary_search_by_key(offset, |s| s.base_offset).is_ok();
            if !at_segment && Some(offset) != youngest {
                remove(disk, &file_path(&self.dir, *offset, SNAPSHOT))?;
            }
        }
        Ok(())
    }
}

/// What is cut from a file, from where to where.
fn report_cut(
    disk: &mut dyn Disk,
    file: &OpenFile,
    path: &Path,
    (from, to): (u32, u32),
    report: &mut RecoveryReport,
) -> io::Result<()> {
    let bytes = to - from;
    if zero_tail::is_one(disk, file, from, to)? {
        log::info!("{}: cut at position {from}: {bytes} zeros were written ahead of the records", path.display());
        return Ok(());
    }
    log::warn!("{}: cut at position {from}: {bytes} bytes behind it are no whole batch of this log", path.display());
    report.cut_bytes += u64::from(bytes);
    Ok(())
}
