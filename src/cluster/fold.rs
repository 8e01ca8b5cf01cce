//! Folds metadata records into an image. What a record does not change is shared with the image before it; a record
//! that makes no sense (a partition of an unknown topic) is passed over, since Kafka's controllers check before they write.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::image::{Broker, ClusterImage, PartitionInfo, Topic};
use super::record::{self, Record};
use crate::config::{BrokerConfig, Layers, TopicConfig};
use crate::ids::{LeaderEpoch, NodeId, TopicId, TopicName};

/// A topic with more partitions than this cannot be.
pub const PARTITIONS_MAX: i32 = 1_000_000;

/// An image that is being changed.
pub struct Fold {
    image: ClusterImage,
    /// Topics that have changed, to be shared again by `finish`.
    topics: BTreeMap<TopicId, Topic>,
    /// Those of them that are new, by name.
    created: BTreeMap<TopicName, TopicId>,
    /// Topics whose configuration must be resolved again.
    reconfigured: BTreeSet<TopicId>,
    brokers_reconfigured: bool,
    /// Records since `BeginTransaction`.
    transaction: Option<Vec<Record>>,
}

impl Fold {
    /// Starts from an image.
    pub fn new(image: &ClusterImage) -> Fold {
        Fold {
            image: image.clone(),
            topics: BTreeMap::new(),
            created: BTreeMap::new(),
            reconfigured: BTreeSet::new(),
            brokers_reconfigured: false,
            transaction: None,
        }
    }

    /// Folds one record in. Records of a transaction take effect when it ends.
    pub fn apply(&mut self, record: Record) {
        match (record, &mut self.transaction) {
            (Record::BeginTransaction { .. }, _) => self.transaction = Some(Vec::new()),
            (Record::AbortTransaction, _) => self.transaction = None,
            (Record::EndTransaction, transaction) => {
                transaction.take().unwrap_or_default().into_iter().for_each(|record| self.change(record));
            }
            (record, Some(held)) => held.push(record),
            (record, None) => self.change(record),
        }
    }

    /// The folded image, one epoch on.
    pub fn finish(mut self) -> ClusterImage {
        if self.brokers_reconfigured {
            self.image.config = Arc::new(resolve_brokers(&self.image, None));
            let nodes = self.image.dynamic_configs.keys().copied().flatten();
            let resolve = |node| (node, Arc::new(resolve_brokers(&self.image, Some(node))));
            self.image.node_configs = nodes.map(resolve).collect();
            for (id, topic) in &self.image.topics_by_id {
                self.topics.entry(*id).or_insert_with(|| Topic::clone(topic));
                self.reconfigured.insert(*id);
            }
        }
        for (id, mut topic) in std::mem::take(&mut self.topics) {
            if self.reconfigured.contains(&id) {
                topic.config = resolve_topic(&self.image, &topic);
            }
            let topic = Arc::new(topic);
            self.image.topics.insert(topic.name.clone(), topic.clone());
            self.image.topics_by_id.insert(id, topic);
        }
        self.image.epoch += 1;
        self.image
    }

