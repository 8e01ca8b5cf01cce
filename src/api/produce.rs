//! Produce (key 0), versions 3..=13.
//!
//! - acks=0: appended, no reply. acks=1 and acks=all: the reply leaves when the batch is written, and durable where
//!   `flush.messages` asks for it; with one replica both are the same.
//! - A batch is checked once (length, magic, CRC32C, counts, framing as `produce.batch.validation` asks), stamped in place,
//!   and staged; all that is staged for a partition within a turn of the loop leaves in one write.
//! - A topic whose `compression.type` is not `producer` stores the batch made anew where its codec is another one.
//! - The reply is encoded at once as if the write had succeeded; a failed write overwrites the error code.
//!
//! v7: zstd. v8: which records of a batch were refused, and a message (KIP-467). v9: flexible encoding. v10: current leader
//! in the reply (KIP-951). v13: topic ids (KIP-516).

use std::borrow::Cow;

use super::{Context, Outcome, ReplyTo};
use crate::broker::{Broker, NotHere, turn};
use crate::config::TimestampType;
use crate::group::OFFSETS_TOPIC;
use crate::ids::{LeaderEpoch, NodeId, Offset};
use crate::partition::validate::{Invalid, validate};
use crate::parts::Slice;
use crate::storage::SequenceCheck;
use crate::wire::batch::{self, Codec};
use crate::wire::error_code::ErrorCode;
use crate::wire::frame::RequestHeader;
use crate::wire::produce::{PartitionResult, Produce, ProduceReply, ProduceTopic, RecordError};
use crate::wire::routing::{CurrentLeader, TopicRef};

/// The client id that Kafka's own tools have, and that may write to the groups' topic.
const ADMIN_CLIENT: &str = "__admin_client";

/// Producers of older versions may not send zstd.
const ZSTD_SINCE: i16 = 7;

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
    message: Option<Cow<'static, str>>,
    records: Vec<RecordError>,
    leader: Option<(NodeId, LeaderEpoch)>,
    /// -1: told only where the log itself refuses.
    log_start_offset: Offset,
}

impl Refused {
    /// By the log that starts there.
    fn by_log(self, log_start_offset: Offset) -> Refused {
        use ErrorCode::*;
        match self.error {
            CorruptMessage | MessageTooLarge | RecordListTooLarge | UnsupportedCompressionType => self,
            _ => Refused { log_start_offset, ..self },
        }
    }
}

impl From<ErrorCode> for Refused {
    fn from(error: ErrorCode) -> Refused {
        Refused { error, message: None, records: Vec::new(), leader: None, log_start_offset: Offset(-1) }
    }
}
impl From<NotHere> for Refused {
    fn from(not_here: NotHere) -> Refused {
        Refused { leader: not_here.leader, ..Refused::from(not_here.error) }
    }
}
impl From<Invalid> for Refused {
    fn from(Invalid { error, message, records }: Invalid) -> Refused {
        Refused { message, records, ..Refused::from(error) }
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
    let broker = &mut *context.broker;
    let waiter = (request.acks != 0).then_some(to.waiter);
    let reply = broker.take_reply();
    broker.turn.begin(waiter, reply);
    let out = &mut broker.turn.reply().bytes;
    let mut writer = ProduceReply::begin(out, to.correlation_id, to.version, request.topic_count);
    let mut leaders = Leaders::default();
    let mut failed = false;
    let mut cursor = request.cursor();
    while let Some(ProduceTopic { topic, partition_count }) = cursor.next_topic(frame) {
        let broker = &mut *context.broker;
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
                (Ok(name), -1..=1) if &**name == OFFSETS_TOPIC && !is_admin(frame) => {
                    Err(ErrorCode::InvalidTopicException.into())
                }
                (Ok(_), -1..=1) => {
                    let name = name.as_ref().map_or("", |n| &**n);
                    let records =
                        partition.records.map(|range| Records { slice: slice(&range), bytes: &mut frame[range] });
                    append(context, (name, partition.index), to.version, records)
                }
                // A partition that is not there is the first thing that Kafka sees.
                (Ok(name), _) => match context.broker.image.partition(name, partition.index) {
                    Some(_) => Err(ErrorCode::InvalidRequiredAcks.into()),
                    None => Err(ErrorCode::UnknownTopicOrPartition.into()),
                },
            };
            failed |= result.is_err();
            write_result(context.broker, &mut writer, partition.index, result, &mut leaders);
        }
    }
    leaders.end(context.broker, writer);
    context.broker.turn.end();
    if waiter.is_some() {
        return Outcome::Later(None);
    }
    if failed {
        // A producer that wants no replies learns of an error by losing its connection, as from Kafka.
        return Outcome::Close;
    }
    Outcome::Silent
}

