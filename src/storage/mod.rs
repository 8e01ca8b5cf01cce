//! One partition = one directory, laid out as Apache Kafka does (docs/formats): segments named by the offset of
//! their first record, each with two sparse indexes beside it. Indexes, snapshots and checkpoints are derived data:
//! the `.log` files alone are the truth. Of `io`, only `io::disk` is used; nothing here reads a clock.

use std::io;
use std::path::{Path, PathBuf};

use crate::ids::{Offset, Position};

pub mod checkpoint;
mod durability;
mod header;
pub mod leader_epochs;
pub mod log;
pub mod log_config;
mod lookup;
mod offset_index;
pub mod producer_state;
mod recover;
mod retain;
mod roll;
mod segment;
mod time_index;

pub use log::{FlushInfo, Log, RecoveryReport, StagedBatch, Start};
pub use log_config::LogConfig;
pub use lookup::{ResolveError, Resolved};
pub use producer_state::{ProducerStamp, SequenceCheck};

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

/// The offset and the suffix of a file name such as `00000000000000000042.log`.
pub fn parse_file_name(name: &str) -> Option<(Offset, &str)> {
    let (digits, suffix) = name.split_once('.')?;
    if digits.len() != 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((Offset(digits.parse().ok()?), suffix))
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
    /// An earlier failure made this log's state unknown.
    #[error("the log in {} failed before; restart the broker once the disk is sound again", path.display())]
    Failed { path: PathBuf },
}

impl StorageError {
    /// Is the device full? The log is sound then, and takes appends again once there is space.
    pub fn is_full(&self) -> bool {
        matches!(self, StorageError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull)
    }
}

/// Attaches what was tried, and on what, to an I/O error.
pub(crate) fn failed<'a>(operation: &'static str, path: &'a Path) -> impl Fn(io::Error) -> StorageError + 'a {
    move |source| StorageError::Io { operation, path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

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
