//! Opening a log that recycles files: one may not have its new name yet, and the oldest may be half overwritten.

use std::path::Path;

use super::log::{Log, RecoveryReport};
use super::scan::{Scan, Verdict, header_at};
use super::segment::{Segment, Stage};
use super::swaps::{Directory, remove};
use super::{LOG, OFFSET_INDEX, SNAPSHOT, StorageError, TIME_INDEX, failed, file_path};
use crate::ids::{Now, Offset};
use crate::io::disk::{Disk, Job};

/// A file whose first batch belongs behind all others was recycled and had not got its name yet: `(name, first offset, size)`.
/// It is taken out of `found`.
pub(super) fn find_recycled(
    disk: &mut dyn Disk,
    dir: &Path,
    found: &mut Directory,
) -> Result<Option<(Offset, Offset, u64)>, StorageError> {
    let mut names = found.logs.iter();
    let (Some((named, size)), next) = (names.next(), names.next()) else { return Ok(None) };
    let (named, size, next) = (*named, *size, next.map(|(base, _)| *base));
    let path = file_path(dir, named, LOG);
    let Some(header) = header_at(disk, &path, 0)? else { return Ok(None) };
    if header.base_offset < next.unwrap_or(named + 1) {
        return Ok(None);
    }
    found.logs.remove(&named);
    for suffix in [OFFSET_INDEX, TIME_INDEX, SNAPSHOT] {
        remove(disk, &file_path(dir, named, suffix))?;
    }
    Ok(Some((named, header.base_offset, size)))
}

impl Log {
    /// The oldest file of a log that recycles may be half overwritten by a life that never came to be. It was retired then.
    pub(super) fn check_oldest(
        &mut self,
        disk: &mut dyn Disk,
        report: &mut RecoveryReport,
    ) -> Result<(), StorageError> {
        let (base, size) = (self.segments[0].base_offset, self.segments[0].size);
        let next = self.segments.get(1).map(|s| s.base_offset);
        let path = file_path(&self.dir, base, LOG);
        let file = disk.open(&path, false).map_err(failed("open", &path))?;
        let mut end = base;
        let mut valid = 0;
        let mut scan = Scan::checked(0, size);
        let walked = scan.run(disk, &file, |position, header, _| {
            if header.base_offset < end || next.is_some_and(|next| header.last_offset >= next) {
                return Verdict::Stop;
            }
            end = header.last_offset + 1;
            valid = position + header.size;
            Verdict::Good
        });
        walked.map_err(failed("read", &path))?;
        disk.run(Job::Close { file }).map_err(failed("close", &path))?;
        report.scanned_bytes += u64::from(valid);
        if valid < size && next.is_some_and(|next| next != end) {
            log::warn!("{}: retired and half overwritten when the host stopped; removed", path.display());
            self.segments.pop_front();
            self.remove_segment_files(disk, base)?;
            report.segments_dropped += 1;
            if let Some(next) = next {
                self.log_start_offset = self.log_start_offset.max(next);
            }
        }
        Ok(())
    }

    /// Takes in a recycled file that had not got its name yet, if it continues the log.
    pub(super) fn adopt(
        &mut self,
        disk: &mut dyn Disk,
        named: Offset,
        base: Offset,
        size: u64,
        report: &mut RecoveryReport,
        now: Now,
    ) -> Result<(), StorageError> {
        let from = file_path(&self.dir, named, LOG);
        let alone = self.segments.is_empty();
        if !alone && base != self.log_end_offset() {
            log::warn!("{}: holds offset {base} where {} was expected; removed", from.display(), self.log_end_offset());
            report.segments_dropped += 1;
            return remove(disk, &from);
        }
        let to = file_path(&self.dir, base, LOG);
        disk.run(Job::Rename { from: from.clone(), to }).map_err(failed("rename", &from))?;
        if alone {
            self.log_start_offset = self.log_start_offset.max(base);
        }
        if let Some(last) = self.segments.back_mut() {
            last.stage = Stage::ToTruncate;
        }
        let mut segment = Segment::new(base, now.wall_ms);
        segment.size = u32::try_from(size).unwrap_or(u32::MAX);
        self.segments.push_back(segment);
        let index = self.segments.len() - 1;
        let (end, _) = self.scan_segment(disk, index, true, None, report)?;
        self.set_end(end);
        Ok(())
    }
}
