//! DescribeLogDirs (key 35), versions 1..=5: how many bytes the partitions of this core take. A core is a broker of its own,
//! so a tool that asks every broker sees every partition once.
//!
//! v2: flexible. v3: an error code for the whole. v4: size of the file system, and what of it is usable. v5: whether it takes
//! no new partitions, which is never so (KIP-1066).

use std::collections::{BTreeMap, HashSet};

use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::{Context, Outcome, Request};
use crate::broker::Broker;
use crate::decode_or_close;
use crate::ids::ReplyTo;
use crate::parts::Reply;
use crate::wire::ErrorCode;
use crate::wire::frame;

/// Last version that `kafka-protocol` knows. The next one adds a byte.
const CODEC_VERSION_MAX: i16 = 4;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let known = ReplyTo { version: request.to.version.min(CODEC_VERSION_MAX), ..request.to };
    let message: DescribeLogDirsRequest = decode_or_close!(Request { to: known, ..*request });
    let space = context.disk.space();
    let broker = &*context.broker;
    let named: Option<HashSet<(&str, i32)>> = message.topics.as_ref().map(|topics| {
        topics.iter().flat_map(|t| t.partitions.iter().map(|&index| (t.topic.as_str(), index))).collect()
    });
    let asked = |topic: &str, index: i32| named.as_ref().is_none_or(|named| named.contains(&(topic, index)));
    let mut topics: BTreeMap<&str, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for partition in broker.partitions().filter(|p| asked(&p.topic, p.index)) {
        let described = DescribeLogDirsPartition::default()
            .with_partition_index(partition.index)
            .with_partition_size(partition.log.size_bytes() as i64)
            .with_offset_lag(0)
            .with_is_future_key(false);
        topics.entry(&partition.topic).or_default().push(described);
    }
    let topics = topics.into_iter().map(|(name, mut partitions)| {
        partitions.sort_by_key(|p| p.partition_index);
        let name = TopicName(StrBytes::from_string(name.to_owned()));
        DescribeLogDirsTopic::default().with_name(name).with_partitions(partitions)
    });
    let dir = log_dir(broker);
    let result = DescribeLogDirsResult::default()
        .with_error_code(ErrorCode::None.code())
        .with_log_dir(StrBytes::from_string(dir.clone()))
        .with_topics(topics.collect());
    let result = match space {
        Ok(space) => result.with_total_bytes(space.total as i64).with_usable_bytes(space.usable as i64),
        Err(error) => {
            log::warn!("{dir}: {error}");
            result
        }
    };
    let response = DescribeLogDirsResponse::default().with_results(vec![result]);
    let mut reply = context.broker.encode_reply(known, &response);
    if request.to.version > CODEC_VERSION_MAX {
        add_is_cordoned(&mut reply);
    }
    Outcome::Reply(reply)
}

/// `is_cordoned` ends the one result: two empty lists of tags come after it, the result's and the reply's.
fn add_is_cordoned(reply: &mut Reply) {
    let at = reply.bytes.len() - 2;
    reply.bytes.insert(at, 0);
    frame::end_reply(&mut reply.bytes, 0, 0);
}

/// The log directory, as clients name it.
pub fn log_dir(broker: &Broker) -> String {
    let dir = &broker.config.data_dir;
    std::path::absolute(dir).unwrap_or_else(|_| dir.clone()).to_string_lossy().into_owned()
}
