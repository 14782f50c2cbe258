//! How connections ended, for those whose last words were heard: joined to received resets by cookie, or by both ends.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use super::context::Surroundings;
use crate::observation::Observation;
use crate::source::destroyed_sockets::{DestroyedSocket, DestroyedSockets};
use crate::source::reset_events::Direction;
use crate::value::TcpState;

/// What ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A RST came while it was open in both directions.
    Reset,
    /// A RST came after the peer had closed: the peer announced the end.
    ResetAfterFin,
    /// Its retransmissions were never answered.
    GaveUp,
    /// A close, or nothing that was seen.
    Other,
}

/// A destroyed connection.
#[derive(Debug, Clone, Copy)]
pub struct Death<'a> {
    pub word: &'a DestroyedSocket,
    pub end: End,
    /// Whom this host had called; `None` where it was the server.
    pub called: Option<SocketAddr>,
}

impl Death<'_> {
    /// A request was waiting for its answer.
    pub fn under_way(&self) -> bool {
        // A server that worked on it had received last, a client that waited had sent last.
        if self.called.is_some() { self.word.asked_last() } else { self.word.data_received_ms < self.word.data_sent_ms }
    }
}

/// Joins last words to what else was seen.
pub fn deaths<'a>(observation: &Observation, words: &'a DestroyedSockets) -> Vec<Death<'a>> {
    let surroundings = Surroundings::new(observation);
    let received = |direction| direction == Direction::Received;
    let now = observation.reset_events.value().into_iter().flat_map(|events| &events.events);
    let events = observation.earlier_resets.iter().chain(now);
    let (mut by_cookie, mut by_ends) = (HashMap::new(), HashMap::new());
    for event in events.filter(|event| received(event.direction)) {
        by_cookie.extend(event.cookie.map(|cookie| (cookie, event.state_before())));
        by_ends.extend(event.peer.map(|peer| ((event.local, peer), event.state_before())));
    }
    let packets = observation.reset_packets.value().into_iter().flat_map(|packets| &packets.packets);
    let on_wire: HashSet<_> = packets.filter(|p| received(p.direction)).map(|p| (p.local, p.peer)).collect();
    words
        .words
        .iter()
        .map(|word| {
            let ends = (word.local, word.peer);
            let end = match by_cookie.get(&word.cookie).or_else(|| by_ends.get(&ends)) {
                Some(Some(TcpState::CloseWait)) => End::ResetAfterFin,
                Some(Some(TcpState::Established) | None) => End::Reset,
                Some(_) => End::Other,
                None if word.gave_up() => End::GaveUp,
                // Without tracepoints; what was received last is then not known to be no FIN.
                None if on_wire.contains(&ends) && observation.reset_events.value().is_none() => End::Reset,
                None => End::Other,
            };
            let client = surroundings.is_ephemeral(word.local.port()) && !surroundings.is_ephemeral(word.peer.port());
            Death { word, end, called: client.then_some(word.peer) }
        })
        .collect()
}
