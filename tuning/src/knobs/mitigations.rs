//! Mitigations of processor flaws: reported, since they decide what a system call costs.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading};
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "mitigations",
    area: Area::Cpu,
    what: "Processor flaws and what the kernel does about them (/sys/devices/system/cpu/vulnerabilities)",
    why: "Mitigations make entering the kernel dearer; a host without them is faster and not comparable with one that has them",
    source: "kernel Documentation/admin-guide/hw-vuln/ and kernel-parameters.txt, mitigations=",
    risk: "reported only: turning them off opens the host",
    dev: false,
    check,
};

fn check(host: &Host, _: &Plan) -> Vec<Reading> {
    const AT: &str = "/sys/devices/system/cpu/vulnerabilities";
    let mut names = (Vec::new(), Vec::new());
    for flaw in host.list(AT) {
        match host.word(&format!("{AT}/{flaw}")) {
            Some(text) if text.starts_with("Vulnerable") => names.1.push(flaw),
            Some(text) if text.starts_with("Mitigation") => names.0.push(flaw),
            _ => {}
        }
    }
    let cmdline = host.word("/proc/cmdline").unwrap_or_default();
    let option = cmdline.split_whitespace().find(|option| option.starts_with("mitigations=")).unwrap_or_default();
    let listed = |names: &[String]| if names.is_empty() { "none".to_string() } else { names.join(" ") };
    if !host.exists(AT) && option.is_empty() {
        return vec![Reading::unavailable("not told here")];
    }
    vec![
        Reading::info(listed(&names.0), option).item("mitigated"),
        Reading::info(listed(&names.1), option).item("vulnerable"),
    ]
}
