//! Memory that bytes are received into. *Small* buffers are lent to the kernel in a ring it picks from when
//! bytes arrive, so an idle connection holds none. *Pooled* ones come in powers of two for large frames, under a budget.
//! What a connection that has to wait has received is set *aside*, when few small buffers are left for the others.
//! Each goes back where it came from when it is dropped: none can be lost.

use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::{io, ptr, slice};

use io_uring::types::BufRingEntry;

use crate::limits::SMALL_BUFFER_SIZE;

/// Memory lent by the ring for received bytes; goes back to it by `Ring::give_buffer`. Its length is its capacity.
pub struct ReceiveBuffer {
    memory: NonNull<u8>,
    size: usize,
    home: Home,
}

enum Home {
    Small { ring: Rc<SmallBuffers>, id: u16 },
    Pool { pool: Rc<BufferPool>, beyond_budget: bool },
    Aside(Rc<BufferPool>),
    Own,
}

impl ReceiveBuffer {
    /// A buffer of its own (not of the ring's small ones).
    pub fn from_vec(bytes: Vec<u8>) -> ReceiveBuffer {
        let (memory, size) = boxed(bytes);
        ReceiveBuffer { memory, size, home: Home::Own }
    }

    /// Of the ring's small buffers, of which there are few, or in the place of one? Not to be kept for a frame that may take
    /// long to arrive.
    pub fn is_small(&self) -> bool {
        matches!(self.home, Home::Small { .. } | Home::Aside(_))
    }

    pub(super) fn is_of_ring(&self) -> bool {
        matches!(self.home, Home::Small { .. })
    }

    fn is_beyond_budget(&self) -> bool {
        matches!(self.home, Home::Pool { beyond_budget: true, .. })
    }

    /// May it be received into by a connection that has nothing to send now? Nobody takes it from such a connection, so
    /// those may hold half of the budget together: the rest is for frames that have begun.
    pub fn may_wait(&self) -> bool {
        match &self.home {
            Home::Pool { pool, beyond_budget } => !beyond_budget && pool.out.get() <= pool.budget / 2,
            Home::Small { .. } | Home::Aside(_) | Home::Own => true,
        }
    }
}

impl Deref for ReceiveBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `memory` is `size` initialized bytes that nobody else uses while this value lives.
        unsafe { slice::from_raw_parts(self.memory.as_ptr(), self.size) }
    }
}
impl DerefMut for ReceiveBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(self.memory.as_ptr(), self.size) }
    }
}
impl std::fmt::Debug for ReceiveBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.home {
            Home::Small { .. } => "small",
            Home::Pool { .. } => "pooled",
            Home::Aside(_) => "aside",
            Home::Own => "own",
        };
        write!(f, "ReceiveBuffer({kind}, {} bytes)", self.size)
    }
}
impl Drop for ReceiveBuffer {
    fn drop(&mut self) {
        match &self.home {
            Home::Small { ring, id } => ring.give(*id),
            Home::Pool { pool, beyond_budget } => pool.give(self.memory, self.size, *beyond_budget),
            Home::Aside(pool) => {
                pool.aside.set(pool.aside.get() - self.size);
                // SAFETY: made by `boxed`.
                unsafe { unbox(self.memory, self.size) };
            }
            // SAFETY: made by `boxed`.
            Home::Own => unsafe { unbox(self.memory, self.size) },
        }
    }
}

fn boxed(bytes: Vec<u8>) -> (NonNull<u8>, usize) {
    let memory = Box::leak(bytes.into_boxed_slice());
    (NonNull::from(&mut *memory).cast(), memory.len())
}

/// # Safety
/// Memory and size must be of `boxed`, and in use by nobody.
unsafe fn unbox(memory: NonNull<u8>, size: usize) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(memory.as_ptr(), size)) });
}

/// Anonymous memory of its own mapping: zeroed by the kernel page by page as it is touched.
pub(super) fn map(size: usize) -> io::Result<NonNull<u8>> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at an address the kernel chooses touches no memory of ours.
    let memory = unsafe { libc::mmap(ptr::null_mut(), size, protection, flags, -1, 0) };
    if memory == libc::MAP_FAILED {
        Err(io::Error::last_os_error())
    } else {
        Ok(NonNull::new(memory.cast()).expect("mmap"))
    }
}

