//! The APIs that answer from a partition's log, called as the shard calls them, on a broker with a disk in memory.

#[allow(dead_code)]
#[path = "support/client.rs"]
mod client;
#[allow(dead_code)]
#[path = "support/memory_disk.rs"]
mod memory_disk;
#[allow(dead_code)]
#[path = "support/server.rs"]
mod server;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
use kafka_protocol::messages::alter_replica_log_dirs_response::AlterReplicaLogDirTopicResult;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::ListOffsetsTopicResponse;
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AlterReplicaLogDirsRequest, CreateTopicsRequest, DeleteRecordsRequest, DescribeLogDirsRequest,
    DescribeProducersRequest, FetchRequest, ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest,
    ProduceRequest, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, Request as Message, StrBytes};
use memory_disk::MemoryDisk;
use ringlane::api::{Context, Handler, Outcome, ReplyTo, Request, fetch, find, list_offsets};
use ringlane::broker::Broker;
use ringlane::cluster::fold::Fold;
use ringlane::cluster::image::ClusterImage;
use ringlane::cluster::record::{Partition, RESOURCE_TOPIC, Record};
use ringlane::config::{BrokerConfig, Settings};
use ringlane::ids::{LeaderEpoch, NodeId, Now, Offset, ShardId, TopicId, Waiter};
use ringlane::io::disk::Job;
use ringlane::parts::Reply;
use ringlane::storage::Resolved;
use ringlane::wire::ErrorCode;
use ringlane::wire::batch::{Batch, Codec};
use ringlane::wire::compression::with_records;
use ringlane::wire::frame::reply_header_flexible;
use ringlane::wire::record::{BatchBuilder, BatchFields};

const EPOCH: LeaderEpoch = LeaderEpoch(3);

struct World {
    broker: Broker,
    disk: MemoryDisk,
    now: Now,
}

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

impl World {
    fn new() -> World {
        World::with(&["plain", "compacted"])
    }

    /// Topics, of which `compacted` is what its name says; partition 0 of each is led here, partition 1 by the next node.
    fn with(topics: &[&str]) -> World {
        let config = Arc::new(BrokerConfig::kafka_default());
        let node = config.node_id;
        let empty = ClusterImage::empty("cluster".into(), 1, Arc::new(Settings::default()), config);
        let mut fold = Fold::new(&empty);
        for (i, topic) in topics.iter().enumerate() {
            let id = TopicId::from_u128(i as u128 + 1);
            fold.apply(Record::Topic { name: (*topic).into(), id });
            for partition in 0..2 {
                let leader = NodeId(node.0 + partition);
                fold.apply(Record::Partition(Partition {
                    partition,
                    topic: id,
                    replicas: vec![leader],
                    isr: vec![leader],
                    leader,
                    leader_epoch: EPOCH,
                    partition_epoch: 0,
                    directories: Vec::new(),
                }));
            }
        }
        fold.apply(Record::Config {
            resource_type: RESOURCE_TOPIC,
            resource_name: "compacted".into(),
            name: "cleanup.policy".into(),
            value: Some("compact".into()),
        });
        let image = Arc::new(fold.finish());
        let mut broker = Broker::new(ShardId(0), &image, Arc::default());
        let mut disk = MemoryDisk::default();
        let now = Now { monotonic_ns: 1_000_000_000, wall_ms: 1_800_000_000_000 };
        broker.apply_image(&mut disk, image, now);
        World { broker, disk, now }
    }

    /// Appends one batch with records of these timestamps to partition 0.
    fn append(&mut self, topic: &str, codec: Codec, producer_id: i64, timestamps: &[i64]) {
        let mut batch = Vec::new();
        let fields = BatchFields { producer_id, producer_epoch: 0, base_sequence: 0, ..BatchFields::default() };
        let fields = if producer_id < 0 { BatchFields::default() } else { fields };
        let mut builder = BatchBuilder::new(&mut batch, fields);
        timestamps.iter().for_each(|&ms| builder.push(ms, Some(b"key"), Some(b"value"), &[]));
        builder.finish();
        if codec != Codec::None {
            let plain = Batch::stored(&batch).unwrap();
            batch = with_records(&plain, plain.records(), codec, None).unwrap();
        }
        let slot = self.broker.find(topic, 0).unwrap();
        self.broker.stage_own(slot, batch, 1).unwrap();
        self.broker.flush_turn(&mut self.disk, self.now);
    }

