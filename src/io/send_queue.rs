//! Replies of one connection, in order, and how much of them the kernel has taken. Pure bookkeeping.

use std::collections::VecDeque;
use std::ops::Range;

use super::token::Op;
use crate::parts::{FileRange, Part, Reply};

/// A reader that had to wait for the device is taken for a cold one until so many bytes were in the page cache in a row.
const COLD_STRETCH: u64 = 4 * 1024 * 1024;

/// The next thing to send.
pub(super) enum Piece<'a> {
    Bytes(&'a [u8]),
    /// What is left of a file range.
    File(FileRange),
}

/// What waits on one connection.
#[derive(Default)]
pub(super) struct SendQueue {
    replies: VecDeque<Reply>,
    /// Part of the first reply that is being sent.
    part: usize,
    /// Bytes of that part that the kernel has taken.
    part_sent: u64,
    /// Replies in the queue that have files.
    with_files: usize,
    /// Bytes in the queue that the kernel has not taken.
    backlog: u64,
    /// Bytes the kernel has taken since the connection was opened.
    sent: u64,
    /// Bytes from here on that were read into the page cache for this connection. They are sent without asking again:
    /// two connections that read the same range would each find the other's read under way, and never send.
    read_ahead: u64,
    /// So many bytes more are taken for cold, since some before them were: those that follow are just being read.
    cold: u64,
    /// The one operation the kernel works on.
    in_flight: Option<Op>,
    /// Listed for the next `flush`.
    pub listed: bool,
}

/// Parts of a reply, counting one made only of bytes as having one.
fn part_count(reply: &Reply) -> usize {
    reply.parts.len().max(1)
}

fn bytes_of(reply: &Reply, part: usize) -> Option<Range<usize>> {
    match reply.parts.get(part) {
        None => Some(0..reply.bytes.len()),
        Some(Part::Bytes(range)) => Some(range.start as usize..range.end as usize),
        Some(Part::File(_)) => None,
    }
}

fn part_size(reply: &Reply, part: usize) -> u64 {
    match (bytes_of(reply, part), reply.parts.get(part)) {
        (Some(range), _) => range.len() as u64,
        (None, Some(Part::File(range))) => u64::from(range.size),
        (None, _) => 0,
    }
}

impl SendQueue {
    pub fn push(&mut self, reply: Reply) {
        self.backlog += (0..part_count(&reply)).map(|part| part_size(&reply, part)).sum::<u64>();
        self.with_files += usize::from(!reply.parts.is_empty());
        self.replies.push_back(reply);
    }

