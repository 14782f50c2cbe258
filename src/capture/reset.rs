//! One RST of a captured connection: in which phase it came, in which form, and whether its sender can have sent it.

use std::time::Duration;

use super::flow::{Flow, Side, before};
use super::link::{ACK, Segment};
use crate::source::reset_packets::{Signature, Stated};

/// Route changes and load balancers move a TTL by one or two.
const TTL_TOLERANCE: u8 = 2;
/// Nothing was sent for so long, and nothing was waited for.
const IDLE: Duration = Duration::from_secs(5);
/// An answer that comes in less than this part of the time that the way takes was made on the way.
const TOO_SOON: f64 = 0.5;
/// Shorter times of the way are no measure.
const SHORTEST_WAY: Duration = Duration::from_millis(2);

/// How far the connection had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Answer to the SYN.
    Refused,
    /// Before the initiator's answer to the SYN-ACK.
    Handshake,
    /// Nothing was sent on it yet.
    BeforeRequest,
    /// The initiator had sent something, and nothing came back yet.
    Waiting,
    /// Both sides had sent, or the acceptor was sending.
    InTransfer,
    /// Everything was acknowledged, and nothing sent for 5 s.
    Idle,
    /// A side had closed.
    AfterFin,
    /// No other packet of the connection was captured.
    Lone,
}

impl Phase {
    /// Stable name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Handshake => "in-handshake",
            Self::BeforeRequest => "before-request",
            Self::Waiting => "waiting-for-answer",
            Self::InTransfer => "in-transfer",
            Self::Idle => "idle",
            Self::AfterFin => "after-fin",
            Self::Lone => "lone",
        }
    }

    /// Plain words for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Handshake => "in the handshake",
            Self::BeforeRequest => "before the request",
            Self::Waiting => "while the answer was awaited",
            Self::InTransfer => "in the transfer",
            Self::Idle => "while idle",
            Self::AfterFin => "after a FIN",
            Self::Lone => "alone, nothing else of the connection is known",
        }
    }
}

/// What speaks against the RST being of the side whose address it carries.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doubt {
    /// TTL of the RST, and those of the side's other packets.
    Ttl(u8, (u8, u8)),
    /// The IP id is that of the other side's latest packet.
    CopiedId(u16),
    ReservedBits,
    /// The connection uses timestamps, this form of RST has them, and it does not.
    NoTimestamps,
    /// It came so soon after what it answers, and the way takes that long.
    TooSoon(Duration, Duration),
    /// It acknowledges what was never sent.
    WrongAck,
}

/// One RST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rst {
    pub at: Duration,
    pub side: Side,
    pub phase: Phase,
    pub signature: Signature,
    /// It has the form of an answer to a segment that belongs to no connection (RFC 9293, 3.5.2), as any system builds it.
    pub answer: bool,
    pub has_ack: bool,
    pub window: u16,
    pub ttl: Option<u8>,
    pub ip_id: Option<u16>,
    pub seq: u32,
    pub stated: Option<Stated>,
    /// Since the last packet of the connection before it.
    pub idle: Duration,
    /// Since the last data of either side.
    pub quiet: Option<Duration>,
    /// Since the last packet of the other side, and how many bytes of data that side's latest segment had.
    pub answers: Option<Duration>,
    /// Data that this side had sent and the other had not acknowledged.
    pub outstanding: u32,
    /// Data of the other side that this side had not acknowledged.
    pub unacknowledged: u32,
    /// This side had sent so many segments again, unanswered.
    pub unanswered: u32,
    pub probes: u32,
    /// Since when the other side's window had been closed.
    pub held_back: Option<Duration>,
    /// The other side takes no notice of it: its number is outside the window.
    pub out_of_window: bool,
    /// It answers a SYN and does not acknowledge it, so that the initiator takes no notice.
    pub refuses_wrongly: bool,
    pub doubts: Vec<Doubt>,
    /// The side sent on afterwards.
    pub went_on: bool,
    /// Not the first of its side.
    pub again: bool,
}

impl Rst {
    /// It is not of the side whose address it carries: that side sends on, or two things speak against it.
    pub fn is_forged(&self) -> bool {
        let ttl = self.doubts.iter().any(|doubt| matches!(doubt, Doubt::Ttl(..)));
        self.went_on && !self.again || self.doubts.len() >= 2 || ttl
    }
}

/// A connection as it was when a RST came.
pub(super) struct Witness<'a> {
    flow: &'a Flow,
    side: Side,
}

impl<'a> Witness<'a> {
    pub fn new(flow: &'a Flow, side: Side) -> Self {
        Self { flow, side }
    }

    pub fn rst(&self, segment: &Segment<'_>) -> Rst {
        let Self { flow, side } = *self;
        let (own, other) = (flow.end(side), flow.end(side.other()));
        let has_ack = segment.has(ACK);
        let bare = segment.window == 0 && !segment.options.any && segment.ip_id.is_none_or(|id| id == 0);
        let first = !flow.resets.iter().any(|rst| rst.side == side);
        let latest = own.last_data.max(other.last_data);
        let since = |then: Option<Duration>| then.map(|then| segment.at.saturating_sub(then));
        let syn_only = flow.opened.is_some() && flow.accepted.is_none() && side == Side::Acceptor;
        let refuses_wrongly = syn_only && other.next.is_some_and(|next| !has_ack || segment.ack != next);
        Rst {
            at: segment.at,
            side,
            phase: self.phase(segment),
            signature: Signature::of(has_ack, bare, segment.seq, segment.ack),
            answer: segment.window == 0 && (!has_ack || segment.seq == 0),
            has_ack,
            window: segment.window,
            ttl: segment.ttl,
            ip_id: segment.ip_id,
            seq: segment.seq,
            stated: segment.stated.clone(),
            idle: segment.at.saturating_sub(flow.last),
            quiet: since(latest),
            answers: since(other.last),
            outstanding: flow.outstanding(side),
            unacknowledged: self.unacknowledged(segment),
            unanswered: own.unanswered,
            probes: own.probes,
            held_back: since(other.closed_since),
            out_of_window: self.out_of_window(segment),
            refuses_wrongly,
            doubts: if first { self.doubts(segment, refuses_wrongly) } else { Vec::new() },
            went_on: false,
            again: !first,
        }
    }

