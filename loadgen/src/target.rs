//! Brokers to measure: Ringlane or Apache Kafka started here on cores of their own with a temporary directory, or any
//! broker that is already running. One that was started here is stopped by its process id when it is dropped.

use crate::admin::Admin;
use crate::machine;
use crate::run_file::TargetFacts;
use crate::sink;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub struct Target {
    pub facts: TargetFacts,
    pub pid: Option<i32>,
    /// Unmeasured load before the first figure.
    pub preheat_s: f64,
    process: Option<Process>,
}

struct Process {
    child: Child,
    data: TempDir,
    command: String,
}

/// How brokers are started here.
pub struct Place {
    pub cores: Vec<usize>,
    pub data_dir: PathBuf,
    pub overrides: Vec<String>,
    pub preheat_s: Option<f64>,
}

const START_WAIT: Duration = Duration::from_secs(60);
const STOP_WAIT: Duration = Duration::from_secs(20);
const JVM_PREHEAT_S: f64 = 20.0;
/// Not for its code, but for the host's memory: pages that a virtual machine touches for the first time cost many times
/// what an append costs, and the first cell would pay for all others.
const NATIVE_PREHEAT_S: f64 = 3.0;

impl Target {
    /// `ringlane`, `apache-kafka`, `sink`, or the address of a running broker.
    pub fn open(name: &str, place: &Place, pid: Option<i32>) -> Result<Target> {
        match name {
            "ringlane" => Target::ringlane(place),
            "apache-kafka" => Target::apache_kafka(place),
            "sink" => Target::sink(place),
            address if address.contains(':') => Target::running(address, pid),
            _ => bail!("unknown broker {name:?}; use ringlane, apache-kafka, sink, or HOST:PORT"),
        }
    }

    /// The generator alone: its own discarding broker, on the broker's cores, in this process.
    fn sink(place: &Place) -> Result<Target> {
        let address = sink::start(&place.cores, sink::Manners::parse(&place.overrides)?)?;
        let facts = TargetFacts {
            name: "sink".into(),
            kind: "sink".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            bootstrap: address.to_string(),
            cores: place.cores.clone(),
            nodes: 1,
            ..TargetFacts::default()
        };
        Ok(Target { facts, pid: None, preheat_s: 0.0, process: None })
    }

    /// A broker somebody else started. When it is on this host its CPU time can be told.
    pub fn running(bootstrap: &str, pid: Option<i32>) -> Result<Target> {
        let mut admin = Admin::connect(bootstrap)?;
        let address = admin.address()?;
        let pid = pid.or_else(|| address.ip().is_loopback().then(|| machine::listener(address.port())).flatten());
        let facts = TargetFacts {
            name: bootstrap.to_string(),
            kind: "external".into(),
            bootstrap: bootstrap.to_string(),
            nodes: admin.node_count()?,
            ..TargetFacts::default()
        };
        Ok(Target { facts, pid, preheat_s: 0.0, process: None })
    }

    fn ringlane(place: &Place) -> Result<Target> {
        let program = ringlane_program()?;
        let version = Command::new(&program).arg("--version").output().context("run ringlane --version")?;
        let version = String::from_utf8_lossy(&version.stdout).trim().trim_start_matches("ringlane ").to_string();
        let data = temporary_dir(place, "ringlane")?;
        let port = free_ports(place.cores.len())?;
        let mut command = Command::new(&program);
        let cores: Vec<String> = place.cores.iter().map(|c| c.to_string()).collect();
        command.args(["serve", "--cores", &cores.join(",")]);
        command.arg("--data-dir").arg(data.path().join("data"));
        command.args(["--listen", &format!("127.0.0.1:{port}")]);
        for entry in &place.overrides {
            ensure!(entry.contains('='), "--override {entry:?}: write KEY=VALUE");
            command.args(["--override", entry]);
        }
        let process = Process::start(command, data, &place.cores)?;
        Target::started(
            "ringlane",
            version,
            port,
            process,
            place,
            place.preheat_s.unwrap_or(NATIVE_PREHEAT_S).min(NATIVE_PREHEAT_S),
        )
    }

