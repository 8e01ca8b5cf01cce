//! What the user typed: flags, and the same names in a TOML workload file. A flag beats the file, the file beats the
//! default. Turning words into a `Workload` happens here; what a single word means is said in `workload`.

use crate::workload::{self, NO_PRODUCERS, Workload};
use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use serde::{Deserialize, Deserializer};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

#[derive(Parser)]
#[command(
    name = "loadgen",
    version,
    about = "Measures Ringlane and any other Kafka-compatible broker, and draws reports people can compare",
    args_conflicts_with_subcommands = true,
    args_override_self = true,
    after_help = "Without a command: `loadgen run`. Without --bootstrap it starts Ringlane itself."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub run: RunArgs,
}

#[derive(Subcommand)]
pub enum Command {
    /// Measure a workload: every acks x record size x payload x rate, several times
    Run(Box<RunArgs>),
    /// Measure several brokers with one workload, turn by turn (A B A B), so that a drifting machine favours nobody
    Matrix(Box<MatrixArgs>),
    /// Find the highest rate that holds a latency bound
    Saturate(Box<SaturateArgs>),
    /// Measure what this host can do at all, by bare loops
    Ceiling(CeilingArgs),
    /// Draw run files: text, Markdown, one self-contained HTML page, or a picture
    Report(ReportArgs),
    /// Put run files side by side and say which differences are larger than the noise
    Compare(ReportArgs),
    /// Start another broker, print its address, and stop it on Ctrl-C
    Peer(PeerArgs),
}

#[derive(Args, Clone, Default)]
pub struct RunArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Address of a running broker, HOST:PORT[,HOST:PORT]; without it Ringlane is started here
    #[arg(long, value_name = "HOST:PORT")]
    pub bootstrap: Option<String>,
    /// Start and measure this broker instead: apache-kafka, or sink (discards everything: the generator alone)
    #[arg(long, value_name = "NAME", conflicts_with = "bootstrap")]
    pub peer: Option<String>,
    /// Process id of the broker, when it runs here and is not found by its port
    #[arg(long)]
    pub broker_pid: Option<i32>,
    #[command(flatten)]
    pub workload: WorkloadArgs,
}

impl RunArgs {
    /// The broker to measure, as `Target::open` understands it.
    pub fn target_name(&self) -> String {
        self.bootstrap.clone().or(self.peer.clone()).unwrap_or_else(|| "ringlane".into())
    }
}

#[derive(Args, Clone)]
pub struct MatrixArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Brokers to measure: ringlane, apache-kafka, or HOST:PORT of a running one
    #[arg(long, value_delimiter = ',', default_value = "ringlane,apache-kafka")]
    pub targets: Vec<String>,
    #[command(flatten)]
    pub workload: WorkloadArgs,
}

#[derive(Args, Clone)]
pub struct SaturateArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// Latency percentile that must hold, from the intended send time
    #[arg(long, default_value_t = 99.0)]
    pub percentile: f64,
    /// Its bound in milliseconds
    #[arg(long, default_value_t = 10.0)]
    pub bound_ms: f64,
    /// Measurements of the search, after the first one at full speed
    #[arg(long, default_value_t = 8)]
    pub steps: usize,
}

#[derive(Args, Clone)]
pub struct CeilingArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Where things run and where results go.
#[derive(Args, Clone, Default)]
pub struct PlaceArgs {
    /// Write run.json and report.html there
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Cores for a broker started here, such as 0 or 0-3; default: the first half
    #[arg(long, value_name = "CORES")]
    pub broker_cores: Option<String>,
    /// Cores for the load, one worker each; default: the second half
    #[arg(long, value_name = "CORES")]
    pub generator_cores: Option<String>,
    /// Temporary data of brokers started here goes below this directory
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Configuration for a Ringlane started here, KEY=VALUE; may be repeated
    #[arg(long = "override", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Name of this host in the report; default: its number of cores
    #[arg(long, value_name = "NAME")]
    pub host_name: Option<String>,
    /// Seconds for each of the host's bare loops; 0 leaves them out
    #[arg(long, value_name = "SECONDS")]
    pub ceiling: Option<f64>,
    /// Unmeasured load before the first measurement of a broker started here, in seconds; default: 20 for a JVM. Others
    /// get 3 at most
    #[arg(long, value_name = "SECONDS")]
    pub preheat: Option<f64>,
}

