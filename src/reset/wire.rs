//! Joins the kernel's reset events with the RST packets that passed an interface. The packets prove which events belong to
//! the namespace under observation (the tracepoints see the whole host), name the peer of a RST sent from LISTEN, tell
//! what a RST answered, and show the RSTs that TCP did not send: netfilter's, and those of a device on the path.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::context::Surroundings;
use super::pairing::pair;
use crate::observation::Observation;
use crate::source::reset_events::{Direction, Place, ResetEvent, ResetEvents, ResetTally, regroup};
use crate::source::reset_packets::{ResetPacket, ResetPackets, Signature};
use crate::value::{Failure, Missing, Observed};

/// A packet is seen after the queueing discipline let it go, and a received one before TCP looked at it.
const LATER: Duration = Duration::from_secs(3);
/// The two clocks are read one after the other.
const CLOCKS: Duration = Duration::from_millis(100);
const RST_ACK: u8 = 0x14;
/// What Linux and others send with (net.ipv4.ip_default_ttl). A smaller one was routed through this host: a container's.
const INITIAL_TTLS: [u8; 3] = [64, 128, 255];

/// What the packet of a reset tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Mark {
    pub answered: Option<Answered>,
    pub origin: Origin,
}

/// What a sent RST answered, from its form (net/ipv4/tcp_ipv4.c tcp_v4_send_reset).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Answered {
    /// A segment without ACK: a SYN.
    Syn,
    /// A segment of a connection.
    Segment,
}