    /// Appends one batch with records of a MiB of zeros and these timestamps to partition 0.
    fn append_zeros(&mut self, topic: &str, codec: Codec, timestamps: impl Iterator<Item = i64>) {
        let slot = self.broker.find(topic, 0).unwrap();
        self.broker.stage_own(slot, zeros(codec, timestamps), 1).unwrap();
        self.broker.flush_turn(&mut self.disk, self.now);
    }

    /// Calls the handler of the API as the shard does.
    fn handle<M: Message>(&mut self, version: i16, message: &M) -> Outcome {
        let api = find(M::KEY).unwrap();
        assert!(api.versions().contains(&version), "{:?} v{version} is not served", api.key);
        let Handler::Plain(handle) = api.handler else { panic!("{:?} is handled elsewhere", api.key) };
        let mut body = Vec::new();
        message.encode(&mut body, codec_version(M::KEY, version)).unwrap();
        let to = ReplyTo { waiter: Waiter(1), correlation_id: 7, api: M::KEY, version };
        let peer = "127.0.0.1:1".parse().unwrap();
        let mut context = Context { broker: &mut self.broker, disk: &mut self.disk, now: self.now, peer };
        handle(&mut context, &Request { to, client_id: "test", body: &body })
    }

    /// The same where the reply comes at once.
    fn ask<M: Message>(&mut self, version: i16, message: &M) -> M::Response {
        let Outcome::Reply(reply) = self.handle(version, message) else {
            panic!("API {} was not answered at once", M::KEY)
        };
        decode::<M>(version, &reply.bytes)
    }

    /// Goes on with the lookup that is due, as a turn of the shard's loop does. False: none is.
    fn go_on(&mut self) -> bool {
        let Some(lookup) = self.broker.lookups.next_due() else { return false };
        list_offsets::go_on(&mut self.broker, &mut self.disk, lookup, &mut list_offsets::turn_budget());
        true
    }

    /// Runs all disk jobs to their end.
    fn run_jobs(&mut self) {
        while let Some((owner, job, result)) = self.disk.run_next() {
            self.broker.job_done(&mut self.disk, owner, job, result, self.now);
        }
    }

    /// The reply to what `handle` parked.
    fn answer(&mut self) -> Reply {
        let mut answers = Vec::new();
        self.broker.take_answers(&mut answers);
        let (waiter, reply) = answers.pop().expect("answered");
        assert_eq!(waiter, Waiter(1));
        reply
    }

    /// Error, timestamp and offset of one lookup.
    fn offset(&mut self, version: i16, topic: &str, index: i32, timestamp: i64) -> (ErrorCode, i64, i64) {
        let asked = ListOffsetsPartition::default().with_partition_index(index).with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![asked]);
        let response = self.ask(version, &ListOffsetsRequest::default().with_topics(vec![topic]));
        let found = &response.topics[0].partitions[0];
        let expected_epoch = if found.offset >= 0 && version >= 4 { EPOCH.0 } else { -1 };
        assert_eq!(found.leader_epoch, expected_epoch, "{found:?}");
        (ErrorCode::from_code(found.error_code).unwrap(), found.timestamp, found.offset)
    }
}

/// A lookup by time in partition 0 of `plain`.
fn time_of_plain(timestamp: i64) -> ListOffsetsRequest {
    let asked = ListOffsetsPartition::default().with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default().with_name(name("plain")).with_partitions(vec![asked]);
    ListOffsetsRequest::default().with_topics(vec![topic])
}

/// A batch of records with a MiB of zeros each.
fn zeros(codec: Codec, timestamps: impl Iterator<Item = i64>) -> Vec<u8> {
    let (mut batch, value) = (Vec::new(), vec![0; 1 << 20]);
    let mut builder = BatchBuilder::new(&mut batch, BatchFields::default());
    timestamps.for_each(|ms| builder.push(ms, None, Some(&value), &[]));
    builder.finish();
    let plain = Batch::stored(&batch).unwrap();
    with_records(&plain, plain.records(), codec, None).unwrap()
}

/// The version of `kafka-protocol` that reads and writes this one.
fn codec_version(key: i16, version: i16) -> i16 {
    match (key, version) {
        (ListOffsetsRequest::KEY, 11) | (DescribeLogDirsRequest::KEY, 5) => version - 1,
        _ => version,
    }
}

