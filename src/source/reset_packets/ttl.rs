//! Which TTL the packets of a peer usually arrive with: a RST with another one was made somewhere else on the path.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

/// Peers and flows that are remembered, each; the oldest flows are forgotten, further peers are not taken.
const MAX_KEYS: usize = 4096;
/// Different values that are remembered of one key: routes change, several hosts may share one address.
const MAX_VALUES: usize = 4;
/// Route changes and load balancers move a TTL by one or two.
const TOLERANCE: u8 = 2;
/// Packets of a peer's address that must be known before a RST of another of its flows is judged by them.
const ENOUGH: u32 = 3;

/// TTLs of received packets other than RSTs: of SYNs, and of samples of the rest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerTtls {
    flows: BTreeMap<SocketAddr, Seen>,
    order: VecDeque<SocketAddr>,
    peers: BTreeMap<IpAddr, Seen>,
}

/// Without a place of its own for each: all of them are copied whenever somebody keeps an earlier state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Seen {
    packets: u32,
    values: [u8; MAX_VALUES],
    /// So many of the values.
    different: u8,
}

impl Seen {
    fn add(&mut self, ttl: u8) {
        self.packets = self.packets.saturating_add(1);
        if !self.values().contains(&ttl)
            && let Some(free) = self.values.get_mut(usize::from(self.different))
        {
            *free = ttl;
            self.different += 1;
        }
    }

    fn values(&self) -> &[u8] {
        self.values.get(..usize::from(self.different)).unwrap_or_default()
    }
}

impl PeerTtls {
    pub fn add(&mut self, peer: SocketAddr, ttl: u8) {
        if !self.flows.contains_key(&peer) {
            if self.order.len() >= MAX_KEYS
                && let Some(oldest) = self.order.pop_front()
            {
                self.flows.remove(&oldest);
            }
            self.order.push_back(peer);
        }
        self.flows.entry(peer).or_default().add(ttl);
        if self.peers.len() < MAX_KEYS || self.peers.contains_key(&peer.ip()) {
            self.peers.entry(peer.ip()).or_default().add(ttl);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// TTLs that packets of this flow arrived with; of its address if the flow itself was not seen. Empty when too little
    /// is known.
    pub fn of(&self, peer: SocketAddr) -> &[u8] {
        let address = || self.peers.get(&peer.ip()).filter(|seen| seen.packets >= ENOUGH);
        // A value that did not fit any more could be the very one that is asked for.
        self.flows
            .get(&peer)
            .or_else(address)
            .map(Seen::values)
            .filter(|values| values.len() < MAX_VALUES)
            .unwrap_or_default()
    }

    /// Whether a packet with this TTL took the way that the others of the peer took; `None` when too little is known.
    pub fn fits(&self, peer: SocketAddr, ttl: u8) -> Option<bool> {
        let values = self.of(peer);
        (!values.is_empty()).then(|| values.iter().any(|value| value.abs_diff(ttl) <= TOLERANCE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::new([10, 0, 0, 9].into(), port)
    }

    #[test]
    fn a_flow_is_judged_by_itself_and_else_by_its_address() {
        let mut ttls = PeerTtls::default();
        ttls.add(peer(1), 57);
        assert_eq!((ttls.fits(peer(1), 56), ttls.fits(peer(1), 40)), (Some(true), Some(false)));
        assert_eq!(ttls.fits(peer(2), 40), None, "one packet of another flow is too little");
        ttls.add(peer(3), 57);
        ttls.add(peer(4), 120);
        assert_eq!((ttls.fits(peer(2), 40), ttls.fits(peer(2), 121)), (Some(false), Some(true)));
        assert_eq!(ttls.fits(peer(1), 121), Some(false), "another host behind the address does not speak for it");
    }

    #[test]
    fn memory_is_bounded_and_the_latest_flows_stay() {
        let mut ttls = PeerTtls::default();
        for number in 0..20_000u32 {
            ttls.add(SocketAddr::new(std::net::Ipv4Addr::from(number).into(), 80), 60);
        }
        assert!(ttls.flows.len() <= MAX_KEYS && ttls.order.len() <= MAX_KEYS && ttls.peers.len() <= MAX_KEYS);
        assert_eq!(ttls.fits(SocketAddr::new(std::net::Ipv4Addr::from(19_999).into(), 80), 61), Some(true));
    }
}
