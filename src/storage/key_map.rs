//! Key -> offset of its last record, for compaction. Keys are kept as 128-bit hashes, seeded at random, so memory does not depend
//! on their length and nobody can choose keys that collide; two keys that do anyway would cost the older one's record (2^-128).
//! Open addressing in one allocation of a size given at the start: it gets full, never larger. Its pages come and go in steps,
//! because the kernel takes milliseconds for all of them at once.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Hash in two halves, and offset + 1 (0: free).
type Slot = [u64; 3];

/// What stands for a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyHash([u64; 2]);

/// Makes the hashes of one map.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyHasher {
    seed: u64,
}

impl KeyHasher {
    pub fn hash(self, key: &[u8]) -> KeyHash {
        let hash = twox_hash::XxHash3_128::oneshot_with_seed(self.seed, key);
        KeyHash([(hash >> 64) as u64, hash as u64])
    }
}

/// Slots that come or go in one step.
const STEP: usize = 8192;
/// Of ten slots, so many are used at most.
const LOAD_MAX_TENTHS: usize = 8;

/// The map.
#[derive(Debug)]
pub(super) struct KeyMap {
    slots: Vec<Slot>,
    /// How many slots it will have.
    count: usize,
    used: usize,
    hasher: KeyHasher,
}

impl KeyMap {
    /// A map for `keys` keys, but of `bytes_max` bytes at most. To be grown before it is used.
    pub fn new(keys: usize, bytes_max: usize) -> KeyMap {
        let wanted = (keys.saturating_mul(10) / LOAD_MAX_TENTHS).saturating_add(16);
        let count = wanted.min(bytes_max / size_of::<Slot>()).max(16);
        let seed = RandomState::new().build_hasher().finish();
        KeyMap { slots: Vec::with_capacity(count), count, used: 0, hasher: KeyHasher { seed } }
    }
    pub fn hasher(&self) -> KeyHasher {
        self.hasher
    }
    /// Looks at where some keys are, or would be, so that the memory has come when `put` and `get` need it: the map is larger
    /// than the cache, and a processor waits for several places at once as long as for one.
    pub fn touch(&self, hashes: impl Iterator<Item = KeyHash>) {
        for hash in hashes {
            std::hint::black_box(self.slots[self.home(hash)][2]);
        }
    }
    /// Takes memory for some more slots. True: it has all of them.
    pub fn grow(&mut self) -> bool {
        self.slots.resize(self.count.min(self.slots.len() + STEP), [0; 3]);
        self.slots.len() == self.count
    }
    /// Gives the memory of some slots back; it is of no use any more. True: that was all.
    pub fn shrink(&mut self) -> bool {
        self.slots.truncate(self.slots.len().saturating_sub(STEP));
        self.slots.shrink_to_fit();
        self.slots.is_empty()
    }
    /// Notes a record. False: the map is full and the key is not in it.
    pub fn put(&mut self, hash: KeyHash, offset: i64) -> bool {
        let at = self.find(hash);
        let used_max = self.slots.len() * LOAD_MAX_TENTHS / 10;
        let slot = &mut self.slots[at];
        if slot[2] == 0 {
            if self.used >= used_max {
                return false;
            }
            self.used += 1;
            *slot = [hash.0[0], hash.0[1], 0];
        }
        slot[2] = slot[2].max(offset as u64 + 1);
        true
    }
    /// Offset of the key's last record in the part of the log that was mapped.
    pub fn get(&self, hash: KeyHash) -> Option<i64> {
        (self.slots[self.find(hash)][2] as i64).checked_sub(1).filter(|offset| *offset >= 0)
    }
    /// Where the search for a key begins.
    fn home(&self, hash: KeyHash) -> usize {
        ((u128::from(hash.0[0]) * self.slots.len() as u128) >> 64) as usize
    }
    /// Where the key is, or would be.
    fn find(&self, hash: KeyHash) -> usize {
        let mut at = self.home(hash);
        loop {
            let slot = &self.slots[at];
            if slot[2] == 0 || slot[..2] == hash.0 {
                return at;
            }
            at = if at + 1 == self.slots.len() { 0 } else { at + 1 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_offset_and_gets_full_in_its_bounds() {
        let mut map = KeyMap::new(usize::MAX, 240 * size_of::<Slot>());
        assert!(map.grow());
        let hasher = map.hasher();
        let key = |i: i64| hasher.hash(&i.to_be_bytes());
        let mut kept = 0;
        for i in 0..1000 {
            if !map.put(key(i), i) {
                break;
            }
            kept += 1;
        }
        assert_eq!(kept, 192, "eight tenths of 240");
        assert!(map.put(key(5), 700), "a known key has its place");
        assert!(map.put(key(5), 600));
        assert_eq!(map.get(key(5)), Some(700));
        assert_eq!(map.get(key(0)), Some(0));
        assert_eq!(map.get(key(500)), None);
    }

    #[test]
    fn memory_comes_and_goes_in_steps() {
        let mut map = KeyMap::new(100_000, 1 << 20);
        assert_eq!((0..).take_while(|_| !map.grow()).count(), (1 << 20) / 24 / STEP);
        let memory = map.slots.as_ptr();
        let hasher = map.hasher();
        (0..30_000i64).for_each(|i| assert!(map.put(hasher.hash(&i.to_be_bytes()), i)));
        assert_eq!(map.slots.as_ptr(), memory, "it never moved");
        assert_eq!((0..).take_while(|_| !map.shrink()).count(), (1 << 20) / 24 / STEP);
        assert_eq!(map.slots.capacity(), 0);
    }
}
