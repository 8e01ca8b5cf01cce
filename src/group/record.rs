//! Records of `__consumer_offsets`, byte for byte as Apache Kafka writes them: its dump tool prints ours, and we load its
//! directories. Pure encoding; what the records mean is decided elsewhere. Peer-written bytes never panic.
//!
//! ```text
//! string = i16 length (-1: null), bytes        bytes = i32 length (-1: null), bytes       all integers big-endian
//!
//! key    0|1  i16 version, string group, string topic, i32 partition                     a committed offset
//!        2    i16 version, string group                                                  a group and its members
//! offset 0-3  i16 version, i64 offset, [3: i32 leader_epoch], string metadata, i64 commit_ms, [1: i64 expire_ms]
//! group  0-3  i16 version, string protocol_type, i32 generation, string? protocol, string? leader,
//!             [2+: i64 current_state_ms], i32 count, members:
//!               string member_id, [3: string? instance_id], string client_id, string client_host,
//!               [1+: i32 rebalance_timeout_ms], i32 session_timeout_ms, bytes subscription, bytes assignment
//! ```
//! Version 4 of both values is the same with compact lengths (unsigned varint of length + 1) and tagged fields, which we
//! read and never write. A null value is a tombstone. Other key versions belong to protocols that this broker does not
//! speak (KIP-848, share groups); they are skipped at load.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;

use super::own;
use crate::wire::reader::{DecodeError, Reader};
use crate::wire::writer;

/// One record on its way to the offsets partition. No value is a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

