//! The listener and the connection table: accept, socket options, receive, close.
//!
//! A slot is free again only when the kernel holds nothing of its connection: no operation in flight, so no buffer.
//! Closing is a plain `close`, without `SO_LINGER`: what was handed to the kernel is still delivered. When it may
//! still hold pages of files by then, those files are tainted (never overwritten).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};

use io_uring::{cqueue, opcode, types};
use nix::sys::socket::{self, SockaddrStorage, setsockopt, sockopt};

use super::buffers::{SMALL_BUFFER_GROUP, SMALL_BUFFER_SIZE_U32};
use super::file_to_socket::SendQueue;
use super::pins::Pins;
use super::send_queue::Piece;
use super::token::{Op, Token};
use super::uring::{Settings, Uring};
use super::{Event, ReceiveBuffer, clock};
use crate::ids::ConnectionId;

/// How long a connection that is closed after its last reply may take to read it.
const LINGER_NS: u64 = 5_000_000_000;
/// After `accept` failed for want of descriptors or memory, it is tried again this much later.
const ACCEPT_RETRY_NS: u64 = 100_000_000;
/// The kernel looks at the socket only after it was reported ready: saves a failing attempt when no data is likely there.
const RECEIVE_POLL_FIRST: u16 = 1;

/// What may still happen on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The slot is free.
    Free,
    Open,
    /// The owner was told that the peer is gone, and has not closed yet.
    HungUp,
    /// The owner closed it; replies still go out.
    Finishing,
    /// All is sent and our side is shut; waits for the peer to close, so that its kernel does not drop what it has not read.
    Draining,
    /// Waits for operations in flight to end.
    Closing,
}

/// A receive the kernel works on.
#[derive(Debug)]
enum Posted {
    Nothing,
    Small,
    Pooled(ReceiveBuffer, usize),
}

/// One connection as the ring sees it.
pub(super) struct Connection {
    pub generation: u32,
    pub fd: RawFd,
    pub state: State,
    posted: Posted,
    /// The last receive left nothing behind in the socket, so the next will have to wait.
    emptied: bool,
    pub queue: SendQueue,
    pub pins: Pins,
    pub peer: IpAddr,
    /// Bytes reach this peer's memory by sharing pages with ours, even once acknowledged (see `peers`).
    pub near: bool,
}

impl Connection {
    pub fn is_receiving(&self) -> bool {
        !matches!(self.posted, Posted::Nothing)
    }
}

/// The listener, when there is one.
pub(super) struct Listener {
    socket: TcpListener,
    /// The multishot accept is in the kernel's hands.
    armed: bool,
    /// Not to be armed before.
    retry_ns: u64,
}

/// All connections of a shard.
#[derive(Default)]
pub(super) struct Connections {
    pub slots: Vec<Connection>,
    free: Vec<u32>,
    pub open_count: usize,
    /// Open connections by address, when their number is limited.
    by_address: HashMap<IpAddr, usize>,
    /// Connections in `Finishing` or `Draining`, and when their time is over.
    finishing: Vec<(ConnectionId, u64)>,
    /// Receives that found no buffer, to be posted again when one is back.
    pub starved: Vec<ConnectionId>,
}

impl Connections {
    /// None: closed since.
    pub fn get(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.slots.get_mut(id.slot as usize).filter(|c| c.generation == id.generation && c.state != State::Free)
    }
    fn open(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.get(id).filter(|c| c.state == State::Open)
    }
    pub fn id(&self, slot: u32) -> ConnectionId {
        ConnectionId { slot, generation: self.slots[slot as usize].generation }
    }
}

/// Binds and listens. What is set on the listener holds for the connections it accepts, which saves calls per connection;
/// the receive buffer must be set here anyway, since the window is negotiated before `accept` returns.
fn bind(address: SocketAddr, settings: &Settings) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    setsockopt(&listener, sockopt::TcpNoDelay, &true)?;
    if settings.send_buffer_bytes >= 0 {
        setsockopt(&listener, sockopt::SndBuf, &(settings.send_buffer_bytes as usize))?;
    }
    if settings.receive_buffer_bytes >= 0 {
        setsockopt(&listener, sockopt::RcvBuf, &(settings.receive_buffer_bytes as usize))?;
    }
    // Again, for a longer queue than the library's.
    socket::listen(&listener, socket::Backlog::new(settings.backlog.clamp(1, 65535))?)?;
    Ok(listener)
}

