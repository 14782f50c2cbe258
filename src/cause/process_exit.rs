use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::numbers::process_exit as numbers;
use super::place::{self, Place};
use super::{EvidenceItem, Finding, Judgement, Remedy, Restart, Severity, Subject, Verdict};
use super::{severity, signals, wording};
use crate::attribution::Group;
use crate::evidence::Evidence;
use crate::evidence::harm::{Harm, Target};
use crate::knowledge::servers;
use crate::reset::{End, Kind};
use crate::source::owners::Process;
use crate::source::reset_events::{Direction, SignalDeath, Task};
use crate::value::outside::UnitName;
use crate::value::shell::{Name, ShellCommand};
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
    /// jump at one instant. `oom_kill` in /proc/vmstat moves if the kernel killed something for memory.
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
    let repeated = ended_services(e);
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
    findings.extend(repeated.iter().map(|service| keeps_ending(e, service)));
    if !findings.is_empty() {
        return Ok(found(findings));
    }
    e.owners_before()?;
    e.owners()?;
    let gone = by_name_and_ports(e.gone_processes());
    let counted = e.estimate().ok();
    // What a dying process leaves behind: unread data, its queue, and answers to peers that send on.
    let resets = counted.map_or(0, |c| c.unread + c.listener_closed + c.rest);
    if gone.is_empty() {
        let hidden = e.hidden_processes();
        // With hidepid, or from another pid namespace, /proc does not list the process at all.
        let unseen = e.services().is_ok_and(|services| services.iter().any(|service| service.owners.is_empty()));
        if hidden > 0 && resets > 0 {
            let reason =
                format!("{} not visible to this user: one of them may have ended", words::counted(hidden, "process"));
            return Err(Missing { source: "owners", reason, needs: Some("root or CAP_SYS_PTRACE".to_owned()) });
        }
        if unseen && resets > 0 {
            let reason =
                "the owner of a listener is not among the processes that /proc shows: it may have ended".into();
            return Err(Missing { source: "owners", reason, needs: Some("root in the host's pid namespace".into()) });
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
    Ok(found(gone.iter().filter_map(|gone| by_owner(e, gone, &unserved, resets, by_events_known)).collect()))
}

/// A worker that left nobody alone did nothing to those that another one serves.
fn found(mut findings: Vec<Finding>) -> Verdict {
    findings.iter_mut().for_each(|finding| finding.has_symptoms = finding.impact.events > 0);
    Verdict::Found(findings)
}

/// The program behind a port ended more than once in the window, or began and ended in it.
struct EndedService<'a> {
    port: u16,
    ends: Vec<(&'a Task, Duration)>,
    /// How often it ended: workers that end together do that once.
    times: u64,
    refused: u64,
    left: u64,
}

/// Ports whose program keeps ending.
pub fn keep_ending(e: &Evidence<'_>) -> BTreeSet<u16> {
    ended_services(e).iter().map(|service| service.port).collect()
}

fn ended_services<'a>(e: &Evidence<'a>) -> Vec<EndedService<'a>> {
    let closed = e.reset_events().map_or(&[][..], |account| &account.listeners_closed);
    let ports: BTreeSet<u16> = closed.iter().map(|closed| closed.local.port()).collect();
    let service = |port: u16| {
        let ends = e.ended_listeners(port);
        let refused = at_ports(e, Kind::Refused, &[port]);
        let left = at_ports(e, Kind::ListenerClosed, &[port]) + at_ports(e, Kind::Exited, &[port]);
        let apart = |pair: &&[(&Task, Duration)]| {
            pair[1].1.saturating_sub(pair[0].1) >= Duration::from_millis(numbers::APART_MS)
        };
        let times = 1 + ends.windows(2).filter(apart).count() as u64;
        // One that was there when the window opened is told by what it left.
        let began = || !e.services().unwrap_or_default().iter().any(|it| it.port == port && it.listened_before());
        let told = || e.signal_deaths().iter().any(|death| ends.iter().any(|(task, _)| task.pid == death.process.pid));
        let of_interest = !ends.is_empty() && refused + left > 0 && (times > 1 || began() && !told());
        of_interest.then_some(EndedService { port, ends, times, refused, left })
    };
    ports.into_iter().filter_map(service).collect()
}

