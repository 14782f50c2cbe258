use super::numbers::keepalive_timeout as numbers;
use super::place::{self, Place};
use super::{EvidenceItem, Finding, Judgement, Remedy, Severity, Subject, Verdict, Verify};
use super::{severity, wording};
use crate::evidence::Evidence;
use crate::source::reset_events::Direction;
use crate::value::shell::ShellCommand;
use crate::value::words;

cause! {
    /// ## What happens
    ///
    /// A peer vanished (power, network, firewall state) while the connection was idle. Keepalive probes went unanswered,
    /// so the kernel gave up: it reset the connection and told the application "Connection timed out".
    ///
    /// ## How it shows
    ///
    /// `TcpExt.TCPAbortOnTimeout`, `TcpExt.TCPKeepAlive` and `Tcp.OutRsts` grow together (net/ipv4/tcp_timer.c). The
    /// tracepoint tcp:tcp_send_reset gives TCP_KEEPALIVE_TIMEOUT.
    ///
    /// ## How to confirm
    ///
    /// `ss -tno` shows `timer:(keepalive,...,N)` with N above 0: probes without an answer.
    ///
    /// ## What to change
    ///
    /// Nothing here if single peers vanish: that is what keepalive is for. If one peer or path takes many along, look
    /// there: host down, or a firewall that forgot the connections (probe more often than its idle limit).
    ///
    /// ## Look-alikes
    ///
    /// Retransmission that gives up counts in TCPAbortOnTimeout as well, and sends no RST (retransmission-timeout).
    KEEPALIVE_TIMEOUT {
        id: "keepalive-timeout",
        title: "Keepalive gave up on a vanished peer",
        explains: [],
        needs: [Window, Netstat, Snmp],
        judge: judge,
    }
}

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    if let Ok(groups) = e.resets_of(KEEPALIVE_TIMEOUT.id, Direction::Sent) {
        let findings: Vec<_> = place::places(e, &groups).into_iter().map(|place| by_events(e, place)).collect();
        return Ok(Verdict::from_findings(findings, "keepalive gave up on no connection"));
    }
    let reading = e.counter("TcpExt.TCPAbortOnTimeout")?;
    let probes = e.counter("TcpExt.TCPKeepAlive")?;
    let counted = e.estimate()?;
    if counted.keepalive == 0 {
        return Ok(match (reading.delta, probes.delta) {
            (0, _) => wording::still(&reading),
            (_, 0) => wording::still(&probes),
            _ => Verdict::RuledOut("the timers that gave up sent no RST, so they were not keepalive".into()),
        });
    }
    // Both timers may have given up; the retransmission timer leaves TCPTimeouts behind, and no RST.
    let mixed = e.moved("TcpExt.TCPTimeouts") > 0 || counted.keepalive < reading.delta;
    let confidence = if mixed { numbers::MIXED } else { numbers::COUNTED };
    let finding =
        wording::active(e, Severity::Info, confidence, counted.keepalive, "resets", summary(e, "", counted.keepalive))
            .subject(Subject::host())
            .evidence(wording::moved(&reading, "timers that gave up on a connection"))
            .evidence_if((probes.delta > 0).then(|| wording::moved(&probes, "keepalive probes sent")))
            .against(EvidenceItem::fact(
                "netstat",
                "TcpExt.TCPAbortOnTimeout",
                "retransmission that gives up moves the same counter; the RSTs may have another reason",
            ));
    Ok(Verdict::Found(vec![with_remedies(finding)]))
}

fn summary(e: &Evidence<'_>, from: &str, count: u64) -> String {
    format!(
        "keepalive gave up on {}{from} in {}: the peers vanished",
        words::counted(count, "connection"),
        words::seconds(e.window())
    )
}

fn by_events(e: &Evidence<'_>, place: Place<'_>) -> Finding {
    let peers = place.peers();
    // Single peers vanish on every healthy host. Many connections to one peer at once are a dead peer or path.
    let severity = match peers.as_slice() {
        [(_, severity::FEW..)] => Severity::Warning,
        _ => Severity::Info,
    };
    let from = match peers.as_slice() {
        [(peer, _)] => format!(" with {peer}"),
        peers => format!(" with {}", words::counted(peers.len() as u64, "peer")),
    };
    let finding = wording::doubted(
        &place,
        wording::active(e, severity, numbers::NAMED, place.count, "resets", summary(e, &from, place.count)),
    )
    .subjects(place.subjects(e))
    .evidence(place.item("TCP_KEEPALIVE_TIMEOUT", "unanswered keepalive probes"));
    with_remedies(finding)
}

