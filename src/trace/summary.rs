//! What a trace has seen, in bounded memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use super::{Process, Reset};
use crate::reset::Kind;
use crate::source::reset_events::Direction;
use crate::value::EphemeralPorts;

/// More different ports, processes or peers than this are counted together.
const MAX_KEYS: usize = 4096;

/// Whose port it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortSide {
    /// A service of this host.
    Local,
    /// A service that this host connects to.
    Peer,
}

/// Exact counts; only the number of different keys is bounded.
#[derive(Debug, Clone)]
pub struct Counts<K> {
    counts: HashMap<K, u64>,
    /// Resets of keys that found no room.
    pub others: u64,
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self { counts: HashMap::new(), others: 0 }
    }
}

impl<K: Eq + Hash + Ord + Clone> Counts<K> {
    pub(crate) fn add(&mut self, key: K) {
        if let Some(count) = self.counts.get_mut(&key) {
            *count += 1;
        } else if self.counts.len() < MAX_KEYS {
            self.counts.insert(key, 1);
        } else {
            self.others += 1;
        }
    }

    fn add_all(&mut self, other: Self) {
        for (key, count) in other.counts {
            if self.counts.len() < MAX_KEYS || self.counts.contains_key(&key) {
                *self.counts.entry(key).or_default() += count;
            } else {
                self.others += count;
            }
        }
        self.others += other.others;
    }

    /// The most frequent first, at most `most`; and the number of resets that none of them has.
    pub fn top(&self, most: usize) -> (Vec<(K, u64)>, u64) {
        let mut all: Vec<_> = self.counts.iter().map(|(key, count)| (key.clone(), *count)).collect();
        all.sort_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then_with(|| a.cmp(b)));
        let rest: u64 = all.iter().skip(most).map(|(_, count)| count).sum();
        all.truncate(most);
        (all, rest + self.others)
    }
}

/// Every reset that was counted, shown or not.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// CLOCK_REALTIME of the start, since the Unix epoch.
    pub started: Duration,
    pub duration: Duration,
    pub sent: u64,
    pub received: u64,
    pub reasons: Counts<(Direction, Kind)>,
    pub ports: Counts<(PortSide, u16)>,
    pub processes: Counts<Process>,
    pub peers: Counts<IpAddr>,
    /// Resets that the tracepoints counted, on the whole host and not filtered: those in `total()` but for `packet_only`, plus
    /// `passed_over`, `not_examined` and `lost`. `None` where only packets were looked at.
    pub counted: Option<u64>,
    /// Read, but of another namespace, filtered out, or no reset (see `ResetEvents::bogus_received`).
    pub passed_over: u64,
    /// Of those that matched, the ones of which only the packet was seen: no event, or it is among the `lost`.
    pub packet_only: u64,
    /// Of those that matched, the ones for which the output had no room.
    pub not_shown: u64,
    /// Arrived faster than they could be taken apart: neither shown nor in any other count, and not filtered.
    pub not_examined: u64,
    /// The kernel had no room for them, on the whole host and not filtered.
    pub lost: u64,
    /// RST packets that found no room in the socket. Where events are traced too, only details are missing.
    pub packets_lost: u64,
    /// RST packets that were not looked at because there were so many events. Of a reset that left no event, nothing is known.
    pub packets_left: u64,
    /// RST packets that only passed through this host.
    pub forwarded: u64,
}

impl Summary {
    pub fn total(&self) -> u64 {
        self.sent + self.received
    }

    /// Adds what was seen in a later part of the same time.
    pub fn add_part(&mut self, part: Self) {
        self.duration += part.duration;
        self.sent += part.sent;
        self.received += part.received;
        self.reasons.add_all(part.reasons);
        self.ports.add_all(part.ports);
        self.processes.add_all(part.processes);
        self.peers.add_all(part.peers);
        self.counted = self.counted.zip(part.counted).map(|(own, other)| own + other);
        self.passed_over += part.passed_over;
        self.packet_only += part.packet_only;
        self.not_shown += part.not_shown;
        self.not_examined += part.not_examined;
        self.lost += part.lost;
        self.packets_lost += part.packets_lost;
        self.packets_left += part.packets_left;
        self.forwarded += part.forwarded;
    }

    pub(super) fn add(&mut self, reset: &Reset, ephemeral: EphemeralPorts) {
        self.packet_only += u64::from(reset.joined.event.is_none());
        match reset.joined.direction() {
            Direction::Sent => self.sent += 1,
            Direction::Received => self.received += 1,
        }
        self.reasons.add((reset.joined.direction(), reset.what));
        if let Some(process) = &reset.process {
            self.processes.add(process.clone());
        }
        if let Some(peer) = reset.joined.peer() {
            self.peers.add(peer.ip());
        }
        match (reset.joined.local(), reset.joined.peer()) {
            (Some(local), Some(peer)) if ephemeral.is_caller(local.port(), peer.port()) => {
                self.ports.add((PortSide::Peer, peer.port()));
            }
            (Some(local), _) => self.ports.add((PortSide::Local, local.port())),
            (None, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{event, joined};
    use super::*;

    #[test]
    fn ports_are_those_of_the_service() {
        let mut summary = Summary::default();
        let mut see = |local, peer| {
            summary.add(&joined(Some(event(Direction::Sent, local, peer)), None), EphemeralPorts::default());
        };
        see("10.0.0.1:80", "10.0.0.2:40000");
        see("10.0.0.1:80", "10.0.0.2:40001");
        see("10.0.0.1:40000", "10.0.0.3:5432");
        let ports = summary.ports.top(10).0;
        assert_eq!(ports, [((PortSide::Local, 80), 2), ((PortSide::Peer, 5432), 1)]);
        assert_eq!((summary.sent, summary.received, summary.total()), (3, 0, 3));
    }

    #[test]
    fn any_number_of_peers_is_counted_in_bounded_memory() {
        let mut counts = Counts::default();
        for peer in 0..100_000u32 {
            counts.add(peer);
            counts.add(7);
        }
        let (top, rest) = counts.top(1);
        assert_eq!((top, rest), (vec![(7, 100_001)], 99_999));
        assert!(counts.counts.len() <= MAX_KEYS);
    }
}
