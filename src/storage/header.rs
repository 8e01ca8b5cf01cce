//! The few fields of a record batch's header that storage needs to walk a log.

use super::producer_state::{Appended, ProducerStamp};
use super::segment::BatchSpan;
use crate::ids::{LeaderEpoch, Offset};
use crate::wire::batch::{HeaderView, MAGIC, crc32c, field};

/// A batch's header, decoded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub base_offset: Offset,
    pub last_offset: Offset,
    /// Whole batch, header included.
    pub size: u32,
    pub leader_epoch: LeaderEpoch,
    pub crc: u32,
    pub max_timestamp: i64,
    pub producer: ProducerStamp,
    pub transactional: bool,
    pub control: bool,
}

impl Header {
    /// Decodes a header. `None`: these bytes are not the header of a record batch of version 2.
    pub fn decode(bytes: &[u8]) -> Option<Header> {
        let view = HeaderView::read(bytes)?;
        let size = u32::try_from(view.batch_size()?).ok()?;
        let (base_offset, delta) = (view.base_offset(), view.last_offset_delta());
        if view.magic() != MAGIC || base_offset.0 < 0 || delta < 0 {
            return None;
        }
        let last_offset = Offset(base_offset.0.checked_add(i64::from(delta))?);
        let attributes = view.attributes();
        let producer =
            ProducerStamp { id: view.producer_id(), epoch: view.producer_epoch(), base_sequence: view.base_sequence() };
        Some(Header {
            base_offset,
            last_offset,
            size,
            leader_epoch: view.leader_epoch(),
            crc: view.crc(),
            max_timestamp: view.max_timestamp(),
            producer,
            transactional: attributes.is_transactional(),
            control: attributes.is_control(),
        })
    }
    /// Does the checksum fit? `batch`: the whole batch.
    pub fn crc_fits(&self, batch: &[u8]) -> bool {
        crc32c(&batch[field::COVERED..]) == self.crc
    }
    pub fn span(&self) -> BatchSpan {
        BatchSpan {
            base_offset: self.base_offset,
            last_offset: self.last_offset,
            max_timestamp: self.max_timestamp,
            size: self.size,
        }
    }
    pub fn appended(&self) -> Appended {
        Appended {
            producer: self.producer,
            base_offset: self.base_offset,
            last_offset: self.last_offset,
            timestamp: self.max_timestamp,
            transactional: self.transactional,
            control: self.control,
        }
    }
}