fn keeps_ending(e: &Evidence<'_>, service: &EndedService<'_>) -> Finding {
    let EndedService { port, ends, times, refused, left } = service;
    let pids: Vec<u32> = ends.iter().map(|(task, _)| task.pid).collect();
    let died: Vec<_> = e.signal_deaths().into_iter().filter(|death| pids.contains(&death.process.pid)).collect();
    let name = ends.last().map_or_else(String::new, |(task, _)| task.name.clone());
    let connects = e.harm_of_connects(Target::Port(*port), *refused);
    let failures = refused + left;
    let attempts = connects.attempts.map(|attempts| attempts.max(failures));
    let harm = Harm { failures, attempts, in_all: failures, burst: None };
    let here = e.attribution().is_ok_and(|all| {
        let mut of_port = all.groups.iter().filter(|group| group.port == Some(*port));
        of_port.all(|group| group.on_loopback())
    });
    let severity = if here { severity::to_callers(e, &harm) } else { severity::to_clients(e, &harm) };
    let asked = !died.is_empty() && died.iter().all(|death| death.was_asked_to());
    // A program that ends again and again is never chance.
    let severity = match *times > 1 && failures >= severity::FEWEST && !asked {
        true => severity.min(Severity::Warning),
        false => severity,
    };
    let how = match died.as_slice() {
        [] => String::new(),
        died => format!(" ({})", signals::how(e, died)),
    };
    let window = words::seconds(e.window());
    let summary = match times {
        1 => format!("{name} on port {port} began to listen and ended again within {window}{how}"),
        times => format!("{name} on port {port} keeps ending and being started again, {times} times in {window}{how}"),
    };
    let summary = format!("{summary}: {} refused or reset", harm.counted("connection"));
    let confidence = if *times > 1 { numbers::KEEPS_ENDING } else { numbers::WITH_KNOWN_RESETS };
    let shown: Vec<String> = pids.iter().take(5).map(u32::to_string).collect();
    let owner = e.service_of_port(*port);
    let askers = place::askers(e, *port);
    let listener = owner.map_or_else(|| Subject { port: Some(*port), ..Subject::host() }, Subject::listener);
    let mut finding = wording::active(e, severity, confidence, failures, "connections", summary)
        .subject(listener)
        .subjects(ends.iter().rev().take(2).map(|(task, _)| Subject { port: Some(*port), ..Subject::task(task) }))
        .evidence(EvidenceItem::value(
            "reset_events",
            "LISTEN",
            pids.len() as f64,
            format!("{name} ended and closed its listener by that: pid {}", shown.join(", ")),
        ));
    for (text, count) in signals::evidence(&died) {
        finding = finding.evidence(EvidenceItem::value("signals", "signal", count as f64, text));
    }
    if died.is_empty() && e.reset_events().is_ok_and(|account| account.reports_signals) {
        let text = "no signal ended it: it exited by itself, and its log says why";
        finding = finding.evidence(EvidenceItem::fact("signals", "signal", text));
    }
    if *refused > 0 {
        let text = format!("{} refused while nobody listened in between", words::counted(*refused, "connect"));
        finding = finding.evidence(EvidenceItem::value("reset_events", "NO_SOCKET", *refused as f64, text));
    }
    if *left > 0 {
        let text = format!("{} left by it to those who were connected or waited", words::counted(*left, "RST"));
        finding = finding.evidence(EvidenceItem::value("reset_events", "exit", *left as f64, text));
    }
    finding = finding.evidence_if(place::asked_by(&askers)).subjects(askers).harm(harm);
    finding = finding.evidence_if(signals::memory(e, &died));
    let finding = match signals::remedy(e, &died) {
        Some(remedy) => finding.remedy(remedy),
        None => finding,
    };
    let unit = owner.and_then(|service| service.owners.iter().find_map(|process| process.unit.as_ref()));
    with_remedies(e, finding, Some(&name), unit, &died)
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
    for (text, count) in signals::evidence(deaths) {
        finding = finding.evidence(EvidenceItem::value("signals", "signal", count as f64, text));
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
    with_remedies(e, finding, Some(&name), signals::unit(e, deaths).as_ref(), deaths)
}

fn by_events(e: &Evidence<'_>, place: Place<'_>) -> Finding {
    let harm = place.harm(e);
    let severity = severity::to_clients(e, &harm);
    let refused = place.port.map_or(0, |port| at_ports(e, Kind::Refused, &[port]));
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
    with_remedies(e, finding, place.task().map(|task| task.name.as_str()), None, &of_place)
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

/// Resets of this kind at these ports.
fn at_ports(e: &Evidence<'_>, kind: Kind, ports: &[u16]) -> u64 {
    let groups = e.attribution().map(|attribution| attribution.groups.as_slice()).unwrap_or_default();
    let here = groups.iter().filter(|group| group.kind == kind);
    here.filter(|group| group.port.is_some_and(|port| ports.contains(&port))).map(|group| group.count).sum()
}

/// `counted`: the RSTs that a process may have left, by the counters; where events tell of each, `by_events_known`, those at its
/// ports are its own and no others.
fn by_owner(
    e: &Evidence<'_>,
    (processes, ports): &Gone<'_>,
    unserved: &BTreeSet<u16>,
    counted: u64,
    by_events_known: bool,
) -> Option<Finding> {
    let process = *processes.first()?;
    let at_its_ports = |kind: Kind| at_ports(e, kind, ports);
    let (left, refused) = match by_events_known {
        true => (at_its_ports(Kind::ListenerClosed) + at_its_ports(Kind::Exited), at_its_ports(Kind::Refused)),
        false => (counted, 0),
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
        _ => Severity::Info,
    };
    let replaced = ports.iter().find_map(|port| signals::replaced(e, *port)).filter(|_| !unserved && !by_events_known);
    let severity = if replaced.is_some() { severity.max(Severity::Warning) } else { severity };
    let confidence = match (unserved, killed, resets > 0) {
        _ if replaced.is_some() => numbers::REPLACED,
        (_, true, _) => numbers::KILLED,
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
    let summary = format!("{label} exited, with a listener on port {ports_text}: {state}");
    let subject = Subject { port: ports.first().copied(), ..Subject::process(process) };
    let mut finding = wording::active(e, severity, confidence, resets, "resets", summary).subject(subject).evidence(
        EvidenceItem::fact(
            "owners",
            "pid",
            format!("{label} held the listener when the window opened and not when it closed"),
        ),
    );
    for (text, count) in signals::evidence(&died) {
        finding = finding.evidence(EvidenceItem::value("signals", "signal", count as f64, text));
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
    } else if resets > 0 {
        finding = finding.against(EvidenceItem::value(
            "snmp",
            "Tcp.OutRsts",
            resets as f64,
            format!("{} in the window may be its own: counters do not say", words::counted(resets, "RST")),
        ));
    }
    if let (true, Ok(reading)) = (killed, e.counter("oom_kill")) {
        finding = finding.evidence(wording::moved(&reading, "the kernel killed a process for lack of memory"));
    }
    finding =
        finding.against(EvidenceItem::fact("owners", "pid", "it may have closed its sockets and live on to drain"));
    let of_these: Vec<_> =
        deaths.into_iter().filter(|death| processes.iter().any(|gone| gone.pid == death.process.pid)).collect();
    Some(with_remedies(e, finding, Some(&process.name), process.unit.as_ref(), &of_these))
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

fn with_remedies(
    e: &Evidence<'_>,
    finding: Finding,
    name: Option<&str>,
    unit: Option<&UnitName>,
    deaths: &[&SignalDeath],
) -> Finding {
    let journal = ShellCommand::new("journalctl --since -10min");
    let unit = unit.and_then(Name::unit);
    let journal = match &unit {
        Some(unit) => journal.arg("-u").arg(unit.clone()),
        None => journal,
    };
    let killed = ShellCommand::new("grep -Ei").arg("killed process|segfault").pipe(ShellCommand::new("tail"));
    let memory = e.moved("oom_kill") > 0;
    let name = name.unwrap_or("the process");
    let why = Remedy::new(
        match signals::sender(deaths) {
            Some((sender, signal)) => format!(
                "Find out why {sender} ended {name} with {signal}: a deploy, a supervisor or a script that does not wait for it"
            ),
            None => format!("Find out why {name} ended: crash, kill, memory or a deploy"),
        },
        "the log names the reason, and rstdoctor scan shows no further exit",
    )
    .command(journal.then(ShellCommand::new("dmesg -T").pipe(killed)));
    let finding = if memory {
        finding.remedy(
            Remedy::new("Give it more memory, or make it use less", "oom_kill in /proc/vmstat stays")
                .command_if(unit.map(|unit| ShellCommand::new("systemctl set-property").arg(unit).arg("MemoryMax=4G"))),
        )
    } else {
        finding
    };
    finding.remedy(why).remedy(
        Remedy::new(
            "For planned restarts: stop accepting, let connections finish, then exit",
            "a restart under load resets nobody in rstdoctor scan",
        )
        .restart(Restart::Service),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::{Case, crashed, process, task};
    use crate::source::socket_dump::{PortUse, SocketDump};

    fn server() -> Case {
        Case::new().counter("Tcp.OutRsts", 0, 20).counter("Tcp.PassiveOpens", 0, 0).listener(
            "0.0.0.0:9000",
            128,
            0,
            0,
            &process(977, "app"),
        )
    }

    fn unread(case: Case) -> Case {
        let ends = ["10.0.0.9:9000", "10.0.3.7:0"];
        case.sent(20, "TCP_ABORT_ON_CLOSE", Some(TcpState::Close), ends, Some(task(977, "app")))
    }

    #[test]
    fn a_killed_server_is_named_and_not_blamed_for_its_closes() {
        let case = unread(server().died(977));
        let finding = case.finding(&PROCESS_EXIT);
        assert_eq!((finding.severity, finding.subjects[1].pid), (Severity::Critical, Some(977)));
        assert!(case.is_ruled_out(&super::super::close_with_unread_data::CLOSE_WITH_UNREAD_DATA));
    }

    #[test]
    fn the_same_resets_by_a_living_process_are_not_this() {
        assert!(unread(server()).is_ruled_out(&PROCESS_EXIT));
    }

    #[test]
    fn without_events_the_missing_owner_tells() {
        let finding = server().died(977).stopped_listening(9000).finding(&PROCESS_EXIT);
        assert_eq!(finding.severity, Severity::Critical);
        assert!(finding.confidence < 0.9 && finding.subjects[0].port == Some(9000));
    }

    #[test]
    fn a_crash_is_harm_where_something_was_served() {
        let severity = |name| {
            let case = crashed(server(), 4242, name);
            case.finding(&PROCESS_EXIT).severity
        };
        assert_eq!(severity("app"), Severity::Warning, "as the owner of port 9000 is called");
        assert_eq!(severity("php-fpm8.2"), Severity::Warning, "reached by a unix socket, in all likelihood");
        assert_eq!(severity("cc1plus"), Severity::Info);
    }

    #[test]
    fn a_worker_that_leaves_quietly_is_no_alarm() {
        let case = Case::new()
            .counter("Tcp.OutRsts", 0, 0)
            .listener("0.0.0.0:9000", 128, 0, 0, &process(977, "app"))
            .died(977);
        assert_eq!(case.finding(&PROCESS_EXIT).severity, Severity::Info);
    }

    #[test]
    fn where_another_process_sent_the_signal_that_one_is_asked() {
        let why = |sender: Option<Task>| {
            let death = SignalDeath {
                at: std::time::Duration::from_secs(1001),
                process: task(977, "app"),
                signal: 9,
                sender,
                netns: None,
                has_siblings: false,
            };
            let finding = unread(server().died(977)).signal_death(death).finding(&PROCESS_EXIT);
            finding.remedies.into_iter().map(|remedy| remedy.text).collect::<Vec<_>>().join("; ")
        };
        let killed = why(Some(task(41, "bash")));
        assert!(killed.contains("Find out why bash (pid 41) ended app with SIGKILL"), "{killed}");
        let unknown = why(None);
        assert!(unknown.contains("Find out why app ended"), "{unknown}");
    }

    /// An ordinary user sees no signals: nginx after a reload, and after a crash of its workers, look alike.
    #[test]
    fn workers_that_others_replaced_are_no_crash_for_certain() {
        let case = |came: bool| {
            let case = Case::new()
                .counter("Tcp.OutRsts", 0, 45)
                .counter("Tcp.PassiveOpens", 0, 65)
                .counter("TcpExt.TCPAbortOnClose", 0, 45)
                .listener("0.0.0.0:9000", 128, 0, 0, &process(977, "nginx"))
                .holder(1, &process(978, "nginx"))
                .died(978);
            if came { case.started(1, &process(990, "nginx")) } else { case }
        };
        let finding = case(true).finding(&PROCESS_EXIT);
        assert!(finding.severity >= Severity::Warning && finding.confidence < 0.5, "{finding:?}");
        assert!(finding.summary.contains("reload"), "{}", finding.summary);
        assert!(case(false).finding(&PROCESS_EXIT).confidence >= 0.5, "nobody came in its place");
    }

    #[test]
    fn a_program_that_listened_for_a_moment_on_a_port_of_the_kernels_choice_is_no_alarm() {
        let case = |sent| {
            Case::new()
                .counter("Tcp.OutRsts", 0, sent)
                .sysctl("net.ipv4.ip_local_port_range", "32768\t60999")
                .listener("127.0.0.1:50243", 128, 0, 0, &process(977, "test-server"))
                .died(977)
                .stopped_listening(50_243)
        };
        assert_eq!(case(0).finding(&PROCESS_EXIT).severity, Severity::Info);
        let used = PortUse { by_state: [(TcpState::Established, 3)].into(), ..PortUse::default() };
        let before = SocketDump { ports: [(50_243, used)].into(), ..SocketDump::default() };
        let severity =
            |sent| case(sent).socket_dump(before.clone(), SocketDump::default()).finding(&PROCESS_EXIT).severity;
        assert_eq!(severity(3), Severity::Critical, "clients were connected");
        assert_eq!(severity(0), Severity::Info, "it ended in order, and reset none of them");
    }

    /// A server with eight clients that ends by this signal, sent by another process.
    fn ended_by(signal: u8) -> Case {
        let used = PortUse { by_state: [(TcpState::Established, 8)].into(), ..PortUse::default() };
        let before = SocketDump { ports: [(9000, used)].into(), ..SocketDump::default() };
        let death = SignalDeath {
            at: Duration::from_secs(1001),
            process: task(977, "app"),
            signal,
            sender: Some(task(1, "systemd")),
            netns: None,
            has_siblings: false,
        };
        let case = Case::new().tracepoints().counter("Tcp.OutRsts", 0, 0);
        let case = case
            .listener("0.0.0.0:9000", 128, 0, 0, &process(977, "app"))
            .died(977)
            .stopped_listening(9000)
            .signal_death(death);
        case.socket_dump(before, SocketDump::default())
    }

    #[test]
    fn a_service_that_is_stopped_as_meant_is_a_note_until_somebody_misses_it() {
        const TERM: u8 = 15;
        let clients = ["10.0.0.9:9000", "10.0.3.7:0"];
        let finding = ended_by(TERM).finding(&PROCESS_EXIT);
        assert_eq!(finding.severity, Severity::Info);
        assert!(finding.evidence.iter().any(|item| item.text.contains("SIGTERM (signal 15), sent by systemd")));
        assert_eq!(ended_by(9).finding(&PROCESS_EXIT).severity, Severity::Critical, "nobody asked it to");
        let refused = ended_by(TERM).counter("Tcp.OutRsts", 0, 3).sent(3, "NO_SOCKET", None, clients, None);
        assert_eq!(refused.finding(&PROCESS_EXIT).severity, Severity::Critical);
        let closed = |asked_last| {
            let mut case = ended_by(TERM).destroyed_sockets(8, clients, 0, 0);
            case = case.each_destroyed(|socket| socket.data_sent_ms = if asked_last { 900 } else { 5 });
            case.finding(&PROCESS_EXIT).severity
        };
        assert_eq!((closed(true), closed(false)), (Severity::Critical, Severity::Info));
    }

    /// node on port 3000 ended at these milliseconds of the window, as often as there are, and 20 connects were refused meanwhile.
    fn crash_loop(ends: &[u64]) -> Case {
        let mut case = Case::new()
            .tracepoints()
            .counter("Tcp.OutRsts", 0, 20)
            .counter("Tcp.PassiveOpens", 0, 30)
            .listener("0.0.0.0:3000", 511, 0, 0, &process(99, "node"))
            .sent(20, "NO_SOCKET", None, ["10.0.0.9:3000", "10.0.3.7:0"], None)
            .packets(20, Direction::Sent, 0x14, 64, ["10.0.0.9:3000", "10.0.3.7:0"])
            .destroyed_sockets(30, ["10.0.0.9:3000", "10.0.3.7:0"], 0, 0);
        case.netns.listener_traces.values_mut().for_each(|trace| trace.in_before = false);
        if let crate::value::Observed::Full(account) = &mut case.host.reset_events {
            account.reports_signals = true;
            for (number, at) in (1..).zip(ends) {
                account.listeners_closed.push(crate::source::reset_events::ListenerClosed {
                    at: Duration::from_millis(1_000_000 + at),
                    local: "0.0.0.0:3000".parse().unwrap(),
                    task: Some(task(number, "node")),
                    netns: None,
                });
                account.ended.push(number);
            }
        }
        case
    }

    #[test]
    fn a_program_that_keeps_ending_is_the_root_of_the_connects_refused_in_between() {
        let case = crash_loop(&[100, 1_300, 2_500]);
        let diagnosis = crate::diagnosis::diagnose(case.view());
        let ids: Vec<_> = diagnosis.causes.iter().map(|cause| cause.id).collect();
        assert_eq!(ids, ["process-exit"]);
        let said =
            "node on port 3000 keeps ending and being started again, 3 times in 3 s: 20 of 50 connections (40 %)";
        assert!(diagnosis.summary.starts_with(said), "{}", diagnosis.summary);
        let finding = &diagnosis.causes[0].finding;
        assert!(finding.evidence.iter().any(|item| item.text.contains("no signal ended it")), "{finding:?}");
        assert!(finding.remedies[0].text.starts_with("Find out why node ended"), "{finding:?}");
        let killed = case.signal_death(SignalDeath {
            at: Duration::from_millis(1_001_300),
            process: task(2, "node"),
            signal: 9,
            sender: Some(task(5, "timeout")),
            netns: None,
            has_siblings: false,
        });
        let finding = killed.finding(&PROCESS_EXIT);
        assert!(finding.summary.contains("3 times in 3 s (killed with SIGKILL (signal 9) by timeout (pid 5))"));
    }

    #[test]
    fn one_that_began_and_ended_within_the_window_ended_once() {
        let finding = crash_loop(&[1_300]).finding(&PROCESS_EXIT);
        assert!(finding.summary.starts_with("node on port 3000 began to listen and ended again within 3 s: 20 of 50"));
        let workers = crash_loop(&[1_300, 1_310, 1_320]).finding(&PROCESS_EXIT);
        assert!(workers.summary.starts_with("node on port 3000 began to listen and ended again"), "{workers:?}");
    }

    #[test]
    fn a_listener_that_its_living_program_closes_is_no_exit() {
        let mut case = crash_loop(&[100, 1_300]);
        if let crate::value::Observed::Full(account) = &mut case.host.reset_events {
            account.ended.clear();
        }
        assert!(case.is_ruled_out(&PROCESS_EXIT));
        let finding = case.finding(&super::super::listener_closed::LISTENER_CLOSED);
        assert!(finding.summary.starts_with("the listener of node on port 3000 comes and goes"), "{finding:?}");
    }

    #[test]
    fn a_child_for_one_connection_that_ends_by_itself_is_no_crash() {
        use super::super::close_with_unread_data::CLOSE_WITH_UNREAD_DATA;
        let case = |listens: u32, pid: u32, each: u16| {
            let mut case = Case::new().tracepoints().counter("Tcp.OutRsts", 0, 4).counter("Tcp.PassiveOpens", 0, 4);
            case =
                case.counter("TcpExt.TCPAbortOnClose", 0, 4).listener("0.0.0.0:22", 128, 0, 0, &process(977, "sshd"));
            case = case.holder(1, &process(listens, "sshd"));
            for number in 0..2 {
                let ends = ["10.0.0.9:22", "10.0.3.7:0"];
                let child = Some(task(pid + number, "sshd"));
                case = case.sent(each, "TCP_ABORT_ON_CLOSE", Some(TcpState::Close), ends, child);
            }
            let Some(events) = case.events.value().cloned() else { panic!("no events") };
            let exiting = |event| crate::source::reset_events::ResetEvent {
                caller: Some(crate::source::reset_events::Caller::Close),
                exiting: true,
                ..event
            };
            case.events = crate::value::Observed::Full(events.into_iter().map(exiting).collect());
            if let crate::value::Observed::Full(account) = &mut case.host.reset_events {
                account.reports_signals = true;
            }
            case
        };
        let turned_away = case(977, 2000, 1);
        assert!(!turned_away.clone().judge(&PROCESS_EXIT).is_ok_and(|found| matches!(found, Verdict::Found(_))));
        let finding = turned_away.clone().finding(&CLOSE_WITH_UNREAD_DATA);
        assert!(finding.summary.starts_with("2 sshd processes on port 22 closed"), "{}", finding.summary);
        assert!(finding.remedies[0].text.starts_with("See in the log of sshd why"), "{finding:?}");
        let killed = turned_away.signal_death(SignalDeath {
            at: Duration::from_secs(1001),
            process: task(2000, "sshd"),
            signal: 9,
            sender: Some(task(1, "bash")),
            netns: None,
            has_siblings: true,
        });
        assert!(killed.finding(&PROCESS_EXIT).summary.contains("exited with open connections"));
        assert!(
            case(977, 2000, 2).finding(&PROCESS_EXIT).summary.contains("exited"),
            "workers, with more than one each"
        );
        assert!(case(2000, 2000, 1).finding(&PROCESS_EXIT).summary.contains("exited"), "a worker, that listened too");
    }

    #[test]
    fn without_owners_nothing_is_claimed() {
        assert_eq!(Case::new().missing(&PROCESS_EXIT), Some("owners"));
    }

    #[test]
    fn a_worker_that_a_reload_ended_did_not_do_what_the_others_did() {
        let case = |reason: &str| {
            Case::new()
                .tracepoints()
                .counter("Tcp.OutRsts", 0, 40)
                .counter("Tcp.PassiveOpens", 0, 100)
                .counter("TcpExt.TCPAbortOnData", 0, 0)
                .listener("0.0.0.0:9000", 128, 0, 0, &process(977, "nginx"))
                .sent(40, reason, None, ["10.0.0.9:9000", "10.0.3.7:0"], None)
                .died(977)
        };
        let reloaded = case("TCP_TIMEWAIT_SOCKET");
        let causes = crate::diagnosis::diagnose(reloaded.view()).causes;
        let ids: Vec<_> = causes.iter().map(|cause| cause.id).collect();
        assert!(ids[0] == "late-data-after-close" && !ids.contains(&"process-exit"), "{ids:?}");
    }
}
