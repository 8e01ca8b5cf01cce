//! DescribeClientQuotas (key 48), versions 0..=1: there are no quotas, but what is asked for must make sense.
//!
//! v1: flexible.

use std::collections::BTreeSet;

use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::{DescribeClientQuotasRequest, DescribeClientQuotasResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Context, Outcome, Request};
use crate::cluster::{Refused, refused};
use crate::decode_or_close;
use crate::wire::ErrorCode;

/// How an entity is asked for.
const EXACT: i8 = 0;
const DEFAULT: i8 = 1;
const SPECIFIED: i8 = 2;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: DescribeClientQuotasRequest = decode_or_close!(request);
    let response = match check(&message.components) {
        Ok(()) => DescribeClientQuotasResponse::default().with_entries(Some(Vec::new())),
        Err(Refused { code, message }) => DescribeClientQuotasResponse::default()
            .with_error_code(code.code())
            .with_error_message(message.map(StrBytes::from))
            .with_entries(None),
    };
    context.reply(request.to, &response)
}

fn check(components: &[ComponentData]) -> Result<(), Refused> {
    let invalid = |text: String| Err(refused(ErrorCode::InvalidRequest, text));
    let mut kinds = BTreeSet::new();
    for component in components {
        let kind = component.entity_type.as_str();
        if kind.is_empty() {
            return invalid("Invalid empty entity type.".to_string());
        }
        if !kinds.insert(kind) {
            return invalid(format!("Entity type {kind} cannot appear more than once in the filter."));
        }
        if !["user", "client-id", "ip"].contains(&kind) {
            return Err(refused(ErrorCode::UnsupportedVersion, format!("Unsupported entity type {kind}")));
        }
        match (component.match_type, component._match.is_some()) {
            (EXACT, true) | (DEFAULT | SPECIFIED, false) => {}
            (EXACT, false) => {
                return invalid("Request specified MATCH_TYPE_EXACT, but set match string to null.".to_string());
            }
            (DEFAULT, true) => {
                return invalid("Request specified MATCH_TYPE_DEFAULT, but also specified a match string.".to_string());
            }
            (SPECIFIED, true) => {
                return invalid(
                    "Request specified MATCH_TYPE_SPECIFIED, but also specified a match string.".to_string(),
                );
            }
            (other, _) => return invalid(format!("Unknown match type {other}")),
        }
    }
    if kinds.contains("ip") && kinds.len() > 1 {
        let text = "Invalid entity filter component combination. IP filter component should not be used with user or \
                    clientId filter component.";
        return invalid(text.to_string());
    }
    Ok(())
}
