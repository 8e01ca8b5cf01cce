//! What a run does, checked and typed: the meaning of the flags and of `loadgen/workloads/*.toml`.
//! Parsing of single values lives here; reading flags and files lives in `args`. No I/O.

use crate::batch::Random;
use crate::codec::Codec;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    None,
    Leader,
    All,
}

impl Acks {
    pub fn code(self) -> i16 {
        match self {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        }
    }
}

impl FromStr for Acks {
    type Err = anyhow::Error;
    fn from_str(s: &str) -> Result<Self> {
        Ok(match s {
            "0" => Acks::None,
            "1" => Acks::Leader,
            "all" | "-1" => Acks::All,
            _ => bail!("unknown acks {s:?}; use 0, 1 or all"),
        })
    }
}

impl fmt::Display for Acks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Acks::None => "0",
            Acks::Leader => "1",
            Acks::All => "all",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Records are encoded once; each request rewrites its head only.
    Prebuilt,
    /// Each record is encoded and checksummed like an ordinary client does.
    Fresh,
}

impl FromStr for Payload {
    type Err = anyhow::Error;
    fn from_str(s: &str) -> Result<Self> {
        Ok(match s {
            "prebuilt" => Payload::Prebuilt,
            "fresh" => Payload::Fresh,
            _ => bail!("unknown payload {s:?}; use prebuilt or fresh"),
        })
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Payload::Prebuilt => "prebuilt",
            Payload::Fresh => "fresh",
        })
    }
}

/// Value sizes: one, a range, or a weighted mix.
#[derive(Clone, Debug, PartialEq)]
pub enum RecordSize {
    Fixed(usize),
    Uniform(usize, usize),
    /// Sizes with cumulative weights that end at 1.0.
    Mix(Vec<(usize, f64)>),
}

pub const RECORD_SIZE_MAX: usize = 64 << 20;

impl RecordSize {
    pub fn max(&self) -> usize {
        match self {
            RecordSize::Fixed(n) | RecordSize::Uniform(_, n) => *n,
            RecordSize::Mix(sizes) => sizes.iter().map(|s| s.0).max().unwrap_or(0),
        }
    }
    pub fn mean(&self) -> f64 {
        match self {
            RecordSize::Fixed(n) => *n as f64,
            RecordSize::Uniform(a, b) => (a + b) as f64 / 2.0,
            RecordSize::Mix(sizes) => {
                let mut before = 0.0;
                sizes.iter().map(|&(size, until)| size as f64 * (until - std::mem::replace(&mut before, until))).sum()
            }
        }
    }
    pub fn draw(&self, random: &mut Random) -> usize {
        match self {
            RecordSize::Fixed(n) => *n,
            RecordSize::Uniform(a, b) => a + random.below((b - a + 1) as u64) as usize,
            RecordSize::Mix(sizes) => {
                let x = random.unit();
                sizes.iter().find(|s| x < s.1).or(sizes.last()).map_or(0, |s| s.0)
            }
        }
    }
}

impl FromStr for RecordSize {
    type Err = anyhow::Error;
    fn from_str(s: &str) -> Result<Self> {
        let size = if let Some(range) = s.strip_prefix("uniform:") {
            let (a, b) = range.split_once('-').with_context(|| format!("{s:?}: write uniform:MIN-MAX"))?;
            let (a, b) = (bytes(a)?, bytes(b)?);
            ensure!(a <= b, "{s:?}: the smaller size comes first");
            RecordSize::Uniform(a, b)
        } else if let Some(list) = s.strip_prefix("mix:") {
            let mut sizes = Vec::new();
            for part in list.split('+') {
                let (size, weight) =
                    part.split_once('*').with_context(|| format!("{s:?}: write mix:SIZE*WEIGHT+SIZE*WEIGHT"))?;
                let weight: f64 = weight.parse().with_context(|| format!("{s:?}: weight {weight:?} is no number"))?;
                ensure!(weight > 0.0, "{s:?}: weights are above 0");
                sizes.push((bytes(size)?, weight));
            }
            let total: f64 = sizes.iter().map(|s| s.1).sum();
            let mut sum = 0.0;
            for s in &mut sizes {
                sum += s.1 / total;
                s.1 = sum;
            }
            RecordSize::Mix(sizes)
        } else {
            RecordSize::Fixed(bytes(s)?)
        };
        ensure!(size.max() <= RECORD_SIZE_MAX, "record size {s:?} is above {RECORD_SIZE_MAX} bytes");
        Ok(size)
    }
}

