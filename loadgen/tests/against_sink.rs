//! The program as a user runs it, against its own discarding broker (`--peer sink`): whole runs, and everything that
//! can go wrong. Each of these takes a few seconds; nothing here asserts on speed.

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Runs bind to the same cores, so they go one after the other.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(|broken| broken.into_inner())
}

fn loadgen(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs to the end; a run that hangs fails the test.
fn finish(mut command: Command) -> Output {
    let mut child = command.spawn().expect("start loadgen");
    let deadline = Instant::now() + Duration::from_secs(90);
    while child.try_wait().expect("wait").is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            let output = child.wait_with_output().expect("output");
            panic!("loadgen hangs:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().expect("output")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn run_file(dir: &Path) -> Value {
    let text = std::fs::read_to_string(dir.join("run.json")).expect("run.json");
    serde_json::from_str(&text).expect("run.json is JSON")
}

const SHORT: &[&str] = &["--duration", "600ms", "--warmup", "100ms", "--repeats", "2", "--ceiling", "0"];

#[test]
fn a_matrix_of_acks_sizes_and_payloads_fills_the_run_file_and_the_report() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    let what =
        ["run", "--peer", "sink", "--acks", "0,1,all", "--record-size", "100,1024", "--payload", "prebuilt,fresh"];
    let more = ["--partitions", "3", "--producers", "5", "--batch-bytes", "20k", "--out", out];
    let output = finish(loadgen(&[&what[..], &more, SHORT].concat()));
    assert!(output.status.success(), "{}", stderr(&output));
    let run = run_file(dir.path());
    assert_eq!(run["format"], "ringlane-loadgen-run");
    assert_eq!(run["complete"], true);
    let cells = run["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 12);
    for cell in cells {
        // ListOffsets after each repeat proved that every record arrived, or there would be a warning.
        assert_eq!(cell["errors"], 0, "{cell}");
        // A sink costs less than making what it discards: on some hosts the generator is the limit, and says so.
        // A crowded host may stall a repeat altogether, and that is said too.
        let said = ["generator", "single answer"];
        let told = |w: &&Value| !said.iter().any(|s| w.to_string().contains(s));
        assert_eq!(cell["warnings"].as_array().unwrap().iter().filter(told).count(), 0, "{cell}");
        assert_eq!(cell["repeats"].as_array().unwrap().len(), 2);
        for field in ["messages_per_second", "bytes_per_second", "wire_bytes_per_second"] {
            let [min, median, max] = ["min", "median", "max"].map(|k| cell[field][k].as_f64().unwrap());
            // A crowded host may stall one repeat altogether, never both.
            assert!(min <= median && median <= max && max > 0.0, "{field}: {cell}");
        }
        let size = cell["record_size"].as_f64().unwrap();
        let ratio =
            cell["bytes_per_second"]["max"].as_f64().unwrap() / cell["messages_per_second"]["max"].as_f64().unwrap();
        assert!((ratio - size).abs() < 1.0, "{ratio} bytes a message of {size}");
        let latency = &cell["latency_ms"];
        let [p50, p99, max] = ["p50", "p99", "max"].map(|k| latency[k].as_f64().unwrap());
        assert!(0.0 < p50 && p50 <= p99 && p99 <= max, "{latency}");
        assert!(cell["repeats"][0]["histograms"]["from_intended"].as_str().unwrap().len() > 20);
    }
    let page = std::fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("acks=all, 1024 B"));
    assert!(!page.contains("http://") || page.matches("http://").count() == page.matches("http://www.w3.org").count());
    assert!(!page.contains("<script") && !page.contains("https://"));

    // The other readers of the file.
    let path = dir.path().join("run.json");
    let path = path.to_str().unwrap();
    let report = finish(loadgen(&["report", path]));
    assert!(report.status.success() && String::from_utf8_lossy(&report.stdout).contains("acks=0, 100 B, fresh"));
    let markdown = dir.path().join("r.md");
    let svg = dir.path().join("r.svg");
    let files = ["--markdown", markdown.to_str().unwrap(), "--svg", svg.to_str().unwrap()];
    assert!(finish(loadgen(&[&["report", path], &files[..]].concat())).status.success());
    assert!(std::fs::read_to_string(markdown).unwrap().contains("| cell | msg/s |"));
    assert!(std::fs::read_to_string(svg).unwrap().starts_with("<svg"));
    let compared = finish(loadgen(&["compare", path, out]));
    let text = String::from_utf8_lossy(&compared.stdout).into_owned();
    assert!(compared.status.success() && text.contains("1.00x"), "{text}");
}

#[test]
fn an_open_loop_keeps_its_rate_and_codecs_and_keys_work() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    let what = ["run", "--peer", "sink", "--rate", "5000,20k", "--linger", "2ms", "--producers", "2", "--out", out];
    let more = ["--codec", "lz4", "--keys", "zipf:100", "--record-size", "uniform:50-200", "--duration", "1s"];
    let short = ["--warmup", "100ms", "--repeats", "1", "--ceiling", "0"];
    let output = finish(loadgen(&[&what[..], &more, &short].concat()));
    assert!(output.status.success(), "{}", stderr(&output));
    let run = run_file(dir.path());
    for (cell, rate) in run["cells"].as_array().unwrap().iter().zip([5000.0, 20_000.0]) {
        assert_eq!(cell["rate"], rate);
        let reached = cell["messages_per_second"]["median"].as_f64().unwrap();
        // A loaded host may fall behind, which a warning must then say; nothing may be faster than asked.
        let warned = cell["warnings"].to_string().contains("missed");
        assert!(reached < rate * 1.1 && (warned || reached > rate * 0.9), "{reached} of {rate}: {cell}");
    }
}

