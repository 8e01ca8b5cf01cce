//! Requests against an image of two shards, and what Kafka would answer.

use std::sync::Arc;

use kafka_protocol::messages::create_partitions_request::CreatePartitionsAssignment;
use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;

use super::*;
use crate::cluster::fold::Fold;
use crate::cluster::record::RegisterBroker;
use crate::config::{BrokerConfig, Settings};

struct Cluster {
    image: ClusterImage,
    ids: u128,
}

impl Cluster {
    fn new(settings: &[(&str, &str)]) -> Cluster {
        let mut file = Settings::default();
        settings.iter().for_each(|(name, value)| file.set(name, value).unwrap());
        let config = Arc::new(BrokerConfig::from_settings(&file).unwrap());
        let empty = ClusterImage::empty("cluster".into(), 2, Arc::new(file), config);
        let register = |id| {
            Record::RegisterBroker(RegisterBroker {
                broker: NodeId(id),
                incarnation: Uuid::nil(),
                broker_epoch: 0,
                endpoints: vec![("PLAINTEXT".into(), "localhost".into(), 9092)],
                features: Vec::new(),
                rack: None,
                fenced: false,
                log_dirs: Vec::new(),
            })
        };
        let mut cluster = Cluster { image: empty, ids: 0 };
        cluster.fold(vec![register(1), register(2)]);
        cluster
    }

    fn fold(&mut self, records: Vec<Record>) {
        let mut fold = Fold::new(&self.image);
        records.into_iter().for_each(|record| fold.apply(record));
        self.image = fold.finish();
    }

    fn create(&mut self, request: CreateTopicsRequest) -> Vec<(String, i16, Option<String>)> {
        let mut new_id = || {
            self.ids += 1;
            Uuid::from_u128(self.ids)
        };
        let mut creation = Creation { new_id: &mut new_id, directory: Uuid::nil() };
        let (records, response) = create(&self.image, &request, &mut creation);
        self.fold(records);
        let answer = |t: &CreatableTopicResult| {
            (t.name.to_string(), t.error_code, t.error_message.as_ref().map(|m| m.to_string()))
        };
        response.topics.iter().map(answer).collect()
    }

    fn create_one(&mut self, topic: CreatableTopic) -> (i16, String) {
        let (_, code, message) = self.create(CreateTopicsRequest::default().with_topics(vec![topic])).remove(0);
        (code, message.unwrap_or_default())
    }
}

fn topic(name: &str, partitions: i32, replicas: i16) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(wire_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(replicas)
}

fn with_config(topic: CreatableTopic, name: &'static str, value: Option<&'static str>) -> CreatableTopic {
    let config = CreatableTopicConfig::default().with_name(name.into()).with_value(value.map(StrBytes::from));
    topic.with_configs(vec![config])
}

fn assigned(topic: CreatableTopic, assignments: &[(i32, &[i32])]) -> CreatableTopic {
    let assignment = |(partition, brokers): &(i32, &[i32])| {
        CreatableReplicaAssignment::default()
            .with_partition_index(*partition)
            .with_broker_ids(brokers.iter().map(|id| BrokerId(*id)).collect())
    };
    topic.with_assignments(assignments.iter().map(assignment).collect())
}

#[test]
fn names_are_kafkas() {
    let mut cluster = Cluster::new(&[]);
    let mut code = |name: &str| cluster.create_one(topic(name, 1, 1));
    assert_eq!(code("a-b.c_D9"), (0, String::new()));
    assert_eq!(code(""), (17, "Topic name is invalid: the empty string is not allowed".into()));
    assert_eq!(code(".."), (17, "Topic name is invalid: '..' is not allowed".into()));
    assert_eq!(code("a b").0, 17);
    assert_eq!(code(&"x".repeat(250)).0, 17);
    assert_eq!(code(&"x".repeat(249)).0, 0);
    assert_eq!(code("a-b.c_D9"), (36, "Topic 'a-b.c_D9' already exists.".into()));
    assert_eq!(code("a-b_c_D9"), (17, "Topic 'a-b_c_D9' collides with existing topic: a-b.c_D9".into()));
    assert_eq!(code("__cluster_metadata").0, 42);
}

#[test]
fn counts_defaults_and_configs_are_checked() {
    let mut cluster = Cluster::new(&[("num.partitions", "3")]);
    assert_eq!(cluster.create_one(topic("defaults", -1, -1)).0, 0);
    assert_eq!(cluster.image.topic("defaults").unwrap().partitions.len(), 3);
    assert_eq!(cluster.create_one(topic("t", 0, 1)).0, 37);
    assert_eq!(cluster.create_one(topic("t", 1, 0)).0, 38);
    let (code, message) = cluster.create_one(topic("t", 1, 3));
    assert_eq!(code, 38);
    assert!(message.contains("replicas never share a host"), "{message}");
    assert_eq!(cluster.create_one(topic("t", 1_000_000, 1)).0, 44);
    assert_eq!(
        cluster.create_one(with_config(topic("t", 1, 1), "segment.bytes", Some("1000"))),
        (40, "Invalid value 1000 for configuration segment.bytes: Value must be at least 1048576".into())
    );
    assert_eq!(
        cluster.create_one(with_config(topic("t", 1, 1), "no.such", Some("1"))),
        (40, "Unknown topic config name: no.such".into())
    );
    assert_eq!(
        cluster.create_one(with_config(topic("t", 1, 1), "retention.ms", None)),
        (40, "Null value not supported for topic configs: retention.ms".into())
    );
    assert_eq!(cluster.create_one(with_config(topic("t", 1, 1), "retention.ms", Some("9"))).0, 0);
    assert_eq!(cluster.image.topic("t").unwrap().config.retention_ms, Some(9));
}

