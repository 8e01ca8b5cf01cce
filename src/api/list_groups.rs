//! ListGroups (key 16), versions 0..=5.
//!
//! - The groups of this core only: clients ask every broker.
//!
//! v3: flexible. v4: states (KIP-518). v5: types (KIP-848).

use kafka_protocol::messages::ListGroupsRequest;

use super::{Context, Outcome, Request};
use crate::decode_or_close;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: ListGroupsRequest = decode_or_close!(request);
    let response = context.broker.coordination.groups.list(&message);
    context.reply(request.to, &response)
}
