//! Result files of other benchmarks as run files, so that published runs can stand beside ours. Known: the JSON of the
//! OpenMessaging Benchmark. What such a file does not say stays unknown; nothing is guessed.

use crate::machine::Machine;
use crate::run_file::*;
use crate::workload::WorkloadFacts;
use anyhow::{Result, bail};
use serde_json::Value;
use std::path::Path;

pub fn from_open_messaging(v: &Value, path: &Path) -> Result<RunFile> {
    let text = |key: &str| v.get(key).and_then(Value::as_str).unwrap_or("").to_string();
    let number = |key: &str| v.get(key).and_then(Value::as_f64);
    let list = |key: &str| -> Vec<f64> {
        v.get(key).and_then(Value::as_array).map(|a| a.iter().filter_map(Value::as_f64).collect()).unwrap_or_default()
    };
    let rates = list("publishRate");
    if rates.is_empty() || v.get("aggregatedPublishLatency99pct").is_none() {
        bail!("{} is neither a loadgen run file nor an OpenMessaging Benchmark result", path.display());
    }
    let size = number("messageSize").unwrap_or(0.0);
    let latency = |prefix: &str| Latency {
        p50: number(&format!("{prefix}50pct")).unwrap_or(0.0),
        p90: 0.0,
        p99: number(&format!("{prefix}99pct")).unwrap_or(0.0),
        p999: number(&format!("{prefix}999pct")).unwrap_or(0.0),
        p9999: number(&format!("{prefix}9999pct")).unwrap_or(0.0),
        max: number(&format!("{prefix}Max")).unwrap_or(0.0),
        mean: number(&format!("{prefix}Avg")).unwrap_or(0.0),
        count: 0,
    };
    let p99s = list("publishLatency99pct");
    let seconds: Vec<Second> = rates
        .iter()
        .enumerate()
        .map(|(i, rate)| Second {
            second: i as i64 * 10, // one sample each ten seconds
            messages: *rate as u64,
            bytes: (*rate * size) as u64,
            p99_ms: p99s.get(i).copied().unwrap_or(0.0),
            ..Second::default()
        })
        .collect();
    let spread = Spread::of(rates.iter().copied());
    let scaled =
        |factor: f64| Spread { min: spread.min * factor, median: spread.median * factor, max: spread.max * factor };
    let errors: f64 = list("publishErrorRate").iter().sum::<f64>() * 10.0;
    let mean = rates.iter().sum::<f64>() / rates.len() as f64;
    let consumed = list("consumeRate");
    let publish = latency("aggregatedPublishLatency");
    let end_to_end = latency("aggregatedEndToEndLatency");
    let unknown = "unknown".to_string();
    let name = if text("driver").is_empty() { "open-messaging".into() } else { text("driver") };
    let whole = |key: &str| number(key).unwrap_or(0.0) as usize;
    let cell = CellResult {
        target: name.clone(),
        kind: "produce".into(),
        acks: unknown.clone(),
        record_size: size,
        record_size_label: format!("{size}"),
        payload: unknown.clone(),
        rate: None,
        records_per_request: 0.0,
        messages_per_second: spread,
        bytes_per_second: scaled(size),
        wire_bytes_per_second: Spread::default(),
        requests_per_second: Spread::default(),
        consumed: (!consumed.is_empty()).then(|| Rates {
            messages_per_second: Spread::of(consumed.iter().copied()),
            bytes_per_second: Spread::of(consumed.iter().map(|r| r * size)),
            ..Rates::default()
        }),
        latency_ms: publish,
        latency_from_send_ms: publish,
        end_to_end_ms: (end_to_end.max > 0.0).then_some(end_to_end),
        ceiling_share: None,
        ceiling: None,
        broker: BrokerUse::default(),
        generator_busy: 0.0,
        errors: errors.round() as u64,
        errors_by_code: Default::default(),
        limited_by: unknown,
        warnings: vec![
            "OpenMessaging Benchmark measures publish latency from the real send, and its spread is over \
                        ten-second samples of one run, not over repeats"
                .into(),
        ],
        repeats: vec![RepeatResult {
            started_s: 0.0,
            measured_s: rates.len() as f64 * 10.0,
            messages_per_second: mean,
            bytes_per_second: mean * size,
            wire_bytes_per_second: 0.0,
            requests_per_second: 0.0,
            consumed_messages_per_second: None,
            consumed_bytes_per_second: None,
            latency_ms: publish,
            broker: BrokerUse::default(),
            generator_busy: 0.0,
            errors: errors.round() as u64,
            seconds,
            histograms: Default::default(),
        }],
    };
    Ok(RunFile {
        format: FORMAT.into(),
        version: VERSION,
        created: text("beginTime"),
        command: format!("OpenMessaging Benchmark, workload {}", text("workload")),
        loadgen_version: "open-messaging".into(),
        complete: true,
        warnings: Vec::new(),
        machine: Machine { name: "unknown".into(), ..Machine::default() },
        generator_cores: Vec::new(),
        targets: vec![TargetFacts { name, kind: text("driver"), ..TargetFacts::default() }],
        workload: WorkloadFacts {
            name: text("workload"),
            keys: "unknown".into(),
            codec: "unknown".into(),
            topics: whole("topics"),
            partitions: whole("partitions"),
            replication: 0,
            topic_configs: Vec::new(),
            producers: whole("producersPerTopic"),
            consumers: whole("consumersPerTopic"),
            groups: 1,
            batch_bytes: 0,
            batch_records_max: None,
            linger_ms: 0.0,
            in_flight: 0,
            fetch_bytes: 0,
            fetch_wait_ms: 0,
            check: "unknown".into(),
            fill_bytes: 0,
            cold: false,
            duration_s: rates.len() as f64 * 10.0,
            warmup_s: 0.0,
            repeats: 1,
        },
        ceiling: None,
        cells: vec![cell],
        saturation: Vec::new(),
    })
}
