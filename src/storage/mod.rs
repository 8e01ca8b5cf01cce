//! One partition = one directory, laid out as Apache Kafka does (docs/formats): segments named by the offset of
//! their first record, each with two sparse indexes beside it. Indexes, snapshots and checkpoints are derived data:
//! the `.log` files alone are the truth. Of `io`, only `io::disk` is used; nothing here reads a clock.

use std::io;
use std::path::{Path, PathBuf};

use crate::ids::{Offset, Position, TopicId};
use crate::io::disk::{Disk, is_full};
use crate::wire::ErrorCode;

mod budget;
pub mod checkpoint;
mod clean_batch;
mod clean_input;
mod clean_output;
mod cleaner;
mod compact;
pub mod data_dir;
mod durability;
mod header;
mod key_map;
pub mod leader_epochs;
pub mod log;
pub mod log_config;
mod lookup;
mod offset_index;
pub mod producer_state;
mod record_search;
mod recover;
mod recover_recycled;
mod retain;
mod roll;
mod scan;
mod segment;
mod settle;
mod swaps;
mod time_index;
mod zero_tail;

pub use budget::{Budget, compress_cost, decompress_cost};
pub use cleaner::{Cleaned, Cleaning};
pub use log::{FlushInfo, Log, RecoveryReport, StagedBatch, Start};
pub use log_config::LogConfig;
pub use lookup::{BatchLookup, ResolveError, Resolved};
pub use producer_state::{ProducerStamp, SequenceCheck};
pub use record_search::{FoundOffset, RecordSearch, SearchError, Searched};
pub use roll::ClosedLog;

/// Suffix of the records themselves.
pub const LOG: &str = "log";
/// Suffix of the sparse offset index.
pub const OFFSET_INDEX: &str = "index";
/// Suffix of the sparse time index.
pub const TIME_INDEX: &str = "timeindex";
/// Suffix of the aborted-transaction index (only ever read from Apache Kafka's directories).
pub const TXN_INDEX: &str = "txnindex";
/// Suffix of a producer snapshot.
pub const SNAPSHOT: &str = "snapshot";

/// `<dir>/<base offset, 20 digits>.<suffix>`.
pub fn file_path(dir: &Path, base_offset: Offset, suffix: &str) -> PathBuf {
    dir.join(format!("{:020}.{suffix}", base_offset.0))
}

/// `<dir>/<base>.<end>.swap`: a compacted segment that takes the place of all segments in `base..end`.
pub(crate) fn swap_path(dir: &Path, base: Offset, end: Offset) -> PathBuf {
    dir.join(format!("{:020}.{:020}.swap", base.0, end.0))
}

/// The offset and the suffix of a file name such as `00000000000000000042.log`.
pub fn parse_file_name(name: &str) -> Option<(Offset, &str)> {
    let (digits, suffix) = name.split_once('.')?;
    if digits.len() != 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((Offset(digits.parse().ok()?), suffix))
}

/// Longest name of a file or directory on Linux.
const NAME_MAX: usize = 255;

/// Name of a partition's directory.
pub fn directory_name(topic: &str, partition: i32) -> String {
    format!("{topic}-{partition}")
}

/// What a partition's directory is named when it is nobody's any more:
/// `<topic>-<partition>.<mark>`, with as much of the topic's name as there is room for.
pub fn set_aside_name(directory: &str, mark: &str) -> PathBuf {
    let (topic, partition) = directory.rsplit_once('-').unwrap_or((directory, ""));
    let end = format!("-{partition}.{mark}");
    let mut name: String = topic.chars().take(NAME_MAX.saturating_sub(end.len())).collect();
    name.push_str(&end);
    name.into()
}

/// File that says which topic a directory belongs to.
pub const METADATA_FILE_NAME: &str = "partition.metadata";

/// The text of `partition.metadata`.
pub fn encode_metadata(topic_id: TopicId) -> String {
    format!("version: 0\ntopic_id: {}", encode_uuid(topic_id))
}

