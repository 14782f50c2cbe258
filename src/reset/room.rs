//! What is remembered for a time, or up to a number: the oldest goes first, and room that a storm took is given back after it.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};

/// Below this many items nothing is gained.
const FEW: usize = 1_000;

pub(super) trait Room {
    /// Keeps room for twice what is held, where it is for more than four times that: what grows and shrinks a little stays as it is.
    fn give_back(&mut self);
}

/// Takes the oldest, where it is too old or there are more than `most`.
pub(super) fn take_oldest<T>(queue: &mut VecDeque<T>, most: usize, is_old: impl FnOnce(&T) -> bool) -> Option<T> {
    let goes = queue.len() > most || is_old(queue.front()?);
    goes.then(|| queue.pop_front())?
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
    fn the_oldest_goes_where_it_is_too_old_or_one_too_many() {
        let mut queue: VecDeque<u64> = (1..=4).collect();
        assert_eq!(take_oldest(&mut queue, 4, |oldest| *oldest < 2), Some(1));
        assert_eq!(take_oldest(&mut queue, 4, |oldest| *oldest < 2), None);
        assert_eq!(take_oldest(&mut queue, 2, |oldest| *oldest < 2), Some(2));
        assert_eq!(take_oldest(&mut queue, 2, |oldest| *oldest < 2), None);
        assert_eq!((queue, take_oldest(&mut VecDeque::<u64>::new(), 0, |_| true)), (VecDeque::from([3, 4]), None));
    }

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
