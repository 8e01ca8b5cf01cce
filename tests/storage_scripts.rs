//! The log's behaviour as scripts: `tests/scripts/storage/*.txt` hold commands and the expected trace after `----`.
//! `REWRITE=1 cargo test --test storage_scripts` writes the traces anew; read the difference before it is committed.

#[path = "support/memory_disk.rs"]
mod memory_disk;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use memory_disk::MemoryDisk;
use ringlane::ids::{JobOwner, LeaderEpoch, Now, Offset, Position};
use ringlane::io::disk::{Disk, Job};
use ringlane::parts::{FileRange, Slice};
use ringlane::storage::data_dir::{Checkpoints, ClosedPartition};
use ringlane::storage::{
    BatchLookup, Cleaning, ClosedLog, Log, LogConfig, ProducerStamp, ResolveError, Resolved, StagedBatch, Start,
    StorageError, decode_metadata,
};
use ringlane::wire::batch::{Attributes, Batch, HeaderView};
use ringlane::wire::record::{BatchBuilder, BatchFields, Records};

const DIR: &str = "t-0";

/// A command's arguments: `name=value` or just `name`.
struct Args(BTreeMap<String, String>);

impl Args {
    fn get<T: std::str::FromStr>(&self, name: &str, default: T) -> T {
        self.0.get(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
    }
    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

struct World {
    disk: MemoryDisk,
    log: Option<Log>,
    config: LogConfig,
    now: Now,
    buffers: Vec<Vec<u8>>,
    held: Vec<(FileRange, Vec<u8>)>,
    closed: Option<ClosedLog>,
}

impl World {
    fn new() -> World {
        World {
            disk: MemoryDisk::default(),
            log: None,
            config: LogConfig {
                index_interval_bytes: 0,
                retention_ms: -1,
                write_back_bytes: 1 << 20,
                write_back_after_ms: 0,
                ..LogConfig::default()
            },
            now: Now { monotonic_ns: 1_000_000_000, wall_ms: 1_000_000 },
            buffers: Vec::new(),
            held: Vec::new(),
            closed: None,
        }
    }

    fn run(&mut self, command: &str, args: &Args) -> String {
        let mut out = String::new();
        match command {
            "config" => self.configure(args),
            "open" => out = self.open(args),
            "stage" => self.stage(args),
            "append" => {
                self.stage(args);
                out = self.flush();
            }
            "flush" => out = self.flush(),
            "fail_write" => {
                let kind = if args.has("full") { std::io::ErrorKind::StorageFull } else { std::io::ErrorKind::Other };
                self.disk.fail_write = Some((args.get("after", 0), kind));
            }
            "device" => (self.disk.full, self.disk.no_files) = (args.has("full"), args.has("no_files")),
            "resolve" => out = self.resolve(args),
            "time" => out = self.by_time(args),
            "jobs" => out = self.jobs(args),
            "files" => {
                for (path, size) in self.disk.names() {
                    writeln!(out, "{} {size}", path.strip_prefix(DIR).unwrap_or(path).display()).unwrap();
                }
                writeln!(out, "open={}", self.disk.open_count()).unwrap();
            }
            "cat" => {
                let path = Path::new(DIR).join(args.get("file", String::new()));
                out = String::from_utf8_lossy(&self.disk.file(&path).expect("a file").bytes).trim_end().to_string();
            }
            "dump" => out = self.dump(args),
            "state" => {
                let log = self.log.as_ref().expect("open");
                write!(
                    out,
                    "log_start={} log_end={} synced={} bytes={} recycled={} epoch={} wants_acknowledgements={}",
                    log.log_start_offset(),
                    log.log_end_offset(),
                    log.synced_offset(),
                    log.size_bytes(),
                    log.recycled_count(),
                    log.leader_epochs().latest().map_or(-1, |e| e.0),
                    log.wants_acknowledgements(),
                )
                .unwrap();
            }
            "epoch" => {
                let log = self.log.as_ref().expect("open");
                out = match log.end_offset_for_epoch(LeaderEpoch(args.get("of", 0))) {
                    Some((epoch, end)) => format!("epoch={epoch} end={end}"),
                    None => "unknown".to_string(),
                };
            }
            "sequence" => {
                let stamp = ProducerStamp {
                    id: args.get("producer", 7),
                    epoch: args.get("producer_epoch", 0),
                    base_sequence: args.get("sequence", 0),
                };
                out = format!("{:?}", self.log.as_ref().expect("open").check_sequence(stamp, args.get("records", 1)));
            }
            "hold" => {
                let range = self.range(args).expect("a range");
                let bytes = self.bytes(&range);
                self.held.push((range, bytes));
            }
            "held" => {
                for (range, promised) in &self.held {
                    let same = &self.bytes(range) == promised;
                    writeln!(out, "{}", if same { "as promised" } else { "CHANGED" }).unwrap();
                }
            }
            "release" => self.held.clear(),
            "taint" => self.range(args).expect("a range").file.tainted.set(true),
            "cold" | "resident" => {
                let path = Path::new(DIR).join(args.get("file", String::new()));
                self.disk.file(&path).expect("a file").cold = command == "cold";
            }
            // Its pages have left the cache, which probing it did not find out.
            "evict" => {
                let path = Path::new(DIR).join(args.get("file", String::new()));
                let file = self.disk.file(&path).expect("a file");
                file.evicted = (0..file.bytes.len().div_ceil(memory_disk::BLOCK)).collect();
            }
            "damage" => {
                let path = Path::new(DIR).join(args.get("file", String::new()));
                if args.has("remove") {
                    self.disk.run(Job::Remove { path: path.clone() }).unwrap();
                } else if args.has("text") {
                    self.disk.put(&path, args.get("text", String::new()).into_bytes());
                } else {
                    let file = self.disk.file(&path).expect("a file");
                    if args.has("flip") {
                        file.bytes[args.get("flip", 0usize)] ^= 1;
                    }
                    let size = args.get("size", file.bytes.len());
                    file.bytes.resize(size, 0);
                    file.synced = file.bytes.clone();
                }
            }
            // A batch as another life of the file left it, behind all others.
            "graft" => {
                let path = Path::new(DIR).join(args.get("file", String::new()));
                let fields = BatchFields {
                    base_offset: Offset(args.get("offset", 0)),
                    leader_epoch: LeaderEpoch(args.get("epoch", 0)),
                    ..BatchFields::default()
                };
                let stale = batch(fields, 1, 100, self.now.wall_ms);
                self.disk.file(&path).expect("a file").bytes.extend_from_slice(&stale);
            }
            "advance" => {
                let ms: i64 = args.get("ms", 0);
                self.now.monotonic_ns += ms as u64 * 1_000_000;
                self.now.wall_ms += ms;
            }
            "housekeep" => {
                let deadline = self.log.as_mut().expect("open").housekeep(&mut self.disk, self.now);
                out = match deadline {
                    Some(ns) => format!("next in {} ms", (ns - self.now.monotonic_ns) / 1_000_000),
                    None => "rests".to_string(),
                };
            }
            "clean" => out = self.clean(args),
            "records" => {
                for offset in 0.. {
                    let log = self.log.as_mut().expect("open");
                    if offset >= log.segment_count() {
                        break;
                    }
                    let base = log.segment_base(offset).expect("counted");
                    let path = Path::new(DIR).join(format!("{:020}.log", base.0));
                    let bytes = self.disk.file(&path).expect("a file").bytes.clone();
                    writeln!(out, "{base}: {}", records(&bytes)).unwrap();
                }
            }
            "retention" => {
                let log = self.log.as_mut().expect("open");
                if args.has("limit") {
                    log.set_retention_limit(Offset(args.get("limit", 0)));
                }
                out = describe(log.apply_retention(&mut self.disk, self.now).map(|count| format!("removed={count}")));
            }
            "delete_records" => {
                let log = self.log.as_mut().expect("open");
                log.delete_records_before(&mut self.disk, Offset(args.get("before", 0)));
            }
            "close" => {
                let mut log = self.log.take().expect("open");
                // `at_once`: jobs that are under way never end.
                if !args.has("at_once") {
                    self.run_jobs(&mut log, None);
                }
                out = match log.close(&mut self.disk, !args.has("together")) {
                    Ok(closed) => {
                        self.closed = Some(closed);
                        format!(
                            "recovery_point={} log_start={}",
                            closed.recovery_point,
                            closed.log_start_offset.map_or("-".to_string(), |o| o.to_string())
                        ) + if closed.durable { "" } else { " not durable" }
                    }
                    Err(e) => e.to_string(),
                };
                drop(log);
                self.disk.kill();
            }
            "sync_all" => self.disk.run(Job::SyncFileSystems { dirs: Vec::new() }).expect("synced"),
            "kill" => {
                self.log = None;
                self.disk.kill();
            }
            "power_cut" => {
                self.log = None;
                let keep: Vec<usize> =
                    args.get("keep", String::new()).split(',').filter_map(|p| p.parse().ok()).collect();
                self.disk.power_cut(|page| keep.contains(&page));
            }
            _ => panic!("unknown command {command}"),
        }
        out.trim_end().to_string()
    }

    fn configure(&mut self, args: &Args) {
        let c = &mut self.config;
        c.segment_bytes = args.get("segment_bytes", c.segment_bytes);
        c.segment_ms = args.get("segment_ms", c.segment_ms);
        c.index_interval_bytes = args.get("index_interval", c.index_interval_bytes);
        c.retention_bytes = args.get("retention_bytes", c.retention_bytes);
        c.retention_ms = args.get("retention_ms", c.retention_ms);
        c.compact = args.get("compact", c.compact);
        c.delete = args.get("delete", c.delete);
        c.delete_retention_ms = args.get("delete_retention_ms", c.delete_retention_ms);
        c.cleaner_map_bytes = args.get("map_bytes", c.cleaner_map_bytes);
        c.recycle = args.get("recycle", c.recycle);
        c.flush_messages = args.get("flush_messages", c.flush_messages);
        c.flush_ms = args.get("flush_ms", c.flush_ms);
        c.write_back_bytes = args.get("write_back", c.write_back_bytes);
        c.preallocate_step_bytes = args.get("preallocate_step", c.preallocate_step_bytes);
        c.write_back_after_ms = args.get("write_back_after_ms", c.write_back_after_ms);
        if let Some(log) = &mut self.log {
            log.set_config(Rc::new(self.config.clone()));
        }
    }

    fn open(&mut self, args: &Args) -> String {
        let closed = self.closed;
        let clean = args.has("clean");
        let start = Start {
            log_start: closed.and_then(|c| c.log_start_offset),
            recovery_point: closed.map_or(Offset(0), |c| c.recovery_point),
            cleaned: closed.and_then(|c| c.cleaned),
            clean,
            leader_epoch: args.has("leader_epoch").then(|| LeaderEpoch(args.get("leader_epoch", 0))),
            ..Start::default()
        };
        let config = Rc::new(self.config.clone());
        match Log::open(&mut self.disk, Path::new(DIR), JobOwner(1), config, start, self.now) {
            Ok((log, report)) => {
                let text = format!(
                    "log_start={} log_end={} scanned={} cut={} indexes_rebuilt={} dropped={}",
                    log.log_start_offset(),
                    log.log_end_offset(),
                    report.scanned_bytes,
                    report.cut_bytes,
                    report.indexes_rebuilt,
                    report.segments_dropped
                );
                self.log = Some(log);
                text
            }
            Err(e) => e.to_string(),
        }
    }

    fn stage(&mut self, args: &Args) {
        let log = self.log.as_mut().expect("open");
        let records: i64 = args.get("records", 1);
        let size: usize = args.get("size", 100);
        let timestamp: i64 = args.get("timestamp", self.now.wall_ms);
        let producer = if args.has("producer") {
            ProducerStamp {
                id: args.get("producer", 0),
                epoch: args.get("producer_epoch", 0),
                base_sequence: args.get("sequence", 0),
            }
        } else {
            ProducerStamp::NONE
        };
        for _ in 0..args.get("times", 1) {
            let base_offset = log.next_offset();
            let leader_epoch = LeaderEpoch(args.get("epoch", 0));
            let fields = BatchFields {
                base_offset,
                leader_epoch,
                attributes: Attributes(0),
                producer_id: producer.id,
                producer_epoch: producer.epoch,
                base_sequence: producer.base_sequence,
            };
            let bytes = match args.0.get("keys") {
                Some(keys) => {
                    // Large values: the text over and over.
                    let value = args.0.get("value").map(|text| text.repeat(args.get("repeat", 1)));
                    keyed(fields, keys, value.as_ref(), timestamp)
                }
                None => batch(fields, records, size, timestamp),
            };
            let records = args.0.get("keys").map_or(records, |keys| keys.split(',').count() as i64);
            let slice = Slice { buffer: self.buffers.len() as u32, start: 0, size: bytes.len() as u32 };
            self.buffers.push(bytes);
            log.stage(StagedBatch {
                base_offset,
                last_offset: base_offset + (records - 1),
                max_timestamp: timestamp,
                leader_epoch,
                producer,
                transactional: false,
                control: false,
                slice,
            });
        }
    }

    fn flush(&mut self) -> String {
        let log = self.log.as_mut().expect("open");
        let (before, waits) = (self.disk.writes, self.disk.waits);
        let result = log.flush(&mut self.disk, &self.buffers, self.now);
        self.buffers.clear();
        let writes = self.disk.writes.0 - before.0;
        let bytes = self.disk.writes.1 - before.1;
        let waited = match self.disk.waits - waits {
            0 => String::new(),
            count => format!(" WAITED for the device {count} times"),
        };
        describe(result.map(|info| match info {
            None => "nothing staged".to_string(),
            Some(info) => format!(
                "offsets={}..={} writes={writes} bytes={bytes}{}{waited}",
                info.first,
                info.last,
                if info.ack_when_synced { " ack_when_synced" } else { "" }
            ),
        }))
    }

    fn resolved(&mut self, args: &Args) -> Result<Resolved, ResolveError> {
        let log = self.log.as_mut().expect("open");
        log.resolve(
            &mut self.disk,
            Offset(args.get("offset", 0)),
            Offset(args.get("upper", i64::MAX)),
            args.get("max", 1 << 20),
            args.get("one", true),
        )
    }

    fn range(&mut self, args: &Args) -> Option<FileRange> {
        match self.resolved(args) {
            Ok(Resolved::Range(range)) => Some(range),
            _ => None,
        }
    }

    fn bytes(&self, range: &FileRange) -> Vec<u8> {
        let from = range.position.0 as usize;
        self.disk.bytes(&range.file)[from..from + range.size as usize].to_vec()
    }

    fn resolve(&mut self, args: &Args) -> String {
        match self.resolved(args) {
            Ok(Resolved::Range(range)) => {
                format!("{} {}", place(&range), offsets(&self.bytes(&range)))
            }
            Ok(Resolved::Empty) => "empty".to_string(),
            Ok(Resolved::Cold(range)) => {
                let text = format!("cold {}", place(&range));
                self.disk.run(Job::ReadAhead { file: range.file, position: Position(0), size: 0 }).unwrap();
                text
            }
            Err(e) => e.to_string(),
        }
    }

    fn by_time(&mut self, args: &Args) -> String {
        let log = self.log.as_mut().expect("open");
        let found = if args.has("max") {
            log.batch_of_max_timestamp(&mut self.disk).map(|(_, lookup)| lookup)
        } else {
            log.batch_for_timestamp(&mut self.disk, args.get("stamp", 0), log.log_start_offset())
        };
        describe(found.map(|lookup| match lookup {
            BatchLookup::Batch(range) => format!("{} {}", place(&range), offsets(&self.bytes(&range))),
            BatchLookup::None => "none".to_string(),
            BatchLookup::Cold(range) => {
                let text = format!("cold {}", place(&range));
                self.disk.run(Job::ReadAhead { file: range.file, position: Position(0), size: 0 }).unwrap();
                text
            }
        }))
    }

    /// Cleans until there is nothing more to do, or only for so many `steps` (slices and jobs).
    fn clean(&mut self, args: &Args) -> String {
        let mut log = self.log.take().expect("open");
        let mut out = String::new();
        for _ in 0..args.get("steps", 1000) {
            match log.clean(&mut self.disk, self.now) {
                Ok(Cleaning::Nothing | Cleaning::Done(_)) => {
                    self.run_jobs(&mut log, None);
                    let cleaned = log.cleaned_offset().map_or(-1, |o| o.0);
                    let cleanable = log.cleanable(self.now);
                    writeln!(out, "cleaned={cleaned} bytes={} cleanable={cleanable:?}", log.size_bytes()).unwrap();
                    break;
                }
                Ok(Cleaning::More(_)) => {}
                Ok(Cleaning::Waits) => out.push_str(&self.run_jobs(&mut log, Some(1))),
                Err(e) => {
                    writeln!(out, "{e}").unwrap();
                    break;
                }
            }
        }
        self.log = Some(log);
        out
    }

    /// Walks a file's batches.
    fn dump(&mut self, args: &Args) -> String {
        let path = Path::new(DIR).join(args.get("file", String::new()));
        let bytes = self.disk.file(&path).expect("a file").bytes.clone();
        if path.extension().is_some_and(|e| e == "index") {
            let entry = |e: &[u8]| {
                let half = |r: std::ops::Range<usize>| u32::from_be_bytes(e[r].try_into().unwrap());
                format!("{}@{}", half(0..4), half(4..8))
            };
            return bytes.chunks(8).map(entry).collect::<Vec<_>>().join(" ");
        }
        offsets(&bytes)
    }

    fn jobs(&mut self, args: &Args) -> String {
        let mut log = self.log.take().expect("open");
        let out = self.run_jobs(&mut log, args.0.get("count").map(|count| count.parse().unwrap()));
        self.log = Some(log);
        out
    }

    fn run_jobs(&mut self, log: &mut Log, count: Option<usize>) -> String {
        let mut out = String::new();
        let mut left = count.unwrap_or(usize::MAX);
        while left > 0
            && let Some((_, job, result)) = self.disk.run_next()
        {
            left -= 1;
            writeln!(
                out,
                "{}{}",
                describe_job(&job),
                result.as_ref().map_or_else(|e| format!(": {e}"), |()| String::new())
            )
            .unwrap();
            log.job_done(&mut self.disk, job, result, self.now);
        }
        out
    }
}

/// A batch with a record for each key, with this value, or tombstones.
fn keyed(fields: BatchFields, keys: &str, value: Option<&String>, timestamp: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut builder = BatchBuilder::new(&mut bytes, fields);
    for key in keys.split(',') {
        builder.push(timestamp, Some(key.as_bytes()), value.map(|v| v.as_bytes()), &[]);
    }
    builder.finish();
    bytes
}

/// The keyed records in a stretch of bytes: `offset:key=value`.
fn records(mut bytes: &[u8]) -> String {
    let mut out = Vec::new();
    while let Ok(batch) = Batch::stored(bytes) {
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        let mut rows = Vec::new();
        for record in Records::new(batch.records(), batch.count()).map(|r| r.unwrap()) {
            let offset = batch.base_offset() + i64::from(record.offset_delta);
            let value = record.value.map_or("-".to_string(), text);
            rows.push(format!("{offset}:{}={value}", record.key.map_or("?".to_string(), text)));
        }
        out.push(format!("[{}]", rows.join(" ")));
        bytes = &bytes[batch.size()..];
    }
    out.join(" ")
}

/// A batch of exactly `size` bytes, if its records fit.
fn batch(fields: BatchFields, records: i64, size: usize, timestamp: i64) -> Vec<u8> {
    let build = |filler: usize| {
        let mut bytes = Vec::new();
        let mut builder = BatchBuilder::new(&mut bytes, fields);
        for _ in 1..records {
            builder.push(timestamp, None, None, &[]);
        }
        builder.push(timestamp, None, Some(&vec![fields.base_offset.0 as u8; filler]), &[]);
        builder.finish();
        bytes
    };
    let guess = size.saturating_sub(build(0).len());
    (guess.saturating_sub(4)..=guess).map(build).find(|bytes| bytes.len() >= size).unwrap_or_else(|| build(guess))
}

fn describe(result: Result<String, StorageError>) -> String {
    result.unwrap_or_else(|e| e.to_string())
}

fn describe_job(job: &Job) -> String {
    let short = |path: &PathBuf| path.strip_prefix(DIR).unwrap_or(path).display().to_string();
    match job {
        Job::SyncFileSystems { .. } => "sync all".to_string(),
        Job::Preallocate { position, size, .. } => format!("preallocate {position}..{}", position.0 + size),
        Job::StartWriteback { position, size, .. } => format!("write back {position}..{}", position.0 + size),
        Job::Sync { .. } => "sync".to_string(),
        Job::Truncate { size, .. } => format!("truncate to {size}"),
        Job::ReadAhead { .. } => "read ahead".to_string(),
        Job::DropPages { position, size, .. } => format!("drop pages {position}..{}", position.0 + size),
        Job::Close { .. } => "close".to_string(),
        Job::Rename { from, to } => format!("rename {} to {}", short(from), short(to)),
        Job::Remove { path } | Job::RemoveDir { path } => format!("remove {}", short(path)),
        Job::Replace { path, bytes, .. } => format!("write {} ({} bytes)", short(path), bytes.len()),
    }
}

fn place(range: &FileRange) -> String {
    format!("position={}..{}", range.position, range.position.0 + u64::from(range.size))
}

/// The batches in a stretch of bytes, each as `base..last(e epoch)`.
fn offsets(mut bytes: &[u8]) -> String {
    let mut out = Vec::new();
    while let Some(header) = HeaderView::read(bytes) {
        let Some(size) = header.batch_size().filter(|size| *size <= bytes.len()) else { break };
        out.push(format!("{}..{}", header.base_offset(), header.last_offset()));
        bytes = &bytes[size..];
    }
    if !bytes.is_empty() {
        out.push(format!("+{} bytes", bytes.len()));
    }
    out.join(" ")
}

fn run_script(text: &str) -> String {
    let mut world = World::new();
    let mut out = String::new();
    for block in text.split("\n\n") {
        let commands = block.split("\n----").next().unwrap_or_default();
        let mut traces = Vec::new();
        for line in commands.lines() {
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let mut words = line.split_whitespace();
            let command = words.next().expect("a word");
            let args = words.map(|w| w.split_once('=').unwrap_or((w, ""))).map(|(k, v)| (k.into(), v.into())).collect();
            let trace = world.run(command, &Args(args));
            if !trace.is_empty() {
                traces.push(trace);
            }
        }
        out.push_str(commands.trim_end());
        if commands.lines().any(|line| !line.starts_with('#') && !line.trim().is_empty()) {
            out.push_str("\n----\n");
            out.push_str(&traces.join("\n"));
        }
        let trimmed = out.trim_end().len();
        out.truncate(trimmed);
        out.push_str("\n\n");
    }
    format!("{}\n", out.trim_end())
}

#[test]
fn scripts() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts/storage");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 5, "the scripts are gone");
    let mut failures = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let got = run_script(&text);
        if got == text {
            continue;
        }
        if std::env::var_os("REWRITE").is_some() {
            std::fs::write(&path, &got).unwrap();
        } else {
            let line = got.lines().zip(text.lines()).position(|(a, b)| a != b).unwrap_or(0);
            failures.push(format!(
                "{}:{}: expected {:?}, got {:?}",
                path.display(),
                line + 1,
                text.lines().nth(line),
                got.lines().nth(line)
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Two partitions through a clean stop: Apache Kafka's files hold them, the mark is taken by the next start.
#[test]
fn data_directory_survives_a_clean_stop() {
    let mut disk = MemoryDisk::default();
    let found = Checkpoints::take(&mut disk).unwrap();
    let id = uuid::Uuid::from_u128(7);
    let mut closed = Vec::new();
    for partition in 0..2 {
        let start = found.start(id, "a.b", partition);
        let dir = PathBuf::from(format!("a.b-{partition}"));
        let config = Rc::new(LogConfig::default());
        let now = Now::default();
        let (mut log, _) = Log::open(&mut disk, &dir, JobOwner(1), config, start, now).unwrap();
        let bytes = batch(BatchFields { leader_epoch: LeaderEpoch(0), ..BatchFields::default() }, 3, 100, 1000);
        log.stage(StagedBatch {
            base_offset: Offset(0),
            last_offset: Offset(2),
            max_timestamp: 1000,
            leader_epoch: LeaderEpoch(0),
            producer: ProducerStamp::NONE,
            transactional: false,
            control: false,
            slice: Slice { buffer: 0, start: 0, size: 100 },
        });
        log.flush(&mut disk, &vec![bytes], now).unwrap();
        log.delete_records_before(&mut disk, Offset(i64::from(partition)));
        while let Some((_, job, result)) = disk.run_next() {
            log.job_done(&mut disk, job, result, now);
        }
        assert!(log.is_quiet());
        let log = log.close(&mut disk, true).unwrap();
        closed.push(ClosedPartition { topic: "a.b".to_string(), index: partition, log });
    }
    // A stop that ends here, as the disk is full: what was deleted stays deleted.
    let found = Checkpoints::take(&mut disk).unwrap();
    let (start, config) = (found.start(id, "a.b", 1), Rc::new(LogConfig::default()));
    let (log, _) = Log::open(&mut disk, Path::new("a.b-1"), JobOwner(1), config, start, Now::default()).unwrap();
    assert_eq!(log.log_start_offset(), Offset(1));
    drop(log);

    Checkpoints::write(&mut disk, &closed).unwrap();
    assert!(!disk.names().any(|(path, _)| path.ends_with("partition.checkpoint")));
    let text = |disk: &mut MemoryDisk, name: &str| String::from_utf8(disk.file(Path::new(name)).unwrap().bytes.clone());
    assert_eq!(text(&mut disk, "recovery-point-offset-checkpoint").unwrap(), "0\n2\na.b 0 3\na.b 1 3\n");
    assert_eq!(text(&mut disk, "log-start-offset-checkpoint").unwrap(), "0\n1\na.b 1 1\n");
    assert_eq!(text(&mut disk, "replication-offset-checkpoint").unwrap(), "0\n2\na.b 0 3\na.b 1 3\n");

    let metadata = text(&mut disk, "a.b-1/partition.metadata").unwrap();
    assert_eq!(decode_metadata(&metadata), Some(id));
    let found = Checkpoints::take(&mut disk).unwrap();
    let start = found.start(id, "a.b", 1);
    assert_eq!((start.log_start, start.recovery_point, start.clean), (Some(Offset(1)), Offset(3), true));
    let again = Checkpoints::take(&mut disk).unwrap();
    assert!(!again.start(id, "a.b", 1).clean, "the mark counts once");
}
