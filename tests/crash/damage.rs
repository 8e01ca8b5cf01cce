//! What can happen to the files of a partition while the broker is down, and what is to become of it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use ringlane::io::sim::Random;
use ringlane::wire::batch::{HeaderView, field};

/// What was done, and what the broker must make of it.
pub struct Done {
    /// The broker logs this.
    pub says: String,
    /// The log ends here now. `None`: where it did.
    pub ends_at: Option<i64>,
}

/// A kind of damage: its name, whether it takes records, and how it is done to a partition's directory.
pub struct Damage {
    pub name: &'static str,
    pub takes_records: bool,
    pub apply: fn(&Path, &mut Random) -> Done,
}

const fn takes(name: &'static str, apply: fn(&Path, &mut Random) -> Done) -> Damage {
    Damage { name, takes_records: true, apply }
}
const fn spares(name: &'static str, apply: fn(&Path, &mut Random) -> Done) -> Damage {
    Damage { name, takes_records: false, apply }
}

/// Each is done once, in a life of the broker of its own.
pub const ALL: &[Damage] = &[
    takes("a tail cut in the middle of a batch", |dir, random| in_batch(dir, random, true, cut)),
    takes("a bit flipped in the active segment", |dir, random| in_batch(dir, random, true, flip_covered)),
    takes("a bit flipped in a batch length", |dir, random| in_batch(dir, random, true, flip_length)),
    takes("zeros to the end, as a host's crash leaves them", |dir, random| in_batch(dir, random, true, zero)),
    takes("a bit flipped in a sealed segment", |dir, random| in_batch(dir, random, false, flip_covered)),
    spares("garbage behind the last batch", |dir, random| {
        let log = last(dir, "log");
        let mut bytes = fs::read(&log).expect("read");
        let position = batches(&bytes).last().map_or(0, |b| b.position + b.size);
        bytes.extend((0..1 + random.below(9000)).map(|_| random.next() as u8));
        fs::write(&log, bytes).expect("written");
        Done { says: format!("{}: cut at position {position}", named(&log)), ends_at: None }
    }),
    spares("no offset index", |dir, _| index(dir, "index", |path| fs::remove_file(path))),
    spares("no time index", |dir, _| index(dir, "timeindex", |path| fs::remove_file(path))),
    spares("an offset index cut short", |dir, _| index(dir, "index", |path| shorten(path, 3))),
    spares("a time index cut short", |dir, _| index(dir, "timeindex", |path| shorten(path, 5))),
    spares("garbage in an offset index", |dir, random| index(dir, "index", |path| garbage(path, random))),
    spares("garbage in a time index", |dir, random| index(dir, "timeindex", |path| garbage(path, random))),
    spares("an empty time index", |dir, _| index(dir, "timeindex", |path| fs::write(path, []))),
    spares("zeros in a time index", |dir, _| {
        index(dir, "timeindex", |path| fs::write(path, vec![0; fs::read(path)?.len()]))
    }),
    spares("a bit flipped in an offset index", |dir, _| index(dir, "index", |path| flip_entry(path, 8))),
    spares("a bit flipped in a time index", |dir, _| index(dir, "timeindex", |path| flip_entry(path, 12))),
    spares("another number in partition.checkpoint", |dir, _| {
        one(dir, "partition.checkpoint", "damaged, the whole log is checked", |path| {
            replace(path, "log_start_offset 0", "log_start_offset 1")
        })
    }),
    spares("another number in leader-epoch-checkpoint", |dir, _| {
        one(dir, "leader-epoch-checkpoint", "missing or damaged, made anew", |path| replace(path, "0 0", "0 7"))
    }),
    spares("garbage in partition.checkpoint", |dir, random| {
        one(dir, "partition.checkpoint", "damaged, the whole log is checked", |path| garbage(path, random))
    }),
    spares("no partition.checkpoint", |dir, _| {
        let says = format!("{}: recovered", dir.file_name().expect("a name").display());
        fs::remove_file(dir.join("partition.checkpoint")).expect("removed");
        Done { says, ends_at: None }
    }),
    spares("garbage in leader-epoch-checkpoint", |dir, random| {
        one(dir, "leader-epoch-checkpoint", "missing or damaged, made anew", |path| garbage(path, random))
    }),
    spares("no leader-epoch-checkpoint", |dir, _| {
        one(dir, "leader-epoch-checkpoint", "missing or damaged, made anew", |path| fs::remove_file(path))
    }),
    spares("garbage in every producer snapshot", |dir, random| {
        with_suffix(dir, "snapshot").iter().for_each(|path| garbage(path, random).expect("written"));
        Done { says: ".snapshot: damaged".into(), ends_at: None }
    }),
    spares("no producer snapshot", |dir, _| {
        with_suffix(dir, "snapshot").iter().for_each(|path| fs::remove_file(path).expect("removed"));
        let says = format!("{}: no producer snapshot", dir.file_name().expect("a name").display());
        Done { says, ends_at: None }
    }),
    spares("garbage in the data directory's checkpoints", |dir, random| {
        let data = dir.parent().expect("the data directory");
        for name in ["recovery-point-offset-checkpoint", "log-start-offset-checkpoint", "cleaner-offset-checkpoint"] {
            fs::write(data.join(name), random.next().to_string()).expect("written");
        }
        Done { says: "recovery-point-offset-checkpoint is damaged".into(), ends_at: None }
    }),
    spares("a torn tail of the metadata log", |dir, random| {
        let data = dir.parent().expect("the data directory");
        let log = last(&data.join("__cluster_metadata-0"), "log");
        let mut bytes = fs::read(&log).expect("read");
        bytes.extend((0..1 + random.below(500)).map(|_| random.next() as u8));
        fs::write(&log, bytes).expect("written");
        Done { says: "bytes of a torn tail cut".into(), ends_at: None }
    }),
];

