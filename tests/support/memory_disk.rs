//! A `Disk` in memory for the storage scripts: jobs wait until the test runs them, files can be cold, and a crash keeps what
//! was written (the process died) or only what was synced (the host died).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringlane::ids::{JobOwner, Position};
use ringlane::io::disk::{Disk, Entry, Job, Space};
use ringlane::parts::OpenFile;

/// As of the file systems that Linux has.
const NAME_MAX: usize = 255;

#[derive(Clone, Default)]
pub struct File {
    pub bytes: Vec<u8>,
    /// As of the last sync.
    pub synced: Vec<u8>,
    pub cold: bool,
    /// Blocks that have left the page cache: a write of a part of one would wait for the device.
    pub evicted: BTreeSet<usize>,
}

#[derive(Default)]
pub struct MemoryDisk {
    files: Vec<File>,
    names: BTreeMap<PathBuf, usize>,
    /// Handle -> file.
    open: BTreeMap<i32, usize>,
    handle_next: i32,
    pub pending: Vec<(JobOwner, Job)>,
    /// After so many writes, one fails with this.
    pub fail_write: Option<(u32, io::ErrorKind)>,
    /// No space can be reserved.
    pub full: bool,
    /// No file can be written anew.
    pub no_files: bool,
    /// Writes so far: how many calls, how many bytes.
    pub writes: (u64, u64),
    /// How often a write had to wait for the rest of a block.
    pub waits: u64,
}

/// What a file system reads and writes at a time.
pub const BLOCK: usize = 4096;

impl MemoryDisk {
    pub fn file(&mut self, path: &Path) -> Option<&mut File> {
        self.names.get(path).map(|i| &mut self.files[*i])
    }
    pub fn put(&mut self, path: &Path, bytes: Vec<u8>) {
        let file = File { synced: bytes.clone(), bytes, ..File::default() };
        self.files.push(file);
        self.names.insert(path.to_path_buf(), self.files.len() - 1);
    }
    pub fn names(&self) -> impl Iterator<Item = (&Path, usize)> {
        self.names.iter().map(|(path, i)| (path.as_path(), self.files[*i].bytes.len()))
    }
    pub fn open_count(&self) -> usize {
        self.open.len()
    }
    /// Bytes behind a handle.
    pub fn bytes(&self, file: &OpenFile) -> &[u8] {
        &self.files[self.open[&file.handle]].bytes
    }
    /// The process dies: jobs that have not run never will.
    pub fn kill(&mut self) {
        self.pending.clear();
        self.open.clear();
    }
    /// The host dies: of each file only what was synced is left, besides the pages (64 bytes each, here) that `keep` names.
    pub fn power_cut(&mut self, keep: impl Fn(usize) -> bool) {
        self.kill();
        for file in &mut self.files {
            let written = std::mem::replace(&mut file.bytes, file.synced.clone());
            for (page, chunk) in written.chunks(64).enumerate().filter(|(page, _)| keep(*page)) {
                let end = page * 64 + chunk.len();
                if file.bytes.len() < end {
                    file.bytes.resize(end, 0);
                }
                file.bytes[page * 64..end].copy_from_slice(chunk);
            }
        }
    }
    /// Runs the job that was started first. `None`: none is pending.
    pub fn run_next(&mut self) -> Option<(JobOwner, Job, io::Result<()>)> {
        if self.pending.is_empty() {
            return None;
        }
        let (owner, job) = self.pending.remove(0);
        let result = self.perform(&job);
        Some((owner, job, result))
    }
    fn of(&mut self, file: &OpenFile) -> io::Result<&mut File> {
        let i = *self.open.get(&file.handle).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(&mut self.files[i])
    }
    fn perform(&mut self, job: &Job) -> io::Result<()> {
        match job {
            Job::Preallocate { .. } if self.full => Err(io::ErrorKind::StorageFull.into()),
            Job::Replace { .. } if self.no_files => Err(io::ErrorKind::StorageFull.into()),
            Job::Preallocate { file, .. } | Job::StartWriteback { file, .. } | Job::DropPages { file, .. } => {
                self.of(file).map(drop)
            }
            Job::Sync { file } => {
                let file = self.of(file)?;
                file.synced = file.bytes.clone();
                Ok(())
            }
            Job::SyncFileSystems { .. } => {
                self.files.iter_mut().for_each(|file| file.synced = file.bytes.clone());
                Ok(())
            }
            Job::Truncate { file, size } => {
                self.of(file)?.bytes.resize(*size as usize, 0);
                Ok(())
            }
            Job::ReadAhead { file, .. } => {
                self.of(file)?.cold = false;
                Ok(())
            }
            Job::Close { file } => {
                assert!(Rc::strong_count(file) <= 2, "closed while somebody else holds it");
                self.open.remove(&file.handle).map(drop).ok_or(io::ErrorKind::InvalidInput.into())
            }
            Job::Rename { to, .. } if to.iter().any(|name| name.len() > NAME_MAX) => {
                Err(io::ErrorKind::InvalidFilename.into())
            }
            Job::Rename { from, to } => {
                // A file, or all that is in a directory.
                let below = |name: &&PathBuf| name.starts_with(from);
                let moved: Vec<PathBuf> = self.names.keys().filter(below).cloned().collect();
                for name in &moved {
                    let i = self.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
                    let rest = name.strip_prefix(from).expect("below it");
                    let new = if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) };
                    self.names.insert(new, i);
                }
                if moved.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(()) }
            }
            Job::Remove { path } => {
                self.names.remove(path);
                Ok(())
            }
            Job::RemoveDir { path } => {
                self.names.retain(|name, _| !name.starts_with(path));
                Ok(())
            }
            Job::Replace { path, bytes, .. } => {
                self.put(path, bytes.clone());
                Ok(())
            }
        }
    }
}

