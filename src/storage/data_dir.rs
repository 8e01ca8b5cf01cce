//! What the data directory says of all its logs (docs/formats/checkpoints.md): the mark of a clean stop and Apache Kafka's
//! checkpoint files. Read before the shards open their logs, written when all have closed them; the shards themselves
//! never touch these files. The control thread takes a topic out of them before it makes a new one of that name.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::checkpoint::{self, Offsets};
use super::roll::ClosedLog;
use super::{Start, directory_name, read_text};
use crate::ids::{Offset, TopicId};
use crate::io::disk::{Disk, Job};

/// Left by a clean stop, removed at start.
pub const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
/// Kafka's form of the mark, version 0; we have no broker epoch to note.
const CLEAN_SHUTDOWN_TEXT: &str = "{\"version\":0,\"brokerEpoch\":-1}";

const FILES: [&str; 4] =
    [checkpoint::RECOVERY_POINTS, checkpoint::HIGH_WATERMARKS, checkpoint::LOG_STARTS, checkpoint::CLEANER_POINTS];

/// A log that was closed in good order.
#[derive(Clone, Debug)]
pub struct ClosedPartition {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub index: i32,
    /// What it contributes to the checkpoints.
    pub log: ClosedLog,
}

/// A checkpoint file, or the mark, that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {error}")]
pub struct CheckpointError {
    name: &'static str,
    error: io::Error,
}

/// The checkpoints as found at start. The default knows nothing: every log is scanned from its own checkpoint, or whole.
#[derive(Clone, Debug, Default)]
pub struct Checkpoints {
    clean: bool,
    recovery_points: Offsets,
    log_starts: Offsets,
    cleaner_points: Offsets,
}

impl Checkpoints {
    /// Reads the checkpoints and takes the mark of a clean stop away: from here on a crash is unclean.
    pub fn take(disk: &mut dyn Disk) -> Result<Checkpoints, CheckpointError> {
        let clean = match disk.read_file(Path::new(CLEAN_SHUTDOWN)) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(failed(CLEAN_SHUTDOWN, error)),
        };
        if clean {
            let removed = disk.run(Job::Remove { path: CLEAN_SHUTDOWN.into() });
            removed.map_err(|error| failed(CLEAN_SHUTDOWN, error))?;
        }
        let mut offsets = |name: &'static str| {
            let read = read(disk, name)?;
            if read.is_none() {
                log::warn!("{name} is damaged; logs are checked from their own checkpoints");
            }
            Ok(read.unwrap_or_default())
        };
        let (recovery_points, log_starts) = (offsets(checkpoint::RECOVERY_POINTS)?, offsets(checkpoint::LOG_STARTS)?);
        let cleaner_points = offsets(checkpoint::CLEANER_POINTS)?;
        Ok(Checkpoints { clean, recovery_points, log_starts, cleaner_points })
    }

    /// Topics that the files tell of.
    pub fn topics(disk: &mut dyn Disk) -> Result<BTreeSet<String>, CheckpointError> {
        let mut topics = BTreeSet::new();
        for name in FILES {
            topics.extend(read(disk, name)?.unwrap_or_default().into_keys().map(|(topic, _)| topic));
        }
        Ok(topics)
    }

    /// Takes topics out of the files, before there are new ones of these names: after a crash the new ones would be taken for
    /// the old, and records that begin at 0 for deleted.
    pub fn forget(disk: &mut dyn Disk, topics: &BTreeSet<String>) -> Result<(), CheckpointError> {
        for name in FILES {
            let mut offsets = read(disk, name)?.unwrap_or_default();
            let before = offsets.len();
            offsets.retain(|(topic, _), _| !topics.contains(topic));
            if offsets.len() < before {
                replace(disk, name, &offsets)?;
            }
        }
        Ok(())
    }

    /// What is known of a log before its directory is looked at.
    pub fn start(&self, topic_id: TopicId, topic: &str, index: i32) -> Start {
        let key = (topic.to_string(), index);
        Start {
            topic_id,
            log_start: self.log_starts.get(&key).copied(),
            recovery_point: self.recovery_points.get(&key).copied().unwrap_or(Offset(0)),
            cleaned: self.cleaner_points.get(&key).copied(),
            clean: self.clean,
            leader_epoch: None,
        }
    }

    /// Writes the checkpoints of a clean stop, and its mark last. Before them the logs are made durable that are not yet.
    pub fn write(disk: &mut dyn Disk, closed: &[ClosedPartition]) -> Result<(), CheckpointError> {
        let not_durable = closed.iter().filter(|c| !c.log.durable);
        let dirs: Vec<_> = not_durable.map(|c| directory_name(&c.topic, c.index).into()).collect();
        if !dirs.is_empty() {
            disk.run(Job::SyncFileSystems { dirs }).map_err(|error| failed("syncing the logs", error))?;
        }
        let key = |c: &ClosedPartition| (c.topic.clone(), c.index);
        let ends: Offsets = closed.iter().map(|c| (key(c), c.log.recovery_point)).collect();
        let starts: Offsets = closed.iter().filter_map(|c| Some((key(c), c.log.log_start_offset?))).collect();
        let cleaned: Offsets = closed.iter().filter_map(|c| Some((key(c), c.log.cleaned?))).collect();
        for (name, offsets) in [
            (checkpoint::RECOVERY_POINTS, &ends),
            (checkpoint::HIGH_WATERMARKS, &ends),
            (checkpoint::LOG_STARTS, &starts),
            (checkpoint::CLEANER_POINTS, &cleaned),
        ] {
            replace(disk, name, offsets)?;
        }
        // Only now: a stop that fails before, on a full disk say, must not forget which records were deleted.
        for ClosedPartition { topic, index, .. } in closed {
            let path = Path::new(&directory_name(topic, *index)).join(checkpoint::PARTITION_FILE_NAME);
            let removed = disk.run(Job::Remove { path });
            removed.map_err(|error| failed(checkpoint::PARTITION_FILE_NAME, error))?;
        }
        let bytes = CLEAN_SHUTDOWN_TEXT.as_bytes().to_vec();
        let marked = disk.run(Job::Replace { path: CLEAN_SHUTDOWN.into(), bytes, sync: true });
        marked.map_err(|error| failed(CLEAN_SHUTDOWN, error))
    }
}

/// A file that is not there tells of nothing. `None`: damaged.
fn read(disk: &mut dyn Disk, name: &'static str) -> Result<Option<Offsets>, CheckpointError> {
    match read_text(disk, Path::new(name)) {
        Ok(text) => Ok(text.as_deref().and_then(checkpoint::decode)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(Offsets::new())),
        Err(error) => Err(failed(name, error)),
    }
}

fn replace(disk: &mut dyn Disk, name: &'static str, offsets: &Offsets) -> Result<(), CheckpointError> {
    let bytes = checkpoint::encode(offsets).into_bytes();
    disk.run(Job::Replace { path: name.into(), bytes, sync: true }).map_err(|error| failed(name, error))
}

fn failed(name: &'static str, error: io::Error) -> CheckpointError {
    CheckpointError { name, error }
}
