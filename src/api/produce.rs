//! Produce (key 0), versions 3..=13.
//!
//! - acks=0: appended, no reply. acks=1 and acks=all: the reply leaves when the batch is written, and durable where
//!   `flush.messages` asks for it; with one replica both are the same.
//! - A batch is checked once (length, magic, CRC32C, counts, framing as `produce.batch.validation` asks), stamped in place,
//!   and staged; all that is staged for a partition within a turn of the loop leaves in one write.
//! - The reply is encoded at once as if the write had succeeded; a failed write overwrites the error code.
//!
//! v9: flexible encoding. v10: current leader in the reply (KIP-951). v13: topic ids (KIP-516).

use super::{Context, Outcome, ReplyTo};
use crate::broker::{Broker, NotHere, turn};
use crate::config::{BatchValidation, TimestampType};
use crate::ids::{LeaderEpoch, NodeId, Now, Offset};
use crate::limits::DECOMPRESSED_SIZE_MAX;
use crate::partition::Partition;
use crate::parts::Slice;
use crate::storage::SequenceCheck;
use crate::wire::batch::{self, Batch, Validation};
use crate::wire::compression::decompress_bounded;
use crate::wire::error_code::ErrorCode;
use crate::wire::produce::{PartitionResult, Produce, ProduceReply, ProduceTopic};
use crate::wire::routing::{CurrentLeader, TopicRef};

/// A partition's result, as far as it is known before the write.
struct Appended {
    base_offset: Offset,
    log_append_time_ms: i64,
    log_start_offset: Offset,
    /// None: nothing to wait for (a duplicate).
    staged: Option<(u32, Offset)>,
}

/// Why a partition's records are refused.
struct Refused {
    error: ErrorCode,
    message: Option<&'static str>,
    leader: Option<(NodeId, LeaderEpoch)>,
}

impl From<ErrorCode> for Refused {
    fn from(error: ErrorCode) -> Refused {
        Refused { error, message: None, leader: None }
    }
}
impl From<NotHere> for Refused {
    fn from(not_here: NotHere) -> Refused {
        Refused { error: not_here.error, message: None, leader: not_here.leader }
    }
}
impl Refused {
    fn because(error: ErrorCode, message: &'static str) -> Refused {
        Refused { error, message: Some(message), leader: None }
    }
}

/// Handles one request. `frame` is the whole frame, header included; `(buffer, start)` says where it lies among the buffers
/// of this turn.
pub fn handle(
    context: &mut Context<'_>,
    to: ReplyTo,
    frame: &mut [u8],
    body: usize,
    (buffer, start): (u32, u32),
) -> Outcome {
    let request = match Produce::parse(frame, body, to.version) {
        Ok(request) => request,
        Err(error) => return Outcome::Malformed(error),
    };
    let Context { broker, now, .. } = context;
    let waiter = (request.acks != 0).then_some(to.waiter);
    let reply = broker.take_reply();
    broker.turn.begin(waiter, reply);
    let out = &mut broker.turn.reply().bytes;
    let mut writer = ProduceReply::begin(out, to.correlation_id, to.version, request.topic_count);
    let mut leaders = Leaders::default();
    let mut failed = false;
    let mut cursor = request.cursor();
    while let Some(ProduceTopic { topic, partition_count }) = cursor.next_topic(frame) {
        writer.topic(&mut broker.turn.reply().bytes, topic, partition_count);
        // The frame is stamped while the topic is worked on, so its name is kept as the broker knows it.
        let name = match topic {
            TopicRef::Name(name) => broker.known_name(name).ok_or(ErrorCode::UnknownTopicOrPartition),
            TopicRef::Id(id) => broker.topic_name(id).cloned().ok_or(ErrorCode::UnknownTopicId),
        };
        while let Some(partition) = cursor.next_partition(frame) {
            let slice = |range: &std::ops::Range<usize>| Slice {
                buffer,
                start: start + range.start as u32,
                size: range.len() as u32,
            };
            let result = match (&name, request.acks) {
                (Err(error), _) => Err(Refused::from(*error)),
                (Ok(_), -1..=1) => {
                    let name = name.as_ref().map_or("", |n| &**n);
                    let slice = partition.records.as_ref().map(slice);
                    let records = partition.records.clone().map(|range| &mut frame[range]);
                    append(broker, *now, (name, partition.index), request.acks, records, slice)
                }
                _ => Err(ErrorCode::InvalidRequiredAcks.into()),
            };
            failed |= result.is_err();
            write_result(broker, &mut writer, partition.index, result, &mut leaders);
        }
    }
    leaders.end(broker, writer);
    broker.turn.end();
    if waiter.is_some() {
        return Outcome::Later(None);
    }
    if failed {
        // A producer that wants no replies learns of an error by losing its connection, as from Kafka.
        return Outcome::Close;
    }
    Outcome::Silent
}

