//! Requests that are refused, by API: the error codes are Apache Kafka's (`INTEROP_BROKER=apache-kafka` proves the table).

use std::net::SocketAddr;

use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig as WholeConfig};
use kafka_protocol::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource as Resource, AlterableConfig as Config,
};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use ringlane::wire::record::{BatchBuilder, BatchFields};
use uuid::Uuid;

use crate::harness::broker::{Broker, Kind};
use crate::harness::client::java;
use crate::harness::eventually;
use crate::raw::Client;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// What was asked, and the code of the answer.
type Codes = Vec<(String, i16)>;

fn string(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_string())
}

fn name(text: &str) -> TopicName {
    TopicName(string(text))
}

/// A topic of one partition, and a connection to its leader.
fn topic(client: &mut Client, topic: &str, configs: &[(&str, &str)]) -> Client {
    let config = |(key, value): &(&str, &str)| {
        CreatableTopicConfig::default().with_name(string(key)).with_value(Some(string(value)))
    };
    let wanted = CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(configs.iter().map(config).collect());
    let request = CreateTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(30_000);
    assert_eq!(client.call(5, &request).topics[0].error_code, 0);
    let asked = metadata_request::MetadataRequestTopic::default().with_name(Some(name(topic)));
    let request = MetadataRequest::default().with_topics(Some(vec![asked]));
    let mut leader: Option<SocketAddr> = None;
    eventually("a leader", || {
        let reply = client.call(9, &request);
        let found = reply.topics[0].partitions.first().map(|p| p.leader_id);
        let node = reply.brokers.iter().find(|b| Some(b.node_id) == found);
        leader = node.map(|b| format!("{}:{}", &*b.host, b.port).parse().expect("an address"));
        leader.is_some()
    });
    Client::connect(leader.expect("found"))
}

#[test]
fn create_topics() {
    let Some(broker) = start() else { return };
    let mut client = connect(&broker);
    topic(&mut client, "there", &[]);
    topic(&mut client, "under_score", &[]);
    let plain = |topic: &str, partitions: i32, replicas: i16| {
        CreatableTopic::default()
            .with_name(name(topic))
            .with_num_partitions(partitions)
            .with_replication_factor(replicas)
    };
    let config = |key: &str, value: Option<&str>| {
        let config = CreatableTopicConfig::default().with_name(string(key)).with_value(value.map(string));
        plain("configured", 1, 1).with_configs(vec![config])
    };
    let assigned = |partitions: i32, assignments: &[(i32, &[i32])]| {
        let assignment = |(partition, nodes): &(i32, &[i32])| {
            let nodes = nodes.iter().map(|node| BrokerId(*node)).collect();
            CreatableReplicaAssignment::default().with_partition_index(*partition).with_broker_ids(nodes)
        };
        plain("assigned", partitions, partitions as i16).with_assignments(assignments.iter().map(assignment).collect())
    };
    let cases = [
        ("a name of nothing", plain("", 1, 1), 17),
        ("a name of one dot", plain(".", 1, 1), 17),
        ("a name of two dots", plain("..", 1, 1), 17),
        ("a name with a space", plain("a b", 1, 1), 17),
        ("a name too long", plain(&"x".repeat(250), 1, 1), 17),
        ("the longest name", plain(&"x".repeat(249), 1, 1), 0),
        ("a name that collides", plain("under.score", 1, 1), 17),
        ("a name that is taken", plain("there", 1, 1), 36),
        ("no partitions", plain("t", 0, 1), 37),
        ("-2 partitions", plain("t", -2, 1), 37),
        ("defaults", plain("t", -1, -1), 0),
        ("no replicas", plain("t", 1, 0), 38),
        ("-2 replicas", plain("t", 1, -2), 38),
        ("more replicas than brokers", plain("t", 1, 100), 38),
        ("an unknown config", config("no.such.key", Some("1")), 40),
        ("a config that is no number", config("retention.ms", Some("long")), 40),
        ("a config out of range", config("segment.bytes", Some("1")), 40),
        ("a config that is null", config("retention.ms", None), 40),
        ("assignments and a count", assigned(1, &[(0, &[1])]), 42),
        ("assigned to an unknown broker", assigned(-1, &[(0, &[77])]), 39),
        ("assigned with a gap", assigned(-1, &[(1, &[1])]), 39),
        ("assigned twice to a broker", assigned(-1, &[(0, &[1, 1])]), 39),
        ("assigned to nobody", assigned(-1, &[(0, &[])]), 39),
        ("assigned", assigned(-1, &[(0, &[1])]), 0),
    ];
    let mut codes = Codes::new();
    for (what, topic, _) in &cases {
        let request = CreateTopicsRequest::default().with_topics(vec![topic.clone()]).with_validate_only(true);
        let reply = client.call(5, &request.with_timeout_ms(30_000));
        codes.push((what.to_string(), reply.topics[0].error_code));
    }
    let mut expected: Vec<_> = cases.iter().map(|(what, _, code)| (what.to_string(), *code)).collect();
    let twice = CreateTopicsRequest::default().with_topics(vec![
        plain("twice", 1, 1),
        plain("twice", 1, 1),
        plain("once", 1, 1),
    ]);
    let mut reply = client.call(5, &twice.with_validate_only(true).with_timeout_ms(30_000)).topics;
    reply.sort_by_key(|topic| topic.name.to_string());
    codes.extend(reply.iter().map(|topic| (format!("beside {}", &*topic.name), topic.error_code)));
    expected.extend([("beside once".to_string(), 0), ("beside twice".to_string(), 42)]);
    assert_eq!(codes, expected);
}

