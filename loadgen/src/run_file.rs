//! The run file: everything measured in one run, as versioned JSON. `report` and `compare` read this and nothing
//! else. Field by field in docs/formats/run_file.md; a test keeps the two in step.
//!
//! Rates are per second, sizes in bytes, latencies in milliseconds, CPU in seconds. Bytes are payload (record values)
//! unless a name says `wire`.

use crate::ceiling::Ceiling;
use crate::machine::Machine;
use crate::recorder::histogram;
use crate::workload::WorkloadFacts;
use anyhow::{Context, Result, bail};
use base64::Engine;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

pub const FORMAT: &str = "ringlane-loadgen-run";
pub const VERSION: u32 = 1;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunFile {
    pub format: String,
    pub version: u32,
    /// RFC 3339, UTC.
    pub created: String,
    pub command: String,
    pub loadgen_version: String,
    /// False when the run was interrupted or failed; what was measured until then is here.
    pub complete: bool,
    /// What a reader must know before believing a figure.
    pub warnings: Vec<String>,
    pub machine: Machine,
    pub generator_cores: Vec<usize>,
    pub targets: Vec<TargetFacts>,
    pub workload: WorkloadFacts,
    pub ceiling: Option<Ceiling>,
    pub cells: Vec<CellResult>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub saturation: Vec<Saturation>,
}

/// One measured broker.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetFacts {
    pub name: String,
    /// `ringlane`, `apache-kafka`, `external`, or the driver of a foreign result file.
    pub kind: String,
    pub version: String,
    pub bootstrap: String,
    /// Cores the broker was bound to; empty when unknown.
    pub cores: Vec<usize>,
    pub command: String,
    pub nodes: usize,
    /// Settings that decide results, as the broker itself tells them (`flush.messages`, ...).
    pub settings: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut v: Vec<f64> = values.into_iter().collect();
        v.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (v.first(), v.last()) else { return Spread::default() };
        let middle = v.len() / 2;
        let median = if v.len() % 2 == 1 { v[middle] } else { (v[middle - 1] + v[middle]) / 2.0 };
        Spread { min, median, max }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub p9999: f64,
    pub max: f64,
    pub mean: f64,
    pub count: u64,
}

impl Latency {
    pub fn of(h: &Histogram<u64>) -> Self {
        let ms = |ns: u64| (ns as f64 / 1e3).round() / 1e3;
        let q = |p: f64| ms(h.value_at_quantile(p).min(h.max()));
        Latency {
            p50: q(0.5),
            p90: q(0.9),
            p99: q(0.99),
            p999: q(0.999),
            p9999: q(0.9999),
            max: ms(h.max()),
            mean: ms(h.mean() as u64),
            count: h.len(),
        }
    }
}

/// What the broker process used while it was measured; all `None` when it runs on another host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BrokerUse {
    pub cpu_seconds_per_gb: Option<f64>,
    pub cpu_seconds_per_million_messages: Option<f64>,
    /// Cores kept busy on average.
    pub cpu_busy: Option<f64>,
    pub rss_mb: Option<f64>,
    pub page_cache_growth_mb: Option<f64>,
    pub context_switches_per_second: Option<f64>,
    /// Kernel worker threads of io_uring at the end.
    pub io_workers: Option<u64>,
    pub threads: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    pub messages_per_second: Spread,
    pub bytes_per_second: Spread,
    pub wire_bytes_per_second: Spread,
    pub requests_per_second: Spread,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CellResult {
    pub target: String,
    /// `produce`, `consume`, or `both` (then the rates are the producers' and `consumed` has the consumers').
    pub kind: String,
    pub acks: String,
    /// Mean value size in bytes.
    pub record_size: f64,
    pub record_size_label: String,
    pub payload: String,
    /// Intended records per second; null means as fast as acknowledged.
    pub rate: Option<f64>,
    pub records_per_request: f64,
    pub messages_per_second: Spread,
    pub bytes_per_second: Spread,
    pub wire_bytes_per_second: Spread,
    pub requests_per_second: Spread,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumed: Option<Rates>,
    /// From the intended send time to the answer (for `consume`: from the request to its reply), all repeats merged.
    pub latency_ms: Latency,
    pub latency_from_send_ms: Latency,
    /// From the intended send time to the arrival at a consumer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_to_end_ms: Option<Latency>,
    /// Median payload bytes per second as a share of `ceiling`.
    pub ceiling_share: Option<f64>,
    /// Which ceiling figure that is.
    pub ceiling: Option<String>,
    pub broker: BrokerUse,
    pub generator_busy: f64,
    pub errors: u64,
    pub errors_by_code: BTreeMap<String, u64>,
    /// `broker`, `generator`, `rate`, `both`, `neither`, or `unknown` when the broker's CPU cannot be seen.
    pub limited_by: String,
    pub warnings: Vec<String>,
    pub repeats: Vec<RepeatResult>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RepeatResult {
    /// Seconds since the run began.
    pub started_s: f64,
    pub measured_s: f64,
    pub messages_per_second: f64,
    pub bytes_per_second: f64,
    pub wire_bytes_per_second: f64,
    pub requests_per_second: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumed_messages_per_second: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumed_bytes_per_second: Option<f64>,
    pub latency_ms: Latency,
    pub broker: BrokerUse,
    pub generator_busy: f64,
    pub errors: u64,
    pub seconds: Vec<Second>,
    /// HDR histograms of nanoseconds, V2 compressed, base64: `from_intended`, `from_send`, `end_to_end`.
    pub histograms: BTreeMap<String, String>,
}

/// One second of a repeat.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Second {
    pub second: i64,
    pub messages: u64,
    pub bytes: u64,
    #[serde(default)]
    pub consumed_messages: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    pub errors: u64,
}

