//! A request frame. The hot two are read by our codec, all others as the broker does: shape first, then kafka-protocol.
#![no_main]

use bytes::Bytes;
use kafka_protocol::messages::{ApiKey, RequestKind};
use libfuzzer_sys::fuzz_target;
use ringlane::wire::fetch::{self, Fetch};
use ringlane::wire::frame::RequestHeader;
use ringlane::wire::offsets::{self, TOPIC_IDS_SINCE};
use ringlane::wire::produce::{self, Produce};
use ringlane::wire::shape;

fuzz_target!(|frame: &[u8]| {
    let Ok((header, body)) = RequestHeader::parse(frame) else { return };
    let version = header.api_version;
    match header.api_key {
        produce::API_KEY => {
            let Ok(request) = Produce::parse(frame, body, version) else { return };
            let mut cursor = request.cursor();
            let mut topics = 0;
            while let Some(topic) = cursor.next_topic(frame) {
                topics += 1;
                let mut partitions = 0;
                while let Some(partition) = cursor.next_partition(frame) {
                    partitions += 1;
                    assert!(partition.records.is_none_or(|records| frame.get(records).is_some()));
                }
                assert_eq!(partitions, topic.partition_count);
            }
            assert_eq!(topics, request.topic_count);
            assert_eq!(request.transactional_id(frame).is_some(), request.is_transactional);
        }
        fetch::API_KEY => {
            let Ok(request) = Fetch::parse(frame, body, version) else { return };
            assert!(request.partitions().count() * 16 <= frame.len());
            assert!(request.forgotten().count() * 4 <= frame.len());
        }
        key => {
            if version >= TOPIC_IDS_SINCE {
                let _ = offsets::commit_request(&frame[body..], version);
                let _ = offsets::fetch_request(&frame[body..], version);
            }
            if shape::check(key, version, &frame[body..]).is_ok() {
                let api = ApiKey::try_from(key).unwrap();
                let _ = RequestKind::decode(api, &mut Bytes::copy_from_slice(&frame[body..]), version);
            }
        }
    }
});
