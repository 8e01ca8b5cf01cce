//! What the user sees: tables for people, JSON for programs.

use std::io::{self, Write};

use clap::ValueEnum;
use ringlane_tune::apply::{Outcome, Step};
use ringlane_tune::knob::{Area, Knob};
use ringlane_tune::{Finding, Verdict};
use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

impl Output {
    pub fn list(self, knobs: &[&Knob]) -> io::Result<()> {
        #[derive(Serialize)]
        struct Listed<'a> {
            name: &'a str,
            area: Area,
            what: &'a str,
            why: &'a str,
            source: &'a str,
            risk: &'a str,
            dev: bool,
        }
        if self == Output::Json {
            return json(
                &knobs
                    .iter()
                    .map(|knob| Listed {
                        name: knob.name,
                        area: knob.area,
                        what: knob.what,
                        why: knob.why,
                        source: knob.source,
                        risk: knob.risk,
                        dev: knob.dev,
                    })
                    .collect::<Vec<_>>(),
            );
        }
        let mut out = io::stdout().lock();
        for knob in knobs {
            writeln!(out, "{}\n  what    {}\n  why     {}", knob.name, knob.what, knob.why)?;
            writeln!(out, "  source  {}\n  risk    {}\n", knob.source, knob.risk)?;
        }
        Ok(())
    }

    /// The last line counts all findings, also those that are not shown.
    pub fn findings(self, findings: &[Finding], short_only: bool) -> io::Result<()> {
        let shown = |found: &&Finding| !short_only || found.verdict == Verdict::Short;
        if self == Output::Json {
            return json(&findings.iter().filter(shown).collect::<Vec<_>>());
        }
        let mut rows = vec![["KNOB", "ITEM", "NOW", "WANTED", "VERDICT", "NOTE"].map(str::to_string)];
        for found in findings.iter().filter(shown) {
            let verdict = match (found.verdict, found.applies) {
                (Verdict::Ok, _) => "ok",
                (Verdict::Short, true) => "short",
                (Verdict::Short, false) => "short, by hand",
                (Verdict::Info, _) => "info",
                (Verdict::Unavailable, _) => "not here",
            };
            let texts: [&str; 6] = [&found.knob, &found.item, &found.now, &found.wanted, verdict, &found.note];
            let widths = [30, 30, 36, 30, 20, 100];
            let mut cells = texts.map(str::to_string);
            for (cell, width) in cells.iter_mut().zip(widths) {
                *cell = clipped(cell, width);
            }
            rows.push(cells);
        }
        table(&rows)?;
        let count = |verdict, applies: Option<bool>| {
            let matches = |f: &&Finding| f.verdict == verdict && applies.is_none_or(|is| is == f.applies);
            findings.iter().filter(matches).count()
        };
        let (mend, hand) = (count(Verdict::Short, Some(true)), count(Verdict::Short, Some(false)));
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "\n{} ok, {} short ({mend} for `ringlane-tune apply`, {hand} by hand), {} for information, {} not here",
            count(Verdict::Ok, None),
            mend + hand,
            count(Verdict::Info, None),
            count(Verdict::Unavailable, None),
        )
    }

    /// A step as it happens; JSON waits for the end.
    pub fn progress(self, step: &Step) {
        if self == Output::Text {
            // A closed pipe must not stop a run of settings half-way.
            let _ = writeln!(io::stdout(), "{}", line(step));
        }
    }

    pub fn finished(self, steps: &[Step]) -> io::Result<()> {
        match self {
            Output::Json => json(steps),
            Output::Text => writeln!(io::stdout(), "{}", summary(steps)),
        }
    }

    pub fn steps(self, steps: &[Step], nothing: &str) -> io::Result<()> {
        if self == Output::Json {
            return json(steps);
        }
        let mut out = io::stdout().lock();
        for step in steps {
            writeln!(out, "{}", line(step))?;
        }
        writeln!(out, "{}", if steps.is_empty() { nothing.to_string() } else { summary(steps) })
    }

    pub fn script(self, text: &str) -> io::Result<()> {
        match self {
            Output::Json => json(&serde_json::json!({ "script": text })),
            Output::Text => io::stdout().lock().write_all(text.as_bytes()),
        }
    }
}

fn line(step: &Step) -> String {
    let outcome = word(step.outcome);
    let note = if step.note.is_empty() { String::new() } else { format!("  ({})", step.note) };
    format!("{outcome:<8} {}: {}: {} -> {}{note}", step.knob, step.place, shown(&step.from), shown(&step.to))
}

fn shown(value: &str) -> &str {
    if value.is_empty() { "(empty)" } else { value }
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Planned => "would",
        Outcome::Done => "done",
        Outcome::Unavailable => "not here",
        Outcome::Left => "left",
        Outcome::Failed => "FAILED",
    }
}

fn summary(steps: &[Step]) -> String {
    let count = |outcome| steps.iter().filter(|step| step.outcome == outcome).count();
    let words = [Outcome::Planned, Outcome::Done, Outcome::Unavailable, Outcome::Left, Outcome::Failed];
    let parts = words.iter().filter(|o| count(**o) > 0).map(|o| format!("{} {}", count(*o), word(*o)));
    parts.collect::<Vec<_>>().join(", ")
}

/// A table is for a glance; JSON has everything in full.
fn clipped(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_string();
    }
    text.chars().take(width.saturating_sub(3)).chain("...".chars()).collect()
}

fn table<const N: usize>(rows: &[[String; N]]) -> io::Result<()> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = io::stdout().lock();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

fn json<T: Serialize + ?Sized>(value: &T) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
    writeln!(out)
}
