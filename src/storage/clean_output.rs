//! What the cleaner writes: the segment that takes the place of several, in a file of its own. Space for it is reserved ahead of the writer,
//! as for a log that fills its segments fast: else each write would wait for the completion of write-back, which holds the file's map of
//! blocks. What the file did not need is given back before it is synced.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use super::segment::{BatchSpan, Segment};
use super::{StorageError, failed};
use crate::ids::{Offset, Position};
use crate::io::disk::{Disk, Job};
use crate::parts::OpenFile;

/// Smaller outputs get no space reserved.
const RESERVE_FROM: u64 = 1 << 20;
/// Written at once.
const WRITE_SIZE: usize = 64 << 10;
/// Less space than this before the writer: the next step is reserved. A piece writes no more, unless a batch alone is larger.
const AHEAD: u64 = 256 << 10;

/// A segment being written.
#[derive(Debug)]
pub(super) struct CleanOutput {
    segment: Segment,
    file: Rc<OpenFile>,
    path: PathBuf,
    /// Bytes of what it takes the place of: it becomes hardly larger.
    size_max: u64,
    /// What is not written yet.
    pub pending: Vec<u8>,
    written: u64,
    written_back: u64,
    /// Space was asked for up to here, and whether there was any.
    reserved: u64,
    reserves: bool,
}

impl CleanOutput {
    /// Creates the file for the segment with this base offset.
    pub fn create(
        disk: &mut dyn Disk,
        path: PathBuf,
        base: Offset,
        created_ms: i64,
        size_max: u64,
    ) -> Result<CleanOutput, StorageError> {
        let file = disk.open(&path, true).map_err(failed("create", &path))?;
        let mut segment = Segment::new(base, created_ms);
        segment.file = Some(file.clone());
        segment.indexes = Some(Box::default());
        Ok(CleanOutput {
            segment,
            file,
            path,
            size_max,
            pending: Vec::new(),
            written: 0,
            written_back: 0,
            reserved: 0,
            reserves: size_max >= RESERVE_FROM,
        })
    }

    pub fn path(&self) -> &PathBuf {
        &self.path
    }
    pub fn file(&self) -> &Rc<OpenFile> {
        &self.file
    }
    pub fn base_offset(&self) -> Offset {
        self.segment.base_offset
    }
    /// The segment, once all of it is written.
    pub fn into_segment(self) -> Segment {
        self.segment
    }

    /// Takes note of a batch that was added to `pending`.
    pub fn note(&mut self, batch: BatchSpan, index_interval_bytes: u32) {
        self.segment.note(batch, index_interval_bytes);
    }

    /// Is there enough to be written?
    pub fn is_full(&self) -> bool {
        self.pending.len() >= WRITE_SIZE
    }

    /// Writes what is pending. How much that was.
    pub fn write(&mut self, disk: &mut dyn Disk) -> Result<u64, StorageError> {
        let size = self.pending.len() as u64;
        if size > 0 {
            let slice = io::IoSlice::new(&self.pending);
            disk.write(&self.file, Position(self.written), &[slice]).map_err(failed("write", &self.path))?;
            self.written += size;
            self.pending.clear();
        }
        Ok(size)
    }

    /// What is to be done before more is written; the writer waits for it, as both lock the file.
    pub fn next_job(&mut self, reserve_step: u64, write_back_step: u64) -> Option<Job> {
        let file = self.file.clone();
        if self.reserves && self.reserved < self.size_max && self.reserved < self.written + AHEAD {
            let position = Position(self.reserved.max(self.written));
            let size = reserve_step.min(self.size_max.saturating_sub(position.0));
            self.reserved = position.0 + size;
            return (size > 0).then_some(Job::Preallocate { file, position, size });
        }
        let size = self.written - self.written_back;
        if size >= write_back_step {
            // Dirty pages stay few, as those of appends do: where there are many, the kernel holds up who writes.
            let position = Position(self.written_back);
            self.written_back = self.written;
            return Some(Job::StartWriteback { file, position, size });
        }
        None
    }

    /// There is no space to reserve: the device may be nearly full. The writes will tell.
    pub fn cannot_reserve(&mut self) {
        self.reserves = false;
    }

    /// Gives back what is reserved behind the last byte, if there is any.
    pub fn cut(&mut self) -> Option<Job> {
        let cut = std::mem::take(&mut self.reserved) > self.written;
        cut.then(|| Job::Truncate { file: self.file.clone(), size: self.written })
    }
}
