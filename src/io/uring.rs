//! `Ring` on io_uring: one turn is flush, enter the kernel once, take all completions out, then act on each.
//! Nothing is called back from inside the drain, and no file or socket call here waits.
//!
//! Belongs to the thread that made it. Sockets are in `sockets`, replies in `file_to_socket`, files in `disk_uring`.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use io_uring::{cqueue, opcode, squeue, types};

use super::bell::Bell;
use super::buffers::{BufferPool, SmallBuffers};
use super::cold_turns::ColdTurns;
use super::direct_reads::DirectReads;
use super::disk_uring::Jobs;
use super::file_to_socket::{FetchPath, Gathered};
use super::kernel_ring::KernelRing;
pub use super::kernel_ring::RingError;
use super::peers::Peers;
use super::read_ahead::ReadAhead;
use super::residency::{ColdRead, Residency};
use super::send_zc::Windows;
use super::sockets::{Connections, Listener, State, close_fd};
use super::splice::Pipes;
use super::token::{Op, Token};
use super::{Event, ReceiveBuffer, Ring, block_memory, clock};
use crate::ids::{ConnectionId, Now};
use crate::parts::Reply;

/// What a ring is told at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `SO_SNDBUF`; -1 leaves it to the kernel.
    pub send_buffer_bytes: i32,
    /// `SO_RCVBUF`; -1 leaves it to the kernel.
    pub receive_buffer_bytes: i32,
    /// Bytes of pooled receive buffers that may be in use at any time.
    pub buffer_budget: usize,
    /// How file ranges reach a socket.
    pub fetch_path: FetchPath,
    /// Connections that wait to be accepted.
    pub backlog: i32,
    /// Operations queued before the kernel is entered in the middle of a turn.
    pub ring_entries: u32,
    /// Connections beyond it are closed as soon as they are accepted.
    pub connections_max: usize,
    /// The same for each address they come from.
    pub connections_max_per_ip: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            send_buffer_bytes: 102_400,
            receive_buffer_bytes: -1,
            buffer_budget: 64 * 1024 * 1024,
            fetch_path: FetchPath::default(),
            backlog: 1024,
            ring_entries: 1024,
            connections_max: 65_536,
            connections_max_per_ip: usize::MAX,
        }
    }
}

/// What the ring counted since its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Connections closed at once because there were `connections_max`, or `connections_max_per_ip` from their address.
    pub connections_refused: u64,
    /// Times the kernel was entered.
    pub enters: u64,
    /// Reads of cold ranges that a reply waited for.
    pub cold_reads: u64,
}

/// How often unused memory is given back.
const TRIM_INTERVAL_NS: u64 = 1_000_000_000;

/// The kernel's `Ring` and `Disk` of one shard.
pub struct Uring {
    // First, so that it is closed before the memory it may still refer to is freed.
    pub(super) kernel: KernelRing,
    pub(super) settings: Settings,
    pub(super) data_dir: PathBuf,
    pub(super) data_dir_file: File,
    pub(super) counters: Counters,

    pub(super) table: Connections,
    pub(super) listener: Option<Listener>,
    pub(super) peers: Peers,
    pub(super) small: Rc<SmallBuffers>,
    pub(super) pool: Rc<BufferPool>,
    trim_at_ns: u64,

    /// Connections whose queue wants to be looked at before the next enter.
    pub(super) to_flush: Vec<ConnectionId>,
    pub(super) flushing: Vec<ConnectionId>,
    pub(super) with_files: Vec<ConnectionId>,
    pub(super) cold_turns: ColdTurns,
    /// Messages of several slices in the kernel's hands, by slot, and those that are not.
    pub(super) gathered: Vec<Option<Box<Gathered>>>,
    #[expect(clippy::vec_box, reason = "the kernel keeps the address of a message")]
    pub(super) unused_gathered: Vec<Box<Gathered>>,
    pub(super) pipes: Pipes,
    pub(super) windows: Windows,
    pub(super) residency: Residency,
    pub(super) cold_reads: Vec<ColdRead>,
    pub(super) read_ahead: ReadAhead,
    pub(super) direct_reads: DirectReads,
    /// The bytes that cold reads wait for land here, and nobody reads them.
    pub(super) scratch: Box<RefCell<u8>>,
    pub(super) copy_memory: Vec<u8>,

    pub(super) jobs: Jobs,
    bell: Bell,
    /// Where the kernel puts the bell's count.
    bell_count: Box<RefCell<u64>>,
    bell_armed: bool,

    /// Events that came about outside of `wait`.
    pub(super) pending: Vec<Event>,
    completions: Vec<cqueue::Entry>,
    /// Operations in the kernel's hands, each of which will complete.
    in_flight: usize,
}

