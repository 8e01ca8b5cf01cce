//! The kernel's clock: a fast one is read without a system call.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, judge};
use crate::place::Place;
use crate::plan::Plan;

const AT: &str = "/sys/devices/system/clocksource/clocksource0";

pub const KNOB: Knob = Knob {
    name: "clocksource",
    area: Area::Host,
    what: "Which clock the kernel reads (clocksource0/current_clocksource)",
    why: "A shard reads the clock every turn of its loop. tsc, kvm-clock and arch_sys_counter are read in user space; hpet, acpi_pm and xen cost a system call and up to microseconds",
    source: "kernel Documentation/virt/kvm/x86/timekeeping.rst and admin-guide/kernel-parameters.txt, clocksource; measured (results/, knobs): tsc or kvm-clock is the same to small requests",
    risk: "the kernel leaves tsc when it finds it unstable; forcing it back may make time jump",
    dev: false,
    check,
};

fn check(host: &Host, _: &Plan) -> Vec<Reading> {
    const FAST: [&str; 4] = ["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page"];
    let available = host.word(&format!("{AT}/available_clocksource")).unwrap_or_default();
    let current = host.word(&format!("{AT}/current_clocksource")).unwrap_or_default();
    let better = FAST.into_iter().find(|fast| available.split_whitespace().any(|is| is == *fast));
    if !current.is_empty() && !FAST.contains(&current.as_str()) && better.is_none() {
        let note = format!("available: {available}; see `dmesg | grep -i tsc` for why the fast clock was dropped");
        return vec![Reading::by_hand(current, "tsc", note)];
    }
    let place = Place::file(format!("{AT}/current_clocksource"));
    vec![judge(host, place, "tsc or alike", better.unwrap_or("tsc"), |now| Some(FAST.contains(&now)))]
}