#[test]
fn partitions_topics_and_records() {
    let Some(broker) = start() else { return };
    let mut client = connect(&broker);
    let mut leader = topic(&mut client, "there", &[]);
    let mut compacted = topic(&mut client, "compacted", &[("cleanup.policy", "compact")]);
    let mut codes = Codes::new();

    let more = |topic: &str, count: i32, assignments: Option<Vec<Vec<i32>>>| {
        let assignment = |nodes: Vec<i32>| {
            CreatePartitionsAssignment::default().with_broker_ids(nodes.into_iter().map(BrokerId).collect())
        };
        let assignments = assignments.map(|all| all.into_iter().map(assignment).collect());
        CreatePartitionsTopic::default().with_name(name(topic)).with_count(count).with_assignments(assignments)
    };
    for (what, topics) in [
        ("more of what is not there", vec![more("nowhere", 3, None)]),
        ("as many", vec![more("there", 1, None)]),
        ("fewer", vec![more("there", 0, None)]),
        ("more, twice", vec![more("there", 3, None), more("there", 3, None)]),
        ("more, assigned to too few", vec![more("there", 3, Some(vec![vec![1]]))]),
        ("more, assigned to an unknown broker", vec![more("there", 2, Some(vec![vec![77]]))]),
        ("more", vec![more("there", 2, None)]),
    ] {
        let request = CreatePartitionsRequest::default().with_topics(topics).with_validate_only(true);
        let reply = client.call(1, &request.with_timeout_ms(30_000));
        codes.push((what.to_string(), reply.results[0].error_code));
    }

    let request = DeleteTopicsRequest::default().with_topic_names(vec![name("nowhere")]).with_timeout_ms(30_000);
    codes.push(("deleted by name".into(), client.call(5, &request).responses[0].error_code));
    let unknown = DeleteTopicState::default().with_topic_id(Uuid::from_u128(77));
    let request = DeleteTopicsRequest::default().with_topics(vec![unknown]).with_timeout_ms(30_000);
    codes.push(("deleted by id".into(), client.call(6, &request).responses[0].error_code));

    let mut delete = |client: &mut Client, what: &str, topic: &str, partition: i32, offset: i64| {
        let asked = DeleteRecordsPartition::default().with_partition_index(partition).with_offset(offset);
        let topic = DeleteRecordsTopic::default().with_name(name(topic)).with_partitions(vec![asked]);
        let reply = client.call(1, &DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000));
        codes.push((what.to_string(), reply.topics[0].partitions[0].error_code));
    };
    delete(&mut leader, "records of no topic", "nowhere", 0, 0);
    delete(&mut leader, "records of no partition", "there", 9, 0);
    delete(&mut leader, "records beyond the end", "there", 0, 5);
    delete(&mut leader, "records up to -2", "there", 0, -2);
    delete(&mut leader, "all records", "there", 0, -1);
    delete(&mut compacted, "records of a compacted topic", "compacted", 0, 0);
    let expected = [
        ("more of what is not there", 3),
        ("as many", 37),
        ("fewer", 37),
        ("more, twice", 42),
        ("more, assigned to too few", 39),
        ("more, assigned to an unknown broker", 39),
        ("more", 0),
        ("deleted by name", 3),
        ("deleted by id", 100),
        ("records of no topic", 3),
        ("records of no partition", 3),
        ("records beyond the end", 1),
        ("records up to -2", 1),
        ("all records", 0),
        ("records of a compacted topic", 44),
    ];
    assert_eq!(codes, expected.map(|(what, code)| (what.to_string(), code)));
}

