use super::connection_limit::{self, Without};
use super::numbers::late_data_after_close as numbers;
use super::place::{self, Place};
use super::{
    EvidenceItem, Finding, Judgement, Remedy, Restart, Setting, SettingKind, Severity, Subject, Verdict, Verify,
};
use super::{exchange, severity, wording};
use crate::evidence::Evidence;
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
    Ok(Verdict::Found(vec![with_remedies(finding, true)]))
}

fn by_events(e: &Evidence<'_>, place: Place<'_>) -> Finding {
    let tls = place.port.or(place.called.map(|called| called.port())).is_some_and(|port| TLS_PORTS.contains(&port));
    let harm = place.harm(e);
    let severity = match severity::to_clients(e, &harm) {
        _ if tls || place.as_client() => Severity::Info,
        // A restart meets a few requests of pools, which send them again; where most meet it, nobody is served.
        _ if harm.failures < severity::FEW && harm.surely().is_none_or(|low| low < severity::MOST) => Severity::Info,
        // The close itself was regular: some requests were lost, the service was not.
        severity => severity.max(Severity::Warning),
    };
    let summary = format!(
        "{} closed {} while the peer still sent, in {}",
        place.who(e),
        harm.counted("connection"),
        words::seconds(e.window())
    );
    let mut finding =
        wording::doubted(&place, wording::active(e, severity, numbers::NAMED, place.count, "resets", summary))
            .subjects(place.subjects(e))
            .evidence(place.item("TCP_TIMEWAIT_SOCKET", "data after our close"))
            .harm(harm);
    let idle = exchange::idle_at_close(e, &place);
    if let Some(idle) = idle {
        let text = match idle >= numbers::SHORTEST_IDLE_S {
            true => format!("this side closed them after {idle:.1} s without data: its idle limit"),
            false => "this side closed them with no pause since the last data: not for being idle".to_owned(),
        };
        finding = finding.evidence(EvidenceItem::value("destroyed_sockets", "idle_s", idle, text));
    }
    if tls {
        let text = "on a TLS port this is mostly a close_notify that crossed our FIN: no data lost";
        finding = finding.against(EvidenceItem::fact("reset_events", "port", text));
    }
    with_remedies(finding, idle.is_none_or(|idle| idle >= numbers::SHORTEST_IDLE_S))
}

/// `may_be_idle`: the connections had been idle when this side closed them, as far as that is known.
fn with_remedies(finding: Finding, may_be_idle: bool) -> Finding {
    let verify = Verify::scan("shows no data after close");
    let line = match finding.subjects.iter().find_map(|subject| subject.process.as_deref()).unwrap_or_default() {
        "nginx" => Some(Setting::config("keepalive_timeout 75s;", "nginx.conf", None, Restart::Reload)),
        "node" => Some(Setting {
            kind: SettingKind::Code,
            line: "server.keepAliveTimeout = 75000;".to_owned(),
            file: None,
            place: Some("in the server's code, ms".to_owned()),
            note: None,
            restart: Restart::Service,
        }),
        "gunicorn" => Some(Setting::config("keepalive = 75", "gunicorn.conf.py", None, Restart::Service)),
        "uvicorn" => Some(Setting {
            kind: SettingKind::Config,
            line: "--timeout-keep-alive 75".to_owned(),
            file: None,
            place: Some("on the uvicorn command line".to_owned()),
            note: None,
            restart: Restart::Service,
        }),
        _ => None,
    };
    let idle = Remedy::new(
        "Make this side's idle limit longer than that of every caller (or theirs shorter), so that the caller closes first",
        verify.clone(),
    );
    let idle = match line {
        Some(setting) => idle.setting(setting),
        None => idle.restart(Restart::Service),
    };
    let finding = if may_be_idle { finding.remedy(idle) } else { finding };
    finding.remedy(
        Remedy::new("Read to EOF after shutdown(SHUT_WR) before close(), so that late data is taken", verify)
            .restart(Restart::Service),
    )
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
