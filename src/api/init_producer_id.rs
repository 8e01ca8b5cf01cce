//! InitProducerId (key 22), versions 0..=5: an id for an idempotent producer, with epoch 0.
//!
//! The control thread hands ids to shards in blocks, so most requests are answered here and at once. Transactional
//! producers are refused with TRANSACTIONAL_ID_AUTHORIZATION_FAILED, which every client takes as final: there are no
//! transactions.

use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::{Context, Outcome, ReplyTo, Request};
use crate::decode_or_close;
use crate::mailbox::{ControlAnswer, ControlRequest};
use crate::wire::error_code::ErrorCode;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: InitProducerIdRequest = decode_or_close!(request);
    if (message.producer_id.0 == -1) != (message.producer_epoch == -1) {
        return refuse(context, request.to, ErrorCode::InvalidRequest);
    }
    match message.transactional_id {
        Some(id) if id.is_empty() => return refuse(context, request.to, ErrorCode::InvalidRequest),
        Some(_) => return refuse(context, request.to, ErrorCode::TransactionalIdAuthorizationFailed),
        None => {}
    }
    match context.broker.producer_ids.next() {
        Some(id) => grant(context, request.to, id),
        None => Outcome::Ask(ControlRequest::AllocateProducerIds, finish),
    }
}

fn finish(context: &mut Context<'_>, to: ReplyTo, answer: ControlAnswer) -> Outcome {
    match answer {
        ControlAnswer::ProducerIds { first, count } => {
            // Two requests may have asked at the same time: the rest of the older block is given up.
            context.broker.producer_ids = first + 1..first + i64::from(count);
            grant(context, to, first)
        }
        _ => refuse(context, to, ErrorCode::CoordinatorLoadInProgress),
    }
}

fn grant(context: &mut Context<'_>, to: ReplyTo, id: i64) -> Outcome {
    let response = InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(0);
    context.reply(to, &response)
}

fn refuse(context: &mut Context<'_>, to: ReplyTo, error: ErrorCode) -> Outcome {
    let response = InitProducerIdResponse::default().with_error_code(error.code());
    context.reply(to, &response.with_producer_id(ProducerId(-1)).with_producer_epoch(-1))
}
