//! DescribeUserScramCredentials (key 50), version 0: nobody has credentials, so that all of them are none, and each user
//! asked for by name is one that does not exist.
//!
//! - A user asked for twice is told once, as an error: DUPLICATE_RESOURCE.

use std::collections::BTreeMap;

use kafka_protocol::messages::describe_user_scram_credentials_response::DescribeUserScramCredentialsResult;
use kafka_protocol::messages::{DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Context, Outcome, Request};
use crate::decode_or_close;
use crate::wire::ErrorCode;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let asked: DescribeUserScramCredentialsRequest = decode_or_close!(request);
    let mut counts: BTreeMap<StrBytes, usize> = BTreeMap::new();
    for user in asked.users.unwrap_or_default() {
        *counts.entry(user.name).or_default() += 1;
    }
    let results = counts.into_iter().map(|(user, count)| unknown(user, count > 1)).collect();
    context.reply(request.to, &DescribeUserScramCredentialsResponse::default().with_results(results))
}

fn unknown(user: StrBytes, twice: bool) -> DescribeUserScramCredentialsResult {
    let (code, problem) = if twice {
        (ErrorCode::DuplicateResource, "Cannot describe SCRAM credentials for the same user twice in a single request")
    } else {
        (ErrorCode::ResourceNotFound, "Attempt to describe a user credential that does not exist")
    };
    DescribeUserScramCredentialsResult::default()
        .with_error_code(code.code())
        .with_error_message(Some(StrBytes::from(format!("{problem}: {user}"))))
        .with_user(user)
}
