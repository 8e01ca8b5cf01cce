//! Produce requests whose batches take more work than one turn has time for (`partition/records_work.rs`). Their frames stay in the
//! buffers they came in, nothing more is handled of their connections meanwhile, and they are gone on with one after the other.

use super::connection::Paused;
use super::{Leftover, Rest, Shard};
use crate::api::produce::{self, UnderWay};
use crate::api::{Context, Outcome};
use crate::broker::turn::RECORDS_WORK_NS;
use crate::ids::{ConnectionId, Now};
use crate::io::disk::Disk;
use crate::io::{ReceiveBuffer, Ring};
use crate::storage::Budget;
use crate::wire::frame::{Frame, next_frame};

impl<I: Ring + Disk> Shard<I> {
    /// A request is put off, behind the others.
    pub(super) fn put_off(&mut self, id: ConnectionId, mut under_way: Box<UnderWay>) {
        if !self.put_off.is_empty() {
            under_way.forget_work();
        }
        match self.connection(id) {
            Some(connection) => {
                connection.put_off = Some(under_way);
                self.put_off.push_back(id);
            }
            None => under_way.drop_reply(&mut self.broker),
        }
    }

    /// Goes on with those that were put off, as far as the turn's budget allows.
    pub(super) fn go_on_with_put_off(&mut self, now: Now) {
        let mut budget = Budget::new(RECORDS_WORK_NS);
        while !budget.is_spent()
            && let Some(id) = self.put_off.pop_front()
        {
            let Some(connection) = self.connection(id) else { continue };
            let Some(held) = connection.held.take() else {
                // It was put off after this turn's appends: its buffer is among those of the next.
                self.put_off.push_front(id);
                return;
            };
            connection.paused = Paused::No;
            if let Some(under_way) = connection.put_off.take() {
                self.go_on_with(id, under_way, held, &mut budget, now);
            }
        }
    }

    fn go_on_with(
        &mut self,
        id: ConnectionId,
        under_way: Box<UnderWay>,
        (mut buffer, filled): (ReceiveBuffer, usize),
        budget: &mut Budget,
        now: Now,
    ) {
        let frame_max = self.config.socket.request_bytes_max as usize;
        let Ok(Frame::Whole(range)) = next_frame(&buffer[..filled], frame_max) else {
            unreachable!("a frame that was put off is whole");
        };
        let Some(peer) = self.connection(id).map(|c| c.peer) else { return };
        let (index, to) = (self.broker.turn.next_buffer(), under_way.to());
        let mut context = Context { broker: &mut self.broker, disk: &mut self.io, now, peer };
        let at = (index, range.start as u32);
        match produce::go_on(&mut context, under_way, &mut buffer[range.clone()], at, budget) {
            // It is the first still.
            Outcome::PutOff(under_way) => {
                if let Some(connection) = self.connection(id) {
                    connection.put_off = Some(under_way);
                }
                self.put_off.push_front(id);
                self.broker.turn.push_received(buffer);
                self.leftovers.push(Leftover { connection: id, buffer: index, at: 0, filled, rest: Rest::PutOff });
            }
            outcome => {
                self.settle(id, to, outcome, now);
                self.handle_frames(id, buffer, range.end, filled, now);
            }
        }
    }
}