struct Place {
    position: usize,
    size: usize,
    base_offset: i64,
}

/// Where the whole batches of a segment are.
fn batches(bytes: &[u8]) -> Vec<Place> {
    let (mut position, mut found) = (0, Vec::new());
    while let Some(header) = HeaderView::read(&bytes[position..]) {
        let Some(size) = header.batch_size().filter(|size| *size <= bytes.len() - position) else { break };
        found.push(Place { position, size, base_offset: header.base_offset().0 });
        position += size;
    }
    found
}

/// Flips a bit in the records of a segment's n-th batch.
pub fn flip_in_batch(log: &Path, index: usize) {
    let mut bytes = fs::read(log).expect("read");
    let place = &batches(&bytes)[index];
    let last = place.position + place.size - 1;
    bytes[last] ^= 1;
    fs::write(log, bytes).expect("written");
}

/// Files of a directory with a suffix, in order.
pub fn with_suffix(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == suffix)).collect();
    paths.sort();
    paths
}

fn last(dir: &Path, suffix: &str) -> PathBuf {
    with_suffix(dir, suffix).pop().expect("a file")
}

/// As the broker names it: below the data directory.
fn named(path: &Path) -> String {
    let dir = path.parent().and_then(Path::file_name).expect("a directory");
    Path::new(dir).join(path.file_name().expect("a name")).display().to_string()
}

/// Damages a batch; how much of the file is left.
type InBatch = fn(&mut [u8], &Place, &mut Random) -> usize;

/// Damages one of the last batches of a segment; all from there on is to go.
fn in_batch(dir: &Path, random: &mut Random, active: bool, damage: InBatch) -> Done {
    let mut logs = with_suffix(dir, "log");
    let mut log = logs.pop().expect("a segment");
    if !active {
        log = logs.pop().expect("a sealed segment");
    }
    let mut bytes = fs::read(&log).expect("read");
    let mut places = batches(&bytes);
    if places.is_empty() {
        // It begins with the batch that the kill tore: the one before is the last with records.
        fs::remove_file(&log).expect("removed");
        log = logs.pop().expect("a segment with records");
        bytes = fs::read(&log).expect("read");
        places = batches(&bytes);
    }
    let back = 1 + random.below(places.len().min(4) as u64) as usize;
    let place = &places[places.len() - back];
    let left = damage(&mut bytes, place, random);
    bytes.truncate(left);
    fs::write(&log, bytes).expect("written");
    Done { says: format!("{}: cut at position {}", named(&log), place.position), ends_at: Some(place.base_offset) }
}

fn cut(_: &mut [u8], place: &Place, random: &mut Random) -> usize {
    place.position + 1 + random.below(place.size as u64 - 1) as usize
}

fn zero(bytes: &mut [u8], place: &Place, random: &mut Random) -> usize {
    let from = place.position + random.below(place.size as u64 / 2) as usize;
    bytes[from..].fill(0);
    bytes.len()
}

/// In what the CRC covers.
fn flip_covered(bytes: &mut [u8], place: &Place, random: &mut Random) -> usize {
    let at = field::COVERED + random.below((place.size - field::COVERED) as u64) as usize;
    bytes[place.position + at] ^= 1 << random.below(8);
    bytes.len()
}

fn flip_length(bytes: &mut [u8], place: &Place, random: &mut Random) -> usize {
    let at = field::BATCH_LENGTH.start + random.below(4) as usize;
    bytes[place.position + at] ^= 1 << random.below(8);
    bytes.len()
}

/// Damages an index of a sealed segment that recovery does not scan.
fn index(dir: &Path, suffix: &str, damage: impl FnOnce(&Path) -> std::io::Result<()>) -> Done {
    let of = |path: &PathBuf| path.metadata().expect("there").len() > 24;
    let path = with_suffix(dir, suffix).into_iter().find(of).expect("an index of some entries");
    damage(&path).expect("damaged");
    let says = format!("{}: indexes missing or damaged, made anew", named(&path.with_extension("log")));
    Done { says, ends_at: None }
}

fn one(dir: &Path, name: &str, says: &str, damage: impl FnOnce(&Path) -> std::io::Result<()>) -> Done {
    let path = dir.join(name);
    damage(&path).expect("damaged");
    Done { says: format!("{}: {says}", named(&path)), ends_at: None }
}

fn shorten(path: &Path, bytes: u64) -> std::io::Result<()> {
    let file = File::options().write(true).open(path)?;
    file.set_len(file.metadata()?.len() - bytes)
}

fn garbage(path: &Path, random: &mut Random) -> std::io::Result<()> {
    let size = fs::metadata(path)?.len();
    fs::write(path, (0..size).map(|_| random.next() as u8).collect::<Vec<_>>())
}

/// Flips a bit of an entry in the middle, the lowest of its last field: the index is well-formed still.
pub fn flip_entry(path: &Path, entry_size: usize) -> std::io::Result<()> {
    let mut bytes = fs::read(path)?;
    let entry = bytes.len() / entry_size / 2;
    bytes[(entry + 1) * entry_size - 1] ^= 1;
    fs::write(path, bytes)
}

fn replace(path: &Path, from: &str, to: &str) -> std::io::Result<()> {
    let text = fs::read_to_string(path)?;
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replacen(from, to, 1))
}
