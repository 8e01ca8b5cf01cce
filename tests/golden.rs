//! Frames of real clients and of Apache Kafka (`tests/golden/`): every request must be read as the broker reads it, and
//! every Produce and Fetch reply must come out of our writers as it came out of Kafka, byte for byte.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, FetchResponse, ProduceResponse, RequestKind, ResponseKind};
use kafka_protocol::protocol::Decodable;
use ringlane::ids::{LeaderEpoch, NodeId};
use ringlane::wire::batch::{Batch, Codec, Validation};
use ringlane::wire::fetch::{self, Fetch, FetchReply, PartitionData, PartitionTags};
use ringlane::wire::frame::{RequestHeader, SIZE_PREFIX, reply_header_flexible};
use ringlane::wire::offsets::{self, TOPIC_IDS_SINCE};
use ringlane::wire::produce::{self, PartitionResult, Produce, ProduceReply, RecordError};
use ringlane::wire::record::Records;
use ringlane::wire::routing::{CurrentLeader, NodeEndpoint};
use ringlane::wire::{ErrorCode, TopicRef, shape};

struct Golden {
    client: String,
    is_request: bool,
    key: i16,
    version: i16,
    frame: Vec<u8>,
}

fn golden_frames() -> Vec<Golden> {
    let mut frames = Vec::new();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            let [kind, key, version, hex] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let byte = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
            frames.push(Golden {
                client: path.file_stem().unwrap().to_string_lossy().into_owned(),
                is_request: kind == "request",
                key: key.parse().unwrap(),
                version: version.parse().unwrap(),
                frame: (0..hex.len()).step_by(2).map(byte).collect(),
            });
        }
    }
    frames
}

impl std::fmt::Display for Golden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.is_request { "request" } else { "reply" };
        write!(f, "{}: {kind} {} v{}", self.client, self.key, self.version)
    }
}

/// Versions that Kafka 4.3 speaks and we do not advertise: only their headers are read.
const NEWER: [(i16, i16); 3] = [(2, 11), (18, 5), (35, 5)];

#[test]
fn requests_of_real_clients_are_read() {
    let (mut produces, mut fetches, mut others, mut newer, mut by_id) = (0, 0, 0, 0, 0);
    for golden in golden_frames().iter().filter(|golden| golden.is_request) {
        let frame = &golden.frame;
        let (header, body) = RequestHeader::parse(frame).unwrap_or_else(|e| panic!("{golden}: {e}"));
        assert_eq!((header.api_key, header.api_version), (golden.key, golden.version), "{golden}");
        assert!(header.client_id.is_some(), "{golden}");
        match golden.key {
            produce::API_KEY => {
                check_produce(golden, body);
                produces += 1;
            }
            fetch::API_KEY => {
                check_fetch(golden, body);
                fetches += 1;
            }
            8 | 9 if golden.version >= TOPIC_IDS_SINCE => {
                shape::check(golden.key, golden.version, &frame[body..]).unwrap_or_else(|e| panic!("{golden}: {e}"));
                check_offsets(golden, &frame[body..]);
                by_id += 1;
            }
            key if NEWER.contains(&(key, golden.version)) => newer += 1,
            key => {
                let api = ApiKey::try_from(key).unwrap();
                shape::check(key, golden.version, &frame[body..]).unwrap_or_else(|e| panic!("{golden}: {e}"));
                let mut bytes = Bytes::copy_from_slice(&frame[body..]);
                let request = RequestKind::decode(api, &mut bytes, golden.version);
                let request = request.unwrap_or_else(|e| panic!("{golden}: {e}"));
                assert!(bytes.is_empty(), "{golden}: {} bytes left", bytes.len());
                let mut again = BytesMut::new();
                request.encode(&mut again, golden.version).unwrap();
                assert_eq!(again, frame[body..], "{golden}");
                others += 1;
            }
        }
    }
    assert!(produces >= 8 && fetches >= 8 && others >= 60, "{produces} {fetches} {others}");
    assert!(newer <= 12 && by_id >= 2, "{newer} {by_id}");
}

/// franz-go's group asks and commits by topic id.
fn check_offsets(golden: &Golden, body: &[u8]) {
    let id = "0bebbd14-09f6-45d6-beed-6aa08cd698d7";
    match golden.key {
        8 => {
            let request = offsets::commit_request(body, golden.version).unwrap_or_else(|e| panic!("{golden}: {e}"));
            let [topic] = &request.topics[..] else { panic!("{golden}: {request:?}") };
            let [partition] = &topic.partitions[..] else { panic!("{golden}: {topic:?}") };
            assert_eq!(
                (request.group_id.as_str(), request.generation_id_or_member_epoch),
                ("group-franz", 1),
                "{golden}"
            );
            assert_eq!((topic.topic_id.to_string().as_str(), partition.committed_offset), (id, 20), "{golden}");
            assert_eq!(partition.committed_metadata.as_ref(), Some(&request.member_id), "{golden}");
        }
        _ => {
            let request = offsets::fetch_request(body, golden.version).unwrap_or_else(|e| panic!("{golden}: {e}"));
            let [group] = &request.groups[..] else { panic!("{golden}: {request:?}") };
            let [topic] = &group.topics.as_ref().unwrap()[..] else { panic!("{golden}: {group:?}") };
            assert_eq!((group.group_id.as_str(), group.member_epoch), ("group-franz", 1), "{golden}");
            assert_eq!((topic.topic_id.to_string().as_str(), &topic.partition_indexes[..]), (id, &[0][..]), "{golden}");
        }
    }
}

