//! What the shard's own time goes into when a producer writes: finding out what a frame says, checking a batch, and the whole
//! append (check, stamp, stage, write) by a real log on a real disk, into fresh files and into recycled ones.
//! Files lie in the build directory.

use std::hint::black_box;
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest, RequestHeader as CrateHeader, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use ringlane::broker::turn;
use ringlane::ids::{JobOwner, LeaderEpoch};
use ringlane::io::{Event, Ring, Settings, Uring};
use ringlane::parts::Slice;
use ringlane::storage::{Log, LogConfig, Start};
use ringlane::wire::batch::{self, Batch, Validation};
use ringlane::wire::frame::{Frame, RequestHeader, next_frame};
use ringlane::wire::produce::Produce;
use ringlane::wire::record::{BatchBuilder, BatchFields};

const VERSION: i16 = 9;
/// Frame, record: bytes of a batch, and of each value in it.
const SHAPES: [(usize, usize); 5] = [(100, 100), (16_384, 1000), (65_536, 1000), (900_000, 1000), (900_000, 100)];

fn a_batch(size: usize, value_size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let value: Vec<u8> = (0..value_size).map(|i| (i * 31) as u8).collect();
    let mut builder = BatchBuilder::new(&mut bytes, BatchFields::default());
    let mut timestamp = 1_700_000_000_000;
    loop {
        builder.push(timestamp, Some(b"key"), Some(&value), &[]);
        timestamp += 1;
        if builder.size() + value_size > size {
            break;
        }
    }
    builder.finish();
    bytes
}

fn a_frame(batch: &[u8]) -> Vec<u8> {
    let data = PartitionProduceData::default().with_index(3).with_records(Some(Bytes::copy_from_slice(batch)));
    let topic = TopicProduceData::default()
        .with_name(TopicName(StrBytes::from_static_str("orders")))
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(1).with_timeout_ms(30_000).with_topic_data(vec![topic]);
    let header = CrateHeader::default()
        .with_request_api_version(VERSION)
        .with_client_id(Some(StrBytes::from_static_str("bench")));
    let mut frame = vec![0; 4];
    header.encode(&mut frame, 2).expect("a header");
    request.encode(&mut frame, VERSION).expect("a request");
    let size = frame.len() as u32 - 4;
    frame[..4].copy_from_slice(&size.to_be_bytes());
    frame
}

/// Our codec reads in place; the crate's makes a tree of values.
fn frame_decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("produce frame");
    for (size, value_size) in SHAPES {
        let frame = a_frame(&a_batch(size, value_size));
        group.bench_function(BenchmarkId::new("in place", format!("{size} of {value_size}")), |b| {
            b.iter(|| {
                let bytes = black_box(&frame[..]);
                let Ok(Frame::Whole(range)) = next_frame(bytes, usize::MAX) else { panic!("a whole frame") };
                let frame = &bytes[range];
                let (header, body) = RequestHeader::parse(frame).expect("a header");
                let request = Produce::parse(frame, body, header.api_version).expect("a request");
                let mut cursor = request.cursor();
                while let Some(topic) = cursor.next_topic(frame) {
                    black_box(topic);
                    while let Some(partition) = cursor.next_partition(frame) {
                        black_box(partition);
                    }
                }
            })
        });
        let bytes = Bytes::from(frame.clone());
        group.bench_function(BenchmarkId::new("kafka-protocol", format!("{size} of {value_size}")), |b| {
            b.iter(|| {
                let mut rest = black_box(&bytes).slice(4..);
                let header = CrateHeader::decode(&mut rest, 2).expect("a header");
                black_box(ProduceRequest::decode(&mut rest, header.request_api_version).expect("a request"))
            })
        });
    }
    group.finish();
}

fn batch_check(c: &mut Criterion) {
    let mut group = c.benchmark_group("batch check");
    for (size, value_size) in [(100, 100), (16_384, 1000), (65_536, 1000), (900_000, 1000), (900_000, 90)] {
        let batch = a_batch(size, value_size);
        group.throughput(Throughput::Bytes(batch.len() as u64));
        for (name, validation) in [("header", Validation::Header), ("records", Validation::Records)] {
            group.bench_function(BenchmarkId::new(name, format!("{size} of {value_size}")), |b| {
                b.iter(|| Batch::check(black_box(&batch), validation).expect("sound").size())
            });
        }
    }
    group.finish();
}

struct Writer {
    ring: Uring,
    log: Log,
    events: Vec<Event>,
    buffers: Vec<Vec<u8>>,
}

impl Writer {
    /// A log that keeps one or two segments: what it retires is deleted, or becomes the next segment.
    fn new(dir: &Path, recycle: bool) -> Writer {
        let mut ring = Uring::new(dir, Settings::default()).expect("a ring");
        let config = LogConfig { segment_bytes: 64 << 20, retention_bytes: 64 << 20, recycle, ..LogConfig::default() };
        let name = if recycle { "recycled-0" } else { "fresh-0" };
        let now = ring.now();
        let (log, _) =
            Log::open(&mut ring, Path::new(name), JobOwner(1), Rc::new(config), Start::default(), now).expect("a log");
        Writer { ring, log, events: Vec::new(), buffers: vec![Vec::new()] }
    }

    /// One turn with one batch.
    fn append(&mut self, batch: &mut Vec<u8>) {
        let base = self.log.next_offset();
        let checked = Batch::check(batch, Validation::Records).expect("sound");
        let slice = Slice { buffer: 0, start: 0, size: checked.size() as u32 };
        batch::stamp(batch, base, LeaderEpoch(0));
        self.log.stage(turn::staged(batch, slice).expect("a batch"));
        std::mem::swap(batch, &mut self.buffers[0]);
        let now = self.ring.now();
        self.log.flush(&mut self.ring, &self.buffers, now).expect("written");
        std::mem::swap(batch, &mut self.buffers[0]);
    }

    /// Takes the ends of disk jobs, as the loop does between turns.
    fn look_after(&mut self) {
        let now = self.ring.now();
        self.ring.wait(Some(now.monotonic_ns), &mut self.events).expect("wait");
        for event in self.events.drain(..) {
            if let Event::JobDone { job, result, .. } = event {
                self.log.job_done(&mut self.ring, job, result, now);
            }
        }
    }
}

fn append(c: &mut Criterion) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let mut group = c.benchmark_group("append by the log");
    for recycle in [false, true] {
        let mut writer = Writer::new(directory.path(), recycle);
        // Until the first file is used again; 2 GB are far more than that takes.
        let mut large = a_batch(900_000, 1000);
        for _ in 0..2000 {
            if !recycle || writer.log.recycled_count() > 0 {
                break;
            }
            writer.append(&mut large);
            writer.look_after();
        }
        for (size, value_size) in SHAPES {
            let mut batch = a_batch(size, value_size);
            group.throughput(Throughput::Bytes(batch.len() as u64));
            group.bench_function(
                BenchmarkId::new(if recycle { "recycled" } else { "fresh" }, format!("{size} of {value_size}")),
                |b| {
                    b.iter(|| {
                        writer.append(&mut batch);
                        writer.look_after();
                    })
                },
            );
        }
        assert_eq!(writer.log.recycled_count() > 0, recycle, "what was measured is what is said");
    }
    group.finish();
}

criterion_group!(benches, frame_decode, batch_check, append);
criterion_main!(benches);
