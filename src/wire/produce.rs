//! Produce (key 0), versions 3 to 13: the request, read where it lies, and its reply.
//!
//! - `Produce::parse` checks the structure of the whole request once; the cursor it gives then cannot fail. The cursor
//!   does not borrow the frame, so that batches can be stamped in place between its steps.
//! - Record data is named by its range in the frame, never copied.
//!
//! v8: record errors and a message in the reply.  v9: flexible.  v10: current leader in the reply (KIP-951).
//! v13: topic ids (KIP-516).

use std::fmt;
use std::ops::{Range, RangeInclusive};

use super::frame;
use super::reader::{DecodeError, Reader};
use super::routing::{CurrentLeader, NodeEndpoint, TopicRef};
use super::{ErrorCode, writer};

/// Kafka's number for this API.
pub const API_KEY: i16 = 0;
/// What is read and written here.
pub const VERSIONS: RangeInclusive<i16> = 3..=13;

fn by_id(version: i16) -> bool {
    version >= 13
}
fn flexible(version: i16) -> bool {
    version >= 9
}

/// A request whose structure was checked.
#[derive(Clone, Debug)]
pub struct Produce {
    pub version: i16,
    /// -1: all in-sync replicas, 0: no reply, 1: the leader. Other values are for the handler to refuse.
    pub acks: i16,
    pub timeout_ms: i32,
    pub topic_count: usize,
    /// Whether a transactional id is set.
    pub is_transactional: bool,
    transactional_id: Range<usize>,
    topics_at: usize,
}

impl Produce {
    /// Reads the body at `body` of a frame (without its size).
    pub fn parse(frame: &[u8], body: usize, version: i16) -> Result<Produce, DecodeError> {
        if !VERSIONS.contains(&version) {
            return Err(DecodeError::Invalid("produce version"));
        }
        let flexible = flexible(version);
        let mut r = Reader::at(frame, body);
        let id = r.nullable_string(flexible, "transactional id")?;
        let transactional_id = r.position() - id.unwrap_or_default().len()..r.position();
        let acks = r.i16("acks")?;
        let timeout_ms = r.i32("timeout ms")?;
        let topic_count = r.array_count(flexible, TopicRef::SIZE_MIN + 1, "topics")?;
        let topics_at = r.position();
        for _ in 0..topic_count {
            let (_, partition_count) = read_topic(&mut r, version)?;
            for _ in 0..partition_count {
                read_partition(&mut r, flexible)?;
            }
            if flexible {
                r.skip_tags()?;
            }
        }
        if flexible {
            r.skip_tags()?;
        }
        Ok(Produce {
            version,
            acks,
            timeout_ms,
            topic_count,
            is_transactional: id.is_some(),
            transactional_id,
            topics_at,
        })
    }
    /// The transactional id, if set. `frame` is the one that was parsed.
    pub fn transactional_id<'a>(&self, frame: &'a [u8]) -> Option<&'a str> {
        let id = frame.get(self.transactional_id.clone()).filter(|_| self.is_transactional)?;
        std::str::from_utf8(id).ok()
    }
    /// Steps through topics and partitions.
    pub fn cursor(&self) -> Cursor {
        Cursor { version: self.version, position: self.topics_at, topics_left: self.topic_count, topic: None }
    }
}

/// A topic of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProduceTopic<'a> {
    pub topic: TopicRef<'a>,
    pub partition_count: usize,
}

/// A partition of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducePartition {
    pub index: i32,
    /// Where the record data is in the frame; none for null.
    pub records: Option<Range<usize>>,
}

/// Where we are in a request: `next_topic`, then `next_partition` until none, then `next_topic` again.
/// Every call takes the frame that was parsed; bytes outside record data must not have changed.
#[derive(Clone, Debug)]
pub struct Cursor {
    version: i16,
    position: usize,
    topics_left: usize,
    /// Partitions left in the topic we are in.
    topic: Option<usize>,
}