/// # Safety
/// `memory` must be a mapping of `size` bytes made by `map`, in use by nobody.
pub(super) unsafe fn unmap(memory: NonNull<u8>, size: usize) {
    // SAFETY: the caller's promise.
    unsafe { libc::munmap(memory.as_ptr().cast(), size) };
}

/// How many small buffers a ring has. A power of two, as the kernel wants.
pub(super) const SMALL_BUFFER_COUNT: u16 = 256;
/// The only group of provided buffers.
pub(super) const SMALL_BUFFER_GROUP: u16 = 0;
/// As the kernel takes it.
pub(super) const SMALL_BUFFER_SIZE_U32: u32 = SMALL_BUFFER_SIZE as u32;
/// Buffers at multiples of 16 KiB would share a few cache sets, where the first lines of each, which small requests are,
/// would displace each other. An odd number of cache lines between them spreads them out.
const SMALL_BUFFER_STRIDE: usize = SMALL_BUFFER_SIZE + 5 * 64;
const SMALL_MEMORY_SIZE: usize = SMALL_BUFFER_STRIDE * SMALL_BUFFER_COUNT as usize;
const SMALL_RING_SIZE: usize = SMALL_BUFFER_COUNT as usize * size_of::<BufRingEntry>();

/// The provided-buffer ring: entries shared with the kernel, and the memory they name.
pub(super) struct SmallBuffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    /// Of the entries given to the kernel so far.
    tail: Cell<u16>,
    /// Buffers that are with their users. 0 <= out <= SMALL_BUFFER_COUNT.
    out: Cell<u16>,
}

impl SmallBuffers {
    /// All buffers given to the kernel once `register` is called.
    pub fn new() -> io::Result<Rc<SmallBuffers>> {
        let (entries, memory) = (map(SMALL_RING_SIZE)?.cast(), map(SMALL_MEMORY_SIZE)?);
        let this = SmallBuffers { entries, memory, tail: Cell::new(0), out: Cell::new(SMALL_BUFFER_COUNT) };
        (0..SMALL_BUFFER_COUNT).for_each(|id| this.give(id));
        Ok(Rc::new(this))
    }

    /// Tells the kernel.
    pub fn register(&self, submitter: &io_uring::Submitter<'_>) -> io::Result<()> {
        let address = self.entries.as_ptr() as u64;
        // SAFETY: the entries are mapped until `self` is dropped, which the ring outlives by its owner's care.
        unsafe { submitter.register_buf_ring_with_flags(address, SMALL_BUFFER_COUNT, SMALL_BUFFER_GROUP, 0) }
    }

    /// The buffer a completion names.
    pub fn take(self: &Rc<Self>, id: u16) -> ReceiveBuffer {
        assert!(id < SMALL_BUFFER_COUNT);
        self.out.set(self.out.get() + 1);
        // SAFETY: inside the mapping.
        let memory = unsafe { self.memory.add(usize::from(id) * SMALL_BUFFER_STRIDE) };
        ReceiveBuffer { memory, size: SMALL_BUFFER_SIZE, home: Home::Small { ring: self.clone(), id } }
    }

    /// Does the kernel have one to pick?
    pub fn any_left(&self) -> bool {
        self.out.get() < SMALL_BUFFER_COUNT
    }

    /// Have their users more than half of them?
    pub fn are_few(&self) -> bool {
        self.out.get() > SMALL_BUFFER_COUNT / 2
    }

    fn give(&self, id: u16) {
        self.out.set(self.out.get() - 1);
        let tail = self.tail.get();
        // SAFETY: the entry lies inside the mapping, and the kernel does not look at it before the tail moves past it.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(usize::from(tail & (SMALL_BUFFER_COUNT - 1)));
            entry.set_addr(self.memory.as_ptr() as u64 + u64::from(id) * SMALL_BUFFER_STRIDE as u64);
            entry.set_len(SMALL_BUFFER_SIZE as u32);
            entry.set_bid(id);
        }
        self.tail.set(tail.wrapping_add(1));
        // SAFETY: the tail lies in the first entry, aligned for 16 bits; the kernel reads it concurrently.
        let shared = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) };
        shared.store(self.tail.get(), Ordering::Release);
    }
}

impl Drop for SmallBuffers {
    fn drop(&mut self) {
        // SAFETY: every buffer holds an `Rc` of this, so none is left; both were made by `map` with these sizes.
        unsafe {
            unmap(self.entries.cast(), SMALL_RING_SIZE);
            unmap(self.memory, SMALL_MEMORY_SIZE);
        }
    }
}

