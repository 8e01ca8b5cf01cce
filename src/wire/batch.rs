//! Record batch v2 (magic 2), the unit that is produced, stored and fetched. A batch is checked once when it arrives;
//! after that, accessors cannot fail. Base offset and leader epoch are outside the CRC, so that a broker can stamp them
//! into the bytes it received; everything else stays as the producer wrote it.
//!
//! ```text
//! 0        8       12      16 17   21  23        27       35       43       51     57 57      61
//! +--------+-------+-------+--+----+---+---------+--------+--------+--------+--+----+-----+---------+
//! | base   |batch  |leader |m |CRC |att|last     | base   | max    |producer|ep|base| rec | records |
//! | offset |length |epoch  |a |32C |rib|offset   | time-  | time-  |id      |oc|seq.|cou- | ...     |
//! |        |       |       |gc|    |ut.|delta    | stamp  | stamp  |        |h |    |nt   |         |
//! +--------+-------+-------+--+----+---+---------+--------+--------+--------+--+----+-----+---------+
//!          length counts from 12 ->    CRC covers from 21 ->
//! ```

use std::ops::{Deref, Range};

use super::ErrorCode;
use super::record::RecordFault;
use super::walk::{RecordFacts, walk};
use crate::ids::{LeaderEpoch, Offset};

/// Where each field is.
pub mod field {
    use std::ops::Range;
    pub const BASE_OFFSET: Range<usize> = 0..8;
    pub const BATCH_LENGTH: Range<usize> = 8..12;
    pub const LEADER_EPOCH: Range<usize> = 12..16;
    pub const MAGIC: usize = 16;
    pub const CRC: Range<usize> = 17..21;
    pub const ATTRIBUTES: Range<usize> = 21..23;
    pub const LAST_OFFSET_DELTA: Range<usize> = 23..27;
    pub const BASE_TIMESTAMP: Range<usize> = 27..35;
    pub const MAX_TIMESTAMP: Range<usize> = 35..43;
    pub const PRODUCER_ID: Range<usize> = 43..51;
    pub const PRODUCER_EPOCH: Range<usize> = 51..53;
    pub const BASE_SEQUENCE: Range<usize> = 53..57;
    pub const COUNT: Range<usize> = 57..61;
    /// What the batch length counts.
    pub const COUNTED: usize = BATCH_LENGTH.end;
    /// What the CRC covers.
    pub const COVERED: usize = ATTRIBUTES.start;
}

/// Bytes before the records.
pub const HEADER_SIZE: usize = field::COUNT.end;
/// The batch format we speak.
pub const MAGIC: i8 = 2;
/// Offset, length, and what every message format has up to its magic.
const SIZE_MIN_ANY_MAGIC: i32 = 14;

/// How a batch's records are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

/// Who sets the timestamp that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// The producer, per record.
    CreateTime,
    /// The broker, one for the batch: `max_timestamp`.
    LogAppendTime,
}

/// The attribute bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(pub i16);

impl Attributes {
    const CODEC: i16 = 0b111;
    const LOG_APPEND_TIME: i16 = 1 << 3;
    const TRANSACTIONAL: i16 = 1 << 4;
    const CONTROL: i16 = 1 << 5;
    const DELETE_HORIZON: i16 = 1 << 6;

    /// The codec; none if it is not one we know.
    pub fn codec(self) -> Option<Codec> {
        [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd]
            .into_iter()
            .find(|&codec| codec as i16 == self.0 & Attributes::CODEC)
    }
    pub fn timestamp_type(self) -> TimestampType {
        if self.0 & Attributes::LOG_APPEND_TIME != 0 { TimestampType::LogAppendTime } else { TimestampType::CreateTime }
    }
    pub fn is_transactional(self) -> bool {
        self.0 & Attributes::TRANSACTIONAL != 0
    }
    pub fn is_control(self) -> bool {
        self.0 & Attributes::CONTROL != 0
    }
    /// Whether `base_timestamp` is the time after which compaction may drop the batch's tombstones (KIP-534).
    pub fn has_delete_horizon(self) -> bool {
        self.0 & Attributes::DELETE_HORIZON != 0
    }
    pub fn with_codec(self, codec: Codec) -> Attributes {
        Attributes(self.0 & !Attributes::CODEC | codec as i16)
    }
    pub fn with_log_append_time(self) -> Attributes {
        Attributes(self.0 | Attributes::LOG_APPEND_TIME)
    }
    pub fn with_transactional(self) -> Attributes {
        Attributes(self.0 | Attributes::TRANSACTIONAL)
    }
    pub fn with_control(self) -> Attributes {
        Attributes(self.0 | Attributes::CONTROL)
    }
    pub fn with_delete_horizon(self) -> Attributes {
        Attributes(self.0 | Attributes::DELETE_HORIZON)
    }
    pub fn without_delete_horizon(self) -> Attributes {
        Attributes(self.0 & !Attributes::DELETE_HORIZON)
    }
}

