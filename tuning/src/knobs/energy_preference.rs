//! Energy preference: what a processor that chooses its own clock should aim for.
//!
//! Applied before the governor: intel_pstate takes a preference only while its governor is not `performance`, and undo,
//! which runs backwards, needs the same order.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, exactly};
use crate::knobs::cpu_governor::per_cpu;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "energy-preference",
    area: Area::Cpu,
    what: "Energy preference of the cores (cpufreq/energy_performance_preference)",
    why: "Processors with hardware-controlled clocks weigh speed against energy by this hint; balanced settings take milliseconds to raise the clock after a pause, and a shard pauses whenever its clients do",
    source: "kernel Documentation/admin-guide/pm/intel_pstate.rst and amd-pstate.rst, energy performance preference",
    risk: "more power and heat at low load",
    dev: false,
    check,
};

fn check(host: &Host, _: &Plan) -> Vec<Reading> {
    per_cpu(host, "cpufreq/energy_performance_preference", |place| exactly(host, place, "performance"))
}
