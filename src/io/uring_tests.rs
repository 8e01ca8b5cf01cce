//! The kernel's form, over loopback and temporary directories. No test looks at how long anything takes.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::disk::{Disk, Job};
use super::{Event, FetchPath, ReceiveBuffer, Ring, Settings, Uring, clock};
use crate::ids::{ConnectionId, JobOwner, Position};
use crate::limits::SMALL_BUFFER_SIZE;
use crate::parts::{FileRange, OpenFile, Reply};

const ALL_PATHS: [FetchPath; 4] = [FetchPath::Sendfile, FetchPath::Splice, FetchPath::SendZc, FetchPath::Copy];
const PATIENCE: Duration = Duration::from_secs(60);

struct Shard {
    ring: Uring,
    address: SocketAddr,
    events: Vec<Event>,
    directory: tempfile::TempDir,
}

impl Shard {
    fn new(settings: Settings) -> Shard {
        let directory = tempfile::tempdir().expect("directory");
        let mut ring = Uring::new(directory.path(), settings).expect("ring");
        let address = ring.listen((Ipv4Addr::LOCALHOST, 0).into()).expect("listen");
        Shard { ring, address, events: Vec::new(), directory }
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).expect("connect");
        client.set_read_timeout(Some(PATIENCE)).expect("timeout");
        client
    }

    /// The next event that `wanted` turns into something. Replies that come back are not of interest here.
    fn next<T>(&mut self, mut wanted: impl FnMut(&mut Uring, Event) -> Option<T>) -> T {
        let deadline_ns = clock::monotonic_ns() + PATIENCE.as_nanos() as u64;
        loop {
            while !self.events.is_empty() {
                let event = self.events.remove(0);
                if let Some(value) = wanted(&mut self.ring, event) {
                    return value;
                }
            }
            assert!(clock::monotonic_ns() < deadline_ns, "nothing happened");
            self.ring.wait(Some(deadline_ns), &mut self.events).expect("wait");
        }
    }

    fn accept(&mut self) -> ConnectionId {
        self.next(|_, event| if let Event::Accepted { connection, .. } = event { Some(connection) } else { None })
    }

    fn accepted(&mut self) -> (TcpStream, ConnectionId) {
        let client = self.connect();
        let connection = self.accept();
        (client, connection)
    }

    fn received(&mut self) -> (ConnectionId, ReceiveBuffer, usize) {
        self.next(|_, event| match event {
            Event::Received { connection, buffer, filled } => Some((connection, buffer, filled)),
            Event::Hangup { error, .. } => panic!("hung up: {error:?}"),
            _ => None,
        })
    }

    fn hangup(&mut self) -> (ConnectionId, Option<io::Error>) {
        self.next(|_, event| match event {
            Event::Hangup { connection, error, .. } => Some((connection, error)),
            _ => None,
        })
    }

    fn replies_back(&mut self, count: usize) {
        for _ in 0..count {
            self.next(|_, event| if let Event::Sent { .. } = event { Some(()) } else { None });
        }
    }

    fn run(&mut self, job: Job) -> io::Result<()> {
        let owner = JobOwner(77);
        self.ring.start(owner, job);
        self.next(|_, event| match event {
            Event::JobDone { owner: of, result, .. } => {
                assert_eq!(of, owner);
                Some(result)
            }
            _ => None,
        })
    }

    /// A file of pseudo-random bytes, and the bytes.
    fn file(&mut self, name: &str, size: usize) -> (Rc<OpenFile>, Vec<u8>) {
        let bytes = noise(size);
        let file = self.ring.open(Path::new(name), true).expect("open");
        self.ring.write(&file, Position(0), &[IoSlice::new(&bytes)]).expect("write");
        (file, bytes)
    }
}

fn noise(size: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..size).map(|_| next()).collect()
}

fn bytes(bytes: &[u8]) -> Reply {
    let mut reply = Reply::default();
    reply.bytes.extend(bytes);
    reply
}

fn with_file(head: &[u8], file: &Rc<OpenFile>, position: u64, size: usize, tail: &[u8]) -> Reply {
    let mut reply = bytes(head);
    reply.push_file(FileRange { file: file.clone(), position: Position(position), size: size as u32 });
    reply.bytes.extend(tail);
    reply.finish();
    reply
}

