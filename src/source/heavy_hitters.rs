//! The keys that occur most often in a stream, in memory that does not grow with the stream: the Space-Saving algorithm
//! (Metwally, Agrawal, El Abbadi 2005, "Efficient computation of frequent and top-k elements in data streams").

use std::hash::{BuildHasherDefault, Hash, Hasher};

/// Counts keys exactly until `capacity` distinct ones were seen. From then on a new key takes the place of the rarest one;
/// a key that makes up more than 1/capacity of the stream is always held.
pub(super) struct HeavyHitters<K, V> {
    capacity: usize,
    slots: Vec<Slot<K, V>>,
    /// Slot numbers by hash, linear probing, at most half full. A `HashMap` would hold every key a second time, and a sweep
    /// in which most keys are new, the common one, would pay for it in cache misses.
    index: Vec<u32>,
    /// Slots that had the smallest rank when the list was made; see [`Self::rarest`].
    rarest: Vec<u32>,
    rarest_rank: u64,
}

struct Slot<K, V> {
    key: K,
    hash: u32,
    /// Space-Saving's count: what was seen plus what the evicted key had, an upper bound of the true count.
    rank: u64,
    seen: u64,
    value: V,
}

/// One key that is still held.
pub(super) struct Hit<K, V> {
    pub key: K,
    /// How often it was certainly seen: since it entered. Exact if nothing was evicted.
    pub seen: u64,
    pub value: V,
}

/// What [`HeavyHitters::add`] found.
pub(super) struct Added<'a, V> {
    /// The value kept with the key.
    pub value: &'a mut V,
    /// As [`Hit::seen`], this occurrence included.
    pub seen: u64,
    /// The value of the key that had to go for this one.
    pub evicted: Option<V>,
}

const EMPTY: u32 = u32::MAX;

impl<K: Copy + Eq + Hash, V: Default> HeavyHitters<K, V> {
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self {
            capacity,
            slots: Vec::new(),
            index: vec![EMPTY; (capacity * 2).next_power_of_two()],
            rarest: Vec::new(),
            rarest_rank: 0,
        }
    }

    /// Counts one occurrence.
    #[inline]
    pub fn add(&mut self, key: K) -> Added<'_, V> {
        let mut hasher = MultiplyHasher::default();
        key.hash(&mut hasher);
        let hash = hasher.finish() as u32;
        let (slot, evicted) = match self.find(hash, &key) {
            Some(slot) => (slot, None),
            None => self.enter(hash, key),
        };
        let slot = &mut self.slots[slot as usize];
        slot.rank += 1;
        slot.seen += 1;
        Added { value: &mut slot.value, seen: slot.seen, evicted }
    }

    /// Out of line, to keep the common path short.
    #[inline(never)]
    fn enter(&mut self, hash: u32, key: K) -> (u32, Option<V>) {
        if self.slots.len() < self.capacity {
            let slot = self.slots.len() as u32;
            self.slots.push(Slot { key, hash, rank: 0, seen: 0, value: V::default() });
            self.link(hash, slot);
            return (slot, None);
        }
        let slot = self.rarest();
        self.unlink(slot);
        let old = &mut self.slots[slot as usize];
        (old.key, old.hash, old.seen) = (key, hash, 0);
        let evicted = std::mem::take(&mut old.value);
        self.link(hash, slot);
        (slot, Some(evicted))
    }

    fn find(&self, hash: u32, key: &K) -> Option<u32> {
        let mask = self.index.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            match self.index[at] {
                EMPTY => return None,
                slot if self.slots[slot as usize].key == *key => return Some(slot),
                _ => at = (at + 1) & mask,
            }
        }
    }

    fn link(&mut self, hash: u32, slot: u32) {
        let mask = self.index.len() - 1;
        let mut at = hash as usize & mask;
        while self.index[at] != EMPTY {
            at = (at + 1) & mask;
        }
        self.index[at] = slot;
    }

    /// Takes a slot out of the index and closes the gap, so that no tombstones pile up.
    fn unlink(&mut self, slot: u32) {
        let mask = self.index.len() - 1;
        let mut gap = self.slots[slot as usize].hash as usize & mask;
        while self.index[gap] != slot {
            gap = (gap + 1) & mask;
        }
        let mut at = gap;
        loop {
            at = (at + 1) & mask;
            let other = self.index[at];
            if other == EMPTY {
                break;
            }
            let home = self.slots[other as usize].hash as usize & mask;
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(gap) & mask {
                self.index[gap] = other;
                gap = at;
            }
        }
        self.index[gap] = EMPTY;
    }

    /// Takes a slot with the smallest rank. Ranks only grow, so a list of all slots with the smallest rank stays right if
    /// those that grew since are skipped; when it is used up, the smallest rank is larger than before. There are at most
    /// `stream / capacity` such rounds of `capacity` steps each, one step per key in all, and an increment costs nothing,
    /// which the linked buckets of the paper cannot offer.
    fn rarest(&mut self) -> u32 {
        loop {
            while let Some(slot) = self.rarest.pop() {
                if self.slots[slot as usize].rank == self.rarest_rank {
                    return slot;
                }
            }
            self.rarest_rank = self.slots.iter().map(|slot| slot.rank).min().unwrap_or(0);
            let smallest =
                |(index, slot): (usize, &Slot<K, V>)| (slot.rank == self.rarest_rank).then_some(index as u32);
            self.rarest.extend(self.slots.iter().enumerate().filter_map(smallest));
        }
    }

    /// The held keys, most often seen first; equal ones in the order in which they came.
    pub fn into_hits(self) -> Vec<Hit<K, V>> {
        let mut hits: Vec<_> =
            self.slots.into_iter().map(|slot| Hit { key: slot.key, seen: slot.seen, value: slot.value }).collect();
        hits.sort_by_key(|hit| std::cmp::Reverse(hit.seen));
        hits
    }
}