/// What `loadgen saturate` found for one cell.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Saturation {
    pub target: String,
    pub acks: String,
    pub record_size_label: String,
    /// For example `p99 <= 10 ms`.
    pub bound: String,
    /// Highest rate that held the bound, records per second.
    pub knee: Option<f64>,
    pub ladder: Vec<Rung>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rung {
    pub rate: f64,
    pub messages_per_second: f64,
    pub latency_ms: Latency,
    pub held: bool,
}

pub fn histogram_to_text(h: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(h, &mut bytes)
        .unwrap_or_else(|e| unreachable!("writing a histogram to memory: {e}"));
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

pub fn histogram_from_text(text: &str) -> Result<Histogram<u64>> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).context("histogram is not base64")?;
    match Deserializer::new().deserialize(&mut bytes.as_slice()) {
        Ok(h) => Ok(h),
        Err(e) => bail!("histogram is no HDR V2: {e}"),
    }
}

impl CellResult {
    /// One of the stored histograms, merged over the repeats.
    pub fn histogram(&self, name: &str) -> Result<Histogram<u64>> {
        let mut all = histogram();
        for text in self.repeats.iter().filter_map(|r| r.histograms.get(name)) {
            if let Err(e) = all.add(&histogram_from_text(text)?) {
                bail!("histogram {name}: {e}");
            }
        }
        Ok(all)
    }

    /// How a table or a plot names this cell.
    pub fn label(&self) -> String {
        let size = format!("{} B", self.record_size_label);
        let rate = self.rate.map_or(String::new(), |r| format!(" at {}/s", crate::report::human(r)));
        if self.kind == "consume" {
            format!("consume, {size}")
        } else {
            format!("acks={}, {size}, {}{rate}", self.acks, self.payload)
        }
    }
}

impl RunFile {
    pub fn load(path: &Path) -> Result<RunFile> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let value: serde_json::Value =
            serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
        if value.get("format").and_then(|f| f.as_str()) != Some(FORMAT) {
            return crate::foreign::from_open_messaging(&value, path);
        }
        let version = value.get("version").and_then(|v| v.as_u64()).unwrap_or(0);
        if version > VERSION as u64 {
            bail!(
                "{}: run file version {version}; this loadgen reads up to {VERSION}: use a newer one",
                path.display()
            );
        }
        serde_json::from_value(value)
            .with_context(|| format!("{} is no run file this loadgen can read", path.display()))
    }

    /// Writes beside the place and renames, so that a reader never sees half a file.
    pub fn save(&self, path: &Path) -> Result<()> {
        let part = path.with_extension("json.part");
        let text = serde_json::to_string_pretty(self)?;
        let written = std::fs::write(&part, text + "\n").and_then(|()| std::fs::rename(&part, path));
        written.with_context(|| format!("write {}; free space there, or choose another --out", path.display()))
    }

    /// Everything that belongs on top of a report, cells' own warnings included.
    pub fn all_warnings(&self) -> Vec<String> {
        let mut all = self.warnings.clone();
        // The same warning at many cells (figures apart) is said once.
        let mut kinds: Vec<(String, Vec<String>)> = Vec::new();
        for cell in &self.cells {
            for warning in &cell.warnings {
                let kind: String = warning.chars().filter(|c| !c.is_ascii_digit() && *c != '.').collect();
                let text = format!("{} {}: {warning}", cell.target, cell.label());
                match kinds.iter_mut().find(|(k, _)| *k == kind) {
                    Some((_, texts)) => texts.push(text),
                    None => kinds.push((kind, vec![text])),
                }
            }
        }
        for (_, mut texts) in kinds {
            if texts.len() > 3 {
                let more = texts.len() - 1;
                texts.truncate(1);
                texts[0] += &format!(" (and {more} more cells)");
            }
            all.extend(texts);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_survive_the_file() {
        let mut h = histogram();
        (1..=10_000u64).for_each(|i| h.record(i * 1000).unwrap());
        let back = histogram_from_text(&histogram_to_text(&h)).unwrap();
        assert_eq!((back.len(), back.max()), (h.len(), h.max()));
        assert_eq!(Latency::of(&back), Latency::of(&h));
        assert!(histogram_from_text("AAAA").is_err());
    }

    #[test]
    fn spread_of_even_and_odd_counts() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Spread { min: 1.0, median: 2.0, max: 3.0 });
        assert_eq!(Spread::of([4.0, 1.0]).median, 2.5);
        assert_eq!(Spread::of([]), Spread::default());
    }
}
