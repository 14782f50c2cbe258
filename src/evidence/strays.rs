//! Segments that belong to a connection and are taken for one of nobody: what a node does that passes INVALID packets on without
//! translating their addresses. Each end has a clue of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::evidence::Evidence;
use crate::reset::{Answered, Reset};
use crate::source::reset_events::Direction;
use crate::source::reset_packets::{PeerTtls, ResetPacket, Signature};

/// Answers to connections of this host that came in the name of another, so that TCP here reset that other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untranslated {
    /// Whom this host calls: the virtual address.
    pub called: SocketAddr,
    /// Who answered: a server behind it.
    pub answered: SocketAddr,
    pub resets: u64,
}

/// Peers that had reset their connections, by their own TCP as it seems, and went on to send on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentOn {
    /// The served port.
    pub port: u16,
    pub peers: BTreeMap<IpAddr, u64>,
    pub resets: u64,
    /// The RSTs have the form of an answer to a segment of an unknown connection.
    pub answers: u64,
}

/// A segment that had left before its sender's RST may arrive after it, in another queue.
const OVERTAKEN: Duration = Duration::from_millis(20);

impl Evidence<'_> {
    /// See [`Untranslated`], the most frequent first.
    pub fn untranslated(&self) -> Vec<Untranslated> {
        let mut of_port: HashMap<SocketAddr, SocketAddr> = HashMap::new();
        let dumps = [self.socket_dump_before(), self.socket_dump()].into_iter().flatten();
        let samples = dumps.flat_map(|dump| &dump.groups).filter(|group| !group.accepted);
        of_port.extend(samples.flat_map(|group| &group.samples).map(|sample| (sample.local, sample.peer)));
        let ended = self.ended().unwrap_or_default().iter();
        of_port.extend(ended.filter_map(|ended| Some((ended.socket.local, ended.called?))));
        let mut found: BTreeMap<(SocketAddr, SocketAddr), u64> = BTreeMap::new();
        for (local, peer) in self.resets().iter().filter(|reset| self.answers_a_segment(reset)).filter_map(ends) {
            match of_port.get(&local) {
                Some(called) if called.ip() != peer.ip() => *found.entry((*called, peer)).or_default() += 1,
                _ => {}
            }
        }
        let of = |((called, answered), resets)| Untranslated { called, answered, resets };
        let mut found: Vec<_> = found.into_iter().map(of).collect();
        found.sort_by_key(|untranslated| std::cmp::Reverse(untranslated.resets));
        found
    }

    /// See [`SentOn`].
    pub fn sent_on(&self) -> Vec<SentOn> {
        let mut reset_at: HashMap<(SocketAddr, SocketAddr), (Duration, bool)> = HashMap::new();
        let mut found: BTreeMap<u16, SentOn> = BTreeMap::new();
        for reset in self.resets() {
            let Some((local, peer)) = ends(reset) else { continue };
            if reset.direction() == Direction::Received && reset.event.is_some() {
                let answer = reset.packet.as_ref().is_some_and(|packet| packet.signature() == Signature::Answer);
                reset_at.insert((local, peer), (reset.at(), answer));
            } else if self.answers_a_segment(reset)
                && let Some((at, answer)) = reset_at.get(&(local, peer)).copied()
                && reset.at().saturating_sub(at) > OVERTAKEN
            {
                // Once for each connection: it is sent again and again.
                reset_at.remove(&(local, peer));
                let port = local.port();
                let one = SentOn { port, peers: BTreeMap::new(), resets: 0, answers: 0 };
                let sent_on = found.entry(port).or_insert(one);
                *sent_on.peers.entry(peer.ip()).or_default() += 1;
                sent_on.resets += 1;
                sent_on.answers += u64::from(answer);
            }
        }
        let mut found: Vec<_> = found.into_values().collect();
        found.sort_by_key(|sent_on| std::cmp::Reverse(sent_on.resets));
        found
    }

    /// This host's TCP answered a segment of no connection.
    fn answers_a_segment(&self, reset: &Reset) -> bool {
        let segment = reset.packet.as_ref().and_then(Answered::by) == Some(Answered::Segment);
        segment && self.is_sent_for(reset, &["NO_SOCKET", "TCP_FLAGS"])
    }

    /// Data came for a connection that this host had closed in order.
    pub fn is_for_late_data(&self, reset: &Reset) -> bool {
        self.is_sent_for(reset, &["TCP_ABORT_ON_DATA", "TCP_TIMEWAIT_SOCKET"])
    }

    /// This host's TCP sent it for one of these reasons, named as in `enum sk_rst_reason`; stated by the kernel or deduced.
    pub fn is_sent_for(&self, reset: &Reset, reasons: &[&str]) -> bool {
        let none = PeerTtls::default();
        let ttls = self.view.netns.reset_packets.value().map_or(&none, |account| &account.ttls);
        self.surroundings.is_sent_for(reset, ttls, reasons)
    }

    /// The TTL of the RSTs with which this destination refuses connects, and that of its other packets, where they have none in
    /// common: another sends the RSTs.
    pub fn refused_from_elsewhere(&self, called: SocketAddr) -> Option<(Vec<u8>, Vec<u8>)> {
        let usual = self.view.netns.reset_packets.value()?.ttls.of(called).to_vec();
        let refuses = |reset: &&Reset| reset.is_refused_connect() && reset.peer() == Some(called);
        let packets = self.resets().iter().filter(refuses).filter_map(|reset| reset.packet.as_ref());
        let ttls: BTreeSet<u8> = packets.map(|packet| packet.ttl).collect();
        let apart = !usual.is_empty() && !ttls.is_empty() && usual.iter().all(|ttl| !ttls.contains(ttl));
        apart.then(|| (ttls.into_iter().collect(), usual))
    }

    /// RSTs that only passed through this host and answer a segment of a connection that their sender does not know.
    pub fn answers_passing_through(&self) -> u64 {
        let passing = |packet: &&ResetPacket| !packet.local_here && !packet.peer_here;
        let packets = self.resets().iter().filter_map(|reset| reset.packet.as_ref()).filter(passing);
        packets.filter(|packet| Answered::by(packet) == Some(Answered::Segment)).count() as u64
    }
}

fn ends(reset: &Reset) -> Option<(SocketAddr, SocketAddr)> {
    Some((reset.local()?, reset.peer()?))
}
