//! Topics come, grow and go: from a request and the image to records and a response, with Kafka's checks and words.
//! Pure: what the records do is done by folding them.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    BrokerId, CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse, TopicName as WireTopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::image::{ClusterImage, Topic};
use super::placement::Loads;
use super::record::{Partition, RESOURCE_TOPIC, Record};
use super::{Refused, refused, repeated};
use crate::config::TopicConfig;
use crate::ids::{LeaderEpoch, NodeId, TopicId};
use crate::limits::DESCRIBED_SETTINGS_MAX;
use crate::wire::error_code::ErrorCode;

/// The topic of committed offsets.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// The topic of transactions.
pub const TRANSACTIONS_TOPIC: &str = "__transaction_state";
/// The metadata log's own name: no topic can have it.
pub const METADATA_TOPIC: &str = "__cluster_metadata";
/// What is said of a topic or partition that is not there.
pub const NOT_HOSTED: &str = "This server does not host this topic-partition.";
/// Partitions that one request may create.
const PARTITIONS_CREATED_MAX: i32 = 100_000;
const NAME_LENGTH_MAX: usize = 249;

/// A topic's own settings.
type Overrides = BTreeMap<String, String>;

/// The topics that brokers keep for themselves.
pub fn is_internal(name: &str) -> bool {
    matches!(name, OFFSETS_TOPIC | TRANSACTIONS_TOPIC | "__share_group_state")
}

/// Whether a topic can have this name. The error is Kafka's sentence.
pub fn check_name(name: &str) -> Result<(), Refused> {
    let problem = match name {
        "" => "the empty string is not allowed".to_string(),
        "." | ".." => format!("'{name}' is not allowed"),
        _ if name.len() > NAME_LENGTH_MAX => {
            format!("the length of '{name}' is longer than the max allowed length {NAME_LENGTH_MAX}")
        }
        _ if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) => {
            format!("'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'")
        }
        _ => return Ok(()),
    };
    Err(refused(ErrorCode::InvalidTopicException, format!("Topic name is invalid: {problem}")))
}

/// What creating needs besides image and request.
pub struct Creation<'a> {
    /// Makes the ids of new topics.
    pub new_id: &'a mut dyn FnMut() -> TopicId,
    /// Id of this host's data directory.
    pub directory: Uuid,
}

/// CreateTopics.
pub fn create(
    image: &ClusterImage,
    request: &CreateTopicsRequest,
    creation: &mut Creation<'_>,
) -> (Vec<Record>, CreateTopicsResponse) {
    let repeated = repeated(request.topics.iter().map(|topic| topic.name.as_str()));
    let mut loads = Loads::of(image);
    let mut records = Vec::new();
    let mut results = Vec::new();
    for name in &repeated {
        results.push(failed(name, refused(ErrorCode::InvalidRequest, "Duplicate topic name.")));
    }
    let mut partitions_left = PARTITIONS_CREATED_MAX;
    let mut described = 0;
    let mut unified: Option<BTreeMap<String, String>> = None;
    for topic in request.topics.iter().filter(|topic| !repeated.contains(topic.name.as_str())) {
        let result = check_new_name(image, &topic.name, &mut unified)
            .and_then(|()| create_one(image, topic, &mut loads, creation, &mut partitions_left));
        match result {
            Ok((mut topic_records, overrides, mut result)) => {
                records.append(&mut topic_records);
                match described {
                    0..DESCRIBED_SETTINGS_MAX => {
                        let configs = self::described(image, &overrides);
                        described += configs.len();
                        result.configs = Some(configs);
                    }
                    // The topic is made all the same: Kafka's way to say that its settings are not told.
                    _ => {
                        result.configs = None;
                        result.topic_config_error_code = ErrorCode::InvalidRequest.code();
                    }
                }
                results.push(result);
            }
            Err(error) => results.push(failed(&topic.name, error)),
        }
    }
    if request.validate_only {
        records.clear();
    }
    (records, CreateTopicsResponse::default().with_topics(results))
}

