use super::numbers::conntrack_invalid as numbers;
use super::{EvidenceItem, Finding, Impact, Judgement, Remedy, Severity, State, Subject, Verdict, Verify};
use crate::evidence::Evidence;
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
    /// Large transfers through NAT are reset now and then, while the same over the host network works. `invalid` in
    /// `conntrack -S` grows together with resets that nothing else explains.
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
        explains: ["stale-connection"],
        needs: [Conntrack, Snmp, Sockets],
        judge: judge,
    }
}

fn judge(e: &Evidence<'_>) -> Judgement {
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
    // An answer that passes NAT untranslated is, to TCP, a segment of no connection.
    let unexplained = unexplained + sent.count_of("stale-connection");
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
    if tracked <= own.saturating_mul(2) {
        return Ok(Verdict::RuledOut("connection tracking holds only this host's own connections: no NAT here".into()));
    }
    let matching =
        both * 2 >= invalid.max(unexplained) && both >= numbers::ENOUGH_TO_MATCH && tracked >= numbers::ENOUGH_TRACKED;
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
            format!("{} sent for no other known reason", words::counted(unexplained, "reset")),
        ))
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
    use crate::source::socket_dump::SocketDump;

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
}
