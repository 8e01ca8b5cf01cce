//! Idle states: how long a sleeping core takes to wake.
//!
//! Set per CPU through its resume latency, which lasts without a process that keeps /dev/cpu_dma_latency open.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, judge};
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "cpu-idle",
    area: Area::Cpu,
    what: "Longest wake-up of a shard's core (cpuN/power/pm_qos_resume_latency_us)",
    why: "A core in a deep state takes 100-300 us to wake, which is added to the first request after each pause: many times what the request itself takes",
    source: "kernel Documentation/admin-guide/pm/cpuidle.rst, power management quality of service for CPUs",
    risk: "idle cores use more power, which leaves less turbo clock to the busy ones",
    dev: false,
    check,
};

const LATENCY_US_MAX: u64 = 20;

fn check(host: &Host, plan: &Plan) -> Vec<Reading> {
    plan.cores.iter().map(|core| one(host, *core).item(format!("cpu{core}"))).collect()
}

fn one(host: &Host, core: usize) -> Reading {
    let cpu = format!("/sys/devices/system/cpu/cpu{core}");
    let states = host.list(&format!("{cpu}/cpuidle"));
    let latency = |state: &String| host.word(&format!("{cpu}/cpuidle/{state}/latency"))?.parse::<u64>().ok();
    let Some(deepest) = states.iter().filter_map(latency).max() else {
        return Reading::unavailable("idle states are not offered here; a hypervisor decides");
    };
    if deepest <= LATENCY_US_MAX {
        return Reading::ok(format!("{deepest} us"), format!("<= {LATENCY_US_MAX} us")).note("of the deepest idle state");
    }
    let place = Place::file(format!("{cpu}/power/pm_qos_resume_latency_us"));
    let value = LATENCY_US_MAX.to_string();
    // 0 is no limit at all, `n/a` is no idle state at all.
    let good = |now: &str| match now {
        "n/a" => Some(true),
        number => number.parse().ok().map(|limit: u64| (1..=LATENCY_US_MAX).contains(&limit)),
    };
    judge(host, place, &format!("1..{value} us"), &value, good)
        .with_note(&format!("0 is no limit; the deepest state takes {deepest} us"))
}
