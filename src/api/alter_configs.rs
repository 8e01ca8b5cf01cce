//! AlterConfigs (key 33), versions 0..=2: replaces the settings of topics and brokers as a whole.

use kafka_protocol::messages::AlterConfigsRequest;

use super::{Context, Outcome, ReplyTo, Request};
use crate::decode_or_close;
use crate::mailbox::{ControlAnswer, ControlRequest};

/// Passes the request to the control thread.
pub fn handle(_context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: AlterConfigsRequest = decode_or_close!(request);
    Outcome::Ask(ControlRequest::AlterConfigs(message), finish)
}

fn finish(context: &mut Context<'_>, to: ReplyTo, answer: ControlAnswer) -> Outcome {
    match answer {
        ControlAnswer::AlterConfigs(response) => context.reply(to, &response),
        _ => Outcome::Close,
    }
}