/// Reads `size` bytes in a thread of its own, so that the shard can go on.
fn read_exactly(mut client: TcpStream, size: usize) -> std::thread::JoinHandle<(Vec<u8>, TcpStream)> {
    std::thread::spawn(move || {
        let mut got = vec![0; size];
        client.read_exact(&mut got).expect("all bytes");
        (got, client)
    })
}

#[test]
fn a_request_comes_in_and_its_reply_goes_out() {
    let mut shard = Shard::new(Settings::default());
    let (mut client, connection) = shard.accepted();
    for round in 0..600u32 {
        shard.ring.receive(connection, None);
        client.write_all(&round.to_be_bytes()).expect("write");
        let (from, buffer, filled) = shard.received();
        assert_eq!((from, &buffer[..filled]), (connection, &round.to_be_bytes()[..]));
        assert!(buffer.is_small());
        shard.ring.give_buffer(buffer);
        shard.ring.send(connection, bytes(&[round as u8; 10]));
        shard.ring.send(connection, bytes(&[!(round as u8); 20]));
        shard.replies_back(2);
        let mut got = [0; 30];
        client.read_exact(&mut got).expect("replies");
        assert_eq!((&got[..10], &got[10..]), (&[round as u8; 10][..], &[!(round as u8); 20][..]));
    }
    assert_eq!(shard.ring.send_backlog(connection), 0);
}

#[test]
fn a_large_frame_fills_one_pooled_buffer() {
    let mut shard = Shard::new(Settings::default());
    let (mut client, connection) = shard.accepted();
    let sent = noise(900_000);
    let copy = sent.clone();
    let writer = std::thread::spawn(move || {
        client.write_all(&copy).expect("write");
        client
    });
    shard.ring.receive(connection, None);
    let (_, first, mut filled) = shard.received();
    assert!(filled <= SMALL_BUFFER_SIZE);
    let mut buffer = shard.ring.take_buffer(sent.len()).expect("within the budget");
    buffer[..filled].copy_from_slice(&first[..filled]);
    shard.ring.give_buffer(first);
    while filled < sent.len() {
        shard.ring.receive(connection, Some((buffer, filled)));
        (_, buffer, filled) = shard.received();
    }
    assert!(buffer[..filled] == sent[..]);
    drop(writer.join().expect("writer"));
    shard.ring.receive(connection, Some((buffer, 0)));
    let (from, error) = shard.hangup();
    assert!(from == connection && error.is_none());
}

#[test]
fn many_replies_of_bytes_larger_than_the_socket_arrive_in_order() {
    let mut shard = Shard::new(Settings::default());
    let (client, connection) = shard.accepted();
    let all = noise(3_000_000);
    let reader = read_exactly(client, all.len());
    for piece in all.chunks(30_000) {
        shard.ring.send(connection, bytes(piece));
    }
    assert_eq!(shard.ring.send_backlog(connection), all.len() as u64);
    shard.replies_back(100);
    assert!(reader.join().expect("reader").0 == all);
}

#[test]
fn idle_connections_hold_no_buffer_and_more_than_the_small_ones_are_served() {
    let mut shard = Shard::new(Settings::default());
    let mut clients = Vec::new();
    for _ in 0..300 {
        let (client, connection) = shard.accepted();
        shard.ring.receive(connection, None);
        clients.push((client, connection));
    }
    for (client, _) in &mut clients {
        client.write_all(b"hello").expect("write");
    }
    // All are kept: beyond the 256 small ones they come from the pool.
    let kept: Vec<_> = (0..clients.len()).map(|_| shard.received()).collect();
    assert!(kept.iter().all(|(_, buffer, filled)| &buffer[..*filled] == b"hello"));
    assert_eq!(kept.iter().filter(|(_, buffer, _)| buffer.is_small()).count(), 256);
    drop(kept);
    let (client, connection) = &mut clients[0];
    client.write_all(b"again").expect("write");
    shard.ring.receive(*connection, None);
    assert!(shard.received().1.is_small());
}

