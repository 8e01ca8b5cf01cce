//! What compaction keeps, as Kafka decides it: of each key the last record; tombstones until their delete horizon (KIP-534); control
//! batches; of each idempotent producer its last batch, empty if need be. Decides only; `cleaner` acts.

use std::collections::VecDeque;

use super::key_map::KeyMap;
use super::log_config::LogConfig;
use super::producer_state::ProducerState;
use super::segment::{Segment, Stage};
use crate::ids::Offset;
use crate::wire::batch::{Batch, Codec, TimestampType};
use crate::wire::compression;
use crate::wire::record::{BatchBuilder, BatchFields, Record, Records};

/// Decompressed records of one batch: more is refused, and the log is left as it is.
const RECORDS_SIZE_MAX: usize = 256 << 20;

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
        let too_young = now_ms.saturating_sub(newest_ms) < config.min_compaction_lag_ms;
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

/// Notes the keys of a batch. False: the map is full; nothing of this batch may count as cleaned.
pub(super) fn map_batch(batch: &Batch<'_>, map: &mut KeyMap) -> Result<bool, Uncleanable> {
    if batch.attributes().is_control() {
        return Ok(true);
    }
    let mut fits = true;
    each_record(batch, |record| {
        if let Some(key) = record.key {
            fits &= map.put(key, batch.base_offset().0 + i64::from(record.offset_delta));
        }
    })?;
    Ok(fits)
}

/// What becomes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was appended to the output as it is, or as what is left of it.
    Kept { max_timestamp: i64, size: u32 },
    /// Nothing of it is left.
    Gone,
}

/// What `filter_batch` goes by.
pub(super) struct Rules<'a> {
    pub map: &'a KeyMap,
    pub producers: &'a ProducerState,
    pub delete_retention_ms: i64,
    pub now_ms: i64,
}

/// Appends to `out` what of a batch is to be kept.
pub(super) fn filter_batch(batch: &Batch<'_>, rules: &Rules<'_>, out: &mut Vec<u8>) -> Result<Fate, Uncleanable> {
    let whole = Fate::Kept { max_timestamp: batch.max_timestamp(), size: batch.size() as u32 };
    let attributes = batch.attributes();
    if attributes.is_control() {
        out.extend_from_slice(batch.bytes());
        return Ok(whole);
    }
    let horizon = attributes.has_delete_horizon().then(|| batch.base_timestamp());
    let keeps = |record: &Record<'_>| {
        let Some(key) = record.key else { return false };
        let offset = batch.base_offset().0 + i64::from(record.offset_delta);
        let last = rules.map.get(key).is_none_or(|last| last <= offset);
        last && (record.value.is_some() || horizon.is_none_or(|horizon_ms| rules.now_ms < horizon_ms))
    };
    let (mut kept, mut tombstones) = (0, 0);
    each_record(batch, |record| {
        if keeps(record) {
            kept += 1;
            tombstones += i32::from(record.value.is_none());
        }
    })?;
    let sets_horizon = tombstones > 0 && horizon.is_none();
    if kept == batch.count() && !sets_horizon && kept > 0 {
        out.extend_from_slice(batch.bytes());
        return Ok(whole);
    }
    let fields = BatchFields {
        base_offset: batch.base_offset(),
        leader_epoch: batch.leader_epoch(),
        attributes,
        producer_id: batch.producer_id(),
        producer_epoch: batch.producer_epoch(),
        base_sequence: batch.base_sequence(),
    };
    if kept == 0 {
        // The state of an idempotent producer lives as long as its last batch does.
        let last_of_producer = rules.producers.last_offset_of(batch.producer_id()) == Some(batch.last_offset());
        if !last_of_producer {
            return Ok(Fate::Gone);
        }
        let start = out.len();
        BatchBuilder::new(out, BatchFields { attributes: attributes.with_codec(Codec::None), ..fields })
            .with_base_timestamp(batch.base_timestamp())
            .finish_with(batch.last_offset_delta(), batch.max_timestamp());
        return Ok(Fate::Kept { max_timestamp: batch.max_timestamp(), size: (out.len() - start) as u32 });
    }
    // The horizon takes the place of the base timestamp; each record's own timestamp stays what it was.
    let (base_ms, attributes) = if sets_horizon {
        (rules.now_ms.saturating_add(rules.delete_retention_ms), attributes.with_delete_horizon())
    } else {
        (batch.base_timestamp(), attributes)
    };
    // Rebuilt uncompressed first; compression replaces the records and with them size and checksum.
    let start = out.len();
    let mut builder = BatchBuilder::new(out, BatchFields { attributes, ..fields }).with_base_timestamp(base_ms);
    let mut newest_ms = -1;
    each_record(batch, |record| {
        if keeps(record) {
            let timestamp = timestamp_of(batch, record);
            newest_ms = newest_ms.max(timestamp);
            let headers: Vec<_> = record.headers().collect();
            builder.push_at(record.offset_delta, timestamp, record.key, record.value, &headers);
        }
    })?;
    let by_broker = attributes.timestamp_type() == TimestampType::LogAppendTime;
    let max_timestamp = if by_broker { batch.max_timestamp() } else { newest_ms };
    builder.finish_with(batch.last_offset_delta(), max_timestamp);
    if batch.codec() != Codec::None {
        compress_records(&mut *out, start, batch)?;
    }
    Ok(Fate::Kept { max_timestamp, size: (out.len() - start) as u32 })
}

