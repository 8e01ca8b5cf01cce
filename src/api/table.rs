//! The table of what is served.

use kafka_protocol::messages::ApiKey;

use super::{Api, Handler, api_versions};

/// Every API served, by key.
pub const APIS: &[Api] = &[
    Api { key: ApiKey::Produce, versions: (3, 13), handler: Handler::Produce },
    Api { key: ApiKey::Fetch, versions: (4, 18), handler: Handler::Fetch },
    Api { key: ApiKey::ApiVersions, versions: (0, 4), handler: Handler::Plain(api_versions::handle) },
];

/// The row of an API key.
pub fn find(key: i16) -> Option<&'static Api> {
    APIS.iter().find(|api| api.key as i16 == key)
}
