//! What an expert reads from a connection: what happened, which cause that is, how sure, and what a capture cannot tell.

use std::time::Duration;

use super::around::Around;
use super::flow::{Flow, LOST, Side};
use super::protocol;
use super::reset::{Doubt, Phase, Rst};
use super::sides::{by_acceptor, by_initiator};
use super::story::{Reading, Story, Sure};
use crate::source::reset_packets::{Code, Stated};
use crate::value::words::{counted, short, thousands};

/// A program that takes data and answers nothing closes when there is no more, unless it hangs.
const HANGS: Duration = Duration::from_secs(1);

/// What a connection tells, the most telling first; nothing for one that is only open, or as it should be.
pub fn readings(flow: &Flow, around: &Around<'_>) -> Vec<Reading> {
    if flow.resumed {
        return resumed(flow).into_iter().collect();
    }
    let mut readings = Vec::new();
    readings.extend(injected(flow));
    readings.extend(forged(flow));
    let own: Vec<&Rst> = flow.resets.iter().filter(|rst| !is_foreign(flow, rst)).collect();
    let injected = readings.iter().any(|reading| reading.story == Story::Injected);
    match own.first() {
        // What follows an injected answer is its effect, and so is a bare RST of the side that believed a forged one.
        _ if injected => {}
        Some(first) if first.answer && deceived(flow, first) => {
            let resets = flow.end(first.side).resets;
            let effect =
                format!("the {} of the {} that follow are its effect", counted(resets, "RST"), first.side.name());
            readings.iter_mut().for_each(|reading| reading.because.push(effect.clone()));
        }
        Some(first) => {
            readings.push(Reading { phase: Some(first.phase), ..of_reset(flow, first, &own, around) });
        }
        None if readings.is_empty() => readings.extend(without_reset(flow, around)),
        None => {}
    }
    // Thousands are kept.
    readings.shrink_to_fit();
    readings
}

/// Of a connection whose beginning is not kept any more nothing is read but that it was reset.
fn resumed(flow: &Flow) -> Option<Reading> {
    let rst = flow.resets.first()?;
    let reading = Reading::new(Story::Unknown, Sure::Perhaps)
        .by(rst.side)
        .others(&["stale-connection", "peer-reset", "late-data-after-close"])
        .because("more connections came before it than are kept")
        .open("what was sent on it before");
    Some(Reading { phase: Some(rst.phase), ..reading })
}

