//! SyncGroup (key 14), versions 0..=5.
//!
//! - Answered when the leader's assignment is stored.
//!
//! v3: static members. v4: flexible. v5: protocol type and name, which must be there, are checked.

use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use super::{Context, Outcome, Request, client_host};
use crate::decode_or_close;
use crate::group::Caller;
use crate::wire::ErrorCode;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: SyncGroupRequest = decode_or_close!(request);
    // Kafka asks for both from version 5 on, before it looks at the group.
    if request.to.version >= 5 && (message.protocol_type.is_none() || message.protocol_name.is_none()) {
        let refused = SyncGroupResponse::default().with_error_code(ErrorCode::InconsistentGroupProtocol.code());
        return context.reply(request.to, &refused);
    }
    let (host, now) = (client_host(context.peer), context.now);
    let caller = Caller { to: request.to, client_id: request.client_id, client_host: &host };
    context.broker.with_groups(now, |groups, _, out| groups.sync(&caller, &message, now, out));
    Outcome::Later(None)
}
