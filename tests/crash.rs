//! The broker's own process, killed with SIGKILL at random moments while producers write, its files damaged while it is down,
//! its disk full. Every acknowledged record must be there once, in order and unchanged, whatever happened to other partitions.
//!
//! `SEED=n cargo test --test crash` draws other moments and damages; the moments of a kill are never quite the same.

#[path = "crash/client.rs"]
mod client;
#[allow(dead_code)]
#[path = "support/client.rs"]
mod connection;
#[path = "crash/damage.rs"]
mod damage;
#[path = "crash/ledger.rs"]
mod ledger;
#[allow(dead_code)]
#[path = "support/server.rs"]
mod running;
#[path = "crash/server.rs"]
mod server;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use client::Client;
use ledger::Producer;
use ringlane::io::sim::Random;
use server::Server;

const KILLS: u64 = 16;
const BATCHES_MAX: usize = 150;
const SEGMENT: (&str, &str) = ("internal.segment.bytes", "65536");
const KAFKA_STORAGE_ERROR: i16 = 56;
const TOPIC_ALREADY_EXISTS: i16 = 36;

fn seed() -> u64 {
    std::env::var("SEED").map_or(1, |seed| seed.parse().expect("SEED is a number"))
}

/// Topics that write in different ways, and their producers.
struct World {
    dir: tempfile::TempDir,
    producers: Vec<Producer>,
    random: Random,
    /// Files seen under two names: segments that were used again.
    recycled: Recycled,
}

impl World {
    fn new(seed: u64) -> World {
        let dir = tempfile::tempdir().expect("a directory");
        let server = Server::start(dir.path());
        let mut client = Client::connect(server.address).expect("connected");
        client.create_topic("plain", 3, &[SEGMENT]);
        client.create_topic("synced", 2, &[SEGMENT, ("flush.messages", "1")]);
        client.create_topic("recycled", 1, &[SEGMENT, ("retention.bytes", "65536")]);
        server.kill();
        let producers = vec![
            Producer::new("plain", 0, 0, true),
            Producer::new("plain", 0, 1, false),
            Producer::new("plain", 1, 2, false),
            Producer::new("plain", 2, 3, true),
            Producer::new("synced", 0, 4, true),
            Producer::new("synced", 1, 5, false),
            Producer::new("recycled", 0, 6, true),
            Producer::new("recycled", 0, 7, false),
        ];
        World { dir, producers, random: Random::new(seed), recycled: Recycled::default() }
    }

    /// All producers send; the broker is killed in the middle of it.
    fn produce_and_kill(&mut self, server: Server) {
        self.produce_until(server, Server::kill);
    }

    /// All producers send; the broker ends in the middle of it.
    fn produce_until(&mut self, server: Server, end: impl FnOnce(Server)) {
        let (stop, address) = (AtomicBool::new(false), server.address);
        let until = Instant::now() + Duration::from_millis(30 + self.random.below(300));
        std::thread::scope(|scope| {
            for producer in &mut self.producers {
                scope.spawn(|| producer.run(address, &stop, BATCHES_MAX));
            }
            while Instant::now() < until {
                self.recycled.look(&self.dir.path().join("recycled-0"));
                std::thread::sleep(Duration::from_millis(3));
            }
            end(server);
            stop.store(true, Ordering::Relaxed);
        });
    }

    /// Every partition against what its producers know. `damaged`: the partition whose log ends at this offset now.
    fn check(&mut self, server: &Server, damaged: Option<(&str, i32, i64)>) {
        let mut client = Client::connect(server.address).expect("connected");
        let mut partitions: BTreeMap<(&str, i32), Vec<&mut Producer>> = BTreeMap::new();
        for producer in &mut self.producers {
            partitions.entry((producer.topic, producer.partition)).or_default().push(producer);
        }
        for ((topic, partition), mut producers) in partitions {
            let log = client.read_log(topic, partition);
            assert!(log.start == 0 || topic == "recycled", "{topic}-{partition} starts at {}", log.start);
            let lost_from = damaged.filter(|d| (d.0, d.1) == (topic, partition)).map(|d| d.2);
            ledger::check(&log, &mut producers, lost_from);
            ledger::check_indexes(&mut client, topic, partition, &log, &mut self.random);
        }
    }