fn check_produce(golden: &Golden, body: usize) {
    let frame = &golden.frame;
    let produce = Produce::parse(frame, body, golden.version).unwrap_or_else(|e| panic!("{golden}: {e}"));
    assert!([-1, 0, 1].contains(&produce.acks) && produce.timeout_ms > 0, "{golden}");
    let mut cursor = produce.cursor();
    let mut batches = 0;
    while let Some(topic) = cursor.next_topic(frame) {
        assert_eq!(matches!(topic.topic, TopicRef::Id(_)), golden.version >= 13, "{golden}");
        while let Some(partition) = cursor.next_partition(frame) {
            let records = &frame[partition.records.unwrap()];
            let batch = Batch::check(records, Validation::Records).unwrap_or_else(|e| panic!("{golden}: {e}"));
            assert_eq!(batch.size(), records.len(), "{golden}");
            if batch.codec() == Codec::None {
                let facts = batch.facts().unwrap();
                assert_eq!(facts.timestamp_max, batch.max_timestamp(), "{golden}");
                assert!(Records::new(batch.records(), batch.count()).all(|record| record.is_ok()), "{golden}");
            }
            batches += 1;
        }
    }
    assert!(batches > 0, "{golden}");
}

fn check_fetch(golden: &Golden, body: usize) {
    let fetch = Fetch::parse(&golden.frame, body, golden.version).unwrap_or_else(|e| panic!("{golden}: {e}"));
    assert!(fetch.replica_id.0 == -1 && fetch.max_wait_ms > 0 && fetch.max_bytes > 0, "{golden}");
    // A fetch of a session may name no partition, and so does one that closes it.
    assert!(fetch.session_id != 0 || fetch.partitions().count() > 0, "{golden}");
    for partition in fetch.partitions() {
        assert!(partition.fetch_offset >= 0 && partition.max_bytes > 0 && partition.index >= 0, "{golden}");
    }
}

#[test]
fn replies_of_kafka_come_out_of_our_writers_byte_for_byte() {
    let (mut produces, mut fetches, mut others) = (0, 0, 0);
    for golden in golden_frames().iter().filter(|golden| !golden.is_request) {
        let (key, version) = (golden.key, golden.version);
        let correlation_id = i32::from_be_bytes(*golden.frame.first_chunk().unwrap());
        let header_size = 4 + usize::from(reply_header_flexible(key, version));
        let mut body = Bytes::copy_from_slice(&golden.frame[header_size..]);
        let mut out = Vec::new();
        match key {
            produce::API_KEY => {
                write_produce(&mut out, correlation_id, version, &ProduceResponse::decode(&mut body, version).unwrap());
                produces += 1;
            }
            fetch::API_KEY => {
                write_fetch(&mut out, correlation_id, version, &FetchResponse::decode(&mut body, version).unwrap());
                fetches += 1;
            }
            _ => {
                let api = ApiKey::try_from(key).unwrap();
                if ResponseKind::decode(api, &mut body, version).is_ok() {
                    assert!(body.is_empty(), "{golden}: header or body misread, {} bytes left", body.len());
                    others += 1;
                }
                continue;
            }
        }
        assert_eq!(out[SIZE_PREFIX..], golden.frame, "{golden}");
        assert_eq!(out[..SIZE_PREFIX], (golden.frame.len() as i32).to_be_bytes(), "{golden}");
    }
    assert!(produces >= 8 && fetches >= 8 && others >= 60, "{produces} {fetches} {others}");
}

