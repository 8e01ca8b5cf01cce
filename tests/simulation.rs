//! A whole shard in one thread: the real loop, broker, log and control over the simulated ring and disk, with producers and
//! consumers, stops and kills, under many seeds. Checkers apart from the code: no acknowledged record is lost, offsets are
//! dense, every consumer sees each record once, in order, with the bytes that were sent.
//!
//! A failing run names its seed; `SEED=n cargo test --test simulation` runs just that one, with `RINGLANE_LOG=debug` aloud.

#[path = "sim/client.rs"]
mod client;
#[path = "sim/host.rs"]
mod host;

use std::panic::{AssertUnwindSafe, catch_unwind};

use client::{Consumer, Producer};
use host::Host;
use ringlane::io::sim::{Keep, Random};

const SEEDS: u64 = 200;
const TOPIC: &str = "sim";

/// Small segments and little retained, so that segments roll, retire and are recycled in every run.
const CONFIGS: &[(&str, &str)] = &[("segment.bytes", "1048576"), ("retention.bytes", "2097152")];

#[test]
fn nothing_acknowledged_is_lost() {
    let _ = env_logger::Builder::from_env("RINGLANE_LOG").is_test(true).try_init();
    let seeds = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().expect("SEED is a number")],
        Err(_) => (1..=SEEDS).collect(),
    };
    let all = seeds.len();
    let mut failed = Vec::new();
    let mut retired = 0;
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| run(seed))) {
            Ok(log_moved) => retired += usize::from(log_moved),
            Err(_) => failed.push(seed),
        }
    }
    assert!(failed.is_empty(), "seeds that failed: {failed:?}; run one with SEED=n");
    println!("in {retired} of {all} runs segments were retired");
    assert!(all == 1 || retired > all / 4, "the load is too small: segments were retired in {retired} of {all} runs");
}

/// True: some segment was retired.
fn run(seed: u64) -> bool {
    let mut random = Random::new(seed ^ 0x5eed);
    let mut host = Host::start(seed);
    host.create_topic(TOPIC, 3, CONFIGS);
    let mut producers: Vec<_> = (0..4).map(|n| Producer::new(TOPIC, n % 3, n as u64, n % 2 == 0)).collect();
    let mut consumers: Vec<_> = (0..4).map(|n| Consumer::new(TOPIC, n % 3, n == 3)).collect();
    let lives = 2 + random.below(3);
    for life in 0..lives {
        for _ in 0..200 + random.below(400) {
            for producer in &mut producers {
                producer.step(&mut host, &mut random);
            }
            for consumer in &mut consumers {
                consumer.step(&mut host, &mut random);
            }
            host.turn();
        }
        if life + 1 < lives {
            host = match random.below(2) {
                0 => host.stop_and_start(),
                _ => host.kill_and_start(Keep::Everything),
            };
            producers.iter_mut().for_each(Producer::disconnected);
            consumers.iter_mut().for_each(Consumer::disconnected);
        }
    }
    // The load ends; everything that was acknowledged must still be read.
    for _ in 0..4000 {
        let mut quiet = true;
        for producer in &mut producers {
            quiet &= producer.finish(&mut host);
        }
        host.turn();
        if quiet {
            break;
        }
    }
    let mut retired = false;
    for partition in 0..3 {
        let acknowledged: Vec<_> =
            producers.iter().filter(|p| p.partition == partition).flat_map(Producer::acknowledged).collect();
        let mut reader = Consumer::new(TOPIC, partition, false);
        reader.read_to_end(&mut host, &mut random);
        retired |= reader.log_start() > 0;
        for (offset, value) in acknowledged {
            match reader.seen(offset) {
                Some(seen) => {
                    assert_eq!(seen, value, "seed {seed}: partition {partition} offset {offset} is another record")
                }
                None => assert!(
                    offset < reader.log_start(),
                    "seed {seed}: acknowledged record {partition}/{offset} is lost (log starts at {})",
                    reader.log_start()
                ),
            }
        }
    }
    retired
}
