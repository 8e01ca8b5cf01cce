//! DescribeAcls (key 29), CreateAcls (key 30) and DeleteAcls (key 31), versions 1..=3: there is no authorizer, which is
//! what Apache Kafka answers then too: SECURITY_DISABLED.

use kafka_protocol::messages::create_acls_response::AclCreationResult;
use kafka_protocol::messages::delete_acls_response::DeleteAclsFilterResult;
use kafka_protocol::messages::{
    CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse, DescribeAclsRequest,
    DescribeAclsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::{Context, Outcome, Request};
use crate::decode_or_close;
use crate::wire::error_code::ErrorCode;

const ERROR: i16 = ErrorCode::SecurityDisabled.code();

/// What is said to those who ask for them, and to those who would change them.
const NONE_TO_ASK: &str = "No Authorizer is configured on the broker";
const NONE_TO_CHANGE: &str = "No Authorizer is configured.";

fn message(text: &'static str) -> Option<StrBytes> {
    Some(StrBytes::from_static_str(text))
}

/// Answers DescribeAcls.
pub fn describe(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let _: DescribeAclsRequest = decode_or_close!(request);
    let response = DescribeAclsResponse::default().with_error_code(ERROR).with_error_message(message(NONE_TO_ASK));
    context.reply(request.to, &response)
}

/// Answers CreateAcls.
pub fn create(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let asked: CreateAclsRequest = decode_or_close!(request);
    let row = |_| AclCreationResult::default().with_error_code(ERROR).with_error_message(message(NONE_TO_CHANGE));
    let response = CreateAclsResponse::default().with_results(asked.creations.iter().map(row).collect());
    context.reply(request.to, &response)
}

/// Answers DeleteAcls.
pub fn delete(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let asked: DeleteAclsRequest = decode_or_close!(request);
    let row = |_| DeleteAclsFilterResult::default().with_error_code(ERROR).with_error_message(message(NONE_TO_CHANGE));
    let response = DeleteAclsResponse::default().with_filter_results(asked.filters.iter().map(row).collect());
    context.reply(request.to, &response)
}
