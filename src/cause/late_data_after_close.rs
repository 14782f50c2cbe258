use std::time::Duration;

use super::connection_limit::{self, Without};
use super::exchange::{self, Pause};
use super::numbers::late_data_after_close as numbers;
use super::place::{self, Place};
use super::signals::{self, Replaced};
use super::{EvidenceItem, Finding, Judgement, Remedy, Restart, Setting, Severity, Subject, Verdict, Verify};
use super::{severity, wording};
use crate::evidence::Evidence;
use crate::knowledge::servers::Server;
use crate::reset::TLS_PORTS;
use crate::source::reset_events::Direction;
use crate::value::{Missing, words};

cause! {
    /// ## What happens
    ///
    /// This side closed the connection; the peer still sent data. Nobody can read it, so the kernel answers with a RST.
    /// The peer's first write seems to succeed, the next one fails: "Connection reset by peer" or "Broken pipe". Typical:
    /// a server ends an idle keep-alive connection in the moment in which the client sends the next request.
    ///
    /// ## How it shows
    ///
    /// The tracepoint tcp:tcp_send_reset gives TCP_TIMEWAIT_SOCKET (usual) or TCP_ABORT_ON_DATA (a full socket in FIN_WAIT).
    /// Without it only `Tcp.OutRsts` grows, and `TcpExt.TCPAbortOnData` in the second case.
    ///
    /// ## How to confirm
    ///
    /// `rstdoctor trace --sent` as root shows each as it happens. A capture shows our FIN, then data of the peer, then our
    /// RST, within one round trip.
    ///
    /// ## What to change
    ///
    /// Let the caller close idle connections first: its idle limit below the server's. Let the server read to EOF before
    /// it closes. Retry requests that are safe to repeat.
    ///
    /// ## Look-alikes
    ///
    /// A TLS close_notify that crosses our FIN ends the same way and harms nobody. Linger 0 moves TCPAbortOnData as well.
    LATE_DATA_AFTER_CLOSE {
        id: "late-data-after-close",
        title: "Data after our close",
        explains: [],
        needs: [Window, Netstat, Snmp],
        judge: judge,
    }
}

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    let events = e.resets_of(LATE_DATA_AFTER_CLOSE.id, Direction::Sent);
    if let Ok(groups) = events {
        let places = place::places(e, &groups).into_iter().chain(connection_limit::without_limit(e, Without::LateData));
        let findings: Vec<_> = places.map(|place| by_events(e, place)).collect();
        return Ok(Verdict::from_findings(findings, "no data arrived after a close"));
    }
    e.events_balance()?;
    let counted = e.estimate()?;
    let reading = e.counter("TcpExt.TCPAbortOnData")?;
    if counted.on_data == 0 {
        if counted.rest == 0 {
            return Ok(Verdict::RuledOut("every RST that was sent has another explanation, or none was sent".into()));
        }
        let reason = format!("{} sent may be an answer to late data", words::counted(counted.rest, "RST"));
        let needs = events.err().and_then(|missing| missing.needs);
        return Err(Missing { source: "reset_events", reason, needs });
    }
    let summary = format!(
        "up to {} got data after this side had closed, in {}",
        words::counted(counted.on_data, "connection"),
        words::seconds(e.window())
    );
    let finding = wording::active(e, Severity::Info, numbers::COUNTED, counted.on_data, "resets", summary)
        .subject(Subject::host())
        .evidence(wording::moved(&reading, "data met a socket already closed here, or it was aborted with linger 0"))
        .against(EvidenceItem::fact(
            "netstat",
            "TcpExt.TCPAbortOnData",
            "SO_LINGER 0 moves the same counter (abortive-close)",
        ));
    Ok(Verdict::Found(vec![with_remedies(finding, None, None)]))
}

