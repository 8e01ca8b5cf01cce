//! From received bytes to frames, and what is received into next.
//!
//! An idle connection holds no memory: its receive takes one of the ring's small buffers when bytes come. A frame that is not
//! whole moves to a buffer of its own, reserved step by step as bytes really arrive. A connection that fills its buffer at
//! once is given a larger one, so that many frames come with one receive.

use super::connection::Paused;
use super::{Leftover, Rest, Shard};
use crate::ids::{ConnectionId, Now};
use crate::io::disk::Disk;
use crate::io::{ReceiveBuffer, Ring};
use crate::limits::{FRAME_RESERVE_MAX, SEND_BACKLOG_MAX, SMALL_BUFFER_SIZE};
use crate::wire::frame::{Frame, next_frame};

/// Given to a connection that filled a small buffer.
const STREAM_BUFFER_SIZE: usize = 256 * 1024;
/// Least memory for a frame that came in pieces.
const PIECE_BUFFER_SIZE: usize = 4 * 1024;

impl<I: Ring + Disk> Shard<I> {
    pub(super) fn received(&mut self, id: ConnectionId, buffer: ReceiveBuffer, filled: usize, now: Now) {
        let Some(connection) = self.connection(id) else {
            self.io.give_buffer(buffer);
            return;
        };
        connection.active_ns = now.monotonic_ns;
        connection.reserved = 0;
        self.handle_frames(id, buffer, 0, filled, now);
    }

    /// Handles the whole frames from `at` on.
    pub(super) fn handle_frames(
        &mut self,
        id: ConnectionId,
        mut buffer: ReceiveBuffer,
        mut at: usize,
        filled: usize,
        now: Now,
    ) {
        let frame_max = self.config.socket.request_bytes_max as usize;
        let index = self.broker.turn.next_buffer();
        let mut rest = Rest::Began(None);
        loop {
            if !self.has_room(id) {
                rest = Rest::NoRoom;
                break;
            }
            match next_frame(&buffer[at..filled], frame_max) {
                Ok(Frame::Whole(range)) => {
                    let range = at + range.start..at + range.end;
                    self.handle_frame(id, &mut buffer[range.clone()], index, range.start, now);
                    if self.connection(id).is_some_and(|c| c.put_off.is_some()) {
                        rest = Rest::PutOff;
                        break;
                    }
                    at = range.end;
                }
                Ok(Frame::NeedSize) => break,
                Ok(Frame::NeedBytes(size)) => {
                    rest = Rest::Began(Some(size));
                    break;
                }
                Err(error) => {
                    self.refuse(id, &error, now);
                    break;
                }
            }
        }
        self.broker.turn.push_received(buffer);
        self.leftovers.push(Leftover { connection: id, buffer: index, at, filled, rest });
    }

    /// After the turn's appends are written: takes the buffers back and posts the next receives.
    pub(super) fn continue_receiving(&mut self, now: Now) {
        let mut leftovers = std::mem::take(&mut self.leftovers);
        for leftover in leftovers.drain(..) {
            let Some(buffer) = self.broker.turn.take_received(leftover.buffer) else { continue };
            self.next_receive(leftover, buffer);
        }
        self.leftovers = leftovers;
        self.broker.turn.clear_buffers();
        self.resume(now);
    }

    fn has_room(&self, id: ConnectionId) -> bool {
        let of_slot = self.connections.get(id.slot as usize).and_then(Option::as_ref);
        of_slot.is_some_and(|c| c.id == id && self.untaken.has_room(c))
    }

    fn may_receive(&self, id: ConnectionId) -> bool {
        !self.stopping && self.has_room(id) && self.io.send_backlog(id) <= SEND_BACKLOG_MAX
    }

