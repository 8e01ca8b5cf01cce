//! What a produced batch must be for a partition to take it, as far as its header tells: Kafka's LogValidator. What its records tell,
//! and in which codec they are stored, is `records_work.rs`.

use std::borrow::Cow;

use crate::config::{BatchValidation, TopicConfig};
use crate::ids::Offset;
use crate::wire::ErrorCode;
use crate::wire::batch::{self, Batch, Validation};
use crate::wire::produce::RecordError;

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

/// Checks what is cheap to check of the one batch that a produce request has for a partition; `place` names it in messages. What is
/// to be done with its records, if anything, is `RecordsWork`.
pub fn check<'a>(
    bytes: &'a [u8],
    place: (&str, i32),
    config: &TopicConfig,
    depth: BatchValidation,
) -> Result<Batch<'a>, Invalid> {
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
    Ok(batch)
}

pub(super) fn check_size(config: &TopicConfig, size: usize) -> Result<(), Invalid> {
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
