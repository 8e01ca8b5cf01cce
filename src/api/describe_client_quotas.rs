//! DescribeClientQuotas (key 48), versions 0..=1: there are no quotas.

use kafka_protocol::messages::{DescribeClientQuotasRequest, DescribeClientQuotasResponse};

use super::{Context, Outcome, Request};
use crate::decode_or_close;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let _: DescribeClientQuotasRequest = decode_or_close!(request);
    context.reply(request.to, &DescribeClientQuotasResponse::default().with_entries(Some(Vec::new())))
}
