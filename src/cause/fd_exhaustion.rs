use std::collections::BTreeSet;

use super::numbers::fd_exhaustion as numbers;
use super::{
    EvidenceItem, Finding, Impact, Judgement, Remedy, Severity, State, Subject, Verdict, Verify, commands, queue,
};
use crate::evidence::Evidence;
use crate::evidence::service::Service;
use crate::knowledge::servers;
use crate::source::owners::{self, Process};
use crate::source::socket_dump::GroupKind;
use crate::value::shell::{Name, ShellCommand};
use crate::value::{Missing, words};

cause! {
    /// ## What happens
    ///
    /// Every connection needs a file descriptor. When the process is at its limit (RLIMIT_NOFILE), accept() fails with
    /// "Too many open files" (EMFILE) and the connections stay in the accept queue, until that overflows too. The host has
    /// a limit as well (`fs.file-max`, ENFILE).
    ///
    /// ## How it shows
    ///
    /// "Too many open files" in the log. Recv-Q of the listener grows while the overflow counters are still flat. Clients
    /// connect and then get no answer.
    ///
    /// ## How to confirm
    ///
    /// `ls /proc/PID/fd | wc -l` is at the soft limit in `grep 'open files' /proc/PID/limits`.
    ///
    /// ## What to change
    ///
    /// Raise the limit of the service (`LimitNOFILE=` in its unit, and the program's own setting if it has one). The ulimit
    /// of a shell is not the limit of a service. Look for a leak: many CLOSE_WAIT, or a number that only grows.
    ///
    /// ## Look-alikes
    ///
    /// A full queue with descriptors left is a slow or stalled application (accept-queue-overflow, accept-loop-stalled).
    FD_EXHAUSTION {
        id: "fd-exhaustion",
        title: "Out of file descriptors",
        explains: ["accept-loop-stalled", "accept-queue-overflow", "syn-queue-overflow"],
        needs: [Listeners, Owners],
        judge: judge,
    }
}

fn judge(e: &Evidence<'_>) -> Judgement {
    let services = e.services();
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    let (mut hidden, mut unseen) = (false, false);
    let nobody = services.as_deref().unwrap_or_default().iter().any(|service| service.owners.is_empty());
    for service in services.as_deref().unwrap_or_default().iter().filter(|service| service.listens_now()) {
        hidden |= service.owners.is_empty() && e.hidden_processes() > 0;
        unseen |= service.owners.is_empty() && service.worst().max_recv_q > 0;
        hidden |= service.owners.iter().any(|process| process.open_files.is_none());
        let near: Vec<_> =
            service.owners.iter().copied().filter(|p| share(p).is_some_and(|share| share >= numbers::NEAR)).collect();
        let waits = service.worst().last.recv_q > 0;
        // A process with several listeners is reported for each one where clients wait, else once.
        if !near.is_empty() && (waits || near.iter().any(|process| !seen.contains(&process.pid))) {
            seen.extend(near.iter().map(|process| process.pid));
            findings.push(listener(e, service, &near));
        }
    }
    let owners = e.owners();
    for process in owners.iter().flat_map(|owners| owners.processes.values()) {
        if at_limit(process) && seen.insert(process.pid) {
            findings.push(client(e, process));
        }
    }
    let host = e.file_nr();
    if let Ok((allocated, max)) = host
        && max > 0
        && allocated as f64 / max as f64 >= numbers::NEAR
    {
        findings.push(whole_host(e, allocated, max));
    }
    if !findings.is_empty() {
        return Ok(Verdict::Found(findings));
    }
    services?;
    owners?;
    if hidden {
        return Err(Missing {
            source: "owners",
            reason: "the open files of some owners of listeners are not visible".into(),
            needs: e.needs(owners::NEEDS),
        });
    }
    if unseen {
        return Err(Missing {
            source: "owners",
            reason: "clients wait at a listener whose owner is not among the processes that /proc shows".into(),
            needs: e.needs_all_processes(),
        });
    }
    let why = match nobody {
        true => "every owner that is seen has file descriptors left, and no client waits at a listener without one",
        false => "every owner of a listener has file descriptors left",
    };
    Ok(Verdict::RuledOut(why.into()))
}

/// Open files as a share of the soft limit; `None` when either is unknown, and for a sandbox, which lowers its limit so far that
/// no new descriptor can be had, on purpose (sshd before a log-in: 1).
fn share(process: &Process) -> Option<f64> {
    const SANDBOX: u64 = 8;
    let (open, limit) = (process.open_files?, process.open_files_limit?);
    (limit >= SANDBOX).then(|| open as f64 / limit as f64)
}

