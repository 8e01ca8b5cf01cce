//! Idempotent producers: for each producer id its epoch and its last five batches, so that a batch sent again is
//! answered and not stored again, and a gap is refused. Survives restarts by Kafka's `<offset>.snapshot` (version 1, docs/formats/checkpoints.md)
//! and replay of the batches after it. A snapshot keeps only the last batch of each producer; that those before it are stored is all that
//! is known of them then.

use std::collections::HashMap;

use crate::ids::Offset;
use crate::wire::batch::{crc32c, sequence_after};

/// Batches remembered per producer: what an idempotent client may have in flight.
const BATCHES_MAX: usize = 5;

/// What a batch's header says of its producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerStamp {
    /// -1: not idempotent.
    pub id: i64,
    /// Rises when the producer begins anew.
    pub epoch: i16,
    /// Number of the batch's first record in this producer's life.
    pub base_sequence: i32,
}

impl ProducerStamp {
    /// A batch without a producer id.
    pub const NONE: ProducerStamp = ProducerStamp { id: -1, epoch: -1, base_sequence: -1 };
}

/// How a batch's sequence fits what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceCheck {
    /// Next in line, or the producer is not known here.
    Accept,
    /// Already stored: answer with this and do not store it again.
    Duplicate { base_offset: Offset, last_offset: Offset, timestamp: i64 },
    /// DUPLICATE_SEQUENCE_NUMBER: already stored, but where is not remembered.
    Stored,
    /// OUT_OF_ORDER_SEQUENCE_NUMBER: this sequence was expected.
    OutOfOrder { expected: i32 },
    /// INVALID_PRODUCER_EPOCH: this epoch took over.
    StaleEpoch { current: i16 },
}

/// A batch as remembered (Kafka's BatchMetadata).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BatchTrace {
    pub last_sequence: i32,
    pub last_offset: i64,
    /// Last minus first, of sequence and of offset.
    pub delta: i32,
    pub timestamp: i64,
}

impl BatchTrace {
    fn base_sequence(&self) -> i32 {
        sequence_after(self.last_sequence, -self.delta)
    }
    fn base_offset(&self) -> Offset {
        Offset(self.last_offset - i64::from(self.delta))
    }
}

/// What is known of one producer id.
#[derive(Clone, Debug)]
pub struct Producer {
    /// Its current epoch.
    pub epoch: i16,
    /// Of the transaction coordinator that last ended a transaction; -1: none did.
    pub coordinator_epoch: i32,
    /// Of its last batch: it is forgotten when this is older than `producer.id.expiration.ms`.
    pub last_timestamp: i64,
    /// First offset of the open transaction; -1: none.
    pub transaction_first_offset: i64,
    batches: [BatchTrace; BATCHES_MAX],
    /// <= BATCHES_MAX
    count: u8,
    /// The batches before the first one remembered were stored, too, but a snapshot does not keep them.
    from_snapshot: bool,
}

impl Producer {
    fn new(epoch: i16) -> Producer {
        Producer {
            epoch,
            coordinator_epoch: -1,
            last_timestamp: -1,
            transaction_first_offset: -1,
            batches: [BatchTrace::default(); BATCHES_MAX],
            count: 0,
            from_snapshot: false,
        }
    }
    /// Is a batch that ends with this sequence one of those that a snapshot did not keep?
    fn forgot(&self, last_sequence: i32) -> bool {
        let first = self.batches().first().filter(|_| self.from_snapshot && usize::from(self.count) < BATCHES_MAX);
        first.is_some_and(|first| {
            let ahead = i64::from(first.base_sequence()) - i64::from(last_sequence);
            // Sequences begin again at 0 after the largest i32: the shorter way round counts.
            (1..1 << 30).contains(&ahead.rem_euclid(1 << 31))
        })
    }
    fn batches(&self) -> &[BatchTrace] {
        &self.batches[..usize::from(self.count)]
    }
    fn last(&self) -> Option<&BatchTrace> {
        self.batches().last()
    }
    /// Sequence of its last record; -1: none known.
    pub fn last_sequence(&self) -> i32 {
        self.last().map_or(-1, |b| b.last_sequence)
    }
    /// Offset of its last record; -1: none known.
    pub fn last_offset(&self) -> i64 {
        self.last().map_or(-1, |b| b.last_offset)
    }
    fn push(&mut self, batch: BatchTrace) {
        if usize::from(self.count) == BATCHES_MAX {
            self.batches.copy_within(1.., 0);
            self.count -= 1;
        }
        self.batches[usize::from(self.count)] = batch;
        self.count += 1;
        self.last_timestamp = batch.timestamp;
    }
}

