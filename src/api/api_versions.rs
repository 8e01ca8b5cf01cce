//! ApiVersions (key 18), versions 0..=4: what is served, straight from the table, and the cluster's finalized features.
//!
//! A version that is not served is answered in the form of version 0 with UNSUPPORTED_VERSION and the versions of this very
//! API, so that a newer client can ask again (KIP-511).
//!
//! v3: flexible, but the reply's header never is; features (KIP-584). v4: also those whose lowest version is 0.

use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest};
use kafka_protocol::protocol::StrBytes;

use super::{APIS, Context, Outcome, Request};
use crate::broker::Broker;
use crate::cluster::features;
use crate::decode_or_close;
use crate::ids::{ReplyTo, Waiter};
use crate::parts::Reply;
use crate::wire::error_code::ErrorCode;

/// Produce is offered from version 0 on, as Kafka 4 does (KAFKA-18659), though a request below its lowest version is refused:
/// librdkafka before 2.11 takes a broker without it for one that knows no gzip, snappy or lz4, and sends records as they are.
fn row(api: &super::Api) -> ApiVersion {
    let min = if api.key == ApiKey::Produce { 0 } else { api.versions.0 };
    ApiVersion::default().with_api_key(api.key as i16).with_min_version(min).with_max_version(api.versions.1)
}

/// What a client may call itself: letters and digits, dots and dashes between them.
fn is_software_name(name: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    name.chars().all(inside) && ends(name.chars().next()) && ends(name.chars().next_back())
}

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: ApiVersionsRequest = decode_or_close!(request);
    let mut response = ApiVersionsResponse::default();
    let named = is_software_name(&message.client_software_name) && is_software_name(&message.client_software_version);
    if request.to.version >= 3 && !named {
        response.error_code = ErrorCode::InvalidRequest.code();
        return context.reply(request.to, &response);
    }
    response.api_keys = APIS.iter().map(row).collect();
    if request.to.version >= 3 {
        let image = &context.broker.image;
        for (name, (min, max)) in features::supported(image) {
            // Java clients 3.5 to 3.8 ask with version 3 and end on a feature that begins at 0 (KAFKA-17492).
            if min > 0 || request.to.version >= 4 {
                let feature = SupportedFeatureKey::default().with_name(StrBytes::from_string(name.to_string()));
                response.supported_features.push(feature.with_min_version(min).with_max_version(max));
            }
        }
        for (name, level) in &image.features {
            let feature = FinalizedFeatureKey::default().with_name(StrBytes::from_string(name.clone()));
            response.finalized_features.push(feature.with_min_version_level(*level).with_max_version_level(*level));
        }
        response.finalized_features_epoch = image.metadata_offset;
    }
    context.reply(request.to, &response)
}

/// The answer to a version that is not served.
pub fn unsupported(broker: &mut Broker, waiter: Waiter, correlation_id: i32) -> Reply {
    let response = ApiVersionsResponse::default()
        .with_error_code(ErrorCode::UnsupportedVersion.code())
        .with_api_keys(APIS.iter().filter(|api| api.key == ApiKey::ApiVersions).map(row).collect());
    broker.encode_reply(ReplyTo { waiter, correlation_id, api: ApiKey::ApiVersions as i16, version: 0 }, &response)
}
