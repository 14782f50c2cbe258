//! One connection, followed segment by segment.

use std::net::SocketAddr;
use std::time::Duration;

use super::link::{ACK, FIN, RST, SYN, Segment};
use super::reset::{Rst, Witness};
use crate::source::reset_packets::Quoted;

/// Resets of a connection that are kept one by one.
const RESETS: usize = 8;
/// Beginning of the data of each side that is kept, to see which protocol it speaks.
pub const BEGINNING: usize = 24;
/// Beginning of the latest data that is kept: two answers may have the same first header, to see whether other data comes with the same number.
const LATEST: usize = 64;
/// Segments sent again without any sign of the other side, from which on it is gone.
pub const LOST: u32 = 3;
/// A gap this long is a pause; of what is sent within that time after it, the first use is part.
const PAUSE: Duration = Duration::from_secs(1);

/// Which end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Sent the first SYN; where that was not captured, the side with the higher port.
    Initiator,
    Acceptor,
}

impl Side {
    pub fn other(self) -> Self {
        match self {
            Self::Initiator => Self::Acceptor,
            Self::Acceptor => Self::Initiator,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Initiator => "initiator",
            Self::Acceptor => "acceptor",
        }
    }
}

/// What one end sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct End {
    pub packets: u64,
    /// Data, each byte once.
    pub bytes: u64,
    pub syns: u32,
    pub resets: u64,
    pub fin: Option<Duration>,
    /// The first number, by which tshark tells a connection from the next between the same ends.
    pub(super) base: Option<u32>,
    /// One more than the highest number sent, and acknowledged.
    pub next: Option<u32>,
    pub acked: Option<u32>,
    pub last: Option<Duration>,
    /// When new data was sent first and last.
    pub first_data: Option<Duration>,
    pub last_data: Option<Duration>,
    pub last_length: u32,
    /// Segments with data, or a SYN, that were sent before.
    pub retransmissions: u32,
    /// Those since the other end was heard last.
    pub unanswered: u32,
    /// Segments below what was acknowledged, which only ask whether the other end is there.
    pub probes: u32,
    pub zero_windows: u32,
    /// Since when its window is closed.
    pub closed_since: Option<Duration>,
    pub(super) scale: u8,
    pub timestamps: bool,
    /// Smallest and largest TTL other than of RSTs.
    pub ttl: Option<(u8, u8)>,
    pub ip_id: Option<u16>,
    beginning: [u8; BEGINNING],
    begun: u8,
    latest: Option<([u8; LATEST], u8, u32)>,
    latest_marks: (Option<u8>, Option<u16>, u32),
    /// Data that came again with the same number and was other data.
    pub contradicted: Option<Box<Contradiction>>,
}

/// Two segments with the same number and different data: one of them is not of this end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    pub at: Duration,
    /// TTL and IP id of the first and the second.
    pub first: (Option<u8>, Option<u16>),
    pub second: (Option<u8>, Option<u16>),
    pub lengths: (u32, u32),
}

impl End {
    /// The latest data begins as the first did, and came later: another request.
    pub fn begins_anew(&self) -> bool {
        const ALIKE: usize = 4;
        let Some((latest, length, _)) = &self.latest else { return false };
        let latest = latest.get(..usize::from(*length).min(ALIKE)).unwrap_or_default();
        latest.len() == ALIKE && self.first_data < self.last_data && self.beginning().starts_with(latest)
    }

    /// How its data begins.
    pub fn beginning(&self) -> &[u8] {
        self.beginning.get(..usize::from(self.begun)).unwrap_or_default()
    }
}

/// One connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// As tshark numbers them (tcp.stream), from 0.
    pub number: u64,
    pub initiator: SocketAddr,
    pub acceptor: SocketAddr,
    pub ends: [End; 2],
    pub started: Duration,
    pub last: Duration,
    /// The SYN was captured.
    pub opened: Option<Duration>,
    /// The SYN-ACK was.
    pub accepted: Option<Duration>,
    /// The initiator's answer to it.
    pub established: Option<Duration>,
    /// The latest SYN-ACK that came again after the initiator's answer.
    pub accepted_again: u32,
    /// A pause, when it ended, and who ended it.
    pub pause: Option<(Duration, Duration, Side)>,
    pub resets: Vec<Rst>,
    pub error: Option<Box<(Duration, Quoted)>>,
    pub errors: u32,
    /// The first segment had flags that begin no connection: none, or FIN without ACK.
    pub odd: bool,
    /// What came before was no longer kept: of more connections than can be followed, those that were silent longest are let go.
    pub resumed: bool,
    /// When it was let go, although it had not ended.
    pub let_go: Option<Duration>,
}

