//! One group: its members, the protocols they have in common, its state and its committed offsets. Only data and the rules
//! that keep it consistent live here; what requests do to it is in `join`, `session` and `offsets`.
//!
//! Invariants: `protocol_counts` counts each member's protocols once; `joining` is the number of members with a parked
//! JoinGroup; `member_bytes` is the sum of `Member::bytes`; no deadline is earlier than `wanted_ms`. Strings and bytes kept
//! here are copies: a slice of a request would keep its whole frame alive.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{JoinGroupResponse, SyncGroupResponse};
use kafka_protocol::protocol::StrBytes;

use super::offsets::Offsets;
use super::outcome::{Reply, Turn};
use super::record::{GroupValue, MemberValue, Record, group_key, subscribed_topics};
use super::{NEVER, own, timer_ms};
use crate::ids::ReplyTo;
use crate::wire::ErrorCode;

/// Protocol type of ordinary consumers; the only one whose subscriptions we can read.
pub const CONSUMER: &str = "consumer";

/// Rough cost of the containers around a group, a member, a pending member: what a flood of empty ones would take.
const GROUP_BYTES: usize = 768;
const MEMBER_BYTES: usize = 512;
const PENDING_BYTES: usize = 160;

pub(super) fn protocol_bytes(protocols: &[(StrBytes, Bytes)]) -> usize {
    protocols.iter().map(|(name, metadata)| 96 + name.len() + metadata.len()).sum()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::PreparingRebalance => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }
}

#[derive(Debug)]
pub(super) struct Member {
    pub id: StrBytes,
    pub instance_id: Option<StrBytes>,
    pub client_id: StrBytes,
    pub client_host: StrBytes,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    /// Name and metadata, in the member's order of preference; no name twice.
    pub protocols: Vec<(StrBytes, Bytes)>,
    pub assignment: Bytes,
    /// Has not been in any generation yet: it cannot send heartbeats, so only `new_member_join_timeout_ms` bounds its wait.
    pub is_new: bool,
    pub joining: Option<ReplyTo>,
    pub syncing: Option<ReplyTo>,
    /// When its session ends; `NEVER` while a parked request stands in for heartbeats.
    pub deadline_ms: i64,
}

/// What a member brings along when it joins.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub protocols: Vec<(StrBytes, Bytes)>,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
}

impl Member {
    pub fn terms(&self) -> Terms {
        Terms {
            protocols: self.protocols.clone(),
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            session_timeout_ms: self.session_timeout_ms,
        }
    }

    pub fn accept(&mut self, terms: Terms) {
        self.protocols = terms.protocols;
        self.rebalance_timeout_ms = terms.rebalance_timeout_ms;
        self.session_timeout_ms = terms.session_timeout_ms;
    }

    pub fn bytes(&self) -> usize {
        // The id is held three times: as key, in the member, and in the timer or the set of members that owe a sync.
        MEMBER_BYTES
            + 3 * self.id.len()
            + 2 * self.instance_id.as_ref().map_or(0, |id| id.len())
            + self.client_id.len()
            + self.client_host.len()
            + protocol_bytes(&self.protocols)
            + self.assignment.len()
    }

    pub fn metadata(&self, protocol: &StrBytes) -> Option<&Bytes> {
        self.protocols.iter().find(|(name, _)| name == protocol).map(|(_, metadata)| metadata)
    }

    /// A member that waits for the group, rather than the group for it, owes no heartbeat.
    pub fn heartbeat_is_excused(&self) -> bool {
        !self.is_new && (self.joining.is_some() || self.syncing.is_some())
    }
}

/// What ends the join phase.
#[derive(Clone, Copy, Debug)]
pub(super) enum JoinTimer {
    /// First rebalance of an empty group: wait for more members in steps, as long as new ones keep coming.
    Initial {
        deadline_ms: i64,
        delay_ms: i64,
        remaining_ms: i64,
    },
    Rebalance {
        deadline_ms: i64,
    },
}

