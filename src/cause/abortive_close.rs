use super::numbers::abortive_close as numbers;
use super::place::{self, Place};
use super::{
    EvidenceItem, Finding, Judgement, Remedy, Restart, Setting, SettingKind, Severity, Subject, Verdict, Verify,
};
use super::{exchange, severity, wording};
use crate::evidence::Evidence;
use crate::knowledge::servers::Server;
use crate::source::reset_events::Direction;
use crate::value::shell::{Name, ShellCommand};
use crate::value::words;

cause! {
    /// ## What happens
    ///
    /// An application ends a connection by RST on purpose: SO_LINGER with a time of 0 and then close(), or
    /// connect(AF_UNSPEC), or a negative TCP_LINGER2. Whatever was not delivered yet is thrown away, in both directions.
    ///
    /// ## How it shows
    ///
    /// `TcpExt.TCPAbortOnData` and `Tcp.OutRsts` grow together (net/ipv4/tcp.c __tcp_close). The tracepoint
    /// tcp:tcp_send_reset gives the reason TCP_STATE with the socket already in CLOSE, and the process.
    ///
    /// ## How to confirm
    ///
    /// `rstdoctor trace --sent` as root names the process of each; `strace -f -e trace=setsockopt -p PID` shows SO_LINGER
    /// with l_linger=0.
    ///
    /// ## What to change
    ///
    /// Remove SO_LINGER 0 from the program: Java `setSoLinger(true, 0)`, Go `SetLinger(0)`, Netty `SO_LINGER 0`, nginx
    /// `reset_timedout_connection on`. It is no cure for TIME_WAIT: let the client close first, or reuse connections.
    ///
    /// ## Look-alikes
    ///
    /// Data that arrives after a close moves the same counter while the socket is in FIN_WAIT (late-data-after-close).
    /// Load generators, monitors and pools use linger 0 on purpose, as clients.
    ABORTIVE_CLOSE {
        id: "abortive-close",
        title: "Aborted by the application (SO_LINGER 0)",
        explains: ["stale-connection"],
        needs: [Window, Netstat, Snmp],
        judge: judge,
    }
}

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    if let Ok(groups) = e.resets_of(ABORTIVE_CLOSE.id, Direction::Sent) {
        let findings: Vec<_> = place::places(e, &groups).into_iter().map(|place| by_events(e, place)).collect();
        return Ok(Verdict::from_findings(findings, "no application sent a RST on purpose"));
    }
    let reading = e.counter("TcpExt.TCPAbortOnData")?;
    let counted = e.estimate()?;
    let events = counted.on_data + counted.linger_timeout;
    if events == 0 {
        // Linger 0 in SYN_SENT counts, and sends no RST.
        return Ok(wording::still(&reading));
    }
    let severity =
        if severity::only_calls(e, events) { Severity::Info } else { severity::of_host(e, events, "Tcp.PassiveOpens") };
    let summary = format!(
        "programs on this host aborted {} by RST in {} (linger 0)",
        words::counted(events, "connection"),
        words::seconds(e.window())
    );
    let finding = wording::active(e, severity, numbers::COUNTED, events, "resets", summary)
        .subject(Subject::host())
        .evidence(wording::moved(&reading, "aborted with SO_LINGER 0, or data met a socket already closed here"))
        .against(EvidenceItem::fact(
            "netstat",
            "TcpExt.TCPAbortOnData",
            "data that arrives after this side closed moves the same counter (late-data-after-close)",
        ));
    Ok(Verdict::Found(vec![with_remedies(finding, None, None)]))
}

fn by_events(e: &Evidence<'_>, place: Place<'_>) -> Finding {
    // Load generators, monitors and pools do this as clients, on purpose.
    let harm = place.harm(e);
    let severity = if place.as_client() { Severity::Info } else { severity::to_clients(e, &harm) };
    let summary = format!(
        "{} aborted {} by RST in {} (linger 0)",
        place.who(e),
        harm.counted("connection"),
        words::seconds(e.window())
    );
    // Without TCPAbortOnData it was not SO_LINGER but connect(AF_UNSPEC), which is as deliberate.
    let finding =
        wording::doubted(&place, wording::active(e, severity, numbers::NAMED, place.count, "resets", summary))
            .subjects(place.subjects(e))
            .evidence(place.item("TCP_STATE", "an abort by the application"))
            .harm(harm);
    let pid = place.task().map(|task| task.pid);
    with_remedies(finding, pid, exchange::server(e, &place))
}

