//! Apply and undo, the same for every knob: save what is there, write, look; and later put it back in reverse order.
//!
//! Knobs are asked one after the other, each on the host as the ones before left it: more queues mean new interrupts.

use std::io;

use anyhow::Result;
use serde::Serialize;

use crate::host::Host;
use crate::knob::{Knob, Setting};
use crate::place::Place;
use crate::plan::Plan;
use crate::state::{Change, StateFile};

#[derive(Clone, Debug, Serialize)]
pub struct Step {
    pub knob: String,
    pub place: String,
    pub from: String,
    pub to: String,
    pub outcome: Outcome,
    /// Why it was not done, or what to know.
    pub note: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Dry run: it would be done.
    Planned,
    Done,
    /// This machine does not let it be set. No failure.
    Unavailable,
    /// Left alone on purpose: somebody else has changed it since.
    Left,
    Failed,
}

/// Where a crash may strike, for the tests that make it strike there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    Saved,
    Written,
}

pub fn dry_run(host: &Host, plan: &Plan, knobs: &[&Knob]) -> Vec<Step> {
    settings(host, plan, knobs).map(|(knob, setting)| step(host, knob, &setting, Outcome::Planned)).collect()
}

/// All settings that would mend something, as the host stands now.
pub fn settings<'a>(
    host: &'a Host,
    plan: &'a Plan,
    knobs: &'a [&'a Knob],
) -> impl Iterator<Item = (&'a Knob, Setting)> + 'a {
    knobs.iter().flat_map(|knob| {
        (knob.check)(host, plan).into_iter().filter_map(|reading| reading.setting.map(|setting| (*knob, setting)))
    })
}

/// `at` is told of every moment; `shown` of every step as it ends.
pub fn apply(
    host: &Host,
    plan: &Plan,
    knobs: &[&Knob],
    file: &mut StateFile,
    at: &mut dyn FnMut(Moment),
    shown: &mut dyn FnMut(&Step),
) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for knob in knobs {
        for reading in (knob.check)(host, plan) {
            let Some(setting) = reading.setting else { continue };
            let step = set(host, knob, &setting, file, at)?;
            shown(&step);
            steps.push(step);
        }
    }
    Ok(steps)
}

fn step(host: &Host, knob: &Knob, setting: &Setting, outcome: Outcome) -> Step {
    Step {
        knob: knob.name.to_string(),
        place: setting.place.to_string(),
        from: host.read(&setting.place).unwrap_or_default(),
        to: setting.value.clone(),
        outcome,
        note: String::new(),
    }
}

fn set(host: &Host, knob: &Knob, setting: &Setting, file: &mut StateFile, at: &mut dyn FnMut(Moment)) -> Result<Step> {
    let place = &setting.place;
    let mut step = step(host, knob, setting, Outcome::Done);
    let before = match host.raw(place) {
        Ok(raw) => raw,
        Err(why) => return Ok(Step { outcome: Outcome::Unavailable, note: why.to_string(), ..step }),
    };
    let known = file.state.changes.iter().find(|change| change.place == *place).cloned();
    file.record(Change {
        knob: knob.name.to_string(),
        place: place.clone(),
        before: before.clone(),
        wrote: setting.value.clone(),
    })?;
    at(Moment::Saved);
    let written = host.write(place, &setting.value);
    at(Moment::Written);
    if let Err(error) = written {
        (step.outcome, step.note) = refused(&error);
        // A tool may have done half its work before it failed: forget only what did not move.
        if host.raw(place).as_ref() == Ok(&before) {
            match known {
                Some(known) => file.record(known)?,
                None => file.forget(place)?,
            }
        }
    } else if let Ok(now) = host.read(place) {
        // The kernel may round or spell it its own way; undo must know the value by that name.
        if now != setting.value {
            step.note = format!("the kernel made it {now}");
            file.record(Change { knob: knob.name.to_string(), place: place.clone(), before, wrote: now })?;
        }
    }
    Ok(step)
}

fn refused(error: &io::Error) -> (Outcome, String) {
    use io::ErrorKind::*;
    // What the kernel answers for interrupts that it manages itself.
    const EIO: i32 = 5;
    match error.kind() {
        _ if error.raw_os_error() == Some(EIO) => {
            (Outcome::Unavailable, "cannot be set here: the kernel manages it by itself".to_string())
        }
        NotFound | PermissionDenied | ReadOnlyFilesystem | Unsupported => {
            (Outcome::Unavailable, format!("cannot be set here: {error}"))
        }
        _ => (Outcome::Failed, format!("the kernel refused it: {error}")),
    }
}

/// Puts everything back, last change first. What somebody else has changed since is left alone unless `force`.
pub fn undo(host: &Host, only: &[&Knob], file: &mut StateFile, force: bool) -> Result<Vec<Step>> {
    let chosen = |change: &Change| only.is_empty() || only.iter().any(|knob| knob.name == change.knob);
    let changes: Vec<Change> = file.state.changes.iter().rev().filter(|change| chosen(change)).cloned().collect();
    let mut steps = Vec::new();
    for change in changes {
        let now = host.read(&change.place).unwrap_or_default();
        let before = word(&change.place, &change.before);
        let mut step = Step {
            knob: change.knob.clone(),
            place: change.place.to_string(),
            from: now.clone(),
            to: before.clone(),
            outcome: Outcome::Done,
            note: String::new(),
        };
        if now == before {
            step.note = "already as it was".to_string();
            file.forget(&change.place)?;
        } else if now != change.wrote && !force {
            step.outcome = Outcome::Left;
            step.note = format!("changed by someone else since (apply wrote {}); --force puts it back", change.wrote);
        } else {
            match host.restore(&change.place, &change.before) {
                Ok(()) => file.forget(&change.place)?,
                Err(error) => (step.outcome, step.note) = (Outcome::Failed, refused(&error).1),
            }
        }
        steps.push(step);
    }
    Ok(steps)
}

fn word(place: &Place, raw: &str) -> String {
    match place {
        Place::File { path } => crate::place::value_of(path, raw),
        _ => raw.trim().to_string(),
    }
}
