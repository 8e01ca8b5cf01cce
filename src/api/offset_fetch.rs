//! OffsetFetch (key 9), versions 1..=10.
//!
//! - A partition without a committed offset has offset -1; a group that nobody knows is no error.
//! - There are no transactions yet, so every offset is stable and `require_stable` changes nothing.
//!
//! v2: all topics, group-level errors. v5: leader epoch. v6: flexible. v7: require stable. v8: many groups. v9: member id
//! and epoch (KIP-848; unused by classic groups). v10: topic ids.

use super::{Context, Outcome, Request};
use crate::wire::offsets;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let version = request.to.version;
    let message = match offsets::fetch_request(request.body, version) {
        Ok(message) => message,
        Err(error) => return Outcome::Malformed(error),
    };
    let image = context.broker.image.clone();
    let response = context.broker.coordination.groups.fetch(&message, version, &*image);
    context.reply(request.to, &response)
}
