//! What compaction keeps, as Kafka decides it: of each key the last record; tombstones until their delete horizon (KIP-534); control
//! batches; of each idempotent producer its last batch, empty if need be. Decides only; `cleaner` acts.

use std::collections::VecDeque;

use super::key_map::{KeyHash, KeyMap};
use super::log_config::LogConfig;
use super::producer_state::ProducerState;
use super::segment::{Segment, Stage};
use crate::ids::Offset;
use crate::wire::batch::HeaderView;
use crate::wire::record::Record;

/// What of a log is worth cleaning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Dirty {
    /// First offset that was not cleaned yet.
    pub from: Offset,
    /// First offset that must not be: the first unsettled segment, or one with records too young.
    pub to: Offset,
    /// Its part of all bytes up to `to`.
    pub ratio: f64,
    /// It has waited for `max.compaction.lag.ms`.
    pub overdue: bool,
}

/// Looks for what there is to clean.
pub(super) fn dirty(
    segments: &VecDeque<Segment>,
    config: &LogConfig,
    cleaned: Offset,
    limit: Offset,
    now_ms: i64,
) -> Option<Dirty> {
    let first = segments.front()?.base_offset;
    let from = cleaned.max(first);
    let (mut clean_bytes, mut dirty_bytes) = (0u64, 0u64);
    let mut to = from;
    let mut overdue = false;
    for (index, segment) in segments.iter().enumerate() {
        let Some(next) = segments.get(index + 1).map(|s| s.base_offset) else { break };
        let newest_ms = if segment.largest_timestamp >= 0 { segment.largest_timestamp } else { segment.created_ms };
        // Without a lag age does not count: a producer's clock may be ahead of ours.
        let lag_ms = config.min_compaction_lag_ms;
        let too_young = lag_ms > 0 && now_ms.saturating_sub(newest_ms) < lag_ms;
        if segment.stage != Stage::Settled || next > limit || (too_young && segment.base_offset >= from) {
            break;
        }
        if next <= from {
            clean_bytes += u64::from(segment.size);
            continue;
        }
        dirty_bytes += u64::from(segment.size);
        let oldest_ms = if segment.first_timestamp >= 0 { segment.first_timestamp } else { newest_ms };
        overdue |= now_ms.saturating_sub(oldest_ms) > config.max_compaction_lag_ms;
        to = next;
    }
    if dirty_bytes == 0 {
        return None;
    }
    Some(Dirty { from, to, ratio: dirty_bytes as f64 / (clean_bytes + dirty_bytes) as f64, overdue })
}

/// Base offsets of the segments that become one: as many as fit into one segment, from the first on.
pub(super) fn group(segments: &VecDeque<Segment>, from: Offset, to: Offset, segment_bytes: u32) -> Vec<Offset> {
    let mut bases: Vec<Offset> = Vec::new();
    let mut bytes = 0u64;
    for (index, segment) in segments.iter().enumerate().skip_while(|(_, s)| s.base_offset < from) {
        let end = segments.get(index + 1).map_or(to, |next| next.base_offset);
        bytes += u64::from(segment.size);
        let fits =
            bases.first().is_none_or(|first| bytes <= u64::from(segment_bytes) && end - *first <= i64::from(i32::MAX));
        if segment.base_offset >= to || !fits {
            break;
        }
        bases.push(segment.base_offset);
    }
    bases
}

/// Why a log cannot be cleaned.
#[derive(Debug, thiserror::Error)]
pub(super) enum Uncleanable {
    #[error("batch at offset {0}: {1}")]
    Batch(Offset, String),
}

/// What records are judged by.
pub(super) struct Rules<'a> {
    pub map: &'a KeyMap,
    pub producers: &'a ProducerState,
    /// First offset whose key is not in the map.
    pub mapped_end: Offset,
    /// First offset that this round may not clean.
    pub round_end: Offset,
    pub delete_retention_ms: i64,
    /// When the round began.
    pub now_ms: i64,
}

