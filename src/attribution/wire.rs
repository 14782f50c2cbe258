//! What the RST packets of a window show: those that TCP did not send, netfilter's and those of a device on the path.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::context::moved;
use super::{Grouped, is_whole};
use crate::observation::View;
use crate::reset::Surroundings;
use crate::source::reset_events::Direction;
use crate::source::reset_packets::{PeerTtls, ResetPacket, Signature};
use crate::value::Missing;

/// What Linux and others send with (net.ipv4.ip_default_ttl). A smaller one was routed through this host: a container's.
const INITIAL_TTLS: [u8; 3] = [64, 128, 255];

/// Where a rule of this host's netfilter rejects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Something that came in: the RST leaves the host.
    Input,
    /// Something that this host wanted to send: the RST comes back to it on the loopback interface.
    Output,
}

/// RSTs of this host's netfilter at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    pub hook: Hook,
    pub local: IpAddr,
    /// Our port, where this side is the server.
    pub port: Option<u16>,
    /// Whom this host called, where it is the client.
    pub called: Option<SocketAddr>,
    pub peers: BTreeMap<IpAddr, u64>,
    pub count: u64,
}

/// A received RST whose TTL does not fit the peer's other packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forged {
    pub local: SocketAddr,
    pub peer: SocketAddr,
    pub ttl: u8,
    /// What the peer's packets arrive with.
    pub usual: Vec<u8>,
}

/// A received RST whose IP id does not continue its connection's, although nothing else speaks against the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    pub local: SocketAddr,
    pub peer: SocketAddr,
    pub ip_id: u16,
    /// The latest of the connection before it.
    pub last: u16,
    /// Our port, where this side is the server.
    pub port: Option<u16>,
}

/// What the packets of a window say.
#[derive(Debug, Clone, PartialEq)]
pub struct Wire {
    /// Netfilter's RSTs by place, the busiest first.
    pub rejected: Vec<Rejected>,
    /// Netfilter's RSTs that cannot be told from TCP's own one by one: only their number is known.
    pub rejected_unnamed: u64,
    /// One per connection.
    pub forged: Vec<Forged>,
    /// One per connection; those that ended one, where that is known.
    pub suspects: Vec<Suspect>,
    /// Received RSTs of peers whose other packets are known, so that they can be judged.
    pub judged: u64,
    /// Received RSTs from other hosts.
    pub received: u64,
    /// Some packets were lost or over the cap.
    pub incomplete: bool,
}

impl Wire {
    /// # Errors
    /// There are no packets.
    pub fn new(view: View<'_>, grouped: &Grouped, around: &Surroundings) -> Result<Self, Missing> {
        let account = view.netns.reset_packets.required("reset_packets")?;
        let packets = || view.netns.resets.single.iter().filter_map(|reset| reset.packet.as_ref());
        let from_peers = || packets().filter(|packet| packet.came_from_a_peer());
        let fits = |packet: &ResetPacket| account.ttls.fits(packet.peer, packet.ttl);
        let (rejected, rejected_unnamed) = firewall(view, grouped, around);
        let mut forged: BTreeMap<(SocketAddr, SocketAddr), Forged> = BTreeMap::new();
        for packet in from_peers().filter(|packet| fits(packet) == Some(false)) {
            forged.entry((packet.local, packet.peer)).or_insert_with(|| Forged {
                local: packet.local,
                peer: packet.peer,
                ttl: packet.ttl,
                usual: account.ttls.of(packet.peer).to_vec(),
            });
        }
        Ok(Self {
            rejected,
            rejected_unnamed,
            forged: forged.into_values().collect(),
            suspects: suspects(view, &account.ttls, around),
            judged: from_peers().filter(|packet| fits(packet).is_some()).count() as u64,
            received: from_peers().count() as u64,
            incomplete: !is_whole(view),
        })
    }

    /// RSTs of netfilter at one hook.
    pub fn rejected_by(&self, hook: Hook) -> u64 {
        self.rejected.iter().filter(|rejected| rejected.hook == hook).map(|rejected| rejected.count).sum()
    }