#[test]
fn saturate_prints_its_ladder_and_keeps_it() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    let what = ["saturate", "--peer", "sink", "--bound-ms", "1000", "--steps", "2", "--batch-bytes", "2k"];
    let output = finish(loadgen(&[&what[..], SHORT, &["--out", out, "--acks", "1", "--record-size", "1000"]].concat()));
    assert!(output.status.success(), "{}", stderr(&output));
    let run = run_file(dir.path());
    let found = &run["saturation"][0];
    assert_eq!(found["bound"], "p99 <= 1000 ms");
    let ladder = found["ladder"].as_array().unwrap();
    assert!(ladder.len() <= 2 && !ladder.is_empty());
    // Rates that can be typed again.
    assert!(ladder.iter().all(|rung| rung["rate"].as_f64().unwrap().fract() == 0.0), "{ladder:?}");
}

#[test]
fn an_unreachable_bootstrap_says_so() {
    let _turn = turn();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let output = finish(loadgen(&["run", "--bootstrap", &address, "--ceiling", "0"]));
    assert!(!output.status.success());
    let message = stderr(&output);
    assert!(message.contains(&address) && message.contains("--bootstrap HOST:PORT"), "{message}");
}

#[test]
fn something_that_is_no_broker_is_recognized() {
    let _turn = turn();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let output = finish(loadgen(&["run", "--bootstrap", &address, "--ceiling", "0"]));
    assert!(!output.status.success());
    assert!(stderr(&output).contains("Kafka"), "{}", stderr(&output));
}

#[test]
fn an_unsupported_version_names_both_sides() {
    let _turn = turn();
    let what = ["run", "--peer", "sink", "--override", "produce-versions=12-13"];
    let output = finish(loadgen(&[&what[..], SHORT].concat()));
    assert!(!output.status.success());
    let message = stderr(&output);
    assert!(message.contains("Produce versions 12 to 13") && message.contains("speaks 3 to 8"), "{message}");
}

#[test]
fn a_broker_that_refuses_everything_ends_the_run_and_the_errors_are_kept() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    // 56 is what a broker answers whose disk is full.
    let what = ["run", "--peer", "sink", "--override", "answer-error=56", "--acks", "1", "--batch-bytes", "1k"];
    let output = finish(loadgen(&[&what[..], SHORT, &["--duration", "60s", "--out", out]].concat()));
    assert!(!output.status.success());
    assert!(stderr(&output).contains("disk"), "{}", stderr(&output));
    let run = run_file(dir.path());
    assert_eq!(run["complete"], false);
    let cell = &run["cells"][0];
    assert!(cell["errors"].as_u64().unwrap() > 0 && cell["errors_by_code"]["KAFKA_STORAGE_ERROR"].as_u64() > Some(0));
    let report = finish(loadgen(&["report", out]));
    assert!(String::from_utf8_lossy(&report.stdout).trim_start().starts_with('!'), "warnings come first");
}

