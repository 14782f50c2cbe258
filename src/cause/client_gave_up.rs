use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::numbers::client_gave_up as numbers;
use super::place::{self, Place};
use super::{EvidenceItem, Finding, Judgement, Remedy, Severity, Subject, Verdict, Verify};
use super::{exchange, severity, wording};
use crate::attribution::Ended;
use crate::evidence::Evidence;
use crate::evidence::harm::Target;
use crate::reset::{End, Exchange, answered_after, patience};
use crate::source::reset_events::Direction;
use crate::value::words;

cause! {
    /// ## What happens
    ///
    /// A client sends a request, waits as long as it is set to wait, and closes. The server works on and answers a client that
    /// is gone; the client's kernel resets the connection. The server's log has "Connection reset by peer" or "Broken pipe"
    /// (nginx: 499), the client's has a timeout.
    ///
    /// ## How it shows
    ///
    /// Connections are reset while their request has no answer, all after the same time since the request: the client's limit.
    ///
    /// ## How to confirm
    ///
    /// `rstdoctor trace --received --port PORT` as root; the server's log of slow requests has the same ones.
    ///
    /// ## What to change
    ///
    /// Make these requests faster than the clients' limit, or raise that limit above what the server needs. Retries by clients
    /// that gave up make a slow server slower.
    ///
    /// A program that hangs or was stopped shows without any RST, where it is called from: requests end without a byte of an
    /// answer, and their sockets stay in FIN_WAIT2, because the other side does not even close.
    ///
    /// ## Look-alikes
    ///
    /// People who cancel, after any time. A client that is killed in the middle of a request.
    CLIENT_GAVE_UP {
        id: "client-gave-up",
        title: "Clients gave up before the answer",
        explains: ["peer-reset", "late-data-after-close"],
        needs: [Window, ResetEvents],
        judge: judge,
    }
}

/// Destinations that are reported one by one.
const MOST_PLACES: usize = 5;

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    let otherwise = "no connection was reset by a client whose request had no answer";
    let hanging = hanging(e);
    let directions = [Direction::Received, Direction::Sent];
    let resets = place::in_both_directions(e, CLIENT_GAVE_UP.id, directions, |place, _| finding(e, place), otherwise);
    match resets {
        Ok(Verdict::Found(mut findings)) => {
            findings.extend(hanging);
            Ok(Verdict::Found(findings))
        }
        _ if !hanging.is_empty() => Ok(Verdict::Found(hanging)),
        resets => resets,
    }
}

/// Destinations of this host that take requests and neither answer nor close.
fn hanging(e: &Evidence<'_>) -> Vec<Finding> {
    let mut asked: BTreeMap<SocketAddr, Vec<&Ended<'_>>> = BTreeMap::new();
    for ended in e.ended().unwrap_or_default().iter().filter(|ended| ended.end == End::Other) {
        let Some(called) = ended.called else { continue };
        // The FIN of a peer counts as a byte (net/ipv4/tcp_input.c tcp_fin): nothing at all came.
        let waited = ended.socket.data_sent_ms >= numbers::WAITED_MS;
        if waited && ended.socket.bytes_sent > Some(0) && ended.socket.bytes_received == Some(0) {
            asked.entry(called).or_default().push(ended);
        }
    }
    if asked.is_empty() {
        return Vec::new();
    }
    let mut left_open: BTreeMap<SocketAddr, u64> = BTreeMap::new();
    for to in e.destinations().unwrap_or_default() {
        *left_open.entry(SocketAddr::new(to.address, to.port)).or_default() += to.fin_wait2;
    }
    // Who only sends, a log shipper, closes the same way: its server closes as well, a moment later.
    let hangs = |called: &SocketAddr, asked: &[&Ended<'_>]| {
        let open = left_open.get(called).copied().unwrap_or_default();
        open >= 2 && open * 2 >= asked.len() as u64
    };
    asked.retain(|called, asked| hangs(called, asked));
    let mut asked: Vec<_> = asked.into_iter().collect();
    asked.sort_by_key(|(_, asked)| std::cmp::Reverse(asked.len()));
    asked
        .into_iter()
        .take(MOST_PLACES)
        .map(|(called, asked)| hangs_there(e, called, &asked, left_open[&called]))
        .collect()
}

