use std::net::SocketAddr;

use super::numbers::port_without_listener as numbers;
use super::place::{self, Place};
use super::{
    EvidenceItem, Finding, Judgement, Remedy, Restart, Severity, Subject, Together, Verdict, Verify, commands,
};
use super::{severity, wording};
use crate::evidence::Evidence;
use crate::evidence::harm::{Harm, Target};
use crate::evidence::repeated::AskedInVain;
use crate::evidence::service::Service;
use crate::source::reset_events::Direction;
use crate::value::shell::ShellCommand;
use crate::value::words;

cause! {
    /// ## What happens
    ///
    /// A client asks for a port on which nothing listens. The kernel answers its SYN with a RST: "Connection refused".
    ///
    /// ## How it shows
    ///
    /// `Tcp.OutRsts` grows and nothing else. The tracepoint tcp:tcp_send_reset gives the reason NO_SOCKET. If the client
    /// is on this host, `Tcp.AttemptFails` grows alike.
    ///
    /// ## How to confirm
    ///
    /// `ss -lntp 'sport = :PORT'` prints no listener; `rstdoctor trace --sent` as root shows who asks for which port.
    ///
    /// ## What to change
    ///
    /// Start the service, or correct the port that its clients use. A service that died belongs to process-exit.
    ///
    /// ## Look-alikes
    ///
    /// A port scan asks each of many ports once; a peer that comes back for one port expects a service there, or checks one that was
    /// stopped on purpose. A program of this host that asks every ten seconds or more may check what is optional; one that asks
    /// every few seconds needs it. ::1 before 127.0.0.1, and a listener on another address (wrong-bind-address). Late segments of
    /// a connection long gone have the same reason.
    PORT_WITHOUT_LISTENER {
        id: "port-without-listener",
        title: "Nothing listens on the port",
        explains: ["upstream-refused"],
        needs: [Window, Snmp],
        judge: judge,
    }
}

const UNIT: &str = "refused connects";

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    if let Ok(groups) = e.resets_of(PORT_WITHOUT_LISTENER.id, Direction::Sent) {
        let away = |place: &Place<'_>| place.port.is_none_or(|port| !e.comes_and_goes(port));
        let places = place::places(e, &groups).into_iter().filter(away);
        let findings: Vec<_> = places.map(|place| by_events(e, place)).collect();
        return Ok(Verdict::from_findings(findings, "nobody asked for a port on which nothing listens"));
    }
    e.events_balance()?;
    let reading = e.counter("Tcp.OutRsts")?;
    let counted = e.estimate()?;
    let here = counted.refused_here;
    if here + counted.rest == 0 {
        return Ok(Verdict::RuledOut("every RST that was sent has another explanation, or none was sent".into()));
    }
    let (events, confidence, meaning) = if here >= counted.rest {
        (here, numbers::COUNTED_HERE, "made by programs of this host")
    } else {
        (counted.rest, numbers::COUNTED, "or segments of connections long gone")
    };
    let summary = format!(
        "{} to ports where nothing listens in {}, {meaning}",
        words::counted(events, "connection attempt"),
        words::seconds(e.window())
    );
    let mut finding = wording::active(e, Severity::Info, confidence, events, UNIT, summary)
        .subject(Subject::host())
        .evidence(wording::moved(&reading, "RSTs sent, these without a socket behind them"))
        .against(EvidenceItem::fact(
            "reset_events",
            "reason",
            "counters do not tell a refused connect from a port scan or from a segment of an old connection",
        ));
    // Connects to which TCP of this host sent no RST were refused elsewhere, or by netfilter.
    finding.has_symptoms = here == counted.refused_connects;
    Ok(Verdict::Found(vec![
        finding.remedy(
            Remedy::new("See which ports are asked for (as root, with tracefs)", "the ports and the peers are named")
                .command(ShellCommand::new("rstdoctor trace --sent -d 10s")),
        ),
    ]))
}

