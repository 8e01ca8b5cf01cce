//! What compaction does to a core: 1 GiB of 1 KiB records with 100,000 keys is compacted while a producer goes on at a fixed
//! rate. The broker runs on one core, this client on another: `cargo bench --bench compaction [-- small|none|gzip|snappy|lz4|zstd]`
//! (`small`: uncompressed batches of 16 KiB; the others: batches of 1 MB in that codec).

use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::{Client, frame};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    CreateTopicsRequest, IncrementalAlterConfigsRequest, MetadataRequest, ProduceRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use ringlane::io::cores;
use ringlane::wire::batch::{Batch, Codec};
use ringlane::wire::compression::with_records;
use ringlane::wire::record::{BatchBuilder, BatchFields};
use server::Server;

#[allow(dead_code)]
#[path = "../tests/support/client.rs"]
mod client;
#[allow(dead_code)]
#[path = "../tests/support/server.rs"]
mod server;

const INPUT_SIZE: usize = 1 << 30;
const RECORD_SIZE: usize = 1024;
const KEYS: u64 = 100_000;
const SEGMENT_BYTES: &str = "134217728";
const PRODUCE: i16 = 9;
/// Requests of one record each, a second.
const RATE: u32 = 2_000;
const QUIET: Duration = Duration::from_secs(5);
const COMPACTION_MAX: Duration = Duration::from_secs(300);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` only asks whether it starts.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let kinds = [
        ("small", Codec::None, 16 << 10),
        ("none", Codec::None, 1_000_000),
        ("gzip", Codec::Gzip, 1_000_000),
        ("snappy", Codec::Snappy, 1_000_000),
        ("lz4", Codec::Lz4, 1_000_000),
        ("zstd", Codec::Zstd, 1_000_000),
    ];
    for (name, codec, batch_size) in kinds {
        if arguments.iter().all(|a| a.starts_with("--")) || arguments.iter().any(|a| a == name) {
            let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
            let log = dir.path().join("log");
            let run = format!("RINGLANE_LOG=info exec \"$0\" \"$@\" 2>{}", log.display());
            let server =
                Server::start(&["sh", "-c", &run, env!("CARGO_BIN_EXE_ringlane")], &["log.cleaner.backoff.ms=200"]);
            // The broker inherits from this thread, so another one is pinned.
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let allowed = cores::allowed().expect("cores");
                    cores::pin(allowed[1.min(allowed.len() - 1)]).expect("pinned");
                    measure(&server, &log, name, codec, batch_size);
                });
            });
        }
    }
}

fn measure(server: &Server, log: &Path, name: &str, codec: Codec, batch_size: usize) {
    let mut client = Client::connect(server.address);
    create(&mut client, &[("compacted", SEGMENT_BYTES), ("steady", "1073741824")]);
    let stored = fill(&mut client, codec, batch_size);
    // Only what is on the device is compacted.
    std::thread::sleep(Duration::from_secs(10));

    let before = produce(server, |elapsed| elapsed > QUIET);
    let compact = AlterableConfig::default()
        .with_name(text("cleanup.policy"))
        .with_value(Some(text("compact")))
        .with_config_operation(0);
    let topic = AlterConfigsResource::default().with_resource_type(2).with_resource_name(text("compacted"));
    let alter = IncrementalAlterConfigsRequest::default().with_resources(vec![topic.with_configs(vec![compact])]);
    assert_eq!(client.call(1, &alter).responses[0].error_code, 0);
    let line = || {
        let log = std::fs::read_to_string(log).unwrap_or_default();
        log.lines().find(|line| line.contains("compacted up to")).map(str::to_string)
    };
    let during = produce(server, |elapsed| {
        assert!(elapsed < COMPACTION_MAX, "not compacted after {elapsed:?}");
        line().is_some()
    });
    let line = line().expect("seen");
    let number_before = |word: &str| -> f64 {
        let words: Vec<&str> = line.split([' ', ',', ';']).filter(|w| !w.is_empty()).collect();
        let at = words.windows(2).position(|pair| pair[1] == word).unwrap_or_else(|| panic!("no {word} in {line}"));
        words[at].parse().expect("a number")
    };
    let seconds = number_before("ms") / 1000.0;
    // The active segment is left alone: the round read less than what is stored.
    let input = number_before("bytes");
    println!("{name}: {} MB stored; {}", stored / 1_000_000, line.split("compacted up").last().unwrap_or(&line));
    println!(
        "{name}: {:.0} MB/s of input as stored, {:.0} MB/s of records",
        input / seconds / 1e6,
        INPUT_SIZE as f64 * (input / stored as f64) / seconds / 1e6
    );
    let at =
        |latencies: &[Duration], share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_micros();
    for (what, latencies) in [("quiet", &before), ("compacting", &during)] {
        println!(
            "{name}: produce while {what}: p50 {} us, p99 {} us, p99.9 {} us, longest {} us ({} requests at {RATE}/s)",
            at(latencies, 0.5),
            at(latencies, 0.99),
            at(latencies, 0.999),
            at(latencies, 1.0),
            latencies.len()
        );
    }
    println!("{name}: p99 rises {:.2}x", at(&during, 0.99) as f64 / at(&before, 0.99) as f64);
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn create(client: &mut Client, topics: &[(&str, &str)]) {
    let topic = |(name, segment_bytes): &(&str, &str)| {
        let config =
            |name, value: &str| CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)));
        CreatableTopic::default()
            .with_name(TopicName(text(name)))
            .with_num_partitions(1)
            .with_replication_factor(1)
            .with_configs(vec![config("segment.bytes", segment_bytes)])
    };
    let request =
        CreateTopicsRequest::default().with_timeout_ms(30_000).with_topics(topics.iter().map(topic).collect());
    assert!(client.call(7, &request).topics.iter().all(|topic| topic.error_code == 0));
    client.call(12, &MetadataRequest::default().with_topics(None));
}

fn request(topic: &str, batch: Vec<u8>) -> ProduceRequest {
    let partition = PartitionProduceData::default().with_records(Some(Bytes::from(batch)));
    let topic = TopicProduceData::default().with_name(TopicName(text(topic))).with_partition_data(vec![partition]);
    ProduceRequest::default().with_acks(1).with_timeout_ms(30_000).with_topic_data(vec![topic])
}

/// Numbers that look random and are the same each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 20
    }
}

fn batch(numbers: &mut Numbers, codec: Codec, size: usize) -> Vec<u8> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let mut plain = Vec::new();
    let mut builder = BatchBuilder::new(&mut plain, BatchFields::default());
    for _ in 0..size / RECORD_SIZE {
        let key = format!("key-{:012}", numbers.next() % KEYS);
        // Half of it noise in hexadecimal, so that a codec makes it some three times smaller.
        let mut value = String::with_capacity(RECORD_SIZE);
        while value.len() < RECORD_SIZE - 32 {
            value.push_str(&format!("{:011x}{:.11}", numbers.next(), "a broker a core"));
        }
        builder.push(now.as_millis() as i64, Some(key.as_bytes()), Some(value.as_bytes()), &[]);
    }
    builder.finish();
    let plain = Batch::stored(&plain).expect("just built");
    with_records(&plain, plain.records(), codec, None).expect("compressed")
}

/// Bytes stored.
fn fill(client: &mut Client, codec: Codec, batch_size: usize) -> usize {
    let mut numbers = Numbers(1);
    let mut stored = 0;
    for _ in 0..INPUT_SIZE / (batch_size / RECORD_SIZE * RECORD_SIZE) {
        let batch = batch(&mut numbers, codec, batch_size);
        stored += batch.len();
        let response = client.call(PRODUCE, &request("compacted", batch));
        assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    }
    stored
}

/// Produces at the rate until it is over; latencies from the intended times, sorted.
fn produce(server: &Server, is_over: impl Fn(Duration) -> bool) -> Vec<Duration> {
    let client = Client::connect(server.address);
    let mut numbers = Numbers(2);
    let one = frame(PRODUCE, &request("steady", batch(&mut numbers, Codec::None, RECORD_SIZE)));
    let mut receive = client.socket.try_clone().expect("the same socket");
    let mut send = client.socket;
    let start = Instant::now();
    let intended = |n: u32| Duration::from_secs(1) * n / RATE;
    let receiver = std::thread::spawn(move || {
        let mut latencies = Vec::new();
        let mut size = [0; 4];
        let mut reply = Vec::new();
        while receive.read_exact(&mut size).is_ok() {
            reply.resize(i32::from_be_bytes(size) as usize, 0);
            receive.read_exact(&mut reply).expect("a whole reply");
            latencies.push(start.elapsed().saturating_sub(intended(latencies.len() as u32)));
        }
        latencies
    });
    for n in 0.. {
        if n % (RATE / 10) == 0 && is_over(start.elapsed()) {
            break;
        }
        std::thread::sleep(intended(n).saturating_sub(start.elapsed()));
        send.write_all(&one).expect("sent");
    }
    send.shutdown(std::net::Shutdown::Write).expect("no more requests");
    let mut latencies = receiver.join().expect("replies");
    latencies.sort();
    latencies
}
