//! Connections that were reset lately, from here or by the peer, for what was still on the way.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::Ends;
use super::join::REMEMBERED;
use super::room::{Room, take_oldest};

/// What was on the way when a connection was reset arrives within this time: some retransmissions.
pub(super) const ON_THE_WAY: Duration = Duration::from_secs(3);

/// By their ends, local and peer.
#[derive(Debug, Default)]
pub(super) struct Aborted {
    at: HashMap<Ends, Duration>,
    in_order: VecDeque<(Ends, Duration)>,
}

impl Aborted {
    pub fn remember(&mut self, ends: Ends, at: Duration) {
        self.drop_old(at, REMEMBERED - 1);
        self.at.insert(ends, at);
        self.in_order.push_back((ends, at));
    }

    /// Not long before `at` (CLOCK_BOOTTIME).
    pub fn contains(&mut self, ends: &Ends, at: Duration) -> bool {
        self.drop_old(at, REMEMBERED);
        self.at.contains_key(ends)
    }

    /// Lets go what is of no use from `at` (CLOCK_BOOTTIME) on.
    pub fn forget(&mut self, at: Duration) {
        self.drop_old(at, REMEMBERED);
        self.at.give_back();
        self.in_order.give_back();
    }

    /// Those that are too old at `at`, or more than `most`.
    fn drop_old(&mut self, at: Duration, most: usize) {
        let is_old = |(_, then): &(Ends, Duration)| *then + ON_THE_WAY < at;
        while let Some((ends, then)) = take_oldest(&mut self.in_order, most, is_old) {
            if self.at.get(&ends) == Some(&then) {
                self.at.remove(&ends);
            }
        }
    }
}
