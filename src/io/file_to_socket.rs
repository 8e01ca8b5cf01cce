//! How replies reach a socket. Replies of bytes leave through the ring, all that a turn queued on one connection in one
//! operation. A reply with files leaves by calls that never block: the header with MSG_MORE, then the ranges by
//! `fetch.path`; a full socket is waited for through the ring, a cold range is read ahead through the ring.
//!
//! Order on a connection is the queue's; one operation at a time is in flight for it.

use std::io;
use std::os::fd::RawFd;

use io_uring::{opcode, types};

use super::cold_turns;
use super::residency::{self, COLD_WINDOW_SIZE};
use super::send_queue::Piece;
pub(super) use super::send_queue::SendQueue;
use super::sockets::State;
use super::token::{Op, Token};
use super::uring::Uring;
use super::{Event, clock};
use crate::ids::ConnectionId;
use crate::parts::{FileRange, Reply};

/// How file ranges reach a socket: which is best depends on the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FetchPath {
    /// `sendfile`: by reference to the page cache, on the shard's own time.
    #[default]
    Sendfile,
    /// `splice` through a pipe, by a worker thread of the ring.
    Splice,
    /// From a mapping, without a copy; the kernel says when it is done with the pages.
    SendZc,
    /// Read into a small hot buffer, then sent.
    Copy,
}

/// What one connection may send by calls of its own in one turn, so that a large reply delays others little.
const TURN_BYTES_MAX: u64 = 512 * 1024;
/// Slices of one send.
const GATHER_COUNT_MAX: usize = 32;
/// What `copy` reads at once: stays in the cache between its read and its send.
pub(super) const COPY_SIZE: usize = 128 * 1024;
const SEND_FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;

/// A message of several slices, at an address the kernel can keep until the send is over.
pub(super) struct Gathered {
    header: libc::msghdr,
    slices: [libc::iovec; GATHER_COUNT_MAX],
}

impl Gathered {
    pub(super) fn new() -> Box<Gathered> {
        // SAFETY: all-zero bytes are a valid header and valid, empty slices.
        unsafe { Box::new(std::mem::zeroed()) }
    }
}

/// The reply's size was promised in its first bytes: a file that became shorter can only end the connection.
pub(super) fn file_too_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "a file is shorter than what is to be sent from it")
}

/// How a step of sending by calls ended.
pub(super) enum Step {
    /// The kernel took so many bytes.
    Sent(u64),
    /// An operation in the ring goes on from here.
    Waits,
}

fn taken(count: isize) -> io::Result<Option<u64>> {
    if count >= 0 {
        return Ok(Some(count as u64));
    }
    match io::Error::last_os_error() {
        e if e.kind() == io::ErrorKind::WouldBlock || e.kind() == io::ErrorKind::Interrupted => Ok(None),
        e => Err(e),
    }
}

pub(super) fn send_bytes(fd: RawFd, bytes: &[u8], more: bool) -> io::Result<Option<u64>> {
    let flags = if more { SEND_FLAGS | libc::MSG_MORE } else { SEND_FLAGS };
    // SAFETY: the kernel reads `bytes` during the call.
    taken(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) })
}

fn send_file(fd: RawFd, range: &FileRange, size: usize) -> io::Result<Option<u64>> {
    let mut position = range.position.0 as libc::off_t;
    // SAFETY: plain call; `position` is a valid off_t.
    taken(unsafe { libc::sendfile(fd, range.file.handle, &mut position, size) })
}

impl Uring {
    pub(super) fn queue_reply(&mut self, id: ConnectionId, reply: Reply) {
        let Some(connection) = self.table.get(id).filter(|c| matches!(c.state, State::Open)) else {
            return self.pending.push(Event::Sent { connection: id, reply });
        };
        connection.queue.push(reply);
        self.list_for_flush(id);
    }