impl Cursor {
    /// The next topic; skips what is left of the one before.
    pub fn next_topic<'a>(&mut self, frame: &'a [u8]) -> Option<ProduceTopic<'a>> {
        while self.next_partition(frame).is_some() {}
        self.topics_left = self.topics_left.checked_sub(1)?;
        let mut r = Reader::at(frame, self.position);
        let (topic, partition_count) = read_topic(&mut r, self.version).ok()?;
        self.position = r.position();
        self.topic = Some(partition_count);
        Some(ProduceTopic { topic, partition_count })
    }
    /// The next partition of the topic; none when it has no more.
    pub fn next_partition(&mut self, frame: &[u8]) -> Option<ProducePartition> {
        let left = self.topic?;
        let flexible = flexible(self.version);
        let mut r = Reader::at(frame, self.position);
        let partition = if left == 0 {
            self.topic = None;
            if flexible {
                r.skip_tags().ok()?;
            }
            None
        } else {
            self.topic = Some(left - 1);
            Some(read_partition(&mut r, flexible).ok()?)
        };
        self.position = r.position();
        partition
    }
}

fn read_topic<'a>(r: &mut Reader<'a>, version: i16) -> Result<(TopicRef<'a>, usize), DecodeError> {
    let topic = TopicRef::read(r, by_id(version), flexible(version))?;
    let partition_count = r.array_count(flexible(version), 5, "partitions")?;
    Ok((topic, partition_count))
}
fn read_partition(r: &mut Reader<'_>, flexible: bool) -> Result<ProducePartition, DecodeError> {
    let index = r.i32("partition")?;
    let records = r.nullable_bytes(flexible, "records")?;
    let records = records.map(|records| r.position() - records.len()..r.position());
    if flexible {
        r.skip_tags()?;
    }
    Ok(ProducePartition { index, records })
}

/// A record that made its batch fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordError {
    /// Its place in the batch.
    pub index: i32,
    pub message: Option<String>,
}

impl fmt::Display for RecordError {
    /// As Kafka shows it inside a message about the whole batch.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => write!(f, "RecordError(batchIndex={}, message='{message}')", self.index),
            None => write!(f, "RecordError(batchIndex={}, message=null)", self.index),
        }
    }
}

/// What became of a partition's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionResult<'a> {
    pub index: i32,
    pub error: ErrorCode,
    /// Of the first record; -1 with an error.
    pub base_offset: i64,
    /// -1 unless the topic's timestamps are LogAppendTime.
    pub log_append_time_ms: i64,
    /// -1: unknown.
    pub log_start_offset: i64,
    /// The records that made the batch fail, where single ones did.
    pub record_errors: &'a [RecordError],
    pub error_message: Option<&'a str>,
    pub current_leader: Option<CurrentLeader>,
}

