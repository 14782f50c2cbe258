//! Roots that no list of causes can know: a program that fails its clients because its own connects fail.

use crate::cause::{Cause, EvidenceItem, Finding, Severity, Subject, SubjectKind, severity};
use crate::evidence::Evidence;
use crate::evidence::proxied::Proxied;
use crate::value::words;

/// Causes by which a program ends its clients' connections.
const ENDINGS: [&str; 4] = ["close-with-unread-data", "abortive-close", "connection-limit", "late-data-after-close"];
/// What clients see of a program that waits for its backend in vain.
const WAITING: [&str; 2] = ["client-gave-up", "closed-without-answer"];
/// Causes of own connects that fail, the deepest first.
const CONNECTS: [&str; 7] = [
    "process-exit",
    "listener-closed",
    "wrong-bind-address",
    "port-without-listener",
    "firewall-reject",
    "connect-unanswered",
    "upstream-refused",
];
/// Causes by which a listener of this host answers no SYN, the deepest first.
const SILENT: [&str; 5] =
    ["fd-exhaustion", "accept-loop-stalled", "accept-queue-overflow", "syn-flood", "syn-queue-overflow"];

/// Whether a finding of this cause may be tied to a root here.
pub(super) fn may_follow(id: &str) -> bool {
    let others = ["connect-unanswered", "upstream-refused", "close-with-unread-data"];
    others.iter().chain(&ENDINGS).chain(&WAITING).any(|symptom| *symptom == id)
}

/// Ties what a proxy does to its clients to the backend that refuses it: the refused connect is the root and tells the whole
/// story, with the harm that it does. The root of each finding, as its place in the list.
pub(super) fn link(evidence: &Evidence<'_>, found: &mut [(&'static Cause, Finding)]) -> Vec<Option<usize>> {
    let mut roots = vec![None; found.len()];
    for symptom in 0..found.len() {
        if let Some(root) = silent_listener(found, symptom).or_else(|| refused_here(evidence, found, symptom)) {
            roots[symptom] = Some(root);
            continue;
        }
        if let Some(root) = aborts_of_the_same(found, symptom).or_else(|| waits_for_backend(found, symptom)) {
            roots[symptom] = Some(root);
            continue;
        }
        let Some(proxied) = proxied(evidence, &found[symptom]) else { continue };
        let Some(root) = root(found, &proxied) else { continue };
        if is_of_another(evidence, &found[root].1, &found[symptom].1, &proxied) {
            continue;
        }
        roots[symptom] = Some(root);
        let listener = found[symptom].1.subjects.first().cloned();
        let cause = &mut found[root].1;
        let told = |subject: &Subject| subject.kind == SubjectKind::Listener && subject.port == Some(proxied.port);
        if cause.subjects.iter().any(told) {
            // Another symptom of the same.
            continue;
        }
        let who = listener.as_ref().and_then(Subject::label).unwrap_or_else(|| "a program".to_owned());
        // Who asks is said once.
        let why = cause.summary.replacen(&format!(" of {who}"), "", 1);
        cause.summary = format!("{who} fails its clients on port {}: {why}", proxied.port);
        let harm = evidence.harm_of_service(proxied.port);
        cause.severity = cause.severity.min(severity::to_clients(evidence, &harm));
        cause.harm = Some(harm);
        let ended = words::counted(proxied.requests, "connection");
        let text =
            format!("{who} ended {ended} of its clients on port {} right after such a connect each", proxied.port);
        cause.evidence.push(EvidenceItem::value("reset_events", "proxied", proxied.requests as f64, text));
        cause.subjects.extend(listener);
    }
    roots
}

/// Who asks in vain is known, and is none of those that serve the port: two programs that fail at the same times.
fn is_of_another(evidence: &Evidence<'_>, root: &Finding, symptom: &Finding, proxied: &Proxied) -> bool {
    let pids = |finding: &Finding, kind| -> Vec<u32> {
        finding.subjects.iter().filter(|subject| subject.kind == kind).filter_map(|subject| subject.pid).collect()
    };
    let askers = pids(root, SubjectKind::Process);
    let services = evidence.services().unwrap_or_default().iter().filter(|service| service.port == proxied.port);
    let mut serving: Vec<u32> = services.flat_map(|service| &service.owners).map(|process| process.pid).collect();
    serving.extend([SubjectKind::Listener, SubjectKind::Process].into_iter().flat_map(|kind| pids(symptom, kind)));
    !askers.is_empty() && !serving.is_empty() && !askers.iter().any(|asker| serving.contains(asker))
}

