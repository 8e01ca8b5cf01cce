//! What a person sees while a run is under way: one moving line with rate, MB/s and p99 on a terminal, and one line
//! per finished repeat anywhere. Everything goes to standard error; results go to standard output.

use crate::measure::Measured;
use crate::recorder::Slice;
use crate::report::{human, human_bytes};
use crate::run_file::Latency;
use crate::workload::{Cell, Workload};
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;

pub struct Progress {
    bar: ProgressBar,
    /// Slices of one second come from several workers and are shown together.
    seconds: BTreeMap<i64, Slice>,
    title: String,
}

fn title(target: &str, cell: &Cell, repeat: usize, workload: &Workload) -> String {
    let what = if workload.produces() {
        format!("acks={} {} B {}", cell.acks, cell.record_size, cell.payload)
    } else {
        format!("consume {} B", cell.record_size)
    };
    let rate = if cell.rate.to_string() == "max" { String::new() } else { format!(" at {}/s", cell.rate) };
    format!("{target}  {what}{rate}  {}/{}", repeat + 1, workload.repeats)
}

impl Progress {
    pub fn new() -> Self {
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{msg} [{bar:24}] {pos}/{len} s");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        Progress { bar, seconds: BTreeMap::new(), title: String::new() }
    }

    pub fn note(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    pub fn begin(&mut self, target: &str, cell: &Cell, repeat: usize, workload: &Workload) {
        self.title = title(target, cell, repeat, workload);
        self.seconds.clear();
        self.bar.reset();
        self.bar.set_length((workload.duration_s + workload.warmup_s).ceil() as u64);
        self.bar.set_message(self.title.clone());
    }

    pub fn slice(&mut self, slice: &Slice) {
        let second = slice.second;
        let all = self.seconds.entry(second).or_insert_with(|| Slice::new(second));
        all.merge(slice);
        let counts = if all.produced.records > 0 { all.produced } else { all.consumed };
        let phase = if second < 0 { " (warming up)" } else { "" };
        self.bar.set_message(format!(
            "{}{phase}  {} msg/s  {}/s  p99 {:.2} ms",
            self.title,
            human(counts.records as f64),
            human_bytes(counts.payload_bytes as f64),
            Latency::of(&all.from_intended).p99
        ));
        let passed = (second - self.seconds.keys().next().copied().unwrap_or(0) + 1).max(0) as u64;
        self.bar.set_position(passed);
    }

    pub fn end(&mut self, target: &str, cell: &Cell, repeat: usize, workload: &Workload, m: &Measured) {
        let r = &m.result;
        let errors = if r.errors > 0 { format!("  {} errors", r.errors) } else { String::new() };
        let text = format!(
            "{:<64} {:>8} msg/s {:>11}/s  p50 {:.2} p99 {:.2} ms{errors}",
            title(target, cell, repeat, workload),
            human(r.messages_per_second),
            human_bytes(r.bytes_per_second),
            r.latency_ms.p50,
            r.latency_ms.p99
        );
        self.bar.suspend(|| eprintln!("{text}"));
    }

    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