/// The next descriptor would be the limit: fs/file.c alloc_fd takes the lowest free number and refuses numbers at or above
/// the soft limit.
fn at_limit(process: &Process) -> bool {
    share(process).is_some_and(|share| share >= 1.0)
}

fn listener(e: &Evidence<'_>, service: &Service<'_>, near: &[&Process]) -> Finding {
    let worst = service.worst();
    let exhausted: Vec<_> = near.iter().copied().filter(|process| at_limit(process)).collect();
    let overflows = e.counter("TcpExt.ListenOverflows").ok().filter(|overflows| overflows.delta > 0);
    let lost = overflows.filter(|_| worst.full_samples > 0 && service.drops() != Some(0));
    let waiting = u64::from(worst.last.recv_q);
    let stuck = worst.drained == 0 || worst.full_samples > 0;
    let active = !exhausted.is_empty() && waiting > 0 && stuck;
    let events = waiting + lost.as_ref().map_or(0, |overflows| overflows.delta);
    let first = near.iter().copied().find(|process| at_limit(process)).or(near.first().copied());
    let numbers = first.map(files).unwrap_or_default();
    let (state, severity, confidence, summary) = match (active, exhausted.is_empty()) {
        (true, _) => (
            State::Active,
            Severity::Critical,
            if exhausted.len() == service.owners.len() || worst.drained == 0 {
                numbers::CANNOT_ACCEPT
            } else {
                numbers::SOME_CANNOT_ACCEPT
            },
            format!("{} is out of file descriptors ({numbers}): it cannot accept", service.who()),
        ),
        (false, false) => (
            State::Risk,
            Severity::Warning,
            numbers::NEAR_LIMIT,
            format!("{} is at its limit of open files ({numbers}): the next accept() fails", service.who()),
        ),
        (false, true) => (
            State::Risk,
            Severity::Warning,
            numbers::NEAR_LIMIT,
            format!("{} is close to its limit of open files ({numbers})", service.who()),
        ),
    };
    let impact = Impact {
        events: if active { events } else { 0 },
        per_s: if active { e.rate(events) } else { 0.0 },
        unit: "connection attempts",
    };
    let mut finding = Finding::new(state, severity, confidence, impact, summary)
        .standing(if active { waiting } else { 0 })
        .subject(Subject::listener(service));
    for process in near.iter().take(4) {
        finding = finding.subject(Subject::process(process)).evidence(open_files(process));
    }
    if waiting > 0 {
        finding = finding.evidence(queue::length(service));
    }
    match &lost {
        Some(overflows) => {
            let text = format!("ListenOverflows +{} meanwhile", words::thousands(overflows.delta));
            finding = finding.evidence(EvidenceItem::counter(overflows, text));
        }
        None if active => {
            finding = finding.evidence(EvidenceItem::fact(
                "netstat",
                "TcpExt.ListenOverflows",
                "no overflow yet: the queue still holds those who wait",
            ));
        }
        None => {}
    }
    let healthy = service.owners.len() - exhausted.len();
    if active && healthy > 0 {
        finding = finding.against(EvidenceItem::fact(
            "owners",
            "open_files",
            format!("{} of the listener not at the limit", words::counted(healthy as u64, "owner")),
        ));
    }
    remedies(e, near, finding)
}

/// A process without a waiting listener: its own socket() and open() fail.
fn client(e: &Evidence<'_>, process: &Process) -> Finding {
    let summary =
        format!("{} is at its limit of open files ({}): it can open no connection", process.label(), files(process));
    let impact = Impact { events: 0, per_s: 0.0, unit: "connection attempts" };
    let finding = Finding::new(State::Risk, Severity::Warning, numbers::NEAR_LIMIT, impact, summary)
        .subject(Subject::process(process))
        .evidence(open_files(process));
    remedies(e, &[process], finding)
}

fn whole_host(e: &Evidence<'_>, allocated: u64, max: u64) -> Finding {
    let waiting: u64 = e.services().unwrap_or_default().iter().map(|s| u64::from(s.worst().last.recv_q)).sum();
    let full = allocated >= max;
    let (state, severity, confidence) = match full && waiting > 0 {
        true => (State::Active, Severity::Critical, numbers::HOST),
        false => (State::Risk, Severity::Warning, numbers::NEAR_LIMIT),
    };
    let numbers = format!("{} of {}", words::thousands(allocated), words::thousands(max));
    let summary = format!("the host is {} open files ({numbers})", if full { "out of" } else { "nearly out of" });
    let impact = Impact { events: if full { waiting } else { 0 }, per_s: 0.0, unit: "connection attempts" };
    let wanted = max.saturating_mul(2);
    let standing = impact.events;
    Finding::new(state, severity, confidence, impact, summary)
        .standing(standing)
        .subject(Subject::host())
        .evidence(EvidenceItem::value(
            "file_nr",
            "allocated",
            allocated as f64,
            format!("fs.file-nr: {numbers} in use"),
        ))
        .remedy(Remedy::sysctl(
            "Raise the limit of the whole host, and find who holds so many",
            "fs.file-max",
            wanted,
            Verify::by(ShellCommand::new("cat /proc/sys/fs/file-nr"), format!("ends in {wanted}")),
        ))
}