impl Uring {
    /// A ring for the calling thread, with the files of `data_dir` (which is created if need be).
    pub fn new(data_dir: &Path, settings: Settings) -> Result<Uring, RingError> {
        let kernel = KernelRing::new(settings.ring_entries.clamp(8, 32_768))?;
        std::fs::create_dir_all(data_dir).map_err(RingError::Other)?;
        let data_dir_file = File::open(data_dir).map_err(RingError::Other)?;
        let small = SmallBuffers::new().map_err(RingError::LockedMemory)?;
        small.register(&kernel.submitter()).map_err(RingError::LockedMemory)?;
        block_memory::announce(&kernel.submitter());
        let bell = Bell::of_kernel().map_err(RingError::OpenFiles)?;
        Ok(Uring {
            kernel,
            pool: BufferPool::new(settings.buffer_budget),
            settings,
            data_dir: data_dir.to_path_buf(),
            data_dir_file,
            counters: Counters::default(),
            table: Connections::default(),
            listener: None,
            peers: Peers::default(),
            small,
            trim_at_ns: 0,
            to_flush: Vec::new(),
            flushing: Vec::new(),
            with_files: Vec::new(),
            cold_turns: ColdTurns::default(),
            gathered: Vec::new(),
            unused_gathered: Vec::new(),
            pipes: Pipes::default(),
            windows: Windows::default(),
            residency: Residency::new(),
            cold_reads: Vec::new(),
            read_ahead: ReadAhead::default(),
            direct_reads: DirectReads::default(),
            scratch: Box::default(),
            copy_memory: Vec::new(),
            jobs: Jobs::new(bell.clone()),
            bell,
            bell_count: Box::default(),
            bell_armed: false,
            pending: Vec::new(),
            completions: Vec::new(),
            in_flight: 0,
        })
    }

    /// Rings at this shard from any thread.
    pub fn bell(&self) -> Bell {
        self.bell.clone()
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Connections in the table, closing ones included.
    pub fn connection_count(&self) -> usize {
        self.table.open_count
    }

    /// # Safety
    /// Memory the entry points to must stay valid and untouched until its completion.
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry, token: Token) {
        self.in_flight += 1;
        // SAFETY: the caller's promise.
        unsafe { self.kernel.push(&entry.user_data(token.pack())) };
    }

    /// Asks the kernel to give up an operation. It completes all the same, as cancelled or otherwise.
    pub(super) fn cancel(&mut self, token: Token) {
        let entry = opcode::AsyncCancel::new(token.pack()).build();
        // SAFETY: a cancel points to no memory.
        unsafe { self.push(entry, Token::new(Op::Cancel, 0, 0)) };
    }

    fn arm_bell(&mut self) {
        if !self.bell_armed {
            self.bell_armed = true;
            let entry = opcode::Read::new(types::Fd(self.bell.fd()), self.bell_count.as_ptr().cast(), 8).build();
            // SAFETY: the count is boxed, lives as long as the ring, and is not looked at.
            unsafe { self.push(entry, Token::new(Op::Bell, 0, 0)) };
        }
    }

    fn complete(&mut self, entry: &cqueue::Entry, events: &mut Vec<Event>) {
        let Some(token) = Token::unpack(entry.user_data()) else { return };
        if !cqueue::more(entry.flags()) {
            self.in_flight -= 1;
        }
        let id = ConnectionId { slot: token.slot, generation: token.generation };
        match token.op {
            Op::Receive => self.received(id, entry, events),
            Op::Send | Op::PollOut | Op::ColdRead | Op::SpliceIn | Op::SpliceOut => {
                self.send_progressed(id, token.op, entry.result(), events)
            }
            Op::SendZc => self.window_progressed(token.slot, entry, events),
            Op::Accept => self.accepted(entry, events),
            Op::Bell => {
                self.bell_armed = false;
                events.push(Event::Mail);
            }
            Op::Job => self.job_progressed(token.slot, entry.result(), events),
            Op::Advise => self.start_next_piece(),
            Op::Populate => self.block_memory_grown(entry.result()),
            Op::ReadBlock => self.block_progressed(token.slot, entry.result(), events),
            Op::Cancel => {}
        }
    }