/// Whether `a` is before `b` (RFC 9293, 3.4: modulo 2^32).
pub fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

impl Flow {
    pub fn new(number: u64, first: &Segment<'_>) -> Self {
        let (from, to) = (first.from, first.to);
        let starts = first.has(SYN) && !first.has(ACK);
        let answers = first.has(SYN) && first.has(ACK);
        let forward = starts || !answers && from.port() >= to.port();
        let (initiator, acceptor) = if forward { (from, to) } else { (to, from) };
        let control = SYN | RST | ACK;
        Self {
            number,
            initiator,
            acceptor,
            ends: Default::default(),
            started: first.at,
            last: first.at,
            opened: None,
            accepted: None,
            established: None,
            accepted_again: 0,
            pause: None,
            resets: Vec::new(),
            error: None,
            errors: 0,
            odd: first.flags & control == 0 && first.flags & !0xc0 & !0x28 == first.flags & FIN,
            resumed: false,
            let_go: None,
        }
    }

    pub fn end(&self, side: Side) -> &End {
        match side {
            Side::Initiator => &self.ends[0],
            Side::Acceptor => &self.ends[1],
        }
    }

    fn end_mut(&mut self, side: Side) -> &mut End {
        match side {
            Side::Initiator => &mut self.ends[0],
            Side::Acceptor => &mut self.ends[1],
        }
    }

    pub fn address(&self, side: Side) -> SocketAddr {
        match side {
            Side::Initiator => self.initiator,
            Side::Acceptor => self.acceptor,
        }
    }

    pub fn side_of(&self, from: SocketAddr) -> Side {
        if from == self.initiator { Side::Initiator } else { Side::Acceptor }
    }

    /// More RSTs than are kept.
    pub fn has_further_resets(&self) -> bool {
        self.reset_count() > self.resets.len() as u64
    }

    /// A side acknowledged what was not captured.
    pub fn lacks_packets(&self) -> bool {
        [Side::Initiator, Side::Acceptor].into_iter().any(|side| {
            let (sent, acked) = (self.end(side).next, self.end(side.other()).acked);
            sent.zip(acked).is_some_and(|(sent, acked)| before(sent, acked))
        })
    }

    pub fn packets(&self) -> u64 {
        self.ends.iter().map(|end| end.packets).sum()
    }

    pub fn reset_count(&self) -> u64 {
        self.ends.iter().map(|end| end.resets).sum()
    }

    /// Bytes that this side sent and the other did not acknowledge.
    pub fn outstanding(&self, side: Side) -> u32 {
        match (self.end(side).next, self.end(side.other()).acked) {
            (Some(next), Some(acked)) if before(acked, next) => next.wrapping_sub(acked),
            _ => 0,
        }
    }

    /// Both sides closed, or one reset it.
    pub(super) fn is_over(&self) -> bool {
        self.reset_count() > 0 || self.ends.iter().all(|end| end.fin.is_some())
    }

    /// Whether this segment begins the next connection between the same ends, as tshark 4.0 decides (packet-tcp.c,
    /// dissect_tcp): a SYN with another number than the first of its side.
    pub fn is_over_for(&self, segment: &Segment<'_>) -> bool {
        let syn = segment.has(SYN) && !segment.has(ACK);
        let base = self.end(self.side_of(segment.from)).base;
        syn && base.is_some_and(|base| base != segment.seq)
    }

    /// Takes the next segment.
    pub fn segment(&mut self, segment: &Segment<'_>) {
        let side = self.side_of(segment.from);
        self.base(side, segment);
        if segment.has(RST) {
            self.reset(side, segment);
            return;
        }
        let went_on = self.went_on(side, segment);
        for rst in self.resets.iter_mut().filter(|rst| rst.side == side) {
            rst.went_on |= went_on;
        }
        let gap = segment.at.saturating_sub(self.last);
        if segment.length > 0 && gap >= PAUSE && !self.is_retransmission(side, segment) && self.packets() > 0 {
            self.pause = Some((gap, segment.at, side));
        }
        self.handshake(side, segment);
        self.data(side, segment);
        self.window(side, segment);
        let heard = self.end_mut(side.other());
        heard.unanswered = 0;
        let end = self.end_mut(side);
        end.packets += 1;
        end.last = Some(segment.at);
        if segment.has(ACK) && end.acked.is_none_or(|acked| before(acked, segment.ack)) {
            end.acked = Some(segment.ack);
        }
        if segment.has(FIN) {
            end.fin = end.fin.or(Some(segment.at));
        }
        end.timestamps |= segment.options.timestamps.is_some();
        if let Some(ttl) = segment.ttl {
            let (low, high) = end.ttl.unwrap_or((ttl, ttl));
            end.ttl = Some((low.min(ttl), high.max(ttl)));
        }
        end.ip_id = segment.ip_id.or(end.ip_id);
        self.last = self.last.max(segment.at);
    }

