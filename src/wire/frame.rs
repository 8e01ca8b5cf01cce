//! Frames: a 4-byte size, then that many bytes. Finds them in what was received, reads request headers, writes reply
//! headers. A size is judged before anything is reserved for it.

use std::ops::Range;

use super::reader::{DecodeError, Reader};
use super::writer;

/// Bytes of the size in front of each frame.
pub const SIZE_PREFIX: usize = 4;

/// What the bytes received so far hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Not even the size is complete.
    NeedSize,
    /// The frame has this many bytes, size included, and not all of them are here.
    NeedBytes(usize),
    /// A whole frame: these bytes, without the size; the next one starts at the end of the range.
    Whole(Range<usize>),
}

/// A size that no frame can have: close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("frame size {0} is negative; is the client speaking Kafka's protocol without TLS?")]
    Negative(i32),
    #[error("frame of {size} bytes is above socket.request.max.bytes={max}")]
    TooLarge { size: usize, max: usize },
}

/// Looks for a frame at the start of `bytes`.
pub fn next_frame(bytes: &[u8], max: usize) -> Result<Frame, FrameError> {
    let Some(size) = bytes.first_chunk::<SIZE_PREFIX>() else { return Ok(Frame::NeedSize) };
    let size = i32::from_be_bytes(*size);
    let size = usize::try_from(size).map_err(|_| FrameError::Negative(size))?;
    if size > max {
        return Err(FrameError::TooLarge { size, max });
    }
    let end = SIZE_PREFIX + size;
    Ok(if bytes.len() < end { Frame::NeedBytes(end) } else { Frame::Whole(SIZE_PREFIX..end) })
}

/// The header of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader<'a> {
    pub api_key: i16,
    pub api_version: i16,
    pub correlation_id: i32,
    pub client_id: Option<&'a str>,
}

/// First version of each API whose messages are flexible (compact lengths, tagged fields), from Kafka's schemas: the
/// APIs older than flexible versions. All others began flexible.
const FLEXIBLE_FROM: [(i16, i16); 50] = [
    (0, 9), // Produce
    (1, 12),
    (2, 6), // ListOffsets
    (3, 9),
    (4, NEVER), // 4-7 spoke to controllers in ZooKeeper's time
    (5, NEVER),
    (6, NEVER),
    (7, NEVER),
    (8, 8), // OffsetCommit
    (9, 6),
    (10, 3), // FindCoordinator
    (11, 6),
    (12, 4),
    (13, 4),
    (14, 4),
    (15, 5), // DescribeGroups
    (16, 3),
    (17, NEVER), // SaslHandshake
    (18, 3),
    (19, 5), // CreateTopics
    (20, 4),
    (21, 2),
    (22, 2), // InitProducerId
    (23, 4),
    (24, 3), // AddPartitionsToTxn
    (25, 3),
    (26, 3),
    (27, 1),
    (28, 3),
    (29, 2), // DescribeAcls
    (30, 2),
    (31, 2),
    (32, 4), // DescribeConfigs
    (33, 2),
    (34, 2),
    (35, 2),
    (36, 2), // SaslAuthenticate
    (37, 2),
    (38, 2), // CreateDelegationToken
    (39, 2),
    (40, 2),
    (41, 2),
    (42, 2), // DeleteGroups
    (43, 2),
    (44, 1),
    (47, NEVER), // OffsetDelete
    (48, 1),
    (49, 1),
    (53, 1), // BeginQuorumEpoch
    (54, 1),
];
const NEVER: i16 = i16::MAX;

/// Whether messages of this API and version are flexible.
pub fn is_flexible(api_key: i16, api_version: i16) -> bool {
    match FLEXIBLE_FROM.binary_search_by_key(&api_key, |row| row.0) {
        Ok(row) => api_version >= FLEXIBLE_FROM[row].1,
        Err(_) => true,
    }
}
/// Whether the request has header version 2 (tagged fields) instead of 1.
pub fn request_header_flexible(api_key: i16, api_version: i16) -> bool {
    is_flexible(api_key, api_version)
}
/// Whether the reply has header version 1 (tagged fields) instead of 0. ApiVersions never has: a client must be able
/// to read it before it knows which versions the broker speaks (KIP-511).
pub fn reply_header_flexible(api_key: i16, api_version: i16) -> bool {
    api_key != API_VERSIONS && is_flexible(api_key, api_version)
}
const API_VERSIONS: i16 = 18;

