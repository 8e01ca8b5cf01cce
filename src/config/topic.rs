//! What governs one topic's logs, resolved: the topic's own settings over the broker's.

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
    /// `max.message.bytes`: largest record batch.
    pub message_bytes_max: u32,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how much older than now a record's timestamp may be.
    pub timestamp_before_ms_max: Option<u64>,
    /// `message.timestamp.after.max.ms`: how much newer.
    pub timestamp_after_ms_max: Option<u64>,
    /// `min.insync.replicas`.
    pub insync_replicas_min: u32,
    /// `unclean.leader.election.enable`.
    pub unclean_leader_election: bool,
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