impl Rules<'_> {
    /// Until when tombstones that are seen for the first time are kept.
    pub fn horizon_ms(&self) -> i64 {
        self.now_ms.saturating_add(self.delete_retention_ms)
    }
    /// Does a batch stay though none of its records does? The state of an idempotent producer lives as long as its last batch;
    /// and the round's last batch says where the log went on.
    pub fn keeps_empty(&self, batch: &HeaderView<'_>) -> bool {
        let last = batch.last_offset();
        let producer = batch.producer_id();
        last + 1 == self.round_end || (producer >= 0 && self.producers.last_offset_of(producer) == Some(last))
    }
}

/// What of a batch its records' fate depends on.
pub(super) struct Verdict {
    base_offset: Offset,
    base_timestamp: i64,
    horizon_ms: Option<i64>,
}

impl Verdict {
    pub fn of(batch: &HeaderView<'_>) -> Verdict {
        let (base_offset, base_timestamp) = (batch.base_offset(), batch.base_timestamp());
        let horizon_ms = batch.attributes().has_delete_horizon().then_some(base_timestamp);
        Verdict { base_offset, base_timestamp, horizon_ms }
    }
    /// The timestamp a record was given, whatever its batch's base means.
    pub fn timestamp(&self, record: &Record<'_>) -> i64 {
        self.base_timestamp.wrapping_add(record.timestamp_delta)
    }
    pub fn keeps(&self, rules: &Rules<'_>, record: &Record<'_>, key: Option<KeyHash>) -> bool {
        let offset = self.base_offset + i64::from(record.offset_delta);
        if offset >= rules.mapped_end {
            // Older records of the key may be left before the map's end, so that even a tombstone must stay.
            return true;
        }
        let Some(key) = key else { return false };
        let last = rules.map.get(key).is_none_or(|last| last <= offset.0);
        last && (record.value.is_some() || self.horizon_ms.is_none_or(|horizon_ms| rules.now_ms < horizon_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dirty_ratio_lags_and_groups() {
        let segments: VecDeque<Segment> = [(0, 100, 1000), (10, 300, 2000), (20, 100, 3000), (30, 50, 4000)]
            .into_iter()
            .map(|(base, size, timestamp)| {
                let mut segment = Segment::new(Offset(base), 0);
                (segment.size, segment.largest_timestamp, segment.stage) = (size, timestamp, Stage::Settled);
                segment
            })
            .collect();
        let config = LogConfig::default();
        let find = |config: &LogConfig, cleaned, now| dirty(&segments, config, Offset(cleaned), Offset(99), now);
        let all = find(&config, 0, 5000).unwrap();
        assert_eq!((all.from, all.to, all.ratio, all.overdue), (Offset(0), Offset(30), 1.0, false));
        assert_eq!(find(&config, 10, 5000).unwrap().ratio, 0.8);
        assert_eq!(find(&config, 30, 5000), None, "the active segment is never cleaned");
        assert_eq!(find(&config, 0, 500).unwrap().to, Offset(30), "timestamps of the future, and no lag");
        let lag = LogConfig { min_compaction_lag_ms: 2500, max_compaction_lag_ms: 3500, ..config };
        let young = find(&lag, 0, 5000).unwrap();
        assert_eq!((young.to, young.overdue), (Offset(20), true));
        assert_eq!(dirty(&segments, &lag, Offset(0), Offset(12), 5000).unwrap().to, Offset(10), "high watermark");

        let bases =
            |from, to, bytes| group(&segments, Offset(from), Offset(to), bytes).iter().map(|o| o.0).collect::<Vec<_>>();
        assert_eq!(bases(0, 30, 400), [0, 10]);
        assert_eq!(bases(20, 30, 400), [20]);
        assert_eq!(bases(0, 30, 10), [0], "one that is too large alone");
        assert_eq!(bases(0, 30, 1000), [0, 10, 20]);
    }
}
