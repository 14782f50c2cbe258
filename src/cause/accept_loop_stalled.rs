use std::time::Duration;

use super::numbers::{Confidence, accept_loop_stalled as numbers};
use super::{
    EvidenceItem, Finding, Impact, Judgement, Remedy, Restart, Severity, State, Subject, Verdict, busy, queue, severity,
};
use crate::evidence::Evidence;
use crate::evidence::backlog::known_server;
use crate::evidence::service::Service;
use crate::observation::ListenerTrace;
use crate::source::owners::Process;
use crate::source::socket_dump::GroupKind;
use crate::value::shell::{Name, ShellCommand};
use crate::value::{TcpState, words};

cause! {
    /// ## What happens
    ///
    /// The process that owns a listener does not call accept() at all: it is stopped (SIGSTOP, a debugger), blocked on a
    /// disk, a lock or another server, or deadlocked. The kernel goes on completing handshakes until the accept queue is
    /// full, then it loses new connections.
    ///
    /// ## How it shows
    ///
    /// Clients connect, send their request and never get an answer; later ones do not even connect. Recv-Q of the listener
    /// grows to Send-Q + 1 and never gets shorter; a long backlog takes hours to fill, and all that time nothing is lost that a
    /// counter could tell. The log of the application is silent.
    ///
    /// ## How to confirm
    ///
    /// `ss -lnt` repeated: Recv-Q stays full. `grep State /proc/PID/status` says `T (stopped)` or `t (tracing stop)`, or
    /// `cat /proc/PID/stack` shows the same wait each time.
    ///
    /// ## What to change
    ///
    /// Continue a stopped process (`kill -CONT`, detach the debugger). For a blocked one, look at what it waits for, then
    /// restart it. A longer backlog does not help.
    ///
    /// ## Look-alikes
    ///
    /// A slow application accepts now and then, so its queue gets shorter between two samples: that is
    /// accept-queue-overflow alone. An owner without free descriptors (fd-exhaustion) cannot accept although it tries.
    ACCEPT_LOOP_STALLED {
        id: "accept-loop-stalled",
        title: "Accept loop stalled",
        explains: ["accept-queue-overflow", "syn-queue-overflow", "client-gave-up", "retransmission-timeout"],
        needs: [Listeners],
        judge: judge,
    }
}

/// Why nobody calls accept().
enum Why<'a> {
    /// Every owner, or every owner but a parent that does not accept itself, is stopped.
    Stopped(Vec<&'a Process>),
    /// Nothing was taken from a full queue.
    Blocked,
    /// Nothing was taken from the queue, and the first in it has waited so long.
    Waiting(Duration),
}

fn judge(e: &Evidence<'_>) -> Judgement {
    let services = e.services()?;
    let mut findings = Vec::new();
    let mut unclear = false;
    let blocked = blocked_confidence(e);
    for service in services.iter().filter(|service| service.listens_now()) {
        let stuck = stuck(e, service);
        let service = stuck.as_ref().unwrap_or(service);
        if waiting(e, service) == 0 {
            continue;
        }
        match why(e, service, blocked) {
            Some((why, confidence)) => findings.push(stalled(e, service, &why, confidence)),
            None => unclear |= service.worst().last.is_full() && service.worst().samples < 10,
        }
    }
    if findings.is_empty() && unclear {
        return Err(crate::value::Missing {
            source: "listeners",
            reason: "a queue is full, but too few samples were taken to see whether it drains".into(),
            needs: Some("a window (rstdoctor scan --duration 3s)".into()),
        });
    }
    Ok(Verdict::from_findings(findings, "no listener has connections waiting that nobody takes"))
}

