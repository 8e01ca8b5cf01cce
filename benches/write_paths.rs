//! What an append costs: `pwritev` inline against a write through the ring, into pages that must be allocated (fresh)
//! and into pages that are in the page cache (recycled). Files lie in the build directory: it has to be on a real disk.

use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::path::Path;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use io_uring::{IoUring, opcode, types};
use ringlane::ids::Position;
use ringlane::io::disk::{Disk, Job};
use ringlane::io::{Settings, Uring};

const SEGMENT_SIZE: u64 = 64 * 1024 * 1024;

/// Walks through a segment; what happens at its end tells fresh from recycled.
struct Cursor {
    position: u64,
}

impl Cursor {
    fn next(&mut self, size: usize, at_end: impl FnOnce()) -> u64 {
        if self.position + size as u64 > SEGMENT_SIZE {
            self.position = 0;
            at_end();
        }
        self.position += size as u64;
        self.position - size as u64
    }
}

fn write_paths(c: &mut Criterion) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("directory");
    let mut disk = Uring::new(directory.path(), Settings::default()).expect("ring");
    let mut group = c.benchmark_group("append");
    for size in [4_096, 16_384, 65_536, 900_000] {
        let bytes = vec![7u8; size];
        group.throughput(Throughput::Bytes(size as u64));
        for fresh in [true, false] {
            let kind = if fresh { "fresh" } else { "recycled" };
            let file = disk.open(Path::new(&format!("{kind}-{size}")), true).expect("open");
            if !fresh {
                // All pages are there, as in a segment that was retired.
                let block = vec![0; 1 << 20];
                for i in 0..SEGMENT_SIZE >> 20 {
                    disk.write(&file, Position(i << 20), &[IoSlice::new(&block)]).expect("write");
                }
            }
            let renew = |disk: &mut Uring| {
                if fresh {
                    disk.run(Job::Truncate { file: file.clone(), size: 0 }).expect("truncate");
                }
            };
            renew(&mut disk);
            let mut cursor = Cursor { position: 0 };
            group.bench_function(BenchmarkId::new(format!("{kind}/pwritev inline"), size), |b| {
                b.iter(|| {
                    let position = cursor.next(size, || renew(&mut disk));
                    disk.write(&file, Position(position), &[IoSlice::new(&bytes)]).expect("write");
                })
            });
            renew(&mut disk);
            let mut ring: IoUring =
                IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(8).expect("ring");
            let mut cursor = Cursor { position: 0 };
            group.bench_function(BenchmarkId::new(format!("{kind}/write by the ring"), size), |b| {
                b.iter(|| {
                    let position = cursor.next(size, || renew(&mut disk));
                    let entry =
                        opcode::Write::new(types::Fd(file.handle), bytes.as_ptr(), size as u32).offset(position);
                    // SAFETY: `bytes` lives until the completion, which is awaited here.
                    unsafe { ring.submission().push(&entry.build()).expect("room") };
                    ring.submit_and_wait(1).expect("enter");
                    let done = ring.completion().next().expect("a completion");
                    assert_eq!(done.result(), size as i32);
                })
            });
            disk.run(Job::Close { file }).expect("close");
            assert!(ring.as_raw_fd() >= 0);
        }
    }
    group.finish();
}

criterion_group!(benches, write_paths);
criterion_main!(benches);
