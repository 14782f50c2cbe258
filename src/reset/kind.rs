//! What a reset was, by how far the exchange had come, and whom it fails.

use super::{Answered, Exchange};
pub use crate::knowledge::reset_kinds::Kind;

impl Kind {
    /// What an answer is of which nothing but the packet is known.
    pub(super) fn of_answer(answered: Answered) -> Self {
        match answered {
            Answered::Syn => Self::Refusal,
            Answered::Segment => Self::Answer,
        }
    }

    /// What a reset of this kind was where the exchange had come so far, for the side that accepted the connection.
    pub(super) fn of_server(self, exchange: Exchange) -> Self {
        match (self, exchange) {
            (Self::PeerReset, Exchange::UnreadHere) => Self::SlowHere,
            (Self::UnreadData | Self::LateData | Self::Aborted, Exchange::TurnedAway) => Self::TurnedAway,
            (Self::UnreadData | Self::LateData | Self::Aborted, Exchange::HeldBack) => Self::SlowReader,
            (Self::UnreadData, Exchange::Goodbye) => Self::Goodbye,
            (Self::UnreadData, Exchange::PerhapsGoodbye) => Self::Active,
            (Self::PeerReset | Self::ClientGone | Self::HealthCheck, Exchange::Unanswered) => Self::GaveUp,
            (Self::PeerReset | Self::ClientGone, Exchange::NothingAsked) => Self::HealthCheck,
            (Self::PeerReset, Exchange::Answered) => Self::AfterAnswer,
            (kind, _) => kind,
        }
    }

    /// The same for the side that had made it.
    pub(super) fn of_caller(self, exchange: Exchange) -> Self {
        match (self, exchange) {
            (Self::PeerReset, Exchange::UnreadHere) => Self::SlowHere,
            (Self::LateData | Self::Aborted, Exchange::Asked) => Self::GaveUpHere,
            (Self::PeerReset, Exchange::Goodbye) => Self::Goodbye,
            (kind, _) => kind,
        }
    }
}

impl Kind {
    /// What was reset never was a connection: it was refused.
    pub fn is_unopened(self) -> bool {
        matches!(self, Self::Refused | Self::RefusedAddress | Self::Refusal)
    }

    /// A client of a service here lost its connection, or got none, by it: this host's doing.
    pub fn fails_clients(self) -> bool {
        match self {
            Self::UnreadData | Self::Exited | Self::ListenerClosed | Self::Destroyed | Self::Aborted => true,
            Self::LingerTimeout | Self::LateData | Self::Memory | Self::Keepalive | Self::Timestamp => true,
            Self::TurnedAway | Self::SlowReader => true,
            Self::Refused | Self::RefusedAddress | Self::AcceptQueueFull | Self::AcceptQueueExpired => true,
            Self::Stale | Self::FirewallReject | Self::NotByTcp | Self::Refusal | Self::Answer | Self::Active => true,
            // The same failure again, or a probe that fails nobody.
            Self::Repeated | Self::Scanned | Self::Cookie | Self::HandshakeRestarted | Self::Mptcp | Self::Other => {
                false
            }
            // By the other end, or by something on the way; or with nothing left unanswered.
            Self::GaveUpHere | Self::SlowHere | Self::AfterAnswer | Self::GaveUp | Self::Goodbye => false,
            Self::PeerReset | Self::HealthCheck | Self::ClientGone | Self::OtherEnd | Self::UpstreamRefused => false,
            Self::AfterClose | Self::Forged | Self::Ignored | Self::FromPeer => false,
        }
    }
}
