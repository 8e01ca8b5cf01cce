//! `__cluster_metadata-0`: the cluster's history as record batches of KRaft records, in Kafka's own file format, with
//! its snapshots (`<end offset>-<epoch>.checkpoint`). Written by the control thread alone; a batch counts once it is
//! synced, a torn tail is cut (unless partitions tell that it had counted), and after a failed write the file is cut back to what counted.
//!
//! A little space is reserved behind its end, so that on a full device topics can still be deleted. What each start writes
//! does not have to be there for the broker to run: if it does not fit, it goes before the next change.
//!
//! ```text
//! 00000000000000000000.log             segments, as of any partition
//! 00000000000000000123-0000000004.checkpoint   everything below offset 123 in short, last epoch 4
//! leader-epoch-checkpoint              epoch and first offset of each start
//! partition.metadata                   the metadata topic's id
//! ```

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::cluster::record::Record;
use crate::ids::{LeaderEpoch, NodeId, Now, Offset, Position};
use crate::io::disk::{Disk, Job, is_full};
use crate::parts::OpenFile;
use crate::storage::data_dir::CheckpointError;
use crate::wire::batch::{Batch, HeaderView};
use crate::wire::record::{BatchBuilder, BatchFields, Records};
use crate::wire::writer;

/// Its directory.
pub const DIRECTORY: &str = "__cluster_metadata-0";
/// Uuid of the metadata topic in Kafka's base64.
const TOPIC_ID: &str = "AAAAAAAAAAAAAAAAAAAAAQ";

/// What helps where the device is full.
const REMEDY: &str = "the device is full: delete topics or records, or give it more space";

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// The disk failed.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: String,
        /// What it said.
        error: io::Error,
    },
    /// The checkpoints of the data directory cannot be made to forget a topic.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// What is there makes no sense, and is not a torn tail.
    #[error("{path}: damaged at position {position} ({what}); restore it from a backup")]
    Corrupt {
        /// Which file.
        path: String,
        /// Where.
        position: u64,
        /// Why.
        what: String,
    },
    /// What is missing had counted: there are partitions of topics that only it told of.
    #[error(
        "{path}: {what}, and no topic has the directories {strays}: restore the file from a backup, or move these \
         directories away to start without them"
    )]
    Lost {
        /// Which file.
        path: String,
        /// What is wrong with it.
        what: String,
        /// Directories of those partitions.
        strays: String,
    },
}

/// The log, open at its end.
pub struct MetadataLog {
    file: Rc<OpenFile>,
    path: PathBuf,
    end: Position,
    next_offset: Offset,
    epoch: LeaderEpoch,
    /// Bytes of log since the last snapshot.
    size: u64,
    /// A write failed: the file must be cut to `end` before the next.
    dirty: bool,
    /// Bytes of a torn tail found when it was opened.
    torn: u64,
    /// What is wrong with the file, if records may be missing.
    lost: Option<String>,
    /// Batches of this start that did not fit on the device: they go before the next one.
    unwritten: Vec<u8>,
    /// Space is reserved up to here.
    reserved: Position,
}

/// Space reserved behind the log's end: for the removal of some hundreds of topics, and for partitions that change to another
/// core at a start, as records are appended under the new epoch from then on.
const RESERVE_SIZE: u64 = 64 * 1024;

/// Kinds of control records.
mod control {
    pub const LEADER_CHANGE: i16 = 2;
    pub const SNAPSHOT_HEADER: i16 = 3;
    pub const SNAPSHOT_FOOTER: i16 = 4;
}

