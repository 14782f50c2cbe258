//! What an expert reads from a connection: what happened, which cause that is, how sure, and what a capture cannot tell.

use std::time::Duration;

use super::around::Around;
use super::flow::{Flow, LOST, Side};
use super::protocol;
use super::reset::{Doubt, Phase, Rst};
use crate::source::reset_packets::{Code, Stated};
use crate::value::words::{counted, seconds, thousands};

/// A goodbye: TLS close_notify has 24 to 31 bytes, QUIT of text protocols fewer.
const GOODBYE: u32 = 64;
/// More than this in flight is no answer that merely crossed the reset: ten segments, the first window (RFC 6928).
const MUCH: u32 = 14_600;
/// A client that has a limit waits longer than this for its answer; sooner it is cancelled.
const WAITS: Duration = Duration::from_millis(200);
/// Idle limits of devices are a minute and more.
const IDLE_LIMIT: Duration = Duration::from_secs(55);
/// Whoever resets a connection within this time of a pause's end answers its first use.
const FIRST_USE: Duration = Duration::from_secs(3);
/// A peer that does not read is cut off after seconds, never at once.
const HELD_BACK: Duration = Duration::from_secs(1);

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
    /// Only the RST was captured.
    Unknown: "unknown", "who was right cannot be told: the connection itself was not captured", None;
}

/// What is read from one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    pub story: Story,
    /// The side that is at its beginning.
    pub by: Option<Side>,
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
        Self { story, by: None, harmless: false, sure, others: &[], because: Vec::new(), open: None }
    }

    fn by(mut self, side: Side) -> Self {
        self.by = Some(side);
        self
    }

    fn harmless(mut self) -> Self {
        self.harmless = true;
        self
    }

    fn because(mut self, text: impl Into<String>) -> Self {
        self.because.push(text.into());
        self
    }

    fn others(mut self, others: &'static [&'static str]) -> Self {
        self.others = others;
        self
    }

    fn open(mut self, open: &'static str) -> Self {
        self.open = Some(open);
        self
    }
}

/// What a connection tells, the most telling first; nothing for one that is only open, or as it should be.
pub fn readings(flow: &Flow, around: &Around<'_>) -> Vec<Reading> {
    let mut readings = Vec::new();
    readings.extend(injected(flow));
    readings.extend(forged(flow));
    let own: Vec<&Rst> = flow.resets.iter().filter(|rst| !is_foreign(flow, rst)).collect();
    let injected = readings.iter().any(|reading| reading.story == Story::Injected);
    match own.first() {
        // What follows an injected answer is its effect.
        _ if injected => {}
        Some(first) => readings.push(of_reset(flow, first, &own, around)),
        None if readings.is_empty() => readings.extend(without_reset(flow, around)),
        None => {}
    }
    readings
}

/// This RST, or one that answers the same, was not made by the side.
fn is_foreign(flow: &Flow, rst: &Rst) -> bool {
    const SAME_SHOT: Duration = Duration::from_millis(50);
    let forged = flow.resets.iter().find(|first| first.side == rst.side && first.is_forged());
    forged.is_some_and(|first| {
        let alike = (first.signature, first.has_ack) == (rst.signature, rst.has_ack);
        first == rst || rst.again && alike && rst.went_on && rst.at.saturating_sub(first.at) < SAME_SHOT
    })
}

fn injected(flow: &Flow) -> Option<Reading> {
    [Side::Acceptor, Side::Initiator].into_iter().find_map(|side| {
        let found = flow.end(side).contradicted.as_ref()?;
        let mark = |(ttl, id): (Option<u8>, Option<u16>)| match (ttl, id) {
            (Some(ttl), Some(id)) => format!("TTL {ttl}, IP id {id}"),
            (Some(ttl), None) => format!("hop limit {ttl}"),
            _ => "no marks".to_owned(),
        };
        let differs = found.first != found.second;
        let text = format!(
            "the {} sent two different answers with the same number: {} ({}), then {} ({})",
            side.name(),
            counted(found.lengths.0.into(), "byte"),
            mark(found.first),
            counted(found.lengths.1.into(), "byte"),
            mark(found.second)
        );
        let sure = if differs { Sure::Surely } else { Sure::Likely };
        let reading = Reading::new(Story::Injected, sure).because(text);
        let resets = flow.reset_count();
        Some(match resets {
            0 => reading,
            _ => reading.because(format!("the {} that follow are an after-effect", counted(resets, "RST"))),
        })
    })
}

