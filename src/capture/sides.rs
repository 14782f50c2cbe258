//! What a RST of the acceptor, or of the initiator, tells: how far the exchange had come, and which form it has.

use std::time::Duration;

use super::flow::{Flow, LOST, Side};
use super::protocol;
use super::reset::{Phase, Rst};
use super::story::{Reading, Story, Sure};
use crate::value::words::{counted, short};

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

/// What it answers, if it answers a connection's first use after a pause.
fn pause(flow: &Flow, rst: &Rst) -> Option<Duration> {
    let (length, ended, _) = flow.pause?;
    (rst.at.saturating_sub(ended) < FIRST_USE).then_some(length)
}

fn after(time: Option<Duration>) -> String {
    time.map_or_else(String::new, |time| format!(", {} after the last packet of the other side", short(time)))
}

/// Keepalive probes that nobody answered: numbers below what was acknowledged or, where the capture began too late to know that,
/// packets without data and nothing of the other side.
fn vanished(flow: &Flow, rst: &Rst) -> Option<Reading> {
    let (own, other) = (flow.end(rst.side), flow.end(rst.side.other()));
    let only_probes = flow.opened.is_none() && other.packets == 0 && own.bytes == 0 && own.packets > own.resets;
    let probes = match only_probes {
        true => own.packets - own.resets,
        false => u64::from(rst.probes),
    };
    let reading = Reading::new(Story::KeepaliveFailed, if only_probes { Sure::Perhaps } else { Sure::Likely })
        .by(rst.side)
        .others(&["retransmission-timeout"])
        .because(format!("{} without an answer came before it", counted(probes, "probe")));
    (only_probes || probes >= 2).then_some(reading)
}

pub(super) fn by_acceptor(flow: &Flow, rst: &Rst, own: &[&Rst]) -> Reading {
    let (initiator, acceptor) = (flow.end(Side::Initiator), flow.end(Side::Acceptor));
    let of = |story, sure| Reading::new(story, sure).by(Side::Acceptor);
    if acceptor.fin.is_some() || initiator.fin.is_some() && rst.answer {
        return late(flow, rst, own);
    }
    if rst.phase <= Phase::BeforeRequest || initiator.bytes == 0 && rst.quiet.is_none() {
        let soon = flow.accepted.map(|accepted| rst.at.saturating_sub(accepted));
        let when = soon.map_or_else(String::new, |soon| format!(" {} after it was accepted", short(soon)));
        return match rst.answer {
            true => of(Story::QueueFull, Sure::Perhaps)
                .others(&["listener-closed", "stale-connection"])
                .because(format!("the handshake's last packet was answered by a bare RST{when}: tcp_abort_on_overflow, or the listener went away"))
                .open("whether the accept queue was full (ListenOverflows on that host tells)"),
            false => of(Story::TurnedAway, Sure::Perhaps)
                .others(&["listener-closed", "abortive-close", "process-exit", "middlebox-reset"])
                .because(format!("reset{when}, before anything was asked"))
                .open("which program ended it, and why"),
        };
    }
    if let Some(vanished) = vanished(flow, rst) {
        return vanished;
    }
    if rst.unanswered >= LOST {
        return of(Story::Lost, Sure::Likely).others(&["keepalive-timeout"]).because(format!(
            "the acceptor had sent {} again without an answer",
            counted(rst.unanswered.into(), "segment")
        ));
    }
    if let Some(time) = rst.held_back.filter(|time| *time >= HELD_BACK) {
        return of(Story::SlowReader, Sure::Likely)
            .because(format!("the initiator's window was closed for {} before the RST", short(time)))
            .because(format!("{} were not acknowledged", counted(rst.outstanding.into(), "byte")));
    }
    if rst.answer {
        return stale(flow, rst);
    }
    match rst.phase {
        Phase::Idle => of(Story::IdleLimit, Sure::Perhaps)
            .others(&["keepalive-timeout", "peer-idle-limit", "process-exit"])
            .because(format!("nothing was sent for {} before it", short(rst.quiet.unwrap_or_default())))
            .open("whether the acceptor or a device on the path has that limit"),
        // Of what its kernel took the program may have read all.
        Phase::Waiting if acceptor.bytes == 0 => {
            let sure = if rst.unacknowledged > 0 { Sure::Likely } else { Sure::Perhaps };
            of(Story::UnreadData, sure)
                .others(&["connection-limit", "process-exit", "abortive-close", "socket-destroyed", "peer-reset"])
                .because(format!(
                    "the request ({}) got a RST and no answer{}",
                    counted(initiator.bytes, "byte"),
                    after(rst.answers)
                ))
                .open("why the program closed without reading: its own limit, a crash, or SO_LINGER 0")
        }
        Phase::Waiting => of(Story::UnreadData, Sure::Perhaps)
            .others(&["abortive-close", "process-exit", "peer-idle-limit", "socket-destroyed", "peer-reset"])
            .because(format!("a request was waiting for its answer{}", after(rst.answers)))
            .open("whether the program died, or closed with unread data or SO_LINGER 0"),
        _ if rst.unacknowledged > 0
            || initiator.last_data > acceptor.first_data
                && initiator.last_length > 0
                && initiator.bytes > u64::from(MUCH) =>
        {
            of(Story::UnreadData, Sure::Likely).others(&["abortive-close", "connection-limit"]).because(format!(
                "the initiator was still sending ({} by then) when the acceptor had answered and closed",
                counted(initiator.bytes, "byte")
            ))
        }
        _ => of(Story::Aborted, Sure::Perhaps)
            .others(&[
                "close-with-unread-data",
                "process-exit",
                "connection-limit",
                "socket-destroyed",
                "slow-reader",
                "peer-reset",
            ])
            .because(format!(
                "the acceptor had sent {} and reset {} later, instead of FIN",
                counted(acceptor.bytes, "byte"),
                short(rst.quiet.unwrap_or_default())
            ))
            .open("whether data was left unread or SO_LINGER 0 was set"),
    }
}

