//! What is built on Kafka's clients and must run unchanged: Kafka Streams, and Kafka Connect in both of its modes.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::broker::{Broker, free_ports};
use crate::harness::client::{Client, java};
use crate::harness::process::{Process, run};
use crate::harness::{CONDITION_MAX, SCRIPT_MAX, eventually};

/// A word count that stops, loses its local state, and goes on from its changelog after the broker restarted.
#[test]
fn streams_word_count() {
    if java().is_none() {
        return;
    }
    let mut broker = Broker::start(&[("group.initial.rebalance.delay.ms", "500")]);
    let count = |broker: &Broker, state: &str, first: &str, end: &str| {
        let state = broker.scratch(state);
        let arguments = [state.to_str().expect("a UTF-8 path"), first, end];
        let command = Client::Java.command(&broker.bootstrap(), "streams", &arguments).expect("ran before");
        run(format!("Streams {first}..{end}"), command, SCRIPT_MAX);
    };
    count(&broker, "state-1", "0", "500");
    broker.stop();
    broker.start_again();
    count(&broker, "state-2", "500", "800");
    broker.assert_alive();
}

/// A file to a topic and from there to another file, by one process that keeps its offsets in a file.
#[test]
fn connect_standalone() {
    if java().is_none() {
        return;
    }
    let mut broker = Broker::start(&[("group.initial.rebalance.delay.ms", "500")]);
    let files = Files::new(&broker);
    let rest = format!("http://127.0.0.1:{}", free_ports(1));
    let offsets = broker.scratch("connect.offsets");
    let worker = broker.scratch("worker.properties");
    let settings = format!("{}offset.storage.file.filename={}\n", common(&broker, &rest), offsets.display());
    fs::write(&worker, settings).expect("writing a file");
    let source = broker.scratch("source.properties");
    fs::write(&source, properties("source", &files.source_connector())).expect("writing a file");
    let sink = broker.scratch("sink.properties");
    fs::write(&sink, properties("sink", &files.sink_connector())).expect("writing a file");
    for lines in [0..200, 200..300] {
        files.append(lines.clone());
        let mut command = java().expect("ran before");
        command.arg("org.apache.kafka.connect.cli.ConnectStandalone").args([&worker, &source, &sink]);
        let mut process = Process::start("connect-standalone", command);
        files.await_copy(lines.end, &mut process);
        stop(process);
    }
    broker.assert_alive();
}

/// The same by a worker that keeps connectors, offsets and status in three compacted topics, and is told over HTTP.
#[test]
fn connect_distributed() {
    if java().is_none() {
        return;
    }
    let mut broker = Broker::start(&[("group.initial.rebalance.delay.ms", "500")]);
    let files = Files::new(&broker);
    let port = free_ports(1);
    let worker = broker.scratch("worker.properties");
    let settings = format!(
        "{}group.id=workers\nconfig.storage.topic=connect-configs\noffset.storage.topic=connect-offsets\n\
         status.storage.topic=connect-status\nconfig.storage.replication.factor=1\noffset.storage.replication.factor=1\n\
         offset.storage.partitions=5\nstatus.storage.replication.factor=1\n",
        common(&broker, &format!("http://127.0.0.1:{port}"))
    );
    fs::write(&worker, settings).expect("writing a file");
    let start = || {
        let mut command = java().expect("ran before");
        command.arg("org.apache.kafka.connect.cli.ConnectDistributed").arg(&worker);
        Process::start("connect-distributed", command)
    };
    let process = start();
    for (name, connector) in [("source", files.source_connector()), ("sink", files.sink_connector())] {
        let fields: Vec<String> = connector.iter().map(|(key, value)| format!("{key:?}:{value:?}")).collect();
        let body = format!("{{{}}}", fields.join(","));
        // Refused until the worker has joined its group.
        eventually("a connector is accepted", || put(port, &format!("/connectors/{name}/config"), &body));
    }
    files.append(0..200);
    let mut process = process;
    files.await_copy(200, &mut process);
    stop(process);

    // Another worker finds connectors and offsets in the topics, though the broker restarted meanwhile.
    broker.stop();
    broker.start_again();
    files.append(200..300);
    let mut process = start();
    files.await_copy(300, &mut process);
    stop(process);
    broker.assert_alive();
}

/// The file that is read and the one that is written.
struct Files {
    source: PathBuf,
    sink: PathBuf,
}

impl Files {
    fn new(broker: &Broker) -> Files {
        let files = Files { source: broker.scratch("source.txt"), sink: broker.scratch("sink.txt") };
        fs::write(&files.source, "").expect("writing a file");
        files
    }

    fn source_connector(&self) -> Vec<(&'static str, String)> {
        vec![
            ("connector.class", "org.apache.kafka.connect.file.FileStreamSourceConnector".into()),
            ("tasks.max", "1".into()),
            ("file", text(&self.source)),
            ("topic", "copied".into()),
        ]
    }

    fn sink_connector(&self) -> Vec<(&'static str, String)> {
        vec![
            ("connector.class", "org.apache.kafka.connect.file.FileStreamSinkConnector".into()),
            ("tasks.max", "1".into()),
            ("file", text(&self.sink)),
            ("topics", "copied".into()),
        ]
    }

    fn append(&self, lines: std::ops::Range<usize>) {
        let mut file = OpenOptions::new().append(true).open(&self.source).expect("opening a file");
        let text: String = lines.map(|i| format!("line {i}\n")).collect();
        file.write_all(text.as_bytes()).expect("writing a file");
    }

    /// Waits until all lines up to `end` have arrived, in order; at least once each is what Connect promises.
    fn await_copy(&self, end: usize, process: &mut Process) {
        let deadline = std::time::Instant::now() + CONDITION_MAX;
        loop {
            let mut next = 0;
            let copied = fs::read_to_string(&self.sink).unwrap_or_default();
            for line in copied.lines() {
                if line == format!("line {next}") {
                    next += 1;
                }
            }
            if next == end {
                return;
            }
            let ended = process.exited();
            if ended.is_some() || std::time::Instant::now() > deadline {
                panic!("{next} of {end} lines copied; worker ended: {ended:?}\n{}", process.tail());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn common(broker: &Broker, rest: &str) -> String {
    format!(
        "bootstrap.servers={}\nlisteners={rest}\nkey.converter=org.apache.kafka.connect.storage.StringConverter\n\
         value.converter=org.apache.kafka.connect.storage.StringConverter\noffset.flush.interval.ms=1000\n\
         plugin.discovery=service_load\n",
        broker.bootstrap()
    )
}

fn properties(name: &str, connector: &[(&str, String)]) -> String {
    let lines: Vec<String> = connector.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
    format!("name={name}\n{}", lines.concat())
}

/// SIGTERM: the worker stops its tasks and commits their offsets.
fn stop(mut process: Process) {
    process.signal(Signal::SIGTERM);
    assert!(process.ended(CONDITION_MAX).is_some(), "the worker did not stop\n{}", process.tail());
    process.kill();
}

/// One HTTP PUT of JSON; whether it was accepted.
fn put(port: u16, path: &str, body: &str) -> bool {
    let exchange = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        write!(
            stream,
            "PUT {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    exchange().is_ok_and(|answer| answer.split_whitespace().nth(1).is_some_and(|status| status.starts_with('2')))
}

fn text(path: &Path) -> String {
    path.to_str().expect("a UTF-8 path").to_string()
}
