//! What connections may ask of the broker's own process: many requests at once, and replies that they do not take.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::{Client, decode, frame, frame_of, read_reply};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, DescribeConfigsRequest, MetadataRequest, ProduceRequest,
};
use ringlane::cluster::topics::wire_name;
use ringlane::wire::batch::{Batch, Codec};
use ringlane::wire::compression::with_records;
use ringlane::wire::record::{BatchBuilder, BatchFields};
use ringlane::wire::writer;
use server::Server;

#[path = "support/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "support/server.rs"]
mod server;

fn produce() -> Vec<u8> {
    let mut batch = Vec::new();
    let mut builder = BatchBuilder::new(&mut batch, BatchFields::default());
    builder.push(1_700_000_000_000, None, Some(b"value"), &[]);
    builder.finish();
    let partition = PartitionProduceData::default().with_records(Some(Bytes::from(batch)));
    let topic = TopicProduceData::default().with_name(wire_name("pipelined")).with_partition_data(vec![partition]);
    frame(8, &ProduceRequest::default().with_acks(1).with_timeout_ms(1000).with_topic_data(vec![topic]))
}

/// Creates a topic by asking for it.
fn create(server: &Server, topic: &str) {
    let mut admin = Client::connect(server.address);
    let topic = MetadataRequestTopic::default().with_name(Some(wire_name(topic)));
    let metadata = MetadataRequest::default().with_allow_auto_topic_creation(true).with_topics(Some(vec![topic]));
    let deadline = Instant::now() + Duration::from_secs(30);
    while admin.call(8, &metadata).topics[0].error_code != 0 {
        assert!(Instant::now() < deadline, "the topic is there");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Requests beyond those that may be in line on a connection were taken for the beginning of a large one, when the first of
/// the line were answered in the turn that they came in: they were looked at again when more bytes came, which may be never.
#[test]
fn all_of_many_requests_at_once_are_answered() {
    let server = Server::start(&[env!("CARGO_BIN_EXE_ringlane")], &[]);
    create(&server, "pipelined");
    for count in [128, 129, 300, 2000] {
        let mut socket = Client::connect(server.address).socket;
        let mut sender = socket.try_clone().expect("cloned");
        let requests = produce().repeat(count);
        let sending = std::thread::spawn(move || sender.write_all(&requests));
        for i in 0..count {
            let reply = read_reply(&mut socket).unwrap_or_else(|error| panic!("reply {i} of {count}: {error}"));
            let response = decode::<ProduceRequest>(8, reply).1;
            assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
        }
        sending.join().expect("no panic").expect("sent");
    }
}

/// A batch of 60 kB whose records are 60 MB was decompressed and compressed again for its topic in one go: nobody else on that core
/// was served until it was done.
#[test]
fn a_batch_that_is_compressed_anew_does_not_hold_others_up() {
    let server = Server::start(&[env!("CARGO_BIN_EXE_ringlane")], &[]);
    let config = CreatableTopicConfig::default().with_name("compression.type".into()).with_value(Some("zstd".into()));
    let topic = CreatableTopic::default()
        .with_name(wire_name("anew"))
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(vec![config]);
    let created = Client::connect(server.address)
        .call(5, &CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000));
    assert_eq!(created.topics[0].error_code, 0);

    let batch = |base_sequence, value: &[u8]| {
        let mut plain = Vec::new();
        let fields = BatchFields { producer_id: 7, producer_epoch: 0, base_sequence, ..BatchFields::default() };
        let mut builder = BatchBuilder::new(&mut plain, fields);
        builder.push(1_700_000_000_000, None, Some(value), &[]);
        builder.finish();
        let plain = Batch::stored(&plain).expect("a batch");
        let gzip = with_records(&plain, plain.records(), Codec::Gzip, None).expect("compressed");
        let partition = PartitionProduceData::default().with_records(Some(Bytes::from(gzip)));
        let topic = TopicProduceData::default().with_name(wire_name("anew")).with_partition_data(vec![partition]);
        frame(8, &ProduceRequest::default().with_acks(-1).with_timeout_ms(1000).with_topic_data(vec![topic]))
    };
    let values: [&[u8]; 4] = [&vec![0; 60 << 20], b"small", &vec![1; 20 << 20], b"small"];
    let requests: Vec<u8> = (0..).zip(values).flat_map(|(sequence, value)| batch(sequence, value)).collect();
    let mut producer = Client::connect(server.address).socket;
    let mut other = Client::connect(server.address);
    producer.write_all(&requests).expect("sent");
    let first = std::thread::spawn(move || {
        let offset = |socket: &mut TcpStream| {
            let response = decode::<ProduceRequest>(8, read_reply(socket).expect("a reply")).1;
            let told = &response.responses[0].partition_responses[0];
            (told.error_code, told.base_offset)
        };
        (0..4).map(|_| offset(&mut producer)).collect::<Vec<_>>()
    });
    let mut served = 0;
    while !first.is_finished() {
        other.call(0, &ApiVersionsRequest::default());
        served += 1;
    }
    assert_eq!(first.join().expect("read"), [(0, 0), (0, 1), (0, 2), (0, 3)], "in the order of their sequence");
    assert!(served > 200, "others were served {served} times meanwhile");
}

/// Each of them was allowed some megabytes of replies, and a turn could make more: hundreds of peers that asked for the
/// brokers' configuration and read nothing ended the process.
#[test]
fn replies_that_nobody_takes_are_bounded_and_others_are_served() {
    // Address space of 1 GiB.
    let server = Server::start(&["prlimit", "--as=1073741824", env!("CARGO_BIN_EXE_ringlane")], &[]);
    let resource = DescribeConfigsResource::default().with_resource_type(4).with_resource_name("1".into());
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]).with_include_synonyms(true);
    let requests = frame(2, &request.with_include_documentation(false)).repeat(100);
    let mut never: Vec<TcpStream> = Vec::new();
    for i in 0..400 {
        let mut socket = Client::connect(server.address).socket;
        socket.write_all(&requests).expect("sent");
        never.push(socket);
        if i % 50 == 49 {
            let asked = Instant::now();
            let response = Client::connect(server.address).call(0, &ApiVersionsRequest::default());
            assert!(response.error_code == 0 && asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
            let resident = server.resident_mib();
            assert!(resident < 300, "{resident} MiB resident after {i} peers");
        }
    }
    // Those that read get all their replies, unless they were among those that held most.
    let mut reader = Client::connect(server.address);
    reader.socket.write_all(&requests).expect("sent");
    for _ in 0..100 {
        assert!(!reader.receive::<DescribeConfigsRequest>(2).results.is_empty());
    }
}

