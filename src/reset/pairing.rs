//! Which event and which packet are the same RST: by both ends and nearness in time.

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::source::reset_events::{Direction, ResetEvent};
use crate::source::reset_packets::{ResetPacket, Signature};

/// How long before its event, and how long after it, a packet may have been seen.
pub type Apart = fn(Direction) -> (Duration, Duration);

/// For each event the index of its packet. Both come in order of time; no packet is given twice.
pub fn pair<E: Borrow<ResetEvent>>(events: &[E], packets: &[ResetPacket], apart: Apart) -> Vec<Option<usize>> {
    let mut free = Free { packets, taken: vec![false; packets.len()], apart };
    let mut out = vec![None; events.len()];
    let mut by_ends: HashMap<(Direction, SocketAddr, SocketAddr), VecDeque<usize>> =
        HashMap::with_capacity(packets.len());
    for (index, packet) in packets.iter().enumerate() {
        by_ends.entry((packet.direction, packet.local, packet.peer)).or_default().push_back(index);
    }
    let mut peerless = false;
    for (event, slot) in events.iter().map(Borrow::borrow).zip(&mut out) {
        match event.peer.and_then(|peer| by_ends.get_mut(&(event.direction, event.local, peer))) {
            Some(waiting) => *slot = free.take(waiting, event),
            None => peerless |= event.peer.is_none(),
        }
    }
    if !peerless {
        return out;
    }
    // A LISTEN socket's event does not know its peer. After the others, so that it takes no packet of theirs; what such a
    // socket sends is an answer.
    let mut by_local: HashMap<SocketAddr, VecDeque<usize>> = HashMap::new();
    for (index, packet) in packets.iter().enumerate() {
        if !free.taken[index] && packet.direction == Direction::Sent && packet.signature() == Signature::Answer {
            by_local.entry(packet.local).or_default().push_back(index);
        }
    }
    for (event, slot) in events.iter().map(Borrow::borrow).zip(&mut out) {
        if event.peer.is_none()
            && let Some(waiting) = by_local.get_mut(&event.local)
        {
            *slot = free.take(waiting, event);
        }
    }
    out
}

struct Free<'a> {
    packets: &'a [ResetPacket],
    taken: Vec<bool>,
    apart: Apart,
}

impl Free<'_> {
    /// The first that is near in time and can be of this event. Those that are too old for it are too old for the later ones.
    fn take(&mut self, waiting: &mut VecDeque<usize>, event: &ResetEvent) -> Option<usize> {
        let (before, after) = (self.apart)(event.direction);
        let packet = |waiting: &VecDeque<usize>, place: usize| self.packets.get(*waiting.get(place)?);
        while packet(waiting, 0)?.at + before < event.at {
            waiting.pop_front();
        }
        let mut place = 0;
        while let Some(packet) = packet(waiting, place).filter(|packet| packet.at <= event.at + after) {
            if can_be(event, packet) {
                let index = waiting.remove(place)?;
                *self.taken.get_mut(index)? = true;
                return Some(index);
            }
            place += 1;
        }
        None
    }
}

/// A socket that gives up by itself does not send an answer: that one came after it, its own was dropped on the way out.
fn can_be(event: &ResetEvent, packet: &ResetPacket) -> bool {
    !(event.active && event.direction == Direction::Sent && packet.signature() == Signature::Answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::testing::{event, packet};

    #[test]
    fn a_dropped_reset_does_not_take_the_packet_of_the_next() {
        let ends = ("10.0.0.1:80", "10.0.0.2:4000");
        let destroyed = ResetEvent { active: true, ..event(Direction::Sent, ends.0, ends.1) };
        let answered = event(Direction::Sent, ends.0, "");
        let answer = packet(Direction::Sent, ends.0, ends.1);
        let near: Apart = |_| (Duration::from_millis(40), Duration::from_millis(40));
        assert_eq!(pair(&[&destroyed, &answered], std::slice::from_ref(&answer), near), [None, Some(0)]);
        let own = ResetPacket { window: 500, seq: 7, ..answer.clone() };
        assert_eq!(pair(&[&destroyed, &answered], &[own, answer], near), [Some(0), Some(1)]);
    }
}
