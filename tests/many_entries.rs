//! Requests with very many entries, or with the same one very many times, against the broker's own process under a limit on
//! its memory: no more is told than there is, and what a request costs grows with its size, not with its square.

use std::time::Duration;

use bytes::Bytes;
use client::Client;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use ringlane::wire::ErrorCode;
use ringlane::wire::record::{BatchBuilder, BatchFields};
use server::Server;

#[allow(dead_code)]
#[path = "support/client.rs"]
mod client;
#[path = "support/server.rs"]
mod server;

/// Address space that the broker may use.
const ADDRESS_SPACE: &str = "--as=1073741824";
/// Resident memory above which a request has been paid for with more than it was worth (MiB).
const RESIDENT_MIB_MAX: u64 = 300;
/// What the broker, built for tests, may compute for one request (seconds).
const CPU_SECONDS_MAX: f64 = 20.0;
const MANY: usize = 200_000;
const TOPIC: &str = "t";
const GROUP: &str = "g";
const BROKER: i8 = 4;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn topic_name() -> TopicName {
    TopicName(text(TOPIC))
}

/// A broker with a topic and a coordinator.
fn start(settings: &[&str]) -> (Server, Client) {
    let server = Server::start(&["prlimit", ADDRESS_SPACE, env!("CARGO_BIN_EXE_ringlane")], settings);
    let mut client = Client::connect(server.address);
    let topic = CreatableTopic::default().with_name(topic_name()).with_num_partitions(1).with_replication_factor(1);
    let created = client.call(5, &CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(60_000));
    assert_eq!(created.topics[0].error_code, 0);
    let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(GROUP)]);
    while client.call(4, &find).coordinators[0].error_code != 0
        || client.call(4, &ListGroupsRequest::default()).error_code != 0
    {
        std::thread::sleep(Duration::from_millis(20));
    }
    (server, client)
}

/// The broker lives, serves others, and is as small as before.
fn check(server: &Server, after: &str) {
    let served = Client::connect(server.address).call(0, &ApiVersionsRequest::default());
    assert_eq!(served.error_code, 0, "after {after}");
    let resident = server.resident_mib();
    assert!(resident < RESIDENT_MIB_MAX, "{resident} MiB resident after {after}");
}

#[test]
fn offsets_asked_for_again_and_again() {
    let (server, mut client) = start(&[]);
    let partition = OffsetCommitRequestPartition::default().with_committed_metadata(Some(text(&"m".repeat(4_000))));
    let topic = OffsetCommitRequestTopic::default().with_name(topic_name()).with_partitions(vec![partition]);
    let commit = OffsetCommitRequest::default().with_group_id(GroupId(text(GROUP))).with_topics(vec![topic]);
    assert_eq!(client.call(7, &commit.with_generation_id_or_member_epoch(-1)).topics[0].partitions[0].error_code, 0);

    let topic = OffsetFetchRequestTopic::default().with_name(topic_name()).with_partition_indexes(vec![0; MANY]);
    let fetch = OffsetFetchRequest::default().with_group_id(GroupId(text(GROUP))).with_topics(Some(vec![topic]));
    assert_eq!(client.call(7, &fetch).topics[0].partitions.len(), 1);
    check(&server, "one partition again and again");

    let topic = OffsetFetchRequestTopics::default().with_name(topic_name()).with_partition_indexes(vec![0]);
    let group = OffsetFetchRequestGroup::default().with_group_id(GroupId(text(GROUP)));
    let topics = group.clone().with_topics(Some(vec![topic; MANY / 2]));
    let fetched = client.call(8, &OffsetFetchRequest::default().with_groups(vec![topics]));
    assert_eq!(fetched.groups[0].topics.iter().map(|topic| topic.partitions.len()).sum::<usize>(), 1);
    check(&server, "one topic again and again");

    let fetch = OffsetFetchRequest::default().with_groups(vec![group.with_topics(None); MANY]);
    assert_eq!(client.call(8, &fetch).groups.len(), 1);
    check(&server, "one group again and again");
}