fn forged(flow: &Flow) -> Option<Reading> {
    let rst = flow.resets.iter().find(|rst| rst.is_forged())?;
    let side = rst.side.name();
    // An answer by a host that knows the connection under another address: its program goes on all the same.
    if rst.answer && rst.went_on && rst.doubts.is_empty() && rst.phase != Phase::Refused {
        return Some(
            Reading::new(Story::Untranslated, Sure::Likely)
                .by(rst.side)
                .others(&["middlebox-reset"])
                .because(format!("the {side}'s kernel answered as if it did not know the connection, and the {side} went on sending on it"))
                .open("whether address translation or a device on the path is behind it"),
        );
    }
    let sure = match (rst.went_on, rst.doubts.is_empty()) {
        (true, false) => Sure::Surely,
        _ => Sure::Likely,
    };
    let mut reading = Reading::new(Story::Forged, sure);
    for doubt in &rst.doubts {
        reading = reading.because(match doubt {
            Doubt::Ttl(ttl, (low, high)) if low == high => format!("TTL {ttl}, the {side}'s other packets have {low}"),
            Doubt::Ttl(ttl, (low, high)) => format!("TTL {ttl}, the {side}'s other packets have {low} to {high}"),
            Doubt::CopiedId(id) => format!("IP id {id:#06x} is a copy of the other side's last packet"),
            Doubt::ReservedBits => "reserved bits of the TCP header are set".to_owned(),
            Doubt::NoTimestamps => "no timestamps, although the connection uses them".to_owned(),
            Doubt::TooSoon(took, way) => {
                format!("it came {} after what it answers, the {side} is {} away", seconds(*took), seconds(*way))
            }
            Doubt::WrongAck => "it does not acknowledge the SYN, so the initiator ignored it".to_owned(),
        });
    }
    let row = flow.resets.iter().filter(|other| is_foreign(flow, other)).count() as u64;
    if row > 1 {
        reading = reading.because(format!("{} in a row, all alike", counted(row, "RST")));
    }
    if rst.went_on {
        reading = reading.because(format!("the {side} went on with the connection afterwards"));
    }
    if let Some(words) = rst.stated.as_ref().and_then(text_of) {
        reading = reading.because(format!("it says of itself: {words}"));
    }
    Some(reading)
}

fn text_of(stated: &Stated) -> Option<String> {
    match stated {
        Stated::Text(text) => Some(text.clone()),
        Stated::Diagnostic { code, .. } => Some(format!("diagnostic code {code}")),
        Stated::Mptcp(reason) => Some(format!("MPTCP reason {reason}")),
    }
}

/// What the first RST of a side itself tells; `own`: all that their sides made.
fn of_reset(flow: &Flow, rst: &Rst, own: &[&Rst], around: &Around<'_>) -> Reading {
    if let Some(words) = rst.stated.as_ref().and_then(text_of) {
        let reading = Reading::new(Story::Passed, Sure::Likely).by(rst.side);
        return reading.others(&["peer-reset"]).because(format!("the RST says of itself: {words}"));
    }
    if flow.odd || around.is_scanner(flow.initiator.ip()) {
        let what = match flow.odd {
            true => "its first packet has flags with which no connection begins (FIN, none, or all)",
            false => "the same source tries one port after the other",
        };
        return Reading::new(Story::Scanned, Sure::Likely).by(Side::Initiator).harmless().because(what);
    }
    if rst.phase == Phase::Lone {
        return Reading::new(Story::Unknown, Sure::Perhaps).by(rst.side).others(&["stale-connection", "peer-reset"]);
    }
    if rst.phase == Phase::Refused {
        return refused(flow, rst, around);
    }
    if rst.out_of_window {
        return Reading::new(Story::OutOfWindow, Sure::Likely).by(rst.side).others(&["middlebox-reset"]);
    }
    if let Some((initiator, acceptor)) = protocol::mismatch(flow) {
        return Reading::new(Story::WrongProtocol, Sure::Likely)
            .by(Side::Initiator)
            .because(format!("the initiator speaks {initiator}, the acceptor {acceptor}"));
    }
    let again = own.iter().filter(|other| other.side == rst.side).count() as u64;
    let reading = match rst.side {
        Side::Acceptor => by_acceptor(flow, rst, own),
        Side::Initiator => by_initiator(flow, rst, own),
    };
    match again {
        0 | 1 => reading,
        _ => reading.because(format!(
            "one event: {} of the {}, the later ones answer what was still on the way",
            counted(again, "RST"),
            rst.side.name()
        )),
    }
}

