//! ListOffsets (key 2), versions 1..=11: the first or last offset of a partition, or the first at or after a time.
//!
//! - A time is looked up in the indexes down to one batch, whose records then tell which of them is meant. They may be very
//!   many bytes when decompressed: the batch is searched within a budget for each turn of the loop, one batch at a time.
//! - Index or batch not in the page cache: it is read ahead, and the request is parked until that is done. A shard never waits
//!   for the disk.
//!
//! v2: isolation level. v4: leader epochs. v7: the record with the largest timestamp (-3). v8: first local offset (-4).
//! v9: last tiered offset (-5), v11: first offset to be tiered (-6), of which there are none.

use std::collections::HashSet;

use kafka_protocol::messages::ListOffsetsRequest;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};

use super::fetch::READ_COMMITTED;
use super::{Context, Outcome, ReplyTo, Request};
use crate::broker::{Broker, Lookup, LookupState};
use crate::decode_or_close;
use crate::ids::{LeaderEpoch, Offset};
use crate::io::disk::{Disk, Job};
use crate::partition::Partition;
use crate::parts::FileRange;
use crate::storage::{BatchLookup, Budget, FoundOffset, RecordSearch, SearchError, Searched};
use crate::wire::ErrorCode;

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

/// What searching batches may cost at a stretch, and again in each turn of the loop while there is more to search.
const SEARCH_NS: i64 = 100_000;

/// How far the lookup of one partition has come.
enum Step {
    Known(FoundOffset),
    Refused(ErrorCode),
    /// To be read ahead, then asked again.
    Cold(FileRange),
    /// There is more to search.
    Search(RecordSearch),
    /// Others search.
    Later,
}

/// The budget of one turn.
pub fn turn_budget() -> Budget {
    Budget::new(SEARCH_NS)
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
    // Behind those that wait already.
    let mut budget = if broker.lookups.any_due() { Budget::new(0) } else { turn_budget() };
    let states = partitions(&message).map(|(topic, asked)| match twice.contains(&(topic, asked.partition_index)) {
        true => LookupState::Known(ErrorCode::InvalidRequest, NONE),
        false => one(broker, *disk, &message, request.to.version, (topic, asked), None, &mut budget),
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

/// Its turn has come: the search under way goes on, then those that are due begin.
pub fn go_on(broker: &mut Broker, disk: &mut dyn Disk, mut lookup: Lookup, budget: &mut Budget) {
    let Lookup { to, request, states } = &mut lookup;
    for (state, asked) in states.iter_mut().zip(partitions(request)) {
        if let LookupState::Searches(search) = state {
            *state = match search.go_on(disk, budget) {
                Ok(Searched::NotYet) => continue,
                Ok(Searched::Ended(found)) => LookupState::Known(ErrorCode::None, found.unwrap_or(NONE)),
                Ok(Searched::Beyond(from)) => one(broker, disk, request, to.version, asked, Some(from), budget),
                Ok(Searched::Cold(_)) => LookupState::Due,
                Err(error) => LookupState::Known(failed(&error), NONE),
            };
        }
    }
    for (state, asked) in states.iter_mut().zip(partitions(request)) {
        if matches!(state, LookupState::Due) {
            *state = one(broker, disk, request, to.version, asked, None, budget);
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
            let (error, found) = match state {
                LookupState::Known(error, found) => (*error, *found),
                // Too many wait: clients come again by themselves.
                LookupState::Waits(_) | LookupState::Due | LookupState::Searches(_) => {
                    (ErrorCode::OffsetNotAvailable, NONE)
                }
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

/// Looks one partition's offset up; by a time, `from` this offset on if the lookup has come so far.
fn one(
    broker: &mut Broker,
    disk: &mut dyn Disk,
    request: &ListOffsetsRequest,
    version: i16,
    (topic, asked): (&str, &ListOffsetsPartition),
    from: Option<Offset>,
    budget: &mut Budget,
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
    match look_up(disk, partition, asked.timestamp, request.isolation_level == READ_COMMITTED, from, budget) {
        Step::Known(found) => LookupState::Known(ErrorCode::None, found),
        Step::Refused(error) => refused(error),
        Step::Cold(range) => {
            let owner = broker.owner(slot);
            disk.start(owner, Job::read_ahead(range));
            LookupState::Waits(owner)
        }
        Step::Search(search) => LookupState::Searches(Box::new(search)),
        Step::Later => LookupState::Due,
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
    from: Option<Offset>,
    budget: &mut Budget,
) -> Step {
    let end = if committed { partition.last_stable_offset() } else { partition.high_watermark() };
    let start = partition.log_start_offset();
    // The leader's own epoch begins at the end of its log, whether or not it has appended anything.
    let leader_epoch = partition.leader_epoch;
    let log = &mut partition.log;
    match timestamp {
        LATEST => return Step::Known(FoundOffset { timestamp: -1, offset: end, epoch: leader_epoch }),
        EARLIEST | EARLIEST_LOCAL => {
            let epoch = log.leader_epochs().epoch_at(start).unwrap_or(leader_epoch);
            return Step::Known(FoundOffset { timestamp: -1, offset: start, epoch });
        }
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => return Step::Known(NONE),
        // One that goes on is not begun anew: it would not come farther the next time.
        _ if from.is_none() && budget.is_spent() => return Step::Later,
        _ => {}
    }
    let found = match timestamp {
        // Kafka tells of a deleted record, too.
        MAX_TIMESTAMP => log.batch_of_max_timestamp(disk).map(|(at_least, batch)| (at_least, batch, Offset(0))),
        _ => {
            let from = from.unwrap_or(start).max(start);
            log.batch_for_timestamp(disk, timestamp, from).map(|batch| (timestamp, batch, from))
        }
    };
    match found {
        Ok((at_least, BatchLookup::Batch(range), from)) => {
            let mut search = RecordSearch::new(range, at_least, from..end);
            match search.go_on(disk, budget) {
                Ok(Searched::NotYet) => Step::Search(search),
                Ok(Searched::Ended(found)) => Step::Known(found.unwrap_or(NONE)),
                Ok(Searched::Beyond(from)) => look_up(disk, partition, timestamp, committed, Some(from), budget),
                Ok(Searched::Cold(range)) => Step::Cold(range),
                Err(error) => Step::Refused(failed(&error)),
            }
        }
        Ok((_, BatchLookup::None, _)) => Step::Known(NONE),
        Ok((_, BatchLookup::Cold(range), _)) => Step::Cold(range),
        Err(error) => {
            log::error!("offset lookup: {error}");
            Step::Refused(error.code())
        }
    }
}

fn failed(error: &SearchError) -> ErrorCode {
    log::error!("offset lookup: {error}");
    match error {
        SearchError::Read(_) => ErrorCode::KafkaStorageError,
        SearchError::Corrupt => ErrorCode::CorruptMessage,
    }
}
