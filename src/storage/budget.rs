//! What a piece of work may still cost, in nanoseconds, reckoned for a slow core: the work knows no clock.

use crate::wire::batch::Codec;
use crate::wire::compression::PIECE_SIZE;

/// Spent by what is done, piece by piece. Below zero by one piece at most.
#[derive(Debug, Default)]
pub struct Budget(pub(super) i64);

/// Nanoseconds for one record and one look into compaction's map, which mostly misses the cache.
const RECORD_NS: i64 = 120;
/// Nanoseconds per KiB to read and check.
pub const READ_NS: i64 = 250;

impl Budget {
    pub fn new(ns: i64) -> Budget {
        Budget(ns)
    }
    pub fn is_spent(&self) -> bool {
        self.0 <= 0
    }
    pub fn spend(&mut self, bytes: usize, ns_per_kib: i64) {
        self.0 -= bytes as i64 * ns_per_kib / 1024;
    }
    pub fn spend_ns(&mut self, ns: i64) {
        self.0 -= ns;
    }
    pub fn spend_record(&mut self) {
        self.0 -= RECORD_NS;
    }
}

/// Decompressed at once, and nanoseconds per KiB of records.
pub fn decompress_cost(codec: Codec) -> (usize, i64) {
    match codec {
        Codec::None => (usize::MAX, 0),
        Codec::Gzip => (16 << 10, 2_500),
        Codec::Snappy => (PIECE_SIZE, 1_200),
        Codec::Lz4 => (64 << 10, 1_000),
        Codec::Zstd => (32 << 10, 1_500),
    }
}

/// Compressed at once, and nanoseconds per KiB of records.
pub fn compress_cost(codec: Codec) -> (usize, i64) {
    match codec {
        Codec::None => (256 << 10, 150),
        Codec::Gzip => (4 << 10, 16_000),
        Codec::Snappy => (PIECE_SIZE, 3_000),
        Codec::Lz4 => (PIECE_SIZE, 3_000),
        Codec::Zstd => (8 << 10, 6_000),
    }
}
