//! OffsetDelete (key 47), versions 0.
//!
//! - Offsets of topics that a live group of consumers reads stay (GROUP_SUBSCRIBED_TO_TOPIC).

use kafka_protocol::messages::OffsetDeleteRequest;

use super::{Context, Outcome, Request, client_host};
use crate::decode_or_close;
use crate::group::Caller;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: OffsetDeleteRequest = decode_or_close!(request);
    let (host, now) = (client_host(context.peer), context.now);
    let caller = Caller { to: request.to, client_id: request.client_id, client_host: &host };
    context.broker.with_groups(now, |groups, topics, out| groups.delete_offsets(&caller, &message, topics, now, out));
    Outcome::Later(None)
}
