//! Simultaneous multithreading: reported, and whether two shards share a core.

use crate::cpus;
use crate::host::Host;
use crate::knob::{Area, Knob, Reading};
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "smt",
    area: Area::Cpu,
    what: "Hardware threads (/sys/devices/system/cpu/smt/active) and shards that share a core",
    why: "Two shards on one core share its caches and execution units: more throughput in all, less per shard, and latency that depends on the neighbour. Two reports are comparable only when both say which it was",
    source: "kernel Documentation/ABI/testing/sysfs-devices-system-cpu, smt and topology",
    risk: "reported only; choose with --cores, or turn SMT off in the firmware",
    dev: false,
    check,
};

fn check(host: &Host, plan: &Plan) -> Vec<Reading> {
    let active = match host.word("/sys/devices/system/cpu/smt/active").as_deref() {
        Some("1") => Reading::info("on", ""),
        Some("0") => Reading::info("off", ""),
        _ => Reading::unavailable("not told here"),
    };
    let siblings = |core: &usize| {
        let path = format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
        cpus::parse_list(&host.word(&path)?)
    };
    let shares = |core: &&usize| {
        siblings(core).is_some_and(|all| all.iter().any(|other| other != *core && plan.cores.contains(other)))
    };
    let shared: Vec<usize> = plan.cores.iter().filter(shares).copied().collect();
    let mut readings = vec![active];
    if !shared.is_empty() {
        let firsts: Vec<usize> = plan
            .cores
            .iter()
            .filter(|core| siblings(core).is_none_or(|all| all.iter().min() == Some(core)))
            .copied()
            .collect();
        let note = format!("for one shard per core: --cores {}", cpus::list(&firsts));
        readings.push(Reading::info(format!("shards on {} share cores", cpus::list(&shared)), note).item("shards"));
    }
    readings
}