fn is_admin(frame: &[u8]) -> bool {
    RequestHeader::parse(frame).is_ok_and(|(header, _)| header.client_id == Some(ADMIN_CLIENT))
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
                &PartitionResult {
                    current_leader,
                    record_errors: &refused.records,
                    log_start_offset: refused.log_start_offset.0,
                    ..PartitionResult::error(index, refused.error, refused.message.as_deref())
                },
            );
        }
    }
}

/// The records of one partition.
struct Records<'a> {
    bytes: &'a mut [u8],
    /// Where they are in the buffers of this turn.
    slice: Slice,
}

/// Checks a batch, stamps it and stages it.
fn append(
    context: &mut Context<'_>,
    (topic, index): (&str, i32),
    version: i16,
    records: Option<Records<'_>>,
) -> Result<Appended, Refused> {
    let Context { broker, disk, now, .. } = context;
    let depth = broker.config.batch_validation;
    let (slot, partition) = broker.leading(topic, index)?;
    let config = partition.config.clone();
    let log_start_offset = partition.log_start_offset();
    let Some(Records { bytes, slice }) = records else {
        let message = "a produce request must have one record batch";
        return Err(Invalid::because(ErrorCode::InvalidRecord, message).into());
    };
    let refused = |refused: Refused| refused.by_log(log_start_offset);
    let valid = validate(bytes, (topic, index), &config, depth, *now).map_err(|invalid| refused(invalid.into()))?;
    if version < ZSTD_SINCE && valid.batch.codec() == Codec::Zstd {
        return Err(ErrorCode::UnsupportedCompressionType.into());
    }
    let stamp = turn::producer_stamp(&valid.batch);
    match partition.log.check_sequence(stamp, valid.batch.count()) {
        SequenceCheck::Accept => {}
        SequenceCheck::Duplicate { base_offset, timestamp, .. } => {
            return Ok(Appended { base_offset, log_append_time_ms: timestamp, log_start_offset, staged: None });
        }
        SequenceCheck::Stored => return Err(refused(ErrorCode::DuplicateSequenceNumber.into())),
        SequenceCheck::OutOfOrder { .. } => return Err(refused(ErrorCode::OutOfOrderSequenceNumber.into())),
        SequenceCheck::StaleEpoch { .. } => return Err(refused(ErrorCode::InvalidProducerEpoch.into())),
    }
    let base_offset = partition.log.next_offset();
    let leader_epoch = partition.leader_epoch;
    let (facts, max_timestamp) = (valid.facts, valid.batch.max_timestamp());
    let mut made = valid.reencoded(&config)?;
    let batch = made.as_deref_mut().unwrap_or(&mut *bytes);
    let mut log_append_time_ms = -1;
    if config.timestamp_type == TimestampType::LogAppendTime {
        log_append_time_ms = now.wall_ms;
        batch::set_log_append_time(batch, now.wall_ms);
    } else if let Some(facts) = facts
        && facts.timestamp_max != max_timestamp
    {
        // Kafka computes it anew too: consumers and retention go by it.
        batch::set_max_timestamp(batch, facts.timestamp_max);
    }
    batch::stamp(batch, base_offset, leader_epoch);
    let last_offset = match made {
        Some(batch) => broker.stage_made(*disk, slot, batch, *now),
        None => turn::staged(bytes, slice).map(|staged| {
            broker.stage(slot, staged);
            staged.last_offset
        }),
    };
    let last_offset = last_offset.ok_or(ErrorCode::CorruptMessage)?;
    Ok(Appended { base_offset, log_append_time_ms, log_start_offset, staged: Some((slot, last_offset)) })
}
