//! What peers may get wrong, or mean ill, against the broker's own process under a limit on its memory: one clear error or a
//! closed connection each, never a panic, never an effect on another connection.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ringlane::wire::record::{BatchBuilder, BatchFields};
use ringlane::wire::writer;
use server::Server;

/// Address space that the broker may use (bytes).
const ADDRESS_SPACE: u64 = 1 << 30;
/// Resident memory above which the broker has taken a peer's word (MiB).
const RESIDENT_MIB_MAX: u64 = 200;
const DEADLINE: Duration = Duration::from_secs(60);

#[path = "support/server.rs"]
mod server;

fn start() -> Server {
    Server::start(&["prlimit", &format!("--as={ADDRESS_SPACE}"), env!("CARGO_BIN_EXE_ringlane")], &[])
}

fn connect(server: &Server) -> TcpStream {
    let socket = TcpStream::connect(server.address).expect("the broker accepts");
    socket.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    socket.set_nodelay(true).expect("no delay");
    socket
}

/// The broker still serves a client that behaves.
fn check(server: &Server, after: &str) {
    let reply = call(&mut connect(server), &frame(18, 0, 7, |_| {}));
    assert_eq!(reply.get(..4), Some(&7i32.to_be_bytes()[..]), "after {after}");
    let resident = server.resident_mib();
    assert!(resident < RESIDENT_MIB_MAX, "{resident} MiB resident after {after}");
}

fn frame(key: i16, version: i16, correlation_id: i32, body: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = vec![0; 4];
    writer::i16(&mut out, key);
    writer::i16(&mut out, version);
    writer::i32(&mut out, correlation_id);
    writer::string(&mut out, false, "bad");
    body(&mut out);
    let size = out.len() as i32 - 4;
    out[..4].copy_from_slice(&size.to_be_bytes());
    out
}

fn call(socket: &mut TcpStream, request: &[u8]) -> Vec<u8> {
    socket.write_all(request).expect("sent");
    reply(socket).expect("a reply")
}

fn reply(socket: &mut TcpStream) -> Option<Vec<u8>> {
    let mut size = [0; 4];
    socket.read_exact(&mut size).ok()?;
    let mut body = vec![0; i32::from_be_bytes(size) as usize];
    socket.read_exact(&mut body).ok()?;
    Some(body)
}

/// The broker closes the connection without a word.
fn is_closed(mut socket: TcpStream) -> bool {
    let until = Instant::now() + DEADLINE;
    let mut bytes = [0; 64];
    while Instant::now() < until {
        match socket.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => return false,
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return true,
        }
    }
    false
}

fn metadata(topic: &str) -> Vec<u8> {
    frame(3, 4, 1, |out| {
        writer::i32(out, 1);
        writer::string(out, false, topic);
        writer::bool(out, true);
    })
}

fn batch() -> Vec<u8> {
    let mut batch = Vec::new();
    let mut builder = BatchBuilder::new(&mut batch, BatchFields::default());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    for _ in 0..3 {
        builder.push(now.as_millis() as i64, Some(b"key"), Some(b"value"), &[]);
    }
    builder.finish();
    batch
}

fn produce(topic: &str, batch: &[u8]) -> Vec<u8> {
    frame(0, 7, 1, |out| {
        writer::nullable_string(out, false, None);
        writer::i16(out, 1);
        writer::i32(out, 30_000);
        writer::i32(out, 1);
        writer::string(out, false, topic);
        writer::i32(out, 1);
        writer::i32(out, 0);
        writer::i32(out, batch.len() as i32);
        out.extend(batch);
    })
}

/// Error code and base offset of a Produce reply.
fn produced(reply: &[u8], topic: &str) -> (i16, i64) {
    let at = 4 + 4 + 2 + topic.len() + 4 + 4;
    let error = i16::from_be_bytes(reply[at..at + 2].try_into().expect("2 bytes"));
    (error, i64::from_be_bytes(reply[at + 2..at + 10].try_into().expect("8 bytes")))
}

