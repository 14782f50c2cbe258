use std::collections::BTreeSet;

use super::numbers::middlebox_reset as numbers;
use super::{EvidenceItem, Finding, Judgement, Remedy, Severity, Subject, Verdict};
use super::{place, severity, wording};
use crate::attribution::Group;
use crate::attribution::wire::{Suspect, Wire};
use crate::evidence::Evidence;
use crate::evidence::across::Across;
use crate::source::reset_events::Direction;
use crate::value::shell::ShellCommand;
use crate::value::{Missing, words};

cause! {
    /// ## What happens
    ///
    /// A firewall, proxy or filter between the two ends sends a RST in the name of one of them. Both read "Connection
    /// reset by peer" and neither sent it.
    ///
    /// ## How it shows
    ///
    /// The TTL of the RST differs by more than 2 from the earlier packets of the connection. A hint, but no proof: the TTL is
    /// the same, and the IP id of the RST is far from those of its connection, which the peer counts up packet by packet
    /// (Linux does; its answers to unknown segments have id 0, which is no sign of anything). Several RSTs in a row, each
    /// farther on in sequence, or data of the peer after its own RST: no peer does that.
    ///
    /// ## How to confirm
    ///
    /// `rstdoctor trace --received` as root shows the TTL of each RST (with `--json` its IP id too): compare them with `ttl`
    /// and `id` of the peer's other packets in `tcpdump -nvi any host PEER`. The `OutRsts` of the peer did not move.
    ///
    /// ## What to change
    ///
    /// Ask who runs the device for an exception, or raise its idle limit.
    ///
    /// ## Look-alikes
    ///
    /// Anycast and load balancers change the TTL for good reasons, and build their RSTs with ids of their own. SYN proxies
    /// answer in the server's name.
    MIDDLEBOX_RESET {
        id: "middlebox-reset",
        title: "Reset by a device on the path",
        explains: ["peer-reset"],
        needs: [Window, ResetPackets],
        judge: judge,
    }
}

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    if let Some(proven) = e.across().and_then(|across| never_sent(e, across)) {
        return Ok(Verdict::Found(vec![proven]));
    }
    let wire = e.wire()?;
    if wire.received > 0 && wire.judged == 0 && wire.suspects.is_empty() {
        return Err(Missing {
            source: "reset_packets",
            reason: "no other packet of the peers was seen, whose TTL could be compared".to_owned(),
            needs: Some("a longer window: rstdoctor scan --duration 30s".to_owned()),
        });
    }
    // By events only what ended a connection counts; a device may send several RSTs for one.
    let mut findings: Vec<_> = match e.resets_of(MIDDLEBOX_RESET.id, Direction::Received) {
        Ok(groups) => {
            let counted: Vec<_> = place::places(e, &groups)
                .into_iter()
                .map(|place| finding(e, wire, place.count, place.subjects(e), &place.groups))
                .collect();
            counted
        }
        Err(_) if wire.forged.is_empty() => Vec::new(),
        Err(_) => vec![finding(e, wire, wire.forged.len() as u64, vec![Subject::host()], &[])],
    };
    findings.extend(by_ip_id(e, &wire.suspects));
    findings.extend(by_behaviour(e, wire));
    let otherwise = match wire.received {
        0 => "no RST came from another host",
        _ => "the RSTs came with the TTL of the peers' other packets, and no IP id speaks against them",
    };
    Ok(Verdict::from_findings(findings, otherwise))
}

/// The other end's own capture does not have them.
fn never_sent(e: &Evidence<'_>, across: &Across) -> Option<Finding> {
    let (&(local, peer), count) = (across.forged.first()?, across.forged.len() as u64);
    let severity = if count >= severity::FEW { Severity::Warning } else { Severity::Info };
    let confidence = if across.is_proof() { numbers::NEVER_SENT } else { numbers::NEVER_SENT_PERHAPS };
    let summary = format!(
        "{} reset in the peer's name by something between the two ends, in {}",
        words::counted(count, "connection"),
        words::seconds(e.window())
    );
    let peers: BTreeSet<_> = across.forged.iter().map(|(_, peer)| peer.ip()).collect();
    let finding = wording::active(e, severity, confidence, count, "resets", summary)
        .subjects(peers.iter().take(3).map(|peer| Subject::peer(*peer, None)))
        .evidence(EvidenceItem::value(
            "capture",
            "never_sent",
            across.never_sent as f64,
            format!("the capture of the other end has these connections, and these RSTs never left it (one: {peer} > {local})"),
        ));
    let doubt = match (across.lossy, across.offset_ns) {
        (true, _) => Some(("lossy", "that capture lacks other packets, too: it may have lost these RSTs")),
        (false, None) => Some(("clock", "no RST is in both, so the two clocks are taken as the same")),
        (false, Some(_)) => None,
    };
    Some(with_remedies(finding.against_if(doubt.map(|(what, text)| EvidenceItem::fact("capture", what, text)))))
}

