use std::collections::BTreeSet;

use super::numbers::{Confidence, listener_closed as numbers};
use super::place::{self, Place};
use super::port_without_listener::{self, PORT_WITHOUT_LISTENER};
use super::{EvidenceItem, Finding, Judgement, Remedy, Restart, Severity, Subject, Verdict, Verify, commands};
use super::{keep_ending, severity, wording};
use crate::attribution::GoneListener;
use crate::evidence::Evidence;
use crate::evidence::service::Service;
use crate::source::reset_events::Direction;
use crate::value::shell::ShellCommand;
use crate::value::words;

cause! {
    /// ## What happens
    ///
    /// A listener goes away (restart, reload, crash). Connections that waited in its accept queue are reset, each one:
    /// the client had connected and reads "Connection reset by peer". Later clients are refused until somebody listens.
    ///
    /// ## How it shows
    ///
    /// `Tcp.OutRsts` and `Tcp.EstabResets` grow without any TCPAbort counter, and the listener is gone or is another
    /// socket. The tracepoint tcp:tcp_send_reset gives TCP_STATE on the listener's port.
    ///
    /// ## How to confirm
    ///
    /// `ss -lntpe 'sport = :PORT'` before and after: the `sk:` cookie changes.
    ///
    /// ## What to change
    ///
    /// Hand the listening socket over instead of closing it: socket activation, nginx reload, HAProxy `-x`. With several
    /// SO_REUSEPORT listeners set `net.ipv4.tcp_migrate_req=1`. Stop new traffic before the restart.
    ///
    /// ## Look-alikes
    ///
    /// A listener closed with an empty queue resets nobody. Linger 0 has the same kernel reason, and moves TCPAbortOnData.
    LISTENER_CLOSED {
        id: "listener-closed",
        title: "Listener closed",
        explains: ["port-without-listener"],
        needs: [Window, Listeners, Snmp],
        judge: judge,
    }
}

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    // The question is what became of the listeners: without them nothing is known.
    e.services()?;
    let gone = e.gone_listeners();
    let groups = e.resets_of(LISTENER_CLOSED.id, Direction::Sent);
    let refused = e.resets_of(PORT_WITHOUT_LISTENER.id, Direction::Sent).unwrap_or_default();
    let away = |place: &Place<'_>| place.port.is_some_and(|port| e.comes_and_goes(port));
    let away: Vec<_> = place::places(e, &refused).into_iter().filter(away).collect();
    if groups.is_ok() || !away.is_empty() {
        let groups = groups.unwrap_or_default();
        let mut findings: Vec<_> =
            place::places(e, &groups).into_iter().map(|place| by_events(e, place, gone)).collect();
        let ended = keep_ending::ports(e);
        let mut told: BTreeSet<u16> = groups.iter().filter_map(|group| group.port).collect();
        told.extend(away.iter().filter_map(|place| place.port));
        let unexplained = away.iter().filter_map(|place| Some((place, place.port?)));
        let unexplained = unexplained.filter(|(_, port)| !ended.contains(port));
        findings.extend(unexplained.map(|(place, port)| comes_and_goes(e, place, port)));
        findings.extend(
            gone.iter()
                .filter(|gone| !gone.replaced && !told.contains(&gone.trace.last.port))
                .map(|gone| empty(e, gone)),
        );
        return Ok(Verdict::from_findings(findings, "no listener was closed, or it reset nobody"));
    }
    let counted = e.estimate()?;
    let queue_lost = gone.iter().filter(|gone| gone.trace.max_recv_q > 0).max_by_key(|gone| gone.trace.max_recv_q);
    if let Some(lost) = queue_lost.filter(|_| counted.listener_closed > 0) {
        let confidence = if e.moved("Tcp.EstabResets") >= counted.listener_closed {
            numbers::COUNTED
        } else {
            numbers::COUNTED_IN_PART
        };
        let finding = lost_queue(e, who(e, lost), counted.listener_closed, confidence, gone)
            .subject(Subject { port: Some(lost.trace.last.port), ..subject(e, lost) })
            .against(EvidenceItem::fact(
                "snmp",
                "Tcp.OutRsts",
                "counters do not tie these RSTs to the listener; no TCPAbort counter explains them",
            ));
        return Ok(Verdict::Found(vec![finding]));
    }
    let findings = gone.iter().filter(|gone| !gone.replaced).map(|gone| empty(e, gone)).collect();
    Ok(Verdict::from_findings(findings, "no listener went away with connections in its queue"))
}

