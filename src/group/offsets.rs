//! Committed offsets of a group: who may commit, what a fetch answers, when an offset is forgotten. Offsets become visible
//! only when their record is appended. Pure, like the rest of `group`; topics are asked through [`Topics`].

use std::collections::BTreeMap;

use kafka_protocol::messages::OffsetCommitRequest;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::classic::{Group, State};
use super::record::{Committed, Record, offset_key};
use super::{Config, own};
use crate::ids::Now;
use crate::wire::ErrorCode;

/// Rough cost of one committed offset in memory beside its metadata, and of one topic of a group beside its name.
const OFFSET_BYTES: usize = 96;
const TOPIC_BYTES: usize = 192;

/// What this module must know of the cluster's topics.
pub trait Topics {
    fn has_topic(&self, name: &str) -> bool;
    fn has_partition(&self, name: &str, partition: i32) -> bool;
    fn topic_id(&self, name: &str) -> Option<Uuid>;
    fn topic_name(&self, id: Uuid) -> Option<StrBytes>;
}

/// The offsets of one group, by topic and partition.
#[derive(Default, Debug)]
pub(super) struct Offsets {
    topics: BTreeMap<StrBytes, BTreeMap<i32, Committed>>,
    bytes: usize,
}

impl Offsets {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    pub fn get(&self, topic: &StrBytes, partition: i32) -> Option<&Committed> {
        self.topics.get(topic)?.get(&partition)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&StrBytes, &BTreeMap<i32, Committed>)> {
        self.topics.iter()
    }

    pub fn put(&mut self, topic: &StrBytes, partition: i32, committed: Committed) {
        let cost = OFFSET_BYTES + committed.metadata.len();
        if !self.topics.contains_key(topic) {
            self.bytes += TOPIC_BYTES + topic.len();
            self.topics.insert(topic.clone(), BTreeMap::new());
        }
        let Some(partitions) = self.topics.get_mut(topic) else { return };
        let before = partitions.insert(partition, committed);
        self.bytes = self.bytes + cost - before.map_or(0, |old| OFFSET_BYTES + old.metadata.len());
    }

    pub fn remove(&mut self, topic: &StrBytes, partition: i32) {
        let Some(partitions) = self.topics.get_mut(topic) else { return };
        if let Some(old) = partitions.remove(&partition) {
            self.bytes -= OFFSET_BYTES + old.metadata.len();
        }
        if partitions.is_empty() {
            self.topics.remove(topic);
            self.bytes -= TOPIC_BYTES + topic.len();
        }
    }

    pub fn keys(&self) -> impl Iterator<Item = (&StrBytes, i32)> {
        self.topics.iter().flat_map(|(topic, partitions)| partitions.keys().map(move |partition| (topic, *partition)))
    }
}

/// What a commit of one partition would take if it is new here.
pub(super) fn commit_bytes(topic: &str, metadata: Option<&StrBytes>) -> usize {
    OFFSET_BYTES + TOPIC_BYTES + topic.len() + metadata.map_or(0, |text| text.len())
}

pub(super) fn tombstone(group: &StrBytes, topic: &StrBytes, partition: i32) -> Record {
    Record { key: offset_key(group, topic, partition), value: None }
}

/// Kafka counts UTF-16 units; looking closer is only needed when there are more bytes than that.
pub(super) fn metadata_is_too_large(metadata: Option<&StrBytes>, config: &Config) -> bool {
    metadata.is_some_and(|text| {
        text.len() > config.offset_metadata_bytes_max && text.encode_utf16().count() > config.offset_metadata_bytes_max
    })
}

/// The offset a request commits. Retention of -1 means the broker's.
pub(super) fn committed(request: &OffsetCommitRequestPartition, retention_ms: i64, now: Now) -> Committed {
    Committed {
        offset: request.committed_offset,
        leader_epoch: request.committed_leader_epoch,
        metadata: request.committed_metadata.as_deref().map_or_else(StrBytes::default, own),
        commit_ms: now.wall_ms,
        expire_ms: (retention_ms != -1).then(|| now.wall_ms.saturating_add(retention_ms)),
    }
}

impl Group {
    /// Only members of the current generation commit to a group that has members; anyone commits to an empty one.
    pub fn check_commit(&self, request: &OffsetCommitRequest) -> Result<(), ErrorCode> {
        let generation = request.generation_id_or_member_epoch;
        if generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        if generation < 0 && request.member_id.is_empty() && request.group_instance_id.is_none() {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.check_member(&request.member_id, request.group_instance_id.as_ref())?;
        if generation != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        if self.state == State::CompletingRebalance {
            return Err(ErrorCode::RebalanceInProgress);
        }
        Ok(())
    }

    pub fn check_offset_delete(&self) -> Result<(), ErrorCode> {
        // Whether a topic is in use can only be told from the subscriptions of consumers.
        if self.state == State::Empty || self.uses_consumer_protocol() { Ok(()) } else { Err(ErrorCode::NonEmptyGroup) }
    }

    /// Offsets nobody needs any more, and whether none is left.
    pub fn expired_offsets(&self, config: &Config, now: Now) -> (Vec<(StrBytes, i32)>, bool) {
        let since_empty = match (&self.protocol_type, self.state) {
            // A group that lost its members keeps its offsets for the retention time from that moment on.
            (Some(_), State::Empty) => self.current_state_ms,
            // A live group of consumers forgets topics it no longer reads.
            (Some(_), State::Stable) if self.uses_consumer_protocol() && self.subscribed_topics.is_some() => None,
            (Some(_), _) => return (Vec::new(), self.offsets.is_empty()),
            // Consumers without a group: each offset lives on its own.
            (None, _) => None,
        };
        let is_expired = |committed: &Committed| match committed.expire_ms {
            Some(expire_ms) => now.wall_ms >= expire_ms,
            None => now.wall_ms - since_empty.unwrap_or(committed.commit_ms) >= config.offsets_retention_ms,
        };
        let mut expired = Vec::new();
        let mut all = true;
        for (topic, partitions) in self.offsets.iter() {
            let subscribed = self.is_subscribed_to(topic);
            for (partition, committed) in partitions {
                if !subscribed && is_expired(committed) {
                    expired.push((topic.clone(), *partition));
                } else {
                    all = false;
                }
            }
        }
        (expired, all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_return_to_zero() {
        let mut offsets = Offsets::default();
        let now = Now::default();
        for (topic, partition) in [("a", 0), ("a", 1), ("b", 0), ("a", 0)] {
            let request = OffsetCommitRequestPartition::default().with_committed_metadata(Some(own("some metadata")));
            offsets.put(&own(topic), partition, committed(&request, -1, now));
        }
        assert_eq!(offsets.keys().count(), 3);
        let keys: Vec<_> = offsets.keys().map(|(topic, partition)| (topic.clone(), partition)).collect();
        for (topic, partition) in keys {
            offsets.remove(&topic, partition);
        }
        assert!(offsets.is_empty());
        assert_eq!(offsets.bytes(), 0);
    }
}
