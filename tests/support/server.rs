//! The broker's own process under test: one core, a free port of the loopback, data in a temporary directory.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

pub struct Server {
    process: Child,
    pub address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Server {
    /// `command` starts with what runs the broker (`prlimit`, or the broker itself); settings are Kafka's `key=value`.
    pub fn start(command: &[&str], settings: &[&str]) -> Server {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let mut process = Command::new(command[0])
            .args(&command[1..])
            .args(["serve", "--cores", "0", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir.path())
            .args(settings.iter().flat_map(|setting| ["--override", setting]))
            .env("RINGLANE_LOG", std::env::var("RINGLANE_LOG").unwrap_or("warn".into()))
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let address = ready(&mut process).unwrap_or_else(|line| panic!("{line:?}"));
        Server { process, address, _dir: dir }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn resident_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the broker lives");
        let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("VmRSS of a living broker");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") / 1024
    }

    /// What all its threads have computed so far.
    #[allow(dead_code)]
    pub fn cpu_seconds(&self) -> f64 {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("the broker lives");
        let spent =
            threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("schedstat")).ok());
        spent.filter_map(|spent| spent.split_whitespace().next()?.parse::<f64>().ok()).sum::<f64>() / 1e9
    }
}

/// Waits until the broker serves, and where. An error: what it said instead.
pub fn ready(process: &mut Child) -> Result<SocketAddr, String> {
    let mut line = String::new();
    BufReader::new(process.stdout.take().expect("piped")).read_line(&mut line).expect("the ready line");
    line.split_whitespace().find_map(|word| word.parse().ok()).ok_or(line)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
