//! Fetch (key 1), versions 4..=18.
//!
//! - Records leave as ranges of log files: resolved here, never read; only `io` knows how they reach the socket.
//! - A range begins with the whole batch that holds the offset asked for and may end in the middle of one, as Kafka's do.
//!   The first partition with data gives at least one whole batch, however small the limits.
//! - Fewer than `min_bytes`: parked until an append to one of the partitions, or `max_wait_ms`.
//! - Nothing yet, because which batches to send must be read from the device: parked until they are, whatever the limits.
//!   Kafka reads there and then, and a client that waits for nothing takes an empty reply for the log's end.
//! - Sessions (KIP-227): a request names what changed, a reply what is new.
//!
//! v12: flexible encoding. v13: topic ids (KIP-516). v16: addresses of new leaders. There are no transactions yet: the last
//! stable offset is the high watermark, and no transaction was ever aborted.

use super::{Context, Outcome, ReplyTo};
use crate::broker::{Broker, FetchPartition, FetchQuery, FetchResult, FetchTopic, Places, SessionAnswer};
use crate::ids::{FetchWaitId, LeaderEpoch, NodeId, Now, Offset, TopicId, TopicName};
use crate::io::disk::{Disk, Job};
use crate::parts::Reply;
use crate::storage::{ResolveError, Resolved};
use crate::wire::error_code::ErrorCode;
use crate::wire::fetch::{Fetch, FetchReply, PartitionData, PartitionTags};
use crate::wire::routing::{CurrentLeader, TopicRef};

/// The isolation level that hides what is not committed; ListOffsets has the same.
pub const READ_COMMITTED: i8 = 1;

/// A device that reads for so long is as good as none: the reply leaves without the records.
const READ_WAIT_NS: u64 = 5_000_000_000;

/// Answers a fetch, or parks it.
pub fn handle(context: &mut Context<'_>, to: ReplyTo, frame: &[u8], body: usize) -> Outcome {
    let request = match Fetch::parse(frame, body, to.version) {
        Ok(request) => request,
        Err(error) => return Outcome::Malformed(error),
    };
    let Context { broker, disk, now, .. } = context;
    let mut query = broker.fetches.take_query();
    query.clear();
    query.to = Some(to);
    query.deadline_ns = now.monotonic_ns + request.max_wait_ms.max(0) as u64 * 1_000_000;
    query.committed = request.isolation_level == READ_COMMITTED;
    query.bytes_min = request.min_bytes.max(0) as u32;
    query.bytes_max = (request.max_bytes.max(0) as u32).min(broker.config.fetch_bytes_max);
    let by_id = to.version >= 13;
    let mut forgotten = Vec::new();
    read(broker, &request, &mut query, &mut forgotten);
    let session = (request.session_id, request.session_epoch);
    let count_max = broker.config.fetch_sessions_max as usize;
    match broker.sessions.step(session, by_id, &mut query, &forgotten, now.monotonic_ms(), count_max) {
        SessionAnswer::Full => {}
        SessionAnswer::New(id) => query.session_id = id,
        SessionAnswer::Incremental(id) => {
            query.session_id = id;
            query.incremental = true;
            // A topic that another core told of before this one knew it.
            for topic in query.topics.iter_mut().filter(|topic| topic.name.is_empty()) {
                if let Some(name) = broker.topic_name(topic.id) {
                    topic.name = name.clone();
                }
            }
        }
        SessionAnswer::Error(error) => {
            query.topics.clear();
            query.partitions.clear();
            let reply = encode(broker, to, &query, error);
            broker.fetches.give_query(query);
            return Outcome::Reply(reply);
        }
    }
    let waits = match evaluate(broker, *disk, &mut query) {
        Standing::Satisfied => false,
        Standing::Short => request.max_wait_ms > 0,
        Standing::Reads => {
            query.deadline_ns = query.deadline_ns.max(now.monotonic_ns + READ_WAIT_NS);
            true
        }
    };
    if waits && broker.fetches.has_room(&query) {
        return Outcome::Later(Some(park(broker, query)));
    }
    Outcome::Reply(finish(broker, query))
}

/// Takes over what the request names.
fn read(broker: &Broker, request: &Fetch<'_>, query: &mut FetchQuery, forgotten: &mut Vec<(FetchTopic, i32)>) {
    let mut last = None;
    for partition in request.partitions() {
        if last != Some(partition.topic) {
            query.topics.push(named(broker, partition.topic));
            last = Some(partition.topic);
        }
        query.partitions.push(FetchPartition {
            topic: query.topics.len() as u32 - 1,
            index: partition.index,
            offset: Offset(partition.fetch_offset),
            bytes_max: partition.max_bytes.max(0) as u32,
            leader_epoch: LeaderEpoch(partition.current_leader_epoch),
            told: None,
        });
    }
    for (topic, index) in request.forgotten() {
        forgotten.push((named(broker, topic), index));
    }
}