/// Leaders named in a reply, whose addresses go at its end.
#[derive(Default)]
struct Leaders(Vec<NodeId>);

impl Leaders {
    fn end(self, broker: &mut Broker, writer: ProduceReply) {
        let image = broker.image.clone();
        let endpoints: Vec<_> = self.0.iter().filter_map(|node| super::endpoint(&image, *node)).collect();
        writer.end(&mut broker.turn.reply().bytes, 0, &endpoints);
    }
}

fn write_result(
    broker: &mut Broker,
    writer: &mut ProduceReply,
    index: i32,
    result: Result<Appended, Refused>,
    leaders: &mut Leaders,
) {
    let out = &mut broker.turn.reply().bytes;
    // The partition's index comes first, then its error code.
    let error_at = out.len() + size_of::<i32>();
    match result {
        Ok(appended) => {
            writer.partition(
                out,
                &PartitionResult {
                    base_offset: appended.base_offset.0,
                    log_append_time_ms: appended.log_append_time_ms,
                    log_start_offset: appended.log_start_offset.0,
                    ..PartitionResult::error(index, ErrorCode::None, None)
                },
            );
            if let Some((slot, last_offset)) = appended.staged {
                broker.turn.await_append(slot, last_offset, error_at);
            }
        }
        Err(refused) => {
            let current_leader = refused.leader.map(|(leader, epoch)| CurrentLeader { leader, epoch });
            leaders.0.extend(refused.leader.map(|(leader, _)| leader).filter(|l| !leaders.0.contains(l)));
            writer.partition(
                out,
                &PartitionResult { current_leader, ..PartitionResult::error(index, refused.error, refused.message) },
            );
        }
    }
}

/// Checks a batch, stamps it and stages it.
fn append(
    broker: &mut Broker,
    now: Now,
    (topic, index): (&str, i32),
    acks: i16,
    records: Option<&mut [u8]>,
    slice: Option<Slice>,
) -> Result<Appended, Refused> {
    let validation = match broker.config.batch_validation {
        BatchValidation::Header => Validation::Header,
        BatchValidation::Records | BatchValidation::Strict => Validation::Records,
    };
    let strict = broker.config.batch_validation == BatchValidation::Strict;
    let (slot, partition) = broker.leading(topic, index)?;
    let config = partition.config.clone();
    if acks == -1 && config.insync_replicas_min > 1 {
        return Err(ErrorCode::NotEnoughReplicas.into());
    }
    let (Some(bytes), Some(slice)) = (records, slice) else {
        return Err(Refused::because(ErrorCode::InvalidRecord, "a produce request must have one record batch"));
    };
    let batch = Batch::check(bytes, validation).map_err(|e| e.code())?;
    if batch.size() != bytes.len() {
        return Err(Refused::because(ErrorCode::InvalidRecord, "a produce request must have exactly one record batch"));
    }
    if batch.size() > config.message_bytes_max as usize {
        return Err(ErrorCode::MessageTooLarge.into());
    }
    if batch.size() > config.segment_bytes as usize {
        return Err(ErrorCode::RecordListTooLarge.into());
    }
    check_contents(partition, &batch, strict)?;
    check_timestamps(&config, &batch, now)?;
    let stamp = turn::producer_stamp(&batch);
    let sequence = partition.log.check_sequence(stamp, batch.count());
    let log_start_offset = partition.log_start_offset();
    match sequence {
        SequenceCheck::Accept => {}
        SequenceCheck::Duplicate { base_offset, timestamp, .. } => {
            let log_append_time_ms = if config.timestamp_type == TimestampType::LogAppendTime { timestamp } else { -1 };
            return Ok(Appended { base_offset, log_append_time_ms, log_start_offset, staged: None });
        }
        SequenceCheck::OutOfOrder { .. } => return Err(ErrorCode::OutOfOrderSequenceNumber.into()),
        SequenceCheck::StaleEpoch { .. } => return Err(ErrorCode::InvalidProducerEpoch.into()),
    }
    let base_offset = partition.log.next_offset();
    let leader_epoch = partition.leader_epoch;
    let mut log_append_time_ms = -1;
    if config.timestamp_type == TimestampType::LogAppendTime {
        log_append_time_ms = now.wall_ms;
        batch::set_log_append_time(bytes, now.wall_ms);
    } else if let Some(facts) = batch.facts()
        && facts.timestamp_max != batch.max_timestamp()
    {
        // Kafka computes it anew too: consumers and retention go by it.
        batch::set_max_timestamp(bytes, facts.timestamp_max);
    }
    batch::stamp(bytes, base_offset, leader_epoch);
    let staged = turn::staged(bytes, slice).ok_or(ErrorCode::CorruptMessage)?;
    let last_offset = staged.last_offset;
    broker.stage(slot, staged);
    Ok(Appended { base_offset, log_append_time_ms, log_start_offset, staged: Some((slot, last_offset)) })
}