/// What a fetch names was kept while it was parked, and in its session, several times as large as it came: seven requests of
/// a million partitions ended the process. One that finds no room is answered at once, and gets no session.
#[test]
fn fetches_of_very_many_partitions_are_bounded() {
    const COUNT: i32 = 700_000;
    // Address space of 1 GiB.
    let server = Server::start(&["prlimit", "--as=1073741824", env!("CARGO_BIN_EXE_ringlane")], &[]);
    create(&server, "many");
    let fetch = |max_wait_ms: i32, epoch: i32, partition: fn(i32) -> i32| {
        frame_of(1, 11, |out| {
            for value in [-1, max_wait_ms, 1, i32::MAX] {
                writer::i32(out, value);
            }
            out.push(0);
            for value in [0, epoch, 1] {
                writer::i32(out, value);
            }
            writer::string(out, false, "many");
            writer::i32(out, COUNT);
            for i in 0..COUNT {
                writer::i32(out, partition(i));
                writer::i32(out, -1);
                writer::i64(out, 0);
                writer::i64(out, -1);
                writer::i32(out, 1 << 20);
            }
            writer::i32(out, 0);
            writer::string(out, false, "");
        })
    };
    let reply = |request: &[u8]| {
        let mut socket = Client::connect(server.address).socket;
        socket.write_all(request).expect("sent");
        read_reply(&mut socket).expect("a reply")
    };
    // The same empty partition over and over: the first one waits for records.
    let mut parked = Client::connect(server.address).socket;
    parked.write_all(&fetch(600_000, -1, |_| 0)).expect("sent");
    for _ in 0..6 {
        let asked = Instant::now();
        reply(&fetch(600_000, -1, |_| 0));
        assert!(asked.elapsed() < Duration::from_secs(300), "{:?}", asked.elapsed());
    }
    // Partitions that are not there are remembered in a session.
    let sessions: Vec<i32> = (0..6)
        .map(|_| {
            let reply = reply(&fetch(0, 0, |i| 1 + i));
            i32::from_be_bytes(reply[10..14].try_into().expect("four bytes"))
        })
        .collect();
    assert!(sessions[0] != 0 && sessions[1..] == [0; 5], "{sessions:?}");
    let resident = server.resident_mib();
    assert!(resident < 500, "{resident} MiB resident");
}

