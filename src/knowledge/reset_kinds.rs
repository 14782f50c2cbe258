//! What a reset can have been, and what the reasons that kernels state for it mean.

use std::fmt;

/// Declares the kinds, each with its stable name for programs, its plain words and the cause that it belongs to.
macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $kind:ident: $name:literal, $words:literal, $cause:expr;)*) => {
        /// What one reset was.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $($(#[doc = $doc])* $kind,)*
        }

        impl Kind {
            /// Every kind, in the order of the enumeration.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// Stable name for programs.
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name),* }
            }

            /// Plain words for people.
            pub fn words(self) -> &'static str {
                match self { $(Self::$kind => $words),* }
            }

            /// By its stable name.
            pub fn of_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.name() == name)
            }

            /// The cause that it belongs to, if it belongs to one.
            pub fn cause(self) -> Option<&'static str> {
                self.own().first().copied()
            }

            fn own(self) -> &'static [&'static str] {
                const CAUSES: &[Option<&str>] = &[$($cause),*];
                CAUSES.get(self as usize).map_or(&[], Option::as_slice)
            }
        }
    };
}

kinds! {
    /// Ended by a program of this host right after accept.
    TurnedAway: "turned-away", "turned away right after accept", Some("connection-limit");
    /// Ended by a program of this host while the peer did not take what it was sent.
    SlowReader: "slow-reader", "the peer did not read", Some("slow-reader");
    UnreadData: "closed-with-unread-data", "closed with unread data", Some("close-with-unread-data");
    /// What was unread came with the peer's FIN, after everything had been answered.
    Goodbye: "unread-goodbye", "over an unread goodbye, harmless", None;
    Exited: "process-exit", "the process exited", Some("process-exit");
    ListenerClosed: "listener-closed", "listener closed", Some("listener-closed");
    Destroyed: "socket-destroyed", "destroyed by an administrator", Some("socket-destroyed");
    Aborted: "aborted", "aborted by the application", Some("abortive-close");
    LingerTimeout: "aborted-on-linger", "closed early by TCP_LINGER2", Some("abortive-close");
    LateData: "late-data", "data after close", Some("late-data-after-close");
    Memory: "aborted-on-memory", "orphan or memory limit", None;
    Keepalive: "keepalive-timeout", "keepalive gave up", Some("keepalive-timeout");
    /// Nothing listens on the port.
    Refused: "no-listener", "nothing listens", Some("port-without-listener");
    /// Something listens on the port, but not on this address or family.
    RefusedAddress: "no-listener-here", "listens on another address", Some("wrong-bind-address");
    /// A source that tried many closed ports.
    Scanned: "port-scan", "port scan", Some("port-scan");
    /// A segment for a connection that this host no longer knows.
    Stale: "stale-connection", "no such connection", Some("stale-connection");
    /// An answer to what was still on the way when the connection had been reset.
    Repeated: "repeated", "again, to what was on the way", None;
    AcceptQueueFull: "accept-queue-full", "accept queue full", Some("accept-queue-overflow");
    /// A client's handshake expired while its connection waited for a full accept queue.
    AcceptQueueExpired: "accept-queue-expired", "handshake expired at a full accept queue", Some("accept-queue-overflow");
    Cookie: "bad-cookie", "SYN cookie not valid", None;
    HandshakeRestarted: "handshake-restarted", "SYN inside a handshake", None;
    Timestamp: "timestamp-rejected", "timestamp rejected", Some("timestamp-rejected");
    Mptcp: "mptcp", "Multipath TCP", None;
    /// A kernel reason that has no kind of its own, or none at all.
    Other: "other", "another kernel reason", None;
    /// Received while the connection was open in this direction.
    PeerReset: "established", "in an open connection", Some("peer-reset");
    /// The same by a peer that does it at regular intervals: a prober.
    HealthCheck: "health-check", "health checks", Some("health-check-resets");
    /// Received in CLOSE_WAIT: the peer had closed already, and did not want what this side still sent.
    ClientGone: "after-peer-close", "the peer had closed already", Some("peer-reset");
    /// A program here closed while its request had no answer.
    GaveUpHere: "gave-up-here", "this side gave up waiting", Some("client-gave-up");
    /// Received with much that a program here had not read for a while.
    SlowHere: "unread-here", "with much unread here", Some("slow-reader");
    /// The peer left as soon as it had the answer.
    AfterAnswer: "after-answer", "after the whole answer, harmless", None;
    /// The peer left while its request had no answer.
    GaveUp: "gave-up", "the client gave up waiting", Some("client-gave-up");
    /// The other end of a connection within this host: counted where it was sent.
    OtherEnd: "other-end", "sent by this host, both ends here", None;
    /// Received in SYN_SENT: refused.
    UpstreamRefused: "refused", "connect refused", Some("upstream-refused");
    /// Received after this side had closed: nothing was lost.
    AfterClose: "after-close", "after our close, harmless", None;
    /// Received, in the peer's name, from something on the path.
    Forged: "forged", "by a device on the path", Some("middlebox-reset");
    /// This host's own netfilter sent it, to a caller or, in the peer's name, to a program here.
    FirewallReject: "firewall-reject", "firewall (netfilter) reject", Some("firewall-reject");
    /// TCP did not send it, and it does not have the form of netfilter's REJECT: a raw socket.
    NotByTcp: "not-by-tcp", "not sent by TCP (raw socket?)", None;
    /// Received, and no connection took it: a half-open or closed one, none at all, or out of window.
    Ignored: "ignored", "no open connection took it", None;
    /// Only the packet was seen: an answer to a SYN.
    Refusal: "refusal", "nothing listens, or a firewall", None;
    /// Only the packet was seen, an answer to another segment; or only the event, and the packets of others say no SYN.
    Answer: "answer", "answer to an unexpected segment", None;
    /// Only the packet was seen: a socket gave up its own connection.
    Active: "active", "closed or aborted by this side", None;
    /// Only the packet was seen.
    FromPeer: "from-peer", "by the peer", None;
}

