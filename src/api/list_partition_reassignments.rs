//! ListPartitionReassignments (key 46), version 0: none is ever under way.

use kafka_protocol::messages::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};

use super::{Context, Outcome, Request};
use crate::decode_or_close;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let _: ListPartitionReassignmentsRequest = decode_or_close!(request);
    context.reply(request.to, &ListPartitionReassignmentsResponse::default().with_error_message(None))
}
