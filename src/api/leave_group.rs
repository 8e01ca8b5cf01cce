//! LeaveGroup (key 13), versions 0..=5.
//!
//! v3: many members at once, static ones by their instance id. v4: flexible. v5: reason.

use kafka_protocol::messages::LeaveGroupRequest;

use super::{Context, Outcome, Request, client_host};
use crate::decode_or_close;
use crate::group::Caller;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: LeaveGroupRequest = decode_or_close!(request);
    let (host, now) = (client_host(context.peer), context.now);
    let caller = Caller { to: request.to, client_id: request.client_id, client_host: &host };
    context.broker.with_groups(now, |groups, _, out| groups.leave(&caller, &message, now, out));
    Outcome::Later(None)
}
