//! `Disk` on the kernel. Calls are made inline: buffered writes and reads of resident pages are copies between memory and
//! the page cache, faster than a hand-over to a worker thread of the ring. Jobs are operations of the ring, which its
//! worker threads run; what the ring has no operation for goes to one helper thread of this ring (`disk_helper`).
//!
//! A job that closes a file waits until nothing else holds the file: a queued reply may still have to be sent from it.

use std::collections::VecDeque;
use std::ffi::CString;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use io_uring::{opcode, squeue, types};

use super::bell::Bell;
use super::disk::{Disk, Entry, Job, Space};
use super::disk_helper::{Errand, Helper, replace_file, reserve, sync_file_systems};
use super::residency::{self, COLD_WINDOW_SIZE};
use super::token::{Op, Token};
use super::uring::Uring;
use super::{Event, clock, content_mark};
use crate::ids::{JobOwner, Position};
use crate::parts::OpenFile;

/// Write-back ranges in the kernel's hands: more would only fill the device's queue before the fdatasyncs of others.
const WRITEBACKS_IN_FLIGHT_MAX: usize = 2;
/// Write-back ranges that wait. Beyond it the oldest is forgotten: the kernel's own write-back will come to it.
const WRITEBACKS_QUEUED_MAX: usize = 256;
/// Other jobs in the kernel's hands; more wait in line. Each may hold a worker thread.
const JOBS_IN_FLIGHT_MAX: usize = 64;
/// What one operation of a long job covers. A worker starts the write-back of so much at a stretch: on a kernel that is not
/// preempted the shard waits for the end of it when its own work comes, some 100 us.
const STEP_SIZE_MAX: u64 = 2 * 1024 * 1024;
/// What a worker frees at a stretch: some 50 us.
const DROP_STEP_SIZE: u64 = 256 * 1024;
/// How often a close that waits for other holders of the file is looked at.
const CLOSE_RETRY_NS: u64 = 20_000_000;

struct Running {
    owner: JobOwner,
    job: Job,
    /// Bytes of the job's range that are done, for those that take several operations.
    done: u64,
    /// Paths the kernel reads.
    paths: Option<[CString; 2]>,
}

/// Jobs of one shard.
pub(super) struct Jobs {
    running: Vec<Option<Running>>,
    free: Vec<u32>,
    in_flight: usize,
    queued: VecDeque<(JobOwner, Job)>,
    writebacks_in_flight: usize,
    writebacks: VecDeque<(JobOwner, Job)>,
    /// Closes of files that others still hold.
    closing: Vec<(JobOwner, Rc<OpenFile>)>,
    helper: Helper,
}

impl Jobs {
    pub fn new(bell: Bell) -> Jobs {
        Jobs {
            running: Vec::new(),
            free: Vec::new(),
            in_flight: 0,
            queued: VecDeque::new(),
            writebacks_in_flight: 0,
            writebacks: VecDeque::new(),
            closing: Vec::new(),
            helper: Helper::new(bell),
        }
    }