/// The smallest pooled buffer, 2^12.
const CLASS_MIN: u32 = 12;
/// The largest, 2^31: more than any request.
const CLASS_MAX: u32 = 31;
/// What connections that have to wait may have received, together: four thousand of them.
const ASIDE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Kept for reuse even when nothing used it lately.
const IDLE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Pooled buffers of one shard. The one used last is used first: its memory is in the cache.
pub(super) struct BufferPool {
    budget: usize,
    /// Bytes with their users, without a buffer beyond the budget.
    out: Cell<usize>,
    /// The largest `out` since the last `trim`.
    out_peak: Cell<usize>,
    /// A lone request larger than what is left of the budget must still make progress: one buffer beyond it at a time, or two
    /// while that one is exchanged for a larger.
    beyond_budget_out: Cell<u8>,
    /// Bytes set aside.
    aside: Cell<usize>,
    /// Unused buffers by class.
    unused: RefCell<[Vec<NonNull<u8>>; (CLASS_MAX - CLASS_MIN + 1) as usize]>,
    unused_bytes: Cell<usize>,
}

impl BufferPool {
    /// At most `budget` bytes are lent at any time, and one buffer more.
    pub fn new(budget: usize) -> Rc<BufferPool> {
        Rc::new(BufferPool {
            budget,
            out: Cell::new(0),
            out_peak: Cell::new(0),
            beyond_budget_out: Cell::new(0),
            aside: Cell::new(0),
            unused: RefCell::default(),
            unused_bytes: Cell::new(0),
        })
    }

    /// A buffer of at least `capacity` bytes; its contents are whatever was there.
    pub fn take(self: &Rc<Self>, capacity: usize) -> Option<ReceiveBuffer> {
        self.take_one(capacity, false)
    }

    /// The same for who gives `smaller` back then. Whoever has the one beyond the budget goes on to have it, so that at least
    /// one request always comes to its end.
    pub fn take_larger(self: &Rc<Self>, smaller: &ReceiveBuffer, capacity: usize) -> Option<ReceiveBuffer> {
        self.take_one(capacity, smaller.is_beyond_budget())
    }

    /// A small buffer's worth of memory with a copy of `bytes`. `None`: much is set aside already.
    pub fn set_aside(self: &Rc<Self>, bytes: &[u8]) -> Option<ReceiveBuffer> {
        if self.aside.get() + SMALL_BUFFER_SIZE > ASIDE_BYTES_MAX {
            return None;
        }
        let mut copy = vec![0; SMALL_BUFFER_SIZE];
        copy[..bytes.len()].copy_from_slice(bytes);
        let (memory, size) = boxed(copy);
        self.aside.set(self.aside.get() + size);
        Some(ReceiveBuffer { memory, size, home: Home::Aside(self.clone()) })
    }

    fn take_one(self: &Rc<Self>, capacity: usize, has_beyond_budget: bool) -> Option<ReceiveBuffer> {
        let size = capacity.checked_next_power_of_two()?.max(1 << CLASS_MIN);
        let class = size.trailing_zeros();
        if class > CLASS_MAX {
            return None;
        }
        let beyond_budget = self.out.get() + size > self.budget;
        if beyond_budget && self.beyond_budget_out.get() > u8::from(has_beyond_budget) {
            return None;
        }
        let unused = self.unused.borrow_mut()[(class - CLASS_MIN) as usize].pop();
        let memory = match unused {
            Some(memory) => {
                self.unused_bytes.set(self.unused_bytes.get() - size);
                memory
            }
            None => map(size).ok()?,
        };
        if beyond_budget {
            self.beyond_budget_out.set(self.beyond_budget_out.get() + 1);
        } else {
            self.out.set(self.out.get() + size);
            self.out_peak.set(self.out_peak.get().max(self.out.get()));
        }
        Some(ReceiveBuffer { memory, size, home: Home::Pool { pool: self.clone(), beyond_budget } })
    }

    fn give(&self, memory: NonNull<u8>, size: usize, beyond_budget: bool) {
        if beyond_budget {
            self.beyond_budget_out.set(self.beyond_budget_out.get() - 1);
            // SAFETY: its last user gave it back.
            return unsafe { unmap(memory, size) };
        }
        self.out.set(self.out.get() - size);
        self.unused.borrow_mut()[(size.trailing_zeros() - CLASS_MIN) as usize].push(memory);
        self.unused_bytes.set(self.unused_bytes.get() + size);
    }

