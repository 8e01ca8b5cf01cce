//! Metadata (key 3), versions 0..=13: which brokers there are, and who leads each partition.
//!
//! - Every shard answers for the whole cluster; each core is a broker with a port of its own.
//! - A topic that does not exist and is asked for by name is created, if the request and `auto.create.topics.enable` allow
//!   it. The reply comes when every shard knows it, but says UNKNOWN_TOPIC_OR_PARTITION as Kafka's does: clients ask again,
//!   and one that looks whether a topic is gone is told so.
//! - Any shard passes admin requests on, so each names itself as the controller.
//!
//! v0: no topics means all of them, later that is null.  v4: auto-creation is the client's choice.  v7: leader epochs.
//! v10: topic ids.  v12: topics can be asked for by id alone.  v13: an error for the whole reply.

use std::collections::{HashMap, HashSet};

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse};

use super::topology::{
    CLUSTER_OPERATIONS, OPERATIONS_NOT_ASKED, TOPIC_OPERATIONS, broker_ids, offline_replicas, partition_error, rack,
    text,
};
use super::{Context, Outcome, ReplyTo, Request};
use crate::cluster::image::{ClusterImage, Topic};
use crate::cluster::topics::{check_name, wire_name};
use crate::decode_or_close;
use crate::ids::TopicName;
use crate::mailbox::{Cause, ControlAnswer, ControlRequest};
use crate::wire::error_code::ErrorCode;

/// Versions before have a field for a topic's id, but replies in which no name may be missing.
const BY_ID_SINCE: i16 = 12;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: MetadataRequest = decode_or_close!(request);
    if request.to.version < BY_ID_SINCE && message.topics.iter().flatten().any(is_by_id) {
        return context.reply(request.to, &refused(&message));
    }
    let image = &context.broker.image;
    let may_create = image.config.auto_create_topics && (request.to.version < 4 || message.allow_auto_topic_creation);
    if may_create {
        let names = missing(image, message.topics.as_deref().unwrap_or_default());
        if !names.is_empty() {
            let request = ControlRequest::AutoCreateTopics { names, cause: Cause::Metadata(message) };
            return Outcome::Ask(request, finish);
        }
    }
    answer(context, request.to, &message, &[])
}

fn is_by_id(asked: &MetadataRequestTopic) -> bool {
    asked.name.is_none() || !asked.topic_id.is_nil()
}

/// Says no to all of it, as Kafka does.
fn refused(message: &MetadataRequest) -> MetadataResponse {
    let row = |asked: &MetadataRequestTopic| {
        MetadataResponseTopic::default()
            .with_error_code(ErrorCode::InvalidRequest.code())
            .with_name(Some(asked.name.clone().unwrap_or_else(|| wire_name(""))))
            .with_topic_id(asked.topic_id)
    };
    MetadataResponse::default().with_topics(message.topics.iter().flatten().map(row).collect())
}

fn finish(context: &mut Context<'_>, to: ReplyTo, answer_of_control: ControlAnswer) -> Outcome {
    match answer_of_control {
        ControlAnswer::AutoCreatedTopics { topics, cause: Cause::Metadata(message) } => {
            answer(context, to, &message, &topics)
        }
        // The metadata log failed: the client asks again.
        _ => Outcome::Close,
    }
}

/// Names that could be created.
fn missing(image: &ClusterImage, asked: &[MetadataRequestTopic]) -> Vec<TopicName> {
    let by_name = asked.iter().filter(|topic| topic.topic_id.is_nil()).filter_map(|topic| topic.name.as_deref());
    let missing = by_name.filter(|name| image.topic(name).is_none() && check_name(name).is_ok());
    missing.map(|name| TopicName::from(name.as_str())).collect()
}

