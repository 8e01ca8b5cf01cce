//! Apache Kafka's own command-line tools against the broker, and its files against ours: `kafka-dump-log` reads what we
//! wrote, and we serve what Apache Kafka wrote.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::broker::{Broker, Kind, segments};
use crate::harness::client::{Client, java};
use crate::harness::process::run;
use crate::harness::{SCRIPT_MAX, eventually};

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const CONFIGS: &str = "kafka.admin.ConfigCommand";
const GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
const GET_OFFSETS: &str = "org.apache.kafka.tools.GetOffsetShell";
const DUMP_LOG: &str = "org.apache.kafka.tools.DumpLogSegments";

/// Runs a tool of Apache Kafka and returns what it printed.
fn tool(class: &str, arguments: &str) -> Vec<String> {
    let mut command = java().expect("ran before");
    command.arg(class).args(arguments.split_whitespace());
    run(class, command, SCRIPT_MAX)
}

/// The same with `--bootstrap-server` and whatever is on standard input.
fn ask(broker: &Broker, class: &str, arguments: &str) -> Vec<String> {
    tool(class, &format!("--bootstrap-server {} {arguments}", broker.bootstrap()))
}

fn assert_has(lines: &[String], wanted: &str) {
    // Columns are padded and separated by tabs or spaces.
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(lines.iter().any(|line| squeezed(line).contains(wanted)), "no `{wanted}` in\n{}", lines.join("\n"));
}

#[test]
fn topics_and_configs() {
    if java().is_none() {
        return;
    }
    let mut broker = Broker::start(&[]);
    assert_has(
        &ask(&broker, TOPICS, "--create --topic orders --partitions 4 --config retention.ms=86400000"),
        "Created topic orders.",
    );
    assert_has(&ask(&broker, TOPICS, "--list"), "orders");
    let described = ask(&broker, TOPICS, "--describe --topic orders");
    assert_has(&described, "PartitionCount: 4 ReplicationFactor: 1");
    assert_has(&described, "retention.ms=86400000");
    assert_has(&described, "Topic: orders Partition: 3 Leader:");
    ask(&broker, TOPICS, "--alter --topic orders --partitions 6");
    eventually("6 partitions", || {
        ask(&broker, GET_OFFSETS, "--topic orders").iter().filter(|line| line.starts_with("orders:")).count() == 6
    });

    let alter = "--entity-type topics --entity-name orders --alter --add-config max.message.bytes=2000000 --delete-config retention.ms";
    assert_has(&ask(&broker, CONFIGS, alter), "Completed updating config for topic orders.");
    let configs = ask(&broker, CONFIGS, "--entity-type topics --entity-name orders --describe --all");
    assert_has(
        &configs,
        "max.message.bytes=2000000 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:max.message.bytes=2000000",
    );
    assert_has(&configs, "retention.ms=604800000");

    let versions = ask(&broker, "org.apache.kafka.tools.BrokerApiVersionsCommand", "");
    assert_has(&versions, "Produce(0):");
    assert_has(&versions, "Fetch(1):");
    assert_has(&ask(&broker, "org.apache.kafka.tools.FeatureCommand", "describe"), "Feature: metadata.version");
    let id =
        tool("org.apache.kafka.tools.ClusterTool", &format!("cluster-id --bootstrap-server {}", broker.bootstrap()));
    assert_has(&id, "Cluster ID: ");

    ask(&broker, TOPICS, "--delete --topic orders");
    eventually("the topic is gone", || !ask(&broker, TOPICS, "--list").contains(&"orders".to_string()));
    broker.assert_alive();
}