fn decode<M: Message>(version: i16, frame: &[u8]) -> M::Response {
    let header = 8 + usize::from(reply_header_flexible(M::KEY, version));
    let mut frame = frame.to_vec();
    assert_eq!(frame[..4], (frame.len() as u32 - 4).to_be_bytes());
    if (M::KEY, version) == (DescribeLogDirsRequest::KEY, 5) {
        // Kafka's version 5: `is_cordoned` before the tags of the one result and of the whole.
        let is_cordoned = frame.len() - 3;
        assert_eq!(frame.remove(is_cordoned), 0);
    }
    let mut bytes = Bytes::from(frame).slice(header..);
    let response = M::Response::decode(&mut bytes, codec_version(M::KEY, version)).unwrap();
    assert!(bytes.is_empty());
    response
}

#[test]
fn offsets_are_found_by_time_in_every_codec() {
    use ErrorCode::None as Fine;
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut world = World::new();
        world.append("plain", codec, -1, &[1000, 1010, 1005]);
        world.append("plain", codec, -1, &[2000, 2500, 2100]);
        world.append("plain", codec, -1, &[2200]);
        for version in 1..=10 {
            let mut at = |timestamp| world.offset(version, "plain", 0, timestamp);
            assert_eq!(at(-1), (Fine, -1, 7), "v{version}");
            assert_eq!(at(-2), (Fine, -1, 0));
            assert_eq!(at(0), (Fine, 1000, 0));
            assert_eq!(at(1001), (Fine, 1010, 1));
            assert_eq!(at(1011), (Fine, 2000, 3), "{codec:?}");
            assert_eq!(at(2001), (Fine, 2500, 4));
            assert_eq!(at(2500), (Fine, 2500, 4));
            assert_eq!(at(2501), (Fine, -1, -1));
            let special = |since: i16, found| {
                if version >= since { (Fine, found, 4) } else { (ErrorCode::UnsupportedVersion, -1, -1) }
            };
            assert_eq!(at(-3), special(7, 2500));
            assert_eq!(at(-4), if version >= 8 { (Fine, -1, 0) } else { (ErrorCode::UnsupportedVersion, -1, -1) });
            assert_eq!(at(-5), if version >= 9 { (Fine, -1, -1) } else { (ErrorCode::UnsupportedVersion, -1, -1) });
            assert_eq!(at(-6), if version >= 11 { (Fine, -1, -1) } else { (ErrorCode::UnsupportedVersion, -1, -1) });
            assert_eq!(at(-9).0, ErrorCode::UnsupportedVersion);
        }
    }
}

#[test]
fn lookups_are_refused_with_kafkas_codes() {
    let mut world = World::new();
    assert_eq!(world.offset(7, "plain", 0, -3), (ErrorCode::None, -1, -1), "an empty log has no largest timestamp");
    assert_eq!(world.offset(7, "plain", 0, -1), (ErrorCode::None, -1, 0), "the leader's epoch began in the empty log");
    assert_eq!(world.offset(7, "plain", 0, -2), (ErrorCode::None, -1, 0));
    assert_eq!(world.offset(6, "nowhere", 0, -3).0, ErrorCode::UnsupportedVersion, "whatever is asked");
    assert_eq!(world.offset(7, "plain", 1, -1).0, ErrorCode::NotLeaderOrFollower);
    assert_eq!(world.offset(7, "plain", 2, -1).0, ErrorCode::UnknownTopicOrPartition);
    assert_eq!(world.offset(7, "nowhere", 0, -1).0, ErrorCode::UnknownTopicOrPartition);
    for (epoch, error) in [
        (2, ErrorCode::FencedLeaderEpoch),
        (3, ErrorCode::None),
        (4, ErrorCode::UnknownLeaderEpoch),
        (-1, ErrorCode::None),
    ] {
        let asked = ListOffsetsPartition::default().with_timestamp(-1).with_current_leader_epoch(epoch);
        let twice = ListOffsetsPartition::default().with_partition_index(5).with_timestamp(-1);
        let partitions = vec![asked, twice.clone(), twice];
        let topic = ListOffsetsTopic::default().with_name(name("plain")).with_partitions(partitions);
        let response = world.ask(6, &ListOffsetsRequest::default().with_topics(vec![topic]));
        let errors: Vec<_> = response.topics[0].partitions.iter().map(|p| p.error_code).collect();
        assert_eq!(errors, [error, ErrorCode::InvalidRequest, ErrorCode::InvalidRequest].map(ErrorCode::code));
    }
}

