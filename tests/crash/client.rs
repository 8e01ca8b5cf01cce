//! A client just large enough for tests: one connection, one request at a time, messages of the `kafka-protocol` crate.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, FetchRequest, FindCoordinatorRequest,
    InitProducerIdRequest, ListOffsetsRequest, OffsetCommitRequest, OffsetFetchRequest, ProduceRequest, TopicName,
};
use kafka_protocol::protocol::{Request, StrBytes};
use ringlane::wire::batch::{Batch, HeaderView};
use ringlane::wire::record::Records;

use crate::connection;

/// The timestamp that asks for the first offset.
const EARLIEST: i64 = -2;
const DEADLINE: Duration = Duration::from_secs(30);
/// Where it stands in a request: after size, key and version.
const CORRELATION_ID: Range<usize> = 8..12;

/// A connection.
pub struct Client {
    socket: TcpStream,
    correlation_id: i32,
}

/// A record as it was fetched.
pub struct Stored {
    pub offset: i64,
    pub timestamp: i64,
    pub value: Vec<u8>,
}

/// A partition's log as it was fetched.
pub struct StoredLog {
    pub start: i64,
    pub end: i64,
    pub records: Vec<Stored>,
}

fn string(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

impl Client {
    pub fn connect(address: SocketAddr) -> io::Result<Client> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        Ok(Client { socket, correlation_id: 0 })
    }

    /// An error: the connection broke.
    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        self.correlation_id += 1;
        let mut frame = connection::frame(version, request);
        frame[CORRELATION_ID].copy_from_slice(&self.correlation_id.to_be_bytes());
        self.socket.write_all(&frame)?;
        let (correlation_id, response) = connection::decode::<R>(version, connection::read_reply(&mut self.socket)?);
        assert_eq!(correlation_id, self.correlation_id);
        Ok(response)
    }

    pub fn create_topic(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
        assert_eq!(self.try_create_topic(name, partitions, configs), 0);
    }

    /// The error code.
    pub fn try_create_topic(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> i16 {
        let config = |(key, value): &(&str, &str)| {
            CreatableTopicConfig::default().with_name(string(key)).with_value(Some(string(value)))
        };
        let topic = CreatableTopic::default()
            .with_name(TopicName(string(name)))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(configs.iter().map(config).collect());
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
        let reply = self.call(5, &request).expect("the broker runs");
        reply.topics[0].error_code
    }

    /// Deletes a topic.
    pub fn delete_topic(&mut self, name: &str) -> i16 {
        let request =
            DeleteTopicsRequest::default().with_topic_names(vec![TopicName(string(name))]).with_timeout_ms(30_000);
        self.call(5, &request).expect("the broker runs").responses[0].error_code
    }

    /// Deletes all records of a partition.
    pub fn delete_records(&mut self, topic: &str, partition: i32) -> i16 {
        let partition = DeleteRecordsPartition::default().with_partition_index(partition).with_offset(-1);
        let topic = DeleteRecordsTopic::default().with_name(TopicName(string(topic))).with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
        self.call(1, &request).expect("the broker runs").topics[0].partitions[0].error_code
    }

    /// A producer id and its epoch.
    pub fn init_producer_id(&mut self) -> io::Result<(i64, i16)> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_producer_id((-1).into())
            .with_producer_epoch(-1);
        let reply = self.call(4, &request)?;
        assert_eq!(reply.error_code, 0);
        Ok((reply.producer_id.0, reply.producer_epoch))
    }

    /// Error code and base offset.
    pub fn produce(&mut self, topic: &str, partition: i32, acks: i16, batch: Vec<u8>) -> io::Result<(i16, i64)> {
        let data = PartitionProduceData::default().with_index(partition).with_records(Some(Bytes::from(batch)));
        let topic = TopicProduceData::default().with_name(TopicName(string(topic))).with_partition_data(vec![data]);
        let request = ProduceRequest::default().with_acks(acks).with_timeout_ms(30_000).with_topic_data(vec![topic]);
        let reply = self.call(9, &request)?;
        let partition = &reply.responses[0].partition_responses[0];
        Ok((partition.error_code, partition.base_offset))
    }

    /// What one partition gives from an offset on.
    pub fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> PartitionData {
        let asked = FetchPartition::default()
            .with_partition(partition)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(1 << 20);
        let topic = FetchTopic::default().with_topic(TopicName(string(topic))).with_partitions(vec![asked]);
        let request = FetchRequest::default()
            .with_max_wait_ms(1000)
            .with_min_bytes(0)
            .with_max_bytes(1 << 20)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        let mut reply = self.call(12, &request).expect("the broker runs");
        assert_eq!(reply.error_code, 0);
        reply.responses.remove(0).partitions.remove(0)
    }

    /// Commits an offset of a group that has no members, once its coordinator serves.
    pub fn commit(&mut self, group: &str, topic: &str, partition: i32, offset: i64) {
        let partition =
            OffsetCommitRequestPartition::default().with_partition_index(partition).with_committed_offset(offset);
        let topic =
            OffsetCommitRequestTopic::default().with_name(TopicName(string(topic))).with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(string(group).into())
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![topic]);
        let find = FindCoordinatorRequest::default().with_key(string(group));
        eventually("the offset is committed", || {
            // Whoever asks for a coordinator makes the topic of the offsets.
            self.call(2, &find).expect("the broker runs");
            let reply = self.call(7, &request).expect("the broker runs");
            (reply.topics[0].partitions[0].error_code == 0).then_some(())
        })
    }

    /// The offsets of a group by partition, as far as there are any.
    pub fn committed(&mut self, group: &str, topic: &str, partitions: Range<i32>) -> BTreeMap<i32, i64> {
        let topic = OffsetFetchRequestTopic::default()
            .with_name(TopicName(string(topic)))
            .with_partition_indexes(partitions.collect());
        let request = OffsetFetchRequest::default().with_group_id(string(group).into()).with_topics(Some(vec![topic]));
        eventually("the group is served", || {
            let mut reply = self.call(5, &request).expect("the broker runs");
            (reply.error_code == 0).then(|| {
                let found = reply.topics.remove(0).partitions.into_iter();
                found.filter(|p| p.committed_offset >= 0).map(|p| (p.partition_index, p.committed_offset)).collect()
            })
        })
    }

    /// Timestamp and offset of the first record that is not older.
    pub fn offset_for_time(&mut self, topic: &str, partition: i32, timestamp: i64) -> (i64, i64) {
        let asked = ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default().with_name(TopicName(string(topic))).with_partitions(vec![asked]);
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
        let reply = self.call(6, &request).expect("the broker runs");
        let found = &reply.topics[0].partitions[0];
        assert_eq!(found.error_code, 0, "the offset for time {timestamp}");
        (found.timestamp, found.offset)
    }

    /// Reads a partition from its first record to its last: whole batches, every offset.
    pub fn read_log(&mut self, topic: &str, partition: i32) -> StoredLog {
        const OFFSET_OUT_OF_RANGE: i16 = 1;
        let (mut next, mut start, mut records) = (0, None, Vec::new());
        loop {
            let data = self.fetch(topic, partition, next);
            if data.error_code == OFFSET_OUT_OF_RANGE && start.is_none() && next == 0 {
                next = self.offset_for_time(topic, partition, EARLIEST).1;
                continue;
            }
            assert_eq!(data.error_code, 0, "{topic}-{partition}: fetch at {next}");
            let start = *start.get_or_insert(next);
            if next == data.high_watermark {
                return StoredLog { start, end: next, records };
            }
            for (base, batch) in batches(&data.records.unwrap_or_default()) {
                assert!(base <= next, "{topic}-{partition}: a gap, {base} after {next}");
                for record in Records::new(batch.records(), batch.count()) {
                    let record = record.expect("a record");
                    let offset = base + i64::from(record.offset_delta);
                    if offset < next {
                        continue;
                    }
                    assert_eq!(offset, next, "{topic}-{partition}: offsets are dense");
                    next += 1;
                    let timestamp = batch.base_timestamp() + record.timestamp_delta;
                    records.push(Stored { offset, timestamp, value: record.value.expect("a value").to_vec() });
                }
            }
        }
    }
}

fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < until, "{what}, but not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Base offset and contents of the whole batches; the last may be cut off. Each must be as it was written.
pub fn batches(bytes: &[u8]) -> Vec<(i64, Batch<'_>)> {
    let mut rest = bytes;
    let mut found = Vec::new();
    while let Some(header) = HeaderView::read(rest) {
        let size = header.batch_size().expect("what was written");
        if rest.len() < size {
            break;
        }
        let batch = Batch::stored(&rest[..size]).expect("what was written");
        found.push((batch.base_offset().0, batch));
        rest = &rest[size..];
    }
    found
}
