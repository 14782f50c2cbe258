use std::collections::BTreeMap;

use super::connection_limit::{self, Without};
use super::numbers::close_with_unread_data as numbers;
use super::place::{self, Place};
use super::{EvidenceItem, Finding, Judgement, Remedy, Restart, Setting, Severity, Subject, Verdict, Verify, commands};
use super::{process_exit, severity, wording};
use crate::attribution::Ended;
use crate::evidence::Evidence;
use crate::evidence::harm::Target;
use crate::reset::Exchange;
use crate::source::reset_events::Direction;
use crate::source::socket_dump::GroupKind;
use crate::value::shell::ShellCommand;
use crate::value::words;

cause! {
    /// ## What happens
    ///
    /// An application closes a socket (or exits) while received bytes wait in it unread. The kernel cannot deliver them
    /// and says so: it sends a RST instead of a FIN (RFC 2525 2.17, net/ipv4/tcp.c __tcp_close). The peer may lose the
    /// end of an answer that it had not read yet, and reports "Connection reset by peer".
    ///
    /// ## How it shows
    ///
    /// `TcpExt.TCPAbortOnClose` and `Tcp.OutRsts` grow together. The tracepoint tcp:tcp_send_reset gives the reason
    /// TCP_ABORT_ON_CLOSE and the process that closed.
    ///
    /// ## How to confirm
    ///
    /// `nstat -az TcpExtTCPAbortOnClose` grows; `ss -tn` shows a Recv-Q above 0 on connections just before they go.
    /// `rstdoctor trace --sent` as root shows each as it happens, with its process.
    ///
    /// ## What to change
    ///
    /// Read to the end before closing: shutdown(SHUT_WR), read until EOF, then close. A server that answers early (413,
    /// 401, redirects) must swallow the rest of the request: nginx `lingering_close on`, Tomcat `maxSwallowSize`.
    ///
    /// ## Look-alikes
    ///
    /// Clients that lose patience do the same on purpose. A pool that retires idle TLS connections closes over an unread
    /// close_notify: few, and retried. A process that dies leaves unread data as well (process-exit).
    CLOSE_WITH_UNREAD_DATA {
        id: "close-with-unread-data",
        title: "Closed with unread data",
        explains: ["stale-connection"],
        needs: [Window, Netstat],
        judge: judge,
    }
}

/// Servers of web applications, which leave the body of a request to the application.
const APPLICATION_SERVERS: [&str; 6] = ["gunicorn", "uvicorn", "uwsgi", "puma", "unicorn", "php-fpm"];

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    let counter = e.counter("TcpExt.TCPAbortOnClose");
    if let Ok(groups) = e.resets_of(CLOSE_WITH_UNREAD_DATA.id, Direction::Sent) {
        let mut places = place::places(e, &groups);
        places.extend(connection_limit::without_limit(e, Without::Unread));
        let mut findings: Vec<_> = places.into_iter().map(|place| by_events(e, place)).collect();
        findings.extend(process_exit::by_children(e).into_iter().map(|place| by_children(e, place)));
        let died = counter.is_ok_and(|reading| reading.delta > 0);
        let why = if died { "all of them by a process that exited" } else { "no RST with this reason was sent" };
        return Ok(Verdict::from_findings(findings, why));
    }
    let reading = counter?;
    if reading.delta == 0 {
        return Ok(wording::still(&reading));
    }
    let placed = by_sockets(e, reading.delta);
    let rest = reading.delta - placed.iter().map(|finding| finding.impact.events).sum::<u64>();
    if rest * 10 <= reading.delta {
        return Ok(Verdict::Found(placed));
    }
    let summary = format!(
        "programs on this host closed {} with unread data in {}: their peers were reset",
        words::counted(rest, "connection"),
        words::seconds(e.window())
    );
    // What each of them left behind when it was destroyed, where a packet tells of it.
    let left = e.resets().iter().filter(|reset| reset.direction() == Direction::Sent).map(Exchange::of);
    let goodbyes = left.filter(|left| *left == Some(Exchange::PerhapsGoodbye)).count() as u64;
    let mostly_goodbyes = goodbyes * 2 >= rest;
    let severity = if severity::only_calls(e, rest) || mostly_goodbyes {
        Severity::Info
    } else {
        // Whether their answers were complete is not seen.
        severity::of_host(e, rest, "Tcp.PassiveOpens").max(Severity::Warning)
    };
    let confidence = if mostly_goodbyes { numbers::PERHAPS_GOODBYES } else { numbers::COUNTED };
    let mut finding = wording::active(e, severity, confidence, rest, "resets", summary)
        .evidence(wording::moved(&reading, "a socket was closed with unread data"))
        .against(EvidenceItem::fact(
            "reset_events",
            "process",
            "the counter does not say which process, whether it closed or exited, nor whether its answer was complete",
        ));
    if goodbyes > 0 {
        let text = format!(
            "{} left a few bytes unread after an answer: a goodbye that came with the peer's close is harmless, a short request \
             is not",
            words::counted(goodbyes, "connection")
        );
        finding = finding.against(EvidenceItem::value("destroyed_sockets", "unread", goodbyes as f64, text));
    }
    // Where unread bytes lie now is a good guess where they were left before.
    if let Some(group) = e.groups(GroupKind::Unread).ok().and_then(|groups| groups.first().copied()) {
        let side = if group.accepted { "port" } else { "connections to port" };
        finding = finding.evidence(EvidenceItem::value(
            "sockets",
            "unread",
            group.sockets as f64,
            format!(
                "{} on {side} {} with unread data right now ({} bytes)",
                words::counted(group.sockets, "connection"),
                group.port,
                words::thousands(group.unread_bytes)
            ),
        ));
    }
    let host_wide = with_remedies(finding.subject(Subject::host()), None);
    Ok(Verdict::Found(placed.into_iter().chain([host_wide]).collect()))
}