    fn list_for_flush(&mut self, id: ConnectionId) {
        let queue = &mut self.table.slots[id.slot as usize].queue;
        if queue.in_flight().is_none() && !queue.listed {
            queue.listed = true;
            self.to_flush.push(id);
        }
    }

    /// Starts sending wherever replies wait and nothing is in flight: bytes first, then files, last what comes from the device.
    /// Connections that used up their turn stay listed.
    pub(super) fn flush(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        std::mem::swap(&mut self.to_flush, &mut self.flushing);
        let mut with_files = std::mem::take(&mut self.with_files);
        let mut bytes_wait = false;
        while let Some(id) = self.flushing.pop() {
            let Some(connection) = self.table.get(id) else { continue };
            connection.queue.listed = false;
            if connection.state == State::Closing || connection.queue.in_flight().is_some() {
                continue;
            }
            connection.queue.advance(0, |reply| events.push(Event::Sent { connection: id, reply }));
            if connection.queue.is_empty() {
                self.all_sent(id);
            } else if !connection.queue.has_files() {
                self.send_by_ring(id);
                bytes_wait = true;
            } else if connection.queue.is_cold() {
                connection.queue.listed = true;
                self.cold_turns.push(id);
            } else {
                with_files.push(id);
            }
        }
        if bytes_wait && (!with_files.is_empty() || self.cold_turns.is_due(clock::monotonic_ns)) {
            // What the ring is to send does not wait for calls that take longer.
            self.counters.enters += 1;
            self.kernel.enter(0, None)?;
        }
        for id in with_files.drain(..) {
            self.send_files(id, events);
        }
        self.with_files = with_files;
        self.flush_cold(events);
        Ok(())
    }

    fn flush_cold(&mut self, events: &mut Vec<Event>) {
        for _ in 0..self.cold_turns.len() {
            let from_ns = clock::monotonic_ns();
            let Some(id) = self.cold_turns.next(from_ns) else { break };
            // It may have been closed meanwhile.
            let Some(connection) = self.table.get(id) else { continue };
            connection.queue.listed = false;
            if connection.state == State::Closing || connection.queue.is_empty() {
                continue;
            }
            self.send_files(id, events);
            self.cold_turns.worked(from_ns, clock::monotonic_ns());
        }
    }

    fn send_files(&mut self, id: ConnectionId, events: &mut Vec<Event>) {
        if let Err(error) = self.send_by_calls(id, events) {
            self.send_failed(id, error, events);
        }
    }

    fn send_by_ring(&mut self, id: ConnectionId) {
        let connection = &mut self.table.slots[id.slot as usize];
        let fd = types::Fd(connection.fd);
        // With WAITALL a send that the socket takes only in part is continued by the kernel.
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let entry = if connection.queue.more_follows() {
            let mut gathered = self.unused_gathered.pop().unwrap_or_else(Gathered::new);
            let mut count = 0;
            for (to, from) in gathered.slices.iter_mut().zip(connection.queue.gather(GATHER_COUNT_MAX)) {
                *to = libc::iovec { iov_base: from.as_ptr().cast_mut().cast(), iov_len: from.len() };
                count += 1;
            }
            (gathered.header.msg_iov, gathered.header.msg_iovlen) = (gathered.slices.as_mut_ptr(), count);
            let entry = opcode::SendMsg::new(fd, &raw const gathered.header).flags(flags as u32).build();
            self.gathered.resize_with(self.gathered.len().max(id.slot as usize + 1), || None);
            self.gathered[id.slot as usize] = Some(gathered);
            entry
        } else {
            let bytes = connection.queue.gather(1).next().expect("something waits");
            opcode::Send::new(fd, bytes.as_ptr(), bytes.len() as u32).flags(flags).build()
        };
        connection.queue.begin(Op::Send);
        // SAFETY: replies in flight are neither changed nor dropped (`SendQueue`), and a reply's bytes do not move when
        // others are queued; the gathered message is kept in `gathered` until the completion.
        unsafe { self.push(entry, Token::new(Op::Send, id.slot, id.generation)) };
    }