fn by_events(e: &Evidence<'_>, place: Place<'_>) -> Finding {
    let tls = place.port.or(place.called.map(|called| called.port())).is_some_and(|port| TLS_PORTS.contains(&port));
    let harm = severity::lately(e, LATE_DATA_AFTER_CLOSE.id, place.harm(e));
    let severity = match severity::to_clients(e, &harm) {
        _ if tls || place.as_client() => Severity::Info,
        // A restart meets a few requests of pools, which send them again; where most meet it, nobody is served.
        _ if harm.failures < severity::FEW && harm.surely().is_none_or(|low| low < severity::MOST) => Severity::Info,
        // The close itself was regular: some requests were lost, the service was not.
        severity => severity.max(Severity::Warning),
    };
    let reload = reload(e, &place);
    let severity = if reload.is_some() { Severity::Info } else { severity };
    let confidence = if reload.is_some() { numbers::RELOADED } else { numbers::NAMED };
    let summary = format!(
        "{} {}closed {} while the peer still sent, in {}",
        place.who(e),
        if reload.is_some() { "was reloaded: its old workers " } else { "" },
        harm.counted("connection"),
        words::seconds(e.window())
    );
    let mut finding =
        wording::doubted(&place, wording::active(e, severity, confidence, place.count, "resets", summary))
            .subjects(place.subjects(e))
            .evidence(place.item("TCP_TIMEWAIT_SOCKET", "data after our close"))
            .harm(harm);
    if let Some(reload) = reload {
        return reloaded(finding, &reload);
    }
    let pause = exchange::pause_at_close(e, &place, numbers::SHORTEST_IDLE_S);
    if let Some(pause) = pause {
        let (seconds, text) = match pause {
            Pause::Idle(idle) => {
                (idle, format!("this side closed them after {idle:.1} s without data: its idle limit"))
            }
            Pause::Unasked(idle) => (
                idle,
                format!(
                    "this side sent something and closed them {idle:.1} s after the last data had come: a goodbye at its idle \
                     limit, or an answer that took so long"
                ),
            ),
            Pause::None => {
                (0.0, "this side closed them with no pause since data had come: not for being idle".to_owned())
            }
        };
        finding = finding.evidence(EvidenceItem::value("destroyed_sockets", "idle_s", seconds, text));
        if matches!(pause, Pause::Unasked(_)) {
            finding.confidence = finding.confidence.min(numbers::GOODBYE_OR_ANSWER.value());
        }
    }
    if tls {
        let text = "on a TLS port this is mostly a close_notify that crossed our FIN: no data lost";
        finding = finding.against(EvidenceItem::fact("reset_events", "port", text));
    }
    match place.as_client() {
        true => finding.remedy(Remedy::new(
            "Let the program read an answer to its end before it closes, and wait for it as long as it takes; where it is \
             cancelled on purpose, nothing is to be changed",
            verify(),
        )),
        false => with_remedies(finding, pause, exchange::server(e, &place)),
    }
}

/// Old workers close what is idle when they are told to end; a program that closes too early does so all the time.
fn reload(e: &Evidence<'_>, place: &Place<'_>) -> Option<Replaced> {
    let replaced = signals::replaced(e, place.port?).filter(|replaced| replaced.in_order)?;
    let closed = exchange::closed_at(e, place);
    let mut bursts: Vec<Duration> = Vec::new();
    for at in &closed {
        if bursts.last().is_none_or(|first| at.saturating_sub(*first).as_secs_f64() > numbers::BURST_S) {
            bursts.push(*at);
        }
    }
    let busy = bursts.len() as f64 * numbers::BURST_S;
    let in_bursts = busy <= numbers::IN_BURSTS * e.window().as_secs_f64() && bursts.len() * 2 <= closed.len();
    (closed.len() as u64 * 2 > place.count && in_bursts).then_some(replaced)
}

fn reloaded(finding: Finding, reload: &Replaced) -> Finding {
    let text = format!(
        "{} that listened there ended with no signal, {} came, and their parent stayed: a reload",
        words::counted(reload.left, &format!("{} process", reload.name)),
        words::thousands(reload.came)
    );
    let again = Remedy::new(
        "Let the callers send a request that met the close again on a new connection, and reload as seldom as can be",
        verify(),
    );
    let finding = finding.evidence(EvidenceItem::fact("owners", "pid", text)).remedy(again);
    if reload.name != "nginx" {
        return finding;
    }
    // Since nginx 1.27.4; before, what is idle is closed at once, and worker_shutdown_timeout only ends what is not.
    let keep = Setting::config("keepalive_min_timeout 5s;", "nginx.conf", Some("http block"), Restart::Reload);
    finding.remedy(
        Remedy::new("Or let old workers keep idle connections for a while (nginx 1.27.4 and later)", verify())
            .setting(keep),
    )
}

