//! What the cleaner reads: the batches of one segment in order, only from the page cache, and no more at a time than the budget
//! allows. A batch is handed out whole; it may take several pieces until it is there.

use std::io;
use std::rc::Rc;

use super::budget::{Budget, READ_NS};
use super::clean_batch::Piece;
use crate::ids::{Offset, Position};
use crate::io::disk::Disk;
use crate::limits::BATCH_HEADER_SIZE;
use crate::parts::OpenFile;
use crate::wire::batch::HeaderView;

/// Read at once.
const READ_SIZE: usize = 64 << 10;

/// A segment being read.
#[derive(Debug, Default)]
pub(super) struct CleanInput {
    /// Base offset of the segment.
    pub segment: Offset,
    /// Where in it the next batch begins.
    pub position: u32,
    /// Bytes of the file from `from` on; `from <= position`.
    bytes: Rc<Vec<u8>>,
    from: u32,
}

/// What reading on found.
pub(super) enum Input {
    Batch(Piece),
    /// From here on it has to be read ahead.
    Cold(Position),
    /// The budget is spent.
    Later,
    /// The segment's end.
    End,
}

impl CleanInput {
    /// Moves to the start of a segment.
    pub fn open(&mut self, segment: Offset) {
        (self.segment, self.position, self.from) = (segment, 0, 0);
        Rc::make_mut(&mut self.bytes).clear();
    }

    /// Goes on behind the batch that was handed out.
    pub fn pass(&mut self, size: usize) {
        self.position += size as u32;
    }

    /// The next batch of the segment, whose file and size are given. It must not be held when the next one is asked for.
    pub fn next(&mut self, disk: &mut dyn Disk, file: &OpenFile, size: u32, budget: &mut Budget) -> io::Result<Input> {
        if self.position >= size {
            return Ok(Input::End);
        }
        loop {
            let at = (self.position - self.from) as usize;
            let held = &self.bytes[at..];
            let want = match HeaderView::read(held) {
                Some(header) => {
                    let batch = header.batch_size().ok_or(io::ErrorKind::InvalidData)?;
                    if batch <= held.len() {
                        return Ok(Input::Batch(Piece { bytes: self.bytes.clone(), range: at..at + batch }));
                    }
                    batch
                }
                None => BATCH_HEADER_SIZE,
            };
            if want > (size - self.position) as usize {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if budget.is_spent() {
                return Ok(Input::Later);
            }
            let end = self.from + self.bytes.len() as u32;
            let bytes = Rc::make_mut(&mut self.bytes);
            bytes.drain(..at);
            self.from = self.position;
            let before = bytes.len();
            bytes.reserve_exact(want.max(READ_SIZE).saturating_sub(before));
            bytes.resize(before + READ_SIZE.min((size - end) as usize), 0);
            let read = disk.read_resident(file, Position(end.into()), &mut bytes[before..]);
            bytes.truncate(before + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => budget.spend(count, READ_NS),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Input::Cold(Position(end.into()))),
                Err(e) => return Err(e),
            }
        }
    }
}
