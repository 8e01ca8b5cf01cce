//! COMPAT.md is written from the API table and from the versions of the clients that `tests/interop` runs, so it cannot
//! say what is not so. `REWRITE=1 cargo test --test compat` rewrites it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use kafka_protocol::messages::{ApiKey, RequestKind};
use ringlane::api::APIS;
use ringlane::wire::DecodeError;
use ringlane::wire::offsets::{self, TOPIC_IDS_SINCE};

/// What Apache Kafka 4.3 serves to clients: key, name, versions. Its brokers' and controllers' own requests are left out.
const KAFKA: &[(i16, &str, i16, i16)] = &[
    (0, "Produce", 3, 13),
    (1, "Fetch", 4, 18),
    (2, "ListOffsets", 1, 11),
    (3, "Metadata", 0, 13),
    (8, "OffsetCommit", 2, 10),
    (9, "OffsetFetch", 1, 10),
    (10, "FindCoordinator", 0, 6),
    (11, "JoinGroup", 0, 9),
    (12, "Heartbeat", 0, 4),
    (13, "LeaveGroup", 0, 5),
    (14, "SyncGroup", 0, 5),
    (15, "DescribeGroups", 0, 6),
    (16, "ListGroups", 0, 5),
    (17, "SaslHandshake", 0, 1),
    (18, "ApiVersions", 0, 5),
    (19, "CreateTopics", 2, 7),
    (20, "DeleteTopics", 1, 6),
    (21, "DeleteRecords", 0, 2),
    (22, "InitProducerId", 0, 6),
    (23, "OffsetForLeaderEpoch", 2, 4),
    (24, "AddPartitionsToTxn", 0, 5),
    (25, "AddOffsetsToTxn", 0, 4),
    (26, "EndTxn", 0, 5),
    (27, "WriteTxnMarkers", 1, 2),
    (28, "TxnOffsetCommit", 0, 5),
    (29, "DescribeAcls", 1, 3),
    (30, "CreateAcls", 1, 3),
    (31, "DeleteAcls", 1, 3),
    (32, "DescribeConfigs", 1, 4),
    (33, "AlterConfigs", 0, 2),
    (34, "AlterReplicaLogDirs", 1, 2),
    (35, "DescribeLogDirs", 1, 5),
    (36, "SaslAuthenticate", 0, 2),
    (37, "CreatePartitions", 0, 3),
    (38, "CreateDelegationToken", 1, 3),
    (39, "RenewDelegationToken", 1, 2),
    (40, "ExpireDelegationToken", 1, 2),
    (41, "DescribeDelegationToken", 1, 3),
    (42, "DeleteGroups", 0, 2),
    (43, "ElectLeaders", 0, 2),
    (44, "IncrementalAlterConfigs", 0, 1),
    (45, "AlterPartitionReassignments", 0, 1),
    (46, "ListPartitionReassignments", 0, 0),
    (47, "OffsetDelete", 0, 0),
    (48, "DescribeClientQuotas", 0, 1),
    (49, "AlterClientQuotas", 0, 1),
    (50, "DescribeUserScramCredentials", 0, 0),
    (51, "AlterUserScramCredentials", 0, 0),
    (55, "DescribeQuorum", 0, 2),
    (57, "UpdateFeatures", 0, 2),
    (60, "DescribeCluster", 0, 2),
    (61, "DescribeProducers", 0, 0),
    (65, "DescribeTransactions", 0, 0),
    (66, "ListTransactions", 0, 2),
    (68, "ConsumerGroupHeartbeat", 0, 1),
    (69, "ConsumerGroupDescribe", 0, 1),
    (71, "GetTelemetrySubscriptions", 0, 0),
    (72, "PushTelemetry", 0, 0),
    (74, "ListConfigResources", 0, 1),
    (75, "DescribeTopicPartitions", 0, 0),
    (76, "ShareGroupHeartbeat", 1, 1),
    (77, "ShareGroupDescribe", 1, 1),
    (78, "ShareFetch", 1, 2),
    (79, "ShareAcknowledge", 1, 2),
    (88, "StreamsGroupHeartbeat", 0, 0),
    (89, "StreamsGroupDescribe", 0, 0),
];

/// What a served API does not do.
const LIMITS: &[(i16, &str)] = &[
    (
        0,
        "offered from 0 on, for old librdkafka; `compression.type` as Kafka; lz4 has one speed, whatever `compression.lz4.level`",
    ),
    (3, "each core is a broker with a node id and a port of its own"),
    (19, "replication factor 1: one host has one replica of each partition"),
    (22, "idempotent producers; transactional ones are refused"),
    (29, "SECURITY_DISABLED, as there is no authorizer"),
    (30, "SECURITY_DISABLED"),
    (31, "SECURITY_DISABLED"),
    (34, "there is one log directory"),
    (43, "ELECTION_NOT_NEEDED"),
    (45, "partitions change cores only at a start with another number of cores"),
    (46, "none is ever under way"),
    (48, "there are no quotas"),
    (50, "nobody has credentials"),
    (55, "the process is its own quorum"),
];

