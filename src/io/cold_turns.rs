//! When a connection that reads from the device is served: behind all others, and while others are active for a quarter of
//! the core's time at most, a piece at a time with a pause after each. Pieces in a row would delay everybody else's requests
//! by all of them, and keep the reader's own core busy without a gap.
//!
//! A piece is best sent right after others were served: then it is longest until they come again, if they come at regular
//! times, and the shard is awake anyway. So they are waited for as long as they are expected soon.
//! Decides only; `file_to_socket` acts.

use std::collections::VecDeque;

use crate::ids::ConnectionId;

/// What a reader is sent at once: no more is gained than the device gives, and its own core is not flooded.
pub(super) const PIECE_SIZE: u64 = 128 * 1024;
/// A pause is so many times as long as the piece before it took.
const PAUSE_PER_WORK: u64 = 3;
/// Others are active for so long after they were heard of,
const ACTIVE_NS: u64 = 10_000_000;
/// and expected for so long.
const EXPECTED_NS: u64 = 1_000_000;

/// Readers of cold ranges that have something to send.
#[derive(Default)]
pub(super) struct ColdTurns {
    waiting: VecDeque<ConnectionId>,
    /// No piece is sent before.
    resume_ns: u64,
    /// Others sent something since the last turn began.
    others_heard: bool,
    /// When others were heard of last. `None`: never.
    others_ns: Option<u64>,
    /// When the present turn began.
    pub turn_ns: u64,
}

impl ColdTurns {
    /// A turn begins: what others sent in the last one has been worked off, and is answered in this one.
    pub fn begin(&mut self, now_ns: u64) {
        self.turn_ns = now_ns;
        if std::mem::take(&mut self.others_heard) {
            self.others_ns = Some(now_ns);
        }
    }

    pub fn push(&mut self, id: ConnectionId) {
        self.waiting.push_back(id);
    }

    /// A connection that is no cold reader sent something.
    pub fn others_active(&mut self) {
        self.others_heard = true;
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Others are expected until then.
    fn expected_ns(&self) -> u64 {
        self.others_ns.map_or(0, |others_ns| others_ns + EXPECTED_NS)
    }

    /// Others are served in this turn, or not expected soon.
    fn fits(&self, now_ns: u64) -> bool {
        self.others_ns == Some(self.turn_ns) || now_ns >= self.expected_ns()
    }

    /// May somebody who waits send a piece now? Asks for the time only where somebody waits.
    pub fn is_due(&self, now_ns: impl FnOnce() -> u64) -> bool {
        !self.waiting.is_empty() && {
            let now_ns = now_ns();
            now_ns >= self.resume_ns && self.fits(now_ns)
        }
    }

    /// Who may send a piece now.
    pub fn next(&mut self, now_ns: u64) -> Option<ConnectionId> {
        if self.is_due(|| now_ns) { self.waiting.pop_front() } else { None }
    }

    /// Sending a piece took this time.
    pub fn worked(&mut self, from_ns: u64, to_ns: u64) {
        if self.others_ns.is_some_and(|others_ns| to_ns < others_ns + ACTIVE_NS) {
            self.resume_ns = to_ns + PAUSE_PER_WORK * (to_ns - from_ns);
        }
    }

    /// When somebody may send again, should others not come before. `None`: nobody wants to.
    pub fn wake_ns(&self) -> Option<u64> {
        (!self.waiting.is_empty()).then_some(self.resume_ns.max(self.expected_ns()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn id(slot: u32) -> ConnectionId {
        ConnectionId { slot, generation: 0 }
    }

    /// Two readers wait, and others were heard of in the turn that began at 100.
    fn beside_others() -> ColdTurns {
        let mut turns = ColdTurns::default();
        turns.push(id(1));
        turns.push(id(2));
        turns.others_active();
        turns.begin(100);
        turns
    }

    #[test]
    fn alone_they_are_served_without_a_pause() {
        let mut turns = ColdTurns::default();
        turns.push(id(1));
        turns.push(id(2));
        turns.begin(100);
        assert_eq!(turns.next(100), Some(id(1)));
        turns.worked(100, 200);
        assert_eq!(turns.next(200), Some(id(2)));
        turns.worked(200, 300);
        assert_eq!((turns.next(300), turns.wake_ns()), (None, None));
    }

    #[test]
    fn beside_others_each_piece_is_followed_by_a_pause_of_three_times_its_length() {
        let mut turns = beside_others();
        assert_eq!(turns.next(100), Some(id(1)));
        turns.worked(100, 200);
        for (now_ns, next) in [(200, None), (499, None), (500, Some(id(2)))] {
            turns.others_active();
            turns.begin(now_ns);
            assert_eq!(turns.next(now_ns), next, "{now_ns}");
        }
        let later = 500 + ACTIVE_NS;
        turns.begin(later);
        turns.worked(later, later + 100);
        turns.push(id(1));
        assert_eq!(turns.next(later + 100), Some(id(1)), "the others have been silent for long");
    }

    #[test]
    fn they_are_served_right_after_others_or_when_these_are_not_expected_soon() {
        let mut turns = beside_others();
        assert_eq!(turns.next(100), Some(id(1)));
        turns.worked(100, 200);
        turns.begin(600);
        assert_eq!((turns.next(600), turns.wake_ns()), (None, Some(100 + EXPECTED_NS)));
        turns.others_active();
        turns.begin(700);
        assert_eq!(turns.next(710), Some(id(2)));
        turns.worked(710, 810);
        turns.push(id(1));
        turns.begin(700 + EXPECTED_NS);
        assert_eq!(turns.next(700 + EXPECTED_NS), Some(id(1)));
    }
}
