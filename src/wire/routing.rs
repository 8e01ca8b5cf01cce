//! How the hot messages name a topic, and how their replies tell a client where a leader went (KIP-951).

use super::reader::{DecodeError, Reader};
use super::writer;
use crate::ids::{LeaderEpoch, NodeId, TopicId};

/// A topic as the request names it: by name in old versions, by id in new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TopicRef<'a> {
    Name(&'a str),
    Id(TopicId),
}

impl<'a> TopicRef<'a> {
    /// Smallest encoding of a name, for judging counts.
    pub(super) const SIZE_MIN: usize = 1;

    pub(super) fn read(r: &mut Reader<'a>, by_id: bool, flexible: bool) -> Result<TopicRef<'a>, DecodeError> {
        Ok(if by_id { TopicRef::Id(r.uuid("topic id")?) } else { TopicRef::Name(r.string(flexible, "topic name")?) })
    }
    /// Writes it as it is; the caller answers a version with what that version asked by.
    pub(super) fn write(self, out: &mut Vec<u8>, flexible: bool) {
        match self {
            TopicRef::Name(name) => writer::string(out, flexible, name),
            TopicRef::Id(id) => writer::uuid(out, id),
        }
    }
}

/// Who leads a partition, told with NOT_LEADER_OR_FOLLOWER or FENCED_LEADER_EPOCH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrentLeader {
    /// -1: unknown.
    pub leader: NodeId,
    pub epoch: LeaderEpoch,
}

impl CurrentLeader {
    const SIZE: u32 = 9;

    /// As a tagged field: the two numbers and their own empty list of tags.
    pub(super) fn write_tag(self, out: &mut Vec<u8>, tag: u32) {
        writer::uvarint(out, tag);
        writer::uvarint(out, CurrentLeader::SIZE);
        writer::i32(out, self.leader.0);
        writer::i32(out, self.epoch.0);
        writer::no_tags(out, true);
    }
}

/// Where a node listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeEndpoint<'a> {
    pub node: NodeId,
    pub host: &'a str,
    pub port: i32,
    pub rack: Option<&'a str>,
}

impl NodeEndpoint<'_> {
    /// The tagged fields that end a Produce or Fetch reply: the endpoints, if there are any and the version has them.
    pub(super) fn write_reply_tags(out: &mut Vec<u8>, endpoints: &[NodeEndpoint<'_>]) {
        if endpoints.is_empty() {
            return writer::no_tags(out, true);
        }
        let text_size = |text: &str| writer::uvarint_size(text.len() as u32 + 1) + text.len();
        let size = writer::uvarint_size(endpoints.len() as u32 + 1)
            + endpoints.iter().map(|e| 9 + text_size(e.host) + e.rack.map_or(1, text_size)).sum::<usize>();
        writer::uvarint(out, 1);
        writer::uvarint(out, 0);
        writer::uvarint(out, size as u32);
        writer::array_count(out, true, Some(endpoints.len()));
        for endpoint in endpoints {
            writer::i32(out, endpoint.node.0);
            writer::string(out, true, endpoint.host);
            writer::i32(out, endpoint.port);
            writer::nullable_string(out, true, endpoint.rack);
            writer::no_tags(out, true);
        }
    }
}