/// A batch that was or will be appended, as far as its producer is concerned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Appended {
    pub producer: ProducerStamp,
    pub base_offset: Offset,
    pub last_offset: Offset,
    pub timestamp: i64,
    pub transactional: bool,
    pub control: bool,
}

impl Appended {
    fn trace(&self) -> BatchTrace {
        let delta = (self.last_offset - self.base_offset) as i32;
        BatchTrace {
            last_sequence: sequence_after(self.producer.base_sequence, delta),
            last_offset: self.last_offset.0,
            delta,
            timestamp: self.timestamp,
        }
    }
}

/// All producers of a partition.
#[derive(Debug, Default)]
pub struct ProducerState {
    producers: HashMap<i64, Producer>,
}

impl ProducerState {
    /// How a batch fits. `staged`: batches of this turn that are not in the state yet, youngest first.
    pub(super) fn check(
        &self,
        stamp: ProducerStamp,
        count: i32,
        staged: impl Iterator<Item = Appended>,
    ) -> SequenceCheck {
        if stamp.id < 0 {
            return SequenceCheck::Accept;
        }
        let last_sequence = sequence_after(stamp.base_sequence, count - 1);
        let same = |b: &BatchTrace| b.base_sequence() == stamp.base_sequence && b.last_sequence == last_sequence;
        let duplicate = |b: &BatchTrace| SequenceCheck::Duplicate {
            base_offset: b.base_offset(),
            last_offset: Offset(b.last_offset),
            timestamp: b.timestamp,
        };
        let mut youngest: Option<(i16, i32)> = None;
        for batch in staged.filter(|b| b.producer.id == stamp.id) {
            let trace = batch.trace();
            if batch.producer.epoch == stamp.epoch && same(&trace) {
                return duplicate(&trace);
            }
            youngest = youngest.or(Some((batch.producer.epoch, trace.last_sequence)));
        }
        if let Some(known) = self.producers.get(&stamp.id) {
            if known.epoch == stamp.epoch
                && let Some(batch) = known.batches().iter().find(|b| same(b))
            {
                return duplicate(batch);
            }
            // Kafka says OUT_OF_ORDER_SEQUENCE_NUMBER here. A producer with several batches on their way when the broker was
            // stopped then takes the first of them for lost, and sends again under a new epoch what is stored.
            if known.epoch == stamp.epoch && known.forgot(last_sequence) {
                return SequenceCheck::Stored;
            }
            youngest = youngest.or(Some((known.epoch, known.last_sequence())));
        }
        // Unknown, or forgotten with the segments that held its batches: any sequence is taken.
        let Some((epoch, last)) = youngest else { return SequenceCheck::Accept };
        if stamp.epoch < epoch {
            return SequenceCheck::StaleEpoch { current: epoch };
        }
        let expected = if stamp.epoch > epoch { 0 } else { sequence_after(last, 1) };
        if stamp.base_sequence == expected { SequenceCheck::Accept } else { SequenceCheck::OutOfOrder { expected } }
    }

    /// Takes note of a batch that is in the log.
    pub(super) fn note(&mut self, batch: &Appended) {
        let stamp = batch.producer;
        if stamp.id < 0 {
            return;
        }
        let known = self.producers.entry(stamp.id).or_insert_with(|| Producer::new(stamp.epoch));
        if known.epoch != stamp.epoch {
            known.epoch = stamp.epoch;
            known.count = 0;
            known.from_snapshot = false;
        }
        if batch.control {
            known.transaction_first_offset = -1;
            known.last_timestamp = batch.timestamp;
            return;
        }
        known.push(batch.trace());
        if batch.transactional && known.transaction_first_offset < 0 {
            known.transaction_first_offset = batch.base_offset.0;
        }
    }