impl MetadataLog {
    /// Opens or creates the log and gives every record in order. Nothing is written before `begin_epoch`.
    pub fn open(disk: &mut dyn Disk, visit: &mut dyn FnMut(Record)) -> Result<MetadataLog, MetadataError> {
        let dir = Path::new(DIRECTORY);
        let names = match disk.list(dir) {
            Ok(entries) => entries.into_iter().map(|entry| entry.name).collect(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(io_error(dir, e)),
        };
        let mut replay = Replay { next_offset: Offset(0), epoch: LeaderEpoch(0), visit };
        let snapshot = names.iter().filter_map(|name| snapshot_end(name).map(|end| (end, name))).max();
        if let Some((end, name)) = snapshot {
            let path = dir.join(name);
            let bytes = disk.read_file(&path).map_err(|e| io_error(&path, e))?;
            replay.snapshot(&path, &bytes, end)?;
        }
        let segments: Vec<&String> = names.iter().filter(|name| segment_base(name).is_some()).collect();
        let mut size = 0;
        let mut last = None;
        for (index, name) in segments.iter().enumerate() {
            let path = dir.join(name);
            let bytes = disk.read_file(&path).map_err(|e| io_error(&path, e))?;
            let valid = replay.segment(&path, &bytes, index + 1 == segments.len())?;
            size += valid;
            last = Some((path, valid, bytes.len() as u64));
        }
        let (path, end, file_size) =
            last.unwrap_or_else(|| (dir.join(format!("{:020}.log", replay.next_offset.0)), 0, 0));
        let (next_offset, epoch) = (replay.next_offset, LeaderEpoch(replay.epoch.0 + 1));
        let file = disk.open(&path, true).map_err(|e| io_error(&path, e))?;
        let torn = file_size - end;
        let lost = if torn > 0 {
            Some(format!("its last {torn} bytes are damaged"))
        } else {
            // Beside other files of the log there is a segment, and every start writes to it.
            let empty = !names.is_empty() && (segments.is_empty() || next_offset == Offset(0));
            empty.then(|| "it is empty".to_string())
        };
        Ok(MetadataLog {
            file,
            path,
            end: Position(end),
            next_offset,
            epoch,
            size,
            dirty: torn > 0,
            torn,
            lost,
            unwritten: Vec::new(),
            reserved: Position(0),
        })
    }

    /// A torn tail was never acknowledged, so no topic in it has records. `strays`: directories of partitions that no topic
    /// has. Where there are some, what is missing had been acknowledged, and the broker must not go on without it.
    pub fn check_lost(&self, strays: &[&str]) -> Result<(), MetadataError> {
        match &self.lost {
            Some(what) if !strays.is_empty() => Err(MetadataError::Lost {
                path: self.path.display().to_string(),
                what: what.clone(),
                strays: strays.join(", "),
            }),
            _ => Ok(()),
        }
    }

    /// Offset of the next record.
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// The epoch of what is written.
    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// Bytes since the last snapshot.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends the records as one batch and makes it durable. On an error nothing has been appended.
    pub fn append(&mut self, disk: &mut dyn Disk, records: &[Record], now: Now) -> Result<(), MetadataError> {
        let bytes = self.batch(records, now);
        let from_reserve = |record: &Record| matches!(record, Record::RemoveTopic { .. } | Record::PartitionChange(_));
        self.write(disk, &bytes, records.len(), records.iter().any(from_reserve))
    }

    /// The same for what the next start would write anew, and nothing of which outlives this one: on a full device it is kept, and goes before the next batch.
    pub fn append_if_room(&mut self, disk: &mut dyn Disk, records: &[Record], now: Now) -> Result<(), MetadataError> {
        let bytes = self.batch(records, now);
        self.write_if_room(disk, bytes, records.len())
    }

    fn batch(&self, records: &[Record], now: Now) -> Vec<u8> {
        let mut bytes = Vec::new();
        let fields = BatchFields { base_offset: self.next_offset, leader_epoch: self.epoch, ..BatchFields::default() };
        let mut builder = BatchBuilder::new(&mut bytes, fields);
        let mut value = Vec::new();
        for record in records {
            value.clear();
            record.encode(&mut value);
            builder.push(now.wall_ms, None, Some(&value), &[]);
        }
        builder.finish();
        bytes
    }

    /// Puts a snapshot of everything in place of the log so far, and goes on in a new segment.
    pub fn snapshot(&mut self, disk: &mut dyn Disk, records: &[Record], now: Now) -> Result<(), MetadataError> {
        let dir = Path::new(DIRECTORY);
        let name = format!("{:020}-{:010}.checkpoint", self.next_offset.0, self.epoch.0);
        let path = dir.join(&name);
        let bytes = snapshot_bytes(records, self.epoch, now);
        disk.run(Job::Replace { path: path.clone(), bytes, sync: true }).map_err(|e| io_error(&path, e))?;
        let segment = dir.join(format!("{:020}.log", self.next_offset.0));
        if segment != self.path {
            let file = disk.open(&segment, true).map_err(|e| io_error(&segment, e))?;
            let old = std::mem::replace(&mut self.file, file);
            let _ = disk.run(Job::Close { file: old });
            self.path = segment;
            (self.end, self.size, self.dirty) = (Position(0), 0, false);
            // The snapshot has them.
            self.unwritten.clear();
            self.reserved = Position(0);
        }
        // What the snapshot stands for is of no more use; if it cannot be removed, it does no harm.
        for entry in disk.list(dir).unwrap_or_default() {
            let stale_log = segment_base(&entry.name).is_some_and(|base| base < self.next_offset);
            let stale_index = entry.name.ends_with("index") && !entry.name.starts_with(&name[..20]);
            let stale_snapshot = snapshot_end(&entry.name).is_some_and(|end| end < self.next_offset);
            if stale_log || stale_index || stale_snapshot {
                let _ = disk.run(Job::Remove { path: dir.join(&entry.name) });
            }
        }
        Ok(())
    }

    /// Cuts a torn tail; a new epoch begins, led by `leader`.
    pub fn begin_epoch(&mut self, disk: &mut dyn Disk, leader: NodeId, now: Now) -> Result<(), MetadataError> {
        if self.torn > 0 {
            log::warn!("{}: {} bytes of a torn tail cut at position {}", self.path.display(), self.torn, self.end);
        }
        let dir = Path::new(DIRECTORY);
        let mut epochs = match disk.read_file(&dir.join("leader-epoch-checkpoint")) {
            Ok(bytes) => parse_epochs(&String::from_utf8_lossy(&bytes)),
            Err(_) => Vec::new(),
        };
        epochs.retain(|(epoch, start)| *epoch < self.epoch.0 && *start < self.next_offset.0);
        epochs.push((self.epoch.0, self.next_offset.0));
        let lines: String = epochs.iter().map(|(epoch, start)| format!("{epoch} {start}\n")).collect();
        let small_files = [
            ("leader-epoch-checkpoint", format!("0\n{}\n{lines}", epochs.len())),
            ("partition.metadata", format!("version: 0\ntopic_id: {TOPIC_ID}")),
        ];
        for (name, text) in small_files {
            let path = dir.join(name);
            let job = Job::Replace { path: path.clone(), bytes: text.into_bytes(), sync: false };
            match disk.run(job) {
                // Written by each start, and read only to be written again.
                Err(error) if is_full(&error) => log::warn!("{} is not written: {error}", path.display()),
                result => result.map_err(|e| io_error(&path, e))?,
            }
        }
        let bytes = leader_change(self.next_offset, self.epoch, leader, now);
        self.write_if_room(disk, bytes, 1)
    }

    fn write_if_room(&mut self, disk: &mut dyn Disk, bytes: Vec<u8>, count: usize) -> Result<(), MetadataError> {
        match self.write(disk, &bytes, count, false) {
            Err(MetadataError::Io { path, error }) if is_full(&error) => {
                if self.unwritten.is_empty() {
                    log::warn!("{path}: {error}; what this start has to note goes with the next change. {REMEDY}");
                }
                self.unwritten.extend(bytes);
                self.next_offset += count as i64;
                Ok(())
            }
            result => result,
        }
    }

    /// `from_reserve`: it gives space, or the broker cannot run without it.
    fn write(
        &mut self,
        disk: &mut dyn Disk,
        bytes: &[u8],
        count: usize,
        from_reserve: bool,
    ) -> Result<(), MetadataError> {
        let size = (self.unwritten.len() + bytes.len()) as u64;
        if self.dirty {
            // Gives back what was reserved.
            self.reserved = Position(0);
            let cut = disk.run(Job::Truncate { file: self.file.clone(), size: self.end.0 });
            cut.map_err(|e| io_error(&self.path, e))?;
            self.dirty = false;
        }
        if !from_reserve {
            self.reserve(disk, size).map_err(|e| io_error(&self.path, e))?;
        }
        let result = self.try_write(disk, bytes);
        self.dirty = result.is_err();
        result.map_err(|e| io_error(&self.path, e))?;
        self.unwritten = Vec::new();
        self.end += size;
        self.size += size;
        self.next_offset += count as i64;
        Ok(())
    }

    /// Sees to it that there is space for so many bytes, and for the reserve behind them. A device that cannot reserve can be
    /// appended to all the same.
    fn reserve(&mut self, disk: &mut dyn Disk, size: u64) -> io::Result<()> {
        if self.reserved.0 >= self.end.0 + size + RESERVE_SIZE / 2 {
            return Ok(());
        }
        let size = size + RESERVE_SIZE;
        match disk.run(Job::Preallocate { file: self.file.clone(), position: self.end, size }) {
            Err(error) if is_full(&error) => Err(error),
            Err(_) => Ok(()),
            Ok(()) => {
                self.reserved = Position(self.end.0 + size);
                Ok(())
            }
        }
    }

    fn try_write(&mut self, disk: &mut dyn Disk, bytes: &[u8]) -> io::Result<()> {
        disk.write(&self.file, self.end, &[IoSlice::new(&self.unwritten), IoSlice::new(bytes)])?;
        disk.run(Job::Sync { file: self.file.clone() })
    }
}

struct Replay<'a> {
    next_offset: Offset,
    epoch: LeaderEpoch,
    visit: &'a mut dyn FnMut(Record),
}

