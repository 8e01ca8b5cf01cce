//! The fields of every request that `kafka-protocol` decodes for us, from Kafka's schemas: in which versions they are
//! there and where null is allowed. `shape` walks received bytes by these before anything is decoded. Known tagged
//! fields need no row: none of these requests has any.

use super::shape::Field;
use super::shape::kinds::*;

/// By API key, sorted.
pub(super) const REQUESTS: [(i16, &[Field]); 54] = [
    (2, LIST_OFFSETS),
    (3, METADATA),
    (8, OFFSET_COMMIT),
    (9, OFFSET_FETCH),
    (10, FIND_COORDINATOR),
    (11, JOIN_GROUP),
    (12, HEARTBEAT),
    (13, LEAVE_GROUP),
    (14, SYNC_GROUP),
    (15, DESCRIBE_GROUPS),
    (16, LIST_GROUPS),
    (17, SASL_HANDSHAKE),
    (18, API_VERSIONS),
    (19, CREATE_TOPICS),
    (20, DELETE_TOPICS),
    (21, DELETE_RECORDS),
    (22, INIT_PRODUCER_ID),
    (23, OFFSET_FOR_LEADER_EPOCH),
    (24, ADD_PARTITIONS_TO_TXN),
    (25, ADD_OFFSETS_TO_TXN),
    (26, END_TXN),
    (27, WRITE_TXN_MARKERS),
    (28, TXN_OFFSET_COMMIT),
    (29, DESCRIBE_ACLS),
    (30, CREATE_ACLS),
    (31, DELETE_ACLS),
    (32, DESCRIBE_CONFIGS),
    (33, ALTER_CONFIGS),
    (34, ALTER_REPLICA_LOG_DIRS),
    (35, DESCRIBE_LOG_DIRS),
    (36, SASL_AUTHENTICATE),
    (37, CREATE_PARTITIONS),
    (42, DELETE_GROUPS),
    (43, ELECT_LEADERS),
    (44, INCREMENTAL_ALTER_CONFIGS),
    (45, ALTER_PARTITION_REASSIGNMENTS),
    (46, LIST_PARTITION_REASSIGNMENTS),
    (47, OFFSET_DELETE),
    (48, DESCRIBE_CLIENT_QUOTAS),
    (49, ALTER_CLIENT_QUOTAS),
    (50, DESCRIBE_USER_SCRAM_CREDENTIALS),
    (51, ALTER_USER_SCRAM_CREDENTIALS),
    (55, DESCRIBE_QUORUM),
    (57, UPDATE_FEATURES),
    (60, DESCRIBE_CLUSTER),
    (61, DESCRIBE_PRODUCERS),
    (65, DESCRIBE_TRANSACTIONS),
    (66, LIST_TRANSACTIONS),
    (68, CONSUMER_GROUP_HEARTBEAT),
    (69, CONSUMER_GROUP_DESCRIBE),
    (71, GET_TELEMETRY_SUBSCRIPTIONS),
    (72, PUSH_TELEMETRY),
    (74, LIST_CONFIG_RESOURCES),
    (75, DESCRIBE_TOPIC_PARTITIONS),
];

