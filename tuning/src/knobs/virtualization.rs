//! Whether this is a machine, a virtual machine or a container, and what a container is limited to. Reported.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading};
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "virtualization",
    area: Area::Host,
    what: "Bare metal, virtual machine or container; limits of the control group",
    why: "In a virtual machine the hypervisor decides about clocks, idle states and queues, and in a container the host does; a report must say which it was",
    source: "kernel Documentation/admin-guide/cgroup-v2.rst; the hypervisor flag in /proc/cpuinfo",
    risk: "reported only",
    dev: true,
    check,
};

fn check(host: &Host, _: &Plan) -> Vec<Reading> {
    let cpuinfo = host.text("/proc/cpuinfo").unwrap_or_default();
    let hypervisor = cpuinfo.lines().any(|line| line.starts_with("flags") && line.contains(" hypervisor"));
    let container = host.exists("/.dockerenv") || host.exists("/run/.containerenv");
    let kind = match (container, hypervisor) {
        (true, true) => "container in a virtual machine",
        (true, false) => "container",
        (false, true) => "virtual machine",
        (false, false) => "no hypervisor seen",
    };
    let mut readings = vec![Reading::info(kind, "").item("kind")];
    for (file, note) in [("memory.max", "bytes, page cache included"), ("cpu.max", "microseconds in each period")] {
        if let Some(limit) = host.word(&format!("/sys/fs/cgroup/{file}"))
            && !limit.starts_with("max")
        {
            readings.push(Reading::info(limit, note).item(file));
        }
    }
    readings
}
