//! `compression.type` and what else a topic asks of a batch: the produce handler, called as the shard calls it, on a broker with a disk in memory. What is stored
//! has the topic's codec and says what the producer said; with `producer` it is what came.

#[allow(dead_code)]
#[path = "support/memory_disk.rs"]
mod memory_disk;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use memory_disk::MemoryDisk;
use ringlane::api::{Context, Outcome, ReplyTo, produce};
use ringlane::broker::Broker;
use ringlane::broker::turn::RECORDS_WORK_NS;
use ringlane::cluster::fold::Fold;
use ringlane::cluster::image::ClusterImage;
use ringlane::cluster::record::{Partition, RESOURCE_TOPIC, Record};
use ringlane::config::{BrokerConfig, Settings};
use ringlane::ids::{LeaderEpoch, Now, Offset, ShardId, TopicId, Waiter};
use ringlane::io::ReceiveBuffer;
use ringlane::storage::Budget;
use ringlane::wire::ErrorCode;
use ringlane::wire::batch::{self, Batch, Codec, HEADER_SIZE, TimestampType};
use ringlane::wire::compression::{decompress_bounded, with_records};
use ringlane::wire::record::{BatchBuilder, BatchFields};

const NOW_MS: i64 = 1_800_000_000_000;
const CODECS: [(&str, Codec); 5] = [
    ("uncompressed", Codec::None),
    ("gzip", Codec::Gzip),
    ("snappy", Codec::Snappy),
    ("lz4", Codec::Lz4),
    ("zstd", Codec::Zstd),
];
const MESSAGE_BYTES_MAX: usize = 1_048_588;

struct World {
    broker: Broker,
    disk: MemoryDisk,
    now: Now,
    /// Turns that the last request took.
    turns: u32,
}

/// What a producer is told.
#[derive(Debug, PartialEq)]
struct Told(ErrorCode, i64);

impl World {
    /// One topic `t` with these settings, its one partition led here.
    fn new(settings: &[(&str, &str)]) -> World {
        let config = Arc::new(BrokerConfig::kafka_default());
        let node = config.node_id;
        let empty = ClusterImage::empty("cluster".into(), 1, Arc::new(Settings::default()), config);
        let mut fold = Fold::new(&empty);
        let id = TopicId::from_u128(1);
        fold.apply(Record::Topic { name: "t".into(), id });
        fold.apply(Record::Partition(Partition {
            partition: 0,
            topic: id,
            replicas: vec![node],
            isr: vec![node],
            leader: node,
            leader_epoch: LeaderEpoch(3),
            partition_epoch: 0,
            directories: Vec::new(),
        }));
        for (name, value) in settings {
            fold.apply(Record::Config {
                resource_type: RESOURCE_TOPIC,
                resource_name: "t".into(),
                name: name.to_string(),
                value: Some(value.to_string()),
            });
        }
        let image = Arc::new(fold.finish());
        let mut broker = Broker::new(ShardId(0), &image, Arc::default());
        let mut disk = MemoryDisk::default();
        let now = Now { monotonic_ns: 1_000_000_000, wall_ms: NOW_MS };
        broker.apply_image(&mut disk, image, now);
        World { broker, disk, now, turns: 0 }
    }

