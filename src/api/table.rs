//! The table of what is served.

use kafka_protocol::messages::ApiKey;

use super::{
    Api, Handler, api_versions, delete_records, describe_log_dirs, describe_producers, list_offsets,
    offset_for_leader_epoch,
};

/// Every API served, by key.
pub const APIS: &[Api] = &[
    Api { key: ApiKey::Produce, versions: (3, 13), handler: Handler::Produce },
    Api { key: ApiKey::Fetch, versions: (4, 18), handler: Handler::Fetch },
    Api { key: ApiKey::ListOffsets, versions: (1, 10), handler: Handler::Plain(list_offsets::handle) },
    Api { key: ApiKey::ApiVersions, versions: (0, 4), handler: Handler::Plain(api_versions::handle) },
    Api { key: ApiKey::DeleteRecords, versions: (0, 2), handler: Handler::Plain(delete_records::handle) },
    Api {
        key: ApiKey::OffsetForLeaderEpoch,
        versions: (2, 4),
        handler: Handler::Plain(offset_for_leader_epoch::handle),
    },
    Api { key: ApiKey::DescribeLogDirs, versions: (1, 4), handler: Handler::Plain(describe_log_dirs::handle) },
    Api { key: ApiKey::DescribeProducers, versions: (0, 0), handler: Handler::Plain(describe_producers::handle) },
];

/// The row of an API key.
pub fn find(key: i16) -> Option<&'static Api> {
    APIS.iter().find(|api| api.key as i16 == key)
}
