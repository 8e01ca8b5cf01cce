//! The cleaner: compaction of one log in slices. First the dirty part is read and the last offset of each key noted; then all segments up to its end are
//! rewritten, several into one. Each slice reads some 96 KiB (or one batch), only from the page cache: what is cold is read ahead by a job.
//!
//! The swap survives a crash at any point (docs/formats/log.md): `<base>.log.cleaned` is written and synced, renamed to `<base>.<end>.swap`, which
//! is the point of no return; then what it replaces is removed, and last it gets its name. Readers that hold the old files keep them.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use super::compact::{self, Fate, Rules, Uncleanable};
use super::key_map::KeyMap;
use super::log::Log;
use super::segment::{BatchSpan, Segment, Stage};
use super::{LOG, OFFSET_INDEX, SNAPSHOT, StorageError, TIME_INDEX, TXN_INDEX, failed, file_path, swap_path};
use crate::ids::{Now, Offset, Position};
use crate::io::disk::{Disk, Job};
use crate::parts::OpenFile;
use crate::wire::batch::{Batch, HeaderView};

/// Bytes of input one slice handles: at 200 MB/s some 500 us.
const SLICE_SIZE: u32 = 96 << 10;
/// Read from the page cache at once.
const READ_SIZE: usize = 128 << 10;
/// Read from the device at once.
const READ_AHEAD_SIZE: u64 = 4 << 20;

/// How a slice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleaning {
    /// There is nothing to do. Ask again after `log.cleaner.backoff.ms`.
    Nothing,
    /// There is more to do: call again next turn.
    More,
    /// A job is under way: call again when a job of this log ended.
    Waits,
}

/// Where a cleaning stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Reading the dirty part, noting keys.
    Map,
    /// Writing a group of segments anew.
    Rewrite,
    /// The output is being synced.
    Sync,
    /// It becomes a swap file.
    Commit,
    /// What it replaces is being removed.
    Remove,
    /// It gets its name.
    Name,
}

/// A cleaning under way.
#[derive(Debug)]
pub(super) struct Cleaner {
    phase: Phase,
    map: KeyMap,
    /// Cleaned up to here when it is over; lowered when the map gets full.
    end: Offset,
    /// Segment being read, and where in it.
    source: Offset,
    position: u32,
    /// Segments that become one, by base offset, and the first offset behind them.
    group: Vec<Offset>,
    group_end: Offset,
    out: Option<Segment>,
    /// Output that is not written yet.
    pending: Vec<u8>,
    /// Input: bytes of the source file from `input_from`.
    input: Vec<u8>,
    input_from: u32,
    input_size: usize,
    /// A job that must end first.
    waits: bool,
    started_ms: i64,
}

/// What reading on found.
enum Input {
    /// A whole batch is in the buffer, at this place, of this size.
    Batch(usize, usize),
    /// It has to be read ahead.
    Cold,
    /// The segment's end.
    End,
}

impl Cleaner {
    /// Moves to the start of a segment.
    fn open_source(&mut self, base: Offset, position: u32) {
        (self.source, self.position, self.input_size) = (base, position, 0);
    }

    fn next(&mut self, disk: &mut dyn Disk, file: &OpenFile, size: u32) -> io::Result<Input> {
        if self.position >= size {
            return Ok(Input::End);
        }
        for _ in 0..3 {
            let at = (self.position - self.input_from) as usize;
            if self.input_size > at
                && let Some(header) = HeaderView::read(&self.input[at..self.input_size])
            {
                let Some(batch) = header.batch_size() else { return Err(io::ErrorKind::InvalidData.into()) };
                if at + batch <= self.input_size {
                    return Ok(Input::Batch(at, batch));
                }
                if batch > (size - self.position) as usize {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                self.input.resize(self.input.len().max(batch), 0);
            }
            self.input.resize(self.input.len().max(READ_SIZE), 0);
            (self.input_from, self.input_size) = (self.position, 0);
            let want = self.input.len().min((size - self.position) as usize);
            while self.input_size < want {
                let from = Position(u64::from(self.position) + self.input_size as u64);
                match disk.read_resident(file, from, &mut self.input[self.input_size..want]) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(count) => self.input_size += count,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) => return Err(e),
                }
            }
            if self.input_size == 0 {
                return Ok(Input::Cold);
            }
        }
        // What is resident ends within the batch.
        Ok(Input::Cold)
    }
}

