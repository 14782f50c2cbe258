use super::numbers::conntrack_invalid as numbers;
use super::{EvidenceItem, Finding, Impact, Judgement, Remedy, Severity, State, Subject, Verdict, Verify};
use super::{place, severity, wording};
use crate::evidence::Evidence;
use crate::evidence::harm::Target;
use crate::evidence::strays::{SentOn, Untranslated};
use crate::value::shell::ShellCommand;
use crate::value::{TcpState, words};

cause! {
    /// ## What happens
    ///
    /// A host that translates addresses (NAT, container networks) takes a packet for INVALID, because it is outside the
    /// window that connection tracking expects. It does not translate it back. The packet then reaches a stack that does not
    /// know the connection, which answers with a RST: a healthy transfer dies.
    ///
    /// ## How it shows
    ///
    /// Large transfers through NAT are reset now and then, while the same over the host network works. On the node `invalid` in
    /// `conntrack -S` grows together with resets that nothing else explains. On the client RSTs leave for an address that no
    /// program called, from a local port of an open connection to the virtual address. On the server the client resets, and
    /// then goes on to send.
    ///
    /// ## How to confirm
    ///
    /// `sysctl -w net.netfilter.nf_conntrack_log_invalid=6` for a minute, and compare the addresses in the kernel log with
    /// the connections that died.
    ///
    /// ## What to change
    ///
    /// Drop INVALID packets before they reach a stack (the sender then repeats them), or set
    /// `net.netfilter.nf_conntrack_tcp_be_liberal=1`.
    ///
    /// ## Look-alikes
    ///
    /// Scans and late packets of closed connections are INVALID as well: `invalid` that grows alone is noise.
    CONNTRACK_INVALID {
        id: "conntrack-invalid",
        title: "Packets outside NAT state are reset",
        explains: ["stale-connection", "peer-reset", "retransmission-timeout"],
        needs: [Conntrack, Snmp, Sockets],
        judge: judge,
    }
}

fn judge(e: &Evidence<'_>) -> Judgement {
    let mut findings: Vec<_> = e
        .untranslated()
        .iter()
        .filter(|untranslated| untranslated.resets >= numbers::ENOUGH)
        .take(MOST_PLACES)
        .map(|untranslated| at_the_caller(e, untranslated))
        .collect();
    let by_their_tcp = |sent_on: &&SentOn| sent_on.answers >= numbers::ENOUGH && sent_on.answers * 2 >= sent_on.resets;
    findings.extend(e.sent_on().iter().filter(by_their_tcp).take(MOST_PLACES).map(|sent_on| at_the_server(e, sent_on)));
    match (at_the_node(e), findings.is_empty()) {
        (judgement, true) => judgement,
        (Ok(Verdict::Found(node)), false) => {
            findings.extend(node);
            Ok(Verdict::Found(findings))
        }
        _ => Ok(Verdict::Found(findings)),
    }
}

/// Places that are reported one by one.
const MOST_PLACES: usize = 3;
const UNIT: &str = "resets";

/// The virtual address is called, and answers come from the server behind it.
fn at_the_caller(e: &Evidence<'_>, untranslated: &Untranslated) -> Finding {
    let Untranslated { called, answered, resets } = untranslated;
    let summary = format!(
        "{} of connections to {called} came from {answered}, untranslated, and were reset in {}",
        words::counted(*resets, "answer"),
        words::seconds(e.window())
    );
    let harm = e.harm(Target::Called(*called), *resets, None);
    let finding = wording::active(e, severity::to_callers(e, &harm), numbers::AT_THE_CALLER, *resets, UNIT, summary)
        .subject(Subject::peer(called.ip(), Some(called.port())).counted(*resets))
        .subjects(place::callers(e, *called))
        .subject(Subject::peer(answered.ip(), Some(answered.port())))
        .evidence(EvidenceItem::value(
            "reset_events",
            "NO_SOCKET",
            *resets as f64,
            format!(
                "{} went to {answered} from local ports of connections to {called}: the node between took the answers \
                 for INVALID and did not translate them",
                words::counted(*resets, "RST")
            ),
        ));
    on_the_node(finding.harm(harm))
}

/// A client's own TCP reset the connection, and the client goes on to use it: it knows it under another address.
fn at_the_server(e: &Evidence<'_>, sent_on: &SentOn) -> Finding {
    let count = sent_on.resets;
    let by = match sent_on.peers.keys().next() {
        Some(one) if sent_on.peers.len() == 1 => one.to_string(),
        _ => words::counted(sent_on.peers.len() as u64, "peer"),
    };
    let summary = format!(
        "{} on port {} reset by {by}, which went on to send on them, in {}",
        words::counted(count, "connection"),
        sent_on.port,
        words::seconds(e.window())
    );
    let harm = e.harm(Target::Port(sent_on.port), count, None);
    let finding = wording::active(e, severity::to_clients(e, &harm), numbers::AT_THE_SERVER, count, UNIT, summary);
    let finding = match e.services().ok().and_then(|_| e.service_of_port(sent_on.port)) {
        Some(service) => finding.subject(Subject::listener(service).counted(count)),
        None => finding.subject(Subject { port: Some(sent_on.port), ..Subject::host() }),
    };
    let finding = finding
        .subjects(sent_on.peers.iter().take(3).map(|(peer, count)| Subject::peer(*peer, None).counted(*count)))
        .evidence(EvidenceItem::value(
            "reset_packets",
            "answers",
            sent_on.answers as f64,
            format!(
                "{} have the form of an answer to an unknown segment, and data came after them on the same connections: \
                 a node between passed an answer of this host on without translating its address",
                words::counted(sent_on.answers, "RST")
            ),
        ))
        .against(EvidenceItem::fact(
            "reset_packets",
            "answers",
            "a device on the path that resets in the client's name can build the same form",
        ));
    on_the_node(finding.harm(harm))
}