fn verify() -> Verify {
    Verify::scan("shows no data after close")
}

/// `pause`: before this side closed them, as far as that is known.
fn with_remedies(finding: Finding, pause: Option<Pause>, server: Option<&Server>) -> Finding {
    let theirs = match pause {
        Some(Pause::Idle(seconds) | Pause::Unasked(seconds)) => format!("shorter than {seconds:.1} s"),
        _ => "shorter".to_owned(),
    };
    let idle = Remedy::new(
        format!(
            "Make this side's idle limit longer than that of every caller (or theirs {theirs}), so that the caller closes first"
        ),
        verify(),
    );
    let idle = match server.and_then(|server| server.idle.as_ref()) {
        Some(setting) => idle.setting(setting.clone()),
        None => idle.restart(Restart::Service),
    };
    let finding = if pause == Some(Pause::None) { finding } else { finding.remedy(idle) };
    // Who runs a server of others does not change how it closes.
    finding.remedy(match server.is_none_or(Server::is_programmed) {
        true => Remedy::new("Read to EOF after shutdown(SHUT_WR) before close(), so that late data is taken", verify())
            .restart(Restart::Service),
        false => Remedy::new(
            "Let the callers look for the close before they use a connection again, and send a request that met one again on a \
             new connection",
            verify(),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::{Case, process};
    use crate::value::TcpState;

    fn late(port: u16) -> Case {
        Case::new()
            .counter("Tcp.OutRsts", 0, 20)
            .counter("Tcp.PassiveOpens", 0, 20)
            .listener(&format!("0.0.0.0:{port}"), 128, 0, 0, &process(7, "node"))
            .sent(
                20,
                "TCP_TIMEWAIT_SOCKET",
                Some(TcpState::TimeWait),
                [&format!("10.0.0.9:{port}"), "10.0.3.7:0"],
                None,
            )
    }

    #[test]
    fn late_requests_are_a_warning_with_the_setting() {
        let finding = late(8080).finding(&LATE_DATA_AFTER_CLOSE);
        assert_eq!(finding.severity, Severity::Warning);
        assert!(finding.remedies[0].line().as_deref().unwrap_or_default().contains("keepAliveTimeout"));
    }

    #[test]
    fn a_few_requests_that_met_a_restart_are_a_note_and_all_of_few_are_not() {
        let of = |failed: u16, served: u16| {
            let case = Case::new()
                .tracepoints()
                .counter("Tcp.OutRsts", 0, failed.into())
                .counter("Tcp.PassiveOpens", 0, served.into())
                .listener("0.0.0.0:8080", 128, 0, 0, &process(7, "node"))
                .sent(failed, "TCP_TIMEWAIT_SOCKET", Some(TcpState::TimeWait), ["10.0.0.9:8080", "10.0.3.7:0"], None)
                .destroyed_sockets(served, ["10.0.0.9:8080", "10.0.3.7:0"], 0, 0);
            case.finding(&LATE_DATA_AFTER_CLOSE).severity
        };
        assert_eq!(of(3, 65), Severity::Info);
        assert_eq!(of(3, 3), Severity::Warning);
        assert_eq!(of(5, 65), Severity::Warning);
    }

    fn closed(name: &str, received_ms: u32, sent_ms: u32) -> Finding {
        let ends = ["10.0.0.9:5432", "10.0.3.7:0"];
        Case::new()
            .tracepoints()
            .counter("Tcp.OutRsts", 0, 20)
            .counter("Tcp.PassiveOpens", 0, 20)
            .listener("0.0.0.0:5432", 128, 0, 0, &process(7, name))
            .sent(20, "TCP_TIMEWAIT_SOCKET", Some(TcpState::TimeWait), ends, None)
            .destroyed_sockets(20, ends, 0, 0)
            .each_destroyed(|socket| {
                (socket.data_received_ms, socket.data_sent_ms) = (received_ms, sent_ms);
                (socket.unread, socket.unacknowledged) = (0, 0);
                (socket.bytes_received, socket.bytes_sent) = (Some(80), Some(500));
            })
            .finding(&LATE_DATA_AFTER_CLOSE)
    }

    fn says(finding: &Finding, text: &str) -> bool {
        let remedies = finding.remedies.iter().map(|remedy| &remedy.text);
        remedies.chain(finding.evidence.iter().map(|item| &item.text)).any(|said| said.contains(text))
    }

    /// PostgreSQL says `FATAL: terminating connection due to idle-session timeout` and closes.
    #[test]
    fn who_says_goodbye_to_an_idle_caller_has_an_idle_limit_or_was_slow() {
        let goodbye = closed("postgres", 1_000, 0);
        assert!(goodbye.remedies[0].line().is_some_and(|line| line.starts_with("idle_session_timeout")), "{goodbye:?}");
        assert!(says(&goodbye, "shorter than 1.0 s") && says(&goodbye, "or an answer that took so long"));
        assert!(!says(&goodbye, "not for being idle") && !says(&goodbye, "Read to EOF"));
        assert!(goodbye.confidence < 0.8);
        let silent = closed("redis-server", 1_600, 1_600);
        assert!(silent.remedies[0].line().is_some_and(|line| line.starts_with("timeout")) && silent.confidence > 0.9);
        let busy = closed("own-program", 20, 0);
        assert!(says(&busy, "not for being idle") && says(&busy, "Read to EOF") && !says(&busy, "idle limit longer"));
        assert!(busy.confidence > 0.9);
    }

    /// psql that is killed while its query runs.
    #[test]
    fn the_caller_that_closed_is_not_told_to_outlast_its_callers() {
        let case = Case::new().counter("Tcp.OutRsts", 0, 20).sent(
            20,
            "TCP_TIMEWAIT_SOCKET",
            Some(TcpState::TimeWait),
            ["10.0.0.9:0", "10.0.3.7:5432"],
            None,
        );
        let finding = case.finding(&LATE_DATA_AFTER_CLOSE);
        assert_eq!(finding.severity, Severity::Info);
        assert!(!says(&finding, "idle limit") && says(&finding, "read an answer to its end"), "{finding:?}");
    }

    #[test]
    fn old_workers_of_a_reload_that_close_what_is_idle_are_a_note() {
        let of = |came: bool, all_the_time: bool| {
            let ends = ["10.0.0.9:8080", "10.0.3.7:0"];
            let case = Case::new()
                .tracepoints()
                .counter("Tcp.OutRsts", 0, 20)
                .counter("Tcp.PassiveOpens", 0, 20)
                .listener("0.0.0.0:8080", 128, 0, 0, &process(7, "nginx"))
                .holder(1, &process(8, "nginx"))
                .died(8)
                .sent(20, "TCP_TIMEWAIT_SOCKET", Some(TcpState::TimeWait), ends, None)
                .destroyed_sockets(20, ends, 0, 0);
            let mut number = 0;
            let case = case.each_destroyed(|socket| {
                (socket.data_received_ms, socket.data_sent_ms) = (20, 20);
                let start = if all_the_time { number * 100 } else { 0 };
                socket.at = Duration::from_millis(1_001_000 + start);
                number += 1;
            });
            let case = if came { case.started(1, &process(9, "nginx")) } else { case };
            case.finding(&LATE_DATA_AFTER_CLOSE)
        };
        let reload = of(true, false);
        assert_eq!(reload.severity, Severity::Info);
        assert!(reload.summary.contains("was reloaded") && !says(&reload, "Read to EOF"), "{reload:?}");
        for other in [of(false, false), of(true, true)] {
            assert!(other.severity == Severity::Warning && !other.summary.contains("reload"), "{other:?}");
        }
    }

    #[test]
    fn close_notify_on_a_tls_port_is_no_alarm() {
        assert_eq!(late(443).finding(&LATE_DATA_AFTER_CLOSE).severity, Severity::Info);
    }

    #[test]
    fn other_resets_are_not_this() {
        let case =
            Case::new().counter("Tcp.OutRsts", 0, 20).sent(20, "NO_SOCKET", None, ["10.0.0.9:80", "10.0.3.7:0"], None);
        assert!(case.is_ruled_out(&LATE_DATA_AFTER_CLOSE));
    }

    #[test]
    fn counters_cannot_tell_it_from_a_scan() {
        let case = Case::new().counter("Tcp.OutRsts", 0, 20).counter("TcpExt.TCPAbortOnData", 0, 0);
        assert_eq!(case.missing(&LATE_DATA_AFTER_CLOSE), Some("reset_events"));
    }
}