fn refused(flow: &Flow, rst: &Rst, around: &Around<'_>) -> Reading {
    let initiator = flow.end(Side::Initiator);
    let tries = if initiator.syns > 1 {
        format!("one attempt, its SYN sent {} times, each answered by RST", initiator.syns)
    } else {
        "the SYN was answered by RST".to_owned()
    };
    let took = rst.answers.map(|took| format!("{tries}, in {}", seconds(took))).unwrap_or(tries);
    if let Some(other) = around.used_instead(flow) {
        return Reading::new(Story::TriedElsewhere, Sure::Likely)
            .by(Side::Acceptor)
            .harmless()
            .because(took)
            .because(format!("the same client connected to {other} at the same time"));
    }
    let reading = Reading::new(Story::Refused, Sure::Likely)
        .by(Side::Acceptor)
        .others(&["upstream-refused", "wrong-bind-address", "firewall-reject"])
        .because(took)
        .open("whether nothing listens there at all, or only not on this address, or a firewall answers with RST");
    let own_ttl = rst.ttl.filter(|ttl| [64, 128, 255].contains(ttl));
    let reading = match own_ttl {
        Some(ttl) => reading.because(format!("TTL {ttl}: no router is between, it is that host's own answer")),
        None => reading,
    };
    let from_outside = around.here(flow) == Some(Side::Acceptor) && !is_private(flow.initiator.ip());
    if from_outside && initiator.syns == 1 && !around.is_served(flow.acceptor) {
        return reading.because("asked once, from outside: a probe of a closed port").harmless();
    }
    reading
}

fn is_private(address: std::net::IpAddr) -> bool {
    match address {
        std::net::IpAddr::V4(address) => address.is_private() || address.is_loopback() || address.is_link_local(),
        std::net::IpAddr::V6(address) => {
            address.is_loopback()
                || address.segments()[0] & 0xfe00 == 0xfc00
                || address.segments()[0] & 0xffc0 == 0xfe80
        }
    }
}

/// What it answers, if it answers a connection's first use after a pause.
fn pause(flow: &Flow, rst: &Rst) -> Option<Duration> {
    let (length, ended, _) = flow.pause?;
    (rst.at.saturating_sub(ended) < FIRST_USE).then_some(length)
}

fn after(time: Option<Duration>) -> String {
    time.map_or_else(String::new, |time| format!(", {} after the last packet of the other side", seconds(time)))
}