impl JoinTimer {
    pub fn deadline_ms(self) -> i64 {
        match self {
            JoinTimer::Initial { deadline_ms, .. } | JoinTimer::Rebalance { deadline_ms } => deadline_ms,
        }
    }
}

#[derive(Debug)]
pub(super) struct Group {
    pub id: StrBytes,
    /// The partition of `__consumer_offsets` that keeps this group.
    pub partition: i32,
    pub state: State,
    pub previous_state: Option<State>,
    pub current_state_ms: Option<i64>,
    pub protocol_type: Option<StrBytes>,
    pub protocol: Option<StrBytes>,
    pub generation: i32,
    pub leader: Option<StrBytes>,
    pub members: BTreeMap<StrBytes, Member>,
    pub static_members: BTreeMap<StrBytes, StrBytes>,
    /// Ids handed out with MEMBER_ID_REQUIRED and not joined yet, and when they lapse.
    pending_members: BTreeMap<StrBytes, i64>,
    /// Members of this generation that have not sent SyncGroup yet.
    pub pending_sync: BTreeSet<StrBytes>,
    pub new_member_added: bool,
    pub join_timer: Option<JoinTimer>,
    pub sync_deadline_ms: i64,
    /// None: not a consumer group, or a subscription could not be read.
    pub subscribed_topics: Option<BTreeSet<StrBytes>>,
    pub offsets: Offsets,
    protocol_counts: BTreeMap<StrBytes, usize>,
    joining: usize,
    member_bytes: usize,
    pending_bytes: usize,
    wanted_ms: i64,
    /// Under which deadline `Groups` has this group listed; its business alone.
    pub armed_ms: i64,
}

impl Group {
    pub fn new(id: StrBytes, partition: i32, now_wall_ms: i64) -> Group {
        Group {
            id,
            partition,
            state: State::Empty,
            previous_state: None,
            current_state_ms: Some(now_wall_ms),
            protocol_type: None,
            protocol: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_members: BTreeMap::new(),
            pending_sync: BTreeSet::new(),
            new_member_added: false,
            join_timer: None,
            sync_deadline_ms: NEVER,
            subscribed_topics: None,
            offsets: Offsets::default(),
            protocol_counts: BTreeMap::new(),
            joining: 0,
            member_bytes: 0,
            pending_bytes: 0,
            wanted_ms: NEVER,
            armed_ms: NEVER,
        }
    }

    pub fn bytes(&self) -> usize {
        GROUP_BYTES + 3 * self.id.len() + self.member_bytes + self.pending_bytes + self.offsets.bytes()
    }

    pub fn is_leader(&self, member_id: &StrBytes) -> bool {
        self.leader.as_ref() == Some(member_id)
    }

    pub fn all_members_joined(&self) -> bool {
        self.members.len() == self.joining && self.pending_members.is_empty()
    }

    pub fn joining(&self) -> usize {
        self.joining
    }

    pub fn transition(&mut self, state: State, turn: &Turn) {
        self.previous_state = Some(self.state);
        self.state = state;
        self.current_state_ms = Some(turn.now.wall_ms);
    }

    // --- members

    pub fn add(&mut self, member: Member, protocol_type: &StrBytes) {
        if self.members.is_empty() {
            self.protocol_type = Some(own(protocol_type));
        }
        if let Some(instance_id) = &member.instance_id {
            self.static_members.insert(instance_id.clone(), member.id.clone());
        }
        if self.leader.is_none() {
            self.leader = Some(member.id.clone());
        }
        self.take_pending(&member.id);
        self.count_in(&member);
        self.members.insert(member.id.clone(), member);
    }

