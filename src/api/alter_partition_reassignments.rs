//! AlterPartitionReassignments (key 45), versions 0..=1: a partition stays on its core until the next start, so only what is
//! so already is accepted. Nothing is ever under way that could be cancelled.

use kafka_protocol::messages::alter_partition_reassignments_request::ReassignablePartition;
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Context, Outcome, Request};
use crate::cluster::image::{ClusterImage, PartitionInfo};
use crate::decode_or_close;
use crate::wire::error_code::ErrorCode;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: AlterPartitionReassignmentsRequest = decode_or_close!(request);
    let image = &context.broker.image;
    let topics = message.topics.iter().map(|topic| {
        let rows = topic.partitions.iter().map(|asked| {
            let (code, text) = match image.partition(&topic.name, asked.partition_index) {
                Some(partition) => outcome(partition, asked),
                None => (ErrorCode::UnknownTopicOrPartition, Some(absent(image, &topic.name, asked.partition_index))),
            };
            ReassignablePartitionResponse::default()
                .with_partition_index(asked.partition_index)
                .with_error_code(code.code())
                .with_error_message(text.map(StrBytes::from))
        });
        ReassignableTopicResponse::default().with_name(topic.name.clone()).with_partitions(rows.collect())
    });
    let response =
        AlterPartitionReassignmentsResponse::default().with_error_message(None).with_responses(topics.collect());
    let response = match request.to.version {
        0 => response,
        _ => response.with_allow_replication_factor_change(message.allow_replication_factor_change),
    };
    context.reply(request.to, &response)
}

fn absent(image: &ClusterImage, topic: &str, index: i32) -> String {
    match image.topic(topic) {
        Some(_) => format!("Unable to find partition {topic}:{index}."),
        None => format!("Unable to find a topic named {topic}."),
    }
}

fn outcome(partition: &PartitionInfo, asked: &ReassignablePartition) -> (ErrorCode, Option<String>) {
    match &asked.replicas {
        None => (ErrorCode::NoReassignmentInProgress, None),
        Some(replicas) if replicas.iter().map(|id| id.0).eq(partition.replicas.iter().map(|id| id.0)) => {
            (ErrorCode::None, None)
        }
        Some(_) => (
            ErrorCode::InvalidReplicaAssignment,
            Some("Partitions change cores only when the broker starts with another number of cores.".to_string()),
        ),
    }
}
