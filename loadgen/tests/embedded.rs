//! `loadgen run` as the README has it: it builds and starts Ringlane itself, measures it, and stops it. The broker is
//! real, so these runs also prove that both sides of the protocol agree; consumers verify every record.

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Runs bind to the same cores, so they go one after the other.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(|broken| broken.into_inner())
}

/// The first run may have to build the broker, hence the long deadline.
fn run(args: &[&str], out: &Path) -> (Output, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.arg("run").args(args).args(["--preheat", "0"]).arg("--out").arg(out);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(900);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("loadgen hangs");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    let file = std::fs::read_to_string(out.join("run.json")).unwrap();
    (output, serde_json::from_str(&file).unwrap())
}

fn number(v: &Value) -> f64 {
    v.as_f64().unwrap_or_else(|| panic!("{v} is no number"))
}

#[test]
fn every_acks_level_is_measured_on_a_ringlane_started_here() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let what = ["--acks", "0,1,all", "--record-size", "100", "--payload", "prebuilt,fresh", "--batch-bytes", "64k"];
    let more = ["--partitions", "2", "--duration", "1s", "--warmup", "200ms", "--repeats", "1", "--ceiling", "0.02"];
    let (output, run) = run(&[&what[..], &more].concat(), dir.path());
    assert!(String::from_utf8_lossy(&output.stdout).contains("acks=all, 100 B, fresh"));
    assert_eq!((run["complete"].as_bool(), run["targets"][0]["kind"].as_str()), (Some(true), Some("ringlane")));
    let cells = run["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 6);
    for cell in cells {
        assert_eq!(cell["errors"], 0, "{cell}");
        assert!(!cell["warnings"].to_string().contains("not in the log"), "{cell}");
        assert!(number(&cell["messages_per_second"]["max"]) > 0.0, "{cell}");
        assert!(number(&cell["ceiling_share"]) > 0.0, "{cell}");
        assert!(number(&cell["broker"]["cpu_seconds_per_gb"]) >= 0.0 && number(&cell["broker"]["rss_mb"]) > 0.0);
    }
}

#[test]
fn consumers_verify_what_producers_sent_and_end_to_end_latency_is_told() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let what = ["--acks", "1", "--record-size", "100", "--rate", "20k", "--linger", "5ms", "--partitions", "3"];
    let more = ["--consumers", "2", "--groups", "2", "--check", "verify", "--duration", "2s", "--repeats", "1"];
    let (_, run) = run(&[&what[..], &more, &["--warmup", "500ms", "--ceiling", "0"]].concat(), dir.path());
    let cell = &run["cells"][0];
    assert_eq!((cell["kind"].as_str(), cell["errors"].as_u64()), (Some("both"), Some(0)), "{cell}");
    let produced = number(&cell["messages_per_second"]["median"]);
    let consumed = number(&cell["consumed"]["messages_per_second"]["median"]);
    // Two groups read everything; what is on its way at either end of the measured time makes the difference.
    assert!(consumed > produced * 1.2 && consumed < produced * 2.8, "{consumed} consumed, {produced} produced");
    assert!(number(&cell["end_to_end_ms"]["p50"]) > 0.0, "{cell}");
}

#[test]
fn a_filled_topic_is_replayed_and_verified() {
    let _turn = turn();
    let what =
        ["--producers", "0", "--consumers", "2", "--check", "verify", "--fill", "20MB", "--fetch-bytes", "256KiB"];
    let more = ["--record-size", "1000", "--batch-bytes", "16k", "--duration", "1s", "--warmup", "100ms"];
    let dir = tempfile::tempdir().unwrap();
    let (_, run) = run(&[&what[..], &more, &["--repeats", "1", "--ceiling", "0", "--cold"]].concat(), dir.path());
    let cell = &run["cells"][0];
    assert_eq!((cell["kind"].as_str(), cell["errors"].as_u64()), (Some("consume"), Some(0)), "{cell}");
    assert!(number(&cell["messages_per_second"]["max"]) > 0.0, "nothing was replayed: {cell}");
    assert!(number(&cell["latency_ms"]["p99"]) > 0.0, "{cell}");
}

#[test]
fn a_loadgen_that_is_killed_takes_its_broker_along() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args(["peer", "ringlane", "--data-dir"]).arg(dir.path());
    let mut peer = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut bootstrap = String::new();
    BufReader::new(peer.stdout.take().unwrap()).read_line(&mut bootstrap).unwrap();
    let answers = || TcpStream::connect(bootstrap.trim()).is_ok();
    assert!(answers(), "{bootstrap}");
    peer.kill().unwrap();
    peer.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while answers() {
        assert!(Instant::now() < deadline, "the broker on {bootstrap} is still there");
        std::thread::sleep(Duration::from_millis(50));
    }
}
