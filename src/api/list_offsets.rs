//! ListOffsets (key 2), versions 1..=11: the first or last offset of a partition, or the first at or after a time.
//!
//! - A time is looked up in the indexes down to one batch, whose records then tell which of them is meant.
//! - Index or batch not in the page cache: it is read ahead, and the request is parked until that is done. A shard never waits
//!   for the disk.
//!
//! v2: isolation level. v4: leader epochs. v7: the record with the largest timestamp (-3). v8: first local offset (-4).
//! v9: last tiered offset (-5), v11: first offset to be tiered (-6), of which there are none.

use std::collections::HashSet;
use std::io;

use kafka_protocol::messages::ListOffsetsRequest;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};

use super::fetch::READ_COMMITTED;
use super::{Context, Outcome, ReplyTo, Request};
use crate::broker::{Broker, FoundOffset, Lookup, LookupState};
use crate::decode_or_close;
use crate::ids::{LeaderEpoch, Offset};
use crate::io::disk::{Disk, Job};
use crate::limits::DECOMPRESSED_SIZE_MAX;
use crate::partition::Partition;
use crate::parts::FileRange;
use crate::storage::{BatchLookup, StorageError};
use crate::wire::ErrorCode;
use crate::wire::batch::{Batch, TimestampType};
use crate::wire::compression::decompress_bounded;
use crate::wire::record::Records;

/// Times that are not times.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// Last version that `kafka-protocol` knows. The next one has the same fields.
const CODEC_VERSION_MAX: i16 = 10;

const NONE: FoundOffset = FoundOffset { timestamp: -1, offset: Offset(-1), epoch: LeaderEpoch(-1) };

enum Refused {
    Error(ErrorCode),
    /// To be read ahead, then asked again.
    Cold(FileRange),
}

impl From<StorageError> for Refused {
    fn from(error: StorageError) -> Refused {
        log::error!("offset lookup: {error}");
        Refused::Error(ErrorCode::KafkaStorageError)
    }
}

/// Answers the request, or parks it.
pub fn handle(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let to = ReplyTo { version: request.to.version.min(CODEC_VERSION_MAX), ..request.to };
    let message: ListOffsetsRequest = decode_or_close!(Request { to, ..*request });
    let Context { broker, disk, .. } = context;
    let mut seen = HashSet::new();
    let mut twice = HashSet::new();
    for (topic, asked) in partitions(&message) {
        if !seen.insert((topic, asked.partition_index)) {
            twice.insert((topic, asked.partition_index));
        }
    }
    let states = partitions(&message).map(|(topic, asked)| match twice.contains(&(topic, asked.partition_index)) {
        true => LookupState::Known(ErrorCode::InvalidRequest, NONE),
        false => one(broker, *disk, request.to.version, topic, asked, message.isolation_level),
    });
    let states: Vec<_> = states.collect();
    let lookup = Lookup { to, request: message, states };
    if is_known(&lookup) {
        return context.reply(lookup.to, &response(&lookup));
    }
    match broker.lookups.park(lookup) {
        Ok(()) => Outcome::Later(None),
        Err(lookup) => context.reply(lookup.to, &response(&lookup)),
    }
}

/// Reads that a lookup waited for have ended.
pub fn go_on(broker: &mut Broker, disk: &mut dyn Disk, mut lookup: Lookup) {
    let Lookup { to, request, states } = &mut lookup;
    for (state, (topic, asked)) in states.iter_mut().zip(partitions(request)) {
        if matches!(state, LookupState::Due) {
            *state = one(broker, disk, to.version, topic, asked, request.isolation_level);
        }
    }
    if is_known(&lookup) {
        return broker.answer(lookup.to, &response(&lookup));
    }
    if let Err(lookup) = broker.lookups.park(lookup) {
        broker.answer(lookup.to, &response(&lookup));
    }
}

fn partitions(request: &ListOffsetsRequest) -> impl Iterator<Item = (&str, &ListOffsetsPartition)> {
    request.topics.iter().flat_map(|topic| topic.partitions.iter().map(|asked| (topic.name.as_str(), asked)))
}

fn is_known(lookup: &Lookup) -> bool {
    lookup.states.iter().all(|state| matches!(state, LookupState::Known(..)))
}