#[test]
fn a_group_described_again_and_again() {
    const MEMBERS: usize = 100;
    let (server, mut client) = start(&[]);
    let protocol =
        JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(Bytes::from(vec![0; 100]));
    let join = JoinGroupRequest::default()
        .with_group_id(GroupId(text(GROUP)))
        .with_session_timeout_ms(300_000)
        .with_rebalance_timeout_ms(300_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    (0..MEMBERS).for_each(|_| client.send(3, &join));
    let mut other = Client::connect(server.address);
    let describe = |count| DescribeGroupsRequest::default().with_groups(vec![GroupId(text(GROUP)); count]);
    while other.call(1, &describe(1)).groups[0].members.len() < MEMBERS {
        std::thread::sleep(Duration::from_millis(20));
    }
    let described = other.call(1, &describe(MANY));
    assert_eq!((described.groups.len(), described.groups[0].members.len()), (1, MEMBERS));
    check(&server, "one group again and again");
}

#[test]
fn producers_described_again_and_again() {
    const PRODUCERS: i64 = 100;
    let (server, mut client) = start(&[]);
    for producer_id in 0..PRODUCERS {
        let mut batch = Vec::new();
        let fields = BatchFields { producer_id, producer_epoch: 0, base_sequence: 0, ..BatchFields::default() };
        let mut builder = BatchBuilder::new(&mut batch, fields);
        builder.push(1, None, Some(b"value"), &[]);
        builder.finish();
        let partition = PartitionProduceData::default().with_records(Some(batch.into()));
        let topic = TopicProduceData::default().with_name(topic_name()).with_partition_data(vec![partition]);
        let produce = ProduceRequest::default().with_acks(1).with_timeout_ms(30_000).with_topic_data(vec![topic]);
        assert_eq!(client.call(8, &produce).responses[0].partition_responses[0].error_code, 0);
    }
    let topic = TopicRequest::default().with_name(topic_name()).with_partition_indexes(vec![0; MANY]);
    let described = client.call(0, &DescribeProducersRequest::default().with_topics(vec![topic]));
    let partitions = &described.topics[0].partitions;
    assert_eq!((partitions.len(), partitions[0].active_producers.len()), (1, PRODUCERS as usize));
    check(&server, "one partition again and again");
}

/// A created topic is told with all its settings, some three kilobytes in memory for a topic that took ten bytes to ask for.
#[test]
fn as_many_topics_as_a_request_may_create() {
    let (server, mut client) = start(&[]);
    let topic = |i: usize| {
        let retention = CreatableTopicConfig::default().with_name(text("retention.ms")).with_value(Some(text("1000")));
        let topic = CreatableTopic::default().with_name(TopicName(text(&format!("n{i}")))).with_num_partitions(1);
        topic.with_replication_factor(1).with_configs(vec![retention])
    };
    let request = CreateTopicsRequest::default().with_topics((0..60_000).map(topic).collect());
    let before = server.cpu_seconds();
    let created = client.call(5, &request.with_timeout_ms(60_000));
    let took = server.cpu_seconds() - before;
    assert!(created.topics.iter().all(|topic| topic.error_code == 0), "all are created");
    let told = |topic: &create_topics_response::CreatableTopicResult| match &topic.configs {
        Some(configs) => !configs.is_empty() && topic.topic_config_error_code == 0,
        None => topic.topic_config_error_code == ErrorCode::InvalidRequest.code(),
    };
    assert!(created.topics.iter().all(told), "settings, or why there are none");
    assert!(created.topics[0].configs.is_some() && created.topics[59_999].configs.is_none());
    assert!(took < CPU_SECONDS_MAX, "{took} s");
    check(&server, "very many topics");
}

#[test]
fn the_cost_of_a_request_grows_with_its_size() {
    // More partitions than a request may create, so that only the request itself costs something.
    let (server, mut client) = start(&["num.partitions=200000"]);
    let mut measure = |what: &str, call: &mut dyn FnMut(&mut Client)| {
        let before = server.cpu_seconds();
        call(&mut client);
        let took = server.cpu_seconds() - before;
        assert!(took < CPU_SECONDS_MAX, "{what}: {took} s");
    };
    measure("Metadata", &mut |client| {
        let topic = |i| MetadataRequestTopic::default().with_name(Some(TopicName(text(&format!("n{i}")))));
        let request = MetadataRequest::default().with_topics(Some((0..MANY).map(topic).collect()));
        assert_eq!(client.call(4, &request.with_allow_auto_topic_creation(true)).topics.len(), MANY);
    });
    measure("DescribeConfigs", &mut |client| {
        let names = (0..MANY).map(|i| text(&format!("key{i}"))).collect();
        let broker = DescribeConfigsResource::default().with_resource_type(BROKER).with_resource_name(text("1"));
        let broker = broker.with_configuration_keys(Some(names));
        assert_eq!(client.call(1, &DescribeConfigsRequest::default().with_resources(vec![broker])).results.len(), 1);
    });
    for operation in [2, 3] {
        measure("IncrementalAlterConfigs", &mut |client| {
            // As many as a string of the protocol can hold.
            let values: Vec<String> = (0..6_000).map(|i| i.to_string()).collect();
            let config = AlterableConfig::default().with_name(text("cleanup.policy")).with_config_operation(operation);
            let config = config.with_value(Some(text(&values.join(","))));
            let topic = |i: i32| {
                let topic = AlterConfigsResource::default().with_resource_type(2);
                topic.with_resource_name(text(&format!("n{i}"))).with_configs(vec![config.clone()])
            };
            let request = IncrementalAlterConfigsRequest::default().with_resources((0..500).map(topic).collect());
            assert_eq!(client.call(1, &request).responses.len(), 500);
        });
    }
    measure("ListGroups", &mut |client| {
        for i in 0..1_000 {
            let topic = OffsetCommitRequestTopic::default().with_name(topic_name());
            let topic = topic.with_partitions(vec![OffsetCommitRequestPartition::default()]);
            let group = OffsetCommitRequest::default().with_group_id(GroupId(text(&format!("g{i}"))));
            let commit = group.with_generation_id_or_member_epoch(-1).with_topics(vec![topic]);
            assert_eq!(client.call(7, &commit).topics[0].partitions[0].error_code, 0);
        }
        let states = (0..MANY).map(|i| text(&format!("state {i}"))).collect();
        assert!(client.call(4, &ListGroupsRequest::default().with_states_filter(states)).groups.is_empty());
    });
    check(&server, "requests with very many entries");
}