fn service<'e, 'a>(e: &'e Evidence<'a>, gone: &GoneListener<'_>) -> Option<&'e Service<'a>> {
    e.service_on(gone.trace.last.address, gone.trace.last.port)
}

fn who(e: &Evidence<'_>, gone: &GoneListener<'_>) -> String {
    let endpoint = std::net::SocketAddr::new(gone.trace.last.address, gone.trace.last.port);
    service(e, gone).map_or_else(|| format!("the listener {endpoint}"), Service::who)
}

fn subject(e: &Evidence<'_>, gone: &GoneListener<'_>) -> Subject {
    service(e, gone).map_or_else(Subject::host, Subject::listener)
}

fn by_events(e: &Evidence<'_>, place: Place<'_>, gone: &[GoneListener<'_>]) -> Finding {
    wording::doubted(&place, lost_queue(e, place.who(e), place.count, numbers::NAMED, gone))
        .subjects(place.subjects(e))
        .evidence(place.item("TCP_STATE", "a listener closed under its queue"))
}

/// Connects were refused while no listener of the port was there, between two that were.
fn comes_and_goes(e: &Evidence<'_>, place: &Place<'_>, port: u16) -> Finding {
    let askers = place::askers(e, port);
    let (severity, harm) = port_without_listener::refused(e, place, &askers);
    let who = match e.service_of_port(port).and_then(|service| service.owners.first()) {
        Some(process) => format!("the listener of {} on port {port}", process.name),
        None => format!("the listener on port {port}"),
    };
    let summary = format!(
        "{who} comes and goes: {} refused in {} while it was away",
        words::counted(place.count, "connect"),
        words::seconds(e.window())
    );
    let of_port = e.gone_listeners().iter().filter(|gone| gone.trace.last.port == port).take(3);
    let mut finding = wording::active(e, severity, numbers::COMES_AND_GOES, place.count, "refused connects", summary)
        .subjects(place.subjects(e))
        .evidence(place.item("NO_SOCKET", "no socket on the port"))
        .evidence_if(place::asked_by(&askers))
        .subjects(askers)
        .harm_if(harm);
    for gone in of_port {
        finding = finding.evidence(item(gone));
    }
    finding
        .against(EvidenceItem::fact(
            "owners",
            "pid",
            "whether its process ended, or closed it and lives on, was not seen",
        ))
        .remedy(
            Remedy::new(
                "Find out why it goes away: a crash that a supervisor restarts, a deploy, a reload",
                "it stays",
            )
            .command(commands::listening_or_failed(Some(port)).then(ShellCommand::new("journalctl --since -10min"))),
        )
        .remedy(handover())
}

fn lost_queue(
    e: &Evidence<'_>,
    who: String,
    events: u64,
    confidence: Confidence,
    gone: &[GoneListener<'_>],
) -> Finding {
    // One reset connection is one client that had connected: there is no harmless share, only a small number.
    let severity = if events >= severity::FEW { Severity::Warning } else { Severity::Info };
    let summary = format!(
        "{who} closed its listener and reset {} that waited in its queue",
        words::counted(events, "connection")
    );
    let mut finding = wording::active(e, severity, confidence, events, "resets", summary);
    for gone in gone {
        finding = finding.evidence(item(gone));
    }
    finding.remedy(handover()).remedy(Remedy::sysctl(
        "Where several SO_REUSEPORT listeners share the port: let the others take the queue over",
        "net.ipv4.tcp_migrate_req",
        1,
        Verify::by(ShellCommand::new("nstat -az TcpExtTCPMigrateReqSuccess"), "grows at the next restart"),
    ))
}

fn item(gone: &GoneListener<'_>) -> EvidenceItem {
    let last = &gone.trace.last;
    let now = if gone.replaced { "another socket listens there now" } else { "nobody listens there now" };
    let endpoint = std::net::SocketAddr::new(last.address, last.port);
    EvidenceItem::value(
        "listeners",
        "recv_q",
        f64::from(gone.trace.max_recv_q),
        format!("the listener {endpoint} went away (up to {} queued), {now}", gone.trace.max_recv_q),
    )
}

/// Nobody lost a connection in the queue, but nobody listens any more either.
fn empty(e: &Evidence<'_>, gone: &GoneListener<'_>) -> Finding {
    let summary = format!("{} stopped listening and nobody took its place", who(e, gone));
    let seen = service(e, gone).is_some_and(|service| !service.owners.is_empty());
    let confidence = if seen { numbers::EMPTY } else { numbers::OWNER_NOT_SEEN };
    wording::active(e, Severity::Info, confidence, 0, "resets", summary)
        .subject(subject(e, gone))
        .evidence(item(gone))
        .remedy(
            Remedy::new("If this was not meant, start the service again", "the port is listed by ss")
                .command(commands::listening_or_failed(Some(gone.trace.last.port)))
                .restart(Restart::Service),
        )
}

fn handover() -> Remedy {
    Remedy::new(
        "Keep the listening socket open across restarts: reload instead of restart, or a systemd .socket unit",
        Verify::by(ShellCommand::new("ss -lnte"), "shows the same sk: cookie before and after"),
    )
    .restart(Restart::Service)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::{Case, process, task};
    use crate::value::TcpState;

    fn queued(recv_q: u32) -> Case {
        Case::new().counter("Tcp.OutRsts", 0, 20).counter("Tcp.EstabResets", 0, 20).listener(
            "0.0.0.0:9000",
            128,
            recv_q,
            0,
            &process(7, "app"),
        )
    }

    #[test]
    fn a_listener_closed_with_a_queue_is_named() {
        let finding = queued(20)
            .stopped_listening(9000)
            .sent(20, "TCP_STATE", Some(TcpState::Close), ["10.0.0.9:9000", "10.0.3.7:0"], Some(task(7, "app")))
            .finding(&LISTENER_CLOSED);
        assert_eq!((finding.severity, finding.subjects[0].port), (Severity::Warning, Some(9000)));
        assert!(finding.confidence >= 0.9);
    }

    #[test]
    fn counters_and_a_queue_that_vanished_are_enough_for_a_warning() {
        let finding = queued(20).stopped_listening(9000).finding(&LISTENER_CLOSED);
        assert_eq!((finding.severity, finding.impact.events), (Severity::Warning, 20));
        assert!(finding.confidence < 0.9);
    }

    #[test]
    fn resets_beside_a_listener_that_stays_are_not_this() {
        assert!(queued(20).is_ruled_out(&LISTENER_CLOSED));
    }

    #[test]
    fn a_listener_that_closes_empty_is_no_alarm() {
        assert_eq!(queued(0).stopped_listening(9000).finding(&LISTENER_CLOSED).severity, Severity::Info);
    }

    #[test]
    fn connects_refused_between_two_listeners_are_no_port_without_one() {
        let case = |came: bool| {
            let mut case = queued(0).tracepoints().stopped_listening(9000);
            if came {
                case = case.listener("0.0.0.0:9000", 128, 0, 0, &process(8, "app"));
                case.netns
                    .listener_traces
                    .values_mut()
                    .filter(|trace| trace.in_after)
                    .for_each(|t| t.in_before = false);
            }
            case.sent(20, "NO_SOCKET", None, ["10.0.0.9:9000", "10.0.3.7:0"], None)
        };
        let finding = case(true).finding(&LISTENER_CLOSED);
        assert_eq!(finding.severity, Severity::Warning);
        let said = "the listener of app on port 9000 comes and goes: 20 connects refused in 3 s while it was away";
        assert_eq!(finding.summary, said);
        assert!(case(true).is_ruled_out(&PORT_WITHOUT_LISTENER));
        let dead = case(false).finding(&PORT_WITHOUT_LISTENER);
        assert!(dead.summary.ends_with("nothing listens any more there"), "{}", dead.summary);
    }

    #[test]
    fn without_listeners_nothing_is_claimed() {
        assert_eq!(Case::new().missing(&LISTENER_CLOSED), Some("listeners"));
    }
}