    /// Produces batches to the partition in one request, and ends the turn.
    fn produce_all(&mut self, version: i16, batches: &[&[u8]]) -> Vec<Told> {
        let told = |p: &PartitionProduceResponse| Told(ErrorCode::from_code(p.error_code).unwrap(), p.base_offset);
        self.replies(version, batches).iter().map(told).collect()
    }
    fn replies(&mut self, version: i16, batches: &[&[u8]]) -> Vec<PartitionProduceResponse> {
        let partition =
            |batch: &&[u8]| PartitionProduceData::default().with_records(Some(Bytes::copy_from_slice(batch)));
        let topic = TopicProduceData::default()
            .with_name(TopicName(StrBytes::from_static_str("t")))
            .with_partition_data(batches.iter().map(partition).collect());
        let request = ProduceRequest::default().with_acks(-1).with_topic_data(vec![topic]);
        let mut frame = Vec::new();
        request.encode(&mut frame, version).unwrap();
        let to = ReplyTo { waiter: Waiter(1), correlation_id: 7, api: 0, version };
        let peer = "127.0.0.1:1".parse().unwrap();
        let mut buffer = ReceiveBuffer::from_vec(frame);
        let mut put_off = None;
        self.turns = 0;
        let mut answers = Vec::new();
        loop {
            self.turns += 1;
            let mut context = Context { broker: &mut self.broker, disk: &mut self.disk, now: self.now, peer };
            let outcome = match put_off.take() {
                None => produce::handle(&mut context, to, &mut buffer, 0, (0, 0)),
                Some(under_way) => {
                    let mut budget = Budget::new(RECORDS_WORK_NS);
                    produce::go_on(&mut context, under_way, &mut buffer, (0, 0), &mut budget)
                }
            };
            self.broker.turn.push_received(buffer);
            self.broker.flush_turn(&mut self.disk, self.now);
            buffer = self.broker.turn.take_received(0).unwrap();
            self.broker.turn.clear_buffers();
            self.broker.take_answers(&mut answers);
            match outcome {
                Outcome::PutOff(under_way) => put_off = Some(under_way),
                Outcome::Later(None) => break,
                _ => panic!("neither put off nor answered later"),
            }
            assert!(answers.is_empty(), "no reply while the request is put off");
        }
        assert_eq!(answers.len(), 1);
        let header = if version >= 9 { 9 } else { 8 };
        let mut reply = Bytes::copy_from_slice(&answers[0].1.bytes[header..]);
        let mut response = ProduceResponse::decode(&mut reply, version).unwrap();
        response.responses.remove(0).partition_responses
    }
    fn produce(&mut self, batch: &[u8]) -> Told {
        self.produce_all(9, &[batch]).remove(0)
    }
    fn refusal(&mut self, batch: &[u8]) -> ErrorCode {
        let Told(error, base_offset) = self.produce(batch);
        assert_eq!((base_offset, self.log()), (-1, Vec::new()), "nothing is stored");
        error
    }

    /// The bytes of the partition's log.
    fn log(&mut self) -> Vec<u8> {
        let path = PathBuf::from("t-0/00000000000000000000.log");
        self.disk.file(&path).map(|file| file.bytes.clone()).unwrap_or_default()
    }
}

/// Five records: with and without key, value and headers.
fn plain(producer_id: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let fields = BatchFields { producer_id, producer_epoch: 2, base_sequence: 40, ..BatchFields::default() };
    let fields = if producer_id < 0 { BatchFields::default() } else { fields };
    let mut builder = BatchBuilder::new(&mut bytes, fields);
    let value = "every core is a broker; ".repeat(20);
    builder.push(NOW_MS, Some(b"a"), Some(value.as_bytes()), &[(b"h", Some(b"x")), (b"null", None)]);
    builder.push(NOW_MS + 7, None, Some(b"no key"), &[]);
    builder.push(NOW_MS - 5, Some(b"b"), None, &[]);
    builder.push(NOW_MS + 3, Some(b""), Some(b""), &[]);
    builder.push(NOW_MS + 1, Some(b"a"), Some(value.as_bytes()), &[]);
    builder.finish();
    bytes
}
fn one_value(value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut builder = BatchBuilder::new(&mut bytes, BatchFields::default());
    builder.push(NOW_MS, Some(b"key"), Some(value), &[]);
    builder.finish();
    bytes
}
fn compressed(plain: &[u8], codec: Codec) -> Vec<u8> {
    let plain = Batch::stored(plain).unwrap();
    with_records(&plain, plain.records(), codec, None).unwrap()
}
/// Bytes that no codec makes smaller.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..size).map(|_| next()).collect()
}