/// How closely a produced batch is looked at (`produce.batch.validation`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Validation {
    /// Length, magic, CRC, counts, codec.
    Header,
    /// Also the framing of each record, where records are not compressed.
    #[default]
    Records,
}

/// Why a batch is refused. `code` is what the producer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("no record batch")]
    Empty,
    #[error("the batch length is {0}, less than any batch has")]
    Length(i32),
    #[error("the batch says {size} bytes, {present} are there")]
    Cut { size: usize, present: usize },
    #[error("message format {0}; producers must send record batches with magic 2")]
    OldMagic(i8),
    #[error("magic {0} is unknown")]
    Magic(i8),
    #[error("the CRC is {stored:#010x}, the bytes have {computed:#010x}")]
    Crc { stored: u32, computed: u32 },
    #[error("compression codec {0} is unknown")]
    Codec(i16),
    #[error("{count} records, but offsets 0 to {last_offset_delta}")]
    Count { count: i32, last_offset_delta: i32 },
    #[error("more than one record batch; producers must send exactly one for each partition")]
    MoreThanOne,
    #[error("record {index}: {fault}")]
    Record { index: i32, fault: RecordFault },
}

impl BatchError {
    /// What Kafka answers to such a batch.
    pub fn code(self) -> ErrorCode {
        match self {
            BatchError::Length(_) | BatchError::Magic(_) | BatchError::Crc { .. } => ErrorCode::CorruptMessage,
            BatchError::Codec(_) => ErrorCode::UnsupportedCompressionType,
            BatchError::Empty
            | BatchError::Cut { .. }
            | BatchError::OldMagic(_)
            | BatchError::Count { .. }
            | BatchError::MoreThanOne
            | BatchError::Record { .. } => ErrorCode::InvalidRecord,
        }
    }
}

/// The 61 bytes before the records. Says what is written there, checked or not: a recovery scan reads headers only.
#[derive(Clone, Copy, Debug)]
pub struct HeaderView<'a> {
    bytes: &'a [u8; HEADER_SIZE],
}

impl<'a> HeaderView<'a> {
    /// Views the start of `bytes`; none if a header does not fit.
    pub fn read(bytes: &'a [u8]) -> Option<HeaderView<'a>> {
        bytes.first_chunk().map(|bytes| HeaderView { bytes })
    }
    fn get<const N: usize>(&self, range: Range<usize>) -> [u8; N] {
        let mut field = [0; N];
        field.copy_from_slice(&self.bytes[range]);
        field
    }
    fn i32(&self, range: Range<usize>) -> i32 {
        i32::from_be_bytes(self.get(range))
    }
    fn i64(&self, range: Range<usize>) -> i64 {
        i64::from_be_bytes(self.get(range))
    }

    /// Bytes of the whole batch; none if the length field is less than a v2 header needs.
    pub fn batch_size(&self) -> Option<usize> {
        let size = usize::try_from(self.batch_length()).ok()? + field::COUNTED;
        (size >= HEADER_SIZE).then_some(size)
    }
    /// The length field: bytes after itself.
    pub fn batch_length(&self) -> i32 {
        self.i32(field::BATCH_LENGTH)
    }
    pub fn base_offset(&self) -> Offset {
        Offset(self.i64(field::BASE_OFFSET))
    }
    pub fn last_offset(&self) -> Offset {
        Offset(self.base_offset().0.wrapping_add(self.last_offset_delta().into()))
    }
    pub fn leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch(self.i32(field::LEADER_EPOCH))
    }
    pub fn magic(&self) -> i8 {
        self.bytes[field::MAGIC] as i8
    }
    pub fn crc(&self) -> u32 {
        u32::from_be_bytes(self.get(field::CRC))
    }
    pub fn attributes(&self) -> Attributes {
        Attributes(i16::from_be_bytes(self.get(field::ATTRIBUTES)))
    }
    pub fn last_offset_delta(&self) -> i32 {
        self.i32(field::LAST_OFFSET_DELTA)
    }
    pub fn base_timestamp(&self) -> i64 {
        self.i64(field::BASE_TIMESTAMP)
    }
    pub fn max_timestamp(&self) -> i64 {
        self.i64(field::MAX_TIMESTAMP)
    }
    /// -1: the producer is not idempotent.
    pub fn producer_id(&self) -> i64 {
        self.i64(field::PRODUCER_ID)
    }
    pub fn producer_epoch(&self) -> i16 {
        i16::from_be_bytes(self.get(field::PRODUCER_EPOCH))
    }
    pub fn base_sequence(&self) -> i32 {
        self.i32(field::BASE_SEQUENCE)
    }
    /// Sequence of the last record; after `i32::MAX` comes 0.
    pub fn last_sequence(&self) -> i32 {
        sequence_after(self.base_sequence(), self.last_offset_delta())
    }
    /// Number of records. Compaction makes it less than the offsets the batch spans.
    pub fn count(&self) -> i32 {
        self.i32(field::COUNT)
    }
}