#[test]
fn a_receive_waits_when_all_buffers_are_used_and_goes_on_when_one_is_back() {
    let mut shard = Shard::new(Settings { buffer_budget: 0, ..Settings::default() });
    let mut clients: Vec<_> = (0..258).map(|_| shard.accepted()).collect();
    for (client, connection) in &mut clients {
        shard.ring.receive(*connection, None);
        client.write_all(b"x").expect("write");
    }
    // 256 small ones and the one beyond the budget.
    let mut kept: Vec<_> = (0..257).map(|_| shard.received()).collect();
    let soon = clock::monotonic_ns() + 50_000_000;
    shard.ring.wait(Some(soon), &mut shard.events).expect("wait");
    assert!(shard.events.is_empty(), "{:?}", shard.events);
    kept.pop();
    assert_eq!(shard.received().2, 1);
}

#[test]
fn a_connection_closed_with_a_receive_in_flight_gives_its_buffer_and_slot_back() {
    let mut shard = Shard::new(Settings { buffer_budget: 1 << 20, ..Settings::default() });
    for round in 0..20 {
        let (mut client, connection) = shard.accepted();
        assert_eq!((connection.slot, connection.generation), (0, round));
        let buffer = shard.ring.take_buffer(1 << 20).expect("the whole budget");
        shard.ring.receive(connection, Some((buffer, 0)));
        shard.ring.wait(Some(0), &mut shard.events).expect("wait");
        shard.ring.close(connection);
        shard.ring.close(connection);
        // Harmless after the close.
        shard.ring.send(connection, bytes(b"late"));
        shard.replies_back(1);
        assert_eq!(client.read(&mut [0; 8]).expect("end of stream"), 0);
        let deadline = clock::monotonic_ns() + PATIENCE.as_nanos() as u64;
        while shard.ring.connection_count() > 0 {
            assert!(clock::monotonic_ns() < deadline, "the receive never ended");
            shard.ring.wait(Some(clock::monotonic_ns() + 1_000_000), &mut shard.events).expect("wait");
            shard.events.clear();
        }
    }
}

#[test]
fn close_after_send_delivers_everything_first() {
    let mut shard = Shard::new(Settings::default());
    let (client, connection) = shard.accepted();
    shard.ring.receive(connection, None);
    let all = noise(1_000_000);
    shard.ring.send(connection, bytes(&all));
    shard.ring.close_after_send(connection);
    let reader = std::thread::spawn(move || {
        let (mut client, mut got) = (client, Vec::new());
        client.write_all(b"not heard any more").expect("write");
        client.read_to_end(&mut got).expect("an orderly end");
        got
    });
    shard.replies_back(1);
    let deadline = clock::monotonic_ns() + PATIENCE.as_nanos() as u64;
    while shard.ring.connection_count() > 0 {
        assert!(clock::monotonic_ns() < deadline, "never closed");
        shard.ring.wait(Some(clock::monotonic_ns() + 10_000_000), &mut shard.events).expect("wait");
        assert!(shard.events.drain(..).all(|e| matches!(e, Event::Sent { .. })));
    }
    assert!(reader.join().expect("reader") == all);
}

#[test]
fn replies_to_a_peer_that_is_gone_come_back_and_the_owner_is_told() {
    let mut shard = Shard::new(Settings::default());
    let (client, connection) = shard.accepted();
    drop(client);
    let mut told = false;
    for _ in 0..100 {
        // No receive is posted: only sends can find out.
        shard.ring.send(connection, bytes(&noise(100_000)));
        let back = shard.next(|_, event| match event {
            Event::Hangup { connection: of, error, .. } => {
                assert!(of == connection && error.is_some());
                told = true;
                None
            }
            Event::Sent { reply, .. } => Some(reply),
            _ => None,
        });
        assert_eq!(back.bytes.len(), 100_000);
    }
    assert!(told);
    shard.ring.close(connection);
}