/// How bad it is that these connects were refused, and to whose clients.
pub fn refused(e: &Evidence<'_>, place: &Place<'_>, askers: &[Subject]) -> (Severity, Option<Harm>) {
    let harm = proxied(e, place, askers);
    let alone = by_number(e, place, harm.as_ref());
    (if expected(e, place).is_some() { alone.min(Severity::Warning) } else { alone }, harm)
}

/// Whoever asks, and whether they come back or not.
fn by_number(e: &Evidence<'_>, place: &Place<'_>, harm: Option<&Harm>) -> Severity {
    let polled = severity::refusals(e, place.count);
    harm.map_or(polled, |harm| severity::to_callers(e, harm).min(polled))
}

/// Who comes back for this port, and finds nothing there each time: a service that somebody expects. A scan asks each of many ports
/// once, and a stray connect is one. What a program of this host checks in many seconds may be optional; who tries each of a few
/// cannot work without.
fn expected(e: &Evidence<'_>, place: &Place<'_>) -> Option<AskedInVain> {
    // Where something listened for a part of the window, not all of them failed.
    let port = place.port.filter(|_| place.service(e).is_none())?;
    let often = |asked: &AskedInVain| {
        let soon = asked.every.as_secs_f64() <= numbers::RETRIES_WITHIN_S;
        // In a row of windows there is time to see whether the service is only about to begin.
        let stays = !e.is_in_a_row() || asked.over.as_secs_f64() >= numbers::STARTS_WITHIN_S;
        asked.occasions >= severity::FEWEST && (!asked.here || soon && stays)
    };
    e.asked_in_vain(port).filter(often).max_by_key(|asked| (asked.occasions, !asked.here))
}

fn by_events(e: &Evidence<'_>, place: Place<'_>) -> Finding {
    let askers = place.port.map(|port| place::askers(e, port)).unwrap_or_default();
    let (severity, harm) = refused(e, &place, &askers);
    let port = place.port.map_or_else(|| "several ports".to_owned(), |port| format!("port {port}"));
    let gone = e.gone_listeners().iter().any(|gone| Some(gone.trace.last.port) == place.port);
    let listens = place.service(e).is_some_and(Service::listens_now);
    let why = match (gone, listens, e.services().is_ok()) {
        (_, true, _) => ", although something listens there now",
        (true, ..) => ": nothing listens any more there",
        (false, _, true) => ": nothing listens there",
        (false, _, false) => "",
    };
    let asker = askers.first().and_then(Subject::label).map(|asker| format!(" of {asker}"));
    let summary = format!(
        "{}{} to {port} refused in {}{why}",
        words::counted(place.count, "connection attempt"),
        asker.unwrap_or_default(),
        words::seconds(e.window())
    );
    // Without the listeners the port may be open on another address, and without packets the segment no SYN.
    let listeners = e.services();
    let confidence = match (listeners.is_ok() && !listens, e.wire().is_ok()) {
        (true, _) if severity == Severity::Info => numbers::NAMED_FEW,
        (true, _) => numbers::NAMED,
        (false, true) => numbers::LISTENERS_UNSEEN,
        (false, false) => numbers::PACKETS_UNSEEN,
    };
    let finding = wording::active(e, severity, confidence, place.count, UNIT, summary)
        .subjects(place.subjects(e))
        .evidence(place.item("NO_SOCKET", "no socket on the port"))
        .evidence_if(place::asked_by(&askers))
        .subjects(askers)
        .harm_if(harm);
    let expected = expected(e, &place);
    let alone = by_number(e, &place, harm.as_ref());
    let finding = match expected.filter(|asked| asked.now < severity::FEWEST && alone == Severity::Info) {
        Some(AskedInVain { occasions, connects, since, .. }) => {
            let text = format!("{occasions} times in the last {}", words::seconds(e.since(since)));
            finding.together(Together { since, events: connects }, text)
        }
        None => finding,
    };
    let finding = match expected {
        Some(AskedInVain { peer, here, occasions, .. }) => finding
            .evidence(EvidenceItem::value(
                "reset_events",
                "occasions",
                occasions as f64,
                format!(
                    "{} came back for it, {} in all: it expects a service there",
                    if here { "a program of this host".to_owned() } else { peer.to_string() },
                    words::counted(occasions, "time")
                ),
            ))
            .against(EvidenceItem::fact(
                "reset_events",
                "peer",
                "a health check of a service that was stopped on purpose asks alike",
            )),
        None => finding,
    };
    let finding = match listeners {
        Ok(_) if listens => finding.against(EvidenceItem::fact(
            "listeners",
            "address",
            "a listener was seen on the port: it may have begun only after these, or they came in by a VRF that it does not take \
             from (net.ipv4.tcp_l3mdev_accept)",
        )),
        Ok(_) => finding,
        Err(_) => finding.against(EvidenceItem::fact(
            "listeners",
            "address",
            "who listens was not seen: the port may be open on another address",
        )),
    };
    let finding = if place.groups.iter().all(|group| group.on_loopback()) {
        finding.against(EvidenceItem::fact("reset_events", "peer", "the clients are programs of this host"))
    } else {
        finding
    };
    let named = finding.subjects.iter().any(|subject| subject.pid.is_some());
    let finding = finding.remedy(
        Remedy::new(
            "Start the service of this port, or correct the port that the clients use",
            Verify::by(commands::ss_of("ss -lntp", place.port), "shows a listener"),
        )
        .command(commands::listening_or_failed(place.port))
        .restart(Restart::None),
    );
    if named {
        return finding;
    }
    let traced = ShellCommand::new("rstdoctor trace --received -d 10s");
    let traced = place.port.into_iter().fold(traced, |command, port| command.arg("--port").arg(port));
    finding.remedy(
        Remedy::new(
            "If the client is a program of this host: have it named (as root, with tracefs: own connects refused)",
            "the process is named",
        )
        .command(traced),
    )
}

