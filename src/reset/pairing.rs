//! Which event and which packet are the same RST: by the form of the packet, both ends, the namespace, and nearness in time.

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::source::reset_events::{Direction, ResetEvent};
use crate::source::reset_packets::{ResetPacket, Signature};
use crate::value::NetnsId;

/// A packet is seen after the queueing discipline let it go, and a received one before TCP looked at it.
pub const LATER: Duration = Duration::from_secs(3);
/// The two clocks are read one after the other.
const CLOCKS: Duration = Duration::from_millis(100);

/// Packets of other forms between the same ends, or to other addresses of the same port, that are passed over on the way to the
/// one of an event.
const PASSED_OVER: usize = 1000;

/// How long before its event, and how long after it, a packet may have been seen.
fn apart(direction: Direction) -> (Duration, Duration) {
    match direction {
        Direction::Sent => (CLOCKS, LATER),
        Direction::Received => (LATER, CLOCKS),
    }
}

/// For each event the index of its packet. Both come in order of time; no packet is given twice.
pub fn pair<E: Borrow<ResetEvent>>(events: &[E], packets: &[ResetPacket]) -> Vec<Option<usize>> {
    let mut free = Free { packets, taken: vec![false; packets.len()] };
    let mut out = vec![None; events.len()];
    let mut by_ends: HashMap<(Direction, SocketAddr, SocketAddr), VecDeque<usize>> =
        HashMap::with_capacity(packets.len());
    // What only passes through has its event in the namespace that it comes from; what a transparent proxy sends has it here.
    let starts_or_ends_here = |packet: &ResetPacket| packet.local_here || packet.is_in_anothers_name();
    for (index, packet) in packets.iter().enumerate().filter(|(_, packet)| starts_or_ends_here(packet)) {
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
    // A LISTEN socket's event does not know its peer, nor its address where it listens on all of them. After the others, so
    // that it takes no packet of theirs; what such a socket sends is an answer.
    let mut by_port: HashMap<(NetnsId, u16), VecDeque<usize>> = HashMap::new();
    let mut namespaces: Vec<NetnsId> = Vec::new();
    for (index, packet) in packets.iter().enumerate().filter(|(_, packet)| packet.local_here) {
        if !free.is_taken(index) && packet.direction == Direction::Sent && packet.signature() == Signature::Answer {
            by_port.entry((packet.netns, packet.local.port())).or_default().push_back(index);
            if !namespaces.contains(&packet.netns) {
                namespaces.push(packet.netns);
            }
        }
    }
    for (event, slot) in events.iter().map(Borrow::borrow).zip(&mut out) {
        if event.peer.is_some() || event.direction != Direction::Sent {
            continue;
        }
        let possible = event.netns.map_or(namespaces.clone(), |netns| vec![netns]);
        *slot = possible.into_iter().find_map(|netns| {
            let waiting = by_port.get_mut(&(netns, event.local.port()))?;
            free.take(waiting, event)
        });
    }
    out
}

struct Free<'a> {
    packets: &'a [ResetPacket],
    taken: Vec<bool>,
}