fn failed(name: &str, error: Refused) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(wire_name(name))
        .with_error_code(error.code.code())
        .with_error_message(error.message.map(StrBytes::from))
        .with_configs(Some(Vec::new()))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
}

fn check_new_name(
    image: &ClusterImage,
    name: &str,
    unified: &mut Option<BTreeMap<String, String>>,
) -> Result<(), Refused> {
    if name == METADATA_TOPIC {
        let message = format!("Creation of internal topic {METADATA_TOPIC} is prohibited.");
        return Err(refused(ErrorCode::InvalidRequest, message));
    }
    check_name(name)?;
    if image.topic(name).is_some() {
        return Err(refused(ErrorCode::TopicAlreadyExists, format!("Topic '{name}' already exists.")));
    }
    // Metric names replace '.' by '_', so names that differ only in them would be mixed up.
    if name.contains(['.', '_']) {
        let with_them = image.topics.keys().filter(|name| name.contains(['.', '_']));
        let unified = unified.get_or_insert_with(|| with_them.map(|n| (n.replace('.', "_"), n.to_string())).collect());
        if let Some(existing) = unified.get(&name.replace('.', "_")) {
            let message = format!("Topic '{name}' collides with existing topic: {existing}");
            return Err(refused(ErrorCode::InvalidTopicException, message));
        }
        unified.insert(name.replace('.', "_"), name.to_string());
    }
    Ok(())
}

fn create_one(
    image: &ClusterImage,
    topic: &CreatableTopic,
    loads: &mut Loads,
    creation: &mut Creation<'_>,
    partitions_left: &mut i32,
) -> Result<(Vec<Record>, Overrides, CreatableTopicResult), Refused> {
    let mut overrides = BTreeMap::new();
    let without_value = topic.configs.iter().filter(|c| c.value.is_none());
    let nulls: Vec<&str> = without_value.map(|c| c.name.as_str()).collect();
    if !nulls.is_empty() {
        let message = format!("Null value not supported for topic configs: {}", nulls.join(","));
        return Err(refused(ErrorCode::InvalidConfig, message));
    }
    for config in &topic.configs {
        overrides.insert(config.name.to_string(), config.value.as_deref().unwrap_or_default().to_string());
    }
    TopicConfig::resolve(&overrides, &image.layers(None)).map_err(|m| refused(ErrorCode::InvalidConfig, m))?;

    let leaders = if topic.assignments.is_empty() {
        let count = partition_count(image, topic)?;
        take_partitions(partitions_left, count)?;
        let leaders = loads.place(&[], count as usize);
        if leaders.is_empty() {
            let message = "Unable to replicate the partition 1 time(s): All brokers are currently fenced.";
            return Err(refused(ErrorCode::InvalidReplicationFactor, message));
        }
        leaders
    } else {
        let leaders = assigned_leaders(image, topic)?;
        take_partitions(partitions_left, leaders.len() as i32)?;
        leaders
    };

    let id = (creation.new_id)();
    let mut records = vec![Record::Topic { name: topic.name.to_string(), id }];
    records.extend(overrides.iter().map(|(name, value)| Record::Config {
        resource_type: RESOURCE_TOPIC,
        resource_name: topic.name.to_string(),
        name: name.clone(),
        value: Some(value.clone()),
    }));
    records.extend(leaders.iter().enumerate().map(|(index, l)| partition(id, index as i32, *l, creation.directory)));
    let result = CreatableTopicResult::default()
        .with_name(topic.name.clone())
        .with_topic_id(id)
        .with_error_message(None)
        .with_num_partitions(leaders.len() as i32)
        .with_replication_factor(1);
    Ok((records, overrides, result))
}

