//! Fetch (key 1), versions 4 to 18: the request, borrowed, and its reply, between whose parts record data goes straight
//! from file to socket.
//!
//! - `Fetch::parse` checks the structure of the whole request once; the iterators it gives then cannot fail.
//! - The reply is written in steps. After each `partition` the caller adds exactly the record bytes it announced, to
//!   the output or as file ranges beside it; `end` knows the size of the frame from what was announced.
//!
//! v5: log start offset.  v7: fetch sessions (KIP-227).  v9: leader epoch.  v11: rack (KIP-392).  v12: flexible,
//! divergence.  v13: topic ids.  v15: replica state as a tag.  v16: endpoints (KIP-951).  v18: high watermark (KIP-1166).

use std::ops::RangeInclusive;

use super::frame;
use super::reader::{DecodeError, Reader};
use super::routing::{CurrentLeader, NodeEndpoint, TopicRef};
use super::{ErrorCode, writer};
use crate::ids::NodeId;

/// Kafka's number for this API.
pub const API_KEY: i16 = 1;
/// What is read and written here.
pub const VERSIONS: RangeInclusive<i16> = 4..=18;

fn by_id(version: i16) -> bool {
    version >= 13
}
fn flexible(version: i16) -> bool {
    version >= 12
}

/// A request whose structure was checked.
#[derive(Clone, Debug)]
pub struct Fetch<'a> {
    pub version: i16,
    /// A follower's node id; -1 for a consumer.
    pub replica_id: NodeId,
    /// The follower's broker epoch; -1 unknown.
    pub replica_epoch: i64,
    pub max_wait_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
    /// 0: everything, 1: committed transactions only.
    pub isolation_level: i8,
    /// 0: no session.
    pub session_id: i32,
    /// 0: make a session; -1: none or close it.
    pub session_epoch: i32,
    pub topic_count: usize,
    pub forgotten_topic_count: usize,
    /// Empty: unknown.
    pub rack_id: &'a str,
    topics: Reader<'a>,
    forgotten: Reader<'a>,
}

/// A partition to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPartition<'a> {
    pub topic: TopicRef<'a>,
    pub index: i32,
    /// -1: the client does not say.
    pub current_leader_epoch: i32,
    pub fetch_offset: i64,
    /// -1: the client does not say.
    pub last_fetched_epoch: i32,
    /// A follower's; -1 from consumers.
    pub log_start_offset: i64,
    pub max_bytes: i32,
    /// What a follower knows of the high watermark; `i64::MAX` if it does not say.
    pub high_watermark: i64,
}

