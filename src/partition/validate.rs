//! What a produced batch must be for a partition to take it, and in which codec it is stored: Kafka's LogValidator. Records are
//! decompressed only where the topic asks for it, and never beyond what a batch may hold; a batch that may stay as it came is
//! not touched.

use std::borrow::Cow;

use crate::config::{BatchValidation, Compression, TimestampType, TopicConfig};
use crate::ids::Now;
use crate::limits::DECOMPRESSED_SIZE_MAX;
use crate::wire::ErrorCode;
use crate::wire::batch::{self, Batch, Codec, HEADER_SIZE, Validation};
use crate::wire::compression::{CompressionError, decompress_bounded, with_records};
use crate::wire::record::RecordFacts;

/// Why a batch is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// What the producer is told.
    pub error: ErrorCode,
    /// And in words.
    pub message: Option<&'static str>,
}

impl From<ErrorCode> for Invalid {
    fn from(error: ErrorCode) -> Invalid {
        Invalid { error, message: None }
    }
}

fn because<T>(error: ErrorCode, message: &'static str) -> Result<T, Invalid> {
    Err(Invalid { error, message: Some(message) })
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

/// Checks the one batch that a produce request has for a partition.
pub fn validate<'a>(
    bytes: &'a [u8],
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
    check_size(config, batch.size())?;
    check_attributes(&batch)?;
    let valid = look_at_records(batch, config, depth == BatchValidation::Strict)?;
    check_timestamps(config, &valid, now)?;
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
    if target.is_some() || (facts.is_none() && compressed && (strict || config.compact)) {
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
    if config.compact && facts.is_some_and(|f| f.key_missing) {
        return because(
            ErrorCode::InvalidRecord,
            "Compacted topic cannot accept message without key in topic partition.",
        );
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

fn check_timestamps(config: &TopicConfig, valid: &Valid<'_>, now: Now) -> Result<(), Invalid> {
    if config.timestamp_type == TimestampType::LogAppendTime {
        return Ok(());
    }
    let (min, max) = match valid.facts {
        Some(facts) => (facts.timestamp_min, facts.timestamp_max),
        None => (valid.batch.base_timestamp(), valid.batch.max_timestamp()),
    };
    let too_old = min >= 0
        && config
            .timestamp_before_ms_max
            .is_some_and(|ms| now.wall_ms.saturating_sub(min) > ms.min(i64::MAX as u64) as i64);
    let too_new = config
        .timestamp_after_ms_max
        .is_some_and(|ms| max.saturating_sub(now.wall_ms) > ms.min(i64::MAX as u64) as i64);
    if too_old || too_new {
        return because(
            ErrorCode::InvalidTimestamp,
            "a timestamp is out of range of message.timestamp.before.max.ms or message.timestamp.after.max.ms",
        );
    }
    Ok(())
}
