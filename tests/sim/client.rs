//! Clients of the simulated host, and what they remember for the checks.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    ApiKey, FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse, ProduceRequest, ProduceResponse,
    RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use ringlane::io::Ring;
use ringlane::io::sim::{ClientId, Random};
use ringlane::wire::batch::Batch;
use ringlane::wire::record::{BatchBuilder, BatchFields, Records};

use crate::host::Host;

const PRODUCE_VERSION: i16 = 11;
const FETCH_VERSION: i16 = 12;
const LIST_OFFSETS_VERSION: i16 = 6;

fn frame<M: Encodable>(key: ApiKey, version: i16, correlation_id: i32, message: &M) -> Vec<u8> {
    let header = RequestHeader::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("sim")));
    let mut body = vec![0; 4];
    header.encode(&mut body, key.request_header_version(version)).expect("header");
    message.encode(&mut body, version).expect("message");
    let size = body.len() as i32 - 4;
    body[..4].copy_from_slice(&size.to_be_bytes());
    body
}

fn reply<M: Decodable>(frame: Bytes, key: ApiKey, version: i16, correlation_id: i32) -> M {
    let mut bytes = frame.slice(4..);
    let header = ResponseHeader::decode(&mut bytes, key.response_header_version(version)).expect("reply header");
    assert_eq!(header.correlation_id, correlation_id, "replies come in request order");
    M::decode(&mut bytes, version).expect("reply")
}

/// A connection with at most one request under way.
#[derive(Default)]
struct Line {
    client: Option<ClientId>,
    received: Vec<u8>,
    correlation_id: i32,
    waiting: bool,
}

impl Line {
    fn send(&mut self, host: &mut Host, key: ApiKey, version: i16, message: &impl Encodable) {
        let client = *self.client.get_or_insert_with(|| host.sim.connect());
        self.correlation_id += 1;
        host.sim.client_send(client, &frame(key, version, self.correlation_id, message));
        self.waiting = true;
    }
    /// The reply, once it is whole.
    fn receive(&mut self, host: &mut Host, slow: Option<u64>) -> Option<Bytes> {
        let client = self.client?;
        let bytes = match slow {
            Some(count) => host.sim.client_receive_up_to(client, count),
            None => host.sim.client_receive(client),
        };
        self.received.extend(bytes);
        let size = i32::from_be_bytes(*self.received.first_chunk()?) as usize + 4;
        if self.received.len() < size {
            return None;
        }
        self.waiting = false;
        let rest = self.received.split_off(size);
        Some(Bytes::from(std::mem::replace(&mut self.received, rest)))
    }
    fn disconnected(&mut self) {
        *self = Line { correlation_id: self.correlation_id, ..Line::default() };
    }
}

/// Sends numbered records and remembers which were acknowledged, and where.
pub struct Producer {
    pub partition: i32,
    topic: &'static str,
    id: u64,
    idempotent: bool,
    next: u64,
    line: Line,
    /// Sent and not acknowledged: number of the first record, and how many.
    under_way: Option<(u64, u64)>,
    acknowledged: BTreeMap<i64, Vec<u8>>,
}

impl Producer {
    pub fn new(topic: &'static str, partition: i32, id: u64, idempotent: bool) -> Producer {
        Producer {
            partition,
            topic,
            id,
            idempotent,
            next: 0,
            line: Line::default(),
            under_way: None,
            acknowledged: BTreeMap::new(),
        }
    }

    fn value(&self, number: u64) -> Vec<u8> {
        let mut value = format!("{}:{number}:", self.id).into_bytes();
        let size = 20 + (number * 7919 % 16_000) as usize;
        value.resize(value.len() + size, b'a' + (number % 26) as u8);
        value
    }

    pub fn step(&mut self, host: &mut Host, random: &mut Random) {
        if self.line.waiting {
            self.take_reply(host);
        } else if random.below(3) > 0 {
            // What was not acknowledged is sent again; only an idempotent producer may count on it being stored once.
            let (first, count) = self.under_way.unwrap_or((self.next, 1 + random.below(40)));
            self.send(host, first, count);
        }
    }