fn with_remedies(finding: Finding, pid: Option<u32>, server: Option<&Server>) -> Finding {
    let verify = Verify::flat("TcpExtTCPAbortOnData");
    let nginx = finding.subjects.iter().any(|subject| subject.process.as_deref() == Some("nginx"));
    let remove = if nginx {
        Remedy::new("Let nginx end timed-out connections by FIN", verify).setting(Setting::config(
            "reset_timedout_connection off;",
            "nginx.conf",
            Some("server block"),
            Restart::Reload,
        ))
    } else if let Some(server) = server.filter(|server| !is_programmed(server)) {
        let text = format!(
            "Look in the configuration of {name} for what ends connections by RST: a rule that rejects these clients, a limit \
             for each address, an option about lingering; the log of {name} may say which",
            name = server.name
        );
        Remedy::new(text, verify)
    } else {
        Remedy::new(
            "Remove SO_LINGER with time 0 from the program; to avoid TIME_WAIT, reuse connections instead",
            verify,
        )
        .restart(Restart::Service)
    };
    finding.remedy(remove).remedy(match pid {
        Some(pid) => Remedy::new("See the program set SO_LINGER", "no line shows l_linger=0").command(
            ShellCommand::new("timeout 10 strace -f -e trace=setsockopt,close,connect -p").arg(Name::pid(pid)),
        ),
        None => Remedy::new("See which program does it (as root, with tracefs)", "the process is named")
            .command(ShellCommand::new("rstdoctor trace --sent -d 10s")),
    })
}

/// What is set in source code: its aborts are the program's own.
fn is_programmed(server: &Server) -> bool {
    server.connections.as_ref().is_some_and(|setting| setting.kind == SettingKind::Code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::{Case, process, task};
    use crate::value::TcpState;

    fn twenty() -> Case {
        Case::new()
            .counter("Tcp.OutRsts", 0, 20)
            .counter("Tcp.PassiveOpens", 0, 20)
            .counter("TcpExt.TCPAbortOnData", 0, 20)
            .listener("0.0.0.0:9000", 128, 0, 0, &process(977, "app"))
    }

    fn by(case: Case, ends: [&str; 2]) -> Case {
        case.sent(20, "TCP_STATE", Some(TcpState::Close), ends, Some(task(977, "app")))
    }

    #[test]
    fn a_server_that_aborts_is_named() {
        let finding = by(twenty(), ["10.0.0.9:9000", "10.0.3.7:0"]).finding(&ABORTIVE_CLOSE);
        assert!(finding.severity <= Severity::Warning && finding.confidence >= 0.9);
        assert_eq!(finding.subjects[1].pid, Some(977));
    }

    /// haproxy's `tcp-request connection reject` aborts: nobody changes its source for that.
    #[test]
    fn a_packaged_server_is_looked_at_in_its_configuration() {
        let case = Case::new().counter("Tcp.OutRsts", 0, 20).counter("Tcp.PassiveOpens", 0, 20).listener(
            "0.0.0.0:9000",
            128,
            0,
            0,
            &process(977, "haproxy"),
        );
        let case = case.sent(
            20,
            "TCP_STATE",
            Some(TcpState::Close),
            ["10.0.0.9:9000", "10.0.3.7:0"],
            Some(task(977, "haproxy")),
        );
        let first = case.finding(&ABORTIVE_CLOSE).remedies.remove(0);
        assert!(first.text.starts_with("Look in the configuration of HAProxy"), "{}", first.text);
    }

    #[test]
    fn a_load_generator_is_no_alarm() {
        let finding = by(twenty(), ["10.0.0.9:0", "10.0.3.7:80"]).finding(&ABORTIVE_CLOSE);
        assert_eq!(finding.severity, Severity::Info);
        assert!(finding.summary.contains("10.0.3.7:80"), "{}", finding.summary);
    }

    #[test]
    fn the_same_reason_at_a_closed_listener_is_not_this() {
        let case = by(twenty().stopped_listening(9000), ["10.0.0.9:9000", "10.0.3.7:0"]);
        assert!(case.is_ruled_out(&ABORTIVE_CLOSE));
    }

    #[test]
    fn counters_name_the_look_alike() {
        let finding = twenty().finding(&ABORTIVE_CLOSE);
        assert!((0.5..0.9).contains(&finding.confidence) && !finding.counter_evidence.is_empty());
    }

    #[test]
    fn without_the_counter_nothing_is_claimed() {
        assert_eq!(Case::new().missing(&ABORTIVE_CLOSE), Some("netstat"));
    }
}
