//! DeleteRecords (key 21), versions 0..=2: records before an offset are gone for good; -1 means all up to the high watermark.
//!
//! The reply tells the new log start offset. Whole segments go at once, the rest with retention.
//!
//! v2: flexible.

use kafka_protocol::messages::DeleteRecordsRequest;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsResponse, DeleteRecordsTopicResult,
};

use super::{Context, Outcome, Request};
use crate::decode_or_close;
use crate::ids::Offset;
use crate::wire::ErrorCode;

const HIGH_WATERMARK: i64 = -1;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: DeleteRecordsRequest = decode_or_close!(request);
    let mut response = DeleteRecordsResponse::default();
    for topic in &message.topics {
        let mut results = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let (error, low_watermark) = match one(context, &topic.name, asked.partition_index, asked.offset) {
                Ok(low_watermark) => (ErrorCode::None, low_watermark),
                Err(error) => (error, Offset(-1)),
            };
            let result = DeleteRecordsPartitionResult::default()
                .with_partition_index(asked.partition_index)
                .with_low_watermark(low_watermark.0)
                .with_error_code(error.code());
            results.push(result);
        }
        response
            .topics
            .push(DeleteRecordsTopicResult::default().with_name(topic.name.clone()).with_partitions(results));
    }
    context.reply(request.to, &response)
}

fn one(context: &mut Context<'_>, topic: &str, index: i32, offset: i64) -> Result<Offset, ErrorCode> {
    let Context { broker, disk, .. } = context;
    if broker.image.topic(topic).is_some_and(|topic| topic.internal) {
        return Err(ErrorCode::InvalidTopicException);
    }
    let (_, partition) = broker.leading(topic, index).map_err(|not_here| not_here.error)?;
    if partition.config.compact && !partition.config.delete {
        // Compaction alone decides what goes.
        return Err(ErrorCode::PolicyViolation);
    }
    let high_watermark = partition.high_watermark();
    let before = if offset == HIGH_WATERMARK { high_watermark } else { Offset(offset) };
    if before < Offset(0) || before > high_watermark {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    partition.log.delete_records_before(*disk, before);
    Ok(partition.log_start_offset())
}
