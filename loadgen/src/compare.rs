//! Several results side by side: the same cell in each, the ratio to the first, and whether the difference is larger
//! than the noise over repeats (Welch's t-test, two-sided, p < 0.05). Also says what makes two results hard to compare.

use crate::report::text::{Table, ms};
use crate::report::{human, human_bytes};
use crate::run_file::{CellResult, RunFile};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// One broker of one run.
pub struct Column<'a> {
    pub label: String,
    pub run: &'a RunFile,
    pub target: &'a str,
}

/// The same cell in every column.
pub struct Row<'a> {
    pub label: String,
    pub cells: Vec<Option<&'a CellResult>>,
}

pub struct Comparison<'a> {
    pub columns: Vec<Column<'a>>,
    pub rows: Vec<Row<'a>>,
    pub warnings: Vec<String>,
}

impl<'a> Comparison<'a> {
    pub fn of(runs: &'a [RunFile]) -> Self {
        let mut columns = Vec::new();
        for (i, run) in runs.iter().enumerate() {
            for target in &run.targets {
                let label = if runs.len() > 1 {
                    let letter = (b'A' + (i % 26) as u8) as char;
                    format!("{letter} {}", target.name)
                } else {
                    target.name.clone()
                };
                columns.push(Column { label, run, target: &target.name });
            }
        }
        let mut rows: Vec<Row<'a>> = Vec::new();
        for (i, column) in columns.iter().enumerate() {
            for cell in column.run.cells.iter().filter(|c| c.target == column.target) {
                let place =
                    rows.iter().position(|r| r.cells[i].is_none() && r.cells.iter().flatten().all(|c| same(c, cell)));
                let row = place.unwrap_or_else(|| {
                    rows.push(Row { label: cell.label(), cells: columns.iter().map(|_| None).collect() });
                    rows.len() - 1
                });
                rows[row].cells[i] = Some(cell);
            }
        }
        let warnings = differences(&columns, &rows);
        Comparison { columns, rows, warnings }
    }

    pub fn table(&self) -> Table {
        let mut table = Table::new(&["cell"]);
        for (i, column) in self.columns.iter().enumerate() {
            table.rows[0].extend([format!("{} msg/s", column.label), "payload/s".into(), "p99 ms".into()]);
            if i > 0 {
                table.rows[0].extend(["msg/s ratio".into(), "p99 ratio".into()]);
            }
        }
        for row in &self.rows {
            let mut words = vec![row.label.clone()];
            for (i, cell) in row.cells.iter().enumerate() {
                match cell {
                    Some(c) => words.extend([
                        human(c.messages_per_second.median),
                        human_bytes(c.bytes_per_second.median),
                        ms(c.latency_ms.p99),
                    ]),
                    None => words.extend(["-".into(), "-".into(), "-".into()]),
                }
                if i > 0 {
                    words.extend(match (row.cells[0], cell) {
                        (Some(a), Some(b)) => [rate_verdict(a, b).words(), p99_verdict(a, b).words()],
                        _ => ["-".into(), "-".into()],
                    });
                }
            }
            table.rows.push(words);
        }
        table
    }

    pub const LEGEND: &'static str = "ratio: to the first column, of medians. * the difference is larger than the noise \
over the repeats (Welch's t-test, two-sided, p < 0.05); ~ it is not; ? too few repeats to tell.";
}

fn legend_of_columns(c: &Comparison<'_>) -> Vec<String> {
    c.columns
        .iter()
        .map(|column| format!("{}: {} ({})", column.label, column.run.workload.name, column.run.created))
        .collect()
}

pub fn text(runs: &[RunFile]) -> String {
    let c = Comparison::of(runs);
    let mut out = String::from("\n");
    c.warnings.iter().for_each(|w| out += &format!("! {w}\n"));
    legend_of_columns(&c).iter().for_each(|l| out += &format!("{l}\n"));
    out + "\n" + &c.table().text() + "\n" + Comparison::LEGEND + "\n"
}

pub fn markdown(runs: &[RunFile]) -> String {
    let c = Comparison::of(runs);
    let mut out = String::new();
    c.warnings.iter().for_each(|w| out += &format!("> **{w}**\n>\n"));
    legend_of_columns(&c).iter().for_each(|l| out += &format!("- {l}\n"));
    out + "\n" + &c.table().markdown() + "\n" + Comparison::LEGEND + "\n"
}

