//! The cleaner: compaction of one log in pieces. First the dirty part is read and the last offset of each key noted; then all segments up to its end are
//! rewritten, several into one. A piece costs some 10 us, however large the batches (`clean_batch`), and reads only from the page cache: what is cold is
//! read ahead by a job.
//!
//! The swap survives a crash at any point (docs/formats/log.md): `<base>.log.cleaned` is written and synced, renamed to `<base>.<end>.swap`, which
//! is the point of no return; then what it replaces is removed, and last it gets its name. Readers that hold the old files keep them.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use super::budget::Budget;
use super::clean_batch::{BatchWork, Fate};
use super::clean_input::{CleanInput, Input};
use super::clean_output::CleanOutput;
use super::compact::{self, Rules, Uncleanable};
use super::key_map::KeyMap;
use super::log::Log;
use super::segment::{BatchSpan, Stage};
use super::{LOG, OFFSET_INDEX, SNAPSHOT, StorageError, TIME_INDEX, TXN_INDEX, failed, file_path, swap_path};
use crate::ids::{Now, Offset};
use crate::io::disk::{Disk, Job};
use crate::wire::batch::HeaderView;

/// What a call of `clean` may cost, as `clean_batch` reckons.
const PIECE_NS: i64 = 10_000;
/// Read from the device at once.
const READ_AHEAD_SIZE: u64 = 4 << 20;

/// How a piece ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleaning {
    /// There is nothing to do. Ask again after `log.cleaner.backoff.ms`.
    Nothing,
    /// So many bytes were read and written, and there is more to do: call again next turn.
    More(u64),
    /// A job is under way: call again when a job of this log ended.
    Waits,
    /// That was all.
    Done(Cleaned),
}

/// A round of cleaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// First offset that was not cleaned.
    pub end: Offset,
    /// Bytes of the segments that were rewritten, and of what they became.
    pub bytes_before: u64,
    pub bytes_after: u64,
    /// How long it took, waits included.
    pub took_ns: u64,
}

/// Where a cleaning stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Taking memory for the map.
    Grow,
    /// Reading the dirty part, noting keys.
    Map,
    /// Writing a group of segments anew.
    Rewrite,
    /// Space that the output has too much is being given back.
    Cut,
    /// The output is being synced.
    Sync,
    /// It becomes a swap file.
    Commit,
    /// What it replaces is being removed.
    Remove,
    /// It gets its name.
    Name,
    /// All is done; giving back the memory of the map and the buffers.
    Shrink,
}

/// A cleaning under way.
#[derive(Debug)]
pub(super) struct Cleaner {
    phase: Phase,
    map: KeyMap,
    /// Cleaned up to here when it is over; lowered when the map gets full.
    end: Offset,
    /// As far as the log might have been cleaned in this round.
    round_end: Offset,
    input: CleanInput,
    /// The batch being worked on, and what it is.
    work: BatchWork,
    span: BatchSpan,
    /// Segments that become one, by base offset, and the first offset behind them.
    group: Vec<Offset>,
    group_end: Offset,
    out: Option<CleanOutput>,
    /// Read and written in this piece.
    piece_bytes: u64,
    /// A job that must end first.
    waits: bool,
    started: Now,
    cleaned: Cleaned,
}

impl Cleaner {
    fn grow(&mut self) -> Option<Cleaning> {
        if self.map.grow() {
            self.phase = Phase::Map;
        }
        self.more()
    }
    /// `None`: the cleaning is over.
    fn shrink(&mut self) -> Option<Cleaning> {
        if self.work.shrink() && self.map.shrink() { None } else { self.more() }
    }
    fn more(&mut self) -> Option<Cleaning> {
        Some(Cleaning::More(std::mem::take(&mut self.piece_bytes)))
    }
    fn out_mut(&mut self) -> &mut CleanOutput {
        self.out.as_mut().expect("begun")
    }
    fn write_pending(&mut self, disk: &mut dyn Disk) -> Result<(), StorageError> {
        self.piece_bytes += self.out_mut().write(disk)?;
        Ok(())
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
        // A checkpoint of a log that lost its end is worth nothing, as in Kafka.
        let cleaned = self.cleaned.filter(|cleaned| *cleaned <= self.log_end_offset).unwrap_or_default();
        compact::dirty(&self.segments, &self.config, cleaned, self.retention_limit, now.wall_ms)
    }

