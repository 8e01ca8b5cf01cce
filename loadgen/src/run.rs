//! `loadgen run` and `matrix`: brings the brokers up, walks through cells x repeats x brokers in that nesting (so that
//! brokers take turns), and builds the run file. What was measured survives Ctrl-C and failures.

use crate::admin::Admin;
use crate::args::{self, PlaceArgs, WorkloadArgs};
use crate::ceiling::{self, Ceiling};
use crate::clock::Clock;
use crate::machine::{self, Machine};
use crate::measure::{Bench, Job, Measured};
use crate::progress::Progress;
use crate::recorder::Slice;
use crate::report;
use crate::ring::Ring;
use crate::run_file::*;
use crate::target::{Place, Target};
use crate::workload::{Acks, Cell, Payload, Rate, RecordSize, Workload, WorkloadFacts};
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// A run under way: brokers, the bench, and the run file that grows.
pub struct Session {
    pub bench: Bench,
    pub targets: Vec<Target>,
    pub workload: Workload,
    pub file: RunFile,
    pub progress: Progress,
    out: Option<PathBuf>,
    topic_count: usize,
}

/// Results of one cell; a failure keeps what was measured before it.
pub type Kept = std::result::Result<Vec<CellResult>, (Vec<CellResult>, anyhow::Error)>;

/// How a run ended.
pub enum Ending {
    Complete,
    Interrupted,
    Failed(anyhow::Error),
}

/// Where brokers and load go when nothing is said: half of the cores each.
pub fn split_cores(place: &PlaceArgs) -> Result<(Vec<usize>, Vec<usize>)> {
    let all = machine::allowed_cores();
    let half = all.len().div_ceil(2);
    let broker = place.broker_cores.as_deref().map(args::cores).transpose()?;
    let generator = place.generator_cores.as_deref().map(args::cores).transpose()?;
    let others = |taken: &[usize]| {
        let free: Vec<usize> = all.iter().copied().filter(|c| !taken.contains(c)).collect();
        if free.is_empty() { all.clone() } else { free }
    };
    let (broker, generator) = match (broker, generator) {
        (Some(b), Some(g)) => (b, g),
        (Some(b), None) => (b.clone(), others(&b)),
        (None, Some(g)) => (others(&g), g),
        (None, None) => (all[..half].to_vec(), others(&all[..half])),
    };
    for core in broker.iter().chain(&generator) {
        ensure!(all.contains(core), "core {core} is not one this process may use ({all:?})");
    }
    Ok((broker, generator))
}

const CEILING_S: f64 = 0.3;
const PREHEAT_CELLS_MAX: usize = 6;
const PREHEAT_FILL_BYTES: u64 = 300 << 20;