/// Connects of this host to a listener of this host that answers none: why is seen at the listener, and no firewall or dead host
/// is to be looked for. An address that a socket is bound to is one of this namespace, and so is each of 127.0.0.0/8 and ::1.
fn silent_listener(found: &[(&'static Cause, Finding)], symptom: usize) -> Option<usize> {
    let (cause, finding) = found.get(symptom).filter(|(cause, _)| cause.id == "connect-unanswered")?;
    let called = finding.subjects.iter().find(|subject| subject.kind == SubjectKind::Peer)?;
    let (address, port) = (called.address?, called.port?);
    let is_it = |subject: &Subject| {
        let bound =
            subject.address.is_some_and(|bound| bound == address || bound.is_unspecified() && address.is_loopback());
        subject.kind == SubjectKind::Listener && subject.port == Some(port) && bound
    };
    let is_root = |id: &str, (other, root): &(&'static Cause, Finding)| {
        other.id == id && cause.id != id && root.state == finding.state && root.subjects.iter().any(is_it)
    };
    SILENT.iter().find_map(|id| found.iter().position(|root| is_root(id, root)))
}

/// Connects of this host to a service of this host that is not there all the time.
fn refused_here(evidence: &Evidence<'_>, found: &[(&'static Cause, Finding)], symptom: usize) -> Option<usize> {
    let (_, finding) = found.get(symptom).filter(|(cause, _)| cause.id == "upstream-refused")?;
    let called = finding.subjects.iter().find(|subject| subject.kind == SubjectKind::Peer)?;
    let port = called.port.filter(|port| evidence.comes_and_goes(*port))?;
    let local = called.address.is_some_and(|address| address.is_loopback());
    let is_it = |subject: &Subject| subject.kind == SubjectKind::Listener && subject.port == Some(port);
    let is_root = |id: &str, (cause, root): &(&'static Cause, Finding)| {
        cause.id == id && local && root.state == finding.state && root.subjects.iter().any(is_it)
    };
    ["process-exit", "listener-closed"].iter().find_map(|id| found.iter().position(|root| is_root(id, root)))
}