#[test]
fn connections_beyond_the_limit_are_closed_and_counted() {
    let mut shard = Shard::new(Settings { connections_max: 2, ..Settings::default() });
    let _kept = (shard.accepted(), shard.accepted());
    let mut refused = shard.connect();
    let reader = std::thread::spawn(move || matches!(refused.read(&mut [0; 1]), Ok(0) | Err(_)));
    while shard.ring.counters().connections_refused == 0 {
        shard.ring.wait(Some(clock::monotonic_ns() + 10_000_000), &mut shard.events).expect("wait");
    }
    assert!(reader.join().expect("reader") && shard.events.is_empty());
    let mut shard2 = Shard::new(Settings { connections_max_per_ip: 1, ..Settings::default() });
    for _ in 0..3 {
        let (client, connection) = shard2.accepted();
        let refused_before = shard2.ring.counters().connections_refused;
        let _refused = shard2.connect();
        while shard2.ring.counters().connections_refused == refused_before {
            shard2.ring.wait(Some(clock::monotonic_ns() + 10_000_000), &mut shard2.events).expect("wait");
        }
        assert!(shard2.events.is_empty());
        shard2.ring.close(connection);
        drop(client);
    }
    shard.ring.stop_listening();
    shard.ring.wait(Some(0), &mut shard.events).expect("wait");
    shard.ring.wait(Some(0), &mut shard.events).expect("wait");
    assert!(TcpStream::connect(shard.address).is_err());
}

#[test]
fn the_bell_wakes_a_shard_from_another_thread() {
    let mut shard = Shard::new(Settings::default());
    for _ in 0..3 {
        let bell = shard.ring.bell();
        let thread = std::thread::spawn(move || (0..10).for_each(|_| bell.ring()));
        shard.next(|_, event| if let Event::Mail = event { Some(()) } else { None });
        thread.join().expect("thread");
    }
}

#[test]
fn a_deadline_ends_the_wait() {
    let mut shard = Shard::new(Settings::default());
    for deadline in [0, clock::monotonic_ns() + 5_000_000] {
        shard.ring.wait(Some(deadline), &mut shard.events).expect("wait");
        assert!(clock::monotonic_ns() >= deadline && shard.events.is_empty());
    }
}

#[test]
fn files_are_written_and_read_back() {
    let mut shard = Shard::new(Settings::default());
    let ring = &mut shard.ring;
    let path = Path::new("topic-0/00000000000000000000.log");
    assert_eq!(ring.open(path, false).expect_err("not there").kind(), io::ErrorKind::NotFound);
    let file = ring.open(path, true).expect("open");
    // More slices than one call takes, empty ones among them.
    let all = noise(5000 * 7);
    let slices: Vec<IoSlice> = all.chunks(7).flat_map(|piece| [IoSlice::new(piece), IoSlice::new(&[])]).collect();
    ring.write(&file, Position(3), &slices).expect("write");
    ring.write(&file, Position(0), &[IoSlice::new(b"abc"), IoSlice::new(&[])]).expect("write");
    ring.write(&file, Position(0), &[]).expect("write nothing");
    assert_eq!(ring.size(&file).expect("size"), 3 + all.len() as u64);
    let mut got = vec![0; all.len() + 10];
    assert_eq!(ring.read_resident(&file, Position(3), &mut got).expect("resident"), all.len());
    assert!(got[..all.len()] == all);
    assert_eq!(ring.read(&file, Position(1), &mut got).expect("read"), all.len() + 2);
    assert_eq!(&got[..2], b"bc");
    let listed = ring.list(Path::new("topic-0")).expect("list");
    assert_eq!((listed.len(), listed[0].size, listed[0].is_dir), (1, 3 + all.len() as u64, false));
    assert!(ring.list(Path::new("")).expect("list")[0].is_dir);
}

