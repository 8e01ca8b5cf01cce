//! Consumer groups: the coordinator of the groups whose `__consumer_offsets` partitions live on this shard.
//!
//! Pure state machines: an input and the time go in, an [`Outcome`] comes out: replies for waiting requests and records to
//! append. No IO, no clock. The caller appends records, reports each append by [`Groups::appended`], calls
//! [`Groups::expire`] when [`Groups::next_deadline_ms`] has come, replays a partition's records before it serves it, and
//! unloads it when it moves away. A reply that tells of stored state leaves only after its record is stored.
//!
//! `classic` is a group's data, `join` and `session` what members do to it, `offsets` what they commit, `admin` what
//! administrators see and delete, `record` the bytes of `__consumer_offsets`.

mod admin;
mod classic;
mod commit;
mod join;
mod offsets;
mod outcome;
pub mod record;
mod session;

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::ids::{Now, ReplyTo};
use crate::wire::{DecodeError, ErrorCode};
use classic::{Group, join_error, join_reply, sync_error};
use join::Joining;
use outcome::{Pending, Then, Turn, append_error, code};
use record::{Committed, GroupValue, Key, Record};

pub use classic::State;
pub use offsets::Topics;
pub use outcome::{Append, Outcome, Reply};

/// A deadline that never comes.
const NEVER: i64 = i64::MAX;

/// The topic that keeps groups and offsets.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// Kafka's settings for groups, in its words and with its defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// `offsets.topic.num.partitions`
    pub offsets_partitions: i32,
    /// `group.min.session.timeout.ms`
    pub session_timeout_ms_min: i32,
    /// `group.max.session.timeout.ms`
    pub session_timeout_ms_max: i32,
    /// `group.initial.rebalance.delay.ms`
    pub initial_rebalance_delay_ms: i64,
    /// `group.max.size`
    pub group_size_max: usize,
    /// `offset.metadata.max.bytes`
    pub offset_metadata_bytes_max: usize,
    /// `offsets.retention.minutes`
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub retention_check_interval_ms: i64,
    /// How long a new member's first JoinGroup may wait: not a setting in Kafka either.
    pub new_member_join_timeout_ms: i64,
    /// What all groups of this shard may hold together; beyond it new state is refused with a retriable error.
    pub group_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            offsets_partitions: 50,
            session_timeout_ms_min: 6_000,
            session_timeout_ms_max: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            group_size_max: i32::MAX as usize,
            offset_metadata_bytes_max: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60_000,
            retention_check_interval_ms: 600_000,
            new_member_join_timeout_ms: 300_000,
            group_bytes_max: 256 << 20,
        }
    }
}

/// Sessions and rebalances follow the clock that never goes back: nobody is put out because somebody set the time. Stamps
/// in records, and retention by them, follow the wall clock.
fn timer_ms(now: Now) -> i64 {
    now.monotonic_ms() as i64
}

/// Who sends a request, in which version, and where its reply goes.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    pub to: ReplyTo,
    pub client_id: &'a str,
    /// As Kafka shows it: `/127.0.0.1`.
    pub client_host: &'a str,
}

/// One partition of `__consumer_offsets` that this shard leads.
#[derive(Debug, Default)]
struct Coordinator {
    loading: bool,
    groups: BTreeMap<StrBytes, Group>,
}

/// All groups of one shard.
pub struct Groups {
    config: Config,
    coordinators: BTreeMap<i32, Coordinator>,
    /// When each group wants to be looked at: exactly one entry for a group with a deadline.
    deadlines: BTreeSet<(i64, i32, StrBytes)>,
    pending: Pending,
    deletions: admin::Deletions,
    bytes: usize,
    /// Where the search for expired offsets goes on, and when.
    clean_from: i32,
    clean_at_ms: i64,
    new_id: Box<dyn FnMut() -> Uuid + Send>,
}

