//! Which event and which packet are the same RST.
//!
//! The two come by different ways, each in order. They are matched by both ends and nearness in time, while they wait for each
//! other: from the moment they are read until everything older has certainly been read too.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::source::reset_events::{Direction, ResetEvent};
use crate::source::reset_packets::ResetPacket;

/// Event and packet of one RST are microseconds apart, unless a queue or a busy CPU lies between them.
const TOGETHER: Duration = Duration::from_millis(40);

/// What must have left an event if TCP was behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traced {
    /// Every RST that TCP sends: Linux 6.10 and later. Before, answers without a full socket left no event.
    pub sent: bool,
    pub received: bool,
    /// State changes are watched.
    pub states: bool,
}

impl Traced {
    pub const ALL: Self = Self { sent: true, received: true, states: true };
    pub const NONE: Self = Self { sent: false, received: false, states: false };
}

/// One RST by event, packet, or both.
pub type Pair = (Option<ResetEvent>, Option<ResetPacket>);

#[derive(Debug, Default)]
pub struct Joiner {
    events: Vec<(ResetEvent, Option<ResetPacket>)>,
    packets: Vec<ResetPacket>,
}

type Ends = (Direction, SocketAddr, SocketAddr);

impl Joiner {
    /// Takes what was read, in order of time. Hands out, in order of time, what happened before `until` (CLOCK_BOOTTIME):
    /// nothing older may come later.
    pub fn step(&mut self, events: Vec<ResetEvent>, packets: Vec<ResetPacket>, until: Duration) -> Vec<Pair> {
        self.events.extend(events.into_iter().map(|event| (event, None)));
        self.packets.extend(packets);
        self.pair();
        let (due, wait): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.events).into_iter().partition(|(event, _)| event.at < until);
        self.events = wait;
        let (alone, wait): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.packets).into_iter().partition(|packet| packet.at < until);
        self.packets = wait;
        let mut out: Vec<Pair> = due.into_iter().map(|(event, packet)| (Some(event), packet)).collect();
        out.extend(alone.into_iter().map(|packet| (None, Some(packet))));
        out.sort_by_key(|(event, packet)| at(event.as_ref(), packet.as_ref()));
        out
    }

    fn pair(&mut self) {
        if self.packets.is_empty() {
            return;
        }
        let mut free: Vec<Option<ResetPacket>> = std::mem::take(&mut self.packets).into_iter().map(Some).collect();
        let mut by_ends: HashMap<Ends, VecDeque<usize>> = HashMap::with_capacity(free.len());
        for (index, packet) in free.iter().enumerate() {
            if let Some(packet) = packet {
                by_ends.entry((packet.direction, packet.local, packet.peer)).or_default().push_back(index);
            }
        }
        for (event, slot) in self.events.iter_mut().filter(|(_, slot)| slot.is_none()) {
            let Some(peer) = event.peer else { continue };
            let Some(waiting) = by_ends.get_mut(&(event.direction, event.local, peer)) else { continue };
            *slot = take_near(&mut free, waiting, event.at);
        }
        // A LISTEN socket's event does not know its peer. After the others, so that it takes no packet of theirs.
        if self.events.iter().any(|(event, slot)| event.peer.is_none() && slot.is_none()) {
            let mut by_local: HashMap<SocketAddr, VecDeque<usize>> = HashMap::new();
            for (index, packet) in free.iter().enumerate() {
                if let Some(packet) = packet.as_ref().filter(|packet| packet.direction == Direction::Sent) {
                    by_local.entry(packet.local).or_default().push_back(index);
                }
            }
            for (event, slot) in self.events.iter_mut().filter(|(event, slot)| event.peer.is_none() && slot.is_none()) {
                if let Some(waiting) = by_local.get_mut(&event.local) {
                    *slot = take_near(&mut free, waiting, event.at);
                }
            }
        }
        self.packets = free.into_iter().flatten().collect();
    }
}

