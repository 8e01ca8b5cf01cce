//! What a topic asks of a produced batch's records: decompressed, walked, judged, and compressed in the topic's codec. A batch of few
//! bytes may become very many, so all of it is done in pieces of a budget, and the core's loop goes on between them. A batch
//! that may stay as it came is not touched, and memory is bounded by what a batch may hold.

use super::rejected::Judgement;
use super::validate::{Invalid, check_size};
use crate::config::{BatchValidation, Compression, TimestampType, TopicConfig};
use crate::ids::Now;
use crate::limits::DECOMPRESSED_SIZE_MAX;
use crate::storage::{Budget, compress_cost, decompress_cost};
use crate::wire::ErrorCode;
use crate::wire::batch::{Batch, Codec, HEADER_SIZE};
use crate::wire::compression::{CompressionError, Compressor, Decompressor, seal_records};
use crate::wire::walk::{RecordFacts, Walk};

/// Records walked at once, and what that is taken for (nanoseconds).
const WALK_COUNT: i32 = 512;
const WALK_NS: i64 = 10_000;
/// Given back to the kernel at once, and what that is taken for.
const SHRINK_SIZE: usize = 256 << 10;
const SHRINK_NS: i64 = 30_000;

/// A codec and its level.
type Target = (Codec, Option<i32>);

/// What was found out, and made.
#[derive(Default)]
pub struct Looked {
    /// What the records say; none where nobody asked.
    pub facts: Option<RecordFacts>,
    /// The batch in the codec of the topic, where it came in another.
    pub made: Option<Vec<u8>>,
}

/// The work on one batch, under way.
pub struct RecordsWork {
    step: Step,
    target: Option<Target>,
    /// Where the batch has them compressed.
    records: Vec<u8>,
    looked: Looked,
}

enum Step {
    Decompress(Box<Decompressor<Vec<u8>>>),
    Walk(Walk),
    Judge(Judgement),
    /// From which byte of the records on.
    Compress(Box<Compressor>, usize),
    /// Of the records' memory.
    GiveBack,
}

impl RecordsWork {
    /// The work on a batch that was checked. `None`: there is none.
    pub fn on(
        batch: &Batch<'_>,
        config: &TopicConfig,
        depth: BatchValidation,
        now: Now,
    ) -> Result<Option<RecordsWork>, Invalid> {
        let target = config.compression.map(codec_of).filter(|(codec, _)| *codec != batch.codec());
        let facts = batch.facts();
        // A batch's header tells the latest time of its records, not the earliest.
        let earliest_matters =
            config.timestamp_before_ms_max.is_some() && config.timestamp_type == TimestampType::CreateTime;
        let suspect = is_suspect(batch, facts, config, now);
        let looks = depth == BatchValidation::Strict || config.compact || earliest_matters || suspect;
        let compressed = batch.codec() != Codec::None;
        if target.is_none() && !suspect && !(facts.is_none() && compressed && looks) {
            return Ok(None);
        }
        let step = match (batch.codec(), facts) {
            (Codec::None, Some(_)) if suspect => Step::Judge(Judgement::default()),
            (Codec::None, Some(_)) => compress(batch, target, batch.records().len())?,
            (Codec::None, None) => Step::Walk(Walk::new(batch.count())),
            (codec, _) => {
                // More could not be stored.
                let stored = target.is_some_and(|(codec, _)| codec == Codec::None);
                let size_max = if stored { config.message_bytes_max as usize - HEADER_SIZE } else { usize::MAX };
                let size_max = size_max.min(DECOMPRESSED_SIZE_MAX);
                Step::Decompress(Box::new(Decompressor::new(codec, batch.records().to_vec(), size_max)))
            }
        };
        Ok(Some(RecordsWork { step, target, records: Vec::new(), looked: Looked { facts, made: None } }))
    }