#[test]
fn every_codec_becomes_the_topics() {
    for (name, target) in CODECS {
        for (_, source) in CODECS {
            let what = format!("{source:?} into {name}");
            let mut world = World::new(&[("compression.type", name)]);
            assert_eq!(world.produce(&compressed(&plain(-1), source)), Told(ErrorCode::None, 0), "{what}");
            let sent = compressed(&plain(9), source);
            assert_eq!(world.produce(&sent), Told(ErrorCode::None, 5), "{what}");
            assert_eq!(world.produce(&sent), Told(ErrorCode::None, 5), "{what}: a duplicate is known as one");
            let log = world.log();
            let first = Batch::stored(&log).unwrap();
            let stored = Batch::stored(&log[first.size()..]).unwrap();
            assert_eq!(first.size() + stored.size(), log.len(), "{what}: the duplicate is not stored");
            assert_eq!((first.codec(), stored.codec()), (target, target), "{what}");
            let plain = plain(9);
            let original = Batch::stored(&plain).unwrap();
            let records = decompress_bounded(target, stored.records(), 1 << 20).unwrap();
            assert_eq!(records, original.records(), "{what}");
            assert_eq!((stored.base_offset(), stored.last_offset()), (Offset(5), Offset(9)), "{what}");
            assert_eq!(stored.leader_epoch(), LeaderEpoch(3), "{what}");
            let said = |b: &Batch<'_>| (b.producer_id(), b.producer_epoch(), b.base_sequence(), b.count());
            assert_eq!(said(&stored), said(&original), "{what}");
            assert_eq!((stored.base_timestamp(), stored.max_timestamp()), (NOW_MS, NOW_MS + 7), "{what}");
            assert_eq!(stored.attributes().timestamp_type(), TimestampType::CreateTime, "{what}");
            if source == target {
                assert_eq!(stored.bytes()[16..], sent[16..], "{what}: untouched but for offset and epoch");
            }
        }
    }
}

#[test]
fn the_producers_codec_is_kept_untouched() {
    for (_, source) in CODECS {
        let mut world = World::new(&[]);
        let sent = compressed(&plain(9), source);
        assert_eq!(world.produce(&sent), Told(ErrorCode::None, 0));
        let log = world.log();
        assert_eq!((log.len(), &log[16..]), (sent.len(), &sent[16..]), "{source:?}");
    }
}