#[derive(Args, Clone)]
pub struct ReportArgs {
    /// Run files (run.json), directories that hold one, or OpenMessaging Benchmark result files
    #[arg(required = true)]
    pub runs: Vec<PathBuf>,
    /// Write one self-contained HTML page
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write Markdown
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Write the throughput plot as an SVG picture
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

#[derive(Args, Clone)]
pub struct PeerArgs {
    /// apache-kafka, ringlane, or sink
    pub name: String,
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// The workload as words. The same names are the keys of a workload file.
#[derive(Args, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct WorkloadArgs {
    /// A workload file, or the name of a built-in one
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub workload: Option<String>,
    /// Name of the run in reports
    #[arg(long)]
    pub name: Option<String>,
    /// 0, 1, all; a list makes cells
    #[arg(long, value_name = "LIST")]
    #[serde(deserialize_with = "words")]
    pub acks: Option<String>,
    /// Value sizes: 100, 1024; uniform:100-1000; mix:100*9+10000*1; a list makes cells
    #[arg(long, value_name = "LIST")]
    #[serde(deserialize_with = "words")]
    pub record_size: Option<String>,
    /// prebuilt, fresh; a list makes cells
    #[arg(long, value_name = "LIST")]
    #[serde(deserialize_with = "words")]
    pub payload: Option<String>,
    /// Records per second: max, 5000, 50k, 1.5M; a list is a ladder
    #[arg(long, value_name = "LIST")]
    #[serde(deserialize_with = "words")]
    pub rate: Option<String>,
    /// Record keys: none, uniform:COUNT, zipf:COUNT
    #[arg(long)]
    pub keys: Option<String>,
    /// none, gzip, snappy, lz4, zstd
    #[arg(long)]
    pub codec: Option<String>,
    #[arg(long)]
    pub topics: Option<usize>,
    /// Partitions of each topic; default: one for each broker node
    #[arg(long)]
    pub partitions: Option<usize>,
    #[arg(long)]
    pub replication: Option<i16>,
    /// Topic configuration, KEY=VALUE; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub topic_config: Vec<String>,
    /// Producing connections; default: one for each partition; 0: none
    #[arg(long)]
    pub producers: Option<usize>,
    /// Consuming connections of each group
    #[arg(long)]
    pub consumers: Option<usize>,
    /// Consumer groups: each reads everything
    #[arg(long)]
    pub groups: Option<usize>,
    /// Size of one batch; a request holds one batch
    #[arg(long, value_name = "SIZE")]
    #[serde(deserialize_with = "words")]
    pub batch_bytes: Option<String>,
    /// At most so many records in one batch
    #[arg(long)]
    pub batch_records: Option<usize>,
    /// At a rate, a batch holds what falls due within this time
    #[arg(long, value_name = "TIME")]
    #[serde(deserialize_with = "words")]
    pub linger: Option<String>,
    /// Unanswered requests per producing connection
    #[arg(long)]
    pub in_flight: Option<usize>,
    /// Largest fetch reply
    #[arg(long, value_name = "SIZE")]
    #[serde(deserialize_with = "words")]
    pub fetch_bytes: Option<String>,
    /// How long a broker may hold back a fetch without data
    #[arg(long, value_name = "TIME")]
    #[serde(deserialize_with = "words")]
    pub fetch_wait: Option<String>,
    /// What consumers do: discard, verify
    #[arg(long)]
    pub check: Option<String>,
    /// Fill a topic with so many bytes first; consumers replay it
    #[arg(long, value_name = "SIZE")]
    #[serde(deserialize_with = "words")]
    pub fill: Option<String>,
    /// Drop the filled topic from the page cache before each repeat
    #[arg(long)]
    pub cold: bool,
    /// Measured time of each repeat, such as 10s
    #[arg(long, value_name = "TIME")]
    #[serde(deserialize_with = "words")]
    pub duration: Option<String>,
    /// Time before measuring, in each repeat
    #[arg(long, value_name = "TIME")]
    #[serde(deserialize_with = "words")]
    pub warmup: Option<String>,
    #[arg(long)]
    pub repeats: Option<usize>,
    /// Leave the topics in the broker
    #[arg(long)]
    pub keep_topics: bool,
}

/// A number, a word, or a list of them, as the words a flag would have.
fn words<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Word {
        Text(String),
        Whole(i64),
        Real(f64),
    }
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a number, a string, or a list of them")]
    enum Words {
        One(Word),
        Many(Vec<Word>),
    }
    let word = |w: Word| match w {
        Word::Text(s) => s,
        Word::Whole(n) => n.to_string(),
        Word::Real(x) => x.to_string(),
    };
    Ok(Some(match Words::deserialize(d)? {
        Words::One(w) => word(w),
        Words::Many(all) => all.into_iter().map(word).collect::<Vec<_>>().join(","),
    }))
}

