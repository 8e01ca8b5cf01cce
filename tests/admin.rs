//! The admin APIs in every version they are served in, against two brokers and the control thread's work, all in one
//! thread and without sockets: requests are encoded as a client does, replies decoded as a client does.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, HeaderVersion, Request as WireRequest, StrBytes};
use ringlane::api::{self, Context, Handler, Outcome, ReplyTo};
use ringlane::broker::Broker;
use ringlane::cluster::topics::wire_name;
use ringlane::config::{BrokerConfig, Settings};
use ringlane::control::files::Files;
use ringlane::control::{Control, Outputs, Setup, ShardAddress, random_id};
use ringlane::ids::{Now, ShardId, Waiter};
use ringlane::mailbox::{ControlAnswer, ToControl, ToShard};
use ringlane::parts::Reply;

const NOW: Now = Now { monotonic_ns: 1, wall_ms: 1_700_000_000_000 };

struct Cluster {
    control: Control,
    brokers: Vec<Broker>,
    disk: Files,
    _dir: tempfile::TempDir,
}

impl Cluster {
    fn start() -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = Files::new(dir.path().to_path_buf());
        let address = |i: u16| ShardAddress { host: "127.0.0.1".to_string(), port: 9092 + i };
        let setup = Setup {
            settings: Arc::new(Settings::default()),
            config: Arc::new(BrokerConfig::kafka_default()),
            shards: (0..2u16).map(address).collect(),
            new_id: Box::new(random_id),
        };
        let control = Control::open(&mut disk, setup, NOW).unwrap();
        let image = control.image();
        let mut brokers: Vec<_> = (0..2).map(|i| Broker::new(ShardId(i), &image, Arc::default())).collect();
        brokers.iter_mut().for_each(|broker| broker.apply_image(&mut disk, image.clone(), NOW));
        Cluster { control, brokers, disk, _dir: dir }
    }

    /// Sends a request to shard 0 and gives the decoded reply.
    fn call<R: WireRequest + HeaderVersion>(&mut self, request: &R, version: i16) -> R::Response
    where
        R::Response: HeaderVersion,
    {
        let mut body = Vec::new();
        request.encode(&mut body, version).unwrap();
        let row = api::find(R::KEY).unwrap();
        assert!(row.versions().contains(&version));
        let Handler::Plain(handle) = row.handler else { panic!("not a plain API") };
        let to = ReplyTo { waiter: Waiter(5), correlation_id: 77, api: R::KEY, version };
        let request = api::Request { to, client_id: "", body: &body };
        let mut outcome = self.with_context(|context| handle(context, &request));
        if let Outcome::Ask(asked, finish) = outcome {
            let answer = self.ask(ToControl::Ask { shard: ShardId(0), waiter: to.waiter, request: asked });
            outcome = self.with_context(|context| finish(context, to, answer));
        }
        let Outcome::Reply(Reply { bytes, .. }) = outcome else { panic!("API {} v{version}: no reply", R::KEY) };
        let mut rest = Bytes::from(bytes).slice(4..);
        let header = ResponseHeader::decode(&mut rest, R::Response::header_version(version)).unwrap();
        assert_eq!(header.correlation_id, 77);
        let response = R::Response::decode(&mut rest, version).unwrap();
        assert!(rest.is_empty(), "API {} v{version}: {} bytes left", R::KEY, rest.len());
        response
    }

    fn with_context<T>(&mut self, f: impl FnOnce(&mut Context<'_>) -> T) -> T {
        let peer = "127.0.0.1:1".parse().unwrap();
        f(&mut Context { broker: &mut self.brokers[0], disk: &mut self.disk, now: NOW, peer })
    }

    fn ask(&mut self, message: ToControl) -> ControlAnswer {
        let mut outputs = Outputs::new();
        self.control.handle(message, &mut outputs);
        self.control.commit(&mut self.disk, NOW, &mut outputs);
        for _ in 0..3 {
            let mut next = Outputs::new();
            for (shard, message) in outputs {
                match message {
                    ToShard::Image(image) => {
                        let epoch = image.epoch;
                        self.brokers[usize::from(shard.0)].apply_image(&mut self.disk, image, NOW);
                        self.control.handle(ToControl::Applied { shard, epoch }, &mut next);
                    }
                    ToShard::Answer { answer, .. } => return answer,
                    ToShard::Stop => unreachable!(),
                }
            }
            outputs = next;
        }
        panic!("no answer")
    }
}