    /// The ring ends: what has not begun will not.
    pub fn give_up_waiting(&mut self) {
        self.queued.clear();
        self.writebacks.clear();
        self.closing.clear();
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Results that are as good as success.
fn tolerate(job: &Job, result: io::Result<()>) -> io::Result<()> {
    match (&result, job) {
        (Err(e), Job::Remove { .. } | Job::RemoveDir { .. }) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        (Err(e), Job::Preallocate { .. }) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
        _ => result,
    }
}

/// Makes all of a job's calls one after another, waiting for each.
fn run_to_end(data_dir: &Path, job: &Job) -> io::Result<()> {
    let check = |result: libc::c_int| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    let off = |bytes: u64| bytes as libc::off_t;
    match job {
        Job::Preallocate { file, position, size } => reserve(file.handle, position.0, *size),
        // SAFETY: plain call on the descriptor of an open file.
        Job::StartWriteback { file, position, size } => check(unsafe {
            libc::sync_file_range(file.handle, off(position.0), off(*size), libc::SYNC_FILE_RANGE_WRITE)
        }),
        // SAFETY: as above.
        Job::Sync { file } => check(unsafe { libc::fdatasync(file.handle) }),
        // SAFETY: as above.
        Job::Truncate { file, size } => check(unsafe { libc::ftruncate(file.handle, off(*size)) }),
        Job::ReadAhead { file, position, size } => {
            let (mut memory, mut at, end) = (vec![0; COLD_WINDOW_SIZE as usize], position.0, position.0 + size);
            while at < end {
                let wanted = memory.len().min((end - at) as usize);
                match residency::read(file.handle, Position(at), &mut memory[..wanted])? {
                    0 => break,
                    count => at += count as u64,
                }
            }
            Ok(())
        }
        Job::DropPages { file, position, size } => {
            let (from, count) = (off(position.0), off(*size));
            // SAFETY: as above.
            match unsafe { libc::posix_fadvise(file.handle, from, count, libc::POSIX_FADV_DONTNEED) } {
                0 => Ok(()),
                error => Err(io::Error::from_raw_os_error(error)),
            }
        }
        // SAFETY: as above; the caller holds the last reference.
        Job::Close { file } => check(unsafe { libc::close(file.handle) }),
        Job::Rename { from, to } => std::fs::rename(data_dir.join(from), data_dir.join(to)),
        Job::Remove { path } => std::fs::remove_file(data_dir.join(path)),
        Job::RemoveDir { path } => std::fs::remove_dir_all(data_dir.join(path)),
        Job::Replace { path, bytes, sync } => replace_file(&data_dir.join(path), bytes, *sync),
        Job::SyncFileSystems { dirs } => sync_file_systems(data_dir, dirs),
    }
}

/// What the next operation of a long job covers, when so much is done. 0: all is, or the job is of one operation.
fn step_size(job: &Job, done: u64) -> u64 {
    let (size, most) = match job {
        Job::StartWriteback { size, .. } => (size, STEP_SIZE_MAX),
        Job::DropPages { size, .. } => (size, DROP_STEP_SIZE),
        Job::ReadAhead { size, .. } => (size, u64::from(COLD_WINDOW_SIZE)),
        _ => return 0,
    };
    (size - done).min(most)
}

/// Of the file system that holds an open file or directory: numbers the kernel has in memory.
fn space(fd: RawFd) -> io::Result<Space> {
    // SAFETY: all-zero bytes are a valid `statvfs`, which the kernel fills.
    let mut about: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: plain call on an open descriptor.
    if unsafe { libc::fstatvfs(fd, &mut about) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let block = about.f_frsize;
    Ok(Space { total: block * about.f_blocks, usable: block * about.f_bavail })
}

/// Writes all of `slices` from `position`.
fn write_all(fd: RawFd, position: Position, slices: &[IoSlice<'_>]) -> io::Result<u64> {
    let (mut at, mut rest, mut skip) = (position.0, slices, 0);
    while !rest.is_empty() {
        let count = if skip > 0 {
            let slice = &rest[0][skip..];
            // SAFETY: the kernel reads the slice during the call.
            unsafe { libc::pwrite(fd, slice.as_ptr().cast(), slice.len(), at as libc::off_t) }
        } else {
            let several = rest.len().min(libc::UIO_MAXIOV as usize) as libc::c_int;
            // SAFETY: `IoSlice` has the layout of `iovec`; the kernel reads the slices during the call.
            unsafe { libc::pwritev(fd, rest.as_ptr().cast(), several, at as libc::off_t) }
        };
        if count < 0 {
            match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => continue,
                e => return Err(e),
            }
        }
        at += count as u64;
        skip += count as usize;
        if count == 0 && rest.iter().take(libc::UIO_MAXIOV as usize).any(|slice| !slice.is_empty()) {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(first) = rest.first()
            && skip >= first.len()
        {
            skip -= first.len();
            rest = &rest[1..];
        }
    }
    Ok(at - position.0)
}

impl Uring {
    fn submit_job(&mut self, owner: JobOwner, job: Job) {
        let errand = match &job {
            Job::RemoveDir { path } => Some(Errand::RemoveDir(self.data_dir.join(path))),
            Job::Replace { path, bytes, sync } => {
                Some(Errand::Replace { path: self.data_dir.join(path), bytes: bytes.clone(), sync: *sync })
            }
            Job::SyncFileSystems { dirs } => {
                Some(Errand::SyncFileSystems { root: self.data_dir.clone(), dirs: dirs.clone() })
            }
            Job::Truncate { file, size } if !self.kernel.can_truncate => {
                Some(Errand::Truncate { fd: file.handle, size: *size })
            }
            _ => None,
        };
        let paths = match &job {
            Job::Rename { from, to } => c_path(from).and_then(|from| Ok(Some([from, c_path(to)?]))),
            Job::Remove { path } => c_path(path).map(|path| Some([path, CString::default()])),
            _ => Ok(None),
        };
        let paths = match paths {
            Ok(paths) => paths,
            Err(error) => return self.pending.push(Event::JobDone { owner, job, result: Err(error) }),
        };
        self.jobs.in_flight += 1;
        let running = Some(Running { owner, job, done: 0, paths });
        let slot = match self.jobs.free.pop() {
            Some(slot) => {
                self.jobs.running[slot as usize] = running;
                slot
            }
            None => {
                self.jobs.running.push(running);
                self.jobs.running.len() as u32 - 1
            }
        };
        match errand {
            Some(errand) => self.jobs.helper.send(slot, errand),
            None => self.submit_step(slot),
        }
    }

    /// The next operation of a job.
    fn submit_step(&mut self, slot: u32) {
        let running = self.jobs.running[slot as usize].as_ref().expect("running");
        let dir = types::Fd(self.data_dir_file.as_raw_fd());
        let fd = |file: &Rc<OpenFile>| types::Fd(file.handle);
        let path = |place: usize| running.paths.as_ref().map_or(std::ptr::null(), |paths| paths[place].as_ptr());
        let done = running.done;
        let entry = match &running.job {
            Job::Preallocate { file, position, size } => {
                opcode::Fallocate::new(fd(file), *size).offset(position.0).mode(libc::FALLOC_FL_KEEP_SIZE).build()
            }
            Job::StartWriteback { file, position, .. } => {
                opcode::SyncFileRange::new(fd(file), step_size(&running.job, done) as u32)
                    .offset(position.0 + done)
                    .flags(libc::SYNC_FILE_RANGE_WRITE)
                    .build()
            }
            Job::Sync { file } => opcode::Fsync::new(fd(file)).flags(types::FsyncFlags::DATASYNC).build(),
            Job::Truncate { file, size } => opcode::Ftruncate::new(fd(file), *size).build(),
            Job::ReadAhead { file, position, .. } => {
                let (file, at) = (file.clone(), *position + done);
                let size = step_size(&running.job, done) as u32;
                return self.read_ahead(&file, at, size, Token::new(Op::Job, slot, 0));
            }
            Job::DropPages { file, position, .. } => {
                let count = step_size(&running.job, done) as libc::off_t;
                opcode::Fadvise::new(fd(file), count, libc::POSIX_FADV_DONTNEED).offset(position.0 + done).build()
            }
            // By a worker: the last close of a deleted file frees its pages on the spot.
            Job::Close { file } => opcode::Close::new(fd(file)).build().flags(squeue::Flags::ASYNC),
            Job::Rename { .. } => opcode::RenameAt::new(dir, path(0), dir, path(1)).build(),
            Job::Remove { .. } => opcode::UnlinkAt::new(dir, path(0)).build(),
            Job::RemoveDir { .. } | Job::Replace { .. } | Job::SyncFileSystems { .. } => {
                unreachable!("the helper's errands")
            }
        };
        // SAFETY: paths are on the heap of `running` until the job ended.
        unsafe { self.push(entry, Token::new(Op::Job, slot, 0)) };
    }

    pub(super) fn job_progressed(&mut self, slot: u32, result: i32, events: &mut Vec<Event>) {
        let Some(running) = self.jobs.running.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        if result == -libc::EINTR || result == -libc::EAGAIN {
            return self.submit_step(slot);
        }
        if result >= 0 {
            running.done += step_size(&running.job, running.done);
            let at_end = matches!(running.job, Job::ReadAhead { .. }) && result == 0;
            if !at_end && step_size(&running.job, running.done) > 0 {
                return self.submit_step(slot);
            }
        }
        let result = if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) };
        self.job_ended(slot, result, events);
    }

    fn job_ended(&mut self, slot: u32, result: io::Result<()>, events: &mut Vec<Event>) {
        let Some(Running { owner, job, .. }) = self.jobs.running[slot as usize].take() else { return };
        self.jobs.free.push(slot);
        self.jobs.in_flight -= 1;
        let result = tolerate(&job, result);
        if let Job::StartWriteback { .. } = &job {
            self.jobs.writebacks_in_flight -= 1;
        }
        events.push(Event::JobDone { owner, job, result });
        self.start_queued();
    }

    fn start_queued(&mut self) {
        while self.jobs.in_flight < JOBS_IN_FLIGHT_MAX {
            let writebacks_wait = self.jobs.writebacks_in_flight < WRITEBACKS_IN_FLIGHT_MAX;
            if let Some((owner, job)) = self.jobs.queued.pop_front() {
                self.submit_job(owner, job);
            } else if writebacks_wait && let Some((owner, job)) = self.jobs.writebacks.pop_front() {
                self.jobs.writebacks_in_flight += 1;
                self.submit_job(owner, job);
            } else {
                return;
            }
        }
    }

    /// What the helper thread has done.
    pub(super) fn helped(&mut self, events: &mut Vec<Event>) {
        while let Some((slot, result)) = self.jobs.helper.take_done() {
            self.job_ended(slot, result, events);
        }
    }

    /// Closes whose file nobody else holds any more. Returns when to look again.
    pub(super) fn poll_jobs(&mut self, now_ns: u64) -> Option<u64> {
        let mut at = 0;
        while let Some((_, file)) = self.jobs.closing.get(at) {
            if Rc::strong_count(file) == 1 {
                let (owner, file) = self.jobs.closing.swap_remove(at);
                self.forget(file.handle);
                self.jobs.queued.push_back((owner, Job::Close { file }));
            } else {
                at += 1;
            }
        }
        self.start_queued();
        (!self.jobs.closing.is_empty()).then_some(now_ns + CLOSE_RETRY_NS)
    }

    /// The handle is closed next, and will mean another file.
    fn forget(&mut self, handle: RawFd) {
        self.residency.forget(handle);
        self.direct_reads.forget(handle);
    }

    /// The file is to be closed: what still waits to be written back need not be, and pins, which only guard against
    /// overwriting, are of no more use.
    fn let_go(&mut self, file: &Rc<OpenFile>) {
        file.tainted.set(true);
        self.table.slots.iter_mut().for_each(|connection| connection.pins.release_file(file));
        for place in (0..self.jobs.writebacks.len()).rev() {
            let of_file =
                matches!(&self.jobs.writebacks[place].1, Job::StartWriteback { file: f, .. } if Rc::ptr_eq(f, file));
            if of_file && let Some((owner, job)) = self.jobs.writebacks.remove(place) {
                self.pending.push(Event::JobDone { owner, job, result: Ok(()) });
            }
        }
    }
}

impl Disk for Uring {
    fn open(&mut self, path: &Path, create: bool) -> io::Result<Rc<OpenFile>> {
        let path = self.data_dir.join(path);
        let options =
            |create| std::fs::OpenOptions::new().read(true).write(true).create(create).truncate(false).open(&path);
        let file = match options(create) {
            Err(e) if create && e.kind() == io::ErrorKind::NotFound => {
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent)?;
                }
                options(true)?
            }
            result => result?,
        };
        // A file that was here before may have been sent by an earlier life, to a peer that has not read it all yet.
        let tainted = file.metadata()?.len() > 0;
        let file = OpenFile::new(file.into_raw_fd());
        file.tainted.set(tainted);
        Ok(file)
    }

