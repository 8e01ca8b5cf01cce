//! The memory that blocks of files are read into past the page cache: huge pages the ring knows (registered buffers), so that
//! a read is handed to the device as one piece of memory, without a look at each of its pages. With single pages, a read of
//! 256 KiB took a third more of the shard's time and reached two thirds of the speed, one of 2 MiB four times and half.
//!
//! It grows by a chunk when blocks are short. A worker of the ring makes the pages, which takes a millisecond: until then cold
//! ranges are read by way of the page cache.

use std::ptr::NonNull;

use io_uring::opcode;

use super::buffers;
use super::token::{Op, Token};
use super::uring::Uring;

/// Read at once. Blocks begin at multiples of it, so that offset, size and memory are aligned for any device.
pub(super) const BLOCK_SIZE: u64 = 256 * 1024;
/// A huge page, where pages are of 4 KiB.
const CHUNK_SIZE: usize = 2 * 1024 * 1024;
pub(super) const BLOCKS_PER_CHUNK: usize = CHUNK_SIZE / BLOCK_SIZE as usize;
/// Chunks of one shard: 16 MiB.
pub(super) const CHUNK_COUNT_MAX: usize = 8;
/// Room to begin at a multiple of a chunk.
const RESERVED_SIZE: usize = CHUNK_SIZE * (CHUNK_COUNT_MAX + 1);

/// Room in a ring for chunks, to be filled in as they are made.
pub(super) fn announce(ring: &io_uring::Submitter<'_>) {
    if let Err(error) = ring.register_buffers_sparse(CHUNK_COUNT_MAX as u32) {
        log::debug!("memory for direct reads will not be registered: {error}");
    }
}

/// Addresses for all chunks, of which some are memory.
#[derive(Default)]
pub(super) struct BlockMemory {
    reserved: Option<NonNull<u8>>,
    /// Chunks there are, and whether the ring knows each.
    chunks: Vec<bool>,
    is_growing: bool,
    /// There was no memory for another chunk.
    is_scarce: bool,
}

impl BlockMemory {
    pub fn block_count(&self) -> usize {
        self.chunks.len() * BLOCKS_PER_CHUNK
    }

    /// Where a block is, which of the registered buffers that is in, and whether the ring knows it.
    pub fn block(&self, index: usize) -> (*mut u8, u16, bool) {
        let chunk = index / BLOCKS_PER_CHUNK;
        // SAFETY: inside the reserved addresses, as there is such a chunk.
        let memory = unsafe { self.chunk(chunk).add(index % BLOCKS_PER_CHUNK * BLOCK_SIZE as usize) };
        (memory, chunk as u16, self.chunks[chunk])
    }

    fn chunk(&self, index: usize) -> *mut u8 {
        assert!(index < CHUNK_COUNT_MAX);
        let reserved = self.reserved.expect("reserved with the first chunk").as_ptr();
        // SAFETY: the chunks, aligned, lie inside of what is reserved.
        unsafe { reserved.add(reserved.align_offset(CHUNK_SIZE)).add(index * CHUNK_SIZE) }
    }

    /// The chunk to be made next, if there is to be another.
    fn next_chunk(&mut self) -> Option<*mut u8> {
        if self.is_growing || self.is_scarce || self.chunks.len() == CHUNK_COUNT_MAX {
            return None;
        }
        if self.reserved.is_none() {
            let reserved = buffers::map(RESERVED_SIZE);
            self.reserved = reserved.inspect_err(|error| log::debug!("no memory for direct reads: {error}")).ok();
            // Not tried again for each block.
            self.is_scarce = self.reserved.is_none();
            // Where huge pages are not to be had, single ones do. SAFETY: advice on a mapping of our own.
            unsafe { libc::madvise(self.reserved?.as_ptr().cast(), RESERVED_SIZE, libc::MADV_HUGEPAGE) };
        }
        self.is_growing = true;
        Some(self.chunk(self.chunks.len()))
    }

    pub fn is_growing(&self) -> bool {
        self.is_growing
    }
}

impl Drop for BlockMemory {
    fn drop(&mut self) {
        if let Some(reserved) = self.reserved {
            // SAFETY: mapped with this size, and no operation of the kernel is under way in it.
            unsafe { buffers::unmap(reserved, RESERVED_SIZE) };
        }
    }
}

impl Uring {
    /// Has a worker make another chunk, unless there are enough.
    pub(super) fn grow_block_memory(&mut self) {
        let Some(chunk) = self.direct_reads.memory.next_chunk() else { return };
        let entry = opcode::Madvise::new(chunk.cast(), CHUNK_SIZE as libc::off_t, libc::MADV_POPULATE_WRITE).build();
        // SAFETY: the addresses stay reserved while a chunk is being made, and nobody else uses them yet.
        unsafe { self.push(entry, Token::new(Op::Populate, 0, 0)) };
    }

    /// The worker has made the chunk, or could not.
    pub(super) fn block_memory_grown(&mut self, result: i32) {
        let memory = &mut self.direct_reads.memory;
        memory.is_growing = false;
        if result < 0 {
            log::debug!("no memory for direct reads: {}", std::io::Error::from_raw_os_error(-result));
            memory.is_scarce = true;
            return;
        }
        let index = memory.chunks.len();
        let slices = [libc::iovec { iov_base: memory.chunk(index).cast(), iov_len: CHUNK_SIZE }];
        // SAFETY: the chunk is memory from now on until `free_block_memory`, which takes it from the ring first.
        let registered = unsafe { self.kernel.submitter().register_buffers_update(index as u32, &slices, None) };
        if let Err(error) = &registered {
            log::debug!("memory for direct reads is not registered (is RLIMIT_MEMLOCK too low?): {error}");
        }
        memory.chunks.push(registered.is_ok());
    }

    /// Gives all of it back: no block is in use, no chunk being made.
    pub(super) fn free_block_memory(&mut self) {
        let memory = std::mem::take(&mut self.direct_reads.memory);
        for index in (0..memory.chunks.len()).filter(|index| memory.chunks[*index]) {
            let nothing = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }];
            // SAFETY: names no memory.
            if let Err(error) = unsafe { self.kernel.submitter().register_buffers_update(index as u32, &nothing, None) }
            {
                log::warn!("memory of direct reads stays with the kernel: {error}");
            }
        }
    }
}
