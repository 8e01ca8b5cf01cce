//! What governs one topic's logs, resolved: the topic's own settings over the broker's.

use std::collections::BTreeMap;

use super::keys::{self, topic_key};
use super::layers::{Layers, Values};
use crate::ids::Now;

/// Settings of one topic. Times in milliseconds, sizes in bytes; `None` where Kafka says "no limit".
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// `cleanup.policy` holds `delete`: retention by time and size.
    pub delete: bool,
    /// `cleanup.policy` holds `compact`: the last value of each key is kept.
    pub compact: bool,
    /// `segment.bytes`.
    pub segment_bytes: u32,
    /// `segment.ms`: a segment whose first record is older is rolled.
    pub segment_ms: u64,
    /// `segment.jitter.ms`: at most so much earlier.
    pub segment_jitter_ms: u64,
    /// `segment.index.bytes`: largest size of an index file.
    pub segment_index_bytes: u32,
    /// `segment.recycle.enable` (`log.segment.recycle.enable`): a retired segment's file becomes the next one.
    pub segment_recycle: bool,
    /// `index.interval.bytes`: log bytes between two index entries.
    pub index_interval_bytes: u32,
    /// `preallocate`: a new segment is allocated whole.
    pub preallocate: bool,
    /// `retention.bytes`.
    pub retention_bytes: Option<u64>,
    /// `retention.ms`.
    pub retention_ms: Option<u64>,
    /// `flush.messages`: synced after so many records.
    pub flush_messages: Option<u64>,
    /// `flush.ms`: synced at the latest so long after a record came.
    pub flush_ms: Option<u64>,
    /// `file.delete.delay.ms`.
    pub file_delete_delay_ms: u64,
    /// `delete.retention.ms`: how long compaction keeps tombstones.
    pub delete_retention_ms: u64,
    /// `min.compaction.lag.ms`.
    pub compaction_lag_ms_min: u64,
    /// `max.compaction.lag.ms`.
    pub compaction_lag_ms_max: Option<u64>,
    /// `min.cleanable.dirty.ratio`.
    pub cleanable_dirty_ratio_min: f64,
    /// `compression.type` with that codec's level; `None`: batches stay as producers compressed them.
    pub compression: Option<Compression>,
    /// `max.message.bytes`: largest record batch.
    pub message_bytes_max: u32,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how much older than now a record's timestamp may be.
    pub timestamp_before_ms_max: Option<u64>,
    /// `message.timestamp.after.max.ms`: how much newer.
    pub timestamp_after_ms_max: Option<u64>,
    /// `unclean.leader.election.enable`.
    pub unclean_leader_election: bool,
}

/// How batches are compressed before they are stored (`compression.type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Uncompressed,
    /// `compression.gzip.level`.
    Gzip(i32),
    Snappy,
    Lz4,
    /// `compression.zstd.level`.
    Zstd(i32),
}

/// Whose clock a record's timestamp is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    #[default]
    CreateTime,
    /// The broker's, at append.
    LogAppendTime,
}