/// Client, and where `tests/interop` says its version: file, and what precedes the version there.
const CLIENTS: &[(&str, &str, &str)] = &[
    ("Apache Kafka `kafka-clients` (Java), its tools, Streams and Connect", "java/pom.xml", "<kafka>"),
    ("the same, older (client only)", "harness/install.rs", "JAVA_3_7: &str = \""),
    ("the same, older (client only)", "harness/install.rs", "JAVA_2_8: &str = \""),
    ("librdkafka, as `confluent-kafka` for Python", "python/requirements.txt", "confluent-kafka=="),
    ("kafka-python", "python/requirements.txt", "kafka-python=="),
    ("aiokafka", "python/requirements.txt", "aiokafka=="),
    ("franz-go", "go/go.mod", "github.com/twmb/franz-go v"),
    ("kafkajs", "node/package.json", "\"kafkajs\": \""),
];

fn compat() -> String {
    let served: BTreeMap<i16, (i16, i16)> = APIS.iter().map(|api| (api.key as i16, api.versions)).collect();
    let versions = |(min, max): (i16, i16)| if min == max { format!("{min}") } else { format!("{min}-{max}") };
    let mut text = String::from(
        "# What is served\n\n\
         Written by `tests/compat.rs` from the table in `src/api/table.rs`: `REWRITE=1 cargo test --test compat`.\n\
         A version that is not listed is refused; ApiVersions says so to the client.\n\n\
         | key | API | versions here | Apache Kafka 4.3 | |\n|---:|---|---|---|---|\n",
    );
    for (key, name, min, max) in KAFKA.iter().filter(|row| served.contains_key(&row.0)) {
        let limit = LIMITS.iter().find(|(of, _)| of == key).map_or("", |(_, limit)| limit);
        let here = versions(served[key]);
        writeln!(text, "| {key} | {name} | {here} | {} | {limit} |", versions((*min, *max))).unwrap();
    }
    let missing = KAFKA.iter().filter(|row| !served.contains_key(&row.0)).map(|row| row.1).collect::<Vec<_>>();
    writeln!(text, "\nNot served: {}.", missing.join(", ")).unwrap();
    text.push_str(
        "\n# Clients that are tested\n\nUnmodified, by `tests/interop`:\n\n| client | version |\n|---|---|\n",
    );
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
    for (client, file, before) in CLIENTS {
        let content = std::fs::read_to_string(root.join(file)).unwrap();
        let (_, after) = content.split_once(before).unwrap_or_else(|| panic!("{file} does not say {before}"));
        let version: String = after.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '.').collect();
        writeln!(text, "| {client} | {version} |").unwrap();
    }
    text.push_str("| kcat | as installed |\n");
    text
}

#[test]
fn compat_md_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("COMPAT.md");
    let text = compat();
    if std::env::var_os("REWRITE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == text, "COMPAT.md is out of date: REWRITE=1 cargo test --test compat");
}

#[test]
fn what_is_served_is_what_kafka_serves() {
    let mut last = -1;
    for api in APIS {
        let key = api.key as i16;
        assert!(key > last, "the table goes by key: {key} after {last}");
        last = key;
        let row = KAFKA.iter().find(|row| row.0 == key).unwrap_or_else(|| panic!("Kafka 4.3 has no API {key}"));
        assert_eq!(format!("{:?}", api.key), row.1);
        assert!(row.2 <= api.versions.0 && api.versions.1 <= row.3, "{}: {:?}", row.1, api.versions);
    }
}

/// OffsetCommit and OffsetFetch 10 were offered though the codec ends at 9: a Java client that asked so was cut off.
#[test]
fn every_version_offered_can_be_decoded() {
    for api in APIS {
        for version in api.versions() {
            // An empty body is malformed, but must not be so for its version.
            let decoded = match (api.key, version) {
                (ApiKey::OffsetCommit, TOPIC_IDS_SINCE..) => offsets::commit_request(&[], version).err(),
                (ApiKey::OffsetFetch, TOPIC_IDS_SINCE..) => offsets::fetch_request(&[], version).err(),
                // The codec knows one version less of these: what the last one has is read and written as the one before.
                (ApiKey::ListOffsets, 11) | (ApiKey::DescribeLogDirs, 5) => continue,
                (key, _) => {
                    let decoded = RequestKind::decode(key, &mut bytes::Bytes::new(), version);
                    let message = decoded.map_or_else(|error| error.to_string(), |_| String::new());
                    assert!(!message.contains("not supported"), "{key:?} version {version}: {message}");
                    continue;
                }
            };
            assert!(matches!(decoded, Some(DecodeError::Missing(_))), "{:?} version {version}: {decoded:?}", api.key);
        }
    }
}