/// The first that is near in time. Those that are too old for this event are too old for the later ones.
fn take_near(free: &mut [Option<ResetPacket>], waiting: &mut VecDeque<usize>, time: Duration) -> Option<ResetPacket> {
    while let Some(index) = waiting.front() {
        let slot = free.get_mut(*index)?;
        match slot.as_ref() {
            Some(packet) if packet.at.abs_diff(time) <= TOGETHER => {
                waiting.pop_front();
                return slot.take();
            }
            Some(packet) if packet.at > time => return None,
            _ => drop(waiting.pop_front()),
        }
    }
    None
}

/// When it happened. The event of a reset by the socket itself comes after its packet (tcp_send_active_reset()), and on loopback
/// even after the peer has received it.
pub fn at(event: Option<&ResetEvent>, packet: Option<&ResetPacket>) -> Duration {
    let times = [event.map(|event| event.at), packet.map(|packet| packet.at)];
    times.into_iter().flatten().min().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{event, packet};
    use super::*;

    const END: Duration = Duration::from_secs(1_000);

    fn later<T>(mut item: T, at: impl Fn(&mut T) -> &mut Duration, micros: u64) -> T {
        *at(&mut item) += Duration::from_micros(micros);
        item
    }

    fn event_at(peer: &str, micros: u64) -> ResetEvent {
        later(event(Direction::Sent, "10.0.0.1:80", peer), |e| &mut e.at, micros)
    }

    fn packet_at(peer: &str, micros: u64) -> ResetPacket {
        later(packet(Direction::Sent, "10.0.0.1:80", peer), |p| &mut p.at, micros)
    }

    fn shape(pairs: &[Pair]) -> Vec<(bool, bool)> {
        pairs.iter().map(|(event, packet)| (event.is_some(), packet.is_some())).collect()
    }

    #[test]
    fn event_and_packet_of_one_reset_are_one_whichever_was_read_first() {
        let (one, other) = (event_at("10.0.0.2:4000", 0), packet_at("10.0.0.2:4000", 30));
        let mut joiner = Joiner::default();
        assert!(joiner.step(vec![one.clone()], vec![], Duration::ZERO).is_empty(), "it waits");
        assert_eq!(shape(&joiner.step(vec![], vec![other.clone()], END)), [(true, true)]);
        assert!(joiner.step(vec![], vec![other], Duration::ZERO).is_empty());
        assert_eq!(shape(&joiner.step(vec![one], vec![], END)), [(true, true)]);
        assert!(joiner.step(vec![], vec![], END).is_empty());
    }

    #[test]
    fn a_tuple_that_resets_twice_is_two_resets() {
        let events = vec![event_at("10.0.0.2:4000", 0), event_at("10.0.0.2:4000", 500)];
        let packets = vec![packet_at("10.0.0.2:4000", 10), packet_at("10.0.0.2:4000", 510)];
        let pairs = Joiner::default().step(events, packets.clone(), END);
        assert_eq!(shape(&pairs), [(true, true), (true, true)]);
        assert_eq!(pairs[1].1.as_ref(), Some(&packets[1]));
    }

    #[test]
    fn what_has_no_partner_stands_alone_in_order_of_time() {
        let events = vec![event_at("10.0.0.2:4000", 100), event_at("10.0.0.2:4001", 90_000)];
        let packets = vec![packet_at("10.0.0.3:4000", 50), packet_at("10.0.0.2:4001", 150)];
        let pairs = Joiner::default().step(events, packets, END);
        assert_eq!(shape(&pairs), [(false, true), (true, false), (false, true), (true, false)], "90 ms is too far");
    }

    #[test]
    fn a_listener_learns_its_peer_from_the_packet_that_nobody_else_claims() {
        let events = vec![event_at("", 0), event_at("10.0.0.2:4000", 1)];
        assert_eq!(events[0].peer, None);
        let packets = vec![packet_at("10.0.0.2:4000", 2), packet_at("10.0.0.9:4000", 3)];
        let pairs = Joiner::default().step(events, packets, END);
        assert_eq!(shape(&pairs), [(true, true), (true, true)]);
        assert_eq!(pairs[0].1.as_ref().unwrap().peer, "10.0.0.9:4000".parse().unwrap());
    }
}