    /// RSTs of this host's netfilter.
    pub fn rejected_total(&self) -> u64 {
        self.rejected_unnamed + self.rejected.iter().map(|rejected| rejected.count).sum::<u64>()
    }
}

fn suspects(view: View<'_>, ttls: &PeerTtls, around: &Surroundings) -> Vec<Suspect> {
    let traced = view.host.reset_events.value().is_some();
    let mut suspects: BTreeMap<(SocketAddr, SocketAddr), Suspect> = BTreeMap::new();
    for reset in &view.netns.resets.single {
        let Some(packet) = reset.packet.as_ref().filter(|packet| packet.came_from_a_peer()) else { continue };
        let (Some(ip_id), Some(track)) = (packet.ip_id, packet.track) else { continue };
        let (local, peer) = (packet.local, packet.peer);
        // Where events are traced, a RST without one ended nothing.
        let took = reset.event.is_some() || !traced;
        if !track.fits && took && ttls.fits(peer, packet.ttl) != Some(false) {
            let port = (!is_client(packet, around)).then_some(local.port());
            suspects.entry((local, peer)).or_insert(Suspect { local, peer, ip_id, last: track.last, port });
        }
    }
    suspects.into_values().collect()
}

/// This side had called the other.
fn is_client(packet: &ResetPacket, around: &Surroundings) -> bool {
    around.ephemeral.is_caller(packet.local.port(), packet.peer.port())
}

/// The RSTs that TCP did not send.
fn firewall(view: View<'_>, grouped: &Grouped, around: &Surroundings) -> (Vec<Rejected>, u64) {
    let sent = |packet: &ResetPacket| packet.direction == Direction::Sent && packet.local_here;
    let singles = || view.netns.resets.single.iter();
    let answers: Vec<&ResetPacket> = singles()
        .filter(|reset| reset.event.is_none())
        .filter_map(|reset| reset.packet.as_ref())
        .filter(|packet| sent(packet))
        .filter(|packet| packet.signature() == Signature::Answer && INITIAL_TTLS.contains(&packet.ttl))
        .collect();
    let counted = moved(view, "Tcp.OutRsts");
    let packets = || singles().filter_map(|reset| reset.packet.as_ref());
    let seen = packets().filter(|packet| sent(packet)).count() as u64;
    // Packets and counters do not begin and end at the same instant: in a storm that alone makes a few too many.
    let excess = counted.map_or(0, |counted| seen.saturating_sub(counted)).saturating_sub(seen / 100);
    // Every RST that TCP counted has an event (Linux 6.10 and later): what has none is not TCP's.
    let of_events = grouped.here.iter().filter(|(_, tally)| tally.direction == Direction::Sent);
    let explained: u64 = of_events.map(|(_, tally)| tally.count).sum();
    let traced = grouped.by_packets && view.host.reset_events.value().is_some();
    let all_explained = traced && counted.is_some_and(|counted| explained >= counted);
    let fit = |count: u64| count <= excess + excess / 20;
    let named = all_explained || fit(answers.len() as u64);
    type Place = (Hook, IpAddr, Option<u16>, Option<SocketAddr>);
    let mut places: BTreeMap<Place, BTreeMap<IpAddr, u64>> = BTreeMap::new();
    let back = packets().filter(|packet| packet.came_back()).map(|packet| (Hook::Output, packet));
    for (hook, packet) in answers.iter().filter(|_| named).map(|packet| (Hook::Input, *packet)).chain(back) {
        let client = is_client(packet, around);
        let (port, called) = if client { (None, Some(packet.peer)) } else { (Some(packet.local.port()), None) };
        let peers = places.entry((hook, packet.local.ip(), port, called)).or_default();
        *peers.entry(packet.peer.ip()).or_default() += 1;
    }
    let mut rejected: Vec<Rejected> = places
        .into_iter()
        .map(|((hook, local, port, called), peers)| {
            let count = peers.values().sum();
            Rejected { hook, local, port, called, peers, count }
        })
        .collect();
    rejected.sort_by_key(|rejected| std::cmp::Reverse(rejected.count));
    (rejected, if named { 0 } else { excess })
}

#[cfg(test)]
mod tests;