impl Replay<'_> {
    /// Records of a snapshot. Its batches have offsets of their own, which mean nothing.
    fn snapshot(&mut self, path: &Path, bytes: &[u8], end: Offset) -> Result<(), MetadataError> {
        let valid = self.batches(path, bytes, true)?;
        if valid != bytes.len() as u64 {
            return Err(corrupt(path, valid, "the snapshot is cut"));
        }
        self.next_offset = end;
        Ok(())
    }

    /// Records of a segment; gives the size of what is valid. Only the last segment may have a torn tail.
    fn segment(&mut self, path: &Path, bytes: &[u8], is_last: bool) -> Result<u64, MetadataError> {
        let valid = self.batches(path, bytes, false)?;
        match is_last || valid == bytes.len() as u64 {
            true => Ok(valid),
            false => Err(corrupt(path, valid, "the segment is cut, and others follow it")),
        }
    }

    fn batches(&mut self, path: &Path, bytes: &[u8], is_snapshot: bool) -> Result<u64, MetadataError> {
        let mut position = 0;
        while let Some(rest) = bytes.get(position..).filter(|rest| !rest.is_empty()) {
            let Ok(batch) = Batch::stored(rest) else {
                // Every batch is synced before the next is written, so only the last can be torn.
                let whole = |at: usize| rest.get(at..).is_some_and(|bytes| Batch::stored(bytes).is_ok());
                if (1..rest.len()).any(whole) {
                    return Err(corrupt(path, position as u64, "a batch is damaged, and others follow it"));
                }
                break;
            };
            let (base, last) = (batch.base_offset(), batch.last_offset());
            if !is_snapshot && last < self.next_offset {
                position += batch.size();
                continue; // the snapshot has it
            }
            if !is_snapshot && base > self.next_offset && self.next_offset != Offset(0) {
                let what = format!("offsets {} to {base} are missing", self.next_offset);
                return Err(corrupt(path, position as u64, &what));
            }
            self.batch(&batch, is_snapshot).map_err(|what| corrupt(path, position as u64, &what))?;
            if !is_snapshot {
                self.next_offset = last + 1;
            }
            self.epoch = self.epoch.max(batch.leader_epoch());
            position += batch.size();
        }
        Ok(position as u64)
    }

    fn batch(&mut self, batch: &Batch<'_>, is_snapshot: bool) -> Result<(), String> {
        let header: &HeaderView<'_> = batch;
        if header.attributes().is_control() {
            return Ok(());
        }
        if header.attributes().codec() != Some(crate::wire::batch::Codec::None) {
            return Err("a compressed batch of metadata".to_string());
        }
        for record in Records::new(batch.records(), batch.count()) {
            let record = record.map_err(|e| format!("{e:?}"))?;
            let offset = batch.base_offset() + i64::from(record.offset_delta);
            let Some(value) = record.value.filter(|_| is_snapshot || offset >= self.next_offset) else { continue };
            let record = Record::decode(value).map_err(|e| format!("record at offset {offset}: {e}"))?;
            (self.visit)(record);
        }
        Ok(())
    }
}