fn files(process: &Process) -> String {
    match (process.open_files, process.open_files_limit) {
        // The listing of /proc/PID/fd can hold one that is just being opened, or more than a limit that was lowered.
        (Some(open), Some(limit)) if open >= limit => format!("all {}", words::thousands(limit)),
        (Some(open), Some(limit)) => format!("{} of {}", words::thousands(open), words::thousands(limit)),
        _ => "unknown".to_owned(),
    }
}

fn open_files(process: &Process) -> EvidenceItem {
    let text = format!("{} has {} files open that it may have", process.label(), files(process));
    EvidenceItem::value("owners", "open_files", process.open_files.unwrap_or(0) as f64, text)
}

fn remedies(e: &Evidence<'_>, near: &[&Process], mut finding: Finding) -> Finding {
    let Some(first) = near.first() else { return finding };
    for process in near.iter().take(4) {
        let close_wait: u64 = leaked(e, process);
        if close_wait > 0 {
            finding = finding.evidence(EvidenceItem::value(
                "sockets",
                "close_wait",
                close_wait as f64,
                format!(
                    "about {} sockets of its port in CLOSE_WAIT, those in the queue included: see close-wait-leak",
                    words::thousands(close_wait)
                ),
            ));
        }
    }
    let limit = near.iter().filter_map(|process| process.open_files_limit).max().unwrap_or(1024);
    let wanted = (limit.saturating_mul(4)).max(65_536);
    let nofile = (("--nofile=", wanted), ":", wanted);
    let now = match near {
        [process] => ShellCommand::new("prlimit --pid").arg(Name::pid(process.pid)).arg(nofile),
        // Each pid becomes the argument of --pid.
        _ => ShellCommand::new("echo")
            .args(near.iter().map(|process| Name::pid(process.pid)))
            .pipe(ShellCommand::new("xargs -n1 prlimit").arg(nofile).arg("--pid")),
    };
    let limits = ShellCommand::new("grep").arg("open files").arg(("/proc/", Name::pid(first.pid), "/limits"));
    let verify = Verify::by(limits, format!("shows {wanted}, and Recv-Q falls in ss -lnt"));
    let mut raise =
        Remedy::new("Raise the limit of the running process, and for its next start", verify.clone()).command(now);
    let unit = near.iter().find_map(|process| process.unit.as_ref()).filter(|unit| unit.is_service());
    if let Some(unit) = unit.and_then(Name::unit) {
        raise = raise.persist(keep_limit(&unit, wanted));
    }
    finding = finding.remedy(raise);
    if let Some((server, setting)) = servers::server_of(first).and_then(|s| Some((s, s.open_files.as_ref()?))) {
        finding = finding.remedy(
            Remedy::new(format!("Raise the limit that {} sets for itself", server.name), verify)
                .setting(setting.clone()),
        );
    }
    finding.remedy(
        Remedy::new("Look for a leak: which kind of file grows", "the number stays flat under a steady load").command(
            commands::most_frequent(
                ShellCommand::new("ls -l")
                    .arg(("/proc/", Name::pid(first.pid), "/fd"))
                    .pipe(ShellCommand::new("awk").arg("{print $NF}"))
                    .pipe(ShellCommand::new("cut -d: -f1")),
            ),
        ),
    )
}

/// Raises the limit of a service by a drop-in, for its next start.
fn keep_limit(unit: &Name, limit: u64) -> ShellCommand {
    let below = |rest| ("/etc/systemd/system/", unit.clone(), rest);
    let text = ShellCommand::new("printf").arg(("[Service]\\nLimitNOFILE=", limit, "\\n"));
    ShellCommand::new("mkdir -p")
        .arg(below(".d"))
        .and(text.into_file(below(".d/90-nofile.conf")))
        .and(ShellCommand::new("systemctl daemon-reload"))
}

