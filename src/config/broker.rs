//! What governs a broker, as typed fields: checked once, then cheap to read.

use std::path::PathBuf;
use std::sync::Arc;

use super::keys::broker_key;
use super::layers::{Layers, Values};
use super::{ConfigError, Place, Settings, TopicConfig};
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
    /// `auto.leader.rebalance.enable`: a start evens out partitions over the shards.
    pub rebalance_leaders: bool,
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

impl BrokerConfig {
    /// What a file and the command line set, over the defaults.
    pub fn from_settings(settings: &Settings) -> Result<BrokerConfig, ConfigError> {
        BrokerConfig::resolve(&Layers::of(settings)).map_err(|problem| ConfigError { place: Place::Combined, problem })
    }

    /// All layers over the defaults. Every single value has been checked; the error is about how they fit together.
    pub fn resolve(layers: &Layers<'_>) -> Result<BrokerConfig, String> {
        let find = |key| layers.broker_value(key);
        let v = Values { find, key: broker_key };
        let is_set = |name: &str| layers.settings.get(name).is_some();
        let (listen_host, listen_port) = only_listener(&v.list("listeners"), &v.list("controller.listener.names"))?
            .ok_or("listeners: a PLAINTEXT://host:port is needed")?;
        let advertised = only_listener(&v.list("advertised.listeners"), &v.list("controller.listener.names"))?;
        let data_dirs = if is_set("log.dirs") { v.list("log.dirs") } else { v.list("log.dir") };
        let [data_dir] = data_dirs.as_slice() else {
            return Err(format!("log.dirs: one data directory is needed, not {}", data_dirs.len()));
        };
        let node_id = if is_set("node.id") { v.get("node.id") } else { v.get::<i32>("broker.id") };
        if node_id < 0 {
            return Err("broker.id must be greater than or equal to 0".to_string());
        }
        let buffer_bytes = |name| u32::try_from(v.get::<i32>(name)).ok().filter(|bytes| *bytes > 0);
        let config = BrokerConfig {
            node_id: NodeId(node_id),
            listen_host,
            listen_port,
            advertised_port: advertised.as_ref().map(|(_, port)| *port),
            advertised_host: advertised.map(|(host, _)| host),
            rack: v.text("broker.rack").map(|rack| rack.into_owned()),
            data_dir: PathBuf::from(data_dir),
            socket: SocketConfig {
                request_bytes_max: v.unsigned32("socket.request.max.bytes"),
                send_buffer_bytes: buffer_bytes("socket.send.buffer.bytes"),
                receive_buffer_bytes: buffer_bytes("socket.receive.buffer.bytes"),
                listen_backlog: v.get("socket.listen.backlog.size"),
                connections_max: v.unsigned32("max.connections"),
                connections_per_ip_max: v.unsigned32("max.connections.per.ip"),
                idle_ms_max: v.limit("connections.max.idle.ms"),
            },
            auto_create_topics: v.flag("auto.create.topics.enable"),
            delete_topics: v.flag("delete.topic.enable"),
            rebalance_leaders: v.flag("auto.leader.rebalance.enable"),
            partitions_default: v.get("num.partitions"),
            replication_factor_default: i16::try_from(v.get::<i32>("default.replication.factor")).unwrap_or(i16::MAX),
            request_partitions_max: v.get("max.request.partition.size.limit"),
            retention_check_interval_ms: v.unsigned("log.retention.check.interval.ms"),
            recovery_point_checkpoint_interval_ms: v.unsigned("log.flush.offset.checkpoint.interval.ms"),
            start_offset_checkpoint_interval_ms: v.unsigned("log.flush.start.offset.checkpoint.interval.ms"),
            cleaner_enable: v.flag("log.cleaner.enable"),
            cleaner_backoff_ms: v.unsigned("log.cleaner.backoff.ms"),
            cleaner_map_bytes: v.unsigned("log.cleaner.dedupe.buffer.size"),
            cleaner_bytes_per_second_max: v.get("log.cleaner.io.max.bytes.per.second"),
            batch_validation: match v.text("produce.batch.validation").as_deref() {
                Some("header") => BatchValidation::Header,
                Some("strict") => BatchValidation::Strict,
                _ => BatchValidation::Records,
            },
            fetch_path: match v.text("fetch.path").as_deref() {
                Some("splice") => FetchPath::Splice,
                Some("send_zc") => FetchPath::SendZc,
                Some("copy") => FetchPath::Copy,
                _ => FetchPath::Sendfile,
            },
            fetch_bytes_max: v.unsigned32("fetch.max.bytes"),
            fetch_sessions_max: v.unsigned32("max.incremental.fetch.session.cache.slots"),
            producer_id_expiration_ms: v.unsigned("producer.id.expiration.ms"),
            transaction_timeout_ms_max: v.get("transaction.max.timeout.ms"),
            group: GroupConfig {
                session_timeout_ms_min: v.get("group.min.session.timeout.ms"),
                session_timeout_ms_max: v.get("group.max.session.timeout.ms"),
                initial_rebalance_delay_ms: v.get("group.initial.rebalance.delay.ms"),
                size_max: v.unsigned32("group.max.size"),
                consumer_session_timeout_ms: v.get("group.consumer.session.timeout.ms"),
                consumer_heartbeat_interval_ms: v.get("group.consumer.heartbeat.interval.ms"),
                consumer_size_max: v.unsigned32("group.consumer.max.size"),
                consumer_assignors: v.list("group.consumer.assignors"),
            },
            offsets: OffsetsConfig {
                topic_partitions: v.get("offsets.topic.num.partitions"),
                topic_replication_factor: v.get("offsets.topic.replication.factor"),
                topic_segment_bytes: v.unsigned32("offsets.topic.segment.bytes"),
                retention_ms: v.unsigned("offsets.retention.minutes") * 60_000,
                retention_check_interval_ms: v.unsigned("offsets.retention.check.interval.ms"),
                metadata_bytes_max: v.unsigned32("offset.metadata.max.bytes"),
                commit_timeout_ms: v.unsigned32("offsets.commit.timeout.ms"),
            },
            topic: Arc::new(TopicConfig::resolve(&Default::default(), layers)?),
        };
        config.check()?;
        Ok(config)
    }