fn peer_address(fd: RawFd) -> Option<SocketAddr> {
    let address: SockaddrStorage = socket::getpeername(fd).ok()?;
    if let Some(v4) = address.as_sockaddr_in() {
        Some(SocketAddr::from((v4.ip(), v4.port())))
    } else {
        address.as_sockaddr_in6().map(|v6| SocketAddr::from((v6.ip(), v6.port())))
    }
}

pub(super) fn close_fd(fd: RawFd) {
    // SAFETY: `fd` is a connection's own descriptor, used by nobody after this.
    unsafe { libc::close(fd) };
}

impl Uring {
    pub(super) fn listen_on(&mut self, address: SocketAddr) -> io::Result<SocketAddr> {
        assert!(self.listener.is_none(), "one listener per ring");
        let socket = bind(address, &self.settings)?;
        let address = socket.local_addr()?;
        self.listener = Some(Listener { socket, armed: false, retry_ns: 0 });
        Ok(address)
    }

    /// Cancels the accept; the listener is closed, so that new clients are refused rather than left waiting.
    pub(super) fn stop_listening_now(&mut self) {
        if let Some(listener) = self.listener.take()
            && listener.armed
        {
            self.cancel(Token::new(Op::Accept, 0, 0));
        }
    }

    /// Posts the accept when it is not. Returns when to come again.
    pub(super) fn arm_accept(&mut self, now_ns: u64) -> Option<u64> {
        let listener = self.listener.as_mut().filter(|l| !l.armed)?;
        if now_ns < listener.retry_ns {
            return Some(listener.retry_ns);
        }
        listener.armed = true;
        let entry = opcode::AcceptMulti::new(types::Fd(listener.socket.as_raw_fd()))
            // Non-blocking matters to `sendfile` and `splice`, which ask the file and take no flag.
            .flags(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)
            .build();
        // SAFETY: the entry points to no memory.
        unsafe { self.push(entry, Token::new(Op::Accept, 0, 0)) };
        None
    }

    pub(super) fn accepted(&mut self, entry: &cqueue::Entry, events: &mut Vec<Event>) {
        if !cqueue::more(entry.flags())
            && let Some(listener) = &mut self.listener
        {
            listener.armed = false;
            if entry.result() < 0 {
                listener.retry_ns = clock::monotonic_ns() + ACCEPT_RETRY_NS;
            }
        }
        let fd = entry.result();
        if fd < 0 {
            let error = io::Error::from_raw_os_error(-fd);
            if fd == -libc::EMFILE || fd == -libc::ENFILE {
                log::warn!("a client waits to be accepted: {error}; raise RLIMIT_NOFILE");
            }
            return;
        }
        if self.table.open_count >= self.settings.connections_max {
            self.counters.connections_refused += 1;
            return close_fd(fd);
        }
        // A client that is gone already has no address.
        let Some(peer) = peer_address(fd) else { return close_fd(fd) };
        let address = peer.ip().to_canonical();
        if self.settings.connections_max_per_ip < usize::MAX {
            let count = self.table.by_address.entry(address).or_default();
            if *count >= self.settings.connections_max_per_ip {
                self.counters.connections_refused += 1;
                return close_fd(fd);
            }
            *count += 1;
        }
        let near = self.peers.is_near(fd, peer);
        let connection = self.adopt(fd, address, near);
        events.push(Event::Accepted { connection, peer });
    }

    /// Takes a connected, non-blocking socket into the table.
    fn adopt(&mut self, fd: RawFd, peer: IpAddr, near: bool) -> ConnectionId {
        self.table.open_count += 1;
        if let Some(slot) = self.table.free.pop() {
            let connection = &mut self.table.slots[slot as usize];
            connection.generation = connection.generation.wrapping_add(1);
            (connection.fd, connection.state, connection.emptied) = (fd, State::Open, false);
            (connection.peer, connection.near) = (peer, near);
            return self.table.id(slot);
        }
        let slot = self.table.slots.len() as u32;
        self.table.slots.push(Connection {
            generation: 0,
            fd,
            state: State::Open,
            posted: Posted::Nothing,
            emptied: false,
            queue: SendQueue::default(),
            pins: Pins::default(),
            peer,
            near,
        });
        self.table.id(slot)
    }

