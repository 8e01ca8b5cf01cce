//! The way to all messages but the hot three: `kafka-protocol` decodes and encodes them, after `shape` has checked
//! that their bytes are what they claim to be.

use bytes::Bytes;
use kafka_protocol::protocol::{Encodable, Request};

use super::reader::DecodeError;
use super::{frame, shape};

/// A reply that cannot be encoded in the version asked for: a handler filled a field this version lacks.
#[derive(Debug, thiserror::Error)]
#[error("a reply cannot be encoded in version {version}: {reason}")]
pub struct EncodeError {
    version: i16,
    reason: String,
}

/// Decodes the body of a request. Strings and bytes in it share one copy of the body: keep one of them for long and
/// the whole body stays, so copy out what outlives the request.
pub fn decode<T: Request>(body: &[u8], version: i16) -> Result<T, DecodeError> {
    shape::check(T::KEY, version, body)?;
    T::decode(&mut Bytes::copy_from_slice(body), version).map_err(|_| DecodeError::Invalid("the request"))
}

/// Appends the body of a reply.
pub fn encode<T: Encodable>(out: &mut Vec<u8>, reply: &T, version: i16) -> Result<(), EncodeError> {
    reply.encode(out, version).map_err(|reason| EncodeError { version, reason: reason.to_string() })
}

/// Appends a whole reply frame to request `T`: size, header and body.
pub fn reply<T: Request>(
    out: &mut Vec<u8>,
    correlation_id: i32,
    version: i16,
    reply: &T::Response,
) -> Result<(), EncodeError> {
    let start = out.len();
    let size_at = frame::begin_reply(out, correlation_id, frame::reply_header_flexible(T::KEY, version));
    encode(out, reply, version).inspect_err(|_| out.truncate(start))?;
    frame::end_reply(out, size_at, 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::{
        ApiVersionsRequest, ApiVersionsResponse, DeleteTopicsRequest, ResponseHeader, TopicName,
    };
    use kafka_protocol::protocol::{Decodable, StrBytes};

    #[test]
    fn requests_are_decoded_and_lies_refused() {
        let name = TopicName(StrBytes::from_static_str("orders"));
        let request = DeleteTopicsRequest::default().with_topic_names(vec![name]).with_timeout_ms(5);
        let mut body = Vec::new();
        encode(&mut body, &request, 4).unwrap();
        assert_eq!(decode::<DeleteTopicsRequest>(&body, 4), Ok(request));
        // The array claims two billion names: four bytes of body must not reserve memory for them.
        let claim = [0xff, 0xff, 0xff, 0xff, 0x07];
        assert_eq!(decode::<DeleteTopicsRequest>(&claim, 4), Err(DecodeError::Missing("topic names")));
        assert!(decode::<DeleteTopicsRequest>(&body, 99).is_err());
    }

    #[test]
    fn a_reply_is_framed_and_a_failed_one_leaves_nothing() {
        let mut out = b"earlier".to_vec();
        let answer = ApiVersionsResponse::default().with_throttle_time_ms(3);
        reply::<ApiVersionsRequest>(&mut out, 42, 3, &answer).unwrap();
        assert_eq!(out[7..11], ((out.len() - 11) as i32).to_be_bytes());
        let mut bytes = Bytes::copy_from_slice(&out[11..]);
        assert_eq!(ResponseHeader::decode(&mut bytes, 0).unwrap().correlation_id, 42);
        assert_eq!(ApiVersionsResponse::decode(&mut bytes, 3).unwrap(), answer);
        let size = out.len();
        assert!(reply::<ApiVersionsRequest>(&mut out, 42, 99, &answer).is_err());
        assert_eq!(out.len(), size);
    }
}
