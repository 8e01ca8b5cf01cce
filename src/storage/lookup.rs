//! From an offset or a timestamp to the place in a file: what Fetch and ListOffsets ask. Answers are file ranges. A header or
//! index that is not in the page cache is never waited for: the answer is then `Cold`, with the range to read ahead first.

use std::io;

use super::header::Header;
use super::log::Log;
use super::offset_index::OffsetIndex;
use super::segment::{Indexes, Segment, Stage};
use super::time_index::TimeIndex;
use super::{OFFSET_INDEX, StorageError, TIME_INDEX, failed, file_path};
use crate::ids::{Now, Offset, Position};
use crate::io::disk::Disk;
use crate::limits::BATCH_HEADER_SIZE;
use crate::parts::FileRange;

/// Where to read.
#[derive(Clone, Debug)]
pub enum Resolved {
    /// Whole batches, the first of which holds the offset asked for (or the next one that exists).
    Range(FileRange),
    /// Nothing there yet, or nothing that fits.
    Empty,
    /// Read this ahead (`Job::ReadAhead`), then ask again.
    Cold(FileRange),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// OFFSET_OUT_OF_RANGE.
    #[error("offset {asked} is outside {log_start}..{log_end}")]
    OutOfRange { asked: Offset, log_start: Offset, log_end: Offset },
    /// KAFKA_STORAGE_ERROR.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A batch found by timestamp. Which of its records is meant, only its records tell.
#[derive(Clone, Debug)]
pub enum BatchLookup {
    /// The batch; its first record that fits is the answer.
    Batch(FileRange),
    /// No such record.
    None,
    /// Read this ahead (`Job::ReadAhead`), then ask again.
    Cold(FileRange),
}

/// A walk over headers either knows, or needs bytes that are not in the page cache.
enum Walk<T> {
    Found(T),
    Cold(FileRange),
}

/// Why a walk over headers broke off.
enum WalkError {
    Read(io::Error),
    /// No whole batch begins here.
    NoBatch(u32),
}

/// Bytes read at once while walking headers: most index gaps are crossed by one read.
const WALK_SIZE: usize = 4096;
/// Bytes asked for ahead of a walk that met cold pages.
const WALK_AHEAD: u32 = 128 * 1024;

impl Log {
    /// Finds up to `bytes_max` bytes of whole batches from the one that holds `offset`, all below `upper` (high watermark or
    /// last stable offset). A first batch larger than `bytes_max` is given whole if `at_least_one_batch`.
    pub fn resolve(
        &mut self,
        disk: &mut dyn Disk,
        offset: Offset,
        upper: Offset,
        bytes_max: u32,
        at_least_one_batch: bool,
    ) -> Result<Resolved, ResolveError> {
        if offset < self.log_start_offset || offset > self.log_end_offset {
            let (log_start, log_end) = (self.log_start_offset, self.log_end_offset);
            return Err(ResolveError::OutOfRange { asked: offset, log_start, log_end });
        }
        self.usable()?;
        let upper = upper.min(self.log_end_offset);
        if offset >= upper {
            return Ok(Resolved::Empty);
        }
        let mut index = self.segments.partition_point(|s| s.base_offset <= offset).saturating_sub(1);
        // Compaction may have taken all records from `offset` to the segment's end: then the next segment answers.
        while index < self.segments.len() {
            if let Some(cold) = self.make_readable(disk, index)? {
                return Ok(Resolved::Cold(cold));
            }
            let end_offset = self.segments.get(index + 1).map_or(self.log_end_offset, |next| next.base_offset);
            let segment = &self.segments[index];
            let (start, first_size) = match find_batch(disk, segment, offset).map_err(|e| self.walk_failed(index, e))? {
                Walk::Cold(range) => return Ok(Resolved::Cold(range)),
                Walk::Found(None) => {
                    index += 1;
                    continue;
                }
                Walk::Found(Some(found)) => (found.position, found.size),
            };
            let mut end = segment.size;
            if upper < end_offset {
                match find_batch(disk, segment, upper).map_err(|e| self.walk_failed(index, e))? {
                    Walk::Cold(range) => return Ok(Resolved::Cold(range)),
                    Walk::Found(None) => {}
                    Walk::Found(Some(found)) => end = found.position,
                }
            }
            if end <= start {
                return Ok(Resolved::Empty);
            }
            let limit = start.saturating_add(bytes_max.min(i32::MAX as u32));
            if limit < end {
                end = match cut_to(disk, segment, start, limit, first_size).map_err(|e| self.walk_failed(index, e))? {
                    Walk::Cold(range) => return Ok(Resolved::Cold(range)),
                    Walk::Found((end, _)) if end > start => end,
                    Walk::Found((_, first_end)) if at_least_one_batch => first_end.min(segment.size),
                    Walk::Found(_) => return Ok(Resolved::Empty),
                };
            }
            return Ok(Resolved::Range(range(segment, start, end - start)));
        }
        Ok(Resolved::Empty)
    }

