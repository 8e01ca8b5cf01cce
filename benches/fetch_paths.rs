//! The four ways of a file range to a socket, from the page cache and from the disk, over loopback. A thread reads
//! everything and looks at nothing. Files lie in the build directory: it has to be on a real disk.

use std::io::{IoSlice, Read};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::rc::Rc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringlane::ids::{ConnectionId, Position};
use ringlane::io::disk::{Disk, Job};
use ringlane::io::{Event, FetchPath, Ring, Settings, Uring};
use ringlane::parts::{FileRange, OpenFile, Reply};

const FILE_SIZE: u64 = 256 * 1024 * 1024;

struct Server {
    ring: Uring,
    connection: ConnectionId,
    file: Rc<OpenFile>,
    events: Vec<Event>,
    reply: Option<Reply>,
    position: u64,
}

impl Server {
    fn new(directory: &Path, fetch_path: FetchPath) -> Server {
        let mut ring = Uring::new(directory, Settings { fetch_path, ..Settings::default() }).expect("ring");
        let address = ring.listen((Ipv4Addr::LOCALHOST, 0).into()).expect("listen");
        std::thread::spawn(move || {
            let mut client = TcpStream::connect(address).expect("connect");
            let mut memory = vec![0; 256 * 1024];
            while client.read(&mut memory).is_ok_and(|count| count > 0) {}
        });
        let mut events = Vec::new();
        let connection = loop {
            ring.wait(None, &mut events).expect("wait");
            if let Some(Event::Accepted { connection, .. }) = events.pop() {
                break connection;
            }
        };
        let file = ring.open(Path::new("segment"), true).expect("open");
        if ring.size(&file).expect("size") < FILE_SIZE {
            let block = vec![7; 1 << 20];
            for i in 0..FILE_SIZE >> 20 {
                ring.write(&file, Position(i << 20), &[IoSlice::new(&block)]).expect("write");
            }
            ring.run(Job::Sync { file: file.clone() }).expect("sync");
        }
        Server { ring, connection, file, events, reply: None, position: 0 }
    }

    /// One reply: a short header and a range, until the kernel has taken all of it.
    fn serve(&mut self, size: u32) {
        if self.position + u64::from(size) > FILE_SIZE {
            self.position = 0;
        }
        let mut reply = self.reply.take().unwrap_or_default();
        reply.bytes.extend([0; 80]);
        reply.push_file(FileRange { file: self.file.clone(), position: Position(self.position), size });
        reply.finish();
        self.position += u64::from(size);
        self.ring.send(self.connection, reply);
        while self.reply.is_none() {
            self.ring.wait(None, &mut self.events).expect("wait");
            for event in self.events.drain(..) {
                match event {
                    Event::Sent { mut reply, .. } => {
                        reply.clear();
                        self.reply = Some(reply);
                    }
                    event => panic!("{event:?}"),
                }
            }
        }
    }

    /// Waits until what is believed about residency is forgotten, and drops the file from the page cache.
    fn chill(&mut self) {
        let deadline_ns = self.ring.now().monotonic_ns + 1_100_000_000;
        while self.ring.now().monotonic_ns < deadline_ns {
            self.ring.wait(Some(deadline_ns), &mut self.events).expect("wait");
        }
        // SAFETY: plain call on an open file.
        unsafe { libc::posix_fadvise(self.file.handle, 0, 0, libc::POSIX_FADV_DONTNEED) };
        self.position = 0;
    }
}

fn fetch_paths(c: &mut Criterion) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("directory");
    let paths = [
        ("sendfile", FetchPath::Sendfile),
        ("splice", FetchPath::Splice),
        ("send_zc", FetchPath::SendZc),
        ("copy", FetchPath::Copy),
    ];
    for (name, path) in paths {
        let mut server = Server::new(directory.path(), path);
        let mut group = c.benchmark_group("fetch hot");
        for size in [16_384, 1 << 20] {
            group.throughput(Throughput::Bytes(u64::from(size)));
            group.bench_function(BenchmarkId::new(name, size), |b| b.iter(|| server.serve(size)));
        }
        group.finish();
        let mut group = c.benchmark_group("fetch cold");
        group.sample_size(10);
        group.throughput(Throughput::Bytes(FILE_SIZE / 4));
        group.bench_function(name, |b| {
            b.iter_custom(|rounds| {
                let mut spent = std::time::Duration::ZERO;
                for _ in 0..rounds {
                    server.chill();
                    let begin = std::time::Instant::now();
                    (0..FILE_SIZE >> 22).for_each(|_| server.serve(1 << 20));
                    spent += begin.elapsed();
                }
                spent
            })
        });
        group.finish();
    }
}

criterion_group!(benches, fetch_paths);
criterion_main!(benches);