    /// Offset up to which compaction has cleaned.
    pub fn cleaned_offset(&self) -> Option<Offset> {
        self.cleaned
    }

    /// Works on compaction for a piece.
    pub fn clean(&mut self, disk: &mut dyn Disk, now: Now) -> Result<Cleaning, StorageError> {
        self.usable()?;
        self.durability.note_now(now);
        let Some(mut cleaner) = self.cleaner.take() else { return self.begin_cleaning(disk, now) };
        if cleaner.waits {
            self.cleaner = Some(cleaner);
            return Ok(Cleaning::Waits);
        }
        let result = match cleaner.phase {
            Phase::Grow => Ok(cleaner.grow()),
            Phase::Map => self.map_piece(disk, &mut cleaner),
            Phase::Rewrite => self.rewrite_piece(disk, &mut cleaner),
            Phase::Cut => Ok(self.sync_output(disk, &mut cleaner)),
            Phase::Sync => self.commit(disk, &mut cleaner),
            Phase::Commit => self.replace(disk, &mut cleaner),
            Phase::Remove => self.name(disk, &mut cleaner),
            Phase::Name => self.named(disk, &mut cleaner),
            Phase::Shrink => Ok(cleaner.shrink()),
        };
        match result {
            Ok(Some(cleaning)) => {
                self.cleaner = Some(cleaner);
                Ok(cleaning)
            }
            Ok(None) => {
                self.tidy(disk);
                Ok(Cleaning::Done(Cleaned {
                    took_ns: now.monotonic_ns - cleaner.started.monotonic_ns,
                    ..cleaner.cleaned
                }))
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
            phase: Phase::Grow,
            map: KeyMap::new(keys, self.config.cleaner_map_bytes),
            end: dirty.to,
            round_end: dirty.to,
            input: CleanInput::default(),
            work: BatchWork::default(),
            span: BatchSpan { base_offset: dirty.from, last_offset: dirty.from, max_timestamp: -1, size: 0 },
            group: Vec::new(),
            group_end: dirty.from,
            out: None,
            piece_bytes: 0,
            waits: false,
            started: now,
            cleaned: Cleaned::default(),
        });
        cleaner.input.open(self.segments[first].base_offset);
        self.cleaner = Some(cleaner);
        Ok(Cleaning::More(0))
    }

    /// Reads on; what comes next is given to `work`, if it is a batch.
    fn next_input(&mut self, disk: &mut dyn Disk, cleaner: &mut Cleaner, budget: &mut Budget) -> Result<Next, Stop> {
        let index = self.index_of(cleaner.input.segment)?;
        self.open_segment(disk, index, Now::default())?;
        self.durability.touch(&mut self.segments[index]);
        let segment = &self.segments[index];
        let file = segment.file.clone().expect("opened");
        let path = || file_path(&self.dir, segment.named, LOG);
        match cleaner.input.next(disk, &file, segment.size, budget) {
            Ok(Input::Batch(piece)) => {
                let header = HeaderView::read(piece.as_ref()).expect("a whole batch");
                let (base_offset, last_offset) = (header.base_offset(), header.last_offset());
                cleaner.span =
                    BatchSpan { base_offset, last_offset, max_timestamp: -1, size: piece.range.len() as u32 };
                cleaner.piece_bytes += u64::from(cleaner.span.size);
                if cleaner.phase == Phase::Map && last_offset < cleaner.group_end {
                    cleaner.input.pass(piece.range.len());
                } else {
                    cleaner.work.start(piece)?;
                }
                Ok(Next::Batch)
            }
            Ok(Input::Cold(position)) => {
                let size = READ_AHEAD_SIZE.min(u64::from(segment.size) - position.0);
                cleaner.waits = true;
                self.durability.start(disk, self.owner, Job::ReadAhead { file, position, size });
                Ok(Next::Waits)
            }
            Ok(Input::Later) => Ok(Next::Batch),
            Ok(Input::End) => Ok(Next::End),
            Err(e) if e.kind() == io::ErrorKind::InvalidData || e.kind() == io::ErrorKind::UnexpectedEof => {
                let reason = "no whole batch where one should be";
                log::error!("{}: {reason} at position {}", path().display(), cleaner.input.position);
                Err(Stop::Uncleanable(Uncleanable::Batch(cleaner.input.segment, reason.to_string())))
            }
            Err(e) => Err(Stop::Storage(failed("read", &path())(e))),
        }
    }

