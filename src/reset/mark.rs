//! What the packet of a reset tells beside its event.

use crate::source::reset_events::Direction;
use crate::source::reset_packets::{PeerTtls, ResetPacket, Signature};

use super::{Exchange, Reset};

const RST_ACK: u8 = 0x14;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mark {
    /// Its packet was seen, which proves the namespace.
    pub on_wire: bool,
    pub answered: Option<Answered>,
    pub origin: Origin,
    /// See [`Reset::again`].
    pub again: bool,
    pub exchange: Option<Exchange>,
    /// See [`Reset::closed`].
    pub closed: bool,
    /// Only its packet was seen.
    pub packet_alone: bool,
    /// The connection that it ended was destroyed with data that no process had read.
    pub left_unread: bool,
}

/// What a sent RST answered, from its form (net/ipv4/tcp_ipv4.c tcp_v4_send_reset; RFC 9293, 3.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answered {
    /// A segment without ACK: a SYN.
    Syn,
    /// A segment of a connection.
    Segment,
}

/// Who sent a RST that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Origin {
    /// The peer, as far as one can see.
    #[default]
    Peer,
    /// Netfilter on this host.
    Firewall,
    /// Something on the path: its packets take another way than the peer's.
    Device,
}

impl Mark {
    /// `ttls`: with which TTL the peers' other packets arrive.
    pub fn of(reset: &Reset, ttls: &PeerTtls) -> Self {
        let exchange = Exchange::of(reset);
        let left_unread = reset.ended.as_ref().is_some_and(|ended| ended.unread > 0);
        let Reset { again, closed, .. } = *reset;
        let Some(packet) = &reset.packet else {
            return Self { again, closed, left_unread, exchange, ..Self::default() };
        };
        let origin = match packet {
            packet if packet.came_back() => Origin::Firewall,
            packet if packet.came_from_a_peer() && ttls.fits(packet.peer, packet.ttl) == Some(false) => Origin::Device,
            _ => Origin::Peer,
        };
        let (answered, packet_alone) = (Answered::by(packet), reset.event.is_none());
        Self { on_wire: true, answered, origin, again, closed, packet_alone, left_unread, exchange }
    }
}

impl Answered {
    /// `None` for a packet that is no answer of ours.
    pub fn by(packet: &ResetPacket) -> Option<Self> {
        let answer = packet.direction == Direction::Sent && packet.signature() == Signature::Answer;
        answer.then_some(if packet.flags & RST_ACK == RST_ACK { Self::Syn } else { Self::Segment })
    }
}