    pub(super) fn post_receive(&mut self, id: ConnectionId, into: Option<(ReceiveBuffer, usize)>) {
        let Some(connection) = self.table.open(id) else { return };
        assert!(!connection.is_receiving(), "one receive at a time");
        connection.posted = match into {
            None => Posted::Small,
            Some((buffer, filled)) => {
                assert!(filled < buffer.len(), "a receive needs room");
                Posted::Pooled(buffer, filled)
            }
        };
        self.submit_receive(id);
    }

    fn submit_receive(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.get(id) else { return };
        let poll_first = if connection.emptied { RECEIVE_POLL_FIRST } else { 0 };
        let fd = types::Fd(connection.fd);
        let entry = match &mut connection.posted {
            Posted::Nothing => return,
            Posted::Small => opcode::Recv::new(fd, std::ptr::null_mut(), SMALL_BUFFER_SIZE_U32)
                .buf_group(SMALL_BUFFER_GROUP)
                .ioprio(poll_first)
                .build()
                .flags(io_uring::squeue::Flags::BUFFER_SELECT),
            Posted::Pooled(buffer, filled) => {
                let room = &mut buffer[*filled..];
                let size = room.len().min(i32::MAX as usize) as u32;
                opcode::Recv::new(fd, room.as_mut_ptr(), size).ioprio(poll_first).build()
            }
        };
        // SAFETY: the buffer stays in `posted` until the completion; its memory does not move.
        unsafe { self.push(entry, Token::new(Op::Receive, id.slot, id.generation)) };
    }

    pub(super) fn received(&mut self, id: ConnectionId, entry: &cqueue::Entry, events: &mut Vec<Event>) {
        let small = cqueue::buffer_select(entry.flags()).map(|buffer| self.small.take(buffer));
        let Some(connection) = self.table.get(id) else { return };
        let result = entry.result();
        if result == -libc::ENOBUFS || result == -libc::EINTR || result == -libc::EAGAIN {
            connection.emptied = false;
            if connection.state == State::Closing {
                connection.posted = Posted::Nothing;
                return self.finish_close(id);
            }
            return self.table.starved.push(id);
        }
        let (buffer, filled) = match std::mem::replace(&mut connection.posted, Posted::Nothing) {
            Posted::Pooled(buffer, filled) => (Some(buffer), filled),
            _ => (small, 0),
        };
        connection.emptied = !cqueue::sock_nonempty(entry.flags());
        match connection.state {
            State::Open if result > 0 => {
                if !connection.queue.is_cold() {
                    self.cold_turns.others_active();
                }
                let buffer = buffer.expect("the kernel names the buffer it filled");
                events.push(Event::Received { connection: id, buffer, filled: filled + result as usize });
            }
            State::Open => {
                connection.state = State::HungUp;
                let error = (result < 0).then(|| io::Error::from_raw_os_error(-result));
                events.push(Event::Hangup { connection: id, buffer, error });
            }
            // What a peer says after we decided to close is not listened to, but taken, so that its end is seen.
            State::Finishing | State::Draining if result > 0 => {
                drop(buffer);
                self.drain_peer(id);
            }
            State::Draining => self.close_now(id),
            State::Finishing | State::HungUp | State::Free => {}
            State::Closing => self.finish_close(id),
        }
    }

    /// Receives that found no buffer are posted again once there is one.
    pub(super) fn feed_starved(&mut self) {
        while let Some(&id) = self.table.starved.last() {
            if !self.small.any_left() {
                // All small buffers are with frames that are still arriving: take from the pool, else wait.
                let Some(buffer) = self.pool.take(crate::limits::SMALL_BUFFER_SIZE) else { return };
                if let Some(connection) = self.table.get(id)
                    && let Posted::Small = connection.posted
                {
                    connection.posted = Posted::Pooled(buffer, 0);
                }
            }
            self.table.starved.pop();
            self.submit_receive(id);
        }
    }

