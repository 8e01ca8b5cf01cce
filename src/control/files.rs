//! The control thread's disk: plain blocking files. It is not a shard, so it may wait.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::ids::{JobOwner, Position};
use crate::io::disk::{Disk, Entry, Job, Space};
use crate::io::{content_mark, replace_file, reserve, sync_file_systems};
use crate::parts::OpenFile;

/// Files below one directory.
#[derive(Debug)]
pub struct Files {
    root: PathBuf,
    open: Vec<Option<File>>,
}

impl Files {
    /// Files below `root`, which exists.
    pub fn new(root: PathBuf) -> Files {
        Files { root, open: Vec::new() }
    }

    fn file(&self, file: &OpenFile) -> io::Result<&File> {
        let slot = usize::try_from(file.handle).ok().and_then(|handle| self.open.get(handle));
        slot.and_then(Option::as_ref).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for Files {
    fn open(&mut self, path: &Path, create: bool) -> io::Result<Rc<OpenFile>> {
        let path = self.root.join(path);
        if create && let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let file = OpenOptions::new().read(true).write(true).create(create).truncate(false).open(path)?;
        self.open.push(Some(file));
        Ok(OpenFile::new(self.open.len() as i32 - 1))
    }

    fn size(&mut self, file: &OpenFile) -> io::Result<u64> {
        Ok(self.file(file)?.metadata()?.len())
    }

    fn write(&mut self, file: &OpenFile, position: Position, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let mut position = position.0;
        for slice in slices {
            self.file(file)?.write_all_at(slice, position)?;
            position += slice.len() as u64;
        }
        Ok(())
    }

    fn read_resident(&mut self, file: &OpenFile, position: Position, into: &mut [u8]) -> io::Result<usize> {
        self.read(file, position, into)
    }

    fn space(&mut self) -> io::Result<Space> {
        // Asked of shards only.
        Err(io::ErrorKind::Unsupported.into())
    }

    fn start(&mut self, _owner: JobOwner, job: Job) {
        // Nobody waits for it: the control thread runs its jobs.
        if let Err(e) = self.run(job) {
            log::warn!("control thread: {e}");
        }
    }

    fn read(&mut self, file: &OpenFile, position: Position, into: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < into.len() {
            match self.file(file)?.read_at(&mut into[done..], position.0 + done as u64)? {
                0 => break,
                count => done += count,
            }
        }
        Ok(done)
    }

    fn list(&mut self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.root.join(dir))? {
            let entry = entry?;
            let is_dir = entry.file_type()?.is_dir();
            let size = if is_dir { 0 } else { entry.metadata()?.len() };
            entries.push(Entry { name: entry.file_name().to_string_lossy().into_owned(), is_dir, size });
        }
        entries.sort();
        Ok(entries)
    }

    fn read_file(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(self.root.join(path))
    }

    fn is_as_written(&mut self, path: &Path, bytes: &[u8]) -> bool {
        content_mark::fits(&self.root.join(path), bytes)
    }

    fn run(&mut self, job: Job) -> io::Result<()> {
        let absent_is_fine = |result: io::Result<()>| match result {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        };
        match job {
            Job::StartWriteback { .. } | Job::ReadAhead { .. } | Job::DropPages { .. } => Ok(()),
            Job::Preallocate { file, position, size } => reserve(self.file(&file)?.as_raw_fd(), position.0, size),
            Job::Sync { file } => self.file(&file)?.sync_data(),
            Job::SyncFileSystems { dirs } => sync_file_systems(&self.root, &dirs),
            Job::Truncate { file, size } => self.file(&file)?.set_len(size),
            Job::Close { file } => {
                if let Some(slot) = self.open.get_mut(file.handle as usize) {
                    *slot = None;
                }
                Ok(())
            }
            Job::Rename { from, to } => fs::rename(self.root.join(from), self.root.join(to)),
            Job::Remove { path } => absent_is_fine(fs::remove_file(self.root.join(path))),
            Job::RemoveDir { path } => absent_is_fine(fs::remove_dir_all(self.root.join(path))),
            Job::Replace { path, bytes, sync } => {
                let path = self.root.join(path);
                if let Some(dir) = path.parent() {
                    fs::create_dir_all(dir)?;
                }
                replace_file(&path, &bytes, sync)
            }
        }
    }
}