    /// An operation of the send queue ended.
    pub(super) fn send_progressed(&mut self, id: ConnectionId, op: Op, result: i32, events: &mut Vec<Event>) {
        let Some(connection) = self.table.get(id) else { return };
        connection.queue.end();
        if op == Op::Send
            && let Some(gathered) = self.gathered.get_mut(id.slot as usize).and_then(Option::take)
        {
            self.unused_gathered.push(gathered);
        }
        let connection = &mut self.table.slots[id.slot as usize];
        let mut read_ahead = 0;
        if op == Op::ColdRead
            && let Some(place) = self.cold_reads.iter().position(|read| read.connection == id)
        {
            read_ahead = self.cold_reads.swap_remove(place).size();
        }
        if connection.state == State::Closing {
            self.drop_replies(id, events);
            return self.finish_close(id);
        }
        let again = result == -libc::EAGAIN || result == -libc::EINTR;
        let result = if result < 0 && !again { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result.max(0)) };
        let outcome = match (op, result) {
            (_, Err(error)) => Err(error),
            (Op::SpliceIn, Ok(count)) if again || count > 0 => {
                if again {
                    Ok(())
                } else {
                    self.spliced_in(id, count as u32)
                }
            }
            (Op::ColdRead, Ok(0)) if !again => Err(file_too_short()),
            (Op::SpliceIn, Ok(_)) => Err(file_too_short()),
            (Op::SpliceOut, Ok(_)) if again => {
                self.wait_for_room(id);
                return;
            }
            (Op::SpliceOut, Ok(count)) => {
                if let Some(Piece::File(range)) = connection.queue.next() {
                    self.sent_by_reference(id, &range, count as u64);
                }
                let queue = &mut self.table.slots[id.slot as usize].queue;
                queue.advance(count as u64, |reply| events.push(Event::Sent { connection: id, reply }));
                self.spliced_out(id, count as u32)
            }
            (Op::Send | Op::SendZc, Ok(count)) => {
                connection.queue.advance(count as u64, |reply| events.push(Event::Sent { connection: id, reply }));
                Ok(())
            }
            (Op::ColdRead, Ok(_)) => {
                connection.queue.set_read_ahead(if again { 0 } else { read_ahead });
                Ok(())
            }
            // The call that follows finds out.
            (Op::PollOut, Ok(_)) => Ok(()),
            _ => unreachable!("{op:?} is no operation of the send queue"),
        };
        match outcome {
            Ok(()) => {
                if self.table.slots[id.slot as usize].queue.is_empty() {
                    self.all_sent(id);
                } else {
                    self.list_for_flush(id);
                }
            }
            Err(error) => self.send_failed(id, error, events),
        }
    }

    /// Sends what the socket takes without waiting, up to a turn's share.
    fn send_by_calls(&mut self, id: ConnectionId, events: &mut Vec<Event>) -> io::Result<()> {
        let is_cold = self.table.slots[id.slot as usize].queue.is_cold();
        let mut left = if is_cold { cold_turns::PIECE_SIZE } else { TURN_BYTES_MAX };
        loop {
            let connection = &mut self.table.slots[id.slot as usize];
            let (fd, more) = (connection.fd, connection.queue.more_follows());
            let step = match connection.queue.next() {
                None => {
                    self.all_sent(id);
                    return Ok(());
                }
                Some(Piece::Bytes(bytes)) => match send_bytes(fd, bytes, more)? {
                    Some(count) => Step::Sent(count),
                    None => self.wait_for_room(id),
                },
                Some(Piece::File(_)) if left == 0 => {
                    self.list_for_flush(id);
                    return Ok(());
                }
                Some(Piece::File(mut range)) => {
                    range.size = range.size.min(left as u32);
                    self.send_range(id, range)?
                }
            };
            match step {
                Step::Waits => return Ok(()),
                Step::Sent(count) => {
                    left = left.saturating_sub(count);
                    let queue = &mut self.table.slots[id.slot as usize].queue;
                    queue.advance(count, |reply| events.push(Event::Sent { connection: id, reply }));
                }
            }
        }
    }

    /// Some of a file range, from its beginning.
    fn send_range(&mut self, id: ConnectionId, mut range: FileRange) -> io::Result<Step> {
        let resident = match self.table.slots[id.slot as usize].queue.read_ahead() {
            0 => match self.send_block(id, &range) {
                Some(step) => return step,
                None => self.resident_prefix(&range),
            },
            count => count.min(u64::from(range.size)) as u32,
        };
        if resident == 0 {
            self.counters.cold_reads += 1;
            if !self.read_directly(id) {
                self.read_ahead_for(id, &range);
            }
            return Ok(Step::Waits);
        }
        range.size = range.size.min(resident);
        let fd = self.table.slots[id.slot as usize].fd;
        let taken = match self.settings.fetch_path {
            FetchPath::Splice => return self.splice_range(id, &range),
            FetchPath::SendZc => return self.send_window(id, &range),
            FetchPath::Copy => self.copy_range(fd, &range)?,
            FetchPath::Sendfile => {
                let taken = send_file(fd, &range, range.size as usize)?;
                if taken.is_some_and(|count| count > 0) {
                    self.sent_by_reference(id, &range, taken.unwrap_or(0));
                }
                taken
            }
        };
        match taken {
            None => Ok(self.wait_for_room(id)),
            Some(0) => Err(file_too_short()),
            Some(count) => Ok(Step::Sent(count)),
        }
    }

    /// The socket's queue refers to pages of the file now.
    fn sent_by_reference(&mut self, id: ConnectionId, range: &FileRange, count: u64) {
        let connection = &mut self.table.slots[id.slot as usize];
        if connection.near {
            // No acknowledgement tells when such a peer has its own copy: the file is never to be overwritten.
            range.file.tainted.set(true);
        }
        if !range.file.tainted.get() {
            connection.pins.hold(&range.file, connection.fd, connection.queue.sent() + count);
        }
    }

    fn copy_range(&mut self, fd: RawFd, range: &FileRange) -> io::Result<Option<u64>> {
        let size = (range.size as usize).min(COPY_SIZE);
        self.copy_memory.resize(COPY_SIZE, 0);
        let read = residency::read_resident(range.file.handle, range.position, &mut self.copy_memory[..size])?;
        if read == 0 {
            return Ok(Some(0));
        }
        send_bytes(fd, &self.copy_memory[..read], false)
    }

    pub(super) fn wait_for_room(&mut self, id: ConnectionId) -> Step {
        let connection = &mut self.table.slots[id.slot as usize];
        let entry = opcode::PollAdd::new(types::Fd(connection.fd), libc::POLLOUT as u32).build();
        connection.queue.begin(Op::PollOut);
        // SAFETY: a poll points to no memory.
        unsafe { self.push(entry, Token::new(Op::PollOut, id.slot, id.generation)) };
        Step::Waits
    }

    /// Has the first window of a cold range read into the page cache.
    fn read_ahead_for(&mut self, id: ConnectionId, range: &FileRange) {
        let size = range.size.min(COLD_WINDOW_SIZE);
        self.cold_reads.push(residency::ColdRead::new(id, range, size));
        let queue = &mut self.table.slots[id.slot as usize].queue;
        queue.note_cold();
        queue.begin(Op::ColdRead);
        self.read_ahead(&range.file, range.position, size, Token::new(Op::ColdRead, id.slot, id.generation));
    }

    /// Replies of a dead connection go back to the owner, unless the kernel still works on them.
    pub(super) fn drop_replies(&mut self, id: ConnectionId, events: &mut Vec<Event>) {
        let Some(connection) = self.table.get(id) else { return };
        connection.queue.drop_all(|reply| events.push(Event::Sent { connection: id, reply }));
    }
}
