//! Cold ranges on their way to a reader: read from the device past the page cache (`O_DIRECT`) into memory of the ring, a
//! block at a time and some blocks ahead, and sent from there. A replay then pushes nothing out of the page cache that others
//! want, and nobody works for it but the device: through the page cache, a worker of the ring allocates pages on the shard's
//! own core, which it does not give back in between on a kernel that is not preempted.
//!
//! A file that is read over and over belongs into the page cache all the same: after some passes its ranges are read by way
//! of it (`read_ahead`), as they are where the file system has no direct reads or all blocks are in use.

use std::fmt::Display;
use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::rc::Rc;

use io_uring::{opcode, types};

use super::Event;
use super::block_memory::{BLOCK_SIZE, BlockMemory};
use super::disk::Disk;
use super::file_to_socket::{FetchPath, Step, send_bytes};
use super::send_queue::Piece;
use super::token::{Op, Token};
use super::uring::Uring;
use crate::ids::ConnectionId;
use crate::parts::{FileRange, OpenFile};

/// A reader that goes on finds so many blocks read, or being read, behind the one it is sent.
const BLOCKS_AHEAD: u64 = 3;
/// So many times the bytes of a file are read directly, while it is open.
const PASSES_MAX: u64 = 4;
/// Files open for direct reads.
const FILES_MAX: usize = 64;
/// Who waited for a block has it kept for so long.
const KEPT_NS: u64 = 1_000_000_000;
/// The memory is given back when nothing was read for so long.
const IDLE_NS: u64 = 10_000_000_000;

/// What a block of memory holds.
#[derive(Default)]
struct Block {
    /// The file's handle and the number of its block; `None`: nothing.
    of: Option<(RawFd, u64)>,
    /// Held while the kernel reads.
    reading: Option<Rc<OpenFile>>,
    /// Valid bytes: less than a block at the file's end, and before a write.
    valid: u64,
    /// Connections that wait, and for what position.
    waiting: Vec<(ConnectionId, u64)>,
    /// Somebody waited for it and has not been sent of it yet.
    wanted: bool,
    /// Some reader was sent its end.
    passed: bool,
    used_ns: u64,
}

impl Block {
    fn is_kept(&self, now_ns: u64) -> bool {
        self.reading.is_some() || self.wanted && now_ns < self.used_ns + KEPT_NS
    }
}

/// A second descriptor of a file, for reads past the page cache.
struct DirectFile {
    handle: RawFd,
    direct: File,
    size: u64,
    read_bytes: u64,
    used_ns: u64,
}

/// Direct reads of one shard.
#[derive(Default)]
pub(super) struct DirectReads {
    pub memory: BlockMemory,
    /// As many as there is memory for.
    blocks: Vec<Block>,
    files: Vec<DirectFile>,
    /// The file system knows no direct reads.
    refused: bool,
}

/// Where a position is.
enum Found {
    /// In this block, from its so many-th byte, so many bytes.
    Ready(usize, u64, u64),
    Reading(usize),
    Nowhere,
}

impl DirectReads {
    fn block_of(&self, handle: RawFd, number: u64) -> Option<usize> {
        self.blocks.iter().position(|block| block.of == Some((handle, number)))
    }

    fn find(&self, handle: RawFd, position: u64) -> Found {
        let Some(index) = self.block_of(handle, position / BLOCK_SIZE) else { return Found::Nowhere };
        let (block, at) = (&self.blocks[index], position % BLOCK_SIZE);
        if block.reading.is_some() {
            Found::Reading(index)
        } else if at < block.valid {
            Found::Ready(index, at, block.valid - at)
        } else {
            Found::Nowhere
        }
    }

    /// The block used longest ago of those nobody reads or waits for and that are `usable`.
    fn oldest_block(&self, now_ns: u64, usable: impl Fn(&Block) -> bool) -> Option<usize> {
        let usable = self.blocks.iter().enumerate().filter(|(_, block)| !block.is_kept(now_ns) && usable(block));
        usable.min_by_key(|(_, block)| block.used_ns).map(|(index, _)| index)
    }

    /// Memory for another block: empty, else what readers are past.
    fn free_block(&mut self, now_ns: u64) -> Option<usize> {
        self.blocks.resize_with(self.memory.block_count(), Block::default);
        let expired = |block: &Block| block.passed || now_ns >= block.used_ns + KEPT_NS;
        self.oldest_block(now_ns, |block| block.of.is_none()).or_else(|| self.oldest_block(now_ns, expired))
    }

    fn knows(&self, handle: RawFd) -> bool {
        self.refused || self.files.iter().any(|direct| direct.handle == handle)
    }

