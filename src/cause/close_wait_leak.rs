use std::collections::BTreeSet;
use std::time::Duration;

use super::numbers::close_wait_leak as numbers;
use super::{
    EvidenceItem, Finding, Impact, Judgement, Remedy, Restart, Severity, State, Subject, Verdict, Verify, queue,
};
use crate::evidence::Evidence;
use crate::source::owners::Process;
use crate::source::socket_dump::{Group, GroupKind};
use crate::value::shell::ShellCommand;
use crate::value::words;

cause! {
    /// ## What happens
    ///
    /// The peer has closed its side, and the application here never closes its own. The connection stays in CLOSE_WAIT for
    /// ever: no kernel timer ends it. Each holds a file descriptor, until none is left.
    ///
    /// ## How it shows
    ///
    /// The number of CLOSE_WAIT only grows. In the end "Too many open files" and connections that are not accepted. The
    /// application writes to such connections and reads "Connection reset by peer" or "Broken pipe".
    ///
    /// ## How to confirm
    ///
    /// `ss -tanp state close-wait` twice, a minute apart: the same connections are still there.
    ///
    /// ## What to change
    ///
    /// It is a bug in the application: close the connection when read() returns 0, on error paths and in pools too. A
    /// restart frees the descriptors for a while. No sysctl helps.
    ///
    /// ## Look-alikes
    ///
    /// A few CLOSE_WAIT for a moment are normal. Connections in CLOSE_WAIT that were never accepted belong to a full accept
    /// queue (accept-loop-stalled).
    CLOSE_WAIT_LEAK {
        id: "close-wait-leak",
        title: "Connections never closed (CLOSE_WAIT)",
        explains: ["fd-exhaustion"],
        needs: [Sockets],
        judge: judge,
    }
}

/// Silence after which a connection in CLOSE_WAIT counts as forgotten.
const OLD: Duration = Duration::from_secs(60);
/// Even a few of this age were forgotten.
const VERY_OLD: Duration = Duration::from_secs(600);

fn judge(e: &Evidence<'_>) -> Judgement {
    let groups = e.groups(GroupKind::CloseWait)?;
    let findings: Vec<_> = groups.into_iter().filter_map(|group| leak(e, group)).take(4).collect();
    Ok(Verdict::from_findings(findings, "no connection stays in CLOSE_WAIT"))
}

/// Whether most samples were there at the start of the window too. The age of the last data does not tell: it also counts
/// the silence before the peer closed. `None` without a sweep at the start.
fn persisted(e: &Evidence<'_>, group: &Group, before: Option<&Group>) -> Option<bool> {
    e.socket_dump_before().ok()?;
    let Some(before) = before else { return Some(false) };
    let then: BTreeSet<u64> = before.samples.iter().map(|sample| sample.cookie).collect();
    let still = group.samples.iter().filter(|sample| then.contains(&sample.cookie)).count();
    // A group larger than its samples may show other members each time.
    let enough = if group.sockets > group.samples.len() as u64 { 1 } else { group.samples.len().div_ceil(2) };
    Some(still >= enough.max(1))
}

/// Of the connections that were opened in the window, nearly all are left in CLOSE_WAIT.
fn keeps_all(e: &Evidence<'_>, group: &Group, grown: u64) -> bool {
    let opened = e.counter(if group.accepted { "Tcp.PassiveOpens" } else { "Tcp.ActiveOpens" });
    let comparable = e.window() >= Duration::from_secs(1) && e.sweep_before_is_fresh();
    comparable && grown >= numbers::MANY && opened.is_ok_and(|opened| grown * 10 >= opened.delta * 8)
}