fn partition_count(image: &ClusterImage, topic: &CreatableTopic) -> Result<i32, Refused> {
    let replicas = match topic.replication_factor {
        -1 => image.config.replication_factor_default,
        factor if factor <= 0 => {
            let message = "Replication factor must be larger than 0, or -1 to use the default value.";
            return Err(refused(ErrorCode::InvalidReplicationFactor, message));
        }
        factor => factor,
    };
    let count = match topic.num_partitions {
        -1 => image.config.partitions_default,
        count if count <= 0 => {
            let message = "Number of partitions was set to an invalid non-positive value.";
            return Err(refused(ErrorCode::InvalidPartitions, message));
        }
        count => count,
    };
    if replicas > 1 {
        let message = format!(
            "Unable to replicate the partition {replicas} time(s): The target replication factor of {replicas} cannot \
             be reached because replicas never share a host and only 1 host is registered."
        );
        return Err(refused(ErrorCode::InvalidReplicationFactor, message));
    }
    Ok(count)
}

fn take_partitions(left: &mut i32, count: i32) -> Result<(), Refused> {
    *left = left.checked_sub(count).filter(|left| *left >= 0).ok_or_else(|| {
        let message = format!("Excessively large number of partitions per request (at most {PARTITIONS_CREATED_MAX}).");
        refused(ErrorCode::PolicyViolation, message)
    })?;
    Ok(())
}

fn assigned_leaders(image: &ClusterImage, topic: &CreatableTopic) -> Result<Vec<NodeId>, Refused> {
    let invalid = |message: &str| refused(ErrorCode::InvalidRequest, message);
    if topic.replication_factor != -1 {
        return Err(invalid("A manual partition assignment was specified, but replication factor was not set to -1."));
    }
    if topic.num_partitions != -1 {
        return Err(invalid("A manual partition assignment was specified, but numPartitions was not set to -1."));
    }
    let mut leaders = BTreeMap::new();
    for assignment in &topic.assignments {
        let leader = assigned_leader(image, &assignment.broker_ids)?;
        if leaders.insert(assignment.partition_index, leader).is_some() {
            let message =
                format!("Found multiple manual partition assignments for partition {}", assignment.partition_index);
            return Err(refused(ErrorCode::InvalidReplicaAssignment, message));
        }
    }
    if !leaders.keys().copied().eq(0..leaders.len() as i32) {
        let message = "partitions should be a consecutive 0-based integer sequence";
        return Err(refused(ErrorCode::InvalidReplicaAssignment, message));
    }
    Ok(leaders.into_values().collect())
}

fn assigned_leader(image: &ClusterImage, brokers: &[BrokerId]) -> Result<NodeId, Refused> {
    let invalid = |message: String| refused(ErrorCode::InvalidReplicaAssignment, message);
    let mut seen = BTreeSet::new();
    for broker in brokers {
        if !image.brokers.contains_key(&NodeId(broker.0)) {
            return Err(invalid(format!(
                "The manual partition assignment includes broker {}, but no such broker is registered.",
                broker.0
            )));
        }
        if !seen.insert(broker.0) {
            return Err(invalid(format!(
                "The manual partition assignment includes the broker {} more than once.",
                broker.0
            )));
        }
    }
    let [leader] = brokers else {
        let message = if brokers.is_empty() {
            "The manual partition assignment includes an empty replica list."
        } else {
            "The manual partition assignment includes several brokers of one host; replicas never share a host."
        };
        return Err(invalid(message.to_string()));
    };
    let leader = NodeId(leader.0);
    if image.brokers.get(&leader).is_some_and(|broker| broker.fenced) {
        let message = "All brokers specified in the manual partition assignment are fenced or in controlled shutdown.";
        return Err(invalid(message.to_string()));
    }
    Ok(leader)
}

fn partition(topic: TopicId, index: i32, leader: NodeId, directory: Uuid) -> Record {
    Record::Partition(Partition {
        partition: index,
        topic,
        replicas: vec![leader],
        isr: vec![leader],
        leader,
        leader_epoch: LeaderEpoch(0),
        partition_epoch: 0,
        directories: vec![directory],
    })
}

