//! Tables for a terminal and for Markdown, from the same rows.

use super::{human, human_bytes};
use crate::machine::Machine;
use crate::run_file::{RunFile, Spread};

/// A table as rows of words; the first row is the heading.
pub struct Table {
    pub rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(heading: &[&str]) -> Self {
        Table { rows: vec![heading.iter().map(|s| s.to_string()).collect()] }
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(|r| r.len()).max().unwrap_or(0);
        (0..columns)
            .map(|c| self.rows.iter().map(|r| r.get(c).map_or(0, |w| w.chars().count())).max().unwrap_or(0))
            .collect()
    }

    /// Words to the left in the first column, figures to the right in all others.
    pub fn text(&self) -> String {
        let widths = self.widths();
        let mut out = String::new();
        for (i, row) in self.rows.iter().enumerate() {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(c, (word, width))| if c == 0 { format!("{word:<width$}") } else { format!("{word:>width$}") })
                .collect();
            out += cells.join("  ").trim_end();
            out.push('\n');
            if i == 0 {
                out += &"-".repeat(widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1));
                out.push('\n');
            }
        }
        out
    }

    pub fn markdown(&self) -> String {
        let mut out = String::new();
        for (i, row) in self.rows.iter().enumerate() {
            out += &format!("| {} |\n", row.iter().map(|w| w.replace('|', "\\|")).collect::<Vec<_>>().join(" | "));
            if i == 0 {
                let marks: Vec<&str> = (0..row.len()).map(|c| if c == 0 { "---" } else { "---:" }).collect();
                out += &format!("|{}|\n", marks.join("|"));
            }
        }
        out
    }
}

/// Median, and how far the repeats were apart, in percent.
pub fn with_spread(s: &Spread, unit: &dyn Fn(f64) -> String) -> String {
    if s.median <= 0.0 || s.min == s.max {
        return unit(s.median);
    }
    format!("{} ±{:.0}%", unit(s.median), (s.max - s.min) / 2.0 / s.median * 100.0)
}

pub fn ms(x: f64) -> String {
    match x {
        x if x >= 100.0 => format!("{x:.0}"),
        x if x >= 10.0 => format!("{x:.1}"),
        x if x >= 1.0 => format!("{x:.2}"),
        x => format!("{x:.3}"),
    }
}

fn optional(x: Option<f64>, show: impl Fn(f64) -> String) -> String {
    x.map_or("-".into(), show)
}

/// The main table of one run.
pub fn cells_table(run: &RunFile) -> Table {
    let several = run.targets.len() > 1;
    let mut heading = vec!["cell", "msg/s", "payload/s", "wire/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms"];
    heading.extend(["% of ceiling", "CPU s/GB", "CPU s/M msg", "RSS MB", "errors", "limited by"]);
    let mut table = Table::new(&heading);
    for cell in &run.cells {
        let name = if several { format!("{}  {}", cell.target, cell.label()) } else { cell.label() };
        let l = &cell.latency_ms;
        table.rows.push(vec![
            name,
            with_spread(&cell.messages_per_second, &human),
            human_bytes(cell.bytes_per_second.median),
            human_bytes(cell.wire_bytes_per_second.median),
            ms(l.p50),
            ms(l.p99),
            ms(l.p999),
            ms(l.max),
            optional(cell.ceiling_share, |s| format!("{:.0}", s * 100.0)),
            optional(cell.broker.cpu_seconds_per_gb, |x| format!("{x:.3}")),
            optional(cell.broker.cpu_seconds_per_million_messages, |x| format!("{x:.4}")),
            optional(cell.broker.rss_mb, |x| format!("{x:.0}")),
            cell.errors.to_string(),
            cell.limited_by.clone(),
        ]);
    }
    table
}