/// A program of this host that serves clients has no answer from here for them: a proxy whose backend is down. A poller, and a
/// standby that only checks its backends, serve nobody.
fn proxied(e: &Evidence<'_>, place: &Place<'_>, askers: &[Subject]) -> Option<Harm> {
    let asks = |pid: Option<u32>| pid.is_some() && askers.iter().any(|asker| asker.pid == pid);
    let served = |service: &Service<'_>| e.ended_of_service(service.port).is_some_and(|ended| ended > 0);
    let services = e.services().ok()?;
    let proxy = |service: &&Service<'_>| service.owners.iter().any(|owner| asks(Some(owner.pid))) && served(service);
    services.iter().find(proxy)?;
    let group = place.groups.iter().find(|group| group.on_loopback())?;
    let called = SocketAddr::new(group.local, place.port?);
    Some(severity::lately(e, PORT_WITHOUT_LISTENER.id, e.harm_of_connects(Target::Called(called), place.count)))
}

#[cfg(test)]
mod tests {
    use super::super::port_scan::PORT_SCAN;
    use super::super::wrong_bind_address::WRONG_BIND_ADDRESS;
    use super::*;
    use crate::observation::testing::{Case, process, task};
    use crate::value::TcpState;
    use std::time::Duration;

    fn refused(case: Case, count: u16, port: u16) -> Case {
        let local = format!("10.0.0.9:{port}");
        case.sent(count, "NO_SOCKET", None, [&local, "10.0.3.8:0"], None)
    }

    #[test]
    fn twenty_refused_connects_to_one_port_are_a_warning_with_the_port() {
        let other = Case::new().listener("0.0.0.0:80", 128, 0, 0, &process(1, "app"));
        let finding = refused(other, 20, 9200).finding(&PORT_WITHOUT_LISTENER);
        assert_eq!((finding.severity, finding.subjects[0].port), (Severity::Warning, Some(9200)));
        assert!(finding.confidence >= 0.9 && finding.summary.contains("port 9200"));
    }

    #[test]
    fn a_slow_poller_is_no_alarm() {
        let finding = refused(Case::new(), 3, 9200).finding(&PORT_WITHOUT_LISTENER);
        assert_eq!(finding.severity, Severity::Info);
    }