#[test]
fn jobs_do_what_they_say_through_the_ring_and_at_once() {
    let mut shard = Shard::new(Settings::default());
    for through_ring in [true, false] {
        let root = shard.directory.path().to_path_buf();
        let (file, _) = shard.file("dir/a", 100_000);
        let mut run = |job: Job| if through_ring { shard.run(job) } else { shard.ring.run(job) };
        let size = || std::fs::metadata(root.join("dir/a")).expect("there").len();
        run(Job::Preallocate { file: file.clone(), position: Position(0), size: 1 << 20 }).expect("preallocate");
        assert_eq!(size(), 100_000, "the size is kept");
        run(Job::StartWriteback { file: file.clone(), position: Position(0), size: 100_000 }).expect("write-back");
        run(Job::Sync { file: file.clone() }).expect("sync");
        run(Job::ReadAhead { file: file.clone(), position: Position(10), size: 5 << 20 }).expect("read ahead");
        run(Job::DropPages { file: file.clone(), position: Position(10), size: 5 << 20 }).expect("drop pages");
        run(Job::Truncate { file: file.clone(), size: size() }).expect("truncate");
        let occupied = std::fs::metadata(root.join("dir/a")).expect("there").blocks() * 512;
        assert!((100_000..1 << 19).contains(&occupied), "{occupied} bytes: what was reserved is given back");
        run(Job::Truncate { file: file.clone(), size: 10 }).expect("truncate");
        assert_eq!(size(), 10);
        run(Job::Rename { from: "dir/a".into(), to: "dir/b".into() }).expect("rename");
        assert!(!root.join("dir/a").exists() && root.join("dir/b").exists());
        run(Job::Rename { from: "dir/a".into(), to: "dir/c".into() }).expect_err("nothing to rename");
        run(Job::Close { file }).expect("close");
        run(Job::Remove { path: "dir/b".into() }).expect("remove");
        run(Job::Remove { path: "dir/b".into() }).expect("not there is no error");
        run(Job::Remove { path: PathBuf::from("dir/\0") }).expect_err("no such name");
        for sync in [true, false] {
            let bytes = if sync { b"first".to_vec() } else { b"second".to_vec() };
            run(Job::Replace { path: "dir/checkpoint".into(), bytes: bytes.clone(), sync }).expect("replace");
            assert_eq!(std::fs::read(root.join("dir/checkpoint")).expect("there"), bytes);
        }
        assert!(!root.join("dir/checkpoint.tmp").exists());
        run(Job::RemoveDir { path: "dir".into() }).expect("remove directory");
        run(Job::RemoveDir { path: "dir".into() }).expect("not there is no error");
        assert!(!root.join("dir").exists());
    }
}

#[test]
fn more_jobs_than_run_at_a_time_all_end() {
    let mut shard = Shard::new(Settings::default());
    let (file, _) = shard.file("a", 1 << 20);
    for i in 0..1000 {
        let (position, size) = (Position(i * 1000), 1000);
        shard.ring.start(
            JobOwner(i),
            match i % 3 {
                0 => Job::StartWriteback { file: file.clone(), position, size },
                1 => Job::Preallocate { file: file.clone(), position, size },
                _ => Job::Rename { from: "nothing".into(), to: "nothing2".into() },
            },
        );
    }
    let mut owners: Vec<u64> = (0..1000)
        .map(|_| shard.next(|_, event| if let Event::JobDone { owner, .. } = event { Some(owner.0) } else { None }))
        .collect();
    owners.sort_unstable();
    assert_eq!(owners, (0..1000).collect::<Vec<_>>());
}

#[test]
fn a_file_is_closed_only_when_no_reply_needs_it_any_more() {
    let mut shard = Shard::new(Settings::default());
    let (client, connection) = shard.accepted();
    let (file, all) = shard.file("a", 8_000_000);
    shard.ring.send(connection, with_file(b"", &file, 0, all.len(), b""));
    shard.ring.start(JobOwner(1), Job::Close { file });
    shard.ring.start(JobOwner(2), Job::Remove { path: "a".into() });
    shard.next(|_, event| match event {
        Event::JobDone { owner: JobOwner(2), .. } => Some(()),
        Event::JobDone { .. } => panic!("closed while a reply needs it"),
        _ => None,
    });
    let reader = read_exactly(client, all.len());
    shard.next(|_, event| match event {
        // The test gives the reply up as the owner does.
        Event::Sent { mut reply, .. } => {
            reply.clear();
            None
        }
        Event::JobDone { owner: JobOwner(1), result, .. } => {
            assert!(result.is_ok(), "{result:?}");
            Some(())
        }
        _ => None,
    });
    assert!(reader.join().expect("reader").0 == all);
}

