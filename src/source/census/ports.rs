//! Sockets by local port and state.

/// Counts for all 65,536 ports in 256 KiB, small enough to stay in the cache: a local port of an outgoing connection holds
/// one socket, rarely several, and hardly ever several states, so only ports with several states get a row of their own.
pub(super) struct PortCounts {
    /// 0: no socket. [`ROW`] set: the number of the row. Else all sockets have one state: state << 24, count.
    ports: Vec<u32>,
    rows: Vec<[u32; STATES]>,
}

const ROW: u32 = 1 << 31;
const SINGLE_MAX: u32 = (1 << 24) - 1;
/// One more than the largest state number.
const STATES: usize = 13;

impl Default for PortCounts {
    fn default() -> Self {
        Self { ports: vec![0; 1 << 16], rows: Vec::new() }
    }
}

impl PortCounts {
    /// Counts a socket. A state number of 13 or more is ignored.
    pub fn add(&mut self, port: u16, state: u8) {
        let word = &mut self.ports[usize::from(port)];
        let single = u32::from(state) << 24;
        // One branch that nearly always goes the same way: the word is often not in the cache, and a wrong guess about it
        // would cost the whole wait.
        let same_state = (*word == 0) | (*word & !SINGLE_MAX == single);
        if same_state & (*word & SINGLE_MAX < SINGLE_MAX) {
            *word = single | ((*word & SINGLE_MAX) + 1);
        } else {
            if *word & ROW == 0 {
                let mut row = [0; STATES];
                if let Some(count) = row.get_mut((*word >> 24) as usize) {
                    *count = *word & SINGLE_MAX;
                }
                *word = ROW | self.rows.len() as u32;
                self.rows.push(row);
            }
            let row = self.rows.get_mut((*word & !ROW) as usize);
            if let Some(count) = row.and_then(|row| row.get_mut(usize::from(state))) {
                *count += 1;
            }
        }
    }

    /// State numbers and how many sockets of this port are in them.
    pub fn states(&self, port: u16) -> impl Iterator<Item = (u8, u32)> {
        let word = self.ports[usize::from(port)];
        let row = if word & ROW == 0 { None } else { self.rows.get((word & !ROW) as usize) };
        let single = (word != 0 && word & ROW == 0).then_some(((word >> 24) as u8, word & SINGLE_MAX));
        let row = (0u8..).zip(row.into_iter().flatten().copied());
        row.filter(|(_, count)| *count > 0).chain(single)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn counts_are_those_of_a_map(sockets in proptest::collection::vec((0u16..6, 1u8..13), 0..200)) {
            let mut counts = PortCounts::default();
            let mut exact = BTreeMap::new();
            for (port, state) in sockets {
                counts.add(port, state);
                *exact.entry((port, state)).or_insert(0u32) += 1;
            }
            let mut found = BTreeMap::new();
            for port in 0..6 {
                found.extend(counts.states(port).map(|(state, count)| ((port, state), count)));
            }
            prop_assert_eq!(found, exact);
        }
    }

    #[test]
    fn a_count_that_outgrows_its_word_moves_to_a_row() {
        let mut counts = PortCounts::default();
        counts.ports[80] = 6 << 24 | SINGLE_MAX;
        counts.add(80, 6);
        assert_eq!(counts.states(80).collect::<Vec<_>>(), [(6, 1 << 24)]);
    }
}
