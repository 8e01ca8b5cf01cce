//! `loadgen saturate`: the highest rate that holds a latency bound. First a measurement at full speed, then a search by
//! halving between the highest rate that held and the lowest that did not. Every step is kept as a cell at its rate.

use crate::report;
use crate::run::{Ending, Session};
use crate::run_file::{CellResult, Rung, Saturation, Spread};
use crate::workload::{Cell, Rate};
use anyhow::Result;

pub struct Bound {
    pub percentile: f64,
    pub ms: f64,
    pub steps: usize,
}

/// A rate counts as held only if it was reached.
const REACHED: f64 = 0.98;

pub fn run_all(session: &mut Session, bound: &Bound) -> Ending {
    if let Err(e) = session.preheat() {
        return Ending::Failed(e);
    }
    for cell in session.workload.cells() {
        let searched = search(session, &Cell { rate: Rate::Max, ..cell }, bound);
        if let Err(e) = searched.and_then(|()| session.save()) {
            return Ending::Failed(e);
        }
        if session.stopped() {
            return Ending::Interrupted;
        }
    }
    Ending::Complete
}

/// All brokers of the session, one after the other: their ladders differ.
fn search(session: &mut Session, cell: &Cell, bound: &Bound) -> Result<()> {
    for target in 0..session.targets.len() {
        let name = session.targets[target].facts.name.clone();
        let mut found = Saturation {
            target: name.clone(),
            acks: cell.acks.to_string(),
            record_size_label: cell.record_size.to_string(),
            bound: format!("p{} <= {} ms", bound.percentile, bound.ms),
            knee: None,
            ladder: Vec::new(),
        };
        let flat_out = step(session, target, cell, bound, &mut found)?;
        let (mut held, mut failed) = (0.0, flat_out * 1.1);
        for _ in 0..bound.steps {
            if session.stopped() || failed < held * 1.03 {
                break;
            }
            let rate = ((held + failed) / 2.0).round().max(1.0);
            step(session, target, &Cell { rate: Rate::PerSecond(rate), ..cell.clone() }, bound, &mut found)?;
            match found.ladder.last() {
                Some(rung) if rung.held => (held, found.knee) = (rate, Some(rate)),
                _ => failed = rate,
            }
        }
        found.ladder.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        let knee = found.knee.map_or("no rate held it".into(), |k| format!("{} messages/s", report::human(k)));
        session.progress.note(&format!("{name}: highest rate with {}: {knee}", found.bound));
        session.file.saturation.push(found);
    }
    Ok(())
}

/// Measures one cell on one broker; returns the rate reached.
fn step(session: &mut Session, target: usize, cell: &Cell, bound: &Bound, found: &mut Saturation) -> Result<f64> {
    let results: Vec<CellResult> = match session.run_cell_on(cell, &[target]) {
        Ok(results) => results,
        Err((results, e)) => {
            session.file.cells.extend(results);
            return Err(e);
        }
    };
    let mut reached = 0.0;
    for result in results {
        reached = result.messages_per_second.median;
        let percentile_ms = result.histogram("from_intended")?.value_at_quantile(bound.percentile / 100.0) as f64 / 1e6;
        if let Some(rate) = result.rate {
            let worst = Spread::of(result.repeats.iter().map(|r| r.messages_per_second)).min;
            found.ladder.push(Rung {
                rate,
                messages_per_second: reached,
                latency_ms: result.latency_ms,
                held: percentile_ms <= bound.ms && worst >= rate * REACHED && result.errors == 0,
            });
        }
        session.file.cells.push(result);
    }
    Ok(reached)
}
