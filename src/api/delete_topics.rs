//! DeleteTopics (key 20), versions 1..=6: deletes topics; no shard serves them any more when the reply comes.
//! Their directories are removed afterwards.
//!
//! v5: error messages.  v6: by topic id.

use kafka_protocol::messages::DeleteTopicsRequest;

use super::{Context, Outcome, ReplyTo, Request};
use crate::decode_or_close;
use crate::mailbox::{ControlAnswer, ControlRequest};

/// Passes the request to the control thread.
pub fn handle(_context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: DeleteTopicsRequest = decode_or_close!(request);
    Outcome::Ask(ControlRequest::DeleteTopics(message), finish)
}

fn finish(context: &mut Context<'_>, to: ReplyTo, answer: ControlAnswer) -> Outcome {
    match answer {
        ControlAnswer::DeleteTopics(response) => context.reply(to, &response),
        _ => Outcome::Close,
    }
}