    /// Producers by id, for DescribeProducers.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.producers.iter().map(|(id, producer)| (*id, producer))
    }
    /// Offset of a producer's last record.
    pub(super) fn last_offset_of(&self, id: i64) -> Option<Offset> {
        self.producers.get(&id).map(|p| Offset(p.last_offset()))
    }
    /// No producer known?
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }
    /// First offset of the oldest open transaction.
    pub fn first_unstable_offset(&self) -> Option<Offset> {
        self.producers.values().map(|p| p.transaction_first_offset).filter(|o| *o >= 0).min().map(Offset)
    }
    /// Forgets producers that have been silent for longer than `expiration_ms`.
    pub(super) fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.producers
            .retain(|_, p| p.transaction_first_offset >= 0 || now_ms.saturating_sub(p.last_timestamp) < expiration_ms);
    }

    /// The snapshot file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut ids: Vec<i64> = self.producers.keys().copied().collect();
        ids.sort_unstable();
        let mut body = Vec::with_capacity(4 + ids.len() * ENTRY_SIZE);
        body.extend_from_slice(&(ids.len() as u32).to_be_bytes());
        for id in ids {
            let p = &self.producers[&id];
            let last =
                p.last().copied().unwrap_or(BatchTrace { last_sequence: -1, last_offset: -1, delta: 0, timestamp: -1 });
            body.extend_from_slice(&id.to_be_bytes());
            body.extend_from_slice(&p.epoch.to_be_bytes());
            body.extend_from_slice(&last.last_sequence.to_be_bytes());
            body.extend_from_slice(&last.last_offset.to_be_bytes());
            body.extend_from_slice(&last.delta.to_be_bytes());
            body.extend_from_slice(&p.last_timestamp.to_be_bytes());
            body.extend_from_slice(&p.coordinator_epoch.to_be_bytes());
            body.extend_from_slice(&p.transaction_first_offset.to_be_bytes());
        }
        let mut bytes = Vec::with_capacity(6 + body.len());
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&crc32c(&body).to_be_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Reads a snapshot file. `None`: damaged, or of another version.
    pub fn decode(bytes: &[u8]) -> Option<ProducerState> {
        let (version, rest) = bytes.split_first_chunk::<2>()?;
        let (crc, body) = rest.split_first_chunk::<4>()?;
        if u16::from_be_bytes(*version) != VERSION || u32::from_be_bytes(*crc) != crc32c(body) {
            return None;
        }
        let (count, mut entries) = body.split_first_chunk::<4>()?;
        if entries.len() != u32::from_be_bytes(*count) as usize * ENTRY_SIZE {
            return None;
        }
        let mut state = ProducerState::default();
        while let Some((entry, rest)) = entries.split_first_chunk::<ENTRY_SIZE>() {
            entries = rest;
            let i64_at = |at: usize| entry[at..at + 8].try_into().map_or(-1, i64::from_be_bytes);
            let i32_at = |at: usize| entry[at..at + 4].try_into().map_or(-1, i32::from_be_bytes);
            let mut producer = Producer::new(i16::from_be_bytes([entry[8], entry[9]]));
            let last = BatchTrace {
                last_sequence: i32_at(10),
                last_offset: i64_at(14),
                delta: i32_at(22),
                timestamp: i64_at(26),
            };
            if last.last_offset >= 0 {
                producer.push(last);
            }
            producer.from_snapshot = true;
            producer.last_timestamp = last.timestamp;
            producer.coordinator_epoch = i32_at(34);
            producer.transaction_first_offset = i64_at(38);
            state.producers.insert(i64_at(0), producer);
        }
        Some(state)
    }
}

