//! IncrementalAlterConfigs (key 44), versions 0..=1: changes settings of topics and brokers key by key:
//! set, delete, append to a list, subtract from it.

use kafka_protocol::messages::IncrementalAlterConfigsRequest;

use super::{Context, Outcome, ReplyTo, Request};
use crate::decode_or_close;
use crate::mailbox::{ControlAnswer, ControlRequest};

/// Passes the request to the control thread.
pub fn handle(_context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: IncrementalAlterConfigsRequest = decode_or_close!(request);
    Outcome::Ask(ControlRequest::IncrementalAlterConfigs(message), finish)
}

fn finish(context: &mut Context<'_>, to: ReplyTo, answer: ControlAnswer) -> Outcome {
    match answer {
        ControlAnswer::IncrementalAlterConfigs(response) => context.reply(to, &response),
        _ => Outcome::Close,
    }
}