/// A program that sets SO_LINGER to 0 resets its clients with the reason of unread data where something came before it closed
/// (net/ipv4/tcp.c __tcp_close looks for that first): one act, told by the timing as two.
fn aborts_of_the_same(found: &[(&'static Cause, Finding)], symptom: usize) -> Option<usize> {
    let (_, finding) = found.get(symptom).filter(|(cause, _)| cause.id == "close-with-unread-data")?;
    let by = |finding: &Finding| {
        let port = finding.subjects.iter().find(|subject| subject.kind == SubjectKind::Listener)?.port?;
        Some((port, finding.subjects.iter().find_map(|subject| subject.pid)?))
    };
    let here = by(finding)?;
    found.iter().position(|(cause, root)| {
        let same = cause.id == "abortive-close" && root.state == finding.state && by(root) == Some(here);
        same && root.impact.events * MOST_UNREAD >= finding.impact.events
    })
}

/// Clients that gave up on a program whose own connects fail, while it tried again, or that it left without an answer then.
fn waits_for_backend(found: &[(&'static Cause, Finding)], symptom: usize) -> Option<usize> {
    let (_, finding) = found.get(symptom).filter(|(cause, _)| WAITING.contains(&cause.id))?;
    let server = finding.subjects.iter().find(|subject| subject.kind == SubjectKind::Listener)?;
    let fails = |id: &str, (cause, root): &(&'static Cause, Finding)| {
        let by_it = |subject: &Subject| subject.kind == SubjectKind::Process && subject.pid == server.pid;
        cause.id == id && root.severity < Severity::Info && server.pid.is_some() && root.subjects.iter().any(by_it)
    };
    CONNECTS.iter().find_map(|id| found.iter().position(|root| fails(id, root)))
}

/// A program that closes so many times more often with unread data does that for another reason.
const MOST_UNREAD: u64 = 4;

/// The proxied service whose clients this finding is about.
fn proxied(evidence: &Evidence<'_>, (cause, finding): &(&'static Cause, Finding)) -> Option<Proxied> {
    let listener = finding.subjects.iter().find(|subject| subject.kind == SubjectKind::Listener)?;
    ENDINGS.contains(&cause.id).then(|| evidence.refused_behind(listener.port?)).flatten()
}

/// The finding that tells why connects to the backend fail.
fn root(found: &[(&'static Cause, Finding)], proxied: &Proxied) -> Option<usize> {
    CONNECTS
        .iter()
        .find_map(|id| found.iter().position(|(cause, finding)| cause.id == *id && is_about(finding, proxied)))
}

/// By its subjects: a service of this host stands there with the address that it is bound to, not the one that was called.
fn is_about(finding: &Finding, proxied: &Proxied) -> bool {
    finding.subjects.iter().any(|subject| {
        let here = subject.kind == SubjectKind::Listener && subject.port != Some(proxied.port);
        subject.port == Some(proxied.called.port()) && (here || subject.address == Some(proxied.called.ip()))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Severity;
    use crate::diagnosis::diagnose;
    use crate::observation::testing::{Case, group, process, task};
    use crate::source::socket_dump::{GroupKind, PortUse, SocketDump};
    use crate::value::TcpState;

    const BACKEND: [&str; 2] = ["10.0.0.9:0", "10.0.7.1:9000"];
    const FRONT: [&str; 2] = ["10.0.0.9:9000", "10.0.3.7:0"];

    /// A proxy on port 9000 that closes with unread data whenever its backend has refused it.
    fn proxy(refused: u16) -> Case {
        Case::new()
            .counter("Tcp.OutRsts", 0, 20)
            .counter("Tcp.PassiveOpens", 0, 20)
            .counter("Tcp.EstabResets", 0, 20)
            .counter("Tcp.AttemptFails", 0, refused.into())
            .counter("TcpExt.ListenOverflows", 0, 0)
            .listener("0.0.0.0:9000", 128, 0, 0, &process(977, "docker-proxy"))
            .received(refused, TcpState::SynSent, BACKEND)
            .sent(20, "TCP_ABORT_ON_CLOSE", Some(TcpState::Close), FRONT, Some(task(977, "docker-proxy")))
    }

    #[test]
    fn a_backend_that_refuses_is_the_root_of_what_its_proxy_does() {
        let diagnosis = diagnose(proxy(20).view());
        let ids: Vec<_> =
            diagnosis.causes.iter().map(|cause| (cause.id, cause.because_of.map(|root| root.id))).collect();
        let expected = [("upstream-refused", None), ("close-with-unread-data", Some("upstream-refused"))];
        assert_eq!(ids, expected, "{}", diagnosis.summary);
        let said = "docker-proxy (pid 977) fails its clients on port 9000: 20 connects to 10.0.7.1:9000 refused";
        assert!(diagnosis.summary.starts_with(said), "{}", diagnosis.summary);
        assert_eq!(diagnosis.causes[0].finding.severity, Severity::Critical, "all of its clients fail");
    }

    /// Two programs of one name that fail at the same times are two stories.
    #[test]
    fn a_program_that_is_refused_is_no_root_of_what_another_does() {
        let is_root = |asker: u32| {
            let case = proxy(0).counter("Tcp.AttemptFails", 0, 20).refused(20, BACKEND, task(asker, "docker-proxy"));
            diagnose(case.view()).causes.iter().any(|cause| cause.because_of.is_some())
        };
        assert!(is_root(977) && !is_root(978));
    }

    /// A listener that accepts nothing, and own connects to `called` that wait.
    fn silent(bound: &str, called: &str) -> Case {
        let called: std::net::SocketAddr = called.parse().expect("address");
        let mut waiting = group(GroupKind::Unanswered, called.port(), 20, 1, 0);
        waiting.accepted = false;
        waiting.samples.iter_mut().for_each(|sample| sample.peer = called);
        let dump = SocketDump { groups: vec![waiting], ..SocketDump::default() };
        Case::new()
            .counter("TcpExt.ListenOverflows", 0, 90)
            .counter("TcpExt.TCPSynRetrans", 0, 90)
            .counter("Tcp.PassiveOpens", 0, 0)
            .listener(bound, 8, 9, 60, &process(41, "api"))
            .listener_drops(90)
            .socket_dump(SocketDump::default(), dump)
    }

    #[test]
    fn connects_to_a_full_listener_of_this_host_follow_from_what_keeps_it_full() {
        let roots = |case: Case| -> Vec<_> {
            let causes = diagnose(case.view()).causes;
            let of = |cause: &crate::diagnosis::Ranked| Some((cause.id, cause.because_of.map(|root| root.id)));
            causes.iter().filter_map(of).filter(|(id, _)| *id == "connect-unanswered").collect()
        };
        let here = [("connect-unanswered", Some("accept-loop-stalled"))];
        assert_eq!(roots(silent("0.0.0.0:7100", "127.0.0.1:7100")), here);
        assert_eq!(roots(silent("10.0.0.9:7100", "10.0.0.9:7100")), here);
        let elsewhere = [("connect-unanswered", None)];
        assert_eq!(roots(silent("0.0.0.0:7100", "10.0.7.1:7100")), elsewhere, "another host may listen there as well");
        assert_eq!(roots(silent("0.0.0.0:7100", "127.0.0.1:7101")), elsewhere);
    }

    #[test]
    fn what_happens_beside_it_is_a_cause_of_its_own() {
        let diagnosis = diagnose(proxy(3).view());
        assert!(diagnosis.causes.iter().all(|cause| cause.because_of.is_none()), "{:?}", diagnosis.causes);
    }

    #[test]
    fn one_program_that_aborts_its_clients_is_told_once_whatever_the_kernel_calls_it() {
        let app = || Some(task(41, "app"));
        let case = |by: u32| {
            Case::new()
                .tracepoints()
                .counter("Tcp.OutRsts", 0, 20)
                .counter("Tcp.PassiveOpens", 0, 20)
                .listener("0.0.0.0:9000", 128, 0, 0, &process(41, "app"))
                .sent(12, "TCP_STATE", Some(TcpState::Close), FRONT, app())
                .sent(8, "TCP_ABORT_ON_CLOSE", Some(TcpState::Close), ["10.0.0.9:9001", "10.0.3.7:0"], app())
                .listener(&format!("0.0.0.0:{by}"), 128, 0, 0, &process(41, "app"))
        };
        let roots = |case: &Case| -> Vec<_> {
            let causes = diagnose(case.view()).causes;
            causes.iter().map(|cause| (cause.id, cause.because_of.map(|root| root.id))).collect()
        };
        let elsewhere = roots(&case(9001));
        assert!(elsewhere.iter().all(|(_, root)| root.is_none()), "another port is another fault: {elsewhere:?}");
        let same = Case::new()
            .tracepoints()
            .counter("Tcp.OutRsts", 0, 20)
            .counter("Tcp.PassiveOpens", 0, 20)
            .listener("0.0.0.0:9000", 128, 0, 0, &process(41, "app"))
            .sent(12, "TCP_STATE", Some(TcpState::Close), FRONT, app())
            .sent(8, "TCP_ABORT_ON_CLOSE", Some(TcpState::Close), FRONT, app());
        let expected = [("abortive-close", None), ("close-with-unread-data", Some("abortive-close"))];
        assert_eq!(roots(&same), expected);
    }

    /// haproxy in TCP mode tells its client nothing when its server refuses: it closes.
    #[test]
    fn requests_without_an_answer_follow_from_the_refused_connects_of_their_server() {
        let story = |asker: u32| {
            let mut number = 0;
            let kept = PortUse { by_state: [(TcpState::TimeWait, 6)].into(), ..PortUse::default() };
            let kept = SocketDump { ports: [(9000, kept)].into(), ..SocketDump::default() };
            let case = Case::new()
                .tracepoints()
                .counter("Tcp.OutRsts", 0, 0)
                .counter("Tcp.PassiveOpens", 0, 20)
                .counter("Tcp.AttemptFails", 0, 20)
                .counter("TcpExt.ListenOverflows", 0, 0)
                .refused(20, BACKEND, task(asker, "haproxy"))
                .socket_dump(SocketDump::default(), kept)
                .listener("0.0.0.0:9000", 128, 0, 0, &process(41, "haproxy"))
                .destroyed_sockets(6, FRONT, 0, 0)
                .each_destroyed(move |socket| {
                    number += 1;
                    socket.at = Duration::from_millis(1_000_000 + number * 400);
                    (socket.bytes_received, socket.bytes_sent, socket.unacknowledged) = (Some(80), Some(0), 0);
                    (socket.data_received_ms, socket.data_sent_ms) = (20, 20);
                });
            let causes = diagnose(case.view()).causes;
            let of = causes.iter().find(|cause| cause.id == "closed-without-answer").expect("told");
            of.because_of.map(|root| root.id)
        };
        assert_eq!(story(41), Some("upstream-refused"));
        assert_eq!(story(42), None, "another program is refused");
    }
}
