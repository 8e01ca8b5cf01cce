//! CreatePartitions (key 37), versions 0..=3: adds partitions to topics. They are usable when the reply comes.

use kafka_protocol::messages::CreatePartitionsRequest;

use super::{Context, Outcome, ReplyTo, Request};
use crate::decode_or_close;
use crate::mailbox::{ControlAnswer, ControlRequest};

/// Passes the request to the control thread.
pub fn handle(_context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: CreatePartitionsRequest = decode_or_close!(request);
    Outcome::Ask(ControlRequest::CreatePartitions(message), finish)
}

fn finish(context: &mut Context<'_>, to: ReplyTo, answer: ControlAnswer) -> Outcome {
    match answer {
        ControlAnswer::CreatePartitions(response) => context.reply(to, &response),
        _ => Outcome::Close,
    }
}
