//! Room that a storm took in what is remembered for long, given back after it.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};

/// Below this many items nothing is gained.
const FEW: usize = 1_000;

pub(super) trait Room {
    /// Keeps room for twice what is held, where it is for more than four times that: what grows and shrinks a little stays as it is.
    fn give_back(&mut self);
}

fn is_much(capacity: usize, held: usize) -> bool {
    capacity > FEW && capacity / 4 > held
}

impl<T> Room for VecDeque<T> {
    fn give_back(&mut self) {
        if is_much(self.capacity(), self.len()) {
            self.shrink_to(2 * self.len());
        }
    }
}

impl<K: Eq + Hash, V, S: BuildHasher> Room for HashMap<K, V, S> {
    fn give_back(&mut self) {
        if is_much(self.capacity(), self.len()) {
            self.shrink_to(2 * self.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_storm_took_is_given_back_and_what_is_in_use_stays() {
        let mut queue: VecDeque<u64> = (0..100_000).collect();
        queue.give_back();
        assert!(queue.capacity() >= 100_000);
        queue.truncate(300);
        queue.give_back();
        assert!(queue.capacity() < 2_000 && queue.iter().copied().eq(0..300), "{}", queue.capacity());
        let kept = queue.capacity();
        queue.truncate(10);
        queue.give_back();
        assert_eq!(queue.capacity(), kept, "a few are not worth it");
        let mut table: HashMap<u64, u64> = (0..100_000).map(|number| (number, number)).collect();
        table.retain(|number, _| *number < 300);
        table.give_back();
        assert!(table.capacity() < 2_000 && table.len() == 300, "{}", table.capacity());
    }
}
