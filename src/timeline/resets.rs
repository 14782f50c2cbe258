//! The single resets of a window, as `trace` would show them.

use std::collections::BTreeMap;

use super::RESETS;
use crate::diagnosis::filter::Filter;
use crate::observation::{Observation, View};
use crate::reset::Surroundings;
use crate::source::reset_packets::PeerTtls;
use crate::trace::{self, Holders, Reset};
use crate::value::NetnsId;

/// The latest [`RESETS`] of the window that the filter keeps, oldest first. `around`: as the evidence of each namespace has it.
pub fn latest(observation: &Observation, around: &BTreeMap<NetnsId, Surroundings>, filter: &Filter) -> Vec<Reset> {
    let of = |view: View<'_>| {
        let around = around.get(&view.after().netns);
        around.map(|around| of_one(view, around, filter)).unwrap_or_default()
    };
    let mut all: Vec<Reset> = observation.views().flat_map(of).collect();
    all.sort_by_key(|reset| reset.wall);
    all.split_off(all.len().saturating_sub(RESETS))
}

fn of_one(view: View<'_>, around: &Surroundings, filter: &Filter) -> Vec<Reset> {
    let singles = &view.netns.resets.single;
    if singles.is_empty() {
        return Vec::new();
    }
    let none = PeerTtls::default();
    let ttls = view.netns.reset_packets.value().map_or(&none, |account| &account.ttls);
    let holders = match (view.after().listeners.value(), view.host.after.owners.value()) {
        (Some(listeners), Some(owners)) => Holders::new(listeners, &[], owners),
        _ => Holders::default(),
    };
    let wanted = trace::Filter { direction: None, ports: filter.ports.clone(), process: filter.process.clone() };
    let here = Some(view.after().netns);
    let mut resets: Vec<Reset> = singles
        .iter()
        .rev()
        // What only passes through is nobody's here.
        .filter(|reset| reset.event.is_some() || reset.packet.as_ref().is_some_and(|packet| packet.local_here))
        .filter(|reset| reset.netns() == here)
        .map(|reset| Reset::new(reset.clone(), around.kind(reset, ttls), &holders, view.after().at))
        .filter(|reset| wanted.keeps(reset))
        .filter(|reset| filter.pid.is_none_or(|pid| reset.process.as_ref().is_some_and(|process| process.pid == pid)))
        .take(RESETS)
        .collect();
    resets.reverse();
    resets
}