#[test]
fn the_brokers_clock_is_stored_in_the_new_batch() {
    let mut world = World::new(&[("compression.type", "zstd"), ("message.timestamp.type", "LogAppendTime")]);
    world.now.wall_ms = NOW_MS + 1000;
    assert_eq!(world.produce(&compressed(&plain(-1), Codec::Gzip)), Told(ErrorCode::None, 0));
    let log = world.log();
    let stored = Batch::stored(&log).unwrap();
    assert_eq!(stored.attributes().timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!((stored.max_timestamp(), stored.codec()), (NOW_MS + 1000, Codec::Zstd));
}

#[test]
fn a_header_that_disagrees_with_its_records_is_corrected() {
    for (target, codec) in [("producer", Codec::None), ("snappy", Codec::None), ("snappy", Codec::Zstd)] {
        let mut world = World::new(&[("compression.type", target)]);
        let mut sent = compressed(&plain(-1), codec);
        batch::set_max_timestamp(&mut sent, NOW_MS + 100);
        assert_eq!(world.produce(&sent), Told(ErrorCode::None, 0));
        assert_eq!(Batch::stored(&world.log()).unwrap().max_timestamp(), NOW_MS + 7, "{codec:?} into {target}");
    }
}

#[test]
fn levels_are_those_of_the_topic() {
    let text: Vec<u8> = (0..20_000u32).flat_map(|i| format!("{} ", i.wrapping_mul(i) % 1000).into_bytes()).collect();
    let size = |level: &[(&str, &str)]| {
        let mut world = World::new(level);
        assert_eq!(world.produce(&one_value(&text)), Told(ErrorCode::None, 0));
        world.log().len()
    };
    let gzip = |level| size(&[("compression.type", "gzip"), ("compression.gzip.level", level)]);
    assert!(gzip("1") > gzip("9") && gzip("-1") == gzip("6"));
    let zstd = |level| size(&[("compression.type", "zstd"), ("compression.zstd.level", level)]);
    assert!(zstd("-5") > zstd("3") && zstd("3") > zstd("22"));
}

#[test]
fn what_cannot_be_stored_is_refused_with_kafkas_codes() {
    let small = one_value(&[7; 1000]);
    let cut = {
        let batch = Batch::stored(&small).unwrap();
        let gzip = with_records(&batch, batch.records(), Codec::Gzip, None).unwrap();
        let half = HEADER_SIZE + (gzip.len() - HEADER_SIZE) / 2;
        let mut cut = gzip[..half].to_vec();
        cut[batch::field::BATCH_LENGTH].copy_from_slice(&((half - 12) as i32).to_be_bytes());
        batch::seal(&mut cut);
        cut
    };
    let wrong_crc = {
        let mut bytes = compressed(&small, Codec::Lz4);
        *bytes.last_mut().unwrap() ^= 1;
        bytes
    };
    let badly_framed = |codec| {
        let batch = Batch::stored(&small).unwrap();
        let mut records = batch.records().to_vec();
        records[4] = 2; // The first record's offset delta is 1.
        with_records(&batch, &records, codec, None).unwrap()
    };
    let zeros = compressed(&one_value(&vec![0; 2 << 20]), Codec::Gzip);
    let bomb = compressed(&one_value(&vec![0; 80 << 20]), Codec::Zstd);
    let just_fits = one_value(&noise(MESSAGE_BYTES_MAX - HEADER_SIZE - 20));
    assert!(just_fits.len() <= MESSAGE_BYTES_MAX);
    let too_large = one_value(&noise(MESSAGE_BYTES_MAX));
    use ErrorCode::{CorruptMessage, InvalidRecord, MessageTooLarge};
    for (what, target, batch, error) in [
        ("a stream that ends early", "uncompressed", &cut, InvalidRecord),
        ("a stream that ends early", "lz4", &cut, InvalidRecord),
        ("a wrong checksum", "gzip", &wrong_crc, CorruptMessage),
        ("records badly framed", "uncompressed", &badly_framed(Codec::Snappy), InvalidRecord),
        ("records badly framed", "gzip", &badly_framed(Codec::None), InvalidRecord),
        ("more than a batch may hold", "uncompressed", &zeros, MessageTooLarge),
        ("more than is ever decompressed", "gzip", &bomb, MessageTooLarge),
        ("larger than it came", "snappy", &just_fits, MessageTooLarge),
        ("too large as it came", "gzip", &too_large, MessageTooLarge),
    ] {
        let mut world = World::new(&[("compression.type", target)]);
        assert_eq!(world.refusal(batch), error, "{what}, into {target}");
        assert_eq!(world.produce(&small), Told(ErrorCode::None, 0), "after {what}");
    }
    // The same bytes are fine where they may stay as they are, or become small enough.
    assert_eq!(World::new(&[]).produce(&just_fits), Told(ErrorCode::None, 0));
    assert_eq!(World::new(&[("compression.type", "zstd")]).produce(&zeros), Told(ErrorCode::None, 0));
    let mut compacted = World::new(&[("compression.type", "gzip"), ("cleanup.policy", "compact")]);
    assert_eq!(compacted.refusal(&compressed(&plain(-1), Codec::Lz4)), InvalidRecord, "a record without a key");
}

/// A batch of a few kilobytes that became 63 MB held its core for as long as it took to decompress them and compress them again.
#[test]
fn a_batch_that_becomes_large_takes_many_turns_and_keeps_its_place() {
    let small = compressed(&plain(-1), Codec::Lz4);
    for (settings, codec) in [
        (&[("compression.type", "zstd")][..], Codec::Gzip),
        (&[("compression.type", "lz4")], Codec::None),
        (&[("cleanup.policy", "compact")], Codec::Zstd),
        (&[("compression.type", "snappy"), ("cleanup.policy", "compact")], Codec::Lz4),
    ] {
        let mut world = World::new(settings);
        let compact = settings.iter().any(|(name, _)| *name == "cleanup.policy");
        let value = vec![0; if codec == Codec::None { 900_000 } else { 20 << 20 }];
        let large = compressed(&one_value(&value), codec);
        let around = if compact { compressed(&one_value(b"small"), Codec::Lz4) } else { small.clone() };
        let count = i64::from(Batch::stored(&around).unwrap().count());
        let told = world.produce_all(9, &[&around, &large, &around, &large]);
        let offsets = [0, count, count + 1, 2 * count + 1];
        assert_eq!(told, offsets.map(|offset| Told(ErrorCode::None, offset)), "{settings:?}");
        let turns_min = if codec == Codec::None { 20 } else { 400 };
        assert!(world.turns > turns_min, "{settings:?}: {} turns", world.turns);
        assert_eq!(world.produce(&around), Told(ErrorCode::None, 2 * count + 2));
        assert_eq!(world.turns, 1, "small ones take one");
    }
}

/// Records that are to blame are found in turns, too, and what was written before in the same request stays told as it was.
#[test]
fn a_large_batch_is_judged_in_turns() {
    let mut world = World::new(&[("cleanup.policy", "compact")]);
    let mut bytes = Vec::new();
    let mut builder = BatchBuilder::new(&mut bytes, BatchFields::default());
    (0..50_000).for_each(|_| builder.push(NOW_MS, None, Some(b"no key"), &[]));
    builder.finish();
    let good = one_value(b"with a key");
    let replies = world.replies(9, &[&good, &compressed(&bytes, Codec::Zstd), &good]);
    let codes: Vec<_> = replies.iter().map(|reply| ErrorCode::from_code(reply.error_code).unwrap()).collect();
    assert_eq!(codes, [ErrorCode::None, ErrorCode::InvalidRecord, ErrorCode::None]);
    assert_eq!(replies[1].record_errors.len(), 50_000);
    assert_eq!((replies[0].base_offset, replies[2].base_offset), (0, 1));
    assert!(world.turns > 30, "{} turns", world.turns);
}

/// The first batch's write fails in the turn in which the request is put off at the second; the third's, in a later one, does not.
#[test]
fn a_write_that_fails_while_a_request_is_put_off_is_told() {
    let mut world = World::new(&[("compression.type", "gzip")]);
    let (small, large) = (compressed(&plain(-1), Codec::Gzip), compressed(&one_value(&vec![0; 9 << 20]), Codec::Zstd));
    assert_eq!(world.produce(&small), Told(ErrorCode::None, 0));
    world.disk.fail_write = Some((0, std::io::ErrorKind::StorageFull));
    let told = world.produce_all(9, &[&small, &large, &small]);
    assert_eq!(told, [Told(ErrorCode::KafkaStorageError, -1), Told(ErrorCode::None, 5), Told(ErrorCode::None, 6)]);
}

/// A topic that asks for more replicas than it has was written by nobody with acks=all; Kafka asks for no more than there are.
#[test]
fn one_replica_is_enough_where_there_is_one() {
    let mut world = World::new(&[("min.insync.replicas", "2")]);
    assert_eq!(world.produce(&plain(-1)), Told(ErrorCode::None, 0));
}

/// What the log itself refuses comes with its start, as from Kafka; what never got there comes without.
#[test]
fn refusals_tell_where_the_log_starts() {
    let mut world = World::new(&[]);
    let mut moved = plain(-1);
    moved[batch::field::BASE_OFFSET].copy_from_slice(&7i64.to_be_bytes());
    let mut damaged = plain(-1);
    *damaged.last_mut().unwrap() ^= 1;
    for (batch, error, log_start_offset) in [
        (&moved, ErrorCode::InvalidRecord, 0),
        (&damaged, ErrorCode::CorruptMessage, -1),
        (&one_value(&noise(MESSAGE_BYTES_MAX)), ErrorCode::MessageTooLarge, -1),
    ] {
        let told = &world.replies(9, &[batch])[0];
        assert_eq!((told.error_code, told.log_start_offset), (error.code(), log_start_offset));
    }
    let first = &world.replies(9, &[&plain(5)])[0];
    assert_eq!((first.error_code, first.log_append_time_ms), (0, -1));
    let again = &world.replies(9, &[&plain(5)])[0];
    assert_eq!((again.error_code, again.base_offset, again.log_append_time_ms), (0, 0, NOW_MS + 7), "a duplicate");
    let mut later = plain(5);
    later[batch::field::BASE_SEQUENCE].copy_from_slice(&90i32.to_be_bytes());
    batch::seal(&mut later);
    let refused = &world.replies(9, &[&later])[0];
    assert_eq!((refused.error_code, refused.log_start_offset), (ErrorCode::OutOfOrderSequenceNumber.code(), 0));
}

/// A producer was told that its batch is refused, but not because of which records: it had to give up all of them, and
/// librdkafka blamed each (KIP-467).
#[test]
fn records_to_blame_are_named() {
    let blamed = |settings: &[(&str, &str)], batch: &[u8]| {
        let mut world = World::new(settings);
        let reply = world.replies(9, &[batch]).remove(0);
        let error = ErrorCode::from_code(reply.error_code).unwrap();
        assert!(world.log().is_empty() || error == ErrorCode::None, "{error:?}");
        let text = |text: Option<&StrBytes>| text.map(|t| t.to_string()).unwrap_or_default();
        let records: Vec<_> =
            reply.record_errors.iter().map(|e| (e.batch_index, text(e.batch_index_error_message.as_ref()))).collect();
        (error, text(reply.error_message.as_ref()), records)
    };
    let keyless = |count: i32| {
        let mut bytes = Vec::new();
        let mut builder = BatchBuilder::new(&mut bytes, BatchFields::default());
        for i in 0..count {
            builder.push(NOW_MS - 10 * i64::from(i), (i % 3 == 1).then_some(b"key"), Some(b"value"), &[]);
        }
        builder.finish();
        bytes
    };
    let compact = [("cleanup.policy", "compact")];
    for (_, codec) in CODECS {
        let no_key = "Compacted topic cannot accept message without key in topic partition t-0";
        let shown = |i: i32| format!("RecordError(batchIndex={i}, message='{no_key}')");
        let (error, message, records) = blamed(&compact, &compressed(&keyless(6), codec));
        assert_eq!(error, ErrorCode::InvalidRecord, "{codec:?}");
        assert_eq!(records, [0, 2, 3, 5].map(|i| (i, no_key.to_owned())), "{codec:?}");
        let expected = "One or more records have been rejected due to 4 record errors in total, \
                        and only showing the first three errors at most: ";
        assert_eq!(message, format!("{expected}[{}, {}, {}]", shown(0), shown(2), shown(3)));

        // Of records that are too old, those without a key are blamed for that first; of times, only those out of range are.
        let before = [("message.timestamp.before.max.ms", "25")];
        let old = |ts: i64, offset: i32| {
            format!(
                "Timestamp {ts} of message with offset {offset} is out of range. \
                 The timestamp should be within [{}, {}]",
                NOW_MS - 25,
                NOW_MS + 3_600_000
            )
        };
        let (error, message, records) = blamed(&before, &compressed(&keyless(5), codec));
        assert_eq!(error, ErrorCode::InvalidTimestamp, "{codec:?}");
        assert_eq!(message, "One or more records have been rejected due to invalid timestamp");
        assert_eq!(records, [(3, old(NOW_MS - 30, 3)), (4, old(NOW_MS - 40, 4))], "{codec:?}");
        let (error, _, records) = blamed(&[compact[0], before[0]], &compressed(&keyless(5), codec));
        assert_eq!(error, ErrorCode::InvalidTimestamp);
        let expected = [(0, no_key.into()), (2, no_key.into()), (3, no_key.into()), (4, old(NOW_MS - 40, 4))];
        assert_eq!(records, expected, "{codec:?}");
        // The broker's own clock is never wrong.
        let clock = [before[0], ("message.timestamp.type", "LogAppendTime")];
        assert_eq!(blamed(&clock, &compressed(&keyless(5), codec)).0, ErrorCode::None);
    }
    // A record without a time is not too old, and hides none that is.
    for (times, blame) in [(vec![NOW_MS, -1], vec![]), (vec![-1, NOW_MS - 26, NOW_MS - 25], vec![1])] {
        let mut bytes = Vec::new();
        let mut builder = BatchBuilder::new(&mut bytes, BatchFields::default());
        times.iter().for_each(|ms| builder.push(*ms, None, Some(b"value"), &[]));
        builder.finish();
        let (_, _, records) = blamed(&[("message.timestamp.before.max.ms", "25")], &bytes);
        assert_eq!(records.into_iter().map(|(i, _)| i).collect::<Vec<_>>(), blame, "{times:?}");
    }
    // A reply has a bound, whatever a request holds.
    let (_, message, records) = blamed(&compact, &keyless(6000));
    assert!(message.contains("4000 record errors in total"), "{message}");
    assert_eq!((records.len(), records.last().unwrap().0), (4000, 5999));
    assert_eq!(records.iter().filter(|(_, message)| !message.is_empty()).count(), 1000);
}

#[test]
fn old_producers_may_not_send_zstd() {
    let mut world = World::new(&[]);
    let zstd = compressed(&plain(-1), Codec::Zstd);
    assert_eq!(world.produce_all(6, &[&zstd]), [Told(ErrorCode::UnsupportedCompressionType, -1)]);
    assert_eq!(world.produce_all(7, &[&zstd]), [Told(ErrorCode::None, 0)]);
}

/// A few kilobytes that become 30 MiB in the log: they are written while the request is being handled, not kept until its end.
#[test]
fn a_small_request_that_becomes_large_is_written_in_steps() {
    let mut world = World::new(&[("compression.type", "uncompressed")]);
    let batch = compressed(&one_value(&vec![0; 1_000_000]), Codec::Zstd);
    let request: Vec<&[u8]> = vec![&batch; 30];
    let told = world.produce_all(9, &request);
    assert_eq!(told, (0..30).map(|i| Told(ErrorCode::None, i)).collect::<Vec<_>>());
    assert!(world.log().len() > 30_000_000);
    let (calls, bytes) = world.disk.writes;
    assert!(calls >= 3 && bytes / calls < 12 << 20, "{bytes} bytes in {calls} writes");
}

/// A write fails while a request is worked on: what it held is refused, and what is written in later turns is not.
#[test]
fn a_write_that_fails_halfway_is_told() {
    let mut world = World::new(&[("compression.type", "uncompressed")]);
    world.disk.fail_write = Some((0, std::io::ErrorKind::StorageFull));
    let batch = compressed(&one_value(&vec![0; 1_000_000]), Codec::Zstd);
    let request: Vec<&[u8]> = vec![&batch; 12];
    let told = world.produce_all(9, &request);
    let refused = told.iter().take_while(|t| **t == Told(ErrorCode::KafkaStorageError, -1)).count();
    assert!(refused > 0, "{told:?}");
    let offsets: Vec<_> = (0..).take(told.len() - refused).map(|offset| Told(ErrorCode::None, offset)).collect();
    assert_eq!(told[refused..], offsets);
    assert_eq!(world.produce(&one_value(b"again")), Told(ErrorCode::None, offsets.len() as i64));
}