fn response(lookup: &Lookup) -> ListOffsetsResponse {
    let mut states = lookup.states.iter();
    let topics = lookup.request.topics.iter().map(|topic| {
        let answers = topic.partitions.iter().zip(&mut states).map(|(asked, state)| {
            let (error, found) = match *state {
                LookupState::Known(error, found) => (error, found),
                // Too many wait: clients come again by themselves.
                LookupState::Waits(_) | LookupState::Due => (ErrorCode::OffsetNotAvailable, NONE),
            };
            ListOffsetsPartitionResponse::default()
                .with_partition_index(asked.partition_index)
                .with_error_code(error.code())
                .with_timestamp(found.timestamp)
                .with_offset(found.offset.0)
                .with_leader_epoch(if lookup.to.version >= 4 { found.epoch.0 } else { -1 })
        });
        ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(answers.collect())
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

fn one(
    broker: &mut Broker,
    disk: &mut dyn Disk,
    version: i16,
    topic: &str,
    asked: &ListOffsetsPartition,
    isolation_level: i8,
) -> LookupState {
    let refused = |error| LookupState::Known(error, NONE);
    if asked.timestamp < 0 && version < since(asked.timestamp) {
        return refused(ErrorCode::UnsupportedVersion);
    }
    let (slot, partition) = match broker.leading(topic, asked.partition_index) {
        Ok(leading) => leading,
        Err(not_here) => return refused(not_here.error),
    };
    if let Err(error) = partition.check_leader_epoch(LeaderEpoch(asked.current_leader_epoch)) {
        return refused(error);
    }
    match look_up(disk, partition, asked.timestamp, isolation_level == READ_COMMITTED) {
        Ok(found) => LookupState::Known(ErrorCode::None, found),
        Err(Refused::Error(error)) => refused(error),
        Err(Refused::Cold(range)) => {
            let owner = broker.owner(slot);
            let size = u64::from(range.size);
            disk.start(owner, Job::ReadAhead { file: range.file, position: range.position, size });
            LookupState::Waits(owner)
        }
    }
}

/// First version in which a special time may be asked for.
fn since(timestamp: i64) -> i16 {
    match timestamp {
        LATEST | EARLIEST => 1,
        MAX_TIMESTAMP => 7,
        EARLIEST_LOCAL => 8,
        LATEST_TIERED => 9,
        EARLIEST_PENDING_UPLOAD => 11,
        _ => i16::MAX,
    }
}

fn look_up(
    disk: &mut dyn Disk,
    partition: &mut Partition,
    timestamp: i64,
    committed: bool,
) -> Result<FoundOffset, Refused> {
    let end = if committed { partition.last_stable_offset() } else { partition.high_watermark() };
    let start = partition.log_start_offset();
    // The leader's own epoch begins at the end of its log, whether or not it has appended anything.
    let leader_epoch = partition.leader_epoch;
    let log = &mut partition.log;
    let found = match timestamp {
        LATEST => return Ok(FoundOffset { timestamp: -1, offset: end, epoch: leader_epoch }),
        EARLIEST | EARLIEST_LOCAL => {
            let epoch = log.leader_epochs().epoch_at(start).unwrap_or(leader_epoch);
            return Ok(FoundOffset { timestamp: -1, offset: start, epoch });
        }
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => return Ok(NONE),
        MAX_TIMESTAMP => {
            let (largest, batch) = log.batch_of_max_timestamp(disk)?;
            first_record(disk, batch, start, |timestamp| timestamp == largest)?
        }
        _ => {
            let batch = log.batch_for_timestamp(disk, timestamp)?;
            first_record(disk, batch, start, |found| found >= timestamp)?
        }
    };
    // What consumers may not read yet is not told either.
    Ok(found.filter(|found| found.offset < end).unwrap_or(NONE))
}

/// The first record of a batch, at or after the log start, that fits.
fn first_record(
    disk: &mut dyn Disk,
    batch: BatchLookup,
    log_start: Offset,
    fits: impl Fn(i64) -> bool,
) -> Result<Option<FoundOffset>, Refused> {
    let range = match batch {
        BatchLookup::Batch(range) => range,
        BatchLookup::None => return Ok(None),
        BatchLookup::Cold(range) => return Err(Refused::Cold(range)),
    };
    let mut bytes = vec![0; range.size as usize];
    match disk.read_resident(&range.file, range.position, &mut bytes) {
        Ok(size) if size == bytes.len() => {}
        Ok(_) => return Err(Refused::Cold(range)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Refused::Cold(range)),
        Err(error) => {
            log::error!("offset lookup: {error}");
            return Err(Refused::Error(ErrorCode::KafkaStorageError));
        }
    }
    let batch = Batch::stored(&bytes).map_err(|error| {
        log::error!("offset lookup: {error}");
        Refused::Error(ErrorCode::CorruptMessage)
    })?;
    let all = |offset: Offset, timestamp: i64| FoundOffset { timestamp, offset, epoch: batch.leader_epoch() };
    let first = all(batch.base_offset().max(log_start), batch.max_timestamp());
    if batch.attributes().timestamp_type() == TimestampType::LogAppendTime {
        return Ok(Some(first));
    }
    // Records that cannot be decompressed were never looked at before; whoever reads from the batch's beginning misses nothing.
    let Ok(records) = decompress_bounded(batch.codec(), batch.records(), DECOMPRESSED_SIZE_MAX) else {
        return Ok(Some(first));
    };
    let found = Records::new(&records, batch.count()).map_while(Result::ok).find_map(|record| {
        let offset = batch.base_offset() + i64::from(record.offset_delta);
        let timestamp = batch.base_timestamp().wrapping_add(record.timestamp_delta);
        (offset >= log_start && fits(timestamp)).then(|| all(offset, timestamp))
    });
    Ok(Some(found.unwrap_or(first)))
}
