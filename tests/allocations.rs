//! Once warm, nothing is allocated per request on the data path: counted on the shard's own thread, over the kernel's ring.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::{CreateTopicsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use ringlane::broker::Broker;
use ringlane::config::{BrokerConfig, Settings};
use ringlane::control::files::Files;
use ringlane::control::{Control, Outputs, Setup, ShardAddress, random_id};
use ringlane::ids::{ShardId, Waiter};
use ringlane::io::{self, Ring, Uring, clock};
use ringlane::mailbox::{ControlRequest, Post, ToControl, ToShard, mailboxes};
use ringlane::shard::Shard;
use ringlane::storage::data_dir::Checkpoints;
use ringlane::wire::record::{BatchBuilder, BatchFields};
use ringlane::wire::writer;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTED.try_with(Cell::get).unwrap_or(false) {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: as promised to us.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as promised to us.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if COUNTED.try_with(Cell::get).unwrap_or(false) {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: as promised to us.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const WARM: usize = 3000;
const COUNT: usize = 3000;

fn request(key: i16, version: i16, body: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = vec![0; 4];
    writer::i16(&mut out, key);
    writer::i16(&mut out, version);
    writer::i32(&mut out, 1);
    writer::string(&mut out, false, "count");
    body(&mut out);
    let size = out.len() as i32 - 4;
    out[..4].copy_from_slice(&size.to_be_bytes());
    out
}

fn produce() -> Vec<u8> {
    let mut batch = Vec::new();
    let mut builder = BatchBuilder::new(&mut batch, BatchFields::default());
    for _ in 0..10 {
        builder.push(clock::now().wall_ms, None, Some(&[7; 100]), &[]);
    }
    builder.finish();
    request(0, 7, |out| {
        writer::nullable_string(out, false, None);
        writer::i16(out, 1);
        writer::i32(out, 30_000);
        writer::i32(out, 1);
        writer::string(out, false, "t");
        writer::i32(out, 1);
        writer::i32(out, 0);
        writer::i32(out, batch.len() as i32);
        out.extend(&batch);
    })
}

fn fetch() -> Vec<u8> {
    request(1, 11, |out| {
        for value in [-1, 500, 1, 1 << 20] {
            writer::i32(out, value);
        }
        writer::i8(out, 0);
        writer::i32(out, 0);
        writer::i32(out, -1);
        writer::i32(out, 1);
        writer::string(out, false, "t");
        writer::i32(out, 1);
        writer::i32(out, 0);
        writer::i32(out, -1);
        writer::i64(out, 5);
        writer::i64(out, -1);
        writer::i32(out, 16_384);
        writer::i32(out, 0);
        writer::string(out, false, "");
    })
}

fn call(socket: &mut TcpStream, request: &[u8]) -> Vec<u8> {
    socket.write_all(request).expect("sent");
    let mut size = [0; 4];
    socket.read_exact(&mut size).expect("a reply");
    let mut body = vec![0; i32::from_be_bytes(size) as usize];
    socket.read_exact(&mut body).expect("a whole reply");
    body
}

/// Allocations of the shard while the request is asked `COUNT` times.
fn allocations(socket: &mut TcpStream, request: &[u8]) -> u64 {
    for _ in 0..WARM {
        call(socket, request);
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..COUNT {
        call(socket, request);
    }
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

#[test]
fn a_warm_data_path_does_not_allocate() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = Settings::default();
    settings.set("listeners", "PLAINTEXT://127.0.0.1:0").expect("a known key");
    settings.set("log.dirs", &dir.path().display().to_string()).expect("a known key");
    let settings = Arc::new(settings);
    let config = Arc::new(BrokerConfig::from_settings(&settings).expect("settings"));
    let mut files = Files::new(dir.path().to_path_buf());
    let setup = Setup {
        settings,
        config,
        shards: vec![ShardAddress { host: "127.0.0.1".into(), port: 1 }],
        new_id: Box::new(random_id),
    };
    let mut control = Control::open(&mut files, setup, clock::now()).expect("control");
    let (mut ends, mut queues, incoming, _) = mailboxes(1);
    let (mailbox, image, path) = (ends.remove(0), control.image(), dir.path().to_path_buf());
    let (tell, told) = channel();
    let shard = std::thread::spawn(move || {
        let mut ring = Uring::new(&path, io::Settings::default()).expect("a ring");
        let address = ring.listen("127.0.0.1:0".parse::<SocketAddr>().expect("an address")).expect("a port");
        let mut broker = Broker::new(ShardId(0), &image, Arc::new(Checkpoints::default()));
        broker.apply_image(&mut ring, image, clock::now());
        tell.send((address, ring.bell())).expect("the test waits");
        COUNTED.set(true);
        Shard::new(ring, broker, mailbox).run().expect("runs");
    });
    let (address, bell) = told.recv_timeout(Duration::from_secs(60)).expect("the shard starts");
    let post = Post::new(queues.remove(0), Box::new(move || bell.ring()));

    let topic = CreatableTopic::default()
        .with_name(TopicName(StrBytes::from_static_str("t")))
        .with_num_partitions(1)
        .with_replication_factor(1);
    let request = ControlRequest::CreateTopics(CreateTopicsRequest::default().with_topics(vec![topic]));
    let mut outputs = Outputs::new();
    control.handle(ToControl::Ask { shard: ShardId(0), waiter: Waiter(u64::MAX), request }, &mut outputs);
    control.commit(&mut files, clock::now(), &mut outputs);
    for (_, message) in outputs {
        post.send(message).expect("the shard runs");
    }
    let applied = incoming.recv_timeout(Duration::from_secs(60)).expect("the image is applied");
    assert!(matches!(applied, ToControl::Applied { .. }));

    let mut socket = TcpStream::connect(address).expect("connected");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a deadline");
    socket.set_nodelay(true).expect("no delay");
    let produced = allocations(&mut socket, &produce());
    let fetched = allocations(&mut socket, &fetch());
    post.send(ToShard::Stop).expect("the shard runs");
    shard.join().expect("ends");
    // What is not per request is allowed: index arrays that double, a checkpoint, a timer's list.
    assert!(produced < COUNT as u64 / 20, "{produced} allocations in {COUNT} produce requests");
    assert!(fetched < COUNT as u64 / 20, "{fetched} allocations in {COUNT} fetch requests");
}
