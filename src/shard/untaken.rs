//! Replies that were made and that their peers have not taken: one budget of memory per shard.
//!
//! Above half of it, a peer that has not taken its last reply gets no further one; at all of it nobody does. Where that
//! lasts, the peers do not read: the connections that hold most are closed.

use super::Shard;
use super::connection::Connection;
use super::pressure::Lasting;
use crate::ids::Now;
use crate::io::Ring;
use crate::io::disk::Disk;
use crate::limits::{REPLIES_SIZE_MAX, REQUESTS_IN_FLIGHT_MAX, SEND_BACKLOG_MAX};
use crate::parts::Reply;

/// How long peers may leave the budget used up.
const FULL_NS_MAX: u64 = 500_000_000;

/// What all connections of a shard hold.
#[derive(Default)]
pub(super) struct Untaken {
    size: usize,
    full: Lasting,
}

impl Untaken {
    pub fn is_full(&self) -> bool {
        self.size >= REPLIES_SIZE_MAX
    }

    /// May one more reply be made for this connection?
    pub fn has_room(&self, connection: &Connection) -> bool {
        let fits = match self.size {
            0..=REPLIES_HALF => connection.untaken as u64 <= SEND_BACKLOG_MAX,
            _ => connection.untaken == 0 && !self.is_full(),
        };
        fits && connection.in_line() < REQUESTS_IN_FLIGHT_MAX
    }

    pub fn made(&mut self, connection: &mut Connection, size: usize) {
        connection.untaken += size;
        self.size += size;
    }

    pub fn taken(&mut self, connection: &mut Connection, reply: &Reply) {
        connection.untaken -= reply.memory();
        self.size -= reply.memory();
    }

    pub fn closed(&mut self, connection: &Connection) {
        self.size -= connection.untaken;
    }
}

const REPLIES_HALF: usize = REPLIES_SIZE_MAX / 2;

impl<I: Ring + Disk> Shard<I> {
    /// Closes the connections that hold most, when peers have left the budget used up for too long.
    pub(super) fn close_untaken(&mut self, now: Now) {
        self.untaken.full.note(self.untaken.is_full(), now);
        if self.untaken.full.ns(now) < FULL_NS_MAX {
            return;
        }
        self.untaken.full.note(false, now);
        let holders =
            self.connections.iter().flatten().map(|c| (c.untaken, c.id)).filter(|(size, _)| *size > 0).collect();
        let what = "of replies are not taken, and there is room for no more";
        self.close_largest(holders, self.untaken.size - REPLIES_HALF, what, now);
    }
}
