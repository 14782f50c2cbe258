use std::time::Duration;

use super::numbers::{Confidence, closed_without_answer as numbers};
use super::place::{self, Place};
use super::{EvidenceItem, Finding, Judgement, Remedy, Subject, Together, Verdict, Verify, commands};
use super::{severity, wording};
use crate::evidence::Evidence;
use crate::evidence::harm::{Harm, Target};
use crate::evidence::repeated::occasions;
use crate::evidence::requests::Asked;
use crate::value::words;

cause! {
    /// ## What happens
    ///
    /// A server accepts, reads a request, and closes the connection in order without a byte of an answer. No RST is sent: the
    /// client reads the end of the stream. curl says "(52) Empty reply from server", nginx "upstream prematurely closed
    /// connection", Python "Remote end closed connection without response", Go "EOF", a browser ERR_EMPTY_RESPONSE.
    ///
    /// ## How it shows
    ///
    /// The sockets that are destroyed have received a request and sent nothing, and the server's side is left in TIME_WAIT, so it
    /// was the server that closed first. From the client: a request was sent, nothing came but the end of the connection, and
    /// TIME_WAIT is not on this side. It is told where nearly all requests of a service end so, on several occasions;
    /// less surely where others are answered, and only of those that ended within 100 ms: a client that gives up waits for longer.
    ///
    /// ## How to confirm
    ///
    /// `curl -v http://HOST:PORT/` prints "Empty reply from server"; the server's own log of that moment says why.
    ///
    /// ## What to change
    ///
    /// Find what ends the request in the server: an exception or panic in its handler, a worker that ends in the middle of a
    /// request, a rule that drops requests without a word (nginx `return 444`), a backend of a proxy that is gone. Or the client
    /// speaks another protocol than the port does: plain HTTP to TLS, or the other way round.
    ///
    /// ## Look-alikes
    ///
    /// Log shippers and other clients that only send: there the client closes first. A check that connects and closes asks
    /// nothing. A server that ends idle connections does so after a pause. PostgreSQL answers a cancel request with a close.
    CLOSED_WITHOUT_ANSWER {
        id: "closed-without-answer",
        title: "Requests closed without an answer",
        explains: [],
        needs: [Window, Sockets],
        judge: judge,
    }
}

const UNIT: &str = "requests without an answer";

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    let requests = e.requests()?;
    e.socket_dump()?;
    let found: Vec<_> = requests
        .iter()
        .filter(|(_, asked)| !asked.in_vain.is_empty())
        .filter_map(|(target, asked)| match confidence(e, *target, asked) {
            Some(confidence) => Some(finding(e, *target, asked, None, confidence)),
            None => {
                let (all, since) = e.asked_lately(*target, asked)?;
                Some(finding(e, *target, asked, Some((&all, since)), confidence(e, *target, &all)?))
            }
        })
        .collect();
    Ok(Verdict::from_findings(found, "no service closed requests without an answer"))
}

/// How sure it is that some or nearly all that asked here got nothing: soon after they had asked, on several occasions, and the server
/// closed first.
fn confidence(e: &Evidence<'_>, target: Target, asked: &Asked) -> Option<Confidence> {
    let nearly_all = |part: u64, whole: u64| part * 10 >= whole * 9;
    let in_vain = asked.in_vain.len() as u64;
    let within = |ms: u32| {
        let silent = asked.in_vain.iter().filter(|connection| connection.silent_ms <= ms);
        nearly_all(silent.count() as u64, in_vain)
    };
    if in_vain < severity::FEWEST || occasions(asked.in_vain.iter().map(|connection| connection.at)) < severity::FEWEST
    {
        return None;
    }
    // A few are under way; more of them are sessions that are served.
    if nearly_all(in_vain, in_vain + asked.answered) && e.open_at_end(target) * 2 <= in_vain {
        let all = within(numbers::IDLE_MS) && server_closed_first(e, target, asked);
        return all.then_some(numbers::NEARLY_ALL);
    }
    // Who gives up has waited, and a server that answers does so also where the client closed at once.
    let some = asked.answered > 0 && within(numbers::AT_ONCE_MS) && may_be_of_server(e, target, asked);
    some.then_some(numbers::SOME)
}

