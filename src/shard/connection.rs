//! One client: its place in line, so that replies leave in request order however they become ready, and how it receives.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::api::produce::UnderWay;
use crate::ids::FetchWaitId;
use crate::ids::{ConnectionId, Waiter};
use crate::io::ReceiveBuffer;
use crate::parts::Reply;

/// A request that has been accepted and not yet been answered, or whose reply waits for those before it.
enum Place {
    Waiting(Option<FetchWaitId>),
    Ready(Reply),
    /// No reply (acks=0).
    Nothing,
}

/// Why a connection does not receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paused {
    /// It does.
    No,
    /// Too many requests in line, or replies that the peer does not take.
    Room,
    /// Its produce request was put off: what follows must not overtake it.
    PutOff,
    /// The shard's budget for buffers is used up; the frame that has begun has this size, if it is known.
    Memory(Option<usize>),
}

/// One client's connection.
pub struct Connection {
    /// Its name.
    pub id: ConnectionId,
    /// Its address.
    pub peer: SocketAddr,
    /// When bytes last arrived (monotonic ns).
    pub active_ns: u64,
    /// Why nothing is received now.
    pub paused: Paused,
    /// Bytes that were received and not yet handled, while paused.
    pub held: Option<(ReceiveBuffer, usize)>,
    /// Its produce request that is not through; the frame is the first in `held`.
    pub put_off: Option<Box<UnderWay>>,
    /// Bytes of the buffer of its own that it receives into, or holds.
    pub reserved: usize,
    /// Memory of its replies, in line or on their way, that the kernel has not taken whole.
    pub untaken: usize,
    line: VecDeque<Place>,
    /// Number of the request at the front of the line.
    front: u16,
}

/// Names a request: connection slot, generation, number in its line.
fn waiter(id: ConnectionId, number: u16) -> Waiter {
    Waiter(u64::from(id.slot & 0xff_ffff) << 40 | u64::from(id.generation & 0xff_ffff) << 16 | u64::from(number))
}

/// The connection slot a waiter belongs to.
pub fn slot_of(waiter: Waiter) -> u32 {
    (waiter.0 >> 40) as u32
}

impl Connection {
    /// A connection just accepted.
    pub fn new(id: ConnectionId, peer: SocketAddr, now_ns: u64) -> Connection {
        let (paused, line) = (Paused::No, VecDeque::new());
        let (held, put_off) = (None, None);
        Connection { id, peer, active_ns: now_ns, paused, held, put_off, reserved: 0, untaken: 0, line, front: 0 }
    }

    /// Requests in line.
    pub fn in_line(&self) -> usize {
        self.line.len()
    }

    /// A request takes its place in line.
    pub fn enter(&mut self) -> Waiter {
        let number = self.front.wrapping_add(self.line.len() as u16);
        self.line.push_back(Place::Waiting(None));
        waiter(self.id, number)
    }

    fn place(&mut self, of: Waiter) -> Option<&mut Place> {
        if waiter(self.id, of.0 as u16) != of {
            return None;
        }
        let at = (of.0 as u16).wrapping_sub(self.front);
        self.line.get_mut(usize::from(at))
    }

    /// Is the request still in line?
    pub fn waits(&mut self, of: Waiter) -> bool {
        self.place(of).is_some()
    }

    /// The request is a parked fetch, to be forgotten when the connection closes.
    pub fn parked(&mut self, of: Waiter, fetch: FetchWaitId) {
        if let Some(place) = self.place(of) {
            *place = Place::Waiting(Some(fetch));
        }
    }

    /// The request gets no reply.
    pub fn nothing(&mut self, of: Waiter) {
        if let Some(place) = self.place(of) {
            *place = Place::Nothing;
        }
    }

    /// The request's reply. Given back if the request is not in line (its connection is another by now).
    pub fn ready(&mut self, of: Waiter, reply: Reply) -> Option<Reply> {
        match self.place(of) {
            Some(place) => {
                *place = Place::Ready(reply);
                None
            }
            None => Some(reply),
        }
    }

    /// The next reply that may leave.
    pub fn next_reply(&mut self) -> Option<Reply> {
        loop {
            if matches!(self.line.front()?, Place::Waiting(_)) {
                return None;
            }
            self.front = self.front.wrapping_add(1);
            if let Some(Place::Ready(reply)) = self.line.pop_front() {
                return Some(reply);
            }
        }
    }

    /// The connection is over: the fetches it had parked, and replies that will not leave.
    pub fn over(&mut self, mut parked: impl FnMut(FetchWaitId), mut reply: impl FnMut(Reply)) {
        for place in self.line.drain(..) {
            match place {
                Place::Waiting(Some(fetch)) => parked(fetch),
                Place::Ready(r) => reply(r),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        Connection::new(ConnectionId { slot: 3, generation: 9 }, "127.0.0.1:1".parse().unwrap(), 0)
    }
    fn reply(byte: u8) -> Reply {
        let mut reply = Reply::default();
        reply.bytes.push(byte);
        reply
    }

    #[test]
    fn replies_leave_in_request_order() {
        let mut c = connection();
        let (a, b, d) = (c.enter(), c.enter(), c.enter());
        assert!(c.ready(d, reply(3)).is_none());
        assert!(c.next_reply().is_none());
        c.nothing(a);
        assert!(c.next_reply().is_none());
        assert!(c.ready(b, reply(2)).is_none());
        assert_eq!(c.next_reply().unwrap().bytes, [2]);
        assert_eq!(c.next_reply().unwrap().bytes, [3]);
        assert_eq!(c.in_line(), 0);
    }

    #[test]
    fn numbers_wrap_and_strangers_are_turned_away() {
        let mut c = connection();
        for _ in 0..70_000 {
            let w = c.enter();
            assert!(c.ready(w, reply(0)).is_none());
            assert!(c.next_reply().is_some());
        }
        let mut other = Connection::new(ConnectionId { slot: 3, generation: 10 }, c.peer, 0);
        let theirs = other.enter();
        c.enter();
        assert!(c.ready(theirs, reply(1)).is_some(), "a reply for another generation of the slot");
    }
}