/// A shard must not wait for the disk: the request is parked until what it needs has been read.
#[test]
fn a_lookup_of_a_cold_batch_waits_for_its_read() {
    let mut world = World::new();
    world.append("plain", Codec::None, -1, &[1000, 1010]);
    world.append("compacted", Codec::None, -1, &[1000]);
    world.disk.file(Path::new("plain-0/00000000000000000000.log")).unwrap().cold = true;
    let topic = |topic, timestamp| {
        let asked = ListOffsetsPartition::default().with_timestamp(timestamp);
        ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![asked])
    };
    let request = ListOffsetsRequest::default().with_topics(vec![topic("plain", 1001), topic("compacted", -1)]);
    assert!(matches!(world.handle(7, &request), Outcome::Later(None)));
    assert!(world.broker.lookups.next_due().is_none(), "nothing has been read yet");
    world.run_jobs();
    assert!(world.go_on(), "the read has ended");
    let response = decode::<ListOffsetsRequest>(7, &world.answer().bytes);
    let found: Vec<_> = response.topics.iter().map(|t| (t.partitions[0].error_code, t.partitions[0].offset)).collect();
    assert_eq!(found, [(0, 1), (0, 1)]);
    assert!(world.broker.lookups.next_due().is_none());
}

/// What was read may be a part of what is needed, or have left the page cache again. The lookup was asked again at once, and
/// again: the shard did nothing else while the device read, and for ever where the next read had not been handed over yet.
#[test]
fn a_lookup_that_is_still_cold_waits_for_another_read() {
    let mut world = World::new();
    world.append("plain", Codec::None, -1, &[1000, 1010]);
    let file = Path::new("plain-0/00000000000000000000.log");
    world.disk.file(file).unwrap().cold = true;
    let request = time_of_plain(1001);
    assert!(matches!(world.handle(7, &request), Outcome::Later(None)));
    world.run_jobs();
    world.disk.file(file).unwrap().cold = true;
    assert!(world.go_on(), "the read has ended");
    assert!(world.broker.lookups.next_due().is_none(), "the next read has not ended");
    world.run_jobs();
    assert!(world.go_on(), "the next read has ended");
    let response = decode::<ListOffsetsRequest>(7, &world.answer().bytes);
    assert_eq!((response.topics[0].partitions[0].error_code, response.topics[0].partitions[0].offset), (0, 1));
}

/// A batch whose records became 60 MiB held the core for 50 ms, and one request may name many such batches. A turn of the loop
/// now decompresses some 100 KiB; others wait behind the one that searches, and are not held up by those that need no search.
#[test]
fn a_batch_that_becomes_very_much_is_searched_in_turns() {
    const MIB: i64 = 60;
    const TURN_MAX: i64 = 200 << 10;
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut world = World::new();
        world.append_zeros("plain", codec, 1000..1000 + MIB);
        world.append("compacted", codec, -1, &[1000, 2000]);
        let asked = |topic, timestamps: &[i64]| {
            let asked = timestamps.iter().map(|&ms| ListOffsetsPartition::default().with_timestamp(ms));
            ListOffsetsTopic::default().with_name(name(topic)).with_partitions(asked.collect())
        };
        let request = |topics| ListOffsetsRequest::default().with_topics(topics);
        let late = 1000 + MIB - 1;
        let topics = vec![asked("plain", &[late]), asked("compacted", &[1500])];
        assert!(matches!(world.handle(7, &request(topics)), Outcome::Later(None)));
        assert!(matches!(world.handle(7, &request(vec![asked("compacted", &[1500])])), Outcome::Later(None)));
        assert_eq!(world.offset(7, "compacted", 0, -1), (ErrorCode::None, -1, 2), "nothing is searched");
        let mut turns = 0;
        while world.go_on() {
            turns += 1;
        }
        assert!(turns > (MIB << 20) / TURN_MAX, "{codec:?}: {turns} turns");
        let mut answers = Vec::new();
        world.broker.take_answers(&mut answers);
        let found = answers.iter().map(|(_, reply)| {
            let response = decode::<ListOffsetsRequest>(7, &reply.bytes);
            let found = |t: &ListOffsetsTopicResponse| (t.partitions[0].timestamp, t.partitions[0].offset);
            response.topics.iter().map(found).collect::<Vec<_>>()
        });
        let mut found: Vec<_> = found.collect();
        found.sort_by_key(Vec::len);
        assert_eq!(found, [vec![(2000, 1)], vec![(late, MIB - 1), (2000, 1)]], "{codec:?}");
    }
}