/// With SO_REUSEPORT a connection waits in the queue of one socket (net/core/sock_reuseport.c reuseport_select_sock), and who holds
/// another one cannot accept it: the sockets whose queue does not get shorter, with those who hold them. `None` where these are all
/// sockets of the service, or none.
fn stuck<'a>(e: &Evidence<'a>, service: &Service<'a>) -> Option<Service<'a>> {
    if service.sockets.len() == 1 || all_stopped(service) {
        return None;
    }
    let waiting = || service.sockets.iter().copied().filter(|socket| socket.in_after && socket.last.recv_q > 0);
    let is_stopped = |socket: &&ListenerTrace| are_stopped(&e.holders([socket.last.inode]));
    let mut sockets: Vec<_> = waiting().filter(is_stopped).collect();
    if sockets.is_empty() {
        sockets.extend(waiting().filter(|socket| socket.drained == 0));
        let most = sockets.iter().map(|socket| socket.last.recv_q).max()?;
        // The kernel spreads connections evenly: what came to a healthy socket just now is not half of what a stuck one has.
        sockets.retain(|socket| socket.last.recv_q.saturating_mul(2) >= most);
    }
    if sockets.len() == service.sockets.len() {
        return None;
    }
    let owners = e.holders(sockets.iter().map(|socket| socket.last.inode));
    Some(Service { sockets, owners, ..service.clone() })
}

/// Connections that nobody takes from the queue, or where nobody reads although all owners are stopped.
fn waiting(e: &Evidence<'_>, service: &Service<'_>) -> u64 {
    let listening = service.sockets.iter().filter(|socket| socket.in_after);
    let queued = listening.map(|socket| u64::from(socket.last.recv_q)).sum();
    let whole = e.service_on(service.address, service.port);
    // What the owners of other sockets have not read yet is not told apart.
    if !all_stopped(service) || whole.is_some_and(|whole| whole.sockets.len() > service.sockets.len()) {
        return queued;
    }
    let unread = e.groups(GroupKind::Unread).unwrap_or_default();
    let unread = unread.iter().filter(|group| group.accepted && group.port == service.port);
    queued.saturating_add(unread.map(|group| group.sockets).sum())
}

fn all_stopped(service: &Service<'_>) -> bool {
    are_stopped(&service.owners)
}

fn are_stopped(owners: &[&Process]) -> bool {
    !owners.is_empty() && owners.iter().all(|process| matches!(process.state, 'T' | 't'))
}

/// Why this queue does not drain, and how sure that is.
fn why<'a>(e: &Evidence<'_>, service: &Service<'a>, blocked: Option<Confidence>) -> Option<(Why<'a>, Confidence)> {
    let stopped: Vec<_> = service.owners.iter().copied().filter(|p| matches!(p.state, 'T' | 't')).collect();
    if all_stopped(service) {
        return Some((
            Why::Stopped(stopped),
            if service.worst().drained == 0 { numbers::STOPPED } else { numbers::STOPPED_LATE },
        ));
    }
    let worst = service.worst();
    if !queue::never_drained(service) {
        return None;
    }
    let waited = e.longest_in_queue(service).filter(|waited| *waited >= Duration::from_secs(numbers::WAITED_S));
    let seen = if service.owners.is_empty() { numbers::OWNER_NOT_SEEN } else { numbers::WAITED };
    let of_sockets = || waited.map(|waited| (Why::Waiting(waited), seen));
    if !stopped.is_empty() && (worst.last.is_full() || waited.is_some()) {
        return Some((Why::Stopped(stopped), numbers::PARTLY_STOPPED));
    }
    if !worst.last.is_full() {
        return of_sockets();
    }
    if let Some(told) = of_sockets().filter(|_| blocked.is_none()) {
        return Some(told);
    }
    let confidence = blocked?;
    // A queue that filled up within the window has been full for too short a time for the weaker proofs.
    let proved = worst.full_samples == worst.samples || confidence >= numbers::COUNTED;
    let confidence = if service.owners.is_empty() { numbers::OWNER_NOT_SEEN } else { confidence };
    proved.then_some((Why::Blocked, confidence))
}

