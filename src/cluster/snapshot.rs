//! An image as the shortest list of records that folds into it: what a snapshot of the metadata log holds.

use uuid::Uuid;

use super::image::ClusterImage;
use super::record::{Partition, RESOURCE_BROKER, RESOURCE_TOPIC, Record, RegisterBroker};

/// The records. `directory` is the data directory of this host.
pub fn records(image: &ClusterImage, directory: Uuid) -> Vec<Record> {
    let mut records = Vec::new();
    // A log or snapshot begins with the level that is needed to read it.
    let (first, others): (Vec<_>, Vec<_>) = image.features.iter().partition(|(name, _)| *name == "metadata.version");
    for (name, level) in first.into_iter().chain(others) {
        records.push(Record::FeatureLevel { name: name.clone(), level: *level });
    }
    for broker in image.brokers.values() {
        records.push(Record::RegisterBroker(RegisterBroker {
            broker: broker.id,
            incarnation: Uuid::nil(),
            broker_epoch: broker.epoch,
            endpoints: vec![("PLAINTEXT".to_string(), broker.host.to_string(), broker.port)],
            features: Vec::new(),
            rack: broker.rack.as_deref().map(str::to_string),
            fenced: broker.fenced,
            log_dirs: vec![directory],
        }));
    }
    for topic in image.topics.values() {
        records.push(Record::Topic { name: topic.name.to_string(), id: topic.id });
        for (index, partition) in topic.partitions.iter().enumerate() {
            records.push(Record::Partition(Partition {
                partition: index as i32,
                topic: topic.id,
                replicas: partition.replicas.clone(),
                isr: partition.isr.clone(),
                leader: partition.leader,
                leader_epoch: partition.leader_epoch,
                partition_epoch: partition.partition_epoch,
                directories: vec![directory; partition.replicas.len()],
            }));
        }
        records.extend(topic.overrides.iter().map(|(name, value)| Record::Config {
            resource_type: RESOURCE_TOPIC,
            resource_name: topic.name.to_string(),
            name: name.clone(),
            value: Some(value.clone()),
        }));
    }
    for (node, configs) in &image.dynamic_configs {
        records.extend(configs.iter().map(|(name, value)| Record::Config {
            resource_type: RESOURCE_BROKER,
            resource_name: node.map(|node| node.to_string()).unwrap_or_default(),
            name: name.clone(),
            value: Some(value.clone()),
        }));
    }
    for ((resource_type, resource_name), configs) in &image.named_configs {
        records.extend(configs.iter().map(|(name, value)| Record::Config {
            resource_type: *resource_type,
            resource_name: resource_name.clone(),
            name: name.clone(),
            value: Some(value.clone()),
        }));
    }
    if let Some(node) = image.brokers.keys().next() {
        records.push(Record::ProducerIds { broker: *node, broker_epoch: -1, next: image.next_producer_id });
    }
    records
}