    /// The first batch, at or after `from`, whose largest timestamp is at least `timestamp`.
    pub fn batch_for_timestamp(
        &mut self,
        disk: &mut dyn Disk,
        timestamp: i64,
        from: Offset,
    ) -> Result<BatchLookup, StorageError> {
        self.usable()?;
        for index in 0..self.segments.len() {
            if self.segments[index].largest_timestamp < timestamp || self.segments[index].size == 0 {
                continue;
            }
            if let Some(cold) = self.make_readable(disk, index)? {
                return Ok(BatchLookup::Cold(cold));
            }
            let segment = &self.segments[index];
            let indexes = segment.indexes.as_ref().expect("made readable");
            let older = indexes.times.before(timestamp).map(|e| segment.base_offset + i64::from(e.offset) + 1);
            let from = older.unwrap_or(segment.base_offset).max(from);
            let at = match find_batch(disk, segment, from).map_err(|e| self.walk_failed(index, e))? {
                Walk::Cold(range) => return Ok(BatchLookup::Cold(range)),
                Walk::Found(None) => continue,
                Walk::Found(Some(found)) => found.position,
            };
            match walk(disk, segment, at, |h| h.max_timestamp >= timestamp).map_err(|e| self.walk_failed(index, e))? {
                Walk::Cold(range) => return Ok(BatchLookup::Cold(range)),
                Walk::Found(None) => continue,
                Walk::Found(Some((position, header))) => {
                    return Ok(BatchLookup::Batch(range(segment, position, header.size)));
                }
            }
        }
        Ok(BatchLookup::None)
    }

    /// The largest timestamp of the log, and the batch that holds it.
    pub fn batch_of_max_timestamp(&mut self, disk: &mut dyn Disk) -> Result<(i64, BatchLookup), StorageError> {
        self.usable()?;
        let mut best: Option<usize> = None;
        for (index, segment) in self.segments.iter().enumerate() {
            if segment.size > 0 && best.is_none_or(|b| self.segments[b].largest_timestamp < segment.largest_timestamp) {
                best = Some(index);
            }
        }
        let Some(index) = best.filter(|b| self.segments[*b].largest_timestamp >= 0) else {
            return Ok((-1, BatchLookup::None));
        };
        if let Some(cold) = self.make_readable(disk, index)? {
            return Ok((-1, BatchLookup::Cold(cold)));
        }
        let segment = &self.segments[index];
        let found = find_batch(disk, segment, segment.offset_of_largest).map_err(|e| self.walk_failed(index, e))?;
        Ok(match found {
            Walk::Cold(range) => (-1, BatchLookup::Cold(range)),
            Walk::Found(None) => (-1, BatchLookup::None),
            Walk::Found(Some(found)) => {
                // A batch is known by its index entry alone; its size is in its header.
                match walk(disk, segment, found.position, |_| true).map_err(|e| self.walk_failed(index, e))? {
                    Walk::Cold(range) => (-1, BatchLookup::Cold(range)),
                    Walk::Found(None) => (-1, BatchLookup::None),
                    Walk::Found(Some((position, header))) => {
                        (segment.largest_timestamp, BatchLookup::Batch(range(segment, position, header.size)))
                    }
                }
            }
        })
    }

    /// Opens a segment, loads its indexes and sees where it ends. `Some`: read this ahead first.
    fn make_readable(&mut self, disk: &mut dyn Disk, index: usize) -> Result<Option<FileRange>, StorageError> {
        self.open_segment(disk, index, Now::default())?;
        if self.segments[index].file.as_ref().is_some_and(|file| file.failed.get()) {
            self.or_fail("read", Err(io::Error::from_raw_os_error(libc::EIO)));
            self.usable()?;
        }
        self.durability.touch(&mut self.segments[index]);
        if self.segments[index].indexes.is_none()
            && let Some(cold) = self.load_resident_indexes(disk, index)?
        {
            return Ok(Some(cold));
        }
        if self.segments[index].end_unseen {
            match last_end(disk, &self.segments[index]).map_err(|e| self.walk_failed(index, e))? {
                Walk::Cold(range) => return Ok(Some(range)),
                Walk::Found(Some(end)) => self.end_seen(index, end),
                Walk::Found(None) => self.remake_indexes(disk, index)?,
            }
        }
        Ok(None)
    }

