//! On which host a capture was made: what the link layer says of the direction, TTLs that no router has touched, and how long
//! each side takes to answer in a handshake.

use std::collections::HashMap;
use std::net::IpAddr;

use super::flow::Flow;
use super::link::Segment;

/// Addresses that are weighed.
const ADDRESSES: usize = 4_096;
/// What Linux and others send with.
const INITIAL: [u8; 3] = [64, 128, 255];
/// An answer that comes so many times faster than the other side's was made where the capture was made.
const FASTER: f64 = 4.0;

/// Weights of the addresses of a capture.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Here {
    given: Vec<IpAddr>,
    /// A packet from or to one of them was seen.
    seen: bool,
    weights: HashMap<IpAddr, i64>,
}

impl Here {
    pub fn given(&mut self, addresses: &[IpAddr]) {
        self.given = addresses.to_vec();
    }

    pub fn is_given(&self) -> bool {
        !self.given.is_empty()
    }

    fn weigh(&mut self, address: IpAddr, weight: i64) {
        if self.weights.len() < ADDRESSES || self.weights.contains_key(&address) {
            let known = self.weights.entry(address).or_default();
            *known = known.saturating_add(weight);
        }
    }

    /// No packet has an address that was given.
    pub fn is_given_in_vain(&self) -> bool {
        self.is_given() && !self.seen
    }

    pub(super) fn segment(&mut self, segment: &Segment<'_>) {
        if self.is_given() && !self.seen {
            self.seen = [segment.from, segment.to].iter().any(|end| self.given.contains(&end.ip()));
        }
        if let Some(sent) = segment.sent_here {
            let (here, there) = if sent { (segment.from, segment.to) } else { (segment.to, segment.from) };
            self.weigh(here.ip(), 20);
            self.weigh(there.ip(), -20);
        }
        // Each router takes one away: a packet with less came from elsewhere, one with all of it from here or the next host.
        match segment.ttl {
            Some(ttl) if !INITIAL.contains(&ttl) => self.weigh(segment.from.ip(), -2),
            _ => {}
        }
    }

    pub(super) fn handshake(&mut self, flow: &Flow) {
        let (Some(opened), Some(accepted), Some(established)) = (flow.opened, flow.accepted, flow.established) else {
            return;
        };
        let to_acceptor = accepted.saturating_sub(opened).as_secs_f64().max(1e-6);
        let to_initiator = established.saturating_sub(accepted).as_secs_f64().max(1e-6);
        let (fast, slow) = if to_acceptor > to_initiator * FASTER {
            (flow.initiator, flow.acceptor)
        } else if to_initiator > to_acceptor * FASTER {
            (flow.acceptor, flow.initiator)
        } else {
            return;
        };
        self.weigh(fast.ip(), 10);
        self.weigh(slow.ip(), -10);
    }

    /// Which of the two the capture was made at; `None` where both or neither may be it.
    pub(super) fn of(&self, initiator: IpAddr, acceptor: IpAddr) -> Option<super::flow::Side> {
        use super::flow::Side::{Acceptor, Initiator};
        match (self.given.contains(&initiator), self.given.contains(&acceptor)) {
            (true, false) => return Some(Initiator),
            (false, true) => return Some(Acceptor),
            (true, true) => return None,
            (false, false) if self.is_given() => return None,
            (false, false) => {}
        }
        // Both ends are on one host.
        if initiator == acceptor || initiator.is_loopback() {
            return None;
        }
        let weight = |address| self.weights.get(&address).copied().unwrap_or(0);
        match weight(initiator) - weight(acceptor) {
            more if more >= 4 => Some(Initiator),
            less if less <= -4 => Some(Acceptor),
            _ => None,
        }
    }
}