/// The same measurement, as far as both files say. What a foreign file does not know matches anything.
fn same(a: &CellResult, b: &CellResult) -> bool {
    let equal = |x: &str, y: &str| x == y || x == "unknown" || y == "unknown";
    let rate = match (a.rate, b.rate) {
        (Some(x), Some(y)) => (x - y).abs() <= 1e-6 * x.abs(),
        (None, None) => true,
        _ => false,
    };
    (a.kind == "consume") == (b.kind == "consume")
        && equal(&a.acks, &b.acks)
        && equal(&a.payload, &b.payload)
        && a.record_size == b.record_size
        && rate
}

pub struct Verdict {
    pub ratio: f64,
    /// None: too few repeats.
    pub p: Option<f64>,
}

impl Verdict {
    pub fn words(&self) -> String {
        let mark = match self.p {
            None => "?",
            Some(p) if p < 0.05 => "*",
            Some(_) => "~",
        };
        if !self.ratio.is_finite() {
            return "-".into();
        }
        format!("{:.2}x {mark}", self.ratio)
    }
}

pub fn rate_verdict(a: &CellResult, b: &CellResult) -> Verdict {
    let rates = |c: &CellResult| c.repeats.iter().map(|r| r.messages_per_second).collect::<Vec<_>>();
    Verdict { ratio: b.messages_per_second.median / a.messages_per_second.median, p: welch(&rates(a), &rates(b)) }
}

pub fn p99_verdict(a: &CellResult, b: &CellResult) -> Verdict {
    let p99s = |c: &CellResult| c.repeats.iter().map(|r| r.latency_ms.p99).collect::<Vec<_>>();
    Verdict { ratio: b.latency_ms.p99 / a.latency_ms.p99, p: welch(&p99s(a), &p99s(b)) }
}

/// Welch's unequal-variances t-test: the probability of a difference this large if there were none.
pub fn welch(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.len() < 2 || b.len() < 2 {
        return None;
    }
    let moments = |v: &[f64]| {
        let n = v.len() as f64;
        let mean = v.iter().sum::<f64>() / n;
        let variance = v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (mean, variance / n, n)
    };
    let ((mean_a, va, na), (mean_b, vb, nb)) = (moments(a), moments(b));
    if va + vb == 0.0 {
        return Some(if mean_a == mean_b { 1.0 } else { 0.0 });
    }
    let t = (mean_a - mean_b) / (va + vb).sqrt();
    let freedom = (va + vb).powi(2) / (va.powi(2) / (na - 1.0) + vb.powi(2) / (nb - 1.0));
    let law = StudentsT::new(0.0, 1.0, freedom).ok()?;
    Some(2.0 * (1.0 - law.cdf(t.abs())))
}

/// Everything that differs between results and is not the broker.
fn differences(columns: &[Column<'_>], rows: &[Row<'_>]) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut check = |what: &str, value: &dyn Fn(&Column<'_>) -> String| {
        let mut seen: Vec<(String, Vec<&str>)> = Vec::new();
        for column in columns {
            let value = value(column);
            match seen.iter_mut().find(|(v, _)| *v == value) {
                Some((_, labels)) => labels.push(&column.label),
                None => seen.push((value, vec![&column.label])),
            }
        }
        if seen.len() > 1 {
            let list: Vec<String> = seen
                .iter()
                .map(|(v, labels)| format!("{} ({})", if v.is_empty() { "unknown" } else { v }, labels.join(", ")))
                .collect();
            warnings.push(format!("{what} differ: {}", list.join("; ")));
        }
    };
    check("hosts", &|c| {
        let m = &c.run.machine;
        format!("{} {} {} cores {}", m.name, m.cpu, m.cores, m.kernel).trim().to_string()
    });
    check("host settings that hold a broker back", &|c| match c.run.machine.tuning.is_empty() {
        true => "unknown".into(),
        false => sorted(c.run.machine.short().map(|f| f.knob.clone())),
    });
    check("broker cores", &|c| {
        let cores = c.run.targets.iter().find(|t| t.name == c.target).map(|t| t.cores.len()).unwrap_or(0);
        if cores == 0 { "unknown".into() } else { cores.to_string() }
    });
    check("payload modes", &|c| sorted(c.run.cells.iter().map(|x| x.payload.clone())));
    check("acks", &|c| sorted(c.run.cells.iter().map(|x| x.acks.clone())));
    check("replication factors", &|c| match c.run.workload.replication {
        0 => "unknown".into(),
        n => n.to_string(),
    });
    check("fsync settings", &|c| {
        let target = c.run.targets.iter().find(|t| t.name == c.target);
        match target.and_then(|t| t.settings.get("flush.messages")).map(String::as_str) {
            None => "unknown".into(),
            Some("9223372036854775807") => "none before acks".into(),
            Some(n) => format!("every {n} message(s)"),
        }
    });
    check("codecs", &|c| c.run.workload.codec.clone());
    check("batch sizes", &|c| match c.run.workload.batch_bytes {
        0 => "unknown".into(),
        n => format!("{n} B"),
    });
    check("partitions", &|c| (c.run.workload.partitions * c.run.workload.topics.max(1)).to_string());
    check("in-flight windows", &|c| match c.run.workload.in_flight {
        0 => "unknown".into(),
        n => n.to_string(),
    });
    if columns.len() > 1 && !rows.iter().any(|r| r.cells.iter().flatten().count() > 1) {
        warnings
            .push("no cell is in more than one result: acks, record size, payload or rate differ everywhere".into());
    }
    warnings
}