fn by_acceptor(flow: &Flow, rst: &Rst, own: &[&Rst]) -> Reading {
    let (initiator, acceptor) = (flow.end(Side::Initiator), flow.end(Side::Acceptor));
    let of = |story, sure| Reading::new(story, sure).by(Side::Acceptor);
    if acceptor.fin.is_some() || initiator.fin.is_some() && rst.answer {
        return late(flow, rst, own);
    }
    if rst.phase <= Phase::BeforeRequest || initiator.bytes == 0 && rst.quiet.is_none() {
        let soon = flow.accepted.map(|accepted| rst.at.saturating_sub(accepted));
        let when = soon.map_or_else(String::new, |soon| format!(" {} after it was accepted", seconds(soon)));
        return match rst.answer {
            true => of(Story::QueueFull, Sure::Perhaps)
                .others(&["listener-closed", "stale-connection"])
                .because(format!("the handshake's last packet was answered by a bare RST{when}: tcp_abort_on_overflow, or the listener went away"))
                .open("whether the accept queue was full (ListenOverflows on that host tells)"),
            false => of(Story::TurnedAway, Sure::Perhaps)
                .others(&["listener-closed", "abortive-close", "process-exit"])
                .because(format!("reset{when}, before anything was asked"))
                .open("which program ended it, and why"),
        };
    }
    if rst.probes >= 2 {
        return of(Story::KeepaliveFailed, Sure::Likely)
            .because(format!("{} without an answer came before it", counted(rst.probes.into(), "probe")));
    }
    if rst.unanswered >= LOST {
        return of(Story::Lost, Sure::Likely).because(format!(
            "the acceptor had sent {} again without an answer",
            counted(rst.unanswered.into(), "segment")
        ));
    }
    if let Some(time) = rst.held_back.filter(|time| *time >= HELD_BACK) {
        return of(Story::SlowReader, Sure::Likely)
            .because(format!("the initiator's window was closed for {} before the RST", seconds(time)))
            .because(format!("{} were not acknowledged", counted(rst.outstanding.into(), "byte")));
    }
    if rst.answer {
        return stale(flow, rst);
    }
    match rst.phase {
        Phase::Idle => of(Story::IdleLimit, Sure::Perhaps)
            .others(&["keepalive-timeout", "peer-idle-limit", "process-exit"])
            .because(format!("nothing was sent for {} before it", seconds(rst.quiet.unwrap_or_default())))
            .open("whether the acceptor or a device on the path has that limit"),
        Phase::Waiting if acceptor.bytes == 0 => of(Story::UnreadData, Sure::Likely)
            .others(&["connection-limit", "process-exit", "abortive-close"])
            .because(format!(
                "the request ({}) got a RST and no answer{}",
                counted(initiator.bytes, "byte"),
                after(rst.answers)
            ))
            .open("why the program closed without reading: its own limit, a crash, or SO_LINGER 0"),
        Phase::Waiting => of(Story::UnreadData, Sure::Perhaps)
            .others(&["abortive-close", "process-exit", "peer-idle-limit"])
            .because(format!("a request was waiting for its answer{}", after(rst.answers)))
            .open("whether the program died, or closed with unread data or SO_LINGER 0"),
        _ if rst.unacknowledged > 0
            || initiator.last_data > acceptor.first_data
                && initiator.last_length > 0
                && initiator.bytes > u64::from(MUCH) =>
        {
            of(Story::UnreadData, Sure::Likely).others(&["abortive-close"]).because(format!(
                "the initiator was still sending ({} by then) when the acceptor had answered and closed",
                counted(initiator.bytes, "byte")
            ))
        }
        _ => of(Story::Aborted, Sure::Perhaps)
            .others(&["close-with-unread-data", "process-exit"])
            .because(format!(
                "the acceptor had sent {} and reset {} later, instead of FIN",
                counted(acceptor.bytes, "byte"),
                seconds(rst.quiet.unwrap_or_default())
            ))
            .open("whether data was left unread or SO_LINGER 0 was set"),
    }
}

/// The side does not know the connection any more.
fn stale(flow: &Flow, rst: &Rst) -> Reading {
    let side = rst.side.name();
    let form = format!("a bare RST with the number that it answers: the {side}'s kernel has no such connection");
    match pause(flow, rst) {
        Some(length) if length >= IDLE_LIMIT => Reading::new(Story::AfterPause, Sure::Likely)
            .by(rst.side)
            .others(&["stale-connection", "peer-restarted"])
            .because(format!("the connection had been silent for {}, its next use was reset", seconds(length)))
            .because(form)
            .open("whether a device on the path forgot it, or the other side"),
        paused => {
            let reading = Reading::new(Story::Stale, Sure::Likely)
                .by(rst.side)
                .others(&["idle-timeout", "peer-restarted", "conntrack-invalid"])
                .because(form)
                .open("how it was lost: a restart, a crash, or a device that moved or forgot the flow");
            match paused {
                Some(length) => reading.because(format!("at the first use after a pause of {}", seconds(length))),
                None => reading,
            }
        }
    }
}

