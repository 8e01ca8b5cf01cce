//! What this host can do at all: bare loops on the kernel paths a broker uses, each for a moment. The server side is
//! bound to the broker's core, the client side to the generator's. No protocol, no checks beyond CRC32C.

use crate::batch::{Random, crc32c};
use crate::clock::{Clock, SECOND};
use crate::machine;
use crate::recorder::{Counts, Recorder, Schedule};
use anyhow::{Context, Result};
use nix::sys::sendfile::sendfile64;
use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ceiling {
    pub broker_core: usize,
    pub generator_core: usize,
    pub figures: Vec<Figure>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    pub name: String,
    pub value: f64,
    pub unit: String,
    /// Size of one frame, reply or block, where the figure depends on it.
    pub size: Option<usize>,
    pub what: String,
}

impl Ceiling {
    /// The figure of the family whose size is nearest to `size`: for produce the receive + CRC + append loops, for
    /// fetch the sendfile loops. Of equal sizes the fastest counts.
    pub fn nearest(&self, family: &str, size: f64) -> Option<&Figure> {
        let distance = |f: &Figure| (f.size.unwrap_or(1) as f64 / size.max(1.0)).ln().abs();
        self.figures
            .iter()
            .filter(|f| f.name.starts_with(family) && f.unit == "B/s")
            .min_by(|a, b| distance(a).total_cmp(&distance(b)).then(b.value.total_cmp(&a.value)))
    }
}

const SEGMENT_SIZE: u64 = 256 << 20;
const FRAME_SIZES: [usize; 3] = [900_000, 65_000, 16_000];
const STREAM_SIZES: [usize; 3] = [1 << 20, 256 << 10, 64 << 10];
const REPLY_SIZES: [usize; 2] = [1 << 20, 16 << 10];

/// Measures each loop for `each`; files go to `dir`.
pub fn measure(
    broker_core: usize,
    generator_core: usize,
    each: Duration,
    dir: &Path,
    mut progress: impl FnMut(&Figure),
) -> Result<Ceiling> {
    let allowed = machine::allowed_cores();
    let mut ceiling = Ceiling { broker_core, generator_core, figures: Vec::new() };
    let mut add = |name: &str, size: Option<usize>, value: f64, unit: &str, what: &str| {
        let figure = Figure { name: name.into(), value, unit: unit.into(), size, what: what.into() };
        progress(&figure);
        ceiling.figures.push(figure);
    };
    let bench = Bare { broker_core, generator_core, each, dir };
    machine::pin(&[broker_core])?;
    add("crc32c", Some(1 << 20), bench.crc32c(), "B/s", "CRC32C over 1 MiB in cache");
    add("memory_copy", Some(8 << 20), bench.memory_copy(), "B/s", "copying 8 MiB blocks");
    for size in STREAM_SIZES {
        let value = bench.receive(size, Append::No, false)?;
        add(&format!("tcp_stream_{}k", size >> 10), Some(size), value, "B/s", "loopback TCP, bare sends, discarded");
    }
    let (trips, p50) = bench.ping_pong()?;
    add("tcp_ping_pong", Some(100), trips, "1/s", "100 B there and back over loopback, one at a time");
    add("tcp_ping_pong_p50", Some(100), p50, "us", "half of those round trips take at most this");
    for size in FRAME_SIZES {
        let name = |kind: &str| format!("receive_crc_append_{kind}_{}k", size / 1000);
        let fresh = bench.receive(size, Append::Fresh, true)?;
        add(&name("fresh"), Some(size), fresh, "B/s", "receive + CRC32C + write into a growing file");
        let recycled = bench.receive(size, Append::Recycled, true)?;
        add(
            &name("recycled"),
            Some(size),
            recycled,
            "B/s",
            "receive + CRC32C + overwrite of pages already in the cache",
        );
    }
    for size in REPLY_SIZES {
        for buffer in [0, 128 << 10, 1 << 20] {
            let label = if buffer == 0 { "auto".into() } else { format!("{}k", buffer >> 10) };
            let value = bench.sendfile(size, buffer)?;
            let name = format!("sendfile_{}k_sndbuf_{label}", size >> 10);
            add(
                &name,
                Some(size),
                value,
                "B/s",
                "request, then reply from the page cache by sendfile; SO_SNDBUF as named",
            );
        }
    }
    machine::pin(&[broker_core])?;
    let (p50, p99) = bench.fdatasync()?;
    add("fdatasync_p50", Some(4096), p50, "us", "append 4 KiB, then fdatasync");
    add("fdatasync_p99", Some(4096), p99, "us", "the same, 99th percentile");
    machine::pin(&[generator_core])?;
    let what = "the generator's own: read the clock, record one request's latency from its intended and its real send";
    add("record_latency", None, bench.record_latency(), "ns", what);
    machine::pin(&allowed)?;
    Ok(ceiling)
}

#[derive(Clone, Copy, PartialEq)]
enum Append {
    No,
    Fresh,
    Recycled,
}

