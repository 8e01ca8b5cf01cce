//! Our loop against glommio's executor, with the same work: *echo* (64 connections, a request of 200 bytes, a reply of 60)
//! and *ingest* (4 connections, frames of 64 KiB, written to a file in the page cache, a reply of 60 bytes).
//! Server on one core, client on another; files in the build directory. The baseline needs `--features glommio`, which
//! spares everyone else its hundred dependencies.

use std::io::{IoSlice, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringlane::ids::Position;
use ringlane::io::disk::Disk;
use ringlane::io::{Event, Ring, Settings, Uring, cores};
use ringlane::parts::Reply;

const REPLY_SIZE: usize = 60;
/// The file is written over and over: its pages stay in the cache.
const FILE_SIZE: u64 = 64 * 1024 * 1024;

#[derive(Clone, Copy)]
struct Work {
    name: &'static str,
    connections: usize,
    frame_size: usize,
    writes: bool,
}

const WORKS: [Work; 2] = [
    Work { name: "echo", connections: 64, frame_size: 200, writes: false },
    Work { name: "ingest", connections: 4, frame_size: 65_536, writes: true },
];

fn core(index: usize) -> usize {
    let allowed = cores::allowed().expect("cores");
    allowed[index.min(allowed.len() - 1)]
}

/// One connection of our server.
#[derive(Default)]
struct Filling {
    /// Bytes of the frame that went through small buffers.
    filled: usize,
}

fn serve_ours(work: Work, directory: PathBuf) -> SocketAddr {
    let (tell, told) = channel();
    std::thread::spawn(move || {
        cores::pin(core(0)).expect("pin");
        let mut ring = Uring::new(&directory, Settings::default()).expect("ring");
        tell.send(ring.listen((Ipv4Addr::LOCALHOST, 0).into()).expect("listen")).expect("told");
        let file = ring.open(Path::new("ours"), true).expect("open");
        let (mut position, mut events, mut replies) = (0, Vec::new(), Vec::<Reply>::new());
        let mut connections: Vec<Filling> = Vec::new();
        let mut open = 0;
        loop {
            ring.wait(None, &mut events).expect("wait");
            for event in events.drain(..) {
                match event {
                    Event::Accepted { connection, .. } => {
                        open += 1;
                        let count = connections.len().max(connection.slot as usize + 1);
                        connections.resize_with(count, Filling::default);
                        let large = work.frame_size > 16_384;
                        let buffer = large.then(|| ring.take_buffer(work.frame_size).expect("budget"));
                        ring.receive(connection, buffer.map(|buffer| (buffer, 0)));
                    }
                    Event::Received { connection, buffer, filled } => {
                        let this = &mut connections[connection.slot as usize];
                        // Frames do not overlap receives: each client waits for its reply.
                        this.filled = if buffer.len() < work.frame_size { this.filled + filled } else { filled };
                        let whole = this.filled >= work.frame_size;
                        if whole {
                            this.filled = 0;
                            if work.writes {
                                if position + work.frame_size as u64 > FILE_SIZE {
                                    position = 0;
                                }
                                let frame = &buffer[..work.frame_size];
                                ring.write(&file, Position(position), &[IoSlice::new(frame)]).expect("write");
                                position += work.frame_size as u64;
                            }
                            let mut reply = replies.pop().unwrap_or_default();
                            reply.bytes.resize(REPLY_SIZE, 0);
                            ring.send(connection, reply);
                        }
                        if work.frame_size > 16_384 {
                            ring.receive(connection, Some((buffer, if whole { 0 } else { filled })));
                        } else {
                            ring.give_buffer(buffer);
                            ring.receive(connection, None);
                        }
                    }
                    Event::Sent { mut reply, .. } => {
                        reply.clear();
                        replies.push(reply);
                    }
                    Event::Hangup { connection, .. } => {
                        ring.close(connection);
                        open -= 1;
                        if open == 0 {
                            return;
                        }
                    }
                    event => panic!("{event:?}"),
                }
            }
        }
    });
    told.recv().expect("listening")
}

#[cfg(feature = "glommio")]
fn serve_glommio(work: Work, directory: PathBuf) -> SocketAddr {
    use std::rc::Rc;

    use futures_lite::{AsyncReadExt, AsyncWriteExt};
    use glommio::io::OpenOptions;
    use glommio::net::TcpListener;
    use glommio::{LocalExecutorBuilder, Placement};

    let (tell, told) = channel();
    let run = move || async move {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        tell.send(listener.local_addr().expect("address")).expect("told");
        let path = directory.join("glommio");
        let file = OpenOptions::new().create(true).write(true).read(true).buffered_open(path).await.expect("open");
        let (file, position) = (Rc::new(file), Rc::new(std::cell::Cell::new(0u64)));
        let mut tasks = Vec::new();
        for _ in 0..work.connections {
            let mut stream = listener.accept().await.expect("accept");
            stream.set_nodelay(true).expect("nodelay");
            let (file, position) = (file.clone(), position.clone());
            tasks.push(glommio::spawn_local(async move {
                let mut frame = vec![0; work.frame_size];
                while stream.read_exact(&mut frame).await.is_ok() {
                    if work.writes {
                        if position.get() + work.frame_size as u64 > FILE_SIZE {
                            position.set(0);
                        }
                        let at = position.replace(position.get() + work.frame_size as u64);
                        // Its interface takes the memory.
                        let memory = std::mem::take(&mut frame);
                        file.write_at(memory, at).await.expect("write");
                        frame = vec![0; work.frame_size];
                    }
                    if stream.write_all(&[0; REPLY_SIZE]).await.is_err() {
                        return;
                    }
                }
            }));
        }
        for task in tasks {
            task.await;
        }
    };
    let handle = LocalExecutorBuilder::new(Placement::Fixed(core(0))).spawn(run).expect("executor");
    let address = told.recv().expect("listening");
    std::thread::spawn(move || handle.join());
    address
}

/// A request on every connection, then a reply from each.
fn round(clients: &mut [TcpStream], frame: &[u8]) {
    for client in clients.iter_mut() {
        client.write_all(frame).expect("write");
    }
    let mut reply = [0; REPLY_SIZE];
    for client in clients.iter_mut() {
        client.read_exact(&mut reply).expect("reply");
    }
}

type Serve = fn(Work, PathBuf) -> SocketAddr;

fn loops(c: &mut Criterion) {
    cores::pin(core(1)).expect("pin");
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("directory");
    for work in WORKS {
        let mut group = c.benchmark_group(work.name);
        group.throughput(Throughput::Elements(work.connections as u64));
        let servers: &[(&str, Serve)] = &[
            ("ringlane", serve_ours),
            #[cfg(feature = "glommio")]
            ("glommio", serve_glommio),
        ];
        for (name, serve) in servers {
            let address = serve(work, directory.path().to_path_buf());
            let connect = |_| {
                let client = TcpStream::connect(address).expect("connect");
                client.set_nodelay(true).expect("nodelay");
                client
            };
            let mut clients: Vec<_> = (0..work.connections).map(connect).collect();
            let frame = vec![7; work.frame_size];
            group.bench_function(BenchmarkId::from_parameter(name), |b| b.iter(|| round(&mut clients, &frame)));
        }
        group.finish();
    }
}

criterion_group!(benches, loops);
criterion_main!(benches);
