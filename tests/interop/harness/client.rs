//! The clients: how each one's script is called. All take `BOOTSTRAP CASE ARGUMENTS...` and exit with 0 when what they
//! saw is what Kafka promises.
//!
//! Cases that the harness drives itself are the same for every client:
//! - `produce TOPIC FROM TO`: writes the values v<FROM> to v<TO - 1>, key = value.
//! - `consume TOPIC GROUP COUNT`: joins, prints `value v7` for each record until it has COUNT, commits, leaves.
//! - `member TOPIC GROUP eager|cooperative INSTANCE SESSION_MS`: joins and stays; prints `assigned 0 3` (all it now
//!   holds) after each change, `revoked 3` when it must give up some, `closed` after SIGTERM. INSTANCE `-`: no static id.

use std::process::Command;

use super::install::{self, GO, JAVA, NODE, PYTHON, source};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// librdkafka by confluent-kafka for Python.
    Confluent,
    KafkaPython,
    Aiokafka,
    Kafkajs,
    /// Apache Kafka's own Java client, as new as its tools.
    Java,
    /// The same client as it was at that version (`install::JAVA_3_7`).
    JavaOf(&'static str),
    FranzGo,
    /// librdkafka (an older one) on the command line.
    Kcat,
}

impl Client {
    /// None (with a line that says why) when it cannot run on this machine.
    pub fn command(self, bootstrap: &str, case: &str, arguments: &[&str]) -> Option<Command> {
        let mut command = match self {
            Client::Confluent => python("confluent.py")?,
            Client::KafkaPython => python("kafka_python.py")?,
            Client::Aiokafka => python("aio.py")?,
            Client::Kafkajs => {
                let modules = NODE.ready()?.join("node_modules");
                let mut node = Command::new("node");
                node.arg(source("node/kafkajs.js"))
                    .env("NODE_PATH", modules)
                    .env("KAFKAJS_NO_PARTITIONER_WARNING", "1");
                node
            }
            Client::Java => {
                let mut java = java()?;
                java.arg("Client");
                java
            }
            Client::JavaOf(version) => {
                let mut java = java_with(&format!("lib-{version}"))?;
                java.arg("Client");
                java
            }
            Client::FranzGo => Command::new(GO.ready()?.join("franz")),
            Client::Kcat => {
                install::kcat()?;
                let mut bash = Command::new("bash");
                bash.arg(source("kcat.sh"));
                bash
            }
        };
        command.arg(bootstrap).arg(case).args(arguments);
        Some(command)
    }
}

/// A JVM with every jar of Apache Kafka on its class path, tuned to start fast.
pub fn java() -> Option<Command> {
    java_with("lib")
}

fn java_with(jars: &str) -> Option<Command> {
    let dir = JAVA.ready()?;
    let mut java = Command::new("java");
    java.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xmx384m"])
        .arg(format!("-Dlog4j2.configurationFile={}", source("java/log4j2.xml").display()))
        .arg("-cp")
        .arg(format!("{}:{}/*", dir.join("classes").display(), dir.join(jars).display()));
    Some(java)
}

fn python(script: &str) -> Option<Command> {
    let mut python = Command::new(PYTHON.ready()?.join("bin/python"));
    // No cache files beside the sources.
    python.arg("-B").arg("-u").arg(source("python").join(script));
    Some(python)
}
