use super::numbers::firewall_reject as numbers;
use super::{EvidenceItem, Finding, Judgement, Remedy, Severity, Subject, Verdict};
use super::{severity, wording};
use crate::attribution::wire::{Hook, Rejected};
use crate::evidence::Evidence;
use crate::evidence::service::Service;
use crate::value::shell::ShellCommand;
use crate::value::words;

cause! {
    /// ## What happens
    ///
    /// A netfilter rule on this host answers with a RST (`reject with tcp reset`). Clients read "Connection refused", or
    /// "Connection reset by peer" in an open connection.
    ///
    /// ## How it shows
    ///
    /// RSTs leave the host and `Tcp.OutRsts` does not move: netfilter builds them itself.
    ///
    /// ## How to confirm
    ///
    /// `nft list ruleset | grep -B2 'reject with tcp reset'`; with `counter` in the rule, the counter grows.
    /// `rstdoctor trace --sent` as root shows each with the address that was rejected.
    ///
    /// ## What to change
    ///
    /// Accept the port before the rule, or leave the rule if it is meant.
    ///
    /// ## Look-alikes
    ///
    /// Nothing listens on the port (port-without-listener): then OutRsts moves. A firewall on another host.
    FIREWALL_REJECT {
        id: "firewall-reject",
        title: "Rejected by the firewall",
        explains: ["handshake-reset", "upstream-refused", "peer-reset"],
        needs: [Window, ResetPackets],
        judge: judge,
    }
}

const UNIT: &str = "rejected segments";

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    let wire = e.wire()?;
    let (served, other): (Vec<_>, Vec<_>) = wire.rejected.iter().partition(|rejected| hurts(e, rejected));
    let mut findings: Vec<_> = served.into_iter().take(5).map(|rejected| at_a_place(e, rejected)).collect();
    findings.extend(elsewhere(e, &other));
    if wire.rejected_unnamed > 0 {
        findings.push(unnamed(e, wire.rejected_unnamed));
    }
    let otherwise = if wire.incomplete {
        "of the RSTs that were seen leaving this host, TCP sent all"
    } else {
        "every RST that left this host was sent by TCP"
    };
    Ok(Verdict::from_findings(findings, otherwise))
}

/// Somebody listens there, or this host itself wanted something: a rule that is meant to close a port hits neither.
fn hurts(e: &Evidence<'_>, rejected: &Rejected) -> bool {
    rejected.called.is_some() || listener(e, rejected).is_some()
}

/// Who listens on the port, where listeners could be seen.
fn listener<'e, 'a>(e: &'e Evidence<'a>, rejected: &Rejected) -> Option<&'e Service<'a>> {
    e.services().ok().and_then(|_| e.service_of_port(rejected.port?))
}

fn at_a_place(e: &Evidence<'_>, rejected: &Rejected) -> Finding {
    let service = listener(e, rejected);
    let (what, chain, filter) = match (rejected.hook, rejected.called, rejected.port) {
        (Hook::Input, Some(called), _) => (format!("answers of {called}"), "input", format!("sport {}", called.port())),
        (Hook::Output, Some(called), _) => {
            (format!("connects to {called}"), "output", format!("dport {}", called.port()))
        }
        (Hook::Input, None, port) => {
            (format!("segments to port {}", number(port)), "input", format!("dport {}", number(port)))
        }
        (Hook::Output, None, port) => {
            (format!("answers of port {}", number(port)), "output", format!("sport {}", number(port)))
        }
    };
    let count = rejected.count;
    let severity = severity::refusals(e, count);
    let summary = format!(
        "{} {what} rejected with RST by this host's firewall in {}",
        words::thousands(count),
        words::seconds(e.window())
    );
    let mut finding = wording::active(e, severity, numbers::AT_A_PLACE, count, UNIT, summary);
    match (service, rejected.called) {
        (Some(service), _) => finding = finding.subject(Subject::listener(service).counted(count)),
        (None, Some(called)) => {
            finding = finding.subject(Subject::peer(called.ip(), Some(called.port())).counted(count))
        }
        (None, None) => {}
    }
    let mut peers: Vec<_> = rejected.peers.iter().collect();
    peers.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let peers = peers.into_iter().take(3).map(|(peer, count)| Subject::peer(*peer, None).counted(*count));
    let finding = finding.subjects(peers).evidence(EvidenceItem::value(
        "reset_packets",
        "packets",
        count as f64,
        match rejected.hook {
            Hook::Input => format!("{} left this host that its TCP did not send", words::counted(count, "RST")),
            Hook::Output => format!(
                "{} came back on the loopback interface in the name of another host",
                words::counted(count, "RST")
            ),
        },
    ));
    with_remedies(flat(e, finding), chain, &filter)
}

fn number(port: Option<u16>) -> String {
    port.map_or_else(|| "?".to_owned(), |port| port.to_string())
}

