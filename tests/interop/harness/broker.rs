//! The broker under test: Ringlane, or Apache Kafka to prove that a test itself is right (`INTEROP_BROKER=apache-kafka`).
//!
//! Each test has its own, on free ports of the loopback, with its data in a temporary directory. `RINGLANE_BIN` names
//! the binary to test (tests/all: the release build); without it the one that cargo built for the tests is used.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::client::java;
use super::process::{Process, run};

/// Starting loads a JVM for Apache Kafka; stopping syncs files.
const START_MAX: Duration = Duration::from_secs(180);
const STOP_MAX: Duration = Duration::from_secs(120);
/// What Apache Kafka and Ringlane say when they cannot listen.
const PORT_TAKEN: [&str; 2] = ["Address already in use", "is taken by another process"];
/// Shards of a broker under test, each on a port of its own.
const SHARDS: u16 = 2;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ringlane,
    ApacheKafka,
}

impl Kind {
    /// What this run tests.
    pub fn under_test() -> Kind {
        match std::env::var("INTEROP_BROKER").as_deref() {
            Ok("apache-kafka") => Kind::ApacheKafka,
            Ok("") | Ok("ringlane") | Err(_) => Kind::Ringlane,
            Ok(other) => panic!("INTEROP_BROKER={other}: say ringlane or apache-kafka"),
        }
    }
}

pub struct Broker {
    kind: Kind,
    port: u16,
    settings: Vec<(String, String)>,
    process: Option<Process>,
    home: TempDir,
}

impl Broker {
    /// Settings are Kafka's property names.
    pub fn start(settings: &[(&str, &str)]) -> Broker {
        Broker::start_kind(Kind::under_test(), settings)
    }

    pub fn start_kind(kind: Kind, settings: &[(&str, &str)]) -> Broker {
        let home = TempDir::with_prefix("ringlane-interop-").expect("creating a temporary directory");
        let settings = settings.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let mut broker = Broker { kind, port: 0, settings, process: None, home };
        broker.launch_on_free_ports();
        broker
    }