    /// Called now and then: frees what exceeds the use of the time since the last call, largest first.
    pub fn trim(&self) {
        let keep = self.out_peak.get().saturating_sub(self.out.get()).max(IDLE_BYTES_MAX);
        self.out_peak.set(self.out.get());
        self.free_unused_above(keep);
    }

    fn free_unused_above(&self, keep: usize) {
        let mut unused = self.unused.borrow_mut();
        for class in (CLASS_MIN..=CLASS_MAX).rev() {
            while self.unused_bytes.get() > keep {
                let Some(memory) = unused[(class - CLASS_MIN) as usize].pop() else { break };
                self.unused_bytes.set(self.unused_bytes.get() - (1 << class));
                // SAFETY: unused buffers are in use by nobody.
                unsafe { unmap(memory, 1 << class) };
            }
        }
    }
}

impl Drop for BufferPool {
    fn drop(&mut self) {
        self.free_unused_above(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_holds_and_one_buffer_beyond_it_makes_progress() {
        let pool = BufferPool::new(1 << 20);
        let mut a = pool.take(300_000).expect("within the budget");
        assert_eq!(a.len(), 512 * 1024);
        a.fill(7);
        let b = pool.take(512 * 1024).expect("within the budget");
        let c = pool.take(100 << 20).expect("one beyond");
        assert!(pool.take(1).is_none());
        drop(c);
        let d = pool.take(1).expect("one beyond again");
        assert!(pool.take(1).is_none());
        drop((a, b, d));
        assert_eq!(pool.out.get(), 0);
        assert!(pool.take(512 * 1024).is_some());
    }

    #[test]
    fn who_has_the_one_beyond_the_budget_may_have_a_larger_one() {
        let pool = BufferPool::new(1 << 20);
        let within = pool.take(1 << 20).expect("within the budget");
        let beyond = pool.take(2 << 20).expect("one beyond");
        assert!(pool.take_larger(&within, 2 << 20).is_none());
        let larger = pool.take_larger(&beyond, 4 << 20).expect("in its place");
        drop(beyond);
        assert!(pool.take(2 << 20).is_none());
        drop(larger);
        assert!(pool.take(2 << 20).is_some());
    }

    #[test]
    fn what_is_set_aside_is_bounded() {
        let pool = BufferPool::new(1 << 20);
        let aside = pool.set_aside(&[1, 2, 3]).expect("the first");
        assert!(aside.is_small() && aside[..3] == [1, 2, 3] && aside.len() == SMALL_BUFFER_SIZE);
        let all: Vec<_> = std::iter::from_fn(|| pool.set_aside(&[])).take(5000).collect();
        assert_eq!(all.len() + 1, ASIDE_BYTES_MAX / SMALL_BUFFER_SIZE);
        drop((aside, all));
        assert_eq!(pool.aside.get(), 0);
    }

    #[test]
    fn half_of_the_budget_is_never_left_with_connections_that_wait() {
        let pool = BufferPool::new(1 << 20);
        let a = pool.take(512 * 1024).expect("within the budget");
        assert!(a.may_wait());
        let b = pool.take(64 * 1024).expect("within the budget");
        assert!(!a.may_wait() && !b.may_wait());
        drop(a);
        assert!(b.may_wait());
        assert!(!pool.take(2 << 20).expect("one beyond").may_wait());
    }

    #[test]
    fn memory_is_kept_while_it_is_used_and_freed_when_idle() {
        let pool = BufferPool::new(64 << 20);
        let all: Vec<_> = (0..16).map(|_| pool.take(1 << 20).expect("within the budget")).collect();
        drop(all);
        pool.trim();
        assert_eq!(pool.unused_bytes.get(), 16 << 20, "used since the last trim");
        pool.trim();
        assert_eq!(pool.unused_bytes.get(), IDLE_BYTES_MAX);
    }

    #[test]
    fn a_buffer_of_its_own_is_a_slice() {
        let mut buffer = ReceiveBuffer::from_vec(vec![1, 2, 3]);
        buffer[1] = 9;
        assert_eq!(&*buffer, &[1, 9, 3]);
    }
}
