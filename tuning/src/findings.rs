//! Findings: what the knobs say of a host, in the form that is printed, stored and compared.
//!
//! Readings of one knob that say the same of many items become one finding (`cpu0-63`), so that a large host stays
//! readable.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cpus;
use crate::deployment::{Deployment, Profile};
use crate::host::Host;
use crate::knob::{Area, Knob, Reading, Verdict};
use crate::knobs;
use crate::plan::Plan;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub knob: String,
    pub area: Area,
    /// Which CPUs, queues or ports; empty when there is one only.
    pub item: String,
    pub now: String,
    pub wanted: String,
    pub verdict: Verdict,
    /// Whether `ringlane-tune apply` would mend it.
    pub applies: bool,
    pub note: String,
    pub why: String,
}

/// Everything the tuner has to say about the host at `root` (`/` is the live one). Never fails: a deployment that does not
/// fit the host is itself a finding.
pub fn check_host(root: &Path, deployment: &Deployment) -> Vec<Finding> {
    let host = Host::at(root);
    match Plan::new(&host, deployment) {
        Ok(plan) => check(&host, &plan, &knobs::in_profile(deployment.profile)),
        Err(error) => vec![Finding {
            knob: "deployment".to_string(),
            area: Area::Host,
            item: String::new(),
            now: String::new(),
            wanted: String::new(),
            verdict: Verdict::Unavailable,
            applies: false,
            note: error.to_string(),
            why: String::new(),
        }],
    }
}

pub fn check(host: &Host, plan: &Plan, knobs: &[&Knob]) -> Vec<Finding> {
    knobs.iter().flat_map(|knob| merged(knob, (knob.check)(host, plan))).collect()
}

fn merged(knob: &Knob, readings: Vec<Reading>) -> Vec<Finding> {
    let mut groups: Vec<(Reading, Vec<String>)> = Vec::new();
    for reading in readings {
        let alike = groups.iter_mut().find(|(first, _)| {
            first.now == reading.now
                && first.wanted == reading.wanted
                && first.verdict == reading.verdict
                && first.note == reading.note
                && first.setting.is_some() == reading.setting.is_some()
        });
        match alike {
            Some((_, items)) => items.push(reading.item),
            None => groups.push((reading.clone(), vec![reading.item])),
        }
    }
    let finding = |(first, items): (Reading, Vec<String>)| Finding {
        knob: knob.name.to_string(),
        area: knob.area,
        item: joined(&items),
        now: first.now,
        wanted: first.wanted,
        verdict: first.verdict,
        applies: first.setting.is_some(),
        note: first.note,
        why: knob.why.to_string(),
    };
    groups.into_iter().map(finding).collect()
}

/// [cpu0, cpu1, cpu2] -> `cpu0-2`; other names are listed.
fn joined(items: &[String]) -> String {
    let split = |item: &String| -> Option<(String, usize)> {
        let digits = item.chars().rev().take_while(char::is_ascii_digit).count();
        let (name, number) = item.split_at(item.len() - digits);
        Some((name.to_string(), number.parse().ok()?))
    };
    let numbered: Option<Vec<(String, usize)>> = items.iter().map(split).collect();
    if let (Some(numbered), true) = (numbered, items.len() > 1)
        && let Some((name, _)) = numbered.first()
        && numbered.iter().all(|(is, _)| is == name)
    {
        return format!("{name}{}", cpus::list(&numbered.iter().map(|(_, n)| *n).collect::<Vec<_>>()));
    }
    items.join(", ")
}

/// True when nothing holds the broker back.
pub fn nothing_short(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.verdict != Verdict::Short)
}

pub fn profile_name(profile: Profile) -> &'static str {
    match profile {
        Profile::Production => "production",
        Profile::Dev => "dev",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alike_items_are_one_line() {
        let names = |text: &str| text.split(' ').map(str::to_string).collect::<Vec<_>>();
        assert_eq!(joined(&names("cpu0 cpu1 cpu2 cpu7")), "cpu0-2,7");
        assert_eq!(joined(&names("rx-ring tx-ring")), "rx-ring, tx-ring");
        assert_eq!(joined(&names("cpu3")), "cpu3");
        assert_eq!(joined(&[String::new()]), "");
    }
}
