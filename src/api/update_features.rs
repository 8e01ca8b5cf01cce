//! UpdateFeatures (key 57), versions 0..=2: raises or lowers the levels of the cluster's features.
//!
//! v1: kinds of downgrade, and only looking whether it would do (KIP-584, KIP-778). v2: no result for each feature.

use kafka_protocol::messages::UpdateFeaturesRequest;

use super::{Context, Outcome, ReplyTo, Request};
use crate::decode_or_close;
use crate::mailbox::{ControlAnswer, ControlRequest};

/// Passes the request to the control thread.
pub fn handle(_context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: UpdateFeaturesRequest = decode_or_close!(request);
    Outcome::Ask(ControlRequest::UpdateFeatures { request: message, version: request.to.version }, finish)
}

fn finish(context: &mut Context<'_>, to: ReplyTo, answer: ControlAnswer) -> Outcome {
    match answer {
        ControlAnswer::UpdateFeatures(response) => context.reply(to, &response),
        _ => Outcome::Close,
    }
}