    #[cfg(test)]
    pub fn has_files(&self) -> bool {
        !self.files.is_empty() || self.blocks.iter().any(|block| block.of.is_some())
    }

    pub fn refuse(&mut self, why: impl Display) {
        log::info!("files are not read past the page cache: {why}");
        self.refused = true;
        self.files.clear();
    }

    /// The place in `files` of a file that can be read directly. `None`: it is to be read by way of the page cache.
    fn file(&mut self, file: &OpenFile, now_ns: u64) -> Option<usize> {
        let known = self.files.iter().position(|direct| direct.handle == file.handle);
        if known.is_some() || self.refused {
            return known;
        }
        let path = format!("/proc/self/fd/{}", file.handle);
        let direct = match File::options().read(true).custom_flags(libc::O_DIRECT).open(path) {
            Ok(direct) => direct,
            // Too few descriptors now is nothing to remember.
            Err(error) if super::open_files::are_used_up(&error) => return None,
            Err(error) => {
                self.refuse(error);
                return None;
            }
        };
        if self.files.len() >= FILES_MAX
            && let Some(oldest) = (0..FILES_MAX).min_by_key(|at| self.files[*at].used_ns)
        {
            self.files.swap_remove(oldest);
        }
        self.files.push(DirectFile { handle: file.handle, direct, size: 0, read_bytes: 0, used_ns: now_ns });
        Some(self.files.len() - 1)
    }

    /// The file was written to from this position on.
    pub fn written(&mut self, handle: RawFd, position: u64) {
        for block in &mut self.blocks {
            if let Some((of, number)) = block.of
                && of == handle
            {
                block.valid = block.valid.min(position.saturating_sub(number * BLOCK_SIZE));
            }
        }
    }

    /// The handle is closed next; nobody reads from it.
    pub fn forget(&mut self, handle: RawFd) {
        self.files.retain(|direct| direct.handle != handle);
        self.blocks.iter_mut().filter(|b| b.of.is_some_and(|(of, _)| of == handle)).for_each(|b| *b = Block::default());
    }
}

impl Uring {
    /// Gives the memory back when nothing was read for a while.
    pub(super) fn trim_direct_reads(&mut self, now_ns: u64) {
        let idle = |block: &Block| block.reading.is_none() && now_ns >= block.used_ns + IDLE_NS;
        if !self.direct_reads.memory.is_growing() && self.direct_reads.blocks.iter().all(idle) {
            self.direct_reads.blocks.clear();
            self.free_block_memory();
        }
    }

    /// Sends what of the range is in a block; waits for one that is being read. `None`: there is none.
    pub(super) fn send_block(&mut self, id: ConnectionId, range: &FileRange) -> Option<io::Result<Step>> {
        match self.direct_reads.find(range.file.handle, range.position.0) {
            Found::Nowhere => None,
            Found::Reading(index) => {
                self.wait_for_block(id, index, range.position.0);
                Some(Ok(Step::Waits))
            }
            Found::Ready(index, at, count) => {
                let size = count.min(range.size.into()) as usize;
                let (memory, ..) = self.direct_reads.memory.block(index);
                // SAFETY: the kernel has filled so many bytes of the block and does not write to it now.
                let bytes = unsafe { std::slice::from_raw_parts(memory.add(at as usize), size) };
                let connection = &mut self.table.slots[id.slot as usize];
                let sent = match send_bytes(connection.fd, bytes, false) {
                    Ok(Some(sent)) => sent,
                    Ok(None) => return Some(Ok(self.wait_for_room(id))),
                    Err(error) => return Some(Err(error)),
                };
                connection.queue.note_cold();
                let block = &mut self.direct_reads.blocks[index];
                (block.wanted, block.used_ns) = (false, self.cold_turns.turn_ns);
                if sent == count {
                    block.passed = true;
                    let number = range.position.0 / BLOCK_SIZE;
                    self.read_blocks_ahead(&range.file, number + 1..=number + BLOCKS_AHEAD);
                }
                Some(Ok(Step::Sent(sent)))
            }
        }
    }

    /// Has the cold range that the connection is to send next read directly, as far as blocks reach. False: it cannot be.
    pub(super) fn read_directly(&mut self, id: ConnectionId) -> bool {
        // What a pipe holds would have to come first.
        if self.settings.fetch_path == FetchPath::Splice {
            return false;
        }
        let Some(Piece::File(range)) = self.table.slots[id.slot as usize].queue.next() else { return false };
        let position = range.position.0;
        if !self.direct_reads.knows(range.file.handle) && self.residency.is_hidden(range.file.handle, position) {
            // An overlay (the disk of a container) shows no pages: what looks cold may be in memory.
            self.direct_reads.refuse("their file system does not show which pages are cached");
        }
        let Some(index) = self.read_block(&range.file, position, true) else { return false };
        self.wait_for_block(id, index, position);
        let (first, last) = (position / BLOCK_SIZE, (position + u64::from(range.size) - 1) / BLOCK_SIZE);
        self.read_blocks_ahead(&range.file, first + 1..=last.min(first + BLOCKS_AHEAD));
        true
    }