#[test]
fn one_request_spreads_its_topics_and_refuses_doubles() {
    let mut cluster = Cluster::new(&[]);
    let topics = vec![topic("a", 1, 1), topic("b", 1, 1), topic("twice", 1, 1), topic("twice", 1, 1)];
    let answers = cluster.create(CreateTopicsRequest::default().with_topics(topics));
    assert_eq!(answers.len(), 3);
    assert!(answers.contains(&("twice".into(), 42, Some("Duplicate topic name.".into()))));
    let leader = |name: &str| cluster.image.partition(name, 0).unwrap().leader;
    assert_ne!(leader("a"), leader("b"));

    let request = CreateTopicsRequest::default().with_topics(vec![topic("dry", 1, 1)]).with_validate_only(true);
    assert_eq!(cluster.create(request)[0].1, 0);
    assert!(cluster.image.topic("dry").is_none());
}

#[test]
fn assignments_by_hand() {
    let mut cluster = Cluster::new(&[]);
    let mut code = |topic| cluster.create_one(topic).0;
    assert_eq!(code(assigned(topic("t", -1, -1), &[(0, &[2]), (1, &[1])])), 0);
    assert_eq!(code(assigned(topic("u", 1, -1), &[(0, &[1])])), 42);
    assert_eq!(code(assigned(topic("u", -1, 1), &[(0, &[1])])), 42);
    for bad in [&[(0, &[9][..])], &[(0, &[1, 1][..])], &[(0, &[1, 2][..])], &[(0, &[][..])], &[(1, &[1][..])]] {
        assert_eq!(code(assigned(topic("u", -1, -1), bad)), 39, "{bad:?}");
    }
    let leaders = cluster.image.topic("t").unwrap().partitions.iter().map(|p| p.leader.0);
    assert_eq!(leaders.collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn deletion_by_name_and_id() {
    let mut cluster = Cluster::new(&[]);
    cluster.create_one(topic("a", 1, 1));
    cluster.create_one(topic("b", 1, 1));
    let state = |name: Option<&str>, id| DeleteTopicState::default().with_name(name.map(wire_name)).with_topic_id(id);
    let id = cluster.image.topic("b").unwrap().id;
    let request = DeleteTopicsRequest::default().with_topics(vec![
        state(Some("a"), Uuid::nil()),
        state(None, id),
        state(Some("gone"), Uuid::nil()),
        state(None, Uuid::from_u128(99)),
        state(None, Uuid::nil()),
        state(Some("x"), Uuid::nil()),
        state(Some("x"), Uuid::nil()),
    ]);
    let (records, response) = delete(&cluster.image, &request);
    let codes: Vec<i16> = response.responses.iter().map(|r| r.error_code).collect();
    assert_eq!(codes, [0, 0, 3, 100, 42, 42]);
    assert_eq!(response.responses[1].name.as_ref().map(|n| n.to_string()).as_deref(), Some("b"));
    cluster.fold(records);
    assert!(cluster.image.topics.is_empty());

    let mut fixed = Cluster::new(&[("delete.topic.enable", "false")]);
    fixed.create_one(topic("a", 1, 1));
    let request = DeleteTopicsRequest::default().with_topic_names(vec![wire_name("a")]);
    assert_eq!(delete(&fixed.image, &request).1.responses[0].error_code, 73);
}

#[test]
fn partitions_only_grow() {
    let mut cluster = Cluster::new(&[]);
    cluster.create_one(topic("t", 2, 1));
    let mut grow = |count, assignments: Option<Vec<CreatePartitionsAssignment>>| {
        let topic = CreatePartitionsTopic::default().with_name(wire_name("t")).with_count(count);
        let request = CreatePartitionsRequest::default().with_topics(vec![topic.with_assignments(assignments)]);
        let (records, response) = add_partitions(&cluster.image, &request, Uuid::nil());
        cluster.fold(records);
        let message = response.results[0].error_message.as_ref().map(|m| m.to_string());
        (response.results[0].error_code, message.unwrap_or_default())
    };
    assert_eq!(grow(2, None), (37, "Topic already has 2 partition(s).".into()));
    assert_eq!(grow(1, None), (37, "The topic t currently has 2 partition(s); 1 would not be an increase.".into()));
    assert_eq!(grow(5, None).0, 0);
    let to = |id| CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(id)]);
    assert_eq!(grow(7, Some(vec![to(1)])).0, 39);
    assert_eq!(grow(6, Some(vec![to(2)])).0, 0);
    let leaders: Vec<i32> = cluster.image.topic("t").unwrap().partitions.iter().map(|p| p.leader.0).collect();
    assert_eq!(leaders, [1, 2, 1, 2, 1, 2]);
}

#[test]
fn the_offsets_topic_is_created_compacted() {
    let mut cluster = Cluster::new(&[("offsets.topic.num.partitions", "4")]);
    let request = auto_creation(&cluster.image, &[OFFSETS_TOPIC, "plain"]);
    assert!(cluster.create(request).iter().all(|(_, code, _)| *code == 0));
    let offsets = cluster.image.topic(OFFSETS_TOPIC).unwrap();
    assert_eq!(offsets.partitions.len(), 4);
    assert!(offsets.internal && offsets.config.compact && !offsets.config.delete);
    assert_eq!(offsets.config.segment_bytes, 104_857_600);
    assert!(!cluster.image.topic("plain").unwrap().internal);
}