    fn size(&mut self, file: &OpenFile) -> io::Result<u64> {
        // SAFETY: all-zero bytes are a valid `stat`, which the kernel fills.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        if unsafe { libc::fstat(file.handle, &mut stat) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stat.st_size as u64)
    }

    fn write(&mut self, file: &OpenFile, position: Position, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let size = write_all(file.handle, position, slices)?;
        self.residency.written(file.handle, position.0, size, clock::monotonic_ns());
        self.direct_reads.written(file.handle, position.0);
        Ok(())
    }

    fn read_resident(&mut self, file: &OpenFile, position: Position, into: &mut [u8]) -> io::Result<usize> {
        residency::read_resident(file.handle, position, into)
    }

    fn space(&mut self) -> io::Result<Space> {
        space(self.data_dir_file.as_raw_fd())
    }

    fn start(&mut self, owner: JobOwner, job: Job) {
        match job {
            Job::StartWriteback { .. } => {
                if self.jobs.writebacks.len() >= WRITEBACKS_QUEUED_MAX
                    && let Some((owner, job)) = self.jobs.writebacks.pop_front()
                {
                    self.pending.push(Event::JobDone { owner, job, result: Ok(()) });
                }
                self.jobs.writebacks.push_back((owner, job));
            }
            Job::Close { file } => {
                self.let_go(&file);
                self.jobs.closing.push((owner, file));
                return;
            }
            job => self.jobs.queued.push_back((owner, job)),
        }
        self.start_queued();
    }

    fn read(&mut self, file: &OpenFile, position: Position, into: &mut [u8]) -> io::Result<usize> {
        residency::read(file.handle, position, into)
    }

    fn list(&mut self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(self.data_dir.join(dir))? {
            let entry = entry?;
            // Not ours if its name is no text.
            let Ok(name) = entry.file_name().into_string() else { continue };
            match entry.metadata() {
                Ok(about) => {
                    let size = if about.is_dir() { 0 } else { about.len() };
                    entries.push(Entry { name, is_dir: about.is_dir(), size });
                }
                // Removed meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        entries.sort();
        Ok(entries)
    }

    fn read_file(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(self.data_dir.join(path))
    }

    fn is_as_written(&mut self, path: &Path, bytes: &[u8]) -> bool {
        content_mark::fits(&self.data_dir.join(path), bytes)
    }

    fn run(&mut self, job: Job) -> io::Result<()> {
        if let Job::Close { file } = &job {
            let file = file.clone();
            self.let_go(&file);
            self.forget(file.handle);
        }
        tolerate(&job, run_to_end(&self.data_dir, &job))
    }
}
