//! JoinGroup and the rebalance it drives: who may join, when the join phase ends, who leads. Pure: a group, an input and
//! the time make replies, records and deadlines. The order of checks is Kafka's, because clients see which error wins.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::messages::{JoinGroupRequest, SyncGroupResponse};
use kafka_protocol::protocol::StrBytes;

use super::classic::{Group, JoinTimer, Member, State, Terms, join_error, join_reply, protocol_bytes, sync_error};
use super::outcome::{StaticRejoin, Then, Turn};
use super::{Caller, NEVER, own, timer_ms};
use crate::ids::ReplyTo;
use crate::wire::ErrorCode;

/// How much of a client's name goes into its member id.
const MEMBER_ID_PREFIX_CHARS_MAX: usize = 1_000;

/// JoinGroup as this coordinator keeps it: owned copies, one entry per protocol name.
pub(super) struct Joining {
    pub member_id: StrBytes,
    pub instance_id: Option<StrBytes>,
    pub protocol_type: StrBytes,
    pub terms: Terms,
    pub reason: StrBytes,
    to: ReplyTo,
}

impl Joining {
    pub fn new(caller: &Caller, request: &JoinGroupRequest) -> Joining {
        let mut seen = BTreeSet::new();
        let named_first = request.protocols.iter().filter(|protocol| seen.insert(&protocol.name));
        let protocols: Vec<(StrBytes, Bytes)> =
            named_first.map(|protocol| (own(&protocol.name), Bytes::copy_from_slice(&protocol.metadata))).collect();
        Joining {
            member_id: own(&request.member_id),
            instance_id: request.group_instance_id.as_deref().map(own),
            protocol_type: own(&request.protocol_type),
            terms: Terms {
                protocols,
                // Version 0 knows one timeout only.
                rebalance_timeout_ms: if caller.to.version == 0 {
                    request.session_timeout_ms
                } else {
                    request.rebalance_timeout_ms
                },
                session_timeout_ms: request.session_timeout_ms,
            },
            reason: request.reason.as_deref().map_or_else(|| StrBytes::from_static_str("not provided"), own),
            to: caller.to,
        }
    }

    /// How much more memory this request asks for than its member holds already.
    pub fn growth(&self, group: Option<&Group>) -> usize {
        let by_instance =
            |group: &Group| self.instance_id.as_ref().and_then(|id| group.static_members.get(id).cloned());
        let member = group
            .and_then(|group| group.members.get(&self.member_id).or_else(|| group.members.get(&by_instance(group)?)));
        match member {
            Some(member) => protocol_bytes(&self.terms.protocols).saturating_sub(protocol_bytes(&member.protocols)),
            None => protocol_bytes(&self.terms.protocols).max(1),
        }
    }

    fn refuse(&self, member_id: &StrBytes, error: ErrorCode, turn: &mut Turn) {
        turn.reply(self.to, join_reply(self.to.version, join_error(member_id, error)));
    }
}

impl Group {
    pub fn join(&mut self, caller: &Caller, joining: Joining, turn: &mut Turn) {
        let nobody = StrBytes::default();
        if !self.has_room_for(&joining.member_id, turn) {
            // The last to rejoin a group that shrank below its size is pushed out here.
            if let Some(member) = self.remove(&joining.member_id) {
                answer_removed(member, ErrorCode::GroupMaxSizeReached, turn);
            }
            joining.refuse(&nobody, ErrorCode::GroupMaxSizeReached, turn);
            self.complete_if_all_joined(turn);
        } else if !self.supports(&joining.protocol_type, &joining.terms.protocols) {
            joining.refuse(&joining.member_id.clone(), ErrorCode::InconsistentGroupProtocol, turn);
        } else if joining.member_id.is_empty() {
            self.join_unknown(caller, joining, turn);
        } else if self.pending_members().contains_key(&joining.member_id) {
            if joining.instance_id.is_some() {
                // Ids are only handed out in advance to members without an instance id: this client is broken.
                joining.refuse(&joining.member_id.clone(), ErrorCode::UnknownServerError, turn);
            } else {
                self.admit(caller, joining.member_id.clone(), joining, turn);
            }
        } else if let Err(error) = self.check_member(&joining.member_id, joining.instance_id.as_ref()) {
            joining.refuse(&joining.member_id.clone(), error, turn);
        } else {
            self.rejoin(joining, turn);
        }
    }