    /// Loads a segment's indexes, waiting for the device if need be: for the first append after a rest.
    pub(super) fn load_indexes(&mut self, disk: &mut dyn Disk, index: usize) -> Result<(), StorageError> {
        while let Some(cold) = self.load_resident_indexes(disk, index)? {
            let mut bytes = vec![0; cold.size as usize];
            disk.read(&cold.file, cold.position, &mut bytes).map_err(failed("read the index of", &self.dir))?;
        }
        Ok(())
    }

    /// Loads a segment's indexes from the page cache; makes them anew if they are missing or damaged. `Some`: they are cold.
    fn load_resident_indexes(&mut self, disk: &mut dyn Disk, index: usize) -> Result<Option<FileRange>, StorageError> {
        let (base, size) = (self.segments[index].base_offset, self.segments[index].size);
        let mut loaded = Indexes::default();
        if size == 0 {
            self.segments[index].indexes = Some(Box::new(loaded));
            return Ok(None);
        }
        let mut sound = true;
        for suffix in [OFFSET_INDEX, TIME_INDEX] {
            let path = file_path(&self.dir, base, suffix);
            let file = match disk.open(&path, false) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    sound = false;
                    break;
                }
                Err(e) => return Err(failed("open", &path)(e)),
            };
            self.durability.close_later(&file);
            let mut bytes = vec![0; disk.size(&file).map_err(failed("read", &path))? as usize];
            let mut filled = 0;
            while filled < bytes.len() {
                match disk.read_resident(&file, Position(filled as u64), &mut bytes[filled..]) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        let size = bytes.len() as u32;
                        return Ok(Some(FileRange { file, position: Position(0), size }));
                    }
                    Err(e) => return Err(failed("read", &path)(e)),
                }
            }
            sound &= disk.is_as_written(&path, &bytes);
            if suffix == OFFSET_INDEX {
                sound &= OffsetIndex::decode(&bytes, size).map(|i| loaded.offsets = i).is_some();
            } else {
                sound &= TimeIndex::decode(&bytes).map(|i| loaded.times = i).is_some();
            }
        }
        if sound {
            self.segments[index].indexes = Some(Box::new(loaded));
        } else {
            self.remake_indexes(disk, index)?;
        }
        Ok(None)
    }

    fn remake_indexes(&mut self, disk: &mut dyn Disk, index: usize) -> Result<(), StorageError> {
        let path = file_path(&self.dir, self.segments[index].base_offset, OFFSET_INDEX);
        log::warn!("{}: index missing or damaged, made anew", path.display());
        self.rebuild_indexes(disk, index)?;
        let segment = &mut self.segments[index];
        if segment.stage == Stage::Settled {
            // To be written again by the way sealed segments go.
            segment.stage = Stage::ToTruncate;
        }
        Ok(())
    }

    fn walk_failed(&self, index: usize, error: WalkError) -> StorageError {
        let path = file_path(&self.dir, self.segments[index].named, super::LOG);
        match error {
            WalkError::Read(error) => failed("read", &path)(error),
            WalkError::NoBatch(position) => StorageError::Corrupt {
                path,
                position: Position(u64::from(position)),
                reason: "no batch header where one should be",
            },
        }
    }
}

/// A batch in a segment. `size` 0: not known without reading its header.
struct Found {
    position: u32,
    size: u32,
}

fn range(segment: &Segment, position: u32, size: u32) -> FileRange {
    let file = segment.file.clone().expect("made readable");
    FileRange { file, position: Position(u64::from(position)), size }
}

/// The batch that holds `offset`, or the first one after it. `None`: the segment ends before it.
fn find_batch(disk: &mut dyn Disk, segment: &Segment, offset: Offset) -> Result<Walk<Option<Found>>, WalkError> {
    let indexes = segment.indexes.as_ref().expect("made readable");
    let relative = (offset - segment.base_offset).clamp(0, i64::from(u32::MAX)) as u32;
    let from = match indexes.offsets.at_or_before(relative) {
        Some(entry) if entry.last >= relative => {
            return Ok(Walk::Found(Some(Found { position: entry.position, size: 0 })));
        }
        Some(entry) => entry.position,
        // Offset and position zero: the first batch, whatever its size.
        None if relative == 0 && segment.size > 0 => return Ok(Walk::Found(Some(Found { position: 0, size: 0 }))),
        None => 0,
    };
    Ok(match walk(disk, segment, from, |h| h.last_offset >= offset)? {
        Walk::Cold(range) => Walk::Cold(range),
        Walk::Found(found) => Walk::Found(found.map(|(position, header)| Found { position, size: header.size })),
    })
}