impl<'a> Fetch<'a> {
    /// Reads the body at `body` of a frame (without its size).
    pub fn parse(frame: &'a [u8], body: usize, version: i16) -> Result<Fetch<'a>, DecodeError> {
        if !VERSIONS.contains(&version) {
            return Err(DecodeError::Invalid("fetch version"));
        }
        let flexible = flexible(version);
        let mut r = Reader::at(frame, body);
        let replica_id = if version <= 14 { r.i32("replica id")? } else { -1 };
        let max_wait_ms = r.i32("max wait ms")?;
        let min_bytes = r.i32("min bytes")?;
        let max_bytes = r.i32("max bytes")?;
        let isolation_level = r.i8("isolation level")?;
        let (session_id, session_epoch) =
            if version >= 7 { (r.i32("session id")?, r.i32("session epoch")?) } else { (0, -1) };
        let topic_count = r.array_count(flexible, TopicRef::SIZE_MIN + 1, "topics")?;
        let topics = r;
        for _ in 0..topic_count {
            let (topic, partition_count) = read_topic(&mut r, version)?;
            for _ in 0..partition_count {
                read_partition(&mut r, version, topic)?;
            }
            end_struct(&mut r, flexible)?;
        }
        let mut forgotten_topic_count = 0;
        let mut forgotten = r;
        if version >= 7 {
            forgotten_topic_count = r.array_count(flexible, TopicRef::SIZE_MIN + 1, "forgotten topics")?;
            forgotten = r;
            for _ in 0..forgotten_topic_count {
                let (_, partition_count) = read_topic(&mut r, version)?;
                for _ in 0..partition_count {
                    r.i32("forgotten partition")?;
                }
                end_struct(&mut r, flexible)?;
            }
        }
        let rack_id = if version >= 11 { r.string(flexible, "rack id")? } else { "" };
        let mut replica = (replica_id, -1);
        if flexible {
            r.tags(|tag, field| {
                if tag == 1 && version >= 15 {
                    replica = (field.i32("replica id")?, field.i64("replica epoch")?);
                }
                Ok(())
            })?;
        }
        Ok(Fetch {
            version,
            replica_id: NodeId(replica.0),
            replica_epoch: replica.1,
            max_wait_ms,
            min_bytes,
            max_bytes,
            isolation_level,
            session_id,
            session_epoch,
            topic_count,
            forgotten_topic_count,
            rack_id,
            topics,
            forgotten,
        })
    }
    /// The partitions to read, in the order of the request, which counts.
    pub fn partitions(&self) -> impl Iterator<Item = FetchPartition<'a>> + use<'a> {
        let version = self.version;
        flatten(self.topics, self.topic_count, version, move |r, topic| read_partition(r, version, topic))
    }
    /// The partitions an incremental fetch drops from its session.
    pub fn forgotten(&self) -> impl Iterator<Item = (TopicRef<'a>, i32)> + use<'a> {
        flatten(self.forgotten, self.forgotten_topic_count, self.version, |r, topic| {
            Ok((topic, r.i32("forgotten partition")?))
        })
    }
}

/// Elements of all topics in a row. The structure was checked, so an error cannot come; if it does, that is the end.
fn flatten<'a, T>(
    mut r: Reader<'a>,
    mut topics_left: usize,
    version: i16,
    read: impl Fn(&mut Reader<'a>, TopicRef<'a>) -> Result<T, DecodeError>,
) -> impl Iterator<Item = T> {
    let mut current: Option<(TopicRef<'a>, usize)> = None;
    std::iter::from_fn(move || {
        loop {
            match current {
                None => {
                    topics_left = topics_left.checked_sub(1)?;
                    current = Some(read_topic(&mut r, version).ok()?);
                }
                Some((_, 0)) => {
                    end_struct(&mut r, flexible(version)).ok()?;
                    current = None;
                }
                Some((topic, left)) => {
                    current = Some((topic, left - 1));
                    return read(&mut r, topic).ok();
                }
            }
        }
    })
}

fn read_topic<'a>(r: &mut Reader<'a>, version: i16) -> Result<(TopicRef<'a>, usize), DecodeError> {
    let topic = TopicRef::read(r, by_id(version), flexible(version))?;
    let partition_count = r.array_count(flexible(version), 4, "partitions")?;
    Ok((topic, partition_count))
}
fn read_partition<'a>(
    r: &mut Reader<'a>,
    version: i16,
    topic: TopicRef<'a>,
) -> Result<FetchPartition<'a>, DecodeError> {
    let mut partition = FetchPartition {
        topic,
        index: r.i32("partition")?,
        current_leader_epoch: if version >= 9 { r.i32("current leader epoch")? } else { -1 },
        fetch_offset: r.i64("fetch offset")?,
        last_fetched_epoch: if version >= 12 { r.i32("last fetched epoch")? } else { -1 },
        log_start_offset: if version >= 5 { r.i64("log start offset")? } else { -1 },
        max_bytes: r.i32("partition max bytes")?,
        high_watermark: i64::MAX,
    };
    if flexible(version) {
        r.tags(|tag, field| {
            if tag == 1 && version >= 18 {
                partition.high_watermark = field.i64("high watermark")?;
            }
            Ok(())
        })?;
    }
    Ok(partition)
}
fn end_struct(r: &mut Reader<'_>, flexible: bool) -> Result<(), DecodeError> {
    if flexible { r.skip_tags() } else { Ok(()) }
}

/// What a reply says about a partition before its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionData<'a> {
    pub index: i32,
    pub error: ErrorCode,
    /// -1: unknown, with an error.
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start_offset: i64,
    /// Producer id and first offset of each aborted transaction; none unless committed records were asked for.
    pub aborted_transactions: Option<&'a [(i64, i64)]>,
    /// -1: read from the leader.
    pub preferred_read_replica: NodeId,
    /// Record bytes that follow, from memory and files together.
    pub records_size: usize,
}

impl PartitionData<'_> {
    /// No records, just an error.
    pub fn error(index: i32, error: ErrorCode) -> PartitionData<'static> {
        PartitionData {
            index,
            error,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            aborted_transactions: None,
            preferred_read_replica: NodeId(-1),
            records_size: 0,
        }
    }
}

/// What a reply says about a partition after its records; versions below 12 leave it out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionTags {
    /// Epoch and end offset where a follower's log parts from ours.
    pub diverging_epoch: Option<(i32, i64)>,
    pub current_leader: Option<CurrentLeader>,
}