impl fmt::Display for RecordSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordSize::Fixed(n) => write!(f, "{n}"),
            RecordSize::Uniform(a, b) => write!(f, "uniform:{a}-{b}"),
            RecordSize::Mix(sizes) => {
                f.write_str("mix:")?;
                let mut before = 0.0;
                for (i, (size, until)) in sizes.iter().enumerate() {
                    write!(f, "{}{size}*{:.3}", if i > 0 { "+" } else { "" }, until - before)?;
                    before = *until;
                }
                Ok(())
            }
        }
    }
}

/// Record keys. They fill the key field; partitions are filled evenly whatever the keys are.
#[derive(Clone, Debug)]
pub enum Keys {
    None,
    Uniform(u64),
    /// Key count and the cumulative probabilities of a Zipf law with exponent 1.
    Zipf(Arc<Vec<f64>>),
}

impl Keys {
    pub fn draw(&self, random: &mut Random) -> Option<u64> {
        match self {
            Keys::None => None,
            Keys::Uniform(count) => Some(random.below(*count)),
            Keys::Zipf(law) => {
                let x = random.unit();
                Some(law.partition_point(|p| *p < x).min(law.len() - 1) as u64)
            }
        }
    }
}

impl FromStr for Keys {
    type Err = anyhow::Error;
    fn from_str(s: &str) -> Result<Self> {
        let (kind, count) = s.split_once(':').unwrap_or((s, "1000"));
        let count: u64 = count.parse().with_context(|| format!("keys {s:?}: {count:?} is no number of keys"))?;
        ensure!((1..=10_000_000).contains(&count), "keys {s:?}: between 1 and 10,000,000 keys");
        Ok(match kind {
            "none" => Keys::None,
            "uniform" => Keys::Uniform(count),
            "zipf" => {
                let mut sum = 0.0;
                let mut law: Vec<f64> = (1..=count)
                    .map(|rank| {
                        sum += 1.0 / rank as f64;
                        sum
                    })
                    .collect();
                law.iter_mut().for_each(|p| *p /= sum);
                Keys::Zipf(Arc::new(law))
            }
            _ => bail!("unknown keys {s:?}; use none, uniform:COUNT or zipf:COUNT"),
        })
    }
}

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Keys::None => f.write_str("none"),
            Keys::Uniform(count) => write!(f, "uniform:{count}"),
            Keys::Zipf(law) => write!(f, "zipf:{}", law.len()),
        }
    }
}

/// Records per second over all producers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// Closed loop: a new request as soon as the window has room.
    Max,
    /// Open loop: requests are due at fixed times, whether or not the broker keeps up.
    PerSecond(f64),
}

impl FromStr for Rate {
    type Err = anyhow::Error;
    fn from_str(s: &str) -> Result<Self> {
        if s == "max" {
            return Ok(Rate::Max);
        }
        let (digits, factor) = match s.char_indices().last() {
            Some((i, 'k')) => (&s[..i], 1e3),
            Some((i, 'M')) => (&s[..i], 1e6),
            _ => (s, 1.0),
        };
        let rate: f64 = digits.parse().with_context(|| format!("rate {s:?}: write max, 5000, 5k or 1.5M"))?;
        ensure!(rate > 0.0 && rate.is_finite(), "rate {s:?} must be above 0 records/s");
        Ok(Rate::PerSecond(rate * factor))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rate::Max => f.write_str("max"),
            Rate::PerSecond(rate) => write!(f, "{rate}"),
        }
    }
}

/// What a consumer does with what it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Reads batch headers only.
    Discard,
    /// Checks every CRC, that offsets are dense, and that no producer's records are missing, doubled or out of order.
    Verify,
}

