//! What a log is told: the values of a topic's settings that concern storage, under Kafka's names.

/// Settings of one log, shared by all partitions of a topic on this shard.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// `segment.bytes`: a segment is sealed before it grows beyond this.
    pub segment_bytes: u32,
    /// `segment.ms`: a segment is sealed when its records span more than this.
    pub segment_ms: i64,
    /// `segment.jitter.ms`: up to this much is taken off `segment_ms`, so that logs do not roll all at once.
    pub segment_jitter_ms: i64,
    /// `index.interval.bytes`: an index entry at most every so many bytes.
    pub index_interval_bytes: u32,
    /// `segment.index.bytes`: size of an offset index at which its segment is sealed.
    pub segment_index_bytes: u32,
    /// `retention.ms`; -1: no limit.
    pub retention_ms: i64,
    /// `retention.bytes`; -1: no limit.
    pub retention_bytes: i64,
    /// `cleanup.policy` holds `delete`.
    pub delete: bool,
    /// `cleanup.policy` holds `compact`.
    pub compact: bool,
    /// `flush.messages`: an append that leaves so many records unsynced is acknowledged once they are synced.
    pub flush_messages: i64,
    /// `flush.ms`: records are synced at the latest after this.
    pub flush_ms: i64,
    /// Space is reserved ahead of the writer in steps of this size.
    pub preallocate_step_bytes: u64,
    /// `log.segment.recycle.enable`: a retired segment's file becomes the next segment.
    pub recycle: bool,
    /// Write-back of dirty pages starts every so many bytes.
    pub write_back_bytes: u64,
    /// Write-back of appended bytes starts when they are between one and two times as old (0: at once). What retention
    /// drops before that costs neither the device nor the core anything: write-back of all that comes takes a sixth of a
    /// core at 5 GB/s. When much waits the kernel begins on its own (`vm.dirty_background_ratio`).
    pub write_back_after_ms: u64,
    /// `producer.id.expiration.ms`.
    pub producer_id_expiration_ms: i64,
    /// This shard's part of `log.cleaner.dedupe.buffer.size`.
    pub cleaner_map_bytes: usize,
    /// `max.compaction.lag.ms`.
    pub max_compaction_lag_ms: i64,
    /// `min.compaction.lag.ms`.
    pub min_compaction_lag_ms: i64,
    /// `min.cleanable.dirty.ratio`.
    pub min_cleanable_dirty_ratio: f64,
    /// `delete.retention.ms`: how long tombstones are kept by compaction.
    pub delete_retention_ms: i64,
}

impl LogConfig {
    /// How long the records of one segment may span: a compacted log rolls in time for `max.compaction.lag.ms`.
    pub(super) fn segment_ms_max(&self) -> i64 {
        if self.compact { self.segment_ms.min(self.max_compaction_lag_ms) } else { self.segment_ms }
    }
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        const DAY_MS: i64 = 24 * 3600 * 1000;
        LogConfig {
            segment_bytes: 1 << 30,
            segment_ms: 7 * DAY_MS,
            segment_jitter_ms: 0,
            index_interval_bytes: 4096,
            segment_index_bytes: 10 << 20,
            retention_ms: 7 * DAY_MS,
            retention_bytes: -1,
            delete: true,
            compact: false,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
            preallocate_step_bytes: 64 << 20,
            recycle: true,
            write_back_bytes: 8 << 20,
            write_back_after_ms: 1000,
            producer_id_expiration_ms: DAY_MS,
            cleaner_map_bytes: 16 << 20,
            max_compaction_lag_ms: i64::MAX,
            min_compaction_lag_ms: 0,
            min_cleanable_dirty_ratio: 0.5,
            delete_retention_ms: DAY_MS,
        }
    }
}