impl Kind {
    /// Causes that it may belong to, the likeliest first.
    pub fn causes(self) -> &'static [&'static str] {
        match self {
            Self::Memory => &["orphan-limit", "tcp-memory-exhausted"],
            Self::HandshakeRestarted => &["accept-queue-overflow"],
            _ => self.own(),
        }
    }

    /// Its words where a cause that is not its own explains it: what that one calls it. A connect that was refused stays one,
    /// whatever became of the listener.
    pub fn words_under(self, cause: Option<&str>) -> &'static str {
        let by_close = matches!(self, Self::TurnedAway | Self::Exited) && cause.is_some() && cause != self.cause();
        let usual = Self::ALL.iter().find(|kind| by_close && kind.cause() == cause);
        usual.copied().unwrap_or(self).words()
    }

    /// A system call sends it: the current task is the one that did it. What a process leaves behind when it exits is also
    /// answered later, in softirq.
    pub fn is_by_process(self) -> bool {
        matches!(self, Self::UnreadData | Self::Goodbye | Self::ListenerClosed | Self::Destroyed | Self::Aborted)
    }

    /// What a reason (enum sk_rst_reason, include/net/rstreason.h, without its prefix) can mean where nothing else is known, the
    /// likeliest first; empty for one of which nothing is known.
    pub fn of_reason(reason: &str) -> &'static [Self] {
        match reason {
            "TCP_ABORT_ON_CLOSE" => &[Self::UnreadData, Self::Exited],
            "TCP_ABORT_ON_DATA" | "TCP_TIMEWAIT_SOCKET" => &[Self::LateData, Self::Exited],
            "TCP_ABORT_ON_LINGER" => &[Self::LingerTimeout],
            "TCP_ABORT_ON_MEMORY" => &[Self::Memory],
            "TCP_KEEPALIVE_TIMEOUT" => &[Self::Keepalive],
            "TCP_DISCONNECT_WITH_DATA" => &[Self::Aborted],
            "TCP_STATE" => &[Self::Aborted, Self::ListenerClosed, Self::Destroyed],
            "NO_SOCKET" => &[Self::Refused, Self::Stale, Self::RefusedAddress],
            "TCP_FLAGS" | "TCP_INVALID_ACK_SEQUENCE" => &[Self::Stale, Self::AcceptQueueExpired],
            "INVALID_SYN" => &[Self::HandshakeRestarted, Self::AcceptQueueFull],
            "TCP_RFC7323_PAWS" => &[Self::Timestamp],
            mptcp if mptcp.starts_with("MPTCP") => &[Self::Mptcp],
            _ => &[],
        }
    }

    /// The same by the state of the socket, which is all that a kernel before 6.10 prints.
    pub fn of_state(state: &str) -> &'static [Self] {
        match state {
            "TCP_ESTABLISHED" | "TCP_CLOSE_WAIT" => &[Self::UnreadData, Self::Aborted, Self::Destroyed],
            "TCP_FIN_WAIT1" | "TCP_FIN_WAIT2" => &[Self::LateData],
            _ => &[],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
    }
}