/// `created`: topics that came into being, or failed to, because this request names them.
fn answer(context: &mut Context<'_>, to: ReplyTo, message: &MetadataRequest, created: &[(TopicName, i16)]) -> Outcome {
    let image = context.broker.image.clone();
    let brokers = image.alive_brokers().map(|broker| {
        let row = MetadataResponseBroker::default()
            .with_node_id(BrokerId(broker.id.0))
            .with_host(text(&broker.host))
            .with_port(i32::from(broker.port));
        if to.version >= 1 { row.with_rack(rack(broker)) } else { row }
    });
    let mut response = MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_controller_id(BrokerId(context.broker.node.0))
        .with_cluster_id(Some(text(&image.cluster_id)));
    response.cluster_authorized_operations = match (8..=10).contains(&to.version) {
        true if message.include_cluster_authorized_operations => CLUSTER_OPERATIONS,
        _ => OPERATIONS_NOT_ASKED,
    };
    let all = match &message.topics {
        None => true,
        Some(topics) => topics.is_empty() && to.version == 0,
    };
    let operations = match message.include_topic_authorized_operations {
        true => TOPIC_OPERATIONS,
        false => OPERATIONS_NOT_ASKED,
    };
    let row = |topic: &Topic| topic_row(&image, topic).with_topic_authorized_operations(operations);
    let created: HashMap<&str, i16> = created.iter().map(|(name, code)| (&**name, *code)).collect();
    response.topics = match all {
        true => image.topics.values().map(|topic| row(topic)).collect(),
        false => {
            let asked = message.topics.as_deref().unwrap_or_default();
            // One that is named twice is told once.
            let mut seen = HashSet::new();
            let asked = asked.iter().filter(|topic| seen.insert((topic.topic_id, &topic.name)));
            asked.map(|asked| find(&image, asked, operations, &created).map_or_else(|error| error, row)).collect()
        }
    };
    context.reply(to, &response)
}

fn find<'a>(
    image: &'a ClusterImage,
    asked: &MetadataRequestTopic,
    operations: i32,
    created: &HashMap<&str, i16>,
) -> Result<&'a Topic, MetadataResponseTopic> {
    let error = |code: i16| {
        // What one may do to a topic is told even if it is not there, but for one that nobody knows the name of.
        let operations = if asked.topic_id.is_nil() { operations } else { OPERATIONS_NOT_ASKED };
        let row = MetadataResponseTopic::default().with_error_code(code).with_topic_id(asked.topic_id);
        row.with_topic_authorized_operations(operations)
    };
    if !asked.topic_id.is_nil() {
        let unknown = || error(ErrorCode::UnknownTopicId.code()).with_name(None);
        return image.topic_by_id(asked.topic_id).map(|topic| &**topic).ok_or_else(unknown);
    }
    let Some(name) = &asked.name else {
        return Err(error(ErrorCode::InvalidTopicException.code()).with_name(Some(wire_name(""))));
    };
    let code = match created.get(name.as_str()) {
        Some(0) => ErrorCode::UnknownTopicOrPartition.code(),
        Some(failure) => *failure,
        None => match (image.topic(name), check_name(name)) {
            (Some(topic), _) => return Ok(topic),
            (None, Err(refused)) => refused.code.code(),
            (None, Ok(())) => ErrorCode::UnknownTopicOrPartition.code(),
        },
    };
    Err(error(code).with_name(Some(name.clone())))
}

fn topic_row(image: &ClusterImage, topic: &Topic) -> MetadataResponseTopic {
    let partitions = topic.partitions.iter().enumerate().map(|(index, partition)| {
        MetadataResponsePartition::default()
            .with_error_code(partition_error(image, partition))
            .with_partition_index(index as i32)
            .with_leader_id(BrokerId(partition.leader.0))
            .with_leader_epoch(partition.leader_epoch.0)
            .with_replica_nodes(broker_ids(&partition.replicas))
            .with_isr_nodes(broker_ids(&partition.isr))
            .with_offline_replicas(offline_replicas(image, partition))
    });
    MetadataResponseTopic::default()
        .with_name(Some(wire_name(&topic.name)))
        .with_topic_id(topic.id)
        .with_is_internal(topic.internal)
        .with_partitions(partitions.collect())
}
