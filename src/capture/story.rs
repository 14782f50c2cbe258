//! What can have become of a connection, and how that is said.

use std::net::{IpAddr, SocketAddr};

use super::flow::{Flow, Side};
use super::reset::Phase;

/// How sure a reading is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sure {
    /// The packets prove it.
    Surely,
    /// It fits, and others fit less.
    Likely,
    /// One of several that fit alike.
    Perhaps,
}

/// Declares the stories, each with its stable name for programs, its plain words and the cause that it is.
macro_rules! stories {
    ($($(#[doc = $doc:literal])* $story:ident: $name:literal, $words:literal, $cause:expr;)*) => {
        /// What happened to a connection.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Story {
            $($(#[doc = $doc])* $story,)*
        }

        impl Story {
            pub const ALL: &[Self] = &[$(Self::$story),*];

            /// Stable name for programs.
            pub fn name(self) -> &'static str {
                match self { $(Self::$story => $name),* }
            }

            /// Plain words for people.
            pub fn words(self) -> &'static str {
                match self { $(Self::$story => $words),* }
            }

            /// The cause of the registry that it is, if it is one.
            pub fn cause(self) -> Option<&'static str> {
                match self { $(Self::$story => $cause),* }
            }
        }
    };
}

stories! {
    Refused: "refused", "nothing listens there", Some("port-without-listener");
    /// The client had another address or port at hand, and used that.
    TriedElsewhere: "tried-elsewhere", "refused, and another address or port was used at once", Some("port-without-listener");
    Scanned: "port-scan", "port scan", Some("port-scan");
    Rejected: "rejected", "refused by a packet filter, by ICMP", Some("firewall-reject");
    NoRoute: "no-route", "no route to the destination, by ICMP", Some("connect-unanswered");
    Unanswered: "unanswered", "no answer to the SYN", Some("connect-unanswered");
    Probe: "probe", "opened and reset at once, nothing sent: a check", Some("health-check-resets");
    HandshakeReset: "handshake-reset", "the answer to the SYN was reset", Some("handshake-reset");
    QueueFull: "accept-queue-full", "connected, and the acceptor does not know it: its accept queue is full", Some("accept-queue-overflow");
    TurnedAway: "turned-away", "turned away right after accept", Some("connection-limit");
    /// The two sides speak different protocols.
    WrongProtocol: "wrong-protocol", "the wrong protocol for this port", Some("close-with-unread-data");
    UnreadData: "closed-with-unread-data", "closed with unread data", Some("close-with-unread-data");
    Aborted: "aborted", "aborted by the acceptor", Some("abortive-close");
    LateData: "late-data", "data after close", Some("late-data-after-close");
    /// Both were leaving: nothing was lost.
    Goodbye: "goodbye", "both were closing, harmless", None;
    Stale: "stale-connection", "the connection is not known there any more", Some("stale-connection");
    AfterPause: "reset-after-pause", "reset at the first use after a pause", Some("idle-timeout");
    GaveUp: "gave-up", "the initiator gave up waiting", Some("client-gave-up");
    /// The initiator left when it had what it wanted.
    Left: "left", "the initiator hung up, harmless", None;
    Cancelled: "cancelled", "the initiator cancelled the transfer", None;
    IdleDropped: "idle-dropped", "an idle connection was dropped, harmless", None;
    IdleLimit: "reset-while-idle", "reset after a time without traffic", Some("idle-timeout");
    Forged: "forged", "a RST that is not of the side whose address it carries", Some("middlebox-reset");
    Injected: "injected-data", "data that is not of the side whose address it carries", Some("middlebox-reset");
    Passed: "stated", "reset by a device, which says why", Some("middlebox-reset");
    Untranslated: "untranslated", "one side does not know a connection that it uses", Some("conntrack-invalid");
    SlowReader: "slow-reader", "the peer did not read", Some("slow-reader");
    KeepaliveFailed: "keepalive-timeout", "keepalive gave up", Some("keepalive-timeout");
    Lost: "retransmission-timeout", "the other side is not heard any more", Some("retransmission-timeout");
    OutOfWindow: "out-of-window", "a RST with a number outside the window: ignored", Some("out-of-window-reset");
    /// Two captures prove it.
    Between: "sent-by-a-device", "reset by a device between the two ends, proven: neither end sent it", Some("middlebox-reset");
    LostReset: "reset-lost", "a RST that never arrived: dropped on the way", Some("retransmission-timeout");
    /// Only the RST was captured.
    Unknown: "unknown", "who was right cannot be told: nothing else of the connection is known", None;
}

impl Story {
    /// What befalls a connection that nobody uses: only its next packet shows it.
    pub fn is_of_silence(self) -> bool {
        matches!(self, Self::AfterPause | Self::IdleLimit | Self::KeepaliveFailed | Self::IdleDropped)
    }
}

/// What is read from one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    pub story: Story,
    /// The side that is at its beginning.
    pub by: Option<Side>,
    /// When the RST that it is about came.
    pub phase: Option<Phase>,
    pub harmless: bool,
    pub sure: Sure,
    /// What else it may be, by id, the likeliest first.
    pub others: &'static [&'static str],
    /// What shows it, a clause each.
    pub because: Vec<String>,
    /// What the capture does not tell.
    pub open: Option<&'static str>,
}

impl Reading {
    pub fn new(story: Story, sure: Sure) -> Self {
        Self { story, by: None, phase: None, harmless: false, sure, others: &[], because: Vec::new(), open: None }
    }

    pub(super) fn by(mut self, side: Side) -> Self {
        self.by = Some(side);
        self
    }

    pub(super) fn harmless(mut self) -> Self {
        self.harmless = true;
        self
    }

    pub(super) fn because(mut self, text: impl Into<String>) -> Self {
        self.because.push(text.into());
        self
    }

    pub(super) fn others(mut self, others: &'static [&'static str]) -> Self {
        self.others = others;
        self
    }

    pub(super) fn open(mut self, open: &'static str) -> Self {
        self.open = Some(open);
        self
    }
}

/// Where connections of one story come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    Service(SocketAddr),
    Source(IpAddr),
}

/// What is alike of connections that tell the same of the same place: story, whether it is harmless, and the place.
pub type Alike = (Story, bool, Place);

/// Where a reading of that connection belongs.
pub fn alike(flow: &Flow, reading: &Reading) -> Alike {
    let place = match reading.story {
        Story::Scanned => Place::Source(flow.initiator.ip()),
        _ => Place::Service(flow.acceptor),
    };
    (reading.story, reading.harmless, place)
}