impl<'a> RequestHeader<'a> {
    /// Reads the header at the start of a frame (without its size); also gives the position of the body.
    pub fn parse(frame: &'a [u8]) -> Result<(RequestHeader<'a>, usize), DecodeError> {
        let mut r = Reader::new(frame);
        let api_key = r.i16("api key")?;
        let api_version = r.i16("api version")?;
        let correlation_id = r.i32("correlation id")?;
        // The client id keeps its two-byte length in header version 2.
        let client_id = r.nullable_string(false, "client id")?;
        if request_header_flexible(api_key, api_version) {
            r.skip_tags()?;
        }
        Ok((RequestHeader { api_key, api_version, correlation_id, client_id }, r.position()))
    }
}

/// Starts a reply: room for the size, and the header. `flexible` is `reply_header_flexible`. Gives the place of the
/// size to `end_reply`.
#[must_use]
pub fn begin_reply(out: &mut Vec<u8>, correlation_id: i32, flexible: bool) -> usize {
    let size_at = writer::reserve_i32(out);
    writer::i32(out, correlation_id);
    writer::no_tags(out, flexible);
    size_at
}
/// Ends a reply that began at `size_at` and is followed or interleaved by `file_bytes` from files.
pub fn end_reply(out: &mut [u8], size_at: usize, file_bytes: u64) {
    let size = (out.len() - size_at - SIZE_PREFIX) as u64 + file_bytes;
    assert!(size <= i32::MAX as u64, "a reply of {size} bytes cannot be framed");
    writer::patch_i32(out, size_at, size as i32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::messages::{ApiKey, RequestHeader as PeerHeader, ResponseHeader as PeerReplyHeader};
    use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

    #[test]
    fn frames_are_found_and_bad_sizes_refused() {
        assert_eq!(next_frame(&[0, 0, 0], 100), Ok(Frame::NeedSize));
        assert_eq!(next_frame(&[0, 0, 0, 3, 1, 2], 100), Ok(Frame::NeedBytes(7)));
        assert_eq!(next_frame(&[0, 0, 0, 3, 1, 2, 3, 0], 100), Ok(Frame::Whole(4..7)));
        assert_eq!(next_frame(&[0, 0, 0, 0], 100), Ok(Frame::Whole(4..4)));
        assert_eq!(next_frame(&[0, 0, 0, 101], 100), Err(FrameError::TooLarge { size: 101, max: 100 }));
        assert_eq!(next_frame(&[0xff, 0xff, 0xff, 0xfe], 100), Err(FrameError::Negative(-2)));
    }

    /// The table of flexible versions against another implementation's, for every key and version it knows.
    #[test]
    fn headers_agree_with_kafka_protocol_for_every_api_and_version() {
        let mut seen = 0;
        for key in 0..100i16 {
            let Ok(api) = ApiKey::try_from(key) else { continue };
            for version in api.valid_versions().min..=api.valid_versions().max {
                assert_eq!(
                    request_header_flexible(key, version),
                    api.request_header_version(version) >= 2,
                    "{api:?} {version}"
                );
                assert_eq!(
                    reply_header_flexible(key, version),
                    api.response_header_version(version) >= 1,
                    "{api:?} {version}"
                );
                seen += 1;

                let peer = PeerHeader::default()
                    .with_request_api_key(key)
                    .with_request_api_version(version)
                    .with_correlation_id(77)
                    .with_client_id(Some(StrBytes::from_static_str("probe")));
                let mut frame = BytesMut::new();
                peer.encode(&mut frame, api.request_header_version(version)).unwrap();
                let size = frame.len();
                frame.extend_from_slice(b"body");
                let (header, body) = RequestHeader::parse(&frame).unwrap();
                assert_eq!(body, size);
                assert_eq!(
                    header,
                    RequestHeader { api_key: key, api_version: version, correlation_id: 77, client_id: Some("probe") }
                );

                let mut out = b"earlier".to_vec();
                let at = begin_reply(&mut out, 78, reply_header_flexible(key, version));
                let body_at = out.len();
                out.extend_from_slice(b"body");
                end_reply(&mut out, at, 100);
                let mut bytes = Bytes::copy_from_slice(&out[at + SIZE_PREFIX..]);
                assert_eq!(out[at..at + 4], (bytes.len() as i32 + 100).to_be_bytes());
                let reply = PeerReplyHeader::decode(&mut bytes, api.response_header_version(version)).unwrap();
                assert_eq!((reply.correlation_id, bytes.len()), (78, out.len() - body_at));
            }
        }
        assert!(seen > 150, "{seen} versions compared");
    }

    #[test]
    fn cut_headers_name_the_field() {
        let frame = [0, 18, 0, 3, 0, 0, 0, 1, 0, 2, b'm', b'e', 0];
        for size in 0..frame.len() {
            assert!(RequestHeader::parse(&frame[..size]).is_err(), "{size}");
        }
        assert_eq!(RequestHeader::parse(&frame[..9]), Err(DecodeError::Missing("client id")));
        assert!(RequestHeader::parse(&frame).is_ok());
    }
}