fn hangs_there(e: &Evidence<'_>, called: SocketAddr, asked: &[&Ended<'_>], left_open: u64) -> Finding {
    let count = asked.len() as u64;
    let times = || asked.iter().map(|ended| ended.socket.at);
    let span = times().min().zip(times().max()).map(|(first, last)| [first, last]);
    let harm = e.harm(Target::Called(called), count, span);
    let after = match exchange::typical(asked.iter().map(|ended| f64::from(ended.socket.data_sent_ms) / 1000.0)) {
        Some((wait, true)) => format!(" after {wait:.1} s each"),
        _ => String::new(),
    };
    let summary = format!(
        "this host gave up {} to {called}{after}, without a byte of an answer, in {}: what listens there hangs",
        harm.counted("request"),
        words::seconds(e.window())
    );
    let severity = severity::to_callers(e, &harm);
    let verify = Verify::scan("shows no request that was given up");
    let mut subjects = vec![Subject::peer(called.ip(), Some(called.port())).counted(count)];
    subjects.extend(place::callers(e, called));
    wording::active(e, severity, numbers::HANGS, count, "requests", summary)
        .subjects(subjects)
        .evidence(EvidenceItem::value(
            "destroyed_sockets",
            "unanswered",
            count as f64,
            format!("in {} not a byte came back, while {called} acknowledged", words::counted(count, "connection")),
        ))
        .evidence(EvidenceItem::value(
            "sockets",
            "fin_wait2",
            left_open as f64,
            format!("{} to it in FIN_WAIT2: it does not close either", words::counted(left_open, "socket")),
        ))
        .against(EvidenceItem::fact("sockets", "owner", "what its program does can only be seen on that host"))
        .harm(harm)
        .remedy(Remedy::new(
            format!("On the host of {called}, see whether its program is stopped, blocked or overloaded: rstdoctor scan there"),
            verify,
        ))
}

fn finding(e: &Evidence<'_>, place: Place<'_>) -> Finding {
    let how_far = if place.called.is_some() { Exchange::Asked } else { Exchange::Unanswered };
    let resets = exchange::resets(e, &place, how_far);
    let waits: Vec<f64> = resets.iter().filter_map(|reset| patience(reset)).map(|wait| wait.as_secs_f64()).collect();
    let typical = exchange::typical(waits.iter().copied());
    let took = exchange::typical(resets.iter().filter_map(|reset| answered_after(reset)).map(|t| t.as_secs_f64()));
    let harm = severity::lately(e, CLIENT_GAVE_UP.id, place.harm(e));
    let requests = harm.counted("request");
    let after = match typical {
        Some((wait, true)) => format!(" after {wait:.1} s each"),
        _ => String::new(),
    };
    let window = words::seconds(e.window());
    let summary = match (place.called, place.port) {
        (Some(called), _) => format!("this host gave up {requests} to {called}{after}, before the answer, in {window}"),
        (None, port) => {
            let port = port.map_or_else(|| "several ports".to_owned(), |port| format!("port {port}"));
            format!("clients of {port} gave up {requests}{after}, before the answer, in {window}")
        }
    };
    let limit = typical.is_some_and(|(_, regular)| regular);
    let confidence = if limit { numbers::ONE_LIMIT } else { numbers::ANY_TIME };
    // Clients that all wait for the same time were not served; people cancel what they like.
    let severity = match place.called {
        Some(_) => severity::to_callers(e, &harm),
        None if limit => severity::to_clients(e, &harm).max(Severity::Warning),
        None => severity::by_clients(e, &harm),
    };
    let mut finding =
        wording::doubted(&place, wording::active(e, severity, confidence, place.count, "resets", summary))
            .subjects(place.subjects(e));
    let least = waits.iter().copied().fold(f64::INFINITY, f64::min);
    let most = waits.iter().copied().fold(0.0, f64::max);
    if let Some((wait, regular)) = typical {
        let text = match regular {
            true => format!("the clients left {wait:.1} s after their request: a limit of theirs"),
            false => format!("the clients left {least:.1} s to {most:.1} s after their request: cancelled, or killed"),
        };
        finding = finding.evidence(EvidenceItem::value("destroyed_sockets", "patience_s", wait, text));
    }
    let owner = place.service(e).and_then(|service| service.owners.first());
    let server = owner.map_or_else(|| "the server".to_owned(), |process| process.name.clone());
    if let Some((took, _)) = took {
        let text = format!("{server} answered {took:.1} s after the request");
        finding = finding.evidence(EvidenceItem::value("destroyed_sockets", "answer_s", took, text));
    }
    let finding = finding.harm(harm);
    let verify = Verify::scan("shows no client that gave up");
    let slow = match took {
        Some((took, _)) => {
            format!("Find out why {server} takes {took:.1} s for these requests: it is slower than their limit")
        }
        None => format!("Find out why {server} takes so long for these requests: it is slower than their limit"),
    };
    let finding = finding.remedy(Remedy::new(slow, verify.clone()));
    match (limit, took) {
        (true, Some((took, _))) => finding.remedy(Remedy::new(
            format!("Or let the clients wait longer than the {took:.1} s that an answer takes"),
            verify,
        )),
        _ => finding,
    }
}

