//! ListConfigResources (key 74), versions 0..=1: what can be configured.
//!
//! v0 (ListClientMetricsResources): only client metrics.  v1: by type; none means all.

use kafka_protocol::messages::list_config_resources_response::ConfigResource;
use kafka_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};

use super::topology::text;
use super::{Context, Outcome, Request};
use crate::cluster::record::{RESOURCE_BROKER, RESOURCE_CLIENT_METRICS, RESOURCE_GROUP, RESOURCE_TOPIC};
use crate::decode_or_close;
use crate::wire::error_code::ErrorCode;

const RESOURCE_BROKER_LOGGER: i8 = 8;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: ListConfigResourcesRequest = decode_or_close!(request);
    let mut types = message.resource_types;
    if request.to.version == 0 {
        types = vec![RESOURCE_CLIENT_METRICS];
    } else if types.is_empty() {
        types = vec![RESOURCE_TOPIC, RESOURCE_BROKER, RESOURCE_BROKER_LOGGER, RESOURCE_CLIENT_METRICS, RESOURCE_GROUP];
    }
    types.sort();
    types.dedup();
    let mut response = ListConfigResourcesResponse::default();
    let image = &context.broker.image;
    for resource_type in types {
        let names: Vec<_> = match resource_type {
            RESOURCE_TOPIC => image.topics.keys().map(|name| text(name)).collect(),
            RESOURCE_BROKER | RESOURCE_BROKER_LOGGER => {
                image.alive_brokers().map(|broker| text(&broker.id.to_string())).collect()
            }
            RESOURCE_CLIENT_METRICS | RESOURCE_GROUP => {
                let of_type = image.named_configs.keys().filter(|(of, _)| *of == resource_type);
                of_type.map(|(_, name)| text(name)).collect()
            }
            _ => {
                let error = ErrorCode::UnsupportedVersion.code();
                return context.reply(request.to, &ListConfigResourcesResponse::default().with_error_code(error));
            }
        };
        response.config_resources.extend(
            names
                .into_iter()
                .map(|name| ConfigResource::default().with_resource_name(name).with_resource_type(resource_type)),
        );
    }
    context.reply(request.to, &response)
}