impl FromStr for Check {
    type Err = anyhow::Error;
    fn from_str(s: &str) -> Result<Self> {
        Ok(match s {
            "discard" => Check::Discard,
            "verify" => Check::Verify,
            _ => bail!("unknown check {s:?}; use discard or verify"),
        })
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Check::Discard { "discard" } else { "verify" })
    }
}

/// A number of bytes: `900000`, `16k`, `1MiB`, `4GB`. `k`, `M`, `G` and their `B` forms are decimal, `Ki` and so on binary.
pub fn bytes(s: &str) -> Result<usize> {
    let digits = s.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(s.len());
    let number: f64 = s[..digits].parse().with_context(|| format!("{s:?} is no size; write 900000, 16k or 1MiB"))?;
    let factor = match &s[digits..] {
        "" | "B" => 1.0,
        "k" | "kB" | "K" | "KB" => 1e3,
        "M" | "MB" => 1e6,
        "G" | "GB" => 1e9,
        "Ki" | "KiB" => 1024.0,
        "Mi" | "MiB" => 1048576.0,
        "Gi" | "GiB" => 1073741824.0,
        unit => bail!("{s:?}: unknown unit {unit:?}; use k, M, G, KiB, MiB or GiB"),
    };
    Ok((number * factor) as usize)
}

/// Everything that one measurement is made of, apart from the broker. The matrix is `acks` x `record_sizes` x
/// `payloads` x `rates`; all other settings are the same for every cell.
#[derive(Clone, Debug)]
pub struct Workload {
    pub name: String,
    pub acks: Vec<Acks>,
    pub record_sizes: Vec<RecordSize>,
    pub payloads: Vec<Payload>,
    pub rates: Vec<Rate>,
    pub keys: Keys,
    pub codec: Codec,
    pub topics: usize,
    /// Partitions per topic; 0 means one for each broker node.
    pub partitions: usize,
    pub replication: i16,
    pub topic_configs: Vec<(String, String)>,
    /// Connections that produce; 0 means one for each partition.
    pub producers: usize,
    /// Connections that consume, in each group.
    pub consumers: usize,
    pub groups: usize,
    pub batch_bytes: usize,
    pub batch_records_max: usize,
    pub linger_ms: f64,
    pub in_flight: usize,
    pub fetch_bytes: usize,
    pub fetch_wait_ms: i32,
    pub check: Check,
    /// Written before measuring; consumers then replay it over and over.
    pub fill_bytes: u64,
    /// The filled topic is dropped from the page cache before each repeat.
    pub cold: bool,
    pub duration_s: f64,
    pub warmup_s: f64,
    pub repeats: usize,
    pub keep_topics: bool,
}

/// One cell of the matrix.
#[derive(Clone, Debug)]
pub struct Cell {
    pub acks: Acks,
    pub record_size: RecordSize,
    pub payload: Payload,
    pub rate: Rate,
}

impl Workload {
    pub fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        if !self.produces() {
            // Only the size of the records matters to consumers.
            let cell = |size: &RecordSize| Cell {
                acks: Acks::Leader,
                record_size: size.clone(),
                payload: Payload::Prebuilt,
                rate: Rate::Max,
            };
            return self.record_sizes.iter().map(cell).collect();
        }
        for &payload in &self.payloads {
            for &acks in &self.acks {
                for record_size in &self.record_sizes {
                    for &rate in &self.rates {
                        cells.push(Cell { acks, record_size: record_size.clone(), payload, rate });
                    }
                }
            }
        }
        cells
    }

    pub fn produces(&self) -> bool {
        self.producers != NO_PRODUCERS
    }

    pub fn check(&self) -> Result<()> {
        ensure!(self.produces() || self.consumers > 0, "nothing to do: producers and consumers are both 0");
        ensure!(self.produces() || self.fill_bytes > 0, "consumers alone need something to read: add --fill 1GB");
        ensure!(!self.cold || self.fill_bytes > 0, "--cold drops the filled topic from the cache: add --fill 4GB");
        ensure!(self.duration_s > 0.0, "--duration must be above 0");
        ensure!(self.repeats > 0, "--repeats must be above 0");
        ensure!(self.in_flight > 0, "--in-flight must be above 0");
        ensure!(self.topics > 0, "--topics must be above 0");
        ensure!(self.batch_bytes <= 100 << 20, "--batch-bytes is at most 100 MiB");
        ensure!(self.fetch_bytes > 0 && self.fetch_bytes <= 1 << 30, "--fetch-bytes is between 1 and 1 GiB");
        ensure!(!self.acks.is_empty() && !self.record_sizes.is_empty(), "--acks and --record-size need a value");
        ensure!(!self.payloads.is_empty() && !self.rates.is_empty(), "--payload and --rate need a value");
        Ok(())
    }
}