/// Who sent a RST that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Origin {
    /// The peer, as far as one can see.
    #[default]
    Peer,
    /// Netfilter on this host.
    Firewall,
    /// Something on the path: its packets take another way than the peer's.
    Device,
}

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
    /// The events of this namespace in groups; `None` where some events or packets are missing, so that they cannot be
    /// joined one by one.
    pub(super) groups: Option<Vec<(Mark, ResetTally)>>,
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
    pub fn new(observation: &Observation) -> Result<Self, Missing> {
        let packets = observation.reset_packets.get().map_err(|failure: &Failure| Missing {
            source: "reset_packets",
            reason: failure.reason.clone(),
            needs: failure.needs.clone(),
        })?;
        let whole = matches!(observation.reset_packets, Observed::Full(_)) && packets.lost + packets.dropped == 0;
        let events = observation.reset_events.value().filter(|events| events.dropped == 0 && whole);
        let surroundings = Surroundings::new(observation);
        let mut join = Join::new(packets);
        join.claim_earlier(&observation.earlier_resets);
        let groups = events.map(|events| join.events(events, &surroundings));
        let (rejected, rejected_unnamed) = firewall(&join, groups.as_deref(), &surroundings);
        let from_peers = || packets.packets.iter().filter(|packet| came_from_a_peer(packet));
        let mut forged: BTreeMap<(SocketAddr, SocketAddr), Forged> = BTreeMap::new();
        for packet in from_peers().filter(|packet| packets.ttls.fits(packet.peer, packet.ttl) == Some(false)) {
            forged.entry((packet.local, packet.peer)).or_insert_with(|| Forged {
                local: packet.local,
                peer: packet.peer,
                ttl: packet.ttl,
                usual: packets.ttls.of(packet.peer).to_vec(),
            });
        }
        let judged = from_peers().filter(|packet| packets.ttls.fits(packet.peer, packet.ttl).is_some()).count() as u64;
        let suspects = suspects(observation, packets, &surroundings);
        Ok(Self {
            groups,
            rejected,
            rejected_unnamed,
            forged: forged.into_values().collect(),
            suspects,
            judged,
            received: from_peers().count() as u64,
            incomplete: !whole,
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

fn suspects(observation: &Observation, packets: &ResetPackets, surroundings: &Surroundings) -> Vec<Suspect> {
    let events = observation.reset_events.value();
    let received = |event: &&ResetEvent| event.direction == Direction::Received;
    let ended: Option<BTreeSet<_>> = events.map(|events| {
        events.events.iter().filter(received).filter_map(|event| Some((event.local, event.peer?))).collect()
    });
    let mut suspects: BTreeMap<(SocketAddr, SocketAddr), Suspect> = BTreeMap::new();
    for packet in packets.packets.iter().filter(|packet| came_from_a_peer(packet)) {
        let (Some(ip_id), Some(track)) = (packet.ip_id, packet.track) else { continue };
        let (local, peer) = (packet.local, packet.peer);
        let took = ended.as_ref().is_none_or(|ended| ended.contains(&(local, peer)));
        if !track.fits && took && packets.ttls.fits(peer, packet.ttl) != Some(false) {
            let client = surroundings.is_ephemeral(local.port()) && !surroundings.is_ephemeral(peer.port());
            let port = (!client).then_some(local.port());
            suspects.entry((local, peer)).or_insert(Suspect { local, peer, ip_id, last: track.last, port });
        }
    }
    suspects.into_values().collect()
}

fn came_from_a_peer(packet: &ResetPacket) -> bool {
    packet.direction == Direction::Received && packet.local_here && !packet.peer_here && !packet.loopback
}

/// A RST that netfilter made to answer what this host sent: it carries the peer's address, on the loopback interface.
fn came_back(packet: &ResetPacket) -> bool {
    packet.direction == Direction::Received && packet.local_here && !packet.peer_here && packet.loopback
}

/// Packets, and which of them an event has claimed.
struct Join<'a> {
    packets: &'a ResetPackets,
    claimed: Vec<bool>,
}

impl<'a> Join<'a> {
    fn new(packets: &'a ResetPackets) -> Self {
        Self { packets, claimed: vec![false; packets.packets.len()] }
    }

    /// Packets of events before the window.
    fn claim_earlier(&mut self, earlier: &[ResetEvent]) {
        for index in pair(earlier, &self.packets.packets, apart).into_iter().flatten() {
            if let Some(claimed) = self.claimed.get_mut(index) {
                *claimed = true;
            }
        }
    }

    /// The events that belong here, with what their packets tell.
    fn events(&mut self, events: &ResetEvents, surroundings: &Surroundings) -> Vec<(Mark, ResetTally)> {
        let mut here: BTreeMap<Mark, Vec<ResetEvent>> = BTreeMap::new();
        let (mut without, mut matched) = (Vec::new(), [0u64; 2]);
        let pairs = pair(&events.events, &self.packets.packets, apart);
        for (event, index) in events.events.iter().zip(pairs) {
            let packet = index.and_then(|index| {
                *self.claimed.get_mut(index)? = true;
                self.packets.packets.get(index)
            });
            match packet {
                Some(packet) => {
                    *of(&mut matched, event.direction) += 1;
                    let event = ResetEvent { place: Place::Here, peer: Some(packet.peer), ..event.clone() };
                    here.entry(self.mark(packet)).or_default().push(event);
                }
                None if event.place == Place::Here => without.push(event),
                None => {}
            }
        }
        // A RST can be dropped before a device sees it (an output rule, no route), or pass unseen (IPsec). The counters of
        // this namespace know: the others belong here only as far as they account for them.
        let room = |direction: Direction, matched: u64| match direction {
            Direction::Sent => surroundings.moved("Tcp.OutRsts").map(|sent| sent.saturating_sub(matched)),
            // Those that arrive are all seen or, where they come another way, none.
            Direction::Received if matched + self.packets.received > 0 => Some(0),
            Direction::Received => {
                let moved = |name: &str| surroundings.moved(name).unwrap_or(0);
                let ended =
                    surroundings.moved("Tcp.EstabResets")?.checked_add(surroundings.moved("Tcp.AttemptFails")?)?;
                let own = moved("Tcp.OutRsts") + moved("TcpExt.TCPAbortOnTimeout") + moved("TcpExt.EmbryonicRsts");
                Some(ended.saturating_sub(own))
            }
        };
        for direction in [Direction::Sent, Direction::Received] {
            let mut room = room(direction, *of(&mut matched, direction));
            // Where the process and its namespace are known the guess was better.
            for by_process in [true, false] {
                let rest = || without.iter().filter(|e| e.direction == direction && e.softirq != by_process);
                let count = rest().count() as u64;
                if room.is_none_or(|room| count <= room + room / 10) {
                    here.entry(Mark::default()).or_default().extend(rest().map(|event| (*event).clone()));
                    room = room.map(|room| room.saturating_sub(count));
                }
            }
        }
        here.into_iter()
            .flat_map(|(mark, mut events)| {
                events.sort_by_key(|event| event.at);
                let tallies = regroup(&events, |port| surroundings.is_ephemeral(port));
                tallies.into_iter().map(move |tally| (mark, tally))
            })
            .collect()
    }

    fn mark(&self, packet: &ResetPacket) -> Mark {
        let answered = (packet.direction == Direction::Sent && packet.signature() == Signature::Answer)
            .then_some(if packet.flags & RST_ACK == RST_ACK { Answered::Syn } else { Answered::Segment });
        let origin = match packet {
            packet if came_back(packet) => Origin::Firewall,
            packet if came_from_a_peer(packet) && self.packets.ttls.fits(packet.peer, packet.ttl) == Some(false) => {
                Origin::Device
            }
            _ => Origin::Peer,
        };
        Mark { answered, origin }
    }
}

fn apart(direction: Direction) -> (Duration, Duration) {
    match direction {
        Direction::Sent => (CLOCKS, LATER),
        Direction::Received => (LATER, CLOCKS),
    }
}

fn of(counts: &mut [u64; 2], direction: Direction) -> &mut u64 {
    let [sent, received] = counts;
    if direction == Direction::Sent { sent } else { received }
}

/// The RSTs that TCP did not send.
fn firewall(
    join: &Join<'_>,
    groups: Option<&[(Mark, ResetTally)]>,
    surroundings: &Surroundings,
) -> (Vec<Rejected>, u64) {
    let (opened, closed) = surroundings.window;
    let all =
        || join.packets.packets.iter().enumerate().filter(|(_, packet)| packet.at >= opened && packet.at <= closed);
    let sent = |packet: &ResetPacket| packet.direction == Direction::Sent && packet.local_here;
    let answers: Vec<&ResetPacket> = all()
        .filter(|(index, packet)| sent(packet) && !join.claimed.get(*index).copied().unwrap_or(false))
        .map(|(_, packet)| packet)
        .filter(|packet| packet.signature() == Signature::Answer && INITIAL_TTLS.contains(&packet.ttl))
        .collect();
    let counted = surroundings.moved("Tcp.OutRsts");
    let seen = all().filter(|(_, packet)| sent(packet)).count() as u64;
    // Packets and counters do not begin and end at the same instant: in a storm that alone makes a few too many.
    let excess = counted.map_or(0, |counted| seen.saturating_sub(counted)).saturating_sub(seen / 100);
    // Every RST that TCP counted has an event (Linux 6.10 and later): what has none is not TCP's.
    let explained = groups.map_or(0, |groups| {
        let sent = groups.iter().filter(|(_, tally)| tally.direction == Direction::Sent);
        sent.map(|(_, tally)| tally.count).sum()
    });
    let all_explained = groups.is_some() && counted.is_some_and(|counted| explained >= counted);
    let fit = |count: u64| count <= excess + excess / 20;
    let named = all_explained || fit(answers.len() as u64);
    type Place = (Hook, IpAddr, Option<u16>, Option<SocketAddr>);
    let mut places: BTreeMap<Place, BTreeMap<IpAddr, u64>> = BTreeMap::new();
    let back = all().map(|(_, packet)| packet).filter(|packet| came_back(packet)).map(|packet| (Hook::Output, packet));
    for (hook, packet) in answers.iter().filter(|_| named).map(|packet| (Hook::Input, *packet)).chain(back) {
        let client = surroundings.is_ephemeral(packet.local.port()) && !surroundings.is_ephemeral(packet.peer.port());
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
