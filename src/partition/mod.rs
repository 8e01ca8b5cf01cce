//! One partition on the core that leads it: a log, and what clients may see of it.
//!
//! `log_start_offset <= last_stable_offset <= high_watermark <= log_end_offset`. With one replica the high watermark is
//! the log's end as written; it never covers what is only staged.

use std::sync::Arc;

use crate::config::TopicConfig;
use crate::ids::{LeaderEpoch, Offset, TopicId, TopicName};
use crate::storage::Log;
use crate::wire::ErrorCode;

pub mod records_work;
mod rejected;
pub mod validate;

/// A partition led by this core.
pub struct Partition {
    /// Its topic's name.
    pub topic: TopicName,
    /// Its topic's id.
    pub topic_id: TopicId,
    /// Its number in the topic, from 0.
    pub index: i32,
    /// Stamped into every batch.
    pub leader_epoch: LeaderEpoch,
    /// The topic's settings.
    pub config: Arc<TopicConfig>,
    /// The records.
    pub log: Log,
    /// The disk failed under it: every request gets KAFKA_STORAGE_ERROR until the broker is started again.
    pub offline: bool,
    /// Fetches that are parked here. May name fetches that are over.
    pub waiting: Vec<crate::ids::FetchWaitId>,
    /// Last offset whose acknowledgement waits for a sync (`flush.messages`); -1: none.
    pub sync_to: Offset,
    /// On the broker's list of partitions with something staged.
    pub(crate) touched: bool,
}

impl Partition {
    /// May a record be acknowledged? It is written, and durable where `flush.messages` asks for that.
    pub fn may_acknowledge(&self, last: Offset) -> bool {
        last < self.log.log_end_offset() && (last > self.sync_to || last < self.log.synced_offset())
    }
    /// What a client is told that believes in `epoch`; -1: it does not say.
    pub fn check_leader_epoch(&self, epoch: LeaderEpoch) -> Result<(), ErrorCode> {
        match epoch {
            epoch if epoch == LeaderEpoch(-1) || epoch == self.leader_epoch => Ok(()),
            epoch if epoch < self.leader_epoch => Err(ErrorCode::FencedLeaderEpoch),
            _ => Err(ErrorCode::UnknownLeaderEpoch),
        }
    }
    /// First offset that can be read.
    pub fn log_start_offset(&self) -> Offset {
        self.log.log_start_offset()
    }
    /// Offset after the last record that every in-sync replica has: with one replica, all that is written.
    pub fn high_watermark(&self) -> Offset {
        self.log.log_end_offset()
    }
    /// Offset after the last record no open transaction stands before. There are no transactions yet.
    pub fn last_stable_offset(&self) -> Offset {
        self.high_watermark()
    }
}