impl Disk for MemoryDisk {
    fn open(&mut self, path: &Path, create: bool) -> io::Result<Rc<OpenFile>> {
        if !self.names.contains_key(path) {
            if !create {
                return Err(io::ErrorKind::NotFound.into());
            }
            self.put(path, Vec::new());
        }
        self.handle_next += 1;
        self.open.insert(self.handle_next, self.names[path]);
        Ok(OpenFile::new(self.handle_next))
    }
    fn size(&mut self, file: &OpenFile) -> io::Result<u64> {
        Ok(self.of(file)?.bytes.len() as u64)
    }
    fn write(&mut self, file: &OpenFile, position: Position, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let fail = self.fail_write.take_if(|(after, _)| *after == 0).map(|(_, kind)| kind);
        if let Some((after, _)) = &mut self.fail_write {
            *after -= 1;
        }
        self.writes.0 += 1;
        let file = self.of(file)?;
        let mut at = position.0 as usize;
        for (i, slice) in slices.iter().enumerate() {
            // A failing write leaves half of its first slice behind.
            let size = if fail.is_some() { slice.len() / 2 } else { slice.len() };
            if file.bytes.len() < at + size {
                file.bytes.resize(at + size, 0);
            }
            file.bytes[at..at + size].copy_from_slice(&slice[..size]);
            at += size;
            if let (0, Some(kind)) = (i, fail) {
                return Err(kind.into());
            }
        }
        let (from, to) = (position.0 as usize, at);
        let touched = from / BLOCK..to.div_ceil(BLOCK);
        let part_of = |block: usize| block * BLOCK < from || (block + 1) * BLOCK > to;
        let waits = touched.clone().filter(|block| file.evicted.contains(block) && part_of(*block)).count();
        file.evicted.retain(|block| !touched.contains(block));
        self.waits += waits as u64;
        self.writes.1 += (to - from) as u64;
        Ok(())
    }
    fn read_resident(&mut self, file: &OpenFile, position: Position, into: &mut [u8]) -> io::Result<usize> {
        if self.of(file)?.cold {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.read(file, position, into)
    }
    fn space(&mut self) -> io::Result<Space> {
        Ok(Space { total: 1 << 40, usable: 1 << 39 })
    }
    fn start(&mut self, owner: JobOwner, job: Job) {
        self.pending.push((owner, job));
    }
    fn read(&mut self, file: &OpenFile, position: Position, into: &mut [u8]) -> io::Result<usize> {
        let bytes = &self.of(file)?.bytes;
        let from = bytes.get(position.0 as usize..).unwrap_or_default();
        let count = from.len().min(into.len());
        into[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }
    fn list(&mut self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut dirs = BTreeSet::new();
        let mut entries = Vec::new();
        for (path, i) in &self.names {
            let Ok(rest) = path.strip_prefix(dir) else { continue };
            let mut parts = rest.iter();
            let name = parts.next().expect("a file").to_string_lossy().into_owned();
            if parts.next().is_none() {
                entries.push(Entry { name, is_dir: false, size: self.files[*i].bytes.len() as u64 });
            } else if dirs.insert(name.clone()) {
                entries.push(Entry { name, is_dir: true, size: 0 });
            }
        }
        if entries.is_empty() && !dir.as_os_str().is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        entries.sort();
        Ok(entries)
    }
    fn is_as_written(&mut self, _: &Path, _: &[u8]) -> bool {
        true
    }
    fn read_file(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        self.file(path).map(|f| f.bytes.clone()).ok_or(io::ErrorKind::NotFound.into())
    }
    fn run(&mut self, job: Job) -> io::Result<()> {
        self.perform(&job)
    }
}