const LIST_OFFSETS: &[Field] = &[
    int32("replica id"),
    int8("isolation level").since(2),
    array(
        "topics",
        &[
            string("name"),
            array(
                "partitions",
                &[int32("partition index"), int32("current leader epoch").since(4), int64("timestamp")],
            ),
        ],
    ),
    int32("timeout ms").since(10),
];
const METADATA: &[Field] = &[
    array("topics", &[uuid("topic id").since(10), string("name").nullable_since(10)]).nullable_since(1),
    boolean("allow auto topic creation").since(4),
    boolean("include cluster authorized operations").since(8).until(10),
    boolean("include topic authorized operations").since(8),
];
const OFFSET_COMMIT: &[Field] = &[
    string("group id"),
    int32("generation id or member epoch"),
    string("member id"),
    string("group instance id").since(7).nullable(),
    int64("retention time ms").until(4),
    array(
        "topics",
        &[
            string("name").until(9),
            uuid("topic id").since(10),
            array(
                "partitions",
                &[
                    int32("partition index"),
                    int64("committed offset"),
                    int32("committed leader epoch").since(6),
                    string("committed metadata").nullable(),
                ],
            ),
        ],
    ),
];
const OFFSET_FETCH: &[Field] = &[
    string("group id").until(7),
    array("topics", &[string("name").until(7), array_of("partition indexes", &int32("partition indexes")).until(7)])
        .until(7)
        .nullable_since(2),
    array(
        "groups",
        &[
            string("group id").since(8),
            string("member id").since(9).nullable(),
            int32("member epoch").since(9),
            array(
                "topics",
                &[
                    string("name").since(8).until(9),
                    uuid("topic id").since(10),
                    array_of("partition indexes", &int32("partition indexes")).since(8),
                ],
            )
            .since(8)
            .nullable(),
        ],
    )
    .since(8),
    boolean("require stable").since(7),
];
const FIND_COORDINATOR: &[Field] = &[
    string("key").until(3),
    int8("key type").since(1),
    array_of("coordinator keys", &string("coordinator keys")).since(4),
];
const JOIN_GROUP: &[Field] = &[
    string("group id"),
    int32("session timeout ms"),
    int32("rebalance timeout ms").since(1),
    string("member id"),
    string("group instance id").since(5).nullable(),
    string("protocol type"),
    array("protocols", &[string("name"), bytes("metadata")]),
    string("reason").since(8).nullable(),
];
const HEARTBEAT: &[Field] =
    &[string("group id"), int32("generation id"), string("member id"), string("group instance id").since(3).nullable()];
const LEAVE_GROUP: &[Field] = &[
    string("group id"),
    string("member id").until(2),
    array(
        "members",
        &[
            string("member id").since(3),
            string("group instance id").since(3).nullable(),
            string("reason").since(5).nullable(),
        ],
    )
    .since(3),
];
const SYNC_GROUP: &[Field] = &[
    string("group id"),
    int32("generation id"),
    string("member id"),
    string("group instance id").since(3).nullable(),
    string("protocol type").since(5).nullable(),
    string("protocol name").since(5).nullable(),
    array("assignments", &[string("member id"), bytes("assignment")]),
];
const DESCRIBE_GROUPS: &[Field] =
    &[array_of("groups", &string("groups")), boolean("include authorized operations").since(3)];
const LIST_GROUPS: &[Field] = &[
    array_of("states filter", &string("states filter")).since(4),
    array_of("types filter", &string("types filter")).since(5),
];
const SASL_HANDSHAKE: &[Field] = &[string("mechanism")];
const API_VERSIONS: &[Field] = &[string("client software name").since(3), string("client software version").since(3)];
const CREATE_TOPICS: &[Field] = &[
    array(
        "topics",
        &[
            string("name"),
            int32("num partitions"),
            int16("replication factor"),
            array("assignments", &[int32("partition index"), array_of("broker ids", &int32("broker ids"))]),
            array("configs", &[string("name"), string("value").nullable()]),
        ],
    ),
    int32("timeout ms"),
    boolean("validate only"),
];
const DELETE_TOPICS: &[Field] = &[
    array("topics", &[string("name").since(6).nullable(), uuid("topic id").since(6)]).since(6),
    array_of("topic names", &string("topic names")).until(5),
    int32("timeout ms"),
];
const DELETE_RECORDS: &[Field] = &[
    array("topics", &[string("name"), array("partitions", &[int32("partition index"), int64("offset")])]),
    int32("timeout ms"),
];
const INIT_PRODUCER_ID: &[Field] = &[
    string("transactional id").nullable(),
    int32("transaction timeout ms"),
    int64("producer id").since(3),
    int16("producer epoch").since(3),
    boolean("enable2 pc").since(6),
    boolean("keep prepared txn").since(6),
];
const OFFSET_FOR_LEADER_EPOCH: &[Field] = &[
    int32("replica id").since(3),
    array(
        "topics",
        &[
            string("topic"),
            array("partitions", &[int32("partition"), int32("current leader epoch"), int32("leader epoch")]),
        ],
    ),
];
const ADD_PARTITIONS_TO_TXN: &[Field] = &[
    array(
        "transactions",
        &[
            string("transactional id").since(4),
            int64("producer id").since(4),
            int16("producer epoch").since(4),
            boolean("verify only").since(4),
            array("topics", &[string("name"), array_of("partitions", &int32("partitions"))]).since(4),
        ],
    )
    .since(4),
    string("v3 and below transactional id").until(3),
    int64("v3 and below producer id").until(3),
    int16("v3 and below producer epoch").until(3),
    array("v3 and below topics", &[string("name"), array_of("partitions", &int32("partitions"))]).until(3),
];
const ADD_OFFSETS_TO_TXN: &[Field] =
    &[string("transactional id"), int64("producer id"), int16("producer epoch"), string("group id")];
