//! `fetch.path = splice`: file pages move by reference into a pipe and from there into the socket. The ring hands both
//! steps to a worker thread, so a shard spends no time on them; whether that pays depends on idle cores.

use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::{opcode, types};

use super::file_to_socket::Step;
use super::token::{Op, Token};
use super::uring::Uring;
use crate::ids::ConnectionId;
use crate::parts::FileRange;

/// What a pipe is asked to hold; an unprivileged user's share may be less.
const PIPE_SIZE: i32 = 256 * 1024;

/// A pipe and what it holds: the first bytes of the file range that its connection sends.
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    filled: u32,
}

/// Pipes of one shard.
#[derive(Default)]
pub(super) struct Pipes {
    by_slot: Vec<Option<Pipe>>,
    unused: Vec<Pipe>,
}

impl Pipes {
    fn of(&mut self, slot: u32) -> std::io::Result<&mut Pipe> {
        let slot = slot as usize;
        self.by_slot.resize_with(self.by_slot.len().max(slot + 1), || None);
        if self.by_slot[slot].is_none() {
            self.by_slot[slot] = match self.unused.pop() {
                Some(pipe) => Some(pipe),
                None => {
                    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
                    // Refused when the user's share is used up: then the pipe stays at its default size.
                    let _ = nix::fcntl::fcntl(&write, nix::fcntl::FcntlArg::F_SETPIPE_SZ(PIPE_SIZE));
                    Some(Pipe { read, write, filled: 0 })
                }
            };
        }
        Ok(self.by_slot[slot].as_mut().expect("set above"))
    }

    /// The connection has no use for its pipe now: an empty one is kept, one with bytes is closed.
    pub fn give_back(&mut self, slot: u32) {
        if let Some(pipe) = self.by_slot.get_mut(slot as usize).and_then(Option::take)
            && pipe.filled == 0
        {
            self.unused.push(pipe);
        }
    }
}

impl Uring {
    /// The next step for a range: out of the pipe what is in it, else into it.
    pub(super) fn splice_range(&mut self, id: ConnectionId, range: &FileRange) -> std::io::Result<Step> {
        let connection = &mut self.table.slots[id.slot as usize];
        let pipe = self.pipes.of(id.slot)?;
        let (op, entry) = if pipe.filled > 0 {
            let (from, to) = (types::Fd(pipe.read.as_raw_fd()), types::Fd(connection.fd));
            let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
            (Op::SpliceOut, opcode::Splice::new(from, -1, to, -1, pipe.filled).flags(flags).build())
        } else {
            let (from, to) = (types::Fd(range.file.handle), types::Fd(pipe.write.as_raw_fd()));
            let size = range.size.min(PIPE_SIZE as u32);
            let entry = opcode::Splice::new(from, range.position.0 as i64, to, -1, size).flags(libc::SPLICE_F_MOVE);
            (Op::SpliceIn, entry.build())
        };
        connection.queue.begin(op);
        // SAFETY: a splice points to no memory.
        unsafe { self.push(entry, Token::new(op, id.slot, id.generation)) };
        Ok(Step::Waits)
    }

    /// So many bytes of the range are in the pipe now.
    pub(super) fn spliced_in(&mut self, id: ConnectionId, count: u32) -> std::io::Result<()> {
        self.pipes.of(id.slot)?.filled += count;
        Ok(())
    }

    /// So many bytes left the pipe.
    pub(super) fn spliced_out(&mut self, id: ConnectionId, count: u32) -> std::io::Result<()> {
        let pipe = self.pipes.of(id.slot)?;
        pipe.filled -= count;
        if pipe.filled == 0 {
            self.pipes.give_back(id.slot);
        }
        Ok(())
    }
}
