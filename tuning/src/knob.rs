//! What a knob is, and the sentences most of them are made of.
//!
//! A knob reads the host and returns readings. A reading that is short and can be mended carries the setting that would
//! do it; `apply` writes it and `undo` puts back what was there, the same way for every knob.

use serde::{Deserialize, Serialize};

use crate::host::{Host, Unreadable};
use crate::place::Place;
use crate::plan::Plan;

pub struct Knob {
    pub name: &'static str,
    pub area: Area,
    /// What it is, in one line.
    pub what: &'static str,
    /// What it changes for Ringlane.
    pub why: &'static str,
    /// Where the why comes from: kernel documentation, a commit, a measurement.
    pub source: &'static str,
    /// What it costs or may break.
    pub risk: &'static str,
    /// Whether the dev profile touches it as well.
    pub dev: bool,
    pub check: fn(&Host, &Plan) -> Vec<Reading>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Area {
    Cpu,
    Nic,
    Net,
    Disk,
    Memory,
    Limits,
    Host,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// Holds the broker back. `apply` mends it, or the note says what to do by hand.
    Short,
    /// A fact worth having in a report; nothing to do.
    Info,
    /// Cannot be read or set on this machine. No failure.
    Unavailable,
}

/// One item of one knob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Which CPU, queue, port; empty when there is one only.
    pub item: String,
    pub now: String,
    pub wanted: String,
    pub verdict: Verdict,
    pub note: String,
    pub setting: Option<Setting>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub place: Place,
    pub value: String,
}

impl Reading {
    pub fn new(verdict: Verdict, now: impl Into<String>, note: impl Into<String>) -> Reading {
        Reading {
            item: String::new(),
            now: now.into(),
            wanted: String::new(),
            verdict,
            note: note.into(),
            setting: None,
        }
    }

    pub fn info(now: impl Into<String>, note: impl Into<String>) -> Reading {
        Reading::new(Verdict::Info, now, note)
    }

    pub fn unavailable(note: impl Into<String>) -> Reading {
        Reading::new(Verdict::Unavailable, "", note)
    }

    /// Short, and only a person can mend it: the note says how.
    pub fn by_hand(now: impl Into<String>, wanted: impl Into<String>, note: impl Into<String>) -> Reading {
        Reading::new(Verdict::Short, now, note).wanted(wanted)
    }

    pub fn ok(now: impl Into<String>, wanted: impl Into<String>) -> Reading {
        Reading::new(Verdict::Ok, now, "").wanted(wanted)
    }

    pub fn wanted(mut self, wanted: impl Into<String>) -> Reading {
        self.wanted = wanted.into();
        self
    }

    pub fn item(mut self, item: impl Into<String>) -> Reading {
        self.item = item.into();
        self
    }

    pub fn note(mut self, note: impl Into<String>) -> Reading {
        self.note = note.into();
        self
    }

    /// Adds to a reading that has been judged; the reason for "not here" comes first.
    pub fn with_note(mut self, note: &str) -> Reading {
        if self.note.is_empty() {
            self.note = note.to_string();
        } else if !note.is_empty() {
            self.note = format!("{}; {note}", self.note);
        }
        self
    }
}

impl From<Unreadable> for Reading {
    fn from(why: Unreadable) -> Reading {
        Reading::unavailable(why.to_string())
    }
}

/// Reads a place; when `good` does not hold, `value` is what `apply` would write there.
pub fn judge(host: &Host, place: Place, wanted: &str, value: &str, good: impl Fn(&str) -> Option<bool>) -> Reading {
    let now = match host.read(&place) {
        Ok(now) => now,
        Err(why) => return Reading::from(why).wanted(wanted),
    };
    match good(&now) {
        None => Reading::unavailable(format!("{place} holds something unexpected")).wanted(wanted).now(now),
        Some(true) => Reading::ok(now, wanted),
        Some(false) => match host.read_only(&place) {
            Some(why) => Reading::unavailable(why).wanted(wanted).now(now),
            None => Reading {
                setting: Some(Setting { place, value: value.to_string() }),
                ..Reading::new(Verdict::Short, now, "").wanted(wanted)
            },
        },
    }
}

impl Reading {
    fn now(mut self, now: String) -> Reading {
        self.now = now;
        self
    }
}

pub fn exactly(host: &Host, place: Place, value: &str) -> Reading {
    judge(host, place, value, value, |now| Some(now == value))
}

pub fn at_least(host: &Host, place: Place, least: u64) -> Reading {
    judge(host, place, &format!(">= {least}"), &least.to_string(), |now| Some(number(now)? >= least))
}

pub fn at_most(host: &Host, place: Place, most: u64) -> Reading {
    judge(host, place, &format!("<= {most}"), &most.to_string(), |now| Some(number(now)? <= most))
}

/// A kernel number; negative ones (`-1`) stand for "no limit" wherever these helpers are used.
fn number(text: &str) -> Option<u64> {
    if text == "-1" {
        return Some(u64::MAX);
    }
    text.parse().ok()
}

/// A value that is shown and never judged.
pub fn shown(host: &Host, place: Place, note: &str) -> Reading {
    match host.read(&place) {
        Ok(now) => Reading::info(now, note),
        Err(why) => why.into(),
    }
}