fn check_contents(partition: &Partition, batch: &Batch<'_>, strict: bool) -> Result<(), Refused> {
    if batch.attributes().is_control() {
        return Err(Refused::because(ErrorCode::InvalidRecord, "control batches are the broker's"));
    }
    if batch.attributes().timestamp_type() == batch::TimestampType::LogAppendTime {
        return Err(Refused::because(ErrorCode::InvalidTimestamp, "LogAppendTime is the broker's to set"));
    }
    if batch.producer_id() >= 0 && batch.base_sequence() < 0 {
        return Err(Refused::because(ErrorCode::InvalidRecord, "an idempotent batch has no negative sequence"));
    }
    if batch.attributes().is_transactional() {
        return Err(Refused::because(ErrorCode::InvalidTxnState, "transactions are not served"));
    }
    let mut facts = batch.facts();
    if facts.is_none() && batch.codec() != batch::Codec::None && (strict || partition.config.compact) {
        let records = decompress_bounded(batch.codec(), batch.records(), DECOMPRESSED_SIZE_MAX)
            .map_err(|_| Refused::because(ErrorCode::InvalidRecord, "the records cannot be decompressed"))?;
        facts = Some(batch.walk(&records).map_err(|e| e.code())?);
    }
    if partition.config.compact && facts.is_some_and(|f| f.key_missing) {
        return Err(Refused::because(
            ErrorCode::InvalidRecord,
            "Compacted topic cannot accept message without key in topic partition.",
        ));
    }
    Ok(())
}

fn check_timestamps(config: &crate::config::TopicConfig, batch: &Batch<'_>, now: Now) -> Result<(), Refused> {
    if config.timestamp_type == TimestampType::LogAppendTime {
        return Ok(());
    }
    let (min, max) = match batch.facts() {
        Some(facts) => (facts.timestamp_min, facts.timestamp_max),
        None => (batch.base_timestamp(), batch.max_timestamp()),
    };
    let too_old = min >= 0
        && config
            .timestamp_before_ms_max
            .is_some_and(|ms| now.wall_ms.saturating_sub(min) > ms.min(i64::MAX as u64) as i64);
    let too_new = config
        .timestamp_after_ms_max
        .is_some_and(|ms| max.saturating_sub(now.wall_ms) > ms.min(i64::MAX as u64) as i64);
    if too_old || too_new {
        return Err(Refused::because(
            ErrorCode::InvalidTimestamp,
            "a timestamp is out of range of message.timestamp.before.max.ms or message.timestamp.after.max.ms",
        ));
    }
    Ok(())
}