fn versions(key: ApiKey) -> std::ops::RangeInclusive<i16> {
    api::find(key as i16).unwrap().versions()
}

fn topic(name: &str, partitions: i32) -> CreatableTopic {
    let config = CreatableTopicConfig::default().with_name("retention.ms".into()).with_value(Some("1234".into()));
    let topic = CreatableTopic::default().with_name(wire_name(name)).with_num_partitions(partitions);
    topic.with_replication_factor(1).with_configs(vec![config])
}

/// librdkafka 2.3 sent gzip, snappy and lz4 uncompressed, because Produce was not offered from version 0 on.
#[test]
fn what_is_offered() {
    let mut cluster = Cluster::start();
    for version in versions(ApiKey::ApiVersions) {
        let mut ask = |name: &'static str| {
            let request = ApiVersionsRequest::default().with_client_software_name(name.into());
            cluster.call(&request.with_client_software_version("1.0".into()), version)
        };
        let reply = ask("librdkafka");
        for api in api::APIS {
            let offered = reply.api_keys.iter().find(|offered| offered.api_key == api.key as i16).unwrap();
            let lowest = if api.key == ApiKey::Produce { 0 } else { api.versions.0 };
            assert_eq!((offered.min_version, offered.max_version), (lowest, api.versions.1));
        }
        for name in ["", "-kafka", "kafka.", "kaf ka"] {
            assert_eq!(ask(name).error_code, if version < 3 { 0 } else { 42 }, "{name:?}");
        }
    }
}

/// Every Java client from 3.5 to 3.8 died in its first ApiVersions reply: "Expected minValue >= 1, [...] but received
/// minValue: 0" (KAFKA-17492).
#[test]
fn features_that_begin_at_0_are_told_from_version_4_on() {
    let mut cluster = Cluster::start();
    let all = ["eligible.leader.replicas.version", "group.version", "metadata.version"];
    for (version, told) in [(3, &["metadata.version"][..]), (4, &all)] {
        let request = ApiVersionsRequest::default().with_client_software_name("apache-kafka-java".into());
        let reply = cluster.call(&request.with_client_software_version("3.7.1".into()), version);
        let supported: Vec<_> = reply.supported_features.iter().map(|feature| &*feature.name).collect();
        assert_eq!(supported, told, "v{version}");
        assert_eq!(reply.finalized_features.len(), all.len());
    }
}

/// sarama asks for a feature that nobody has and expects to be told so; the connection was closed. Codes and words are
/// those of Apache Kafka 4.3.
#[test]
fn features_go_up_and_down_in_every_version() {
    let mut cluster = Cluster::start();
    let update = |name: &'static str, level, kind| {
        let update = update_features_request::FeatureUpdateKey::default().with_feature(name.into());
        update.with_max_version_level(level).with_upgrade_type(kind)
    };
    let ask = |cluster: &mut Cluster, version, updates, look| {
        let request = UpdateFeaturesRequest::default().with_feature_updates(updates);
        cluster.call(&request.with_validate_only(look), version)
    };
    for version in versions(ApiKey::UpdateFeatures) {
        let kind = 1;
        let answer = ask(&mut cluster, version, vec![update("group.version", 1, kind)], false);
        assert_eq!((answer.error_code, answer.results.len()), (0, if version < 2 { 1 } else { 0 }));
        let answer = ask(&mut cluster, version, vec![update("group.version", 1, kind), update("x", 1, kind)], false);
        let text = "The update failed for all features since the following feature had an error: Invalid update version 1 for \
                    feature x. Local controller 1 does not support this feature.";
        assert_eq!((answer.error_code, answer.error_message.as_deref()), (95, Some(text)));
    }
    for (name, level, kind, reason) in [
        ("metadata.version", 99, 1, "only supports versions 7-27"),
        ("metadata.version", -1, 1, "A feature version cannot be less than 0."),
        ("metadata.version", 20, 1, "Can't downgrade the version of this feature without setting"),
        ("metadata.version", 20, 2, "Refusing to perform the requested downgrade"),
        ("metadata.version", 20, 3, "Unsafe metadata downgrade is not supported"),
        ("group.version", 1, 9, "does not support the given upgrade type"),
    ] {
        let answer = ask(&mut cluster, 2, vec![update(name, level, kind)], false);
        let text = answer.error_message.unwrap_or_default();
        assert!(answer.error_code == 95 && text.contains(reason), "{name} {level}: {text}");
    }
    let level = |cluster: &Cluster| cluster.brokers[1].image.features.get("group.version").copied();
    for (level_asked, kind, look, then) in [(0, 2, true, Some(1)), (0, 2, false, None), (1, 1, false, Some(1))] {
        assert_eq!(ask(&mut cluster, 1, vec![update("group.version", level_asked, kind)], look).error_code, 0);
        assert_eq!(level(&cluster), then);
        let request = ApiVersionsRequest::default().with_client_software_name("x".into());
        let reply = cluster.call(&request.with_client_software_version("1".into()), 4);
        assert!(reply.supported_features.iter().any(|f| &*f.name == "group.version" && f.max_version == 1));
    }
}