    fn change(&mut self, record: Record) {
        match record {
            Record::RegisterBroker(r) => {
                let endpoint = r.endpoints.iter().find(|(name, ..)| name == "PLAINTEXT").or(r.endpoints.first());
                let Some((_, host, port)) = endpoint else { return };
                let broker = Broker {
                    id: r.broker,
                    host: host.as_str().into(),
                    port: *port,
                    rack: r.rack.as_deref().map(Arc::from),
                    shard: self.image.local.shard(r.broker),
                    epoch: r.broker_epoch,
                    fenced: r.fenced,
                };
                self.image.brokers.insert(r.broker, broker);
            }
            Record::UnregisterBroker { broker } => {
                self.image.brokers.remove(&broker);
            }
            Record::BrokerFenced { broker, fenced, .. } => {
                if let Some(broker) = self.image.brokers.get_mut(&broker) {
                    broker.fenced = fenced;
                }
            }
            Record::Topic { name, id } => {
                let internal = super::topics::is_internal(&name);
                let config = self.image.config.topic.clone();
                let overrides = BTreeMap::new();
                let topic = Topic { id, name: name.into(), partitions: Vec::new(), overrides, config, internal };
                self.created.insert(topic.name.clone(), id);
                self.topics.insert(id, topic);
            }
            Record::Partition(p) => {
                let info = PartitionInfo {
                    leader: p.leader,
                    leader_epoch: p.leader_epoch,
                    replicas: p.replicas,
                    isr: p.isr,
                    partition_epoch: p.partition_epoch,
                };
                let index = usize::try_from(p.partition).ok().filter(|_| p.partition < PARTITIONS_MAX);
                if let (Some(topic), Some(index)) = (self.topic(p.topic), index) {
                    if topic.partitions.len() <= index {
                        topic.partitions.resize_with(index + 1, PartitionInfo::unassigned);
                    }
                    topic.partitions[index] = info;
                }
            }
            Record::PartitionChange(c) => {
                let partitions = self.topic(c.topic).map(|topic| &mut topic.partitions);
                let partition = partitions.and_then(|p| p.get_mut(usize::try_from(c.partition).ok()?));
                if let Some(partition) = partition {
                    partition.partition_epoch += 1;
                    partition.isr = c.isr.unwrap_or(std::mem::take(&mut partition.isr));
                    partition.replicas = c.replicas.unwrap_or(std::mem::take(&mut partition.replicas));
                    if let Some(leader) = c.leader {
                        partition.leader = leader;
                        partition.leader_epoch.0 += 1;
                    }
                }
            }
            Record::RemoveTopic { id } => {
                let changed = self.topics.remove(&id).map(|topic| topic.name);
                let shared = self.image.topics_by_id.remove(&id).map(|topic| topic.name.clone());
                if let Some(name) = changed.or(shared) {
                    self.image.topics.remove(&name);
                    self.created.remove(&name);
                }
            }
            Record::Config { resource_type: record::RESOURCE_TOPIC, resource_name, name, value } => {
                let created = self.created.get(&*resource_name).copied();
                let id = created.or_else(|| self.image.topic(&resource_name).map(|topic| topic.id));
                let Some(id) = id else { return };
                if let Some(topic) = self.topic(id) {
                    set(&mut topic.overrides, name, value);
                    self.reconfigured.insert(id);
                }
            }
            Record::Config { resource_type: record::RESOURCE_BROKER, resource_name, name, value } => {
                let node = match resource_name.parse() {
                    Ok(id) => Some(NodeId(id)),
                    Err(_) if resource_name.is_empty() => None,
                    Err(_) => return,
                };
                let configs = self.image.dynamic_configs.entry(node).or_default();
                set(configs, name, value);
                if configs.is_empty() {
                    self.image.dynamic_configs.remove(&node);
                }
                self.brokers_reconfigured = true;
            }
            Record::Config {
                resource_type: resource_type @ (record::RESOURCE_CLIENT_METRICS | record::RESOURCE_GROUP),
                resource_name,
                name,
                value,
            } => {
                let key = (resource_type, resource_name);
                let configs = self.image.named_configs.entry(key.clone()).or_default();
                set(configs, name, value);
                if configs.is_empty() {
                    self.image.named_configs.remove(&key);
                }
            }
            Record::FeatureLevel { name, level: 0 } => {
                self.image.features.remove(&name);
            }
            Record::FeatureLevel { name, level } => {
                self.image.features.insert(name, level);
            }
            Record::ProducerIds { next, .. } => self.image.next_producer_id = next,
            Record::Config { .. } | Record::NoOp | Record::Other { .. } => {}
            Record::BeginTransaction { .. } | Record::EndTransaction | Record::AbortTransaction => {}
        }
    }