fn leak(e: &Evidence<'_>, group: &Group) -> Option<Finding> {
    // A connection that was never accepted has no inode (net/core/sock.c sock_i_ino): the application cannot close it.
    let unaccepted = group.samples.iter().filter(|sample| sample.inode == 0).count();
    if unaccepted * 2 > group.samples.len() {
        return None;
    }
    let before = e.socket_dump_before().ok().and_then(|socket_dump| {
        let same =
            |other: &&Group| other.kind == group.kind && other.port == group.port && other.accepted == group.accepted;
        socket_dump.groups.iter().find(same)
    });
    let sweep_before = e.socket_dump_before().is_ok();
    let grown = match before {
        Some(before) => group.sockets.saturating_sub(before.sockets),
        None if sweep_before => group.sockets,
        None => 0,
    };
    let oldest = group.oldest_idle_ms.map(|ms| Duration::from_millis(u64::from(ms)));
    let older_than = |age: Duration| oldest.is_some_and(|oldest| oldest > age);
    let stays = persisted(e, group, before);
    // A client that closed its side after the request still takes its answer.
    if still_sending(group) {
        return None;
    }
    let many = group.sockets >= numbers::MANY;
    let (severity, confidence) = match stays {
        // All that came in the window were left open: none of them is only passing.
        Some(false) if many && keeps_all(e, group, grown) => (Severity::Warning, numbers::ALL_LEFT),
        Some(false) => return None,
        Some(true) if many && (older_than(OLD) || grown >= numbers::GROWING) => (Severity::Warning, numbers::STAYS),
        Some(true) if many && e.window() >= Duration::from_secs(1) => (Severity::Warning, numbers::STAYS_SO_FAR),
        None if many && older_than(OLD) => (Severity::Warning, numbers::SEEN_ONCE),
        Some(true) if group.sockets >= numbers::SOME && older_than(VERY_OLD) => (Severity::Info, numbers::FORGOTTEN),
        _ => return None,
    };
    let owners = e.holders(group.samples.iter().map(|sample| sample.inode));
    // The leak is the present harm where it has used up the descriptors.
    let used_up = owners.iter().copied().find(|process| {
        let limit = process.open_files_limit.unwrap_or(u64::MAX);
        process.open_files.is_some_and(|open| open >= limit && group.sockets * 2 >= limit)
    });
    let (state, severity) = match used_up {
        Some(_) => (State::Active, Severity::Critical),
        None => (State::Risk, severity),
    };
    Some(describe(
        e,
        group,
        &owners,
        grown,
        oldest,
        Finding::new(
            state,
            severity,
            confidence,
            Impact { events: grown, per_s: e.rate(grown), unit: "connections" },
            format!(
                "{} does not close {} that the peer has closed",
                owners.first().map_or_else(|| format!("a program {}", place(group)), |p| p.label()),
                words::counted(group.sockets, "connection")
            ),
        )
        .standing(group.sockets),
    ))
}

fn place(group: &Group) -> String {
    if group.accepted { format!("on port {}", group.port) } else { format!("towards port {}", group.port) }
}

fn describe(
    e: &Evidence<'_>,
    group: &Group,
    owners: &[&Process],
    grown: u64,
    oldest: Option<Duration>,
    mut finding: Finding,
) -> Finding {
    let growth = match grown {
        0 => String::new(),
        grown => format!(", {} more in {}", words::thousands(grown), words::seconds(e.window())),
    };
    let port = Some(group.port);
    finding.subjects = owners.iter().take(4).map(|process| Subject { port, ..Subject::process(process) }).collect();
    if owners.is_empty() {
        finding.subjects.push(Subject { port, ..Subject::host() });
    }
    finding = finding.evidence(EvidenceItem::value(
        "sockets",
        "close_wait",
        group.sockets as f64,
        format!("{} in CLOSE_WAIT {}{growth}", words::counted(group.sockets, "socket"), place(group)),
    ));
    if let Some(oldest) = oldest {
        let text = format!("the oldest has been silent for {}", words::seconds(oldest));
        finding = finding.evidence(EvidenceItem::value("sockets", "idle_ms", oldest.as_millis() as f64, text));
    }
    for process in owners.iter().take(2) {
        if let (Some(open), Some(limit)) = (process.open_files, process.open_files_limit) {
            let text = format!(
                "{} has {} files open of {} allowed",
                process.label(),
                words::thousands(open),
                words::thousands(limit)
            );
            finding = finding.evidence(EvidenceItem::value("owners", "open_files", open as f64, text));
        }
    }
    if owners.is_empty() && e.hidden_processes() > 0 {
        finding = finding.against(EvidenceItem::fact(
            "owners",
            "denied",
            "who holds them is not visible to you: run as root",
        ));
    }
    if e.socket_dump_before().is_err() {
        finding = finding.against(EvidenceItem::fact("sockets", "close_wait", "seen once only: they may be passing"));
    }
    let side = if group.accepted { "sport" } else { "dport" };
    let list = ShellCommand::new("ss -tanp state close-wait").arg((side, " = :", group.port));
    finding
        .remedy(
            Remedy::new(
                "Fix the program: it must close a connection when read() returns 0, on error paths too",
                "the list stays empty",
            )
            .command(list.clone()),
        )
        .remedy(
            Remedy::new("Until then restart it before its descriptors run out", Verify::by(list, "shows none"))
                .command_if(queue::restart_command(owners))
                .restart(Restart::Service),
        )
}

