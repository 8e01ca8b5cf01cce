//! DeleteGroups (key 42), versions 0..=2.
//!
//! - Answered when the tombstones are stored. A group with members stays (NON_EMPTY_GROUP).
//!
//! v2: flexible.

use kafka_protocol::messages::DeleteGroupsRequest;

use super::{Context, Outcome, Request, client_host};
use crate::decode_or_close;
use crate::group::Caller;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: DeleteGroupsRequest = decode_or_close!(request);
    let (host, now) = (client_host(context.peer), context.now);
    let caller = Caller { to: request.to, client_id: request.client_id, client_host: &host };
    context.broker.with_groups(now, |groups, _, out| groups.delete(&caller, &message, now, out));
    Outcome::Later(None)
}
