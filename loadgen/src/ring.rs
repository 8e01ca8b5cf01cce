//! The io_uring of one worker, and the only `unsafe` code of its loop. Sends go out at once, without the ring, which
//! waits only for a socket that is full; receives are the ring's. Two kinds: *small replies* of many connections land in
//! a few buffers that the kernel picks from, *large replies* in the connection's own buffer.
//!
//! Memory is lent, never shared: what `receive` takes by value comes back with the event that ends it, and a picked
//! buffer is the kernel's again once `copy` has taken its bytes out. A ring that is dropped shuts its sockets down and
//! waits until the kernel has let go of everything. One thread makes the ring, uses it and drops it.

use crate::clock::{Nanos, SECOND};
use anyhow::{Context, Result};
use io_uring::types::{self, BufRingEntry};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};
use std::io::{self, ErrorKind, IoSlice, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};

pub struct Ring {
    // First, so that it is closed before the memory it may still refer to is freed.
    kernel: IoUring,
    wait_flags: EnterFlags,
    sockets: Vec<Socket>,
    small: SmallBuffers,
    /// Receives of small replies that ended and are to go on: they found no free buffer.
    starved: Vec<usize>,
    /// Operations in the kernel's hands, each of which will complete.
    in_flight: usize,
    /// Taken out of the kernel's queue before any is acted on; empty between turns.
    ended: Vec<cqueue::Entry>,
}

struct Socket {
    stream: TcpStream,
    /// Lent to the kernel, which writes behind the first `usize` bytes.
    receiving: Option<Vec<u8>>,
}

pub struct Event {
    pub socket: usize,
    pub what: What,
}

pub enum What {
    /// The socket was full and has room again.
    Writable,
    Received(Received),
}

pub enum Received {
    /// A small reply: for `copy`.
    Small(Small),
    /// `count` more bytes are in the buffer, behind those that were there before. count > 0.
    Large { buffer: Vec<u8>, count: usize },
    /// The peer closed the connection, or it failed. Nothing more will come.
    Ended(Option<io::Error>),
}

/// One of the ring's own buffers, with this many bytes in it.
pub struct Small {
    id: u16,
    pub count: usize,
}

/// What an operation was, in the low bits of its user data; above them the socket.
const RECEIVE_LARGE: u64 = 0;
const RECEIVE_SMALL: u64 = 1;
const POLL_OUT: u64 = 2;
const OP_BITS: u32 = 2;

/// Says that nothing is there yet: the kernel waits before it looks. IORING_RECVSEND_POLL_FIRST.
const POLL_FIRST: u16 = 1;

impl Ring {
    /// For the calling thread, which alone may use it, and for at most so many sockets.
    pub fn new(sockets_max: usize) -> Result<Ring> {
        match Self::with(sockets_max, true) {
            // Linux 6.0 knows all that is needed but deferred task work.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Self::with(sockets_max, false),
            made => made,
        }
        .map_err(|e| anyhow::anyhow!("io_uring could not be set up ({e}); {}", remedy(&e)))
    }

    fn with(sockets_max: usize, deferred: bool) -> io::Result<Ring> {
        let mut builder = IoUring::builder();
        // Only this thread submits.
        builder.setup_single_issuer().setup_submit_all().setup_clamp().dontfork();
        if deferred {
            // Completions are worked off when this thread asks for them, in batches; a flag in shared memory says
            // whether there are any, so that a spinning worker stays out of the kernel.
            builder.setup_defer_taskrun().setup_taskrun_flag();
        }
        // At most one receive and one poll on each socket.
        let kernel: IoUring = builder.build((sockets_max * 2).next_power_of_two().clamp(8, 4096) as u32)?;
        // Saves a look-up at each entry.
        let _ = kernel.submitter().register_ring_fd();
        // A wait for answers is not disk wait: without this an idle worker counts as iowait.
        let wait_flags =
            if kernel.params().is_feature_no_iowait() { EnterFlags::NO_IOWAIT } else { EnterFlags::empty() };
        let small = SmallBuffers::new((sockets_max * 2).next_power_of_two().clamp(8, SMALL_COUNT_MAX) as u16);
        small.register(&kernel)?;
        Ok(Ring {
            kernel,
            wait_flags,
            sockets: Vec::with_capacity(sockets_max),
            small,
            starved: Vec::with_capacity(sockets_max),
            in_flight: 0,
            ended: Vec::new(),
        })
    }

