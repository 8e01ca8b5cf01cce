//! The rules of the house that a compiler does not check: layers, headers, banned calls. ARCHITECTURE.md says why.

use std::path::{Path, PathBuf};

/// Each module of `src/`, and what it may name by `crate::`.
const LAYERS: &[(&str, &[&str])] = &[
    ("ids", &[]),
    ("limits", &[]),
    ("parts", &["ids"]),
    ("io", &["ids", "parts", "limits"]),
    ("wire", &["ids", "limits"]),
    ("config", &["ids", "limits"]),
    ("storage", &["ids", "parts", "limits", "wire", "io::disk"]),
    ("cluster", &["ids", "limits", "wire", "config"]),
    ("group", &["ids", "limits", "wire", "config"]),
    ("partition", &["ids", "parts", "limits", "wire", "storage", "cluster", "config"]),
    ("broker", &["ids", "parts", "limits", "wire", "io", "storage", "cluster", "config", "partition", "group"]),
    ("mailbox", &["ids", "cluster", "config", "io"]),
    (
        "api",
        &[
            "ids",
            "parts",
            "limits",
            "wire",
            "io",
            "storage",
            "cluster",
            "config",
            "partition",
            "group",
            "broker",
            "mailbox",
        ],
    ),
    (
        "shard",
        &[
            "ids",
            "parts",
            "limits",
            "wire",
            "io",
            "storage",
            "cluster",
            "config",
            "partition",
            "group",
            "broker",
            "mailbox",
            "api",
        ],
    ),
    ("control", &["ids", "parts", "limits", "wire", "io", "storage", "cluster", "config", "mailbox"]),
];

/// A call that is banned outside the places named, and what to use instead.
const BANNED: &[(&str, &[&str], &str)] = &[
    ("Instant::now", &["src/io/", "src/cli/"], "io::clock, or take the time as an argument"),
    ("SystemTime::now", &["src/io/", "src/cli/"], "io::clock, or take the time as an argument"),
    ("std::fs", &["src/io/", "src/cli/", "src/control/", "src/config/"], "io::disk"),
    ("std::sync::Mutex", &["src/io/"], "nothing: a shard shares nothing"),
    ("std::sync::mpsc", &["src/io/", "src/mailbox.rs", "src/cli/", "src/control/thread.rs"], "mailbox"),
    ("std::sync::atomic", &["src/io/", "src/mailbox.rs"], "nothing: a shard shares nothing"),
    ("unsafe {", &["src/io/"], "io"),
    ("dbg!(", &[], "log::debug"),
    ("todo!(", &[], "the real thing"),
    ("unimplemented!(", &[], "the real thing"),
];

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// Path below the repository, text, and the text before the file's unit tests.
fn all() -> Vec<(String, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    sources(&root.join("src"), &mut paths);
    paths
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_string();
            let code = text.split("#[cfg(test)]").next().unwrap().to_string();
            (name, text, code)
        })
        .collect()
}

fn without_comments(code: &str) -> String {
    code.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

#[test]
fn modules_use_only_what_is_below_them() {
    let mut faults = Vec::new();
    for (name, _, code) in all() {
        let module = name.trim_start_matches("src/").split(['/', '.']).next().unwrap();
        let Some((_, allowed)) = LAYERS.iter().find(|(m, _)| *m == module) else { continue };
        let code = without_comments(&code);
        for (at, _) in code.match_indices("crate::") {
            let rest = &code[at + "crate::".len()..];
            let before = code[..at].chars().next_back();
            if before == Some('$') {
                continue;
            }
            let used: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect();
            let top = used.split("::").next().unwrap();
            let ok = top == module
                || allowed.iter().any(|a| used == *a || used.starts_with(&format!("{a}::")) || (top == *a));
            if !ok && LAYERS.iter().any(|(m, _)| *m == top) {
                faults.push(format!("{name}: crate::{used} is above or beside {module}"));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn files_open_with_what_they_hold() {
    let faults: Vec<_> =
        all().into_iter().filter(|(_, text, _)| !text.starts_with("//!")).map(|(name, ..)| name).collect();
    assert!(faults.is_empty(), "no //! on top of: {faults:?}");
}

#[test]
fn banned_calls_stay_out() {
    let mut faults = Vec::new();
    for (name, _, code) in all() {
        let code = without_comments(&code);
        for (call, places, instead) in BANNED {
            if code.contains(call) && !places.iter().any(|place| name.starts_with(place)) {
                faults.push(format!("{name}: {call}; use {instead}"));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}
