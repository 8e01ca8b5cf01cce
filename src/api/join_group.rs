//! JoinGroup (key 11), versions 0..=9.
//!
//! - Answered when the rebalance that it takes part in has all its members, or at once if it takes part in none.
//!
//! v1: rebalance timeout. v4: a new member is given its id first (MEMBER_ID_REQUIRED). v5: static members. v6: flexible.
//! v7: protocol type. v8: reason. v9: a returning leader may skip assigning (KIP-814).

use kafka_protocol::messages::JoinGroupRequest;

use super::{Context, Outcome, Request, client_host};
use crate::decode_or_close;
use crate::group::Caller;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: JoinGroupRequest = decode_or_close!(request);
    let (host, now) = (client_host(context.peer), context.now);
    let caller = Caller { to: request.to, client_id: request.client_id, client_host: &host };
    context.broker.with_groups(now, |groups, _, out| groups.join(&caller, &message, now, out));
    Outcome::Later(None)
}
