//! What a partition's directory holds when its log is opened, after what compaction left half done is ended: a swap that was
//! past its point of no return takes its place, anything before that is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::checkpoint::PARTITION_FILE_NAME;
use super::scan::{Scan, Verdict};
use super::{LOG, OFFSET_INDEX, SNAPSHOT, StorageError, TIME_INDEX, failed, file_path, parse_file_name};
use crate::ids::Offset;
use crate::io::disk::{Disk, Entry, Job};

/// What a partition's directory holds.
#[derive(Default)]
pub(super) struct Directory {
    pub logs: BTreeMap<Offset, u64>,
    pub indexes: BTreeSet<Offset>,
    pub time_indexes: BTreeSet<Offset>,
    pub snapshots: BTreeSet<Offset>,
    pub note: bool,
    /// Compacted segments that were being put in the place of others: file name, base, first offset behind (`None`: not known).
    swaps: Vec<(String, Offset, Option<Offset>)>,
}

impl Directory {
    /// Sorts names into kinds; removes what a broker that is gone did not finish.
    pub fn read(disk: &mut dyn Disk, dir: &Path, entries: Vec<Entry>) -> Result<Directory, StorageError> {
        let mut found = Directory::default();
        for entry in entries.into_iter().filter(|e| !e.is_dir) {
            let unfinished = [".deleted", ".cleaned", ".tmp"].iter().any(|suffix| entry.name.ends_with(suffix));
            if unfinished {
                remove(disk, &dir.join(&entry.name))?;
                continue;
            }
            if let Some(stem) = entry.name.strip_suffix(".swap") {
                match parse_file_name(stem) {
                    Some((base, LOG)) => found.swaps.push((entry.name, base, None)),
                    Some((base, end)) if end.len() == 20 && end.parse::<i64>().is_ok() => {
                        let end = end.parse().map(Offset).ok();
                        found.swaps.push((entry.name, base, end));
                    }
                    // Apache Kafka's indexes of a swapped segment: made anew.
                    _ => remove(disk, &dir.join(&entry.name))?,
                }
                continue;
            }
            found.note |= entry.name == PARTITION_FILE_NAME;
            match parse_file_name(&entry.name) {
                Some((base, LOG)) => drop(found.logs.insert(base, entry.size)),
                Some((base, OFFSET_INDEX)) => drop(found.indexes.insert(base)),
                Some((base, TIME_INDEX)) => drop(found.time_indexes.insert(base)),
                Some((base, SNAPSHOT)) => drop(found.snapshots.insert(base)),
                _ => {}
            }
        }
        found.end_swaps(disk, dir)?;
        for (bases, suffix) in [(&found.indexes, OFFSET_INDEX), (&found.time_indexes, TIME_INDEX)] {
            for base in bases.iter().filter(|base| !found.logs.contains_key(base)) {
                remove(disk, &file_path(dir, *base, suffix))?;
            }
        }
        Ok(found)
    }

    /// Ends swaps of compacted segments that were past the point of no return: what they replace goes, then they get their name.
    fn end_swaps(&mut self, disk: &mut dyn Disk, dir: &Path) -> Result<(), StorageError> {
        for (name, base, end) in std::mem::take(&mut self.swaps) {
            let from = dir.join(&name);
            let file = disk.open(&from, false).map_err(failed("open", &from))?;
            let size = disk.size(&file).map_err(failed("read", &from))?;
            let mut next = base + 1;
            let scan = &mut Scan::headers(0, u32::try_from(size).unwrap_or(u32::MAX));
            let walked = scan.run(disk, &file, |_, header, _| {
                next = header.last_offset + 1;
                Verdict::Good
            });
            walked.map_err(failed("read", &from))?;
            disk.run(Job::Close { file }).map_err(failed("close", &from))?;
            let replaced: Vec<Offset> =
                self.logs.range(base + 1..end.unwrap_or(next).max(base + 1)).map(|(b, _)| *b).collect();
            for old in replaced {
                for suffix in [LOG, OFFSET_INDEX, TIME_INDEX, SNAPSHOT] {
                    remove(disk, &file_path(dir, old, suffix))?;
                }
                self.logs.remove(&old);
                self.indexes.remove(&old);
                self.time_indexes.remove(&old);
                self.snapshots.remove(&old);
            }
            for suffix in [OFFSET_INDEX, TIME_INDEX] {
                remove(disk, &file_path(dir, base, suffix))?;
            }
            self.indexes.remove(&base);
            self.time_indexes.remove(&base);
            let to = file_path(dir, base, LOG);
            disk.run(Job::Rename { from: from.clone(), to }).map_err(failed("rename", &from))?;
            log::info!("{}: compaction ended what it had begun", from.display());
            self.logs.insert(base, size);
        }
        Ok(())
    }
}

/// Removes a file at start-up.
pub(super) fn remove(disk: &mut dyn Disk, path: &Path) -> Result<(), StorageError> {
    disk.run(Job::Remove { path: path.to_path_buf() }).map_err(failed("remove", path))
}