#[cfg(test)]
mod tests {
    use super::super::peer_reset::PEER_RESET;
    use super::*;
    use crate::observation::testing::{Case, process};
    use crate::source::socket_dump::{Destination, SocketDump};
    use crate::value::TcpState;

    const ENDS: [&str; 2] = ["10.0.0.9:8080", "10.0.3.7:0"];

    /// Asked 2.0 s before the end, left 1.0 s before it, answered just before it.
    fn gave_up() -> Case {
        Case::new()
            .counter("Tcp.OutRsts", 0, 0)
            .counter("Tcp.PassiveOpens", 0, 20)
            .listener("0.0.0.0:8080", 511, 0, 0, &process(977, "java"))
            .received(20, TcpState::CloseWait, ENDS)
            .destroyed_sockets(20, ENDS, 0, 0)
            .each_destroyed(|socket| {
                (socket.data_received_ms, socket.ack_received_ms, socket.data_sent_ms) = (2_000, 1_000, 1);
                (socket.bytes_sent, socket.unacknowledged) = (Some(90), 90);
            })
    }

    #[test]
    fn both_limits_are_measured() {
        let case = gave_up();
        let finding = case.finding(&CLIENT_GAVE_UP);
        assert!(
            finding.summary.starts_with("clients of port 8080 gave up all 20 requests after 1.0 s each"),
            "{finding:?}"
        );
        assert!(
            finding.evidence.iter().any(|item| item.text == "java answered 2.0 s after the request"),
            "{finding:?}"
        );
        assert!(finding.severity <= Severity::Warning);
        assert!(case.is_ruled_out(&PEER_RESET), "and not told twice");
    }

    #[test]
    fn a_goodbye_that_crosses_the_clients_is_not_this() {
        let case = gave_up().each_destroyed(|socket| (socket.data_received_ms, socket.ack_received_ms) = (2, 1));
        assert!(case.is_ruled_out(&CLIENT_GAVE_UP));
    }

    /// Twelve requests of 14 bytes, ended by this side a second later; `left_open` of their sockets wait for the peer's FIN.
    fn given_up(left_open: u64, received: u64) -> Case {
        let ends = ["10.0.0.9:0", "10.0.7.1:6379"];
        let to = Destination {
            source: "10.0.0.9".parse().unwrap(),
            address: "10.0.7.1".parse().unwrap(),
            port: 6379,
            ports_used: left_open,
            time_wait: 0,
            fin_wait2: left_open,
            inodes: Vec::new(),
        };
        let dump = SocketDump { destinations: vec![to], ..SocketDump::default() };
        Case::new()
            .tracepoints()
            .counter("Tcp.OutRsts", 0, 0)
            .counter("Tcp.ActiveOpens", 0, 12)
            .counter("Tcp.PassiveOpens", 0, 0)
            .socket_dump(SocketDump::default(), dump)
            .destroyed_sockets(12, ends, 0, 0)
            .each_destroyed(move |socket| {
                socket.data_sent_ms = 1_000;
                (socket.bytes_sent, socket.bytes_received) = (Some(14), Some(received));
            })
    }

    #[test]
    fn a_server_that_takes_requests_and_does_nothing_is_seen_by_who_calls_it() {
        let finding = given_up(12, 0).finding(&CLIENT_GAVE_UP);
        assert_eq!(finding.severity, Severity::Warning);
        assert!(finding.summary.contains("all 12 requests to 10.0.7.1:6379 after 1.0 s each"), "{}", finding.summary);
    }

    #[test]
    fn who_only_sends_is_closed_by_its_server_and_who_is_answered_is_served() {
        assert!(given_up(0, 0).is_ruled_out(&CLIENT_GAVE_UP));
        assert!(given_up(12, 90).is_ruled_out(&CLIENT_GAVE_UP));
    }
}