    /// Waits for the last acknowledgement. True: there is none to wait for.
    pub fn finish(&mut self, host: &mut Host) -> bool {
        match (self.line.waiting, self.under_way) {
            (true, _) => self.take_reply(host),
            (false, Some((first, count))) => self.send(host, first, count),
            (false, None) => return true,
        }
        false
    }

    pub fn send(&mut self, host: &mut Host, first: u64, count: u64) {
        let mut batch = Vec::new();
        let fields = match self.idempotent {
            true => BatchFields {
                producer_id: 1000 + self.id as i64,
                producer_epoch: 0,
                base_sequence: first as i32,
                ..BatchFields::default()
            },
            false => BatchFields::default(),
        };
        let mut builder = BatchBuilder::new(&mut batch, fields);
        for number in first..first + count {
            builder.push(host.sim.now().wall_ms, Some(b"key"), Some(&self.value(number)), &[]);
        }
        builder.finish();
        let data = PartitionProduceData::default().with_index(self.partition).with_records(Some(Bytes::from(batch)));
        let topic = TopicProduceData::default()
            .with_name(TopicName(StrBytes::from_static_str(self.topic)))
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic]);
        self.line.send(host, ApiKey::Produce, PRODUCE_VERSION, &request);
        self.under_way = Some((first, count));
    }

    /// The error code of what is under way, once there is a reply.
    pub fn refusal(&mut self, host: &mut Host) -> Option<i16> {
        self.reply(host).map(|partition| partition.error_code)
    }

    fn reply(&mut self, host: &mut Host) -> Option<PartitionProduceResponse> {
        let bytes = self.line.receive(host, None)?;
        let mut reply: ProduceResponse = reply(bytes, ApiKey::Produce, PRODUCE_VERSION, self.line.correlation_id);
        reply.responses.pop()?.partition_responses.pop()
    }

    fn take_reply(&mut self, host: &mut Host) {
        let Some(partition) = self.reply(host) else { return };
        assert_eq!(partition.error_code, 0, "producer {}", self.id);
        let (first, count) = self.under_way.take().expect("a reply to something");
        for number in first..first + count {
            let offset = partition.base_offset + (number - first) as i64;
            let value = self.value(number);
            let before = self.acknowledged.insert(offset, value);
            assert!(before.is_none(), "offset {offset} was given twice");
        }
        self.next = first + count;
    }

    pub fn disconnected(&mut self) {
        self.line.disconnected();
    }

    /// Is it a record of this producer?
    pub fn sent(&self, value: &[u8]) -> bool {
        value.starts_with(format!("{}:", self.id).as_bytes())
    }

    /// Offset and value of every acknowledged record.
    pub fn acknowledged(&self) -> impl Iterator<Item = (i64, &[u8])> {
        self.acknowledged.iter().map(|(offset, value)| (*offset, value.as_slice()))
    }
}

/// Follows one partition and checks what it is given.
pub struct Consumer {
    topic: &'static str,
    partition: i32,
    slow: bool,
    next: i64,
    /// Retention was faster: where the log begins has to be asked.
    lost: bool,
    line: Line,
    seen: BTreeMap<i64, Vec<u8>>,
    log_start: i64,
    high_watermark: i64,
}

impl Consumer {
    pub fn new(topic: &'static str, partition: i32, slow: bool) -> Consumer {
        Consumer {
            topic,
            partition,
            slow,
            next: 0,
            lost: false,
            line: Line::default(),
            seen: BTreeMap::new(),
            log_start: 0,
            high_watermark: 0,
        }
    }

    pub fn step(&mut self, host: &mut Host, random: &mut Random) {
        if !self.line.waiting {
            if random.below(4) > 0 {
                self.send(host, random);
            }
            return;
        }
        let slow = self.slow.then(|| random.below(3000));
        if let Some(bytes) = self.line.receive(host, slow) {
            self.take(bytes);
        }
    }