fn on_the_node(finding: Finding) -> Finding {
    finding
        .remedy(
            Remedy::new(
                "On the node that translates the address: drop INVALID packets before they are forwarded (they are repeated)",
                Verify::scan("shows no such reset, here and on the node"),
            )
            .command(ShellCommand::new("iptables -I FORWARD -m conntrack --ctstate INVALID -j DROP")),
        )
        .remedy(Remedy::sysctl(
            "Or, on the node: do not judge packets by the window",
            "net.netfilter.nf_conntrack_tcp_be_liberal",
            1,
            Verify::by(ShellCommand::new("conntrack -S"), "shows invalid= flat there"),
        ))
}

/// Invalid packets beside resets that nothing else explains, on the host that translates addresses.
fn at_the_node(e: &Evidence<'_>) -> Judgement {
    let invalid = e.conntrack_moved("invalid")?;
    if invalid == 0 {
        return Ok(Verdict::RuledOut("connection tracking saw no invalid packet".into()));
    }
    if e.sysctl_number("net.netfilter.nf_conntrack_tcp_be_liberal") == Ok(1) {
        return Ok(Verdict::RuledOut("nf_conntrack_tcp_be_liberal=1: the window makes no packet invalid".into()));
    }
    let sent = &e.ledger().sent;
    let Some(unexplained) = sent.unexplained() else {
        return Err(sent
            .total
            .clone()
            .err()
            .unwrap_or_else(|| crate::value::Missing::new("snmp", "no total of resets")));
    };
    // An answer that passes NAT untranslated is, to TCP, a segment of no connection: here, or at the client beyond.
    let passing = e.answers_passing_through();
    let unexplained = unexplained + sent.count_of("stale-connection") + passing;
    let both = invalid.min(unexplained);
    if both < numbers::ENOUGH {
        return Ok(Verdict::RuledOut(format!(
            "{} without resets that it would explain: noise",
            words::counted(invalid, "invalid packet")
        )));
    }
    let tracked = e.conntrack()?.count;
    let own: u64 =
        e.socket_dump()?.by_state.iter().filter(|(state, _)| **state != TcpState::Listen).map(|(_, n)| n).sum();
    // Nothing says directly that this host translates addresses. One that does tracks connections that are not its own.
    if passing == 0 && tracked <= own.saturating_mul(2) {
        return Ok(Verdict::RuledOut("connection tracking holds only this host's own connections: no NAT here".into()));
    }
    let matching = both * 2 >= invalid.max(unexplained)
        && both >= numbers::ENOUGH_TO_MATCH
        && (tracked >= numbers::ENOUGH_TRACKED || passing * 2 >= both);
    let confidence = if matching { numbers::MATCHING } else { numbers::UNRELATED };
    let summary = format!(
        "{} and {} without another explanation: NAT may lose track",
        words::counted(invalid, "invalid packet"),
        words::counted(unexplained, "reset")
    );
    let impact = Impact { events: both, per_s: e.rate(both), unit: "resets" };
    let finding = Finding::new(State::Active, Severity::Warning, confidence, impact, summary)
        .subject(Subject::host())
        .evidence(EvidenceItem {
            delta: Some(invalid as f64),
            per_s: Some(e.rate(invalid)),
            ..EvidenceItem::fact("conntrack", "invalid", format!("invalid +{}", words::thousands(invalid)))
        })
        .evidence(EvidenceItem::value(
            "ledger",
            "unexplained",
            unexplained as f64,
            format!("{} sent for no other known reason", words::counted(unexplained - passing, "reset")),
        ))
        .evidence_if((passing > 0).then(|| {
            let text = format!(
                "{} passed through that answer segments of a connection which their sender does not know",
                words::counted(passing, "RST")
            );
            EvidenceItem::value("reset_packets", "forwarded", passing as f64, text)
        }))
        .evidence(EvidenceItem::value(
            "conntrack",
            "nf_conntrack_count",
            tracked as f64,
            format!("{} tracked, {} of them this host's own at most", words::thousands(tracked), words::thousands(own)),
        ))
        .against(EvidenceItem::fact(
            "conntrack",
            "invalid",
            "scans and late packets are invalid too: the two numbers may be unrelated",
        ))
        .remedy(
            Remedy::new(
                "Log invalid packets for a minute, and compare with the connections that died",
                "dmesg names the same addresses and ports",
            )
            .command(
                ShellCommand::new("sysctl -w net.netfilter.nf_conntrack_log_invalid=6")
                    .then(ShellCommand::new("sleep 60"))
                    .then(ShellCommand::new("sysctl -w net.netfilter.nf_conntrack_log_invalid=0"))
                    .then(ShellCommand::new("dmesg").pipe(ShellCommand::new("tail -50"))),
            ),
        )
        .remedy(Remedy::sysctl(
            "If they match: do not judge packets by the window",
            "net.netfilter.nf_conntrack_tcp_be_liberal",
            1,
            Verify::by(ShellCommand::new("conntrack -S"), "shows invalid= flat, and the resets stay flat"),
        ));
    Ok(Verdict::Found(vec![finding]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::{Case, tracked};
    use crate::source::reset_events::Direction;
    use crate::source::socket_dump::SocketDump;
    use crate::value::Observed;

    fn case(count: u64, invalid: u64, sent: u64) -> Case {
        let socket_dump = SocketDump { by_state: [(TcpState::Established, 40)].into(), ..SocketDump::default() };
        Case::new()
            .counter("Tcp.OutRsts", 0, sent)
            .socket_dump(socket_dump.clone(), socket_dump)
            .conntrack(tracked(count, 9000, &[]), tracked(count, 9000, &[("invalid", invalid)]))
    }

    #[test]
    fn invalid_with_unexplained_resets_on_a_nat_host_is_a_hint() {
        let finding = case(3000, 40, 35).finding(&CONNTRACK_INVALID);
        assert_eq!(finding.state, State::Active);
        assert!(finding.confidence <= 0.6);
    }

    #[test]
    fn invalid_alone_is_noise() {
        assert!(matches!(case(3000, 40, 0).judge(&CONNTRACK_INVALID), Ok(Verdict::RuledOut(_))));
    }

    #[test]
    fn a_host_that_tracks_only_its_own_connections_does_not_translate() {
        assert!(matches!(case(45, 40, 35).judge(&CONNTRACK_INVALID), Ok(Verdict::RuledOut(_))));
    }

    #[test]
    fn without_statistics_nothing_is_claimed() {
        let mut table = tracked(3000, 9000, &[]);
        table.stat = None;
        let case = case(3000, 0, 35).conntrack(table.clone(), table);
        assert_eq!(case.judge(&CONNTRACK_INVALID).expect_err("no columns").source, "conntrack");
    }

    const SERVED: &str = "10.0.0.9:8080";
    const CLIENT: &str = "10.0.3.7:0";

    /// RSTs in answer to segments of no connection, each with its packet.
    fn stale(case: Case, local: &str, peer: &str) -> Case {
        case.sent(20, "NO_SOCKET", None, [local, peer], None).packets(20, Direction::Sent, 4, 64, [local, peer])
    }

    #[test]
    fn an_answer_in_anothers_name_is_told_by_the_port_of_the_connection() {
        let virtual_address = ["10.0.0.9:0", "10.96.0.1:80"];
        let case = stale(Case::new(), "10.0.0.9:0", "10.2.0.2:8080").destroyed_sockets(20, virtual_address, 0, 0);
        let finding = case.finding(&CONNTRACK_INVALID);
        assert_eq!((finding.subjects[0].port, finding.impact.events), (Some(80), 20));
        assert!(finding.summary.contains("10.96.0.1:80 came from 10.2.0.2:8080"), "{}", finding.summary);
        let same = ["10.0.0.9:0", "10.2.0.2:8080"];
        let case = stale(Case::new(), same[0], same[1]).destroyed_sockets(20, same, 0, 0);
        assert!(!matches!(case.judge(&CONNTRACK_INVALID), Ok(Verdict::Found(_))), "the rest of a connection to it");
    }

    #[test]
    fn a_client_that_resets_and_sends_on_did_not_mean_to() {
        let reset = |flags| {
            let ends = [SERVED, CLIENT];
            let case =
                Case::new().received(20, TcpState::Established, ends).packets(20, Direction::Received, flags, 64, ends);
            let mut case = stale(case, SERVED, CLIENT);
            let late = std::time::Duration::from_millis(200);
            if let (Observed::Full(events), Observed::Full(packets)) = (&mut case.events, &mut case.packets) {
                events.iter_mut().filter(|event| event.direction == Direction::Sent).for_each(|event| event.at += late);
                packets.iter_mut().filter(|packet| packet.direction == Direction::Sent).for_each(|p| p.at += late);
                // A socket that gives up its connection has a window, an answer has none.
                let received = packets.iter_mut().filter(|packet| packet.direction == Direction::Received);
                received.for_each(|packet| packet.window = if flags == 0x14 { 500 } else { 0 });
            }
            case.judge(&CONNTRACK_INVALID)
        };
        assert!(matches!(reset(4), Ok(Verdict::Found(_))));
        assert!(!matches!(reset(0x14), Ok(Verdict::Found(_))), "the program itself gave the connection up");
    }
}
