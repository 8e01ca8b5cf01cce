//! What becomes of batches, in the smallest steps there are, and how large ones are cut.

use super::*;
use crate::ids::LeaderEpoch;
use crate::storage::producer_state::ProducerState;
use crate::wire::compression::{decompress_bounded, with_records};
use crate::wire::record::{BatchBuilder, BatchFields};

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
    let records = decompress_bounded(batch.codec(), batch.records(), 1 << 20).unwrap();
    for r in Records::new(&records, batch.count()).map(Result::unwrap) {
        assert_eq!(r.headers().count(), 1);
        let offset = batch.base_offset().0 + i64::from(r.offset_delta);
        rows.push((offset, text(r.key.unwrap()), r.value.map(text), Verdict::of(&batch).timestamp(&r)));
    }
    (rows, batch.attributes().has_delete_horizon().then(|| batch.base_timestamp()))
}
fn start(bytes: &[u8]) -> BatchWork {
    let mut work = BatchWork::default();
    let padded = [b"before", bytes, b"after"].concat();
    work.start(Piece { bytes: Rc::new(padded), range: 6..6 + bytes.len() }).unwrap();
    work
}
/// In the smallest steps there are.
fn map_all(bytes: &[u8], map: &mut KeyMap) -> bool {
    let mut work = start(bytes);
    loop {
        if let Some(fits) = work.map(map, &mut Budget::new(1)).unwrap() {
            assert!(work.is_idle());
            return fits;
        }
    }
}
fn filter_by(bytes: &[u8], rules: &Rules<'_>) -> Option<Vec<u8>> {
    let (mut work, mut out) = (start(bytes), Vec::new());
    loop {
        match work.filter(rules, &mut out, &mut Budget::new(1)).unwrap() {
            None => {}
            Some(Fate::Gone) => return None,
            Some(Fate::Kept { size, max_timestamp }) => {
                assert!(work.is_idle());
                assert_eq!(size as usize, out.len());
                assert_eq!(max_timestamp, Batch::stored(&out).unwrap().max_timestamp());
                return Some(out);
            }
        }
    }
}
fn rules<'a>(map: &'a KeyMap, producers: &'a ProducerState, now_ms: i64) -> Rules<'a> {
    let never = Offset(i64::MAX);
    Rules { map, producers, mapped_end: never, round_end: never, delete_retention_ms: 500, now_ms }
}
fn filter(bytes: &[u8], map: &KeyMap, producers: &ProducerState, now_ms: i64) -> Option<Vec<u8>> {
    filter_by(bytes, &rules(map, producers, now_ms))
}
fn put(map: &mut KeyMap, key: &[u8], offset: i64) -> bool {
    map.put(map.hasher().hash(key), offset)
}

fn map_of(keys: usize) -> KeyMap {
    let mut map = KeyMap::new(keys, 1 << 20);
    while !map.grow() {}
    map
}

/// Records are looked at some at a time: of large keys all of these were hashed, however little the piece might still cost.
#[test]
fn large_keys_cost_no_more_than_the_budget_allows() {
    let keys: Vec<String> = (0..8).map(|i| i.to_string().repeat(64 << 10)).collect();
    let rows: Vec<Row<'_>> = keys.iter().enumerate().map(|(i, key)| (i as i32, key.as_str(), Some("v"))).collect();
    let (bytes, mut map) = (batch(0, Attributes(0), 1000, &rows), map_of(100));
    let mut work = start(&bytes);
    let pieces = (1..).find(|_| work.map(&mut map, &mut Budget::new(1_000)).unwrap().is_some());
    assert_eq!(pieces, Some(8));
}

