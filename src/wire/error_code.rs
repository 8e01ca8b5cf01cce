//! Kafka's error codes: what a part of a reply says when the peer asked for something that cannot be. The names are
//! Kafka's. RETRY marks those after which a client tries again by itself.

const RETRY: bool = true;
const FINAL: bool = false;

macro_rules! error_codes {
    ($($variant:ident = $code:literal, $name:literal, $retriable:ident;)*) => {
        /// An error code of the protocol.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i16)]
        pub enum ErrorCode { $($variant = $code),* }

        impl ErrorCode {
            /// Every code there is.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$variant),*];
            /// Kafka's name for it.
            pub fn name(self) -> &'static str {
                match self { $(ErrorCode::$variant => $name),* }
            }
            /// Whether clients try again by themselves.
            pub fn is_retriable(self) -> bool {
                match self { $(ErrorCode::$variant => $retriable),* }
            }
            /// The code of this number, if there is one.
            pub fn from_code(code: i16) -> Option<ErrorCode> {
                match code { $($code => Some(ErrorCode::$variant),)* _ => None }
            }
        }
    };
}

error_codes! {
    None = 0, "NONE", FINAL;
    UnknownServerError = -1, "UNKNOWN_SERVER_ERROR", FINAL;
    OffsetOutOfRange = 1, "OFFSET_OUT_OF_RANGE", FINAL;
    CorruptMessage = 2, "CORRUPT_MESSAGE", RETRY;
    UnknownTopicOrPartition = 3, "UNKNOWN_TOPIC_OR_PARTITION", RETRY;
    InvalidFetchSize = 4, "INVALID_FETCH_SIZE", FINAL;
    LeaderNotAvailable = 5, "LEADER_NOT_AVAILABLE", RETRY;
    NotLeaderOrFollower = 6, "NOT_LEADER_OR_FOLLOWER", RETRY;
    RequestTimedOut = 7, "REQUEST_TIMED_OUT", RETRY;
    BrokerNotAvailable = 8, "BROKER_NOT_AVAILABLE", FINAL;
    ReplicaNotAvailable = 9, "REPLICA_NOT_AVAILABLE", RETRY;
    MessageTooLarge = 10, "MESSAGE_TOO_LARGE", FINAL;
    StaleControllerEpoch = 11, "STALE_CONTROLLER_EPOCH", FINAL;
    OffsetMetadataTooLarge = 12, "OFFSET_METADATA_TOO_LARGE", FINAL;
    NetworkException = 13, "NETWORK_EXCEPTION", RETRY;
    CoordinatorLoadInProgress = 14, "COORDINATOR_LOAD_IN_PROGRESS", RETRY;
    CoordinatorNotAvailable = 15, "COORDINATOR_NOT_AVAILABLE", RETRY;
    NotCoordinator = 16, "NOT_COORDINATOR", RETRY;
    InvalidTopicException = 17, "INVALID_TOPIC_EXCEPTION", FINAL;
    RecordListTooLarge = 18, "RECORD_LIST_TOO_LARGE", FINAL;
    NotEnoughReplicas = 19, "NOT_ENOUGH_REPLICAS", RETRY;
    NotEnoughReplicasAfterAppend = 20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND", RETRY;
    InvalidRequiredAcks = 21, "INVALID_REQUIRED_ACKS", FINAL;
    IllegalGeneration = 22, "ILLEGAL_GENERATION", FINAL;
    InconsistentGroupProtocol = 23, "INCONSISTENT_GROUP_PROTOCOL", FINAL;
    InvalidGroupId = 24, "INVALID_GROUP_ID", FINAL;
    UnknownMemberId = 25, "UNKNOWN_MEMBER_ID", FINAL;
    InvalidSessionTimeout = 26, "INVALID_SESSION_TIMEOUT", FINAL;
    RebalanceInProgress = 27, "REBALANCE_IN_PROGRESS", FINAL;
    InvalidCommitOffsetSize = 28, "INVALID_COMMIT_OFFSET_SIZE", FINAL;
    TopicAuthorizationFailed = 29, "TOPIC_AUTHORIZATION_FAILED", FINAL;
    GroupAuthorizationFailed = 30, "GROUP_AUTHORIZATION_FAILED", FINAL;
    ClusterAuthorizationFailed = 31, "CLUSTER_AUTHORIZATION_FAILED", FINAL;
    InvalidTimestamp = 32, "INVALID_TIMESTAMP", FINAL;
    UnsupportedSaslMechanism = 33, "UNSUPPORTED_SASL_MECHANISM", FINAL;
    IllegalSaslState = 34, "ILLEGAL_SASL_STATE", FINAL;
    UnsupportedVersion = 35, "UNSUPPORTED_VERSION", FINAL;
    TopicAlreadyExists = 36, "TOPIC_ALREADY_EXISTS", FINAL;
    InvalidPartitions = 37, "INVALID_PARTITIONS", FINAL;
    InvalidReplicationFactor = 38, "INVALID_REPLICATION_FACTOR", FINAL;
    InvalidReplicaAssignment = 39, "INVALID_REPLICA_ASSIGNMENT", FINAL;
    InvalidConfig = 40, "INVALID_CONFIG", FINAL;
    NotController = 41, "NOT_CONTROLLER", RETRY;
    InvalidRequest = 42, "INVALID_REQUEST", FINAL;
    UnsupportedForMessageFormat = 43, "UNSUPPORTED_FOR_MESSAGE_FORMAT", FINAL;
    PolicyViolation = 44, "POLICY_VIOLATION", FINAL;
    OutOfOrderSequenceNumber = 45, "OUT_OF_ORDER_SEQUENCE_NUMBER", FINAL;
    DuplicateSequenceNumber = 46, "DUPLICATE_SEQUENCE_NUMBER", FINAL;
    InvalidProducerEpoch = 47, "INVALID_PRODUCER_EPOCH", FINAL;
    InvalidTxnState = 48, "INVALID_TXN_STATE", FINAL;
    InvalidProducerIdMapping = 49, "INVALID_PRODUCER_ID_MAPPING", FINAL;
    InvalidTransactionTimeout = 50, "INVALID_TRANSACTION_TIMEOUT", FINAL;
    ConcurrentTransactions = 51, "CONCURRENT_TRANSACTIONS", FINAL;
    TransactionCoordinatorFenced = 52, "TRANSACTION_COORDINATOR_FENCED", FINAL;
    TransactionalIdAuthorizationFailed = 53, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", FINAL;
    SecurityDisabled = 54, "SECURITY_DISABLED", FINAL;
    OperationNotAttempted = 55, "OPERATION_NOT_ATTEMPTED", FINAL;
    KafkaStorageError = 56, "KAFKA_STORAGE_ERROR", RETRY;
    LogDirNotFound = 57, "LOG_DIR_NOT_FOUND", FINAL;
    SaslAuthenticationFailed = 58, "SASL_AUTHENTICATION_FAILED", FINAL;
    UnknownProducerId = 59, "UNKNOWN_PRODUCER_ID", FINAL;
    ReassignmentInProgress = 60, "REASSIGNMENT_IN_PROGRESS", FINAL;
    DelegationTokenAuthDisabled = 61, "DELEGATION_TOKEN_AUTH_DISABLED", FINAL;
    DelegationTokenNotFound = 62, "DELEGATION_TOKEN_NOT_FOUND", FINAL;
    DelegationTokenOwnerMismatch = 63, "DELEGATION_TOKEN_OWNER_MISMATCH", FINAL;
    DelegationTokenRequestNotAllowed = 64, "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED", FINAL;
    DelegationTokenAuthorizationFailed = 65, "DELEGATION_TOKEN_AUTHORIZATION_FAILED", FINAL;
    DelegationTokenExpired = 66, "DELEGATION_TOKEN_EXPIRED", FINAL;
    InvalidPrincipalType = 67, "INVALID_PRINCIPAL_TYPE", FINAL;
    NonEmptyGroup = 68, "NON_EMPTY_GROUP", FINAL;
    GroupIdNotFound = 69, "GROUP_ID_NOT_FOUND", FINAL;
    FetchSessionIdNotFound = 70, "FETCH_SESSION_ID_NOT_FOUND", RETRY;
    InvalidFetchSessionEpoch = 71, "INVALID_FETCH_SESSION_EPOCH", RETRY;
    ListenerNotFound = 72, "LISTENER_NOT_FOUND", RETRY;
    TopicDeletionDisabled = 73, "TOPIC_DELETION_DISABLED", FINAL;
    FencedLeaderEpoch = 74, "FENCED_LEADER_EPOCH", RETRY;
    UnknownLeaderEpoch = 75, "UNKNOWN_LEADER_EPOCH", RETRY;
    UnsupportedCompressionType = 76, "UNSUPPORTED_COMPRESSION_TYPE", FINAL;
    StaleBrokerEpoch = 77, "STALE_BROKER_EPOCH", FINAL;
    OffsetNotAvailable = 78, "OFFSET_NOT_AVAILABLE", RETRY;
    MemberIdRequired = 79, "MEMBER_ID_REQUIRED", FINAL;
    PreferredLeaderNotAvailable = 80, "PREFERRED_LEADER_NOT_AVAILABLE", RETRY;
    GroupMaxSizeReached = 81, "GROUP_MAX_SIZE_REACHED", FINAL;
    FencedInstanceId = 82, "FENCED_INSTANCE_ID", FINAL;
    EligibleLeadersNotAvailable = 83, "ELIGIBLE_LEADERS_NOT_AVAILABLE", RETRY;
    ElectionNotNeeded = 84, "ELECTION_NOT_NEEDED", RETRY;
    NoReassignmentInProgress = 85, "NO_REASSIGNMENT_IN_PROGRESS", FINAL;
    GroupSubscribedToTopic = 86, "GROUP_SUBSCRIBED_TO_TOPIC", FINAL;
    InvalidRecord = 87, "INVALID_RECORD", FINAL;
    UnstableOffsetCommit = 88, "UNSTABLE_OFFSET_COMMIT", RETRY;
    ThrottlingQuotaExceeded = 89, "THROTTLING_QUOTA_EXCEEDED", RETRY;
    ProducerFenced = 90, "PRODUCER_FENCED", FINAL;
    ResourceNotFound = 91, "RESOURCE_NOT_FOUND", FINAL;
    DuplicateResource = 92, "DUPLICATE_RESOURCE", FINAL;
    UnacceptableCredential = 93, "UNACCEPTABLE_CREDENTIAL", FINAL;
    InconsistentVoterSet = 94, "INCONSISTENT_VOTER_SET", FINAL;
    InvalidUpdateVersion = 95, "INVALID_UPDATE_VERSION", FINAL;
    FeatureUpdateFailed = 96, "FEATURE_UPDATE_FAILED", FINAL;
    PrincipalDeserializationFailure = 97, "PRINCIPAL_DESERIALIZATION_FAILURE", FINAL;
    SnapshotNotFound = 98, "SNAPSHOT_NOT_FOUND", FINAL;
    PositionOutOfRange = 99, "POSITION_OUT_OF_RANGE", FINAL;
    UnknownTopicId = 100, "UNKNOWN_TOPIC_ID", RETRY;
    DuplicateBrokerRegistration = 101, "DUPLICATE_BROKER_REGISTRATION", FINAL;
    BrokerIdNotRegistered = 102, "BROKER_ID_NOT_REGISTERED", FINAL;
    InconsistentTopicId = 103, "INCONSISTENT_TOPIC_ID", RETRY;
    InconsistentClusterId = 104, "INCONSISTENT_CLUSTER_ID", FINAL;
    TransactionalIdNotFound = 105, "TRANSACTIONAL_ID_NOT_FOUND", FINAL;
    FetchSessionTopicIdError = 106, "FETCH_SESSION_TOPIC_ID_ERROR", RETRY;
    IneligibleReplica = 107, "INELIGIBLE_REPLICA", FINAL;
    NewLeaderElected = 108, "NEW_LEADER_ELECTED", FINAL;
    OffsetMovedToTieredStorage = 109, "OFFSET_MOVED_TO_TIERED_STORAGE", FINAL;
    FencedMemberEpoch = 110, "FENCED_MEMBER_EPOCH", FINAL;
    UnreleasedInstanceId = 111, "UNRELEASED_INSTANCE_ID", FINAL;
    UnsupportedAssignor = 112, "UNSUPPORTED_ASSIGNOR", FINAL;
    StaleMemberEpoch = 113, "STALE_MEMBER_EPOCH", FINAL;
    MismatchedEndpointType = 114, "MISMATCHED_ENDPOINT_TYPE", FINAL;
    UnsupportedEndpointType = 115, "UNSUPPORTED_ENDPOINT_TYPE", FINAL;
    UnknownControllerId = 116, "UNKNOWN_CONTROLLER_ID", FINAL;
    UnknownSubscriptionId = 117, "UNKNOWN_SUBSCRIPTION_ID", FINAL;
    TelemetryTooLarge = 118, "TELEMETRY_TOO_LARGE", FINAL;
    InvalidRegistration = 119, "INVALID_REGISTRATION", FINAL;
    TransactionAbortable = 120, "TRANSACTION_ABORTABLE", FINAL;
    InvalidRecordState = 121, "INVALID_RECORD_STATE", FINAL;
    ShareSessionNotFound = 122, "SHARE_SESSION_NOT_FOUND", RETRY;
    InvalidShareSessionEpoch = 123, "INVALID_SHARE_SESSION_EPOCH", RETRY;
    FencedStateEpoch = 124, "FENCED_STATE_EPOCH", FINAL;
    InvalidVoterKey = 125, "INVALID_VOTER_KEY", FINAL;
    DuplicateVoter = 126, "DUPLICATE_VOTER", FINAL;
    VoterNotFound = 127, "VOTER_NOT_FOUND", FINAL;
    InvalidRegularExpression = 128, "INVALID_REGULAR_EXPRESSION", FINAL;
    RebootstrapRequired = 129, "REBOOTSTRAP_REQUIRED", FINAL;
    StreamsInvalidTopology = 130, "STREAMS_INVALID_TOPOLOGY", FINAL;
    StreamsInvalidTopologyEpoch = 131, "STREAMS_INVALID_TOPOLOGY_EPOCH", FINAL;
    StreamsTopologyFenced = 132, "STREAMS_TOPOLOGY_FENCED", FINAL;
    ShareSessionLimitReached = 133, "SHARE_SESSION_LIMIT_REACHED", RETRY;
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }
}
impl From<ErrorCode> for i16 {
    fn from(error: ErrorCode) -> i16 {
        error.code()
    }
}
impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::ResponseError;

    #[test]
    fn codes_agree_with_kafka_protocol() {
        for code in -1..200i16 {
            match (ErrorCode::from_code(code), ResponseError::try_from_code(code)) {
                (Some(ErrorCode::None), None) => {}
                (None, Some(ResponseError::Unknown(_))) => {}
                (Some(ours), Some(theirs)) => {
                    assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
                    assert_eq!((ours.code(), ours.is_retriable()), (code, theirs.is_retriable()), "{ours}");
                }
                (ours, theirs) => panic!("{code}: {ours:?} {theirs:?}"),
            }
        }
        assert_eq!(ErrorCode::ALL.len(), 135);
        assert_eq!(ErrorCode::NotLeaderOrFollower.to_string(), "NOT_LEADER_OR_FOLLOWER");
    }
}