/// A reply under construction: `begin`, for each topic `topic` and its partitions (`partition`, the records,
/// `end_partition`), `end`. Wrong counts or sizes are our own bug and stop the process.
#[derive(Debug)]
pub struct FetchReply {
    version: i16,
    size_at: usize,
    topics_left: usize,
    partitions_left: usize,
    /// Where the records of the open partition begin in the output, and their size.
    records: Option<(usize, usize)>,
    /// Record bytes announced that are not in the output: they come from files.
    file_bytes: u64,
}

impl FetchReply {
    /// Starts the reply frame, size and header included. `error` is the session's; versions below 7 leave it out.
    pub fn begin(
        out: &mut Vec<u8>,
        correlation_id: i32,
        version: i16,
        throttle_ms: i32,
        error: ErrorCode,
        session_id: i32,
        topic_count: usize,
    ) -> FetchReply {
        let size_at = frame::begin_reply(out, correlation_id, frame::reply_header_flexible(API_KEY, version));
        writer::i32(out, throttle_ms);
        if version >= 7 {
            writer::i16(out, error.code());
            writer::i32(out, session_id);
        }
        writer::array_count(out, flexible(version), Some(topic_count));
        FetchReply { version, size_at, topics_left: topic_count, partitions_left: 0, records: None, file_bytes: 0 }
    }
    /// Starts a topic, named as the request named it.
    pub fn topic(&mut self, out: &mut Vec<u8>, topic: TopicRef<'_>, partition_count: usize) {
        assert!(self.partitions_left == 0 && self.topics_left > 0, "a topic too many, or a partition too few");
        topic.write(out, flexible(self.version));
        writer::array_count(out, flexible(self.version), Some(partition_count));
        self.topics_left -= 1;
        self.partitions_left = partition_count;
        if partition_count == 0 {
            writer::no_tags(out, flexible(self.version));
        }
    }
    /// Starts a partition; `records_size` bytes of records are to follow, then `end_partition`.
    pub fn partition(&mut self, out: &mut Vec<u8>, data: &PartitionData<'_>) {
        assert!(self.records.is_none() && self.partitions_left > 0, "a partition too many, or one not ended");
        let (version, flexible) = (self.version, flexible(self.version));
        writer::i32(out, data.index);
        writer::i16(out, data.error.code());
        writer::i64(out, data.high_watermark);
        writer::i64(out, data.last_stable_offset);
        if version >= 5 {
            writer::i64(out, data.log_start_offset);
        }
        writer::array_count(out, flexible, data.aborted_transactions.map(<[_]>::len));
        for (producer_id, first_offset) in data.aborted_transactions.unwrap_or_default() {
            writer::i64(out, *producer_id);
            writer::i64(out, *first_offset);
            writer::no_tags(out, flexible);
        }
        if version >= 11 {
            writer::i32(out, data.preferred_read_replica.0);
        }
        writer::bytes_size(out, flexible, Some(data.records_size));
        self.records = Some((out.len(), data.records_size));
    }
    /// Ends the partition, after its records.
    pub fn end_partition(&mut self, out: &mut Vec<u8>, tags: &PartitionTags) {
        let (records_at, records_size) = self.records.take().expect("no partition to end");
        let in_memory = out.len() - records_at;
        assert!(in_memory <= records_size, "{in_memory} record bytes, {records_size} announced");
        self.file_bytes += (records_size - in_memory) as u64;
        self.partitions_left -= 1;
        if !flexible(self.version) {
            return;
        }
        let tag_count = u32::from(tags.diverging_epoch.is_some()) + u32::from(tags.current_leader.is_some());
        writer::uvarint(out, tag_count);
        if let Some((epoch, end_offset)) = tags.diverging_epoch {
            writer::uvarint(out, 0);
            writer::uvarint(out, 13);
            writer::i32(out, epoch);
            writer::i64(out, end_offset);
            writer::no_tags(out, true);
        }
        if let Some(leader) = tags.current_leader {
            leader.write_tag(out, 1);
        }
        if self.partitions_left == 0 {
            writer::no_tags(out, true);
        }
    }
    /// Ends the reply. `endpoints` are those of the current leaders named; versions below 16 leave them out.
    /// Gives the record bytes that are to come from files.
    pub fn end(self, out: &mut Vec<u8>, endpoints: &[NodeEndpoint<'_>]) -> u64 {
        let complete = self.partitions_left == 0 && self.topics_left == 0 && self.records.is_none();
        assert!(complete, "topics or partitions are missing");
        if self.version >= 16 {
            NodeEndpoint::write_reply_tags(out, endpoints);
        } else {
            writer::no_tags(out, flexible(self.version));
        }
        frame::end_reply(out, self.size_at, self.file_bytes);
        self.file_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::LeaderEpoch;
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::messages::fetch_request::{
        FetchPartition as PeerPartition, FetchTopic, ForgottenTopic, ReplicaState,
    };
    use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, TopicName};
    use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

    const IDS: [uuid::Uuid; 2] = [uuid::Uuid::from_u128(7), uuid::Uuid::from_u128(u128::MAX / 3)];
    const NAMES: [&str; 2] = ["orders", "ünïcode"];

    fn topic_ref(version: i16, i: usize) -> TopicRef<'static> {
        if by_id(version) { TopicRef::Id(IDS[i]) } else { TopicRef::Name(NAMES[i]) }
    }
    fn request(version: i16) -> Vec<u8> {
        let name = |i: usize| TopicName(StrBytes::from_static_str(NAMES[i]));
        let partition = |index| {
            let mut p = PeerPartition::default()
                .with_partition(index)
                .with_fetch_offset(1 << 40)
                .with_partition_max_bytes(1000 + index);
            if version >= 5 {
                p = p.with_log_start_offset(3);
            }
            if version >= 9 {
                p = p.with_current_leader_epoch(8);
            }
            if version >= 12 {
                p = p.with_last_fetched_epoch(7);
            }
            if version >= 17 {
                p = p.with_replica_directory_id(IDS[1]);
            }
            if version >= 18 {
                p = p.with_high_watermark(55);
            }
            p
        };
        let topic = |i: usize, partitions: Vec<i32>| {
            let topic = FetchTopic::default().with_partitions(partitions.into_iter().map(partition).collect());
            if by_id(version) { topic.with_topic_id(IDS[i]) } else { topic.with_topic(name(i)) }
        };
        let mut peer = FetchRequest::default()
            .with_max_wait_ms(500)
            .with_min_bytes(1)
            .with_max_bytes(50 << 20)
            .with_isolation_level(1)
            .with_topics(vec![topic(0, vec![0, 4]), topic(1, vec![]), topic(1, vec![9])]);
        if version >= 7 {
            let forgotten = ForgottenTopic::default().with_partitions(vec![3, 2]);
            let forgotten =
                if by_id(version) { forgotten.with_topic_id(IDS[1]) } else { forgotten.with_topic(name(1)) };
            peer = peer.with_session_id(21).with_session_epoch(2).with_forgotten_topics_data(vec![forgotten]);
        }
        if version >= 11 {
            peer = peer.with_rack_id(StrBytes::from_static_str("rack-a"));
        }
        if version >= 12 {
            peer = peer.with_cluster_id(Some(StrBytes::from_static_str("cluster")));
        }
        peer = if version >= 15 {
            let state = ReplicaState::default().with_replica_id(BrokerId(6)).with_replica_epoch(66);
            peer.with_replica_state(state)
        } else {
            peer.with_replica_id(BrokerId(6))
        };
        let mut out = BytesMut::from(&b"header"[..]);
        peer.encode(&mut out, version).unwrap();
        out.to_vec()
    }

