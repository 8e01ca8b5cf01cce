//! The CPU: model, microcode and the instructions that matter to a broker. Reported.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading};
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "cpu-model",
    area: Area::Host,
    what: "Processor model, microcode, and instructions for CRC32C and random numbers",
    why: "Each batch is checked by CRC32C: with carry-less multiplication over wide registers it runs at memory speed, with sse4.2 or the arm crc instructions at a part of it, without at a tenth",
    source: "/proc/cpuinfo; kernel Documentation/arch/x86/cpuinfo.rst and arch/arm64/elf_hwcaps.rst",
    risk: "reported only",
    dev: true,
    check,
};

fn check(host: &Host, _: &Plan) -> Vec<Reading> {
    let Ok(text) = host.text("/proc/cpuinfo") else { return vec![Reading::unavailable("no /proc/cpuinfo here")] };
    let field = |names: &[&str]| {
        text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            names.contains(&name.trim()).then(|| value.trim().to_string()).filter(|value| !value.is_empty())
        })
    };
    let model = field(&["model name"]).or_else(|| {
        // arm64 has numbers only.
        Some(format!("arm implementer {} part {}", field(&["CPU implementer"])?, field(&["CPU part"])?))
    });
    let flags = field(&["flags", "Features"]).unwrap_or_default();
    let has = |flag: &str| flags.split_whitespace().any(|is| is == flag);
    let picked = |wanted: &[&str]| {
        let found: Vec<&str> = wanted.iter().copied().filter(|flag| has(flag)).collect();
        if found.is_empty() { "none".to_string() } else { found.join(" ") }
    };
    vec![
        match model {
            Some(model) => Reading::info(model, ""),
            None => Reading::unavailable("not told here"),
        }
        .item("model"),
        match field(&["microcode"]) {
            Some(microcode) => Reading::info(microcode, ""),
            None => Reading::unavailable("not told here"),
        }
        .item("microcode"),
        Reading::info(picked(&["sse4_2", "pclmulqdq", "vpclmulqdq", "crc32", "pmull"]), "").item("crc32c"),
        Reading::info(picked(&["rdrand", "rdseed", "rng"]), "").item("random"),
    ]
}