#[test]
fn configs() {
    let Some(broker) = start() else { return };
    let mut client = connect(&broker);
    topic(&mut client, "there", &[]);
    let one = |kind: i8, of: &str, key: &str, operation: i8, value: Option<&str>| {
        let config =
            Config::default().with_name(string(key)).with_config_operation(operation).with_value(value.map(string));
        Resource::default().with_resource_type(kind).with_resource_name(string(of)).with_configs(vec![config])
    };
    let (set, delete, append, subtract) = (0, 1, 2, 3);
    let good = one(TOPIC, "there", "retention.ms", set, Some("1000"));
    let mut key_twice = good.clone();
    key_twice.configs.extend(good.configs.clone());
    let mut codes = Codes::new();
    for (what, resources) in [
        ("an unknown key", vec![one(TOPIC, "there", "no.such.key", set, Some("1"))]),
        ("no number", vec![one(TOPIC, "there", "retention.ms", set, Some("long"))]),
        ("out of range", vec![one(TOPIC, "there", "segment.bytes", set, Some("1"))]),
        ("no such value", vec![one(TOPIC, "there", "cleanup.policy", set, Some("burn"))]),
        ("appended to what is no list", vec![one(TOPIC, "there", "retention.ms", append, Some("1"))]),
        ("subtracted from what is no list", vec![one(TOPIC, "there", "retention.ms", subtract, Some("1"))]),
        ("appended", vec![one(TOPIC, "there", "cleanup.policy", append, Some("compact"))]),
        ("null", vec![one(TOPIC, "there", "retention.ms", set, None)]),
        ("deleted what was never set", vec![one(TOPIC, "there", "retention.ms", delete, None)]),
        ("of no topic", vec![one(TOPIC, "nowhere", "retention.ms", set, Some("1"))]),
        ("of no topic, and no number", vec![one(TOPIC, "nowhere", "retention.ms", set, Some("long"))]),
        ("of a topic without a name", vec![one(TOPIC, "", "retention.ms", set, Some("1"))]),
        ("a key twice", vec![key_twice]),
        ("a resource twice", vec![good.clone(), good.clone()]),
        ("of an unknown broker", vec![one(BROKER, "77", "log.cleaner.threads", set, Some("1"))]),
        ("of a broker with a name", vec![one(BROKER, "x", "log.cleaner.threads", set, Some("1"))]),
        ("of a broker, fixed", vec![one(BROKER, "", "log.dirs", set, Some("/tmp"))]),
        ("of an unknown kind", vec![one(77, "there", "retention.ms", set, Some("1"))]),
        ("good", vec![good]),
    ] {
        let request = IncrementalAlterConfigsRequest::default().with_resources(resources).with_validate_only(true);
        codes.push((what.to_string(), client.call(0, &request).responses[0].error_code));
    }
    for (what, of, key, value) in [
        ("whole: an unknown key", "there", "no.such.key", Some("1")),
        ("whole: null", "there", "retention.ms", None),
        ("whole: of no topic", "nowhere", "retention.ms", Some("1")),
        ("whole: good", "there", "retention.ms", Some("1000")),
    ] {
        let config = WholeConfig::default().with_name(string(key)).with_value(value.map(string));
        let resource = AlterConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(string(of))
            .with_configs(vec![config]);
        let request = AlterConfigsRequest::default().with_resources(vec![resource]).with_validate_only(true);
        codes.push((what.to_string(), client.call(1, &request).responses[0].error_code));
    }
    for (what, kind, of, key) in [
        ("describe an unknown key", TOPIC, "there", Some("no.such.key")),
        ("describe no topic", TOPIC, "nowhere", None),
        ("describe a name that is none", TOPIC, "a b", None),
        ("describe an unknown broker", BROKER, "77", None),
        ("describe a broker with a name", BROKER, "x", None),
        ("describe an unknown kind", 77, "there", None),
    ] {
        let resource = DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(string(of))
            .with_configuration_keys(key.map(|key| vec![string(key)]));
        let reply = client.call(3, &DescribeConfigsRequest::default().with_resources(vec![resource]));
        assert!(reply.results[0].configs.is_empty(), "{what}");
        codes.push((what.to_string(), reply.results[0].error_code));
    }
    let expected = [
        ("an unknown key", 40),
        ("no number", 40),
        ("out of range", 40),
        ("no such value", 40),
        ("appended to what is no list", 40),
        ("subtracted from what is no list", 40),
        ("appended", 0),
        ("null", 42),
        ("deleted what was never set", 0),
        ("of no topic", 3),
        ("of no topic, and no number", 40),
        ("of a topic without a name", 42),
        ("a key twice", 42),
        ("a resource twice", 42),
        ("of an unknown broker", 42),
        ("of a broker with a name", 42),
        ("of a broker, fixed", 42),
        ("of an unknown kind", 42),
        ("good", 0),
        ("whole: an unknown key", 40),
        ("whole: null", 42),
        ("whole: of no topic", 3),
        ("whole: good", 0),
        ("describe an unknown key", 0),
        ("describe no topic", 3),
        ("describe a name that is none", 17),
        ("describe an unknown broker", 42),
        ("describe a broker with a name", 42),
        ("describe an unknown kind", 42),
    ];
    assert_eq!(codes, expected.map(|(what, code)| (what.to_string(), code)));
}