    #[test]
    fn requests_of_another_encoder_are_read_in_every_version() {
        for version in VERSIONS {
            let frame = request(version);
            let fetch = Fetch::parse(&frame, 6, version).unwrap();
            assert_eq!((fetch.max_wait_ms, fetch.min_bytes, fetch.max_bytes), (500, 1, 50 << 20));
            assert_eq!((fetch.isolation_level, fetch.replica_id, fetch.topic_count), (1, NodeId(6), 3));
            assert_eq!(fetch.replica_epoch, if version >= 15 { 66 } else { -1 });
            assert_eq!((fetch.session_id, fetch.session_epoch), if version >= 7 { (21, 2) } else { (0, -1) });
            assert_eq!(fetch.rack_id, if version >= 11 { "rack-a" } else { "" });
            let partition = |topic, index| FetchPartition {
                topic: topic_ref(version, topic),
                index,
                current_leader_epoch: if version >= 9 { 8 } else { -1 },
                fetch_offset: 1 << 40,
                last_fetched_epoch: if version >= 12 { 7 } else { -1 },
                log_start_offset: if version >= 5 { 3 } else { -1 },
                max_bytes: 1000 + index,
                high_watermark: if version >= 18 { 55 } else { i64::MAX },
            };
            let partitions: Vec<_> = fetch.partitions().collect();
            assert_eq!(partitions, [partition(0, 0), partition(0, 4), partition(1, 9)], "v{version}");
            let forgotten: Vec<_> = fetch.forgotten().collect();
            let expected =
                if version >= 7 { vec![(topic_ref(version, 1), 3), (topic_ref(version, 1), 2)] } else { vec![] };
            assert_eq!(forgotten, expected);
        }
    }

