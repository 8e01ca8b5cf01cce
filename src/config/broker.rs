//! What governs a broker, as typed fields: checked once, then cheap to read.

use std::path::PathBuf;
use std::sync::Arc;

use super::TopicConfig;
use crate::ids::NodeId;

/// Settings of a broker. Times in milliseconds, sizes in bytes; `None` where Kafka says "no limit".
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerConfig {
    /// `node.id`: of the first shard; shard `i` is `node.id + i`.
    pub node_id: NodeId,
    /// Host of `listeners`: the address to listen on. Empty: all addresses.
    pub listen_host: String,
    /// Port of `listeners`: shard `i` listens on it plus `i`. 0: any free ports.
    pub listen_port: u16,
    /// Host of `advertised.listeners`: the name clients connect to.
    pub advertised_host: Option<String>,
    /// Port of `advertised.listeners` for shard 0.
    pub advertised_port: Option<u16>,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// `log.dirs`: the data directory.
    pub data_dir: PathBuf,
    /// Sockets and connections.
    pub socket: SocketConfig,
    /// `auto.create.topics.enable`.
    pub auto_create_topics: bool,
    /// `delete.topic.enable`.
    pub delete_topics: bool,
    /// `num.partitions`: of topics created without saying how many.
    pub partitions_default: i32,
    /// `default.replication.factor`.
    pub replication_factor_default: i16,
    /// `max.request.partition.size.limit`: partitions one DescribeTopicPartitions answers for.
    pub request_partitions_max: i32,
    /// `log.retention.check.interval.ms`.
    pub retention_check_interval_ms: u64,
    /// `log.flush.offset.checkpoint.interval.ms`.
    pub recovery_point_checkpoint_interval_ms: u64,
    /// `log.flush.start.offset.checkpoint.interval.ms`.
    pub start_offset_checkpoint_interval_ms: u64,
    /// `log.cleaner.enable`.
    pub cleaner_enable: bool,
    /// `log.cleaner.backoff.ms`: between two looks for something to compact.
    pub cleaner_backoff_ms: u64,
    /// `log.cleaner.dedupe.buffer.size`: memory for the map of keys, all shards together.
    pub cleaner_map_bytes: u64,
    /// `log.cleaner.io.max.bytes.per.second`.
    pub cleaner_bytes_per_second_max: f64,
    /// `produce.batch.validation`: how much of a batch is looked at before it is stored.
    pub batch_validation: BatchValidation,
    /// `fetch.path`: how record bytes get from a file to a socket.
    pub fetch_path: FetchPath,
    /// `fetch.max.bytes`: most bytes of records in one Fetch response.
    pub fetch_bytes_max: u32,
    /// `max.incremental.fetch.session.cache.slots`.
    pub fetch_sessions_max: u32,
    /// `producer.id.expiration.ms`: how long an idle idempotent producer is remembered.
    pub producer_id_expiration_ms: u64,
    /// `transaction.max.timeout.ms`.
    pub transaction_timeout_ms_max: i32,
    /// Consumer groups.
    pub group: GroupConfig,
    /// Committed offsets.
    pub offsets: OffsetsConfig,
    /// What topics are governed by where they set nothing of their own.
    pub topic: Arc<TopicConfig>,
}

/// Sockets and connections of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketConfig {
    /// `socket.request.max.bytes`: a larger frame closes the connection.
    pub request_bytes_max: u32,
    /// `socket.send.buffer.bytes`. `None`: the kernel decides.
    pub send_buffer_bytes: Option<u32>,
    /// `socket.receive.buffer.bytes`. `None`: the kernel decides.
    pub receive_buffer_bytes: Option<u32>,
    /// `socket.listen.backlog.size`.
    pub listen_backlog: i32,
    /// `max.connections`, of each shard.
    pub connections_max: u32,
    /// `max.connections.per.ip`, of each shard.
    pub connections_per_ip_max: u32,
    /// `connections.max.idle.ms`: then the connection is closed.
    pub idle_ms_max: Option<u64>,
}

/// Consumer groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`.
    pub session_timeout_ms_min: i32,
    /// `group.max.session.timeout.ms`.
    pub session_timeout_ms_max: i32,
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`.
    pub size_max: u32,
    /// `group.consumer.session.timeout.ms`, of the consumer protocol (KIP-848).
    pub consumer_session_timeout_ms: i32,
    /// `group.consumer.heartbeat.interval.ms`.
    pub consumer_heartbeat_interval_ms: i32,
    /// `group.consumer.max.size`.
    pub consumer_size_max: u32,
    /// `group.consumer.assignors`: the first is the default.
    pub consumer_assignors: Vec<String>,
}

/// Committed offsets and the topic that keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetsConfig {
    /// `offsets.topic.num.partitions`.
    pub topic_partitions: i32,
    /// `offsets.topic.replication.factor`.
    pub topic_replication_factor: i16,
    /// `offsets.topic.segment.bytes`.
    pub topic_segment_bytes: u32,
    /// `offsets.retention.minutes`, in milliseconds.
    pub retention_ms: u64,
    /// `offsets.retention.check.interval.ms`.
    pub retention_check_interval_ms: u64,
    /// `offset.metadata.max.bytes`.
    pub metadata_bytes_max: u32,
    /// `offsets.commit.timeout.ms`.
    pub commit_timeout_ms: u32,
}

/// `produce.batch.validation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchValidation {
    /// Size, magic, CRC32C, counts, timestamps, codec and attribute bits.
    Header,
    /// Also the framing of uncompressed records.
    #[default]
    Records,
    /// Also compressed records, decompressed within bounds.
    Strict,
}

/// `fetch.path`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FetchPath {
    /// `sendfile(2)`, inline.
    #[default]
    Sendfile,
    /// `splice(2)` through the ring.
    Splice,
    /// `IORING_OP_SEND_ZC` from memory.
    SendZc,
    /// Read into a buffer, then send.
    Copy,
}