/// The pages may go between two pieces.
#[test]
fn a_search_that_meets_cold_pages_is_begun_anew() {
    let mut world = World::new();
    world.append_zeros("plain", Codec::None, 1000..1020);
    let request = time_of_plain(1019);
    assert!(matches!(world.handle(7, &request), Outcome::Later(None)));
    assert!(world.go_on());
    assert!(world.broker.lookups.any_due(), "one turn was not enough");
    world.disk.file(Path::new("plain-0/00000000000000000000.log")).unwrap().cold = true;
    assert!(world.go_on());
    assert!(!world.go_on(), "nothing has been read yet");
    world.run_jobs();
    while world.go_on() {}
    let response = decode::<ListOffsetsRequest>(7, &world.answer().bytes);
    assert_eq!((response.topics[0].partitions[0].error_code, response.topics[0].partitions[0].offset), (0, 19));
}

/// The same with a running broker: one connection looks up times in large batches, another one gets its answers meanwhile.
#[test]
fn times_in_large_batches_are_looked_up_beside_other_requests() {
    let server = server::Server::start(&[env!("CARGO_BIN_EXE_ringlane")], &[]);
    let mut producer = client::Client::connect(server.address);
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis() as i64;
    let settings = [("zeros", "CreateTime"), ("stamped", "LogAppendTime")];
    for (topic, timestamps) in settings {
        let config = CreatableTopicConfig::default()
            .with_name(StrBytes::from_static_str("message.timestamp.type"))
            .with_value(Some(StrBytes::from_static_str(timestamps)));
        let topic = CreatableTopic::default()
            .with_name(name(topic))
            .with_num_partitions(1)
            .with_replication_factor(1)
            .with_configs(vec![config]);
        let created =
            producer.call(5, &CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000));
        assert_eq!(created.topics[0].error_code, 0);
    }
    for (topic, first) in [("zeros", now), ("stamped", now), ("zeros", now + 100)] {
        let batch = zeros(Codec::Zstd, first..first + 60);
        assert!(batch.len() < 100_000);
        let data = PartitionProduceData::default().with_records(Some(Bytes::from(batch)));
        let topic = TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![data]);
        let request = ProduceRequest::default().with_acks(1).with_timeout_ms(30_000).with_topic_data(vec![topic]);
        assert_eq!(producer.call(9, &request).responses[0].partition_responses[0].error_code, 0);
    }
    let asked = |topic, timestamp| {
        let asked = ListOffsetsPartition::default().with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![asked]);
        ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic])
    };
    let mut beside = client::Client::connect(server.address);
    let wanted = [(now - 5, now, 0), (now + 30, now + 30, 30), (now + 59, now + 59, 59), (now + 60, now + 100, 60)];
    for (timestamp, found, offset) in wanted.into_iter().chain([(-3, now + 159, 119), (now + 160, -1, -1)]) {
        producer.send(7, &asked("zeros", timestamp));
        let metadata = beside.call(9, &MetadataRequest::default().with_topics(None));
        assert_eq!(metadata.topics.len(), 2);
        let response = producer.receive::<ListOffsetsRequest>(7);
        let partition = &response.topics[0].partitions[0];
        assert_eq!((partition.error_code, partition.timestamp, partition.offset), (0, found, offset));
    }
    let response = producer.call(7, &asked("stamped", now - 5));
    let partition = &response.topics[0].partitions[0];
    assert_eq!((partition.error_code, partition.offset), (0, 0));
    assert!(partition.timestamp >= now, "the broker's time, not the producer's");
}

/// A client that waits for nothing took the empty reply to a cold fetch for the log's end.
#[test]
fn a_fetch_of_cold_batches_waits_for_their_read_whatever_its_limits() {
    let mut world = World::new();
    world.append("plain", Codec::None, -1, &[1000, 1010]);
    world.append("plain", Codec::None, -1, &[1020]);
    let file = Path::new("plain-0/00000000000000000000.log");
    let asked = FetchPartition::default().with_fetch_offset(2).with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(name("plain")).with_partitions(vec![asked]);
    let request = FetchRequest::default().with_max_wait_ms(0).with_min_bytes(0).with_topics(vec![topic]);
    let mut frame = Vec::new();
    request.encode(&mut frame, 11).unwrap();
    let to = ReplyTo { waiter: Waiter(1), correlation_id: 7, api: 1, version: 11 };
    let ask = |world: &mut World| {
        let peer = "127.0.0.1:1".parse().unwrap();
        let mut context = Context { broker: &mut world.broker, disk: &mut world.disk, now: world.now, peer };
        fetch::handle(&mut context, to, &frame, 0)
    };
    assert!(matches!(ask(&mut world), Outcome::Reply(_)));

    world.disk.file(file).unwrap().cold = true;
    assert!(matches!(ask(&mut world), Outcome::Later(Some(_))));
    assert_eq!(world.broker.fetches.next_due(world.now.monotonic_ns), None, "nothing has been read yet");
    world.run_jobs();
    let due = world.broker.fetches.next_due(world.now.monotonic_ns).expect("the read has ended");
    fetch::evaluate_parked(&mut world.broker, &mut world.disk, due, world.now);
    assert!(world.answer().file_bytes() > 0, "the records");
}

