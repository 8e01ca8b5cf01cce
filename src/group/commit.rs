//! OffsetCommit, OffsetFetch and OffsetDelete over all groups of this shard, and the clean-up of expired offsets. Which
//! offset may be committed or forgotten is decided in `offsets`; here requests are taken apart and put together again.

use std::collections::BTreeSet;

use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest,
    OffsetFetchResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::classic::{Group, State};
use super::offsets::{Topics, commit_bytes, committed, metadata_is_too_large, tombstone};
use super::outcome::{Reply, Then, Turn};
use super::record::{Committed, Record, group_key, offset_key};
use super::{Caller, Groups, NEVER, Outcome, own, timer_ms};
use crate::ids::{Now, ReplyTo};
use crate::wire::ErrorCode;
use crate::wire::offsets::TOPIC_IDS_SINCE;

/// Records of one clean-up append: keeps the batch far below `message.max.bytes`.
const EXPIRED_RECORDS_MAX: usize = 1_000;

/// A partition that exists and may be committed, if the group admits the caller. `at`: its place in the reply.
struct Candidate<'a> {
    topic: StrBytes,
    partition: &'a OffsetCommitRequestPartition,
    at: (usize, usize),
}

impl Candidate<'_> {
    fn bytes(&self) -> usize {
        commit_bytes(&self.topic, self.partition.committed_metadata.as_ref())
    }
}

impl Groups {
    pub fn commit(
        &mut self,
        caller: &Caller,
        request: &OffsetCommitRequest,
        topics: &dyn Topics,
        now: Now,
        out: &mut Outcome,
    ) {
        let mut response = OffsetCommitResponse::default();
        let mut candidates = Vec::new();
        for topic in &request.topics {
            let (name, unknown) = if caller.to.version >= TOPIC_IDS_SINCE {
                (topics.topic_name(topic.topic_id), ErrorCode::UnknownTopicId)
            } else {
                (Some(topic.name.0.clone()), ErrorCode::UnknownTopicOrPartition)
            };
            let mut answer = OffsetCommitResponseTopic::default()
                .with_name(TopicName(name.clone().unwrap_or_default()))
                .with_topic_id(topic.topic_id);
            // One copy of the name for all partitions: what is kept must not hold on to the request.
            let known = name.filter(|name| topics.has_topic(name)).map(|name| own(&name));
            for partition in &topic.partitions {
                let result = match &known {
                    None => Err(unknown),
                    Some(name) if !topics.has_partition(name, partition.partition_index) => {
                        Err(ErrorCode::UnknownTopicOrPartition)
                    }
                    Some(name) => {
                        let at = (response.topics.len(), answer.partitions.len());
                        candidates.push(Candidate { topic: name.clone(), partition, at });
                        Ok(())
                    }
                };
                answer.partitions.push(
                    OffsetCommitResponsePartition::default()
                        .with_partition_index(partition.partition_index)
                        .with_error_code(super::code(result)),
                );
            }
            response.topics.push(answer);
        }
        // Nothing to commit: Kafka does not even look at the group.
        if candidates.is_empty() {
            out.replies.push((caller.to, Reply::OffsetCommit(response)));
            return;
        }
        let partition = match self.admit_commit(caller, request, &candidates, now, out) {
            Ok(partition) => partition,
            Err(error) => {
                fail_commit(&mut response, error);
                out.replies.push((caller.to, Reply::OffsetCommit(response)));
                return;
            }
        };
        let mut accepted = Vec::with_capacity(candidates.len());
        for Candidate { topic, partition, at } in candidates {
            if metadata_is_too_large(partition.committed_metadata.as_ref(), &self.config) {
                let refused = &mut response.topics[at.0].partitions[at.1];
                refused.error_code = ErrorCode::OffsetMetadataTooLarge.code();
            } else {
                accepted.push((topic, partition.partition_index, committed(partition, request.retention_time_ms, now)));
            }
        }
        if accepted.is_empty() {
            out.replies.push((caller.to, Reply::OffsetCommit(response)));
            return;
        }
        let group = own(&request.group_id);
        let record = |(topic, of, committed): &(StrBytes, i32, Committed)| Record {
            key: offset_key(&group, topic, *of),
            value: Some(committed.encode()),
        };
        let records = accepted.iter().map(record).collect();
        let then = Then::Committed { group, to: caller.to, response, offsets: accepted };
        self.turn(now, out).append(partition, records, then);
    }

