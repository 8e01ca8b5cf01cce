//! From a frame to its handler, and from the handler's outcome to the connection's line.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{Asked, Shard};
use crate::api::{self, Context, Handler, Outcome, ReplyTo, Request};
use crate::ids::{ConnectionId, Now, Waiter};
use crate::io::Ring;
use crate::io::disk::Disk;
use crate::mailbox::ControlAnswer;
use crate::wire::frame::RequestHeader;

/// Peers remembered for logging once a minute.
const PEERS_MAX: usize = 4096;

/// Malformed input is counted always, logged once per peer and minute.
#[derive(Default)]
pub struct MalformedLog {
    /// Connections closed for malformed input.
    pub count: u64,
    logged: HashMap<IpAddr, u64>,
}

impl MalformedLog {
    fn note(&mut self, peer: IpAddr, reason: &dyn std::fmt::Display, now: Now) {
        self.count += 1;
        let minute_ago = now.monotonic_ns.saturating_sub(60_000_000_000);
        if self.logged.get(&peer).is_some_and(|&at| at > minute_ago) {
            return;
        }
        if self.logged.len() >= PEERS_MAX {
            self.logged.retain(|_, &mut at| at > minute_ago);
        }
        if self.logged.len() < PEERS_MAX {
            self.logged.insert(peer, now.monotonic_ns.max(1));
        }
        log::warn!("{peer}: {reason}; connection closed ({} so far; logged once per peer and minute)", self.count);
    }
}

impl<I: Ring + Disk> Shard<I> {
    /// Closes a connection whose peer does not speak the protocol.
    pub(super) fn refuse(&mut self, id: ConnectionId, reason: &dyn std::fmt::Display, now: Now) {
        let Some(connection) = self.connection(id) else { return };
        let peer = connection.peer.ip();
        self.malformed.note(peer, reason, now);
        self.close(id);
    }

    /// Handles one whole frame. `index` and `start` name it among the buffers of this turn.
    pub(super) fn handle_frame(&mut self, id: ConnectionId, frame: &mut [u8], index: u32, start: usize, now: Now) {
        let (key, version, correlation_id, body_at) = match RequestHeader::parse(frame) {
            Ok((header, body_at)) => (header.api_key, header.api_version, header.correlation_id, body_at),
            Err(error) => return self.refuse(id, &error, now),
        };
        let Some(row) = api::find(key) else {
            return self.refuse(id, &format_args!("API key {key} is not served"), now);
        };
        let Some(connection) = self.connection(id) else { return };
        let peer = connection.peer;
        if !row.versions().contains(&version) {
            if key != kafka_protocol::messages::ApiKey::ApiVersions as i16 {
                let reason = format_args!("version {version} of API {:?} is not served", row.key);
                return self.refuse(id, &reason, now);
            }
            let waiter = connection.enter();
            let reply = api::api_versions::unsupported(&mut self.broker, waiter, correlation_id);
            return self.answer(waiter, reply);
        }
        let waiter = connection.enter();
        let to = ReplyTo { waiter, correlation_id, api: key, version };
        let mut context = Context { broker: &mut self.broker, disk: &mut self.io, now, peer };
        let outcome = match row.handler {
            Handler::Produce => api::produce::handle(&mut context, to, frame, body_at, (index, start as u32)),
            Handler::Fetch => api::fetch::handle(&mut context, to, frame, body_at),
            Handler::Plain(handle) => {
                // The header was read once; client ids are few bytes and wanted by few, so they are read again here.
                let client_id = RequestHeader::parse(frame).ok().and_then(|(h, _)| h.client_id).unwrap_or("");
                handle(&mut context, &Request { to, client_id, body: &frame[body_at..] })
            }
        };
        self.settle(id, to, outcome, now);
    }

    pub(super) fn settle(&mut self, id: ConnectionId, to: ReplyTo, outcome: Outcome, now: Now) {
        let waiter = to.waiter;
        match outcome {
            Outcome::Reply(reply) => self.answer(waiter, reply),
            Outcome::Silent => {
                if let Some(connection) = self.connection(id) {
                    connection.nothing(waiter);
                }
                self.send_ready(id.slot as usize);
            }
            Outcome::Later(None) => {}
            Outcome::PutOff(under_way) => self.put_off(id, under_way),
            Outcome::Later(Some(fetch)) => {
                if let Some(connection) = self.connection(id) {
                    connection.parked(waiter, fetch);
                }
            }
            Outcome::Ask(request, finish) => {
                let Some(peer) = self.connection(id).map(|c| c.peer) else { return };
                self.asked.insert(waiter, Asked { to, peer, finish });
                if !self.mailbox.ask(waiter, request) {
                    self.close(id);
                }
            }
            Outcome::Close => self.close(id),
            Outcome::Malformed(error) => self.refuse(id, &error, now),
        }
    }

    pub(super) fn control_answered(&mut self, waiter: Waiter, answer: ControlAnswer, now: Now) {
        let Some(Asked { to, peer, finish }) = self.asked.remove(&waiter) else { return };
        let mut context = Context { broker: &mut self.broker, disk: &mut self.io, now, peer };
        let outcome = finish(&mut context, to, answer);
        let slot = super::connection::slot_of(waiter) as usize;
        let Some(id) = self.connections.get(slot).and_then(|c| c.as_ref()).map(|c| c.id) else { return };
        self.settle(id, to, outcome, now);
    }

    /// Tells those who appended on the broker's own account how it ended.
    pub(super) fn appended(&mut self, now: Now) {
        while self.broker.group_appends_ended(now) {
            self.broker.flush_turn(&mut self.io, now);
        }
    }

    /// Goes on with the lookups whose turn has come, as far as the turn's budget allows.
    pub(super) fn end_lookups(&mut self) {
        let mut budget = api::list_offsets::turn_budget();
        while !budget.is_spent()
            && let Some(lookup) = self.broker.lookups.next_due()
        {
            // Nothing is searched for a peer that is gone.
            let slot = super::connection::slot_of(lookup.to.waiter) as usize;
            let connection = self.connections.get_mut(slot).and_then(Option::as_mut);
            if connection.is_some_and(|c| c.waits(lookup.to.waiter)) {
                api::list_offsets::go_on(&mut self.broker, &mut self.io, lookup, &mut budget);
            }
        }
    }

    /// Ends the fetches that were woken or whose time is up.
    pub(super) fn end_fetches(&mut self, now: Now) {
        while let Some(id) = self.broker.fetches.next_due(now.monotonic_ns) {
            api::fetch::evaluate_parked(&mut self.broker, &mut self.io, id, now);
        }
    }
}