    fn phase(&self, segment: &Segment<'_>) -> Phase {
        let Self { flow, side } = *self;
        let (initiator, acceptor) = (flow.end(Side::Initiator), flow.end(Side::Acceptor));
        if flow.resets.is_empty() && flow.packets() == 0 {
            return Phase::Lone;
        }
        if let Some(first) = flow.resets.first().filter(|first| !first.went_on) {
            return first.phase;
        }
        let data = initiator.bytes + acceptor.bytes;
        if initiator.fin.is_some() || acceptor.fin.is_some() {
            return Phase::AfterFin;
        }
        if flow.opened.is_some() && flow.accepted.is_none() && acceptor.bytes == 0 {
            return if side == Side::Acceptor { Phase::Refused } else { Phase::Handshake };
        }
        if flow.accepted.is_some() && flow.established.is_none() {
            return Phase::Handshake;
        }
        if data == 0 {
            // Of a connection whose beginning was not captured nobody knows what was before.
            let whole = flow.accepted.is_some() || flow.odd;
            return if whole { Phase::BeforeRequest } else { Phase::InTransfer };
        }
        let quiet = segment.at.saturating_sub(initiator.last_data.max(acceptor.last_data).unwrap_or_default());
        let waiting = initiator.last_data > acceptor.last_data;
        let acknowledged = flow.outstanding(Side::Initiator) == 0 && flow.outstanding(Side::Acceptor) == 0;
        match (waiting, quiet >= IDLE && acknowledged) {
            (false, true) => Phase::Idle,
            (true, _) if acceptor.bytes == 0 || quiet >= Duration::from_millis(200) => Phase::Waiting,
            _ => Phase::InTransfer,
        }
    }

    /// Data of the other side that this RST does not acknowledge.
    fn unacknowledged(&self, segment: &Segment<'_>) -> u32 {
        let next = self.flow.end(self.side.other()).next;
        let acked = if segment.has(ACK) { Some(segment.ack) } else { self.flow.end(self.side).acked };
        match (next, acked) {
            (Some(next), Some(acked)) if before(acked, next) => next.wrapping_sub(acked),
            _ => 0,
        }
    }

    /// Behind what the other side has acknowledged, or far before it.
    fn out_of_window(&self, segment: &Segment<'_>) -> bool {
        const WIDEST: u32 = 1 << 20;
        let Some(expected) = self.flow.end(self.side.other()).acked else { return false };
        let ahead = segment.seq.wrapping_sub(expected);
        let answered = !segment.has(ACK) && segment.seq == expected;
        !answered && self.flow.established.is_some() && ahead >= WIDEST && segment.seq != 0
    }

    fn doubts(&self, segment: &Segment<'_>, refuses_wrongly: bool) -> Vec<Doubt> {
        let Self { flow, side } = *self;
        let (own, other) = (flow.end(side), flow.end(side.other()));
        let mut doubts = Vec::new();
        if let (Some(ttl), Some((low, high))) = (segment.ttl, own.ttl)
            && (ttl.saturating_add(TTL_TOLERANCE) < low || ttl > high.saturating_add(TTL_TOLERANCE))
            // A host's kernel may answer with another TTL than its program's socket: the initial ones.
            && !([64, 128, 255].contains(&ttl) && [64, 128, 255].contains(&high))
        {
            doubts.push(Doubt::Ttl(ttl, (low, high)));
        }
        if let Some(id) = segment.ip_id.filter(|id| *id != 0 && other.ip_id == Some(*id) && own.ip_id != Some(*id)) {
            doubts.push(Doubt::CopiedId(id));
        }
        if segment.reserved {
            doubts.push(Doubt::ReservedBits);
        }
        let active = segment.has(ACK) && segment.window != 0;
        let expected = own.timestamps && other.timestamps && active;
        if expected && segment.options.timestamps.is_none() && !segment.options.unknown {
            doubts.push(Doubt::NoTimestamps);
        }
        if let (Some(way), Some(answered)) = (self.way(), other.last)
            && way >= SHORTEST_WAY
        {
            let took = segment.at.saturating_sub(answered);
            let pending = other.last_data.is_some_and(|sent| sent == answered) && flow.outstanding(side.other()) > 0;
            if pending && took.as_secs_f64() < way.as_secs_f64() * TOO_SOON && own.last < other.last_data {
                doubts.push(Doubt::TooSoon(took, way));
            }
        }
        if refuses_wrongly {
            doubts.push(Doubt::WrongAck);
        }
        doubts
    }

    /// Time to this side and back as the handshake showed it.
    fn way(&self) -> Option<Duration> {
        let Self { flow, side } = *self;
        match side {
            Side::Acceptor => flow.accepted?.checked_sub(flow.opened?),
            Side::Initiator => flow.established?.checked_sub(flow.accepted?),
        }
    }
}