fn with_remedies(finding: Finding) -> Finding {
    finding
        .remedy(
            Remedy::new(
                "Look at the peer or the path: is the host up, did a firewall forget the connection?",
                "the peer answers",
            )
            .command(ShellCommand::new("ss -tno state established").pipe(ShellCommand::new("grep keepalive"))),
        )
        .remedy(Remedy::sysctl(
            "If a device on the path forgets idle connections: probe before it does (sockets with SO_KEEPALIVE only)",
            "net.ipv4.tcp_keepalive_time",
            120,
            Verify::flat("TcpExtTCPAbortOnTimeout"),
        ))
}

#[cfg(test)]
mod tests {
    use super::super::retransmission_timeout::RETRANSMISSION_TIMEOUT;
    use super::*;
    use crate::observation::testing::Case;
    use crate::value::TcpState;

    fn timers(resets: u64, probes: u64) -> Case {
        Case::new().counter("Tcp.OutRsts", 0, resets).counter("TcpExt.TCPAbortOnTimeout", 0, 5).counter(
            "TcpExt.TCPKeepAlive",
            0,
            probes,
        )
    }

    #[test]
    fn counters_that_move_together_are_keepalive() {
        let case = timers(5, 10);
        assert_eq!(case.finding(&KEEPALIVE_TIMEOUT).impact.events, 5);
        assert!(case.is_ruled_out(&RETRANSMISSION_TIMEOUT));
    }

    #[test]
    fn the_last_probe_may_be_from_before_the_window() {
        let case = timers(5, 0).counter("TcpExt.TCPTimeouts", 0, 0);
        assert_eq!(case.finding(&KEEPALIVE_TIMEOUT).impact.events, 5);
        assert!(case.is_ruled_out(&RETRANSMISSION_TIMEOUT));
        let retransmission = timers(5, 0).counter("TcpExt.TCPTimeouts", 0, 5);
        assert!(retransmission.is_ruled_out(&KEEPALIVE_TIMEOUT));
        let confidence = retransmission.finding(&RETRANSMISSION_TIMEOUT).confidence;
        assert!(confidence <= 0.6, "five RSTs that nothing explains: {confidence}");
    }

    /// The kernel wrote no record of them, while another namespace with our addresses was busy.
    #[test]
    fn events_that_lack_most_of_what_was_sent_rule_out_nothing() {
        let events = |lost| {
            let state = Some(TcpState::Listen);
            let mut case = timers(6, 10).sent(1, "NO_SOCKET", state, ["10.0.0.9:81", "10.0.7.1:5432"], None);
            if let crate::value::Observed::Full(events) = &mut case.host.reset_events {
                (events.lost, events.lost_sent) = (lost, lost);
            }
            case
        };
        assert_eq!(events(5).finding(&KEEPALIVE_TIMEOUT).impact.events, 5);
        assert!(!matches!(events(5).judge(&RETRANSMISSION_TIMEOUT), Ok(Verdict::Found(_))));
        let state = Some(TcpState::Listen);
        let whole = timers(6, 10).sent(6, "NO_SOCKET", state, ["10.0.0.9:81", "10.0.7.1:5432"], None);
        assert!(whole.is_ruled_out(&KEEPALIVE_TIMEOUT), "with all records they would be seen");
    }

    #[test]
    fn one_dead_peer_with_many_connections_is_a_warning() {
        let state = Some(TcpState::Established);
        let case = timers(5, 10).sent(5, "TCP_KEEPALIVE_TIMEOUT", state, ["10.0.0.9:0", "10.0.7.1:5432"], None);
        assert_eq!(case.finding(&KEEPALIVE_TIMEOUT).severity, Severity::Warning);
    }

    #[test]
    fn timers_without_rst_are_retransmission() {
        let case = timers(0, 10);
        assert!(case.is_ruled_out(&KEEPALIVE_TIMEOUT));
        assert_eq!(case.finding(&RETRANSMISSION_TIMEOUT).impact.events, 5);
    }

    #[test]
    fn without_the_counter_nothing_is_claimed() {
        assert_eq!(Case::new().missing(&KEEPALIVE_TIMEOUT), Some("netstat"));
    }
}
