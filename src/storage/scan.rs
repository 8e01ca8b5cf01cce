//! Walks the batches of a file in order, waiting for the device if need be: for start-up, truncation and repair.

use std::io;
use std::path::Path;

use super::header::Header;
use super::{StorageError, failed};
use crate::ids::Position;
use crate::io::disk::{Disk, Job};
use crate::limits::BATCH_HEADER_SIZE;
use crate::parts::OpenFile;

/// Read at once when every byte is checked.
const CHECKED_SIZE: usize = 1 << 20;
/// Read at once when only headers are.
const HEADERS_SIZE: usize = 4096;

/// The header at a position of a file that is not open. `None`: there is none.
pub(super) fn header_at(disk: &mut dyn Disk, path: &Path, position: u32) -> Result<Option<Header>, StorageError> {
    let file = disk.open(path, false).map_err(failed("open", path))?;
    let mut bytes = [0; BATCH_HEADER_SIZE];
    let count = disk.read(&file, Position(u64::from(position)), &mut bytes).map_err(failed("read", path))?;
    disk.run(Job::Close { file }).map_err(failed("close", path))?;
    Ok(Header::decode(&bytes[..count]))
}

/// What the visitor thinks of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go on.
    Good,
    /// It does not belong here: the walk ends before it.
    Stop,
}

/// A walk over `from..size`. It ends at the first thing that is no whole, sound batch.
pub(super) struct Scan {
    position: u32,
    size: u32,
    check_crc: bool,
    buffer: Vec<u8>,
    /// Valid bytes of `buffer`, which begin at `position` of the file.
    filled: usize,
}

impl Scan {
    /// Reads everything and checks the checksums.
    pub fn checked(from: u32, size: u32) -> Scan {
        Scan {
            position: from,
            size,
            check_crc: true,
            buffer: vec![0; CHECKED_SIZE.min((size - from) as usize)],
            filled: 0,
        }
    }
    /// Reads headers only.
    pub fn headers(from: u32, size: u32) -> Scan {
        Scan { position: from, size, check_crc: false, buffer: vec![0; HEADERS_SIZE], filled: 0 }
    }

    /// Calls `visit(position, header, batch)` for each batch; `batch` is empty when only headers are read.
    pub fn run(
        &mut self,
        disk: &mut dyn Disk,
        file: &OpenFile,
        mut visit: impl FnMut(u32, &Header, &[u8]) -> Verdict,
    ) -> io::Result<()> {
        // Where in the buffer the next batch begins.
        let mut at = 0;
        while self.position < self.size {
            if self.filled - at < BATCH_HEADER_SIZE {
                self.fill(disk, file, at, BATCH_HEADER_SIZE)?;
                at = 0;
                if self.filled < BATCH_HEADER_SIZE {
                    return Ok(());
                }
            }
            let Some(header) = Header::decode(&self.buffer[at..]) else { return Ok(()) };
            if header.size > self.size - self.position {
                return Ok(());
            }
            let size = header.size as usize;
            if self.check_crc {
                if self.filled - at < size {
                    self.fill(disk, file, at, size)?;
                    at = 0;
                    if self.filled < size {
                        return Ok(());
                    }
                }
                let batch = &self.buffer[at..at + size];
                if !header.crc_fits(batch) || visit(self.position, &header, batch) == Verdict::Stop {
                    return Ok(());
                }
            } else if visit(self.position, &header, &[]) == Verdict::Stop {
                return Ok(());
            }
            self.position += header.size;
            at = (at + size).min(self.filled);
            if at == self.filled {
                (at, self.filled) = (0, 0);
            }
        }
        Ok(())
    }

    /// Moves what is left to the front and reads on, until `want` bytes are there or the file ends.
    fn fill(&mut self, disk: &mut dyn Disk, file: &OpenFile, at: usize, want: usize) -> io::Result<()> {
        self.buffer.copy_within(at..self.filled, 0);
        self.filled -= at;
        if self.buffer.len() < want {
            self.buffer.resize(want, 0);
        }
        while self.filled < want {
            let from = Position(u64::from(self.position) + self.filled as u64);
            let count = disk.read(file, from, &mut self.buffer[self.filled..])?;
            if count == 0 {
                break;
            }
            self.filled += count;
        }
        Ok(())
    }
}