fn sorted(values: impl Iterator<Item = String>) -> String {
    let mut all: Vec<String> = values.collect();
    all.sort();
    all.dedup();
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn welch_agrees_with_a_published_example() {
        // scipy.stats.ttest_ind([20.1, 19.8, 20.4, 20.0], [18.9, 19.5, 18.7, 19.2], equal_var=False).pvalue
        let p = welch(&[20.1, 19.8, 20.4, 20.0], &[18.9, 19.5, 18.7, 19.2]).unwrap();
        assert!((p - 0.0038).abs() < 0.002, "{p}");
        assert!(welch(&[1.0, 2.0, 3.0], &[1.1, 2.1, 2.9]).unwrap() > 0.5);
        assert_eq!(welch(&[1.0], &[2.0, 3.0]), None);
        assert_eq!(welch(&[1.0, 1.0], &[2.0, 2.0]), Some(0.0));
    }

    #[test]
    fn an_open_messaging_result_stands_beside_a_run_of_ours() {
        let omb = serde_json::json!({
            "workload": "1-topic-1-partition-100b", "driver": "Kafka-throughput", "messageSize": 100, "topics": 1,
            "partitions": 1, "producersPerTopic": 1, "consumersPerTopic": 1,
            "publishRate": [900000.0, 1000000.0, 1100000.0], "publishErrorRate": [0.0, 0.0, 0.0],
            "consumeRate": [900000.0, 1000000.0, 1100000.0], "publishLatency99pct": [4.0, 5.0, 6.0],
            "aggregatedPublishLatencyAvg": 2.0, "aggregatedPublishLatency50pct": 1.5,
            "aggregatedPublishLatency99pct": 5.0, "aggregatedPublishLatency999pct": 9.0,
            "aggregatedPublishLatencyMax": 20.0, "aggregatedEndToEndLatency99pct": 7.0,
            "aggregatedEndToEndLatencyMax": 21.0
        });
        let theirs = crate::foreign::from_open_messaging(&omb, std::path::Path::new("omb.json")).unwrap();
        assert_eq!(theirs.cells[0].messages_per_second.median, 1e6);
        assert_eq!(theirs.cells[0].latency_ms.p99, 5.0);
        let mut ours = theirs.clone();
        ours.targets[0].name = "ringlane".into();
        ours.cells[0] = CellResult {
            target: "ringlane".into(),
            acks: "1".into(),
            payload: "prebuilt".into(),
            messages_per_second: crate::run_file::Spread { min: 2e7, median: 2e7, max: 2e7 },
            ..theirs.cells[0].clone()
        };
        let both = [theirs, ours];
        let comparison = Comparison::of(&both);
        assert_eq!(comparison.rows.len(), 1);
        let table = comparison.table().text();
        assert!(table.contains("20.00x ?"), "{table}");
        assert!(comparison.warnings.iter().any(|w| w.starts_with("acks differ")), "{:?}", comparison.warnings);
        assert!(crate::foreign::from_open_messaging(&serde_json::json!({"a": 1}), std::path::Path::new("x")).is_err());
    }
}
