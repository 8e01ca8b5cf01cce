//! What a produced batch must be for a partition to take it, and in which codec it is stored: Kafka's LogValidator. Records are
//! decompressed only where the topic asks for it, and never beyond what a batch may hold; a batch that may stay as it came is
//! not touched. Only where something is wrong with a record, all are looked at again to say which (`rejected.rs`).

use std::borrow::Cow;

use crate::config::{BatchValidation, Compression, TimestampType, TopicConfig};
use crate::ids::{Now, Offset};
use crate::limits::DECOMPRESSED_SIZE_MAX;
use crate::wire::ErrorCode;
use crate::wire::batch::{self, Batch, Codec, HEADER_SIZE, Validation};
use crate::wire::compression::{CompressionError, decompress_bounded, with_records};
use crate::wire::produce::RecordError;
use crate::wire::walk::RecordFacts;

use super::rejected::rejected;

/// Why a batch is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// What the producer is told.
    pub error: ErrorCode,
    /// And in words.
    pub message: Option<Cow<'static, str>>,
    /// The records that are to blame, where single ones are.
    pub records: Vec<RecordError>,
}

impl From<ErrorCode> for Invalid {
    fn from(error: ErrorCode) -> Invalid {
        Invalid { error, message: None, records: Vec::new() }
    }
}

impl Invalid {
    /// Refused as a whole.
    pub fn because(error: ErrorCode, message: &'static str) -> Invalid {
        Invalid { error, message: Some(message.into()), records: Vec::new() }
    }
}

fn because<T>(error: ErrorCode, message: &'static str) -> Result<T, Invalid> {
    Err(Invalid::because(error, message))
}

/// A batch that may be appended.
#[derive(Debug)]
pub struct Valid<'a> {
    /// As it came.
    pub batch: Batch<'a>,
    /// What its records say; none where they were not looked at.
    pub facts: Option<RecordFacts>,
    /// The codec it must be given, and its records for that.
    change: Option<(Codec, Option<i32>, Cow<'a, [u8]>)>,
}

impl Valid<'_> {
    /// The batch made anew, where it may not stay as it came.
    pub fn reencoded(&self, config: &TopicConfig) -> Result<Option<Vec<u8>>, Invalid> {
        let Some((codec, level, records)) = &self.change else { return Ok(None) };
        let batch = with_records(&self.batch, records, *codec, *level).map_err(|error| {
            log::error!("compression.type: {error}");
            Invalid::from(ErrorCode::UnknownServerError)
        })?;
        check_size(config, batch.len())?;
        Ok(Some(batch))
    }
}

/// Checks the one batch that a produce request has for a partition; `place` names it where a record is to blame.
pub fn validate<'a>(
    bytes: &'a [u8],
    place: (&str, i32),
    config: &TopicConfig,
    depth: BatchValidation,
    now: Now,
) -> Result<Valid<'a>, Invalid> {
    let validation = match depth {
        BatchValidation::Header => Validation::Header,
        BatchValidation::Records | BatchValidation::Strict => Validation::Records,
    };
    let batch = Batch::check(bytes, validation).map_err(|e| e.code())?;
    if batch.size() != bytes.len() {
        return because(ErrorCode::InvalidRecord, "a produce request must have exactly one record batch");
    }
    if batch.base_offset().0 != 0 {
        let (topic, index) = place;
        let offset = batch.base_offset();
        let message = format!(
            "The baseOffset of the record batch in the append to {topic}-{index} should be 0, but it is {offset}"
        );
        return Err(Invalid { message: Some(message.into()), ..ErrorCode::InvalidRecord.into() });
    }
    check_size(config, batch.size())?;
    check_attributes(&batch)?;
    let valid = look_at_records(batch, config, depth == BatchValidation::Strict)?;
    if key_missing(config, &valid) || timestamps_suspect(config, &valid, now) {
        let records = match &valid.change {
            Some((_, _, records)) => Cow::Borrowed(&**records),
            None if valid.batch.codec() == Codec::None => Cow::Borrowed(valid.batch.records()),
            None => decompress(&valid.batch, DECOMPRESSED_SIZE_MAX)?,
        };
        rejected(&valid.batch, &records, place, config, now)?;
    }
    Ok(valid)
}