impl Session {
    pub fn open(place: &PlaceArgs, words: &WorkloadArgs, names: &[String], pid: Option<i32>) -> Result<Session> {
        let mut workload = words.resolve()?;
        let (broker_cores, generator_cores) = split_cores(place)?;
        // Where it is refused, that is said before a broker is started.
        Ring::new(1)?;
        if let Some(out) = &place.out {
            std::fs::create_dir_all(out).with_context(|| format!("create {}", out.display()))?;
        }
        let data_dir = place.data_dir.clone().unwrap_or_else(std::env::temp_dir);
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::Relaxed) {
                std::process::exit(130); // the second Ctrl-C does not wait
            }
            eprintln!("\nstopping; what was measured will be kept (Ctrl-C again to quit at once)");
        })
        .context("catch Ctrl-C")?;

        let machine = Machine::probe(place.host_name.as_deref(), &data_dir, &broker_cores);
        let each_s = place.ceiling.unwrap_or(CEILING_S);
        let ceiling = if each_s > 0.0 {
            eprintln!("measuring what this host can do ({each_s} s for each bare loop) ...");
            std::fs::create_dir_all(&data_dir).with_context(|| format!("create {}", data_dir.display()))?;
            let each = Duration::from_secs_f64(each_s);
            Some(ceiling::measure(broker_cores[0], generator_cores[0], each, &data_dir, |_| {})?)
        } else {
            None
        };
        let start =
            Place { cores: broker_cores, data_dir, overrides: place.overrides.clone(), preheat_s: place.preheat };
        let mut targets = Vec::new();
        for name in names {
            eprintln!("{} {name} ...", if name.contains(':') { "connecting to" } else { "starting" });
            targets.push(Target::open(name, &start, pid)?);
        }
        if workload.partitions == 0 {
            workload.partitions = targets.iter().map(|t| t.facts.nodes).max().unwrap_or(1).max(1);
        }
        let file = RunFile {
            format: FORMAT.into(),
            version: VERSION,
            created: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            command: command_line(),
            loadgen_version: env!("CARGO_PKG_VERSION").into(),
            complete: false,
            warnings: Vec::new(),
            machine,
            generator_cores: generator_cores.clone(),
            targets: targets.iter().map(|t| t.facts.clone()).collect(),
            workload: WorkloadFacts::from(&workload),
            ceiling,
            cells: Vec::new(),
            saturation: Vec::new(),
        };
        let run_id = (SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos() / 1000) as u32;
        let bench = Bench { clock: Clock::start(), stop, generator_cores, run_id };
        let progress = Progress::new();
        Ok(Session { bench, targets, workload, file, progress, out: place.out.clone(), topic_count: 0 })
    }

    pub fn stopped(&self) -> bool {
        self.bench.stop.load(Ordering::Relaxed)
    }

    /// All cells, repeats and brokers. Figures of cells that were begun are kept whatever happens.
    pub fn run_all(&mut self) -> Ending {
        if let Err(e) = self.preheat() {
            return Ending::Failed(e);
        }
        for cell in self.workload.cells() {
            match self.run_cell(&cell) {
                Ok(results) => self.file.cells.extend(results),
                Err((results, e)) => {
                    self.file.cells.extend(results);
                    return Ending::Failed(e);
                }
            }
            if self.stopped() {
                return Ending::Interrupted;
            }
            if let Err(e) = self.save() {
                return Ending::Failed(e);
            }
        }
        Ending::Complete
    }

    /// Loads brokers that need it (a JVM) until their code is compiled.
    pub fn preheat(&mut self) -> Result<()> {
        let cells = self.workload.cells();
        for i in 0..self.targets.len() {
            let seconds = self.targets[i].preheat_s;
            if seconds <= 0.0 || self.stopped() {
                continue;
            }
            self.progress.note(&format!("{}: {seconds} s of unmeasured load", self.targets[i].facts.name));
            // Every acks level and size gets its share of the time.
            let share_s = seconds / cells.len().min(PREHEAT_CELLS_MAX) as f64;
            let w = &self.workload;
            let mixed = Workload {
                warmup_s: 0.0,
                duration_s: share_s,
                fill_bytes: w.fill_bytes.min(PREHEAT_FILL_BYTES),
                ..w.clone()
            };
            for cell in cells.iter().take(PREHEAT_CELLS_MAX) {
                let cell = Cell { rate: Rate::Max, ..cell.clone() };
                let topics = if mixed.produces() { self.create_topics(i, &mixed)? } else { Vec::new() };
                let replay = if mixed.fill_bytes > 0 { Some(self.fill(i, &mixed, &cell)?) } else { None };
                self.measure(i, &mixed, &cell, &topics, replay.as_deref(), None)?;
                self.delete_topics(i, &topics);
                self.delete_topics(i, &replay.into_iter().collect::<Vec<_>>());
            }
        }
        Ok(())
    }

    /// One cell on every broker, repeat by repeat in turn.
    pub fn run_cell(&mut self, cell: &Cell) -> Kept {
        let all: Vec<usize> = (0..self.targets.len()).collect();
        self.run_cell_on(cell, &all)
    }

    pub fn run_cell_on(&mut self, cell: &Cell, targets: &[usize]) -> Kept {
        let mut measured: Vec<Vec<Measured>> = self.targets.iter().map(|_| Vec::new()).collect();
        let outcome = self.repeat_cell(cell, targets, &mut measured);
        let results = measured
            .into_iter()
            .enumerate()
            .filter(|(_, m)| !m.is_empty())
            .map(|(i, m)| self.sum_up(i, cell, m))
            .collect();
        match outcome {
            Ok(()) => Ok(results),
            Err(e) => Err((results, e)),
        }
    }

    fn repeat_cell(&mut self, cell: &Cell, targets: &[usize], measured: &mut [Vec<Measured>]) -> Result<()> {
        let workload = self.workload.clone();
        let mut topics = Vec::new();
        for &i in targets {
            let mine = if workload.produces() { self.create_topics(i, &workload)? } else { Vec::new() };
            let replay = if workload.fill_bytes > 0 { Some(self.fill(i, &workload, cell)?) } else { None };
            topics.push((i, mine, replay));
        }
        for repeat in 0..workload.repeats {
            for (i, mine, replay) in &topics {
                let i = *i;
                if self.stopped() {
                    return Ok(());
                }
                if let Some(replay) = replay
                    && workload.cold
                {
                    self.targets[i].evict(replay)?;
                }
                let name = self.targets[i].facts.name.clone();
                self.progress.begin(&name, cell, repeat, &workload);
                let mut m = self.measure(i, &workload, cell, mine, replay.as_deref(), None)?;
                let failure = m.failure.take();
                if failure.is_some() {
                    // Nobody waited for them.
                    m.unanswered = 0;
                }
                self.progress.end(&name, cell, repeat, &workload, &m);
                measured[i].push(m);
                if let Some(e) = failure {
                    let log = self.targets[i].log_tail();
                    let log = if log.is_empty() { log } else { format!("\nlast lines of its log:\n{log}") };
                    bail!("{name} failed while it was measured: {e:#}{log}");
                }
            }
        }
        if !workload.keep_topics {
            for (i, mine, replay) in &topics {
                self.delete_topics(*i, mine);
                self.delete_topics(*i, &replay.iter().cloned().collect::<Vec<_>>());
            }
        }
        Ok(())
    }

    pub fn measure(
        &mut self,
        target: usize,
        workload: &Workload,
        cell: &Cell,
        topics: &[String],
        replay: Option<&str>,
        payload_bytes_max: Option<u64>,
    ) -> Result<Measured> {
        let target = &self.targets[target];
        let job = Job {
            bootstrap: &target.facts.bootstrap,
            pid: target.pid,
            workload,
            cell,
            topics,
            replay,
            payload_bytes_max,
        };
        let progress = &mut self.progress;
        self.bench.measure(&job, &mut |slice: &Slice| progress.slice(slice))
    }

    pub fn create_topics(&mut self, target: usize, workload: &Workload) -> Result<Vec<String>> {
        let mut admin = Admin::connect(&self.targets[target].facts.bootstrap)?;
        let mut topics = Vec::new();
        for _ in 0..workload.topics {
            self.topic_count += 1;
            let topic = format!("loadgen-{:08x}-{}", self.bench.run_id, self.topic_count);
            let configs = &workload.topic_configs;
            admin.create_topic(&topic, workload.partitions, workload.replication, configs)?;
            topics.push(topic);
        }
        self.note_settings(&mut admin, target, &topics[0]);
        Ok(topics)
    }

    /// Keeps what the broker itself says about flushing and replicas; brokers that cannot tell stay silent.
    fn note_settings(&mut self, admin: &mut Admin, target: usize, topic: &str) {
        let names = ["flush.messages", "flush.ms", "min.insync.replicas", "compression.type", "segment.bytes"];
        if self.file.targets[target].settings.is_empty()
            && let Ok(settings) = admin.topic_settings(topic, &names)
        {
            self.file.targets[target].settings = settings;
        }
    }

    pub fn delete_topics(&mut self, target: usize, topics: &[String]) {
        let Ok(mut admin) = Admin::connect(&self.targets[target].facts.bootstrap) else { return };
        for topic in topics {
            if let Err(e) = admin.delete_topic(topic) {
                self.progress.note(&format!("topic {topic} stays: {e:#}"));
            }
        }
    }

    /// A topic with data for consumers to replay.
    fn fill(&mut self, target: usize, workload: &Workload, cell: &Cell) -> Result<String> {
        let keep = vec![("retention.ms".into(), "-1".into()), ("retention.bytes".into(), "-1".into())];
        let filling = Workload { topics: 1, topic_configs: keep, producers: 0, warmup_s: 0.0, ..workload.clone() };
        let size = report::human_bytes(workload.fill_bytes as f64);
        self.progress.note(&format!("{}: filling a topic with {size}", self.targets[target].facts.name));
        let topic = self.create_topics(target, &filling)?.remove(0);
        let cell = Cell { acks: Acks::Leader, payload: Payload::Prebuilt, rate: Rate::Max, ..cell.clone() };
        // Cold replays read a topic written in large batches; hot ones read the batches of the workload.
        let filling = if workload.cold {
            Workload { batch_bytes: 900_000, batch_records_max: usize::MAX, ..filling }
        } else {
            filling
        };
        let topics = [topic];
        let m = self.measure(target, &filling, &cell, &topics, None, Some(workload.fill_bytes))?;
        if let Some(e) = m.failure {
            return Err(e.context("filling a topic"));
        }
        ensure!(m.total.errors.is_empty(), "filling a topic: the broker answered {:?}", m.total.errors);
        let [topic] = topics;
        Ok(topic)
    }

    /// Merges the repeats of one cell and says what limited it.
    pub fn sum_up(&self, target: usize, cell: &Cell, measured: Vec<Measured>) -> CellResult {
        let w = &self.workload;
        let kind = if !w.produces() {
            "consume"
        } else if w.consumers > 0 {
            "both"
        } else {
            "produce"
        };
        let mut total = Slice::new(0);
        measured.iter().for_each(|m| total.merge(&m.total));
        let records_per_request = measured.iter().map(|m| m.records_per_request).fold(0.0, f64::max);
        let mut warnings = warnings_of(cell, &measured);
        let repeats: Vec<RepeatResult> = measured.into_iter().map(|m| m.result).collect();
        let over = |f: &dyn Fn(&RepeatResult) -> f64| Spread::of(repeats.iter().map(f));
        let median = |f: &dyn Fn(&BrokerUse) -> Option<f64>| {
            let values: Vec<f64> = repeats.iter().filter_map(|r| f(&r.broker)).collect();
            (!values.is_empty()).then(|| Spread::of(values).median)
        };
        let broker = BrokerUse {
            cpu_seconds_per_gb: median(&|b| b.cpu_seconds_per_gb),
            cpu_seconds_per_million_messages: median(&|b| b.cpu_seconds_per_million_messages),
            cpu_busy: median(&|b| b.cpu_busy),
            rss_mb: median(&|b| b.rss_mb),
            page_cache_growth_mb: median(&|b| b.page_cache_growth_mb),
            context_switches_per_second: median(&|b| b.context_switches_per_second),
            io_workers: repeats.iter().filter_map(|r| r.broker.io_workers).max(),
            threads: repeats.iter().filter_map(|r| r.broker.threads).max(),
        };
        let generator_busy = over(&|r| r.generator_busy).median;
        let bytes_per_second = over(&|r| r.bytes_per_second);
        let cores = self.targets[target].facts.cores.len().max(1) as f64;
        let limited_by = limited_by(cell, &repeats, broker.cpu_busy.map(|b| b / cores), generator_busy);
        if limited_by == "generator" {
            warnings.push(format!(
                "the generator was the limit, not the broker: its core was {:.0} % busy, the broker's {:.0} %",
                generator_busy * 100.0,
                broker.cpu_busy.unwrap_or(0.0) / cores * 100.0
            ));
        }
        let request_bytes = records_per_request * (cell.record_size.mean() + 10.0);
        let (family, size) = match (kind, self.targets[target].facts.kind.as_str()) {
            ("consume", _) => ("sendfile", w.fetch_bytes as f64),
            // It does nothing but discard.
            (_, "sink") => ("tcp_stream", request_bytes),
            _ => ("receive_crc_append", request_bytes),
        };
        let ceiling = self.file.ceiling.as_ref().and_then(|c: &Ceiling| c.nearest(family, size));
        CellResult {
            target: self.targets[target].facts.name.clone(),
            kind: kind.into(),
            acks: cell.acks.to_string(),
            record_size: cell.record_size.mean(),
            record_size_label: cell.record_size.to_string(),
            payload: cell.payload.to_string(),
            rate: match cell.rate {
                Rate::Max => None,
                Rate::PerSecond(rate) => Some(rate),
            },
            records_per_request,
            messages_per_second: over(&|r| r.messages_per_second),
            bytes_per_second,
            wire_bytes_per_second: over(&|r| r.wire_bytes_per_second),
            requests_per_second: over(&|r| r.requests_per_second),
            consumed: (kind == "both").then(|| Rates {
                messages_per_second: over(&|r| r.consumed_messages_per_second.unwrap_or(0.0)),
                bytes_per_second: over(&|r| r.consumed_bytes_per_second.unwrap_or(0.0)),
                ..Rates::default()
            }),
            latency_ms: Latency::of(&total.from_intended),
            latency_from_send_ms: Latency::of(&total.from_send),
            end_to_end_ms: (!total.end_to_end.is_empty()).then(|| Latency::of(&total.end_to_end)),
            ceiling_share: ceiling.map(|f| bytes_per_second.median / f.value),
            ceiling: ceiling.map(|f| f.name.clone()),
            broker,
            generator_busy,
            errors: total.errors.values().sum(),
            errors_by_code: total.errors,
            limited_by,
            warnings,
            repeats,
        }
    }

    pub fn save(&self) -> Result<()> {
        let Some(out) = &self.out else { return Ok(()) };
        self.file.save(&out.join("run.json"))?;
        report::write_html(std::slice::from_ref(&self.file), &out.join("report.html"))
    }

    /// Writes and prints everything; an error when the run did not end well.
    pub fn close(mut self, ending: Ending) -> Result<()> {
        self.progress.clear();
        self.file.complete = matches!(ending, Ending::Complete);
        if self.workload.repeats < 3 {
            let repeats = self.workload.repeats;
            self.file
                .warnings
                .push(format!("{repeats} repeat(s): too few to tell a difference from noise; use 3 or more"));
        }
        match &ending {
            Ending::Complete => {}
            Ending::Interrupted => self.file.warnings.push("the run was interrupted; later cells are missing".into()),
            Ending::Failed(e) => {
                // Without the broker's log, which may be behind it.
                let why = format!("{e:#}");
                let why = why.lines().next().unwrap_or_default();
                self.file.warnings.push(format!("the run failed, later cells are missing: {why}"));
            }
        }
        // First what cannot fail: where the files cannot be written, the figures are not lost.
        if !self.file.cells.is_empty() {
            print!("{}", report::text(std::slice::from_ref(&self.file)));
        }
        let saved = self.save();
        if let (Some(out), Ok(())) = (&self.out, &saved) {
            eprintln!("written: {0}/run.json, {0}/report.html", out.display());
        }
        match ending {
            Ending::Complete => saved,
            Ending::Interrupted => bail!("interrupted"),
            Ending::Failed(e) => Err(e),
        }
    }
}