    /// A packet that was captured a second time: counted, and nothing else.
    pub(super) fn again(&mut self, side: Side) {
        self.end_mut(side).packets += 1;
    }

    /// Worth telling: reset, refused, unanswered, or not what its sides sent.
    pub(super) fn is_told(&self) -> bool {
        if self.resumed {
            return self.reset_count() > 0;
        }
        let unanswered = self.opened.is_some() && self.accepted.is_none();
        let dead = self.ends.iter().any(|end| end.unanswered >= LOST);
        self.has_shown() || unanswered || dead || self.is_turned_away() || self.left_without_answer().is_some()
    }

    /// Something is wrong with it by what was seen, and not by what is missing.
    pub(super) fn has_shown(&self) -> bool {
        let contradicted = self.ends.iter().any(|end| end.contradicted.is_some());
        self.reset_count() > 0 || self.errors > 0 || self.odd || contradicted || self.accepted_again > 0
    }

    /// The initiator asked and closed without a byte of an answer, and the acceptor, which knows that, did not: when it closed, and
    /// how long that was after it asked. Where packets are missing the answer may be among them.
    pub fn left_without_answer(&self) -> Option<(Duration, Duration)> {
        let (initiator, acceptor) = (self.end(Side::Initiator), self.end(Side::Acceptor));
        let silent = self.opened.is_some() && (acceptor.bytes, acceptor.fin) == (0, None);
        let (asked, left) = initiator.first_data.zip(initiator.fin)?;
        (silent && !self.lacks_packets()).then(|| (left, left.saturating_sub(asked)))
    }

    /// Closed by the acceptor right after it was accepted, with a greeting at most.
    pub fn is_turned_away(&self) -> bool {
        const AT_ONCE: Duration = Duration::from_secs(1);
        const GREETING: u64 = 2_048;
        let acceptor = self.end(Side::Acceptor);
        let reset = self.resets.first().filter(|rst| rst.side == Side::Acceptor).map(|rst| rst.at);
        let first = self.end(Side::Initiator).fin.is_none_or(|fin| acceptor.fin.is_some_and(|own| own < fin));
        let closed = acceptor.fin.filter(|_| first).or(reset);
        let soon =
            closed.zip(self.accepted).is_some_and(|(closed, accepted)| closed.saturating_sub(accepted) < AT_ONCE);
        soon && acceptor.bytes <= GREETING && self.end(Side::Initiator).bytes == 0
    }

    /// An ICMP error about a segment of it.
    pub fn icmp(&mut self, at: Duration, error: Quoted) {
        self.errors = self.errors.saturating_add(1);
        self.error.get_or_insert_with(|| Box::new((at, error)));
    }

    fn base(&mut self, side: Side, segment: &Segment<'_>) {
        let syn = segment.has(SYN);
        let other = self.end_mut(side.other());
        if other.base.is_none() && segment.has(ACK) {
            other.base = Some(if syn { segment.ack.wrapping_sub(1) } else { segment.ack });
        }
        let end = self.end_mut(side);
        end.base = end.base.or(Some(if syn { segment.seq } else { segment.seq.wrapping_sub(1) }));
    }

    fn is_retransmission(&self, side: Side, segment: &Segment<'_>) -> bool {
        self.end(side).next.is_some_and(|next| !before(next, segment.end()))
    }

    fn handshake(&mut self, side: Side, segment: &Segment<'_>) {
        let at = segment.at;
        if segment.has(SYN) {
            let again = {
                let end = self.end_mut(side);
                end.syns = end.syns.saturating_add(1);
                end.scale = segment.options.scale.unwrap_or(0);
                end.syns > 1
            };
            match (segment.has(ACK), again) {
                (false, _) => self.opened = self.opened.or(Some(at)),
                (true, false) => self.accepted = self.accepted.or(Some(at)),
                (true, true) if self.established.is_some() => {
                    self.accepted_again = self.accepted_again.saturating_add(1);
                }
                (true, true) => {}
            }
        } else if segment.has(ACK) && side == Side::Initiator && self.accepted.is_some() {
            self.established = self.established.or(Some(at));
        }
    }