#[test]
fn topics_come_grow_and_go_in_every_version() {
    let mut cluster = Cluster::start();
    for version in versions(ApiKey::CreateTopics) {
        let topics = vec![topic(&format!("t{version}"), 2), topic("bad name", 1)];
        let response = cluster.call(&CreateTopicsRequest::default().with_topics(topics), version);
        let codes: Vec<i16> = response.topics.iter().map(|t| t.error_code).collect();
        assert_eq!(codes, [0, 17], "v{version}");
        assert_eq!(response.topics[0].error_message, None, "Kafka's null, which kafkajs's tests expect");
        if version >= 5 {
            // The Java admin client fails on null settings and on a source of -1, also of topics that failed.
            let configs = response.topics[0].configs.as_ref().unwrap();
            assert!(configs.len() > 30 && configs.iter().all(|c| c.config_source > 0));
            assert!(response.topics[1].configs.is_some());
            assert_eq!(response.topics[0].num_partitions, 2);
        }
    }
    for version in versions(ApiKey::CreatePartitions) {
        let count = 3 + i32::from(version);
        let topic = CreatePartitionsTopic::default().with_name(wire_name("t7")).with_count(count);
        let request = CreatePartitionsRequest::default().with_topics(vec![topic.with_assignments(None)]);
        assert_eq!(cluster.call(&request, version).results[0].error_code, 0);
        assert_eq!(cluster.brokers[1].image.topic("t7").unwrap().partitions.len(), count as usize);
    }
    for version in versions(ApiKey::DeleteTopics) {
        let name = wire_name(&format!("t{}", version + 1));
        let request = match version {
            ..6 => DeleteTopicsRequest::default().with_topic_names(vec![name.clone()]),
            _ => DeleteTopicsRequest::default()
                .with_topics(vec![DeleteTopicState::default().with_name(Some(name.clone()))]),
        };
        let exists = cluster.control.image().topic(&name).is_some();
        let code = cluster.call(&request, version).responses[0].error_code;
        assert_eq!(code, if exists { 0 } else { 3 }, "v{version}");
        assert!(cluster.brokers[1].image.topic(&name).is_none());
    }
}