/// The command as it can be typed again, without this host's paths.
fn command_line() -> String {
    let words = std::env::args().skip(1).map(|w| match Path::new(&w).file_name() {
        Some(name) if w.starts_with('/') => name.to_string_lossy().into_owned(),
        _ if w.contains([' ', '*', '$']) => format!("'{w}'"),
        _ => w,
    });
    std::iter::once("loadgen".to_string()).chain(words).collect::<Vec<_>>().join(" ")
}

/// A rate missed by more than this share is called missed.
const RATE_TOLERANCE: f64 = 0.02;

fn warnings_of(cell: &Cell, measured: &[Measured]) -> Vec<String> {
    let mut warnings = Vec::new();
    let errors: u64 = measured.iter().map(|m| m.result.errors).sum();
    if errors > 0 {
        let mut by_code = std::collections::BTreeMap::new();
        for (name, count) in measured.iter().flat_map(|m| &m.total.errors) {
            *by_code.entry(name.as_str()).or_insert(0u64) += count;
        }
        let list: Vec<String> = by_code.iter().map(|(name, count)| format!("{count} {name}")).collect();
        warnings.push(format!("{errors} errors: {}", list.join(", ")));
    }
    let silent = measured.iter().filter(|m| m.result.messages_per_second == 0.0).count();
    if silent > 0 {
        warnings.push(format!("{silent} of {} repeats went by without a single answer", measured.len()));
    }
    let missing: i64 = measured.iter().map(|m| m.records_missing).sum();
    if missing != 0 {
        warnings.push(format!("{missing} records were sent and are not in the log"));
    }
    if let Rate::PerSecond(rate) = cell.rate {
        let worst = measured.iter().map(|m| m.result.messages_per_second).fold(f64::INFINITY, f64::min);
        if worst < rate * (1.0 - RATE_TOLERANCE) {
            let behind_s = measured.iter().map(|m| m.behind_s).fold(0.0, f64::max);
            warnings.push(format!(
                "the rate of {} records/s was missed: {} reached, up to {behind_s:.2} s behind",
                report::human(rate),
                report::human(worst)
            ));
        }
    }
    if measured.iter().any(|m| m.unanswered > 0) {
        warnings.push("some requests were still unanswered five seconds after the end".into());
    }
    let others = measured.iter().map(|m| m.other_cores_busy).fold(0.0, f64::max);
    if others > OTHER_CORES_BUSY_MAX {
        warnings.push(format!("other processes kept up to {others:.1} cores of this host busy meanwhile"));
    }
    if measured.iter().any(|m| m.interrupted) {
        warnings.push("interrupted: the last repeat is short".into());
    }
    if matches!(cell.record_size, RecordSize::Fixed(n) if n < crate::batch::STAMP_SIZE) {
        warnings.push("records below 28 bytes carry no stamp: no end-to-end latency, no check for gaps".into());
    }
    warnings
}

/// More than this, and a figure says as much about the other processes.
const OTHER_CORES_BUSY_MAX: f64 = 0.15;
const BUSY: f64 = 0.9;

fn limited_by(cell: &Cell, repeats: &[RepeatResult], broker_busy: Option<f64>, generator_busy: f64) -> String {
    if let Rate::PerSecond(rate) = cell.rate {
        let reached = Spread::of(repeats.iter().map(|r| r.messages_per_second)).median;
        if reached >= rate * (1.0 - RATE_TOLERANCE) {
            return "rate".into();
        }
    }
    let generator = generator_busy > BUSY;
    match broker_busy.map(|b| b > BUSY) {
        Some(true) if generator => "both",
        Some(true) => "broker",
        Some(false) if generator => "generator",
        Some(false) => "neither",
        None if generator => "generator",
        None => "unknown",
    }
    .into()
}