    /// One turn. Returns without waiting when there is something to hand out or to go on with.
    fn turn(&mut self, deadline_ns: Option<u64>, events: &mut Vec<Event>) -> io::Result<()> {
        let before = events.len();
        let now_ns = clock::monotonic_ns();
        if now_ns >= self.trim_at_ns {
            self.trim_at_ns = now_ns + TRIM_INTERVAL_NS;
            self.pool.trim();
            self.trim_direct_reads(now_ns);
        }
        self.cold_turns.begin(now_ns);
        self.arm_bell();
        let wake = [self.arm_accept(now_ns), self.close_overdue(now_ns), self.poll_jobs(now_ns), deadline_ns];
        self.feed_starved();
        self.flush(events)?;
        events.append(&mut self.pending);
        let go_on = events.len() > before || !self.to_flush.is_empty();
        let cold_ns = self.cold_turns.wake_ns();
        // A pause is too short for the time that this turn has taken to be left out.
        let now_ns = if cold_ns.is_some() { clock::monotonic_ns() } else { now_ns };
        let wake_ns = wake.into_iter().chain([cold_ns]).flatten().min();
        let timeout_ns = wake_ns.map(|wake_ns| wake_ns.saturating_sub(now_ns));
        let want = u32::from(!go_on && timeout_ns != Some(0));
        self.counters.enters += 1;
        self.kernel.enter(want, timeout_ns)?;
        let mut completions = std::mem::take(&mut self.completions);
        self.kernel.drain(&mut completions);
        for entry in completions.drain(..) {
            self.complete(&entry, events);
        }
        self.completions = completions;
        self.helped(events);
        events.append(&mut self.pending);
        Ok(())
    }
}

impl Ring for Uring {
    fn now(&self) -> Now {
        clock::now()
    }
    fn listen(&mut self, address: SocketAddr) -> io::Result<SocketAddr> {
        self.listen_on(address)
    }
    fn stop_listening(&mut self) {
        self.stop_listening_now();
    }
    fn receive(&mut self, connection: ConnectionId, into: Option<(ReceiveBuffer, usize)>) {
        self.post_receive(connection, into);
    }
    fn send(&mut self, connection: ConnectionId, reply: Reply) {
        self.queue_reply(connection, reply);
    }
    fn send_backlog(&self, connection: ConnectionId) -> u64 {
        let of_slot = self.table.slots.get(connection.slot as usize);
        of_slot.filter(|c| c.generation == connection.generation).map_or(0, |c| c.queue.backlog())
    }
    fn close(&mut self, connection: ConnectionId) {
        self.close_now(connection);
    }
    fn close_after_send(&mut self, connection: ConnectionId) {
        self.close_gently(connection);
    }
    fn take_buffer(&mut self, capacity: usize) -> Option<ReceiveBuffer> {
        self.pool.take(capacity)
    }
    fn take_larger_buffer(&mut self, than: &ReceiveBuffer, capacity: usize) -> Option<ReceiveBuffer> {
        self.pool.take_larger(than, capacity)
    }
    fn set_aside(&mut self, buffer: &ReceiveBuffer, filled: usize) -> Option<ReceiveBuffer> {
        if buffer.is_of_ring() && self.small.are_few() { self.pool.set_aside(&buffer[..filled]) } else { None }
    }
    fn give_buffer(&mut self, buffer: ReceiveBuffer) {
        // It knows its way home.
        drop(buffer);
    }
    fn release_acknowledged(&mut self) {
        for connection in self.table.slots.iter_mut().filter(|c| !c.pins.is_empty()) {
            connection.pins.release_acknowledged(connection.fd, connection.queue.sent());
        }
    }
    fn has_events(&mut self) -> bool {
        self.kernel.has_completions()
    }
    fn wait(&mut self, deadline_ns: Option<u64>, events: &mut Vec<Event>) -> io::Result<()> {
        let before = events.len();
        loop {
            self.turn(deadline_ns, events)?;
            if events.len() > before || deadline_ns.is_some_and(|deadline_ns| clock::monotonic_ns() >= deadline_ns) {
                return Ok(());
            }
        }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // The kernel may write into buffers until their operations have ended: end them, with a limit.
        self.stop_listening_now();
        for slot in 0..self.table.slots.len() as u32 {
            self.close_now(self.table.id(slot));
        }
        if self.bell_armed {
            self.bell.ring();
        }
        let (deadline_ns, mut events) = (clock::monotonic_ns() + 2_000_000_000, Vec::new());
        self.jobs.give_up_waiting();
        while self.in_flight > 0 && clock::monotonic_ns() < deadline_ns {
            let wanted = u32::from(self.completions.is_empty());
            if self.kernel.enter(wanted, Some(100_000_000)).is_err() {
                break;
            }
            let mut completions = std::mem::take(&mut self.completions);
            self.kernel.drain(&mut completions);
            completions.iter().for_each(|entry| self.complete(entry, &mut events));
        }
        self.table.slots.iter().filter(|c| c.state != State::Free).for_each(|c| close_fd(c.fd));
        if self.in_flight > 0 {
            // Rather lose memory than let the kernel write into what is freed.
            std::mem::forget(std::mem::take(&mut self.table));
            std::mem::forget(std::mem::take(&mut self.gathered));
            std::mem::forget(std::mem::take(&mut self.windows));
            std::mem::forget(std::mem::take(&mut self.direct_reads));
            std::mem::forget(std::mem::take(&mut self.scratch));
            std::mem::forget(std::mem::take(&mut self.bell_count));
            std::mem::forget(self.small.clone());
        }
    }
}