    fn data(&mut self, side: Side, segment: &Segment<'_>) {
        const FEW: u32 = 1;
        let again = self.is_retransmission(side, segment);
        let acked = self.end(side.other()).acked;
        let end = self.end_mut(side);
        let weight = segment.length + u32::from(segment.has(SYN)) + u32::from(segment.has(FIN));
        if weight == 0 {
            // RFC 9293, 3.8.4: below what was acknowledged, without data or with one byte of it.
            let probe = end.next.is_some_and(|next| before(segment.seq, next)) && acked == end.next;
            end.probes = end.probes.saturating_add(u32::from(probe));
            return;
        }
        let probe = segment.length <= FEW && again && acked == end.next && !segment.has(SYN | FIN);
        if probe {
            end.probes = end.probes.saturating_add(1);
            return;
        }
        if again {
            end.contradiction(segment);
            end.retransmissions = end.retransmissions.saturating_add(1);
            end.unanswered = end.unanswered.saturating_add(1);
            return;
        }
        let new = match end.next {
            Some(next) if before(segment.seq, next) => {
                end.contradiction(segment);
                segment.end().wrapping_sub(next)
            }
            _ => segment.length,
        };
        end.next = Some(segment.end());
        if segment.length > 0 {
            end.bytes = end.bytes.saturating_add(u64::from(new.min(segment.length)));
            end.first_data = end.first_data.or(Some(segment.at));
            end.last_data = Some(segment.at);
            end.last_length = segment.length;
            end.remember(segment);
        }
    }

    fn window(&mut self, side: Side, segment: &Segment<'_>) {
        let end = self.end_mut(side);
        if segment.window == 0 && !segment.has(SYN) {
            end.zero_windows = end.zero_windows.saturating_add(1);
            end.closed_since = end.closed_since.or(Some(segment.at));
        } else {
            end.closed_since = None;
        }
    }

    /// The side sends as if it had not reset the connection: more than what was on the way already.
    fn went_on(&self, side: Side, segment: &Segment<'_>) -> bool {
        let Some(first) = self.resets.iter().find(|rst| rst.side == side) else { return false };
        // A refused SYN may be tried again, and accepted, by the same numbers.
        let accepts = segment.has(SYN) && segment.has(ACK);
        let later = segment.at > first.at;
        let new = segment.length > 0 && !self.is_retransmission(side, segment);
        let acknowledges = segment.has(ACK) && self.end(side).acked.is_some_and(|acked| before(acked, segment.ack));
        later && (accepts && first.refuses_wrongly || !accepts && !segment.has(SYN) && (new || acknowledges))
    }

    fn reset(&mut self, side: Side, segment: &Segment<'_>) {
        let rst = Witness::new(self, side).rst(segment);
        // The trigger of an answer was heard.
        self.end_mut(side).resets += 1;
        self.end_mut(side).packets += 1;
        if self.resets.len() < RESETS {
            // Most have one.
            self.resets.reserve_exact(1);
            self.resets.push(rst);
        }
        self.last = self.last.max(segment.at);
    }
}

impl End {
    fn remember(&mut self, segment: &Segment<'_>) {
        let room = BEGINNING - usize::from(self.begun);
        let taken = segment.data.len().min(room);
        if let (Some(to), Some(from)) = (self.beginning.get_mut(usize::from(self.begun)..), segment.data.get(..taken)) {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            self.begun += taken as u8;
        }
        let mut latest = [0; LATEST];
        let length = segment.data.len().min(LATEST);
        latest.iter_mut().zip(segment.data).for_each(|(to, from)| *to = *from);
        self.latest = Some((latest, length as u8, segment.seq));
        self.latest_marks = (segment.ttl, segment.ip_id, segment.length);
    }

    /// Other data with the number of the latest.
    fn contradiction(&mut self, segment: &Segment<'_>) {
        let Some((latest, length, seq)) = &self.latest else { return };
        let known = latest.get(..usize::from(*length)).unwrap_or_default();
        let same = known.iter().zip(segment.data).all(|(a, b)| a == b);
        // One byte may be garbage that only asks whether the other end is there (RFC 1122, 4.2.3.6).
        if *seq == segment.seq && !same && segment.length > 1 && self.contradicted.is_none() {
            let (ttl, ip_id, length) = self.latest_marks;
            self.contradicted = Some(Box::new(Contradiction {
                at: segment.at,
                first: (ttl, ip_id),
                second: (segment.ttl, segment.ip_id),
                lengths: (length, segment.length),
            }));
        }
    }
}