/// Reads `partition.metadata`. `None`: damaged.
pub fn decode_metadata(text: &str) -> Option<TopicId> {
    let mut lines = text.lines();
    lines.next()?.strip_prefix("version:").filter(|version| version.trim() == "0")?;
    decode_uuid(lines.next()?.strip_prefix("topic_id:")?.trim())
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A UUID as Kafka writes it: 22 characters of URL-safe base64 without padding.
pub fn encode_uuid(id: TopicId) -> String {
    let bits = id.as_u128();
    // 128 bits and four zeros behind them.
    (0..22)
        .map(|i| if i < 21 { bits >> (122 - 6 * i) } else { bits << 4 })
        .map(|v| BASE64[(v & 63) as usize] as char)
        .collect()
}

/// Reads a UUID as Kafka writes it.
pub fn decode_uuid(text: &str) -> Option<TopicId> {
    if text.len() != 22 {
        return None;
    }
    let mut bits = 0u128;
    for (i, byte) in text.bytes().enumerate() {
        let digit = BASE64.iter().position(|b| *b == byte)? as u128;
        bits = if i < 21 { bits << 6 | digit } else { bits << 2 | digit >> 4 };
    }
    Some(TopicId::from_u128(bits))
}

/// The disk failed this log: its partition goes offline (KAFKA_STORAGE_ERROR), the shard lives.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A call or job failed.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    /// Bytes that were checked when they were written are not what they were.
    #[error("{} is damaged at position {position}: {reason}", path.display())]
    Corrupt { path: PathBuf, position: Position, reason: &'static str },
    /// The disk has not given a recycled file its name for so long that the segment took all it can.
    #[error("the active segment in {} still waits for its name", path.display())]
    Unnamed { path: PathBuf },
    /// An earlier failure made this log's state unknown.
    #[error("the log in {} failed before; restart the broker once the disk is sound again", path.display())]
    Failed { path: PathBuf },
}

impl StorageError {
    /// What a reader is told: one that hears of a storage error waits for another leader, and there is none.
    pub fn code(&self) -> ErrorCode {
        match self {
            StorageError::Corrupt { .. } => ErrorCode::CorruptMessage,
            _ => ErrorCode::KafkaStorageError,
        }
    }

    /// Is the device full, or slow beyond measure? The log is sound then, and takes appends again once that is over.
    pub fn is_passing(&self) -> bool {
        match self {
            StorageError::Io { source, .. } => is_full(source),
            StorageError::Unnamed { .. } => true,
            StorageError::Corrupt { .. } | StorageError::Failed { .. } => false,
        }
    }
}

/// A small file of text, if it is as it was written. `None`: it is damaged.
pub(crate) fn read_text(disk: &mut dyn Disk, path: &Path) -> io::Result<Option<String>> {
    Ok(disk.read_written(path)?.and_then(|bytes| String::from_utf8(bytes).ok()))
}

/// Attaches what was tried, and on what, to an I/O error.
pub(crate) fn failed<'a>(operation: &'static str, path: &'a Path) -> impl Fn(io::Error) -> StorageError + 'a {
    move |source| StorageError::Io { operation, path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_round_trips_as_kafka_writes_it() {
        // Kafka's Uuid.METADATA_TOPIC_ID is (0, 1).
        assert_eq!(encode_uuid(TopicId::from_u128(1)), "AAAAAAAAAAAAAAAAAAAAAQ");
        let id = TopicId::from_u128(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210);
        assert_eq!(encode_uuid(id), "ASNFZ4mrze_-3LqYdlQyEA");
        assert_eq!(decode_metadata(&encode_metadata(id)), Some(id));
        assert_eq!(decode_metadata("version: 1\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ"), None);
        assert_eq!(decode_uuid("AAAAAAAAAAAAAAAAAAAAA="), None);
    }

    #[test]
    fn a_directory_set_aside_has_a_name_that_fits() {
        assert_eq!(set_aside_name("a-b-12", "0123-delete"), Path::new("a-b-12.0123-delete"));
        let long = "t".repeat(249);
        let aside = set_aside_name(&format!("{long}-12"), &format!("{}-delete", "0".repeat(32)));
        assert_eq!(aside.as_os_str().len(), NAME_MAX);
        assert!(aside.to_str().unwrap().ends_with("tt-12.00000000000000000000000000000000-delete"));
    }

    #[test]
    fn file_names_round_trip() {
        let path = file_path(Path::new("t-0"), Offset(42), LOG);
        assert_eq!(path, Path::new("t-0/00000000000000000042.log"));
        assert_eq!(parse_file_name("00000000000000000042.log"), Some((Offset(42), "log")));
        assert_eq!(parse_file_name("00000000000000000042.log.deleted"), Some((Offset(42), "log.deleted")));
        for bad in ["42.log", "leader-epoch-checkpoint", "0000000000000000004x.log", "99999999999999999999.log"] {
            assert_eq!(parse_file_name(bad), None, "{bad}");
        }
    }
}
