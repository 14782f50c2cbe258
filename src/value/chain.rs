//! Chains of things of which each follows from the next.

use std::iter::successors;

/// Whether whoever goes on from one to what it follows from, at most so many times, comes to the other. One leads to itself only in
/// a circle.
pub fn leads<T: PartialEq>(from: T, to: &T, most: usize, next: impl FnMut(&T) -> Option<T>) -> bool {
    successors(Some(from), next).skip(1).take(most).any(|one| one == *to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_leads_to_itself_only_in_a_circle() {
        let next = |roots: &'static [Option<usize>]| move |at: &usize| roots.get(*at).copied().flatten();
        let line = &[Some(1), Some(2), None];
        assert!(leads(0, &2, 3, next(line)) && !leads(2, &0, 3, next(line)) && !leads(0, &0, 3, next(line)));
        let circle = &[Some(1), Some(2), Some(0)];
        assert!(leads(0, &0, 3, next(circle)));
        // What leads into a circle is not in it.
        let tail = &[Some(1), Some(2), Some(1)];
        assert!(!leads(0, &0, 3, next(tail)) && leads(1, &1, 3, next(tail)));
    }
}