    fn has_room_for(&self, member_id: &StrBytes, turn: &Turn) -> bool {
        let size_max = turn.config.group_size_max;
        match self.state {
            State::Empty => true,
            // Those who wait already count, not those who may never come back.
            State::PreparingRebalance => {
                self.members.get(member_id).is_some_and(|member| member.joining.is_some()) || self.joining() < size_max
            }
            State::CompletingRebalance | State::Stable => {
                self.members.contains_key(member_id) || self.members.len() < size_max
            }
        }
    }

    fn join_unknown(&mut self, caller: &Caller, joining: Joining, turn: &mut Turn) {
        let prefix = joining.instance_id.as_deref().unwrap_or(caller.client_id);
        // A string of the protocol ends at 32,767 bytes: a name that long leaves no room for the id.
        let prefix: String = prefix.chars().take(MEMBER_ID_PREFIX_CHARS_MAX).collect();
        let member_id = StrBytes::from_string(format!("{prefix}-{}", (turn.new_id)().hyphenated()));
        let existing = joining.instance_id.as_ref().and_then(|id| self.static_members.get(id).cloned());
        match existing {
            Some(old_member_id) => self.replace_static(old_member_id, member_id, joining, turn),
            None if joining.instance_id.is_none() && caller.to.version >= 4 => {
                let deadline_ms = timer_ms(turn.now) + i64::from(joining.terms.session_timeout_ms);
                self.add_pending(member_id.clone(), deadline_ms);
                joining.refuse(&member_id, ErrorCode::MemberIdRequired, turn);
            }
            None => self.admit(caller, member_id, joining, turn),
        }
    }

    fn admit(&mut self, caller: &Caller, member_id: StrBytes, joining: Joining, turn: &mut Turn) {
        if self.state == State::PreparingRebalance && self.previous_state == Some(State::Empty) {
            self.new_member_added = true;
        }
        let reason = format!("member {member_id} joins: {}", joining.reason);
        let member = Member {
            id: member_id,
            instance_id: joining.instance_id,
            client_id: own(caller.client_id),
            client_host: own(caller.client_host),
            rebalance_timeout_ms: joining.terms.rebalance_timeout_ms,
            session_timeout_ms: joining.terms.session_timeout_ms,
            protocols: joining.terms.protocols,
            assignment: Bytes::new(),
            is_new: true,
            joining: Some(joining.to),
            syncing: None,
            deadline_ms: timer_ms(turn.now) + turn.config.new_member_join_timeout_ms,
        };
        self.add(member, &joining.protocol_type);
        self.rebalance_or_complete(&reason, turn);
    }

    fn rejoin(&mut self, joining: Joining, turn: &mut Turn) {
        let member_id = joining.member_id.clone();
        let changed = self.members.get(&member_id).is_some_and(|member| member.protocols != joining.terms.protocols);
        let rebalance = match self.state {
            State::PreparingRebalance => true,
            // Else it may just not have seen the reply to its last JoinGroup.
            State::CompletingRebalance => changed,
            // The leader rejoins when something changed that members' metadata does not show, such as partitions.
            State::Stable => changed || self.is_leader(&member_id),
            State::Empty => {
                joining.refuse(&member_id, ErrorCode::UnknownMemberId, turn);
                return;
            }
        };
        if rebalance {
            let reason = format!("member {member_id} rejoins: {}", joining.reason);
            self.update(&member_id, joining, turn);
            self.rebalance_or_complete(&reason, turn);
        } else {
            let response = self.generation_response(&member_id);
            turn.reply(joining.to, join_reply(joining.to.version, response));
        }
    }

    /// Takes over a member's new terms and parks its request; one that was parked before is answered, not forgotten.
    fn update(&mut self, member_id: &StrBytes, joining: Joining, turn: &mut Turn) {
        let mut before = None;
        self.change(member_id, |member| {
            member.accept(joining.terms);
            before = member.joining.replace(joining.to);
        });
        if let Some(before) = before {
            let response = join_error(member_id, ErrorCode::RebalanceInProgress);
            turn.reply(before, join_reply(before.version, response));
        }
    }