#[test]
fn console_and_groups() {
    if java().is_none() {
        return;
    }
    let mut broker = Broker::start(&[("group.initial.rebalance.delay.ms", "500")]);
    ask(&broker, TOPICS, "--create --topic words --partitions 1");
    let text: String = (0..500).map(|i| format!("key{i}\tword {i}\n")).collect();
    let input = broker.scratch("words.txt");
    fs::write(&input, text).expect("writing the input of the console producer");
    let mut producer = Command::new("sh");
    producer.args(["-c", "input=$1; shift; exec \"$@\" < \"$input\"", "sh"]).arg(input);
    let java_command = java().expect("ran before");
    producer
        .arg(java_command.get_program())
        .args(java_command.get_args())
        .arg("org.apache.kafka.tools.ConsoleProducer");
    producer.args([
        "--bootstrap-server",
        &broker.bootstrap(),
        "--topic",
        "words",
        "--reader-property",
        "parse.key=true",
    ]);
    run("kafka-console-producer", producer, SCRIPT_MAX);

    let consume = "--topic words --group readers --from-beginning --max-messages 500 --formatter-property print.key=true --formatter-property print.offset=true";
    let seen = ask(&broker, "org.apache.kafka.tools.consumer.ConsoleConsumer", consume);
    for i in 0..500 {
        assert!(
            seen.contains(&format!("Offset:{i}\tkey{i}\tword {i}")),
            "record {i} is not among\n{}",
            seen.join("\n")
        );
    }
    assert_has(&ask(&broker, GROUPS, "--list"), "readers");
    assert_has(&ask(&broker, GROUPS, "--describe --group readers"), "readers words 0 500 500 0");
    assert_has(&ask(&broker, GROUPS, "--describe --group readers --state"), "Empty");
    let reset = "--group readers --topic words --reset-offsets --to-offset 420 --execute";
    assert_has(&ask(&broker, GROUPS, reset), "readers words 0 420");
    assert_has(&ask(&broker, GROUPS, "--describe --group readers"), "readers words 0 420 500 80");
    assert_has(&ask(&broker, GROUPS, "--delete --group readers"), "was successful");

    let json = broker.scratch("delete.json");
    fs::write(&json, r#"{"version":1,"partitions":[{"topic":"words","partition":0,"offset":123}]}"#)
        .expect("writing a file");
    let deleted = format!("--offset-json-file {}", json.display());
    assert_has(&ask(&broker, "org.apache.kafka.tools.DeleteRecordsCommand", &deleted), "low_watermark: 123");
    assert_has(&ask(&broker, GET_OFFSETS, "--topic words --time earliest"), "words:0:123");
    assert_has(&ask(&broker, GET_OFFSETS, "--topic words --time latest"), "words:0:500");
    let logs = ask(&broker, "org.apache.kafka.tools.LogDirsCommand", "--describe --topic-list words");
    assert_has(&logs, "\"partition\":\"words-0\"");
    broker.assert_alive();
}

#[test]
fn perf_tools() {
    if java().is_none() {
        return;
    }
    let mut broker = Broker::start(&[]);
    ask(&broker, TOPICS, "--create --topic perf --partitions 4");
    let sent = ask(
        &broker,
        "org.apache.kafka.tools.ProducerPerformance",
        "--topic perf --num-records 100000 --record-size 200 --throughput -1",
    );
    assert_has(&sent, "100000 records sent");
    let read = ask(
        &broker,
        "org.apache.kafka.tools.ConsumerPerformance",
        "--topic perf --num-records 100000 --timeout 120000",
    );
    assert!(read.iter().any(|line| line.contains(", 100000, ")), "not all were read:\n{}", read.join("\n"));
    broker.assert_alive();
}

/// Files of every kind as `kafka-dump-log` reads them: segments in all codecs, both indexes, group offsets, metadata.
#[test]
fn dump_log_reads_our_files() {
    let Some(write) = Client::Java.command("", "", &[]) else { return };
    drop(write);
    let mut broker = Broker::start(&[("group.initial.rebalance.delay.ms", "500")]);
    client(&broker, "write", &[]);
    ask(
        &broker,
        TOPICS,
        "--create --topic rolled --partitions 1 --config segment.bytes=1048576 --config index.interval.bytes=8192",
    );
    ask(
        &broker,
        "org.apache.kafka.tools.ProducerPerformance",
        "--topic rolled --num-records 16000 --record-size 250 --throughput -1",
    );
    client(&broker, "produce", &["grouped", "0", "10"]);
    client(&broker, "consume", &["grouped", "dumped-group", "10"]);
    broker.stop();

    let data = broker.data();
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    let names = codecs.iter().flat_map(|codec| (0..3).map(move |partition| format!("java-{codec}-{partition}")));
    for (file, dump) in dump(names.flat_map(|name| segments(&data.join(name))).collect(), "--deep-iteration") {
        assert_sound(&dump, 61);
        let codec =
            codecs.iter().find(|codec| file.contains(&format!("/java-{codec}-"))).expect("the codec is in the path");
        assert_has(&dump, &format!("compresscodec: {codec}"));
    }

    let rolled = segments(&data.join("rolled-0"));
    assert!(rolled.len() >= 3, "4 MB in segments of 1 MiB: {rolled:?}");
    let mut records = 0;
    for dumped in dump(rolled.clone(), "").values() {
        assert_sound(dumped, count(dumped));
        records += count(dumped);
    }
    assert_eq!(records, 16_000, "records in {rolled:?}");
    let indexes: Vec<PathBuf> =
        rolled.iter().flat_map(|log| [log.with_extension("index"), log.with_extension("timeindex")]).collect();
    for (file, dumped) in dump(indexes.clone(), "--index-sanity-check") {
        assert_has(&dumped, &format!("{file} passed sanity check"));
    }
    // Without the option the tool looks every entry up in the segment and tells of each that is wrong.
    let wrong = ["Mismatches in", "Missing offset", "Non-consecutive", "Found timestamp mismatch", "out of order"];
    for (file, dumped) in dump(indexes, "") {
        assert!(
            !dumped.iter().any(|line| wrong.iter().any(|word| line.contains(word))),
            "{file}:\n{}",
            dumped.join("\n")
        );
    }

    let offsets = partitions_of(&data, "__consumer_offsets").iter().flat_map(|partition| segments(partition)).collect();
    assert_has(&dump(offsets, "--offsets-decoder").into_values().flatten().collect::<Vec<_>>(), "dumped-group");
    let metadata = dump(segments(&data.join("__cluster_metadata-0")), "--cluster-metadata-decoder");
    let metadata: Vec<String> = metadata.into_values().flatten().collect();
    for word in ["TOPIC_RECORD", "PARTITION_RECORD", "\"name\":\"rolled\""] {
        assert_has(&metadata, word);
    }
}

/// Clients write uncompressed and gzip batches into topics of every `compression.type` and read the same back; the files hold
/// the topic's codec.
#[test]
fn compression_type_is_what_is_stored() {
    let Some(write) = Client::Java.command("", "", &[]) else { return };
    drop(write);
    let mut broker = Broker::start(&[]);
    let clients: Vec<_> = [(Client::Java, "java"), (Client::Confluent, "confluent")]
        .into_iter()
        .filter_map(|(client, name)| Some((name, client.command(&broker.bootstrap(), "recoded", &[])?)))
        .map(|(name, command)| {
            run(format!("{name} recoded"), command, SCRIPT_MAX);
            name
        })
        .collect();
    broker.stop();
    for name in clients {
        for kind in ["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"] {
            for (partition, came) in ["none", "gzip"].into_iter().enumerate() {
                let codec = match kind {
                    "producer" => came,
                    "uncompressed" => "none",
                    codec => codec,
                };
                let files = segments(&broker.data().join(format!("{name}-into-{kind}-{partition}")));
                for dump in dump(files, "--deep-iteration").values() {
                    assert_sound(dump, 61);
                    for batch in batches(dump) {
                        // librdkafka sends a batch as it is where gzip does not make it smaller.
                        let as_it_came = kind == "producer" && batch["compresscodec"] == "none";
                        assert!(batch["compresscodec"] == codec || as_it_came, "{name} into {kind}: {batch:?}");
                    }
                }
            }
        }
    }
}

/// Apache Kafka writes a data directory; the broker under test opens it and goes on: records, configs, group offsets.
#[test]
fn directory_of_apache_kafka() {
    let Some(write) = Client::Java.command("", "", &[]) else { return };
    drop(write);
    let mut broker = Broker::start_kind(Kind::ApacheKafka, &[("group.initial.rebalance.delay.ms", "500")]);
    let base = client(&broker, "write", &[]).pop().expect("it tells the base of its timestamps");
    ask(
        &broker,
        TOPICS,
        "--create --topic kept --partitions 2 --config retention.ms=7200000 --config cleanup.policy=compact",
    );
    client(&broker, "create", &["grouped", "1"]);
    client(&broker, "produce", &["grouped", "0", "30"]);
    client(&broker, "consume", &["grouped", "moving", "20"]);
    broker.stop();

    broker.start_again_as(Kind::under_test());
    client(&broker, "verify", &[&base]);
    let described = ask(&broker, TOPICS, "--describe --topic kept");
    assert_has(&described, "PartitionCount: 2");
    assert_has(&described, "cleanup.policy=compact");
    assert_has(&described, "retention.ms=7200000");
    client(&broker, "produce", &["grouped", "30", "40"]);
    let rest = client(&broker, "consume", &["grouped", "moving", "20"]);
    let values: Vec<String> = (20..40).map(|i| format!("value v{i}")).collect();
    let seen: Vec<&String> = rest.iter().filter(|line| line.starts_with("value")).collect();
    assert_eq!(seen, values.iter().collect::<Vec<_>>(), "the group goes on where it was");
    broker.assert_alive();
}

fn client(broker: &Broker, case: &str, arguments: &[&str]) -> Vec<String> {
    let command = Client::Java.command(&broker.bootstrap(), case, arguments).expect("ran before");
    run(format!("Java {case}"), command, SCRIPT_MAX)
}

/// What kafka-dump-log prints of each file.
fn dump(files: Vec<PathBuf>, options: &str) -> BTreeMap<String, Vec<String>> {
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let mut dumps: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut file = String::new();
    for line in tool(DUMP_LOG, &format!("--files {} {options}", names.join(","))) {
        if let Some(name) = line.strip_prefix("Dumping ") {
            file = name.to_string();
        }
        dumps.entry(file.clone()).or_default().push(line);
    }
    let dumped: Vec<&String> = names.iter().filter(|name| dumps.contains_key(*name)).collect();
    assert_eq!(dumped.len(), names.len(), "every file is dumped");
    dumps
}

/// Records in a dump, by the counts of its batches.
fn count(dump: &[String]) -> u64 {
    batches(dump).map(|batch| batch["count"].parse::<u64>().expect("a count")).sum()
}

/// Every batch is valid, they follow each other, and together they hold so many records.
fn assert_sound(dump: &[String], records: u64) {
    let mut next = None;
    for batch in batches(dump) {
        assert_eq!(batch["isvalid"], "true", "{batch:?}");
        let base: u64 = batch["baseOffset"].parse().expect("an offset");
        assert_eq!(base, next.unwrap_or(base), "batches are adjacent:\n{}", dump.join("\n"));
        next = Some(batch["lastOffset"].parse::<u64>().expect("an offset") + 1);
    }
    assert_eq!(count(dump), records, "records in\n{}", dump.join("\n"));
}

fn batches(dump: &[String]) -> impl Iterator<Item = BTreeMap<&str, &str>> {
    dump.iter().filter(|line| line.starts_with("baseOffset:")).map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.windows(2).filter_map(|pair| Some((pair[0].strip_suffix(':')?, pair[1]))).collect()
    })
}

fn partitions_of(data: &Path, topic: &str) -> Vec<PathBuf> {
    fs::read_dir(data)
        .expect("the data directory")
        .map(|entry| entry.expect("reading a directory").path())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.rsplit_once('-').is_some_and(|(found, _)| found == topic)
        })
        .collect()
}