impl<'a> PartitionResult<'a> {
    /// Refused.
    pub fn error(index: i32, error: ErrorCode, error_message: Option<&'a str>) -> PartitionResult<'a> {
        PartitionResult {
            index,
            error,
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: -1,
            record_errors: &[],
            error_message,
            current_leader: None,
        }
    }
}

/// A reply under construction: `begin`, for each topic `topic` and its `partition`s, `end`. Counts are told first
/// because the protocol writes them first; telling wrong ones is our own bug and stops the process.
#[derive(Debug)]
pub struct ProduceReply {
    version: i16,
    size_at: usize,
    topics_left: usize,
    partitions_left: usize,
}

impl ProduceReply {
    /// Starts the reply frame, size and header included.
    pub fn begin(out: &mut Vec<u8>, correlation_id: i32, version: i16, topic_count: usize) -> ProduceReply {
        let size_at = frame::begin_reply(out, correlation_id, frame::reply_header_flexible(API_KEY, version));
        writer::array_count(out, flexible(version), Some(topic_count));
        ProduceReply { version, size_at, topics_left: topic_count, partitions_left: 0 }
    }
    /// Starts a topic, named as the request named it.
    pub fn topic(&mut self, out: &mut Vec<u8>, topic: TopicRef<'_>, partition_count: usize) {
        assert!(self.partitions_left == 0 && self.topics_left > 0, "a topic too many, or a partition too few");
        let flexible = flexible(self.version);
        topic.write(out, flexible);
        writer::array_count(out, flexible, Some(partition_count));
        self.topics_left -= 1;
        self.partitions_left = partition_count;
        if partition_count == 0 {
            writer::no_tags(out, flexible);
        }
    }
    pub fn partition(&mut self, out: &mut Vec<u8>, result: &PartitionResult<'_>) {
        self.partitions_left = self.partitions_left.checked_sub(1).expect("a partition too many");
        let (version, flexible) = (self.version, flexible(self.version));
        writer::i32(out, result.index);
        writer::i16(out, result.error.code());
        writer::i64(out, result.base_offset);
        writer::i64(out, result.log_append_time_ms);
        if version >= 5 {
            writer::i64(out, result.log_start_offset);
        }
        if version >= 8 {
            writer::array_count(out, flexible, Some(result.record_errors.len()));
            for RecordError { index, message } in result.record_errors {
                writer::i32(out, *index);
                writer::nullable_string(out, flexible, message.as_deref());
                writer::no_tags(out, flexible);
            }
            writer::nullable_string(out, flexible, result.error_message);
        }
        match result.current_leader {
            Some(leader) if version >= 10 => {
                writer::uvarint(out, 1);
                leader.write_tag(out, 0);
            }
            _ => writer::no_tags(out, flexible),
        }
        if self.partitions_left == 0 {
            writer::no_tags(out, flexible);
        }
    }
    /// Ends the reply. `endpoints` are those of the current leaders named; versions below 10 leave them out.
    pub fn end(self, out: &mut Vec<u8>, throttle_ms: i32, endpoints: &[NodeEndpoint<'_>]) {
        assert!(self.partitions_left == 0 && self.topics_left == 0, "topics or partitions are missing");
        writer::i32(out, throttle_ms);
        if self.version >= 10 {
            NodeEndpoint::write_reply_tags(out, endpoints);
        } else {
            writer::no_tags(out, flexible(self.version));
        }
        frame::end_reply(out, self.size_at, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{LeaderEpoch, NodeId};
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName, TransactionalId};
    use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

    const IDS: [uuid::Uuid; 2] = [uuid::Uuid::from_u128(7), uuid::Uuid::from_u128(u128::MAX / 3)];
    const NAMES: [&str; 2] = ["orders", "ünïcode"];

    fn topic_ref(version: i16, i: usize) -> TopicRef<'static> {
        if by_id(version) { TopicRef::Id(IDS[i]) } else { TopicRef::Name(NAMES[i]) }
    }
    fn request(version: i16) -> Vec<u8> {
        let partition = |index, records: Option<&'static [u8]>| {
            PartitionProduceData::default().with_index(index).with_records(records.map(Bytes::from_static))
        };
        let topic = |i: usize, partitions| {
            let topic = TopicProduceData::default().with_partition_data(partitions);
            if by_id(version) {
                topic.with_topic_id(IDS[i])
            } else {
                topic.with_name(TopicName(StrBytes::from_static_str(NAMES[i])))
            }
        };
        let mut peer = ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(1500)
            .with_topic_data(vec![
                topic(0, vec![partition(0, Some(b"abc")), partition(5, None), partition(6, Some(b""))]),
                topic(1, vec![]),
                topic(1, vec![partition(i32::MAX, Some(&[9; 300]))]),
            ])
            .with_transactional_id((version % 2 == 0).then(|| TransactionalId(StrBytes::from_static_str("tx"))));
        if flexible(version) {
            peer = peer.with_unknown_tagged_field(9, Bytes::from_static(b"future"));
        }
        let mut out = BytesMut::from(&b"header"[..]);
        peer.encode(&mut out, version).unwrap();
        out.to_vec()
    }

    #[test]
    fn requests_of_another_encoder_are_read_in_every_version() {
        for version in VERSIONS {
            let mut frame = request(version);
            let produce = Produce::parse(&frame, 6, version).unwrap();
            assert_eq!((produce.acks, produce.timeout_ms, produce.topic_count), (-1, 1500, 3));
            assert_eq!(produce.transactional_id(&frame), (version % 2 == 0).then_some("tx"));
            let mut cursor = produce.cursor();
            let mut seen = Vec::new();
            while let Some(topic) = cursor.next_topic(&frame) {
                let i = if seen.is_empty() { 0 } else { 1 };
                assert_eq!(topic.topic, topic_ref(version, i));
                let mut partitions = Vec::new();
                while let Some(partition) = cursor.next_partition(&frame) {
                    if let Some(records) = partition.records.clone() {
                        // Stamping in place between two steps, as the broker does.
                        frame[records].fill(1);
                    }
                    partitions.push((partition.index, partition.records.map(|r| frame[r].to_vec())));
                }
                seen.push(partitions);
            }
            assert_eq!(
                seen,
                vec![
                    vec![(0, Some(vec![1; 3])), (5, None), (6, Some(vec![]))],
                    vec![],
                    vec![(i32::MAX, Some(vec![1; 300]))]
                ],
                "{version}"
            );
            // Topics alone, partitions skipped.
            let mut cursor = produce.cursor();
            assert_eq!(std::iter::from_fn(|| cursor.next_topic(&frame).map(|t| t.partition_count)).sum::<usize>(), 4);
        }
    }