    /// A static member is back under a new id. If nothing that matters changed, it takes its old place without a rebalance.
    fn replace_static(&mut self, old_id: StrBytes, new_id: StrBytes, joining: Joining, turn: &mut Turn) {
        let old_leader = self.leader.clone();
        let Some(old_terms) = self.rename_static(&old_id, &new_id, turn) else { return };
        let version = joining.to.version;
        let reason = format!("static member {new_id} returns: {}", joining.reason);
        let instance_id = joining.instance_id.clone().unwrap_or_default();
        self.update(&new_id, joining, turn);
        match self.state {
            State::Stable if self.select_protocol() == self.protocol => {
                let record = self.record(|member| member.assignment.clone());
                let then = Then::StaticRejoined(Box::new(StaticRejoin {
                    group: self.id.clone(),
                    instance_id,
                    member_id: new_id,
                    old_member_id: old_id,
                    old_terms,
                    old_leader,
                    version,
                }));
                turn.append(self.partition, vec![record], then);
            }
            State::Stable => self.rebalance_or_complete(&reason, turn),
            // The leader may assign to the old id at this moment: start over.
            State::CompletingRebalance => self.prepare_rebalance(&reason, turn),
            State::PreparingRebalance | State::Empty => self.complete_if_all_joined(turn),
        }
    }

    /// Gives a static member a new id and fences whoever still waits under the old one. Returns its terms before.
    fn rename_static(&mut self, old_id: &StrBytes, new_id: &StrBytes, turn: &mut Turn) -> Option<Terms> {
        let was_leader = self.is_leader(old_id);
        let owed_sync = self.pending_sync.contains(old_id);
        let mut member = self.remove(old_id)?;
        let terms = member.terms();
        if let Some(to) = member.joining.take() {
            let response = join_error(old_id, ErrorCode::FencedInstanceId);
            turn.reply(to, join_reply(to.version, response));
        }
        if let Some(to) = member.syncing.take() {
            turn.reply(to, super::Reply::SyncGroup(sync_error(ErrorCode::FencedInstanceId)));
        }
        member.id = new_id.clone();
        member.is_new = false;
        member.deadline_ms = timer_ms(turn.now) + i64::from(member.session_timeout_ms);
        let protocol_type = self.protocol_type.clone().unwrap_or_default();
        if was_leader {
            self.leader = Some(new_id.clone());
        }
        if owed_sync {
            self.pending_sync.insert(new_id.clone());
        }
        self.add(member, &protocol_type);
        Some(terms)
    }

    pub fn static_rejoined(&mut self, rejoin: StaticRejoin, result: Result<(), ErrorCode>, turn: &mut Turn) {
        let StaticRejoin { member_id, old_member_id, old_leader, version, .. } = rejoin;
        if let Err(error) = result {
            let mut response = self.generation_response(&member_id);
            response.error_code = error.code();
            response.member_id = StrBytes::default();
            response.members.clear();
            response.leader = old_leader.unwrap_or_default();
            self.answer_join(&member_id, response, turn);
            if self.static_members.get(&rejoin.instance_id) == Some(&member_id) {
                self.rename_static(&member_id, &old_member_id, turn);
                self.change(&old_member_id, |member| member.accept(rejoin.old_terms));
                self.renew_session(&old_member_id, turn);
            }
            return;
        }
        if self.state != State::Stable {
            // A rebalance began meanwhile; the member waits for its end.
            return;
        }
        let mut response = self.generation_response(&member_id);
        if version >= 9 {
            // It may lead without assigning anew, and needs the members to keep watching topics for them.
            response.skip_assignment = self.is_leader(&member_id);
        } else {
            // Older clients would assign anew if they saw themselves lead.
            response.leader = old_leader.unwrap_or_default();
            response.members.clear();
        }
        self.answer_join(&member_id, response, turn);
    }

    // --- the rebalance

    pub fn rebalance_or_complete(&mut self, reason: &str, turn: &mut Turn) {
        if self.state == State::PreparingRebalance {
            self.complete_if_all_joined(turn);
        } else {
            self.prepare_rebalance(reason, turn);
        }
    }

    pub fn prepare_rebalance(&mut self, reason: &str, turn: &mut Turn) {
        if self.state == State::CompletingRebalance {
            // Those who wait for their assignment must rejoin.
            self.hand_out(|_| Bytes::new(), Some(ErrorCode::RebalanceInProgress), turn);
        }
        self.pending_sync.clear();
        self.sync_deadline_ms = NEVER;
        let initial = self.state == State::Empty;
        log::info!("group {} rebalances after generation {}: {reason}", self.id, self.generation);
        self.transition(State::PreparingRebalance, turn);
        if initial {
            let delay_ms = turn.config.initial_rebalance_delay_ms;
            let remaining_ms = (self.rebalance_timeout_ms() - delay_ms).max(0);
            let deadline_ms = timer_ms(turn.now) + delay_ms;
            self.set_join_timer(JoinTimer::Initial { deadline_ms, delay_ms, remaining_ms });
        } else if self.all_members_joined() {
            self.complete_join(turn);
        } else {
            self.await_members(turn);
        }
    }

