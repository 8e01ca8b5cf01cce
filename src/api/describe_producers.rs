//! DescribeProducers (key 61), version 0: the producers whose sequence numbers a partition remembers (KIP-664).

use std::collections::HashSet;

use kafka_protocol::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId};
use kafka_protocol::protocol::StrBytes;

use super::{Context, Outcome, Request};
use crate::broker::{Broker, NotHere};
use crate::cluster::topics::{NOT_HOSTED, check_name};
use crate::cluster::{Refused, refused};
use crate::decode_or_close;
use crate::wire::ErrorCode;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: DescribeProducersRequest = decode_or_close!(request);
    let mut response = DescribeProducersResponse::default();
    // A partition that is named twice is told once: it takes few bytes to ask for, and may have thousands of producers.
    let mut seen = HashSet::new();
    for topic in &message.topics {
        let indexes = topic.partition_indexes.iter().filter(|index| seen.insert((&topic.name, **index)));
        let partitions = indexes.map(|&index| {
            let (error, message, producers) = match active(context.broker, &topic.name, index) {
                Ok(producers) => (ErrorCode::None, None, producers),
                Err(Refused { code, message }) => (code, message.map(StrBytes::from), Vec::new()),
            };
            PartitionResponse::default()
                .with_partition_index(index)
                .with_error_code(error.code())
                .with_error_message(message)
                .with_active_producers(producers)
        });
        let partitions = partitions.collect();
        response.topics.push(TopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions));
    }
    context.reply(request.to, &response)
}

fn active(broker: &mut Broker, topic: &str, index: i32) -> Result<Vec<ProducerState>, Refused> {
    check_name(topic)?;
    if broker.image.topic(topic).is_none() {
        return Err(refused(ErrorCode::UnknownTopicOrPartition, NOT_HOSTED));
    }
    let not_here = |not_here: NotHere| Refused { code: not_here.error, message: None };
    let (_, partition) = broker.leading(topic, index).map_err(not_here)?;
    let producers = partition.log.producers().iter().map(|(id, producer)| {
        ProducerState::default()
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(i32::from(producer.epoch))
            .with_last_sequence(producer.last_sequence())
            .with_last_timestamp(producer.last_timestamp)
            .with_coordinator_epoch(producer.coordinator_epoch)
            .with_current_txn_start_offset(producer.transaction_first_offset)
    });
    Ok(producers.collect())
}