    fn apache_kafka(place: &Place) -> Result<Target> {
        let (jars, version) = kafka_jars()?;
        let data = temporary_dir(place, "apache-kafka")?;
        let port = free_ports(2)?;
        let properties = include_str!("../peers/apache-kafka/server.properties")
            .replace("{port}", &port.to_string())
            .replace("{controller_port}", &(port + 1).to_string())
            .replace("{data}", &data.path().join("data").to_string_lossy());
        let config = data.path().join("server.properties");
        std::fs::write(&config, properties)?;
        let class_path = format!("{}/*", jars.display());
        let format = Command::new("java")
            .args(["-cp", &class_path, "kafka.tools.StorageTool", "format", "-t", "cmluZ2xhbmVsb2FkZ2VuMQ", "-c"])
            .arg(&config)
            .output()
            .context("run java; Apache Kafka needs Java 17 or newer on the PATH")?;
        ensure!(format.status.success(), "Apache Kafka's StorageTool: {}", String::from_utf8_lossy(&format.stderr));
        let heap = std::env::var("KAFKA_HEAP").unwrap_or_else(|_| "1g".into());
        let mut command = Command::new("java");
        // The flags of Kafka's own start script.
        command.args([&format!("-Xmx{heap}"), &format!("-Xms{heap}"), "-server", "-XX:+UseG1GC"]);
        command.args(["-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35"]);
        command.args(["-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true"]);
        command.args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", &class_path, "kafka.Kafka"]).arg(&config);
        let process = Process::start(command, data, &place.cores)?;
        Target::started("apache-kafka", version, port, process, place, place.preheat_s.unwrap_or(JVM_PREHEAT_S))
    }