/// Without events the sockets that were destroyed show at which ports what clients had sent was left unread. `closed`: how many the
/// kernel counted.
fn by_sockets(e: &Evidence<'_>, closed: u64) -> Vec<Finding> {
    let mut by_port: BTreeMap<u16, Vec<&Ended<'_>>> = BTreeMap::new();
    for ended in e.ended().unwrap_or_default().iter().filter(|ended| left_a_request_unread(ended)) {
        by_port.entry(ended.socket.local.port()).or_default().push(ended);
    }
    by_port.retain(|port, ended| {
        // What a process leaves unread when it ends looks the same, but for the time.
        if e.gone_listeners().iter().any(|gone| gone.trace.last.port == *port) {
            let Some(exit) = e.at_exit(&[*port]) else { return false };
            ended.retain(|ended| !exit.closed(ended));
        }
        // What is turned away is told by connection-limit.
        let limit = || ended.iter().any(|ended| ended.turned_away()) && connection_limit::is_limit_of(e, *port);
        !ended.is_empty() && e.service_of_port(*port).is_some() && !limit()
    });
    // A connection that the client resets leaves unread data as well, and is not counted so.
    if by_port.values().map(Vec::len).sum::<usize>() as u64 > closed {
        return Vec::new();
    }
    by_port.into_iter().map(|(port, ended)| of_port(e, port, &ended)).collect()
}

/// More than a goodbye, or a request of a client that got nothing at all.
fn left_a_request_unread(ended: &Ended<'_>) -> bool {
    let socket = ended.socket;
    let unread = u64::from(socket.unread);
    let goodbye = socket.bytes_sent != Some(0) && unread <= numbers::GOODBYE;
    // The FIN of a peer counts as a byte (net/ipv4/tcp_input.c tcp_fin).
    ended.called.is_none() && unread > 1 && !goodbye
}

fn of_port(e: &Evidence<'_>, port: u16, ended: &[&Ended<'_>]) -> Finding {
    let count = ended.len() as u64;
    let harm = severity::lately(e, CLOSE_WITH_UNREAD_DATA.id, e.harm(Target::Port(port), count, None));
    let place = Place { groups: Vec::new(), count, port: Some(port), called: None };
    let summary = format!(
        "{} closed {} with unread data in {}: the peers were reset",
        place.who(e),
        harm.counted("connection"),
        words::seconds(e.window())
    );
    let bytes: u64 = ended.iter().map(|ended| u64::from(ended.socket.unread)).sum();
    let text = format!(
        "{} ended with {} bytes of their clients unread",
        words::counted(count, "connection"),
        words::thousands(bytes)
    );
    // Whether their answers were complete, and whether the program ended or only closed, is not seen.
    let severity = severity::to_clients(e, &harm).max(Severity::Warning);
    let finding = wording::active(e, severity, numbers::COUNTED, count, "resets", summary)
        .subjects(place.service(e).map(|service| Subject::listener(service).counted(count)))
        .evidence(EvidenceItem::value("destroyed_sockets", "unread", bytes as f64, text))
        .against(EvidenceItem::fact(
            "reset_events",
            "process",
            "without events it is not seen whether the program closed them or a process of it ended",
        ))
        .harm(harm);
    with_remedies(finding, Some(port))
}

