//! Answers of which only the packet was seen, by a kernel that reports not all that TCP sends: whose they are.

use super::context::{listening, moved, traced};
use crate::observation::View;
use crate::reset::{Alone, Answered, Reset, Surroundings};
use crate::source::reset_events::Direction;
use crate::source::reset_packets::{ResetPacket, Signature};

/// Whose they are, by what TCP counted beside the RSTs that have an event (`known`); and how many netfilter sent. `None` where
/// every RST of TCP has an event, so that what has none is netfilter's without counting.
pub(super) fn whose(view: View<'_>, known: u64) -> Option<(Alone, u64)> {
    if traced(view).sent || !super::is_whole(view) {
        return None;
    }
    let answers: Vec<&ResetPacket> = view.netns.resets.single.iter().filter_map(Reset::lone_answer).collect();
    let count = answers.len() as u64;
    let Some(counted) = moved(view, "Tcp.OutRsts") else { return Some((Alone::NotCounted, 0)) };
    // RSTs that sockets sent by themselves, where there are no events.
    let active = view.netns.resets.single.iter().filter(|reset| reset.event.is_none());
    let active = active.filter(|reset| {
        let own = |packet: &&ResetPacket| packet.direction == Direction::Sent && packet.local_here;
        reset.packet.as_ref().filter(own).is_some_and(|packet| packet.signature() == Signature::Active)
    });
    let of_tcp = counted.saturating_sub(known + active.count() as u64);
    let excess = count.saturating_sub(of_tcp);
    // Packets, events and counters do not begin and end at the same instant: in a storm, of whichever of them, that alone makes a
    // few too many.
    let unsure = count.max(counted) / 100;
    let by_listeners = Surroundings { listening: listening(view), ..Surroundings::default() };
    let refused_by_listener = answers.iter().filter(|packet| by_listeners.is_rejected(packet)).count() as u64;
    let near = |a: u64, b: u64| a.abs_diff(b) <= b / 20;
    Some(match excess {
        0 => (Alone::Tcp, 0),
        _ if excess > unsure && near(count, excess) => (Alone::Netfilter, count),
        // A listener refuses nobody, however few they are.
        _ if near(refused_by_listener, excess) => (Alone::NotCounted, refused_by_listener),
        _ if excess <= unsure => (Alone::Tcp, 0),
        _ => (Alone::Unclear, excess - unsure),
    })
}

/// TCP sent it, as far as can be told.
pub(super) fn is_of_tcp(reset: &Reset, alone: Alone, around: &Surroundings) -> bool {
    let Some(packet) = reset.packet.as_ref().filter(|packet| reset.event.is_none() && packet.local_here) else {
        return false;
    };
    match (packet.direction, packet.signature()) {
        (Direction::Sent, Signature::Active) => !around.traced.full_sockets,
        (Direction::Sent, Signature::Answer) => {
            let unclear = alone == Alone::Unclear && Answered::by(packet).is_some();
            !unclear && !around.is_rejected(packet)
        }
        _ => false,
    }
}
