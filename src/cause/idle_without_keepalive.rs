use std::time::Duration;

use super::numbers::idle_without_keepalive as numbers;
use super::{EvidenceItem, Finding, Impact, Judgement, Remedy, Restart, Severity, State, Subject, Verdict, Verify};
use crate::evidence::Evidence;
use crate::source::socket_dump::{Group, GroupKind, IDLE_AFTER};
use crate::value::shell::ShellCommand;
use crate::value::words;

cause! {
    /// ## What happens
    ///
    /// Connections that carry no data for minutes, and have no keepalive timer, are forgotten by load balancers, NAT
    /// gateways and firewalls on the way (after 60 to 900 s). Neither end is told. The next request gets a RST or no answer.
    ///
    /// ## How it shows
    ///
    /// Nothing yet: this is a risk. When it bites, the first request after a pause fails, a retry works (idle-timeout).
    ///
    /// ## How to confirm
    ///
    /// `ss -tnoi state established`: no `timer:(keepalive,...)`, and a large `lastrcv`. Find out the idle limit of every
    /// device on the path: AWS NLB and NAT gateway 350 s, ALB 60 s, Azure 240 s, Google Cloud 600 s.
    ///
    /// ## What to change
    ///
    /// Let the application set SO_KEEPALIVE, and set `net.ipv4.tcp_keepalive_time` below the shortest limit on the path; the
    /// default is 7200 s. The sysctl does nothing for sockets without SO_KEEPALIVE. Or let pools retire idle connections
    /// earlier.
    ///
    /// ## Look-alikes
    ///
    /// On a path without such a device (one network, one host) idle connections live for ever and nothing is wrong.
    /// Application-level heartbeats count as data.
    IDLE_WITHOUT_KEEPALIVE {
        id: "idle-without-keepalive",
        title: "Idle connections without keepalive",
        explains: [],
        needs: [Sockets],
        judge: judge,
    }
}

fn judge(e: &Evidence<'_>) -> Judgement {
    let groups = e.groups(GroupKind::IdleWithoutKeepalive)?;
    let findings = groups.into_iter().filter(|group| group.sockets > 0).take(3).map(|group| idle(e, group)).collect();
    Ok(Verdict::from_findings(
        findings,
        format!("no connection to another host is idle for {IDLE_AFTER} s without keepalive"),
    ))
}

fn idle(e: &Evidence<'_>, group: &Group) -> Finding {
    let owners = e.holders(group.samples.iter().map(|sample| sample.inode));
    let name = owners.first().map_or("a program".to_owned(), |process| process.label());
    let place = if group.accepted { format!("on port {}", group.port) } else { format!("to port {}", group.port) };
    let connections = words::counted(group.sockets, "idle connection");
    let summary = format!("{name} holds {connections} {place} without keepalive");
    let severity = if group.sockets >= numbers::LARGE { Severity::Warning } else { Severity::Info };
    let impact = Impact { events: 0, per_s: 0.0, unit: "connections" };
    let oldest = group.oldest_idle_ms.map_or_else(
        || format!("idle for more than {IDLE_AFTER} s"),
        |ms| format!("idle for up to {}", words::seconds(Duration::from_millis(u64::from(ms)))),
    );
    let mut finding = Finding::new(State::Risk, severity, numbers::IDLE, impact, summary)
        .subjects(owners.iter().take(4).map(|process| Subject::process(process)))
        .evidence(EvidenceItem::value(
            "sockets",
            "idle",
            group.sockets as f64,
            format!("{connections} {place}, {oldest}"),
        ));
    if let Some(sample) = group.samples.first() {
        let text = format!("for example {} to {}", sample.local, sample.peer);
        finding = finding.evidence(EvidenceItem::fact("sockets", "example", text));
    }
    if owners.is_empty() {
        finding = finding.subject(Subject { port: Some(group.port), ..Subject::host() });
        if e.hidden_processes() > 0 {
            finding = finding.against(EvidenceItem::fact(
                "owners",
                "denied",
                "who holds them is not visible to you: run as root",
            ));
        }
    }
    let side = if group.accepted { "sport" } else { "dport" };
    let list = ShellCommand::new("ss -tno state established").arg((side, " = :", group.port));
    let verify = Verify::by(list, "shows timer:(keepalive");
    finding = finding
        .against(EvidenceItem::fact(
            "sockets",
            "path",
            "harmless where no load balancer, NAT or firewall is on the way",
        ))
        .remedy(
            Remedy::new(
                "Switch keepalive on in the program (SO_KEEPALIVE), or let its pool retire idle connections sooner",
                verify,
            )
            .restart(Restart::Service),
        );
    match e.sysctl_number("net.ipv4.tcp_keepalive_time") {
        Ok(time) if time > 300 => finding.remedy(Remedy::sysctl(
            format!("Probe before any device forgets: {time} s is too late (counts with SO_KEEPALIVE only)"),
            "net.ipv4.tcp_keepalive_time",
            200,
            "ss -tno shows keepalive timers below 200 s on new connections",
        )),
        _ => finding,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::{Case, group, process};
    use crate::source::socket_dump::SocketDump;

    fn case(kind: GroupKind, sockets: u64) -> Case {
        let socket_dump =
            SocketDump { groups: vec![group(kind, 5432, sockets, 1000, 351_000)], ..SocketDump::default() };
        Case::new()
            .socket_dump(SocketDump::default(), socket_dump)
            .sysctl("net.ipv4.tcp_keepalive_time", "7200")
            .holder(1000, &process(977, "api"))
    }

    #[test]
    fn idle_connections_are_a_risk_that_makes_no_alarm() {
        let finding = case(GroupKind::IdleWithoutKeepalive, 12).finding(&IDLE_WITHOUT_KEEPALIVE);
        assert_eq!((finding.state, finding.severity), (State::Risk, Severity::Info));
        assert_eq!(finding.subjects[0].pid, Some(977));
        assert!(finding.evidence[0].text.contains("5 min"), "{}", finding.evidence[0].text);
        assert_eq!(finding.remedies[1].line().as_deref(), Some("sysctl -w net.ipv4.tcp_keepalive_time=200"));
    }

    #[test]
    fn busy_connections_are_fine() {
        let case = case(GroupKind::Established, 12);
        assert!(matches!(case.judge(&IDLE_WITHOUT_KEEPALIVE), Ok(Verdict::RuledOut(_))));
    }

    #[test]
    fn without_the_sweep_nothing_is_claimed() {
        assert_eq!(Case::new().judge(&IDLE_WITHOUT_KEEPALIVE).expect_err("no sweep").source, "sockets");
    }
}