impl Log {
    /// Has compaction something to do here, and how urgently: the dirty part of the log, above 1 if it is overdue.
    pub fn cleanable(&self, now: Now) -> Option<f64> {
        if !self.config.compact || self.durability.failed {
            return None;
        }
        if self.cleaner.is_some() {
            return Some(2.0);
        }
        let dirty = self.dirty(now)?;
        if dirty.overdue {
            return Some(1.0 + dirty.ratio);
        }
        (dirty.ratio > self.config.min_cleanable_dirty_ratio).then_some(dirty.ratio)
    }

    fn dirty(&self, now: Now) -> Option<compact::Dirty> {
        if self.uncleanable {
            return None;
        }
        let cleaned = self.cleaned.unwrap_or_default();
        compact::dirty(&self.segments, &self.config, cleaned, self.retention_limit, now.wall_ms)
    }

    /// Offset up to which compaction has cleaned.
    pub fn cleaned_offset(&self) -> Option<Offset> {
        self.cleaned
    }

    /// Works on compaction for a slice.
    pub fn clean(&mut self, disk: &mut dyn Disk, now: Now) -> Result<Cleaning, StorageError> {
        self.usable()?;
        self.durability.note_now(now);
        let Some(mut cleaner) = self.cleaner.take() else { return self.begin_cleaning(disk, now) };
        if cleaner.waits {
            self.cleaner = Some(cleaner);
            return Ok(Cleaning::Waits);
        }
        let result = match cleaner.phase {
            Phase::Map => self.map_slice(disk, &mut cleaner),
            Phase::Rewrite => self.rewrite_slice(disk, &mut cleaner, now),
            Phase::Sync => self.commit(disk, &mut cleaner),
            Phase::Commit => self.replace(disk, &mut cleaner),
            Phase::Remove => self.name(disk, &mut cleaner),
            Phase::Name => self.named(disk, &mut cleaner),
        };
        match result {
            Ok(Some(cleaning)) => {
                self.cleaner = Some(cleaner);
                Ok(cleaning)
            }
            Ok(None) => {
                self.cleaned = Some(cleaner.end);
                self.durability.note_checkpoint();
                self.tidy(disk);
                Ok(Cleaning::Nothing)
            }
            Err(Stop::Storage(error)) => {
                self.abandon(cleaner);
                Err(error)
            }
            Err(Stop::Uncleanable(error)) => {
                log::error!("{}: {error}; this log is not compacted any more", self.dir.display());
                self.uncleanable = true;
                self.abandon(cleaner);
                Ok(Cleaning::Nothing)
            }
            Err(Stop::Changed) => {
                self.abandon(cleaner);
                Ok(Cleaning::Nothing)
            }
        }
    }

    fn begin_cleaning(&mut self, disk: &mut dyn Disk, now: Now) -> Result<Cleaning, StorageError> {
        if self.cleanable(now).is_none() {
            return Ok(Cleaning::Nothing);
        }
        if self.durability.removes() {
            // What an abandoned cleaning left has the names this one would use.
            return Ok(Cleaning::Waits);
        }
        if self.durability.recycling_noted {
            // Recovery of a log that recycles takes a gap for a stale tail: it has to know first that this one does not any more.
            self.durability.note_checkpoint();
            self.tidy(disk);
            return Ok(Cleaning::Nothing);
        }
        let Some(dirty) = self.dirty(now) else { return Ok(Cleaning::Nothing) };
        let keys = usize::try_from(dirty.to - dirty.from).unwrap_or(usize::MAX);
        let first = self.segments.partition_point(|s| s.base_offset <= dirty.from).saturating_sub(1);
        let mut cleaner = Box::new(Cleaner {
            phase: Phase::Map,
            map: KeyMap::new(keys, self.config.cleaner_map_bytes),
            end: dirty.to,
            source: Offset(0),
            position: 0,
            group: Vec::new(),
            group_end: dirty.from,
            out: None,
            pending: Vec::new(),
            input: Vec::new(),
            input_from: 0,
            input_size: 0,
            waits: false,
            started_ms: now.wall_ms,
        });
        cleaner.open_source(self.segments[first].base_offset, 0);
        self.cleaner = Some(cleaner);
        Ok(Cleaning::More)
    }