impl TopicConfig {
    /// Earliest and latest time that a record may say.
    pub fn timestamp_range(&self, now: Now) -> (i64, i64) {
        let ms = |limit: Option<u64>| limit.and_then(|ms| i64::try_from(ms).ok()).unwrap_or(i64::MAX);
        let (before, after) = (ms(self.timestamp_before_ms_max), ms(self.timestamp_after_ms_max));
        (now.wall_ms.saturating_sub(before), now.wall_ms.saturating_add(after))
    }
    pub fn timestamp_out_of_range(&self, timestamp: i64, now: Now) -> bool {
        let (earliest, latest) = self.timestamp_range(now);
        timestamp < earliest || timestamp > latest
    }
    /// A topic's own settings over the brokers'. The error is Kafka's message for INVALID_CONFIG.
    pub fn resolve(overrides: &BTreeMap<String, String>, layers: &Layers<'_>) -> Result<TopicConfig, String> {
        for (name, value) in overrides {
            let key = topic_key(name).ok_or_else(|| format!("Unknown topic config name: {name}"))?;
            key.check(value)?;
        }
        let find = |key| layers.topic_value(key, overrides);
        let v = Values { find, key: topic_key };
        let policies = v.list("cleanup.policy");
        let has = |policy: &str| policies.iter().any(|p| p.eq_ignore_ascii_case(policy));
        let config = TopicConfig {
            delete: has("delete"),
            compact: has("compact"),
            segment_bytes: match v.text("internal.segment.bytes") {
                Some(_) => v.unsigned32("internal.segment.bytes"),
                None => v.unsigned32("segment.bytes"),
            },
            segment_ms: v.unsigned("segment.ms"),
            segment_jitter_ms: v.unsigned("segment.jitter.ms"),
            segment_index_bytes: v.unsigned32("segment.index.bytes"),
            segment_recycle: v.flag("segment.recycle.enable"),
            index_interval_bytes: v.unsigned32("index.interval.bytes"),
            preallocate: v.flag("preallocate"),
            retention_bytes: v.limit("retention.bytes"),
            retention_ms: v.limit("retention.ms"),
            flush_messages: v.limit("flush.messages"),
            flush_ms: v.limit("flush.ms"),
            file_delete_delay_ms: v.unsigned("file.delete.delay.ms"),
            delete_retention_ms: v.unsigned("delete.retention.ms"),
            compaction_lag_ms_min: v.unsigned("min.compaction.lag.ms"),
            compaction_lag_ms_max: v.limit("max.compaction.lag.ms"),
            cleanable_dirty_ratio_min: v.get("min.cleanable.dirty.ratio"),
            compression: match v.text("compression.type").as_deref() {
                Some("uncompressed") => Some(Compression::Uncompressed),
                Some("gzip") => Some(Compression::Gzip(v.get("compression.gzip.level"))),
                Some("snappy") => Some(Compression::Snappy),
                Some("lz4") => Some(Compression::Lz4),
                Some("zstd") => Some(Compression::Zstd(v.get("compression.zstd.level"))),
                _ => None,
            },
            message_bytes_max: v.unsigned32("max.message.bytes"),
            timestamp_type: match v.text("message.timestamp.type").as_deref() {
                Some("LogAppendTime") => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            timestamp_before_ms_max: v.limit("message.timestamp.before.max.ms"),
            timestamp_after_ms_max: v.limit("message.timestamp.after.max.ms"),
            unclean_leader_election: v.flag("unclean.leader.election.enable"),
        };
        if v.flag("remote.storage.enable") {
            return Err("Tiered Storage functionality is disabled in the broker. Topic cannot be configured with \
                        remote log storage."
                .to_string());
        }
        if config.compaction_lag_ms_max.is_some_and(|max| config.compaction_lag_ms_min > max) {
            return Err(format!(
                "conflict topic config setting min.compaction.lag.ms ({}) > max.compaction.lag.ms ({})",
                config.compaction_lag_ms_min,
                config.compaction_lag_ms_max.unwrap_or_default()
            ));
        }
        Ok(config)
    }

    /// Kafka's defaults.
    pub fn kafka_default() -> TopicConfig {
        let settings = super::Settings::default();
        TopicConfig::resolve(&BTreeMap::new(), &Layers::of(&settings)).expect("defaults are valid")
    }

    /// Settings that clients may see, by name.
    pub fn described_keys() -> impl Iterator<Item = &'static keys::Key> {
        keys::topic_keys().filter(|key| !key.is_internal())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn resolve(overrides: &[(&str, &str)], settings: &[(&str, &str)]) -> Result<TopicConfig, String> {
        let mut file = Settings::default();
        settings.iter().for_each(|(name, value)| file.set(name, value).unwrap());
        let overrides = overrides.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        TopicConfig::resolve(&overrides, &Layers::of(&file))
    }

    #[test]
    fn defaults_are_kafkas() {
        let config = TopicConfig::kafka_default();
        assert!(config.delete && !config.compact && config.segment_recycle);
        assert_eq!(config.segment_bytes, 1 << 30);
        assert_eq!(config.retention_ms, Some(7 * 24 * 3_600_000));
        assert_eq!((config.retention_bytes, config.flush_ms, config.flush_messages), (None, None, None));
        assert_eq!(config.message_bytes_max, 1_048_588);
        assert_eq!(config.timestamp_after_ms_max, Some(3_600_000));
    }

    #[test]
    fn the_finer_unit_wins_and_the_topic_wins_over_all() {
        let brokers = [("log.retention.hours", "1"), ("log.retention.minutes", "2")];
        assert_eq!(resolve(&[], &brokers).unwrap().retention_ms, Some(120_000));
        assert_eq!(resolve(&[("retention.ms", "-1")], &brokers).unwrap().retention_ms, None);
        assert_eq!(resolve(&[], &[("log.roll.hours", "3")]).unwrap().segment_ms, 3 * 3_600_000);
        assert_eq!(resolve(&[], &[("log.flush.scheduler.interval.ms", "5")]).unwrap().flush_ms, Some(5));
        assert!(!resolve(&[], &[("log.segment.recycle.enable", "false")]).unwrap().segment_recycle);
    }

    #[test]
    fn a_codec_has_its_level() {
        let compression =
            |settings: &[(&str, &str)], broker: &[(&str, &str)]| resolve(settings, broker).unwrap().compression;
        assert_eq!(compression(&[], &[]), None);
        assert_eq!(compression(&[("compression.type", "zstd")], &[]), Some(Compression::Zstd(3)));
        assert_eq!(compression(&[("compression.type", "lz4")], &[]), Some(Compression::Lz4));
        let broker = [("compression.type", "gzip"), ("compression.gzip.level", "1")];
        assert_eq!(compression(&[], &broker), Some(Compression::Gzip(1)));
        assert_eq!(compression(&[("compression.gzip.level", "-1")], &broker), Some(Compression::Gzip(-1)));
        assert_eq!(compression(&[("compression.type", "producer")], &broker), None);
        let refused = |name, value| resolve(&[(name, value)], &[]).unwrap_err();
        assert_eq!(
            refused("compression.gzip.level", "0"),
            "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1"
        );
        assert!(refused("compression.lz4.level", "18").contains("no more than 17"));
        assert!(refused("compression.zstd.level", "23").contains("no more than 22"));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        let refused = |name, value| resolve(&[(name, value)], &[]).unwrap_err();
        assert_eq!(refused("segment.size", "1"), "Unknown topic config name: segment.size");
        assert!(refused("segment.bytes", "14").contains("at least 1048576"));
        assert!(refused("compression.type", "brotli").contains("must be one of: uncompressed, zstd, lz4"));
        assert!(refused("remote.storage.enable", "true").contains("Tiered Storage"));
        let lag = [("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "5")];
        assert!(resolve(&lag, &[]).unwrap_err().starts_with("conflict topic config"));
    }
}