fn segment_base(name: &str) -> Option<Offset> {
    let digits = name.strip_suffix(".log").filter(|digits| digits.len() == 20)?;
    digits.parse().ok().map(Offset)
}

fn snapshot_end(name: &str) -> Option<Offset> {
    let (end, epoch) = name.strip_suffix(".checkpoint")?.split_once('-')?;
    epoch.parse::<i32>().ok()?;
    end.parse().ok().filter(|_| end.len() == 20).map(Offset)
}

fn parse_epochs(text: &str) -> Vec<(i32, i64)> {
    let entry = |line: &str| {
        let (epoch, start) = line.split_once(' ')?;
        Some((epoch.parse().ok()?, start.parse().ok()?))
    };
    text.lines().skip(2).filter_map(entry).collect()
}

fn leader_change(offset: Offset, epoch: LeaderEpoch, leader: NodeId, now: Now) -> Vec<u8> {
    let mut value = Vec::new();
    writer::i16(&mut value, 0); // version
    writer::i32(&mut value, leader.0);
    for _ in ["voters", "granting voters"] {
        writer::array_count(&mut value, true, Some(1));
        writer::i32(&mut value, leader.0);
        writer::no_tags(&mut value, true);
    }
    writer::no_tags(&mut value, true);
    control_batch(offset, epoch, control::LEADER_CHANGE, &value, now)
}