/// A topic as the broker knows it, else as the request names it.
fn named(broker: &Broker, topic: TopicRef<'_>) -> FetchTopic {
    match topic {
        TopicRef::Id(id) => {
            FetchTopic { name: broker.topic_name(id).cloned().unwrap_or_else(|| TopicName::from("")), id }
        }
        TopicRef::Name(name) => {
            FetchTopic { name: broker.known_name(name).unwrap_or_else(|| TopicName::from(name)), id: TopicId::nil() }
        }
    }
}

/// How a query stands.
#[derive(PartialEq)]
enum Standing {
    /// The reply can leave.
    Satisfied,
    /// There is less than it asks for.
    Short,
    /// There is nothing before something is read.
    Reads,
}

/// Finds out what every partition gives now.
fn evaluate(broker: &mut Broker, disk: &mut dyn Disk, query: &mut FetchQuery) -> Standing {
    let FetchQuery { topics, partitions, results, bytes_min, bytes_max, .. } = query;
    results.clear();
    let (mut bytes, mut failed, mut reads) = (0u64, false, false);
    for group in FetchPartition::by_topic(partitions) {
        let topic = &topics[group[0].topic as usize];
        let places = broker.places(&topic.name);
        for asked in group {
            let left = u64::from(*bytes_max).saturating_sub(bytes) as u32;
            let result = one(broker, disk, (topic, &places), asked, asked.bytes_max.min(left), bytes == 0);
            bytes += result.range.as_ref().map_or(0, |r| u64::from(r.size));
            failed |= result.error != ErrorCode::None;
            reads |= result.reads;
            results.push(result);
        }
    }
    if failed || partitions.is_empty() {
        Standing::Satisfied
    } else if reads && bytes == 0 {
        Standing::Reads
    } else if bytes < u64::from(*bytes_min) {
        Standing::Short
    } else {
        Standing::Satisfied
    }
}

fn one(
    broker: &mut Broker,
    disk: &mut dyn Disk,
    (topic, places): (&FetchTopic, &Places),
    asked: &FetchPartition,
    bytes_max: u32,
    at_least_one: bool,
) -> FetchResult {
    let refused = |error, leader| FetchResult {
        error,
        high_watermark: Offset(-1),
        log_start_offset: Offset(-1),
        range: None,
        reads: false,
        leader,
    };
    if topic.name.is_empty() {
        return refused(ErrorCode::UnknownTopicId, None);
    }
    let found = places.find(asked.index).and_then(|slot| Ok((slot, broker.working(slot)?)));
    let (slot, partition) = match found {
        Ok(found) => found,
        Err(not_here) => return refused(not_here.error, not_here.leader),
    };
    if !topic.id.is_nil() && topic.id != partition.topic_id {
        return refused(ErrorCode::InconsistentTopicId, None);
    }
    let epoch = partition.leader_epoch;
    // Whatever is below 0 says nothing here, as in Kafka; ListOffsets and OffsetForLeaderEpoch take only -1 so.
    if asked.leader_epoch.0 >= 0 && asked.leader_epoch != epoch {
        let older = asked.leader_epoch < epoch;
        let leader = older.then_some((broker.node, epoch));
        return refused(if older { ErrorCode::FencedLeaderEpoch } else { ErrorCode::UnknownLeaderEpoch }, leader);
    }
    let high_watermark = partition.high_watermark();
    let log_start_offset = partition.log_start_offset();
    let error = ErrorCode::None;
    let told = FetchResult { error, high_watermark, log_start_offset, range: None, reads: false, leader: None };
    if asked.offset == high_watermark || (bytes_max == 0 && !at_least_one) {
        return told;
    }
    match partition.log.resolve(disk, asked.offset, high_watermark, bytes_max, at_least_one) {
        Ok(Resolved::Range(range)) => FetchResult { range: Some(range), ..told },
        Ok(Resolved::Empty) => told,
        Ok(Resolved::Cold(range)) => {
            // Which batches to send stands in bytes that are on disk only: they are read ahead, the fetch waits.
            let owner = broker.owner(slot);
            disk.start(owner, Job::read_ahead(range));
            FetchResult { reads: true, ..told }
        }
        Err(ResolveError::OutOfRange { .. }) => refused(ErrorCode::OffsetOutOfRange, None),
        Err(ResolveError::Storage(error)) => {
            log::error!("{}-{}: fetch: {error}", partition.topic, partition.index);
            refused(error.code(), None)
        }
    }
}

