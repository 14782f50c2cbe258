//! The single resets of a window, as `trace` would show them.

use std::collections::VecDeque;
use std::time::Duration;

use super::RESETS;
use crate::diagnosis::filter::Filter;
use crate::observation::Observation;
use crate::source::reset_events::{Place, ResetEvent};
use crate::trace::{self, Holders, Joined, Joiner, Read, Reset, Traced};
use crate::value::Observed;

/// The latest [`RESETS`] of the window that the filter keeps, oldest first.
pub fn latest(observation: &Observation, filter: &Filter) -> Vec<Reset> {
    let events = observation.reset_events.value();
    let packets = observation.reset_packets.value();
    let (opened, closed) = (observation.before.at.mono, observation.after.at.mono);
    // Some more than are shown, because an event and its packet are one reset.
    let tail = |events: &[ResetEvent]| events.get(events.len().saturating_sub(2 * RESETS)..).unwrap_or(&[]).to_vec();
    let shown: Vec<ResetEvent> = events.map(|events| tail(&events.events)).unwrap_or_default();
    let from = if shown.len() == 2 * RESETS { shown.first().map_or(opened, |event| event.at) } else { opened };
    let of_window = packets.into_iter().flat_map(|packets| &packets.packets);
    let of_window = of_window.filter(|packet| packet.local_here && packet.at >= from && packet.at <= closed);
    let mut packets: VecDeque<_> = VecDeque::new();
    for packet in of_window {
        packets.push_back(packet.clone());
        if packets.len() > 2 * RESETS {
            packets.pop_front();
        }
    }
    if shown.is_empty() && packets.is_empty() {
        return Vec::new();
    }
    let words = observation.destroyed_sockets.value().map(|words| words.words.clone()).unwrap_or_default();
    let mut joiner = Joiner::default();
    // Events of earlier windows take their packets and are not shown again.
    let earlier = observation.earlier_resets.clone();
    // The last of them came after the clock was read and before the counters were.
    let again: Vec<ResetEvent> = earlier.iter().filter(|event| event.at >= opened).cloned().collect();
    let is_new = |joined: &Joined| match &joined.event {
        Some(event) => event.at >= opened && !again.contains(event),
        None => joined.at() >= opened,
    };
    let read = Read { events: [earlier, shown].concat(), packets: packets.into(), words };
    let traced = traced(observation);
    let holders = match (observation.after.listeners.value(), observation.after.owners.value()) {
        (Some(listeners), Some(owners)) => Holders::new(listeners, &[], owners),
        _ => Holders::default(),
    };
    let wanted = trace::Filter { direction: None, port: filter.port, process: filter.process.clone() };
    let here = |joined: &Joined| {
        joined.event.as_ref().is_none_or(|event| event.place == Place::Here || joined.packet.is_some())
    };
    let mut resets: Vec<Reset> = joiner
        .step(read, Duration::MAX)
        .into_iter()
        .filter(|joined| is_new(joined) && here(joined))
        .map(|joined| Reset::new(joined, traced, &holders, observation.after.at))
        .filter(|reset| wanted.keeps(reset))
        .filter(|reset| filter.pid.is_none_or(|pid| reset.process.as_ref().is_some_and(|process| process.pid == pid)))
        .collect();
    resets.drain(..resets.len().saturating_sub(RESETS));
    resets
}

fn traced(observation: &Observation) -> Traced {
    let Some(events) = observation.reset_events.value() else { return Traced::NONE };
    let whole = matches!(observation.reset_events, Observed::Full(_)) && events.lost + events.dropped == 0;
    // With many resets only the latest events are looked at, and packets a moment older may be among them.
    let certain = whole && events.events.len() < 2 * RESETS;
    Traced::new(observation.after.host.kernel.as_deref().unwrap_or_default(), &events.missing, certain)
}