    /// The next batch of the cleaner's source segment; `None`: it is being read ahead.
    fn next_input(&mut self, disk: &mut dyn Disk, cleaner: &mut Cleaner) -> Result<Option<Input>, Stop> {
        let index = self.index_of(cleaner.source)?;
        self.open_segment(disk, index, Now::default())?;
        self.durability.touch(&mut self.segments[index]);
        let segment = &self.segments[index];
        let file = segment.file.clone().expect("opened");
        let path = || file_path(&self.dir, segment.named, LOG);
        match cleaner.next(disk, &file, segment.size) {
            Ok(Input::Cold) => {
                let position = Position(u64::from(cleaner.position));
                let size = READ_AHEAD_SIZE.min(u64::from(segment.size - cleaner.position));
                cleaner.waits = true;
                self.durability.start(disk, self.owner, Job::ReadAhead { file, position, size });
                Ok(None)
            }
            Ok(input) => Ok(Some(input)),
            Err(e) if e.kind() == io::ErrorKind::InvalidData || e.kind() == io::ErrorKind::UnexpectedEof => {
                let reason = "no whole batch where one should be";
                log::error!("{}: {reason} at position {}", path().display(), cleaner.position);
                Err(Stop::Uncleanable(Uncleanable::Batch(cleaner.source, reason.to_string())))
            }
            Err(e) => Err(Stop::Storage(failed("read", &path())(e))),
        }
    }

    fn map_slice(&mut self, disk: &mut dyn Disk, cleaner: &mut Cleaner) -> Result<Option<Cleaning>, Stop> {
        let mut budget = SLICE_SIZE as usize;
        let from = cleaner.group_end;
        while budget > 0 {
            match self.next_input(disk, cleaner)? {
                None => return Ok(Some(Cleaning::Waits)),
                Some(Input::Batch(at, size)) => {
                    let batch = stored(&cleaner.input[at..at + size], cleaner.source)?;
                    if batch.last_offset() >= from && !compact::map_batch(&batch, &mut cleaner.map)? {
                        // The map is full: what lies behind waits for the next time.
                        cleaner.end = batch.base_offset();
                        if cleaner.end <= from {
                            let reason = "one batch has more keys than log.cleaner.dedupe.buffer.size has room for";
                            return Err(Stop::Uncleanable(Uncleanable::Batch(cleaner.end, reason.to_string())));
                        }
                        return self.begin_group(disk, cleaner, None);
                    }
                    cleaner.position += size as u32;
                    budget = budget.saturating_sub(size);
                }
                Some(Input::Cold) => unreachable!("read ahead"),
                Some(Input::End) => {
                    let next = self.index_of(cleaner.source)? + 1;
                    match self.segments.get(next).map(|s| s.base_offset).filter(|base| *base < cleaner.end) {
                        Some(base) => cleaner.open_source(base, 0),
                        None => return self.begin_group(disk, cleaner, None),
                    }
                }
            }
        }
        Ok(Some(Cleaning::More))
    }

    /// Begins with the segments after `after` (or the first ones). `None`: there are no more.
    fn begin_group(
        &mut self,
        disk: &mut dyn Disk,
        cleaner: &mut Cleaner,
        after: Option<Offset>,
    ) -> Result<Option<Cleaning>, Stop> {
        let first = after.or(self.segments.front().map(|s| s.base_offset)).unwrap_or(cleaner.end);
        cleaner.group = compact::group(&self.segments, first, cleaner.end, self.config.segment_bytes);
        let (Some(base), Some(last)) = (cleaner.group.first().copied(), cleaner.group.last().copied()) else {
            return Ok(None);
        };
        let index = self.index_of(last)?;
        cleaner.group_end = self.segments.get(index + 1).map_or(cleaner.end, |next| next.base_offset);
        cleaner.phase = Phase::Rewrite;
        cleaner.open_source(base, 0);
        let path = self.cleaned_path(base);
        let mut out = Segment::new(base, self.segments[self.index_of(base)?].created_ms);
        out.file = Some(disk.open(&path, true).map_err(failed("create", &path))?);
        out.indexes = Some(Box::default());
        cleaner.out = Some(out);
        Ok(Some(Cleaning::More))
    }

    fn rewrite_slice(
        &mut self,
        disk: &mut dyn Disk,
        cleaner: &mut Cleaner,
        now: Now,
    ) -> Result<Option<Cleaning>, Stop> {
        let mut budget = SLICE_SIZE as usize;
        while budget > 0 {
            match self.next_input(disk, cleaner)? {
                None => return Ok(Some(Cleaning::Waits)),
                Some(Input::Batch(at, size)) => {
                    let batch = stored(&cleaner.input[at..at + size], cleaner.source)?;
                    let rules = Rules {
                        map: &cleaner.map,
                        producers: &self.producers,
                        delete_retention_ms: self.config.delete_retention_ms,
                        now_ms: cleaner.started_ms.max(now.wall_ms),
                    };
                    let fate = compact::filter_batch(&batch, &rules, &mut cleaner.pending)?;
                    if let Fate::Kept { max_timestamp, size } = fate {
                        let (base_offset, last_offset) = (batch.base_offset(), batch.last_offset());
                        let span = BatchSpan { base_offset, last_offset, max_timestamp, size };
                        cleaner.out.as_mut().expect("begun").note(span, self.config.index_interval_bytes);
                    }
                    cleaner.position += size as u32;
                    budget = budget.saturating_sub(size);
                }
                Some(Input::Cold) => unreachable!("read ahead"),
                Some(Input::End) => {
                    let at = cleaner.group.iter().position(|base| *base == cleaner.source);
                    match at.and_then(|at| cleaner.group.get(at + 1)).copied() {
                        Some(base) => cleaner.open_source(base, 0),
                        None => {
                            self.write_pending(disk, cleaner)?;
                            let file = cleaner.out.as_ref().and_then(|o| o.file.clone()).expect("begun");
                            (cleaner.phase, cleaner.waits) = (Phase::Sync, true);
                            self.durability.start(disk, self.owner, Job::Sync { file });
                            return Ok(Some(Cleaning::Waits));
                        }
                    }
                }
            }
        }
        self.write_pending(disk, cleaner)?;
        Ok(Some(Cleaning::More))
    }