    #[test]
    fn a_tick_sees_what_a_scan_sees() {
        let of_2_s = |count| {
            let mut case = refused(Case::new(), count, 9200);
            for at in [&mut case.netns.after.at, &mut case.host.after.at] {
                at.mono -= Duration::from_secs(1);
            }
            case.finding(&PORT_WITHOUT_LISTENER).severity
        };
        let of_3_s = |count| refused(Case::new(), count, 9200).finding(&PORT_WITHOUT_LISTENER).severity;
        assert_eq!((of_3_s(12), of_2_s(8)), (Severity::Warning, Severity::Warning), "four a second");
        assert_eq!((of_3_s(9), of_2_s(6)), (Severity::Info, Severity::Info), "three a second");
    }

    /// The connects that were refused come so long after each other.
    fn apart(case: Case, gap_ms: u64) -> Case {
        let at = |number: usize| Duration::from_secs(1001) + Duration::from_millis(number as u64 * gap_ms);
        let mut number = 0..;
        let mut case = case.each_packet(|packet| packet.at = number.next().map(at).unwrap_or_default());
        if let crate::value::Observed::Full(events) = &mut case.events {
            events.iter_mut().enumerate().for_each(|(number, event)| event.at = at(number));
        }
        case.netns.after.at.mono += Duration::from_secs(7);
        case.host.after.at.mono += Duration::from_secs(7);
        case
    }

    /// Beside 3,000 connections of another service.
    fn beside_a_busy_service() -> Case {
        Case::new()
            .tracepoints()
            .counter("TcpExt.ListenOverflows", 0, 0)
            .counter("Tcp.PassiveOpens", 0, 3_000)
            .listener("0.0.0.0:80", 511, 0, 0, &process(1, "nginx"))
            .destroyed_sockets(3_000, ["10.0.0.9:80", "10.0.3.7:0"], 0, 0)
    }

    #[test]
    fn three_of_three_that_come_back_for_a_port_expect_a_service_there() {
        let busy = || beside_a_busy_service().counter("Tcp.OutRsts", 0, 3);
        let diagnosis = crate::diagnosis::diagnose(apart(refused(busy(), 3, 9200), 2_500).view());
        assert_eq!(diagnosis.status, crate::diagnosis::Status::Warning, "{}", diagnosis.summary);
        assert!(diagnosis.summary.starts_with("3 connection attempts to port 9200 refused"), "{}", diagnosis.summary);
        let severity =
            |count, gap_ms| apart(refused(busy(), count, 9200), gap_ms).finding(&PORT_WITHOUT_LISTENER).severity;
        assert_eq!(severity(4, 2_500), Severity::Warning);
        assert_eq!(severity(2, 2_500), Severity::Info, "twice is chance");
        assert_eq!(severity(3, 100), Severity::Info, "one click of a browser");
    }

    #[test]
    fn who_comes_once_or_comes_for_many_ports_expects_nothing() {
        let severities = |case: Case| {
            let verdict = case.judge(&PORT_WITHOUT_LISTENER);
            let Ok(Verdict::Found(findings)) = verdict else { return Vec::new() };
            findings.into_iter().map(|finding| finding.severity).collect()
        };
        let six_ports = (8000..8006).fold(beside_a_busy_service(), |case, port| refused(case, 1, port));
        assert!(severities(apart(six_ports, 1_000)).iter().all(|severity| *severity == Severity::Info), "a short scan");
        let six_peers = (1..=6).fold(beside_a_busy_service(), |case, number| {
            case.sent(1, "NO_SOCKET", None, ["10.0.0.9:23", &format!("198.51.100.{number}:0")], None)
        });
        assert_eq!(severities(apart(six_peers, 1_000)), [Severity::Info], "background noise of the internet");
        // A SYN that is sent again has the port of the first.
        let again = beside_a_busy_service().sent(3, "NO_SOCKET", None, ["10.0.0.9:23", "10.0.3.8:50123"], None);
        assert_eq!(severities(apart(again, 500)), [Severity::Info], "one connect of Windows");
        let checks =
            |count| beside_a_busy_service().sent(count, "NO_SOCKET", None, ["127.0.0.1:23", "127.0.0.1:0"], None);
        let mut every_10_s = apart(checks(4), 10_000);
        for at in [&mut every_10_s.netns.after.at, &mut every_10_s.host.after.at] {
            at.mono += Duration::from_secs(30);
        }
        assert_eq!(severities(every_10_s), [Severity::Info], "a check of this host");
        assert_eq!(severities(apart(checks(2), 2_500)), [Severity::Info], "twice is chance");
        assert_eq!(severities(apart(checks(4), 100)), [Severity::Info], "once, at all addresses of a name");
    }