/// `producers` for a workload that only consumes; 0 stands for "one for each partition".
pub const NO_PRODUCERS: usize = usize::MAX;

/// The workload as the run file keeps it: what a reader needs to run it again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkloadFacts {
    pub name: String,
    pub keys: String,
    pub codec: String,
    pub topics: usize,
    pub partitions: usize,
    pub replication: i16,
    pub topic_configs: Vec<String>,
    pub producers: usize,
    pub consumers: usize,
    pub groups: usize,
    pub batch_bytes: usize,
    pub batch_records_max: Option<usize>,
    pub linger_ms: f64,
    pub in_flight: usize,
    pub fetch_bytes: usize,
    pub fetch_wait_ms: i32,
    pub check: String,
    pub fill_bytes: u64,
    pub cold: bool,
    pub duration_s: f64,
    pub warmup_s: f64,
    pub repeats: usize,
}

impl From<&Workload> for WorkloadFacts {
    fn from(w: &Workload) -> Self {
        WorkloadFacts {
            name: w.name.clone(),
            keys: w.keys.to_string(),
            codec: w.codec.to_string(),
            topics: w.topics,
            partitions: w.partitions,
            replication: w.replication,
            topic_configs: w.topic_configs.iter().map(|(k, v)| format!("{k}={v}")).collect(),
            producers: if w.produces() { w.producers } else { 0 },
            consumers: w.consumers,
            groups: w.groups,
            batch_bytes: w.batch_bytes,
            batch_records_max: (w.batch_records_max != usize::MAX).then_some(w.batch_records_max),
            linger_ms: w.linger_ms,
            in_flight: w.in_flight,
            fetch_bytes: w.fetch_bytes,
            fetch_wait_ms: w.fetch_wait_ms,
            check: w.check.to_string(),
            fill_bytes: w.fill_bytes,
            cold: w.cold,
            duration_s: w.duration_s,
            warmup_s: w.warmup_s,
            repeats: w.repeats,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_parse_and_mistakes_say_what_to_type() {
        assert_eq!(bytes("16k").unwrap(), 16_000);
        assert_eq!(bytes("1MiB").unwrap(), 1 << 20);
        assert!(bytes("1Q").unwrap_err().to_string().contains("unknown unit"));
        assert_eq!("uniform:100-200".parse::<RecordSize>().unwrap().mean(), 150.0);
        let mix: RecordSize = "mix:100*3+1000*1".parse().unwrap();
        assert_eq!(mix.mean(), 325.0);
        assert_eq!(mix.to_string(), "mix:100*0.750+1000*0.250");
        assert!("2".parse::<Acks>().unwrap_err().to_string().contains("0, 1 or all"));
        assert_eq!("1.5M".parse::<Rate>().unwrap(), Rate::PerSecond(1.5e6));
        assert!("-3".parse::<Rate>().is_err());
    }

    #[test]
    fn zipf_keys_favour_the_first() {
        let keys: Keys = "zipf:100".parse().unwrap();
        let mut random = Random::seeded(5);
        let mut seen = [0u32; 100];
        for _ in 0..20_000 {
            seen[keys.draw(&mut random).unwrap() as usize] += 1;
        }
        assert!(seen[0] > 5 * seen[20] && seen[20] > seen[99] / 2, "{seen:?}");
    }
}