/// Version of the snapshot file.
const VERSION: u16 = 1;
/// Size of a producer in the snapshot file.
const ENTRY_SIZE: usize = 46;

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(id: i64, epoch: i16, base_sequence: i32, base_offset: i64, count: i64) -> Appended {
        Appended {
            producer: ProducerStamp { id, epoch, base_sequence },
            base_offset: Offset(base_offset),
            last_offset: Offset(base_offset + count - 1),
            timestamp: 1000,
            transactional: false,
            control: false,
        }
    }
    fn check(state: &ProducerState, epoch: i16, base_sequence: i32, count: i32) -> SequenceCheck {
        state.check(ProducerStamp { id: 7, epoch, base_sequence }, count, std::iter::empty())
    }

    #[test]
    fn five_batches_are_remembered_and_the_sixth_back_is_out_of_order() {
        let mut state = ProducerState::default();
        assert_eq!(check(&state, 0, 99, 1), SequenceCheck::Accept, "an unknown producer may begin anywhere");
        for i in 0..6 {
            assert_eq!(check(&state, 0, i * 10, 10), SequenceCheck::Accept);
            state.note(&batch(7, 0, i * 10, 100 + i64::from(i) * 10, 10));
        }
        let duplicate =
            |o| SequenceCheck::Duplicate { base_offset: Offset(o), last_offset: Offset(o + 9), timestamp: 1000 };
        assert_eq!(check(&state, 0, 50, 10), duplicate(150));
        assert_eq!(check(&state, 0, 10, 10), duplicate(110));
        assert_eq!(check(&state, 0, 0, 10), SequenceCheck::OutOfOrder { expected: 60 });
        assert_eq!(check(&state, 0, 50, 9), SequenceCheck::OutOfOrder { expected: 60 }, "same start, other length");
        assert_eq!(check(&state, 0, 61, 1), SequenceCheck::OutOfOrder { expected: 60 });
        assert_eq!(check(&state, 1, 60, 1), SequenceCheck::OutOfOrder { expected: 0 }, "a new epoch begins with 0");
        assert_eq!(check(&state, 1, 0, 1), SequenceCheck::Accept);
        state.note(&batch(7, 1, 0, 160, 1));
        assert_eq!(check(&state, 0, 60, 1), SequenceCheck::StaleEpoch { current: 1 });
    }

    #[test]
    fn staged_batches_count() {
        let mut state = ProducerState::default();
        state.note(&batch(7, 0, 0, 0, 5));
        let staged = [batch(9, 0, 0, 15, 5), batch(7, 0, 10, 10, 5), batch(7, 0, 5, 5, 5)];
        let check =
            |base| state.check(ProducerStamp { id: 7, epoch: 0, base_sequence: base }, 5, staged.iter().copied());
        assert_eq!(check(15), SequenceCheck::Accept);
        assert!(matches!(check(5), SequenceCheck::Duplicate { base_offset: Offset(5), .. }));
        assert_eq!(check(20), SequenceCheck::OutOfOrder { expected: 15 });
    }

    #[test]
    fn sequences_wrap() {
        let mut state = ProducerState::default();
        state.note(&batch(7, 0, i32::MAX - 1, 0, 4));
        assert_eq!(state.producers[&7].last_sequence(), 1);
        assert_eq!(check(&state, 0, 2, 1), SequenceCheck::Accept);
        assert!(matches!(check(&state, 0, i32::MAX - 1, 4), SequenceCheck::Duplicate { .. }));
    }

    #[test]
    fn snapshots_round_trip_and_damage_is_seen() {
        let mut state = ProducerState::default();
        state.note(&batch(7, 3, 0, 0, 5));
        state.note(&batch(7, 3, 5, 5, 5));
        state.note(&batch(8, 0, 0, 10, 1));
        let bytes = state.encode();
        assert_eq!(bytes.len(), 10 + 2 * ENTRY_SIZE);
        let loaded = ProducerState::decode(&bytes).unwrap();
        assert_eq!(check(&loaded, 3, 10, 1), SequenceCheck::Accept);
        assert!(matches!(check(&loaded, 3, 5, 5), SequenceCheck::Duplicate { base_offset: Offset(5), .. }));
        assert_eq!(check(&loaded, 3, 0, 5), SequenceCheck::Stored, "only the last is in a snapshot");
        assert_eq!(
            check(&loaded, 3, 0, 6),
            SequenceCheck::OutOfOrder { expected: 10 },
            "part of it is not before that"
        );
        assert_eq!(check(&loaded, 3, 11, 1), SequenceCheck::OutOfOrder { expected: 10 });
        assert_eq!(check(&loaded, 2, 0, 5), SequenceCheck::StaleEpoch { current: 3 });
        for i in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[i] ^= 1;
            assert!(ProducerState::decode(&damaged).is_none(), "bit flipped in byte {i}");
            assert!(ProducerState::decode(&bytes[..i]).is_none(), "cut at {i}");
        }
    }

    #[test]
    fn silent_producers_expire() {
        let mut state = ProducerState::default();
        state.note(&batch(7, 0, 0, 0, 5));
        state.expire(1999, 1000);
        assert!(!state.is_empty());
        state.expire(2000, 1000);
        assert!(state.is_empty());
    }
}