/// The device fails: that partition is offline from then on, its neighbour is not.
#[test]
fn a_cold_read_that_fails_takes_its_partition_offline() {
    let mut world = World::new();
    world.append("plain", Codec::None, -1, &[1000, 1010]);
    world.append("compacted", Codec::None, -1, &[1000]);
    world.disk.file(Path::new("plain-0/00000000000000000000.log")).unwrap().cold = true;
    let request = time_of_plain(1001);
    assert!(matches!(world.handle(7, &request), Outcome::Later(None)));
    while let Some((owner, job, mut result)) = world.disk.run_next() {
        if matches!(job, Job::ReadAhead { .. }) {
            result = Err(std::io::Error::other("the medium is worn out"));
        }
        world.broker.job_done(&mut world.disk, owner, job, result, world.now);
    }
    assert!(world.go_on(), "the read has ended");
    let response = decode::<ListOffsetsRequest>(7, &world.answer().bytes);
    assert_eq!(response.topics[0].partitions[0].error_code, ErrorCode::KafkaStorageError.code());
    assert_eq!(world.offset(7, "plain", 0, 1001).0, ErrorCode::KafkaStorageError);
    assert_eq!(world.offset(7, "compacted", 0, 1000), (ErrorCode::None, 1000, 0));
}

/// A shard does not wait for a rename either; and what the old log still writes must not land in a new topic's directory.
/// A longest name leaves no room for what marks a directory as set aside: it stayed where it was, and the next topic of
/// that name began with the old one's records.
#[test]
fn a_deleted_topics_directory_is_set_aside_when_nothing_writes_into_it_any_more() {
    for topic in ["plain", &"n".repeat(249)] {
        let mut world = World::with(&[topic]);
        world.append(topic, Codec::None, -1, &[1000, 1010]);
        assert!(world.disk.pending.iter().any(|(_, job)| job.goes_by_path()), "small files are being written");
        let mut fold = Fold::new(&world.broker.image);
        let id = world.broker.image.topic(topic).unwrap().id;
        fold.apply(Record::RemoveTopic { id });
        let image = Arc::new(fold.finish());
        world.broker.apply_image(&mut world.disk, image, world.now);
        assert!(world.broker.sets_aside());
        let mut jobs = Vec::new();
        while let Some((owner, job, result)) = world.disk.run_next() {
            assert!(result.is_ok(), "{job:?}: {result:?}");
            jobs.push(job.clone());
            world.broker.job_done(&mut world.disk, owner, job, result, world.now);
        }
        let directory = format!("{topic}-0");
        assert!(matches!(jobs.last(), Some(Job::Rename { from, .. }) if from == Path::new(&directory)), "{jobs:?}");
        assert!(!world.broker.sets_aside());
        let mark = format!("-0.{}-delete", id.simple());
        let aside = |path: &Path| path.iter().next().unwrap().to_str().unwrap().ends_with(&mark);
        assert!(world.disk.names().count() > 0 && world.disk.names().all(|(path, _)| aside(path)));
    }
}

/// The device failed while a reply was being sent from a file: `io` marks the file, the log finds the mark.
#[test]
fn a_file_that_failed_under_a_reply_takes_its_partition_offline() {
    let mut world = World::new();
    world.append("plain", Codec::None, -1, &[1000, 1010]);
    let slot = world.broker.find("plain", 0).unwrap();
    let log = &mut world.broker.partition(slot).unwrap().log;
    let resolved = log.resolve(&mut world.disk, Offset(0), Offset(2), 1000, true);
    let Ok(Resolved::Range(range)) = resolved else { panic!("{resolved:?}") };
    range.file.failed.set(true);
    assert_eq!(world.offset(7, "plain", 0, 1001).0, ErrorCode::KafkaStorageError);
}