fn by_events(e: &Evidence<'_>, place: Place<'_>) -> Finding {
    let harm = severity::lately(e, CLOSE_WITH_UNREAD_DATA.id, place.harm(e));
    let severity = if place.as_client() { Severity::Info } else { severity::to_clients(e, &harm) };
    let confidence = if place.doubt().is_some() { numbers::BY_PACKETS } else { numbers::NAMED };
    let summary = format!(
        "{} closed {} with unread data in {}: the peers were reset",
        place.who(e),
        harm.counted("connection"),
        words::seconds(e.window())
    );
    let finding = wording::doubted(&place, wording::active(e, severity, confidence, place.count, "resets", summary))
        .subjects(place.subjects(e))
        .evidence(place.item("TCP_ABORT_ON_CLOSE", "a close with unread data"))
        .harm(harm);
    with_remedies(finding, place.port)
}

/// Processes that their program makes for one connection each, and that end it by ending.
fn by_children(e: &Evidence<'_>, place: Place<'_>) -> Finding {
    let harm = severity::lately(e, CLOSE_WITH_UNREAD_DATA.id, place.harm(e));
    let summary = format!(
        "{} closed {} with unread data by ending in {}: the clients were turned away, or their sessions were over",
        place.who(e),
        harm.counted("connection"),
        words::seconds(e.window())
    );
    let finding =
        wording::active(e, severity::to_clients(e, &harm), numbers::BY_CHILDREN, place.count, "resets", summary);
    let name = place.task().map_or_else(|| "the program".to_owned(), |task| task.name.clone());
    let unit = place.service(e).and_then(|service| service.owners.iter().find_map(|owner| owner.unit.as_ref()));
    let journal = commands::journal(unit);
    wording::doubted(&place, finding)
        .subjects(place.subjects(e))
        .evidence(place.item("TCP_ABORT_ON_CLOSE", "a close with unread data"))
        .evidence(EvidenceItem::fact(
            "signals",
            "signal",
            "each process had one connection and ended by itself, without a signal, while its parent listens on",
        ))
        .harm(harm)
        .remedy(
            Remedy::new(
                format!(
                    "See in the log of {name} why it ends them: a rule about who may connect (hosts.deny, an allow list), a login \
                     that fails, a limit, or what it calls"
                ),
                Verify::flat("TcpExtTCPAbortOnClose"),
            )
            .command(journal),
        )
}