    /// A send failed: nothing more will go out. The owner learns it from its receive, which ends too, or at once when it has none.
    pub(super) fn send_failed(&mut self, id: ConnectionId, error: io::Error, events: &mut Vec<Event>) {
        if error.raw_os_error() == Some(libc::EIO)
            && let Some(Piece::File(range)) = self.table.get(id).and_then(|connection| connection.queue.next())
        {
            // No socket says so: the disk does.
            range.file.failed.set(true);
        }
        self.drop_replies(id, events);
        let Some(connection) = self.table.get(id) else { return };
        match connection.state {
            State::Open if !connection.is_receiving() => {
                connection.state = State::HungUp;
                events.push(Event::Hangup { connection: id, buffer: None, error: Some(error) });
            }
            State::Open => {
                let fd = connection.fd;
                // SAFETY: plain call on the connection's own descriptor. Makes the receive end.
                unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
            }
            State::Finishing | State::Draining => self.close_now(id),
            State::HungUp | State::Free => {}
            State::Closing => self.finish_close(id),
        }
    }

    pub(super) fn close_gently(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.get(id) else { return };
        match connection.state {
            State::Open => connection.state = State::Finishing,
            State::HungUp => return self.close_now(id),
            _ => return,
        }
        self.table.finishing.push((id, clock::monotonic_ns() + LINGER_NS));
        self.all_sent(id);
    }

    /// After the last reply was handed over: if the owner closed the connection, our side is shut.
    pub(super) fn all_sent(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.get(id) else { return };
        if connection.state == State::Finishing && connection.queue.is_idle() {
            connection.state = State::Draining;
            let fd = connection.fd;
            // SAFETY: plain call on the connection's own descriptor.
            unsafe { libc::shutdown(fd, libc::SHUT_WR) };
            if !connection.is_receiving() {
                self.drain_peer(id);
            }
        }
    }

    fn drain_peer(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.get(id) else { return };
        connection.posted = Posted::Small;
        self.submit_receive(id);
    }

    /// Closes those whose time to read their last reply is over. Returns when the next one's is.
    pub(super) fn close_overdue(&mut self, now_ns: u64) -> Option<u64> {
        while let Some(&(id, deadline)) = self.table.finishing.first() {
            if self.table.get(id).is_some_and(|c| matches!(c.state, State::Finishing | State::Draining)) {
                if now_ns < deadline {
                    return Some(deadline);
                }
                self.close_now(id);
            }
            self.table.finishing.remove(0);
        }
        None
    }

    pub(super) fn close_now(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.get(id) else { return };
        if connection.state == State::Closing {
            return;
        }
        connection.state = State::Closing;
        let sending = connection.queue.in_flight();
        if connection.is_receiving() {
            if let Some(place) = self.table.starved.iter().position(|&starved| starved == id) {
                self.table.starved.swap_remove(place);
                self.table.slots[id.slot as usize].posted = Posted::Nothing;
            } else {
                self.cancel(Token::new(Op::Receive, id.slot, id.generation));
            }
        }
        match sending {
            Some(Op::SendZc) => {
                if let Some(window) = self.windows.sending(id) {
                    self.cancel(Token::new(Op::SendZc, window, 0));
                }
            }
            Some(op) => self.cancel(Token::new(op, id.slot, id.generation)),
            None => {}
        }
        let mut freed = std::mem::take(&mut self.pending);
        self.drop_replies(id, &mut freed);
        self.pending = freed;
        self.finish_close(id);
    }

    /// Frees the slot when the kernel holds nothing of the connection any more.
    pub(super) fn finish_close(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.get(id) else { return };
        if connection.state != State::Closing || connection.is_receiving() || connection.queue.in_flight().is_some() {
            return;
        }
        let sent = connection.queue.reset();
        self.pipes.give_back(id.slot);
        connection.pins.abandon(connection.fd, sent);
        close_fd(connection.fd);
        connection.state = State::Free;
        connection.fd = -1;
        let peer = connection.peer;
        self.table.open_count -= 1;
        if let Entry::Occupied(mut count) = self.table.by_address.entry(peer) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        self.table.free.push(id.slot);
    }
}