#[test]
fn the_end_of_an_epoch_is_told() {
    let mut world = World::new();
    world.append("plain", Codec::None, -1, &[1000, 1010]);
    for version in 2..=4 {
        let mut end_in = |topic, index, current, epoch| {
            let asked = OffsetForLeaderPartition::default()
                .with_partition(index)
                .with_current_leader_epoch(current)
                .with_leader_epoch(epoch);
            let topic = OffsetForLeaderTopic::default().with_topic(name(topic)).with_partitions(vec![asked]);
            let response = world.ask(version, &OffsetForLeaderEpochRequest::default().with_topics(vec![topic]));
            let found = &response.topics[0].partitions[0];
            assert_eq!(found.partition, index);
            (ErrorCode::from_code(found.error_code).unwrap(), found.leader_epoch, found.end_offset)
        };
        assert_eq!(end_in("compacted", 0, -1, 3), (ErrorCode::None, 3, 0), "of an empty log");
        assert_eq!(end_in("compacted", 0, -1, 2), (ErrorCode::None, -1, -1));
        let mut end_of = |index, current, epoch| end_in("plain", index, current, epoch);
        assert_eq!(end_of(0, -1, 3), (ErrorCode::None, 3, 2));
        assert_eq!(end_of(0, 3, 4), (ErrorCode::None, -1, -1));
        assert_eq!(end_of(0, 2, 3), (ErrorCode::FencedLeaderEpoch, -1, -1));
        assert_eq!(end_of(1, -1, 3), (ErrorCode::NotLeaderOrFollower, -1, -1));
    }
}

#[test]
fn records_are_deleted_up_to_an_offset() {
    let mut world = World::new();
    world.append("plain", Codec::None, -1, &[1000, 1010, 1020]);
    world.append("compacted", Codec::None, -1, &[1000]);
    let mut delete = |version, topic, index, offset| {
        let asked = DeleteRecordsPartition::default().with_partition_index(index).with_offset(offset);
        let topic = DeleteRecordsTopic::default().with_name(name(topic)).with_partitions(vec![asked]);
        let response = world.ask(version, &DeleteRecordsRequest::default().with_topics(vec![topic]));
        let done = &response.topics[0].partitions[0];
        (ErrorCode::from_code(done.error_code).unwrap(), done.low_watermark)
    };
    assert_eq!(delete(0, "plain", 0, 1), (ErrorCode::None, 1));
    assert_eq!(delete(1, "plain", 0, 0), (ErrorCode::None, 1), "deleted records stay deleted");
    assert_eq!(delete(2, "plain", 0, 4), (ErrorCode::OffsetOutOfRange, -1));
    assert_eq!(delete(2, "plain", 0, -2), (ErrorCode::OffsetOutOfRange, -1));
    assert_eq!(delete(2, "plain", 1, 0), (ErrorCode::NotLeaderOrFollower, -1));
    assert_eq!(delete(2, "compacted", 0, 1), (ErrorCode::PolicyViolation, -1));
    assert_eq!(world.offset(7, "plain", 0, 0), (ErrorCode::None, 1010, 1), "not the deleted record");
    assert_eq!(world.offset(7, "plain", 0, -2), (ErrorCode::None, -1, 1));
    let mut delete_all = || {
        let asked = DeleteRecordsPartition::default().with_offset(-1);
        let topic = DeleteRecordsTopic::default().with_name(name("plain")).with_partitions(vec![asked]);
        world.ask(2, &DeleteRecordsRequest::default().with_topics(vec![topic])).topics[0].partitions[0].low_watermark
    };
    assert_eq!(delete_all(), 3);
    assert_eq!(world.offset(7, "plain", 0, -1), (ErrorCode::None, -1, 3));
    assert_eq!(world.offset(7, "plain", 0, -2), (ErrorCode::None, -1, 3));
}

/// The batch that the log now begins in was told of by its newest record, though that was deleted.
#[test]
fn a_time_that_only_deleted_records_reach_is_looked_for_in_later_batches() {
    let delete_first = |world: &mut World| {
        let asked = DeleteRecordsPartition::default().with_offset(1);
        let topic = DeleteRecordsTopic::default().with_name(name("plain")).with_partitions(vec![asked]);
        let response = world.ask(2, &DeleteRecordsRequest::default().with_topics(vec![topic]));
        assert_eq!(response.topics[0].partitions[0].error_code, 0);
    };
    for codec in [Codec::None, Codec::Zstd] {
        let mut world = World::new();
        world.append("plain", codec, -1, &[5000, 1000, 1000]);
        world.append("plain", codec, -1, &[2000]);
        delete_first(&mut world);
        assert_eq!(world.offset(7, "plain", 0, 1000), (ErrorCode::None, 1000, 1));
        assert_eq!(world.offset(7, "plain", 0, 1001), (ErrorCode::None, 2000, 3));
        assert_eq!(world.offset(7, "plain", 0, 2001), (ErrorCode::None, -1, -1));
    }
    // The same where it takes some turns to know.
    let mut world = World::new();
    world.append_zeros("plain", Codec::Zstd, (0..30).rev());
    world.append("plain", Codec::None, -1, &[100]);
    delete_first(&mut world);
    let request = time_of_plain(29);
    assert!(matches!(world.handle(7, &request), Outcome::Later(None)));
    while world.go_on() {}
    let response = decode::<ListOffsetsRequest>(7, &world.answer().bytes);
    let found = &response.topics[0].partitions[0];
    assert_eq!((found.timestamp, found.offset), (100, 30));
}