    fn next_receive(&mut self, leftover: Leftover, mut buffer: ReceiveBuffer) {
        let Leftover { connection: id, at, filled, .. } = leftover;
        if self.connection(id).is_none() {
            self.io.give_buffer(buffer);
            return;
        }
        let rest = filled - at;
        // Replies may have made room since: what follows is gone on with at once then, but as what it is.
        let frame_size = match leftover.rest {
            Rest::PutOff => return self.pause(id, buffer, at..filled, Paused::PutOff),
            Rest::Began(frame_size) if self.may_receive(id) => frame_size,
            _ => return self.pause(id, buffer, at..filled, Paused::Room),
        };
        let was_full = filled == buffer.len();
        if rest == 0 {
            let streaming = was_full || (!buffer.is_small() && filled >= SMALL_BUFFER_SIZE);
            if streaming && buffer.is_small() {
                self.io.give_buffer(buffer);
                let larger = self.io.take_buffer(STREAM_BUFFER_SIZE).filter(ReceiveBuffer::may_wait);
                self.receive(id, larger.map(|larger| (larger, 0)));
            } else if streaming && buffer.may_wait() {
                self.receive(id, Some((buffer, 0)));
            } else {
                self.io.give_buffer(buffer);
                self.receive(id, None);
            }
            return;
        }
        let wanted = frame_size.unwrap_or(0);
        if buffer.is_small() || wanted > buffer.len() {
            // No more is reserved than a first step, or twice what has really come: a peer's word costs nothing.
            let least = if was_full { STREAM_BUFFER_SIZE } else { PIECE_BUFFER_SIZE };
            let size = wanted.min(FRAME_RESERVE_MAX.max(2 * rest)).max(least);
            match self.io.take_larger_buffer(&buffer, size) {
                Some(mut larger) => {
                    larger[..rest].copy_from_slice(&buffer[at..filled]);
                    self.io.give_buffer(buffer);
                    self.receive(id, Some((larger, rest)));
                }
                None => self.pause(id, buffer, at..filled, Paused::Memory(frame_size)),
            }
            return;
        }
        buffer.copy_within(at..filled, 0);
        self.receive(id, Some((buffer, rest)));
    }

    fn receive(&mut self, id: ConnectionId, into: Option<(ReceiveBuffer, usize)>) {
        if let Some(connection) = self.connection(id) {
            connection.reserved = into.as_ref().map_or(0, |(buffer, _)| buffer.len());
        }
        self.io.receive(id, into);
    }

    /// Stops receiving for now; what has come is kept.
    fn pause(&mut self, id: ConnectionId, mut buffer: ReceiveBuffer, unhandled: std::ops::Range<usize>, why: Paused) {
        let rest = unhandled.len();
        if unhandled.start > 0 {
            buffer.copy_within(unhandled, 0);
        }
        if rest > 0
            && let Some(aside) = self.io.set_aside(&buffer, rest)
        {
            self.io.give_buffer(std::mem::replace(&mut buffer, aside));
        }
        let Some(connection) = self.connection(id) else {
            self.io.give_buffer(buffer);
            return;
        };
        connection.paused = why;
        if rest > 0 {
            connection.reserved = if buffer.is_small() { 0 } else { buffer.len() };
            connection.held = Some((buffer, rest));
        } else {
            self.io.give_buffer(buffer);
        }
        if why != Paused::PutOff {
            self.starved.push(id);
        }
    }

    /// Lets connections go on that may receive again. Those that wait for room are named again when a reply of theirs leaves;
    /// while the memory for replies is used up, all are asked about.
    fn resume(&mut self, now: Now) {
        let mut starved = std::mem::take(&mut self.starved);
        let (mut waiting, mut went_on) = (false, false);
        for id in starved.drain(..) {
            let (may, full) = (self.may_receive(id), self.untaken.is_full());
            let Some(connection) = self.connection(id) else { continue };
            match connection.paused {
                Paused::Room if may => {
                    connection.paused = Paused::No;
                    match connection.held.take() {
                        Some((buffer, filled)) => self.received(id, buffer, filled, now),
                        None => self.receive(id, None),
                    }
                }
                Paused::Memory(frame_size) => {
                    connection.paused = Paused::No;
                    match connection.held.take() {
                        Some((buffer, filled)) => {
                            let rest = Rest::Began(frame_size);
                            let leftover = Leftover { connection: id, buffer: 0, at: 0, filled, rest };
                            self.next_receive(leftover, buffer);
                        }
                        None => self.receive(id, None),
                    }
                    let waits_still = self.connection(id).is_some_and(|c| matches!(c.paused, Paused::Memory(_)));
                    (waiting, went_on) = (waiting || waits_still, went_on || !waits_still);
                }
                Paused::Room if full => self.starved.push(id),
                _ => {}
            }
        }
        starved.append(&mut self.starved);
        self.starved = starved;
        // Work on a request that was put off will give its buffer back.
        self.stuck.note(waiting && !went_on && self.put_off.is_empty(), now);
    }

    /// Some connection waits for memory or room: the loop must not sleep long.
    pub(super) fn someone_starves(&self) -> bool {
        !self.starved.is_empty()
    }

    /// Frames were handled after this turn's flush: the next turn must come at once.
    pub(super) fn has_leftovers(&self) -> bool {
        !self.leftovers.is_empty()
    }
}
