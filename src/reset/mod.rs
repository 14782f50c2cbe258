//! One RST: the kernel's event, the packet on the wire and the connection that it ended, joined once while they are drained;
//! and what kind of reset that was. Scan, watch and trace ask here, so that they cannot disagree.

use std::net::SocketAddr;
use std::time::Duration;

use crate::source::destroyed_sockets::DestroyedSocket;
use crate::source::reset_events::{Direction, ResetEvent};
use crate::source::reset_packets::{ResetPacket, Signature};
use crate::value::{Errno, NetnsId, TcpState};

mod aborted;
mod closed;
mod deduce;
mod errors;
mod exchange;
mod join;
mod judge;
mod kind;
mod mark;
mod pairing;
mod received;
mod room;
#[cfg(test)]
pub(crate) mod testing;

pub use deduce::{Aborts, Told};
pub use errors::JoinedError;
pub use exchange::{Exchange, TLS_PORTS, answered_after, patience};
pub use join::{Drained, End, Ending, Joined, Joiner};
pub use judge::{Alone, Moved, Surroundings, Traced};
pub use kind::Kind;
pub use mark::{Answered, Mark, Origin};

/// One RST by event, packet, or both.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reset {
    pub event: Option<ResetEvent>,
    pub packet: Option<ResetPacket>,
    /// The connection as it was when it was destroyed, where this reset ended one.
    pub ended: Option<Box<DestroyedSocket>>,
    /// An answer to what was still on the way when the connection was reset, from here or by the peer.
    pub again: bool,
    /// The connection that the answered segment was of had been closed here, shortly before.
    pub closed: bool,
    /// What the program on this side gets from its next call, where the kernel told.
    pub errno: Option<Errno>,
}

/// Local and peer.
type Ends = (SocketAddr, SocketAddr);

impl Reset {
    /// When it happened, CLOCK_BOOTTIME. The event of a reset by the socket itself comes after its packet
    /// (tcp_send_active_reset()), and on loopback even after the peer has received it.
    pub fn at(&self) -> Duration {
        let times = [self.event.as_ref().map(|event| event.at), self.packet.as_ref().map(|packet| packet.at)];
        times.into_iter().flatten().min().unwrap_or_default()
    }

    /// The network namespace: the packet's, which passed there, else what the event tells.
    pub fn netns(&self) -> Option<NetnsId> {
        let of_packet = self.packet.as_ref().map(|packet| packet.netns);
        of_packet.or_else(|| self.event.as_ref().and_then(|event| event.netns))
    }

    pub fn direction(&self) -> Direction {
        match (&self.event, &self.packet) {
            (Some(event), _) => event.direction,
            (None, Some(packet)) => packet.direction,
            (None, None) => Direction::Sent,
        }
    }

    /// A listener's event knows only what the listener is bound to; the packet names the address that was called.
    pub fn local(&self) -> Option<SocketAddr> {
        let of_event = self.event.as_ref().map(|event| event.local).filter(|local| !local.ip().is_unspecified());
        of_event.or(self.packet.as_ref().map(|packet| packet.local)).or(self.event.as_ref().map(|event| event.local))
    }

    /// `None` where only an event of a LISTEN socket was seen.
    pub fn peer(&self) -> Option<SocketAddr> {
        let of_event = self.event.as_ref().and_then(|event| event.peer);
        of_event.or(self.packet.as_ref().map(|packet| packet.peer))
    }

    /// The packet of an answer of this host without an event.
    pub fn lone_answer(&self) -> Option<&ResetPacket> {
        let packet = self.packet.as_ref().filter(|_| self.event.is_none())?;
        let sent = packet.direction == Direction::Sent && packet.local_here;
        (sent && packet.signature() == Signature::Answer).then_some(packet)
    }

    /// TCP of a known namespace sent it, and counts it (`Tcp.OutRsts`).
    pub fn is_counted(&self) -> bool {
        self.event.as_ref().is_some_and(|event| event.direction == Direction::Sent) && self.netns().is_some()
    }

    /// Its event, with the namespace and the ends that its packet adds.
    pub fn located_event(&self) -> Option<ResetEvent> {
        let mut event = ResetEvent { netns: self.netns(), ..self.event.clone()? };
        (event.local, event.peer) = (self.local().unwrap_or(event.local), self.peer());
        Some(event)
    }

    /// As if there were an event of an RST that TCP sent and of which only the packet was seen.
    pub fn packet_as_event(&self) -> Option<ResetEvent> {
        let packet =
            self.packet.as_ref().filter(|packet| self.event.is_none() && packet.direction == Direction::Sent)?;
        let active = packet.signature() == Signature::Active;
        Some(ResetEvent {
            at: packet.at,
            direction: packet.direction,
            local: packet.local,
            peer: Some(packet.peer),
            state: None,
            old_state: None,
            reason: None,
            task: None,
            softirq: true,
            active,
            caller: None,
            exiting: false,
            netns: Some(packet.netns),
            cookie: None,
        })
    }

    /// State of the connection before this reset ended it.
    pub fn state_before(&self) -> Option<TcpState> {
        self.event.as_ref().and_then(ResetEvent::state_before)
    }

    /// A connect of this side was refused.
    pub fn is_refused_connect(&self) -> bool {
        self.state_before() == Some(TcpState::SynSent)
    }

    /// The ends of the connection that this reset ended; `None` where there was none, as for an answer to a SYN.
    fn connection(&self) -> Option<Ends> {
        let ended = match (&self.event, &self.packet) {
            (Some(event), _) => event.ends_a_connection(),
            (None, Some(packet)) => packet.direction == Direction::Received || packet.signature() == Signature::Active,
            (None, None) => false,
        };
        ended.then_some((self.local()?, self.peer()?))
    }

    /// The same without refused connects, which were no connections and whose ports may be tried again.
    fn ended_connection(&self) -> Option<Ends> {
        self.connection().filter(|_| !self.is_refused_connect())
    }

    /// It answers what came after this side had closed and the peer had acknowledged that: only a TIME_WAIT entry is left.
    fn answers_after_close(&self) -> bool {
        self.event.as_ref().is_some_and(|event| {
            event.direction == Direction::Sent
                && !event.active
                && match event.reason.as_deref() {
                    Some(reason) => reason == "TCP_TIMEWAIT_SOCKET",
                    None => event.state == Some(TcpState::TimeWait),
                }
        }) || self.event.is_none() && self.closed
    }
}