#[test]
fn metadata_in_every_version() {
    let mut cluster = Cluster::start();
    cluster.call(&CreateTopicsRequest::default().with_topics(vec![topic("t", 3)]), 7);
    let id = cluster.control.image().topic("t").unwrap().id;
    for version in versions(ApiKey::Metadata) {
        let all = match version {
            0 => MetadataRequest::default().with_topics(Some(Vec::new())),
            _ => MetadataRequest::default().with_topics(None),
        };
        let response = cluster.call(&all, version);
        assert_eq!(response.brokers.len(), 2, "v{version}");
        assert!(response.brokers.iter().all(|broker| broker.rack.is_none()), "broker.rack is null by default");
        let found = response.topics.iter().find(|t| t.name.as_deref().map(|n| n.as_str()) == Some("t")).unwrap();
        let leaders: Vec<i32> = found.partitions.iter().map(|p| p.leader_id.0).collect();
        assert_eq!(leaders, [1, 2, 1]);

        let name = format!("auto{version}");
        let asked = |name: &str| MetadataRequestTopic::default().with_name(Some(wire_name(name)));
        let request = MetadataRequest::default().with_topics(Some(vec![asked(&name), asked("not ok")]));
        let request = request.with_include_topic_authorized_operations(version >= 8);
        let request = request.with_allow_auto_topic_creation(true);
        let response = cluster.call(&request, version);
        let operations = if version >= 8 { 3576 } else { i32::MIN };
        assert!(response.topics.iter().all(|topic| topic.topic_authorized_operations == operations));
        let codes: Vec<i16> = response.topics.iter().map(|t| t.error_code).collect();
        // A request that creates a topic does not tell it: kafka-go's tests look that way whether a topic is gone.
        assert_eq!(codes, [3, 17], "v{version}");
        assert!(cluster.brokers[1].image.topic(&name).is_some(), "usable on every shard");
        let response = cluster.call(&request, version);
        assert_eq!(response.topics[0].error_code, 0, "the client asked again");
    }
    let asked = MetadataRequestTopic::default().with_name(Some(wire_name("absent")));
    let request = MetadataRequest::default().with_topics(Some(vec![asked])).with_allow_auto_topic_creation(false);
    assert_eq!(cluster.call(&request, 13).topics[0].error_code, 3);
    for (id, code) in [(id, 0), (uuid::Uuid::from_u128(9), 100)] {
        let asked = MetadataRequestTopic::default().with_name(None).with_topic_id(id);
        let response = cluster.call(&MetadataRequest::default().with_topics(Some(vec![asked])), 12);
        assert_eq!((response.topics[0].error_code, response.topics[0].topic_id), (code, id));
    }
    // These versions have ids in their requests, but the reply to an unknown one would have no name, which they do not allow.
    for version in [10, 11] {
        let asked =
            MetadataRequestTopic::default().with_name(Some(wire_name("t"))).with_topic_id(uuid::Uuid::from_u128(9));
        let response = cluster.call(&MetadataRequest::default().with_topics(Some(vec![asked])), version);
        let row = &response.topics[0];
        assert_eq!((row.error_code, row.name.clone()), (42, Some(wire_name("t"))), "as Kafka");
    }
}

/// A request of a megabyte was answered with gigabytes: all partitions, or all settings, for every time that it named them.
#[test]
fn what_is_asked_for_again_and_again_is_bounded() {
    let mut cluster = Cluster::start();
    cluster.call(&CreateTopicsRequest::default().with_topics(vec![topic("t", 3)]), 7);
    let asked = MetadataRequestTopic::default().with_name(Some(wire_name("t")));
    let request = MetadataRequest::default().with_topics(Some(vec![asked; 100]));
    assert_eq!(cluster.call(&request, 8).topics.len(), 1, "once, as Kafka does");
    let resource = DescribeConfigsResource::default().with_resource_type(4).with_resource_name("2".into());
    let resources = vec![resource.with_configuration_keys(None); 3000];
    let results = cluster.call(&DescribeConfigsRequest::default().with_resources(resources), 4).results;
    let told: usize = results.iter().map(|result| result.configs.len()).sum();
    assert!(results[0].error_code == 0 && results[2999].error_code == 42 && told < 501_000, "{told}");
}

