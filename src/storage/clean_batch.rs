//! One batch on its way through compaction, in steps that a budget bounds: decompressed, looked at record by record, made anew
//! of what is kept, compressed, given out. Buffers are kept from batch to batch; none holds more than a batch may.

use std::ops::Range;
use std::rc::Rc;

use super::budget::{Budget, READ_NS, compress_cost, decompress_cost};
use super::compact::{Rules, Uncleanable, Verdict};
use super::key_map::{KeyHash, KeyHasher, KeyMap};
use crate::ids::Offset;
use crate::wire::batch::{self, Attributes, Batch, Codec, HEADER_SIZE, HeaderView, TimestampType, field};
use crate::wire::compression::{Compressor, Decompressor};
use crate::wire::record::{Record, Records, write_record};

/// Decompressed records of one batch: more is refused, and the log is left as it is.
const RECORDS_SIZE_MAX: usize = 256 << 20;
/// Given out at once.
const EMIT_SIZE: usize = 64 << 10;
/// Given back to the kernel at once.
const SHRINK_SIZE: usize = 256 << 10;

/// Records that are looked at together.
const GROUP_SIZE: usize = 8;

/// A record, where its bytes are, and what stands for its key.
struct Looked<'a> {
    record: Record<'a>,
    range: Range<usize>,
    key: Option<KeyHash>,
}

/// Nanoseconds per KiB: to copy and write, to hash a key.
const EMIT_NS: i64 = 500;
const HASH_NS: i64 = 200;
const BUILD_NS: i64 = 150;

/// Bytes of the input buffer.
#[derive(Clone)]
pub(super) struct Piece {
    pub bytes: Rc<Vec<u8>>,
    pub range: Range<usize>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }
}

/// What has been done of a batch.
enum Step {
    Decompress(Box<Decompressor<Piece>>),
    Look,
    /// From which kept range on.
    Build(usize),
    /// From which byte of what was built on.
    Compress(Box<Compressor>, usize),
    Seal,
    /// From which byte on; of the batch as it was, or as it is now.
    Emit {
        whole: bool,
        at: usize,
    },
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was given out as it is, or as what is left of it.
    Kept { max_timestamp: i64, size: u32 },
    /// Nothing of it is left.
    Gone,
}

/// A batch under way, and buffers.
#[derive(Default)]
pub(super) struct BatchWork {
    batch: Option<(Piece, Step)>,
    /// The records, if the batch has them compressed.
    records: Vec<u8>,
    /// Which record comes next: position, and how many are left.
    at: usize,
    left: i32,
    /// Where the records are that stay; neighbours together.
    kept: Vec<Range<u32>>,
    kept_count: i32,
    tombstones: i32,
    newest_ms: i64,
    sets_horizon: bool,
    /// The batch made anew, before and after compression; the other buffer is what compression writes to.
    built: Vec<u8>,
    other: Vec<u8>,
}

impl std::fmt::Debug for BatchWork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchWork").field("left", &self.left).finish_non_exhaustive()
    }
}

impl BatchWork {
    /// Is no batch under way?
    pub fn is_idle(&self) -> bool {
        self.batch.is_none()
    }

    /// Gives back some of the buffers' memory; they are of no use any more. True: that was all.
    pub fn shrink(&mut self) -> bool {
        for buffer in [&mut self.records, &mut self.built, &mut self.other] {
            if buffer.capacity() > 0 {
                buffer.clear();
                buffer.shrink_to(buffer.capacity().saturating_sub(SHRINK_SIZE));
                return false;
            }
        }
        true
    }

    /// Begins with a batch as the log has it.
    pub fn start(&mut self, piece: Piece) -> Result<(), Uncleanable> {
        let bytes = piece.as_ref();
        let batch = Batch::stored(bytes).map_err(|e| fault(bytes, e))?;
        self.records.clear();
        self.kept.clear();
        (self.at, self.left) = (0, batch.count());
        (self.kept_count, self.tombstones, self.newest_ms, self.sets_horizon) = (0, 0, -1, false);
        let step = match batch.codec() {
            Codec::None => Step::Look,
            codec if batch.count() > 0 => {
                let records =
                    Piece { range: piece.range.start + HEADER_SIZE..piece.range.end, bytes: piece.bytes.clone() };
                Step::Decompress(Box::new(Decompressor::new(codec, records, RECORDS_SIZE_MAX)))
            }
            _ => Step::Look,
        };
        self.batch = Some((piece, step));
        Ok(())
    }