#[test]
fn producers_and_sizes_are_described() {
    let mut world = World::new();
    world.append("plain", Codec::None, 77, &[1000, 1010, 1020]);
    let topic = TopicRequest::default().with_name(name("plain")).with_partition_indexes(vec![0, 1]);
    let response = world.ask(0, &DescribeProducersRequest::default().with_topics(vec![topic]));
    let [here, elsewhere] = &response.topics[0].partitions[..] else { panic!("{response:?}") };
    assert_eq!(elsewhere.error_code, ErrorCode::NotLeaderOrFollower.code());
    let absent = ["nowhere", "no name"]
        .map(|topic| TopicRequest::default().with_name(name(topic)).with_partition_indexes(vec![0]));
    let refused = world.ask(0, &DescribeProducersRequest::default().with_topics(absent.into()));
    let refused: Vec<_> =
        refused.topics.iter().map(|t| (t.partitions[0].error_code, t.partitions[0].error_message.is_some())).collect();
    assert_eq!(refused, [(3, true), (17, true)]);
    let producer = &here.active_producers[0];
    assert_eq!((producer.producer_id.0, producer.producer_epoch, producer.last_sequence), (77, 0, 2));
    assert_eq!((producer.last_timestamp, producer.current_txn_start_offset), (1020, -1));

    for version in 1..=5 {
        let response = world.ask(version, &DescribeLogDirsRequest::default().with_topics(None));
        let sizes: Vec<_> =
            response.results[0].topics.iter().map(|t| (t.name.to_string(), t.partitions[0].partition_size)).collect();
        let size = world.disk.file(Path::new("plain-0/00000000000000000000.log")).unwrap().bytes.len() as i64;
        assert_eq!(sizes, [("compacted".to_owned(), 0), ("plain".to_owned(), size)]);
        assert!(Path::new(response.results[0].log_dir.as_str()).is_absolute());
        let space = (response.results[0].total_bytes, response.results[0].usable_bytes);
        assert_eq!(space, if version >= 4 { (1 << 40, 1 << 39) } else { (-1, -1) });
        let topic = DescribableLogDirTopic::default().with_topic(name("plain")).with_partitions(vec![1]);
        let response = world.ask(version, &DescribeLogDirsRequest::default().with_topics(Some(vec![topic])));
        assert!(response.results[0].topics.is_empty(), "partition 1 is another core's");
    }
}

/// kafka-python's suite moves a replica to where it is, which Kafka takes for done.
#[test]
fn replicas_stay_in_the_one_log_directory() {
    let mut world = World::new();
    let here = world.ask(1, &DescribeLogDirsRequest::default().with_topics(None)).results[0].log_dir.clone();
    for version in 1..=2 {
        let mut ask = |dir: &StrBytes| -> Vec<(String, Vec<i16>)> {
            let topic =
                |topic: &str| AlterReplicaLogDirTopic::default().with_name(name(topic)).with_partitions(vec![0, 1, 9]);
            let dir =
                AlterReplicaLogDir::default().with_path(dir.clone()).with_topics(vec![topic("plain"), topic("no")]);
            let response = world.ask(version, &AlterReplicaLogDirsRequest::default().with_dirs(vec![dir]));
            let codes = |t: &AlterReplicaLogDirTopicResult| t.partitions.iter().map(|p| p.error_code).collect();
            response.results.iter().map(|t| (t.topic_name.to_string(), codes(t))).collect()
        };
        assert_eq!(ask(&here), [("no".to_string(), vec![3, 3, 3]), ("plain".to_string(), vec![0, 9, 3])]);
        let elsewhere = StrBytes::from_static_str("/elsewhere");
        assert_eq!(ask(&elsewhere), [("no".to_string(), vec![57; 3]), ("plain".to_string(), vec![57; 3])]);
    }
}