/// Named workloads that come with loadgen.
const BUILT_IN: &[(&str, &str)] = &[
    ("default", include_str!("../workloads/default.toml")),
    ("acks-by-size", include_str!("../workloads/acks-by-size.toml")),
    ("one-record", include_str!("../workloads/one-record.toml")),
    ("fetch-hot", include_str!("../workloads/fetch-hot.toml")),
    ("fetch-small", include_str!("../workloads/fetch-small.toml")),
    ("cold-replay", include_str!("../workloads/cold-replay.toml")),
    ("fsync", include_str!("../workloads/fsync.toml")),
    ("end-to-end", include_str!("../workloads/end-to-end.toml")),
];

impl WorkloadArgs {
    fn file(name: &str) -> Result<WorkloadArgs> {
        let text = match BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            Some((_, text)) => text.to_string(),
            None => std::fs::read_to_string(name).with_context(|| {
                let names: Vec<&str> = BUILT_IN.iter().map(|b| b.0).collect();
                format!("--workload {name}: no such file, and none of the built-in ones ({})", names.join(", "))
            })?,
        };
        let mut file: WorkloadArgs = toml::from_str(&text).with_context(|| format!("workload file {name}"))?;
        if file.name.is_none() {
            let stem = std::path::Path::new(name).file_stem();
            file.name = stem.map(|s| s.to_string_lossy().into_owned());
        }
        Ok(file)
    }

    pub fn resolve(&self) -> Result<Workload> {
        let file = Self::file(self.workload.as_deref().unwrap_or("default"))?;
        let word = |flag: &Option<String>, file: &Option<String>, default: &str| {
            flag.clone().or_else(|| file.clone()).unwrap_or_else(|| default.to_string())
        };
        let mut topic_configs = Vec::new();
        for entry in file.topic_config.iter().chain(&self.topic_config) {
            let (key, value) =
                entry.split_once('=').with_context(|| format!("--topic-config {entry:?}: write KEY=VALUE"))?;
            topic_configs.retain(|(k, _)| k != key);
            topic_configs.push((key.to_string(), value.to_string()));
        }
        let producers = match self.producers.or(file.producers) {
            None => 0,
            Some(0) => NO_PRODUCERS,
            Some(count) => count,
        };
        let fill_bytes = workload::bytes(&word(&self.fill, &file.fill, "0")).context("--fill")? as u64;
        let workload = Workload {
            name: word(&self.name, &file.name, "run"),
            acks: list(&word(&self.acks, &file.acks, "1"), "--acks")?,
            record_sizes: list(&word(&self.record_size, &file.record_size, "100"), "--record-size")?,
            payloads: list(&word(&self.payload, &file.payload, "prebuilt"), "--payload")?,
            rates: list(&word(&self.rate, &file.rate, "max"), "--rate")?,
            keys: word(&self.keys, &file.keys, "none").parse().context("--keys")?,
            codec: word(&self.codec, &file.codec, "none").parse().context("--codec")?,
            topics: self.topics.or(file.topics).unwrap_or(1),
            partitions: self.partitions.or(file.partitions).unwrap_or(0),
            replication: self.replication.or(file.replication).unwrap_or(1),
            topic_configs,
            producers,
            consumers: self.consumers.or(file.consumers).unwrap_or(0),
            groups: self.groups.or(file.groups).unwrap_or(1),
            batch_bytes: workload::bytes(&word(&self.batch_bytes, &file.batch_bytes, "900000"))
                .context("--batch-bytes")?,
            batch_records_max: self.batch_records.or(file.batch_records).unwrap_or(usize::MAX).max(1),
            linger_ms: seconds(&word(&self.linger, &file.linger, "5ms")).context("--linger")? * 1000.0,
            in_flight: self.in_flight.or(file.in_flight).unwrap_or(5),
            fetch_bytes: workload::bytes(&word(&self.fetch_bytes, &file.fetch_bytes, "1MiB"))
                .context("--fetch-bytes")?,
            fetch_wait_ms: (seconds(&word(&self.fetch_wait, &file.fetch_wait, "500ms")).context("--fetch-wait")?
                * 1000.0) as i32,
            check: word(&self.check, &file.check, "discard").parse().context("--check")?,
            fill_bytes,
            // A file's `cold` means nothing where --fill 0 took the filled topic away.
            cold: self.cold || file.cold && fill_bytes > 0,
            duration_s: seconds(&word(&self.duration, &file.duration, "5s")).context("--duration")?,
            warmup_s: seconds(&word(&self.warmup, &file.warmup, "1s")).context("--warmup")?,
            repeats: self.repeats.or(file.repeats).unwrap_or(3),
            keep_topics: self.keep_topics || file.keep_topics,
        };
        workload.check()?;
        Ok(workload)
    }
}