/// What else is answered, or made, in the form of an answer to a segment that nobody knows.
const STALE: [&str; 7] = [
    "idle-timeout",
    "peer-restarted",
    "conntrack-invalid",
    "peer-reset",
    "slow-reader",
    "firewall-reject",
    "late-data-after-close",
];

/// The side does not know the connection any more.
fn stale(flow: &Flow, rst: &Rst) -> Reading {
    let side = rst.side.name();
    let form = format!("a bare RST with the number that it answers: the {side}'s kernel has no such connection");
    match pause(flow, rst) {
        Some(length) if length >= IDLE_LIMIT => Reading::new(Story::AfterPause, Sure::Likely)
            .by(rst.side)
            .others(&["stale-connection", "peer-restarted"])
            .because(format!("the connection had been silent for {}, its next use was reset", short(length)))
            .because(form)
            .open("whether a device on the path forgot it, or the other side"),
        paused => {
            let reading = Reading::new(Story::Stale, Sure::Likely)
                .by(rst.side)
                .others(&STALE)
                .because(form)
                .open("how it was lost: a restart, a crash, or a device that moved or forgot the flow");
            match paused {
                Some(length) => reading.because(format!("at the first use after a pause of {}", short(length))),
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
    let asks_again = initiator.fin.is_none() && initiator.begins_anew() && !protocol::is_tls(flow);
    if !asks_again && lost <= GOODBYE && (acceptor.bytes > 0 || initiator.fin.is_some())
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
            .others(&["late-data-after-close", "process-exit", "listener-closed", "close-with-unread-data"])
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
            reading.because(format!("it closed {} after its last answer: a limit for idle connections", short(idle)))
        }
        None if asks_again => reading.because("what came begins as the request before it"),
        None => reading,
    }
}

pub(super) fn by_initiator(flow: &Flow, rst: &Rst, own: &[&Rst]) -> Reading {
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
    if let Some(vanished) = vanished(flow, rst) {
        return vanished;
    }
    if rst.unanswered >= LOST {
        return of(Story::Lost, Sure::Likely).others(&["keepalive-timeout"]).because(format!(
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
            short(rst.quiet.unwrap_or_default())
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
        .others(&["accept-queue-overflow", "accept-loop-stalled", "connect-unanswered"])
        .because(format!(
            "its request ({}) had no answer for {}",
            counted(flow.end(Side::Initiator).bytes, "byte"),
            short(waited)
        ))
        .open("why the answer took so long")
}