const END_TXN: &[Field] =
    &[string("transactional id"), int64("producer id"), int16("producer epoch"), boolean("committed")];
const WRITE_TXN_MARKERS: &[Field] = &[array(
    "markers",
    &[
        int64("producer id"),
        int16("producer epoch"),
        boolean("transaction result"),
        array("topics", &[string("name"), array_of("partition indexes", &int32("partition indexes"))]),
        int32("coordinator epoch"),
        int8("transaction version").since(2),
    ],
)];
const TXN_OFFSET_COMMIT: &[Field] = &[
    string("transactional id"),
    string("group id"),
    int64("producer id"),
    int16("producer epoch"),
    int32("generation id").since(3),
    string("member id").since(3),
    string("group instance id").since(3).nullable(),
    array(
        "topics",
        &[
            string("name"),
            array(
                "partitions",
                &[
                    int32("partition index"),
                    int64("committed offset"),
                    int32("committed leader epoch").since(2),
                    string("committed metadata").nullable(),
                ],
            ),
        ],
    ),
];
const DESCRIBE_ACLS: &[Field] = &[
    int8("resource type filter"),
    string("resource name filter").nullable(),
    int8("pattern type filter"),
    string("principal filter").nullable(),
    string("host filter").nullable(),
    int8("operation"),
    int8("permission type"),
];
const CREATE_ACLS: &[Field] = &[array(
    "creations",
    &[
        int8("resource type"),
        string("resource name"),
        int8("resource pattern type"),
        string("principal"),
        string("host"),
        int8("operation"),
        int8("permission type"),
    ],
)];
const DELETE_ACLS: &[Field] = &[array(
    "filters",
    &[
        int8("resource type filter"),
        string("resource name filter").nullable(),
        int8("pattern type filter"),
        string("principal filter").nullable(),
        string("host filter").nullable(),
        int8("operation"),
        int8("permission type"),
    ],
)];
const DESCRIBE_CONFIGS: &[Field] = &[
    array(
        "resources",
        &[
            int8("resource type"),
            string("resource name"),
            array_of("configuration keys", &string("configuration keys")).nullable(),
        ],
    ),
    boolean("include synonyms"),
    boolean("include documentation").since(3),
];
const ALTER_CONFIGS: &[Field] = &[
    array(
        "resources",
        &[
            int8("resource type"),
            string("resource name"),
            array("configs", &[string("name"), string("value").nullable()]),
        ],
    ),
    boolean("validate only"),
];
const ALTER_REPLICA_LOG_DIRS: &[Field] = &[array(
    "dirs",
    &[string("path"), array("topics", &[string("name"), array_of("partitions", &int32("partitions"))])],
)];
const DESCRIBE_LOG_DIRS: &[Field] =
    &[array("topics", &[string("topic"), array_of("partitions", &int32("partitions"))]).nullable()];
const SASL_AUTHENTICATE: &[Field] = &[bytes("auth bytes")];
const CREATE_PARTITIONS: &[Field] = &[
    array(
        "topics",
        &[
            string("name"),
            int32("count"),
            array("assignments", &[array_of("broker ids", &int32("broker ids"))]).nullable(),
        ],
    ),
    int32("timeout ms"),
    boolean("validate only"),
];
const DELETE_GROUPS: &[Field] = &[array_of("groups names", &string("groups names"))];
const ELECT_LEADERS: &[Field] = &[
    int8("election type").since(1),
    array("topic partitions", &[string("topic"), array_of("partitions", &int32("partitions"))]).nullable(),
    int32("timeout ms"),
];
const INCREMENTAL_ALTER_CONFIGS: &[Field] = &[
    array(
        "resources",
        &[
            int8("resource type"),
            string("resource name"),
            array("configs", &[string("name"), int8("config operation"), string("value").nullable()]),
        ],
    ),
    boolean("validate only"),
];
const ALTER_PARTITION_REASSIGNMENTS: &[Field] = &[
    int32("timeout ms"),
    boolean("allow replication factor change").since(1),
    array(
        "topics",
        &[
            string("name"),
            array("partitions", &[int32("partition index"), array_of("replicas", &int32("replicas")).nullable()]),
        ],
    ),
];
const LIST_PARTITION_REASSIGNMENTS: &[Field] = &[
    int32("timeout ms"),
    array("topics", &[string("name"), array_of("partition indexes", &int32("partition indexes"))]).nullable(),
];
const OFFSET_DELETE: &[Field] =
    &[string("group id"), array("topics", &[string("name"), array("partitions", &[int32("partition index")])])];
