//! The table of what is served.

use kafka_protocol::messages::ApiKey;

use super::{Api, Context, Handler, Outcome, Request};
use crate::api;

/// Every API served, by key.
pub const APIS: &[Api] = &[
    Api { key: ApiKey::Produce, versions: (3, 13), handler: Handler::Produce },
    Api { key: ApiKey::Fetch, versions: (4, 18), handler: Handler::Fetch },
    plain(ApiKey::ListOffsets, 1, 11, api::list_offsets::handle),
    plain(ApiKey::Metadata, 0, 13, api::metadata::handle),
    plain(ApiKey::OffsetCommit, 2, 10, api::offset_commit::handle),
    plain(ApiKey::OffsetFetch, 1, 10, api::offset_fetch::handle),
    plain(ApiKey::FindCoordinator, 0, 6, api::find_coordinator::handle),
    plain(ApiKey::JoinGroup, 0, 9, api::join_group::handle),
    plain(ApiKey::Heartbeat, 0, 4, api::heartbeat::handle),
    plain(ApiKey::LeaveGroup, 0, 5, api::leave_group::handle),
    plain(ApiKey::SyncGroup, 0, 5, api::sync_group::handle),
    plain(ApiKey::DescribeGroups, 0, 6, api::describe_groups::handle),
    plain(ApiKey::ListGroups, 0, 5, api::list_groups::handle),
    plain(ApiKey::ApiVersions, 0, 4, api::api_versions::handle),
    plain(ApiKey::CreateTopics, 2, 7, api::create_topics::handle),
    plain(ApiKey::DeleteTopics, 1, 6, api::delete_topics::handle),
    plain(ApiKey::DeleteRecords, 0, 2, api::delete_records::handle),
    plain(ApiKey::InitProducerId, 0, 5, api::init_producer_id::handle),
    plain(ApiKey::OffsetForLeaderEpoch, 2, 4, api::offset_for_leader_epoch::handle),
    plain(ApiKey::DescribeAcls, 1, 3, api::acls::describe),
    plain(ApiKey::CreateAcls, 1, 3, api::acls::create),
    plain(ApiKey::DeleteAcls, 1, 3, api::acls::delete),
    plain(ApiKey::DescribeConfigs, 1, 4, api::describe_configs::handle),
    plain(ApiKey::AlterConfigs, 0, 2, api::alter_configs::handle),
    plain(ApiKey::AlterReplicaLogDirs, 1, 2, api::alter_replica_log_dirs::handle),
    plain(ApiKey::DescribeLogDirs, 1, 5, api::describe_log_dirs::handle),
    plain(ApiKey::CreatePartitions, 0, 3, api::create_partitions::handle),
    plain(ApiKey::DeleteGroups, 0, 2, api::delete_groups::handle),
    plain(ApiKey::ElectLeaders, 0, 2, api::elect_leaders::handle),
    plain(ApiKey::IncrementalAlterConfigs, 0, 1, api::incremental_alter_configs::handle),
    plain(ApiKey::AlterPartitionReassignments, 0, 1, api::alter_partition_reassignments::handle),
    plain(ApiKey::ListPartitionReassignments, 0, 0, api::list_partition_reassignments::handle),
    plain(ApiKey::OffsetDelete, 0, 0, api::offset_delete::handle),
    plain(ApiKey::DescribeClientQuotas, 0, 1, api::describe_client_quotas::handle),
    plain(ApiKey::DescribeUserScramCredentials, 0, 0, api::describe_user_scram_credentials::handle),
    plain(ApiKey::DescribeQuorum, 0, 2, api::describe_quorum::handle),
    plain(ApiKey::UpdateFeatures, 0, 2, api::update_features::handle),
    plain(ApiKey::DescribeCluster, 0, 2, api::describe_cluster::handle),
    plain(ApiKey::DescribeProducers, 0, 0, api::describe_producers::handle),
    plain(ApiKey::ListConfigResources, 0, 1, api::list_config_resources::handle),
    plain(ApiKey::DescribeTopicPartitions, 0, 0, api::describe_topic_partitions::handle),
];

const fn plain(key: ApiKey, min: i16, max: i16, handle: fn(&mut Context<'_>, &Request<'_>) -> Outcome) -> Api {
    Api { key, versions: (min, max), handler: Handler::Plain(handle) }
}

/// The row of an API key.
pub fn find(key: i16) -> Option<&'static Api> {
    APIS.iter().find(|api| api.key as i16 == key)
}