/// A queue that is refilled between two samples also looks as if it never drained. The kernel counts a PassiveOpen for
/// each connection that enters an accept queue (net/ipv4/tcp_minisocks.c tcp_create_openreq_child), and none enters a full
/// one: opens beyond the growth of all queues mean that somebody accepted.
fn blocked_confidence(e: &Evidence<'_>) -> Option<Confidence> {
    let Ok(opens) = e.counter("Tcp.PassiveOpens") else { return Some(numbers::UNCOUNTED) };
    let services = e.services().ok()?;
    let growth: u64 = services.iter().map(|service| e.queue_growth(service)).sum();
    if opens.delta <= growth {
        return Some(numbers::COUNTED);
    }
    // Somebody accepts. Which listener it was nobody counts, and a queue that is refilled at once looks the same.
    None
}

fn stalled(e: &Evidence<'_>, service: &Service<'_>, why: &Why<'_>, confidence: Confidence) -> Finding {
    let worst = service.worst();
    let waiting = waiting(e, service);
    let overflows = e.counter("TcpExt.ListenOverflows").ok().filter(|overflows| overflows.delta > 0);
    // What the host lost is only known to be lost here if this listener dropped something, or the kernel cannot say.
    let lost = overflows.filter(|_| worst.full_samples > 0 && service.drops() != Some(0));
    let growth = e.queue_growth(service);
    // Who waits for a stopped process waits in vain, however long the queue is.
    let in_vain = match why {
        Why::Stopped(_) if all_stopped(service) => worst.drained == 0,
        // Those that wait do so for seconds.
        Why::Stopped(_) => !worst.last.is_full(),
        Why::Blocked | Why::Waiting(_) => false,
    };
    let waited = match why {
        Why::Waiting(waited) => Some(*waited),
        _ => None,
    };
    let active = in_vain || waited.is_some() || worst.last.is_full() && (lost.is_some() || growth > 0);
    let (state, severity) = match active {
        // One or two may be probes of the same checker.
        true if waited.is_some() && waiting < severity::FEWEST => (State::Active, Severity::Warning),
        true => (State::Active, Severity::Critical),
        false => (State::Risk, Severity::Warning),
    };
    let (in_queue, standing) = if waited.is_some() { (waiting, waiting) } else { (growth, 0) };
    let events = lost.as_ref().map_or(0, |overflows| overflows.delta) + in_queue;
    let impact = Impact { events, per_s: e.rate(events), unit: "connection attempts" };
    let what = match why {
        Why::Stopped(_) => "is stopped and accepts nothing",
        Why::Blocked | Why::Waiting(_) => "accepts nothing",
    };
    let wait = if waiting == 1 { "waits" } else { "wait" };
    let since = waited.map_or_else(String::new, |waited| format!(", the first for {}", words::seconds(waited)));
    let summary = format!("{} {what}: {} {wait}{since}", service.who(), words::counted(waiting, "connection"));
    let mut finding = Finding::new(state, severity, confidence, impact, summary)
        .standing(standing)
        .subject(Subject::listener(service).counted(waiting))
        .evidence(queue::length(service))
        .evidence(EvidenceItem::value(
            "listeners",
            "drained",
            f64::from(worst.drained),
            match worst.drained {
                0 => format!("the queue never got shorter in {}", words::counted(u64::from(worst.samples), "sample")),
                _ => "the queue got shorter earlier in the window, before the stop".to_owned(),
            },
        ));
    if let Some(overflows) = &lost {
        let text = format!("ListenOverflows +{} meanwhile", words::thousands(overflows.delta));
        finding = finding.evidence(EvidenceItem::counter(overflows, text));
    }
    match why {
        Why::Stopped(stopped) => continue_stopped(service, stopped, finding),
        Why::Blocked | Why::Waiting(_) => look_at_blocked(e, service, finding),
    }
}