    fn acknowledged(&self) -> usize {
        self.producers.iter().map(Producer::acknowledged).sum()
    }
}

/// Follows the files of a directory by what they are, not by their names.
#[derive(Default)]
struct Recycled {
    names: HashMap<(u64, SystemTime), HashSet<std::ffi::OsString>>,
}

impl Recycled {
    fn look(&mut self, dir: &Path) {
        for entry in dir.read_dir().into_iter().flatten().flatten() {
            // An inode's number is given again, its birth is not.
            if let Ok(about) = entry.metadata()
                && entry.path().extension().is_some_and(|e| e == "log")
                && let Ok(born) = about.created()
            {
                self.names.entry((about.ino(), born)).or_default().insert(entry.file_name());
            }
        }
    }
    fn count(&self) -> usize {
        self.names.values().map(|names| names.len() - 1).sum()
    }
}

#[test]
fn killed_at_any_moment_it_loses_nothing() {
    let mut world = World::new(seed());
    for kill in 0..KILLS {
        if kill % 4 == 3 {
            Server::start_and_kill(world.dir.path(), Duration::from_millis(world.random.below(60)));
        }
        let server = Server::start(world.dir.path());
        world.check(&server, None);
        world.produce_and_kill(server);
    }
    let server = Server::start(world.dir.path());
    world.check(&server, None);
    let (acknowledged, recycled) = (world.acknowledged(), world.recycled.count());
    println!("{acknowledged} records acknowledged over {KILLS} kills, {recycled} segments recycled");
    assert!(acknowledged > 2_000, "the load is too small");
    assert!(recycled > 0, "no segment was recycled");
}

#[test]
fn damage_is_cut_or_made_anew_and_stays_where_it_is() {
    let mut world = World::new(seed());
    // Some segments of every kind first.
    for _ in 0..3 {
        let server = Server::start(world.dir.path());
        world.produce_and_kill(server);
    }
    for damage in damage::ALL {
        let server = Server::start(world.dir.path());
        world.produce_and_kill(server);
        // What was cut was acknowledged: only a producer that does not count can go on behind it.
        let (topic, partition) = if damage.takes_records { ("plain", 1) } else { ("synced", 0) };
        let done = (damage.apply)(&world.dir.path().join(format!("{topic}-{partition}")), &mut world.random);
        println!("{}: {}", damage.name, done.says);
        let server = Server::start(world.dir.path());
        assert!(server.says(&done.says), "{}: the broker does not say {:?}", damage.name, done.says);
        world.check(&server, done.ends_at.map(|end| (topic, partition, end)));
        server.kill();
    }
}

/// After a stop in good order no log is read through: an index that is well-formed would be believed.
#[test]
fn an_index_that_changed_after_a_clean_stop_is_made_anew() {
    let mut world = World::new(seed());
    for (suffix, entry_size) in [("index", 8), ("timeindex", 12)] {
        let server = Server::start(world.dir.path());
        world.produce_until(server, |server| assert!(server.stop(), "stopped in good order"));
        // The active segment's as well: the log's end is looked for from its last entry.
        let mut damaged = damage::with_suffix(&world.dir.path().join("plain-1"), suffix);
        damaged.retain(|path| path.metadata().expect("there").len() > 0);
        assert!(damaged.len() > 1, "too few segments");
        for path in &damaged {
            damage::flip_entry(path, entry_size).expect("damaged");
        }
        let server = Server::start(world.dir.path());
        world.check(&server, None);
        for path in damaged {
            let segment = path.file_stem().expect("a name").to_str().expect("a number");
            assert!(server.says(&format!("plain-1/{segment}")), "not a word of {}", path.display());
        }
        server.kill();
    }
}

/// Checkpoints are written by a clean stop, and a topic may be deleted and made anew before the next.
#[test]
fn a_topic_made_anew_before_a_crash_has_nothing_of_the_old_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address).expect("connected");
    client.create_topic("again", 1, &[]);
    assert_eq!(send(&mut Producer::new("again", 0, 0, false), &server, 20), Ok(()));
    assert_eq!(client.delete_records("again", 0), 0);
    assert!(server.stop());
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address).expect("connected");
    assert_eq!(client.delete_topic("again"), 0);
    client.create_topic("again", 1, &[]);
    let mut producer = Producer::new("again", 0, 1, false);
    assert_eq!(send(&mut producer, &server, 5), Ok(()));
    server.kill();
    check(&mut producer, &Server::start(dir.path()));
}