    fn read_blocks_ahead(&mut self, file: &Rc<OpenFile>, numbers: RangeInclusive<u64>) {
        for number in numbers {
            self.read_block(file, number * BLOCK_SIZE, false);
        }
    }

    fn wait_for_block(&mut self, id: ConnectionId, index: usize, position: u64) {
        let queue = &mut self.table.slots[id.slot as usize].queue;
        queue.note_cold();
        queue.begin(Op::ColdRead);
        let block = &mut self.direct_reads.blocks[index];
        block.wanted = true;
        block.waiting.push((id, position));
    }

    /// Starts to read the block of a position, unless it is on its way or was only wished for and is there. `None`: it cannot
    /// be, or not now.
    fn read_block(&mut self, file: &Rc<OpenFile>, position: u64, needed: bool) -> Option<usize> {
        let (now_ns, number) = (self.cold_turns.turn_ns, position / BLOCK_SIZE);
        let start = number * BLOCK_SIZE;
        let known = self.direct_reads.block_of(file.handle, number);
        if let Some(index) = known
            && (!needed || self.direct_reads.blocks[index].reading.is_some())
        {
            return known;
        }
        let place = self.direct_reads.file(file, now_ns)?;
        if start + BLOCK_SIZE > self.direct_reads.files[place].size {
            self.direct_reads.files[place].size = self.size(file).ok()?;
        }
        let reads = &mut self.direct_reads;
        let direct = &reads.files[place];
        let enough = direct.read_bytes >= PASSES_MAX * direct.size.max(BLOCK_SIZE);
        if enough || position >= direct.size {
            return None;
        }
        let index = match known.or_else(|| reads.free_block(now_ns)) {
            Some(index) => index,
            None => {
                self.grow_block_memory();
                // What was read ahead for somebody gives way to what is needed now.
                if !needed {
                    return None;
                }
                self.direct_reads.oldest_block(now_ns, |_| true)?
            }
        };
        let reads = &mut self.direct_reads;
        let direct = &mut reads.files[place];
        (direct.read_bytes, direct.used_ns) = (direct.read_bytes + BLOCK_SIZE, now_ns);
        let descriptor = types::Fd(direct.direct.as_raw_fd());
        reads.blocks[index] = Block {
            of: Some((file.handle, number)),
            reading: Some(file.clone()),
            valid: BLOCK_SIZE,
            used_ns: now_ns,
            ..Block::default()
        };
        let size = BLOCK_SIZE as u32;
        let entry = match reads.memory.block(index) {
            (memory, chunk, true) => opcode::ReadFixed::new(descriptor, memory, size, chunk).offset(start).build(),
            (memory, _, false) => opcode::Read::new(descriptor, memory, size).offset(start).build(),
        };
        // SAFETY: the block is not used otherwise while it is being read, and its memory outlives the ring's operations.
        unsafe { self.push(entry, Token::new(Op::ReadBlock, index as u32, 0)) };
        Some(index)
    }

    /// The kernel has read a block, or could not.
    pub(super) fn block_progressed(&mut self, index: u32, result: i32, events: &mut Vec<Event>) {
        let block = &mut self.direct_reads.blocks[index as usize];
        let (Some(_file), Some((handle, number))) = (block.reading.take(), block.of) else { return };
        let count = result.max(0) as u64;
        (block.valid, block.used_ns) = (block.valid.min(count), self.cold_turns.turn_ns);
        let end = number * BLOCK_SIZE + block.valid;
        let waiting = std::mem::take(&mut block.waiting);
        if result < 0 {
            *block = Block::default();
        } else if count < BLOCK_SIZE
            && let Some(direct) = self.direct_reads.files.iter_mut().find(|direct| direct.handle == handle)
        {
            direct.size = number * BLOCK_SIZE + count;
        }
        if matches!(-result, libc::EINVAL | libc::EOPNOTSUPP) {
            self.direct_reads.refuse(io::Error::from_raw_os_error(-result));
        }
        for (id, position) in waiting {
            let result = match result {
                _ if self.direct_reads.refused => -libc::EAGAIN,
                // It was written to meanwhile, or is shorter than what was promised: which of them, the next look tells.
                _ if result >= 0 && position >= end => -libc::EAGAIN,
                result => result,
            };
            self.send_progressed(id, Op::ColdRead, result, events);
        }
    }
}
