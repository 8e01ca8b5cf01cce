//! Received bytes: cut into frames, headers read. Ranges must lie within the bytes and progress must be made.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringlane::wire::frame::{self, Frame, RequestHeader, SIZE_PREFIX};

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(Frame::Whole(range)) = frame::next_frame(rest, 1 << 20) {
        assert!(range.start == SIZE_PREFIX && range.end <= rest.len());
        if let Ok((header, body)) = RequestHeader::parse(&rest[range.clone()]) {
            assert!(body <= range.len());
            assert!(header.client_id.is_none_or(|id| id.len() <= range.len()));
        }
        rest = &rest[range.end..];
    }
});