#[test]
fn a_full_disk_under_out_is_named_and_the_figures_are_printed_all_the_same() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/full", dir.path().join("run.json.part")).unwrap();
    let out = dir.path().to_str().unwrap();
    let output = finish(loadgen(&[&["run", "--peer", "sink", "--acks", "1", "--out", out], SHORT].concat()));
    assert_eq!(output.status.code(), Some(1));
    let message = stderr(&output);
    assert!(message.contains("No space left") && message.contains("--out"), "{message}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("acks=1, 100 B"), "the figures are lost");
}

#[test]
fn a_malformed_workload_file_names_the_key_and_the_line() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.toml");
    std::fs::write(&path, "acks = 1\nrecord_sise = 100\n").unwrap();
    let output = finish(loadgen(&["run", "--workload", path.to_str().unwrap()]));
    assert!(!output.status.success());
    let message = stderr(&output);
    assert!(
        message.contains("line 2") && message.contains("record_sise") && message.contains("record-size"),
        "{message}"
    );
    let output = finish(loadgen(&["run", "--acks", "2"]));
    assert!(!output.status.success() && stderr(&output).contains("0, 1 or all"));
}

/// A sink in a process of its own, and its address.
fn sink_process() -> (Child, String) {
    let mut child = loadgen(&["peer", "sink"]).spawn().expect("start a sink");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).expect("address");
    (child, line.trim().to_string())
}

#[test]
fn a_broker_that_dies_mid_run_leaves_partial_results() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    let (mut sink, address) = sink_process();
    let what = ["run", "--bootstrap", &address, "--acks", "1", "--record-size", "100", "--warmup", "0s"];
    let mut command =
        loadgen(&[&what[..], &["--duration", "60s", "--repeats", "1", "--ceiling", "0", "--out", out]].concat());
    let mut run = command.spawn().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    sink.kill().unwrap();
    sink.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while run.try_wait().unwrap().is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = run.kill();
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let message = stderr(&output);
    assert!(message.contains(&address) && message.contains("failed while it was measured"), "{message}");
    let run = run_file(dir.path());
    assert_eq!(run["complete"], false);
    // The report says why, as the message does, and does not speak of five seconds that nobody waited.
    let warnings = [&run["warnings"], &run["cells"][0]["warnings"]].map(|w| w.to_string()).concat();
    assert!(warnings.contains("failed while it was measured: ") && warnings.contains("broker "), "{warnings}");
    assert!(!warnings.contains("unanswered"), "{warnings}");
    assert!(run["cells"][0]["messages_per_second"]["median"].as_f64().unwrap() > 0.0, "what was measured is kept");
}

#[test]
fn ctrl_c_ends_cleanly_and_writes_what_was_measured() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    let what = ["run", "--peer", "sink", "--acks", "1", "--record-size", "100", "--warmup", "0s", "--ceiling", "0"];
    let run = loadgen(&[&what[..], &["--duration", "60s", "--repeats", "3", "--out", out]].concat()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let pid = run.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let begin = Instant::now();
    let output = run.wait_with_output().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(45), "it went on after Ctrl-C");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let run = run_file(dir.path());
    assert_eq!(run["complete"], false);
    assert!(run["cells"][0]["messages_per_second"]["median"].as_f64().unwrap() > 0.0);
}

#[test]
fn the_format_page_names_every_field_of_a_cell() {
    let _turn = turn();
    let page = include_str!("../../docs/formats/run_file.md");
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    let what = ["run", "--peer", "sink", "--acks", "1", "--record-size", "100", "--out", out];
    let output = finish(loadgen(&[&what[..], SHORT].concat()));
    assert!(output.status.success(), "{}", stderr(&output));
    let run = run_file(dir.path());
    let objects = [&run, &run["cells"][0], &run["cells"][0]["repeats"][0], &run["cells"][0]["broker"]];
    for name in objects.iter().flat_map(|o| o.as_object().unwrap().keys()) {
        let known = page.contains(&format!("`{name}`")) || name.ends_with("_per_second");
        assert!(known, "docs/formats/run_file.md does not name {name}");
    }
}