    /// Takes a non-blocking socket in; its number is what everything else asks for.
    pub fn add(&mut self, stream: TcpStream) -> usize {
        self.sockets.push(Socket { stream, receiving: None });
        self.sockets.len() - 1
    }

    /// Sends what the kernel takes now. When that is less than all of it, `Writable` will say when to go on.
    pub fn send(&mut self, socket: usize, slices: &[IoSlice<'_>]) -> Result<usize> {
        let sent = loop {
            match (&self.sockets[socket].stream).write_vectored(slices) {
                Ok(sent) => break sent,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break 0,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e.into()),
            }
        };
        if sent < slices.iter().map(|s| s.len()).sum() {
            let entry = opcode::PollAdd::new(self.fd(socket), libc::POLLOUT as u32).build();
            // SAFETY: a poll points to no memory.
            unsafe { self.push(entry, socket, POLL_OUT)? };
        }
        Ok(sent)
    }

    /// From now on small replies are received until the connection ends.
    pub fn receive_small(&mut self, socket: usize) -> Result<()> {
        let entry = opcode::RecvMulti::new(self.fd(socket), SMALL_GROUP).build();
        // SAFETY: the kernel writes into buffers of `small`, which are its own until a completion names them.
        unsafe { self.push(entry, socket, RECEIVE_SMALL) }
    }

    /// Receives once, into `buffer[filled..]`.
    pub fn receive_large(&mut self, socket: usize, mut buffer: Vec<u8>, filled: usize) -> Result<()> {
        let fd = self.fd(socket);
        let free = &mut buffer[filled..];
        let (start, size) = (free.as_mut_ptr(), free.len().min(i32::MAX as usize) as u32);
        let of = &mut self.sockets[socket];
        assert!(of.receiving.is_none() && size > 0, "one receive at a time, with room");
        of.receiving = Some(buffer);
        let entry = opcode::Recv::new(fd, start, size).ioprio(if filled == 0 { POLL_FIRST } else { 0 }).build();
        // SAFETY: the buffer's memory stays where it is, untouched, in `receiving` until the completion.
        unsafe { self.push(entry, socket, RECEIVE_LARGE) }
    }

    /// Moves a small reply to `into`, which is as long as it is. Its buffer is the kernel's again.
    pub fn copy(&mut self, small: Small, into: &mut [u8]) {
        into.copy_from_slice(self.small.bytes(&small));
        self.small.give(small.id);
    }

    fn fd(&self, socket: usize) -> types::Fd {
        types::Fd(self.sockets[socket].stream.as_raw_fd())
    }

    /// # Safety
    /// Memory the entry points to must stay valid and untouched until its completion.
    unsafe fn push(&mut self, entry: squeue::Entry, socket: usize, op: u64) -> Result<()> {
        let entry = entry.user_data((socket as u64) << OP_BITS | op);
        // SAFETY: the caller's promise.
        while unsafe { self.kernel.submission().push(&entry) }.is_err() {
            self.kernel.submit().context("io_uring_enter")?;
        }
        self.in_flight += 1;
        Ok(())
    }