fn described(image: &ClusterImage, overrides: &Overrides) -> Vec<CreatableTopicConfigs> {
    let layers = image.layers(None);
    TopicConfig::described_keys()
        .map(|key| {
            let found = layers.topic_values(key, overrides).swap_remove(0);
            CreatableTopicConfigs::default()
                .with_name(StrBytes::from_static_str(key.name))
                .with_value(found.value.map(|value| StrBytes::from(value.into_owned())))
                .with_config_source(found.source as i8)
        })
        .collect()
}

/// DeleteTopics.
pub fn delete(image: &ClusterImage, request: &DeleteTopicsRequest) -> (Vec<Record>, DeleteTopicsResponse) {
    let by_name = request.topic_names.iter().map(|name| (Some(name), Uuid::nil()));
    let by_either = request.topics.iter().map(|topic| (topic.name.as_ref(), topic.topic_id));
    let asked: Vec<_> = by_name.chain(by_either).collect();
    let mut records = Vec::new();
    let mut results = Vec::new();
    let mut done = BTreeSet::new();
    let by_key = |(name, id): &(Option<&WireTopicName>, Uuid)| (name.map(|name| name.to_string()), *id);
    let repeated = repeated(asked.iter().map(by_key));
    let mut answered = BTreeSet::new();
    for (name, id) in &asked {
        let key = by_key(&(*name, *id));
        let repeated = repeated.contains(&key);
        if !answered.insert(key) {
            continue;
        }
        let result = find_deletable(image, *name, *id, repeated, &mut done);
        let (topic, error) = match result {
            Ok(topic) => (Some(topic), None),
            Err(error) => (None, Some(error)),
        };
        records.extend(topic.map(|topic| Record::RemoveTopic { id: topic.id }));
        let found_name = topic.map(|topic| wire_name(&topic.name));
        results.push(
            DeletableTopicResult::default()
                .with_name(found_name.or(name.cloned()))
                .with_topic_id(topic.map_or(*id, |topic| topic.id))
                .with_error_code(error.as_ref().map_or(0, |e| e.code.code()))
                .with_error_message(error.and_then(|e| e.message).map(StrBytes::from)),
        );
    }
    (records, DeleteTopicsResponse::default().with_responses(results))
}

fn find_deletable<'a>(
    image: &'a ClusterImage,
    name: Option<&WireTopicName>,
    id: TopicId,
    repeated: bool,
    done: &mut BTreeSet<TopicId>,
) -> Result<&'a Topic, Refused> {
    let invalid = |message: &str| Err(refused(ErrorCode::InvalidRequest, message));
    if !image.config.delete_topics {
        return Err(refused(ErrorCode::TopicDeletionDisabled, "Topic deletion is disabled."));
    }
    let topic = match (name, id.is_nil()) {
        (None, true) => return invalid("Neither topic name nor id were specified."),
        (Some(_), false) => return invalid("You may not specify both topic name and topic id."),
        (Some(_), true) if repeated => return invalid("Duplicate topic name."),
        (None, false) if repeated => return invalid("Duplicate topic id."),
        (Some(name), true) => {
            image.topic(name).ok_or_else(|| refused(ErrorCode::UnknownTopicOrPartition, NOT_HOSTED))?
        }
        (None, false) => image
            .topic_by_id(id)
            .ok_or_else(|| refused(ErrorCode::UnknownTopicId, "This server does not host this topic ID."))?,
    };
    if !done.insert(topic.id) {
        return invalid("The provided topic name maps to an ID that was already supplied.");
    }
    Ok(topic)
}