    /// `host:port` of its first shard.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// A file beside the data, for a test's own use.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// SIGTERM; it must end by itself with exit code 0 (a JVM: 143).
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("the broker runs");
        process.signal(Signal::SIGTERM);
        let status = process.ended(STOP_MAX);
        let clean =
            status.is_some_and(|status| status.code() == Some(if self.kind == Kind::Ringlane { 0 } else { 143 }));
        assert!(clean, "the broker ended with {status:?} after SIGTERM\n{}", process.tail());
        process.kill();
    }

    /// SIGKILL: whatever was not written is gone.
    pub fn crash(&mut self) {
        self.process.take().expect("the broker runs").kill();
    }

    /// Starts it again after `stop` or `crash`, on the same ports and data. On a busy machine the kernel may take long to
    /// let go of the ports of a process that was killed.
    pub fn start_again(&mut self) {
        for _ in 0..12 {
            match self.launch() {
                Ok(()) => return,
                Err(output) if PORT_TAKEN.iter().any(|words| output.contains(words)) => {
                    thread::sleep(Duration::from_secs(1))
                }
                Err(output) => panic!("the broker did not start again:\n{output}"),
            }
        }
        panic!("the broker did not start again: its ports stay taken");
    }

    /// Goes on with the data of a stopped broker as the other kind of broker.
    pub fn start_again_as(&mut self, kind: Kind) {
        self.kind = kind;
        self.start_again();
    }

    /// Fails the test when the broker ended by itself.
    pub fn assert_alive(&mut self) {
        let process = self.process.as_mut().expect("the broker runs");
        let status = process.exited();
        assert!(status.is_none(), "the broker ended by itself: {status:?}\n{}", process.tail());
    }

    fn launch_on_free_ports(&mut self) {
        for _ in 0..10 {
            self.port = free_ports(SHARDS + 1);
            match self.launch() {
                Ok(()) => return,
                // Somebody else was faster with a port. Anything else is a finding.
                Err(output) if PORT_TAKEN.iter().any(|words| output.contains(words)) => continue,
                Err(output) => panic!("the broker did not start:\n{output}"),
            }
        }
        panic!("found no free ports in ten tries");
    }

    fn launch(&mut self) -> Result<(), String> {
        let (command, sign) = match self.kind {
            Kind::Ringlane => (self.ringlane(), "ready"),
            Kind::ApacheKafka => (self.apache_kafka(), "Kafka Server started"),
        };
        let mut process = Process::start("broker", command);
        let started = process.wait_for(START_MAX, |lines| {
            lines.iter().any(|line| line.starts_with(sign) || (line.contains(sign) && sign != "ready")).then_some(())
        });
        if started.is_none() {
            process.kill();
            return Err(process.tail());
        }
        self.process = Some(process);
        Ok(())
    }

    fn ringlane(&self) -> Command {
        let binary = std::env::var_os("RINGLANE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_ringlane").into());
        let mut command = Command::new(binary);
        command
            .arg("serve")
            .args(["--cores", &core_list(), "--listen", &self.bootstrap(), "--data-dir"])
            .arg(self.data());
        for (key, value) in &self.settings {
            command.args(["--override", &format!("{key}={value}")]);
        }
        command
    }

    fn apache_kafka(&self) -> Command {
        let data = self.data();
        let properties = self.scratch("server.properties");
        let mut text = format!(
            "process.roles=broker,controller\nnode.id=1\nlog.dirs={data}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             controller.listener.names=CONTROLLER\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\nshare.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\noffsets.topic.num.partitions=10\nlog.cleaner.dedupe.buffer.size=8388608\n",
            data = data.display(),
            port = self.port,
            controller = self.port + SHARDS,
        );
        for (key, value) in &self.settings {
            text.push_str(&format!("{key}={value}\n"));
        }
        fs::write(&properties, text).expect("writing server.properties");
        if !data.join("meta.properties").exists() {
            let mut format = java().expect("Apache Kafka needs java and mvn");
            format.args(["kafka.tools.StorageTool", "format", "-t", "3Db5QLSqSZieL3rJBUUegA", "-c"]).arg(&properties);
            run("kafka-storage format", format, START_MAX);
        }
        let mut command = java().expect("Apache Kafka needs java and mvn");
        command.args(["-Xmx512m", "kafka.Kafka"]).arg(properties);
        command
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // On a failure the process prints its output as it is dropped.
        if let Some(mut process) = self.process.take()
            && !thread::panicking()
        {
            process.kill();
        }
    }
}

/// The first of `count` adjacent free ports, below the range that the kernel gives to outgoing connections.
pub fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 1000) as u16 * 16;
    for _ in 0..1000 {
        let step = NEXT.fetch_add(count, Ordering::Relaxed);
        let first = 11_000 + start.wrapping_add(step) % 20_000;
        let held: Vec<_> = (first..first + count).map(|port| TcpListener::bind(("127.0.0.1", port))).collect();
        if held.iter().all(Result::is_ok) {
            return first;
        }
    }
    panic!("no {count} adjacent free ports between 11000 and 31000");
}

/// The cores to pin shards to: the first ones this process may use, as a container may be kept off core 0.
fn core_list() -> String {
    let allowed = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).expect("reading the CPU affinity");
    let cores: Vec<String> = (0..nix::sched::CpuSet::count())
        .filter(|&core| allowed.is_set(core).unwrap_or(false))
        .take(SHARDS as usize)
        .map(|core| core.to_string())
        .collect();
    cores.join(",")
}

/// Names of segment files under a partition's directory, oldest first.
pub fn segments(partition: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(partition)
        .unwrap_or_else(|error| panic!("{}: {error}", partition.display()))
        .map(|entry| entry.expect("reading a directory").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    found.sort();
    found
}