    /// Submits what was asked for, waits at most `wait` for something to happen, and appends all that has happened.
    /// All small replies of the turn before must have been copied.
    pub fn turn(&mut self, wait: Nanos, events: &mut Vec<Event>) -> Result<()> {
        while let Some(socket) = self.starved.pop() {
            self.receive_small(socket)?;
        }
        let submission = self.kernel.submission();
        let anything = !submission.is_empty() || submission.taskrun() || submission.cq_overflow();
        drop(submission);
        if wait > 0 || anything {
            self.enter(wait)?;
        }
        let mut ended = std::mem::take(&mut self.ended);
        ended.extend(self.kernel.completion());
        for entry in ended.drain(..) {
            if let Some(what) = self.finish(&entry) {
                events.push(Event { socket: (entry.user_data() >> OP_BITS) as usize, what });
            }
        }
        self.ended = ended;
        Ok(())
    }

    fn enter(&mut self, wait: Nanos) -> Result<()> {
        let time = types::Timespec::new().sec(wait / SECOND).nsec((wait % SECOND) as u32);
        let submitter = self.kernel.submitter();
        let entered = if wait == 0 {
            submitter.submit()
        } else {
            submitter.submit_with_args_and_flags(1, &types::SubmitArgs::new().timespec(&time), self.wait_flags)
        };
        match entered {
            Ok(_) => Ok(()),
            // Time passed, a signal came, or completions must be taken out first.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {
                Ok(())
            }
            Err(e) => Err(e).context("io_uring_enter"),
        }
    }

    fn finish(&mut self, entry: &cqueue::Entry) -> Option<What> {
        let more = cqueue::more(entry.flags());
        self.in_flight -= usize::from(!more);
        let socket = (entry.user_data() >> OP_BITS) as usize;
        let count = entry.result().max(0) as usize;
        let ended = |result: i32| {
            let error = (result < 0).then(|| io::Error::from_raw_os_error(-result));
            Some(What::Received(Received::Ended(error)))
        };
        match entry.user_data() & ((1 << OP_BITS) - 1) {
            POLL_OUT => Some(What::Writable),
            RECEIVE_LARGE => {
                let buffer = self.sockets[socket].receiving.take()?;
                if count == 0 { ended(entry.result()) } else { Some(What::Received(Received::Large { buffer, count })) }
            }
            _ => {
                if let Some(id) = cqueue::buffer_select(entry.flags()) {
                    if !more {
                        self.starved.push(socket);
                    }
                    return Some(What::Received(Received::Small(Small { id, count })));
                }
                if matches!(-entry.result(), libc::ENOBUFS | libc::EINTR | libc::EAGAIN) {
                    self.starved.push(socket);
                    return None;
                }
                ended(entry.result())
            }
        }
    }
}

/// How long a dropped ring waits for the kernel.
const QUIET_WAIT_TURNS: usize = 200;

impl Drop for Ring {
    fn drop(&mut self) {
        for socket in &self.sockets {
            // Ends what is under way on it. An error means that it had ended already.
            let _ = socket.stream.shutdown(Shutdown::Both);
        }
        let mut events = Vec::new();
        for _ in 0..QUIET_WAIT_TURNS {
            // What only wants a free buffer has ended.
            self.starved.clear();
            if self.in_flight == 0 || self.turn(SECOND / 100, &mut events).is_err() {
                break;
            }
            for Event { what, .. } in events.drain(..) {
                if let What::Received(Received::Small(small)) = what {
                    self.small.give(small.id);
                }
            }
        }
        if self.in_flight > 0 {
            // Rather lose memory than let the kernel write into what is freed.
            std::mem::forget(std::mem::take(&mut self.sockets));
            std::mem::forget(std::mem::replace(&mut self.small, SmallBuffers::new(1)));
        }
    }
}

/// What to do about a ring that could not be set up.
fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EINVAL) => "the kernel is too old: Linux 6.1 or newer is needed",
        Some(libc::ENOMEM) => "not enough locked memory: raise it by `ulimit -l unlimited`",
        Some(libc::EMFILE | libc::ENFILE) => "too few file descriptors: raise them by `ulimit -n`",
        _ => {
            "it must be allowed: `sysctl kernel.io_uring_disabled=0`, and in a container also by its seccomp profile \
             (io_uring_setup, io_uring_enter, io_uring_register)"
        }
    }
}

