use super::numbers::stale_connection as numbers;
use super::place::{self, Place};
use super::{EvidenceItem, Finding, Judgement, Remedy, Restart, Severity, Subject, Verdict};
use super::{severity, wording};
use crate::evidence::Evidence;
use crate::source::reset_events::Direction;
use crate::value::shell::ShellCommand;
use crate::value::{Missing, words};

cause! {
    /// ## What happens
    ///
    /// A peer sends on a connection that this host no longer knows: the process was restarted, the host rebooted, a timer
    /// gave up here, or a load balancer moved the flow. The kernel answers with a RST: "Connection reset by peer" at the
    /// first use after a pause.
    ///
    /// ## How it shows
    ///
    /// Only `Tcp.OutRsts` grows. The tracepoint tcp:tcp_send_reset gives TCP_FLAGS in LISTEN (a listener is there), or
    /// NO_SOCKET on a port of ours that is no service.
    ///
    /// ## How to confirm
    ///
    /// `ss -tn 'sport = :PORT'` does not show the peer's address and port while the peer's `ss -tn` still does.
    /// `rstdoctor trace --sent --port PORT` as root shows which peers are answered.
    ///
    /// ## What to change
    ///
    /// Close connections in order at a restart. Let clients test pooled connections and keep them for less time. Find out
    /// who forgot the connection: a restart, a timeout, a failover.
    ///
    /// ## Look-alikes
    ///
    /// A handshake that expired while the accept queue was full (accept-queue-overflow), a SYN cookie that is not valid,
    /// blind ACK scans.
    STALE_CONNECTION {
        id: "stale-connection",
        title: "Segments for a connection no longer known",
        explains: [],
        needs: [Window, Snmp],
        judge: judge,
    }
}

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    let events = e.resets_of(STALE_CONNECTION.id, Direction::Sent);
    if let Ok(groups) = events {
        let findings: Vec<_> = place::places(e, &groups).into_iter().map(|place| by_events(e, place)).collect();
        return Ok(Verdict::from_findings(findings, "no segment arrived for an unknown connection"));
    }
    e.events_balance()?;
    let counted = e.estimate()?;
    if counted.rest == 0 {
        return Ok(Verdict::RuledOut("every RST that was sent has another explanation, or none was sent".into()));
    }
    let restarted = e.gone_listeners().iter().find(|gone| gone.replaced);
    let Some(restarted) = restarted else {
        let reason = format!("{} sent may be an answer to a forgotten connection", words::counted(counted.rest, "RST"));
        let needs = events.err().and_then(|missing| missing.needs);
        return Err(Missing { source: "reset_events", reason, needs });
    };
    let port = restarted.trace.last.port;
    let summary = format!(
        "up to {} for connections that the restarted service on port {port} no longer knows, in {}",
        words::counted(counted.rest, "segment"),
        words::seconds(e.window())
    );
    let reading = e.counter("Tcp.OutRsts")?;
    let finding = wording::active(e, Severity::Info, numbers::COUNTED, counted.rest, "resets", summary)
        .subject(Subject { port: Some(port), ..Subject::host() })
        .evidence(wording::moved(&reading, "some of these RSTs have no other explanation"))
        .against(EvidenceItem::fact(
            "snmp",
            "Tcp.OutRsts",
            "a port scan or refused connects look the same in the counters",
        ));
    Ok(Verdict::Found(vec![with_remedies(finding)]))
}

fn by_events(e: &Evidence<'_>, place: Place<'_>) -> Finding {
    let severity = match severity::to_clients(e, &place.harm(e)) {
        // Segments, not connections: one client that tries again sends several.
        _ if place.as_client() || place.count < severity::FEW => Severity::Info,
        severity => severity.max(Severity::Warning),
    };
    let restarted = e.gone_listeners().iter().any(|gone| Some(gone.trace.last.port) == place.port);
    let summary = format!(
        "{} for connections that {} no longer knows, in {}",
        words::counted(place.count, "segment"),
        place.who(e),
        words::seconds(e.window())
    );
    let mut finding =
        wording::doubted(&place, wording::active(e, severity, numbers::NAMED, place.count, "resets", summary))
            .subjects(place.subjects(e))
            .evidence(place.item("TCP_FLAGS", "a segment for no known connection"));
    if restarted {
        finding = finding.evidence(EvidenceItem::fact(
            "listeners",
            "cookie",
            "the listener was replaced in this window: a restart",
        ));
    }
    if e.moved("TcpExt.TCPAbortOnTimeout") > 0 {
        finding = finding.evidence(EvidenceItem::fact(
            "netstat",
            "TcpExt.TCPAbortOnTimeout",
            "timers gave up on connections here; their peers do not know it yet",
        ));
    }
    with_remedies(finding)
}

fn with_remedies(finding: Finding) -> Finding {
    finding
        .remedy(
            Remedy::new(
                "Find what made this host forget the connections: restart, crash, failover",
                "the time of the first RST matches",
            )
            .command(
                ShellCommand::new("journalctl --since -10min")
                    .pipe(ShellCommand::new("grep -Ei").arg("start|stopp|kill|segfault|oom")),
            ),
        )
        .remedy(
            Remedy::new(
                "Let clients test or drop pooled connections before reuse, and stop services by draining them",
                "rstdoctor scan during a restart shows no segments for unknown connections",
            )
            .restart(Restart::Service),
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::{Case, process};
    use crate::value::TcpState;

    fn stale(case: Case) -> Case {
        case.listener("0.0.0.0:9000", 128, 0, 0, &process(7, "app")).sent(
            20,
            "TCP_FLAGS",
            Some(TcpState::Listen),
            ["10.0.0.9:9000", "10.0.3.7:0"],
            None,
        )
    }

    #[test]
    fn forgotten_connections_are_found_on_their_port() {
        let finding = stale(Case::new()).finding(&STALE_CONNECTION);
        assert_eq!((finding.severity, finding.subjects[0].port), (Severity::Warning, Some(9000)));
        assert!(finding.confidence >= 0.9);
    }

    #[test]
    fn failed_cookies_give_the_same_reason_and_are_not_this() {
        let case = stale(Case::new().counter("TcpExt.SyncookiesFailed", 0, 20));
        assert!(case.is_ruled_out(&STALE_CONNECTION));
    }

    #[test]
    fn the_rest_of_an_own_connection_is_this_even_without_a_listener() {
        let case = Case::new().sent(6, "NO_SOCKET", None, ["10.0.0.9:45000", "10.0.3.7:443"], None);
        assert_eq!(case.finding(&STALE_CONNECTION).severity, Severity::Info);
    }

    #[test]
    fn counters_cannot_tell_it_from_a_scan() {
        assert_eq!(Case::new().counter("Tcp.OutRsts", 0, 20).missing(&STALE_CONNECTION), Some("reset_events"));
        assert!(Case::new().counter("Tcp.OutRsts", 9, 0).is_ruled_out(&STALE_CONNECTION));
    }
}