struct Bare<'a> {
    broker_core: usize,
    generator_core: usize,
    each: Duration,
    dir: &'a Path,
}

impl Bare<'_> {
    /// Repeats `work`, which does `bytes` of work, until the time is over; bytes per second.
    fn repeat(&self, bytes: usize, mut work: impl FnMut()) -> f64 {
        let begin = Instant::now();
        let mut done = 0u64;
        // At least once, even where another process takes the core meanwhile; so all loops here.
        loop {
            for _ in 0..8 {
                work();
            }
            done += 8 * bytes as u64;
            if begin.elapsed() >= self.each {
                break;
            }
        }
        done as f64 / begin.elapsed().as_secs_f64()
    }

    fn crc32c(&self) -> f64 {
        let block = vec![7u8; 1 << 20];
        self.repeat(block.len(), || {
            black_box(crc32c(black_box(&block)));
        })
    }

    fn memory_copy(&self) -> f64 {
        let from = vec![7u8; 8 << 20];
        let mut to = vec![0u8; from.len()];
        self.repeat(from.len(), || black_box(&mut to).copy_from_slice(black_box(&from)))
    }

    /// Nanoseconds for one latency, spread over the histogram as those of a busy broker are.
    fn record_latency(&self) -> f64 {
        let (slices, _kept) = channel();
        let schedule = Schedule { start: 0, measure_from: 0, measure_until: u64::MAX / 2 };
        let (mut recorder, clock, mut random) = (Recorder::new(schedule, slices), Clock::start(), Random::seeded(1));
        let (latencies, counts) = ([(); 1024].map(|()| random.below(SECOND / 100)), Counts::default());
        let rate = self.repeat(latencies.len(), || {
            for latency in latencies {
                let now = clock.now() + SECOND;
                recorder.produced(now, now - latency, now - latency / 2, &counts);
            }
        });
        1e9 / rate
    }

    /// Runs `serve` on the broker's core and `client` on the generator's, joined by one loopback connection.
    fn pair<T: Send>(
        &self,
        serve: impl FnOnce(TcpStream) -> Result<T> + Send,
        client: impl FnOnce(TcpStream) -> Result<T> + Send,
    ) -> Result<(T, T)> {
        let listener = TcpListener::bind("127.0.0.1:0").context("bind a loopback port")?;
        let address = listener.local_addr()?;
        let (broker_core, generator_core) = (self.broker_core, self.generator_core);
        std::thread::scope(|scope| {
            let server = scope.spawn(move || {
                machine::pin(&[broker_core])?;
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                serve(stream)
            });
            let client = scope.spawn(move || {
                machine::pin(&[generator_core])?;
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                client(stream)
            });
            let client = client.join().unwrap_or_else(|_| anyhow::bail!("a bare loop panicked"));
            let server = server.join().unwrap_or_else(|_| anyhow::bail!("a bare loop panicked"));
            Ok((server?, client?))
        })
    }

    /// The client sends frames without pause; the server receives, checksums and appends what it got.
    fn receive(&self, size: usize, append: Append, checksum: bool) -> Result<f64> {
        let (each, dir) = (self.each, self.dir);
        let warm_up = if append == Append::No { each / 4 } else { each / 2 };
        let serve = move |mut stream: TcpStream| -> Result<f64> {
            let mut segment = Segment::open(dir, append)?;
            // What appends wants whole frames; what discards wants the memory to stay in the core's cache.
            let mut buffer = vec![0u8; if append == Append::No { size } else { 2 << 20 }];
            let (mut received, mut mark, mut from) = (0u64, None, Instant::now());
            let begin = Instant::now();
            loop {
                let count = stream.read(&mut buffer)?;
                if count == 0 {
                    break;
                }
                if checksum {
                    black_box(crc32c(&buffer[..count]));
                }
                segment.append(&buffer[..count])?;
                received += count as u64;
                if mark.is_none() && begin.elapsed() >= warm_up {
                    (mark, from) = (Some(received), Instant::now());
                }
            }
            let after_warm_up = received - mark.unwrap_or(received);
            if after_warm_up == 0 {
                return Ok(received as f64 / begin.elapsed().as_secs_f64());
            }
            Ok(after_warm_up as f64 / from.elapsed().as_secs_f64())
        };
        let client = move |mut stream: TcpStream| -> Result<f64> {
            let frame = vec![7u8; size];
            let begin = Instant::now();
            loop {
                stream.write_all(&frame)?;
                if begin.elapsed() >= each + warm_up {
                    return Ok(0.0);
                }
            }
        };
        Ok(self.pair(serve, client)?.0)
    }

    fn ping_pong(&self) -> Result<(f64, f64)> {
        let each = self.each;
        let serve = |mut stream: TcpStream| -> Result<(f64, f64)> {
            let mut buffer = [0u8; 100];
            while stream.read_exact(&mut buffer).is_ok() {
                stream.write_all(&buffer)?;
            }
            Ok((0.0, 0.0))
        };
        let client = move |mut stream: TcpStream| -> Result<(f64, f64)> {
            let mut buffer = [7u8; 100];
            let mut trips = crate::recorder::histogram();
            let begin = Instant::now();
            while trips.is_empty() || begin.elapsed() < each {
                let sent = Instant::now();
                stream.write_all(&buffer)?;
                stream.read_exact(&mut buffer)?;
                let _ = trips.record(sent.elapsed().as_nanos() as u64);
            }
            let rate = trips.len() as f64 / begin.elapsed().as_secs_f64();
            Ok((rate, trips.value_at_quantile(0.5) as f64 / 1e3))
        };
        Ok(self.pair(serve, client)?.1)
    }

    /// The client asks, the server answers with the next `size` bytes of a file in the page cache. Enough is in flight
    /// that neither side sleeps between two replies.
    fn sendfile(&self, size: usize, send_buffer: usize) -> Result<f64> {
        let (each, dir) = (self.each, self.dir);
        let ahead = ((1 << 18) / size).max(1);
        let serve = move |mut stream: TcpStream| -> Result<f64> {
            if send_buffer > 0 {
                setsockopt(&stream, sockopt::SndBuf, &send_buffer)?;
            }
            let file = Segment::open(dir, Append::Recycled)?.file;
            let (mut request, mut position) = ([0u8; 64], 0i64);
            while stream.read_exact(&mut request).is_ok() {
                if position + size as i64 > SEGMENT_SIZE as i64 {
                    position = 0;
                }
                let end = position + size as i64;
                while position < end {
                    let left = (end - position) as usize;
                    sendfile64(&stream, &file, Some(&mut position), left)?;
                }
            }
            Ok(0.0)
        };
        let client = move |mut stream: TcpStream| -> Result<f64> {
            let request = [7u8; 64];
            let mut buffer = vec![0u8; size];
            let mut received = 0u64;
            for _ in 0..ahead {
                stream.write_all(&request)?;
            }
            let begin = Instant::now();
            while received == 0 || begin.elapsed() < each {
                stream.write_all(&request)?;
                stream.read_exact(&mut buffer)?;
                received += size as u64;
            }
            let rate = received as f64 / begin.elapsed().as_secs_f64();
            for _ in 0..ahead {
                stream.read_exact(&mut buffer)?;
            }
            Ok(rate)
        };
        Ok(self.pair(serve, client)?.1)
    }

    fn fdatasync(&self) -> Result<(f64, f64)> {
        let segment = Segment::open(self.dir, Append::Fresh)?;
        let block = [7u8; 4096];
        let mut syncs = crate::recorder::histogram();
        let begin = Instant::now();
        let mut position = 0;
        while syncs.is_empty() || begin.elapsed() < self.each && syncs.len() < 10_000 {
            segment.file.write_all_at(&block, position)?;
            position += block.len() as u64;
            let from = Instant::now();
            segment.file.sync_data().context("fdatasync")?;
            let _ = syncs.record(from.elapsed().as_nanos() as u64);
        }
        let us = |q: f64| syncs.value_at_quantile(q) as f64 / 1e3;
        Ok((us(0.5), us(0.99)))
    }
}