const SMALL_GROUP: u16 = 0;
/// Replies to produce requests are below a hundred bytes; several at once fit, too.
const SMALL_SIZE: usize = 2048;
/// Also the size of the page in which kernel and worker tell each other.
const SMALL_COUNT_MAX: usize = 256;

/// Entries shared with the kernel. It wants them at the beginning of a page.
#[repr(C, align(4096))]
struct Entries([BufRingEntry; SMALL_COUNT_MAX]);

/// The buffers the kernel picks from when small replies come. A buffer is the kernel's from `give` until a completion
/// names it.
struct SmallBuffers {
    entries: Box<Entries>,
    memory: Vec<u8>,
    /// A power of two, at most `SMALL_COUNT_MAX`.
    count: u16,
    /// Of the entries given to the kernel so far.
    tail: u16,
}

impl SmallBuffers {
    fn new(count: u16) -> SmallBuffers {
        assert!(count.is_power_of_two() && count as usize <= SMALL_COUNT_MAX);
        // SAFETY: an entry of zeros is a valid empty one.
        let entries = Box::new(unsafe { std::mem::zeroed() });
        let mut this = SmallBuffers { entries, memory: vec![0; count as usize * SMALL_SIZE], count, tail: 0 };
        (0..count).for_each(|id| this.give(id));
        this
    }

    /// Tells the kernel.
    fn register(&self, kernel: &IoUring) -> io::Result<()> {
        let address = self.entries.0.as_ptr() as u64;
        // SAFETY: the entries stay where they are until after the ring is closed, by the order of its fields.
        unsafe { kernel.submitter().register_buf_ring_with_flags(address, self.count, SMALL_GROUP, 0) }
    }

    fn bytes(&self, small: &Small) -> &[u8] {
        &self.memory[small.id as usize * SMALL_SIZE..][..small.count]
    }