    /// May this caller commit to this group? A commit also proves that a member is alive.
    fn admit_commit(
        &mut self,
        caller: &Caller,
        request: &OffsetCommitRequest,
        candidates: &[Candidate],
        now: Now,
        out: &mut Outcome,
    ) -> Result<i32, ErrorCode> {
        let partition = self.route(&request.group_id)?;
        let check = |group: &mut Group, turn: &mut Turn| {
            group.check_commit(request)?;
            if matches!(group.state, State::Stable | State::PreparingRebalance) {
                group.renew_session(&request.member_id, turn);
            }
            Ok(())
        };
        match self.with_group(partition, &request.group_id, now, out, check) {
            Some(result) => result?,
            // A consumer without a group, or a tool: the group comes to be with its first offset.
            None if request.generation_id_or_member_epoch < 0 => {}
            None if caller.to.version >= 9 => return Err(ErrorCode::GroupIdNotFound),
            None => return Err(ErrorCode::IllegalGeneration),
        }
        let growth: usize = candidates.iter().map(Candidate::bytes).sum();
        if self.group_bytes() + growth > self.config.group_bytes_max {
            let group = self.group(partition, &request.group_id);
            let is_known = |candidate: &Candidate| {
                let of = candidate.partition.partition_index;
                group.is_some_and(|group| group.offsets.get(&candidate.topic, of).is_some())
            };
            if !candidates.iter().all(is_known) {
                return Err(ErrorCode::CoordinatorLoadInProgress);
            }
        }
        Ok(partition)
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn committed(
        &mut self,
        partition: i32,
        group: &StrBytes,
        (to, mut response): (ReplyTo, OffsetCommitResponse),
        offsets: Vec<(StrBytes, i32, Committed)>,
        result: Result<(), ErrorCode>,
        now: Now,
        out: &mut Outcome,
    ) {
        match result {
            Ok(()) => {
                if self.group(partition, group).is_none() {
                    self.create(partition, group, now);
                }
                self.with_group(partition, group, now, out, |group, _| {
                    for (topic, of, committed) in offsets {
                        group.offsets.put(&topic, of, committed);
                    }
                });
            }
            Err(error) => fail_commit(&mut response, error),
        }
        out.replies.push((to, Reply::OffsetCommit(response)));
    }

    // --- fetch

    /// What is named twice is told once: it takes few bytes to ask for, and may come with kilobytes of metadata.
    pub fn fetch(&self, request: &OffsetFetchRequest, version: i16, topics: &dyn Topics) -> OffsetFetchResponse {
        if version >= 8 {
            let mut seen = BTreeSet::new();
            let groups = request.groups.iter().filter(|group| seen.insert(&group.group_id));
            let groups = groups.map(|group| self.fetch_group(group, version, topics)).collect();
            return OffsetFetchResponse::default().with_groups(groups);
        }
        let asked = request.topics.as_ref().map(|asked| {
            asked
                .iter()
                .map(|topic| {
                    OffsetFetchRequestTopics::default()
                        .with_name(topic.name.clone())
                        .with_partition_indexes(topic.partition_indexes.clone())
                })
                .collect()
        });
        let group = OffsetFetchRequestGroup::default().with_group_id(request.group_id.clone()).with_topics(asked);
        let group = self.fetch_group(&group, version, topics);
        let error_code = group.error_code;
        // Version 1 has room for errors at partitions only.
        let asked = request.topics.iter().flatten().filter(|_| version < 2 && error_code != 0).map(|topic| {
            let failed = |&index: &i32| answer(index, None, error_code);
            OffsetFetchResponseTopics::default()
                .with_name(topic.name.clone())
                .with_partitions(topic.partition_indexes.iter().map(failed).collect())
        });
        let topics = group.topics.into_iter().chain(asked).map(without_group).collect();
        OffsetFetchResponse::default().with_topics(topics).with_error_code(if version >= 2 { error_code } else { 0 })
    }

    fn fetch_group(
        &self,
        request: &OffsetFetchRequestGroup,
        version: i16,
        topics: &dyn Topics,
    ) -> OffsetFetchResponseGroup {
        let response = OffsetFetchResponseGroup::default().with_group_id(request.group_id.clone());
        let partition = match self.route(&request.group_id) {
            Ok(partition) => partition,
            Err(error) => return response.with_error_code(error.code()),
        };
        // A group that nobody knows has no offsets; that is no error.
        let group = self.group(partition, &request.group_id);
        let answers = match &request.topics {
            Some(asked) => {
                let mut seen = BTreeSet::new();
                asked.iter().map(|topic| fetch_topic(group, topic, &mut seen, version, topics)).collect()
            }
            None => group.map(|group| fetch_all(group, version, topics)).unwrap_or_default(),
        };
        response.with_topics(answers)
    }

    // --- forget

    pub fn delete_offsets(
        &mut self,
        caller: &Caller,
        request: &OffsetDeleteRequest,
        topics: &dyn Topics,
        now: Now,
        out: &mut Outcome,
    ) {
        let refuse = |error: ErrorCode| OffsetDeleteResponse::default().with_error_code(error.code());
        let found = if request.group_id.is_empty() {
            Err(ErrorCode::InvalidGroupId)
        } else {
            self.route(&request.group_id).and_then(|partition| {
                let group = self.group(partition, &request.group_id).ok_or(ErrorCode::GroupIdNotFound)?;
                group.check_offset_delete()?;
                Ok((partition, group))
            })
        };
        let (partition, group) = match found {
            Ok(found) => found,
            Err(error) => {
                out.replies.push((caller.to, Reply::OffsetDelete(refuse(error))));
                return;
            }
        };
        let commits = self.pending.commits();
        let under_way = commits.get(&(partition, &group.id));
        let mut response = OffsetDeleteResponse::default();
        let mut keys = Vec::new();
        for topic in &request.topics {
            let subscribed = group.is_subscribed_to(&topic.name.0);
            let mut answer = OffsetDeleteResponseTopic::default().with_name(topic.name.clone());
            for of in topic.partitions.iter().map(|partition| partition.partition_index) {
                let result = if !topics.has_partition(&topic.name, of) {
                    Err(ErrorCode::UnknownTopicOrPartition)
                } else if subscribed {
                    Err(ErrorCode::GroupSubscribedToTopic)
                } else {
                    Ok(())
                };
                let is_committed = || {
                    group.offsets.get(&topic.name.0, of).is_some()
                        || under_way.is_some_and(|keys| keys.contains(&(&topic.name.0, of)))
                };
                if result.is_ok() && is_committed() {
                    keys.push((own(&topic.name), of));
                }
                let partition = OffsetDeleteResponsePartition::default().with_partition_index(of);
                answer.partitions.push(partition.with_error_code(super::code(result)));
            }
            response.topics.push(answer);
        }
        if keys.is_empty() {
            out.replies.push((caller.to, Reply::OffsetDelete(response)));
            return;
        }
        let group = group.id.clone();
        let records = keys.iter().map(|(topic, of)| tombstone(&group, topic, *of)).collect();
        let then = Then::OffsetsDeleted { group, to: caller.to, response, keys };
        self.turn(now, out).append(partition, records, then);
    }

    pub(super) fn offsets_deleted(
        &mut self,
        partition: i32,
        group: &StrBytes,
        (to, response): (ReplyTo, OffsetDeleteResponse),
        keys: Vec<(StrBytes, i32)>,
        result: Result<(), ErrorCode>,
        out: &mut Outcome,
    ) {
        let response = match result {
            Ok(()) => {
                self.remove_offsets(partition, group, &keys);
                response
            }
            Err(error) => OffsetDeleteResponse::default().with_error_code(error.code()),
        };
        out.replies.push((to, Reply::OffsetDelete(response)));
    }

    /// Topics that were deleted take their offsets with them, in every group.
    pub fn topics_deleted(&mut self, deleted: &BTreeSet<StrBytes>, now: Now, out: &mut Outcome) {
        let mut expired = BTreeSet::new();
        let mut expire = |partition, group: &StrBytes, (topic, of): (&StrBytes, i32)| {
            if deleted.contains(topic) {
                expired.insert((partition, (group.clone(), topic.clone(), of)));
            }
        };
        for (partition, coordinator) in self.coordinators.iter().filter(|(_, coordinator)| !coordinator.loading) {
            for group in coordinator.groups.values() {
                group.offsets.keys().for_each(|key| expire(*partition, &group.id, key));
            }
        }
        for ((partition, group), keys) in self.pending.commits() {
            keys.into_iter().for_each(|key| expire(partition, group, key));
        }
        let expired = Vec::from_iter(expired);
        for chunk in expired.chunk_by(|(a, _), (b, _)| a == b) {
            let Some((partition, _)) = chunk.first() else { continue };
            self.append_expired(*partition, chunk.iter().map(|(_, key)| key.clone()).collect(), Vec::new(), now, out);
        }
    }

    /// Looks through one partition's groups for expired offsets and groups that have nothing left; the next call takes the
    /// next partition, so that no call takes long.
    pub(super) fn clean(&mut self, now: Now, out: &mut Outcome) {
        let next = self.coordinators.range(self.clean_from..).find(|(_, coordinator)| !coordinator.loading);
        let Some((&partition, coordinator)) = next else {
            self.clean_from = 0;
            let again_ms = timer_ms(now).saturating_add(self.config.retention_check_interval_ms.max(1));
            self.clean_at_ms = if self.coordinators.is_empty() { NEVER } else { again_ms };
            return;
        };
        let mut offsets = Vec::new();
        let mut groups = Vec::new();
        let commits = self.pending.commits();
        for group in coordinator.groups.values() {
            let (mut expired, all) = group.expired_offsets(&self.config, now);
            let under_way = commits.get(&(partition, &group.id));
            expired.retain(|(topic, of)| under_way.is_none_or(|keys| !keys.contains(&(topic, *of))));
            offsets.extend(expired.into_iter().map(|(topic, of)| (group.id.clone(), topic, of)));
            if all && under_way.is_none() && group.state == State::Empty && group.pending_members().is_empty() {
                groups.push(group.id.clone());
            }
        }
        self.clean_from = partition + 1;
        self.append_expired(partition, offsets, groups, now, out);
    }

    /// Groups go last: a group's tombstone must not come before those of its offsets.
    fn append_expired(
        &mut self,
        partition: i32,
        mut offsets: Vec<(StrBytes, StrBytes, i32)>,
        mut groups: Vec<StrBytes>,
        now: Now,
        out: &mut Outcome,
    ) {
        while !offsets.is_empty() || !groups.is_empty() {
            let some_offsets: Vec<_> = offsets.drain(..offsets.len().min(EXPIRED_RECORDS_MAX)).collect();
            let room = EXPIRED_RECORDS_MAX - some_offsets.len();
            let some_groups: Vec<_> = groups.drain(..groups.len().min(room)).collect();
            let mut records: Vec<Record> =
                some_offsets.iter().map(|(group, topic, of)| tombstone(group, topic, *of)).collect();
            records.extend(some_groups.iter().map(|group| Record { key: group_key(group), value: None }));
            let then = Then::Expired { offsets: some_offsets, groups: some_groups };
            self.turn(now, out).append(partition, records, then);
        }
    }

    pub(super) fn apply_expired(
        &mut self,
        partition: i32,
        offsets: Vec<(StrBytes, StrBytes, i32)>,
        groups: Vec<StrBytes>,
    ) {
        for (group, topic, of) in offsets {
            self.remove_offsets(partition, &group, &[(topic, of)]);
        }
        for group in groups {
            self.forget_if_empty(partition, &group);
        }
    }

    pub(super) fn remove_offsets(&mut self, partition: i32, group: &StrBytes, keys: &[(StrBytes, i32)]) {
        let found = self.coordinators.get_mut(&partition).and_then(|coordinator| coordinator.groups.get_mut(group));
        let Some(group) = found else { return };
        let before = group.bytes();
        for (topic, of) in keys {
            group.offsets.remove(topic, *of);
        }
        self.bytes = self.bytes - before + group.bytes();
    }

    /// A member may have joined while the tombstone was on its way: its next record brings the group back.
    pub(super) fn forget_if_empty(&mut self, partition: i32, group: &StrBytes) {
        let is_empty = |group: &Group| group.state == State::Empty && group.pending_members().is_empty();
        if self.group(partition, group).is_some_and(|group| is_empty(group) && group.offsets.is_empty()) {
            self.forget_group(partition, group);
        }
    }

    pub(super) fn turn<'a>(&'a mut self, now: Now, out: &'a mut Outcome) -> Turn<'a> {
        Turn { config: &self.config, now, new_id: &mut self.new_id, pending: &mut self.pending, out }
    }
}

/// What was acceptable by itself fails together; errors found before stay.
fn fail_commit(response: &mut OffsetCommitResponse, error: ErrorCode) {
    let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
    for partition in partitions.filter(|partition| partition.error_code == 0) {
        partition.error_code = error.code();
    }
}

/// `seen`: what was told already; it is not told again.
fn fetch_topic<'a>(
    group: Option<&Group>,
    asked: &'a OffsetFetchRequestTopics,
    seen: &mut BTreeSet<(&'a str, Uuid, i32)>,
    version: i16,
    topics: &dyn Topics,
) -> OffsetFetchResponseTopics {
    let (name, error_code) = if version < TOPIC_IDS_SINCE {
        (asked.name.0.clone(), 0)
    } else {
        match topics.topic_name(asked.topic_id) {
            Some(name) => (name, 0),
            None => (StrBytes::default(), ErrorCode::UnknownTopicId.code()),
        }
    };
    let found = |index: i32| group.and_then(|group| group.offsets.get(&name, index));
    let indexes = asked.partition_indexes.iter().copied();
    let indexes = indexes.filter(|index| seen.insert((&asked.name, asked.topic_id, *index)));
    let partitions = indexes.map(|index| answer(index, found(index), error_code)).collect();
    OffsetFetchResponseTopics::default()
        .with_name(TopicName(name.clone()))
        .with_topic_id(asked.topic_id)
        .with_partitions(partitions)
}

fn fetch_all(group: &Group, version: i16, topics: &dyn Topics) -> Vec<OffsetFetchResponseTopics> {
    let mut answers = Vec::new();
    for (name, partitions) in group.offsets.iter() {
        let id = topics.topic_id(name);
        if version >= TOPIC_IDS_SINCE && id.is_none() {
            continue; // Deleted meanwhile: there is no id to name it by.
        }
        let partitions = partitions.iter().map(|(index, committed)| answer(*index, Some(committed), 0)).collect();
        answers.push(
            OffsetFetchResponseTopics::default()
                .with_name(TopicName(name.clone()))
                .with_topic_id(id.unwrap_or_default())
                .with_partitions(partitions),
        );
    }
    answers
}

fn answer(index: i32, committed: Option<&Committed>, error_code: i16) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions::default()
        .with_partition_index(index)
        .with_committed_offset(committed.map_or(-1, |committed| committed.offset))
        .with_committed_leader_epoch(committed.map_or(-1, |committed| committed.leader_epoch))
        .with_metadata(Some(committed.map_or_else(StrBytes::default, |committed| committed.metadata.clone())))
        .with_error_code(error_code)
}

/// The form of versions 1 to 7, which answer for one group.
fn without_group(topic: OffsetFetchResponseTopics) -> OffsetFetchResponseTopic {
    let partitions = topic
        .partitions
        .into_iter()
        .map(|partition| {
            OffsetFetchResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_committed_offset(partition.committed_offset)
                .with_committed_leader_epoch(partition.committed_leader_epoch)
                .with_metadata(partition.metadata)
                .with_error_code(partition.error_code)
        })
        .collect();
    OffsetFetchResponseTopic::default().with_name(topic.name).with_partitions(partitions)
}
