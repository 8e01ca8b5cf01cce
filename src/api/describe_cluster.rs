//! DescribeCluster (key 60), versions 0..=2: the brokers, that is the cores.
//!
//! v1: endpoint type; there are no controllers to be described.  v2: fenced brokers on request.

use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};
use kafka_protocol::protocol::StrBytes;

use super::topology::{CLUSTER_OPERATIONS, OPERATIONS_NOT_ASKED, rack, text};
use super::{Context, Outcome, Request};
use crate::decode_or_close;
use crate::wire::error_code::ErrorCode;

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: DescribeClusterRequest = decode_or_close!(request);
    let image = &context.broker.image;
    let wanted = if request.to.version >= 1 { message.endpoint_type } else { BROKERS };
    let mut response = DescribeClusterResponse::default();
    response.cluster_authorized_operations = OPERATIONS_NOT_ASKED;
    if wanted != BROKERS {
        let (code, message) = match wanted {
            CONTROLLERS => (
                ErrorCode::MismatchedEndpointType,
                "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER",
            ),
            _ => (ErrorCode::UnsupportedEndpointType, "Unsupported endpoint type"),
        };
        response.error_code = code.code();
        response.error_message = Some(StrBytes::from_static_str(message));
        return context.reply(request.to, &response);
    }
    let fenced_too = request.to.version >= 2 && message.include_fenced_brokers;
    let brokers = image.brokers.values().filter(|broker| fenced_too || !broker.fenced).map(|broker| {
        DescribeClusterBroker::default()
            .with_broker_id(BrokerId(broker.id.0))
            .with_host(text(&broker.host))
            .with_port(i32::from(broker.port))
            .with_rack(rack(broker))
            .with_is_fenced(broker.fenced)
    });
    response.brokers = brokers.collect();
    response.cluster_id = text(&image.cluster_id);
    response.controller_id = BrokerId(context.broker.node.0);
    if message.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    context.reply(request.to, &response)
}
