//! Small text files that hold offsets (docs/formats/checkpoints.md). Apache Kafka's three live in the data directory, hold all partitions and are written at
//! a clean stop; `partition.checkpoint` is ours, lives beside the segments, and holds while the broker runs.

use std::collections::BTreeMap;

use crate::ids::Offset;

/// Everything before these offsets is on the device.
pub const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
/// Records before these offsets were deleted.
pub const LOG_STARTS: &str = "log-start-offset-checkpoint";
/// High watermarks.
pub const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";
/// Compaction has cleaned up to these offsets.
pub const CLEANER_POINTS: &str = "cleaner-offset-checkpoint";

/// Topic and partition -> offset, as in Kafka's checkpoint files.
pub type Offsets = BTreeMap<(String, i32), Offset>;

/// The text of a checkpoint file: version, count, then `topic partition offset` a line.
pub fn encode(offsets: &Offsets) -> String {
    let mut text = format!("0\n{}\n", offsets.len());
    for ((topic, partition), offset) in offsets {
        text.push_str(&format!("{topic} {partition} {offset}\n"));
    }
    text
}

/// Reads a checkpoint file. `None`: damaged.
pub fn decode(text: &str) -> Option<Offsets> {
    let mut lines = text.lines();
    if lines.next()?.trim() != "0" {
        return None;
    }
    let count: usize = lines.next()?.trim().parse().ok()?;
    let mut offsets = Offsets::new();
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let mut words = line.split_whitespace();
        let topic = words.next()?.to_string();
        let partition = words.next()?.parse().ok()?;
        offsets.insert((topic, partition), Offset(words.next()?.parse().ok()?));
    }
    (offsets.len() == count).then_some(offsets)
}

/// File name of our own checkpoint, in the partition's directory. It is removed at a clean stop: if it is there,
/// the partition was last run by us, and not stopped in good order.
pub const PARTITION_FILE_NAME: &str = "partition.checkpoint";

/// What one partition notes while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionCheckpoint {
    /// Recovery scans from here.
    pub recovery_point: Offset,
    /// Records before this were deleted.
    pub log_start_offset: Offset,
    /// Files of retired segments are used again: recovery must not trust a file for its name, nor a batch for its checksum.
    pub recycling: bool,
    /// Compaction has cleaned up to here.
    pub cleaned: Option<Offset>,
}

impl PartitionCheckpoint {
    /// The file's text.
    pub fn encode(&self) -> String {
        format!(
            "0\nrecovery_point {}\nlog_start_offset {}\nrecycling {}\ncleaned {}\n",
            self.recovery_point,
            self.log_start_offset,
            self.recycling,
            self.cleaned.map_or(-1, |o| o.0)
        )
    }
    /// Reads the file's text. `None`: damaged.
    pub fn decode(text: &str) -> Option<PartitionCheckpoint> {
        let mut lines = text.lines();
        if lines.next()?.trim() != "0" {
            return None;
        }
        let mut value = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ').map(str::to_string);
        let recovery_point = Offset(value("recovery_point")?.parse().ok()?);
        let log_start_offset = Offset(value("log_start_offset")?.parse().ok()?);
        let recycling = value("recycling")?.parse().ok()?;
        let cleaned: i64 = value("cleaned")?.parse().ok()?;
        let cleaned = (cleaned >= 0).then_some(Offset(cleaned));
        Some(PartitionCheckpoint { recovery_point, log_start_offset, recycling, cleaned })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kafkas_file_round_trips() {
        let text = "0\n2\na.b 0 17\nt 12 0\n";
        let offsets = decode(text).unwrap();
        assert_eq!(offsets[&("a.b".to_string(), 0)], Offset(17));
        assert_eq!(encode(&offsets), text);
        for bad in ["", "1\n0\n", "0\n2\nt 1 1\n", "0\n1\nt x 1\n", "0\n1\nt 1\n"] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn our_file_round_trips() {
        let note = PartitionCheckpoint {
            recovery_point: Offset(5),
            log_start_offset: Offset(2),
            recycling: true,
            cleaned: Some(Offset(4)),
        };
        assert_eq!(PartitionCheckpoint::decode(&note.encode()), Some(note));
        let text = note.encode();
        for cut in 0..text.len() - 2 {
            assert_eq!(PartitionCheckpoint::decode(&text[..cut]), None, "cut at {cut}");
        }
    }
}
