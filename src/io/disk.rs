//! Files of one shard, in two halves. *Calls* return at once and touch only the page cache: append, read what is
//! resident, open. *Jobs* are all that may wait for the device or free pages (sync, write-back, preallocation, rename, remove,
//! close, reading what is cold): they run through the ring and end as `Event::JobDone`.
//! Start-up (before the loop runs) may use the calls of `Disk` marked so.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::ids::Position;
use crate::parts::{FileRange, OpenFile};

/// What may take long. Paths are relative to the data directory. The job, files included, is given back when it ended.
#[derive(Clone, Debug)]
pub enum Job {
    /// Reserves space for `size` bytes from `position` without changing the file's size (`fallocate`, `FALLOC_FL_KEEP_SIZE`).
    /// A file system that cannot is no error.
    Preallocate { file: Rc<OpenFile>, position: Position, size: u64 },
    /// Starts write-back of a range without waiting for it to be durable (`sync_file_range`, `SYNC_FILE_RANGE_WRITE`).
    StartWriteback { file: Rc<OpenFile>, position: Position, size: u64 },
    /// Makes everything written to the file so far durable (`fdatasync`).
    Sync { file: Rc<OpenFile> },
    /// Makes all that was written so far to the file systems of these directories durable (`syncfs`), whoever wrote it: for very many files
    /// at once.
    SyncFileSystems { dirs: Vec<PathBuf> },
    /// Cuts the file to `size` bytes.
    Truncate { file: Rc<OpenFile>, size: u64 },
    /// Reads a range into the page cache.
    ReadAhead { file: Rc<OpenFile>, position: Position, size: u64 },
    /// Lets the page cache go of a range of a file that nobody will read any more, so that its last close, its removal or a rename over it
    /// finds few pages to free. Pages somebody holds, or that are not on the device, stay.
    DropPages { file: Rc<OpenFile>, position: Position, size: u64 },
    /// Closes the file: the caller must hold the last `Rc` besides this one. The handle is dead afterwards.
    Close { file: Rc<OpenFile> },
    /// Renames a file or directory.
    Rename { from: PathBuf, to: PathBuf },
    /// Unlinks a file. One that is not there is no error.
    Remove { path: PathBuf },
    /// Removes a directory with all that is in it. One that is not there is no error.
    RemoveDir { path: PathBuf },
    /// Writes a small file whole and atomically: `<path>.tmp`, write, fdatasync if `sync`, rename over `path`.
    Replace { path: PathBuf, bytes: Vec<u8>, sync: bool },
}

impl Job {
    /// Reads a range into the page cache.
    pub fn read_ahead(range: FileRange) -> Job {
        Job::ReadAhead { file: range.file, position: range.position, size: u64::from(range.size) }
    }
    /// Does it go by a path? The others go by an open file, whatever its name is by now.
    pub fn goes_by_path(&self) -> bool {
        matches!(
            self,
            Job::Rename { .. }
                | Job::Remove { .. }
                | Job::RemoveDir { .. }
                | Job::Replace { .. }
                | Job::SyncFileSystems { .. }
        )
    }
}

/// Does the error say that the file system, or what the user may have of it, is full?
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// How large the file system of the data directory is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total: u64,
    /// What this process may still use.
    pub usable: u64,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// File or directory name without its path.
    pub name: String,
    /// A directory?
    pub is_dir: bool,
    /// Size in bytes (0 for directories).
    pub size: u64,
}

/// The data directory as one shard sees it. All paths are relative to it.
pub trait Disk {
    /// Opens for reading and writing; creates it (and its directory) if `create`. Does not truncate.
    fn open(&mut self, path: &Path, create: bool) -> io::Result<Rc<OpenFile>>;
    /// Size in bytes.
    fn size(&mut self, file: &OpenFile) -> io::Result<u64>;
    /// Writes all slices one after another from `position`: all or an error (the file may then hold a part).
    fn write(&mut self, file: &OpenFile, position: Position, slices: &[IoSlice<'_>]) -> io::Result<()>;
    /// Reads up to `into.len()` bytes, only from the page cache: `WouldBlock` when the first byte is not there.
    /// A shorter count than asked: end of file, or the rest is cold.
    fn read_resident(&mut self, file: &OpenFile, position: Position, into: &mut [u8]) -> io::Result<usize>;
    /// How large the file system is and how full.
    fn space(&mut self) -> io::Result<Space>;
    /// Starts a job.
    fn start(&mut self, owner: crate::ids::JobOwner, job: Job);

    /// Start-up, compaction slices and shutdown: reads, waiting for the device if need be. Short only at the end of the file.
    fn read(&mut self, file: &OpenFile, position: Position, into: &mut [u8]) -> io::Result<usize>;
    /// Start-up: names in a directory, sorted. `NotFound` if there is none.
    fn list(&mut self, dir: &Path) -> io::Result<Vec<Entry>>;
    /// Start-up: a small file whole.
    fn read_file(&mut self, path: &Path) -> io::Result<Vec<u8>>;
    /// Are the bytes that were read from a file those that `Job::Replace` wrote there? True as well where nobody knows: another program made
    /// the file, or the file system cannot keep a mark. Does not wait for the device once the file was opened.
    fn is_as_written(&mut self, path: &Path, bytes: &[u8]) -> bool;
    /// Start-up: a small file whole, if it is as it was written. `None`: it is not.
    fn read_written(&mut self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let bytes = self.read_file(path)?;
        Ok(self.is_as_written(path, &bytes).then_some(bytes))
    }
    /// Start-up and shutdown: runs a job to its end before returning.
    fn run(&mut self, job: Job) -> io::Result<()>;
}
