use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::numbers::process_exit as numbers;
use super::place::{self, Place};
use super::{EvidenceItem, Finding, Judgement, Severity, Subject, Verdict};
use super::{exit_remedies, keep_ending, severity, signals, wording};
use crate::attribution::Group;
use crate::evidence::Evidence;
use crate::evidence::estimate::Estimate;
use crate::knowledge::servers;
use crate::reset::{End, Kind};
use crate::source::owners::{self, Process};
use crate::source::reset_events::{Direction, SignalDeath, Task};
use crate::value::{Missing, TcpState, words};

cause! {
    /// ## What happens
    ///
    /// A process ends (crash, kill, out of memory, worker timeout, deploy) with connections open. The kernel closes them:
    /// those with unread data by RST at once, the others by FIN, and by RST when the peer sends on.
    ///
    /// ## How it shows
    ///
    /// As root each signal that ends a process is seen (signal:signal_deliver), with who sent it: a fault of its own (SIGSEGV),
    /// the out-of-memory killer, a parent that ends a worker which does not answer (gunicorn `WORKER TIMEOUT`). Else: the owner
    /// of a listener is gone, or another process has its number; `TcpExt.TCPAbortOnClose` or `Tcp.OutRsts`
    /// jump at one instant. What it had closed before is told apart by time: a process that ends closes all that it has in one
    /// moment (sock_diag's multicast of destroyed sockets). `oom_kill` in /proc/vmstat moves if the kernel killed something for
    /// memory.
    ///
    /// ## How to confirm
    ///
    /// `journalctl --since -10min`, `dmesg -T | grep -Ei 'killed process|segfault'`, `coredumpctl list`.
    ///
    /// ## What to change
    ///
    /// Repair the crash or raise the memory limit. For planned restarts: stop accepting, drain, then exit (SIGTERM, SIGQUIT
    /// for nginx; `TimeoutStopSec=` long enough).
    ///
    /// ## Look-alikes
    ///
    /// Worker recycling by design (max_requests), a deploy. A process that closes its listener and lives on to drain.
    PROCESS_EXIT {
        id: "process-exit",
        title: "Process exited with open connections",
        explains: ["listener-closed", "port-without-listener", "close-with-unread-data", "stale-connection", "late-data-after-close"],
        needs: [Window, Owners],
        judge: judge,
    }
}

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    let told = e.resets_of(PROCESS_EXIT.id, Direction::Sent);
    let by_events_known = told.is_ok();
    let groups = told.unwrap_or_default();
    let repeated = keep_ending::services(e);
    let of_repeated = |pid: u32| repeated.iter().any(|service| service.ends.iter().any(|(task, _)| task.pid == pid));
    let mut workers = signals::ended_workers(e);
    workers.retain(|death| !of_repeated(death.process.pid));
    let is_worker = |task: &Task| workers.iter().any(|death| death.process.pid == task.pid);
    // A thread that ends last closes what the process had, under its own number.
    let ports = signals::ports(e, &workers);
    let of_worker =
        |place: &Place<'_>| place.tasks().any(is_worker) || place.port.is_some_and(|port| ports.contains(&port));
    let of_service = |place: &Place<'_>| repeated.iter().any(|service| Some(service.port) == place.port);
    let of_others = |place: &Place<'_>| of_worker(place) || of_service(place) || is_of_children(e, place);
    let places = place::places(e, &groups).into_iter().filter(|place| !of_others(place));
    let mut findings: Vec<Finding> = places.map(|place| by_events(e, place)).collect();
    let died = signals::by_name(&workers);
    findings.extend(died.into_iter().map(|deaths| by_signal(e, &deaths, &groups)));
    findings.extend(repeated.iter().map(|service| keep_ending::finding(e, service)));
    if !findings.is_empty() {
        return Ok(found(findings));
    }
    e.owners_before()?;
    e.owners()?;
    let gone = by_name_and_ports(e.gone_processes());
    let counted = e.estimate().unwrap_or_default();
    // What a dying process leaves behind: unread data, its queue, and answers to peers that send on.
    let resets = counted.unread + counted.listener_closed + counted.rest;
    if gone.is_empty() {
        let hidden = e.hidden_processes();
        // With hidepid, or from another pid namespace, /proc does not list the process at all.
        let unseen = e.services().is_ok_and(|services| services.iter().any(|service| service.owners.is_empty()));
        if hidden > 0 && resets > 0 {
            let reason =
                format!("{} not visible to this user: one of them may have ended", words::counted(hidden, "process"));
            return Err(Missing { source: "owners", reason, needs: e.needs(owners::NEEDS) });
        }
        if unseen && resets > 0 {
            let reason =
                "the owner of a listener is not among the processes that /proc shows: it may have ended".into();
            return Err(Missing { source: "owners", reason, needs: e.needs_all_processes() });
        }
        let why = match hidden == 0 && !unseen {
            true => "every process that listened is still there",
            false => {
                "no RST was sent that a process could have left, and every visible process that listened is still there"
            }
        };
        return Ok(Verdict::RuledOut(why.to_owned()));
    }
    let unserved: BTreeSet<u16> =
        e.gone_listeners().iter().filter(|gone| !gone.replaced).map(|gone| gone.trace.last.port).collect();
    Ok(found(gone.iter().filter_map(|gone| by_owner(e, gone, &unserved, &counted, by_events_known)).collect()))
}