/// The TTL does not tell, and the ids do not fit: weak, because devices near the peer renumber too.
fn by_ip_id(e: &Evidence<'_>, suspects: &[Suspect]) -> Option<Finding> {
    let first = suspects.first()?;
    let count = suspects.len() as u64;
    let (severity, confidence) = match count {
        severity::FEW.. => (Severity::Warning, numbers::OTHER_ID),
        2.. => (Severity::Info, numbers::OTHER_ID_RARE),
        _ => (Severity::Info, numbers::OTHER_ID_ONCE),
    };
    let ports: BTreeSet<_> = suspects.iter().filter_map(|suspect| suspect.port).collect();
    let services = e.services().unwrap_or_default();
    let mut subjects: Vec<_> =
        services.iter().filter(|service| ports.contains(&service.port)).map(Subject::listener).collect();
    let called: BTreeSet<_> = suspects.iter().filter(|suspect| suspect.port.is_none()).map(|s| s.peer).collect();
    subjects.extend(called.iter().map(|called| Subject::peer(called.ip(), Some(called.port()))));
    let clients: BTreeSet<_> = suspects.iter().filter(|suspect| suspect.port.is_some()).map(|s| s.peer.ip()).collect();
    subjects.extend(clients.iter().take(3).map(|client| Subject::peer(*client, None)));
    let summary = format!(
        "{} reset in the peer's name, perhaps by something on the path, in {}",
        words::counted(count, "connection"),
        words::seconds(e.window())
    );
    let example = format!("{} after {}", first.ip_id, first.last);
    let finding = wording::active(e, severity, confidence, count, "resets", summary)
        .subjects(subjects)
        .evidence(EvidenceItem::value(
            "reset_packets",
            "ip_id",
            count as f64,
            format!("the IP ids of these connections count up, and their RSTs do not continue them (one: {example})"),
        ))
        .against(EvidenceItem::fact(
            "reset_packets",
            "ttl",
            "their TTL does not tell; a load balancer at the peer's side builds its RSTs with ids of its own too",
        ));
    Some(with_remedies(finding))
}

/// RSTs that no peer's TCP sends like that: several in a row, or followed by data of the connection that they end.
fn by_behaviour(e: &Evidence<'_>, wire: &Wire) -> Option<Finding> {
    let rows = wire.repeated.len() as u64;
    let sent_on = e.sent_on();
    // Answers to unknown segments are of the peer's own TCP, which knows the connection under another address.
    let sent_on: Vec<_> = sent_on.iter().filter(|sent_on| sent_on.answers * 2 < sent_on.resets).collect();
    let after: u64 = sent_on.iter().map(|sent_on| sent_on.resets).sum();
    let count = rows.max(after);
    let (severity, confidence) = match count {
        0 => return None,
        severity::FEW.. => (Severity::Warning, numbers::BEHAVIOUR),
        _ => (Severity::Info, numbers::OTHER_ID_ONCE),
    };
    let ports: BTreeSet<u16> = wire
        .repeated
        .iter()
        .filter_map(|repeated| repeated.port)
        .chain(sent_on.iter().map(|sent_on| sent_on.port))
        .collect();
    let services = e.services().unwrap_or_default();
    let served = services.iter().filter(|service| ports.contains(&service.port)).map(Subject::listener);
    let called: BTreeSet<_> =
        wire.repeated.iter().filter(|repeated| repeated.port.is_none()).map(|repeated| repeated.peer).collect();
    let summary = format!(
        "{} reset by something on the path, as no peer does it, in {}",
        words::counted(count, "connection"),
        words::seconds(e.window())
    );
    let finding = wording::active(e, severity, confidence, count, "resets", summary)
        .subjects(served)
        .subjects(called.iter().map(|called| Subject::peer(called.ip(), Some(called.port()))))
        .evidence_if((rows > 0).then(|| {
            let text = format!(
                "{} reset several times within 0.2 s, farther on in sequence each time: TCP resets a connection once",
                words::counted(rows, "connection")
            );
            EvidenceItem::value("reset_packets", "seq", rows as f64, text)
        }))
        .evidence_if((after > 0).then(|| {
            let text = format!("data of the peer came after its own RST on {}", words::counted(after, "connection"));
            EvidenceItem::value("reset_packets", "sent_on", after as f64, text)
        }))
        .against(EvidenceItem::fact(
            "reset_packets",
            "order",
            "packets that overtake each other on the path can look like this too",
        ));
    Some(with_remedies(finding))
}