    #[test]
    fn a_program_of_this_host_that_tries_every_few_seconds_needs_what_is_not_there() {
        let worker = beside_a_busy_service()
            .counter("Tcp.OutRsts", 0, 4)
            .sent(4, "NO_SOCKET", None, ["127.0.0.1:5432", "127.0.0.1:0"], None)
            .received(4, TcpState::SynSent, ["127.0.0.1:0", "127.0.0.1:5432"]);
        let diagnosis = crate::diagnosis::diagnose(apart(worker, 2_500).view());
        assert_eq!(diagnosis.status, crate::diagnosis::Status::Warning, "{}", diagnosis.summary);
        let first = &diagnosis.causes[0].finding;
        assert!(first.summary.contains("to port 5432 refused"), "{first:?}");
        let why =
            first.evidence.iter().any(|item| item.text.contains("a program of this host came back for it, 4 times"));
        assert!(why, "{first:?}");
    }

    #[test]
    fn a_service_that_was_there_for_a_part_of_the_window_is_judged_as_before() {
        let back = beside_a_busy_service().listener("0.0.0.0:9200", 128, 0, 0, &process(2, "app"));
        let to_a_syn = refused(back, 3, 9200).packets(3, Direction::Sent, 0x14, 64, ["10.0.0.9:9200", "10.0.3.8:0"]);
        assert_eq!(apart(to_a_syn, 2_500).finding(&PORT_WITHOUT_LISTENER).severity, Severity::Info);
    }

    #[test]
    fn one_source_at_many_ports_is_a_scan_and_not_this() {
        let case = (8000..8040).fold(Case::new(), |case, port| refused(case, 1, port));
        assert!(case.is_ruled_out(&PORT_WITHOUT_LISTENER));
        let scan = case.finding(&PORT_SCAN);
        assert_eq!((scan.severity, scan.impact.events), (Severity::Info, 40));
    }

    /// One program at one port, beside RSTs for other ports of which no event tells the namespace: 127.0.0.1 is in each. The same
    /// RSTs with their packets tell what they answered.
    #[test]
    fn what_nobody_tried_here_makes_no_scan_of_it() {
        let others = |case: Case| {
            (40_001..=40_012).fold(case, |case, port| {
                case.sent(1, "NO_SOCKET", None, [&format!("127.0.0.1:{port}"), "127.0.0.1:0"], None)
            })
        };
        let told = |flags: Option<u8>| {
            let ends = ["127.0.0.1:9200", "127.0.0.1:0"];
            let asked = Case::new().counter("Tcp.OutRsts", 0, 20).sent(20, "NO_SOCKET", None, ends, None);
            let case = others(asked).packets(20, Direction::Sent, 0x14, 64, ends);
            match flags {
                None => case.each_event(|event| event.netns = event.netns.filter(|_| event.local.port() == 9200)),
                Some(flags) => (40_001..=40_012).fold(case, |case, port| {
                    case.packets(1, Direction::Sent, flags, 64, [&format!("127.0.0.1:{port}"), "127.0.0.1:0"])
                }),
            }
        };
        for (flags, what) in [(None, "of another namespace"), (Some(0x04), "to segments of old connections")] {
            let case = told(flags);
            assert!(case.is_ruled_out(&PORT_SCAN), "{what}");
            let finding = case.finding(&PORT_WITHOUT_LISTENER);
            assert_eq!((finding.severity, finding.subjects[0].port), (Severity::Warning, Some(9200)), "{what}");
        }
        // On loopback whoever calls the service and whoever scans have one address.
        let both = told(Some(0x14));
        assert_eq!(both.finding(&PORT_SCAN).impact.events, 12);
        assert_eq!(both.finding(&PORT_WITHOUT_LISTENER).subjects[0].port, Some(9200));
    }