    /// Notes the keys. `None`: there is more to do. False: the map is full; nothing of this batch may count as cleaned.
    pub fn map(&mut self, map: &mut KeyMap, budget: &mut Budget) -> Result<Option<bool>, Uncleanable> {
        let (header, base) = self.header();
        let mut fits = true;
        let mut done = header.attributes().is_control();
        if !done && self.decompress(budget)? {
            done = self.look(budget, map.hasher(), |group| {
                map.touch(group.iter().filter_map(|looked| looked.key));
                fits = group.iter().all(|looked| {
                    looked.key.is_none_or(|key| map.put(key, base.0 + i64::from(looked.record.offset_delta)))
                });
                fits
            })?;
        }
        if done || !fits {
            self.batch = None;
            return Ok(Some(fits));
        }
        Ok(None)
    }

    /// Appends to `out` what is to be kept. `None`: there is more to do; `out` may have got a part.
    pub fn filter(
        &mut self,
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
        budget: &mut Budget,
    ) -> Result<Option<Fate>, Uncleanable> {
        while !budget.is_spent() {
            let Some((_, step)) = &self.batch else { return Ok(Some(Fate::Gone)) };
            match step {
                Step::Decompress(_) => {
                    self.decompress(budget)?;
                }
                Step::Look => {
                    if self.judge(rules, budget)? && !self.decide(rules)? {
                        self.batch = None;
                        return Ok(Some(Fate::Gone));
                    }
                }
                Step::Build(_) => self.build(rules, budget)?,
                Step::Compress(..) => self.compress(budget)?,
                Step::Seal => self.seal(rules, budget),
                Step::Emit { .. } => {
                    if let Some(fate) = self.emit(out, budget) {
                        self.batch = None;
                        return Ok(Some(fate));
                    }
                }
            }
        }
        Ok(None)
    }

    fn batch_bytes(&self) -> &[u8] {
        self.batch.as_ref().map_or(&[], |(piece, _)| piece.as_ref())
    }
    fn header(&self) -> (HeaderView<'_>, Offset) {
        let header = HeaderView::read(self.batch_bytes()).expect("a batch is under way");
        (header, header.base_offset())
    }
    fn set_step(&mut self, to: Step) {
        if let Some((_, step)) = &mut self.batch {
            *step = to;
        }
    }