#[test]
fn configuration_in_every_version() {
    use alter_configs_request as whole;
    use incremental_alter_configs_request as incremental;
    let mut cluster = Cluster::start();
    cluster.call(&CreateTopicsRequest::default().with_topics(vec![topic("t", 1)]), 7);
    for version in versions(ApiKey::AlterConfigs) {
        let config = whole::AlterableConfig::default().with_name("flush.ms".into()).with_value(Some("5".into()));
        let resource = whole::AlterConfigsResource::default().with_resource_type(2).with_resource_name("t".into());
        let request = AlterConfigsRequest::default().with_resources(vec![resource.with_configs(vec![config])]);
        assert_eq!(cluster.call(&request, version).responses[0].error_code, 0);
    }
    assert_eq!(cluster.brokers[0].image.topic("t").unwrap().config.flush_ms, Some(5));
    for version in versions(ApiKey::IncrementalAlterConfigs) {
        let config = incremental::AlterableConfig::default().with_name("flush.ms".into()).with_config_operation(1);
        let resource = incremental::AlterConfigsResource::default().with_resource_type(2);
        let resource = resource.with_resource_name("t".into()).with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        assert_eq!(cluster.call(&request, version).responses[0].error_code, 0);
    }
    assert_eq!(cluster.brokers[0].image.topic("t").unwrap().config.flush_ms, None);
    for version in versions(ApiKey::DescribeConfigs) {
        let resource = |kind, name: &'static str| {
            let resource = DescribeConfigsResource::default().with_resource_type(kind);
            resource.with_resource_name(name.into()).with_configuration_keys(None)
        };
        let resources = vec![resource(2, "t"), resource(4, "2"), resource(8, "1"), resource(2, "absent")];
        let request = DescribeConfigsRequest::default().with_resources(resources).with_include_synonyms(true);
        let results = cluster.call(&request, version).results;
        let facts: Vec<(i16, bool)> = results.iter().map(|r| (r.error_code, r.configs.len() > 30)).collect();
        assert_eq!(facts, [(0, true), (0, true), (0, false), (3, false)], "v{version}");
        assert!(results.iter().all(|r| r.error_message.as_deref() == Some("")), "never null");
        let nobody = [resource(8, "99"), resource(8, ""), resource(16, ""), resource(32, "")];
        let request = DescribeConfigsRequest::default().with_resources(nobody.to_vec());
        let refused = cluster.call(&request, version).results;
        assert!(refused.iter().all(|result| result.error_code == 42), "{refused:?}");
        let value = |name: &str| results[1].configs.iter().find(|c| c.name.as_str() == name).unwrap().value.clone();
        assert_eq!(value("node.id"), Some(StrBytes::from("2")));
    }
}

#[test]
fn producer_ids_are_unique_over_shards() {
    let mut cluster = Cluster::start();
    let mut seen = std::collections::BTreeSet::new();
    for version in versions(ApiKey::InitProducerId) {
        for _ in 0..300 {
            let request = InitProducerIdRequest::default().with_transactional_id(None);
            let response = cluster.call(&request, version);
            assert_eq!((response.error_code, response.producer_epoch), (0, 0));
            assert!(seen.insert(response.producer_id.0));
        }
        if version >= 3 {
            for (id, epoch, code) in [(5, -1, 42), (-1, 0, 42), (5, 0, 0)] {
                let request = InitProducerIdRequest::default().with_transactional_id(None);
                let request = request.with_producer_id(ProducerId(id)).with_producer_epoch(epoch);
                assert_eq!(cluster.call(&request, version).error_code, code, "{id} {epoch}");
            }
        }
        let transactional = TransactionalId("tx".into());
        let request = InitProducerIdRequest::default().with_transactional_id(Some(transactional));
        assert_eq!(cluster.call(&request, version).error_code, 53);
    }
}

