use std::collections::BTreeSet;

use super::harm;
use super::{EvidenceItem, Finding, Judgement, Remedy, Severity, Subject, Verdict};
use crate::attribution::Group;
use crate::attribution::wire::Wire;
use crate::evidence::{Evidence, Missing};
use crate::source::reset_events::Direction;
use crate::words;

cause! {
    /// ## What happens
    ///
    /// A firewall, proxy or filter between the two ends sends a RST in the name of one of them. Both read "Connection
    /// reset by peer" and neither sent it.
    ///
    /// ## How it shows
    ///
    /// The TTL of the RST differs by more than 2 from the earlier packets of the connection.
    ///
    /// ## How to confirm
    ///
    /// `rstdoctor trace --received` as root shows the TTL of each RST: compare it with `ttl` of the peer's other packets in
    /// `tcpdump -nvi any host PEER`. The `OutRsts` of the peer did not move.
    ///
    /// ## What to change
    ///
    /// Ask who runs the device for an exception, or raise its idle limit.
    ///
    /// ## Look-alikes
    ///
    /// Anycast and load balancers change the TTL for good reasons. SYN proxies answer in the server's name.
    MIDDLEBOX_RESET {
        id: "middlebox-reset",
        title: "Reset by a device on the path",
        explains: ["peer-reset"],
        judge: judge,
    }
}

fn judge(e: &Evidence<'_>) -> Judgement {
    harm::window(e)?;
    let wire = e.wire()?;
    if wire.received > 0 && wire.judged == 0 {
        return Err(Missing {
            source: "reset_packets",
            reason: "no other packet of the peers was seen, whose TTL could be compared".to_owned(),
            needs: Some("a longer window: rstdoctor scan --duration 30s".to_owned()),
        });
    }
    // By events only what ended a connection counts; a device may send several RSTs for one.
    let findings: Vec<_> = match e.resets_of(MIDDLEBOX_RESET.id, Direction::Received) {
        Ok(groups) => {
            let counted: Vec<_> = harm::places(&groups)
                .into_iter()
                .map(|place| finding(e, wire, place.count, place.subjects(e), &place.groups))
                .collect();
            counted
        }
        Err(_) if wire.forged.is_empty() => Vec::new(),
        Err(_) => vec![finding(e, wire, wire.forged.len() as u64, vec![Subject::host()], &[])],
    };
    let otherwise = match wire.received {
        0 => "no RST came from another host",
        _ => "the RSTs came with the same TTL as the peers' other packets",
    };
    Ok(Verdict::from_findings(findings, otherwise))
}

fn finding(e: &Evidence<'_>, wire: &Wire, count: u64, subjects: Vec<Subject>, groups: &[&Group]) -> Finding {
    let peers: BTreeSet<_> = groups.iter().filter_map(|group| group.peer).collect();
    let forged: Vec<_> =
        wire.forged.iter().filter(|forged| groups.is_empty() || peers.contains(&forged.peer.ip())).collect();
    let list = |values: BTreeSet<u8>| values.iter().take(4).map(u8::to_string).collect::<Vec<_>>().join(", ");
    let ttl = list(forged.iter().map(|forged| forged.ttl).collect());
    let usual = list(forged.iter().flat_map(|forged| forged.usual.iter().copied()).collect());
    let severity = if count >= harm::FEW { Severity::Warning } else { Severity::Info };
    let confidence = if count >= harm::FEW { 0.9 } else { 0.7 };
    let summary = format!(
        "{} reset in the peer's name by something on the path, in {}",
        words::counted(count, "connection"),
        words::seconds(e.window())
    );
    harm::active(e, severity, confidence, count, "resets", summary)
        .subjects(subjects)
        .evidence(EvidenceItem::value(
            "reset_packets",
            "ttl",
            forged.len() as f64,
            format!("the RSTs arrived with TTL {ttl}, the other packets of these peers with {usual}"),
        ))
        .against(EvidenceItem::fact(
            "reset_packets",
            "ttl",
            "load balancers and several hosts behind one address can differ for good reasons",
        ))
        .remedy(
            Remedy::new(
                "Find the device: firewall, proxy or intrusion prevention between the two; ask for an exception",
                "the peer's own OutRsts does not move while RSTs arrive here",
            )
            .command("tcpdump -nvi any 'tcp[tcpflags] & tcp-rst != 0'    # compare ttl; traceroute shows the hop"),
        )
}

#[cfg(test)]
mod tests {
    use super::super::peer_reset::PEER_RESET;
    use super::super::testing::Case;
    use super::*;
    use crate::source::tcp_state::TcpState;

    const ENDS: [&str; 2] = ["10.0.0.9:8080", "10.0.3.7:0"];

    fn reset(ttl: u8) -> Case {
        Case::new()
            .counter("Tcp.EstabResets", 0, 20)
            .received(20, TcpState::Established, ENDS)
            .seen_ttl("10.0.3.7", 61)
            .packets(20, Direction::Received, 4, ttl, ENDS)
    }

    #[test]
    fn a_reset_from_another_distance_is_not_the_peers() {
        let finding = reset(40).finding(&MIDDLEBOX_RESET);
        assert_eq!((finding.severity, finding.impact.events), (Severity::Warning, 20));
        assert!(finding.evidence[0].text.contains("TTL 40") && finding.evidence[0].text.contains("61"), "{finding:?}");
        assert!(reset(40).is_ruled_out(&PEER_RESET));
    }

    #[test]
    fn a_reset_that_took_the_peers_way_is_the_peers() {
        assert!(reset(62).is_ruled_out(&MIDDLEBOX_RESET));
        assert_eq!(reset(62).finding(&PEER_RESET).impact.events, 20);
    }

    #[test]
    fn without_events_the_packets_still_tell() {
        let case = Case::new().seen_ttl("10.0.3.7", 61).packets(20, Direction::Received, 4, 40, ENDS);
        assert_eq!(case.finding(&MIDDLEBOX_RESET).impact.events, 20);
    }

    #[test]
    fn nothing_to_compare_with_is_no_acquittal() {
        let case = Case::new().packets(20, Direction::Received, 4, 40, ENDS);
        assert_eq!(case.missing(&MIDDLEBOX_RESET), Some("reset_packets"));
    }

    #[test]
    fn without_packets_nothing_is_claimed() {
        let case = Case::new().counter("Tcp.OutRsts", 0, 20).tracepoints();
        assert_eq!(case.missing(&MIDDLEBOX_RESET), Some("reset_packets"));
    }
}