    /// Waits until the broker answers; with its log in the message when it does not.
    fn started(
        kind: &str,
        version: String,
        port: u16,
        mut process: Process,
        place: &Place,
        preheat_s: f64,
    ) -> Result<Target> {
        let bootstrap = format!("127.0.0.1:{port}");
        let deadline = Instant::now() + START_WAIT;
        let nodes = loop {
            if let Some(status) = process.child.try_wait()? {
                bail!("{kind} ended at start with {status}:\n{}", process.log_tail());
            }
            match Admin::connect(&bootstrap).and_then(|mut admin| admin.node_count()) {
                Ok(nodes) if nodes > 0 => break nodes,
                Err(e) if Instant::now() > deadline => {
                    bail!("{kind} does not answer after {START_WAIT:?}: {e:#}\n{}", process.log_tail())
                }
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        let facts = TargetFacts {
            name: kind.into(),
            kind: kind.into(),
            version,
            bootstrap,
            cores: place.cores.clone(),
            command: process.command.clone(),
            nodes,
            settings: Default::default(),
        };
        Ok(Target { facts, pid: Some(process.child.id() as i32), preheat_s, process: Some(process) })
    }

    /// Drops the logs of a topic from the page cache, which only works for a broker started here.
    pub fn evict(&self, topic: &str) -> Result<()> {
        let Some(process) = &self.process else {
            bail!("--cold works only for a broker that loadgen starts itself; leave out --bootstrap")
        };
        let data = process.data.path().join("data");
        for directory in std::fs::read_dir(&data).with_context(|| format!("read {}", data.display()))?.flatten() {
            if !directory.file_name().to_string_lossy().starts_with(topic) {
                continue;
            }
            for file in std::fs::read_dir(directory.path())?.flatten() {
                if file.path().extension().is_some_and(|e| e == "log") {
                    let file = File::open(file.path())?;
                    file.sync_data()?;
                    let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
                    nix::fcntl::posix_fadvise(&file, 0, 0, advice)?;
                }
            }
        }
        Ok(())
    }

    /// The last lines of its log, when it was started here.
    pub fn log_tail(&self) -> String {
        self.process.as_ref().map(|p| p.log_tail()).unwrap_or_default()
    }
}

impl Process {
    fn start(mut command: Command, data: TempDir, cores: &[usize]) -> Result<Process> {
        let log = File::create(data.path().join("broker.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Ctrl-C reaches loadgen alone, which then stops the broker in its own time.
        command.process_group(0);
        // And a loadgen that is killed takes the broker along. SAFETY: between fork and exec this makes one system call, and
        // neither allocates nor locks.
        unsafe { command.pre_exec(|| Ok(prctl::set_pdeathsig(Signal::SIGTERM)?)) };
        // A child inherits the cores of the thread that starts it.
        let before = machine::allowed_cores();
        machine::pin(cores)?;
        let child = command.spawn();
        machine::pin(&before)?;
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let shown: Vec<String> = words.map(|w| shorten(&w.to_string_lossy(), data.path())).collect();
        let child = child.with_context(|| format!("start {}", shown[0]))?;
        Ok(Process { child, data, command: shown.join(" ") })
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.data.path().join("broker.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

/// Commands go into run files, which are published: paths of this host stay out.
fn shorten(word: &str, data: &Path) -> String {
    let word = word.replace(&*data.to_string_lossy(), "DIR");
    match Path::new(&word).file_name() {
        Some(name) if word.starts_with('/') => name.to_string_lossy().into_owned(),
        _ => word,
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.child.id() as i32);
        if !matches!(self.child.try_wait(), Ok(None)) || kill(pid, Signal::SIGTERM).is_err() {
            return;
        }
        let deadline = Instant::now() + STOP_WAIT;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn temporary_dir(place: &Place, name: &str) -> Result<TempDir> {
    std::fs::create_dir_all(&place.data_dir).with_context(|| format!("create {}", place.data_dir.display()))?;
    let dir = tempfile::Builder::new().prefix(&format!("loadgen-{name}-")).tempdir_in(&place.data_dir);
    dir.with_context(|| format!("create a temporary directory in {}", place.data_dir.display()))
}

/// The first of `count` consecutive free loopback ports.
fn free_ports(count: usize) -> Result<u16> {
    for _ in 0..200 {
        let first = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
        let port = first.local_addr()?.port();
        let rest: Option<Vec<TcpListener>> = (1..count as u16)
            .map(|i| port.checked_add(i).and_then(|port| TcpListener::bind(("127.0.0.1", port)).ok()))
            .collect();
        if rest.is_some() {
            return Ok(port);
        }
    }
    bail!("no {count} consecutive free loopback ports")
}

/// The broker beside this program. In a source tree it is built first, so that both are of one commit.
fn ringlane_program() -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    // Tests run one directory deeper.
    let dir = here.parent().map(|d| if d.ends_with("deps") { d.parent().unwrap_or(d) } else { d });
    let dir = dir.context("this program has no directory")?;
    let program = dir.join("ringlane");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().filter(|w| w.join("Cargo.toml").exists());
    if let Some(workspace) = workspace
        && dir.parent().is_some_and(|target| target.join("CACHEDIR.TAG").exists())
    {
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--quiet", "--bin", "ringlane"]).current_dir(workspace);
        cargo.arg("--target-dir").arg(dir.parent().unwrap_or(dir));
        if dir.ends_with("release") {
            cargo.arg("--release");
        }
        match cargo.status() {
            Ok(status) if !status.success() => bail!("building ringlane failed; see cargo's messages above"),
            _ => {}
        }
    }
    ensure!(
        program.exists(),
        "there is no ringlane beside {}; build it (cargo build --release), or measure a running broker with --bootstrap",
        here.display()
    );
    Ok(program)
}

/// Apache Kafka's jars, brought by Maven once, and their version.
fn kafka_jars() -> Result<(PathBuf, String)> {
    let pom = include_str!("../peers/apache-kafka/pom.xml");
    let version = pom
        .split_once("<kafka.version>")
        .and_then(|(_, rest)| rest.split_once('<'))
        .map(|(v, _)| v.to_string())
        .context("peers/apache-kafka/pom.xml names no kafka.version")?;
    let target = std::env::current_exe()?.ancestors().find(|d| d.join("CACHEDIR.TAG").exists()).map(Path::to_path_buf);
    let target = target.unwrap_or_else(|| std::env::temp_dir().join("ringlane-loadgen"));
    let dir = target.join("peers").join(format!("apache-kafka-{version}"));
    let jars = dir.join("jars");
    if jars.join("complete").exists() {
        return Ok((jars, version));
    }
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("pom.xml"), pom)?;
    eprintln!("bringing Apache Kafka {version} with Maven ...");
    let maven = Command::new("mvn")
        .args(["--quiet", "--batch-mode", "dependency:copy-dependencies", "-DincludeScope=runtime"])
        .arg("-DoutputDirectory=jars")
        .current_dir(&dir)
        .status()
        .context("run mvn; Apache Kafka's jars are brought by Maven, which must be on the PATH")?;
    ensure!(maven.success(), "Maven could not bring Apache Kafka {version}; its messages are above");
    std::fs::write(jars.join("complete"), "")?;
    Ok((jars, version))
}