fn continue_stopped(service: &Service<'_>, stopped: &[&Process], mut finding: Finding) -> Finding {
    for process in stopped.iter().take(4) {
        let how = if process.state == 't' { "stopped by a debugger (state t)" } else { "stopped (state T)" };
        finding = finding
            .evidence(EvidenceItem::fact("owners", "state", format!("{} is {how}", process.label())))
            .subject(Subject::process(process));
    }
    let running = service.owners.len() - stopped.len();
    if running > 0 {
        finding = finding.against(EvidenceItem::fact(
            "owners",
            "state",
            format!("{} not stopped, but took nothing either", words::counted(running as u64, "other owner")),
        ));
    }
    let pids = stopped.iter().map(|process| Name::pid(process.pid));
    let verify = queue::drained(service);
    if stopped.iter().any(|process| process.state == 't') {
        finding = finding.remedy(
            Remedy::new("Detach the debugger that holds the process", verify.clone())
                .command(ShellCommand::new("grep TracerPid").args(pids.clone().map(|pid| ("/proc/", pid, "/status")))),
        );
    }
    if stopped.iter().any(|process| process.state == 'T') {
        finding = finding.remedy(
            Remedy::new("Let the stopped process continue", verify).command(ShellCommand::new("kill -CONT").args(pids)),
        );
    }
    finding
}