    #[test]
    fn cut_requests_are_refused_at_every_byte() {
        for version in VERSIONS {
            let frame = request(version);
            for size in 0..frame.len() {
                assert!(Produce::parse(&frame[..size], 6, version).is_err(), "v{version} cut to {size}");
            }
        }
        assert!(Produce::parse(&request(3), 6, 2).is_err() && Produce::parse(&request(13), 6, 14).is_err());
    }

    #[test]
    fn replies_are_read_by_another_decoder_in_every_version() {
        for version in VERSIONS {
            let mut out = b"earlier".to_vec();
            let mut reply = ProduceReply::begin(&mut out, 99, version, 2);
            reply.topic(&mut out, topic_ref(version, 0), 2);
            let good = PartitionResult {
                base_offset: 1 << 40,
                log_append_time_ms: 12,
                log_start_offset: 5,
                ..PartitionResult::error(0, ErrorCode::None, None)
            };
            reply.partition(&mut out, &good);
            let leader = CurrentLeader { leader: NodeId(4), epoch: LeaderEpoch(11) };
            let errors =
                [RecordError { index: 3, message: Some("no key".into()) }, RecordError { index: 4, message: None }];
            let bad = PartitionResult {
                record_errors: &errors,
                current_leader: Some(leader),
                ..PartitionResult::error(1, ErrorCode::NotLeaderOrFollower, Some("moved"))
            };
            reply.partition(&mut out, &bad);
            reply.topic(&mut out, topic_ref(version, 1), 0);
            let endpoint = NodeEndpoint { node: NodeId(4), host: "host-4", port: 9096, rack: Some("a") };
            reply.end(&mut out, 17, &[endpoint, NodeEndpoint { rack: None, ..endpoint }]);

            let body = 7 + 4 + 4 + usize::from(flexible(version));
            assert_eq!(out[7..11], ((out.len() - 11) as i32).to_be_bytes());
            let mut bytes = Bytes::copy_from_slice(&out[body..]);
            let peer = ProduceResponse::decode(&mut bytes, version).unwrap();
            assert!(bytes.is_empty(), "v{version}: {} bytes left", bytes.len());
            assert_eq!((peer.throttle_time_ms, peer.responses.len()), (17, 2));
            let topic = &peer.responses[0];
            match topic_ref(version, 0) {
                TopicRef::Name(name) => assert_eq!(&*topic.name.0, name),
                TopicRef::Id(id) => assert_eq!(topic.topic_id, id),
            }
            let (ok, moved) = (&topic.partition_responses[0], &topic.partition_responses[1]);
            assert_eq!((ok.base_offset, ok.log_append_time_ms), (1 << 40, 12));
            assert_eq!(ok.log_start_offset, if version >= 5 { 5 } else { -1 });
            assert_eq!((moved.error_code, moved.base_offset), (6, -1));
            if version >= 8 {
                assert_eq!(moved.error_message.as_deref(), Some("moved"));
                assert_eq!(moved.record_errors[0].batch_index_error_message.as_deref(), Some("no key"));
                assert_eq!((moved.record_errors[1].batch_index, moved.record_errors.len()), (4, 2));
            }
            if version >= 10 {
                assert_eq!((moved.current_leader.leader_id.0, moved.current_leader.leader_epoch), (4, 11));
                assert_eq!(ok.current_leader.leader_epoch, -1);
                let node = &peer.node_endpoints[0];
                assert_eq!((node.node_id.0, &*node.host, node.port), (4, "host-4", 9096));
                assert_eq!((node.rack.as_deref(), peer.node_endpoints[1].rack.as_deref()), (Some("a"), None));
            }
        }
    }
}