/// This side had believed a forged RST, and so does not know the connection any more.
fn deceived(flow: &Flow, rst: &Rst) -> bool {
    let forged = |other: &&Rst| other.side != rst.side && other.at <= rst.at && other.is_forged();
    flow.resets.iter().any(|other| forged(&other) && !other.refuses_wrongly)
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
    let mut reading = Reading { phase: Some(rst.phase), ..Reading::new(Story::Forged, sure) };
    if rst.doubts.is_empty() {
        reading = reading.others(&["out-of-window-reset", "conntrack-invalid"]);
    }
    for doubt in &rst.doubts {
        reading = reading.because(match doubt {
            Doubt::Ttl(ttl, (low, high)) if low == high => format!("TTL {ttl}, the {side}'s other packets have {low}"),
            Doubt::Ttl(ttl, (low, high)) => format!("TTL {ttl}, the {side}'s other packets have {low} to {high}"),
            Doubt::CopiedId(id) => format!("IP id {id:#06x} is a copy of the other side's last packet"),
            Doubt::ReservedBits => "reserved bits of the TCP header are set".to_owned(),
            Doubt::NoTimestamps => "no timestamps, although the connection uses them".to_owned(),
            Doubt::TooSoon(took, way) => {
                format!("it came {} after what it answers, the {side} is {} away", short(*took), short(*way))
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
    if flow.odd || around.is_scan(flow) {
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

/// Why a port refuses that accepts others in the same capture, or not.
const SERVED_BEFORE: [&str; 5] =
    ["process-exit", "listener-closed", "peer-restarted", "upstream-refused", "firewall-reject"];
const NEVER_SERVED: [&str; 6] =
    ["upstream-refused", "wrong-bind-address", "firewall-reject", "process-exit", "listener-closed", "peer-restarted"];

fn refused(flow: &Flow, rst: &Rst, around: &Around<'_>) -> Reading {
    let initiator = flow.end(Side::Initiator);
    let tries = if initiator.syns > 1 {
        format!("one attempt, its SYN sent {} times, each answered by RST", initiator.syns)
    } else {
        "the SYN was answered by RST".to_owned()
    };
    let took = rst.answers.map(|took| format!("{tries}, in {}", short(took))).unwrap_or(tries);
    let instead = around.used_instead(flow);
    // Another port of the same host is used in turn by few programs only, and not again and again.
    let instead = instead.filter(|other| other.ip() != flow.acceptor.ip() || !around.is_never_served(flow.acceptor));
    if let Some(other) = instead {
        return Reading::new(Story::TriedElsewhere, Sure::Likely)
            .by(Side::Acceptor)
            .harmless()
            .because(took)
            .because(format!("the same client connected to {other} at the same time"));
    }
    let served = around.is_served(flow.acceptor);
    let reading = Reading::new(Story::Refused, if served { Sure::Perhaps } else { Sure::Likely })
        .by(Side::Acceptor)
        .others(if served { &SERVED_BEFORE } else { &NEVER_SERVED })
        .because(took)
        .open("whether nothing listens there at all, or only not on this address, or a firewall answers with RST");
    let own_ttl = rst.ttl.filter(|ttl| [64, 128, 255].contains(ttl));
    let reading = match own_ttl {
        Some(ttl) => reading.because(format!("TTL {ttl}: no router is between, it is that host's own answer")),
        None => reading,
    };
    let reading = if served { reading.because("others were accepted there in this capture") } else { reading };
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

/// A connection without a RST of its own.
fn without_reset(flow: &Flow, around: &Around<'_>) -> Option<Reading> {
    // Of one that was let go the rest was not seen.
    let until = flow.let_go.unwrap_or(around.until);
    let (initiator, acceptor) = (flow.end(Side::Initiator), flow.end(Side::Acceptor));
    let tried = counted(initiator.packets, "SYN");
    if let (Some((at, error)), None) = (flow.error.as_deref(), flow.accepted) {
        let soon = short(at.saturating_sub(flow.started));
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
        if around.is_scan(flow) {
            return Some(Reading::new(Story::Scanned, Sure::Likely).by(Side::Initiator).harmless());
        }
        let waited = until.saturating_sub(flow.started);
        if initiator.packets < 2 && waited < Duration::from_secs(1) {
            return None;
        }
        let sure = if initiator.syns > 2 { Sure::Likely } else { Sure::Perhaps };
        return Some(
            Reading::new(Story::Unanswered, sure)
                .others(&[
                    "firewall-reject",
                    "accept-queue-overflow",
                    "syn-queue-overflow",
                    "syn-flood",
                    "conntrack-table-full",
                ])
                .because(format!("{tried}, no answer within {}: dropped, not refused", short(waited)))
                .open("who drops it: a firewall, the path, or a server with a full queue"),
        );
    }
    if flow.accepted_again >= 2 || flow.accepted_again > 0 && initiator.retransmissions > 0 {
        return Some(
            Reading::new(Story::QueueFull, Sure::Likely)
                .by(Side::Acceptor)
                .others(&["connect-unanswered", "syn-queue-overflow"])
                .because(format!(
                    "the SYN-ACK came again {} times although the initiator had answered it",
                    thousands(flow.accepted_again.into())
                )),
        );
    }
    if let Some((side, end)) =
        [(Side::Initiator, initiator), (Side::Acceptor, acceptor)].into_iter().find(|(_, end)| end.unanswered >= LOST)
        && flow.let_go.is_none()
    {
        return Some(
            Reading::new(Story::Lost, Sure::Perhaps)
                .by(side)
                .others(&["idle-timeout", "idle-without-keepalive", "connect-unanswered"])
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
    if let Some((left, waited)) = flow.left_without_answer()
        && until.saturating_sub(left) >= HANGS
    {
        return Some(
            Reading::new(Story::GaveUp, Sure::Perhaps)
                .by(Side::Initiator)
                .others(&["close-wait-leak", "accept-loop-stalled", "fd-exhaustion", "accept-queue-overflow"])
                .because(format!(
                    "the initiator asked, closed (FIN) {} later without a byte of an answer, and the acceptor never closed its side",
                    short(waited)
                ))
                .open("what the server waits for"),
        );
    }
    None
}
