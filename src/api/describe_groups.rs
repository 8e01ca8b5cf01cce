//! DescribeGroups (key 15), versions 0..=6.
//!
//! - A group that is not there is Dead, not an error, before version 6.
//!
//! v3: authorized operations. v4: instance ids. v5: flexible. v6: GROUP_ID_NOT_FOUND and its message (KIP-1043).

use kafka_protocol::messages::DescribeGroupsRequest;

use super::{Context, Outcome, Request};
use crate::decode_or_close;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: DescribeGroupsRequest = decode_or_close!(request);
    let response = context.broker.coordination.groups.describe(&message, request.to.version);
    context.reply(request.to, &response)
}