/// Who closes first keeps the socket for a minute, in FIN_WAIT2 and TIME_WAIT (net/ipv4/tcp_minisocks.c tcp_time_wait): of so many
/// connections, the sockets that are still there.
fn still_kept(e: &Evidence<'_>, connections: u64) -> f64 {
    connections as f64 * (numbers::KEPT_S / e.window().as_secs_f64()).min(1.0)
}

/// Of the connections that got nothing, those whose sockets the latest look at all of them shows where they are still kept: it may be
/// older than the window's end. `None` of too few.
fn shown(e: &Evidence<'_>, asked: &Asked) -> Option<f64> {
    let look = e.looked_at();
    let kept = Duration::from_secs_f64(numbers::KEPT_S);
    let shows = |at: Duration| at <= look && look.saturating_sub(at) <= kept;
    let shown = asked.in_vain.iter().filter(|connection| shows(connection.at)).count() as u64;
    (shown >= severity::FEWEST).then_some(shown as f64)
}

/// Of connections of which these are nearly all.
fn server_closed_first(e: &Evidence<'_>, target: Target, asked: &Asked) -> bool {
    let Some(shown) = shown(e, asked) else { return false };
    let kept_here = e.closed_first_at_end(target) as f64;
    match target {
        Target::Port(_) => kept_here >= shown * numbers::MOST,
        Target::Called(_) => kept_here <= shown * (1.0 - numbers::MOST),
    }
}

/// Beside others that were answered, whose sockets are kept on either side.
fn may_be_of_server(e: &Evidence<'_>, target: Target, asked: &Asked) -> bool {
    match target {
        Target::Port(_) => server_closed_first(e, target, asked),
        Target::Called(_) => shown(e, asked).is_some_and(|shown| {
            let of_these = e.closed_first_at_end(target) as f64 - still_kept(e, asked.answered);
            of_these <= shown * (1.0 - numbers::MOST)
        }),
    }
}

/// `lately`: all of the windows before as well, and since when, where this one alone tells too little.
fn finding(
    e: &Evidence<'_>,
    target: Target,
    asked: &Asked,
    lately: Option<(&Asked, Duration)>,
    confidence: Confidence,
) -> Finding {
    let count = asked.in_vain.len() as u64;
    let of = |asked: &Asked| {
        let failures = asked.in_vain.len() as u64;
        let attempts = Some(failures + asked.answered);
        Harm { attempts, in_a_row: e.is_in_a_row(), ..Harm::of_unknown(failures) }
    };
    let harm = of(asked);
    let requests = harm.counted("request");
    let window = words::seconds(e.window());
    let (port, called) = match target {
        Target::Port(port) => (Some(port), None),
        Target::Called(called) => (None, Some(called)),
    };
    let place = Place { groups: Vec::new(), count, port, called };
    let summary = match called {
        Some(called) => format!("{called} closed {requests} of this host without a byte of an answer, in {window}"),
        None => format!("{} closed {requests} without a byte of an answer, in {window}", place.who(e)),
    };
    let (asked, since) = lately.map_or((asked, None), |(all, since)| (all, Some(since)));
    let together = of(asked);
    let all = asked.in_vain.len() as u64;
    let most = asked.in_vain.iter().map(|connection| connection.bytes).max().unwrap_or_default();
    let way = if called.is_some() { ["sent", "came back"] } else { ["received", "was sent"] };
    let exchanged = format!(
        "{} in which up to {} bytes were {}, and not one {}",
        words::counted(all, "connection"),
        words::thousands(most),
        way[0],
        way[1]
    );
    let kept = e.closed_first_at_end(target);
    let first = match called {
        Some(_) if kept == 0 => "the other end closed first: no socket to it is in TIME_WAIT here".to_owned(),
        Some(_) => {
            let all = words::counted(all + asked.answered, "connection");
            format!("the other end closed first: of {all} {} in TIME_WAIT here", words::thousands(kept))
        }
        None => format!("this side closed first: {} of the port in TIME_WAIT", words::counted(kept, "socket")),
    };
    let finding = wording::active(e, severity::to_callers(e, &together), confidence, count, UNIT, summary)
        .subjects(subjects(e, &place))
        .evidence(EvidenceItem::value("destroyed_sockets", "unanswered", all as f64, exchanged))
        .evidence(EvidenceItem::fact("sockets", "TIME_WAIT", first))
        .against(EvidenceItem::fact(
            "destroyed_sockets",
            "bytes",
            "a rule that ends unwanted requests without a word (nginx: return 444) looks the same, and so do clients that speak \
             another protocol than the port does",
        ))
        .harm(harm);
    let finding = match since {
        Some(since) => {
            let text = format!("{} in the last {}", together.counted("request"), words::seconds(e.since(since)));
            finding.together(Together { since, events: all }, text)
        }
        None => finding,
    };
    let verify = Verify::scan("shows no request that was closed without an answer");
    match called {
        Some(called) => finding.remedy(Remedy::new(
            format!(
                "On the host of {}, see in the log of what serves port {} why it ends these requests: rstdoctor scan there",
                called.ip(),
                called.port()
            ),
            verify,
        )),
        None => {
            let owner = place.service(e).and_then(|service| service.owners.first());
            let name = owner.map_or_else(|| "the server".to_owned(), |owner| owner.name.clone());
            let text = format!(
                "See in the log of {name} why it ends requests without an answer: an exception in its handler, a worker that ended, \
                 a rule, or a backend of it"
            );
            finding.remedy(Remedy::new(text, verify).command(commands::journal(owner.and_then(|o| o.unit.as_ref()))))
        }
    }
}

