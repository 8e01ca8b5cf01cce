//! Which segments may go. Decides only; `roll` acts.

use std::collections::VecDeque;

use super::log_config::LogConfig;
use super::segment::Segment;
use crate::ids::{Now, Offset};

/// Where a log stands.
pub(super) struct Offsets {
    pub log_start: Offset,
    pub log_end: Offset,
    /// Only records below it may go (the high watermark).
    pub limit: Offset,
}

/// How many segments, from the oldest, retention wants gone. The last one counts as full: the caller seals it first if it
/// is among them. `coming`: bytes about to be written behind them, which count as kept; 0 at the checks that come every
/// `log.retention.check.interval.ms`. Between those, age counts from when a segment was sealed, too: records that come with times
/// of the past can be read until the next check, as with Kafka.
pub(super) fn deletable(
    segments: &VecDeque<Segment>,
    config: &LogConfig,
    Offsets { log_start, log_end, limit }: Offsets,
    coming: u32,
    now: Now,
) -> usize {
    let mut total: u64 = u64::from(coming) + segments.iter().map(|s| u64::from(s.size)).sum::<u64>();
    let mut count = 0;
    for (index, segment) in segments.iter().enumerate() {
        let last = index + 1 == segments.len();
        let end = segments.get(index + 1).map_or(log_end, |next| next.base_offset);
        if end > limit || (segment.size == 0 && last) {
            break;
        }
        let rest = total - u64::from(segment.size);
        let too_big = config.delete && config.retention_bytes >= 0 && rest >= config.retention_bytes as u64;
        let newest_ms = if segment.largest_timestamp >= 0 { segment.largest_timestamp } else { segment.created_ms };
        let sealed_for_ms = match coming {
            0 => i64::MAX,
            _ if last => 0,
            _ => (now.monotonic_ms() - segment.sealed_ms) as i64,
        };
        let age_ms = (now.wall_ms - newest_ms).min(sealed_for_ms);
        let too_old = config.delete && config.retention_ms >= 0 && age_ms > config.retention_ms;
        if !(too_big || too_old || end <= log_start) {
            break;
        }
        total = rest;
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(list: &[(i64, u32, i64)]) -> VecDeque<Segment> {
        list.iter()
            .map(|(base, size, timestamp)| {
                let mut segment = Segment::new(Offset(*base), 0);
                (segment.size, segment.largest_timestamp) = (*size, *timestamp);
                segment
            })
            .collect()
    }
    fn count(list: &[(i64, u32, i64)], config: &LogConfig, start: i64, limit: i64, now: i64) -> usize {
        let offsets = Offsets { log_start: Offset(start), log_end: Offset(1000), limit: Offset(limit) };
        deletable(&segments(list), config, offsets, 0, Now { monotonic_ns: 0, wall_ms: now })
    }

    const THREE: [(i64, u32, i64); 3] = [(0, 256, 100), (10, 256, 200), (20, 256, 300)];

    #[test]
    fn by_size_what_stays_must_still_reach_the_limit() {
        let config = |bytes| LogConfig { retention_bytes: bytes, retention_ms: -1, ..LogConfig::default() };
        assert_eq!(count(&THREE, &config(512), 0, 1000, 0), 1);
        assert_eq!(count(&THREE, &config(513), 0, 1000, 0), 0);
        assert_eq!(count(&THREE, &config(0), 0, 1000, 0), 3);
        assert_eq!(count(&THREE, &config(0), 0, 19, 0), 1, "not above the high watermark");
        assert_eq!(count(&THREE, &config(-1), 0, 1000, 0), 0);
        let compacted = LogConfig { delete: false, compact: true, ..config(0) };
        assert_eq!(count(&THREE, &compacted, 0, 1000, 0), 0);
    }

    #[test]
    fn by_time_and_by_deleted_records() {
        let config = LogConfig { retention_ms: 1000, ..LogConfig::default() };
        assert_eq!(count(&THREE, &config, 0, 1000, 1100), 0);
        assert_eq!(count(&THREE, &config, 0, 1000, 1101), 1);
        assert_eq!(count(&THREE, &config, 0, 1000, 9999), 3);
        assert_eq!(count(&THREE, &config, 19, 1000, 0), 1);
        assert_eq!(count(&THREE, &config, 20, 1000, 0), 2);
        let old_behind_new = [(0, 256, 5000), (10, 256, 100)];
        assert_eq!(count(&old_behind_new, &config, 0, 1000, 2000), 0, "only ever from the oldest on");
    }
}