impl Groups {
    /// `new_id` makes member ids unique; random ones keep members from guessing each other's.
    pub fn new(config: Config, new_id: Box<dyn FnMut() -> Uuid + Send>) -> Groups {
        Groups {
            config,
            coordinators: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            pending: Pending::default(),
            deletions: admin::Deletions::default(),
            bytes: 0,
            clean_from: 0,
            clean_at_ms: NEVER,
            new_id,
        }
    }

    /// The offsets topic exists and has this many partitions, whatever the setting for new ones says.
    pub fn set_offsets_partitions(&mut self, count: i32) {
        self.config.offsets_partitions = count;
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Counts everything anew and compares it with what is kept by increments. For tests and the simulator.
    pub fn audit(&self) -> Result<(), String> {
        let groups = || self.coordinators.values().flat_map(|coordinator| coordinator.groups.values());
        for group in groups() {
            group.audit().map_err(|what| format!("group {}: {what}", group.id))?;
            let listed = self.deadlines.contains(&(group.armed_ms, group.partition, group.id.clone()));
            if listed != (group.armed_ms != NEVER) || group.armed_ms > group.earliest_deadline_ms() {
                return Err(format!("group {} is not listed under its deadline", group.id));
            }
        }
        let bytes: usize = groups().map(Group::bytes).sum();
        if bytes != self.bytes {
            return Err(format!("{} bytes counted, {bytes} held", self.bytes));
        }
        let armed = groups().filter(|group| group.armed_ms != NEVER).count();
        if armed != self.deadlines.len() {
            return Err(format!("{} deadlines for {armed} groups", self.deadlines.len()));
        }
        Ok(())
    }

    /// Memory held for groups, members, offsets and appends under way.
    pub fn group_bytes(&self) -> usize {
        self.bytes + self.pending.bytes()
    }

    pub fn group_count(&self) -> usize {
        self.coordinators.values().map(|coordinator| coordinator.groups.len()).sum()
    }

    // --- partitions come and go

    /// From here on the partition is ours but answers COORDINATOR_LOAD_IN_PROGRESS until `load_done`.
    pub fn load_start(&mut self, partition: i32) {
        self.coordinators.insert(partition, Coordinator { loading: true, groups: BTreeMap::new() });
    }

    /// One record of the partition's log, in order.
    pub fn replay(&mut self, partition: i32, key: &[u8], value: Option<&[u8]>) -> Result<(), DecodeError> {
        match (Key::decode(key)?, value) {
            (Key::Other(version), _) => log::debug!("{OFFSETS_TOPIC}-{partition}: key version {version} is not for us"),
            (Key::Group { group }, Some(value)) => {
                let value = GroupValue::decode(value)?;
                self.replayed(partition, &group, |found| found.restore(value));
            }
            (Key::Group { group }, None) => self.forget_group(partition, &group),
            (Key::Offset { group, topic, partition: of }, Some(value)) => {
                let value = Committed::decode(value)?;
                self.replayed(partition, &group, |found| found.offsets.put(&topic, of, value));
            }
            (Key::Offset { group, topic, partition: of }, None) => {
                if let Some(found) = self.coordinators.get_mut(&partition).and_then(|c| c.groups.get_mut(&group)) {
                    let before = found.bytes();
                    found.offsets.remove(&topic, of);
                    self.bytes = self.bytes - before + found.bytes();
                }
            }
        }
        Ok(())
    }

    fn replayed(&mut self, partition: i32, group: &StrBytes, apply: impl FnOnce(&mut Group)) {
        let Some(coordinator) = self.coordinators.get_mut(&partition) else { return };
        let known = coordinator.groups.contains_key(group);
        let found = coordinator.groups.entry(group.clone()).or_insert_with(|| {
            // Time of birth unknown: a group of offsets only has no state to be timed.
            let mut found = Group::new(group.clone(), partition, 0);
            found.current_state_ms = None;
            found
        });
        let before = if known { found.bytes() } else { 0 };
        apply(found);
        self.bytes = self.bytes - before + found.bytes();
    }

    /// All records are replayed: members have one session timeout from now to be heard of.
    pub fn load_done(&mut self, partition: i32, now: Now, out: &mut Outcome) {
        let Some(coordinator) = self.coordinators.get_mut(&partition) else { return };
        coordinator.loading = false;
        let groups: Vec<StrBytes> = coordinator.groups.keys().cloned().collect();
        let size_max = self.config.group_size_max;
        for group in groups {
            self.with_group(partition, &group, now, out, |group, turn| {
                let member_ids: Vec<StrBytes> = group.members.keys().cloned().collect();
                for member_id in member_ids {
                    group.renew_session(&member_id, turn);
                }
                if group.members.len() > size_max {
                    group.prepare_rebalance("it was loaded with more members than group.max.size", turn);
                }
            });
        }
        if self.clean_at_ms == NEVER {
            self.clean_at_ms = timer_ms(now) + self.config.retention_check_interval_ms;
        }
    }

    /// The partition moved away: whoever waits is sent to look for the new coordinator.
    pub fn unload(&mut self, partition: i32, now: Now, out: &mut Outcome) {
        for id in self.pending.of_partition(partition) {
            self.appended(id, Err(ErrorCode::NotCoordinator), now, out);
        }
        let Some(mut coordinator) = self.coordinators.remove(&partition) else { return };
        for group in coordinator.groups.values_mut() {
            self.bytes -= group.bytes();
            self.deadlines.remove(&(group.armed_ms, partition, group.id.clone()));
            for member in std::mem::take(&mut group.members).into_values() {
                if let Some(to) = member.joining {
                    let response = join_error(&member.id, ErrorCode::NotCoordinator);
                    out.replies.push((to, join_reply(to.version, response)));
                }
                if let Some(to) = member.syncing {
                    out.replies.push((to, Reply::SyncGroup(sync_error(ErrorCode::NotCoordinator))));
                }
            }
        }
    }

    // --- members

    pub fn join(&mut self, caller: &Caller, request: &JoinGroupRequest, now: Now, out: &mut Outcome) {
        if let Err((member_id, error)) = self.try_join(caller, request, now, out) {
            out.replies.push((caller.to, join_reply(caller.to.version, join_error(&member_id, error))));
        }
    }

    fn try_join(
        &mut self,
        caller: &Caller,
        request: &JoinGroupRequest,
        now: Now,
        out: &mut Outcome,
    ) -> Result<(), (StrBytes, ErrorCode)> {
        let own_id = |error| (request.member_id.clone(), error);
        let sessions = self.config.session_timeout_ms_min..=self.config.session_timeout_ms_max;
        if request.group_id.is_empty() {
            return Err(own_id(ErrorCode::InvalidGroupId));
        }
        if !sessions.contains(&request.session_timeout_ms) {
            return Err(own_id(ErrorCode::InvalidSessionTimeout));
        }
        let partition = self.route(&request.group_id).map_err(|error| (StrBytes::default(), error))?;
        let joining = Joining::new(caller, request);
        let existing = self.group(partition, &request.group_id);
        let is_new = existing.is_none();
        if is_new {
            if !request.member_id.is_empty() {
                return Err(own_id(ErrorCode::UnknownMemberId));
            }
            // A group that its first member could not join is not worth keeping.
            if joining.protocol_type.is_empty() || joining.terms.protocols.is_empty() {
                return Err((StrBytes::default(), ErrorCode::InconsistentGroupProtocol));
            }
        }
        let growth = joining.growth(existing);
        if growth > 0 && self.group_bytes() + growth > self.config.group_bytes_max {
            return Err((StrBytes::default(), ErrorCode::CoordinatorLoadInProgress));
        }
        if is_new {
            self.create(partition, &request.group_id, now);
        }
        self.with_group(partition, &request.group_id, now, out, |group, turn| {
            group.join(caller, joining, turn);
            if is_new {
                let record = Record { key: record::group_key(&group.id), value: Some(group.birth_record().encode()) };
                turn.append(partition, vec![record], Then::Created { group: group.id.clone() });
            }
        });
        Ok(())
    }

    pub fn sync(&mut self, caller: &Caller, request: &SyncGroupRequest, now: Now, out: &mut Outcome) {
        let assigned: usize = request.assignments.iter().map(|given| given.assignment.len()).sum();
        let refused = if request.group_id.is_empty() {
            ErrorCode::InvalidGroupId
        } else if assigned > 0 && self.group_bytes() + assigned > self.config.group_bytes_max {
            // Members take COORDINATOR_LOAD_IN_PROGRESS as fatal here, this one as "try again".
            ErrorCode::CoordinatorNotAvailable
        } else {
            let found = self.route(&request.group_id).and_then(|partition| {
                let sync = |group: &mut Group, turn: &mut Turn| group.sync(caller, request, turn);
                self.with_group(partition, &request.group_id, now, out, sync).ok_or(ErrorCode::UnknownMemberId)
            });
            match found {
                Ok(()) => return,
                Err(ErrorCode::CoordinatorLoadInProgress) => ErrorCode::RebalanceInProgress,
                Err(error) => error,
            }
        };
        out.replies.push((caller.to, Reply::SyncGroup(sync_error(refused))));
    }

    /// Never waits and never appends.
    pub fn heartbeat(&mut self, request: &HeartbeatRequest, now: Now) -> HeartbeatResponse {
        let mut out = Outcome::default();
        let result = if request.group_id.is_empty() {
            Err(ErrorCode::InvalidGroupId)
        } else {
            self.route(&request.group_id).and_then(|partition| {
                let heartbeat = |group: &mut Group, turn: &mut Turn| group.heartbeat(request, turn);
                self.with_group(partition, &request.group_id, now, &mut out, heartbeat)
                    .unwrap_or(Err(ErrorCode::UnknownMemberId))
            })
        };
        // While loading nobody's session runs, so all is well.
        let result = result.or_else(|error| match error {
            ErrorCode::CoordinatorLoadInProgress => Ok(()),
            other => Err(other),
        });
        HeartbeatResponse::default().with_error_code(code(result))
    }

    pub fn leave(&mut self, caller: &Caller, request: &LeaveGroupRequest, now: Now, out: &mut Outcome) {
        let result = if request.group_id.is_empty() {
            Err(ErrorCode::InvalidGroupId)
        } else {
            self.route(&request.group_id).and_then(|partition| {
                let leave = |group: &mut Group, turn: &mut Turn| group.leave(request, caller.to.version, turn);
                self.with_group(partition, &request.group_id, now, out, leave).ok_or(ErrorCode::UnknownMemberId)
            })
        };
        // The record of a group that became empty may still be on its way; losing it does no harm.
        let response = result.unwrap_or_else(|error| session::leave_refused(request, caller.to.version, error));
        out.replies.push((caller.to, Reply::LeaveGroup(response)));
    }

    // --- appends and time

    /// An append of an earlier outcome is done (or refused): what waited for it goes on.
    pub fn appended(&mut self, id: u64, result: Result<(), ErrorCode>, now: Now, out: &mut Outcome) {
        let Some((partition, then)) = self.pending.finish(id) else { return };
        let result = result.map_err(append_error);
        match then {
            Then::Settled => {
                if let Err(error) = result {
                    log::warn!("{OFFSETS_TOPIC}-{partition}: the record of an empty group is lost ({error}); harmless");
                }
            }
            Then::Created { group } => {
                if let Err(error) = result {
                    self.with_group(partition, &group, now, out, |group, turn| group.abandon(error, turn));
                    self.forget_group(partition, &group);
                }
            }
            Then::Synced { group, generation, assignments } => {
                self.with_group(partition, &group, now, out, |group, turn| {
                    group.synced(generation, assignments, result, turn);
                });
            }
            Then::StaticRejoined(rejoin) => {
                let group = rejoin.group.clone();
                self.with_group(partition, &group, now, out, |group, turn| {
                    group.static_rejoined(*rejoin, result, turn)
                });
            }
            Then::Committed { group, to, response, offsets } => {
                self.committed(partition, &group, (to, response), offsets, result, now, out);
            }
            Then::OffsetsDeleted { group, to, response, keys } => {
                self.offsets_deleted(partition, &group, (to, response), keys, result, out);
            }
            Then::GroupsDeleted { deletion, groups } => self.groups_deleted(partition, deletion, groups, result, out),
            Then::Expired { offsets, groups } => {
                if result.is_ok() {
                    self.apply_expired(partition, offsets, groups);
                }
            }
        }
    }

    /// When `expire` must be called at the latest; `i64::MAX` if never. On the timer clock.
    pub fn next_deadline_ms(&self) -> i64 {
        self.deadlines.first().map_or(NEVER, |(at, ..)| *at).min(self.clean_at_ms)
    }

    /// Acts on every deadline that has come: sessions, rebalances, then one partition's expired offsets.
    pub fn expire(&mut self, now: Now, out: &mut Outcome) {
        while let Some((at, partition, group)) = self.deadlines.first().cloned() {
            if at > timer_ms(now) {
                break;
            }
            self.with_group(partition, &group, now, out, |group, turn| group.expire(turn));
        }
        if self.clean_at_ms <= timer_ms(now) {
            self.clean(now, out);
        }
    }

    // --- finding and keeping groups

    /// The partition that keeps this group, if it is here and loaded.
    fn route(&self, group: &StrBytes) -> Result<i32, ErrorCode> {
        let partition = partition_for(group, self.config.offsets_partitions);
        match self.coordinators.get(&partition) {
            None => Err(ErrorCode::NotCoordinator),
            Some(coordinator) if coordinator.loading => Err(ErrorCode::CoordinatorLoadInProgress),
            Some(_) => Ok(partition),
        }
    }

    fn group(&self, partition: i32, group: &StrBytes) -> Option<&Group> {
        self.coordinators.get(&partition)?.groups.get(group)
    }

    fn create(&mut self, partition: i32, group: &StrBytes, now: Now) {
        let Some(coordinator) = self.coordinators.get_mut(&partition) else { return };
        let id = own(group);
        let group = Group::new(id.clone(), partition, now.wall_ms);
        self.bytes += group.bytes();
        coordinator.groups.insert(id, group);
    }

    fn forget_group(&mut self, partition: i32, group: &StrBytes) {
        let Some(coordinator) = self.coordinators.get_mut(&partition) else { return };
        if let Some(group) = coordinator.groups.remove(group) {
            self.bytes -= group.bytes();
            self.deadlines.remove(&(group.armed_ms, partition, group.id));
        }
    }

    /// The only way to change a group: keeps the byte count and the deadline of the group true.
    fn with_group<R>(
        &mut self,
        partition: i32,
        group: &StrBytes,
        now: Now,
        out: &mut Outcome,
        act: impl FnOnce(&mut Group, &mut Turn) -> R,
    ) -> Option<R> {
        let group = self.coordinators.get_mut(&partition)?.groups.get_mut(group)?;
        let before = group.bytes();
        let mut turn = Turn { config: &self.config, now, new_id: &mut self.new_id, pending: &mut self.pending, out };
        let result = act(group, &mut turn);
        self.bytes = self.bytes - before + group.bytes();
        let wanted_ms = group.earliest_deadline_ms();
        if wanted_ms != group.armed_ms {
            self.deadlines.remove(&(group.armed_ms, partition, group.id.clone()));
            if wanted_ms != NEVER {
                self.deadlines.insert((wanted_ms, partition, group.id.clone()));
            }
            group.armed_ms = wanted_ms;
        }
        Some(result)
    }
}

/// The partition of `__consumer_offsets` that keeps a group: Java's `String.hashCode` over UTF-16 units, made positive by
/// clearing nothing but the one value that has no positive twin, modulo the partitions.
pub fn partition_for(group: &str, partitions: i32) -> i32 {
    let hash = group.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    hash.checked_abs().unwrap_or(0) % partitions.max(1)
}

/// A copy that does not keep the request's frame alive.
fn own(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

#[cfg(test)]
mod tests;
