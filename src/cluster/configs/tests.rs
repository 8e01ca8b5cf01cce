//! Altering and describing, and what Kafka would answer.

use std::sync::Arc;

use kafka_protocol::messages::alter_configs_request as whole;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use uuid::Uuid;

use super::*;
use crate::cluster::fold::Fold;
use crate::cluster::record::RegisterBroker;
use crate::config::{Settings, Source};

struct Cluster {
    image: ClusterImage,
}

impl Cluster {
    fn new() -> Cluster {
        let mut settings = Settings::default();
        settings.set("log.retention.hours", "2").unwrap();
        let config = Arc::new(BrokerConfig::from_settings(&settings).unwrap());
        let mut cluster = Cluster { image: ClusterImage::empty("c".into(), 1, Arc::new(settings), config) };
        cluster.fold(vec![
            Record::RegisterBroker(RegisterBroker {
                broker: NodeId(1),
                incarnation: Uuid::nil(),
                broker_epoch: 0,
                endpoints: vec![("PLAINTEXT".into(), "localhost".into(), 9092)],
                features: Vec::new(),
                rack: None,
                fenced: false,
                log_dirs: Vec::new(),
            }),
            Record::Topic { name: "t".into(), id: Uuid::from_u128(1) },
        ]);
        cluster
    }

    fn fold(&mut self, records: Vec<Record>) {
        let mut fold = Fold::new(&self.image);
        records.into_iter().for_each(|record| fold.apply(record));
        self.image = fold.finish();
    }

    fn alter(
        &mut self,
        kind: i8,
        name: &'static str,
        changes: &[(i8, &'static str, Option<&'static str>)],
    ) -> (i16, String) {
        let config = |(operation, name, value): &(i8, &'static str, Option<&'static str>)| {
            AlterableConfig::default()
                .with_name(StrBytes::from(*name))
                .with_config_operation(*operation)
                .with_value(value.map(StrBytes::from))
        };
        let resource = AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(name.into())
            .with_configs(changes.iter().map(config).collect());
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let (records, response) = alter_incrementally(&self.image, &request);
        self.fold(records);
        let answer = &response.responses[0];
        (answer.error_code, answer.error_message.as_ref().map(|m| m.to_string()).unwrap_or_default())
    }

    fn describe(&self, kind: i8, name: &'static str, key: &'static str) -> DescribeConfigsResourceResult {
        let resource = DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(name.into())
            .with_configuration_keys(Some(vec![key.into()]));
        let request = DescribeConfigsRequest::default()
            .with_resources(vec![resource])
            .with_include_synonyms(true)
            .with_include_documentation(true);
        describe(&self.image, &request).results.remove(0).configs.remove(0)
    }
}

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

#[test]
fn key_by_key() {
    let mut cluster = Cluster::new();
    let ok = (0, String::new());
    assert_eq!(cluster.alter(RESOURCE_TOPIC, "t", &[(SET, "retention.ms", Some("5"))]), ok);
    assert_eq!(cluster.image.topic("t").unwrap().config.retention_ms, Some(5));
    assert_eq!(cluster.alter(RESOURCE_TOPIC, "t", &[(APPEND, "cleanup.policy", Some("compact"))]), ok);
    assert_eq!(cluster.image.topic("t").unwrap().overrides["cleanup.policy"], "delete,compact");
    assert_eq!(cluster.alter(RESOURCE_TOPIC, "t", &[(SUBTRACT, "cleanup.policy", Some("delete"))]), ok);
    assert_eq!(cluster.image.topic("t").unwrap().overrides["cleanup.policy"], "compact");
    assert_eq!(cluster.alter(RESOURCE_TOPIC, "t", &[(DELETE, "cleanup.policy", None)]), ok);
    assert_eq!(
        cluster.alter(RESOURCE_TOPIC, "t", &[(APPEND, "retention.ms", Some("1"))]),
        (40, "Can't APPEND to key retention.ms because its type is not LIST.".into())
    );
    assert_eq!(cluster.alter(RESOURCE_TOPIC, "t", &[(SET, "retention.ms", None)]).0, 42);
    assert_eq!(cluster.alter(RESOURCE_TOPIC, "t", &[(7, "retention.ms", Some("1"))]).0, 42);
    assert_eq!(cluster.alter(RESOURCE_TOPIC, "t", &[(SET, "segment.bytes", Some("1"))]).0, 40);
    assert_eq!(cluster.alter(RESOURCE_TOPIC, "none", &[(SET, "retention.ms", Some("1"))]).0, 3);
    assert_eq!(cluster.alter(RESOURCE_TOPIC, "", &[]).0, 42);
    let twice = [(SET, "retention.ms", Some("1")), (DELETE, "retention.ms", None)];
    assert_eq!(cluster.alter(RESOURCE_TOPIC, "t", &twice), (42, "Error due to duplicate config keys".into()));
}