const DESCRIBE_CLIENT_QUOTAS: &[Field] =
    &[array("components", &[string("entity type"), int8("match type"), string("match").nullable()]), boolean("strict")];
const ALTER_CLIENT_QUOTAS: &[Field] = &[
    array(
        "entries",
        &[
            array("entity", &[string("entity type"), string("entity name").nullable()]),
            array("ops", &[string("key"), float64("value"), boolean("remove")]),
        ],
    ),
    boolean("validate only"),
];
const DESCRIBE_USER_SCRAM_CREDENTIALS: &[Field] = &[array("users", &[string("name")]).nullable()];
const ALTER_USER_SCRAM_CREDENTIALS: &[Field] = &[
    array("deletions", &[string("name"), int8("mechanism")]),
    array(
        "upsertions",
        &[string("name"), int8("mechanism"), int32("iterations"), bytes("salt"), bytes("salted password")],
    ),
];
const DESCRIBE_QUORUM: &[Field] =
    &[array("topics", &[string("topic name"), array("partitions", &[int32("partition index")])])];
const UPDATE_FEATURES: &[Field] = &[
    int32("timeout ms"),
    array(
        "feature updates",
        &[
            string("feature"),
            int16("max version level"),
            boolean("allow downgrade").until(0),
            int8("upgrade type").since(1),
        ],
    ),
    boolean("validate only").since(1),
];
const DESCRIBE_CLUSTER: &[Field] = &[
    boolean("include cluster authorized operations"),
    int8("endpoint type").since(1),
    boolean("include fenced brokers").since(2),
];
const DESCRIBE_PRODUCERS: &[Field] =
    &[array("topics", &[string("name"), array_of("partition indexes", &int32("partition indexes"))])];
const DESCRIBE_TRANSACTIONS: &[Field] = &[array_of("transactional ids", &string("transactional ids"))];
const LIST_TRANSACTIONS: &[Field] = &[
    array_of("state filters", &string("state filters")),
    array_of("producer id filters", &int64("producer id filters")),
    int64("duration filter").since(1),
    string("transactional id pattern").since(2).nullable(),
];
const CONSUMER_GROUP_HEARTBEAT: &[Field] = &[
    string("group id"),
    string("member id"),
    int32("member epoch"),
    string("instance id").nullable(),
    string("rack id").nullable(),
    int32("rebalance timeout ms"),
    array_of("subscribed topic names", &string("subscribed topic names")).nullable(),
    string("subscribed topic regex").since(1).nullable(),
    string("server assignor").nullable(),
    array("topic partitions", &[uuid("topic id"), array_of("partitions", &int32("partitions"))]).nullable(),
];
const CONSUMER_GROUP_DESCRIBE: &[Field] =
    &[array_of("group ids", &string("group ids")), boolean("include authorized operations")];
const GET_TELEMETRY_SUBSCRIPTIONS: &[Field] = &[uuid("client instance id")];
const PUSH_TELEMETRY: &[Field] = &[
    uuid("client instance id"),
    int32("subscription id"),
    boolean("terminating"),
    int8("compression type"),
    bytes("metrics"),
];
const LIST_CONFIG_RESOURCES: &[Field] = &[array_of("resource types", &int8("resource types")).since(1)];
const DESCRIBE_TOPIC_PARTITIONS: &[Field] = &[
    array("topics", &[string("name")]),
    int32("response partition limit"),
    structure("cursor", &[string("topic name"), int32("partition index")]).nullable(),
];