#[test]
fn a_damaged_commit_costs_no_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address).expect("connected");
    client.create_topic("read", 3, &[]);
    for (partition, offset) in [(1, 11), (0, 20), (1, 21), (2, 22)] {
        client.commit("readers", "read", partition, offset);
    }
    assert!(server.stop());
    let offsets = std::fs::read_dir(dir.path()).expect("a directory").map(|entry| entry.expect("an entry").path());
    let logs = offsets.map(|dir| dir.join("00000000000000000000.log"));
    let mut logs = logs.filter(|log| log.to_string_lossy().contains("__consumer_offsets-") && log.exists());
    damage::flip_in_batch(&logs.next().expect("the partition of the group"), 2);
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address).expect("connected");
    let committed = client.committed("readers", "read", 0..3);
    assert_eq!(committed, BTreeMap::from([(0, 20), (1, 11), (2, 22)]), "the one before holds again");
    assert!(server.says("the batch at offset 2 is skipped"));
    client.commit("readers", "read", 1, 31);
    assert_eq!(client.committed("readers", "read", 1..2), BTreeMap::from([(1, 31)]));
}

/// A small file system of its own, gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`: this process may not mount.
    fn mount(at: &Path, size: &str) -> Option<SmallDisk> {
        std::fs::create_dir_all(at).expect("a directory");
        let made = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]).arg(at).output();
        match made {
            Ok(output) if output.status.success() => Some(SmallDisk(at.to_path_buf())),
            other => {
                println!("skipped: a small file system cannot be mounted here: {other:?}");
                None
            }
        }
    }
    /// Another program takes what is left, to the last byte.
    fn take_the_rest(&self) {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(self.ballast()).expect("a file");
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }
    fn give_back(&self) {
        std::fs::remove_file(self.ballast()).expect("it was taken");
    }
    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
    fn grow(&self, size: &str) {
        let options = format!("remount,size={size}");
        let grown = Command::new("mount").args(["-o", &options]).arg(&self.0).status().expect("mount runs");
        assert!(grown.success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn send(producer: &mut Producer, server: &Server, batches: usize) -> Result<(), i16> {
    let mut client = Client::connect(server.address).expect("connected");
    for _ in 0..batches {
        match producer.send(&mut client).expect("the broker lives") {
            0 => {}
            error => return Err(error),
        }
    }
    Ok(())
}

fn check(producer: &mut Producer, server: &Server) {
    let mut client = Client::connect(server.address).expect("connected");
    let log = client.read_log(producer.topic, producer.partition);
    ledger::check(&log, &mut [producer], None);
}

#[test]
fn a_full_disk_stops_its_partition_until_there_is_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    Client::connect(server.address).expect("connected").create_topic("full", 2, &[("segment.bytes", "1048576")]);
    let small = dir.path().join("full-0");
    let Some(disk) = SmallDisk::mount(&small, "3m") else { return };
    let (mut full, mut other) = (Producer::new("full", 0, 0, true), Producer::new("full", 1, 1, true));
    assert_eq!(send(&mut full, &server, 10_000), Err(KAFKA_STORAGE_ERROR));
    assert_eq!(send(&mut other, &server, 100), Ok(()), "the other partition goes on");
    check(&mut full, &server);
    // A start beside a full disk.
    server.kill();
    let server = Server::start(dir.path());
    check(&mut full, &server);
    check(&mut other, &server);
    assert_eq!(send(&mut full, &server, 10_000), Err(KAFKA_STORAGE_ERROR));
    assert_eq!(send(&mut other, &server, 100), Ok(()));
    disk.grow("8m");
    assert_eq!(send(&mut full, &server, 200), Ok(()), "there is room again");
    check(&mut full, &server);
    server.kill();
    let server = Server::start(dir.path());
    check(&mut full, &server);
    check(&mut other, &server);
}

#[test]
fn a_full_data_directory_stops_what_writes_until_there_is_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(disk) = SmallDisk::mount(dir.path(), "4m") else { return };
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address).expect("connected");
    client.create_topic("full", 2, &[("segment.bytes", "1048576")]);
    let (mut first, mut second) = (Producer::new("full", 0, 0, true), Producer::new("full", 1, 1, true));
    assert_eq!(send(&mut second, &server, 10), Ok(()));
    assert_eq!(send(&mut first, &server, 10_000), Err(KAFKA_STORAGE_ERROR));
    let topics = (0..100).map(|i| client.try_create_topic(&format!("late-{i}"), 100, &[]));
    assert!(topics.into_iter().any(|error| error == KAFKA_STORAGE_ERROR), "the metadata log is full too");
    check(&mut first, &server);
    check(&mut second, &server);
    disk.grow("32m");
    client.create_topic("in-time", 2, &[]);
    assert_eq!(send(&mut first, &server, 200), Ok(()), "there is room again");
    assert_eq!(send(&mut second, &server, 200), Ok(()));
    server.kill();
    let server = Server::start(dir.path());
    check(&mut first, &server);
    check(&mut second, &server);
    assert_eq!(send(&mut Producer::new("in-time", 0, 2, true), &server, 10), Ok(()));
}

