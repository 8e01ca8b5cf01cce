//! Produce (key 0), versions 3..=13.
//!
//! - acks=0: appended, no reply. acks=1 and acks=all: the reply leaves when the batch is written, and durable where
//!   `flush.messages` asks for it; with one replica both are the same.
//! - A batch is checked once (length, magic, CRC32C, counts, framing as `produce.batch.validation` asks), stamped in place,
//!   and staged; all that is staged for a partition within a turn of the loop leaves in one write.
//! - A topic whose `compression.type` is not `producer` stores the batch made anew where its codec is another one. That, and all
//!   else that makes records be looked at after decompression, is done within a budget for each turn of the loop: the request is put
//!   off, and its connection with it, so that what comes behind it stays behind it.
//! - The reply is encoded at once as if the write had succeeded; a failed write overwrites the error code.
//!
//! v7: zstd. v8: which records of a batch were refused, and a message (KIP-467). v9: flexible encoding. v10: current leader
//! in the reply (KIP-951). v13: topic ids (KIP-516).

use std::borrow::Cow;

use super::{Context, Outcome, ReplyTo};
use crate::broker::{Broker, NotHere, turn};
use crate::config::{BatchValidation, TimestampType, TopicConfig};
use crate::group::OFFSETS_TOPIC;
use crate::ids::{LeaderEpoch, NodeId, Now, Offset, TopicName};
use crate::partition::records_work::{Looked, RecordsWork};
use crate::partition::validate::{Invalid, check};
use crate::parts::Slice;
use crate::storage::{Budget, SequenceCheck};
use crate::wire::batch::{self, Batch, Codec, HeaderView};
use crate::wire::error_code::ErrorCode;
use crate::wire::frame::RequestHeader;
use crate::wire::produce::{
    Cursor, PartitionResult, Produce, ProducePartition, ProduceReply, ProduceTopic, RecordError,
};
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

/// A request on its way, partition after partition. Where a batch takes more work than there is time for in a turn, it is put off.
pub struct UnderWay {
    to: ReplyTo,
    acks: i16,
    cursor: Cursor,
    writer: ProduceReply,
    leaders: Leaders,
    failed: bool,
    /// The topic that the cursor is in, as the broker knows it.
    name: Result<TopicName, ErrorCode>,
    put_off: Option<PartitionPutOff>,
}

/// The partition that a request was put off at.
struct PartitionPutOff {
    partition: ProducePartition,
    /// None: to be begun anew.
    work: Option<RecordsWork>,
    reply: turn::PutOff,
}

/// What the records of the batch at hand need, and may cost.
struct Work<'a> {
    of_batch: Option<RecordsWork>,
    budget: &'a mut Budget,
}

/// Handles one request. `frame` is the whole frame, header included; `at` says where it lies among the buffers of this turn.
pub fn handle(context: &mut Context<'_>, to: ReplyTo, frame: &mut [u8], body: usize, at: (u32, u32)) -> Outcome {
    let request = match Produce::parse(frame, body, to.version) {
        Ok(request) => request,
        Err(error) => return Outcome::Malformed(error),
    };
    let broker = &mut *context.broker;
    let waiter = (request.acks != 0).then_some(to.waiter);
    let reply = broker.take_reply();
    let mut budget = std::mem::take(&mut broker.turn.budget);
    let out = &mut broker.turn.begin(waiter, reply).bytes;
    let under_way = UnderWay {
        to,
        acks: request.acks,
        cursor: request.cursor(),
        writer: ProduceReply::begin(out, to.correlation_id, to.version, request.topic_count),
        leaders: Leaders::default(),
        failed: false,
        name: Err(ErrorCode::UnknownTopicOrPartition),
        put_off: None,
    };
    let outcome = under_way.go_on(context, frame, at, &mut budget);
    context.broker.turn.budget = budget;
    outcome
}

/// Goes on with a request that was put off; `frame` is the same as before, wherever it lies now.
pub fn go_on(
    context: &mut Context<'_>,
    under_way: Box<UnderWay>,
    frame: &mut [u8],
    at: (u32, u32),
    budget: &mut Budget,
) -> Outcome {
    if let Some(put_off) = &under_way.put_off {
        context.broker.turn.take_up(put_off.reply);
    }
    under_way.go_on(context, frame, at, budget)
}

impl UnderWay {
    /// As asked.
    pub fn to(&self) -> ReplyTo {
        self.to
    }
    /// Forgets how far the work on its batch has come: it waits for others, and should hold no memory meanwhile.
    pub fn forget_work(&mut self) {
        if let Some(put_off) = &mut self.put_off {
            put_off.work = None;
        }
    }
    /// Nobody waits for it any more.
    pub fn drop_reply(self, broker: &mut Broker) {
        if let Some(put_off) = self.put_off {
            broker.turn.drop_put_off(put_off.reply);
        }
    }