    /// True: the records are there.
    fn decompress(&mut self, budget: &mut Budget) -> Result<bool, Uncleanable> {
        let Some((piece, step)) = &mut self.batch else { return Ok(true) };
        let Step::Decompress(stream) = step else { return Ok(true) };
        let bytes = piece.as_ref();
        let (size, ns) = decompress_cost(stream.codec());
        while !budget.is_spent() {
            let before = self.records.len();
            let more = stream.read(&mut self.records, size).map_err(|e| fault(bytes, e))?;
            budget.spend(self.records.len() - before, ns);
            if !more {
                *step = Step::Look;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Looks at records, some at a time, until `each` says no. True: at all of them.
    fn look(
        &mut self,
        budget: &mut Budget,
        hasher: KeyHasher,
        mut each: impl FnMut(&[Looked<'_>]) -> bool,
    ) -> Result<bool, Uncleanable> {
        let Some((piece, _)) = &self.batch else { return Ok(true) };
        let bytes = piece.as_ref();
        let all = records_of(bytes, &self.records);
        let mut records = Records::new(&all[self.at..], self.left);
        let (mut group, mut at) = (Vec::with_capacity(GROUP_SIZE), self.at);
        while !budget.is_spent() {
            group.clear();
            // Keys can be large: a group is no longer than the budget allows.
            while group.len() < GROUP_SIZE
                && !budget.is_spent()
                && let Some(record) = records.next()
            {
                let record = record.map_err(|e| fault(bytes, e))?;
                let from = std::mem::replace(&mut at, all.len() - records.rest().len());
                budget.spend_record();
                budget.spend(record.key.map_or(0, <[u8]>::len), HASH_NS);
                let key = record.key.map(|key| hasher.hash(key));
                group.push(Looked { record, range: from..at, key });
            }
            if group.is_empty() {
                return Ok(true);
            }
            (self.at, self.left) = (at, self.left - group.len() as i32);
            if !each(&group) {
                break;
            }
        }
        Ok(self.left <= 0)
    }

    fn judge(&mut self, rules: &Rules<'_>, budget: &mut Budget) -> Result<bool, Uncleanable> {
        let (header, _) = self.header();
        if header.attributes().is_control() {
            return Ok(true);
        }
        let verdict = Verdict::of(&header);
        let mut kept = std::mem::take(&mut self.kept);
        let (mut count, mut tombstones, mut newest_ms) = (0, 0, -1);
        let done = self.look(budget, rules.map.hasher(), |group| {
            rules.map.touch(group.iter().filter_map(|looked| looked.key));
            for Looked { record, range, key } in group {
                if verdict.keeps(rules, record, *key) {
                    count += 1;
                    tombstones += i32::from(record.value.is_none());
                    newest_ms = verdict.timestamp(record).max(newest_ms);
                    let (start, end) = (range.start as u32, range.end as u32);
                    match kept.last_mut() {
                        Some(last) if last.end == start => last.end = end,
                        _ => kept.push(start..end),
                    }
                }
            }
            true
        });
        self.kept = kept;
        self.kept_count += count;
        self.tombstones += tombstones;
        self.newest_ms = self.newest_ms.max(newest_ms);
        done
    }

    /// All records are judged: how to go on. False: nothing is left of the batch.
    fn decide(&mut self, rules: &Rules<'_>) -> Result<bool, Uncleanable> {
        let (header, _) = self.header();
        let attributes = header.attributes();
        let sets_horizon = self.tombstones > 0 && !attributes.has_delete_horizon();
        let untouched = self.kept_count == header.count() && self.kept_count > 0 && !sets_horizon;
        if attributes.is_control() || untouched {
            self.set_step(Step::Emit { whole: true, at: 0 });
            return Ok(true);
        }
        if self.kept_count == 0 {
            if !rules.keeps_empty(&header) {
                return Ok(false);
            }
            let max_timestamp = header.max_timestamp();
            let mut empty = std::mem::take(&mut self.built);
            empty.clear();
            empty.extend_from_slice(&self.batch_bytes()[..HEADER_SIZE]);
            // As Kafka writes it: no codec, no base timestamp, no horizon.
            let attributes = attributes.with_codec(Codec::None).without_delete_horizon();
            seal(&mut empty, Sealed { attributes, base_timestamp: -1, max_timestamp, count: 0 });
            self.built = empty;
            self.set_step(Step::Emit { whole: false, at: 0 });
            return Ok(true);
        }
        self.sets_horizon = sets_horizon;
        self.built.clear();
        let (built, batch) = (&mut self.built, &self.batch);
        let bytes = batch.as_ref().map_or(&[][..], |(piece, _)| piece.as_ref());
        built.extend_from_slice(&bytes[..HEADER_SIZE]);
        self.set_step(Step::Build(0));
        Ok(true)
    }

    /// Gathers what is kept. A record's bytes stay as they are, unless the horizon takes the place of the base timestamp.
    fn build(&mut self, rules: &Rules<'_>, budget: &mut Budget) -> Result<(), Uncleanable> {
        let Some((piece, Step::Build(from))) = &mut self.batch else { return Ok(()) };
        let bytes = piece.as_ref();
        let all = records_of(bytes, &self.records);
        let header = HeaderView::read(bytes).expect("a batch is under way");
        let verdict = Verdict::of(&header);
        while let Some(range) = self.kept.get_mut(*from) {
            if budget.is_spent() {
                return Ok(());
            }
            let rest = &all[range.start as usize..range.end as usize];
            if !self.sets_horizon {
                let size = rest.len().min(EMIT_SIZE);
                self.built.extend_from_slice(&rest[..size]);
                range.start += size as u32;
                budget.spend(size, BUILD_NS);
            } else {
                let mut one = Records::new(rest, 1);
                let Some(record) = one.next() else { return Ok(()) };
                let record = record.map_err(|e| fault(bytes, e))?;
                let size = rest.len() - one.rest().len();
                let delta = verdict.timestamp(&record).wrapping_sub(rules.horizon_ms());
                let headers: Vec<_> = record.headers().collect();
                write_record(&mut self.built, record.offset_delta, delta, record.key, record.value, &headers);
                range.start += size as u32;
                budget.spend_record();
                budget.spend(size, BUILD_NS);
            }
            if range.start == range.end {
                *from += 1;
                budget.spend(64, BUILD_NS);
            }
        }
        match header.attributes().codec() {
            Some(codec) if codec != Codec::None => {
                let mut out = std::mem::take(&mut self.other);
                out.clear();
                out.extend_from_slice(&self.built[..HEADER_SIZE]);
                let size = self.built.len() - HEADER_SIZE;
                let stream = Compressor::new(codec, None, size, out).map_err(|e| fault(bytes, e))?;
                self.set_step(Step::Compress(Box::new(stream), HEADER_SIZE));
            }
            _ => self.set_step(Step::Seal),
        }
        Ok(())
    }

    fn compress(&mut self, budget: &mut Budget) -> Result<(), Uncleanable> {
        let Some((piece, Step::Compress(stream, at))) = &mut self.batch else { return Ok(()) };
        let bytes = piece.as_ref();
        let (size, ns) = compress_cost(stream.codec());
        while *at < self.built.len() {
            if budget.is_spent() {
                return Ok(());
            }
            let part = &self.built[*at..self.built.len().min(*at + size)];
            stream.write_piece(part).map_err(|e| fault(bytes, e))?;
            *at += part.len();
            budget.spend(part.len(), ns);
        }
        if let Some((piece, step)) = &mut self.batch
            && let Step::Compress(stream, _) = std::mem::replace(step, Step::Seal)
        {
            let out = stream.finish().map_err(|e| fault(piece.as_ref(), e))?;
            self.other = std::mem::replace(&mut self.built, out);
        }
        Ok(())
    }

    fn seal(&mut self, rules: &Rules<'_>, budget: &mut Budget) {
        let (header, _) = self.header();
        let attributes = header.attributes();
        let by_broker = attributes.timestamp_type() == TimestampType::LogAppendTime;
        let sealed = Sealed {
            attributes: if self.sets_horizon { attributes.with_delete_horizon() } else { attributes },
            // The horizon takes the place of the base timestamp; each record's own timestamp stays what it was.
            base_timestamp: if self.sets_horizon { rules.horizon_ms() } else { header.base_timestamp() },
            max_timestamp: if by_broker { header.max_timestamp() } else { self.newest_ms },
            count: self.kept_count,
        };
        seal(&mut self.built, sealed);
        budget.spend(self.built.len(), READ_NS / 2);
        self.set_step(Step::Emit { whole: false, at: 0 });
    }

    fn emit(&mut self, out: &mut Vec<u8>, budget: &mut Budget) -> Option<Fate> {
        let Some((piece, Step::Emit { whole, at })) = &mut self.batch else { return Some(Fate::Gone) };
        let bytes = if *whole { piece.as_ref() } else { &self.built };
        let part = &bytes[*at..bytes.len().min(*at + EMIT_SIZE)];
        out.extend_from_slice(part);
        *at += part.len();
        budget.spend(part.len(), EMIT_NS);
        let header = HeaderView::read(bytes).expect("a whole batch");
        (*at == bytes.len()).then(|| Fate::Kept { max_timestamp: header.max_timestamp(), size: bytes.len() as u32 })
    }
}

/// What of a header is written anew.
struct Sealed {
    attributes: Attributes,
    base_timestamp: i64,
    max_timestamp: i64,
    count: i32,
}

fn seal(batch: &mut [u8], sealed: Sealed) {
    let length = (batch.len() - field::COUNTED) as i32;
    batch[field::BATCH_LENGTH].copy_from_slice(&length.to_be_bytes());
    batch[field::ATTRIBUTES].copy_from_slice(&sealed.attributes.0.to_be_bytes());
    batch[field::BASE_TIMESTAMP].copy_from_slice(&sealed.base_timestamp.to_be_bytes());
    batch[field::MAX_TIMESTAMP].copy_from_slice(&sealed.max_timestamp.to_be_bytes());
    batch[field::COUNT].copy_from_slice(&sealed.count.to_be_bytes());
    batch::seal(batch);
}

/// The batch's own records, or those that were decompressed.
fn records_of<'a>(batch: &'a [u8], decompressed: &'a [u8]) -> &'a [u8] {
    if decompressed.is_empty() { &batch[HEADER_SIZE..] } else { decompressed }
}

fn fault(batch: &[u8], reason: impl ToString) -> Uncleanable {
    let base = HeaderView::read(batch).map_or(Offset(-1), |header| header.base_offset());
    Uncleanable::Batch(base, reason.to_string())
}

#[cfg(test)]
mod tests;