fn control_batch(offset: Offset, epoch: LeaderEpoch, kind: i16, value: &[u8], now: Now) -> Vec<u8> {
    let mut bytes = Vec::new();
    let fields = BatchFields { base_offset: offset, leader_epoch: epoch, ..BatchFields::default() };
    let fields = BatchFields { attributes: fields.attributes.with_control(), ..fields };
    let mut builder = BatchBuilder::new(&mut bytes, fields);
    let key = [0i16.to_be_bytes(), kind.to_be_bytes()].concat();
    builder.push(now.wall_ms, Some(&key), Some(value), &[]);
    builder.finish();
    bytes
}

fn snapshot_bytes(records: &[Record], epoch: LeaderEpoch, now: Now) -> Vec<u8> {
    let mut header = Vec::new();
    writer::i16(&mut header, 0); // version
    writer::i64(&mut header, now.wall_ms); // of the last record it holds
    writer::no_tags(&mut header, true);
    let mut bytes = control_batch(Offset(0), epoch, control::SNAPSHOT_HEADER, &header, now);
    let mut offset = Offset(1);
    let mut value = Vec::new();
    for chunk in records.chunks(1000) {
        let fields = BatchFields { base_offset: offset, leader_epoch: epoch, ..BatchFields::default() };
        let mut builder = BatchBuilder::new(&mut bytes, fields);
        for record in chunk {
            value.clear();
            record.encode(&mut value);
            builder.push(now.wall_ms, None, Some(&value), &[]);
        }
        builder.finish();
        offset += chunk.len() as i64;
    }
    let footer = [0, 0, 0]; // version, no tags
    bytes.extend(control_batch(offset, epoch, control::SNAPSHOT_FOOTER, &footer, now));
    bytes
}

fn io_error(path: &Path, error: io::Error) -> MetadataError {
    MetadataError::Io { path: path.display().to_string(), error }
}

fn corrupt(path: &Path, position: u64, what: &str) -> MetadataError {
    MetadataError::Corrupt { path: path.display().to_string(), position, what: what.to_string() }
}