    fn topic(&mut self, id: TopicId) -> Option<&mut Topic> {
        use std::collections::btree_map::Entry;
        match self.topics.entry(id) {
            Entry::Occupied(entry) => Some(entry.into_mut()),
            Entry::Vacant(entry) => self.image.topics_by_id.get(&id).map(|t| entry.insert(Topic::clone(t))),
        }
    }
}

impl PartitionInfo {
    /// A partition whose record has not come yet.
    fn unassigned() -> PartitionInfo {
        let (replicas, isr) = (Vec::new(), Vec::new());
        PartitionInfo { leader: NodeId(-1), leader_epoch: LeaderEpoch(-1), replicas, isr, partition_epoch: -1 }
    }
}

fn set(values: &mut BTreeMap<String, String>, name: String, value: Option<String>) {
    match value {
        Some(value) => drop(values.insert(name, value)),
        None => drop(values.remove(&name)),
    }
}

/// Dynamic settings were checked when they were made; those of a directory that Apache Kafka wrote may still ask for
/// something this broker cannot do: they are left out, and the log says so.
fn resolve_brokers(image: &ClusterImage, node: Option<NodeId>) -> BrokerConfig {
    let layers = image.layers(node);
    let mut own = layers.dynamic.cloned().unwrap_or_default();
    let mut of_all = layers.dynamic_default.cloned().unwrap_or_default();
    loop {
        let layers = Layers { dynamic: Some(&own), dynamic_default: Some(&of_all), ..layers };
        match BrokerConfig::resolve(&layers) {
            Ok(config) => return config,
            Err(problem) => match own.pop_first().or_else(|| of_all.pop_first()) {
                Some((name, value)) => log::warn!("dynamic broker setting {name}={value} is left out: {problem}"),
                None => return BrokerConfig::clone(&image.config),
            },
        }
    }
}

