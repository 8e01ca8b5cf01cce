//! ElectLeaders (key 43), versions 0..=2: never needed, for the one replica of a partition leads it already.

use std::collections::BTreeMap;

use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Context, Outcome, Request};
use crate::cluster::image::ClusterImage;
use crate::cluster::topics::wire_name;
use crate::decode_or_close;
use crate::wire::error_code::ErrorCode;

/// Election types; version 0 knows the first only.
const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: ElectLeadersRequest = decode_or_close!(request);
    let image = &context.broker.image;
    let kind = message.election_type;
    let is_known = kind == PREFERRED || kind == UNCLEAN;
    let mut results: BTreeMap<String, Vec<PartitionResult>> = BTreeMap::new();
    // All partitions (null): only those whose leader changed are listed, so none.
    for topic in message.topic_partitions.unwrap_or_default() {
        let rows = topic.partitions.iter().map(|index| {
            let (code, text) = match image.partition(&topic.topic, *index) {
                _ if !is_known => (ErrorCode::InvalidRequest, format!("Unknown election type {kind}")),
                Some(_) => {
                    (ErrorCode::ElectionNotNeeded, "Leader election not needed for topic partition.".to_string())
                }
                None => (ErrorCode::UnknownTopicOrPartition, absent(image, &topic.topic, *index)),
            };
            PartitionResult::default()
                .with_partition_id(*index)
                .with_error_code(code.code())
                .with_error_message(Some(StrBytes::from(text)))
        });
        results.entry(topic.topic.to_string()).or_default().extend(rows);
    }
    let results = results.into_iter().map(|(topic, rows)| {
        ReplicaElectionResult::default().with_topic(wire_name(&topic)).with_partition_result(rows)
    });
    let response = ElectLeadersResponse::default().with_replica_election_results(results.collect());
    let fails = !is_known && request.to.version > 0 && !response.replica_election_results.is_empty();
    let error = if fails { ErrorCode::InvalidRequest } else { ErrorCode::None };
    context.reply(request.to, &response.with_error_code(error.code()))
}

fn absent(image: &ClusterImage, topic: &str, index: i32) -> String {
    match image.topic(topic) {
        Some(_) => format!("No such partition as {topic}-{index}"),
        None => format!("No such topic as {topic}"),
    }
}
