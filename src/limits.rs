//! Every bound in one place, with the relations between them checked by the compiler. Sizes in bytes.

/// Fixed part of a record batch v2 (magic 2), before its records.
pub const BATCH_HEADER_SIZE: usize = 61;
/// Kafka's default of `socket.request.max.bytes`.
pub const REQUEST_SIZE_MAX: usize = 100 * 1024 * 1024;
/// A frame shorter than this is received into a small shared buffer in one go.
pub const SMALL_BUFFER_SIZE: usize = 16 * 1024;
/// How much is reserved for a large frame before its bytes have come: a peer's word is not enough to reserve more.
pub const FRAME_RESERVE_MAX: usize = 1024 * 1024;
/// Requests of one connection that are accepted but not answered; more are not read until some are.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 128;
/// Bytes of replies that wait for one slow reader; above it, nothing more is read from that connection.
pub const SEND_BACKLOG_MAX: u64 = 4 * 1024 * 1024;
/// Memory of encoded replies that the peers of one shard have not taken, all together.
pub const REPLIES_SIZE_MAX: usize = 128 * 1024 * 1024;
/// Partitions that the parked fetches of one shard name, all together; a fetch of few is parked all the same.
pub const PARKED_PARTITIONS_MAX: usize = 1_000_000;
/// That few.
pub const PARKED_PARTITIONS_FEW: usize = 64;
/// Partitions that the fetch sessions of one shard follow, all together.
pub const FOLLOWED_PARTITIONS_MAX: usize = 1_000_000;
/// Settings that one DescribeConfigs reply tells: a resource takes few bytes to ask for, and tens of kilobytes to describe.
pub const DESCRIBED_SETTINGS_MAX: usize = 500_000;
/// Bytes that one batch may have after decompression, where its records must be looked at.
pub const DECOMPRESSED_SIZE_MAX: usize = 64 * 1024 * 1024;
/// Batches that `compression.type` has made anew, before what is staged is written: a small request can become large ones.
pub const REENCODED_SIZE_MAX: usize = 8 * 1024 * 1024;
/// Records of a refused batch that are blamed with words of their own; the rest by their numbers only.
pub const RECORD_ERROR_MESSAGES_MAX: usize = 1000;
/// What all consumer groups of one shard may hold together: members, assignments, offsets.
pub const GROUP_BYTES_MAX: usize = 256 * 1024 * 1024;

const _: () = assert!(SMALL_BUFFER_SIZE < FRAME_RESERVE_MAX && FRAME_RESERVE_MAX < REQUEST_SIZE_MAX);