fn resolve_topic(image: &ClusterImage, topic: &Topic) -> Arc<TopicConfig> {
    if topic.overrides.is_empty() {
        return image.config.topic.clone();
    }
    let layers = image.layers(None);
    let config = TopicConfig::resolve(&topic.overrides, &layers).unwrap_or_else(|_| {
        let mut kept = BTreeMap::new();
        let mut config = TopicConfig::clone(&image.config.topic);
        for (name, value) in &topic.overrides {
            kept.insert(name.clone(), value.clone());
            match TopicConfig::resolve(&kept, &layers) {
                Ok(resolved) => config = resolved,
                Err(problem) => {
                    log::warn!("topic {}: setting {name}={value} is left out: {problem}", topic.name);
                    kept.remove(name);
                }
            }
        }
        config
    });
    Arc::new(config)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::cluster::record::{Partition, PartitionChange, RESOURCE_BROKER, RESOURCE_TOPIC};
    use crate::config::Settings;

    fn empty() -> ClusterImage {
        let config = Arc::new(BrokerConfig::kafka_default());
        ClusterImage::empty("cluster".into(), 2, Arc::new(Settings::default()), config)
    }

    fn fold(image: &ClusterImage, records: Vec<Record>) -> ClusterImage {
        let mut fold = Fold::new(image);
        records.into_iter().for_each(|record| fold.apply(record));
        fold.finish()
    }

    fn topic_records(name: &str, id: TopicId) -> Vec<Record> {
        let partition = |partition| {
            Record::Partition(Partition {
                partition,
                topic: id,
                replicas: vec![NodeId(1)],
                isr: vec![NodeId(1)],
                leader: NodeId(1),
                leader_epoch: LeaderEpoch(0),
                partition_epoch: 0,
                directories: Vec::new(),
            })
        };
        vec![Record::Topic { name: name.into(), id }, partition(0), partition(1)]
    }

    fn config(resource_type: i8, resource: &str, name: &str, value: Option<&str>) -> Record {
        let value = value.map(str::to_string);
        Record::Config { resource_type, resource_name: resource.into(), name: name.into(), value }
    }

    #[test]
    fn a_topic_comes_changes_and_goes() {
        let id = Uuid::from_u128(1);
        let mut records = topic_records("t", id);
        records.push(config(RESOURCE_TOPIC, "t", "retention.ms", Some("5")));
        let image = fold(&empty(), records);
        assert_eq!(image.epoch, 1);
        assert_eq!(image.topic("t").unwrap().config.retention_ms, Some(5));
        assert_eq!(image.led_by(NodeId(1)).count(), 2);

        let (topic, leader) = (id, Some(NodeId(2)));
        let change = PartitionChange { partition: 1, topic, leader, ..PartitionChange::default() };
        let image = fold(&image, vec![Record::PartitionChange(change)]);
        let moved = image.partition("t", 1).unwrap();
        assert_eq!((moved.leader, moved.leader_epoch, moved.partition_epoch), (NodeId(2), LeaderEpoch(1), 1));
        assert_eq!(image.topic_by_id(id).unwrap().partitions[1], *moved);

        let image = fold(&image, vec![config(RESOURCE_TOPIC, "t", "retention.ms", None)]);
        assert_eq!(image.topic("t").unwrap().config.retention_ms, Some(604_800_000));
        let image = fold(&image, vec![Record::RemoveTopic { id }]);
        assert!(image.topics.is_empty() && image.topics_by_id.is_empty());
    }

    #[test]
    fn a_broker_default_reaches_topics_that_set_nothing() {
        let image = fold(&empty(), topic_records("t", Uuid::from_u128(1)));
        let image = fold(&image, vec![config(RESOURCE_BROKER, "", "log.retention.ms", Some("7"))]);
        assert_eq!(image.topic("t").unwrap().config.retention_ms, Some(7));
        assert_eq!(image.config.topic.retention_ms, Some(7));
        let image = fold(&image, vec![config(RESOURCE_BROKER, "", "log.retention.ms", None)]);
        assert_eq!(image.topic("t").unwrap().config.retention_ms, Some(604_800_000));
        assert!(image.dynamic_configs.is_empty());

        let image = fold(&image, vec![config(RESOURCE_BROKER, "2", "log.retention.ms", Some("8"))]);
        let topic = image.topic("t").unwrap();
        assert_eq!(image.topic_config(topic, NodeId(1)).retention_ms, Some(604_800_000));
        assert_eq!(image.topic_config(topic, NodeId(2)).retention_ms, Some(8));
        assert_eq!(image.broker_config(NodeId(2)).topic.retention_ms, Some(8));
    }

    #[test]
    fn a_transaction_holds_only_when_it_ends() {
        let begin = || Record::BeginTransaction { name: None };
        let mut records = vec![begin()];
        records.extend(topic_records("lost", Uuid::from_u128(1)));
        records.push(Record::AbortTransaction);
        records.push(begin());
        records.extend(topic_records("kept", Uuid::from_u128(2)));
        records.push(Record::EndTransaction);
        records.push(begin());
        records.extend(topic_records("open", Uuid::from_u128(3)));
        let image = fold(&empty(), records);
        assert_eq!(image.topics.keys().map(|name| &**name).collect::<Vec<_>>(), ["kept"]);
    }

    #[test]
    fn settings_that_cannot_be_honoured_are_left_out() {
        let mut records = topic_records("t", Uuid::from_u128(1));
        records.push(config(RESOURCE_TOPIC, "t", "compression.type", Some("zstd")));
        records.push(config(RESOURCE_TOPIC, "t", "retention.ms", Some("5")));
        records.push(config(RESOURCE_TOPIC, "t", "message.format.version", Some("2.8")));
        let image = fold(&empty(), records);
        assert_eq!(image.topic("t").unwrap().config.retention_ms, Some(5));
        assert_eq!(image.topic("t").unwrap().overrides.len(), 3);
    }
}
