//! OffsetCommit (key 8), versions 2..=10.
//!
//! - Answered when the offsets are stored; partitions that fail do not stop the others.
//!
//! v5: no retention of its own any more. v6: leader epoch. v7: static members. v8: flexible. v9: GROUP_ID_NOT_FOUND.
//! v10: topic ids.

use super::{Context, Outcome, Request, client_host};
use crate::group::Caller;
use crate::wire::offsets;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message = match offsets::commit_request(request.body, request.to.version) {
        Ok(message) => message,
        Err(error) => return Outcome::Malformed(error),
    };
    let (host, now) = (client_host(context.peer), context.now);
    let caller = Caller { to: request.to, client_id: request.client_id, client_host: &host };
    context.broker.with_groups(now, |groups, topics, out| groups.commit(&caller, &message, topics, now, out));
    Outcome::Later(None)
}
