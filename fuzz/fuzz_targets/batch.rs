//! A partition's records as a producer may send them. What is accepted must be readable to the last header; whatever
//! the bytes, the CRC is mended first, or nothing would get past it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringlane::ids::{LeaderEpoch, Offset};
use ringlane::wire::batch::{self, Batch, Codec, HEADER_SIZE, HeaderView, Validation};
use ringlane::wire::record::Records;

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.to_vec();
    if let Some(size) = HeaderView::read(&bytes).and_then(|header| header.batch_size()) {
        if size <= bytes.len() {
            batch::seal(&mut bytes[..size]);
        }
    }
    let _ = Batch::stored(&bytes);
    let Ok(batch) = Batch::check(&bytes, Validation::Records) else { return };
    assert!(batch.size() <= bytes.len() && batch.size() >= HEADER_SIZE);
    if batch.codec() == Codec::None {
        let facts = batch.facts().unwrap();
        let (mut count, mut size) = (0, 0);
        for record in Records::new(batch.records(), batch.count()) {
            let record = record.unwrap();
            assert_eq!(record.offset_delta, count);
            let timestamp = batch.base_timestamp().wrapping_add(record.timestamp_delta);
            assert!(record.key.is_some() || facts.key_missing);
            let _ = timestamp;
            assert_eq!(record.headers().count(), record.header_count());
            size += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
            count += 1;
        }
        assert!(count == batch.count() && size <= bytes.len());
    }
    let size = batch.size();
    batch::stamp(&mut bytes[..size], Offset(i64::MAX - 7), LeaderEpoch(3));
    batch::set_log_append_time(&mut bytes[..size], 1234);
    let stamped = Batch::check(&bytes, Validation::Records).unwrap();
    assert_eq!((stamped.base_offset(), stamped.max_timestamp()), (Offset(i64::MAX - 7), 1234));
});
