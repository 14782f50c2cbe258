use std::net::SocketAddr;

use super::numbers::upstream_refused as numbers;
use super::place::{self, Place};
use super::{EvidenceItem, Finding, Judgement, Remedy, Severity, Subject, Verdict, Verify};
use super::{firewall_reject, severity, wording};
use crate::evidence::Evidence;
use crate::evidence::harm::Target;
use crate::source::reset_events::Direction;
use crate::value::shell::ShellCommand;
use crate::value::words;

cause! {
    /// ## What happens
    ///
    /// A program on this host connects to a server and is answered by a RST: "Connection refused" (nginx: `connect()
    /// failed (111: Connection refused) while connecting to upstream`). Nothing listens there, or a firewall says no.
    ///
    /// ## How it shows
    ///
    /// `Tcp.AttemptFails` grows beside `Tcp.ActiveOpens`; the tracepoint tcp:tcp_receive_reset fires in SYN_SENT.
    ///
    /// ## How to confirm
    ///
    /// `nc -vz HOST PORT` from this host prints "Connection refused"; `rstdoctor trace --received` as root names the program
    /// and the server of each refusal.
    ///
    /// ## What to change
    ///
    /// Start the upstream, or correct its address and port in the client's configuration; look at the upstream with
    /// rstdoctor, if it runs Linux.
    ///
    /// ## Look-alikes
    ///
    /// Connects that time out count alike. Half-open probes count in AttemptFails and in EmbryonicRsts. An ICMP port
    /// unreachable is a refusal too. What is refused by this host itself is told
    /// by the port on which nothing listens.
    UPSTREAM_REFUSED {
        id: "upstream-refused",
        title: "Own connects refused",
        explains: [],
        needs: [Window, Snmp],
        judge: judge,
    }
}

const UNIT: &str = "refused connects";

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    if let Ok(groups) = e.resets_of(UPSTREAM_REFUSED.id, Direction::Received) {
        let findings: Vec<_> = place::places(e, &groups).into_iter().map(|place| by_events(e, place)).collect();
        return Ok(Verdict::from_findings(findings, "no connect of this host was answered by a RST"));
    }
    let reading = e.counter("Tcp.AttemptFails")?;
    let counted = e.estimate()?;
    // What this host told itself, no other host refused: connect-unanswered.
    let events = counted.refused_connects.saturating_sub(firewall_reject::own_errors(e).unwrap_or_default());
    if events == 0 {
        return Ok(match (reading.delta, counted.refused_connects) {
            (0, _) => wording::still(&reading),
            (_, 0) => Verdict::RuledOut("failed attempts were half-open probes or timed out, not refused".into()),
            _ => Verdict::RuledOut("failed attempts ended with an ICMP error of this host itself".into()),
        });
    }
    // Answered by this host itself: a check of what is optional looks the same.
    let here = counted.refused_here >= events;
    // Whom they called is not known, so neither is what share of it failed.
    let severity = if here { Severity::Info } else { severity::refusals(e, events).max(Severity::Warning) };
    // What netfilter answers is in no counter of TCP.
    let no_firewall = e.wire().is_ok_and(|wire| wire.rejected_total() == 0);
    let whom = match (here, no_firewall) {
        (true, _) => "by this host itself",
        (false, true) => "by other hosts",
        (false, false) => "by other hosts, or by a firewall of this one,",
    };
    let summary = format!(
        "{} of programs on this host refused {whom} in {}",
        words::counted(events, "connect"),
        words::seconds(e.window())
    );
    let finding = wording::active(e, severity, numbers::COUNTED, events, UNIT, summary)
        .subject(Subject::host())
        .evidence(wording::moved(&reading, "connects that failed"))
        .against(EvidenceItem::fact("snmp", "Tcp.AttemptFails", "the counter does not say whom they called, or why"));
    Ok(Verdict::Found(vec![with_remedies(finding, None)]))
}

fn by_events(e: &Evidence<'_>, place: Place<'_>) -> Finding {
    let called = place.called.map_or_else(|| "several servers".to_owned(), |called| called.to_string());
    let harm = match place.called {
        Some(called) => e.harm_of_connects(Target::Called(called), place.count),
        None => place.harm(e),
    };
    let harm = severity::lately(e, UPSTREAM_REFUSED.id, harm);
    let summary = format!("{} to {called} refused in {}", harm.counted("connect"), words::seconds(e.window()));
    // Answered by this host itself: what is wrong is told by the port that refused.
    let here = place.groups.iter().all(|group| group.on_loopback());
    let severity = if here { Severity::Info } else { severity::to_callers(e, &harm) };
    let finding = wording::active(e, severity, numbers::NAMED, place.count, UNIT, summary)
        .subjects(place.subjects(e))
        .evidence(EvidenceItem::value(
            "reset_events",
            "SYN_SENT",
            place.count as f64,
            format!("{called} answered {} with RST", words::counted(place.count, "SYN")),
        ))
        .evidence_if(place.stated(e))
        .harm(harm);
    let others = harm.attempts.map_or(0, |attempts| attempts.saturating_sub(harm.failures));
    match place.called {
        Some(called) if others >= ACCEPTS && !here && all_along(e, &place) => {
            refused_in_part(e, finding, called, others)
        }
        called => with_remedies(finding, called),
    }
}