/// A worker that left nobody alone did nothing to those that another one serves.
fn found(mut findings: Vec<Finding>) -> Verdict {
    findings.iter_mut().for_each(|finding| finding.has_symptoms = finding.impact.events > 0);
    Verdict::Found(findings)
}

/// Processes of one name that a signal ended while they served.
fn by_signal(e: &Evidence<'_>, deaths: &[&SignalDeath], groups: &[&Group]) -> Finding {
    let count = deaths.len() as u64;
    let ports = signals::ports(e, deaths);
    let theirs = |group: &&&Group| {
        let by_task = group.task.as_ref().is_some_and(|task| deaths.iter().any(|death| death.process.pid == task.pid));
        by_task || group.port.is_some_and(|port| ports.contains(&port))
    };
    let resets: u64 = groups.iter().filter(theirs).map(|group| group.count).sum();
    let (name, how) = (signals::name(deaths), signals::how(e, deaths));
    let port = ports.iter().next().copied();
    let on_port = port.map_or_else(String::new, |port| format!(" of port {port}"));
    let summary = format!(
        "{}{on_port} died in {}: {how}",
        match count {
            1 => format!("{name} (pid {})", deaths.first().map_or(0, |death| death.process.pid)),
            _ => words::counted(count, &format!("{name} process")),
        },
        words::seconds(e.window())
    );
    // A crash is never chance, however few they are.
    let dead = ports.iter().any(|port| signals::is_dead(e, *port));
    // A known server may be reached by a unix socket; of others without a port nobody knows that they serve.
    let serves = || !ports.is_empty() || resets > 0 || servers::server_named(&name).is_some();
    let severity = match dead {
        true => Severity::Critical,
        false if serves() => Severity::Warning,
        false => Severity::Info,
    };
    let subject = |death: &&SignalDeath| Subject { port, ..Subject::task(&death.process) };
    let mut finding = wording::active(e, severity, numbers::BY_SIGNAL, count, "processes", summary)
        .subjects(deaths.iter().take(3).map(subject));
    for item in signals::evidence(deaths) {
        finding = finding.evidence(item);
    }
    if resets > 0 {
        let text =
            format!("{} left by them, to connections whose requests they had not read", words::counted(resets, "RST"));
        finding = finding.evidence(EvidenceItem::value("reset_events", "TCP_ABORT_ON_CLOSE", resets as f64, text));
    }
    finding = finding.evidence_if(signals::memory(e, deaths));
    let finding = match signals::remedy(e, deaths) {
        Some(remedy) => finding.remedy(remedy),
        None => finding,
    };
    exit_remedies::added(e, finding, Some(&name), signals::unit(e, deaths).as_ref(), deaths)
}

