//! From a topic's settings to what its logs are told.

use crate::config::{BrokerConfig, TopicConfig};
use crate::storage::LogConfig;

/// One log is compacted at a time on a shard, and a log's next pass goes on where a full map ended this one: more memory than
/// this (some 500,000 keys a pass) buys little.
const CLEANER_MAP_BYTES_MAX: usize = 16 << 20;

/// Settings of a topic's logs. Storage counts in signed numbers as Kafka's properties do, -1 or the largest for no limit.
pub(super) fn of(topic: &TopicConfig, broker: &BrokerConfig) -> LogConfig {
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    LogConfig {
        segment_bytes: topic.segment_bytes,
        segment_ms: signed(topic.segment_ms),
        segment_jitter_ms: signed(topic.segment_jitter_ms),
        index_interval_bytes: topic.index_interval_bytes,
        segment_index_bytes: topic.segment_index_bytes,
        retention_ms: topic.retention_ms.map_or(-1, signed),
        retention_bytes: topic.retention_bytes.map_or(-1, signed),
        delete: topic.delete,
        compact: topic.compact,
        flush_messages: topic.flush_messages.map_or(i64::MAX, signed),
        flush_ms: topic.flush_ms.map_or(i64::MAX, signed),
        recycle: topic.segment_recycle,
        producer_id_expiration_ms: signed(broker.producer_id_expiration_ms),
        max_compaction_lag_ms: topic.compaction_lag_ms_max.map_or(i64::MAX, signed),
        min_compaction_lag_ms: signed(topic.compaction_lag_ms_min),
        min_cleanable_dirty_ratio: topic.cleanable_dirty_ratio_min,
        delete_retention_ms: signed(topic.delete_retention_ms),
        cleaner_map_bytes: usize::try_from(broker.cleaner_map_bytes).unwrap_or(usize::MAX).min(CLEANER_MAP_BYTES_MAX),
        ..LogConfig::default()
    }
}