/// Ports on which nothing listens: the rule does what a closed port does anyway.
fn elsewhere(e: &Evidence<'_>, rejected: &[&Rejected]) -> Option<Finding> {
    let count = rejected.iter().map(|rejected| rejected.count).sum::<u64>();
    let ports: std::collections::BTreeSet<_> = rejected.iter().filter_map(|rejected| rejected.port).collect();
    let first = rejected.first()?;
    let which =
        if ports.len() == 1 { format!("port {}", number(first.port)) } else { format!("{} ports", ports.len()) };
    let summary = format!(
        "{} to {which} without a service rejected with RST by this host's firewall in {}",
        words::counted(count, "segment"),
        words::seconds(e.window())
    );
    let subject = Subject { address: Some(first.local), port: first.port, ..Subject::host().counted(count) };
    let finding =
        wording::benign(e, numbers::ELSEWHERE, count, UNIT, summary).subject(subject).evidence(EvidenceItem::value(
            "reset_packets",
            "packets",
            count as f64,
            format!("{} left this host that its TCP did not send", words::counted(count, "RST")),
        ));
    Some(with_remedies(finding, "input", &format!("dport {}", number(first.port))))
}

/// TCP sent RSTs as well, and without events they cannot be told apart.
fn unnamed(e: &Evidence<'_>, count: u64) -> Finding {
    let summary =
        format!("{} sent by this host's firewall in {}", words::counted(count, "RST"), words::seconds(e.window()));
    let text = "more RSTs left this host than its TCP sent";
    let finding = wording::active(e, Severity::Info, numbers::COUNTED, count, UNIT, summary)
        .subject(Subject::host())
        .evidence(EvidenceItem::value("reset_packets", "packets", count as f64, text))
        .against(EvidenceItem::fact("reset_events", "reason", "without reset events the ports are not known"));
    with_remedies(finding, "input", "dport")
}

fn flat(e: &Evidence<'_>, finding: Finding) -> Finding {
    match e.counter("Tcp.OutRsts") {
        Ok(reading) if reading.delta == 0 => finding.evidence(wording::moved(&reading, "TCP itself sent none")),
        _ => finding,
    }
}

fn with_remedies(finding: Finding, chain: &str, filter: &str) -> Finding {
    finding
        .remedy(
            Remedy::new(
                format!("Find the rule in the {chain} chain; accept the connection before it, if it is meant to work"),
                "rstdoctor scan shows no rejected segments",
            )
            .command(
                ShellCommand::new("nft list ruleset")
                    .pipe(ShellCommand::new("grep -n reject"))
                    .then(ShellCommand::new("iptables-save -c").quiet().pipe(ShellCommand::new("grep REJECT"))),
            ),
        )
        .remedy(
            Remedy::new("Where rules have counters, see which one grows", "the counter of one rule grows").command(
                ShellCommand::new("nft list chain inet filter")
                    .arg(chain)
                    .pipe(ShellCommand::new("grep -E").arg(format_args!("counter|{filter}"))),
            ),
        )
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use crate::observation::testing::{Case, process};
    use crate::source::reset_events::Direction;

    const RST: u8 = 4;

    fn case() -> Case {
        Case::new().counter("Tcp.OutRsts", 0, 0).tracepoints().listener("0.0.0.0:8080", 128, 0, 0, &process(1, "web"))
    }

    #[test]
    fn resets_on_the_wire_that_tcp_did_not_send_are_the_firewalls() {
        let finding =
            case().packets(40, Direction::Sent, RST, 64, ["10.0.0.9:8080", "10.0.3.7:0"]).finding(&FIREWALL_REJECT);
        assert_eq!((finding.severity, finding.impact.events), (Severity::Warning, 40));
        assert_eq!(finding.subjects[0].port, Some(8080));
    }

    #[test]
    fn a_rule_on_a_port_that_nobody_serves_is_as_intended() {
        let finding =
            case().packets(40, Direction::Sent, RST, 64, ["10.0.0.9:23", "10.0.3.7:0"]).finding(&FIREWALL_REJECT);
        assert_eq!(finding.state, State::Benign);
    }

    #[test]
    fn what_tcp_sent_and_what_containers_sent_is_not_this() {
        let own = case()
            .counter("Tcp.OutRsts", 0, 40)
            .sent(40, "NO_SOCKET", None, ["10.0.0.9:9200", "10.0.3.7:0"], None)
            .packets(40, Direction::Sent, RST, 64, ["10.0.0.9:9200", "10.0.3.7:0"]);
        assert!(own.is_ruled_out(&FIREWALL_REJECT));
        let routed = case().packets(40, Direction::Sent, RST, 63, ["10.0.0.9:8080", "10.0.3.7:0"]);
        assert!(routed.is_ruled_out(&FIREWALL_REJECT));
    }

    #[test]
    fn without_events_only_the_number_is_known_when_tcp_sends_too() {
        let mixed = Case::new().counter("Tcp.OutRsts", 0, 10).packets(
            30,
            Direction::Sent,
            RST,
            64,
            ["10.0.0.9:8080", "10.0.3.7:0"],
        );
        let finding = mixed.finding(&FIREWALL_REJECT);
        assert_eq!((finding.impact.events, finding.severity), (20, Severity::Info));
    }

    #[test]
    fn without_packets_nothing_is_claimed() {
        let case = Case::new().counter("Tcp.OutRsts", 0, 20).tracepoints();
        assert_eq!(case.missing(&FIREWALL_REJECT), Some("reset_packets"));
    }
}