/// So many accepted connects beside the refused ones say that the service is there.
const ACCEPTS: u64 = 3;

/// The refusals are spread over the window: the service was not away for a part of it.
fn all_along(e: &Evidence<'_>, place: &Place<'_>) -> bool {
    let first = place.groups.iter().map(|group| group.first).min();
    let last = place.groups.iter().map(|group| group.last).max();
    first.zip(last).is_some_and(|(first, last)| last.saturating_sub(first) * 2 >= e.window())
}

/// The same address accepts others all the time: something rejects a part of the connects.
fn refused_in_part(e: &Evidence<'_>, finding: Finding, called: SocketAddr, others: u64) -> Finding {
    let list = |values: &[u8]| values.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let finding = finding.evidence(EvidenceItem::value(
        "destroyed_sockets",
        "accepted",
        others as f64,
        format!("{called} accepted {} in the same time", words::counted(others, "connect")),
    ));
    let (finding, text) = match e.refused_from_elsewhere(called) {
        Some((ttl, usual)) => (
            finding.evidence(EvidenceItem::fact(
                "reset_packets",
                "ttl",
                format!("the RSTs arrived with TTL {}, the server's own packets with {}", list(&ttl), list(&usual)),
            )),
            format!(
                "Find the firewall between this host and {called} that rejects a part of the connects: by their TTL another host sends the RSTs"
            ),
        ),
        None => (
            finding,
            format!(
                "Find the firewall between this host and {called} that rejects a part of the connects, or the one of several backends behind it that is down"
            ),
        ),
    };
    finding.remedy(Remedy::new(text, Verify::scan("shows no refused connect")).command(
        ShellCommand::new("tcpdump -nvi any").arg(("tcp[tcpflags] & tcp-rst != 0 and src port ", called.port())),
    ))
}

fn with_remedies(finding: Finding, called: Option<SocketAddr>) -> Finding {
    let verify = Verify::scan("shows no refused connect, and the connect succeeds");
    let named = finding.subjects.iter().any(|subject| subject.pid.is_some());
    match called {
        Some(called) => {
            let text = format!(
                "Start the server on {called}, or correct the address in the client; a firewall there that rejects with RST looks \
                 the same"
            );
            let finding = finding.remedy(
                Remedy::new(text, verify).command(ShellCommand::new("nc -vz").arg(called.ip()).arg(called.port())),
            );
            if named {
                return finding;
            }
            finding.remedy(
                Remedy::new(
                    "See which program of this host connects there (as root, with tracefs)",
                    "the process is named",
                )
                .command(ShellCommand::new("rstdoctor trace --received -d 10s --port").arg(called.port())),
            )
        }
        None => finding.remedy(
            Remedy::new("See whom this host calls in vain (as root, with tracefs)", "the server is named")
                .command(ShellCommand::new("rstdoctor trace --received -d 10s")),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::Case;
    use crate::value::TcpState;

    #[test]
    fn a_dead_upstream_is_named() {
        let finding =
            Case::new().received(20, TcpState::SynSent, ["10.0.0.9:0", "10.0.7.1:5432"]).finding(&UPSTREAM_REFUSED);
        assert_eq!((finding.severity, finding.subjects[0].port), (Severity::Warning, Some(5432)));
    }

    #[test]
    fn refused_by_another_host_is_told_from_a_local_poller() {
        let fails = |resets| Case::new().counter("Tcp.AttemptFails", 0, 20).counter("Tcp.OutRsts", 0, resets);
        assert_eq!(fails(0).finding(&UPSTREAM_REFUSED).severity, Severity::Warning);
        assert_eq!(fails(20).finding(&UPSTREAM_REFUSED).severity, Severity::Info);
        // Nobody looked at packets: a rule of this host that rejects looks the same.
        assert!(fails(0).finding(&UPSTREAM_REFUSED).summary.contains("a firewall of this one"));
        assert!(!fails(20).finding(&UPSTREAM_REFUSED).summary.contains("firewall"));
        let seen = fails(0).packets(0, Direction::Sent, 0x14, 64, ["10.0.0.9:1", "10.0.7.1:5432"]);
        assert!(!seen.finding(&UPSTREAM_REFUSED).summary.contains("firewall"));
    }

    #[test]
    fn half_open_probes_are_not_this() {
        let case = Case::new().counter("Tcp.OutRsts", 0, 0).counter("Tcp.AttemptFails", 0, 20).counter(
            "TcpExt.EmbryonicRsts",
            0,
            20,
        );
        assert!(case.is_ruled_out(&UPSTREAM_REFUSED));
    }

    #[test]
    fn without_the_counter_nothing_is_claimed() {
        assert_eq!(Case::new().missing(&UPSTREAM_REFUSED), Some("snmp"));
    }
}