    #[test]
    fn cut_requests_are_refused_at_every_byte() {
        for version in VERSIONS {
            let frame = request(version);
            for size in 0..frame.len() {
                assert!(Fetch::parse(&frame[..size], 6, version).is_err(), "v{version} cut to {size}");
            }
        }
        assert!(Fetch::parse(&request(4), 6, 3).is_err() && Fetch::parse(&request(18), 6, 19).is_err());
    }

    #[test]
    fn replies_are_read_by_another_decoder_in_every_version() {
        for version in VERSIONS {
            let mut out = b"earlier".to_vec();
            let mut reply = FetchReply::begin(&mut out, 99, version, 17, ErrorCode::None, 21, 2);
            reply.topic(&mut out, topic_ref(version, 0), 2);
            let data = PartitionData {
                index: 3,
                error: ErrorCode::None,
                high_watermark: 100,
                last_stable_offset: 90,
                log_start_offset: 5,
                aborted_transactions: Some(&[(1, 2), (3, 4)]),
                preferred_read_replica: NodeId(-1),
                records_size: 200,
            };
            reply.partition(&mut out, &data);
            // 50 bytes from memory now, 150 from a file: the test's file is put in at this place below.
            out.extend_from_slice(&[7; 50]);
            let file_at = out.len();
            reply.end_partition(&mut out, &PartitionTags::default());
            reply.partition(&mut out, &PartitionData::error(4, ErrorCode::FencedLeaderEpoch));
            let tags = PartitionTags {
                diverging_epoch: Some((4, 1234)),
                current_leader: Some(CurrentLeader { leader: NodeId(2), epoch: LeaderEpoch(9) }),
            };
            reply.end_partition(&mut out, &tags);
            reply.topic(&mut out, topic_ref(version, 1), 0);
            let endpoint = NodeEndpoint { node: NodeId(2), host: "host-2", port: 9094, rack: None };
            assert_eq!(reply.end(&mut out, &[endpoint]), 150);
            assert_eq!(out[7..11], ((out.len() - 11 + 150) as i32).to_be_bytes());
            out.splice(file_at..file_at, [8; 150]);

            let mut bytes = Bytes::copy_from_slice(&out[7 + 8 + usize::from(flexible(version))..]);
            let peer = FetchResponse::decode(&mut bytes, version).unwrap();
            assert!(bytes.is_empty(), "v{version}: {} bytes left", bytes.len());
            assert_eq!((peer.throttle_time_ms, peer.session_id), (17, if version >= 7 { 21 } else { 0 }));
            let topic = &peer.responses[0];
            match topic_ref(version, 0) {
                TopicRef::Name(name) => assert_eq!(&*topic.topic.0, name),
                TopicRef::Id(id) => assert_eq!(topic.topic_id, id),
            }
            let (read, fenced) = (&topic.partitions[0], &topic.partitions[1]);
            assert_eq!((read.partition_index, read.high_watermark, read.last_stable_offset), (3, 100, 90));
            assert_eq!(read.log_start_offset, if version >= 5 { 5 } else { -1 });
            assert_eq!(read.records.as_deref(), Some(&[&[7; 50][..], &[8; 150]].concat()[..]));
            let aborted = read.aborted_transactions.as_ref().unwrap();
            assert_eq!((aborted[1].producer_id.0, aborted[1].first_offset), (3, 4));
            assert_eq!((fenced.error_code, fenced.aborted_transactions.is_none()), (74, true));
            assert_eq!((fenced.preferred_read_replica.0, fenced.records.as_deref()), (-1, Some(&[][..])));
            if version >= 12 {
                assert_eq!((fenced.diverging_epoch.epoch, fenced.diverging_epoch.end_offset), (4, 1234));
                assert_eq!((fenced.current_leader.leader_id.0, fenced.current_leader.leader_epoch), (2, 9));
            }
            if version >= 16 {
                assert_eq!((&*peer.node_endpoints[0].host, peer.node_endpoints[0].port), ("host-2", 9094));
            }
        }
    }
}
