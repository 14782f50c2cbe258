//! What refused without TCP: netfilter of this host by RST or ICMP, and others by ICMP.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use super::super::Grouped;
use super::super::context::moved;
use super::is_client;
use crate::observation::View;
use crate::reset::{Alone, Answered, Mark, Surroundings};
use crate::source::reset_events::{Direction, ResetTally};
use crate::source::reset_packets::{Code, INITIAL_TTLS, PacketAccount, ResetPacket, Signature, Unreachable};

/// Where a packet filter rejects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Something that came in: the answer leaves the host.
    Input,
    /// Something that passes through this host, a router or a node of containers.
    Forward,
    /// Something that this host wanted to send: the answer comes back to it on the loopback interface.
    Output,
    /// Not on this host: the one that was called, or a device on the way to it.
    Remote,
}

/// How it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Means {
    Rst,
    Icmp(Code),
}

/// What was rejected at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    pub hook: Hook,
    pub means: Means,
    /// Who sent the answer; of a RST in whose name.
    pub local: IpAddr,
    /// Our port, where this side is the server.
    pub port: Option<u16>,
    /// Who was called, where it is not this host.
    pub called: Option<SocketAddr>,
    pub peers: BTreeMap<IpAddr, u64>,
    pub count: u64,
}

impl Rejected {
    /// Whom this host called, where it is connects of its own that were refused.
    pub fn called_from_here(&self) -> Option<SocketAddr> {
        self.called.filter(|_| matches!(self.hook, Hook::Remote | Hook::Output))
    }

    /// Connects of this host to it were refused by ICMP.
    pub fn refuses_connects_to(&self, called: SocketAddr) -> bool {
        matches!(self.means, Means::Icmp(_)) && self.called_from_here() == Some(called)
    }
}

/// A destination of which a router, or this host itself, said that there is no way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoWay {
    pub called: SocketAddr,
    pub reporter: IpAddr,
    /// This host itself says so: nobody answers there on a network that it is part of, or it has no route.
    pub own: bool,
    pub count: u64,
}

/// Everything that refused.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Refusals {
    pub rejected: Vec<Rejected>,
    /// Netfilter's RSTs that cannot be told from TCP's own one by one.
    pub unnamed: u64,
    pub no_way: Vec<NoWay>,
}

type Place = (Hook, Means, IpAddr, Option<u16>, Option<SocketAddr>);

#[derive(Default)]
struct Places(BTreeMap<Place, BTreeMap<IpAddr, u64>>);

impl Places {
    fn add(&mut self, place: Place, peer: IpAddr, count: u64) {
        *self.0.entry(place).or_default().entry(peer).or_default() += count;
    }
}

pub(super) fn refusals(
    view: View<'_>,
    account: &PacketAccount,
    grouped: &Grouped,
    around: &Surroundings,
    whole: bool,
) -> Refusals {
    let mut places = Places::default();
    let unnamed = own_resets(view, grouped, around, &mut places);
    if whole {
        forwarded_resets(view, &mut places);
    }
    let mut no_way: BTreeMap<(SocketAddr, IpAddr, bool), u64> = BTreeMap::new();
    for (error, count) in &account.unreachable.counts {
        by_icmp(error, *count, &mut places, &mut no_way);
    }
    let mut rejected: Vec<Rejected> = places
        .0
        .into_iter()
        .map(|((hook, means, local, port, called), peers)| {
            let count = peers.values().sum();
            Rejected { hook, means, local, port, called, peers, count }
        })
        .collect();
    rejected.sort_by_key(|rejected| std::cmp::Reverse(rejected.count));
    let of = |((called, reporter, own), count)| NoWay { called, reporter, own, count };
    let mut no_way: Vec<NoWay> = no_way.into_iter().map(of).collect();
    no_way.sort_by_key(|no_way| std::cmp::Reverse(no_way.count));
    Refusals { rejected, unnamed, no_way }
}