fn park(broker: &mut Broker, query: Box<FetchQuery>) -> FetchWaitId {
    let id = broker.fetches.next_id();
    for group in FetchPartition::by_topic(&query.partitions) {
        let places = broker.places(&query.topics[group[0].topic as usize].name);
        for slot in group.iter().filter_map(|asked| places.find(asked.index).ok()) {
            broker.add_waiting(slot, id);
        }
    }
    broker.fetches.park(id, query);
    id
}

/// A parked fetch was woken or its time is up: answers it, or leaves it parked.
pub fn evaluate_parked(broker: &mut Broker, disk: &mut dyn Disk, id: FetchWaitId, now: Now) {
    let Some(mut query) = broker.fetches.take(id) else { return };
    let satisfied = evaluate(broker, disk, &mut query) == Standing::Satisfied;
    match query.to {
        Some(to) if satisfied || query.deadline_ns <= now.monotonic_ns => {
            broker.fetches.end(id);
            let reply = finish(broker, query);
            broker.answer_encoded(to.waiter, reply);
        }
        _ => {
            query.results.clear();
            broker.fetches.put_back(id, query);
        }
    }
}

/// Encodes the reply of an evaluated query and remembers in its session what was told.
fn finish(broker: &mut Broker, mut query: Box<FetchQuery>) -> Reply {
    if query.incremental {
        keep_what_is_new(&mut query);
    }
    if query.session_id != 0 {
        for (asked, result) in query.partitions.iter().zip(&query.results) {
            let topic = &query.topics[asked.topic as usize];
            let told = (result.error == ErrorCode::None).then_some((result.high_watermark, result.log_start_offset));
            broker.sessions.told(query.session_id, topic, asked.index, told, result.range.is_some());
        }
    }
    let reply = match query.to {
        Some(to) => encode(broker, to, &query, ErrorCode::None),
        None => Reply::default(),
    };
    broker.fetches.give_query(query);
    reply
}

fn keep_what_is_new(query: &mut FetchQuery) {
    let FetchQuery { partitions, results, .. } = query;
    let mut at = 0;
    let is_new = |asked: &FetchPartition, result: &FetchResult| {
        result.range.is_some()
            || result.error != ErrorCode::None
            || asked.told != Some((result.high_watermark, result.log_start_offset))
    };
    for i in 0..partitions.len() {
        if is_new(&partitions[i], &results[i]) {
            partitions.swap(at, i);
            results.swap(at, i);
            at += 1;
        }
    }
    partitions.truncate(at);
    results.truncate(at);
}

/// There is no transaction to abort. Kafka tells so with an empty list where it looked for them, and by the default of the
/// field where it did not come as far as the log; null is for who did not ask.
fn aborted(committed: bool, error: ErrorCode) -> Option<&'static [(i64, i64)]> {
    match error {
        ErrorCode::None => committed.then_some(&[]),
        ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId => Some(&[]),
        _ => None,
    }
}

fn encode(broker: &mut Broker, to: ReplyTo, query: &FetchQuery, error: ErrorCode) -> Reply {
    let mut reply = broker.take_reply();
    let by_id = to.version >= 13;
    let topic_count = FetchPartition::by_topic(&query.partitions).count();
    let mut writer =
        FetchReply::begin(&mut reply.bytes, to.correlation_id, to.version, 0, error, query.session_id, topic_count);
    let mut results = query.results.iter();
    let mut leaders: Vec<NodeId> = Vec::new();
    for group in FetchPartition::by_topic(&query.partitions) {
        let topic = &query.topics[group[0].topic as usize];
        let topic = if by_id { TopicRef::Id(topic.id) } else { TopicRef::Name(&topic.name) };
        writer.topic(&mut reply.bytes, topic, group.len());
        for (asked, result) in group.iter().zip(&mut results) {
            writer.partition(
                &mut reply.bytes,
                &PartitionData {
                    index: asked.index,
                    error: result.error,
                    high_watermark: result.high_watermark.0,
                    last_stable_offset: result.high_watermark.0,
                    log_start_offset: result.log_start_offset.0,
                    aborted_transactions: aborted(query.committed, result.error),
                    preferred_read_replica: NodeId(-1),
                    records_size: result.range.as_ref().map_or(0, |r| r.size as usize),
                },
            );
            if let Some(range) = &result.range {
                reply.push_file(range.clone());
            }
            leaders.extend(result.leader.map(|l| l.0).filter(|l| !leaders.contains(l)));
            let current_leader = result.leader.map(|(leader, epoch)| CurrentLeader { leader, epoch });
            writer.end_partition(&mut reply.bytes, &PartitionTags { diverging_epoch: None, current_leader });
        }
    }
    let endpoints: Vec<_> = leaders.iter().filter_map(|node| super::endpoint(&broker.image, *node)).collect();
    writer.end(&mut reply.bytes, &endpoints);
    reply.finish();
    reply
}