fn by_events(e: &Evidence<'_>, place: Place<'_>) -> Finding {
    let harm = severity::lately(e, PROCESS_EXIT.id, place.harm(e));
    let severity = severity::to_clients(e, &harm);
    let refused = place.port.map_or(0, |port| place::resets_at(e, Kind::Refused, &[port]));
    let then = match refused {
        0 => String::new(),
        refused => format!(", then {} refused", words::counted(refused, "connect")),
    };
    let summary = format!(
        "{} exited with open connections: {}{then} in {}",
        place.who(e),
        words::counted(place.count, "reset"),
        words::seconds(e.window())
    );
    let deaths = e.signal_deaths();
    let died = |task: &Task| deaths.iter().copied().find(|death| death.process.pid == task.pid);
    let of_place: Vec<_> = place.tasks().filter_map(died).collect();
    let (severity, summary) = match of_place.as_slice() {
        [] => (severity, summary),
        died => {
            let crash = died.iter().any(|death| death.is_crash() || signals::out_of_memory(e, death));
            let severity = if crash { severity.min(Severity::Warning) } else { severity };
            (severity, format!("{summary} ({})", signals::how(e, died)))
        }
    };
    let finding =
        wording::doubted(&place, wording::active(e, severity, numbers::NAMED, place.count, "resets", summary))
            .subjects(place.subjects(e))
            .evidence(place.item("TCP_ABORT_ON_CLOSE", "a close with unread data"))
            .evidence(EvidenceItem::fact(
                "owners",
                "pid",
                "the process that closed them is gone at the end of the window",
            ))
            .harm(harm);
    let doubt = EvidenceItem::fact(
        "signals",
        "signal",
        "no signal is known to have ended them, and their parent serves the port still: a child for each connection ends so where a \
         rule turns the client away, or where what it calls refuses",
    );
    let finding = finding.against_if((of_place.is_empty() && is_child(e, &place)).then_some(doubt));
    exit_remedies::added(e, finding, place.task().map(|task| task.name.as_str()), None, &of_place)
}

/// Places at which processes ended that their program makes for one connection each, as sshd does: they turned the client away
/// or ended its session, which is no crash.
pub fn by_children<'e>(e: &'e Evidence<'_>) -> Vec<Place<'e>> {
    let groups = e.resets_of(PROCESS_EXIT.id, Direction::Sent).unwrap_or_default();
    place::places(e, &groups).into_iter().filter(|place| is_of_children(e, place)).collect()
}

/// Each ended by itself with one connection, none held the listener, and their parent listens on. Whether a signal ended them must
/// be known.
fn is_of_children(e: &Evidence<'_>, place: &Place<'_>) -> bool {
    let Ok(owners) = e.owners_before() else { return false };
    let signals_known = e.reset_events().is_ok_and(|account| account.reports_signals);
    let mut connections: BTreeMap<u32, u64> = BTreeMap::new();
    for group in &place.groups {
        let Some(task) = &group.task else { return false };
        *connections.entry(task.pid).or_default() += group.count;
    }
    let listened = |pid: &u32| {
        let mut sockets = place.service(e).into_iter().flat_map(|service| &service.sockets);
        sockets.any(|socket| owners.by_inode.get(&socket.last.inode).is_some_and(|pids| pids.contains(pid)))
    };
    let died = |pid: &u32| e.signal_deaths().iter().any(|death| death.process.pid == *pid);
    let for_one = |(pid, count): (&u32, &u64)| *count == 1 && !listened(pid) && !died(pid);
    signals_known && is_child(e, place) && connections.iter().all(for_one)
}

/// A process of the same name listens there still.
fn is_child(e: &Evidence<'_>, place: &Place<'_>) -> bool {
    let service = place.service(e).filter(|service| service.listens_now());
    service.is_some_and(|service| {
        place.tasks().all(|task| service.owners.iter().any(|owner| owner.name == task.name && owner.pid != task.pid))
    })
}

/// Processes of one name that left the same ports; the first stands for all.
type Gone<'a> = (Vec<&'a Process>, &'a [u16]);