    pub fn is_idle(&self) -> bool {
        self.replies.is_empty() && self.in_flight.is_none()
    }
    pub fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }
    pub fn has_files(&self) -> bool {
        self.with_files > 0
    }
    pub fn backlog(&self) -> u64 {
        self.backlog
    }
    pub fn sent(&self) -> u64 {
        self.sent
    }
    pub fn read_ahead(&self) -> u64 {
        self.read_ahead
    }
    pub fn set_read_ahead(&mut self, count: u64) {
        self.read_ahead = count;
    }
    /// A range had to be read from the device.
    pub fn note_cold(&mut self) {
        self.cold = COLD_STRETCH;
    }
    /// Is the connection reading what has to be read from the device?
    pub fn is_cold(&self) -> bool {
        self.cold > 0
    }
    pub fn in_flight(&self) -> Option<Op> {
        self.in_flight
    }
    pub fn begin(&mut self, op: Op) {
        assert!(self.in_flight.is_none(), "one send operation at a time");
        self.in_flight = Some(op);
    }
    pub fn end(&mut self) {
        self.in_flight = None;
    }

    /// What goes out next. None: nothing waits. Parts of no bytes must have been passed by `advance`.
    pub fn next(&self) -> Option<Piece<'_>> {
        let reply = self.replies.front()?;
        match bytes_of(reply, self.part) {
            Some(range) => Some(Piece::Bytes(&reply.bytes[range][self.part_sent as usize..])),
            None => {
                let Some(Part::File(range)) = reply.parts.get(self.part) else {
                    unreachable!("a part is bytes or file")
                };
                let sent = self.part_sent;
                let (position, size) = (range.position + sent, range.size - sent as u32);
                Some(Piece::File(FileRange { file: range.file.clone(), position, size }))
            }
        }
    }

    /// The rest of the queue when all of it is bytes: slices, at most `count_max`.
    pub fn gather<'a>(&'a self, count_max: usize) -> impl Iterator<Item = &'a [u8]> {
        assert!(!self.has_files());
        let skip = self.part_sent as usize;
        let slice = move |(i, reply): (usize, &'a Reply)| if i == 0 { &reply.bytes[skip..] } else { &reply.bytes[..] };
        self.replies.iter().take(count_max).enumerate().map(slice)
    }

    /// Does more follow the current piece at once?
    pub fn more_follows(&self) -> bool {
        self.replies.len() > 1 || self.replies.front().is_some_and(|reply| self.part + 1 < part_count(reply))
    }

    /// The kernel took `count` bytes more. Replies that are out are handed to `done`.
    pub fn advance(&mut self, count: u64, mut done: impl FnMut(Reply)) {
        assert!(count <= self.backlog, "sent more than was queued");
        self.backlog -= count;
        self.sent += count;
        self.read_ahead = self.read_ahead.saturating_sub(count);
        self.cold = self.cold.saturating_sub(count);
        let mut left = count;
        while let Some(reply) = self.replies.front() {
            let rest = part_size(reply, self.part) - self.part_sent;
            if left < rest {
                self.part_sent += left;
                return;
            }
            left -= rest;
            (self.part, self.part_sent) = (self.part + 1, 0);
            if self.part >= part_count(reply) {
                self.part = 0;
                done(self.pop());
            }
        }
    }

    fn pop(&mut self) -> Reply {
        let reply = self.replies.pop_front().expect("not empty");
        self.with_files -= usize::from(!reply.parts.is_empty());
        reply
    }

    /// Drops what waits. While the kernel works on bytes of these replies they must stay: then nothing is dropped.
    pub fn drop_all(&mut self, mut done: impl FnMut(Reply)) {
        if self.in_flight.is_some() {
            return;
        }
        while !self.replies.is_empty() {
            done(self.pop());
        }
        (self.part, self.part_sent, self.backlog, self.read_ahead) = (0, 0, 0, 0);
    }

    /// Ready for the slot's next connection; says how many bytes were sent on this one.
    pub fn reset(&mut self) -> u64 {
        assert!(self.is_idle());
        (self.part, self.part_sent, self.backlog, self.read_ahead) = (0, 0, 0, 0);
        self.listed = false;
        std::mem::take(&mut self.sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Position;
    use crate::parts::OpenFile;

    /// A connection that was listed for a flush was closed, and its slot taken by the next client before that flush: the new
    /// one was never listed, so its replies never left.
    #[test]
    fn a_slot_used_again_is_not_listed() {
        let mut queue = SendQueue { listed: true, ..SendQueue::default() };
        queue.reset();
        assert!(!queue.listed);
    }

    fn bytes(bytes: &[u8]) -> Reply {
        let mut reply = Reply::default();
        reply.bytes.extend(bytes);
        reply
    }

    fn reply(head: &[u8], file_size: u32, tail: &[u8]) -> Reply {
        let mut reply = bytes(head);
        reply.push_file(FileRange { file: OpenFile::new(3), position: Position(100), size: file_size });
        reply.bytes.extend(tail);
        reply.finish();
        reply
    }

    #[test]
    fn pieces_come_in_order_and_partly() {
        let mut queue = SendQueue::default();
        queue.push(reply(b"head", 10, b"tail"));
        queue.push(bytes(b"next"));
        assert_eq!(queue.backlog(), 22);
        let mut done = 0;
        assert!(matches!(queue.next(), Some(Piece::Bytes(b"head"))) && queue.more_follows());
        queue.advance(1, |_| done += 1);
        assert!(matches!(queue.next(), Some(Piece::Bytes(b"ead"))));
        queue.advance(3, |_| done += 1);
        queue.advance(7, |_| done += 1);
        let Some(Piece::File(range)) = queue.next() else { panic!("a file") };
        assert_eq!((range.position, range.size), (Position(107), 3));
        queue.advance(3, |_| done += 1);
        assert!(matches!(queue.next(), Some(Piece::Bytes(b"tail"))) && done == 0);
        queue.advance(6, |_| done += 1);
        assert_eq!((done, queue.backlog(), queue.sent(), queue.has_files()), (1, 2, 20, false));
        assert_eq!(queue.gather(8).collect::<Vec<_>>(), [b"xt"]);
        assert!(!queue.more_follows());
        queue.advance(2, |_| done += 1);
        assert!(done == 2 && queue.is_idle() && queue.next().is_none());
    }

    #[test]
    fn an_empty_reply_and_an_empty_range_are_passed() {
        let (mut queue, mut done) = (SendQueue::default(), 0);
        queue.push(Reply::default());
        queue.push(reply(b"", 0, b""));
        queue.advance(0, |_| done += 1);
        assert_eq!((done, queue.backlog()), (2, 0));
    }

    #[test]
    fn replies_in_the_kernels_hands_are_not_dropped() {
        let (mut queue, mut done) = (SendQueue::default(), 0);
        queue.push(bytes(b"x"));
        queue.begin(Op::Send);
        queue.drop_all(|_| done += 1);
        assert_eq!(done, 0);
        queue.end();
        queue.drop_all(|_| done += 1);
        assert!(done == 1 && queue.is_idle() && queue.backlog() == 0);
    }
}
