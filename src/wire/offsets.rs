//! OffsetCommit and OffsetFetch requests of every version served. Version 10 is version 9 with topic ids for names;
//! `kafka-protocol` knows the field and not yet the version, so version 10 is read here. Its structure is checked first,
//! like that of any other request, so no count is believed.

use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetFetchRequest};
use kafka_protocol::protocol::{Request, StrBytes};

use super::reader::{DecodeError, Reader};
use super::{messages, shape};

/// First version that names topics by id.
pub const TOPIC_IDS_SINCE: i16 = 10;

/// Reads the body of an OffsetCommit request.
pub fn commit_request(body: &[u8], version: i16) -> Result<OffsetCommitRequest, DecodeError> {
    if version < TOPIC_IDS_SINCE {
        return messages::decode(body, version);
    }
    shape::check(OffsetCommitRequest::KEY, version, body)?;
    let mut from = Reader::new(body);
    let request = OffsetCommitRequest::default()
        .with_group_id(text(from.string(true, "group id")?).into())
        .with_generation_id_or_member_epoch(from.i32("generation id or member epoch")?)
        .with_member_id(text(from.string(true, "member id")?))
        .with_group_instance_id(from.nullable_string(true, "group instance id")?.map(text));
    let topics = structs(&mut from, "topics", |from| {
        Ok(OffsetCommitRequestTopic::default().with_topic_id(from.uuid("topic id")?).with_partitions(structs(
            from,
            "partitions",
            |from| {
                Ok(OffsetCommitRequestPartition::default()
                    .with_partition_index(from.i32("partition index")?)
                    .with_committed_offset(from.i64("committed offset")?)
                    .with_committed_leader_epoch(from.i32("committed leader epoch")?)
                    .with_committed_metadata(from.nullable_string(true, "committed metadata")?.map(text)))
            },
        )?))
    })?;
    from.skip_tags()?;
    Ok(request.with_topics(topics))
}

/// Reads the body of an OffsetFetch request.
pub fn fetch_request(body: &[u8], version: i16) -> Result<OffsetFetchRequest, DecodeError> {
    if version < TOPIC_IDS_SINCE {
        return messages::decode(body, version);
    }
    shape::check(OffsetFetchRequest::KEY, version, body)?;
    let mut from = Reader::new(body);
    let groups = structs(&mut from, "groups", |from| {
        Ok(OffsetFetchRequestGroup::default()
            .with_group_id(text(from.string(true, "group id")?).into())
            .with_member_id(from.nullable_string(true, "member id")?.map(text))
            .with_member_epoch(from.i32("member epoch")?)
            .with_topics(nullable_structs(from, "topics", |from| {
                let topic = OffsetFetchRequestTopics::default().with_topic_id(from.uuid("topic id")?);
                let indexes = (0..from.array_count(true, 4, "partition indexes")?)
                    .map(|_| from.i32("partition index"))
                    .collect::<Result<_, _>>()?;
                Ok(topic.with_partition_indexes(indexes))
            })?))
    })?;
    let require_stable = from.bool("require stable")?;
    from.skip_tags()?;
    Ok(OffsetFetchRequest::default().with_groups(groups).with_require_stable(require_stable))
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// An array of structs of a flexible version, each with its tagged fields.
fn structs<'a, T>(
    from: &mut Reader<'a>,
    field: &'static str,
    element: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    nullable_structs(from, field, element)?.ok_or(DecodeError::Negative(field))
}

fn nullable_structs<'a, T>(
    from: &mut Reader<'a>,
    field: &'static str,
    mut element: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Option<Vec<T>>, DecodeError> {
    // No struct here is shorter than a partition index and its tags.
    let Some(count) = from.nullable_array_count(true, 5, field)? else { return Ok(None) };
    let elements = (0..count).map(|_| {
        let element = element(from)?;
        from.skip_tags()?;
        Ok(element)
    });
    elements.collect::<Result<_, _>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::shape::tests::{Random, sample};
    use crate::wire::writer;
    use kafka_protocol::messages::ApiKey;

    fn write_commit(request: &OffsetCommitRequest) -> Vec<u8> {
        let mut out = Vec::new();
        writer::string(&mut out, true, &request.group_id);
        writer::i32(&mut out, request.generation_id_or_member_epoch);
        writer::string(&mut out, true, &request.member_id);
        writer::nullable_string(&mut out, true, request.group_instance_id.as_deref());
        writer::array_count(&mut out, true, Some(request.topics.len()));
        for topic in &request.topics {
            writer::uuid(&mut out, topic.topic_id);
            writer::array_count(&mut out, true, Some(topic.partitions.len()));
            for partition in &topic.partitions {
                writer::i32(&mut out, partition.partition_index);
                writer::i64(&mut out, partition.committed_offset);
                writer::i32(&mut out, partition.committed_leader_epoch);
                writer::nullable_string(&mut out, true, partition.committed_metadata.as_deref());
                writer::no_tags(&mut out, true);
            }
            writer::no_tags(&mut out, true);
        }
        writer::no_tags(&mut out, true);
        out
    }

    fn write_fetch(request: &OffsetFetchRequest) -> Vec<u8> {
        let mut out = Vec::new();
        writer::array_count(&mut out, true, Some(request.groups.len()));
        for group in &request.groups {
            writer::string(&mut out, true, &group.group_id);
            writer::nullable_string(&mut out, true, group.member_id.as_deref());
            writer::i32(&mut out, group.member_epoch);
            writer::array_count(&mut out, true, group.topics.as_ref().map(Vec::len));
            for topic in group.topics.iter().flatten() {
                writer::uuid(&mut out, topic.topic_id);
                writer::array_count(&mut out, true, Some(topic.partition_indexes.len()));
                topic.partition_indexes.iter().for_each(|index| writer::i32(&mut out, *index));
                writer::no_tags(&mut out, true);
            }
            writer::no_tags(&mut out, true);
        }
        writer::bool(&mut out, request.require_stable);
        writer::no_tags(&mut out, true);
        out
    }

    /// By the table of the schemas, and back.
    #[test]
    fn every_field_of_version_10_is_read_and_cut_ones_are_refused() {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for _ in 0..200 {
            let body = sample(ApiKey::OffsetCommit as i16, 10, &mut random);
            assert_eq!(write_commit(&commit_request(&body, 10).unwrap()), body);
            for cut in 0..body.len() {
                assert!(commit_request(&body[..cut], 10).is_err(), "cut at {cut}: {body:?}");
            }
            let body = sample(ApiKey::OffsetFetch as i16, 10, &mut random);
            assert_eq!(write_fetch(&fetch_request(&body, 10).unwrap()), body);
            for cut in 0..body.len() {
                assert!(fetch_request(&body[..cut], 10).is_err(), "cut at {cut}: {body:?}");
            }
        }
    }

    #[test]
    fn older_versions_name_topics() {
        for version in 2..TOPIC_IDS_SINCE {
            let body = sample(ApiKey::OffsetCommit as i16, version, &mut Random(version as u64));
            assert!(commit_request(&body, version).unwrap().topics.iter().all(|topic| topic.topic_id.is_nil()));
        }
    }

    #[test]
    fn counts_are_not_believed() {
        // A group "g", and two billion topics of which no byte is there.
        let claim = [&b"\x02g\0\0\0\0\x01\0"[..], &[0xff, 0xff, 0xff, 0xff, 0x07]].concat();
        let info = allocation_counter::measure(|| assert!(commit_request(&claim, 10).is_err()));
        assert_eq!(info.bytes_total, 0);
    }
}