impl Free<'_> {
    fn is_taken(&self, index: usize) -> bool {
        self.taken.get(index).copied().unwrap_or(true)
    }

    /// The first that is near in time and can be of this event. Those that are too old for it are too old for the later ones.
    fn take(&mut self, waiting: &mut VecDeque<usize>, event: &ResetEvent) -> Option<usize> {
        let (before, after) = apart(event.direction);
        let packet = |waiting: &VecDeque<usize>, place: usize| self.packets.get(*waiting.get(place)?);
        while packet(waiting, 0)?.at + before < event.at {
            waiting.pop_front();
        }
        let mut place = 0;
        let near = |packet: &&ResetPacket| packet.at <= event.at.saturating_add(after);
        while let Some(packet) = packet(waiting, place).filter(near).filter(|_| place <= PASSED_OVER) {
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

/// The form has to fit: a socket that gives up by itself does not send an answer, and an answer does not have the form of what
/// such a socket sends (tcp_send_active_reset() in net/ipv4/tcp_output.c against tcp_v4_send_reset() in tcp_ipv4.c). Both are
/// sent for one connection microseconds apart where segments are still on the way when it is aborted.
fn can_be(event: &ResetEvent, packet: &ResetPacket) -> bool {
    let form = match (event.direction, packet.signature()) {
        (Direction::Received, _) => true,
        (Direction::Sent, Signature::Answer) => !event.active,
        // An answer has options where MPTCP or TCP-AO add theirs, and never offers a window.
        (Direction::Sent, Signature::Active | Signature::Foreign) => {
            event.active || packet.options && packet.window == 0
        }
    };
    let address = event.local.ip().is_unspecified() || event.local.ip() == packet.local.ip();
    form && address && event.netns.is_none_or(|netns| netns == packet.netns)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NETNS, event, packet};
    use super::*;

    const ENDS: (&str, &str) = ("10.0.0.1:80", "10.0.0.2:4000");

    fn aborted() -> ResetEvent {
        ResetEvent { active: true, ..event(Direction::Sent, ENDS.0, ENDS.1) }
    }

    fn own(answer: &ResetPacket) -> ResetPacket {
        ResetPacket { window: 500, seq: 7, ..answer.clone() }
    }

    #[test]
    fn a_dropped_reset_does_not_take_the_packet_of_the_next() {
        let answered = event(Direction::Sent, ENDS.0, "");
        let answer = packet(Direction::Sent, ENDS.0, ENDS.1);
        assert_eq!(pair(&[&aborted(), &answered], std::slice::from_ref(&answer)), [None, Some(0)]);
        assert_eq!(pair(&[&aborted(), &answered], &[own(&answer), answer]), [Some(0), Some(1)]);
    }

    #[test]
    fn an_answer_never_takes_the_packet_of_an_abort() {
        let answered = event(Direction::Sent, ENDS.0, ENDS.1);
        let answer = packet(Direction::Sent, ENDS.0, ENDS.1);
        // The event of the answer comes first where it was written by another CPU.
        let events = [&answered, &aborted()];
        assert_eq!(pair(&events, &[own(&answer), answer.clone()]), [Some(1), Some(0)]);
        assert_eq!(pair(&events, &[own(&answer)]), [None, Some(0)]);
    }

    #[test]
    fn a_listener_on_all_addresses_finds_its_packet_by_port_and_namespace() {
        let listener = ResetEvent { netns: None, ..event(Direction::Sent, "0.0.0.0:80", "") };
        let answer = packet(Direction::Sent, ENDS.0, ENDS.1);
        assert_eq!(pair(&[&listener], std::slice::from_ref(&answer)), [Some(0)]);
        let of_another = ResetEvent { netns: Some(NetnsId(NETNS.0 + 1)), ..listener.clone() };
        assert_eq!(pair(&[&of_another], std::slice::from_ref(&answer)), [None]);
        let other_port = packet(Direction::Sent, "10.0.0.1:81", ENDS.1);
        assert_eq!(pair(&[&listener], &[other_port]), [None]);
    }

    #[test]
    fn what_passes_through_is_nobodys_here() {
        let unclear = ResetEvent { netns: None, ..event(Direction::Sent, ENDS.0, ENDS.1) };
        let foreign = ResetPacket { local_here: false, ..packet(Direction::Sent, ENDS.0, ENDS.1) };
        let routed = ResetPacket { ttl: 63, ..foreign.clone() };
        let bridged = ResetPacket { forwarded: true, ..foreign.clone() };
        assert_eq!(pair(&[&unclear], &[routed]), [None]);
        assert_eq!(pair(&[&unclear], &[bridged]), [None]);
        assert_eq!(pair(&[&unclear], &[foreign]), [Some(0)], "a transparent proxy's");
    }
}
