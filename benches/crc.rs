//! CRC32C of record batches: the two crates that could do it, at the sizes batches have.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

fn crc(c: &mut Criterion) {
    let mut group = c.benchmark_group("crc32c");
    for size in [100, 1_000, 16_384, 65_536, 900_000] {
        let bytes: Vec<u8> = (0..size).map(|i| (i * 31) as u8).collect();
        assert_eq!(
            u64::from(crc32c::crc32c(&bytes)),
            crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes),
            "both compute the same"
        );
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(BenchmarkId::new("crc32c", size), &bytes, |b, bytes| {
            b.iter(|| crc32c::crc32c(black_box(bytes)))
        });
        group.bench_with_input(BenchmarkId::new("crc-fast", size), &bytes, |b, bytes| {
            b.iter(|| crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, black_box(bytes)))
        });
    }
    group.finish();
}

criterion_group!(benches, crc);
criterion_main!(benches);