/// The acceptor had closed, or answers what came after the initiator had.
fn late(flow: &Flow, rst: &Rst, own: &[&Rst]) -> Reading {
    let (initiator, acceptor) = (flow.end(Side::Initiator), flow.end(Side::Acceptor));
    let side = rst.side;
    let mine = own.iter().filter(|other| other.side == side);
    let lost = mine.map(|other| other.unacknowledged).max().unwrap_or(0);
    let closed = acceptor.fin.is_some_and(|fin| initiator.fin.is_none_or(|other| fin <= other));
    if lost <= GOODBYE && (acceptor.bytes > 0 || initiator.fin.is_some())
        || protocol::is_tls(flow) && lost <= 2 * GOODBYE
    {
        return Reading::new(Story::Goodbye, Sure::Likely)
            .by(side)
            .harmless()
            .because(format!("{} crossed the close: both sides were leaving", counted(lost.into(), "byte")));
    }
    if closed && acceptor.bytes == 0 {
        return Reading::new(Story::TurnedAway, Sure::Likely)
            .by(side)
            .others(&["late-data-after-close"])
            .because(format!(
                "it was accepted and closed without a word; {} that came then were answered by RST",
                counted(lost.into(), "byte")
            ))
            .open("which limit or rule of the program that is: an unknown peer, too many connections");
    }
    let idle = acceptor.fin.zip(acceptor.last_data).map(|(fin, data)| fin.saturating_sub(data));
    let reading = Reading::new(Story::LateData, Sure::Likely)
        .by(side)
        .others(&["peer-idle-limit", "close-with-unread-data"])
        .because(format!(
            "the acceptor had closed (FIN) when {} more came: they are lost",
            counted(lost.into(), "byte")
        ));
    match idle.filter(|idle| *idle >= Duration::from_secs(1)) {
        Some(idle) => {
            reading.because(format!("it closed {} after its last answer: a limit for idle connections", seconds(idle)))
        }
        None => reading,
    }
}

fn by_initiator(flow: &Flow, rst: &Rst, own: &[&Rst]) -> Reading {
    let (initiator, acceptor) = (flow.end(Side::Initiator), flow.end(Side::Acceptor));
    let of = |story, sure| Reading::new(story, sure).by(Side::Initiator);
    if initiator.bytes + acceptor.bytes == 0 && flow.accepted.is_some() {
        return match flow.established.is_some() {
            true => of(Story::Probe, Sure::Likely).harmless().because("reset right after the handshake, no data"),
            false if rst.answer => of(Story::HandshakeReset, Sure::Perhaps)
                .others(&["port-scan", "stale-connection", "conntrack-invalid"])
                .because("the initiator's kernel does not know the connection that is accepted")
                .open("whether it is a scan of half-open connections, or the answer took another way"),
            false => of(Story::Probe, Sure::Likely).harmless().because("reset in the handshake: a probe"),
        };
    }
    if rst.probes >= 2 {
        return of(Story::KeepaliveFailed, Sure::Likely)
            .because(format!("{} without an answer came before it", counted(rst.probes.into(), "probe")));
    }
    if rst.unanswered >= LOST {
        return of(Story::Lost, Sure::Likely).because(format!(
            "the initiator had sent {} again without an answer",
            counted(rst.unanswered.into(), "segment")
        ));
    }
    let unread = own.iter().map(|other| other.unacknowledged).max().unwrap_or(0);
    if let Some(fin) = initiator.fin {
        let waited = initiator.last_data.map(|asked| fin.saturating_sub(asked));
        let unanswered = acceptor.last_data.is_none_or(|data| data > fin) && initiator.last_data.is_some();
        if unanswered
            && waited.is_some_and(|waited| waited >= WAITS)
            && initiator.last_data > acceptor.first_data.filter(|data| *data < fin)
        {
            return gave_up(flow, waited.unwrap_or_default());
        }
        return match unread {
            unread if unread > MUCH => of(Story::Cancelled, Sure::Likely)
                .harmless()
                .because(format!("it had closed while {} were on their way to it", counted(unread.into(), "byte"))),
            unread => of(Story::Goodbye, Sure::Likely).harmless().because(format!(
                "it had closed when {} more came: harmless at the end",
                counted(unread.into(), "byte")
            )),
        };
    }
    if acceptor.fin.is_some() {
        return of(Story::Goodbye, Sure::Likely).harmless().because("the acceptor had closed already");
    }
    if rst.answer {
        return stale(flow, rst);
    }
    match rst.phase {
        Phase::Idle => of(Story::IdleDropped, Sure::Likely).harmless().because(format!(
            "everything was acknowledged, and nothing sent for {}: the initiator dropped it with RST instead of FIN",
            seconds(rst.quiet.unwrap_or_default())
        )),
        Phase::Waiting if rst.quiet.is_some_and(|quiet| quiet >= WAITS) => gave_up(flow, rst.quiet.unwrap_or_default()),
        _ if rst.unacknowledged > MUCH
            || acceptor.last_data > initiator.last_data && flow.outstanding(Side::Acceptor) > MUCH =>
        {
            of(Story::Cancelled, Sure::Likely)
                .harmless()
                .because(format!("the acceptor was still sending, {} by then", counted(acceptor.bytes, "byte")))
        }
        _ => of(Story::Left, Sure::Likely).harmless().others(&["peer-reset"]).because(format!(
            "it sent {} and took {}, and hung up{}",
            counted(initiator.bytes, "byte"),
            counted(acceptor.bytes, "byte"),
            after(rst.answers)
        )),
    }
}