#[test]
fn as_a_whole_what_is_not_named_goes() {
    let mut cluster = Cluster::new();
    cluster.alter(RESOURCE_TOPIC, "t", &[(SET, "retention.ms", Some("5")), (SET, "flush.ms", Some("6"))]);
    let config = whole::AlterableConfig::default().with_name("flush.ms".into()).with_value(Some("7".into()));
    let resource = whole::AlterConfigsResource::default()
        .with_resource_type(RESOURCE_TOPIC)
        .with_resource_name("t".into())
        .with_configs(vec![config]);
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    let (records, _) = alter(&cluster.image, &request.clone().with_validate_only(true));
    assert!(records.is_empty());
    let (records, response) = alter(&cluster.image, &request);
    assert_eq!(response.responses[0].error_code, 0);
    cluster.fold(records);
    let overrides = &cluster.image.topic("t").unwrap().overrides;
    assert_eq!(overrides.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>(), [("flush.ms", "7")]);
}

/// A list without values is a value: nothing is ever deleted or compacted. Clients were refused it, and were shown what they had
/// written, not what it meant.
#[test]
fn values_are_shown_as_they_were_understood() {
    let mut cluster = Cluster::new();
    let mut policy = |operation, value| {
        let answer = cluster.alter(RESOURCE_TOPIC, "t", &[(operation, "cleanup.policy", Some(value))]);
        let entry = cluster.describe(RESOURCE_TOPIC, "t", "cleanup.policy");
        let topic = cluster.image.topic("t").unwrap().config.clone();
        (answer.0, entry.value.unwrap().to_string(), entry.config_source, topic.compact, topic.delete)
    };
    const OK: i16 = 0;
    let topic = Source::Topic as i8;
    assert_eq!(policy(SUBTRACT, "delete"), (OK, "".into(), topic, false, false));
    assert_eq!(policy(SUBTRACT, "delete"), (OK, "".into(), topic, false, false));
    assert_eq!(policy(APPEND, "compact"), (OK, "compact".into(), topic, true, false));
    assert_eq!(policy(SET, " delete , compact,delete"), (OK, "delete,compact".into(), topic, true, true));
    let invalid = ErrorCode::InvalidConfig.code();
    assert_eq!(policy(SET, "compact,").0, invalid);
    assert_eq!(policy(SET, "COMPACT"), (invalid, "delete,compact".into(), topic, true, true));
    assert_eq!(policy(SET, ""), (OK, "".into(), topic, false, false));
    cluster.alter(RESOURCE_TOPIC, "t", &[(SET, "retention.ms", Some(" 077 ")), (SET, "preallocate", Some("True"))]);
    for (key, shown) in [("retention.ms", "77"), ("preallocate", "true")] {
        let entry = cluster.describe(RESOURCE_TOPIC, "t", key);
        assert_eq!(synonyms(&entry)[0], (key.into(), shown.into(), topic));
        assert_eq!(&*entry.value.unwrap(), shown);
    }
}

#[test]
fn brokers_take_what_is_dynamic() {
    let mut cluster = Cluster::new();
    assert_eq!(cluster.alter(RESOURCE_BROKER, "", &[(SET, "log.retention.ms", Some("9"))]).0, 0);
    assert_eq!(cluster.image.topic("t").unwrap().config.retention_ms, Some(9));
    assert_eq!(
        cluster.alter(RESOURCE_BROKER, "1", &[(SET, "num.partitions", Some("9"))]),
        (42, "Cannot update these configs dynamically: [num.partitions]".into())
    );
    assert_eq!(cluster.alter(RESOURCE_BROKER, "1", &[(DELETE, "num.partitions", None)]).0, 0);
    // Without effect here, but as Kafka's may: librdkafka's own tests set this one.
    let kerberos = "sasl.kerberos.min.time.before.relogin";
    assert_eq!(cluster.alter(RESOURCE_BROKER, "1", &[(SET, kerberos, Some("58000"))]).0, 0);
    let entry = cluster.describe(RESOURCE_BROKER, "1", kerberos);
    assert_eq!((&*entry.value.unwrap(), entry.read_only), ("58000", false));
    assert_eq!(cluster.alter(RESOURCE_BROKER, "7", &[(SET, "log.retention.ms", Some("9"))]).0, 42);
    assert_eq!(cluster.alter(RESOURCE_BROKER, "1", &[(SET, "log.segment.bytes", Some("3"))]).0, 42);
    assert_eq!(cluster.alter(RESOURCE_BROKER_LOGGER, "1", &[(SET, "root", Some("DEBUG"))]).0, 42);
}