/// For maps whose keys come from the kernel by the hundred thousand.
pub(super) type FastHash = BuildHasherDefault<MultiplyHasher>;

/// A hash of one multiplication per number. The standard one costs more per socket than the whole rest of the fold. Remote
/// addresses are chosen by strangers, but a bucket that they overfill is at most the capacity long.
#[derive(Default)]
pub(super) struct MultiplyHasher(u64);

impl MultiplyHasher {
    fn mix(&mut self, low: u64, high: u64) {
        let product = u128::from(self.0 ^ low ^ 0x9e37_79b9_7f4a_7c15) * u128::from(high ^ 0xd6e8_feb8_6659_fd93);
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }
}

impl Hasher for MultiplyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            self.mix(chunk.iter().fold(chunk.len() as u64, |word, byte| word << 8 | u64::from(*byte)), 0);
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(u64::from(value), 0);
    }

    fn write_u16(&mut self, value: u16) {
        self.mix(u64::from(value), 0);
    }

    fn write_u32(&mut self, value: u32) {
        self.mix(u64::from(value), 0);
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value, 0);
    }

    fn write_u128(&mut self, value: u128) {
        self.mix(value as u64, (value >> 64) as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.mix(value as u64, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn count(keys: &[u16], capacity: usize) -> HeavyHitters<u16, ()> {
        let mut hitters = HeavyHitters::new(capacity);
        for key in keys {
            hitters.add(*key);
        }
        hitters
    }

    #[test]
    fn an_evicted_value_is_handed_back() {
        let mut hitters: HeavyHitters<u16, u32> = HeavyHitters::new(2);
        *hitters.add(1).value = 10;
        *hitters.add(2).value = 20;
        hitters.add(2);
        assert_eq!(hitters.add(3).evicted, Some(10));
    }

    proptest! {
        #[test]
        fn below_the_capacity_counts_are_exact(keys in proptest::collection::vec(0u16..50, 0..500)) {
            let mut exact = BTreeMap::new();
            keys.iter().for_each(|key| *exact.entry(*key).or_insert(0u64) += 1);
            let hitters = count(&keys, 50);
            let hits: BTreeMap<u16, u64> = hitters.into_hits().iter().map(|hit| (hit.key, hit.seen)).collect();
            prop_assert_eq!(hits, exact);
        }

        /// The promise of Space-Saving: a key with more than stream / capacity occurrences is held, wherever they are.
        #[test]
        fn above_the_capacity_heavy_keys_are_held_and_nothing_is_overstated(
            noise in proptest::collection::vec(10u16..1000, 0..600),
            heavy in 20usize..60,
            seed in any::<u64>(),
        ) {
            let mut keys = noise;
            let mut state = seed | 1;
            for _ in 0..heavy {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let at = (state >> 33) as usize % (keys.len() + 1);
                keys.insert(at, 7);
            }
            let capacity = 40;
            let truth = |key: u16| keys.iter().filter(|other| **other == key).count() as u64;
            let hits = count(&keys, capacity).into_hits();
            prop_assert!(hits.len() <= capacity);
            prop_assert!(hits.iter().all(|hit| hit.seen <= truth(hit.key)));
            if heavy > keys.len() / capacity {
                prop_assert!(hits.iter().any(|hit| hit.key == 7));
            }
        }
    }
}