    /// Kafka's defaults (and this broker's own).
    pub fn kafka_default() -> BrokerConfig {
        BrokerConfig::from_settings(&Settings::default()).expect("defaults are valid")
    }

    fn check(&self) -> Result<(), String> {
        let require = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_string()) };
        let group = &self.group;
        require(
            self.topic.retention_ms != Some(0),
            "log.retention.ms must be unlimited (-1) or, greater than or equal to 1",
        )?;
        require(self.topic.segment_ms >= 1, "log.roll.ms must be greater than or equal to 1")?;
        require(
            self.cleaner_map_bytes > 1024 * 1024,
            "log.cleaner.dedupe.buffer.size must be at least 1MB per cleaner thread.",
        )?;
        require(
            group.session_timeout_ms_min <= group.session_timeout_ms_max,
            "group.min.session.timeout.ms must not be above group.max.session.timeout.ms",
        )?;
        require(
            group.consumer_heartbeat_interval_ms < group.consumer_session_timeout_ms,
            "group.consumer.heartbeat.interval.ms must be less than group.consumer.session.timeout.ms",
        )?;
        require(
            !self.advertised_host.as_deref().is_some_and(|host| host == "0.0.0.0" || host.is_empty()),
            "advertised.listeners cannot use the nonroutable meta-address 0.0.0.0. Use a routable IP address.",
        )?;
        require(self.replication_factor_default >= 1, "default.replication.factor must be at least 1")
    }
}

/// Host and port of the one listener for clients; those that a combined Kafka node keeps for its controller are passed over.
fn only_listener(listeners: &[String], of_controller: &[String]) -> Result<Option<(String, u16)>, String> {
    let mut found = None;
    for listener in listeners {
        let malformed = || format!("listeners: '{listener}' must be PLAINTEXT://host:port");
        let (name, address) = listener.split_once("://").ok_or_else(malformed)?;
        if of_controller.iter().any(|c| c == name) {
            continue;
        }
        if matches!(name, "SSL" | "SASL_PLAINTEXT" | "SASL_SSL") {
            return Err(format!("listeners: {name} is not supported, only PLAINTEXT"));
        }
        let (host, port) = address.rsplit_once(':').ok_or_else(malformed)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if found.replace((host.to_string(), port.parse().map_err(|_| malformed())?)).is_some() {
            return Err("listeners: one listener is supported (each shard listens on its own port, counted up from \
                        the one given)"
                .to_string());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(settings: &[(&str, &str)]) -> Result<BrokerConfig, String> {
        let mut file = Settings::default();
        settings.iter().for_each(|(name, value)| file.set(name, value).unwrap());
        BrokerConfig::from_settings(&file).map_err(|e| e.to_string())
    }

    #[test]
    fn defaults() {
        let config = BrokerConfig::kafka_default();
        assert_eq!(config.node_id, NodeId(1));
        assert_eq!((config.listen_host.as_str(), config.listen_port), ("127.0.0.1", 9092));
        assert_eq!(config.socket.receive_buffer_bytes, None);
        assert_eq!(config.socket.send_buffer_bytes, Some(102_400));
        assert_eq!(config.socket.idle_ms_max, Some(600_000));
        assert_eq!(config.batch_validation, BatchValidation::Records);
        assert_eq!(config.offsets.topic_partitions, 50);
        assert!(config.auto_create_topics && config.rebalance_leaders);
    }

    #[test]
    fn a_flag_is_off_however_it_is_spelt() {
        for off in ["false", "False", " FALSE "] {
            assert!(!config(&[("auto.leader.rebalance.enable", off)]).unwrap().rebalance_leaders, "{off:?}");
        }
    }

    #[test]
    fn a_combined_kafka_nodes_file_is_understood() {
        let config = config(&[
            ("process.roles", "broker,controller"),
            ("node.id", "7"),
            ("controller.listener.names", "CONTROLLER"),
            ("listeners", "PLAINTEXT://:9092,CONTROLLER://:9093"),
            ("advertised.listeners", "PLAINTEXT://example.org:19092"),
            ("log.dirs", "/var/lib/kafka"),
            ("num.network.threads", "3"),
        ])
        .unwrap();
        assert_eq!((config.node_id, config.listen_host.as_str(), config.listen_port), (NodeId(7), "", 9092));
        assert_eq!(config.advertised_host.as_deref(), Some("example.org"));
        assert_eq!(config.advertised_port, Some(19092));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let refused = |name, value| config(&[(name, value)]).unwrap_err();
        assert!(refused("listeners", "SSL://:9092").contains("only PLAINTEXT"));
        assert!(refused("listeners", "localhost:9092").contains("must be PLAINTEXT://host:port"));
        assert!(refused("log.dirs", "/a,/b").contains("one data directory"));
        assert!(refused("log.retention.ms", "0").contains("log.retention.ms must be unlimited"));
    }
}