fn look_at_blocked(e: &Evidence<'_>, service: &Service<'_>, mut finding: Finding) -> Finding {
    for process in service.owners.iter().take(4) {
        let cpu = busy::time(e, process).map_or_else(String::new, |time| format!(", {time}"));
        let doing = match process.state {
            'D' => "waits for a disk or network file system (state D)",
            'R' => "runs (state R), but not accept()",
            'Z' => "is dead and not yet reaped (state Z)",
            _ => "sleeps (state S)",
        };
        finding = finding.evidence(EvidenceItem::fact("owners", "state", format!("{} {doing}{cpu}", process.label())));
    }
    if let Some(item) = queue::hidden_owner(e, service) {
        finding = finding.against(item);
    }
    let open = service.port_use.and_then(|used| used.by_state.get(&TcpState::Established)).copied().unwrap_or(0);
    let served = open.saturating_sub(waiting(e, service));
    let text = match served {
        0 => "a merely slow application would have shortened the queue at least once".to_owned(),
        // A limit is met at once and for ever, as a deadlock is.
        _ => format!(
            "it has {} open: it may be at a limit of its own on them",
            words::counted(served, "other connection")
        ),
    };
    finding = finding.against(EvidenceItem::fact("listeners", "drained", text));
    // A server whose workers are all busy looks the same: its own limit comes before the search for what blocks it.
    if let Some(capacity) = busy::capacity(known_server(&service.owners), service) {
        finding = finding.remedy(capacity);
    }
    if let Some(process) = service.owners.last() {
        finding = finding.remedy(
            Remedy::new(format!("See what {} waits for", process.label()), "the same wait each time is what blocks it")
                .command(busy::inside(process, false)),
        );
    }
    finding.remedy(
        Remedy::new("Restart it: a blocked accept loop rarely recovers by itself", queue::drained(service))
            .command_if(queue::restart_command(&service.owners))
            .restart(Restart::Service),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::{Case, group, process};
    use crate::source::socket_dump::SocketDump;

    fn full(state: char) -> Case {
        let mut owner = process(4121, "nginx");
        owner.state = state;
        Case::new()
            .counter("TcpExt.ListenOverflows", 0, 40)
            .counter("Tcp.PassiveOpens", 500, 0)
            .listener("0.0.0.0:8080", 128, 129, 60, &owner)
            .listener_drops(40)
    }

    #[test]
    fn a_stopped_owner_of_a_full_queue_is_the_cause() {
        let finding = full('T').finding(&ACCEPT_LOOP_STALLED);
        assert_eq!((finding.state, finding.severity), (State::Active, Severity::Critical));
        assert!(finding.confidence >= 0.95);
        assert_eq!(finding.remedies[0].line().as_deref(), Some("kill -CONT 4121"));
    }

    #[test]
    fn a_blocked_owner_is_likely_and_never_called_stopped() {
        let finding = full('S').finding(&ACCEPT_LOOP_STALLED);
        assert_eq!(finding.state, State::Active);
        assert!((0.7..0.9).contains(&finding.confidence), "{}", finding.confidence);
        assert!(!finding.summary.contains("stopped"));
    }

    /// Out of file descriptors it accepts nothing either.
    #[test]
    fn whose_owner_is_not_seen_is_only_perhaps_stalled() {
        let mut case = full('S');
        for look in [&mut case.host.before, &mut case.host.after] {
            look.owners = crate::value::Observed::Full(crate::source::owners::Owners::default().into());
        }
        let finding = case.finding(&ACCEPT_LOOP_STALLED);
        assert!(finding.confidence <= 0.6, "{}", finding.confidence);
        assert!(
            finding.counter_evidence.iter().any(|item| item.text.contains("out of file descriptors")),
            "{finding:?}"
        );
        assert_eq!(case.missing(&super::super::fd_exhaustion::FD_EXHAUSTION), Some("owners"));
    }

    #[test]
    fn a_slow_server_drains_and_is_not_stalled() {
        let case = full('S').queue(129, 129, 3);
        assert!(matches!(case.judge(&ACCEPT_LOOP_STALLED), Ok(Verdict::RuledOut(_))));
    }

    #[test]
    fn a_queue_refilled_between_samples_is_not_stalled() {
        let case = full('S').counter("Tcp.PassiveOpens", 500, 30);
        assert!(matches!(case.judge(&ACCEPT_LOOP_STALLED), Ok(Verdict::RuledOut(_))));
    }

    /// A hung server with a long backlog loses nothing that a counter tells. Others of the host go on accepting.
    #[test]
    fn who_waits_for_seconds_in_a_long_queue_waits_in_vain() {
        let waiting = |sockets: u64, first_inode: u64, idle_ms: u32, drained: u32| {
            let groups = vec![group(GroupKind::Established, 8080, sockets, first_inode, idle_ms)];
            Case::new()
                .counter("Tcp.PassiveOpens", 500, 90)
                .listener("0.0.0.0:8080", 4096, 1, 0, &process(4121, "lighttpd"))
                .queue(0, sockets as u32, drained)
                .socket_dump(SocketDump::default(), SocketDump { groups, ..SocketDump::default() })
        };
        // Only the first of them, which has the number 0, is without an inode.
        let finding = waiting(4, 0, 9_000, 0).finding(&ACCEPT_LOOP_STALLED);
        assert_eq!((finding.state, finding.severity), (State::Active, Severity::Critical));
        assert_eq!(finding.summary, "lighttpd on 0.0.0.0:8080 accepts nothing: 4 connections wait, the first for 9 s");
        assert_eq!(waiting(2, 0, 9_000, 0).finding(&ACCEPT_LOOP_STALLED).severity, Severity::Warning);
        assert!(waiting(4, 0, 300, 0).is_ruled_out(&ACCEPT_LOOP_STALLED), "it was busy for a moment");
        assert!(waiting(4, 0, 9_000, 1).is_ruled_out(&ACCEPT_LOOP_STALLED), "it is slow");
        assert!(waiting(4, 1, 9_000, 0).is_ruled_out(&ACCEPT_LOOP_STALLED), "they are accepted, and idle");
    }

    fn stopped_redis() -> crate::source::owners::Process {
        let mut owner = process(4121, "redis-server");
        owner.state = 'T';
        owner
    }

    /// Every request hangs, although nothing is lost and the queue is far from full.
    #[test]
    fn clients_of_a_stopped_owner_wait_in_vain_however_short_the_queue() {
        let finding = Case::new().listener("0.0.0.0:6379", 128, 3, 0, &stopped_redis()).finding(&ACCEPT_LOOP_STALLED);
        assert_eq!((finding.state, finding.severity), (State::Active, Severity::Critical));
        let left = group(GroupKind::Unread, 6379, 12, 100, 0);
        let dump = SocketDump { groups: vec![left], ..SocketDump::default() };
        let case = Case::new().listener("0.0.0.0:6379", 128, 0, 0, &stopped_redis()).socket_dump(dump.clone(), dump);
        let finding = case.finding(&ACCEPT_LOOP_STALLED);
        assert_eq!((finding.state, finding.severity), (State::Active, Severity::Critical));
        assert!(finding.summary.ends_with("12 connections wait"), "{}", finding.summary);
    }

    /// Two workers with a socket each, of which the second has `queued` connections in its queue.
    fn reuseport(second: char, queued: u32) -> Case {
        let mut worker = process(4122, "worker");
        worker.state = second;
        let groups = vec![group(GroupKind::Established, 8080, u64::from(queued), 0, 9_000)];
        Case::new()
            .counter("Tcp.PassiveOpens", 500, 90)
            .listener("0.0.0.0:8080", 64, 3, 0, &process(4121, "worker"))
            .queue(0, 0, 9)
            .listener("0.0.0.0:8080", 64, queued, 0, &worker)
            .queue(0, queued, 0)
            .socket_dump(SocketDump::default(), SocketDump { groups, ..SocketDump::default() })
    }

    #[test]
    fn of_sockets_that_share_a_port_the_one_with_the_queue_and_its_owner_are_named() {
        let stopped = reuseport('T', 29).finding(&ACCEPT_LOOP_STALLED);
        assert_eq!(stopped.summary, "worker on 0.0.0.0:8080 is stopped and accepts nothing: 29 connections wait");
        assert_eq!((stopped.severity, stopped.subjects[0].pid), (Severity::Critical, Some(4122)));
        assert_eq!(stopped.remedies[0].line().as_deref(), Some("kill -CONT 4122"));
        let blocked = reuseport('S', 29).finding(&ACCEPT_LOOP_STALLED);
        assert_eq!(blocked.subjects[0].pid, Some(4122));
        let told = blocked.evidence.iter().chain(&blocked.counter_evidence);
        assert!(told.clone().all(|item| !item.text.contains("4121")), "{blocked:?}");
        assert!(reuseport('T', 0).is_ruled_out(&ACCEPT_LOOP_STALLED), "nobody waits for it");
    }

    /// As nginx with `reuseport`: each worker holds the sockets of all, and accepts from its own.
    #[test]
    fn where_others_hold_the_socket_too_the_stopped_one_is_named_before_it_is_full() {
        let mut case = reuseport('T', 29).holder(2, &process(4121, "worker"));
        let finding = case.finding(&ACCEPT_LOOP_STALLED);
        assert_eq!((finding.state, finding.severity), (State::Active, Severity::Critical));
        assert_eq!(finding.remedies[0].line().as_deref(), Some("kill -CONT 4122"));
        assert!(finding.counter_evidence[0].text.starts_with("1 other owner not stopped"), "{finding:?}");
        case.netns.listener_traces.values_mut().for_each(|trace| trace.drained = 3);
        assert!(case.is_ruled_out(&ACCEPT_LOOP_STALLED), "somebody takes from it");
    }

    #[test]
    fn a_stopped_owner_without_clients_harms_nobody() {
        assert!(Case::new().listener("0.0.0.0:6379", 128, 0, 0, &stopped_redis()).is_ruled_out(&ACCEPT_LOOP_STALLED));
    }

    #[test]
    fn one_look_at_a_full_queue_cannot_tell() {
        let mut case = full('S');
        case.netns.listener_traces.values_mut().for_each(|trace| trace.samples = 2);
        assert!(case.judge(&ACCEPT_LOOP_STALLED).is_err());
        assert_eq!(Case::new().judge(&ACCEPT_LOOP_STALLED).expect_err("no listeners").source, "listeners");
    }
}
