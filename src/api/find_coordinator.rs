//! FindCoordinator (key 10), versions 0..=6.
//!
//! - A group's coordinator is the leader of its partition of `__consumer_offsets`; any core answers for any group.
//! - The topic is created when the first group is looked for; the reply waits for that.
//! - Share groups are not served: asking for their coordinator is INVALID_REQUEST, in words. Neither are transactions, but there
//!   librdkafka asks again for ever unless it is refused by TRANSACTIONAL_ID_AUTHORIZATION_FAILED, as InitProducerId refuses it.
//!
//! v1: key type, error message. v3: flexible. v4: many keys at once (KIP-699). v5, v6: nothing new for groups.

use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Context, Outcome, Request};
use crate::cluster::image::ClusterImage;
use crate::decode_or_close;
use crate::group::{OFFSETS_TOPIC, partition_for};
use crate::ids::ReplyTo;
use crate::mailbox::{Cause, ControlAnswer, ControlRequest};
use crate::wire::error_code::ErrorCode;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: FindCoordinatorRequest = decode_or_close!(request);
    if message.key_type == GROUP && context.broker.image.topic(OFFSETS_TOPIC).is_none() {
        let names = vec![OFFSETS_TOPIC.into()];
        let cause = Cause::FindCoordinator(message);
        return Outcome::Ask(ControlRequest::AutoCreateTopics { names, cause }, created);
    }
    answer(context, request.to, &message)
}

fn created(context: &mut Context<'_>, to: ReplyTo, answered: ControlAnswer) -> Outcome {
    match answered {
        ControlAnswer::AutoCreatedTopics { cause: Cause::FindCoordinator(message), topics } => {
            for (name, code) in topics.into_iter().filter(|(_, code)| *code != 0) {
                log::error!("{name} cannot be created: error code {code}; groups are not served");
            }
            answer(context, to, &message)
        }
        _ => answer(context, to, &FindCoordinatorRequest::default()),
    }
}

fn answer(context: &mut Context<'_>, to: ReplyTo, message: &FindCoordinatorRequest) -> Outcome {
    let image = context.broker.image.clone();
    if to.version >= 4 {
        let find = |key: &StrBytes| coordinator(&image, message.key_type, key);
        let found = message.coordinator_keys.iter().map(find).collect();
        return context.reply(to, &FindCoordinatorResponse::default().with_coordinators(found));
    }
    let mut found = coordinator(&image, message.key_type, &message.key);
    if found.error_code == 0 {
        // Kafka's words for no error; only this form of the reply has any.
        found.error_message = Some(StrBytes::from_static_str("NONE"));
    }
    let reply = FindCoordinatorResponse::default()
        .with_error_code(found.error_code)
        .with_error_message(found.error_message)
        .with_node_id(found.node_id)
        .with_host(found.host)
        .with_port(found.port);
    context.reply(to, &reply)
}

fn coordinator(image: &ClusterImage, key_type: i8, key: &StrBytes) -> Coordinator {
    let refused = |error: ErrorCode, reason: &'static str| {
        Coordinator::default()
            .with_key(key.clone())
            .with_node_id(BrokerId(-1))
            .with_port(-1)
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_static_str(reason)))
    };
    if key_type != GROUP {
        let transaction = key_type == TRANSACTION;
        let error = if transaction { ErrorCode::TransactionalIdAuthorizationFailed } else { ErrorCode::InvalidRequest };
        return refused(error, "This broker coordinates consumer groups only.");
    }
    let partition = image.topic(OFFSETS_TOPIC).and_then(|topic| {
        let index = partition_for(key, topic.partitions.len() as i32);
        topic.partition(index)
    });
    let leader = partition.and_then(|partition| image.brokers.get(&partition.leader)).filter(|broker| !broker.fenced);
    match leader {
        Some(broker) => Coordinator::default()
            .with_key(key.clone())
            .with_node_id(BrokerId(broker.id.0))
            .with_host(StrBytes::from_string(broker.host.to_string()))
            .with_port(i32::from(broker.port)),
        None => refused(ErrorCode::CoordinatorNotAvailable, "The coordinator is not available."),
    }
}