#[test]
fn replies_with_files_arrive_whole_by_every_path() {
    for fetch_path in ALL_PATHS {
        let mut shard = Shard::new(Settings { fetch_path, ..Settings::default() });
        let (mut client, connection) = shard.accepted();
        let (file, all) = shard.file("a", 5_000_000);
        let mut expected = Vec::new();
        for (position, size) in [(0, 1), (100, 16_384), (4095, 1_048_576), (0, 5_000_000), (4_999_999, 1), (7, 0)] {
            expected.extend_from_slice(b"head");
            expected.extend_from_slice(&all[position..position + size]);
            expected.extend_from_slice(b"tail");
            expected.extend_from_slice(b"next");
            shard.ring.send(connection, with_file(b"head", &file, position as u64, size, b"tail"));
            shard.ring.send(connection, bytes(b"next"));
        }
        assert_eq!(shard.ring.send_backlog(connection), expected.len() as u64);
        let reader = read_exactly(client, expected.len());
        shard.replies_back(12);
        let got;
        (got, client) = reader.join().expect("reader");
        assert!(got == expected, "{fetch_path:?}");
        drop(client);
    }
}

#[test]
fn a_connection_closed_while_it_sends_from_a_file_ends_by_every_path() {
    for fetch_path in ALL_PATHS {
        let mut shard = Shard::new(Settings { fetch_path, ..Settings::default() });
        let (file, all) = shard.file("a", 8_000_000);
        for turns in 0..6 {
            let (client, connection) = shard.accepted();
            shard.ring.send(connection, with_file(b"head", &file, 0, all.len(), b""));
            for _ in 0..turns {
                shard.ring.wait(Some(clock::monotonic_ns() + 1_000_000), &mut shard.events).expect("wait");
            }
            shard.ring.close(connection);
            shard.replies_back(1);
            // What the kernel had taken by reference is still delivered: only the client's end makes it let go of the file.
            drop(client);
            let deadline = clock::monotonic_ns() + PATIENCE.as_nanos() as u64;
            while shard.ring.connection_count() > 0 || Rc::strong_count(&file) > 1 {
                assert!(clock::monotonic_ns() < deadline, "never closed, {fetch_path:?}");
                shard.ring.wait(Some(clock::monotonic_ns() + 1_000_000), &mut shard.events).expect("wait");
                shard.events.clear();
            }
        }
    }
}

#[test]
fn a_file_that_became_shorter_ends_the_connection() {
    for fetch_path in ALL_PATHS {
        let mut shard = Shard::new(Settings { fetch_path, ..Settings::default() });
        let (file, _) = shard.file("a", 100_000);
        let (mut client, connection) = shard.accepted();
        shard.ring.receive(connection, None);
        shard.ring.run(Job::Truncate { file: file.clone(), size: 10 }).expect("truncate");
        shard.ring.send(connection, with_file(b"", &file, 4096, 90_000, b""));
        assert_eq!(shard.hangup().0, connection);
        shard.ring.close(connection);
        assert!(matches!(client.read(&mut [0; 8]), Ok(0) | Err(_)), "{fetch_path:?}");
    }
}

/// An address where no memory is reads as a worn medium does: EIO. The log of that file must hear of it.
#[test]
fn a_file_that_cannot_be_read_ends_the_connection_and_is_marked() {
    let mut shard = Shard::new(Settings { fetch_path: FetchPath::Copy, ..Settings::default() });
    let (_client, connection) = shard.accepted();
    let file = shard.ring.open(Path::new("/proc/self/mem"), false).expect("open");
    shard.ring.send(connection, with_file(b"head", &file, 0, 1000, b"tail"));
    assert_eq!(shard.hangup().0, connection);
    assert!(file.failed.get());
    let read = shard.run(Job::ReadAhead { file, position: Position(0), size: 1000 });
    assert_eq!(read.expect_err("no memory there").raw_os_error(), Some(libc::EIO));
}

fn is_cold(file: &OpenFile) -> bool {
    super::residency::read_resident(file.handle, Position(0), &mut [0])
        .is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
}

/// Out of the page cache, if the file system has a device below it.
fn drop_from_cache(shard: &mut Shard, file: &Rc<OpenFile>) {
    shard.ring.run(Job::Sync { file: file.clone() }).expect("sync");
    // SAFETY: plain call on an open file.
    unsafe { libc::posix_fadvise(file.handle, 0, 0, libc::POSIX_FADV_DONTNEED) };
    shard.ring.residency.forget(file.handle);
}