    fn await_members(&mut self, turn: &mut Turn) {
        // At least a moment, so that a timeout of zero cannot keep the caller busy for ever.
        let deadline_ms = timer_ms(turn.now) + self.rebalance_timeout_ms().max(1);
        self.set_join_timer(JoinTimer::Rebalance { deadline_ms });
    }

    pub fn complete_if_all_joined(&mut self, turn: &mut Turn) {
        let initial = self.previous_state == Some(State::Empty);
        if self.state == State::PreparingRebalance && !initial && self.all_members_joined() {
            self.complete_join(turn);
        }
    }

    pub fn join_timer_fired(&mut self, timer: JoinTimer, turn: &mut Turn) {
        self.join_timer = None;
        match timer {
            JoinTimer::Initial { delay_ms, remaining_ms, .. } if self.new_member_added && remaining_ms > 0 => {
                self.new_member_added = false;
                let next_ms = turn.config.initial_rebalance_delay_ms.min(remaining_ms);
                self.set_join_timer(JoinTimer::Initial {
                    deadline_ms: timer_ms(turn.now) + next_ms,
                    delay_ms: next_ms,
                    remaining_ms: (remaining_ms - delay_ms).max(0),
                });
            }
            _ => self.complete_join(turn),
        }
    }

    /// Ends the join phase: whoever is not here is out (static members keep their place), and a generation begins.
    pub fn complete_join(&mut self, turn: &mut Turn) {
        self.join_timer = None;
        let absent = |member: &&Member| member.joining.is_none() && member.instance_id.is_none();
        let removed: Vec<StrBytes> = self.members.values().filter(absent).map(|member| member.id.clone()).collect();
        for member_id in &removed {
            if let Some(member) = self.remove(member_id) {
                answer_removed(member, ErrorCode::UnknownMemberId, turn);
            }
        }
        if !removed.is_empty() {
            log::info!("group {} drops {} members that did not rejoin in time", self.id, removed.len());
        }
        if !self.members.is_empty() && !self.elect_joined_leader() {
            // Only static members are left and none is here: wait until one returns or its session ends.
            self.await_members(turn);
            return;
        }
        self.begin_generation(turn);
    }

    fn elect_joined_leader(&mut self) -> bool {
        let joined = |member: &Member| member.joining.is_some();
        if self.leader.as_ref().and_then(|id| self.members.get(id)).is_some_and(joined) {
            return true;
        }
        match self.members.values().find(|member| joined(member)) {
            Some(member) => {
                self.leader = Some(member.id.clone());
                true
            }
            None => false,
        }
    }

    fn begin_generation(&mut self, turn: &mut Turn) {
        self.generation = self.generation.wrapping_add(1).max(0);
        self.new_member_added = false;
        self.pending_sync.clear();
        if self.members.is_empty() {
            self.protocol = None;
            self.refresh_subscribed_topics();
            self.transition(State::Empty, turn);
            log::info!("group {} is empty at generation {}", self.id, self.generation);
            let record = self.record(|_| Bytes::new());
            turn.append(self.partition, vec![record], Then::Settled);
            return;
        }
        self.protocol = self.select_protocol();
        self.refresh_subscribed_topics();
        self.transition(State::CompletingRebalance, turn);
        log::info!("group {} forms generation {} with {} members", self.id, self.generation, self.members.len());
        let member_ids: Vec<StrBytes> = self.members.keys().cloned().collect();
        for member_id in member_ids {
            let response = self.generation_response(&member_id);
            self.answer_join(&member_id, response, turn);
            self.renew_session(&member_id, turn);
            if let Some(member) = self.members.get_mut(&member_id) {
                member.is_new = false;
            }
            self.pending_sync.insert(member_id);
        }
        self.set_sync_deadline(timer_ms(turn.now) + self.rebalance_timeout_ms());
    }
}

/// Whoever is put out of a group while it waits is told so.
pub(super) fn answer_removed(member: Member, error: ErrorCode, turn: &mut Turn) {
    if let Some(to) = member.joining {
        let response = join_error(&StrBytes::default(), error);
        turn.reply(to, join_reply(to.version, response));
    }
    if let Some(to) = member.syncing {
        turn.reply(to, super::Reply::SyncGroup(SyncGroupResponse::default().with_error_code(error.code())));
    }
}
