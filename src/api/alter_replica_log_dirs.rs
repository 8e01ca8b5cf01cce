//! AlterReplicaLogDirs (key 34), versions 1..=2: there is one log directory, so a replica can only be asked to where it is.
//!
//! v2: flexible.

use std::collections::BTreeMap;

use kafka_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use kafka_protocol::messages::{AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse};

use super::describe_log_dirs::log_dir;
use super::{Context, Outcome, Request};
use crate::broker::Broker;
use crate::cluster::topics::wire_name;
use crate::decode_or_close;
use crate::wire::ErrorCode;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: AlterReplicaLogDirsRequest = decode_or_close!(request);
    let broker = &mut *context.broker;
    let here = log_dir(broker);
    let mut results: BTreeMap<&str, Vec<AlterReplicaLogDirPartitionResult>> = BTreeMap::new();
    for dir in &message.dirs {
        for topic in &dir.topics {
            let rows = topic.partitions.iter().map(|&index| {
                let error =
                    if *dir.path == *here { one(broker, &topic.name, index) } else { ErrorCode::LogDirNotFound };
                AlterReplicaLogDirPartitionResult::default().with_partition_index(index).with_error_code(error.code())
            });
            results.entry(topic.name.as_str()).or_default().extend(rows);
        }
    }
    let results = results
        .into_iter()
        .map(|(topic, rows)| {
            AlterReplicaLogDirTopicResult::default().with_topic_name(wire_name(topic)).with_partitions(rows)
        })
        .collect();
    context.reply(request.to, &AlterReplicaLogDirsResponse::default().with_results(results))
}

fn one(broker: &mut Broker, topic: &str, index: i32) -> ErrorCode {
    match broker.leading(topic, index).map_err(|not_here| not_here.error) {
        Ok(_) => ErrorCode::None,
        // Kafka keeps its older word for a replica of another broker.
        Err(ErrorCode::NotLeaderOrFollower) => ErrorCode::ReplicaNotAvailable,
        Err(error) => error,
    }
}
