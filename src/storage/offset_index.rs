//! Sparse index: offset -> position of a batch in the segment. In memory an entry also knows the first offset of
//! its batch, so that a dense index answers without reading the log. On disk (docs/formats/offset_index.md) it is
//! Kafka's: the offset of the batch's *last* record relative to the segment's base, and the position.

/// One indexed batch. Offsets are relative to the segment's base offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// First offset of the batch; after loading from disk not known, and then equal to `last`.
    pub base: u32,
    /// Last offset of the batch.
    pub last: u32,
    /// Where the batch begins.
    pub position: u32,
}

/// Size of an entry on disk.
pub(super) const ENTRY_SIZE: usize = 8;

/// Entries in order of offset and position, both strictly rising.
#[derive(Debug, Default)]
pub(super) struct OffsetIndex {
    entries: Vec<Entry>,
}

impl OffsetIndex {
    pub fn push(&mut self, entry: Entry) {
        debug_assert!(self.entries.last().is_none_or(|e| e.last < entry.last && e.position < entry.position));
        self.entries.push(entry);
    }
    pub fn len(&self) -> usize {
        self.entries.len()
    }
    pub fn last(&self) -> Option<Entry> {
        self.entries.last().copied()
    }
    pub fn clear(&mut self) {
        self.entries.clear();
    }
    /// The last indexed batch that begins at or before `offset`.
    pub fn at_or_before(&self, offset: u32) -> Option<Entry> {
        match self.entries.last() {
            Some(last) if last.base <= offset => Some(*last),
            _ => self.entries[..self.entries.partition_point(|e| e.base <= offset)].last().copied(),
        }
    }
    /// The last indexed batch boundary at or before a position.
    pub fn boundary_at_or_before(&self, position: u32) -> Option<u32> {
        match self.entries.last() {
            Some(last) if last.position <= position => Some(last.position),
            _ => self.entries[..self.entries.partition_point(|e| e.position <= position)].last().map(|e| e.position),
        }
    }
    /// As it is stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.entries.len() * ENTRY_SIZE);
        for e in &self.entries {
            bytes.extend_from_slice(&e.last.to_be_bytes());
            bytes.extend_from_slice(&e.position.to_be_bytes());
        }
        bytes
    }
    /// Reads what is stored. `None`: it does not describe a segment of `size` bytes. A tail of zeros, as Apache Kafka
    /// leaves behind when it is killed, is ignored.
    pub fn decode(bytes: &[u8], size: u32) -> Option<OffsetIndex> {
        if !bytes.len().is_multiple_of(ENTRY_SIZE) {
            return None;
        }
        let mut entries: Vec<Entry> = Vec::with_capacity(bytes.len() / ENTRY_SIZE);
        for chunk in bytes.chunks_exact(ENTRY_SIZE) {
            let last = u32::from_be_bytes(chunk[..4].try_into().ok()?);
            let position = u32::from_be_bytes(chunk[4..].try_into().ok()?);
            // The first batch is never indexed, so this is no entry.
            if position == 0 {
                break;
            }
            if entries.last().is_some_and(|e| last <= e.last || position <= e.position) {
                return None;
            }
            if position >= size {
                return None;
            }
            entries.push(Entry { base: last, last, position });
        }
        Some(OffsetIndex { entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> OffsetIndex {
        let mut index = OffsetIndex::default();
        for (base, last, position) in [(3, 4, 50), (5, 9, 100), (20, 29, 300)] {
            index.push(Entry { base, last, position });
        }
        index
    }

    #[test]
    fn looks_up_batches_and_boundaries() {
        let index = index();
        assert_eq!(index.at_or_before(4).map(|e| e.position), Some(50));
        assert_eq!(index.at_or_before(5).map(|e| e.position), Some(100));
        assert_eq!(index.at_or_before(15).map(|e| e.position), Some(100));
        assert_eq!(index.at_or_before(99).map(|e| e.position), Some(300));
        assert_eq!(index.boundary_at_or_before(299), Some(100));
        assert_eq!(index.boundary_at_or_before(300), Some(300));
        assert_eq!(OffsetIndex::default().at_or_before(7), None);
    }

    #[test]
    fn loaded_entries_never_claim_a_first_offset_they_do_not_know() {
        let loaded = OffsetIndex::decode(&index().encode(), 400).unwrap();
        assert_eq!(loaded.len(), 3);
        // Offset 7 is in the second batch, but all the file says is that the batch at 50 ends with 4.
        assert_eq!(loaded.at_or_before(7).map(|e| e.position), Some(50));
        assert_eq!(loaded.at_or_before(9).map(|e| e.position), Some(100));
    }

    #[test]
    fn refuses_what_is_not_an_index() {
        let good = index().encode();
        assert!(OffsetIndex::decode(&good[..9], 400).is_none(), "half an entry");
        assert!(OffsetIndex::decode(&good, 200).is_none(), "points behind the segment's end");
        let mut swapped = good.clone();
        swapped.rotate_left(8);
        assert!(OffsetIndex::decode(&swapped, 400).is_none(), "not rising");
        let mut zero_tail = good.clone();
        zero_tail.extend_from_slice(&[0; 80]);
        assert_eq!(OffsetIndex::decode(&zero_tail, 400).unwrap().len(), 3);
        assert_eq!(OffsetIndex::decode(&[0; 80], 400).unwrap().len(), 0);
    }
}