fn with_remedies(finding: Finding, port: Option<u16>) -> Finding {
    let verify = Verify::flat("TcpExtTCPAbortOnClose");
    let server = finding.subjects.iter().find_map(|subject| subject.process.as_deref()).unwrap_or_default();
    // Who runs a server of others does not change how it closes.
    let application = APPLICATION_SERVERS.iter().any(|name| server.starts_with(name));
    let setting = match server {
        "nginx" => {
            Some(Setting::config("lingering_close always;", "nginx.conf", Some("server block"), Restart::Reload))
        }
        "java" => Some(Setting::config(
            "maxSwallowSize=\"-1\"",
            "conf/server.xml",
            Some("Connector of Tomcat"),
            Restart::Service,
        )),
        _ => None,
    };
    let finding = match setting {
        Some(setting) => finding.remedy(
            Remedy::new("Let the server swallow what clients still send after an early answer", verify.clone())
                .setting(setting),
        ),
        None => finding,
    };
    let read = match application {
        true => {
            "Let the proxy in front hold each request until it is whole (nginx: proxy_request_buffering on), or let the \
             application read the body before it answers"
        }
        false => "Let the program read to the end before it closes: shutdown(SHUT_WR), read until EOF, close",
    };
    finding
        .remedy(Remedy::new(read, verify).restart(if application { Restart::None } else { Restart::Service }))
        .remedy(
            Remedy::new(
                "See which connections hold unread data (Recv-Q above 0)",
                "their Recv-Q goes to 0 before they close",
            )
            .command(commands::ss_of("ss -tnp", port).pipe(ShellCommand::new("awk").arg("$2 > 0"))),
        )
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use crate::observation::testing::{Case, process, task};
    use crate::value::TcpState;

    fn twenty() -> Case {
        Case::new()
            .counter("Tcp.OutRsts", 100, 20)
            .counter("Tcp.EstabResets", 100, 20)
            .counter("Tcp.PassiveOpens", 100, 20)
            .counter("TcpExt.TCPAbortOnClose", 7, 20)
    }

    /// Who sees packets and no events does not know whether the peer had closed.
    #[test]
    fn a_few_bytes_after_an_answer_accuse_nobody_where_only_packets_are_seen() {
        let ends = ["10.0.0.9:9000", "10.0.3.7:0"];
        let left = |unread: u32| {
            twenty()
                .counter("TcpExt.ListenOverflows", 0, 0)
                .packets(20, Direction::Sent, 0x14, 64, ends)
                .each_packet(|packet| (packet.seq, packet.window) = (500, 502))
                .destroyed_sockets(20, ends, 0, 0)
                .each_destroyed(|socket| {
                    (socket.unread, socket.unacknowledged, socket.bytes_received) = (unread, 0, Some(1_000));
                })
        };
        let status = |unread| crate::diagnosis::diagnose(left(unread).view()).status;
        let finding = left(6).finding(&CLOSE_WITH_UNREAD_DATA);
        assert!(finding.severity == Severity::Info && finding.confidence < 0.5, "{finding:?}");
        assert_eq!(status(6), crate::diagnosis::Status::Unknown);
        assert!(left(257).finding(&CLOSE_WITH_UNREAD_DATA).severity < Severity::Info, "a request");
    }

    #[test]
    fn events_name_the_process_and_the_port() {
        let case = twenty().listener("0.0.0.0:9000", 128, 0, 0, &process(977, "api-server")).sent(
            20,
            "TCP_ABORT_ON_CLOSE",
            Some(TcpState::Close),
            ["10.0.0.9:9000", "10.0.3.7:0"],
            Some(task(977, "api-server")),
        );
        let finding = case.finding(&CLOSE_WITH_UNREAD_DATA);
        assert_eq!((finding.state, finding.severity), (State::Active, Severity::Critical));
        assert!(finding.confidence >= 0.9);
        assert_eq!((finding.subjects[0].port, finding.subjects[1].pid), (Some(9000), Some(977)));
        assert!(finding.summary.starts_with("api-server (pid 977) on port 9000 closed 20 connections"), "{finding:?}");
    }

    #[test]
    fn counters_alone_find_it_with_less_confidence() {
        let finding = twenty().finding(&CLOSE_WITH_UNREAD_DATA);
        assert!(finding.severity <= Severity::Warning && (0.5..0.9).contains(&finding.confidence));
    }

    /// One who sees no events, beside 3,000 connections of another service.
    fn small_service(unread: u32, sent: u64) -> Case {
        let mut number = 0;
        Case::new()
            .counter("Tcp.OutRsts", 100, 3)
            .counter("TcpExt.ListenOverflows", 0, 0)
            .counter("Tcp.PassiveOpens", 100, 3_003)
            .counter("TcpExt.TCPAbortOnClose", 7, 3)
            .listener("0.0.0.0:80", 511, 0, 0, &process(1, "nginx"))
            .listener("0.0.0.0:9000", 128, 0, 0, &process(977, "gunicorn"))
            .destroyed_sockets(3_000, ["10.0.0.9:80", "10.0.3.7:0"], 0, 0)
            .destroyed_sockets(3, ["10.0.0.9:9000", "10.0.3.7:0"], 0, 0)
            .each_destroyed(move |socket| {
                number += 1;
                let small = number > 3_000;
                (socket.unread, socket.unacknowledged) = (if small { unread } else { 0 }, 0);
                (socket.bytes_received, socket.bytes_sent) = (Some(5_000), Some(sent));
            })
    }

    #[test]
    fn a_small_service_that_fails_altogether_is_named_without_events() {
        let diagnosis = crate::diagnosis::diagnose(small_service(4_000, 120).view());
        assert_eq!(diagnosis.status, crate::diagnosis::Status::Warning);
        let said = "gunicorn (pid 977) on port 9000 closed all 3 connections with unread data";
        assert!(diagnosis.summary.starts_with(said), "{}", diagnosis.summary);
        let goodbyes = small_service(31, 120).finding(&CLOSE_WITH_UNREAD_DATA);
        assert_eq!(
            (goodbyes.severity, goodbyes.subjects[0].port),
            (Severity::Info, None),
            "a goodbye after the answer"
        );
        let gone = small_service(4_000, 0).stopped_listening(9000);
        assert_eq!(gone.finding(&CLOSE_WITH_UNREAD_DATA).subjects[0].port, None, "its process may have ended");
    }

    #[test]
    fn what_clients_reset_is_not_taken_for_what_was_closed_here() {
        let case = small_service(4_000, 120).counter("TcpExt.TCPAbortOnClose", 7, 1);
        assert_eq!(case.finding(&CLOSE_WITH_UNREAD_DATA).subjects[0].port, None);
    }

    #[test]
    fn a_few_retired_pool_connections_are_no_alarm() {
        let case = Case::new().counter("Tcp.PassiveOpens", 0, 900).counter("TcpExt.TCPAbortOnClose", 0, 9);
        assert_eq!(case.finding(&CLOSE_WITH_UNREAD_DATA).severity, Severity::Info);
    }

    #[test]
    fn resets_for_another_reason_are_not_this() {
        let case = Case::new().counter("Tcp.OutRsts", 0, 20).counter("TcpExt.TCPAbortOnClose", 5, 0);
        assert!(case.is_ruled_out(&CLOSE_WITH_UNREAD_DATA));
    }

    #[test]
    fn without_the_counter_nothing_is_claimed() {
        assert_eq!(Case::new().missing(&CLOSE_WITH_UNREAD_DATA), Some("netstat"));
    }
}