/// The last batch boundary in `start..=limit` that is easy to know (`start` if there is none), and the end of the batch at `start` if
/// that had to be found out.
fn cut_to(
    disk: &mut dyn Disk,
    segment: &Segment,
    start: u32,
    limit: u32,
    first_size: u32,
) -> Result<Walk<(u32, u32)>, WalkError> {
    let indexes = segment.indexes.as_ref().expect("made readable");
    if let Some(boundary) = indexes.offsets.boundary_at_or_before(limit).filter(|b| *b > start) {
        return Ok(Walk::Found((boundary, boundary)));
    }
    if first_size > 0 && start + first_size > limit {
        return Ok(Walk::Found((start, start + first_size)));
    }
    let (mut end, mut first_end) = (start, 0);
    let walked = walk(disk, segment, start, |header| {
        if first_end == 0 {
            first_end = start.saturating_add(header.size);
        }
        let over = u64::from(end) + u64::from(header.size) > u64::from(limit);
        if !over {
            end += header.size;
        }
        over
    });
    match walked {
        Ok(Walk::Cold(range)) => Ok(Walk::Cold(range)),
        Ok(Walk::Found(_)) => Ok(Walk::Found((end, first_end))),
        // What is sound before a damaged header is still to be had.
        Err(WalkError::NoBatch(_)) if end > start => Ok(Walk::Found((end, first_end))),
        Err(error) => Err(error),
    }
}

/// Where the last whole batch ends, asked of the last index entry and the batches after it. `None`: no batch begins where
/// that entry says.
fn last_end(disk: &mut dyn Disk, segment: &Segment) -> Result<Walk<Option<u32>>, WalkError> {
    let indexes = segment.indexes.as_ref().expect("made readable");
    let from = indexes.offsets.last().map_or(0, |entry| entry.position);
    match walk(disk, segment, from, |_| false) {
        Ok(Walk::Cold(range)) => Ok(Walk::Cold(range)),
        Ok(Walk::Found(_)) => Ok(Walk::Found(Some(segment.size))),
        Err(WalkError::NoBatch(position)) => Ok(Walk::Found((position > from || from == 0).then_some(position))),
        Err(error) => Err(error),
    }
}

/// Walks headers from a batch boundary until one satisfies `stop`. `None`: the segment's end.
fn walk(
    disk: &mut dyn Disk,
    segment: &Segment,
    from: u32,
    mut stop: impl FnMut(&Header) -> bool,
) -> Result<Walk<Option<(u32, Header)>>, WalkError> {
    let file = segment.file.as_ref().expect("made readable");
    let mut buffer = [0u8; WALK_SIZE];
    let (mut buffered_from, mut buffered) = (from, 0u32);
    let mut position = from;
    while position < segment.size {
        if position + BATCH_HEADER_SIZE as u32 > buffered_from + buffered || position < buffered_from {
            let count = match disk.read_resident(file, Position(u64::from(position)), &mut buffer) {
                Ok(count) if count >= BATCH_HEADER_SIZE => count,
                // A header that only begins in resident pages is as cold as one that does not.
                Ok(_) => 0,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
                Err(e) => return Err(WalkError::Read(e)),
            };
            if count == 0 {
                if segment.size - position < BATCH_HEADER_SIZE as u32 {
                    return Err(WalkError::NoBatch(position));
                }
                return Ok(Walk::Cold(range(segment, position, (segment.size - position).min(WALK_AHEAD))));
            }
            (buffered_from, buffered) = (position, count as u32);
        }
        let at = (position - buffered_from) as usize;
        let header = Header::decode(&buffer[at..at + BATCH_HEADER_SIZE]).ok_or(WalkError::NoBatch(position))?;
        if header.size > segment.size - position {
            return Err(WalkError::NoBatch(position));
        }
        if stop(&header) {
            return Ok(Walk::Found(Some((position, header))));
        }
        position += header.size;
    }
    Ok(Walk::Found(None))
}