/// Creates a topic by asking for it, and waits until it takes records.
fn topic(server: &Server, name: &str) {
    let mut socket = connect(server);
    for _ in 0..200 {
        call(&mut socket, &metadata(name));
        let reply = call(&mut socket, &produce(name, &batch()));
        if produced(&reply, name).0 == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("topic {name} does not come");
}

#[test]
fn frames_that_are_none() {
    let server = start();
    for (what, bytes) in [
        ("a negative size", (-5i32).to_be_bytes().to_vec()),
        ("a size above socket.request.max.bytes", i32::MAX.to_be_bytes().to_vec()),
        ("an HTTP request", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("a TLS hello", vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03]),
        ("an empty frame", vec![0; 4]),
        ("a header cut off", [&3i32.to_be_bytes()[..], &[0, 3, 0]].concat()),
        ("an unknown API", frame(9999, 0, 1, |_| {})),
        ("an unserved version", frame(3, 99, 1, |_| {})),
        ("a client id longer than the frame", {
            let mut bytes = frame(3, 4, 1, |_| {});
            bytes[12..14].copy_from_slice(&i16::MAX.to_be_bytes());
            bytes
        }),
    ] {
        let mut socket = connect(&server);
        socket.write_all(&bytes).expect("sent");
        let closed = is_closed(socket);
        // A TLS hello reads as a frame of 22 MB: the broker waits for it, as Kafka does; the client gives up.
        assert!(closed || what == "a TLS hello", "{what} does not end the connection");
        check(&server, what);
    }
}

#[test]
fn a_newer_api_versions_is_told_what_is_served() {
    let server = start();
    let reply = call(&mut connect(&server), &frame(18, 99, 5, |out| out.push(0)));
    assert_eq!(reply[..4], 5i32.to_be_bytes());
    assert_eq!(reply[4..6], 35i16.to_be_bytes(), "UNSUPPORTED_VERSION");
    assert_eq!(reply[6..10], 1i32.to_be_bytes(), "one API, in the form of version 0");
    assert_eq!(reply[10..12], 18i16.to_be_bytes());
}

#[test]
fn lengths_that_lie_reserve_nothing() {
    let server = start();
    topic(&server, "lies");
    // Frames that claim 100 MB and never come, on many connections at once.
    let mut open = Vec::new();
    for _ in 0..200 {
        let mut socket = connect(&server);
        socket.write_all(&(100_000_000i32).to_be_bytes()).expect("sent");
        socket.write_all(&[0; 100]).expect("sent");
        open.push(socket);
    }
    check(&server, "200 frames of 100 MB that never come");
    drop(open);
    for count in [i32::MAX, 100_000_000, 65_536, -2] {
        for (key, version) in [(3, 4), (19, 4), (2, 5), (10, 4), (8, 7), (32, 2), (20, 3), (0, 7), (1, 11), (11, 5)] {
            let mut socket = connect(&server);
            socket
                .write_all(&frame(key, version, 1, |out| (0..8).for_each(|_| writer::i32(out, count))))
                .expect("sent");
            let _ = socket.shutdown(std::net::Shutdown::Write);
            // Closed, or answered with an error: either is fine, as long as it is soon.
            let mut rest = Vec::new();
            let _ = socket.read_to_end(&mut rest);
        }
        check(&server, "arrays that claim to be long");
    }
}

#[test]
fn batches_that_are_damaged_get_kafkas_codes() {
    let server = start();
    topic(&server, "batches");
    let mut socket = connect(&server);
    let mut send = |batch: &[u8]| produced(&call(&mut socket, &produce("batches", batch)), "batches").0;
    const CORRUPT_MESSAGE: i16 = 2;
    const INVALID_RECORD: i16 = 87;
    let good = batch();
    assert_eq!(send(&good), 0);
    let mut flipped = good.clone();
    *flipped.last_mut().expect("bytes") ^= 1;
    assert_eq!(send(&flipped), CORRUPT_MESSAGE);
    let mut short = good.clone();
    short.truncate(good.len() - 3);
    assert!([CORRUPT_MESSAGE, INVALID_RECORD].contains(&send(&short)));
    let mut length = good.clone();
    length[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
    assert!([CORRUPT_MESSAGE, INVALID_RECORD].contains(&send(&length)));
    assert_eq!(send(&[&good[..], &good[..]].concat()), INVALID_RECORD);
    assert_eq!(send(&[]), INVALID_RECORD);
    assert_eq!(send(&good), 0);
    check(&server, "damaged batches");
}

#[test]
fn valid_requests_with_random_bytes_changed() {
    let server = start();
    topic(&server, "random");
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let requests =
        [metadata("random"), produce("random", &batch()), frame(18, 3, 1, |out| out.extend([0, 2, b'a', 2, b'1', 0]))];
    for round in 0..1500 {
        let mut bytes = requests[round % requests.len()].clone();
        for _ in 0..1 + random(4) {
            let at = 4 + random(bytes.len() - 4);
            bytes[at] = random(256) as u8;
        }
        let mut socket = connect(&server);
        socket.set_read_timeout(Some(Duration::from_millis(1))).expect("a deadline");
        let _ = socket.write_all(&bytes);
        if round % 50 == 0 {
            let _ = reply(&mut socket);
        }
    }
    check(&server, "random bytes");
}

#[test]
fn peers_that_do_not_do_their_part() {
    let server = start();
    topic(&server, "peers");
    // One byte at a time.
    let mut slow = connect(&server);
    for byte in metadata("peers") {
        slow.write_all(&[byte]).expect("sent");
    }
    assert!(reply(&mut slow).is_some(), "a request that came byte by byte is answered");
    // Many requests, no reply read: the broker stops reading from that connection, and serves the others.
    let mut never = connect(&server);
    never.set_write_timeout(Some(Duration::from_secs(2))).expect("a deadline");
    let request = metadata("peers").repeat(1000);
    let mut sent = 0u64;
    while sent < 2_000_000_000 {
        match never.write(&request) {
            Ok(count) => sent += count as u64,
            Err(_) => break,
        }
    }
    assert!(sent < 1_000_000_000, "the broker reads on and on from a peer that takes no reply");
    check(&server, "a peer that never reads");
    // Half a request, then the end of the stream; and a stream that just ends.
    for bytes in [&metadata("peers")[..10], &[]] {
        let mut half = connect(&server);
        half.write_all(bytes).expect("sent");
        half.shutdown(std::net::Shutdown::Write).expect("half closed");
        assert!(is_closed(half), "a half-open connection is closed");
    }
    check(&server, "half-open peers");
}
