//! What several causes ask of the connections whose exchange was cut off: the resets of one place by how far they had come.

use std::time::Duration;

use super::numbers::exchange::ONE_TIMER;
use super::place::Place;
use super::{EvidenceItem, Finding, Remedy, Setting, Verify};
use crate::attribution::Ended;
use crate::evidence::Evidence;
use crate::knowledge::servers::{Server, server_of};
use crate::reset::{End, Exchange, Reset};
use crate::source::destroyed_sockets::DestroyedSocket;
use crate::source::reset_events::Direction;
use crate::value::words;

/// The single resets of this place whose exchange had come so far.
pub fn resets<'a>(e: &Evidence<'a>, place: &Place<'_>, exchange: Exchange) -> Vec<&'a Reset> {
    let here = |reset: &&Reset| {
        let served = reset.local().is_some_and(|local| place.port.is_none_or(|port| local.port() == port));
        let called = place.called.is_none_or(|called| reset.peer() == Some(called));
        served && called && Exchange::of(reset) == Some(exchange)
    };
    e.resets().iter().filter(here).collect()
}

/// The server program of this place, if it is a known one: the one that listens, or the process that sent the resets.
pub fn server(e: &Evidence<'_>, place: &Place<'_>) -> Option<&'static Server> {
    let owners = place.service(e).map(|service| service.owners.as_slice()).unwrap_or_default();
    owners.iter().find_map(|process| server_of(process))
}

/// With the setting of the server, where it has one of this kind.
pub fn with_setting(finding: Finding, text: String, setting: Option<&Setting>, port: u16, verify: &Verify) -> Finding {
    match setting {
        Some(setting) => finding.remedy(Remedy::new(text, verify.clone()).setting(setting.of_port(port))),
        None => finding,
    }
}

/// What connections to a destination that reset them tell about its reason.
pub fn told_by_caller(e: &Evidence<'_>, place: &Place<'_>) -> Option<EvidenceItem> {
    let reset = |ended: &&Ended<'_>| matches!(ended.end, End::Reset | End::ResetAfterFin);
    let here = |ended: &&Ended<'_>| place.called.is_some() && ended.called == place.called;
    let sockets: Vec<_> = e.ended().ok()?.iter().filter(here).filter(reset).map(|ended| ended.socket).collect();
    let most =
        |fits: fn(&DestroyedSocket) -> bool| sockets.iter().filter(|socket| fits(socket)).count() * 2 > sockets.len();
    if most(DestroyedSocket::was_turned_away) {
        let text = "reset within a second of the connect, before an answer: the server turns them away (a limit of its own on \
                    connections, or a rule about who may connect), or ends before it reads";
        return Some(EvidenceItem::fact("destroyed_sockets", "bytes_received", text));
    }
    let left: Vec<u32> = sockets.iter().map(|socket| socket.unacknowledged).collect();
    let unread = left.iter().filter(|bytes| **bytes > 0).count() * 2 > left.len();
    // Less is a request that crossed the RST.
    let largest = left.iter().copied().max().filter(|largest| unread && *largest >= 4_096)?;
    let text = format!(
        "up to {} bytes were not acknowledged when the RST came: the other end did not read all that it was sent",
        words::thousands(u64::from(largest))
    );
    Some(EvidenceItem::value("destroyed_sockets", "unacknowledged", f64::from(largest), text))
}

/// The pause before this side closed the connections of a place, in the middle of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pause {
    /// Seconds without data in either direction: an idle limit.
    Idle(f64),
    /// Nothing had come for so many seconds, and this side sent something just before it closed: the goodbye of an idle limit
    /// (PostgreSQL's FATAL message), or an answer that took so long.
    Unasked(f64),
    /// Data had come just before: no idle limit.
    None,
}

/// `None` where that was not seen. `shortest`: seconds from which it is a pause.
pub fn pause_at_close(e: &Evidence<'_>, place: &Place<'_>, shortest: f64) -> Option<Pause> {
    let sockets: Vec<_> = closed_here(e, place).filter_map(|reset| reset.ended.as_deref()).collect();
    let middle = |silent_ms: fn(&DestroyedSocket) -> u32| {
        typical(sockets.iter().map(|socket| f64::from(silent_ms(socket)) / 1000.0)).map(|(seconds, _)| seconds)
    };
    let idle = middle(|socket| socket.data_sent_ms.min(socket.data_received_ms))?;
    let unasked = middle(|socket| socket.data_received_ms)?;
    Some(match (idle >= shortest, unasked >= shortest) {
        (true, _) => Pause::Idle(idle),
        (false, true) => Pause::Unasked(unasked),
        (false, false) => Pause::None,
    })
}

/// When this side closed those connections, as far as that was seen, ascending: a socket is destroyed soon after its close.
pub fn closed_at(e: &Evidence<'_>, place: &Place<'_>) -> Vec<Duration> {
    let mut at: Vec<_> = closed_here(e, place).filter_map(|reset| Some(reset.ended.as_ref()?.at)).collect();
    at.sort_unstable();
    at
}

/// The resets of this place that answer what came after this side had closed.
fn closed_here<'e>(e: &'e Evidence<'_>, place: &'e Place<'_>) -> impl Iterator<Item = &'e Reset> {
    e.resets().iter().filter(|reset| {
        let served = reset.local().is_some_and(|local| place.port == Some(local.port()));
        served && reset.direction() == Direction::Sent
    })
}

/// The middle one, and whether all but a few lie within a quarter of it: a limit, rather than chance.
pub fn typical(values: impl Iterator<Item = f64>) -> Option<(f64, bool)> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = *values.get(values.len() / 2)?;
    let near = values.iter().filter(|value| (*value - middle).abs() <= ONE_TIMER * middle).count();
    Some((middle, values.len() >= 2 && near * 5 >= values.len() * 4))
}

#[cfg(test)]
mod tests {
    use super::typical;

    #[test]
    fn one_limit_is_told_from_ages_at_random() {
        assert_eq!(typical([1.0, 1.02, 0.98, 1.1, 9.0].into_iter()), Some((1.02, true)));
        assert_eq!(typical([0.2, 1.0, 5.0].into_iter()), Some((1.0, false)));
        assert_eq!(typical([1.0].into_iter()), Some((1.0, false)));
        assert_eq!(typical(std::iter::empty()), None);
    }
}