fn gave_up(flow: &Flow, waited: Duration) -> Reading {
    Reading::new(Story::GaveUp, Sure::Likely)
        .by(Side::Initiator)
        .because(format!(
            "its request ({}) had no answer for {}",
            counted(flow.end(Side::Initiator).bytes, "byte"),
            seconds(waited)
        ))
        .open("why the answer took so long")
}

/// A connection without a RST of its own.
fn without_reset(flow: &Flow, around: &Around<'_>) -> Option<Reading> {
    let (initiator, acceptor) = (flow.end(Side::Initiator), flow.end(Side::Acceptor));
    let tried = counted(initiator.packets, "SYN");
    if let (Some((at, error)), None) = (&flow.error, flow.accepted) {
        let soon = seconds(at.saturating_sub(flow.started));
        let story = match error.code {
            Code::Port | Code::Prohibited => Story::Rejected,
            Code::Host => Story::NoRoute,
        };
        let what = match error.code {
            Code::Port => "port unreachable",
            Code::Prohibited => "administratively prohibited",
            Code::Host => "no route, or host unreachable",
        };
        return Some(
            Reading::new(story, Sure::Surely)
                .because(format!("{} answered by ICMP after {soon}: {what}; {tried}, no RST", error.reporter)),
        );
    }
    if flow.odd {
        return Some(Reading::new(Story::Scanned, Sure::Likely).by(Side::Initiator).harmless());
    }
    let one_way = initiator.bytes > 0 || acceptor.packets > 0;
    if flow.opened.is_some() && flow.accepted.is_none() && !one_way {
        if around.is_scanner(flow.initiator.ip()) {
            return Some(Reading::new(Story::Scanned, Sure::Likely).by(Side::Initiator).harmless());
        }
        let waited = around.until.saturating_sub(flow.started);
        if initiator.packets < 2 && waited < Duration::from_secs(1) {
            return None;
        }
        let sure = if initiator.syns > 2 { Sure::Likely } else { Sure::Perhaps };
        return Some(
            Reading::new(Story::Unanswered, sure)
                .others(&["firewall-reject", "accept-queue-overflow"])
                .because(format!("{tried}, no answer within {}: dropped, not refused", seconds(waited)))
                .open("who drops it: a firewall, the path, or a server with a full queue"),
        );
    }
    if flow.accepted_again >= 2 || flow.accepted_again > 0 && initiator.retransmissions > 0 {
        return Some(
            Reading::new(Story::QueueFull, Sure::Likely).by(Side::Acceptor).others(&["connect-unanswered"]).because(
                format!(
                    "the SYN-ACK came again {} times although the initiator had answered it",
                    thousands(flow.accepted_again.into())
                ),
            ),
        );
    }
    if let Some((side, end)) =
        [(Side::Initiator, initiator), (Side::Acceptor, acceptor)].into_iter().find(|(_, end)| end.unanswered >= LOST)
    {
        return Some(
            Reading::new(Story::Lost, Sure::Perhaps)
                .by(side)
                .because(format!(
                    "the {} sent {} again, and nothing came back",
                    side.name(),
                    counted(end.unanswered.into(), "segment")
                ))
                .open("what the capture's end hides"),
        );
    }
    if flow.is_turned_away() {
        return Some(
            Reading::new(Story::TurnedAway, Sure::Perhaps)
                .by(Side::Acceptor)
                .because(format!("accepted and closed at once (FIN), {} sent", counted(acceptor.bytes, "byte")))
                .open("whether that is a limit of the program"),
        );
    }
    None
}
