//! DescribeConfigs (key 32), versions 1..=4: every setting of topics and brokers with its value, where it comes from, what
//! it is called elsewhere, its type and what it does. Loggers, client metrics and groups have none.
//!
//! v3: types and documentation.

use kafka_protocol::messages::DescribeConfigsRequest;

use super::{Context, Outcome, Request};
use crate::cluster::configs;
use crate::decode_or_close;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: DescribeConfigsRequest = decode_or_close!(request);
    let response = configs::describe(&context.broker.image, &message);
    context.reply(request.to, &response)
}
