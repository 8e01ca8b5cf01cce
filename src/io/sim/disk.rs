//! The disk of the simulated world. Each file has two images: what the page cache shows, and what is durable. A crash
//! keeps a random subset of the 4 KiB pages that were written and not synced.
//!
//! Names are a journal, as on ext4 and XFS: a crash keeps the changes up to some point after the last sync, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::random::Random;
use super::{Action, Event, Sim, World};
use crate::ids::{JobOwner, Position};
use crate::io::disk::{Disk, Entry, Job, Space};
use crate::parts::OpenFile;

const PAGE_SIZE: usize = 4096;

/// What a crash leaves on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Everything written: only the process died, the page cache lives.
    Everything,
    /// Only what was synced.
    Synced,
    /// Of what was not synced, some pages and some of the last changes of names.
    Some,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileId(usize);

#[derive(Clone, Default)]
struct File {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Pages that differ, or may.
    dirty: BTreeSet<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    Dir,
    File(FileId),
}

#[derive(Clone)]
enum Change {
    Add(PathBuf, Node),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

type Names = BTreeMap<PathBuf, Node>;

struct Pending {
    owner: JobOwner,
    job: Job,
    /// Pages that were dirty when a sync began: those are what it makes durable.
    pages: BTreeSet<usize>,
    changes: usize,
}

#[derive(Default)]
pub(super) struct Disks {
    files: Vec<File>,
    names: Names,
    durable_names: Names,
    /// Changes since `durable_names`.
    journal: Vec<Change>,
    /// Files by handle; a handle is never used again.
    handles: Vec<Option<FileId>>,
    jobs: BTreeMap<u64, Pending>,
    last_job: u64,
    closing: Vec<(JobOwner, Rc<OpenFile>)>,
    full: bool,
    syncs_fail: bool,
}

fn not_found() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

/// Paths compare without `.` and doubled slashes.
fn clean(path: &Path) -> PathBuf {
    path.components().filter(|c| matches!(c, std::path::Component::Normal(_))).collect()
}

fn apply(names: &mut Names, change: Change) {
    match change {
        Change::Add(path, node) => drop(names.insert(path, node)),
        Change::Remove(path) => names.retain(|name, _| !name.starts_with(&path)),
        Change::Rename(from, to) => {
            let moved: Vec<PathBuf> = names.keys().filter(|name| name.starts_with(&from)).cloned().collect();
            for name in moved {
                let node = names.remove(&name).expect("listed above");
                let rest = name.strip_prefix(&from).expect("listed above");
                names.insert(if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) }, node);
            }
        }
    }
}

impl File {
    fn write(&mut self, position: usize, bytes: &[u8]) {
        let end = position + bytes.len();
        let old_size = self.live.len();
        if end > old_size {
            self.live.resize(end, 0);
        }
        self.live[position..end].copy_from_slice(bytes);
        if end > position {
            self.dirty.extend(position.min(old_size) / PAGE_SIZE..=(end - 1) / PAGE_SIZE);
        }
    }

    fn read(&self, position: usize, into: &mut [u8]) -> usize {
        let rest = self.live.get(position..).unwrap_or(&[]);
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        count
    }

    /// A page reaches the device.
    fn persist(&mut self, page: usize) {
        self.dirty.remove(&page);
        let (start, end) = (page * PAGE_SIZE, ((page + 1) * PAGE_SIZE).min(self.live.len()));
        if start < end {
            if self.durable.len() < end {
                self.durable.resize(end, 0);
            }
            self.durable[start..end].copy_from_slice(&self.live[start..end]);
        }
    }

    fn sync(&mut self, pages: &BTreeSet<usize>) {
        pages.iter().for_each(|&page| self.persist(page));
        self.durable.truncate(self.live.len());
    }

    fn sync_all(&mut self) {
        let pages = self.dirty.clone();
        self.sync(&pages);
    }

    fn truncate(&mut self, size: usize) {
        self.live.resize(size, 0);
        self.dirty.retain(|page| page * PAGE_SIZE < size);
        self.dirty.insert(size.saturating_sub(1) / PAGE_SIZE);
    }

    fn after_crash(mut self, keep: Keep, random: &mut Random) -> File {
        match keep {
            Keep::Everything => {}
            Keep::Synced => self.live.clone_from(&self.durable),
            Keep::Some => {
                // Some crashes lose little, some much.
                let of_eight = random.below(9);
                for page in std::mem::take(&mut self.dirty) {
                    if random.below(8) < of_eight {
                        self.persist(page);
                    }
                }
                if self.live.len() < self.durable.len() && random.below(2) == 0 {
                    self.durable.truncate(self.live.len());
                }
                self.live.clone_from(&self.durable);
            }
        }
        if keep != Keep::Everything {
            self.dirty.clear();
        }
        self
    }
}

impl Disks {
    pub fn id(&self, file: &OpenFile) -> FileId {
        self.handles.get(file.handle as usize).copied().flatten().expect("the file is open")
    }