/// CLOSE_WAIT sockets of the groups of which this process holds a sample.
fn leaked(e: &Evidence<'_>, process: &Process) -> u64 {
    let groups = e.groups(GroupKind::CloseWait).unwrap_or_default();
    groups
        .iter()
        .filter(|group| e.holders(group.samples.iter().map(|s| s.inode)).iter().any(|holder| holder.pid == process.pid))
        .map(|group| group.sockets)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::{Case, process};
    use crate::source::host_facts::HostFacts;
    use crate::source::owners::Owners;
    use crate::value::Observed;
    use crate::value::outside::UnitName;

    fn with_files(open: u64, recv_q: u32) -> Case {
        let mut owner = process(4121, "nginx");
        owner.open_files = Some(open);
        owner.unit = UnitName::parse("my\\x2dapp.service");
        Case::new().counter("TcpExt.ListenOverflows", 0, 0).listener("0.0.0.0:8080", 511, recv_q, 0, &owner)
    }

    #[test]
    fn a_sandbox_that_forbids_descriptors_on_purpose_is_none() {
        let sandbox = Process { open_files: Some(6), open_files_limit: Some(1), ..process(4121, "sshd") };
        assert!(Case::new().listener("0.0.0.0:22", 128, 0, 0, &sandbox).is_ruled_out(&FD_EXHAUSTION));
    }

    #[test]
    fn at_the_limit_with_waiting_clients_is_found_before_any_overflow() {
        let finding = with_files(1024, 40).finding(&FD_EXHAUSTION);
        assert_eq!((finding.state, finding.severity), (State::Active, Severity::Critical));
        assert!(finding.confidence >= 0.9);
        assert_eq!(finding.remedies[0].line().as_deref(), Some("prlimit --pid 4121 --nofile=65536:65536"));
        let persist = finding.remedies[0].persist_in(false).expect("a drop-in").to_string();
        assert!(
            persist.starts_with("mkdir -p '/etc/systemd/system/my\\x2dapp.service.d' && printf '[Service]\\nLimit"),
            "{persist}"
        );
        assert!(finding.remedies[1].line().as_deref().is_some_and(|line| line.starts_with("worker_rlimit_nofile")));
    }

    #[test]
    fn a_long_queue_with_descriptors_left_is_not_this() {
        assert!(matches!(with_files(600, 400).judge(&FD_EXHAUSTION), Ok(Verdict::RuledOut(_))));
    }

    #[test]
    fn near_the_limit_without_a_queue_is_a_risk() {
        assert_eq!(with_files(990, 0).finding(&FD_EXHAUSTION).state, State::Risk);
    }

    #[test]
    fn a_drained_queue_at_the_limit_is_a_risk_only() {
        assert_eq!(with_files(1024, 1).queue(3, 1, 5).finding(&FD_EXHAUSTION).state, State::Risk);
    }

    #[test]
    fn the_host_without_files_is_found() {
        let finding = with_files(10, 4).file_nr(1000, 1000).finding(&FD_EXHAUSTION);
        assert_eq!((finding.state, finding.subjects[0].kind), (State::Active, super::super::SubjectKind::Host));
    }

    #[test]
    fn an_owner_that_proc_does_not_list_has_not_got_descriptors_left() {
        let mut case = Case::new().listener("0.0.0.0:8080", 511, 40, 0, &process(4121, "nginx"));
        for snapshot in [&mut case.host.before, &mut case.host.after] {
            snapshot.owners = Observed::Full(Owners::default().into());
        }
        let missing = case.judge(&FD_EXHAUSTION).expect_err("not seen");
        assert_eq!((missing.source, missing.needs.as_deref()), ("owners", Some("root in the host's pid namespace")));
        case.host.after.facts.uid = Some(0);
        assert_eq!(case.judge(&FD_EXHAUSTION).expect_err("not seen").needs, None, "root is not told to become root");
        case.host.after.facts.in_user_namespace = true;
        assert!(case.judge(&FD_EXHAUSTION).expect_err("not seen").needs.is_some());
    }

    #[test]
    fn invisible_descriptors_are_missing_not_fine() {
        let mut owner = process(4121, "nginx");
        owner.open_files = None;
        let mut case = Case::new().listener("0.0.0.0:8080", 511, 40, 0, &owner);
        let missing = case.judge(&FD_EXHAUSTION).expect_err("hidden");
        assert_eq!(missing.needs.as_deref(), Some("root or CAP_SYS_PTRACE with CAP_DAC_READ_SEARCH"));
        case.host.after.facts = HostFacts { uid: Some(0), in_user_namespace: true, ..HostFacts::default() };
        let missing = case.judge(&FD_EXHAUSTION).expect_err("hidden");
        assert!(missing.needs.is_some_and(|needs| needs.contains("on the host: this is a user namespace")));
    }
}
