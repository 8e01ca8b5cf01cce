//! Which records of a batch a partition refuses, and why (KIP-467): a producer then knows which of its records to blame. The whole
//! batch is refused all the same. Nothing of this runs for a batch that is taken.

use super::validate::Invalid;
use crate::config::{TimestampType, TopicConfig};
use crate::ids::Now;
use crate::limits::RECORD_ERROR_MESSAGES_MAX;
use crate::storage::Budget;
use crate::wire::ErrorCode;
use crate::wire::batch::Batch;
use crate::wire::produce::RecordError;
use crate::wire::record::Records;

/// A record whose producer said no time.
const NO_TIMESTAMP: i64 = -1;
/// So many are described in the message about the whole batch.
const SHOWN: usize = 3;

/// The records of a batch, judged one after the other in Kafka's words.
#[derive(Default)]
pub struct Judgement {
    /// The next record: its position and index.
    at: usize,
    index: i32,
    errors: Vec<RecordError>,
    untimely: bool,
}

impl Judgement {
    /// Judges some records, as far as the budget allows; `records` are all, decompressed and well framed. False: those were
    /// the last.
    #[cold]
    pub fn go_on(
        &mut self,
        batch: &Batch<'_>,
        records: &[u8],
        (topic, partition): (&str, i32),
        config: &TopicConfig,
        now: Now,
        budget: &mut Budget,
    ) -> Result<bool, Invalid> {
        let mut left = Records::new(&records[self.at..], batch.count() - self.index);
        while !budget.is_spent() {
            let Some(record) = left.next() else { return Ok(false) };
            budget.spend_record();
            let record = record.map_err(|_| ErrorCode::InvalidRecord)?;
            let timestamp = batch.base_timestamp().wrapping_add(record.timestamp_delta);
            let (index, errors) = (self.index, &mut self.errors);
            let mut blame = |why: &dyn Fn() -> String| {
                // A request of many tiny records must not make a reply many times its size.
                errors.push(RecordError { index, message: (errors.len() < RECORD_ERROR_MESSAGES_MAX).then(why) });
            };
            if config.compact && record.key.is_none() {
                blame(&|| {
                    format!("Compacted topic cannot accept message without key in topic partition {topic}-{partition}")
                });
            } else if config.timestamp_type == TimestampType::CreateTime
                && timestamp != NO_TIMESTAMP
                && config.timestamp_out_of_range(timestamp, now)
            {
                self.untimely = true;
                let offset = batch.base_offset().0.wrapping_add(record.offset_delta.into());
                let (earliest, latest) = config.timestamp_range(now);
                blame(&|| {
                    format!(
                        "Timestamp {timestamp} of message with offset {offset} is out of range. \
                         The timestamp should be within [{earliest}, {latest}]"
                    )
                });
            }
            (self.at, self.index) = (records.len() - left.rest().len(), index + 1);
        }
        Ok(true)
    }

    /// All were judged: may the batch be taken?
    pub fn end(self) -> Result<(), Invalid> {
        let errors = self.errors;
        if errors.is_empty() {
            return Ok(());
        }
        let (error, message) = if self.untimely {
            let message = "One or more records have been rejected due to invalid timestamp".into();
            (ErrorCode::InvalidTimestamp, message)
        } else {
            let shown: Vec<String> = errors.iter().take(SHOWN).map(RecordError::to_string).collect();
            let message = format!(
                "One or more records have been rejected due to {} record errors in total, \
                 and only showing the first three errors at most: [{}]",
                errors.len(),
                shown.join(", ")
            );
            (ErrorCode::InvalidRecord, message.into())
        };
        Err(Invalid { error, message: Some(message), records: errors })
    }
}