    fn file(&mut self, file: &OpenFile) -> &mut File {
        let id = self.id(file);
        &mut self.files[id.0]
    }

    /// Bytes of a range as they are now; a file that became shorter shows zeros.
    pub fn copy_now(&self, file: FileId, position: u64, size: u64, into: &mut Vec<u8>) {
        let start = into.len();
        into.resize(start + size as usize, 0);
        self.files[file.0].read(position as usize, &mut into[start..]);
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.names, change.clone());
        self.journal.push(change);
    }

    /// The first `count` changes of the journal are durable.
    fn commit(&mut self, count: usize) {
        for change in self.journal.drain(..count.min(self.journal.len())) {
            apply(&mut self.durable_names, change);
        }
        let committed = count;
        self.jobs.values_mut().for_each(|job| job.changes = job.changes.saturating_sub(committed));
    }

    pub fn after_crash(mut self, keep: Keep, random: &mut Random) -> Disks {
        let changes = match keep {
            Keep::Everything => self.journal.len(),
            Keep::Synced => 0,
            Keep::Some => random.below(self.journal.len() as u64 + 1) as usize,
        };
        self.commit(changes);
        Disks {
            files: self.files.into_iter().map(|file| file.after_crash(keep, random)).collect(),
            names: self.durable_names.clone(),
            durable_names: self.durable_names,
            ..Disks::default()
        }
    }

    fn add_dirs(&mut self, path: &Path) {
        for dir in path.ancestors().collect::<Vec<_>>().into_iter().rev() {
            if !dir.as_os_str().is_empty() && !self.names.contains_key(dir) {
                self.change(Change::Add(dir.to_path_buf(), Node::Dir));
            }
        }
    }

    fn create(&mut self, path: &Path) -> FileId {
        let id = FileId(self.files.len());
        self.files.push(File::default());
        self.change(Change::Add(path.to_path_buf(), Node::File(id)));
        id
    }

    fn perform(&mut self, job: &Job, pages: &BTreeSet<usize>, changes: usize, random: &mut Random) -> io::Result<()> {
        match job {
            Job::Preallocate { .. } if self.full => return Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            Job::Preallocate { .. } | Job::ReadAhead { .. } | Job::DropPages { .. } => {}
            Job::StartWriteback { file, position, size } => {
                let range = position.0 as usize / PAGE_SIZE..=(position.0 + size) as usize / PAGE_SIZE;
                let file = self.file(file);
                for page in file.dirty.clone().range(range) {
                    if random.below(2) == 0 {
                        file.persist(*page);
                    }
                }
            }
            Job::Sync { .. } | Job::SyncFileSystems { .. } if self.syncs_fail => {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            Job::Sync { file } => {
                self.file(file).sync(pages);
                self.commit(changes);
            }
            Job::SyncFileSystems { .. } => {
                self.files.iter_mut().for_each(File::sync_all);
                self.commit(self.journal.len());
            }
            Job::Truncate { file, size } => self.file(file).truncate(*size as usize),
            Job::Close { file } => self.handles[file.handle as usize] = None,
            Job::Rename { from, to } => {
                let (from, to) = (clean(from), clean(to));
                if !self.names.contains_key(&from) {
                    return Err(not_found());
                }
                self.change(Change::Rename(from, to));
            }
            Job::Remove { path } => {
                let path = clean(path);
                match self.names.get(&path) {
                    Some(Node::Dir) => return Err(io::Error::from_raw_os_error(libc::EISDIR)),
                    Some(Node::File(_)) => self.change(Change::Remove(path)),
                    None => {}
                }
            }
            Job::RemoveDir { path } => self.change(Change::Remove(clean(path))),
            Job::Replace { path, bytes, sync } => {
                let path = clean(path);
                if path.parent().is_some_and(|dir| !dir.as_os_str().is_empty() && !self.names.contains_key(dir)) {
                    return Err(not_found());
                }
                let mut name = path.clone().into_os_string();
                name.push(".tmp");
                let id = self.create(Path::new(&name));
                self.files[id.0].write(0, bytes);
                if *sync {
                    self.files[id.0].sync_all();
                }
                self.change(Change::Rename(name.into(), path));
                if *sync {
                    self.commit(self.journal.len());
                }
            }
        }
        Ok(())
    }
}

impl World {
    /// Closes whose file nobody else holds any more begin.
    pub(super) fn start_closes(&mut self) {
        let mut at = 0;
        while let Some((_, file)) = self.disks.closing.get(at) {
            if Rc::strong_count(file) == 1 {
                let (owner, file) = self.disks.closing.swap_remove(at);
                self.start_job(owner, Job::Close { file });
            } else {
                at += 1;
            }
        }
    }

    fn start_job(&mut self, owner: JobOwner, job: Job) {
        let pages = match &job {
            Job::Sync { file } => self.disks.file(file).dirty.clone(),
            _ => BTreeSet::new(),
        };
        let changes = self.disks.journal.len();
        self.disks.last_job += 1;
        let id = self.disks.last_job;
        self.disks.jobs.insert(id, Pending { owner, job, pages, changes });
        self.later(Action::Job(id));
    }

