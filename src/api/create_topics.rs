//! CreateTopics (key 19), versions 2..=7: creates topics; each is usable on every shard when the reply comes.
//!
//! v4: defaults for partitions and replicas (-1).  v5: the topic's settings in the reply.  v7: topic ids.

use kafka_protocol::messages::CreateTopicsRequest;

use super::{Context, Outcome, ReplyTo, Request};
use crate::decode_or_close;
use crate::mailbox::{ControlAnswer, ControlRequest};

/// Passes the request to the control thread.
pub fn handle(_context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: CreateTopicsRequest = decode_or_close!(request);
    Outcome::Ask(ControlRequest::CreateTopics(message), finish)
}

fn finish(context: &mut Context<'_>, to: ReplyTo, answer: ControlAnswer) -> Outcome {
    match answer {
        ControlAnswer::CreateTopics(response) => context.reply(to, &response),
        _ => Outcome::Close,
    }
}
