//! What one reset was, judged from its event and its packet alone: no listener table, no counters, no window.
//!
//! Where that leaves two histories open, the words say so.

use super::join::Traced;
use crate::reset::Kind;
use crate::source::reset_events::{Caller, Direction, ResetEvent};
use crate::source::reset_packets::{ResetPacket, Signature};
use crate::value::TcpState;

const FLAG_ACK: u8 = 0x10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// The kernel's event tells.
    Kind(Kind),
    /// TCP did not send it, and it has the form of netfilter's REJECT.
    FirewallReject,
    /// TCP did not send it, and it does not have that form: a raw socket.
    NotByTcp,
    /// Received, and no connection took it: a half-open or closed one, none at all, or out of window.
    Ignored,
    /// Only the packet was seen: an answer to a SYN.
    Refusal,
    /// Only the packet was seen: an answer to another segment.
    Answer,
    /// Only the packet was seen: a socket gave up its own connection.
    Active,
    /// Only the packet was seen.
    FromPeer,
}

impl What {
    /// Stable name for programs, plain words for people, and the cause that it belongs to.
    pub fn describe(self) -> (&'static str, &'static str, Option<&'static str>) {
        match self {
            Self::Kind(kind) => kind.describe(),
            Self::FirewallReject => ("firewall-reject", "firewall (netfilter) reject", Some("firewall-reject")),
            Self::NotByTcp => ("not-by-tcp", "not sent by TCP (raw socket?)", None),
            Self::Ignored => ("ignored", "no open connection took it", None),
            Self::Refusal => ("refusal", "nothing listens, or a firewall", None),
            Self::Answer => ("answer", "answer to an unexpected segment", None),
            Self::Active => ("active", "closed or aborted by this side", None),
            Self::FromPeer => ("from-peer", "by the peer", None),
        }
    }

    /// Judges one reset. `traced` says for which packets an event must have come if TCP was behind them.
    pub fn of(event: Option<&ResetEvent>, packet: Option<&ResetPacket>, traced: Traced) -> Self {
        match (event, packet) {
            (Some(event), packet) if event.direction == Direction::Sent => Self::Kind(sent(event, packet)),
            (Some(event), _) => Self::Kind(received(event, traced)),
            (None, Some(packet)) if packet.direction == Direction::Sent => match packet.signature() {
                Signature::Answer if traced.sent => Self::FirewallReject,
                _ if traced.sent => Self::NotByTcp,
                Signature::Active => Self::Active,
                Signature::Answer if answers_syn(packet) => Self::Refusal,
                Signature::Answer => Self::Answer,
                Signature::Foreign => Self::NotByTcp,
            },
            (None, Some(_)) if traced.received => Self::Ignored,
            (None, _) => Self::FromPeer,
        }
    }
}

/// RFC 9293, 3.5.2: the answer to a segment without ACK carries an ACK, and of those a client only sends SYN.
fn answers_syn(packet: &ResetPacket) -> bool {
    packet.flags & FLAG_ACK != 0
}

fn received(event: &ResetEvent, traced: Traced) -> Kind {
    match event.state_before() {
        Some(TcpState::SynSent) => Kind::UpstreamRefused,
        Some(TcpState::FinWait1 | TcpState::FinWait2 | TcpState::Closing | TcpState::LastAck | TcpState::TimeWait) => {
            Kind::AfterClose
        }
        // Of a connection's states only FIN_WAIT2 and LAST_ACK are not watched, see `ResetEvent::state`.
        None if traced.states => Kind::AfterClose,
        _ => Kind::PeerReset,
    }
}