impl Record {
    pub fn len(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    Offset {
        group: StrBytes,
        topic: StrBytes,
        partition: i32,
    },
    Group {
        group: StrBytes,
    },
    /// A key version of a protocol that this broker does not speak.
    Other(i16),
}

/// A committed offset, as stored and as kept in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: StrBytes,
    pub commit_ms: i64,
    /// Only from clients that name a retention (OffsetCommit 2-4).
    pub expire_ms: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupValue {
    pub protocol_type: StrBytes,
    pub generation: i32,
    pub protocol: Option<StrBytes>,
    pub leader: Option<StrBytes>,
    pub current_state_ms: Option<i64>,
    pub members: Vec<MemberValue>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberValue {
    pub member_id: StrBytes,
    pub instance_id: Option<StrBytes>,
    pub client_id: StrBytes,
    pub client_host: StrBytes,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    pub subscription: Bytes,
    pub assignment: Bytes,
}

pub fn offset_key(group: &str, topic: &str, partition: i32) -> Vec<u8> {
    let mut out = Vec::with_capacity(10 + group.len() + topic.len());
    writer::i16(&mut out, 1);
    writer::string(&mut out, false, group);
    writer::string(&mut out, false, topic);
    writer::i32(&mut out, partition);
    out
}

pub fn group_key(group: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + group.len());
    writer::i16(&mut out, 2);
    writer::string(&mut out, false, group);
    out
}

impl Key {
    pub fn decode(bytes: &[u8]) -> Result<Key, DecodeError> {
        let mut from = Reader::new(bytes);
        match from.i16("key version")? {
            0 | 1 => Ok(Key::Offset {
                group: own(from.string(false, "group")?),
                topic: own(from.string(false, "topic")?),
                partition: from.i32("partition")?,
            }),
            2 => Ok(Key::Group { group: own(from.string(false, "group")?) }),
            other => Ok(Key::Other(other)),
        }
    }
}

impl Committed {
    /// Version 3, or 1 when the client named a retention: what Kafka chooses.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + self.metadata.len());
        writer::i16(&mut out, if self.expire_ms.is_some() { 1 } else { 3 });
        writer::i64(&mut out, self.offset);
        if self.expire_ms.is_none() {
            writer::i32(&mut out, self.leader_epoch);
        }
        writer::string(&mut out, false, &self.metadata);
        writer::i64(&mut out, self.commit_ms);
        if let Some(expire_ms) = self.expire_ms {
            writer::i64(&mut out, expire_ms);
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Committed, DecodeError> {
        let mut from = Reader::new(bytes);
        let version = from.i16("offset version")?;
        if !(0..=4).contains(&version) {
            return Err(DecodeError::Invalid("version of the offset value"));
        }
        let flexible = version >= 4;
        Ok(Committed {
            offset: from.i64("offset")?,
            leader_epoch: if version >= 3 { from.i32("leader epoch")? } else { -1 },
            metadata: own(from.string(flexible, "metadata")?),
            commit_ms: from.i64("commit timestamp")?,
            expire_ms: if version == 1 { Some(from.i64("expire timestamp")?).filter(|&ms| ms >= 0) } else { None },
        })
    }
}

impl GroupValue {
    pub fn encode(&self) -> Vec<u8> {
        let members: usize = self.members.iter().map(|m| 160 + m.subscription.len() + m.assignment.len()).sum();
        let mut out = Vec::with_capacity(64 + members);
        writer::i16(&mut out, 3);
        writer::string(&mut out, false, &self.protocol_type);
        writer::i32(&mut out, self.generation);
        writer::nullable_string(&mut out, false, self.protocol.as_deref());
        writer::nullable_string(&mut out, false, self.leader.as_deref());
        writer::i64(&mut out, self.current_state_ms.unwrap_or(-1));
        writer::i32(&mut out, self.members.len() as i32);
        for member in &self.members {
            writer::string(&mut out, false, &member.member_id);
            writer::nullable_string(&mut out, false, member.instance_id.as_deref());
            writer::string(&mut out, false, &member.client_id);
            writer::string(&mut out, false, &member.client_host);
            writer::i32(&mut out, member.rebalance_timeout_ms);
            writer::i32(&mut out, member.session_timeout_ms);
            writer::nullable_bytes(&mut out, false, Some(&member.subscription));
            writer::nullable_bytes(&mut out, false, Some(&member.assignment));
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<GroupValue, DecodeError> {
        let mut from = Reader::new(bytes);
        let version = from.i16("group version")?;
        if !(0..=4).contains(&version) {
            return Err(DecodeError::Invalid("version of the group value"));
        }
        let flexible = version >= 4;
        let mut group = GroupValue {
            protocol_type: own(from.string(flexible, "protocol type")?),
            generation: from.i32("generation")?,
            protocol: from.nullable_string(flexible, "protocol")?.map(own),
            leader: from.nullable_string(flexible, "leader")?.map(own),
            current_state_ms: if version >= 2 {
                Some(from.i64("state timestamp")?).filter(|&ms| ms >= 0)
            } else {
                None
            },
            members: Vec::new(),
        };
        for _ in 0..from.array_count(flexible, 16, "members")? {
            let member_id = own(from.string(flexible, "member id")?);
            let instance_id =
                if version >= 3 { from.nullable_string(flexible, "group instance id")?.map(own) } else { None };
            let client_id = own(from.string(flexible, "client id")?);
            let client_host = own(from.string(flexible, "client host")?);
            let rebalance_timeout_ms = if version >= 1 { from.i32("rebalance timeout")? } else { -1 };
            let session_timeout_ms = from.i32("session timeout")?;
            group.members.push(MemberValue {
                member_id,
                instance_id,
                client_id,
                client_host,
                rebalance_timeout_ms: if rebalance_timeout_ms == -1 {
                    session_timeout_ms
                } else {
                    rebalance_timeout_ms
                },
                session_timeout_ms,
                subscription: owned(from.nullable_bytes(flexible, "subscription")?),
                assignment: owned(from.nullable_bytes(flexible, "assignment")?),
            });
            if flexible {
                from.skip_tags()?;
            }
        }
        Ok(group)
    }
}

/// Null reads as empty: Kafka itself has written both.
fn owned(bytes: Option<&[u8]>) -> Bytes {
    Bytes::copy_from_slice(bytes.unwrap_or_default())
}

/// The topics of a ConsumerProtocolSubscription. Version 0 is a prefix of every version, so only that much is read.
pub fn subscribed_topics(subscription: &[u8]) -> Result<Vec<StrBytes>, DecodeError> {
    let mut from = Reader::new(subscription);
    from.i16("subscription version")?;
    let count = from.array_count(false, 2, "topics")?;
    (0..count).map(|_| from.string(false, "topic").map(own)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed(expire_ms: Option<i64>) -> Committed {
        Committed { offset: 42, leader_epoch: 7, metadata: own("note"), commit_ms: 1_000, expire_ms }
    }

    #[test]
    fn offset_bytes_are_kafkas() {
        assert_eq!(offset_key("g", "top", 9), b"\0\x01\0\x01g\0\x03top\0\0\0\x09");
        assert_eq!(committed(None).encode(), b"\0\x03\0\0\0\0\0\0\0\x2a\0\0\0\x07\0\x04note\0\0\0\0\0\0\x03\xe8");
        assert_eq!(
            committed(Some(2_000)).encode(),
            b"\0\x01\0\0\0\0\0\0\0\x2a\0\x04note\0\0\0\0\0\0\x03\xe8\0\0\0\0\0\0\x07\xd0"
        );
    }

    #[test]
    fn offset_round_trip() {
        assert_eq!(Committed::decode(&committed(None).encode()), Ok(committed(None)));
        // Version 1 has no leader epoch.
        let with_retention = Committed { leader_epoch: -1, ..committed(Some(2_000)) };
        assert_eq!(Committed::decode(&committed(Some(2_000)).encode()), Ok(with_retention));
        // Version 4, as a newer Kafka writes it: compact string, one tagged field at the end.
        let flexible = b"\0\x04\0\0\0\0\0\0\0\x2a\0\0\0\x07\x05note\0\0\0\0\0\0\x03\xe8\x01\0\x01x";
        assert_eq!(Committed::decode(flexible), Ok(committed(None)));
    }

    #[test]
    fn group_round_trip() {
        let group = GroupValue {
            protocol_type: own("consumer"),
            generation: 3,
            protocol: Some(own("range")),
            leader: None,
            current_state_ms: Some(5),
            members: vec![MemberValue {
                member_id: own("m"),
                instance_id: Some(own("i")),
                client_id: own("c"),
                client_host: own("/127.0.0.1"),
                rebalance_timeout_ms: 1,
                session_timeout_ms: 2,
                subscription: Bytes::from_static(b"sub"),
                assignment: Bytes::from_static(b""),
            }],
        };
        let bytes = group.encode();
        assert_eq!(bytes[..12], *b"\0\x03\0\x08consumer");
        assert_eq!(GroupValue::decode(&bytes), Ok(group));
        for cut in 0..bytes.len() {
            assert!(GroupValue::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(Key::decode(&group_key("g")), Ok(Key::Group { group: own("g") }));
        assert_eq!(Key::decode(b"\0\x05rest"), Ok(Key::Other(5)));
    }
}
