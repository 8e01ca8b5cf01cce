//! The kernel's form, over loopback and temporary directories. No test looks at how long anything takes.

mod jobs;
mod replies_with_files;
mod sockets;

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