/// As `attribution` judges a group of resets, without what only a window knows.
fn sent(event: &ResetEvent, packet: Option<&ResetPacket>) -> Kind {
    let exited = |kind| if event.exiting { Kind::Exited } else { kind };
    match event.reason.as_deref() {
        Some("TCP_ABORT_ON_CLOSE") => exited(Kind::UnreadData),
        Some("TCP_ABORT_ON_DATA" | "TCP_TIMEWAIT_SOCKET") => Kind::LateData,
        Some("TCP_ABORT_ON_LINGER") => Kind::LingerTimeout,
        Some("TCP_ABORT_ON_MEMORY") => Kind::Memory,
        Some("TCP_KEEPALIVE_TIMEOUT") => Kind::Keepalive,
        Some("TCP_DISCONNECT_WITH_DATA") => Kind::Aborted,
        Some("TCP_STATE") => match event.caller {
            Some(Caller::ListenerStop) => Kind::ListenerClosed,
            Some(Caller::Destroy) => Kind::Destroyed,
            Some(Caller::Mptcp) => Kind::Mptcp,
            Some(Caller::Close | Caller::Disconnect) => exited(Kind::Aborted),
            // Only tcp_abort() sends before it leaves the state (net/ipv4/tcp.c).
            None if matches!(event.state, Some(TcpState::Established | TcpState::CloseWait)) => Kind::Destroyed,
            None => exited(Kind::Aborted),
        },
        // To a SYN: nothing listens. To anything else: the connection is not known (any more).
        Some("NO_SOCKET") => match packet {
            Some(packet) if !answers_syn(packet) => Kind::Stale,
            _ => Kind::Refused,
        },
        Some("TCP_FLAGS" | "TCP_INVALID_ACK_SEQUENCE") => Kind::Stale,
        Some("INVALID_SYN") => Kind::HandshakeRestarted,
        Some("TCP_RFC7323_PAWS") => Kind::Timestamp,
        Some(mptcp) if mptcp.starts_with("MPTCP") => Kind::Mptcp,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{event, packet};
    use super::*;

    const ENDS: (&str, &str) = ("10.0.0.1:80", "10.0.0.2:40000");

    fn of_reason(reason: &str) -> ResetEvent {
        ResetEvent { reason: Some(reason.to_owned()), ..event(Direction::Sent, ENDS.0, ENDS.1) }
    }

    #[test]
    fn an_answer_to_a_syn_is_a_refusal_and_to_data_a_stale_connection() {
        let refused = of_reason("NO_SOCKET");
        let to_syn = packet(Direction::Sent, ENDS.0, ENDS.1);
        let to_data = ResetPacket { flags: 0x04, seq: 7, ack: 0, ..to_syn.clone() };
        let what = |packet| What::of(Some(&refused), packet, Traced::ALL);
        assert_eq!(what(Some(&to_syn)), What::Kind(Kind::Refused));
        assert_eq!(what(Some(&to_data)), What::Kind(Kind::Stale));
        assert_eq!(what(None), What::Kind(Kind::Refused));
    }

    #[test]
    fn the_caller_tells_the_resets_of_one_reason_apart() {
        let by = |caller, exiting| {
            What::of(Some(&ResetEvent { caller, exiting, ..of_reason("TCP_STATE") }), None, Traced::ALL)
        };
        assert_eq!(by(Some(Caller::ListenerStop), false), What::Kind(Kind::ListenerClosed));
        assert_eq!(by(Some(Caller::Destroy), false), What::Kind(Kind::Destroyed));
        assert_eq!(by(Some(Caller::Close), false), What::Kind(Kind::Aborted));
        assert_eq!(by(Some(Caller::Close), true), What::Kind(Kind::Exited));
    }

    #[test]
    fn a_packet_without_event_accuses_the_firewall_only_where_an_event_must_have_come() {
        let answer = packet(Direction::Sent, ENDS.0, ENDS.1);
        let what = |packet: &ResetPacket, traced| What::of(None, Some(packet), traced);
        assert_eq!(what(&answer, Traced::ALL), What::FirewallReject);
        assert_eq!(what(&answer, Traced::NONE), What::Refusal);
        let active = ResetPacket { window: 500, seq: 5, ..answer };
        assert_eq!(what(&active, Traced::ALL), What::NotByTcp);
        assert_eq!(what(&active, Traced::NONE), What::Active);
        let received = packet(Direction::Received, ENDS.0, ENDS.1);
        assert_eq!(what(&received, Traced::ALL), What::Ignored);
        assert_eq!(what(&received, Traced::NONE), What::FromPeer);
    }

    #[test]
    fn a_received_reset_is_told_by_the_state_it_met() {
        let met = |old_state| {
            let event = ResetEvent { old_state, ..event(Direction::Received, ENDS.0, ENDS.1) };
            What::of(Some(&event), None, Traced::ALL)
        };
        assert_eq!(met(Some(TcpState::SynSent)), What::Kind(Kind::UpstreamRefused));
        assert_eq!(met(Some(TcpState::Established)), What::Kind(Kind::PeerReset));
        assert_eq!(met(None), What::Kind(Kind::AfterClose));
    }
}