/// As in every new cluster of Kafka 4.1 and later: tests of confluent-kafka-python list it among what is not a default.
#[test]
fn min_insync_replicas_is_of_the_cluster() {
    let mut cluster = Cluster::new();
    let elr = crate::cluster::image::ELR_FEATURE.to_string();
    cluster.fold(vec![Record::FeatureLevel { name: elr, level: 1 }]);
    let set = [(SET, MIN_INSYNC_REPLICAS, Some("2"))];
    assert_eq!(cluster.alter(RESOURCE_BROKER, "", &set).0, 0);
    let entry = cluster.describe(RESOURCE_TOPIC, "t", MIN_INSYNC_REPLICAS);
    assert_eq!((&*entry.value.unwrap(), entry.config_source), ("2", Source::DynamicDefaultBroker as i8));
    let refused = |what: &str| (40, format!("{what} while ELR is enabled."));
    let altered = refused("Broker-level min.insync.replicas cannot be altered");
    assert_eq!(cluster.alter(RESOURCE_BROKER, "1", &set), altered);
    assert_eq!(cluster.alter(RESOURCE_BROKER, "1", &[(DELETE, MIN_INSYNC_REPLICAS, None)]), altered);
    let removed = refused("Cluster-level min.insync.replicas cannot be removed");
    assert_eq!(cluster.alter(RESOURCE_BROKER, "", &[(DELETE, MIN_INSYNC_REPLICAS, None)]), removed);
    assert_eq!(cluster.alter(RESOURCE_TOPIC, "t", &[(SET, MIN_INSYNC_REPLICAS, Some("1"))]).0, 0);
}

/// Kafka keeps names it does not know, as they may be of a plugin; kafkajs's own tests set a topic's key for a broker. What
/// they say might be a secret.
#[test]
fn brokers_keep_names_that_are_not_known() {
    let mut cluster = Cluster::new();
    assert_eq!(cluster.alter(RESOURCE_BROKER, "1", &[(SET, "cleanup.policy", Some("delete"))]).0, 0);
    assert_eq!(cluster.alter(RESOURCE_BROKER, "", &[(SET, "no.such", Some("9"))]).0, 0);
    let entry = cluster.describe(RESOURCE_BROKER, "1", "cleanup.policy");
    assert_eq!((entry.value.as_deref(), entry.is_sensitive, entry.read_only), (None, true, true));
    assert_eq!((entry.config_source, entry.config_type), (Source::DynamicBroker as i8, 0));
    assert_eq!(synonyms(&entry), [("cleanup.policy".into(), "".into(), 2)]);
    for broker in ["", "1"] {
        let entry = cluster.describe(RESOURCE_BROKER, broker, "no.such");
        assert_eq!(synonyms(&entry), [("no.such".into(), "".into(), 3)]);
    }
    assert_eq!(cluster.alter(RESOURCE_BROKER, "", &[(DELETE, "no.such", None)]).0, 0);
    assert!(cluster.image.dynamic_configs.keys().eq([&Some(NodeId(1))]));
}