/// Consumers beside producers, where a run has them.
pub fn consumed_table(run: &RunFile) -> Option<Table> {
    let mut table =
        Table::new(&["cell", "consumed msg/s", "payload/s", "end to end p50 ms", "p99 ms", "p99.9 ms", "max ms"]);
    for cell in run.cells.iter().filter(|c| c.consumed.is_some()) {
        let Some(consumed) = &cell.consumed else { continue };
        let e = cell.end_to_end_ms.unwrap_or_default();
        let shown = |x: f64| if cell.end_to_end_ms.is_some() { ms(x) } else { "-".into() };
        table.rows.push(vec![
            format!("{}  {}", cell.target, cell.label()),
            with_spread(&consumed.messages_per_second, &human),
            human_bytes(consumed.bytes_per_second.median),
            shown(e.p50),
            shown(e.p99),
            shown(e.p999),
            shown(e.max),
        ]);
    }
    (table.rows.len() > 1).then_some(table)
}

/// One line on what was measured where.
pub fn headline(run: &RunFile) -> Vec<String> {
    let m = &run.machine;
    let w = &run.workload;
    let mut lines = vec![format!("{}   {}", run.workload.name, run.created), format!("$ {}", run.command)];
    for t in &run.targets {
        let cores = if t.cores.is_empty() { String::new() } else { format!(" on cores {:?}", t.cores) };
        let fsync = match t.settings.get("flush.messages").map(String::as_str) {
            None => "flushing unknown".into(),
            Some("9223372036854775807") => "no fsync before acks".into(),
            Some(n) => format!("fsync every {n} message(s)"),
        };
        lines.push(format!("{} {}{cores}, {fsync}, replication {}", t.name, t.version, w.replication));
    }
    lines.push(format!(
        "{} ({}, {} cores, {} GB, Linux {}, {}); load on cores {:?}",
        m.name,
        m.cpu,
        m.cores,
        m.memory_bytes / 1_000_000_000,
        m.kernel,
        m.file_system.split(' ').next().unwrap_or(""),
        run.generator_cores
    ));
    if !m.tuning.is_empty() {
        lines.push(tuning_line(m));
    }
    lines.push(format!(
        "batches of {}, {} in flight, {} partition(s), {} producing and {} consuming connection(s), codec {}, {} x {} s",
        human_bytes(w.batch_bytes as f64),
        w.in_flight,
        w.partitions * w.topics,
        if w.producers == 0 && run.cells.iter().any(|c| c.kind != "consume") { w.partitions * w.topics } else { w.producers },
        w.consumers * w.groups,
        w.codec,
        w.repeats,
        w.duration_s
    ));
    lines
}

/// How many of the tuner's findings hold a broker back, and which.
pub fn tuning_line(m: &Machine) -> String {
    let mut short: Vec<&str> = m.short().map(|f| f.knob.as_str()).collect();
    short.dedup();
    let which = if short.is_empty() { String::new() } else { format!(": {}", short.join(", ")) };
    format!("ringlane-tune check: {} of {} findings hold a broker back{which}", m.short().count(), m.tuning.len())
}

pub const LEGEND: &str = "msg/s: median of the repeats, ± half the distance between best and worst. Bytes are record \
values; wire adds the protocol. Latency per request from its intended send time, all repeats merged, clock \
CLOCK_MONOTONIC; at a rate, waiting for a batch to fill is not part of it. CPU: the broker process.";

pub fn text(runs: &[RunFile]) -> String {
    let mut out = String::new();
    for run in runs {
        out.push('\n');
        for warning in run.all_warnings() {
            out += &format!("! {warning}\n");
        }
        out += &(headline(run).join("\n") + "\n\n");
        out += &cells_table(run).text();
        if let Some(consumed) = consumed_table(run) {
            out += &("\n".to_string() + &consumed.text());
        }
        out += &format!("\n{LEGEND}\n");
    }
    out
}

pub fn markdown(runs: &[RunFile]) -> String {
    let mut out = String::new();
    for run in runs {
        out += &format!("## {}\n\n", run.workload.name);
        for warning in run.all_warnings() {
            out += &format!("> **{warning}**\n>\n");
        }
        for line in headline(run).iter().skip(1) {
            out += &if line.starts_with('$') { format!("```\n{line}\n```\n\n") } else { format!("- {line}\n") };
        }
        out += &format!("\n{}\n", cells_table(run).markdown());
        if let Some(consumed) = consumed_table(run) {
            out += &format!("{}\n", consumed.markdown());
        }
        out += &format!("{LEGEND}\n\n");
    }
    out
}
