//! OffsetFetch (key 9), versions 1..=9.
//!
//! - A partition without a committed offset has offset -1; a group that nobody knows is no error.
//! - There are no transactions yet, so every offset is stable and `require_stable` changes nothing.
//!
//! v2: all topics, group-level errors. v5: leader epoch. v6: flexible. v7: require stable. v8: many groups. v9: member id
//! and epoch (KIP-848; unused by classic groups).

use kafka_protocol::messages::OffsetFetchRequest;
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::protocol::StrBytes;

use super::{Context, Outcome, Request};
use crate::wire::reader::{DecodeError, Reader};

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let version = request.to.version;
    let decoded = if version >= 10 { decode_with_topic_ids(request.body) } else { request.decode() };
    let message: OffsetFetchRequest = match decoded {
        Ok(message) => message,
        Err(error) => return Outcome::Malformed(error),
    };
    let image = context.broker.image.clone();
    let response = context.broker.coordination.groups.fetch(&message, version, &*image);
    context.reply(request.to, &response)
}

/// Version 10, which `kafka-protocol` does not read yet: version 9 with topic ids for names.
fn decode_with_topic_ids(body: &[u8]) -> Result<OffsetFetchRequest, DecodeError> {
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let mut from = Reader::new(body);
    let mut request = OffsetFetchRequest::default();
    for _ in 0..from.array_count(true, 8, "groups")? {
        let mut group = OffsetFetchRequestGroup::default()
            .with_group_id(text(from.string(true, "group id")?).into())
            .with_member_id(from.nullable_string(true, "member id")?.map(text))
            .with_member_epoch(from.i32("member epoch")?)
            .with_topics(None);
        if let Some(count) = from.nullable_array_count(true, 18, "topics")? {
            let mut topics = Vec::with_capacity(count);
            for _ in 0..count {
                let topic_id = from.uuid("topic id")?;
                let indexes = from.array_count(true, 4, "partition indexes")?;
                let indexes: Result<Vec<i32>, DecodeError> =
                    (0..indexes).map(|_| from.i32("partition index")).collect();
                topics
                    .push(OffsetFetchRequestTopics::default().with_topic_id(topic_id).with_partition_indexes(indexes?));
                from.skip_tags()?;
            }
            group.topics = Some(topics);
        }
        from.skip_tags()?;
        request.groups.push(group);
    }
    request.require_stable = from.bool("require stable")?;
    from.skip_tags()?;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn version_10_is_read_and_cut_ones_are_refused() {
        let mut body = b"\x02\x06group\x00\xff\xff\xff\xff\x02".to_vec();
        body.extend(Uuid::from_u128(7).as_bytes());
        body.extend(b"\x03\0\0\0\x01\0\0\0\x02\0\0\x01\0");
        let request = decode_with_topic_ids(&body).unwrap();
        let [group] = &request.groups[..] else { panic!("one group") };
        let topics = group.topics.as_ref().unwrap();
        assert_eq!((group.group_id.as_str(), group.member_epoch), ("group", -1));
        assert_eq!((topics[0].topic_id, &topics[0].partition_indexes[..]), (Uuid::from_u128(7), &[1, 2][..]));
        assert!(request.require_stable);
        for cut in 0..body.len() {
            assert!(decode_with_topic_ids(&body[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(
            decode_with_topic_ids(b"\x02\x06group\x00\xff\xff\xff\xff\x00\0\0\0").unwrap().groups[0].topics,
            None
        );
    }
}
