//! OffsetForLeaderEpoch (key 23), versions 2..=4: where an epoch's records end, by which consumers and followers see that
//! records they have read are gone (KIP-320).
//!
//! v3: replica id. v4: flexible.

use kafka_protocol::messages::OffsetForLeaderEpochRequest;
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};

use super::{Context, Outcome, Request};
use crate::broker::Broker;
use crate::decode_or_close;
use crate::ids::{LeaderEpoch, Offset};
use crate::wire::ErrorCode;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: OffsetForLeaderEpochRequest = decode_or_close!(request);
    let mut response = OffsetForLeaderEpochResponse::default();
    for topic in &message.topics {
        let answers = topic.partitions.iter().map(|asked| {
            let (error, (epoch, end)) = match one(context.broker, &topic.topic, asked) {
                Ok(found) => (ErrorCode::None, found),
                Err(error) => (error, UNKNOWN),
            };
            EpochEndOffset::default()
                .with_error_code(error.code())
                .with_partition(asked.partition)
                .with_leader_epoch(epoch.0)
                .with_end_offset(end.0)
        });
        response.topics.push(
            OffsetForLeaderTopicResult::default().with_topic(topic.topic.clone()).with_partitions(answers.collect()),
        );
    }
    context.reply(request.to, &response)
}

const UNKNOWN: (LeaderEpoch, Offset) = (LeaderEpoch(-1), Offset(-1));

fn one(broker: &mut Broker, topic: &str, asked: &OffsetForLeaderPartition) -> Result<(LeaderEpoch, Offset), ErrorCode> {
    let (_, partition) = broker.leading(topic, asked.partition).map_err(|not_here| not_here.error)?;
    partition.check_leader_epoch(LeaderEpoch(asked.current_leader_epoch))?;
    if asked.leader_epoch == partition.leader_epoch.0 {
        // It goes on, though nothing may have been appended in it yet.
        return Ok((partition.leader_epoch, partition.high_watermark()));
    }
    Ok(partition.log.end_offset_for_epoch(LeaderEpoch(asked.leader_epoch)).unwrap_or(UNKNOWN))
}
