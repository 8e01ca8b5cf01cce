//! DescribeTopicPartitions (key 75), version 0: partitions of topics in pages (KIP-966). Kafka's own tools and the Java
//! admin client describe topics by it.
//!
//! Topics come in the order of their names; no topics in the request means all. A page ends after
//! `max.request.partition.size.limit` partitions, and the cursor says where the next begins. The lists of eligible
//! leaders are empty, never null. A cursor must point to a topic of the request.

use std::collections::BTreeSet;

use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};

use super::topology::{TOPIC_OPERATIONS, broker_ids, offline_replicas, partition_error};
use super::{Context, Outcome, Request};
use crate::cluster::image::{ClusterImage, Topic};
use crate::cluster::topics::{check_name, wire_name};
use crate::decode_or_close;
use crate::wire::error_code::ErrorCode;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: DescribeTopicPartitionsRequest = decode_or_close!(request);
    let response = page(&context.broker.image, &message);
    context.reply(request.to, &response)
}

fn page(image: &ClusterImage, message: &DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let cursor = message.cursor.as_ref();
    if let Some(cursor) = cursor {
        let is_asked = message.topics.is_empty() || message.topics.iter().any(|topic| topic.name == cursor.topic_name);
        if cursor.partition_index < 0 || !is_asked {
            return refused(message);
        }
    }
    let first_name = cursor.map_or("", |cursor| cursor.topic_name.as_str());
    let all = message.topics.is_empty();
    let mut names: BTreeSet<&str> = match all {
        true => image.topics.keys().map(|name| &**name).collect(),
        false => message.topics.iter().map(|topic| topic.name.as_str()).collect(),
    };
    let mut left = image.config.request_partitions_max.min(message.response_partition_limit).max(1) as usize;
    let mut response = DescribeTopicPartitionsResponse::default();
    names.retain(|name| *name >= first_name);
    for name in names {
        let Some(topic) = image.topic(name) else {
            response.topics.push(unknown(name));
            continue;
        };
        let first = match cursor {
            Some(cursor) if cursor.topic_name.as_str() == name => usize::try_from(cursor.partition_index).unwrap_or(0),
            _ => 0,
        };
        if left == 0 && first < topic.partitions.len() {
            response.next_cursor = Some(cursor_at(name, first));
            return response;
        }
        let count = topic.partitions.len().saturating_sub(first).min(left);
        left -= count;
        response.topics.push(row(image, topic, first, count));
        if first + count < topic.partitions.len() {
            response.next_cursor = Some(cursor_at(name, first + count));
            return response;
        }
    }
    response
}

fn cursor_at(name: &str, partition: usize) -> Cursor {
    Cursor::default().with_topic_name(wire_name(name)).with_partition_index(partition as i32)
}

fn refused(message: &DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let topics = message.topics.iter().map(|topic| {
        DescribeTopicPartitionsResponseTopic::default()
            .with_error_code(ErrorCode::InvalidRequest.code())
            .with_name(Some(topic.name.clone()))
    });
    DescribeTopicPartitionsResponse::default().with_topics(topics.collect())
}

fn unknown(name: &str) -> DescribeTopicPartitionsResponseTopic {
    let code = check_name(name).map_or_else(|refused| refused.code, |()| ErrorCode::UnknownTopicOrPartition);
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(code.code())
        .with_name(Some(wire_name(name)))
        .with_topic_authorized_operations(TOPIC_OPERATIONS)
}

fn row(image: &ClusterImage, topic: &Topic, first: usize, count: usize) -> DescribeTopicPartitionsResponseTopic {
    let partitions = topic.partitions.iter().enumerate().skip(first).take(count).map(|(index, partition)| {
        DescribeTopicPartitionsResponsePartition::default()
            .with_error_code(partition_error(image, partition))
            .with_partition_index(index as i32)
            .with_leader_id(BrokerId(partition.leader.0))
            .with_leader_epoch(partition.leader_epoch.0)
            .with_replica_nodes(broker_ids(&partition.replicas))
            .with_isr_nodes(broker_ids(&partition.isr))
            .with_eligible_leader_replicas(Some(Vec::new()))
            .with_last_known_elr(Some(Vec::new()))
            .with_offline_replicas(offline_replicas(image, partition))
    });
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(wire_name(&topic.name)))
        .with_topic_id(topic.id)
        .with_is_internal(topic.internal)
        .with_partitions(partitions.collect())
        .with_topic_authorized_operations(TOPIC_OPERATIONS)
}
