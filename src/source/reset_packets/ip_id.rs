//! Whether the IP id of a received RST continues those of its connection.
//!
//! Linux counts the id up by one with each packet of a connection, aborts by its own socket included; its answers to segments
//! without a socket carry id 0 and DF (net/ipv4/ip_output.c ip_select_ident_segs; seen on Linux 6.18). Windows counts up for
//! all connections together. Others use 0, or random ids: of these nothing can be said. What counts up and then jumps far away
//! was written by somebody else, or by a load balancer that builds its RSTs apart: a hint and no proof (Weaver, Sommer,
//! Paxson: Detecting Forged TCP Reset Packets, NDSS 2009).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};

/// Connections and peers that are remembered, each; the oldest connections are forgotten, further peers are not taken.
const MAX_KEYS: usize = 4096;
/// Between two samples of one connection: one packet in 16 is sampled, and each may be merged from several (GRO).
const STEP: u16 = 512;
/// Farther than this the packets that were not sampled cannot have counted.
const FAR: u16 = 16_384;
/// Backwards by less is a packet that was overtaken.
const OVERTAKEN: u16 = 64;
/// Steps of one peer that must be known, none of them far, before its RSTs are judged: five by chance are one in 10^10.
const ENOUGH: u32 = 5;

/// What the packets of a connection before a RST say about its IP id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Track {
    /// The latest that was sampled.
    pub last: u16,
    /// The RST has an id that may follow, or none (0).
    pub fits: bool,
}

/// Ids of sampled packets that peers sent with DF, as long as all could be sampled that should be.
#[derive(Debug, Default)]
pub struct Tracks {
    /// By the hash of ours and theirs, an eighth of their size. That two of so few connections have the same is as likely as one
    /// in a million million.
    connections: HashMap<u64, u16>,
    order: VecDeque<u64>,
    hasher: RandomState,
    peers: BTreeMap<IpAddr, Peer>,
    stopped: bool,
}

#[derive(Debug, Default)]
struct Peer {
    steps: u32,
    jumps: bool,
}

impl Tracks {
    /// Too few packets are sampled from now on.
    pub fn stop(&mut self) {
        *self = Self { stopped: true, ..Self::default() };
    }

    /// A packet other than a RST was received. Id 0 says nothing: SYN-ACKs of Linux have it, and every packet of some.
    pub fn add(&mut self, local: SocketAddr, peer: SocketAddr, id: u16) {
        if self.stopped || id == 0 {
            return;
        }
        if self.peers.len() >= MAX_KEYS && !self.peers.contains_key(&peer.ip()) {
            return;
        }
        let known = self.peers.entry(peer.ip()).or_default();
        let connection = self.hasher.hash_one((local, peer));
        match self.connections.insert(connection, id) {
            Some(last) => match id.wrapping_sub(last) {
                0 => {}
                1..=STEP => known.steps = known.steps.saturating_add(1),
                step if step > FAR && step < 0u16.wrapping_sub(OVERTAKEN) => known.jumps = true,
                _ => {}
            },
            None => {
                if self.order.len() >= MAX_KEYS
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.connections.remove(&oldest);
                }
                self.order.push_back(connection);
            }
        }
    }

    /// Judges a received RST; `None` when too little is known.
    pub fn judge(&self, local: SocketAddr, peer: SocketAddr, id: u16) -> Option<Track> {
        self.peers.get(&peer.ip()).filter(|known| known.steps >= ENOUGH && !known.jumps)?;
        let last = *self.connections.get(&self.hasher.hash_one((local, peer)))?;
        let step = id.wrapping_sub(last);
        Some(Track { last, fits: id == 0 || step <= FAR || step >= 0u16.wrapping_sub(OVERTAKEN) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ends(port: u16) -> (SocketAddr, SocketAddr) {
        (SocketAddr::new([10, 0, 0, 1].into(), 80), SocketAddr::new([10, 0, 0, 9].into(), port))
    }

    /// A peer like Linux: two connections, each with ids of its own.
    fn counting() -> Tracks {
        let mut tracks = Tracks::default();
        for step in 0..4u16 {
            for port in [1, 2] {
                let (local, peer) = ends(port);
                tracks.add(local, peer, (port * 30_000).wrapping_add(step * 17));
            }
        }
        tracks
    }

    fn judge(tracks: &Tracks, port: u16, id: u16) -> Option<bool> {
        let (local, peer) = ends(port);
        tracks.judge(local, peer, id).map(|track| track.fits)
    }

    #[test]
    fn a_reset_that_continues_or_answers_fits_and_one_from_far_away_does_not() {
        let tracks = counting();
        assert_eq!(judge(&tracks, 1, 30_052), Some(true), "tcp_send_active_reset()");
        assert_eq!(judge(&tracks, 1, 0), Some(true), "tcp_v4_send_reset()");
        assert_eq!(judge(&tracks, 1, 30_051 + 9_000), Some(true), "much may have passed since the last sample");
        assert_eq!(judge(&tracks, 1, 30_020), Some(true), "overtaken");
        assert_eq!(judge(&tracks, 1, 60_060), Some(false), "the ids of the other connection");
        assert_eq!(judge(&tracks, 1, 64), Some(false));
        assert_eq!(judge(&tracks, 3, 64), None, "a connection that was not seen");
    }

    #[test]
    fn a_peer_whose_ids_jump_is_never_judged() {
        let mut tracks = counting();
        let (local, peer) = ends(2);
        tracks.add(local, peer, 40_000);
        assert_eq!((judge(&tracks, 1, 64), judge(&tracks, 2, 7)), (None, None));
    }

    #[test]
    fn ids_that_are_always_zero_say_nothing() {
        let mut tracks = Tracks::default();
        let (local, peer) = ends(1);
        (0..20).for_each(|_| tracks.add(local, peer, 0));
        assert_eq!(judge(&tracks, 1, 64), None);
    }

    #[test]
    fn with_too_few_samples_nothing_is_judged() {
        let mut tracks = counting();
        tracks.stop();
        let (local, peer) = ends(1);
        (0..20).for_each(|id| tracks.add(local, peer, id + 1));
        assert_eq!(judge(&tracks, 1, 60_000), None);
    }

    #[test]
    fn memory_is_bounded() {
        let mut tracks = Tracks::default();
        for number in 0..20_000u32 {
            let peer = SocketAddr::new(std::net::Ipv4Addr::from(number).into(), 80);
            tracks.add(ends(1).0, peer, 1);
            tracks.add(ends(1).0, SocketAddr::new([10, 0, 0, 9].into(), number as u16), 1);
        }
        assert!(
            tracks.connections.len() <= MAX_KEYS && tracks.order.len() <= MAX_KEYS && tracks.peers.len() <= MAX_KEYS
        );
    }

    proptest! {
        #[test]
        fn random_ids_are_not_taken_for_counting(ids in proptest::collection::vec(1u16.., 40..200), id in 1u16..) {
            let mut tracks = Tracks::default();
            let (local, peer) = ends(1);
            ids.iter().for_each(|id| tracks.add(local, peer, *id));
            prop_assert_eq!(judge(&tracks, 1, id), None);
        }

        #[test]
        fn what_counts_up_is_never_accused(first: u16, steps in proptest::collection::vec(1u16..300, 6..100), more in 0u16..5_000) {
            let mut tracks = Tracks::default();
            let (local, peer) = ends(1);
            let mut id = first;
            for step in steps {
                id = id.wrapping_add(step);
                tracks.add(local, peer, id);
            }
            prop_assert_ne!(judge(&tracks, 1, id.wrapping_add(more)), Some(false));
        }
    }
}
