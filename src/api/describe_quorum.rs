//! DescribeQuorum (key 55), versions 0..=2: who keeps the metadata log. It is the control thread of this process alone, which
//! goes by the node id of the first shard.
//!
//! v1: when each replica fetched last. v2: directories, listeners, an error message.

use kafka_protocol::messages::describe_quorum_response::{Listener, Node, PartitionData, ReplicaState, TopicData};
use kafka_protocol::messages::{BrokerId, DescribeQuorumRequest, DescribeQuorumResponse};
use kafka_protocol::protocol::StrBytes;

use super::topology::text;
use super::{Context, Outcome, Request};
use crate::cluster::image::ClusterImage;
use crate::cluster::topics::{METADATA_TOPIC, NOT_HOSTED};
use crate::decode_or_close;
use crate::wire::ErrorCode;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: DescribeQuorumRequest = decode_or_close!(request);
    let image = &context.broker.image;
    // Any other topic or partition beside it, and Kafka knows none of what was asked.
    let is_metadata = match message.topics.as_slice() {
        [topic] => {
            topic.topic_name.as_str() == METADATA_TOPIC
                && matches!(topic.partitions.as_slice(), [p] if p.partition_index == 0)
        }
        _ => false,
    };
    let topics = message.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| match is_metadata {
            true => quorum(image, context.now.wall_ms, request.to.version),
            false => unknown(partition.partition_index),
        });
        TopicData::default().with_topic_name(topic.topic_name.clone()).with_partitions(partitions.collect())
    });
    let mut response = DescribeQuorumResponse::default().with_topics(topics.collect());
    if is_metadata && request.to.version >= 2 {
        response.nodes = node(image).into_iter().collect();
    }
    context.reply(request.to, &response)
}

fn quorum(image: &ClusterImage, now_ms: i64, version: i16) -> PartitionData {
    let end = image.metadata_offset + 1;
    let leader = BrokerId(image.local.first.0);
    let mut voter = ReplicaState::default().with_replica_id(leader).with_log_end_offset(end);
    if version >= 1 {
        voter = voter.with_last_fetch_timestamp(now_ms).with_last_caught_up_timestamp(now_ms);
    }
    PartitionData::default()
        .with_leader_id(leader)
        .with_leader_epoch(image.metadata_epoch.0)
        .with_high_watermark(end)
        .with_current_voters(vec![voter])
}

fn unknown(index: i32) -> PartitionData {
    PartitionData::default()
        .with_partition_index(index)
        .with_error_code(ErrorCode::UnknownTopicOrPartition.code())
        .with_error_message(Some(StrBytes::from_static_str(NOT_HOSTED)))
}

/// There is no listener for controllers: admin requests go to any shard.
fn node(image: &ClusterImage) -> Option<Node> {
    let broker = image.brokers.get(&image.local.first)?;
    let listener = Listener::default()
        .with_name(StrBytes::from_static_str("PLAINTEXT"))
        .with_host(text(&broker.host))
        .with_port(broker.port);
    Some(Node::default().with_node_id(BrokerId(broker.id.0)).with_listeners(vec![listener]))
}