    fn go_on(
        mut self,
        context: &mut Context<'_>,
        frame: &mut [u8],
        (buffer, start): (u32, u32),
        budget: &mut Budget,
    ) -> Outcome {
        let mut work = Work { of_batch: None, budget };
        while let Some(partition) = self.next_partition(context.broker, frame, &mut work) {
            let index = partition.index;
            let result = match (&self.name, self.acks) {
                (Err(error), _) => Err(Refused::from(*error)),
                (Ok(name), -1..=1) if &**name == OFFSETS_TOPIC && !is_admin(frame) => {
                    Err(ErrorCode::InvalidTopicException.into())
                }
                (Ok(name), -1..=1) => {
                    let records = partition.records.clone().map(|range| Records {
                        slice: Slice { buffer, start: start + range.start as u32, size: range.len() as u32 },
                        bytes: &mut frame[range],
                    });
                    match append(context, (name, index), self.to.version, records, &mut work) {
                        Some(result) => result,
                        None => {
                            let reply = context.broker.turn.put_off();
                            self.put_off = Some(PartitionPutOff { partition, work: work.of_batch, reply });
                            return Outcome::PutOff(Box::new(self));
                        }
                    }
                }
                // A partition that is not there is the first thing that Kafka sees.
                (Ok(name), _) => match context.broker.image.partition(name, index) {
                    Some(_) => Err(ErrorCode::InvalidRequiredAcks.into()),
                    None => Err(ErrorCode::UnknownTopicOrPartition.into()),
                },
            };
            work.of_batch = None;
            self.failed |= result.is_err();
            write_result(context.broker, &mut self.writer, index, result, &mut self.leaders);
        }
        self.leaders.end(context.broker, self.writer);
        context.broker.turn.end();
        if self.acks != 0 {
            return Outcome::Later(None);
        }
        if self.failed {
            // A producer that wants no replies learns of an error by losing its connection, as from Kafka.
            return Outcome::Close;
        }
        Outcome::Silent
    }

    /// The partition that the request was put off at, and the work that was begun; or else the next one.
    fn next_partition(&mut self, broker: &mut Broker, frame: &[u8], work: &mut Work<'_>) -> Option<ProducePartition> {
        if let Some(put_off) = self.put_off.take() {
            work.of_batch = put_off.work;
            return Some(put_off.partition);
        }
        loop {
            if let Some(partition) = self.cursor.next_partition(frame) {
                return Some(partition);
            }
            let ProduceTopic { topic, partition_count } = self.cursor.next_topic(frame)?;
            self.writer.topic(&mut broker.turn.reply().bytes, topic, partition_count);
            // The frame is stamped while the topic is worked on, so its name is kept as the broker knows it.
            self.name = match topic {
                TopicRef::Name(name) => broker.known_name(name).ok_or(ErrorCode::UnknownTopicOrPartition),
                TopicRef::Id(id) => broker.topic_name(id).cloned().ok_or(ErrorCode::UnknownTopicId),
            };
        }
    }
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

/// Checks a batch, does what its records need, stamps it and stages it. `None`: there was no time for all of it; `work` says how
/// far it has come.
fn append(
    context: &mut Context<'_>,
    place: (&str, i32),
    version: i16,
    records: Option<Records<'_>>,
    work: &mut Work<'_>,
) -> Option<Result<Appended, Refused>> {
    let depth = context.broker.config.batch_validation;
    let (slot, partition) = match context.broker.leading(place.0, place.1) {
        Ok(leading) => leading,
        Err(not_here) => return Some(Err(not_here.into())),
    };
    let config = partition.config.clone();
    let log_start_offset = partition.log_start_offset();
    let Some(Records { bytes, slice }) = records else {
        let message = "a produce request must have one record batch";
        return Some(Err(Invalid::because(ErrorCode::InvalidRecord, message).into()));
    };
    let looked = match look_at(bytes, place, version, &config, depth, context.now, work) {
        Ok(Some(looked)) => looked,
        Ok(None) => return None,
        Err(refused) => return Some(Err(refused.by_log(log_start_offset))),
    };
    Some(stage(context, slot, &config, looked, bytes, slice))
}

/// Checks a batch and does what its records need.
fn look_at(
    bytes: &[u8],
    place: (&str, i32),
    version: i16,
    config: &TopicConfig,
    depth: BatchValidation,
    now: Now,
    work: &mut Work<'_>,
) -> Result<Option<Looked>, Refused> {
    let batch = match work.of_batch {
        // It was checked when the work on it began.
        Some(_) => Batch::frame(bytes).map_err(|e| Refused::from(e.code()))?,
        None => {
            let batch = check(bytes, place, config, depth)?;
            if version < ZSTD_SINCE && batch.codec() == Codec::Zstd {
                return Err(ErrorCode::UnsupportedCompressionType.into());
            }
            work.of_batch = RecordsWork::on(&batch, config, depth, now)?;
            batch
        }
    };
    match &mut work.of_batch {
        Some(of_batch) => Ok(of_batch.go_on(&batch, place, config, now, work.budget)?),
        None => Ok(Some(Looked { facts: batch.facts(), made: None })),
    }
}

/// Stamps a batch that may be appended and stages it.
fn stage(
    context: &mut Context<'_>,
    slot: u32,
    config: &TopicConfig,
    Looked { facts, mut made }: Looked,
    bytes: &mut [u8],
    slice: Slice,
) -> Result<Appended, Refused> {
    let Context { broker, disk, now, .. } = context;
    let header = HeaderView::read(bytes).ok_or(ErrorCode::CorruptMessage)?;
    let partition = broker.partition(slot).ok_or(ErrorCode::NotLeaderOrFollower)?;
    let log_start_offset = partition.log_start_offset();
    let refused = |error: ErrorCode| Refused::from(error).by_log(log_start_offset);
    match partition.log.check_sequence(turn::producer_stamp(&header), header.count()) {
        SequenceCheck::Accept => {}
        SequenceCheck::Duplicate { base_offset, timestamp, .. } => {
            return Ok(Appended { base_offset, log_append_time_ms: timestamp, log_start_offset, staged: None });
        }
        SequenceCheck::Stored => return Err(refused(ErrorCode::DuplicateSequenceNumber)),
        SequenceCheck::OutOfOrder { .. } => return Err(refused(ErrorCode::OutOfOrderSequenceNumber)),
        SequenceCheck::StaleEpoch { .. } => return Err(refused(ErrorCode::InvalidProducerEpoch)),
    }
    let base_offset = partition.log.next_offset();
    let leader_epoch = partition.leader_epoch;
    let max_timestamp = header.max_timestamp();
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