fn write_produce(out: &mut Vec<u8>, correlation_id: i32, version: i16, peer: &ProduceResponse) {
    let mut reply = ProduceReply::begin(out, correlation_id, version, peer.responses.len());
    for topic in &peer.responses {
        let name = if version >= 13 { TopicRef::Id(topic.topic_id) } else { TopicRef::Name(&topic.name) };
        reply.topic(out, name, topic.partition_responses.len());
        for partition in &topic.partition_responses {
            let errors: Vec<_> = partition
                .record_errors
                .iter()
                .map(|e| RecordError {
                    index: e.batch_index,
                    message: e.batch_index_error_message.as_ref().map(|message| message.to_string()),
                })
                .collect();
            let leader = &partition.current_leader;
            let result = PartitionResult {
                index: partition.index,
                error: ErrorCode::from_code(partition.error_code).unwrap(),
                base_offset: partition.base_offset,
                log_append_time_ms: partition.log_append_time_ms,
                log_start_offset: partition.log_start_offset,
                record_errors: &errors,
                error_message: partition.error_message.as_deref(),
                current_leader: (leader.leader_id.0 != -1).then_some(CurrentLeader {
                    leader: NodeId(leader.leader_id.0),
                    epoch: LeaderEpoch(leader.leader_epoch),
                }),
            };
            reply.partition(out, &result);
        }
    }
    let endpoints: Vec<_> = peer
        .node_endpoints
        .iter()
        .map(|e| NodeEndpoint { node: NodeId(e.node_id.0), host: &e.host, port: e.port, rack: e.rack.as_deref() })
        .collect();
    reply.end(out, peer.throttle_time_ms, &endpoints);
}

fn write_fetch(out: &mut Vec<u8>, correlation_id: i32, version: i16, peer: &FetchResponse) {
    let error = ErrorCode::from_code(peer.error_code).unwrap();
    let topic_count = peer.responses.len();
    let mut reply =
        FetchReply::begin(out, correlation_id, version, peer.throttle_time_ms, error, peer.session_id, topic_count);
    for topic in &peer.responses {
        let name = if version >= 13 { TopicRef::Id(topic.topic_id) } else { TopicRef::Name(&topic.topic) };
        reply.topic(out, name, topic.partitions.len());
        for partition in &topic.partitions {
            let aborted: Option<Vec<_>> = partition
                .aborted_transactions
                .as_ref()
                .map(|all| all.iter().map(|t| (t.producer_id.0, t.first_offset)).collect());
            let records = partition.records.as_deref().unwrap();
            let data = PartitionData {
                index: partition.partition_index,
                error: ErrorCode::from_code(partition.error_code).unwrap(),
                high_watermark: partition.high_watermark,
                last_stable_offset: partition.last_stable_offset,
                log_start_offset: partition.log_start_offset,
                aborted_transactions: aborted.as_deref(),
                preferred_read_replica: NodeId(partition.preferred_read_replica.0),
                records_size: records.len(),
            };
            reply.partition(out, &data);
            out.extend_from_slice(records);
            let leader = &partition.current_leader;
            let tags = PartitionTags {
                diverging_epoch: None,
                current_leader: (leader.leader_id.0 != -1).then_some(CurrentLeader {
                    leader: NodeId(leader.leader_id.0),
                    epoch: LeaderEpoch(leader.leader_epoch),
                }),
            };
            reply.end_partition(out, &tags);
        }
    }
    assert_eq!(reply.end(out, &[]), 0);
}

/// Whatever a byte becomes, reading Produce and Fetch neither panics nor reserves memory, and the steps after parsing
/// see as much as parsing promised.
#[test]
fn mutated_requests_are_read_or_refused_without_reserving_memory() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n as u64) as usize
    };
    let (mut read, mut refused) = (0, 0);
    for golden in golden_frames().iter().filter(|g| g.is_request && g.key <= fetch::API_KEY) {
        for _ in 0..2000 {
            let mut frame = golden.frame.clone();
            for _ in 0..1 + random(3) {
                let at = random(frame.len());
                match random(4) {
                    0 => frame[at] = random(256) as u8,
                    1 => frame[at] = [0xff, 0x7f, 0x80, 0x00][random(4)],
                    2 => frame[at] ^= 1 << random(8),
                    _ => frame.truncate(at + 1),
                }
            }
            let mut ok = false;
            let info = allocation_counter::measure(|| ok = read_hot(&frame));
            assert_eq!(info.count_total, 0, "{golden}: {frame:?}");
            if ok { read += 1 } else { refused += 1 }
        }
    }
    assert!(read > 5000 && refused > 5000, "{read} read, {refused} refused");
}

fn read_hot(frame: &[u8]) -> bool {
    let Ok((header, body)) = RequestHeader::parse(frame) else { return false };
    match header.api_key {
        produce::API_KEY => {
            let Ok(produce) = Produce::parse(frame, body, header.api_version) else { return false };
            let mut cursor = produce.cursor();
            let mut topics = 0;
            while let Some(topic) = cursor.next_topic(frame) {
                let mut partitions = 0;
                while let Some(partition) = cursor.next_partition(frame) {
                    let records = partition.records.map(|range| frame.get(range).expect("records lie in the frame"));
                    let _ = Batch::check(records.unwrap_or_default(), Validation::Records);
                    partitions += 1;
                }
                assert_eq!(partitions, topic.partition_count);
                topics += 1;
            }
            assert_eq!(topics, produce.topic_count);
            true
        }
        fetch::API_KEY => {
            let Ok(fetch) = Fetch::parse(frame, body, header.api_version) else { return false };
            assert!(fetch.partitions().count() * 16 + fetch.forgotten().count() * 4 <= frame.len());
            true
        }
        _ => false,
    }
}
