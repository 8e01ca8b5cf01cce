//! Heartbeat (key 12), versions 0..=4.
//!
//! - The reply tells a member to rejoin (REBALANCE_IN_PROGRESS) or that it is out (UNKNOWN_MEMBER_ID).
//!
//! v3: static members. v4: flexible.

use kafka_protocol::messages::HeartbeatRequest;

use super::{Context, Outcome, Request};
use crate::decode_or_close;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: HeartbeatRequest = decode_or_close!(request);
    let now = context.now;
    let response = context.broker.with_groups(now, |groups, _, _| groups.heartbeat(&message, now));
    context.reply(request.to, &response)
}