    fn map_piece(&mut self, disk: &mut dyn Disk, cleaner: &mut Cleaner) -> Result<Option<Cleaning>, Stop> {
        let mut budget = Budget::new(PIECE_NS);
        while !budget.is_spent() {
            if cleaner.work.is_idle() {
                match self.next_input(disk, cleaner, &mut budget)? {
                    Next::Batch => {}
                    Next::Waits => return Ok(Some(Cleaning::Waits)),
                    Next::End => {
                        let next = self.index_of(cleaner.input.segment)? + 1;
                        match self.segments.get(next).map(|s| s.base_offset).filter(|base| *base < cleaner.end) {
                            Some(base) => cleaner.input.open(base),
                            None => return self.begin_group(disk, cleaner, None),
                        }
                    }
                }
                continue;
            }
            match cleaner.work.map(&mut cleaner.map, &mut budget)? {
                None => {}
                Some(true) => cleaner.input.pass(cleaner.span.size as usize),
                Some(false) => {
                    // The map is full: what lies behind waits for the next time.
                    cleaner.end = cleaner.span.base_offset;
                    if cleaner.end <= cleaner.group_end {
                        let reason = "one batch has more keys than log.cleaner.dedupe.buffer.size has room for";
                        return Err(Stop::Uncleanable(Uncleanable::Batch(cleaner.end, reason.to_string())));
                    }
                    return self.begin_group(disk, cleaner, None);
                }
            }
        }
        Ok(cleaner.more())
    }

    /// Begins with the segments after `after` (or the first ones); ends the cleaning if there are no more.
    fn begin_group(
        &mut self,
        disk: &mut dyn Disk,
        cleaner: &mut Cleaner,
        after: Option<Offset>,
    ) -> Result<Option<Cleaning>, Stop> {
        let first = after.or(self.segments.front().map(|s| s.base_offset)).unwrap_or(cleaner.end);
        cleaner.group = compact::group(&self.segments, first, cleaner.end, self.config.segment_bytes);
        let (Some(base), Some(last)) = (cleaner.group.first().copied(), cleaner.group.last().copied()) else {
            cleaner.cleaned.end = cleaner.end;
            self.cleaned = Some(cleaner.end);
            self.durability.note_checkpoint();
            cleaner.phase = Phase::Shrink;
            return Ok(cleaner.more());
        };
        let index = self.index_of(last)?;
        cleaner.group_end = self.segments.get(index + 1).map_or(cleaner.end, |next| next.base_offset);
        cleaner.phase = Phase::Rewrite;
        cleaner.input.open(base);
        let old = self.index_of(base)?..=index;
        let size = self.segments.range(old.clone()).map(|s| u64::from(s.size)).sum();
        let created_ms = self.segments[*old.start()].created_ms;
        cleaner.out = Some(CleanOutput::create(disk, self.cleaned_path(base), base, created_ms, size)?);
        Ok(cleaner.more())
    }