#[test]
fn data() {
    let Some(broker) = start() else { return };
    let mut client = connect(&broker);
    let mut leader = topic(&mut client, "there", &[]);
    let mut codes = Codes::new();

    for (version, timestamp) in
        [(6, -3), (7, -3), (7, -4), (8, -4), (8, -5), (9, -5), (9, -6), (10, -7), (10, -1), (10, -2), (10, 0)]
    {
        let asked = ListOffsetsPartition::default().with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default().with_name(name("there")).with_partitions(vec![asked]);
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let code = leader.call(version, &request).topics[0].partitions[0].error_code;
        codes.push((format!("offset for {timestamp} in v{version}"), code));
    }
    for (what, partition, epoch) in
        [("an unknown partition", 9, -1), ("a future epoch", 0, 99), ("an epoch of -2", 0, -2)]
    {
        let asked = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_timestamp(-1)
            .with_current_leader_epoch(epoch);
        let topic = ListOffsetsTopic::default().with_name(name("there")).with_partitions(vec![asked]);
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        codes.push((format!("offset for {what}"), leader.call(9, &request).topics[0].partitions[0].error_code));
    }

    let mut batch = Vec::new();
    let mut builder = BatchBuilder::new(&mut batch, BatchFields::default());
    builder.push(1_700_000_000_000, Some(b"key"), Some(b"value"), &[]);
    builder.finish();
    let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![string("group")]);
    eventually("the groups' topic", || leader.call(4, &find).coordinators[0].error_code == 0);
    let mut moved = batch.clone();
    moved[7] = 5;
    for (what, topic, id, partition, acks, version) in [
        ("with a base offset", "there", 0, 0, 1, 9),
        ("to the groups' topic", "__consumer_offsets", 0, 0, 1, 9),
        ("to an unknown id", "", 77u128, 0, 1, 13),
        ("to an unknown name", "nowhere", 0, 0, 1, 9),
        ("to an unknown partition", "there", 0, 9, 1, 9),
        ("with acks=2", "there", 0, 0, 2, 9),
        ("to an unknown partition, with acks=2", "there", 0, 9, 2, 9),
        ("good", "there", 0, 0, 1, 9),
    ] {
        let batch = if what == "with a base offset" { &moved } else { &batch };
        let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch.clone().into()));
        let topic = TopicProduceData::default()
            .with_name(name(topic))
            .with_topic_id(Uuid::from_u128(id))
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default().with_acks(acks).with_timeout_ms(30_000).with_topic_data(vec![topic]);
        let reply = leader.call(version, &request);
        codes.push((format!("produce {what}"), reply.responses[0].partition_responses[0].error_code));
    }

    let fetch = |session: (i32, i32), topic: &str, id: u128, partition: FetchPartition| {
        let topic = FetchTopic::default()
            .with_topic(name(topic))
            .with_topic_id(Uuid::from_u128(id))
            .with_partitions(vec![partition.with_partition_max_bytes(1000)]);
        FetchRequest::default()
            .with_max_bytes(1000)
            .with_session_id(session.0)
            .with_session_epoch(session.1)
            .with_topics(vec![topic])
    };
    let from = |offset| FetchPartition::default().with_fetch_offset(offset);
    let opened = leader.call(12, &fetch((0, 0), "there", 0, from(0)));
    for (what, session) in [
        ("an unknown session", (77, 5)),
        ("session 0 in its epoch 3", (0, 3)),
        ("a session in a wrong epoch", (opened.session_id, 7)),
    ] {
        codes.push((format!("fetch of {what}"), leader.call(12, &fetch(session, "there", 0, from(0))).error_code));
    }
    for (what, topic, id, partition, version) in [
        ("beyond the end", "there", 0, from(99), 12),
        ("before the beginning", "there", 0, from(-1), 12),
        ("of an unknown topic", "nowhere", 0, from(0), 12),
        ("of an unknown id", "", 77, from(0), 13),
        ("of an unknown partition", "there", 0, from(0).with_partition(9), 12),
        ("in a future epoch", "there", 0, from(0).with_current_leader_epoch(99), 12),
        ("in no epoch", "there", 0, from(0).with_current_leader_epoch(-2), 12),
    ] {
        let reply = leader.call(version, &fetch((0, -1), topic, id, partition));
        codes.push((format!("fetch {what}"), reply.responses[0].partitions[0].error_code));
    }
    for (isolation_level, partition, aborted) in [(0, 0, None), (1, 0, Some(0)), (0, 9, Some(0)), (1, 9, Some(0))] {
        let asked = fetch((0, -1), "there", 0, from(0).with_partition(partition)).with_isolation_level(isolation_level);
        let reply = &leader.call(12, &asked).responses[0].partitions[0];
        let told = reply.aborted_transactions.as_ref().map(Vec::len);
        assert_eq!(told, aborted, "of partition {partition}, isolation level {isolation_level}");
    }
    let expected = [
        ("offset for -3 in v6", 35),
        ("offset for -3 in v7", 0),
        ("offset for -4 in v7", 35),
        ("offset for -4 in v8", 0),
        ("offset for -5 in v8", 35),
        ("offset for -5 in v9", 0),
        ("offset for -6 in v9", 35),
        ("offset for -7 in v10", 35),
        ("offset for -1 in v10", 0),
        ("offset for -2 in v10", 0),
        ("offset for 0 in v10", 0),
        ("offset for an unknown partition", 3),
        ("offset for a future epoch", 75),
        ("offset for an epoch of -2", 74),
        ("produce with a base offset", 87),
        ("produce to the groups' topic", 17),
        ("produce to an unknown id", 100),
        ("produce to an unknown name", 3),
        ("produce to an unknown partition", 3),
        ("produce with acks=2", 21),
        ("produce to an unknown partition, with acks=2", 3),
        ("produce good", 0),
        ("fetch of an unknown session", 70),
        ("fetch of session 0 in its epoch 3", 70),
        ("fetch of a session in a wrong epoch", 71),
        ("fetch beyond the end", 1),
        ("fetch before the beginning", 1),
        ("fetch of an unknown topic", 3),
        ("fetch of an unknown id", 100),
        ("fetch of an unknown partition", 3),
        ("fetch in a future epoch", 75),
        ("fetch in no epoch", 0),
    ];
    assert_eq!(codes, expected.map(|(what, code)| (what.to_string(), code)));
}

/// The broker under test. `None`: it is Apache Kafka, and this machine has no java.
fn start() -> Option<Broker> {
    if Kind::under_test() == Kind::ApacheKafka && java().is_none() {
        return None;
    }
    Some(Broker::start(&[("auto.create.topics.enable", "false")]))
}

fn connect(broker: &Broker) -> Client {
    Client::connect(broker.bootstrap().parse().expect("an address"))
}