/// Sends as soon as what was deleted has given its space back.
fn send_when_there_is_room(producer: &mut Producer, server: &Server) {
    let until = Instant::now() + Duration::from_secs(30);
    while let Err(error) = send(producer, server, 5) {
        assert!(error == KAFKA_STORAGE_ERROR && Instant::now() < until, "error {error}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Nothing of what a start writes may be needed: a broker that could not start could not be told to delete anything either.
#[test]
fn on_a_full_disk_it_starts_and_what_is_deleted_gives_room() {
    for by_kill in [true, false] {
        let dir = tempfile::tempdir().expect("a directory");
        let Some(disk) = SmallDisk::mount(dir.path(), "6m") else { return };
        let server = Server::start(dir.path());
        let mut client = Client::connect(server.address).expect("connected");
        for topic in ["first", "second", "third"] {
            client.create_topic(topic, 1, &[SEGMENT]);
        }
        let mut producers = ["first", "second", "third"].map(|topic| Producer::new(topic, 0, 0, true));
        for producer in &mut producers {
            assert_eq!(send(producer, &server, 100), Ok(()));
        }
        if by_kill {
            server.kill();
            disk.take_the_rest();
        } else {
            disk.take_the_rest();
            assert_eq!(send(&mut producers[0], &server, 10_000), Err(KAFKA_STORAGE_ERROR));
            server.stop();
            disk.take_the_rest();
        }
        let server = Server::start(dir.path());
        assert!(server.says("No space left on device"), "it is told");
        producers.iter_mut().for_each(|producer| check(producer, &server));
        assert_eq!(send(&mut producers[1], &server, 10_000), Err(KAFKA_STORAGE_ERROR));
        producers.iter_mut().for_each(|producer| check(producer, &server));
        let mut client = Client::connect(server.address).expect("connected");
        let mut topics = (0..100).map(|i| client.try_create_topic(&format!("late-{i}"), 100, &[]));
        assert!(topics.any(|error| error == KAFKA_STORAGE_ERROR), "the metadata log is full too");

        assert_eq!(client.delete_topic("first"), 0, "a little space is reserved for that");
        send_when_there_is_room(&mut producers[1], &server);
        assert_eq!(send(&mut producers[2], &server, 10_000), Err(KAFKA_STORAGE_ERROR));
        assert_eq!(client.delete_records("second", 0), 0);
        send_when_there_is_room(&mut producers[2], &server);

        disk.give_back();
        client.create_topic("fourth", 1, &[]);
        check(&mut producers[2], &server);
        server.kill();
        let server = Server::start(dir.path());
        let mut client = Client::connect(server.address).expect("connected");
        assert_eq!(client.try_create_topic("fourth", 1, &[]), TOPIC_ALREADY_EXISTS);
        assert_eq!(client.try_create_topic("first", 1, &[]), 0, "it stays deleted");
        check(&mut producers[2], &server);
    }
}