#[test]
fn a_cold_range_is_read_ahead_and_others_are_served_meanwhile() {
    let mut shard = Shard::new(Settings::default());
    // Not in /tmp: that may be memory only.
    let home = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("directory");
    shard.ring.data_dir = home.path().to_path_buf();
    let (file, all) = shard.file("cold", 20_000_000);
    let (hot, _) = shard.file("hot", 1000);
    let (reader, cold_connection) = shard.accepted();
    let (mut other, connection) = shard.accepted();
    drop_from_cache(&mut shard, &file);
    shard.ring.send(cold_connection, with_file(b"head", &file, 0, all.len(), b"tail"));
    let reader = read_exactly(reader, all.len() + 8);
    shard.ring.send(connection, with_file(b"", &hot, 0, 1000, b""));
    shard.replies_back(2);
    other.read_exact(&mut [0; 1000]).expect("the other is served");
    let got = reader.join().expect("reader").0;
    assert!(got[..4] == *b"head" && got[4..4 + all.len()] == all && got[4 + all.len()..] == *b"tail");
    drop_from_cache(&mut shard, &file);
    if is_cold(&file) {
        assert!(shard.ring.counters().cold_reads > 0);
    }
}

/// Each found the other's read of the same range under way and asked for another of its own, for ever.
#[test]
fn connections_that_read_the_same_cold_range_all_get_it() {
    let mut shard = Shard::new(Settings::default());
    let home = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("directory");
    shard.ring.data_dir = home.path().to_path_buf();
    let (file, all) = shard.file("cold", 8_000_000);
    let clients: Vec<_> = (0..4).map(|_| shard.accepted()).collect();
    drop_from_cache(&mut shard, &file);
    let mut readers = Vec::new();
    for (client, connection) in clients {
        shard.ring.send(connection, with_file(b"", &file, 0, all.len(), b""));
        readers.push(read_exactly(client, all.len()));
    }
    shard.replies_back(4);
    for reader in readers {
        assert!(reader.join().expect("reader").0 == all);
    }
}

#[test]
fn a_file_system_that_hides_its_pages_is_sent_from_all_the_same() {
    for fetch_path in ALL_PATHS {
        let mut shard = Shard::new(Settings { fetch_path, ..Settings::default() });
        let (file, all) = shard.file("hidden", 3_000_000);
        shard.ring.residency.forget(file.handle);
        shard.ring.residency.see_nothing();
        let (reader, connection) = shard.accepted();
        shard.ring.send(connection, with_file(b"head", &file, 0, all.len(), b"tail"));
        let reader = read_exactly(reader, all.len() + 8);
        shard.replies_back(1);
        let got = reader.join().expect("reader").0;
        assert!(got[4..4 + all.len()] == all, "{fetch_path:?}");
        assert!(shard.ring.cold_reads.is_empty(), "{fetch_path:?}");
    }
}

#[test]
fn a_connection_closed_during_a_cold_read_ends() {
    let mut shard = Shard::new(Settings::default());
    let home = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("directory");
    shard.ring.data_dir = home.path().to_path_buf();
    let (file, all) = shard.file("cold", 8_000_000);
    for _ in 0..5 {
        drop_from_cache(&mut shard, &file);
        let (client, connection) = shard.accepted();
        shard.ring.send(connection, with_file(b"head", &file, 0, all.len(), b""));
        shard.ring.wait(Some(0), &mut shard.events).expect("wait");
        shard.ring.close(connection);
        shard.replies_back(1);
        drop(client);
    }
    let deadline = clock::monotonic_ns() + PATIENCE.as_nanos() as u64;
    while shard.ring.connection_count() > 0 {
        assert!(clock::monotonic_ns() < deadline, "never closed");
        shard.ring.wait(Some(clock::monotonic_ns() + 1_000_000), &mut shard.events).expect("wait");
        shard.events.clear();
    }
    assert!(shard.ring.cold_reads.is_empty());
    assert_eq!(Rc::strong_count(&file), 1);
}

/// As if the peer were on another host: acknowledged then means arrived. (Over loopback the client must have read it.)
fn pretend_far(shard: &mut Shard, connection: ConnectionId) {
    shard.ring.table.get(connection).expect("open").near = false;
}