    /// Takes a member out, elects another leader if need be, and hands back what it had parked.
    pub fn remove(&mut self, member_id: &StrBytes) -> Option<Member> {
        self.take_pending(member_id);
        self.pending_sync.remove(member_id);
        let member = self.members.remove(member_id)?;
        self.count_out(&member);
        if let Some(instance_id) = &member.instance_id {
            self.static_members.remove(instance_id);
        }
        if self.is_leader(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(member)
    }

    pub fn add_pending(&mut self, member_id: StrBytes, deadline_ms: i64) {
        self.pending_bytes += PENDING_BYTES + member_id.len();
        self.pending_members.insert(member_id, deadline_ms);
        self.want(deadline_ms);
    }

    pub fn take_pending(&mut self, member_id: &StrBytes) -> bool {
        let taken = self.pending_members.remove(member_id).is_some();
        if taken {
            self.pending_bytes -= PENDING_BYTES + member_id.len();
        }
        taken
    }

    pub fn pending_members(&self) -> &BTreeMap<StrBytes, i64> {
        &self.pending_members
    }

    /// Every change of a member goes through here, so that what is counted over all members stays true.
    pub fn change(&mut self, member_id: &StrBytes, change: impl FnOnce(&mut Member)) {
        let Some(mut member) = self.members.remove(member_id) else { return };
        self.count_out(&member);
        change(&mut member);
        self.want(member.deadline_ms);
        self.count_in(&member);
        self.members.insert(member.id.clone(), member);
    }

    fn count_in(&mut self, member: &Member) {
        for (name, _) in &member.protocols {
            *self.protocol_counts.entry(name.clone()).or_default() += 1;
        }
        self.joining += usize::from(member.joining.is_some());
        self.member_bytes += member.bytes();
        self.want(member.deadline_ms);
    }

    fn count_out(&mut self, member: &Member) {
        for (name, _) in &member.protocols {
            if let Some(count) = self.protocol_counts.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.protocol_counts.remove(name);
                }
            }
        }
        self.joining -= usize::from(member.joining.is_some());
        self.member_bytes -= member.bytes();
    }

    /// Is this member who it says it is?
    pub fn check_member(&self, member_id: &StrBytes, instance_id: Option<&StrBytes>) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(existing) if existing != member_id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    /// The longest wait any member allows for a rebalance.
    pub fn rebalance_timeout_ms(&self) -> i64 {
        self.members.values().map(|member| i64::from(member.rebalance_timeout_ms).max(0)).max().unwrap_or(0)
    }

    // --- protocols

    pub fn supports(&self, protocol_type: &StrBytes, protocols: &[(StrBytes, Bytes)]) -> bool {
        if self.state == State::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let common = |name| self.protocol_counts.get(name).copied().unwrap_or(0) == self.members.len();
        self.protocol_type.as_ref() == Some(protocol_type) && protocols.iter().any(|(name, _)| common(name))
    }

    /// Of the protocols all members share, each member votes for the one it prefers; a tie goes to the first by name.
    pub fn select_protocol(&self) -> Option<StrBytes> {
        let shared = |name: &StrBytes| self.protocol_counts.get(name) == Some(&self.members.len());
        let mut votes: BTreeMap<&StrBytes, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| shared(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        let most = votes.values().max()?;
        votes.iter().find(|(_, count)| *count == most).map(|(name, _)| (*name).clone())
    }

    pub fn uses_consumer_protocol(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    pub fn is_subscribed_to(&self, topic: &StrBytes) -> bool {
        match &self.subscribed_topics {
            Some(topics) => topics.contains(topic),
            None => self.uses_consumer_protocol(),
        }
    }

    /// Recomputed once per generation. Unreadable subscriptions make the answer "unknown", never wrong.
    pub fn refresh_subscribed_topics(&mut self) {
        self.subscribed_topics = self.read_subscriptions();
    }

    fn read_subscriptions(&self) -> Option<BTreeSet<StrBytes>> {
        if !self.uses_consumer_protocol() {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol.as_ref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscribed_topics(member.metadata(protocol)?).ok()?);
        }
        Some(topics)
    }

    // --- replies to parked requests

    pub fn answer_join(&mut self, member_id: &StrBytes, response: JoinGroupResponse, turn: &mut Turn) {
        let mut parked = None;
        self.change(member_id, |member| parked = member.joining.take());
        if let Some(to) = parked {
            turn.reply(to, join_reply(to.version, response));
        }
    }

    pub fn answer_sync(&mut self, member_id: &StrBytes, response: SyncGroupResponse, turn: &mut Turn) -> bool {
        let Some(to) = self.members.get_mut(member_id).and_then(|member| member.syncing.take()) else {
            return false;
        };
        turn.reply(to, Reply::SyncGroup(response));
        true
    }

    /// What a member learns of the current generation; only the leader gets the list of members.
    pub fn generation_response(&self, member_id: &StrBytes) -> JoinGroupResponse {
        let members = if self.is_leader(member_id) { self.members_for_leader() } else { Vec::new() };
        JoinGroupResponse::default()
            .with_generation_id(self.generation)
            .with_protocol_type(self.protocol_type.clone())
            .with_protocol_name(self.protocol.clone())
            .with_leader(self.leader.clone().unwrap_or_default())
            .with_member_id(member_id.clone())
            .with_members(members)
    }

    fn members_for_leader(&self) -> Vec<JoinGroupResponseMember> {
        let metadata = |member: &Member| self.protocol.as_ref().and_then(|name| member.metadata(name).cloned());
        self.members
            .values()
            .map(|member| {
                JoinGroupResponseMember::default()
                    .with_member_id(member.id.clone())
                    .with_group_instance_id(member.instance_id.clone())
                    .with_metadata(metadata(member).unwrap_or_default())
            })
            .collect()
    }

    /// Counts over again what is counted by increments.
    pub fn audit(&self) -> Result<(), &'static str> {
        let mut counts: BTreeMap<StrBytes, usize> = BTreeMap::new();
        for (name, _) in self.members.values().flat_map(|member| &member.protocols) {
            *counts.entry(name.clone()).or_default() += 1;
        }
        let joining = self.members.values().filter(|member| member.joining.is_some()).count();
        let member_bytes: usize = self.members.values().map(Member::bytes).sum();
        let pending_bytes: usize = self.pending_members.keys().map(|id| PENDING_BYTES + id.len()).sum();
        let statics = self.members.values().filter(|member| member.instance_id.is_some()).count();
        let earliest =
            self.members.values().map(|member| member.deadline_ms).chain(self.pending_members.values().copied());
        let checks = [
            (counts == self.protocol_counts, "protocols miscounted"),
            (joining == self.joining, "joining members miscounted"),
            (member_bytes == self.member_bytes, "member bytes miscounted"),
            (pending_bytes == self.pending_bytes, "pending bytes miscounted"),
            (statics == self.static_members.len(), "a static member without an instance id, or the reverse"),
            (self.pending_sync.iter().all(|id| self.members.contains_key(id)), "a stranger owes a SyncGroup"),
            (self.leader.as_ref().is_none_or(|id| self.members.contains_key(id)), "the leader is no member"),
            (self.wanted_ms <= earliest.min().unwrap_or(NEVER), "a deadline would be missed"),
            (self.wanted_ms <= self.join_timer.map_or(NEVER, JoinTimer::deadline_ms), "the join phase would not end"),
            (self.wanted_ms <= self.sync_deadline_ms, "the sync phase would not end"),
        ];
        checks.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(*what))
    }

    // --- deadlines

    /// Notes a deadline; `earliest_deadline_ms` may be early but never late.
    pub fn want(&mut self, deadline_ms: i64) {
        self.wanted_ms = self.wanted_ms.min(deadline_ms);
    }

    pub fn earliest_deadline_ms(&self) -> i64 {
        self.wanted_ms
    }

    /// After deadlines were acted on: find the next one exactly.
    pub fn recompute_deadline(&mut self) {
        let members = self.members.values().map(|member| member.deadline_ms).min().unwrap_or(NEVER);
        let pending = self.pending_members.values().copied().min().unwrap_or(NEVER);
        let join = self.join_timer.map_or(NEVER, JoinTimer::deadline_ms);
        self.wanted_ms = members.min(pending).min(join).min(self.sync_deadline_ms);
    }

    pub fn set_join_timer(&mut self, timer: JoinTimer) {
        self.join_timer = Some(timer);
        self.want(timer.deadline_ms());
    }

    pub fn set_sync_deadline(&mut self, deadline_ms: i64) {
        self.sync_deadline_ms = deadline_ms;
        self.want(deadline_ms);
    }

    /// The member was heard of: its session starts anew.
    pub fn renew_session(&mut self, member_id: &StrBytes, turn: &Turn) {
        if let Some(member) = self.members.get_mut(member_id) {
            member.deadline_ms = timer_ms(turn.now) + i64::from(member.session_timeout_ms);
            let deadline_ms = member.deadline_ms;
            self.want(deadline_ms);
        }
    }

    // --- records

    /// The group's record with these assignments (members without one get an empty one).
    pub fn record(&self, assignments: impl Fn(&Member) -> Bytes) -> Record {
        let subscription = |member: &Member| self.protocol.as_ref().and_then(|name| member.metadata(name).cloned());
        let members = self
            .members
            .values()
            .map(|member| MemberValue {
                member_id: member.id.clone(),
                instance_id: member.instance_id.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                session_timeout_ms: member.session_timeout_ms,
                subscription: subscription(member).unwrap_or_default(),
                assignment: assignments(member),
            })
            .collect();
        let value = GroupValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            current_state_ms: self.current_state_ms,
            members,
        };
        Record { key: group_key(&self.id), value: Some(value.encode()) }
    }

    /// What makes a new group known before it has a generation.
    pub fn birth_record(&self) -> GroupValue {
        GroupValue {
            protocol_type: StrBytes::default(),
            generation: 0,
            protocol: None,
            leader: None,
            current_state_ms: self.current_state_ms,
            members: Vec::new(),
        }
    }

    /// The group could not be made known: everyone who waits in it must look for a coordinator again.
    pub fn abandon(&mut self, error: ErrorCode, turn: &mut Turn) {
        let member_ids: Vec<StrBytes> = self.members.keys().cloned().collect();
        for member_id in member_ids {
            self.answer_join(&member_id, join_error(&StrBytes::default(), error), turn);
            self.answer_sync(&member_id, sync_error(error), turn);
        }
    }

    /// Takes over what a record says; offsets stay. Sessions start when loading ends.
    pub fn restore(&mut self, value: GroupValue) {
        let offsets = std::mem::take(&mut self.offsets);
        *self = Group::new(self.id.clone(), self.partition, 0);
        self.offsets = offsets;
        self.state = if value.members.is_empty() { State::Empty } else { State::Stable };
        self.current_state_ms = value.current_state_ms;
        self.generation = value.generation;
        self.leader = value.leader;
        self.protocol = value.protocol;
        self.protocol_type = Some(value.protocol_type).filter(|protocol_type| !protocol_type.is_empty());
        let protocol_type = self.protocol_type.clone().unwrap_or_default();
        for member in value.members {
            let protocols = self.protocol.iter().map(|name| (name.clone(), member.subscription.clone())).collect();
            let member = Member {
                id: member.member_id,
                instance_id: member.instance_id,
                client_id: member.client_id,
                client_host: member.client_host,
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                session_timeout_ms: member.session_timeout_ms,
                protocols,
                assignment: member.assignment,
                is_new: false,
                joining: None,
                syncing: None,
                deadline_ms: NEVER,
            };
            self.add(member, &protocol_type);
        }
        if self.leader.as_ref().is_some_and(|id| !self.members.contains_key(id)) {
            self.leader = self.members.keys().next().cloned();
        }
        self.refresh_subscribed_topics();
    }
}

/// Before version 7 the protocol's name could not be null.
pub(super) fn join_reply(version: i16, mut response: JoinGroupResponse) -> Reply {
    if version < 7 && response.protocol_name.is_none() {
        response.protocol_name = Some(StrBytes::default());
    }
    Reply::JoinGroup(response)
}

/// A refusal of JoinGroup.
pub(super) fn join_error(member_id: &StrBytes, error: ErrorCode) -> JoinGroupResponse {
    JoinGroupResponse::default()
        .with_error_code(error.code())
        .with_member_id(member_id.clone())
        .with_protocol_name(None)
}

pub(super) fn sync_error(error: ErrorCode) -> SyncGroupResponse {
    SyncGroupResponse::default().with_error_code(error.code())
}