/// A file that is appended to; at its end either a new one begins, or the same pages are written again.
struct Segment<'a> {
    dir: &'a Path,
    file: File,
    position: u64,
    append: Append,
}

impl<'a> Segment<'a> {
    fn open(dir: &'a Path, append: Append) -> Result<Self> {
        let file = Self::create(dir)?;
        if append == Append::Recycled {
            let block = vec![7u8; 1 << 20];
            for i in 0..SEGMENT_SIZE >> 20 {
                file.write_all_at(&block, i << 20).context("write a segment; is the disk full?")?;
            }
        }
        Ok(Segment { dir, file, position: 0, append })
    }

    /// The name is removed at once: nothing is left behind, whatever happens.
    fn create(dir: &Path) -> Result<File> {
        let path = dir.join("ceiling.segment");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path);
        let file = file.with_context(|| format!("create {}", path.display()))?;
        std::fs::remove_file(&path)?;
        Ok(file)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if self.append == Append::No {
            return Ok(());
        }
        if self.position + bytes.len() as u64 > SEGMENT_SIZE {
            if self.append == Append::Fresh {
                self.file = Self::create(self.dir)?;
            }
            self.position = 0;
        }
        self.file.write_all_at(bytes, self.position).context("write a segment; is the disk full?")?;
        self.position += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loop_yields_a_figure() {
        let dir = tempfile::tempdir().unwrap();
        let core = machine::allowed_cores()[0];
        let ceiling = measure(core, core, Duration::from_millis(20), dir.path(), |_| {}).unwrap();
        assert!(ceiling.figures.iter().all(|f| f.value > 0.0), "{ceiling:?}");
        assert_eq!(ceiling.nearest("sendfile", 20_000.0).unwrap().size, Some(16 << 10));
        assert_eq!(ceiling.nearest("receive_crc_append", 1e6).unwrap().size, Some(900_000));
    }
}