fn finding(e: &Evidence<'_>, wire: &Wire, count: u64, subjects: Vec<Subject>, groups: &[&Group]) -> Finding {
    let peers: BTreeSet<_> = groups.iter().filter_map(|group| group.peer).collect();
    let forged: Vec<_> =
        wire.forged.iter().filter(|forged| groups.is_empty() || peers.contains(&forged.peer.ip())).collect();
    let list = |values: BTreeSet<u8>| values.iter().take(4).map(u8::to_string).collect::<Vec<_>>().join(", ");
    let ttl = list(forged.iter().map(|forged| forged.ttl).collect());
    let usual = list(forged.iter().flat_map(|forged| forged.usual.iter().copied()).collect());
    let severity = if count >= severity::FEW { Severity::Warning } else { Severity::Info };
    let confidence = if count >= severity::FEW { numbers::OTHER_TTL } else { numbers::OTHER_TTL_RARE };
    let summary = format!(
        "{} reset in the peer's name by something on the path, in {}",
        words::counted(count, "connection"),
        words::seconds(e.window())
    );
    let finding = wording::active(e, severity, confidence, count, "resets", summary)
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
        ));
    with_remedies(finding)
}

fn with_remedies(finding: Finding) -> Finding {
    finding.remedy(
        Remedy::new(
            "Find the device: firewall, proxy or intrusion prevention between the two (ttl and id tell it from the peer, traceroute shows the hop); ask for an exception",
            "the peer's own OutRsts does not move while RSTs arrive here",
        )
        .command(ShellCommand::new("tcpdump -nvi any").arg("tcp[tcpflags] & tcp-rst != 0")),
    )
}

#[cfg(test)]
mod tests {
    use super::super::peer_reset::PEER_RESET;
    use super::*;
    use crate::observation::testing::Case;
    use crate::value::TcpState;

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
    fn an_id_that_does_not_fit_is_a_hint_at_the_same_ttl_and_no_certainty() {
        let case = reset(61).ip_ids(40_000, 61, false);
        let finding = case.finding(&MIDDLEBOX_RESET);
        assert_eq!((finding.severity, finding.confidence, finding.impact.events), (Severity::Warning, 0.6, 20));
        assert!(finding.evidence[0].text.contains("40000 after 61"), "{finding:?}");
        let peer = case.finding(&PEER_RESET);
        assert!(peer.confidence < finding.confidence, "it may still be the peer");
    }

    #[test]
    fn a_single_odd_id_is_no_warning() {
        let finding = Case::new()
            .received(1, TcpState::Established, ENDS)
            .seen_ttl("10.0.3.7", 61)
            .packets(1, Direction::Received, 4, 61, ENDS)
            .ip_ids(40_000, 61, false)
            .finding(&MIDDLEBOX_RESET);
        assert!(finding.severity == Severity::Info && finding.confidence < 0.5, "{finding:?}");
    }

    #[test]
    fn a_reset_whose_id_fits_is_the_peers_and_so_is_one_that_ended_nothing() {
        let case = reset(61).ip_ids(0, 61, true);
        assert!(case.is_ruled_out(&MIDDLEBOX_RESET));
        assert!(case.finding(&PEER_RESET).confidence > 0.9);
        let ignored = Case::new()
            .tracepoints()
            .seen_ttl("10.0.3.7", 61)
            .packets(20, Direction::Received, 4, 61, ENDS)
            .ip_ids(40_000, 61, false);
        assert!(ignored.is_ruled_out(&MIDDLEBOX_RESET));
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

    #[test]
    fn several_resets_in_a_row_farther_on_each_time_are_a_devices() {
        let rows = |step: u32| {
            let mut case = Case::new().seen_ttl("10.0.3.7", 61).packets(30, Direction::Received, 0x14, 61, ENDS);
            if let crate::value::Observed::Full(packets) = &mut case.packets {
                for (number, packet) in packets.iter_mut().enumerate() {
                    let number = number as u32;
                    packet.peer.set_port(40_000 + (number / 3) as u16);
                    (packet.seq, packet.window, packet.ip_id) = (1_000 + number % 3 * step, 500, Some(7));
                    packet.at = std::time::Duration::from_millis(1_001_000 + u64::from(number) * 10);
                }
            }
            case.judge(&MIDDLEBOX_RESET)
        };
        let Ok(Verdict::Found(findings)) = rows(1460) else { panic!("not found") };
        assert_eq!((findings[0].severity, findings[0].impact.events), (Severity::Warning, 10));
        assert!(!matches!(rows(0), Ok(Verdict::Found(_))), "the same one again");
    }
}
