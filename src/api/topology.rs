//! How brokers and partitions look in replies: shared by Metadata, DescribeCluster and DescribeTopicPartitions.

use kafka_protocol::messages::BrokerId;
use kafka_protocol::protocol::StrBytes;

use crate::cluster::image::{Broker, ClusterImage, PartitionInfo};
use crate::ids::NodeId;
use crate::wire::error_code::ErrorCode;

/// What anybody may do to a topic, as a set of bits: there is no authorizer. READ, WRITE, CREATE, DELETE, ALTER,
/// DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS.
pub const TOPIC_OPERATIONS: i32 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;
/// What anybody may do to the cluster. CREATE, ALTER, DESCRIBE, CLUSTER_ACTION, DESCRIBE_CONFIGS, ALTER_CONFIGS,
/// IDEMPOTENT_WRITE.
pub const CLUSTER_OPERATIONS: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;
/// The client did not ask what it may do.
pub const OPERATIONS_NOT_ASKED: i32 = i32::MIN;

/// Node ids as the protocol crate has them.
pub fn broker_ids(nodes: &[NodeId]) -> Vec<BrokerId> {
    nodes.iter().map(|node| BrokerId(node.0)).collect()
}

/// Replicas whose broker is gone.
pub fn offline_replicas(image: &ClusterImage, partition: &PartitionInfo) -> Vec<BrokerId> {
    let gone = partition.replicas.iter().filter(|node| image.brokers.get(node).is_none_or(|broker| broker.fenced));
    gone.map(|node| BrokerId(node.0)).collect()
}

/// LEADER_NOT_AVAILABLE for a partition without one.
pub fn partition_error(image: &ClusterImage, partition: &PartitionInfo) -> i16 {
    match image.brokers.get(&partition.leader) {
        Some(broker) if !broker.fenced => 0,
        _ => ErrorCode::LeaderNotAvailable.code(),
    }
}

/// A shared string as the protocol crate has it.
pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_string())
}

/// A broker's failure domain.
pub fn rack(broker: &Broker) -> Option<StrBytes> {
    broker.rack.as_deref().map(text)
}