    fn write_pending(&mut self, disk: &mut dyn Disk, cleaner: &mut Cleaner) -> Result<(), Stop> {
        let out = cleaner.out.as_ref().expect("begun");
        let position = Position(u64::from(out.size) - cleaner.pending.len() as u64);
        if !cleaner.pending.is_empty() {
            let path = self.cleaned_path(out.base_offset);
            let file = out.file.as_ref().expect("begun");
            disk.write(file, position, &[io::IoSlice::new(&cleaner.pending)]).map_err(failed("write", &path))?;
            cleaner.pending.clear();
        }
        Ok(())
    }

    /// The output is on the device: it becomes the swap file, if the log is still as it was.
    fn commit(&mut self, disk: &mut dyn Disk, cleaner: &mut Cleaner) -> Result<Option<Cleaning>, Stop> {
        for base in &cleaner.group {
            let index = self.index_of(*base)?;
            if self.segments[index].stage != Stage::Settled {
                return Err(Stop::Changed);
            }
            self.segments[index].stage = Stage::Swapping;
        }
        let base = cleaner.group[0];
        let (from, to) = (self.cleaned_path(base), swap_path(&self.dir, base, cleaner.group_end));
        (cleaner.phase, cleaner.waits) = (Phase::Commit, true);
        self.durability.start(disk, self.owner, Job::Rename { from, to });
        Ok(Some(Cleaning::Waits))
    }

    /// The swap file is there: the new segment takes the place of the old ones, whose files are removed.
    fn replace(&mut self, disk: &mut dyn Disk, cleaner: &mut Cleaner) -> Result<Option<Cleaning>, Stop> {
        let at = self.index_of(cleaner.group[0])?;
        for base in std::mem::take(&mut cleaner.group) {
            let old = self.segments.remove(at).expect("in the group");
            assert_eq!(old.base_offset, base, "segments being swapped stay in their places");
            let first = cleaner.out.as_ref().is_some_and(|out| out.base_offset == base);
            // The first one's own name is taken over by the last rename. What is derived goes before that.
            let suffixes: &[&str] = if first {
                &[OFFSET_INDEX, TIME_INDEX, TXN_INDEX]
            } else {
                &[LOG, OFFSET_INDEX, TIME_INDEX, TXN_INDEX, SNAPSHOT]
            };
            for suffix in suffixes {
                self.durability.remove_later(file_path(&self.dir, base, suffix));
            }
            if let Some(file) = &old.file {
                self.durability.close_later(file);
            }
        }
        let mut out = cleaner.out.take().expect("begun");
        out.complete_time_index();
        out.stage = Stage::Swapping;
        self.durability.touch(&mut out);
        self.segments.insert(at, out);
        cleaner.phase = Phase::Remove;
        self.tidy(disk);
        Ok(Some(Cleaning::Waits))
    }

    fn name(&mut self, disk: &mut dyn Disk, cleaner: &mut Cleaner) -> Result<Option<Cleaning>, Stop> {
        if self.durability.removes() {
            return Ok(Some(Cleaning::Waits));
        }
        let base = self.segments.iter().find(|s| s.stage == Stage::Swapping).map(|s| s.base_offset);
        let base = base.ok_or(Stop::Changed)?;
        let (from, to) = (swap_path(&self.dir, base, cleaner.group_end), file_path(&self.dir, base, LOG));
        (cleaner.phase, cleaner.waits) = (Phase::Name, true);
        self.durability.start(disk, self.owner, Job::Rename { from, to });
        Ok(Some(Cleaning::Waits))
    }