fn list<T: FromStr<Err = anyhow::Error>>(words: &str, flag: &'static str) -> Result<Vec<T>> {
    words.split(',').map(|w| w.trim().parse().context(flag)).collect()
}

/// `5s`, `500ms`, `1m 30s`, or a plain number of seconds.
pub fn seconds(text: &str) -> Result<f64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Ok(seconds.max(0.0));
    }
    let d: Duration =
        humantime::parse_duration(text).with_context(|| format!("{text:?} is no time; write 10s or 500ms"))?;
    Ok(d.as_secs_f64())
}

/// `0`, `0,2`, `1-3`.
pub fn cores(text: &str) -> Result<Vec<usize>> {
    let mut cores = Vec::new();
    for part in text.split(',') {
        let number =
            |s: &str| s.trim().parse::<usize>().with_context(|| format!("{text:?}: write cores as 0,2 or 1-3"));
        match part.split_once('-') {
            None => cores.push(number(part)?),
            Some((a, b)) => cores.extend(number(a)?..=number(b)?),
        }
    }
    if cores.is_empty() {
        bail!("{text:?} names no core");
    }
    Ok(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_workloads_are_valid() {
        for (name, _) in BUILT_IN {
            let args = WorkloadArgs { workload: Some(name.to_string()), ..Default::default() };
            let workload = args.resolve().unwrap_or_else(|e| panic!("{name}: {e:#}"));
            assert!(!workload.cells().is_empty());
        }
    }

    #[test]
    fn flags_beat_the_file_and_lists_may_be_written_three_ways() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.toml");
        std::fs::write(&path, "acks = [0, 1, \"all\"]\nrecord-size = 1024\nduration = \"2s\"\n").unwrap();
        let workload = path.to_str().unwrap().to_string();
        let mut args = WorkloadArgs { workload: Some(workload), ..Default::default() };
        let w = args.resolve().unwrap();
        assert_eq!((w.acks.len(), w.record_sizes[0].max(), w.duration_s, w.name.as_str()), (3, 1024, 2.0, "w"));
        args.record_size = Some("10,20".into());
        assert_eq!(args.resolve().unwrap().cells().len(), 6);
    }

    #[test]
    fn a_wrong_key_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.toml");
        std::fs::write(&path, "acks = 1\nrecordsize = 100\n").unwrap();
        let args = WorkloadArgs { workload: Some(path.to_str().unwrap().into()), ..Default::default() };
        let message = format!("{:#}", args.resolve().unwrap_err());
        assert!(message.contains("recordsize") && message.contains("line 2"), "{message}");
        assert!(message.contains("record-size"), "{message}");
    }
}
