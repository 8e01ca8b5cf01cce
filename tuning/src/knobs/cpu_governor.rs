//! The CPU governor: how the clock follows the load.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, exactly};
use crate::place::Place;
use crate::plan::{Plan, online};

pub const KNOB: Knob = Knob {
    name: "cpu-governor",
    area: Area::Cpu,
    what: "CPU frequency governor (cpufreq/scaling_governor)",
    why: "A shard waits in io_uring between bursts; governors that follow the load lower the clock in that time, and the first requests of each burst, and every short measurement, run on a slow core",
    source: "kernel Documentation/admin-guide/pm/cpufreq.rst, performance governor",
    risk: "more power and heat at low load",
    dev: false,
    check,
};

fn check(host: &Host, _: &Plan) -> Vec<Reading> {
    per_cpu(host, "cpufreq/scaling_governor", |place| exactly(host, place, "performance"))
}

/// One reading per online CPU; one for all when no CPU has such a file.
pub fn per_cpu(host: &Host, file: &str, reading: impl Fn(Place) -> Reading) -> Vec<Reading> {
    let path = |cpu: &usize| format!("/sys/devices/system/cpu/cpu{cpu}/{file}");
    let cpus: Vec<usize> = online(host).into_iter().filter(|cpu| host.exists(&path(cpu))).collect();
    if cpus.is_empty() {
        return vec![Reading::unavailable("not offered here: fixed clock, firmware control or a virtual machine")];
    }
    cpus.iter().map(|cpu| reading(Place::file(path(cpu))).item(format!("cpu{cpu}"))).collect()
}
