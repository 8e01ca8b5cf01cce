//! DescribeLogDirs (key 35), versions 1..=4: how many bytes the partitions of this core take. A core is a broker of its own,
//! so a tool that asks every broker sees every partition once.
//!
//! v2: flexible. v3: an error code for the whole. v4: size of the file system, and what of it is usable.

use std::collections::{BTreeMap, HashSet};

use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::{Context, Outcome, Request};
use crate::decode_or_close;
use crate::wire::ErrorCode;

/// Answers the request.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let message: DescribeLogDirsRequest = decode_or_close!(request);
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
    let dir = &broker.config.data_dir;
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
    let result = DescribeLogDirsResult::default()
        .with_error_code(ErrorCode::None.code())
        .with_log_dir(StrBytes::from_string(dir.to_string_lossy().into_owned()))
        .with_topics(topics.collect());
    let result = match space {
        Ok(space) => result.with_total_bytes(space.total as i64).with_usable_bytes(space.usable as i64),
        Err(error) => {
            log::warn!("{}: {error}", dir.display());
            result
        }
    };
    context.reply(request.to, &DescribeLogDirsResponse::default().with_results(vec![result]))
}