/// CreatePartitions.
pub fn add_partitions(
    image: &ClusterImage,
    request: &CreatePartitionsRequest,
    directory: Uuid,
) -> (Vec<Record>, CreatePartitionsResponse) {
    let mut loads = Loads::of(image);
    let mut records = Vec::new();
    let mut left = PARTITIONS_CREATED_MAX;
    let repeated = repeated(request.topics.iter().map(|topic| topic.name.as_str()));
    let results = request.topics.iter().map(|topic| {
        let result = if repeated.contains(topic.name.as_str()) {
            Err(refused(ErrorCode::InvalidRequest, "Duplicate topic in request."))
        } else {
            add_partitions_to(image, topic, &mut loads, &mut left)
        };
        let mut reply = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
        match result {
            Ok((existing, leaders)) => {
                let first = existing.partitions.len();
                let added = leaders.iter().enumerate();
                records.extend(added.map(|(i, l)| partition(existing.id, (first + i) as i32, *l, directory)));
            }
            Err(error) => {
                reply.error_code = error.code.code();
                reply.error_message = error.message.map(StrBytes::from);
            }
        }
        reply
    });
    let response = CreatePartitionsResponse::default().with_results(results.collect());
    if request.validate_only {
        records.clear();
    }
    (records, response)
}

fn add_partitions_to<'a>(
    image: &'a ClusterImage,
    topic: &CreatePartitionsTopic,
    loads: &mut Loads,
    left: &mut i32,
) -> Result<(&'a Topic, Vec<NodeId>), Refused> {
    let existing =
        image.topic(&topic.name).ok_or(Refused { code: ErrorCode::UnknownTopicOrPartition, message: None })?;
    let have = existing.partitions.len() as i32;
    let invalid = |message: String| Err(refused(ErrorCode::InvalidPartitions, message));
    if topic.count == have {
        return invalid(format!("Topic already has {have} partition(s)."));
    }
    if topic.count < have {
        return invalid(format!(
            "The topic {} currently has {have} partition(s); {} would not be an increase.",
            &*topic.name, topic.count
        ));
    }
    let additional = topic.count - have;
    take_partitions(left, additional)?;
    if let Some(assignments) = &topic.assignments {
        if assignments.len() != additional as usize {
            let message = format!(
                "Attempted to add {additional} additional partition(s), but only {} assignment(s) were specified.",
                assignments.len()
            );
            return Err(refused(ErrorCode::InvalidReplicaAssignment, message));
        }
        let leaders = assignments.iter().map(|a| assigned_leader(image, &a.broker_ids)).collect::<Result<_, _>>()?;
        return Ok((existing, leaders));
    }
    let leaders = loads.place(&existing.partitions, additional as usize);
    if leaders.is_empty() {
        let message = "Unable to replicate the partition 1 time(s): All brokers are currently fenced.";
        return Err(refused(ErrorCode::InvalidReplicationFactor, message));
    }
    Ok((existing, leaders))
}

/// The request that a client's asking for topics which do not exist amounts to.
pub fn auto_creation(image: &ClusterImage, names: &[impl AsRef<str>]) -> CreateTopicsRequest {
    use kafka_protocol::messages::create_topics_request::CreatableTopicConfig;
    let config = |name: &'static str, value: String| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_static_str(name))
            .with_value(Some(StrBytes::from(value)))
    };
    let topics = names.iter().map(|name| {
        let name = name.as_ref();
        let topic = CreatableTopic::default().with_name(wire_name(name)).with_num_partitions(-1);
        let topic = topic.with_replication_factor(-1);
        let offsets = &image.config.offsets;
        match name {
            OFFSETS_TOPIC => topic
                .with_num_partitions(offsets.topic_partitions)
                .with_replication_factor(offsets.topic_replication_factor)
                .with_configs(vec![
                    config("cleanup.policy", "compact".to_string()),
                    config("compression.type", "producer".to_string()),
                    config("segment.bytes", offsets.topic_segment_bytes.max(1 << 20).to_string()),
                ]),
            _ => topic,
        }
    });
    CreateTopicsRequest::default().with_topics(topics.collect())
}

/// A name as the protocol crate has it.
pub fn wire_name(name: &str) -> WireTopicName {
    WireTopicName(StrBytes::from(name.to_string()))
}

#[cfg(test)]
mod tests;
