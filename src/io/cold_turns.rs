//! When a connection that reads from the device is served: behind all others, and while others are active for a quarter of
//! the core's time at most, a piece at a time with a pause after each. Pieces in a row would delay everybody else's requests
//! by all of them, and keep the reader's own core busy without a gap. Decides only; `file_to_socket` acts.

use std::collections::VecDeque;

use crate::ids::ConnectionId;

/// What a reader is sent at once when it is alone with others of its kind: no more is gained than the device gives, and its own
/// core is not flooded either.
const PIECE_SIZE: u64 = 128 * 1024;
/// The same while others are active, whom a piece delays.
const PIECE_SIZE_BESIDE: u64 = 64 * 1024;
/// A pause is so many times as long as the piece before it took.
const PAUSE_PER_WORK: u64 = 3;
/// Others are active for so long after they were heard of.
const ACTIVE_NS: u64 = 10_000_000;

/// Readers of cold ranges that have something to send.
#[derive(Default)]
pub(super) struct ColdTurns {
    waiting: VecDeque<ConnectionId>,
    /// No piece is sent before.
    resume_ns: u64,
    others_until_ns: u64,
    /// When the present turn began.
    pub turn_ns: u64,
}

impl ColdTurns {
    pub fn push(&mut self, id: ConnectionId) {
        self.waiting.push_back(id);
    }

    /// A connection that is no cold reader sent something.
    pub fn others_active(&mut self) {
        self.others_until_ns = self.turn_ns + ACTIVE_NS;
    }

    /// Bytes of a piece.
    pub fn piece_size(&self) -> u64 {
        if self.turn_ns < self.others_until_ns { PIECE_SIZE_BESIDE } else { PIECE_SIZE }
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// May somebody who waits send a piece now? Asks for the time only where somebody waits.
    pub fn is_due(&self, now_ns: impl FnOnce() -> u64) -> bool {
        !self.waiting.is_empty() && now_ns() >= self.resume_ns
    }

    /// Who may send a piece now.
    pub fn next(&mut self, now_ns: u64) -> Option<ConnectionId> {
        if now_ns < self.resume_ns { None } else { self.waiting.pop_front() }
    }

    /// Sending a piece took this time.
    pub fn worked(&mut self, from_ns: u64, to_ns: u64) {
        if to_ns < self.others_until_ns {
            self.resume_ns = to_ns + PAUSE_PER_WORK * (to_ns - from_ns);
        }
    }

    /// When somebody may send again. `None`: nobody wants to.
    pub fn wake_ns(&self) -> Option<u64> {
        (!self.waiting.is_empty()).then_some(self.resume_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn id(slot: u32) -> ConnectionId {
        ConnectionId { slot, generation: 0 }
    }

    #[test]
    fn alone_they_are_served_without_a_pause() {
        let mut turns = ColdTurns::default();
        assert_eq!(turns.piece_size(), PIECE_SIZE);
        turns.push(id(1));
        turns.push(id(2));
        assert_eq!(turns.next(100), Some(id(1)));
        turns.worked(100, 200);
        assert_eq!(turns.next(200), Some(id(2)));
        turns.worked(200, 300);
        assert_eq!((turns.next(300), turns.wake_ns()), (None, None));
    }

    #[test]
    fn beside_others_each_piece_is_followed_by_a_pause_of_three_times_its_length() {
        let mut turns = ColdTurns::default();
        turns.others_active();
        assert_eq!(turns.piece_size(), PIECE_SIZE_BESIDE);
        turns.push(id(1));
        turns.push(id(2));
        assert_eq!(turns.next(100), Some(id(1)));
        turns.worked(100, 200);
        assert_eq!((turns.next(499), turns.wake_ns()), (None, Some(500)));
        assert_eq!(turns.next(500), Some(id(2)));
        let later = ACTIVE_NS + 1;
        turns.worked(later, later + 100);
        turns.push(id(1));
        assert_eq!(turns.next(later + 100), Some(id(1)), "the others have been silent for long");
    }
}