/// Data still flows on nearly all of them.
fn still_sending(group: &Group) -> bool {
    let idle = || group.samples.iter().filter_map(|sample| sample.idle_ms);
    let all = idle().count();
    let fresh = idle().filter(|idle| *idle < numbers::FLOWING_MS).count();
    fresh > 0 && fresh * 5 >= all * 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::{Case, group, process};
    use crate::source::socket_dump::SocketDump;

    /// Groups of this many sockets before and after, with cookies from the given numbers on.
    fn case(before: (u64, u64), after: (u64, u64), idle_ms: u32) -> Case {
        let socket_dump = |(sockets, cookie): (u64, u64)| SocketDump {
            groups: vec![group(GroupKind::CloseWait, 8080, sockets, cookie, idle_ms)],
            ..SocketDump::default()
        };
        Case::new().socket_dump(socket_dump(before), socket_dump(after)).holder(1000, &process(977, "api"))
    }

    #[test]
    fn many_that_stay_are_a_leak_with_its_owner() {
        let finding = case((40, 1000), (46, 1000), 90_000).finding(&CLOSE_WAIT_LEAK);
        assert_eq!((finding.state, finding.severity), (State::Risk, Severity::Warning));
        assert_eq!(finding.subjects[0].pid, Some(977));
    }

    #[test]
    fn others_each_time_are_passing_even_after_long_silence() {
        let case = case((40, 1000), (40, 5000), 90_000);
        assert!(matches!(case.judge(&CLOSE_WAIT_LEAK), Ok(Verdict::RuledOut(_))));
    }

    #[test]
    fn a_few_for_a_moment_are_fine() {
        assert!(matches!(case((4, 1000), (4, 1000), 2_000).judge(&CLOSE_WAIT_LEAK), Ok(Verdict::RuledOut(_))));
    }

    #[test]
    fn never_accepted_ones_belong_to_the_accept_queue() {
        let mut case = case((40, 1000), (40, 1000), 90_000);
        if let crate::value::Observed::Full(socket_dump) = &mut case.netns.after.socket_dump {
            let socket_dump = std::sync::Arc::make_mut(socket_dump);
            socket_dump.groups[0].samples.iter_mut().for_each(|sample| sample.inode = 0);
        }
        assert!(matches!(case.judge(&CLOSE_WAIT_LEAK), Ok(Verdict::RuledOut(_))));
    }

    #[test]
    fn a_leak_that_used_up_the_descriptors_is_active() {
        let mut owner = process(977, "api");
        owner.open_files = Some(64);
        owner.open_files_limit = Some(64);
        let finding = case((40, 1000), (50, 1000), 90_000).holder(1000, &owner).finding(&CLOSE_WAIT_LEAK);
        assert_eq!((finding.state, finding.severity), (State::Active, Severity::Critical));
    }

    #[test]
    fn without_the_sweep_nothing_is_claimed() {
        assert_eq!(Case::new().judge(&CLOSE_WAIT_LEAK).expect_err("no sweep").source, "sockets");
    }
}
