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

/// Why a record of `__consumer_offsets` cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("record ends inside {0}")]
    Short(&'static str),
    #[error("{0} is not a length")]
    Length(&'static str),
    #[error("{0} is not UTF-8")]
    Utf8(&'static str),
    #[error("{0} must not be null")]
    Null(&'static str),
    #[error("version {1} of {0} is unknown; it may come from a newer Kafka")]
    Version(&'static str, i16),
}

pub fn offset_key(group: &str, topic: &str, partition: i32) -> Vec<u8> {
    let mut out = Vec::with_capacity(10 + group.len() + topic.len());
    put_i16(&mut out, 1);
    put_string(&mut out, Some(group));
    put_string(&mut out, Some(topic));
    put_i32(&mut out, partition);
    out
}

pub fn group_key(group: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + group.len());
    put_i16(&mut out, 2);
    put_string(&mut out, Some(group));
    out
}

impl Key {
    pub fn decode(bytes: &[u8]) -> Result<Key, Malformed> {
        let mut from = Cursor { rest: bytes, flexible: false };
        match from.i16("key version")? {
            0 | 1 => Ok(Key::Offset {
                group: from.string("group")?,
                topic: from.string("topic")?,
                partition: from.i32("partition")?,
            }),
            2 => Ok(Key::Group { group: from.string("group")? }),
            other => Ok(Key::Other(other)),
        }
    }
}

impl Committed {
    /// Version 3, or 1 when the client named a retention: what Kafka chooses.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + self.metadata.len());
        put_i16(&mut out, if self.expire_ms.is_some() { 1 } else { 3 });
        put_i64(&mut out, self.offset);
        if self.expire_ms.is_none() {
            put_i32(&mut out, self.leader_epoch);
        }
        put_string(&mut out, Some(&self.metadata));
        put_i64(&mut out, self.commit_ms);
        if let Some(expire_ms) = self.expire_ms {
            put_i64(&mut out, expire_ms);
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Committed, Malformed> {
        let mut from = Cursor { rest: bytes, flexible: false };
        let version = from.i16("offset version")?;
        if !(0..=4).contains(&version) {
            return Err(Malformed::Version("the offset value", version));
        }
        from.flexible = version >= 4;
        Ok(Committed {
            offset: from.i64("offset")?,
            leader_epoch: if version >= 3 { from.i32("leader epoch")? } else { -1 },
            metadata: from.string("metadata")?,
            commit_ms: from.i64("commit timestamp")?,
            expire_ms: if version == 1 { Some(from.i64("expire timestamp")?).filter(|&ms| ms >= 0) } else { None },
        })
    }
}

impl GroupValue {
    pub fn encode(&self) -> Vec<u8> {
        let members: usize = self.members.iter().map(|m| 160 + m.subscription.len() + m.assignment.len()).sum();
        let mut out = Vec::with_capacity(64 + members);
        put_i16(&mut out, 3);
        put_string(&mut out, Some(&self.protocol_type));
        put_i32(&mut out, self.generation);
        put_string(&mut out, self.protocol.as_deref());
        put_string(&mut out, self.leader.as_deref());
        put_i64(&mut out, self.current_state_ms.unwrap_or(-1));
        put_i32(&mut out, self.members.len() as i32);
        for member in &self.members {
            put_string(&mut out, Some(&member.member_id));
            put_string(&mut out, member.instance_id.as_deref());
            put_string(&mut out, Some(&member.client_id));
            put_string(&mut out, Some(&member.client_host));
            put_i32(&mut out, member.rebalance_timeout_ms);
            put_i32(&mut out, member.session_timeout_ms);
            put_bytes(&mut out, &member.subscription);
            put_bytes(&mut out, &member.assignment);
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<GroupValue, Malformed> {
        let mut from = Cursor { rest: bytes, flexible: false };
        let version = from.i16("group version")?;
        if !(0..=4).contains(&version) {
            return Err(Malformed::Version("the group value", version));
        }
        from.flexible = version >= 4;
        let mut group = GroupValue {
            protocol_type: from.string("protocol type")?,
            generation: from.i32("generation")?,
            protocol: from.nullable_string("protocol")?,
            leader: from.nullable_string("leader")?,
            current_state_ms: if version >= 2 {
                Some(from.i64("state timestamp")?).filter(|&ms| ms >= 0)
            } else {
                None
            },
            members: Vec::new(),
        };
        for _ in 0..from.count("members")? {
            let member_id = from.string("member id")?;
            let instance_id = if version >= 3 { from.nullable_string("group instance id")? } else { None };
            let client_id = from.string("client id")?;
            let client_host = from.string("client host")?;
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
                subscription: from.bytes("subscription")?,
                assignment: from.bytes("assignment")?,
            });
            from.skip_tagged_fields()?;
        }
        Ok(group)
    }
}

/// The topics of a ConsumerProtocolSubscription. Version 0 is a prefix of every version, so only that much is read.
pub fn subscribed_topics(subscription: &[u8]) -> Result<Vec<StrBytes>, Malformed> {
    let mut from = Cursor { rest: subscription, flexible: false };
    from.i16("subscription version")?;
    let count = from.count("topics")?;
    (0..count).map(|_| from.string("topic")).collect()
}

fn put_i16(out: &mut Vec<u8>, value: i16) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_i32(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_string(out: &mut Vec<u8>, value: Option<&str>) {
    match value {
        None => put_i16(out, -1),
        Some(text) => {
            // Every string here came in as a Kafka string, whose length is an i16; requests with longer ones are refused.
            debug_assert!(text.len() <= i16::MAX as usize);
            put_i16(out, text.len() as i16);
            out.extend_from_slice(text.as_bytes());
        }
    }
}

fn put_bytes(out: &mut Vec<u8>, value: &[u8]) {
    put_i32(out, value.len() as i32);
    out.extend_from_slice(value);
}

/// Reads both encodings; `flexible` chooses how lengths are written.
struct Cursor<'a> {
    rest: &'a [u8],
    flexible: bool,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.rest.split_at_checked(count).ok_or(Malformed::Short(what))?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(Malformed::Short(what))?;
        self.rest = tail;
        Ok(*head)
    }

    fn i16(&mut self, what: &'static str) -> Result<i16, Malformed> {
        self.array(what).map(i16::from_be_bytes)
    }

    fn i32(&mut self, what: &'static str) -> Result<i32, Malformed> {
        self.array(what).map(i32::from_be_bytes)
    }

    fn i64(&mut self, what: &'static str) -> Result<i64, Malformed> {
        self.array(what).map(i64::from_be_bytes)
    }

    fn varint(&mut self, what: &'static str) -> Result<u32, Malformed> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array(what)?;
            value |= u32::from(byte & 0x7f).wrapping_shl(shift);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed::Length(what))
    }

    /// A length as this encoding writes it; `wide` is the plain form of bytes and arrays, else that of strings.
    fn length(&mut self, wide: bool, what: &'static str) -> Result<Option<usize>, Malformed> {
        let length = match (self.flexible, wide) {
            (true, _) => i64::from(self.varint(what)?) - 1,
            (false, true) => i64::from(self.i32(what)?),
            (false, false) => i64::from(self.i16(what)?),
        };
        match length {
            -1 => Ok(None),
            n if n >= 0 => Ok(Some(n as usize)),
            _ => Err(Malformed::Length(what)),
        }
    }

    fn nullable_string(&mut self, what: &'static str) -> Result<Option<StrBytes>, Malformed> {
        let Some(length) = self.length(false, what)? else { return Ok(None) };
        let text = std::str::from_utf8(self.take(length, what)?).map_err(|_| Malformed::Utf8(what))?;
        Ok(Some(own(text)))
    }

    fn string(&mut self, what: &'static str) -> Result<StrBytes, Malformed> {
        self.nullable_string(what)?.ok_or(Malformed::Null(what))
    }

    /// Null reads as empty: Kafka itself has written both.
    fn bytes(&mut self, what: &'static str) -> Result<Bytes, Malformed> {
        let length = self.length(true, what)?.unwrap_or(0);
        self.take(length, what).map(Bytes::copy_from_slice)
    }

    fn count(&mut self, what: &'static str) -> Result<usize, Malformed> {
        self.length(true, what).map(Option::unwrap_or_default)
    }

    fn skip_tagged_fields(&mut self) -> Result<(), Malformed> {
        if self.flexible {
            for _ in 0..self.varint("tagged fields")? {
                self.varint("tag")?;
                let size = self.varint("tag size")? as usize;
                self.take(size, "tagged field")?;
            }
        }
        Ok(())
    }
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