/// A produce request with one record whose value has `size` bytes.
fn produce_of(size: usize) -> Vec<u8> {
    let mut batch = Vec::new();
    let mut builder = BatchBuilder::new(&mut batch, BatchFields::default());
    builder.push(1_700_000_000_000, None, Some(&vec![7; size]), &[]);
    builder.finish();
    let partition = PartitionProduceData::default().with_records(Some(Bytes::from(batch)));
    let topic = TopicProduceData::default().with_name(wire_name("pipelined")).with_partition_data(vec![partition]);
    frame(8, &ProduceRequest::default().with_acks(1).with_timeout_ms(1000).with_topic_data(vec![topic]))
}

fn produced(socket: &mut TcpStream) -> i16 {
    let response = decode::<ProduceRequest>(8, read_reply(socket).expect("a reply")).1;
    response.responses[0].partition_responses[0].error_code
}

/// Each had a part of the memory for large requests and waited for more, which none could get.
#[test]
fn large_requests_of_many_at_once_all_come_to_their_end() {
    let server = Server::start(&[env!("CARGO_BIN_EXE_ringlane")], &["message.max.bytes=10000000"]);
    create(&server, "pipelined");
    let request = produce_of(5_000_000);
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                let mut socket = Client::connect(server.address).socket;
                socket.write_all(&request).expect("sent");
                assert_eq!(produced(&mut socket), 0);
            });
        }
    });
}

/// They held all memory for large requests, and the buffers that small ones are received into. As they waited for memory,
/// nobody saw that they were gone.
#[test]
fn peers_that_leave_large_requests_unfinished_stop_nobody() {
    let server = Server::start(&[env!("CARGO_BIN_EXE_ringlane")], &[]);
    create(&server, "pipelined");
    let begun = {
        let mut request = (100_i32 << 20).to_be_bytes().to_vec();
        request.extend_from_slice(&produce_of(3_000_000)[4..]);
        request
    };
    let begin = || {
        let mut socket = Client::connect(server.address).socket;
        socket.set_write_timeout(Some(Duration::from_millis(20))).expect("a deadline");
        let mut at = 0;
        // The broker takes as much as it has memory for.
        while let Ok(count) = socket.write(&begun[at..]) {
            at += count;
            if at == begun.len() {
                break;
            }
        }
        socket
    };
    for are_gone in [true, false] {
        let peers: Vec<TcpStream> = (0..300).map(|_| begin()).collect();
        let staying = if are_gone {
            drop(peers);
            Vec::new()
        } else {
            peers
        };
        for size in [100, 500_000] {
            let asked = Instant::now();
            let mut socket = Client::connect(server.address).socket;
            socket.write_all(&produce_of(size)).expect("sent");
            assert_eq!(produced(&mut socket), 0);
            assert!(asked.elapsed() < Duration::from_secs(20), "{size} bytes after {:?}", asked.elapsed());
        }
        drop(staying);
    }
}
