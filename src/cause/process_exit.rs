use std::collections::BTreeSet;

use super::numbers::process_exit as numbers;
use super::place::{self, Place};
use super::{EvidenceItem, Finding, Judgement, Remedy, Restart, Severity, Subject, Verdict};
use super::{severity, wording};
use crate::evidence::Evidence;
use crate::source::owners::Process;
use crate::source::reset_events::Direction;
use crate::value::outside::UnitName;
use crate::value::shell::ShellCommand;
use crate::value::{TcpState, words};

cause! {
    /// ## What happens
    ///
    /// A process ends (crash, kill, out of memory, worker timeout, deploy) with connections open. The kernel closes them:
    /// those with unread data by RST at once, the others by FIN, and by RST when the peer sends on.
    ///
    /// ## How it shows
    ///
    /// The owner of a listener is gone, or another process has its number; `TcpExt.TCPAbortOnClose` or `Tcp.OutRsts`
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
    if let Ok(groups) = e.resets_of(PROCESS_EXIT.id, Direction::Sent)
        && !groups.is_empty()
    {
        return Ok(Verdict::Found(place::places(e, &groups).into_iter().map(|place| by_events(e, place)).collect()));
    }
    e.owners_before()?;
    e.owners()?;
    let gone: Vec<_> = e.gone_processes().collect();
    if gone.is_empty() {
        let why = match e.hidden_processes() {
            0 => "every process that listened is still there".to_owned(),
            n => format!(
                "every visible process that listened is still there ({} not visible)",
                words::counted(n, "process")
            ),
        };
        return Ok(Verdict::RuledOut(why));
    }
    let counted = e.estimate().ok();
    // What a dying process leaves behind: unread data, its queue, and answers to peers that send on.
    let resets = counted.map_or(0, |c| c.unread + c.listener_closed + c.rest);
    let unserved: BTreeSet<u16> =
        e.gone_listeners().iter().filter(|gone| !gone.replaced).map(|gone| gone.trace.last.port).collect();
    Ok(Verdict::Found(
        gone.into_iter().map(|(process, ports)| by_owner(e, process, ports, &unserved, resets)).collect(),
    ))
}

fn by_events(e: &Evidence<'_>, place: Place<'_>) -> Finding {
    let harm = place.harm(e);
    let severity = severity::to_clients(e, &harm);
    let summary = format!(
        "{} exited with open connections: {} in {}",
        place.who(e),
        words::counted(place.count, "reset"),
        words::seconds(e.window())
    );
    let finding = wording::active(e, severity, numbers::NAMED, place.count, "resets", summary)
        .subjects(place.subjects(e))
        .evidence(place.item("TCP_ABORT_ON_CLOSE", "a close with unread data"))
        .evidence(EvidenceItem::fact("owners", "pid", "the process that closed them is gone at the end of the window"))
        .harm(harm);
    with_remedies(e, finding, place.task().map(|task| task.name.as_str()), None)
}

fn by_owner(e: &Evidence<'_>, process: &Process, ports: &[u16], unserved: &BTreeSet<u16>, resets: u64) -> Finding {
    let unserved = ports.iter().any(|port| unserved.contains(port));
    let killed = e.moved("oom_kill") > 0;
    // Workers come and go on a healthy host, and so do programs that listen for a moment on a port that the kernel chose:
    // only their resets, or a known port that nobody serves now, are harm.
    let missed = unserved && ports.iter().any(|port| e.is_ephemeral(*port) != Ok(true) || was_in_use(e, *port));
    let severity = match (missed, resets) {
        (true, _) => Severity::Critical,
        (false, severity::FEW..) => severity::of_host(e, resets, "Tcp.PassiveOpens"),
        _ => Severity::Info,
    };
    let confidence = match (unserved, killed, resets > 0) {
        (_, true, _) => numbers::KILLED,
        (true, ..) => numbers::UNSERVED,
        (.., true) => numbers::WITH_RESETS,
        _ => numbers::GONE,
    };
    let mut ports_text = ports.iter().take(5).map(u16::to_string).collect::<Vec<_>>().join(", ");
    if ports.len() > 5 {
        ports_text.push_str(&format!(" and {} more", words::thousands(ports.len() as u64 - 5)));
    }
    let state = if unserved { "nobody serves it now" } else { "the port is still served" };
    let summary = format!("{} exited, it listened on port {ports_text}: {state}", process.label());
    let subject = Subject { port: ports.first().copied(), ..Subject::process(process) };
    let mut finding = wording::active(e, severity, confidence, resets, "resets", summary).subject(subject).evidence(
        EvidenceItem::fact(
            "owners",
            "pid",
            format!("{} held the listener when the window opened and not when it closed", process.label()),
        ),
    );
    if resets > 0 {
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
    with_remedies(e, finding, Some(&process.name), process.unit.as_ref())
}

/// Clients were connected to this port when the window opened.
fn was_in_use(e: &Evidence<'_>, port: u16) -> bool {
    let used = e.socket_dump_before().ok().and_then(|socket_dump| socket_dump.ports.get(&port));
    used.and_then(|used| used.by_state.get(&TcpState::Established)).is_some_and(|connections| *connections > 0)
}

fn with_remedies(e: &Evidence<'_>, finding: Finding, name: Option<&str>, unit: Option<&UnitName>) -> Finding {
    let journal = ShellCommand::new("journalctl --since -10min");
    let journal = match unit {
        Some(unit) => journal.arg("-u").arg(unit),
        None => journal,
    };
    let killed = ShellCommand::new("grep -Ei").arg("killed process|segfault").pipe(ShellCommand::new("tail"));
    let memory = e.moved("oom_kill") > 0;
    let why = Remedy::new(
        format!("Find out why {} ended: crash, kill, memory or a deploy", name.unwrap_or("the process")),
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
    use crate::observation::testing::{Case, process, task};
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
    fn a_worker_that_leaves_quietly_is_no_alarm() {
        let case = Case::new()
            .counter("Tcp.OutRsts", 0, 0)
            .listener("0.0.0.0:9000", 128, 0, 0, &process(977, "app"))
            .died(977);
        assert_eq!(case.finding(&PROCESS_EXIT).severity, Severity::Info);
    }

    #[test]
    fn a_program_that_listened_for_a_moment_on_a_port_of_the_kernels_choice_is_no_alarm() {
        let case = || {
            Case::new()
                .counter("Tcp.OutRsts", 0, 0)
                .sysctl("net.ipv4.ip_local_port_range", "32768\t60999")
                .listener("127.0.0.1:50243", 128, 0, 0, &process(977, "test-server"))
                .died(977)
                .stopped_listening(50_243)
        };
        assert_eq!(case().finding(&PROCESS_EXIT).severity, Severity::Info);
        let used = PortUse { by_state: [(TcpState::Established, 3)].into(), ..PortUse::default() };
        let before = SocketDump { ports: [(50_243, used)].into(), ..SocketDump::default() };
        let finding = case().socket_dump(before, SocketDump::default()).finding(&PROCESS_EXIT);
        assert_eq!(finding.severity, Severity::Critical, "clients were connected");
    }

    #[test]
    fn without_owners_nothing_is_claimed() {
        assert_eq!(Case::new().missing(&PROCESS_EXIT), Some("owners"));
    }
}
