//! Is a file range in the page cache? Asked before every send from a file, so that no call of the shard waits for the disk.
//! What was found resident, or was just written, is remembered for a moment: hot data costs no call.

use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;

use super::clock;
use super::uring::Uring;
use crate::ids::{ConnectionId, Position};
use crate::parts::{FileRange, OpenFile};

/// Residency is remembered per file and chunk of this size.
const CHUNK_SIZE: u64 = 2 * 1024 * 1024;
/// How long it is believed. The kernel does not reclaim pages used this recently unless memory is very short.
const BELIEVED_NS: u64 = 1_000_000_000;
/// Direct-mapped: a clash costs one more question.
const MEMORY_SIZE: usize = 1024;
const PAGE_SIZE: u64 = 4096;
/// A cold range is waited for in windows of this size.
pub(super) const COLD_WINDOW_SIZE: u32 = 1024 * 1024;

#[derive(Clone, Copy, Default)]
struct Known {
    handle: i32,
    chunk: u32,
    until_ns: u64,
}

/// Chunks believed to be resident as a whole.
pub(super) struct Residency {
    known: Box<[Known]>,
    /// `cachestat` (6.5) answers; else pages are probed one read at a time.
    has_cachestat: bool,
    /// Asks it; a test has one that sees nothing.
    cached_pages: fn(RawFd, u64, u64) -> Option<u64>,
}

/// A read of a cold range for a connection, in the kernel's hands.
pub(super) struct ColdRead {
    pub connection: ConnectionId,
    file: Rc<OpenFile>,
    start: u64,
    end: u64,
}

impl ColdRead {
    pub fn new(connection: ConnectionId, range: &FileRange, size: u32) -> ColdRead {
        let start = range.position.0;
        ColdRead { connection, file: range.file.clone(), start, end: start + u64::from(size) }
    }

    pub fn size(&self) -> u64 {
        self.end - self.start
    }
}

impl Residency {
    pub fn new() -> Residency {
        Residency { known: vec![Known::default(); MEMORY_SIZE].into_boxed_slice(), has_cachestat: true, cached_pages }
    }

    /// As on an overlay (the disk of a container): the pages belong to the file below, so that none is seen here.
    #[cfg(test)]
    pub fn see_nothing(&mut self) {
        self.cached_pages = |_, _, _| Some(0);
    }