    fn send(&mut self, host: &mut Host, random: &mut Random) {
        if self.lost {
            return self.ask_for_start(host);
        }
        let partition = FetchPartition::default()
            .with_partition(self.partition)
            .with_fetch_offset(self.next)
            .with_partition_max_bytes(1 + random.below(200_000) as i32);
        let topic = FetchTopic::default()
            .with_topic(TopicName(StrBytes::from_static_str(self.topic)))
            .with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_max_wait_ms(random.below(500) as i32)
            .with_min_bytes(1)
            .with_max_bytes(50_000_000)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        self.line.send(host, ApiKey::Fetch, FETCH_VERSION, &request);
    }

    fn ask_for_start(&mut self, host: &mut Host) {
        const EARLIEST: i64 = -2;
        let asked = ListOffsetsPartition::default().with_partition_index(self.partition).with_timestamp(EARLIEST);
        let topic = ListOffsetsTopic::default()
            .with_name(TopicName(StrBytes::from_static_str(self.topic)))
            .with_partitions(vec![asked]);
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
        self.line.send(host, ApiKey::ListOffsets, LIST_OFFSETS_VERSION, &request);
    }

    fn take_start(&mut self, bytes: Bytes) {
        let id = self.line.correlation_id;
        let reply: ListOffsetsResponse = reply(bytes, ApiKey::ListOffsets, LIST_OFFSETS_VERSION, id);
        let partition = &reply.topics[0].partitions[0];
        assert_eq!(partition.error_code, 0);
        assert!(partition.offset > self.next, "out of range at {} without reason", self.next);
        (self.lost, self.log_start, self.next) = (false, partition.offset, partition.offset);
    }

    fn take(&mut self, bytes: Bytes) {
        if self.lost {
            return self.take_start(bytes);
        }
        let reply: FetchResponse = reply(bytes, ApiKey::Fetch, FETCH_VERSION, self.line.correlation_id);
        assert_eq!(reply.error_code, 0);
        let partition = &reply.responses[0].partitions[0];
        const OFFSET_OUT_OF_RANGE: i16 = 1;
        if partition.error_code == OFFSET_OUT_OF_RANGE {
            self.lost = true;
            return;
        }
        assert_eq!(partition.error_code, 0, "fetch at {}", self.next);
        assert!(partition.high_watermark >= self.high_watermark, "the high watermark went back");
        (self.high_watermark, self.log_start) = (partition.high_watermark, partition.log_start_offset);
        let records = partition.records.clone().unwrap_or_default();
        let mut rest = &records[..];
        // The last batch may be cut off.
        while rest.len() >= 61 {
            let size = 12 + i32::from_be_bytes(rest[8..12].try_into().expect("4 bytes")) as usize;
            if rest.len() < size {
                break;
            }
            let batch = Batch::stored(&rest[..size]).expect("a consumer is given what was stored");
            let base = batch.base_offset().0;
            assert!(base <= self.next, "a gap: {base} after {}", self.next);
            for record in Records::new(batch.records(), batch.count()) {
                let record = record.expect("a record");
                let offset = base + i64::from(record.offset_delta);
                let value = record.value.expect("a value").to_vec();
                if offset >= self.next {
                    assert_eq!(offset, self.next, "offsets are dense");
                    self.next += 1;
                    self.seen.insert(offset, value);
                }
            }
            rest = &rest[size..];
        }
    }

    /// Reads until nothing is left.
    pub fn read_to_end(&mut self, host: &mut Host, random: &mut Random) {
        self.high_watermark = -1;
        for _ in 0..100_000 {
            if self.high_watermark >= 0 && self.next >= self.high_watermark {
                return;
            }
            self.send(host, random);
            for _ in 0..10_000 {
                host.turn();
                if let Some(bytes) = self.line.receive(host, None) {
                    self.take(bytes);
                    break;
                }
            }
            assert!(!self.line.waiting, "a fetch is not answered");
        }
        panic!("the log does not end");
    }

    pub fn seen(&self, offset: i64) -> Option<&[u8]> {
        self.seen.get(&offset).map(Vec::as_slice)
    }

    pub fn all_seen(&self) -> impl Iterator<Item = &[u8]> {
        self.seen.values().map(Vec::as_slice)
    }

    pub fn log_start(&self) -> i64 {
        self.log_start
    }

    pub fn disconnected(&mut self) {
        // A segment that was being retired may be there again after a kill.
        self.lost = false;
        self.line.disconnected();
    }
}