#[test]
fn the_rest_in_every_version() {
    use elect_leaders_request::TopicPartitions;
    let mut cluster = Cluster::start();
    cluster.call(&CreateTopicsRequest::default().with_topics(vec![topic("t", 5), topic("u", 1)]), 7);
    for version in versions(ApiKey::DescribeCluster) {
        let response = cluster.call(&DescribeClusterRequest::default().with_endpoint_type(1), version);
        assert_eq!((response.error_code, response.brokers.len()), (0, 2));
        if version >= 1 {
            let request = DescribeClusterRequest::default().with_endpoint_type(2);
            assert_eq!(cluster.call(&request, version).error_code, 114);
        }
    }
    for version in versions(ApiKey::ListConfigResources) {
        let names = cluster.call(&ListConfigResourcesRequest::default(), version).config_resources.len();
        assert_eq!(names, if version == 0 { 0 } else { 2 + 2 + 2 });
    }
    for version in versions(ApiKey::ElectLeaders) {
        let asked = TopicPartitions::default().with_topic(wire_name("t")).with_partitions(vec![0, 9]);
        let request = ElectLeadersRequest::default().with_topic_partitions(Some(vec![asked]));
        let results = cluster.call(&request, version).replica_election_results;
        let codes: Vec<i16> = results[0].partition_result.iter().map(|p| p.error_code).collect();
        assert_eq!(codes, [84, 3]);
        if version >= 1 {
            let reply = cluster.call(&request.with_election_type(2), version);
            let codes: Vec<i16> =
                reply.replica_election_results[0].partition_result.iter().map(|p| p.error_code).collect();
            assert_eq!((reply.error_code, codes), (42, vec![42, 42]));
        }
        assert_eq!(results[0].partition_result[1].error_message.as_deref(), Some("No such partition as t-9"));
    }
    for version in versions(ApiKey::AlterPartitionReassignments) {
        use alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
        let to = |index, replicas| ReassignablePartition::default().with_partition_index(index).with_replicas(replicas);
        let asked = vec![to(0, Some(vec![BrokerId(1)])), to(0, Some(vec![BrokerId(2)])), to(1, None), to(9, None)];
        let topic = ReassignableTopic::default().with_name(wire_name("t")).with_partitions(asked);
        let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]);
        let response = cluster.call(&request, version);
        let codes: Vec<i16> = response.responses[0].partitions.iter().map(|p| p.error_code).collect();
        assert_eq!((codes, response.error_message), (vec![0, 39, 85, 3], None));
    }
    for version in versions(ApiKey::ListPartitionReassignments) {
        let response = cluster.call(&ListPartitionReassignmentsRequest::default(), version);
        assert_eq!((response.error_message, response.topics), (None, Vec::new()));
    }
    for version in versions(ApiKey::DescribeQuorum) {
        let asked = |topic: &str, indexes: &[i32]| {
            let partition =
                |index: &i32| describe_quorum_request::PartitionData::default().with_partition_index(*index);
            let topic = describe_quorum_request::TopicData::default().with_topic_name(wire_name(topic));
            vec![topic.with_partitions(indexes.iter().map(partition).collect())]
        };
        let request = DescribeQuorumRequest::default().with_topics(asked("__cluster_metadata", &[0]));
        let response = cluster.call(&request, version);
        let [partition] = &response.topics[0].partitions[..] else { panic!("{response:?}") };
        let end = cluster.brokers[0].image.metadata_offset + 1;
        let voters: Vec<_> = partition.current_voters.iter().map(|v| (v.replica_id.0, v.log_end_offset)).collect();
        assert_eq!((partition.error_code, partition.leader_id.0, partition.leader_epoch), (0, 1, 1));
        assert_eq!((partition.high_watermark, voters), (end, vec![(1, end)]));
        assert_eq!(response.nodes.len(), usize::from(version >= 2));
        for topics in [asked("t", &[0]), asked("__cluster_metadata", &[0, 1])] {
            let response = cluster.call(&DescribeQuorumRequest::default().with_topics(topics), version);
            assert!(response.topics[0].partitions.iter().all(|partition| partition.error_code == 3));
        }
    }
    for version in versions(ApiKey::DescribeClientQuotas) {
        let response = cluster.call(&DescribeClientQuotasRequest::default(), version);
        assert_eq!((response.error_code, response.entries), (0, Some(Vec::new())));
        use describe_client_quotas_request::ComponentData;
        let ip = ComponentData::default().with_entity_type("ip".into()).with_match_type(2).with_match(None);
        let of = |kind: &'static str| ip.clone().with_entity_type(kind.into());
        for (components, code) in [
            (vec![of("user"), of("client-id")], 0),
            (vec![of("")], 42),
            (vec![of("planet")], 35),
            (vec![ip.clone(), of("user")], 42),
            (vec![ip.clone(), ip.clone()], 42),
            (vec![of("user").with_match_type(9)], 42),
            (vec![of("user").with_match_type(0)], 42),
            (vec![of("user").with_match(Some("ann".into()))], 42),
            (vec![of("user").with_match_type(1).with_match(Some("ann".into()))], 42),
        ] {
            let what = format!("{components:?}");
            let response = cluster.call(&DescribeClientQuotasRequest::default().with_components(components), version);
            assert_eq!((response.error_code, response.entries.is_some()), (code, code == 0), "{what}");
        }
    }
    for version in versions(ApiKey::DescribeUserScramCredentials) {
        use describe_user_scram_credentials_request::UserName;
        let asked = |names: &[&'static str]| {
            let users = names.iter().map(|name| UserName::default().with_name(StrBytes::from_static_str(name)));
            DescribeUserScramCredentialsRequest::default().with_users(Some(users.collect()))
        };
        for all in [asked(&[]), DescribeUserScramCredentialsRequest::default().with_users(None)] {
            let response = cluster.call(&all, version);
            assert_eq!((response.error_code, response.results), (0, Vec::new()));
        }
        let response = cluster.call(&asked(&["ann", "bob", "bob"]), version);
        let told: Vec<_> = response.results.iter().map(|row| (row.user.as_str(), row.error_code)).collect();
        assert_eq!((response.error_code, told), (0, vec![("ann", 91), ("bob", 92)]));
    }
    for version in versions(ApiKey::DescribeAcls) {
        assert_eq!(cluster.call(&DescribeAclsRequest::default(), version).error_code, 54);
        let request = CreateAclsRequest::default().with_creations(vec![Default::default()]);
        assert_eq!(cluster.call(&request, version).results[0].error_code, 54);
        let request = DeleteAclsRequest::default().with_filters(vec![Default::default()]);
        let refused = cluster.call(&request, version).filter_results.remove(0);
        assert_eq!((refused.error_code, refused.error_message.as_deref()), (54, Some("No Authorizer is configured.")));
    }
}