    #[test]
    fn a_listener_on_another_address_is_not_this() {
        let case = refused(Case::new().listener("127.0.0.1:9200", 128, 0, 0, &process(1, "app")), 20, 9200);
        assert!(case.is_ruled_out(&PORT_WITHOUT_LISTENER));
        let bound = case.finding(&WRONG_BIND_ADDRESS);
        assert!(bound.summary.contains("127.0.0.1:9200") && bound.severity == Severity::Warning, "{bound:?}");
    }

    #[test]
    fn without_the_listeners_it_may_as_well_be_a_wrong_address() {
        let case = refused(Case::new(), 20, 9200);
        let finding = case.finding(&PORT_WITHOUT_LISTENER);
        assert!(finding.confidence <= 0.6 && !finding.summary.contains("nothing listens"), "{finding:?}");
        assert_eq!(case.missing(&WRONG_BIND_ADDRESS), Some("listeners"));
    }

    #[test]
    fn counters_alone_are_a_hint() {
        let local = Case::new().counter("Tcp.OutRsts", 0, 20).counter("Tcp.AttemptFails", 0, 20);
        assert_eq!(local.finding(&PORT_WITHOUT_LISTENER).severity, Severity::Info);
        let remote = Case::new().counter("Tcp.OutRsts", 0, 20).finding(&PORT_WITHOUT_LISTENER);
        assert!(remote.confidence < 0.5);
    }

    #[test]
    fn connects_that_nothing_here_answered_do_not_follow_from_a_port_without_listener() {
        let follows = |sent| {
            let case = Case::new().counter("Tcp.OutRsts", 0, sent).counter("Tcp.AttemptFails", 0, 20);
            let diagnosis = crate::diagnosis::diagnose(case.view());
            let refused = diagnosis.causes.iter().find(|cause| cause.id == "upstream-refused").expect("found");
            refused.because_of.is_some()
        };
        assert!(follows(20) && follows(25));
        assert!(!follows(3), "a rule of this host that rejects is in no counter");
    }

    #[test]
    fn without_the_counter_nothing_is_claimed() {
        assert_eq!(Case::new().missing(&PORT_WITHOUT_LISTENER), Some("snmp"));
        assert_eq!(Case::new().missing(&PORT_SCAN), Some("reset_events"));
        assert_eq!(Case::new().missing(&WRONG_BIND_ADDRESS), Some("reset_events"));
    }

    /// Five refused connects of a program to its backend on loopback.
    fn backend_down(clients: u16) -> Case {
        let nginx = || Some(task(7, "nginx"));
        let case = Case::new()
            .tracepoints()
            .counter("Tcp.OutRsts", 0, 5)
            .counter("Tcp.ActiveOpens", 0, 5)
            .counter("Tcp.PassiveOpens", 0, clients.into())
            .counter("Tcp.AttemptFails", 0, 5)
            .listener("0.0.0.0:8080", 511, 0, 0, &process(7, "nginx"))
            .sent(5, "NO_SOCKET", None, ["127.0.0.1:9000", "127.0.0.1:0"], None)
            .received(5, TcpState::SynSent, ["127.0.0.1:0", "127.0.0.1:9000"]);
        let mut case = case.destroyed_sockets(clients, ["10.0.0.9:8080", "10.0.3.7:0"], 0, 0);
        if let crate::value::Observed::Full(events) = &mut case.events {
            events.iter_mut().filter(|event| event.state == Some(TcpState::SynSent)).for_each(|e| e.task = nginx());
        }
        case
    }

    #[test]
    fn a_proxy_whose_backend_is_down_fails_its_clients_and_a_standby_that_checks_fails_nobody() {
        let finding = backend_down(5).finding(&PORT_WITHOUT_LISTENER);
        assert_eq!(finding.severity, Severity::Warning, "{finding:?}");
        assert!(finding.summary.contains("of nginx (pid 7) to port 9000 refused"), "{finding:?}");
        assert_eq!(backend_down(0).finding(&PORT_WITHOUT_LISTENER).severity, Severity::Info);
    }
}