    /// Goes on with it; `batch` is what the work began with. `None`: the budget is spent, and there is more to do.
    pub fn go_on(
        &mut self,
        batch: &Batch<'_>,
        place: (&str, i32),
        config: &TopicConfig,
        now: Now,
        budget: &mut Budget,
    ) -> Result<Option<Looked>, Invalid> {
        while !budget.is_spent() {
            let records = if batch.codec() == Codec::None { batch.records() } else { &self.records };
            match &mut self.step {
                Step::Decompress(stream) => {
                    let (size, ns) = decompress_cost(stream.codec());
                    let before = self.records.len();
                    let more = stream.read(&mut self.records, size).map_err(undecompressed)?;
                    budget.spend(self.records.len() - before, ns);
                    if !more {
                        self.step = Step::Walk(Walk::new(batch.count()));
                    }
                }
                Step::Walk(walk) => {
                    budget.spend_ns(WALK_NS);
                    if walk.go_on(records, WALK_COUNT).map_err(|e| e.code())? {
                        continue;
                    }
                    let facts = walk.end(records, batch.base_timestamp()).map_err(|e| e.code())?;
                    self.looked.facts = Some(facts);
                    self.step = match is_suspect(batch, Some(facts), config, now) {
                        true => Step::Judge(Judgement::default()),
                        false => compress(batch, self.target, records.len())?,
                    };
                }
                Step::Judge(judgement) => {
                    if !judgement.go_on(batch, records, place, config, now, budget)? {
                        std::mem::take(judgement).end()?;
                        self.step = compress(batch, self.target, records.len())?;
                    }
                }
                Step::Compress(stream, at) => {
                    let (size, ns) = compress_cost(stream.codec());
                    let part = &records[*at..records.len().min(*at + size)];
                    // A batch of one piece is not cut for the sake of others.
                    let written = if records.len() <= size { stream.write(part) } else { stream.write_piece(part) };
                    written.map_err(uncompressed)?;
                    *at += part.len();
                    budget.spend(part.len(), ns);
                    if *at == records.len() {
                        let Step::Compress(stream, _) = std::mem::replace(&mut self.step, Step::GiveBack) else {
                            continue;
                        };
                        let codec = stream.codec();
                        let mut made = stream.finish().map_err(uncompressed)?;
                        seal_records(&mut made, codec).map_err(uncompressed)?;
                        check_size(config, made.len())?;
                        self.looked.made = Some(made);
                    }
                }
                Step::GiveBack => {
                    if self.records.capacity() <= SHRINK_SIZE {
                        return Ok(Some(std::mem::take(&mut self.looked)));
                    }
                    self.records.clear();
                    self.records.shrink_to(self.records.capacity() - SHRINK_SIZE);
                    budget.spend_ns(SHRINK_NS);
                }
            }
        }
        Ok(None)
    }
}

/// The step to `target`; `size`: of the records.
fn compress(batch: &Batch<'_>, target: Option<Target>, size: usize) -> Result<Step, Invalid> {
    let Some((codec, level)) = target else { return Ok(Step::GiveBack) };
    let header = batch.bytes()[..HEADER_SIZE].to_vec();
    let stream = Compressor::new(codec, level, size, header).map_err(uncompressed)?;
    Ok(Step::Compress(Box::new(stream), 0))
}

fn undecompressed(error: CompressionError) -> Invalid {
    match error {
        CompressionError::TooLarge(_) => {
            Invalid::because(ErrorCode::MessageTooLarge, "the records are too large when decompressed")
        }
        CompressionError::Corrupt { .. } => {
            Invalid::because(ErrorCode::InvalidRecord, "the records cannot be decompressed")
        }
    }
}

fn uncompressed(error: CompressionError) -> Invalid {
    log::error!("compression.type: {error}");
    Invalid::from(ErrorCode::UnknownServerError)
}

fn codec_of(compression: Compression) -> Target {
    match compression {
        Compression::Uncompressed => (Codec::None, None),
        Compression::Gzip(level) => (Codec::Gzip, Some(level)),
        Compression::Snappy => (Codec::Snappy, None),
        Compression::Lz4 => (Codec::Lz4, None),
        Compression::Zstd(level) => (Codec::Zstd, Some(level)),
    }
}

/// Whether there may be something wrong with a record: a key is missing that the topic wants, or a timestamp is out of range.
/// What is known of those is the smallest and the largest, and a record without one is always fine.
fn is_suspect(batch: &Batch<'_>, facts: Option<RecordFacts>, config: &TopicConfig, now: Now) -> bool {
    let (min, max) = match facts {
        Some(facts) => (facts.timestamp_min, facts.timestamp_max),
        None => (batch.base_timestamp(), batch.max_timestamp()),
    };
    let key_missing = config.compact && facts.is_some_and(|facts| facts.key_missing);
    key_missing
        || config.timestamp_type == TimestampType::CreateTime
            && (config.timestamp_out_of_range(min, now) || config.timestamp_out_of_range(max, now))
}
