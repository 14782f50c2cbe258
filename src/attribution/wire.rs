//! What the RST packets and ICMP errors of a window show: refusals that TCP did not send, netfilter's and those of a device on
//! the path.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Grouped, is_whole};
use crate::observation::View;
use crate::reset::Surroundings;
use crate::source::reset_packets::{PeerTtls, ResetPacket};
use crate::value::Missing;

mod firewall;

use firewall::Refusals;
pub use firewall::{Hook, Means, NoWay, Rejected};

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

/// A connection that was reset several times, farther on in sequence each time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeated {
    pub peer: SocketAddr,
    /// Our port, where this side is the server.
    pub port: Option<u16>,
}

/// What the packets of a window say.
#[derive(Debug, Clone, PartialEq)]
pub struct Wire {
    /// What packet filters refused by place, the busiest first.
    pub rejected: Vec<Rejected>,
    /// Destinations that are out of reach, by what was said of them by ICMP, the most frequent first.
    pub no_way: Vec<NoWay>,
    /// Netfilter's RSTs that cannot be told from TCP's own one by one: only their number is known.
    pub rejected_unnamed: u64,
    /// One per connection.
    pub forged: Vec<Forged>,
    /// One per connection; those that ended one, where that is known.
    pub suspects: Vec<Suspect>,
    /// Connections that were reset several times within moments, each time farther on in sequence: no TCP does that, which resets
    /// a connection once; a device that injects RSTs guesses so (Weaver, Sommer, Paxson 2009).
    pub repeated: Vec<Repeated>,
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
        let incomplete = !is_whole(view);
        let Refusals { rejected, unnamed, no_way } = firewall::refusals(view, account, grouped, around, !incomplete);
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
            no_way,
            rejected_unnamed: unnamed,
            forged: forged.into_values().collect(),
            suspects: suspects(view, &account.ttls, around),
            repeated: repeated(view, around),
            judged: from_peers().filter(|packet| fits(packet).is_some()).count() as u64,
            received: from_peers().count() as u64,
            incomplete,
        })
    }

    /// RSTs of netfilter at one hook.
    pub fn rejected_by(&self, hook: Hook) -> u64 {
        self.resets().filter(|rejected| rejected.hook == hook).map(|rejected| rejected.count).sum()
    }

    /// RSTs of this host's netfilter.
    pub fn rejected_total(&self) -> u64 {
        self.rejected_unnamed + self.resets().map(|rejected| rejected.count).sum::<u64>()
    }

    fn resets(&self) -> impl Iterator<Item = &Rejected> {
        self.rejected.iter().filter(|rejected| rejected.means == Means::Rst)
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

/// Answers to unknown segments have sequence numbers of ours, which rise by themselves; so only those with an ACK of their own.
fn repeated(view: View<'_>, around: &Surroundings) -> Vec<Repeated> {
    const MOMENTS: Duration = Duration::from_millis(200);
    let mut last: BTreeMap<(SocketAddr, SocketAddr), &ResetPacket> = BTreeMap::new();
    let mut found: BTreeMap<(SocketAddr, SocketAddr), Repeated> = BTreeMap::new();
    for packet in view.netns.resets.single.iter().filter_map(|reset| reset.packet.as_ref()) {
        if !packet.came_from_a_peer() || !packet.has_ack() || packet.seq == 0 {
            continue;
        }
        let ends = (packet.local, packet.peer);
        if let Some(before) = last.insert(ends, packet) {
            let ahead = packet.seq.wrapping_sub(before.seq);
            if (2..1 << 31).contains(&ahead) && packet.at.saturating_sub(before.at) <= MOMENTS {
                let port = (!is_client(packet, around)).then_some(packet.local.port());
                found.entry(ends).or_insert(Repeated { peer: packet.peer, port });
            }
        }
    }
    found.into_values().collect()
}

/// This side had called the other.
fn is_client(packet: &ResetPacket, around: &Surroundings) -> bool {
    around.ephemeral.is_caller(packet.local.port(), packet.peer.port())
}

#[cfg(test)]
mod tests;