    fn rewrite_piece(&mut self, disk: &mut dyn Disk, cleaner: &mut Cleaner) -> Result<Option<Cleaning>, Stop> {
        let mut budget = Budget::new(PIECE_NS);
        let (reserve_step, write_back_step) = (self.config.preallocate_step_bytes, self.config.write_back_bytes);
        if let Some(job) = cleaner.out_mut().next_job(reserve_step, write_back_step) {
            cleaner.waits = true;
            self.durability.start(disk, self.owner, job);
            return Ok(Some(Cleaning::Waits));
        }
        while !budget.is_spent() {
            if cleaner.work.is_idle() {
                match self.next_input(disk, cleaner, &mut budget)? {
                    Next::Batch => {}
                    Next::Waits => return Ok(Some(Cleaning::Waits)),
                    Next::End => {
                        let at = cleaner.group.iter().position(|base| *base == cleaner.input.segment);
                        match at.and_then(|at| cleaner.group.get(at + 1)).copied() {
                            Some(base) => cleaner.input.open(base),
                            None => {
                                cleaner.write_pending(disk)?;
                                return Ok(self.cut_output(disk, cleaner));
                            }
                        }
                    }
                }
                continue;
            }
            let rules = Rules {
                map: &cleaner.map,
                producers: &self.producers,
                mapped_end: cleaner.end,
                round_end: cleaner.round_end,
                delete_retention_ms: self.config.delete_retention_ms,
                now_ms: cleaner.started.wall_ms,
            };
            let out = cleaner.out.as_mut().expect("begun");
            if let Some(fate) = cleaner.work.filter(&rules, &mut out.pending, &mut budget)? {
                cleaner.cleaned.bytes_before += u64::from(cleaner.span.size);
                cleaner.input.pass(cleaner.span.size as usize);
                if let Fate::Kept { max_timestamp, size } = fate {
                    cleaner.cleaned.bytes_after += u64::from(size);
                    let span = BatchSpan { max_timestamp, size, ..cleaner.span };
                    out.note(span, self.config.index_interval_bytes);
                }
            }
            if out.is_full() {
                cleaner.write_pending(disk)?;
            }
        }
        cleaner.write_pending(disk)?;
        Ok(cleaner.more())
    }

    /// The output is whole: what was reserved behind its end is given back.
    fn cut_output(&mut self, disk: &mut dyn Disk, cleaner: &mut Cleaner) -> Option<Cleaning> {
        let Some(job) = cleaner.out_mut().cut() else { return self.sync_output(disk, cleaner) };
        (cleaner.phase, cleaner.waits) = (Phase::Cut, true);
        self.durability.start(disk, self.owner, job);
        Some(Cleaning::Waits)
    }

    fn sync_output(&mut self, disk: &mut dyn Disk, cleaner: &mut Cleaner) -> Option<Cleaning> {
        let file = cleaner.out_mut().file().clone();
        (cleaner.phase, cleaner.waits) = (Phase::Sync, true);
        self.durability.start(disk, self.owner, Job::Sync { file });
        Some(Cleaning::Waits)
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
            let first = cleaner.out.as_ref().is_some_and(|out| out.base_offset() == base);
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
                self.durability.drop_later(file, u64::from(old.size));
            }
        }
        let mut out = cleaner.out.take().expect("begun").into_segment();
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
        let out = cleaner.out.as_ref().map(CleanOutput::file);
        let swap = |path: &PathBuf| path.extension().is_some_and(|e| e == "swap");
        let own = match job {
            Job::Preallocate { file, .. }
            | Job::StartWriteback { file, .. }
            | Job::Truncate { file, .. }
            | Job::Sync { file } => out.is_some_and(|out| Rc::ptr_eq(out, file)),
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
            (Err(_), Job::Preallocate { .. }) => cleaner.out_mut().cannot_reserve(),
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
            self.durability.remove_later(out.path().clone());
            self.durability.close_later(out.file());
        }
    }

    fn cleaned_path(&self, base: Offset) -> PathBuf {
        self.dir.join(format!("{:020}.{LOG}.cleaned", base.0))
    }

    fn index_of(&self, base: Offset) -> Result<usize, Stop> {
        self.segments.binary_search_by_key(&base, |s| s.base_offset).map_err(|_| Stop::Changed)
    }
}

/// What reading on led to.
enum Next {
    /// A batch, or it is on its way, or was passed over.
    Batch,
    /// It is being read ahead.
    Waits,
    /// The segment's end.
    End,
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
