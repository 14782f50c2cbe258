use super::numbers::abortive_close as numbers;
use super::place::{self, Place};
use super::{EvidenceItem, Finding, Judgement, Remedy, Restart, Setting, Severity, Subject, Verdict, Verify};
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
    // Whose connections they were is not known: load balancers abort those to their servers by design.
    let severity = match severity::only_calls(e, events) {
        true => Severity::Info,
        false => severity::of_host(e, events, "Tcp.PassiveOpens").max(Severity::Warning),
    };
    let unsure = e.moved("Tcp.ActiveOpens") >= events || e.gone_processes().next().is_some();
    let confidence = if unsure { numbers::COUNTED_OF_ANY } else { numbers::COUNTED };
    let summary = format!(
        "programs on this host aborted {} by RST in {} (linger 0)",
        words::counted(events, "connection"),
        words::seconds(e.window())
    );
    let finding = wording::active(e, severity, confidence, events, "resets", summary)
        .subject(Subject::host())
        .evidence(wording::moved(&reading, "aborted with SO_LINGER 0, or data met a socket already closed here"))
        .against(EvidenceItem::fact(
            "netstat",
            "TcpExt.TCPAbortOnData",
            "data that arrives after this side closed moves the same counter (late-data-after-close)",
        ));
    let finding = finding.against_if(unsure.then(|| {
        let text =
            "this host made as many connections, or a program ended: whether a client of it was aborted is not known";
        EvidenceItem::fact("snmp", "Tcp.ActiveOpens", text)
    }));
    Ok(Verdict::Found(vec![with_remedies(finding, None, None)]))
}

fn by_events(e: &Evidence<'_>, place: Place<'_>) -> Finding {
    // Load generators, monitors and pools do this as clients, on purpose.
    let harm = severity::lately(e, ABORTIVE_CLOSE.id, place.harm(e));
    let severity = if place.as_client() { Severity::Info } else { severity::to_clients(e, &harm) };
    let by_design = aborts_by_design(&place);
    let summary = format!(
        "{} aborted {} by RST in {} (linger 0{})",
        place.who(e),
        harm.counted("connection"),
        words::seconds(e.window()),
        if by_design { ", as it ends connections to its servers by design" } else { "" }
    );
    // Without TCPAbortOnData it was not SO_LINGER but connect(AF_UNSPEC), which is as deliberate.
    let finding =
        wording::doubted(&place, wording::active(e, severity, numbers::NAMED, place.count, "resets", summary))
            .subjects(place.subjects(e))
            .evidence(place.item("TCP_STATE", "an abort by the application"))
            .harm(harm);
    if by_design {
        return finding.remedy(Remedy::new(
            "Nothing is to be changed: it has had its answer, and spares itself TIME_WAIT",
            "its clients see no failure",
        ));
    }
    let pid = place.task().map(|task| task.pid);
    with_remedies(finding, pid, exchange::server(e, &place))
}

/// HAProxy closes with linger 0 what it connected to a server, unless the server closed first (src/fd.c, FD_LINGER_RISK).
fn aborts_by_design(place: &Place<'_>) -> bool {
    place.as_client() && place.task().is_some_and(|task| task.name == "haproxy")
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
    } else if let Some(server) = server.filter(|server| !server.is_programmed()) {
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
    fn a_load_balancer_ends_connections_to_its_servers_so_by_design() {
        let of = |name: &'static str, ends: [&str; 2]| {
            let case = twenty().sent(20, "TCP_STATE", Some(TcpState::Close), ends, Some(task(41, name)));
            case.finding(&ABORTIVE_CLOSE)
        };
        let to_server = of("haproxy", ["10.0.0.9:0", "127.0.0.1:8001"]);
        assert_eq!(to_server.severity, Severity::Info);
        assert!(to_server.summary.contains("by design"), "{}", to_server.summary);
        assert!(to_server.remedies.iter().all(|remedy| !remedy.text.contains("SO_LINGER")), "{:?}", to_server.remedies);
        let others = [of("app", ["10.0.0.9:0", "127.0.0.1:8001"]), of("haproxy", ["10.0.0.9:9000", "10.0.3.7:0"])];
        for finding in others {
            assert!(!finding.summary.contains("by design"), "{}", finding.summary);
        }
    }

    /// By counters HAProxy in front of a server on the same host: as many connections made as aborted.
    #[test]
    fn aborts_that_may_be_of_own_calls_accuse_nobody() {
        let busy = Case::new().counter("Tcp.OutRsts", 0, 138).counter("Tcp.PassiveOpens", 0, 236).counter(
            "TcpExt.TCPAbortOnData",
            0,
            138,
        );
        let served = busy.clone().counter("Tcp.ActiveOpens", 0, 0).finding(&ABORTIVE_CLOSE);
        assert!(served.severity == Severity::Warning && served.confidence >= 0.5, "{served:?}");
        let proxied = busy.counter("Tcp.ActiveOpens", 0, 139).finding(&ABORTIVE_CLOSE);
        assert!(proxied.severity >= Severity::Warning && proxied.confidence < 0.5, "{proxied:?}");
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