    pub(super) fn end_job(&mut self, id: u64, events: &mut Vec<Event>) {
        let Some(Pending { owner, job, pages, changes }) = self.disks.jobs.remove(&id) else { return };
        let result = self.disks.perform(&job, &pages, changes, &mut self.random);
        events.push(Event::JobDone { owner, job, result });
    }
}

impl Disk for Sim {
    fn open(&mut self, path: &Path, create: bool) -> io::Result<Rc<OpenFile>> {
        let disks = &mut self.world.borrow_mut().disks;
        let path = clean(path);
        let id = match disks.names.get(&path) {
            Some(Node::File(id)) => *id,
            Some(Node::Dir) => return Err(io::Error::from_raw_os_error(libc::EISDIR)),
            None if create => {
                disks.add_dirs(path.parent().unwrap_or(Path::new("")));
                disks.create(&path)
            }
            None => return Err(not_found()),
        };
        disks.handles.push(Some(id));
        let file = OpenFile::new(disks.handles.len() as i32 - 1);
        // As the kernel's form does.
        file.tainted.set(!disks.files[id.0].live.is_empty());
        Ok(file)
    }

    fn size(&mut self, file: &OpenFile) -> io::Result<u64> {
        Ok(self.world.borrow_mut().disks.file(file).live.len() as u64)
    }

    fn write(&mut self, file: &OpenFile, position: Position, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let disks = &mut self.world.borrow_mut().disks;
        if disks.full {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let (file, mut at) = (disks.file(file), position.0 as usize);
        for slice in slices {
            file.write(at, slice);
            at += slice.len();
        }
        Ok(())
    }

    fn read_resident(&mut self, file: &OpenFile, position: Position, into: &mut [u8]) -> io::Result<usize> {
        let world = &mut *self.world.borrow_mut();
        if into.is_empty() {
            return Ok(0);
        }
        // What is resident is the kernel's affair: now and then nothing, or only the beginning.
        match world.random.below(16) {
            0 => Err(io::Error::from(io::ErrorKind::WouldBlock)),
            _ => {
                let count = world.random.some_of(into.len() as u64) as usize;
                Ok(world.disks.file(file).read(position.0 as usize, &mut into[..count]))
            }
        }
    }

    fn space(&mut self) -> io::Result<Space> {
        Ok(Space { total: 1 << 40, usable: 1 << 40 })
    }

    fn start(&mut self, owner: JobOwner, job: Job) {
        let world = &mut *self.world.borrow_mut();
        match job {
            Job::Close { file } => {
                file.tainted.set(true);
                world.network.release_file(&file);
                world.disks.closing.push((owner, file));
            }
            job => world.start_job(owner, job),
        }
    }

    fn read(&mut self, file: &OpenFile, position: Position, into: &mut [u8]) -> io::Result<usize> {
        Ok(self.world.borrow_mut().disks.file(file).read(position.0 as usize, into))
    }

    fn list(&mut self, dir: &Path) -> io::Result<Vec<Entry>> {
        let disks = &self.world.borrow().disks;
        let dir = clean(dir);
        if !dir.as_os_str().is_empty() && disks.names.get(&dir) != Some(&Node::Dir) {
            return Err(not_found());
        }
        let entries = disks.names.iter().filter(|(name, _)| name.parent() == Some(&dir));
        let entry = |(name, node): (&PathBuf, &Node)| {
            let name = name.file_name()?.to_str()?.to_string();
            Some(match node {
                Node::Dir => Entry { name, is_dir: true, size: 0 },
                Node::File(id) => Entry { name, is_dir: false, size: disks.files[id.0].live.len() as u64 },
            })
        };
        Ok(entries.filter_map(entry).collect())
    }

    fn read_file(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let disks = &self.world.borrow().disks;
        match disks.names.get(&clean(path)) {
            Some(Node::File(id)) => Ok(disks.files[id.0].live.clone()),
            _ => Err(not_found()),
        }
    }

    fn is_as_written(&mut self, _: &Path, _: &[u8]) -> bool {
        true
    }

    fn run(&mut self, job: Job) -> io::Result<()> {
        let world = &mut *self.world.borrow_mut();
        let pages = match &job {
            Job::Sync { file } => world.disks.file(file).dirty.clone(),
            _ => BTreeSet::new(),
        };
        let changes = world.disks.journal.len();
        world.disks.perform(&job, &pages, changes, &mut world.random)
    }
}

/// Faults.
impl Sim {
    /// From now on nothing more can be written, or it can again.
    pub fn set_disk_full(&self, full: bool) {
        self.world.borrow_mut().disks.full = full;
    }

    /// From now on nothing written gets to the device.
    pub fn fail_syncs(&self) {
        self.world.borrow_mut().disks.syncs_fail = true;
    }
}