#[test]
fn topics_are_described_in_pages() {
    let mut cluster = Cluster::start();
    cluster.call(&CreateTopicsRequest::default().with_topics(vec![topic("a", 3), topic("b", 3), topic("c", 1)]), 7);
    let mut request = DescribeTopicPartitionsRequest::default().with_response_partition_limit(2);
    let mut pages = Vec::new();
    loop {
        let response = cluster.call(&request, 0);
        for topic in &response.topics {
            assert!(topic.partitions.iter().all(|p| p.eligible_leader_replicas == Some(Vec::new())));
            let name = topic.name.as_ref().unwrap().to_string();
            pages.push((name, topic.partitions.iter().map(|p| p.partition_index).collect::<Vec<_>>()));
        }
        let Some(next) = response.next_cursor else { break };
        let cursor = describe_topic_partitions_request::Cursor::default()
            .with_topic_name(next.topic_name)
            .with_partition_index(next.partition_index);
        request.cursor = Some(cursor);
    }
    let of = |name: &str| pages.iter().filter(|(n, _)| n == name).flat_map(|(_, p)| p.clone()).collect::<Vec<i32>>();
    assert_eq!((of("a"), of("b"), of("c")), (vec![0, 1, 2], vec![0, 1, 2], vec![0]));
    assert!(pages.iter().all(|(_, partitions)| partitions.len() <= 2));
    for (asked, cursor, codes) in [
        (vec!["a", "x"], None, vec![0, 3]),
        (vec!["a", "b"], Some(("b", 7)), vec![0]),
        (vec!["a", "b"], Some(("b", -1)), vec![42, 42]),
        (vec!["a", "c"], Some(("b", 0)), vec![42, 42]),
    ] {
        let asked = asked
            .into_iter()
            .map(|name| describe_topic_partitions_request::TopicRequest::default().with_name(wire_name(name)));
        let cursor = cursor.map(|(name, index)| {
            describe_topic_partitions_request::Cursor::default()
                .with_topic_name(wire_name(name))
                .with_partition_index(index)
        });
        let request = DescribeTopicPartitionsRequest::default().with_topics(asked.collect()).with_cursor(cursor);
        let topics = cluster.call(&request.with_response_partition_limit(100), 0).topics;
        assert_eq!(topics.iter().map(|topic| topic.error_code).collect::<Vec<_>>(), codes);
        let told = |code: i16| if code == 42 { i32::MIN } else { 3576 };
        assert!(topics.iter().all(|topic| topic.topic_authorized_operations == told(topic.error_code)));
    }
}