#[test]
fn the_last_record_of_a_key_stays_under_every_codec() {
    let rows = [(0, "a", Some("1")), (1, "b", Some("2")), (2, "", Some("no key")), (3, "a", Some("3"))];
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let plain = batch(10, Attributes(0), 1000, &rows);
        let plain = Batch::stored(&plain).unwrap();
        let bytes = with_records(&plain, plain.records(), codec, None).unwrap();
        let mut map = map_of(100);
        assert!(map_all(&bytes, &mut map));
        let out = filter(&bytes, &map, &ProducerState::default(), 0).unwrap();
        let (rows, horizon) = left(&out);
        let expected =
            [(11, "b".to_string(), Some("2".to_string()), 1001), (13, "a".to_string(), Some("3".to_string()), 1003)];
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
    let map = map_of(10);
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
    let mut map = map_of(10);
    put(&mut map, b"a", 99);
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

/// What lies behind the part that was mapped stays: of a tombstone's key there may be older records before it.
#[test]
fn nothing_behind_the_map_goes() {
    let bytes =
        batch(5, Attributes(0).with_delete_horizon(), 10, &[(0, "a", Some("1")), (1, "b", None), (2, "c", None)]);
    let mut map = map_of(10);
    [b"a", b"b", b"c"].into_iter().for_each(|key| assert!(put(&mut map, key, 99)));
    let none = ProducerState::default();
    let out = filter_by(&bytes, &Rules { mapped_end: Offset(6), ..rules(&map, &none, 99) }).unwrap();
    assert_eq!(left(&out).0.iter().map(|row| row.0).collect::<Vec<_>>(), [6, 7]);
    assert_eq!(filter(&bytes, &map, &none, 99), None);
}

#[test]
fn the_rounds_last_batch_stays_though_empty() {
    let bytes = batch(5, Attributes(0).with_codec(Codec::None), 1000, &[(0, "a", Some("1")), (1, "b", None)]);
    let mut map = map_of(10);
    [b"a", b"b"].into_iter().for_each(|key| assert!(put(&mut map, key, 99)));
    let none = ProducerState::default();
    let at = |round_end| filter_by(&bytes, &Rules { round_end: Offset(round_end), ..rules(&map, &none, 0) });
    assert_eq!((at(6), at(8)), (None, None));
    let out = at(7).unwrap();
    let batch = Batch::stored(&out).unwrap();
    assert_eq!((batch.count(), batch.last_offset(), batch.base_timestamp()), (0, Offset(6), -1));
    assert_eq!(batch.max_timestamp(), Batch::stored(&bytes).unwrap().max_timestamp());
}

/// A batch of 1 MB is worked on in many slices, whatever its codec; none does much more than it was allowed.
#[test]
fn large_batches_are_cut() {
    let mut plain = Vec::new();
    let mut builder = BatchBuilder::new(&mut plain, BatchFields::default());
    for i in 0..4000u32 {
        let value = format!("{:08x} every core is a broker ", i.wrapping_mul(2_654_435_761)).repeat(7);
        builder.push(1000, Some(&i.to_be_bytes()), Some(value.as_bytes()), &[]);
    }
    builder.finish();
    let plain = Batch::stored(&plain).unwrap();
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let bytes = with_records(&plain, plain.records(), codec, None).unwrap();
        let mut map = map_of(4000);
        (0..2000u32).for_each(|i| assert!(put(&mut map, &(2 * i).to_be_bytes(), 10_000)));
        let producers = ProducerState::default();
        let rules = rules(&map, &producers, 0);
        let (mut work, mut out, mut slices) = (start(&bytes), Vec::new(), 0);
        loop {
            let mut budget = Budget::new(100_000);
            let fate = work.filter(&rules, &mut out, &mut budget).unwrap();
            assert!(budget.0 > -220_000, "{codec:?}: {} over its budget", -budget.0);
            slices += 1;
            if fate.is_some() {
                break;
            }
        }
        assert!(slices > 5, "{codec:?}: {slices} slices");
        let after = Batch::stored(&out).unwrap();
        assert_eq!((after.count(), after.codec(), after.last_offset()), (2000, codec, Offset(3999)));
        let records = decompress_bounded(codec, after.records(), 1 << 20).unwrap();
        let odd = Records::new(&records, 2000).map(|r| r.unwrap().offset_delta).eq((0..2000).map(|i| 2 * i + 1));
        assert!(odd, "{codec:?}");
    }
}

/// Freed at a stretch, what a large batch took held the core for as long as the kernel needed to take it back.
#[test]
fn the_buffers_memory_goes_back_in_steps() {
    let value = "v".repeat(1 << 20);
    let plain = batch(0, Attributes(0), 1000, &[(0, "a", Some(&value)), (1, "b", Some("2"))]);
    let plain = Batch::stored(&plain).unwrap();
    let bytes = with_records(&plain, plain.records(), Codec::Zstd, None).unwrap();
    let mut map = map_of(10);
    put(&mut map, b"b", 99);
    let producers = ProducerState::default();
    let (mut work, mut out) = (start(&bytes), Vec::new());
    while work.filter(&rules(&map, &producers, 0), &mut out, &mut Budget::new(1)).unwrap().is_none() {}
    // Twice: as decompressed, and as made anew.
    let held = work.records.capacity() + work.built.capacity() + work.other.capacity();
    assert!(held > 2 << 20);
    let steps = (1..).find(|_| work.shrink()).unwrap();
    assert!((8..=held / SHRINK_SIZE + 4).contains(&steps), "{steps} steps for {held} bytes");
    assert_eq!(work.records.capacity() + work.built.capacity() + work.other.capacity(), 0);
}