    fn entry(&mut self, handle: i32, chunk: u64) -> &mut Known {
        let place = (handle as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(chunk) as usize % MEMORY_SIZE;
        &mut self.known[place]
    }

    fn is_known(&mut self, handle: i32, chunk: u64, now_ns: u64) -> bool {
        let entry = self.entry(handle, chunk);
        entry.handle == handle && u64::from(entry.chunk) == chunk && now_ns < entry.until_ns
    }

    fn learn(&mut self, handle: i32, chunk: u64, now_ns: u64) {
        *self.entry(handle, chunk) = Known { handle, chunk: chunk as u32, until_ns: now_ns + BELIEVED_NS };
    }

    /// After a write. A chunk is known when it was written from its beginning, or was known before.
    pub fn written(&mut self, handle: i32, position: u64, size: u64, now_ns: u64) {
        if size == 0 {
            return;
        }
        for chunk in position / CHUNK_SIZE..=(position + size - 1) / CHUNK_SIZE {
            if position <= chunk * CHUNK_SIZE || self.is_known(handle, chunk, now_ns) {
                self.learn(handle, chunk, now_ns);
            }
        }
    }

    /// The handle was closed: its number will mean another file.
    pub fn forget(&mut self, handle: i32) {
        self.known.iter_mut().filter(|known| known.handle == handle).for_each(|known| *known = Known::default());
    }

    /// How many bytes from the beginning of the range are resident: whole chunks, or what lies in the first one.
    pub fn resident_prefix(&mut self, handle: i32, position: u64, size: u64, now_ns: u64) -> u64 {
        let (mut at, end) = (position, position + size);
        while at < end {
            let chunk = at / CHUNK_SIZE;
            let stop = end.min((chunk + 1) * CHUNK_SIZE);
            if !self.is_known(handle, chunk, now_ns) && !self.ask(handle, chunk, at, stop, now_ns) {
                break;
            }
            at = stop;
        }
        at - position
    }

    /// Can a page be used that this file system does not show? (Where `cachestat` does not answer, pages are tried themselves.)
    pub fn is_hidden(&self, handle: i32, position: u64) -> bool {
        let first = position / PAGE_SIZE * PAGE_SIZE;
        let unseen = (self.cached_pages)(handle, first, PAGE_SIZE) == Some(0);
        unseen && read_resident(handle, Position(position), &mut [0]).is_ok()
    }

    /// One chunk's part `at..stop`: true when all of it is resident.
    fn ask(&mut self, handle: i32, chunk: u64, at: u64, stop: u64, now_ns: u64) -> bool {
        // Pages that are just being read count as cached, but are not readable yet; reads come in order of position.
        let readable = |position: u64| {
            let probe = read_resident(handle, Position(position), &mut [0]);
            !probe.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
        };
        if self.has_cachestat {
            match (self.cached_pages)(handle, chunk * CHUNK_SIZE, CHUNK_SIZE) {
                Some(pages) if pages >= CHUNK_SIZE / PAGE_SIZE && readable((chunk + 1) * CHUNK_SIZE - 1) => {
                    self.learn(handle, chunk, now_ns);
                    return true;
                }
                Some(_) => {
                    let first = at / PAGE_SIZE * PAGE_SIZE;
                    let wanted = (stop - first).div_ceil(PAGE_SIZE);
                    let cached = (self.cached_pages)(handle, first, stop - first).is_some_and(|pages| pages >= wanted);
                    return cached && readable(stop - 1);
                }
                None => self.has_cachestat = false,
            }
        }
        (at..stop).step_by(PAGE_SIZE as usize).chain([stop - 1]).all(readable)
    }
}

/// Pages of a range that are in the page cache. None: this kernel cannot say.
fn cached_pages(fd: RawFd, offset: u64, size: u64) -> Option<u64> {
    const SYS_CACHESTAT: libc::c_long = 451;
    #[repr(C)]
    struct Range {
        offset: u64,
        size: u64,
    }
    #[derive(Default)]
    #[repr(C)]
    struct Statistics {
        cached: u64,
        dirty: u64,
        writeback: u64,
        evicted: u64,
        recently_evicted: u64,
    }
    let (range, mut statistics) = (Range { offset, size }, Statistics::default());
    // SAFETY: the kernel reads `range` and writes `statistics`, laid out as its headers say.
    let result = unsafe { libc::syscall(SYS_CACHESTAT, fd, &range, &mut statistics, 0) };
    (result == 0).then_some(statistics.cached)
}

/// Reads what is in the page cache; `WouldBlock` when the first byte is not (the kernel then starts to read it). A file system that cannot tell (tmpfs) has
/// everything in memory and is simply read.
pub(super) fn read_resident(fd: RawFd, position: Position, into: &mut [u8]) -> io::Result<usize> {
    let slice = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    // SAFETY: the kernel writes into `into` during the call.
    let count = unsafe { libc::preadv2(fd, &slice, 1, position.0 as libc::off_t, libc::RWF_NOWAIT) };
    if count >= 0 {
        return Ok(count as usize);
    }
    match io::Error::last_os_error() {
        e if e.raw_os_error() == Some(libc::EOPNOTSUPP) => read(fd, position, into),
        e => Err(e),
    }
}

/// Reads, waiting for the device if need be; short only at the end of the file.
pub(super) fn read(fd: RawFd, position: Position, into: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        let rest = &mut into[filled..];
        let at = (position.0 + filled as u64) as libc::off_t;
        // SAFETY: the kernel writes into `rest` during the call.
        match unsafe { libc::pread(fd, rest.as_mut_ptr().cast(), rest.len(), at) } {
            0 => break,
            count if count > 0 => filled += count as usize,
            _ => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => {}
                e => return Err(e),
            },
        }
    }
    Ok(filled)
}

impl Uring {
    /// Bytes from the beginning of the range that can be sent without waiting for the disk.
    pub(super) fn resident_prefix(&mut self, range: &FileRange) -> u32 {
        let (start, end) = (range.position.0, range.position.0 + u64::from(range.size));
        // Pages that are being read count as cached, but using them would wait.
        let same = |read: &&ColdRead| Rc::ptr_eq(&read.file, &range.file) && read.start < end && start < read.end;
        let end = self.cold_reads.iter().filter(same).map(|read| read.start.max(start)).min().unwrap_or(end);
        let handle = range.file.handle;
        self.residency.resident_prefix(handle, start, end - start, clock::monotonic_ns()) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;

    #[test]
    fn what_was_written_is_resident_and_what_was_dropped_is_not() {
        let mut file = tempfile::tempfile_in(".").expect("file");
        file.write_all(&vec![1; 3 << 20]).expect("write");
        file.sync_all().expect("sync");
        let (fd, mut residency) = (file.as_raw_fd(), Residency::new());
        assert_eq!(residency.resident_prefix(fd, 100, 3_000_000, 1), 3_000_000);
        // SAFETY: plain call.
        unsafe { libc::posix_fadvise(fd, 0, 0, libc::POSIX_FADV_DONTNEED) };
        assert_eq!(residency.resident_prefix(fd, 100, 1000, 2), 1000, "still believed");
        let later = BELIEVED_NS + 2;
        // A file system without a device (tmpfs, overlay of it) keeps its pages.
        if cached_pages(fd, 0, 3 << 20) == Some(0) {
            assert_eq!(residency.resident_prefix(fd, 100, 1000, later), 0);
        }
        residency.written(fd, 0, 100, later);
        assert_eq!(residency.resident_prefix(fd, 0, 100, later), 100);
        residency.forget(fd);
        assert!(!residency.is_known(fd, 0, later));
    }

    #[test]
    fn a_write_into_the_middle_of_an_unknown_chunk_teaches_nothing() {
        let mut residency = Residency::new();
        residency.written(7, 4096, 4096, 1);
        assert!(!residency.is_known(7, 0, 1));
        residency.written(7, CHUNK_SIZE - 10, 20, 1);
        assert!(!residency.is_known(7, 0, 1) && residency.is_known(7, 1, 1));
    }
}