#[test]
fn a_file_is_pinned_until_its_bytes_are_acknowledged() {
    let mut shard = Shard::new(Settings { receive_buffer_bytes: 65_536, ..Settings::default() });
    let (mut client, connection) = shard.accepted();
    pretend_far(&mut shard, connection);
    let (file, all) = shard.file("a", 100_000);
    let mut expected = 0;
    // Small enough that the send queue takes everything, more than the reader's window.
    for round in 0..200u64 {
        if shard.ring.send_backlog(connection) > 0 {
            break;
        }
        shard.ring.send(connection, with_file(b"", &file, round * 7, 20_000, b""));
        expected += 20_000;
        shard.ring.wait(Some(clock::monotonic_ns() + 1_000_000), &mut shard.events).expect("wait");
        shard.events.clear();
    }
    shard.ring.release_acknowledged();
    let pinned = Rc::strong_count(&file);
    assert!(pinned > 1, "unread bytes beyond the window are not acknowledged");
    assert_eq!(shard.ring.table.get(connection).expect("open").pins.count(), 1, "one pin for one hot file");
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; expected];
        client.read_exact(&mut got).expect("all bytes");
        (client, got)
    });
    let deadline = clock::monotonic_ns() + PATIENCE.as_nanos() as u64;
    while Rc::strong_count(&file) > 1 {
        assert!(clock::monotonic_ns() < deadline, "never released");
        shard.ring.wait(Some(clock::monotonic_ns() + 1_000_000), &mut shard.events).expect("wait");
        shard.events.clear();
        shard.ring.release_acknowledged();
    }
    let (_client, got) = reader.join().expect("reader");
    assert!((0..expected / 20_000).all(|i| got[i * 20_000..(i + 1) * 20_000] == all[i * 7..i * 7 + 20_000]));
    assert!(!file.tainted.get());
}

#[test]
fn a_connection_closed_with_unacknowledged_bytes_taints_the_file() {
    let mut shard = Shard::new(Settings::default());
    let (client, connection) = shard.accepted();
    pretend_far(&mut shard, connection);
    let (file, all) = shard.file("a", 8_000_000);
    let (other, _) = shard.file("b", 1000);
    shard.ring.send(connection, with_file(b"", &other, 0, 1000, b""));
    shard.replies_back(1);
    shard.ring.send(connection, with_file(b"", &file, 0, all.len(), b""));
    // Nobody reads: after a while the socket is full.
    for _ in 0..50 {
        shard.ring.wait(Some(clock::monotonic_ns() + 1_000_000), &mut shard.events).expect("wait");
    }
    shard.events.clear();
    shard.ring.close(connection);
    shard.replies_back(1);
    while shard.ring.connection_count() > 0 {
        shard.ring.wait(Some(clock::monotonic_ns() + 1_000_000), &mut shard.events).expect("wait");
        shard.events.clear();
    }
    assert!(file.tainted.get() && !other.tainted.get());
    assert_eq!(Rc::strong_count(&file), 1);
    drop(client);
}

#[test]
fn a_reader_on_this_host_taints_what_it_is_sent_by_reference_and_nothing_else() {
    for fetch_path in ALL_PATHS {
        let tainted = matches!(fetch_path, FetchPath::Sendfile | FetchPath::Splice);
        let mut shard = Shard::new(Settings { fetch_path, ..Settings::default() });
        let (mut client, connection) = shard.accepted();
        let (file, all) = shard.file("a", 30_000);
        shard.ring.send(connection, with_file(b"", &file, 0, all.len(), b""));
        shard.replies_back(1);
        assert_eq!(file.tainted.get(), tainted, "{fetch_path:?}");
        let deadline = clock::monotonic_ns() + PATIENCE.as_nanos() as u64;
        while Rc::strong_count(&file) > 1 {
            assert!(fetch_path == FetchPath::SendZc && clock::monotonic_ns() < deadline, "held for good");
            shard.ring.wait(Some(clock::monotonic_ns() + 1_000_000), &mut shard.events).expect("wait");
        }
        if !tainted {
            // What is not tainted and not held may be overwritten, whatever the peer has read by then.
            shard.ring.write(&file, Position(0), &[IoSlice::new(&vec![0; all.len()])]).expect("write");
        }
        let mut got = vec![0; all.len()];
        client.read_exact(&mut got).expect("read");
        assert!(got == all);
    }
}
