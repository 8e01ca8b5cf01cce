//! Sparse index: timestamp -> offset. An entry says: no record up to this offset is younger than this timestamp, and
//! the batch that ends with this offset holds it. On disk (docs/formats/time_index.md): 8 bytes of timestamp, 4 bytes of offset relative to the base.

/// The largest timestamp so far, and the last offset of the batch that holds it (relative to the base).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub timestamp: i64,
    pub offset: u32,
}

/// Size of an entry on disk.
pub(super) const ENTRY_SIZE: usize = 12;

/// Entries in order, timestamps strictly rising.
#[derive(Debug, Default)]
pub(super) struct TimeIndex {
    entries: Vec<Entry>,
}

impl TimeIndex {
    /// Adds an entry if its timestamp is younger than all before.
    pub fn maybe_push(&mut self, entry: Entry) {
        if entry.timestamp >= 0 && self.entries.last().is_none_or(|e| e.timestamp < entry.timestamp) {
            self.entries.push(entry);
        }
    }
    pub fn last(&self) -> Option<Entry> {
        self.entries.last().copied()
    }
    pub fn clear(&mut self) {
        self.entries.clear();
    }
    /// The last entry older than `timestamp`: every record up to its offset is older.
    pub fn before(&self, timestamp: i64) -> Option<Entry> {
        self.entries[..self.entries.partition_point(|e| e.timestamp < timestamp)].last().copied()
    }
    /// As it is stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.entries.len() * ENTRY_SIZE);
        for e in &self.entries {
            bytes.extend_from_slice(&e.timestamp.to_be_bytes());
            bytes.extend_from_slice(&e.offset.to_be_bytes());
        }
        bytes
    }
    /// Reads what is stored. `None`: it is not a time index. A tail of zeros is ignored.
    pub fn decode(bytes: &[u8]) -> Option<TimeIndex> {
        if !bytes.len().is_multiple_of(ENTRY_SIZE) {
            return None;
        }
        let mut entries: Vec<Entry> = Vec::with_capacity(bytes.len() / ENTRY_SIZE);
        for chunk in bytes.chunks_exact(ENTRY_SIZE) {
            let timestamp = i64::from_be_bytes(chunk[..8].try_into().ok()?);
            let offset = u32::from_be_bytes(chunk[8..].try_into().ok()?);
            if timestamp == 0 && offset == 0 {
                break;
            }
            if timestamp < 0 || entries.last().is_some_and(|e| timestamp <= e.timestamp || offset < e.offset) {
                return None;
            }
            entries.push(Entry { timestamp, offset });
        }
        Some(TimeIndex { entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_only_younger_timestamps_and_round_trips() {
        let mut index = TimeIndex::default();
        for (timestamp, offset) in [(100, 4), (90, 9), (100, 14), (300, 19), (-1, 24)] {
            index.maybe_push(Entry { timestamp, offset });
        }
        let bytes = index.encode();
        assert_eq!(bytes.len(), 24);
        let loaded = TimeIndex::decode(&bytes).unwrap();
        assert_eq!(loaded.before(100), None);
        assert_eq!(loaded.before(101), Some(Entry { timestamp: 100, offset: 4 }));
        assert_eq!(loaded.last(), Some(Entry { timestamp: 300, offset: 19 }));
        assert!(TimeIndex::decode(&bytes[..13]).is_none());
        let mut swapped = bytes.clone();
        swapped.rotate_left(12);
        assert!(TimeIndex::decode(&swapped).is_none());
    }
}