/// The sequence number `count` records after `sequence`; they go round from `i32::MAX` to 0.
pub fn sequence_after(sequence: i32, count: i32) -> i32 {
    (i64::from(sequence) + i64::from(count)).rem_euclid(1 << 31) as i32
}

/// A checked batch. Its header's accessors are its own.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    bytes: &'a [u8],
    header: HeaderView<'a>,
    codec: Codec,
    facts: Option<RecordFacts>,
}

impl<'a> Deref for Batch<'a> {
    type Target = HeaderView<'a>;
    fn deref(&self) -> &HeaderView<'a> {
        &self.header
    }
}

impl<'a> Batch<'a> {
    /// Checks a batch that a producer sent: the first in `bytes`. Whether more follow is seen by `size`.
    pub fn check(bytes: &'a [u8], validation: Validation) -> Result<Batch<'a>, BatchError> {
        let mut batch = Batch::frame(bytes)?;
        // A producer's batch has every offset from 0 on.
        let (count, last_offset_delta) = (batch.count(), batch.last_offset_delta());
        if count <= 0 || count - 1 != last_offset_delta {
            return Err(BatchError::Count { count, last_offset_delta });
        }
        batch.check_crc()?;
        if validation == Validation::Records && batch.codec == Codec::None {
            batch.facts = Some(walk(batch.records(), batch.count(), batch.base_timestamp())?);
        }
        Ok(batch)
    }
    /// Checks a batch that is in a log: what compaction and transactions write is fine too.
    pub fn stored(bytes: &'a [u8]) -> Result<Batch<'a>, BatchError> {
        let batch = Batch::frame(bytes)?;
        let (count, last_offset_delta) = (batch.count(), batch.last_offset_delta());
        if count < 0 || i64::from(count) > i64::from(last_offset_delta) + 1 {
            return Err(BatchError::Count { count, last_offset_delta });
        }
        batch.check_crc()?;
        Ok(batch)
    }
    /// A batch that was checked before, and looked at again.
    pub fn frame(bytes: &'a [u8]) -> Result<Batch<'a>, BatchError> {
        if bytes.is_empty() {
            return Err(BatchError::Empty);
        }
        let cut = |size| BatchError::Cut { size, present: bytes.len() };
        let (Some(length), Some(&magic)) = (bytes.get(field::BATCH_LENGTH), bytes.get(field::MAGIC)) else {
            return Err(cut(HEADER_SIZE));
        };
        let length = length.iter().fold(0u32, |n, &byte| n << 8 | u32::from(byte)) as i32;
        match magic as i8 {
            _ if length < SIZE_MIN_ANY_MAGIC => return Err(BatchError::Length(length)),
            MAGIC => {}
            old @ 0..MAGIC => return Err(BatchError::OldMagic(old)),
            unknown => return Err(BatchError::Magic(unknown)),
        }
        let header = HeaderView::read(bytes).ok_or(cut(HEADER_SIZE))?;
        let size = header.batch_size().ok_or(BatchError::Length(length))?;
        let bytes = bytes.get(..size).ok_or(cut(size))?;
        let attributes = header.attributes();
        let codec = attributes.codec().ok_or(BatchError::Codec(attributes.0 & Attributes::CODEC))?;
        Ok(Batch { bytes, header, codec, facts: None })
    }
    fn check_crc(&self) -> Result<(), BatchError> {
        let (stored, computed) = (self.crc(), crc32c(&self.bytes[field::COVERED..]));
        if stored == computed { Ok(()) } else { Err(BatchError::Crc { stored, computed }) }
    }

    /// The whole batch.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
    /// Bytes of the whole batch.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
    /// The records, compressed as `codec` says.
    pub fn records(&self) -> &'a [u8] {
        &self.bytes[HEADER_SIZE..]
    }
    pub fn codec(&self) -> Codec {
        self.codec
    }
    /// What walking the records found; none where they were not walked.
    pub fn facts(&self) -> Option<RecordFacts> {
        self.facts
    }
}

/// CRC32C, as record batches have it.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// Writes offset and epoch into a checked batch; the CRC does not cover them.
pub fn stamp(batch: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) {
    batch[field::BASE_OFFSET].copy_from_slice(&base_offset.0.to_be_bytes());
    batch[field::LEADER_EPOCH].copy_from_slice(&leader_epoch.0.to_be_bytes());
}
/// Makes the broker's clock the time of all records of a checked batch (`message.timestamp.type=LogAppendTime`).
pub fn set_log_append_time(batch: &mut [u8], ms: i64) {
    let attributes = attributes(batch).with_log_append_time();
    batch[field::ATTRIBUTES].copy_from_slice(&attributes.0.to_be_bytes());
    set_max_timestamp(batch, ms);
}
/// The attributes of a checked batch.
pub fn attributes(batch: &[u8]) -> Attributes {
    Attributes(i16::from_be_bytes([batch[field::ATTRIBUTES.start], batch[field::ATTRIBUTES.start + 1]]))
}
/// Corrects the largest timestamp of a checked batch. Kafka does so when a producer's header disagrees with its records.
pub fn set_max_timestamp(batch: &mut [u8], ms: i64) {
    batch[field::MAX_TIMESTAMP].copy_from_slice(&ms.to_be_bytes());
    seal(batch);
}
/// Computes the CRC of a whole batch and writes it.
pub fn seal(batch: &mut [u8]) {
    let crc = crc32c(&batch[field::COVERED..]);
    batch[field::CRC].copy_from_slice(&crc.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::record::{BatchBuilder, BatchFields, Records};
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::indexmap::IndexMap;
    use kafka_protocol::records::{
        Compression, Record as PeerRecord, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions,
        TimestampType as PeerTimestampType,
    };

    fn peer_records(count: i64) -> Vec<PeerRecord> {
        (0..count)
            .map(|i| PeerRecord {
                transactional: false,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: 3,
                producer_id: 9,
                producer_epoch: 1,
                timestamp_type: PeerTimestampType::Creation,
                offset: i,
                sequence: 5 + i as i32,
                timestamp: 1_700_000_000_000 + i * 70,
                key: (i % 2 == 0).then(|| Bytes::from(vec![b'k'; i as usize])),
                value: (i % 3 != 0).then(|| Bytes::from(vec![b'v'; 70 * i as usize])),
                headers: (0..i % 4)
                    .map(|h| {
                        let name = kafka_protocol::protocol::StrBytes::from_string(format!("header-{h}"));
                        (name, (h != 1).then(|| Bytes::from_static(b"value")))
                    })
                    .collect::<IndexMap<_, _>>(),
            })
            .collect()
    }
    fn peer_batch(records: &[PeerRecord]) -> Vec<u8> {
        let mut out = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        RecordBatchEncoder::encode(&mut out, records, &options).unwrap();
        out.to_vec()
    }
    /// Applies a change to a good batch and mends its CRC, so that only the change can be at fault.
    fn refused(change: impl FnOnce(&mut Vec<u8>)) -> BatchError {
        let mut bytes = peer_batch(&peer_records(5));
        change(&mut bytes);
        if bytes.len() > HEADER_SIZE {
            seal(&mut bytes);
        }
        Batch::check(&bytes, Validation::Records).unwrap_err()
    }

    #[test]
    fn a_batch_of_another_encoder_is_read_field_by_field() {
        let peers = peer_records(40);
        let mut bytes = peer_batch(&peers);
        bytes.extend_from_slice(b"next");
        let batch = Batch::check(&bytes, Validation::Records).unwrap();
        assert_eq!(batch.size(), bytes.len() - 4);
        assert_eq!((batch.base_offset(), batch.last_offset(), batch.count()), (Offset(0), Offset(39), 40));
        assert_eq!((batch.leader_epoch(), batch.magic(), batch.codec()), (LeaderEpoch(3), 2, Codec::None));
        assert_eq!((batch.producer_id(), batch.producer_epoch(), batch.base_sequence()), (9, 1, 5));
        assert_eq!((batch.base_timestamp(), batch.max_timestamp()), (1_700_000_000_000, 1_700_000_000_000 + 39 * 70));
        assert_eq!(batch.last_sequence(), 44);
        let facts = batch.facts().unwrap();
        assert_eq!((facts.timestamp_min, facts.timestamp_max), (batch.base_timestamp(), batch.max_timestamp()));
        assert!(facts.key_missing);
        for (record, peer) in Records::new(batch.records(), batch.count()).zip(&peers) {
            let record = record.unwrap();
            assert_eq!(i64::from(record.offset_delta), peer.offset);
            assert_eq!(batch.base_timestamp() + record.timestamp_delta, peer.timestamp);
            assert_eq!((record.key, record.value), (peer.key.as_deref(), peer.value.as_deref()));
            let headers: Vec<_> = record.headers().map(|(k, v)| (k.to_vec(), v.map(<[u8]>::to_vec))).collect();
            let theirs: Vec<_> =
                peer.headers.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.as_ref().map(|v| v.to_vec()))).collect();
            assert_eq!(headers, theirs);
        }
    }

    #[test]
    fn our_builder_writes_the_same_bytes_as_another_encoder() {
        let peers = peer_records(40);
        let mut ours = b"before".to_vec();
        let fields = BatchFields {
            leader_epoch: LeaderEpoch(3),
            producer_id: 9,
            producer_epoch: 1,
            base_sequence: 5,
            ..BatchFields::default()
        };
        let mut builder = BatchBuilder::new(&mut ours, fields);
        for peer in &peers {
            let headers: Vec<_> = peer.headers.iter().map(|(k, v)| (k.as_bytes(), v.as_deref())).collect();
            builder.push(peer.timestamp, peer.key.as_deref(), peer.value.as_deref(), &headers);
        }
        builder.finish();
        assert_eq!(ours[6..], peer_batch(&peers));
    }

    #[test]
    fn stamps_leave_the_batch_valid() {
        let mut bytes = peer_batch(&peer_records(3));
        stamp(&mut bytes, Offset(1 << 40), LeaderEpoch(77));
        set_log_append_time(&mut bytes, 1_800_000_000_000);
        let batch = Batch::check(&bytes, Validation::Records).unwrap();
        assert_eq!((batch.base_offset(), batch.leader_epoch()), (Offset(1 << 40), LeaderEpoch(77)));
        assert_eq!(batch.attributes().timestamp_type(), TimestampType::LogAppendTime);
        assert_eq!(batch.max_timestamp(), 1_800_000_000_000);
        let peers = RecordBatchDecoder::decode(&mut Bytes::from(bytes)).unwrap().records;
        assert_eq!(peers[2].offset, (1 << 40) + 2);
        assert_eq!(peers[2].timestamp_type, PeerTimestampType::LogAppend);
    }

    #[test]
    fn each_fault_is_named_and_has_kafkas_code() {
        use ErrorCode::{CorruptMessage, InvalidRecord, UnsupportedCompressionType};
        let size = peer_batch(&peer_records(5)).len();
        let cases: Vec<(BatchError, BatchError, ErrorCode)> = vec![
            (refused(|b| b.clear()), BatchError::Empty, InvalidRecord),
            (refused(|b| b.truncate(16)), BatchError::Cut { size: 61, present: 16 }, InvalidRecord),
            (refused(|b| b.truncate(60)), BatchError::Cut { size: 61, present: 60 }, InvalidRecord),
            (refused(|b| b.truncate(100)), BatchError::Cut { size, present: 100 }, InvalidRecord),
            (refused(|b| b[8..12].fill(0xff)), BatchError::Length(-1), CorruptMessage),
            (refused(|b| b[8..12].copy_from_slice(&48i32.to_be_bytes())), BatchError::Length(48), CorruptMessage),
            (refused(|b| b[16] = 1), BatchError::OldMagic(1), InvalidRecord),
            (refused(|b| b[16] = 3), BatchError::Magic(3), CorruptMessage),
            (refused(|b| b[22] = 5), BatchError::Codec(5), UnsupportedCompressionType),
            (refused(|b| b[60] = 4), BatchError::Count { count: 4, last_offset_delta: 4 }, InvalidRecord),
            (refused(|b| b[57..61].fill(0xff)), BatchError::Count { count: -1, last_offset_delta: 4 }, InvalidRecord),
        ];
        for (found, expected, code) in cases {
            assert_eq!(found, expected);
            assert_eq!(found.code(), code, "{found}");
        }
        let mut bytes = peer_batch(&peer_records(5));
        bytes[80] ^= 1;
        let found = Batch::check(&bytes, Validation::Header).unwrap_err();
        assert!(matches!(found, BatchError::Crc { .. }) && found.code() == CorruptMessage, "{found}");
    }

    #[test]
    fn each_fault_of_a_record_is_found_by_the_walk_only() {
        use RecordFault::{BytesLeft, Cut, Longer, Number, OffsetDelta};
        // size 11, attributes, timestamp delta 0, offset delta 0, key "k", value "v", one header "h" null.
        let good = vec![22, 0, 0, 0, 2, b'k', 2, b'v', 2, 2, b'h', 1];
        let with = |at: usize, byte: u8| {
            let mut record = good.clone();
            record[at] = byte;
            record
        };
        let cases = [
            (with(0, 24), Cut),
            (with(0, 20), Cut),
            (with(0, 1), Number),
            (with(0, 0), Cut),
            (with(3, 2), OffsetDelta(1)),
            (with(4, 3), Number),
            (with(4, 30), Cut),
            (with(8, 0), Longer),
            (with(8, 1), Number),
            (with(9, 1), Number),
            ([&good[..], &[0]].concat(), BytesLeft(1)),
            (vec![0xff; 12], Number),
        ];
        for (records, fault) in cases {
            let found = walk(&records, 1, 0).unwrap_err();
            let expected = BatchError::Record { index: 0, fault };
            assert_eq!(found, expected, "{records:?}");
            if !matches!(fault, BytesLeft(_) | OffsetDelta(_)) {
                assert_eq!(Records::new(&records, 1).next(), Some(Err(fault)), "{records:?}");
            }
        }
        assert!(walk(&good, 1, 0).is_ok());
        let mut two = [&good[..], &good[..]].concat();
        two[12 + 3] = 2;
        assert_eq!(walk(&two, 2, 5), Ok(RecordFacts { timestamp_max: 5, timestamp_min: 5, key_missing: false }));
        assert!(walk(&two, 3, 5).is_err());
    }

    #[test]
    fn compacted_batches_are_stored_but_not_produced() {
        let mut bytes = Vec::new();
        let mut builder = BatchBuilder::new(&mut bytes, BatchFields::default()).with_base_timestamp(100);
        builder.push_at(2, 150, Some(b"a"), Some(b"b"), &[]);
        builder.push_at(7, 140, Some(b"c"), None, &[]);
        builder.finish_at(9);
        let batch = Batch::stored(&bytes).unwrap();
        assert_eq!((batch.count(), batch.last_offset_delta(), batch.max_timestamp()), (2, 9, 150));
        let deltas: Vec<_> = Records::new(batch.records(), 2).map(|r| r.unwrap().offset_delta).collect();
        assert_eq!(deltas, [2, 7]);
        assert!(matches!(Batch::check(&bytes, Validation::Header), Err(BatchError::Count { .. })));
    }

    #[test]
    fn sequences_go_round() {
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        assert_eq!(sequence_after(i32::MAX - 2, 5), 2);
        assert_eq!(sequence_after(7, 0), 7);
    }
}