    fn give(&mut self, id: u16) {
        let address = self.memory.as_mut_ptr() as u64 + id as u64 * SMALL_SIZE as u64;
        // The kernel does not look at this entry before the tail moves past it.
        let entry = &mut self.entries.0[(self.tail & (self.count - 1)) as usize];
        entry.set_addr(address);
        entry.set_len(SMALL_SIZE as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies in the first entry, aligned for 16 bits; the kernel only reads it.
        let shared = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries.0.as_ptr()).cast_mut()) };
        shared.store(self.tail, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        near.set_nonblocking(true).unwrap();
        (near, listener.accept().unwrap().0)
    }

    /// With and without deferred task work.
    fn rings(sockets_max: usize) -> [Ring; 2] {
        [true, false].map(|deferred| Ring::with(sockets_max, deferred).unwrap())
    }

    fn until(ring: &mut Ring, wait: Nanos, mut done: impl FnMut(&mut Ring, Event) -> bool) {
        let (mut events, begin) = (Vec::new(), std::time::Instant::now());
        while begin.elapsed().as_secs() < 30 {
            ring.turn(wait, &mut events).unwrap();
            if events.drain(..).map(|event| done(ring, event)).fold(false, |a, b| a | b) {
                return;
            }
        }
        panic!("nothing came");
    }

    #[test]
    fn more_than_a_socket_holds_is_sent_piece_by_piece() {
        for mut ring in rings(1) {
            let (near, mut far) = pair();
            let reader = std::thread::spawn(move || {
                let mut all = Vec::new();
                far.read_to_end(&mut all).unwrap();
                all
            });
            let socket = ring.add(near);
            let all: Vec<u8> = (0..50_000_000u32).map(|i| (i % 251) as u8).collect();
            let mut sent = ring.send(socket, &[IoSlice::new(&all[..7]), IoSlice::new(&all[7..])]).unwrap();
            assert!(sent < all.len(), "the socket took it all");
            until(&mut ring, SECOND / 10, |ring, event| {
                assert!(matches!(event.what, What::Writable));
                sent += ring.send(socket, &[IoSlice::new(&all[sent..])]).unwrap();
                sent == all.len()
            });
            drop(ring);
            assert!(reader.join().unwrap() == all);
        }
    }

    #[test]
    fn a_large_receive_appends_and_says_when_the_peer_is_gone() {
        for mut ring in rings(1) {
            let (near, mut far) = pair();
            let socket = ring.add(near);
            ring.receive_large(socket, b"ab..........".to_vec(), 2).unwrap();
            far.write_all(b"cd").unwrap();
            until(&mut ring, SECOND / 10, |_, event| {
                let What::Received(Received::Large { buffer, count }) = event.what else { return false };
                assert_eq!(&buffer[..2 + count], b"abcd");
                true
            });
            ring.receive_large(socket, vec![0; 4], 0).unwrap();
            drop(far);
            let gone = |event: &Event| matches!(event.what, What::Received(Received::Ended(None)));
            until(&mut ring, SECOND / 10, |_, event| gone(&event));
        }
    }

    /// Also where nobody ever waits in the kernel, as a worker that spins.
    #[test]
    fn small_replies_of_more_connections_than_buffers_all_arrive() {
        for (mut ring, wait) in rings(1).into_iter().zip([0, SECOND / 10]) {
            let (near, far): (Vec<_>, Vec<_>) = (0..40).map(|_| pair()).unzip();
            assert!(near.len() > ring.small.count as usize);
            for stream in near {
                let socket = ring.add(stream);
                ring.receive_small(socket).unwrap();
            }
            ring.turn(SECOND / 100, &mut Vec::new()).unwrap();
            let mut got = vec![Vec::new(); far.len()];
            for round in 0..5u8 {
                far.iter().enumerate().for_each(|(i, mut s)| s.write_all(&[i as u8, round]).unwrap());
                let mut missing = 2 * far.len();
                until(&mut ring, wait, |ring, event| {
                    let What::Received(Received::Small(small)) = event.what else { panic!("ended") };
                    let mut bytes = vec![0; small.count];
                    ring.copy(small, &mut bytes);
                    missing -= bytes.len();
                    got[event.socket].extend(bytes);
                    missing == 0
                });
            }
            for (i, bytes) in got.iter().enumerate() {
                let i = i as u8;
                assert_eq!(bytes[..], [i, 0, i, 1, i, 2, i, 3, i, 4]);
            }
            drop(far);
            until(&mut ring, wait, |_, event| matches!(event.what, What::Received(Received::Ended(None))));
        }
    }

    #[test]
    fn a_ring_dropped_in_the_middle_of_everything_takes_its_memory_back() {
        for mut ring in rings(2) {
            let (pairs, all) = ([pair(), pair()], vec![7; 50_000_000]);
            let [large, small] = pairs.each_ref().map(|(near, _)| ring.add(near.try_clone().unwrap()));
            ring.receive_large(large, vec![0; 1 << 20], 0).unwrap();
            ring.receive_small(small).unwrap();
            assert!(ring.send(large, &[IoSlice::new(&all)]).unwrap() < all.len());
            ring.turn(0, &mut Vec::new()).unwrap();
            assert_eq!(ring.in_flight, 3);
            let begin = std::time::Instant::now();
            drop(ring);
            assert!(begin.elapsed().as_millis() < 1500, "it waited for what never ended");
        }
    }

    #[test]
    fn a_ring_that_is_refused_says_what_to_change() {
        let text = |errno| remedy(&io::Error::from_raw_os_error(errno));
        assert!(text(libc::EPERM).contains("kernel.io_uring_disabled=0") && text(libc::ENOSYS).contains("seccomp"));
        assert!(text(libc::EINVAL).contains("6.1") && text(libc::ENOMEM).contains("ulimit -l"));
    }
}
