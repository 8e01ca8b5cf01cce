//! The few fields of a record batch's header that storage needs to walk a log.

use super::producer_state::{Appended, ProducerStamp};
use super::segment::BatchSpan;
use crate::ids::{LeaderEpoch, Offset};
use crate::limits::BATCH_HEADER_SIZE;

mod field {
    use std::ops::Range;
    pub const BASE_OFFSET: Range<usize> = 0..8;
    pub const LENGTH: Range<usize> = 8..12; // of everything after it
    pub const LEADER_EPOCH: Range<usize> = 12..16;
    pub const MAGIC: usize = 16;
    pub const CRC: Range<usize> = 17..21; // CRC32C of everything after it
    pub const ATTRIBUTES: Range<usize> = 21..23;
    pub const LAST_OFFSET_DELTA: Range<usize> = 23..27;
    pub const MAX_TIMESTAMP: Range<usize> = 35..43;
    pub const PRODUCER_ID: Range<usize> = 43..51;
    pub const PRODUCER_EPOCH: Range<usize> = 51..53;
    pub const BASE_SEQUENCE: Range<usize> = 53..57;
}

/// Bytes in front of what the length field counts.
const LENGTH_PREFIX: u32 = 12;

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
        let bytes: &[u8; BATCH_HEADER_SIZE] = bytes.first_chunk()?;
        let i64_at = |range: std::ops::Range<usize>| i64::from_be_bytes(bytes[range].try_into().unwrap_or_default());
        let i32_at = |range: std::ops::Range<usize>| i32::from_be_bytes(bytes[range].try_into().unwrap_or_default());
        let i16_at = |range: std::ops::Range<usize>| i16::from_be_bytes(bytes[range].try_into().unwrap_or_default());
        let base_offset = i64_at(field::BASE_OFFSET);
        let length = u32::try_from(i32_at(field::LENGTH)).ok()?;
        let delta = i32_at(field::LAST_OFFSET_DELTA);
        let size = length + LENGTH_PREFIX;
        if bytes[field::MAGIC] != 2 || base_offset < 0 || delta < 0 || size < BATCH_HEADER_SIZE as u32 {
            return None;
        }
        let attributes = i16_at(field::ATTRIBUTES);
        Some(Header {
            base_offset: Offset(base_offset),
            last_offset: Offset(base_offset.checked_add(i64::from(delta))?),
            size,
            leader_epoch: LeaderEpoch(i32_at(field::LEADER_EPOCH)),
            crc: i32_at(field::CRC) as u32,
            max_timestamp: i64_at(field::MAX_TIMESTAMP),
            producer: ProducerStamp {
                id: i64_at(field::PRODUCER_ID),
                epoch: i16_at(field::PRODUCER_EPOCH),
                base_sequence: i32_at(field::BASE_SEQUENCE),
            },
            transactional: attributes & 0x10 != 0,
            control: attributes & 0x20 != 0,
        })
    }
    /// Does the checksum fit? `batch`: the whole batch.
    pub fn crc_fits(&self, batch: &[u8]) -> bool {
        crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &batch[field::ATTRIBUTES.start..]) as u32 == self.crc
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