/// Kafka's tools set them whether or not anything acts on them, and librdkafka's tests expect a group's back.
#[test]
fn groups_and_subscriptions_are_configured() {
    let mut cluster = Cluster::new();
    let session = "consumer.session.timeout.ms";
    let described = |cluster: &Cluster| {
        let entry = cluster.describe(RESOURCE_GROUP, "g", session);
        (entry.value.as_deref().unwrap_or_default().to_string(), entry.config_source, synonyms(&entry))
    };
    let default = ("group.consumer.session.timeout.ms".to_string(), "45000".to_string(), 5);
    assert_eq!(described(&cluster), ("45000".into(), 5, vec![default.clone()]));
    assert_eq!(cluster.alter(RESOURCE_GROUP, "g", &[(SET, session, Some("50000"))]).0, 0);
    assert_eq!(described(&cluster), ("50000".into(), 8, vec![(session.into(), "50000".into(), 8), default]));
    for (key, value, message) in [
        (session, "1", format!("{session} must be greater than or equal to group.consumer.min.session.timeout.ms")),
        (session, "70000", format!("{session} must be less than or equal to group.consumer.max.session.timeout.ms")),
        (session, "soon", format!("Invalid value soon for configuration {session}: Not a number of type INT")),
        (
            "streams.num.standby.replicas",
            "9",
            "streams.num.standby.replicas must be less than or equal to group.streams.max.standby.replicas".into(),
        ),
        ("no.such", "1", "Unknown group config name: no.such".into()),
    ] {
        assert_eq!(cluster.alter(RESOURCE_GROUP, "g", &[(SET, key, Some(value))]), (40, message));
    }
    assert_eq!(cluster.alter(RESOURCE_GROUP, "", &[]).0, 42);

    let interval = cluster.describe(RESOURCE_CLIENT_METRICS, "m", "interval.ms");
    assert_eq!((interval.value.as_deref(), interval.config_source, interval.synonyms), (Some("300000"), 5, Vec::new()));
    let set = [(SET, "interval.ms", Some("500")), (SET, "match", Some("client_id=a.*"))];
    assert_eq!(cluster.alter(RESOURCE_CLIENT_METRICS, "m", &set).0, 0);
    let interval = cluster.describe(RESOURCE_CLIENT_METRICS, "m", "interval.ms");
    assert_eq!((interval.value.as_deref(), interval.config_source), (Some("500"), 7));
    assert_eq!(cluster.alter(RESOURCE_CLIENT_METRICS, "m", &[(SET, "interval.ms", Some("1"))]).0, 42);
    assert_eq!(cluster.alter(RESOURCE_CLIENT_METRICS, "m", &[(SET, "no.such", Some("1"))]).0, 42);
    assert_eq!(
        cluster.alter(RESOURCE_CLIENT_METRICS, "m", &[(APPEND, "match", Some("name=b"))]),
        (40, "Illegal client matching pattern: name=b".into())
    );
    let mut copy = Cluster::new();
    copy.fold(crate::cluster::snapshot::records(&cluster.image, Uuid::nil()));
    assert_eq!((copy.image.named_configs.len(), &copy.image.named_configs), (2, &cluster.image.named_configs));
    assert_eq!(cluster.alter(RESOURCE_GROUP, "g", &[(DELETE, session, None)]).0, 0);
    assert_eq!(cluster.image.named_configs.keys().map(|(_, name)| name.as_str()).collect::<Vec<_>>(), ["m"]);
}

/// Synonyms begin with the first value that has the name that Kafka looks for: of `retention.ms` it is `log.retention.ms`,
/// so that `log.retention.hours` alone, which decides the value, is not listed.
#[test]
fn sources_and_synonyms() {
    let mut cluster = Cluster::new();
    let entry = cluster.describe(RESOURCE_TOPIC, "t", "retention.ms");
    assert_eq!((entry.value.as_deref(), entry.config_source), (Some("7200000"), Source::Default as i8));
    assert_eq!(synonyms(&entry), []);
    let hours = cluster.describe(RESOURCE_BROKER, "1", "log.retention.hours");
    assert_eq!(
        synonyms(&hours),
        [("log.retention.hours".into(), "2".into(), 4), ("log.retention.hours".into(), "168".into(), 5)]
    );
    cluster.alter(RESOURCE_TOPIC, "t", &[(SET, "retention.ms", Some("5"))]);
    cluster.alter(RESOURCE_BROKER, "", &[(SET, "log.retention.ms", Some("9"))]);
    let brokers = [
        ("log.retention.ms".into(), "9".into(), 3),
        ("log.retention.hours".into(), "2".into(), 4),
        ("log.retention.hours".into(), "168".into(), 5),
    ];
    assert_eq!(synonyms(&cluster.describe(RESOURCE_BROKER, "1", "log.retention.ms")), brokers);
    let of_topic = synonyms(&cluster.describe(RESOURCE_TOPIC, "t", "retention.ms"));
    assert_eq!(of_topic[0], ("retention.ms".into(), "5".into(), 1));
    assert_eq!(of_topic[1..], brokers);
    assert_eq!(synonyms(&cluster.describe(RESOURCE_TOPIC, "t", "remote.storage.enable")), []);

    let node = cluster.describe(RESOURCE_BROKER, "1", "node.id");
    assert_eq!((node.value.as_deref(), node.read_only), (Some("1"), true));
    let partitions = cluster.describe(RESOURCE_BROKER, "1", "num.partitions");
    assert_eq!((partitions.config_source, partitions.config_type), (5, 3));
    assert!(partitions.documentation.is_some());
    let password = cluster.describe(RESOURCE_BROKER, "1", "ssl.key.password");
    assert!(password.is_sensitive && password.value.is_none());
}

fn synonyms(entry: &DescribeConfigsResourceResult) -> Vec<(String, String, i8)> {
    let synonym = |s: &DescribeConfigsSynonym| {
        (s.name.to_string(), s.value.as_ref().map(|v| v.to_string()).unwrap_or_default(), s.source)
    };
    entry.synonyms.iter().map(synonym).collect()
}