fn check_size(config: &TopicConfig, size: usize) -> Result<(), Invalid> {
    if size > config.message_bytes_max as usize {
        return Err(ErrorCode::MessageTooLarge.into());
    }
    if size > config.segment_bytes as usize {
        return Err(ErrorCode::RecordListTooLarge.into());
    }
    Ok(())
}

fn check_attributes(batch: &Batch<'_>) -> Result<(), Invalid> {
    if batch.base_offset() != Offset(0) {
        return because(ErrorCode::InvalidRecord, "the base offset of a producer's batch is 0");
    }
    if batch.attributes().is_control() {
        return because(ErrorCode::InvalidRecord, "control batches are the broker's");
    }
    if batch.attributes().timestamp_type() == batch::TimestampType::LogAppendTime {
        return because(ErrorCode::InvalidTimestamp, "LogAppendTime is the broker's to set");
    }
    if batch.producer_id() >= 0 && batch.base_sequence() < 0 {
        return because(ErrorCode::InvalidRecord, "an idempotent batch has no negative sequence");
    }
    if batch.attributes().is_transactional() {
        return because(ErrorCode::InvalidTxnState, "transactions are not served");
    }
    Ok(())
}

fn look_at_records<'a>(batch: Batch<'a>, config: &TopicConfig, strict: bool) -> Result<Valid<'a>, Invalid> {
    let target = config.compression.map(codec_of).filter(|(codec, _)| *codec != batch.codec());
    let compressed = batch.codec() != Codec::None;
    let mut facts = batch.facts();
    let mut change = None;
    // A batch's header tells the latest time of its records, not the earliest.
    let earliest_matters =
        config.timestamp_before_ms_max.is_some() && config.timestamp_type == TimestampType::CreateTime;
    if target.is_some() || (facts.is_none() && compressed && (strict || config.compact || earliest_matters)) {
        let records = match (batch.codec(), target) {
            (Codec::None, _) => Cow::Borrowed(batch.records()),
            // More could not be stored.
            (_, Some((Codec::None, _))) => decompress(&batch, config.message_bytes_max as usize - HEADER_SIZE)?,
            _ => decompress(&batch, DECOMPRESSED_SIZE_MAX)?,
        };
        if facts.is_none() {
            facts = Some(batch.walk(&records).map_err(|e| e.code())?);
        }
        change = target.map(|(codec, level)| (codec, level, records));
    }
    Ok(Valid { batch, facts, change })
}

fn decompress(batch: &Batch<'_>, size_max: usize) -> Result<Cow<'static, [u8]>, Invalid> {
    match decompress_bounded(batch.codec(), batch.records(), size_max.min(DECOMPRESSED_SIZE_MAX)) {
        Ok(records) => Ok(Cow::Owned(records)),
        Err(CompressionError::TooLarge(_)) => {
            because(ErrorCode::MessageTooLarge, "the records are too large when decompressed")
        }
        Err(CompressionError::Corrupt { .. }) => {
            because(ErrorCode::InvalidRecord, "the records cannot be decompressed")
        }
    }
}

fn codec_of(compression: Compression) -> (Codec, Option<i32>) {
    match compression {
        Compression::Uncompressed => (Codec::None, None),
        Compression::Gzip(level) => (Codec::Gzip, Some(level)),
        Compression::Snappy => (Codec::Snappy, None),
        Compression::Lz4 => (Codec::Lz4, None),
        Compression::Zstd(level) => (Codec::Zstd, Some(level)),
    }
}

fn key_missing(config: &TopicConfig, valid: &Valid<'_>) -> bool {
    config.compact && valid.facts.is_some_and(|facts| facts.key_missing)
}

/// Whether a record's timestamp may be out of range: what is known of all of them is the smallest and the largest, and a
/// record without one is always fine.
fn timestamps_suspect(config: &TopicConfig, valid: &Valid<'_>, now: Now) -> bool {
    let (min, max) = match valid.facts {
        Some(facts) => (facts.timestamp_min, facts.timestamp_max),
        None => (valid.batch.base_timestamp(), valid.batch.max_timestamp()),
    };
    config.timestamp_type == TimestampType::CreateTime
        && (config.timestamp_out_of_range(min, now) || config.timestamp_out_of_range(max, now))
}