fn subjects(e: &Evidence<'_>, place: &Place<'_>) -> Vec<Subject> {
    match (place.called, place.service(e), place.port) {
        (Some(called), ..) => {
            let mut subjects = vec![Subject::peer(called.ip(), Some(called.port())).counted(place.count)];
            subjects.extend(place::callers(e, called));
            subjects
        }
        (None, Some(service), _) => vec![Subject::listener(service).counted(place.count)],
        (None, None, port) => vec![Subject { port, ..Subject::host().counted(place.count) }],
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{REGISTRY, Severity};
    use super::*;
    use crate::diagnosis::{Status, diagnose};
    use crate::evidence::requests::{CANCEL_REQUEST, FIN};
    use crate::observation::testing::{Case, process};
    use crate::source::destroyed_sockets::DestroyedSocket;
    use crate::source::socket_dump::{Destination, PortUse, SocketDump};
    use crate::value::TcpState;

    const HERE: &str = "10.0.0.9:8080";
    const CLIENT: &str = "10.0.3.7:0";

    /// A look at all sockets: those of the port by state, and those in TIME_WAIT towards the server that is called.
    fn dump(port: &[(TcpState, u64)], towards: u64) -> SocketDump {
        let used = PortUse { by_state: port.iter().copied().collect(), ..PortUse::default() };
        let to = Destination {
            source: "10.0.0.9".parse().expect("address"),
            address: "10.0.7.1".parse().expect("address"),
            port: 6379,
            ports_used: towards,
            time_wait: towards,
            fin_wait2: 0,
            inodes: Vec::new(),
        };
        SocketDump { ports: [(8080, used)].into(), destinations: vec![to], ..SocketDump::default() }
    }

    /// `count` connections a second apart, each with so many bytes in and out, on a host where nothing else is wrong.
    fn case(count: u16, ends: [&str; 2], received: u64, sent: u64, dump: SocketDump) -> Case {
        let mut number = 0;
        let mut case = Case::new()
            .tracepoints()
            .counter("Tcp.OutRsts", 0, 0)
            .counter("TcpExt.ListenOverflows", 0, 0)
            .counter("Tcp.PassiveOpens", 0, 0)
            .counter("Tcp.ActiveOpens", 0, 0)
            .listener("0.0.0.0:8080", 511, 0, 0, &process(7, "api-server"))
            .socket_dump(SocketDump::default(), dump)
            .destroyed_sockets(count, ends, 0, 0)
            .each_destroyed(move |socket| {
                socket.at += Duration::from_millis(1_000 * number);
                number += 1;
                (socket.bytes_received, socket.bytes_sent) = (Some(received), Some(sent));
                (socket.data_received_ms, socket.data_sent_ms, socket.unacknowledged) = (20, 20, 0);
            });
        case.netns.after.at.mono += Duration::from_secs(7);
        case.host.after.at.mono += Duration::from_secs(7);
        case.netns.after.dumped = case.netns.after.at;
        case
    }

    fn served(received: u64, sent: u64) -> Case {
        case(4, [HERE, CLIENT], received, sent, dump(&[(TcpState::TimeWait, 4)], 0))
    }

    fn called(received: u64, sent: u64, time_wait: u64) -> Case {
        case(4, ["10.0.0.9:0", "10.0.7.1:6379"], received, sent, dump(&[], time_wait))
    }

    #[test]
    fn a_service_that_reads_requests_and_answers_nobody_is_not_ok() {
        let diagnosis = diagnose(served(80, 0).view());
        assert_eq!(diagnosis.status, Status::Warning, "{}", diagnosis.summary);
        let said = "api-server (pid 7) on port 8080 closed all 4 requests without a byte of an answer";
        assert!(diagnosis.summary.starts_with(said), "{}", diagnosis.summary);
    }

    #[test]
    fn it_is_seen_from_the_caller_as_well() {
        let finding = called(FIN, 80, 0).finding(&CLOSED_WITHOUT_ANSWER);
        assert_eq!(finding.severity, Severity::Warning);
        let said = "10.0.7.1:6379 closed all 4 requests of this host without a byte of an answer";
        assert!(finding.summary.starts_with(said), "{}", finding.summary);
    }

    #[test]
    fn who_answers_is_well_and_so_is_who_is_asked_nothing() {
        assert!(served(80, 200).is_ruled_out(&CLOSED_WITHOUT_ANSWER));
        assert!(served(FIN, 0).is_ruled_out(&CLOSED_WITHOUT_ANSWER), "a check that connects and closes");
        assert!(served(CANCEL_REQUEST + FIN, 0).is_ruled_out(&CLOSED_WITHOUT_ANSWER), "a cancelled query");
        assert!(called(200, 80, 0).is_ruled_out(&CLOSED_WITHOUT_ANSWER));
        assert!(called(0, 80, 0).is_ruled_out(&CLOSED_WITHOUT_ANSWER), "it does not close: client-gave-up");
    }

    /// syslog, statsd over TCP, a printer: what only receives is closed by those who send.
    #[test]
    fn who_only_sends_closes_first() {
        let collector = case(4, [HERE, CLIENT], 900, 0, dump(&[], 0));
        assert!(collector.is_ruled_out(&CLOSED_WITHOUT_ANSWER));
        assert!(called(FIN, 900, 4).is_ruled_out(&CLOSED_WITHOUT_ANSWER));
    }

    #[test]
    fn a_close_after_a_pause_is_an_idle_limit() {
        let idle = served(900, 0).each_destroyed(|socket| socket.data_received_ms = 60_000);
        assert!(idle.is_ruled_out(&CLOSED_WITHOUT_ANSWER));
    }

    #[test]
    fn one_moment_is_a_restart_and_two_are_chance() {
        let at_once = served(80, 0).each_destroyed(|socket| socket.at = Duration::from_secs(1002));
        assert!(at_once.is_ruled_out(&CLOSED_WITHOUT_ANSWER));
        let two = case(2, [HERE, CLIENT], 80, 0, dump(&[(TcpState::TimeWait, 2)], 0));
        assert!(two.is_ruled_out(&CLOSED_WITHOUT_ANSWER));
    }

    /// `answered` connections beside four that got no byte, with so many sockets in TIME_WAIT at the end.
    fn mixed(answered: u16, time_wait: u64) -> Case {
        beside(case(4 + answered, [HERE, CLIENT], 80, 0, dump(&[(TcpState::TimeWait, time_wait)], 0)), |socket| {
            socket.bytes_sent = Some(200);
        })
    }

    /// The first four stay as they are, seconds apart; the others were answered, at any time of the window.
    fn beside(case: Case, answer: impl Fn(&mut DestroyedSocket)) -> Case {
        let mut number = 0;
        case.each_destroyed(move |socket| {
            number += 1;
            let within_the_window = if number <= 4 { number * 2_000 } else { number % 9_000 };
            socket.at = Duration::from_millis(1_000_000 + within_the_window);
            if number > 4 {
                answer(socket);
            }
        })
    }

    #[test]
    fn a_part_of_the_requests_of_a_service_is_told_with_its_share() {
        // The server closes all of them: those of a minute are kept.
        for time_wait in [24, 120] {
            let finding = mixed(20, time_wait).finding(&CLOSED_WITHOUT_ANSWER);
            let said = "api-server (pid 7) on port 8080 closed 4 of 24 requests (17 %) without a byte of an answer";
            assert!(finding.summary.starts_with(said), "{}", finding.summary);
            assert!(finding.severity < Severity::Info && finding.confidence <= 0.6, "{finding:?}");
        }
        // It closes these, and clients the others.
        assert!(mixed(20, 4).finding(&CLOSED_WITHOUT_ANSWER).severity < Severity::Info);
        let rare = mixed(4_000, 4_004).finding(&CLOSED_WITHOUT_ANSWER);
        assert_eq!(rare.severity, Severity::Info, "{}", rare.summary);
    }

    /// Some clients that only send, or that gave up, beside others that are answered.
    #[test]
    fn who_closed_first_is_not_told_where_others_are_answered() {
        assert!(mixed(20, 0).is_ruled_out(&CLOSED_WITHOUT_ANSWER), "nothing is kept here");
        let gave_up = mixed(20, 24).each_destroyed(|socket| socket.data_received_ms = 1_000);
        assert!(gave_up.is_ruled_out(&CLOSED_WITHOUT_ANSWER));
        let from_the_caller = |time_wait| {
            let case = case(24, ["10.0.0.9:0", "10.0.7.1:6379"], FIN, 80, dump(&[], time_wait));
            beside(case, |socket| socket.bytes_received = Some(200))
        };
        assert!(from_the_caller(24).is_ruled_out(&CLOSED_WITHOUT_ANSWER), "this side closed all first");
        let summary = from_the_caller(0).finding(&CLOSED_WITHOUT_ANSWER).summary;
        let said = "10.0.7.1:6379 closed 4 of 24 requests (17 %) of this host without a byte of an answer";
        assert!(summary.starts_with(said), "{summary}");
        let evidence = from_the_caller(20).finding(&CLOSED_WITHOUT_ANSWER).evidence;
        let first = "the other end closed first: of 24 connections 20 in TIME_WAIT here";
        assert!(evidence.iter().any(|item| item.text == first), "what it answered was closed here: {evidence:?}");
    }

    #[test]
    fn sessions_that_stay_open_are_served() {
        let with_sessions = dump(&[(TcpState::TimeWait, 4), (TcpState::Established, 3)], 0);
        assert!(case(4, [HERE, CLIENT], 80, 0, with_sessions).is_ruled_out(&CLOSED_WITHOUT_ANSWER));
    }

    /// What was left unread went out as a RST, which other causes judge.
    #[test]
    fn what_was_not_read_is_not_this() {
        assert!(served(80, 0).each_destroyed(|socket| socket.unread = 80).is_ruled_out(&CLOSED_WITHOUT_ANSWER));
    }

    #[test]
    fn who_did_not_hear_of_connections_that_ended_rules_nothing_out() {
        assert_eq!(Case::new().missing(&CLOSED_WITHOUT_ANSWER), Some("destroyed_sockets"));
        assert!(REGISTRY.iter().any(|cause| cause.id == CLOSED_WITHOUT_ANSWER.id));
    }
}
