//! The kernel, and the only place with system calls and `unsafe`. `Ring` moves bytes between sockets and buffers,
//! `disk::Disk` between files and memory; each has two forms: `uring` (the kernel's) and `sim` (memory, one seed).
//!
//! A shard calls `wait`, gets everything that happened as a list of events, acts on all of them, and what it asked for
//! meanwhile is submitted by the next `wait`: never a system call per message where one per turn will do.

use std::io;
use std::net::SocketAddr;

use crate::ids::{ConnectionId, JobOwner, Now};
use crate::parts::Reply;

mod bell;
mod block_memory;
pub mod buffers;
pub mod clock;
mod cold_turns;
pub mod content_mark;
pub mod cores;
pub mod dir_lock;
mod direct_reads;
pub mod disk;
mod disk_helper;
mod disk_uring;
mod file_to_socket;
pub mod heap;
mod kernel_ring;
pub mod open_files;
mod peers;
mod pins;
mod read_ahead;
mod residency;
pub mod sd_notify;
mod send_queue;
mod send_zc;
pub mod signals;
pub mod sim;
mod sockets;
mod splice;
mod token;
pub mod uring;
#[cfg(test)]
mod uring_tests;

pub use bell::Bell;
pub use buffers::ReceiveBuffer;
pub use disk_helper::{replace_file, reserve, sync_file_systems};
pub use file_to_socket::FetchPath;
pub use uring::{RingError, Settings, Uring};

/// The closed list of what can wake a shard (besides its own deadline, which is an argument of `wait`).
#[derive(Debug)]
pub enum Event {
    /// A client connected. No receive is posted yet.
    Accepted {
        /// The new connection.
        connection: ConnectionId,
        /// Its address.
        peer: SocketAddr,
    },
    /// Bytes arrived: `buffer[..filled]` holds what the caller had there before, followed by them.
    /// The receive is over; the next must be posted by `receive`.
    Received {
        /// On this connection.
        connection: ConnectionId,
        /// The buffer that was posted, or one of the ring's small ones.
        buffer: ReceiveBuffer,
        /// Valid bytes in it.
        filled: usize,
    },
    /// The peer closed or reset its side, or the socket failed. The connection must be closed by `close`.
    /// A buffer that was posted comes back.
    Hangup {
        /// The connection.
        connection: ConnectionId,
        /// The buffer that was posted.
        buffer: Option<ReceiveBuffer>,
        /// None: an orderly end of stream.
        error: Option<io::Error>,
    },
    /// A reply has been handed to the kernel whole (or dropped, when the connection died): its memory comes back.
    Sent {
        /// The connection, possibly closed since.
        connection: ConnectionId,
        /// The reply, to be used again.
        reply: Reply,
    },
    /// A disk job ended.
    JobDone {
        /// Who asked.
        owner: JobOwner,
        /// What was asked.
        job: disk::Job,
        /// How it ended.
        result: io::Result<()>,
    },
    /// Somebody put a message into this shard's mailbox and rang.
    Mail,
}

/// Sockets of one shard. All calls return at once; what they lead to arrives as events of `wait`.
pub trait Ring {
    /// Time now, by the ring's clock (the simulation has its own).
    fn now(&self) -> Now;
    /// Listens and accepts until the ring is dropped. Socket options of accepted connections are the ring's settings.
    fn listen(&mut self, address: SocketAddr) -> io::Result<SocketAddr>;
    /// Stops accepting.
    fn stop_listening(&mut self);
    /// Posts one receive. `None`: into one of the ring's small shared buffers, held only once bytes arrive, so an idle
    /// connection holds no memory. `Some((buffer, filled))`: into `buffer[filled..]`.
    fn receive(&mut self, connection: ConnectionId, into: Option<(ReceiveBuffer, usize)>);
    /// Sends a reply after all those given before on this connection. File ranges go out without a copy; a range that
    /// is not in the page cache is read ahead first and never blocks the shard. The files are held until the peer
    /// acknowledged the bytes.
    fn send(&mut self, connection: ConnectionId, reply: Reply);
    /// Bytes of replies given to `send` on this connection that the kernel has not taken yet.
    fn send_backlog(&self, connection: ConnectionId) -> u64;
    /// Closes a connection once. Later events of it are dropped by the ring (buffers and replies still come back).
    fn close(&mut self, connection: ConnectionId);
    /// Closes a connection after everything given to `send` has been handed over, at the latest after a few seconds.
    fn close_after_send(&mut self, connection: ConnectionId);
    /// A buffer of at least `capacity` bytes. None: the shard's budget for buffers is used up.
    fn take_buffer(&mut self, capacity: usize) -> Option<ReceiveBuffer>;
    /// The same in the place of a smaller one, which is given back at once.
    fn take_larger_buffer(&mut self, than: &ReceiveBuffer, capacity: usize) -> Option<ReceiveBuffer>;
    /// A copy of what is in a small buffer, when few of those are left for other connections. None: it may be kept, or much is
    /// set aside already.
    fn set_aside(&mut self, buffer: &ReceiveBuffer, filled: usize) -> Option<ReceiveBuffer>;
    /// Gives a buffer back.
    fn give_buffer(&mut self, buffer: ReceiveBuffer);
    /// Lets go of files whose bytes peers have acknowledged by now. Called when a log waits to recycle or remove a file.
    fn release_acknowledged(&mut self);
    /// Would `wait` hand something out at once? Costs no system call: background work asks between two pieces of it. A hint.
    fn has_events(&mut self) -> bool;
    /// Submits what was asked for, waits until something happens or the deadline (monotonic ns) passes, and appends
    /// what happened to `events`. A deadline that has passed: does not wait.
    fn wait(&mut self, deadline_ns: Option<u64>, events: &mut Vec<Event>) -> io::Result<()>;
}
