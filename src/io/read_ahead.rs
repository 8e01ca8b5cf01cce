//! Reading a cold range into the page cache, so that no byte is copied, neither on the shard's time nor, on the same core, by
//! a worker of its ring: a worker allocates pages and starts their reads, and waiting for one byte of the last page takes no
//! thread.
//!
//! A worker does so for one piece at a time. On a kernel that is not preempted it keeps its core to the end of what it has
//! been given: with all pieces handed over in a chain, the shard's own work waited for it up to 0.6 ms.

use std::collections::VecDeque;
use std::rc::Rc;

use io_uring::{opcode, types};

use super::token::{Op, Token};
use super::uring::Uring;
use crate::ids::Position;
use crate::parts::OpenFile;

/// Pages for so much are allocated, and their reads started, at a stretch.
const PIECE_SIZE: u64 = 128 * 1024;
/// At least this much is read at once.
const BEGUN_SIZE_MIN: u64 = 256 * 1024;

/// Part of a file whose reads are to be started.
struct Stretch {
    file: Rc<OpenFile>,
    next: u64,
    end: u64,
    /// The byte that is waited for, and what completes when it is there.
    wait: Option<(u64, Token)>,
}

/// What is still to be started. Each stretch has a turn with one piece; one piece is with a worker at a time.
#[derive(Default)]
pub(super) struct ReadAhead {
    stretches: VecDeque<Stretch>,
    is_started: bool,
}

impl Uring {
    /// Has a cold range read into the page cache; `token` completes when its last byte is there (0: the file ends before).
    /// As much again is begun and not waited for, so that a reader who goes on finds it there.
    pub(super) fn read_ahead(&mut self, file: &Rc<OpenFile>, position: Position, size: u32, token: Token) {
        // From now on the kernel reads what is asked for and does not run ahead on its own: pages that are cached but still
        // being read would make a `sendfile` wait. SAFETY: plain call on the descriptor of an open file.
        unsafe { libc::posix_fadvise(file.handle, 0, 0, libc::POSIX_FADV_RANDOM) };
        let (start, size) = (position.0, u64::from(size.max(1)));
        self.read_ahead.stretches.push_back(Stretch {
            file: file.clone(),
            next: start,
            end: start + (2 * size).max(BEGUN_SIZE_MIN),
            wait: Some((start + size - 1, token)),
        });
        if !self.read_ahead.is_started {
            self.start_next_piece();
        }
    }

    /// A worker has started the reads of a piece, or could not: whoever waits for its bytes will find out.
    pub(super) fn start_next_piece(&mut self) {
        self.read_ahead.is_started = false;
        while let Some(mut stretch) = self.read_ahead.stretches.pop_front() {
            let fd = types::Fd(stretch.file.handle);
            if let Some((last, token)) = stretch.wait.take_if(|(last, _)| *last < stretch.next) {
                let wait = opcode::Read::new(fd, self.scratch.as_ptr(), 1).offset(last).build();
                // SAFETY: the scratch byte lives as long as the ring; several reads may scribble over it, nobody reads it.
                unsafe { self.push(wait, token) };
            }
            let size = PIECE_SIZE.min(stretch.end - stretch.next);
            if size == 0 {
                continue;
            }
            let advice = opcode::Fadvise::new(fd, size as libc::off_t, libc::POSIX_FADV_WILLNEED);
            let entry = advice.offset(stretch.next).build();
            stretch.next += size;
            self.read_ahead.stretches.push_back(stretch);
            self.read_ahead.is_started = true;
            // SAFETY: advice points to no memory; the stretch holds the file.
            return unsafe { self.push(entry, Token::new(Op::Advise, 0, 0)) };
        }
    }
}