/// The timestamp a record was given, whatever its batch's base means.
fn timestamp_of(batch: &Batch<'_>, record: &Record<'_>) -> i64 {
    batch.base_timestamp().wrapping_add(record.timestamp_delta)
}

/// Compresses the records of the batch that was built at `start`, with the codec the original had.
fn compress_records(out: &mut Vec<u8>, start: usize, original: &Batch<'_>) -> Result<(), Uncleanable> {
    let fault = |e: String| Uncleanable::Batch(original.base_offset(), e);
    let built = Batch::stored(&out[start..]).map_err(|e| fault(e.to_string()))?;
    let batch =
        compression::with_records(&built, built.records(), original.codec(), None).map_err(|e| fault(e.to_string()))?;
    out.truncate(start);
    out.extend_from_slice(&batch);
    Ok(())
}

/// Calls `each` for every record of a batch.
fn each_record(batch: &Batch<'_>, mut each: impl FnMut(&Record<'_>)) -> Result<(), Uncleanable> {
    let fault = |reason: String| Uncleanable::Batch(batch.base_offset(), reason);
    let decompressed;
    let bytes = if batch.codec() == Codec::None {
        batch.records()
    } else {
        decompressed = compression::decompress_bounded(batch.codec(), batch.records(), RECORDS_SIZE_MAX)
            .map_err(|e| fault(e.to_string()))?;
        &decompressed
    };
    for record in Records::new(bytes, batch.count()) {
        each(&record.map_err(|e| fault(e.to_string()))?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::LeaderEpoch;
    use crate::wire::batch::Attributes;

    type Row<'a> = (i32, &'a str, Option<&'a str>);

    fn batch(base: i64, attributes: Attributes, base_ms: i64, rows: &[Row<'_>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let fields = BatchFields {
            base_offset: Offset(base),
            leader_epoch: LeaderEpoch(2),
            attributes,
            producer_id: 9,
            producer_epoch: 0,
            base_sequence: 0,
        };
        let mut builder = BatchBuilder::new(&mut bytes, fields).with_base_timestamp(base_ms);
        for (delta, key, value) in rows {
            let key = Some(key.as_bytes()).filter(|key| !key.is_empty());
            builder.push_at(*delta, 1000 + i64::from(*delta), key, value.map(str::as_bytes), &[(b"h", Some(b"x"))]);
        }
        builder.finish();
        bytes
    }
    /// Offset, key, value and timestamp.
    type Left = (i64, String, Option<String>, i64);

    /// What is left, and whether there is a horizon.
    fn left(bytes: &[u8]) -> (Vec<Left>, Option<i64>) {
        let batch = Batch::stored(bytes).unwrap();
        let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
        let mut rows = Vec::new();
        each_record(&batch, |r| {
            assert_eq!(r.headers().count(), 1);
            let offset = batch.base_offset().0 + i64::from(r.offset_delta);
            rows.push((offset, text(r.key.unwrap()), r.value.map(text), timestamp_of(&batch, r)));
        })
        .unwrap();
        (rows, batch.attributes().has_delete_horizon().then(|| batch.base_timestamp()))
    }
    fn filter(bytes: &[u8], map: &KeyMap, producers: &ProducerState, now_ms: i64) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let rules = Rules { map, producers, delete_retention_ms: 500, now_ms };
        let fate = filter_batch(&Batch::stored(bytes).unwrap(), &rules, &mut out).unwrap();
        match fate {
            Fate::Gone => None,
            Fate::Kept { size, .. } => {
                assert_eq!(size as usize, out.len());
                Some(out)
            }
        }
    }

    #[test]
    fn the_last_record_of_a_key_stays_under_every_codec() {
        let rows = [(0, "a", Some("1")), (1, "b", Some("2")), (2, "", Some("no key")), (3, "a", Some("3"))];
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let plain = batch(10, Attributes(0), 1000, &rows);
            let plain = Batch::stored(&plain).unwrap();
            let bytes = compression::with_records(&plain, plain.records(), codec, None).unwrap();
            let mut map = KeyMap::new(100, 1 << 20);
            assert!(map_batch(&Batch::stored(&bytes).unwrap(), &mut map).unwrap());
            let out = filter(&bytes, &map, &ProducerState::default(), 0).unwrap();
            let (rows, horizon) = left(&out);
            let expected = [
                (11, "b".to_string(), Some("2".to_string()), 1001),
                (13, "a".to_string(), Some("3".to_string()), 1003),
            ];
            assert_eq!((rows.as_slice(), horizon), (&expected[..], None), "{codec:?}");
            let after = Batch::stored(&out).unwrap();
            assert_eq!((after.last_offset(), after.codec(), after.leader_epoch()), (Offset(13), codec, LeaderEpoch(2)));
            // A second time nothing changes, to the byte.
            assert_eq!(filter(&out, &map, &ProducerState::default(), 0).unwrap(), out);
        }
    }

    #[test]
    fn tombstones_get_a_horizon_and_go_after_it() {
        let bytes = batch(0, Attributes(0), 1000, &[(0, "a", Some("1")), (1, "b", None)]);
        let map = KeyMap::new(10, 1 << 20);
        let none = ProducerState::default();
        let out = filter(&bytes, &map, &none, 10_000).unwrap();
        let (rows, horizon) = left(&out);
        assert_eq!(horizon, Some(10_500));
        assert_eq!(rows[1], (1, "b".to_string(), None, 1001), "its own timestamp stays");
        assert_eq!(filter(&out, &map, &none, 10_499).unwrap(), out, "not yet");
        let (rows, horizon) = left(&filter(&out, &map, &none, 10_500).unwrap());
        assert_eq!((rows.len(), rows[0].0, horizon), (1, 0, Some(10_500)));
    }

    #[test]
    fn an_empty_batch_stays_if_it_is_its_producers_last() {
        let bytes = batch(5, Attributes(0), 1000, &[(0, "a", Some("1"))]);
        let mut map = KeyMap::new(10, 1 << 20);
        map.put(b"a", 99);
        assert_eq!(filter(&bytes, &map, &ProducerState::default(), 0), None);
        let mut producers = ProducerState::default();
        producers.note(&super::super::header::Header::decode(&bytes).unwrap().appended());
        let out = filter(&bytes, &map, &producers, 0).unwrap();
        let batch = Batch::stored(&out).unwrap();
        assert_eq!(
            (batch.count(), batch.base_offset(), batch.last_offset(), batch.producer_id()),
            (0, Offset(5), Offset(5), 9)
        );
        assert_eq!(filter(&out, &map, &producers, 0).unwrap(), out);
    }

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