    /// The new segment has its name; its indexes go the way of all sealed segments.
    fn named(&mut self, disk: &mut dyn Disk, cleaner: &mut Cleaner) -> Result<Option<Cleaning>, Stop> {
        if let Some(segment) = self.segments.iter_mut().find(|s| s.stage == Stage::Swapping) {
            segment.stage = Stage::ToWriteFiles;
        }
        let after = cleaner.group_end;
        let next = self.begin_group(disk, cleaner, Some(after))?;
        self.tidy(disk);
        Ok(next)
    }

    /// The log is being closed: a swap past the point of no return is ended, anything else forgotten. No job is under way.
    pub(super) fn end_cleaning(&mut self, disk: &mut dyn Disk) -> Result<(), StorageError> {
        let Some(mut cleaner) = self.cleaner.take() else { return Ok(()) };
        if cleaner.phase == Phase::Commit && self.replace(disk, &mut cleaner).is_err() {
            return Err(StorageError::Failed { path: self.dir.to_path_buf() });
        }
        if !matches!(cleaner.phase, Phase::Remove | Phase::Name) {
            self.abandon(cleaner);
            return Ok(());
        }
        for path in std::mem::take(&mut self.durability.removals) {
            disk.run(Job::Remove { path: path.clone() }).map_err(failed("remove", &path))?;
        }
        let Some(segment) = self.segments.iter_mut().find(|s| s.stage == Stage::Swapping) else { return Ok(()) };
        segment.stage = Stage::ToWriteFiles;
        let base = segment.base_offset;
        if cleaner.phase == Phase::Remove {
            let (from, to) = (swap_path(&self.dir, base, cleaner.group_end), file_path(&self.dir, base, LOG));
            disk.run(Job::Rename { from: from.clone(), to }).map_err(failed("rename", &from))?;
        }
        Ok(())
    }

    /// A job of the cleaner ended. True: it was one of its.
    pub(super) fn cleaner_job_done(&mut self, job: &Job, result: &io::Result<()>) -> bool {
        let Some(cleaner) = &mut self.cleaner else { return false };
        let out = cleaner.out.as_ref().and_then(|out| out.file.as_ref());
        let swap = |path: &PathBuf| path.extension().is_some_and(|e| e == "swap");
        let own = match job {
            Job::Sync { file } => cleaner.phase == Phase::Sync && out.is_some_and(|out| Rc::ptr_eq(out, file)),
            Job::Rename { from, to } => swap(from) || swap(to),
            Job::ReadAhead { .. } => matches!(cleaner.phase, Phase::Map | Phase::Rewrite),
            _ => false,
        };
        if !own {
            return false;
        }
        cleaner.waits = false;
        match (result, job) {
            (Ok(()), _) | (_, Job::ReadAhead { .. }) => {}
            (Err(e), _) => {
                // Nothing is lost: before the point of no return the old segments are all there, after it recovery ends the swap.
                log::error!("{}: compaction: {e}", self.dir.display());
                let committed = matches!(cleaner.phase, Phase::Remove | Phase::Name);
                if let Some(cleaner) = self.cleaner.take() {
                    self.abandon(cleaner);
                }
                self.durability.failed |= committed;
            }
        }
        true
    }

    fn abandon(&mut self, cleaner: Box<Cleaner>) {
        for segment in self.segments.iter_mut().filter(|s| cleaner.group.contains(&s.base_offset)) {
            if segment.stage == Stage::Swapping {
                segment.stage = Stage::Settled;
            }
        }
        if let Some(out) = cleaner.out {
            self.durability.remove_later(self.cleaned_path(out.base_offset));
            if let Some(file) = &out.file {
                self.durability.close_later(file);
            }
        }
    }

    fn cleaned_path(&self, base: Offset) -> PathBuf {
        self.dir.join(format!("{:020}.{LOG}.cleaned", base.0))
    }

    fn index_of(&self, base: Offset) -> Result<usize, Stop> {
        self.segments.binary_search_by_key(&base, |s| s.base_offset).map_err(|_| Stop::Changed)
    }
}

fn stored(bytes: &[u8], source: Offset) -> Result<Batch<'_>, Uncleanable> {
    Batch::stored(bytes).map_err(|e| Uncleanable::Batch(source, e.to_string()))
}

/// Why a cleaning ends before its end.
enum Stop {
    Storage(StorageError),
    Uncleanable(Uncleanable),
    /// Retention or a truncation came in between.
    Changed,
}

impl From<StorageError> for Stop {
    fn from(error: StorageError) -> Stop {
        Stop::Storage(error)
    }
}
impl From<Uncleanable> for Stop {
    fn from(error: Uncleanable) -> Stop {
        Stop::Uncleanable(error)
    }
}