/// The RSTs of this host's addresses that TCP did not send; how many cannot be told from TCP's.
fn own_resets(view: View<'_>, grouped: &Grouped, around: &Surroundings, places: &mut Places) -> u64 {
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
    // Every RST that TCP counted has an event: what has none is not TCP's.
    let has_event = |(mark, tally): &&(Mark, ResetTally)| tally.direction == Direction::Sent && !mark.packet_alone;
    let of_events = grouped.here.iter().filter(has_event);
    let explained: u64 = of_events.map(|(_, tally)| tally.count).sum();
    let traced = grouped.by_packets && view.host.reset_events.value().is_some();
    let all_explained = traced && counted.is_some_and(|counted| explained >= counted);
    let fit = |count: u64| count <= excess + excess / 20;
    let (answers, excess, named) = match grouped.alone {
        None => {
            let named = all_explained || fit(answers.len() as u64);
            (answers, excess, named)
        }
        Some((alone, count)) => {
            let rejected: Vec<_> = answers.into_iter().filter(|packet| around.is_rejected(packet)).collect();
            let unnamed = count.saturating_sub(rejected.len() as u64);
            (rejected, unnamed, alone != Alone::Unclear)
        }
    };
    let shown = named || grouped.alone.is_some();
    let back = packets().filter(|packet| packet.came_back()).map(|packet| (Hook::Output, packet));
    for (hook, packet) in answers.iter().filter(|_| shown).map(|packet| (Hook::Input, *packet)).chain(back) {
        let client = is_client(packet, around);
        let (port, called) = if client { (None, Some(packet.peer)) } else { (Some(packet.local.port()), None) };
        places.add((hook, Means::Rst, packet.local.ip(), port, called), packet.peer.ip(), 1);
    }
    if named { 0 } else { excess }
}

/// RSTs in the name of others that left this host and had not come in: those that pass through were routed, so that their TTL
/// is no initial one, or came in just before.
fn forwarded_resets(view: View<'_>, places: &mut Places) {
    let packets = || view.netns.resets.single.iter().filter_map(|reset| reset.packet.as_ref());
    let mark = |packet: &ResetPacket, end: SocketAddr| (packet.seq, packet.ack, packet.flags, end);
    // Translation of addresses changes one of the ends.
    let came_in: HashSet<_> = packets()
        .filter(|packet| packet.direction == Direction::Received && !packet.local_here)
        .flat_map(|packet| [mark(packet, packet.local), mark(packet, packet.peer)])
        .collect();
    let made_here: Vec<&ResetPacket> = packets()
        .filter(|packet| packet.is_in_anothers_name())
        .filter(|packet| [packet.local, packet.peer].iter().all(|end| !came_in.contains(&mark(packet, *end))))
        .collect();
    // A transparent proxy's TCP sends in the name of others too, and counts it.
    let own = packets().filter(|packet| packet.direction == Direction::Sent && packet.local_here).count() as u64;
    let of_tcp = moved(view, "Tcp.OutRsts").map_or(u64::MAX, |counted| counted.saturating_sub(own));
    if of_tcp.saturating_mul(10) > made_here.len() as u64 {
        return;
    }
    for packet in made_here {
        let called = match Answered::by(packet) {
            Some(Answered::Syn) => packet.local,
            // The lower port is the service's, as a rule.
            _ if packet.local.port() <= packet.peer.port() => packet.local,
            _ => packet.peer,
        };
        let caller = if called == packet.local { packet.peer } else { packet.local };
        places.add((Hook::Forward, Means::Rst, packet.local.ip(), None, Some(called)), caller.ip(), 1);
    }
}

fn by_icmp(
    error: &Unreachable,
    count: u64,
    places: &mut Places,
    no_way: &mut BTreeMap<(SocketAddr, IpAddr, bool), u64>,
) {
    let means = Means::Icmp(error.code);
    let (service, caller) =
        if error.answer { (error.source, error.destination) } else { (error.destination, error.source) };
    let own = error.reporter_here;
    // What this host sends itself it also receives, and what another sends it may only pass on.
    let (hook, port, called) = match (error.direction, own, error.source_here, error.destination_here) {
        (Direction::Sent, true, _, true) if !error.answer => (Hook::Input, Some(service.port()), None),
        (Direction::Sent, true, true, _) if error.answer => (Hook::Output, Some(service.port()), None),
        (Direction::Sent, true, true, false) => (Hook::Output, None, Some(service)),
        (Direction::Sent, true, false, false) => (Hook::Forward, None, Some(service)),
        (Direction::Received, false, true, _) if !error.answer => (Hook::Remote, None, Some(service)),
        _ => return,
    };
    let by_the_called = error.reporter == service.ip();
    if error.code == Code::Host && hook != Hook::Input && !by_the_called {
        *no_way.entry((service, error.reporter, own)).or_default() += count;
        return;
    }
    places.add((hook, means, error.reporter, port, called), caller.ip(), count);
}