fn by_name_and_ports<'a>(gone: impl Iterator<Item = (&'a Process, &'a [u16])>) -> Vec<Gone<'a>> {
    let mut all: BTreeMap<(&str, &[u16]), Vec<&Process>> = BTreeMap::new();
    for (process, ports) in gone {
        all.entry((process.name.as_str(), ports)).or_default().push(process);
    }
    all.into_iter().map(|((_, ports), processes)| (processes, ports)).collect()
}

/// `counted`: the RSTs of the window, by the counters; where events tell of each, `by_events_known`, those at its ports are its
/// own and no others.
fn by_owner(
    e: &Evidence<'_>,
    (processes, ports): &Gone<'_>,
    unserved: &BTreeSet<u16>,
    counted: &Estimate,
    by_events_known: bool,
) -> Option<Finding> {
    let process = *processes.first()?;
    let at_its_ports = |kind: Kind| place::resets_at(e, kind, ports);
    let unread = e.at_exit(ports).map(|exit| exit.unread.min(counted.unread));
    // Where the time does not tell them apart, what it closed while it lived is as likely.
    let perhaps = if unread.is_none() && !by_events_known { counted.unread } else { 0 };
    let (left, refused) = match by_events_known {
        true => (at_its_ports(Kind::ListenerClosed) + at_its_ports(Kind::Exited), at_its_ports(Kind::Refused)),
        false => (unread.unwrap_or(0) + counted.listener_closed + counted.rest, 0),
    };
    let resets = left + refused;
    let label = match processes.len() {
        1 => process.label(),
        many => words::counted(many as u64, &format!("{} process", process.name)),
    };
    let unserved = ports.iter().any(|port| unserved.contains(port));
    let killed = e.moved("oom_kill") > 0;
    // Workers come and go on a healthy host, and so do programs that listen for a moment on a port that the kernel chose:
    // only their resets, or a known port that nobody serves now, are harm.
    // A program that did its work and ended while nobody called harmed nobody.
    let known = ports.iter().any(|port| e.is_ephemeral(*port) != Ok(true));
    // One that ended in order, and whose clients were neither reset nor refused, harmed nobody either.
    let in_use = || ports.iter().any(|port| was_in_use(e, *port));
    let deaths = e.signal_deaths();
    let died: Vec<_> =
        deaths.iter().copied().filter(|death| processes.iter().any(|gone| gone.pid == death.process.pid)).collect();
    // Who is asked to end, and does, was stopped on purpose: that is harm only to those that it left without an answer.
    let crashed = killed || died.iter().any(|death| !death.was_asked_to());
    if by_events_known && resets == 0 && !unserved && !crashed {
        return None;
    }
    let unanswered = died.iter().map(|death| death.at).min().map_or(0, |since| left_unanswered(e, ports, since));
    let missed = unserved && (resets > 0 && (known || in_use()) || (crashed || unanswered > 0) && in_use());
    let severity = match (missed, resets) {
        (true, _) => Severity::Critical,
        (false, severity::FEW..) => severity::of_host(e, resets, "Tcp.PassiveOpens"),
        _ if unserved && perhaps > 0 && (known || in_use()) => Severity::Warning,
        _ => Severity::Info,
    };
    let replaced = ports.iter().find_map(|port| signals::replaced(e, *port)).filter(|_| !unserved && !by_events_known);
    let severity = if replaced.is_some() { severity.max(Severity::Warning) } else { severity };
    let confidence = match (unserved, killed, resets > 0) {
        _ if replaced.is_some() => numbers::REPLACED,
        (_, true, _) => numbers::KILLED,
        (.., false) if perhaps > 0 => numbers::GONE,
        (true, ..) => numbers::UNSERVED,
        (.., true) if by_events_known => numbers::WITH_KNOWN_RESETS,
        (.., true) => numbers::WITH_RESETS,
        _ => numbers::GONE,
    };
    let mut ports_text = ports.iter().take(5).map(u16::to_string).collect::<Vec<_>>().join(", ");
    if ports.len() > 5 {
        ports_text.push_str(&format!(" and {} more", words::thousands(ports.len() as u64 - 5)));
    }
    let state = match (unserved, refused) {
        _ if replaced.is_some() => "others of its name took over, as in a reload or after a crash".to_owned(),
        (true, _) => "nobody serves it now".to_owned(),
        (false, 0) => "the port is still served".to_owned(),
        (false, refused) => {
            let connects = words::counted(refused, "connect");
            format!("{connects} {} refused until it was served again", words::were(refused))
        }
    };
    // By FIN, with which the kernel closes what has nothing unread: harm that no reset tells of.
    let cut = match (resets, unanswered) {
        (0, unanswered @ 1..) => {
            format!(", and {} closed with a request under way", words::counted(unanswered, "connection"))
        }
        _ => String::new(),
    };
    let summary = format!("{label} exited, with a listener on port {ports_text}: {state}{cut}");
    let subject = Subject { port: ports.first().copied(), ..Subject::process(process) };
    let mut finding = wording::active(e, severity, confidence, resets, "resets", summary).subject(subject).evidence(
        EvidenceItem::fact(
            "owners",
            "pid",
            format!("{label} held the listener when the window opened and not when it closed"),
        ),
    );
    for item in signals::evidence(&died) {
        finding = finding.evidence(item);
    }
    if unanswered > 0 {
        let text = format!("{} closed before its request was answered", words::counted(unanswered, "connection"));
        finding = finding.evidence(EvidenceItem::value("destroyed_sockets", "under_way", unanswered as f64, text));
    }
    if by_events_known && resets > 0 {
        let text = match (left, refused) {
            (left, 0) => format!("{} left by it to those who were connected or waited", words::counted(left, "RST")),
            (0, refused) => format!("{} refused at its port after that", words::counted(refused, "connect")),
            (left, refused) => format!(
                "{} left by it to those who were connected or waited, then {} refused",
                words::counted(left, "RST"),
                words::counted(refused, "connect")
            ),
        };
        finding = finding.evidence(EvidenceItem::value("reset_events", "LISTEN", resets as f64, text));
    }
    if let Some(unread @ 1..) = unread.filter(|_| !by_events_known) {
        let text = format!("{} closed with unread data in the moment of its end", words::counted(unread, "connection"));
        finding = finding.evidence(EvidenceItem::value("destroyed_sockets", "unread", unread as f64, text));
    }
    let unplaced = resets - unread.unwrap_or(0).min(resets) + perhaps;
    if unplaced > 0 && !by_events_known {
        finding = finding.against(EvidenceItem::value(
            "snmp",
            "Tcp.OutRsts",
            unplaced as f64,
            format!("{} in the window may be its own: counters do not say", words::counted(unplaced, "RST")),
        ));
    }
    if let (true, Ok(reading)) = (killed, e.counter("oom_kill")) {
        finding = finding.evidence(wording::moved(&reading, "the kernel killed a process for lack of memory"));
    }
    finding =
        finding.against(EvidenceItem::fact("owners", "pid", "it may have closed its sockets and live on to drain"));
    let of_these: Vec<_> =
        deaths.into_iter().filter(|death| processes.iter().any(|gone| gone.pid == death.process.pid)).collect();
    Some(exit_remedies::added(e, finding, Some(&process.name), process.unit.as_ref(), &of_these))
}

/// Connections of these ports that this side closed from then on while a request was waiting for its answer.
fn left_unanswered(e: &Evidence<'_>, ports: &[u16], since: Duration) -> u64 {
    let closed = e.ended().unwrap_or_default().iter().filter(|ended| ended.called.is_none() && ended.end == End::Other);
    let theirs = closed.filter(|ended| ports.contains(&ended.socket.local.port()) && ended.socket.at >= since);
    theirs.filter(|ended| ended.socket.bytes_received > Some(0) && ended.under_way()).count() as u64
}

/// Clients were connected to this port when the window opened.
fn was_in_use(e: &Evidence<'_>, port: u16) -> bool {
    let used = e.socket_dump_before().ok().and_then(|socket_dump| socket_dump.ports.get(&port));
    used.and_then(|used| used.by_state.get(&TcpState::Established)).is_some_and(|connections| *connections > 0)
}

#[cfg(test)]
mod tests;
