use std::collections::{BTreeMap, BTreeSet};

use super::numbers::connection_limit as numbers;
use super::place::{self, Place};
use super::{Confidence, EvidenceItem, Finding, Judgement, Remedy, Subject, Verdict, Verify};
use super::{commands, exchange, severity, wording};
use crate::attribution::Ended;
use crate::evidence::Evidence;
use crate::evidence::harm::Target;
use crate::reset::{Exchange, Reset};
use crate::source::reset_events::Direction;
use crate::source::socket_dump::{Group, GroupKind};
use crate::value::shell::ShellCommand;
use crate::value::{TcpState, words};

cause! {
    /// ## What happens
    ///
    /// A program has as many connections as it allows itself. It accepts a further one only to close it again within
    /// milliseconds: what the client sent is unread, so the kernel answers with a RST, and the client reads "Connection reset
    /// by peer" before it was served at all. Some say why first: sshd `Exceeded MaxStartups`, redis `-ERR max number of
    /// clients reached`; nginx writes `worker_connections are not enough` to its log.
    ///
    /// ## How it shows
    ///
    /// Sockets that are destroyed within a second of their accept, of whose bytes the program read none; their RSTs have the
    /// reason TCP_ABORT_ON_CLOSE, or TCP_TIMEWAIT_SOCKET where the client sent a moment later. Where the server speaks first
    /// (MySQL's `Too many connections`, an FTP, mail or SSH banner) the client has sent nothing, and there is no RST at all.
    ///
    /// ## How to confirm
    ///
    /// The program's log names its limit; `ss -tn state established sport = :PORT | wc -l` shows how many it has.
    ///
    /// ## What to change
    ///
    /// Raise the program's limit (and its open files with it), or find out who holds the connections: sessions that never log
    /// in, clients without an idle limit, a pool in each of many workers.
    ///
    /// ## Look-alikes
    ///
    /// A rule about who may connect (an allow list, `hosts.deny`) that closes at once. A program that ends each connection
    /// without reading it is broken. A full accept queue never reaches the program (accept-queue-overflow).
    CONNECTION_LIMIT {
        id: "connection-limit",
        title: "Connections turned away by the program",
        explains: ["close-with-unread-data", "late-data-after-close", "abortive-close"],
        needs: [Window, ResetEvents],
        judge: judge,
    }
}

const UNIT: &str = "connections turned away";

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    match e.resets_of(CONNECTION_LIMIT.id, Direction::Sent) {
        Ok(groups) => {
            let places = place::places(e, &groups).into_iter().filter(|place| may_be_limit(e, place));
            let mut findings: Vec<_> = places.map(|place| by_events(e, place)).collect();
            let told: BTreeSet<u16> = groups.iter().filter_map(|group| group.port).collect();
            findings.extend(dismissed(e, &told));
            Ok(Verdict::from_findings(findings, "no connection was reset right after accept with nothing read"))
        }
        // A socket that was closed with unread bytes sent a RST, whether or not that was seen.
        Err(missing) => {
            let mut by_port: BTreeMap<u16, Vec<&Ended<'_>>> = BTreeMap::new();
            // What a process leaves unread when it ends looks the same: who listens, and who ended, must have been seen.
            e.services()?;
            e.owners()?;
            let left: BTreeSet<u16> = e.gone_listeners().iter().map(|gone| gone.trace.last.port).collect();
            let ended_process =
                |port: u16| left.contains(&port) || e.gone_processes().any(|(_, ports)| ports.contains(&port));
            for ended in e.ended().map_err(|_| missing.clone())?.iter().filter(|ended| ended.turned_away()) {
                if ended_process(ended.socket.local.port()) {
                    continue;
                }
                by_port.entry(ended.socket.local.port()).or_default().push(ended);
            }
            by_port.retain(|port, _| may_be_limit(e, &of_port(*port, 0)));
            if by_port.is_empty() { Err(missing) } else { Ok(Verdict::Found(by_sockets(e, by_port))) }
        }
    }
}

fn by_events(e: &Evidence<'_>, place: Place<'_>) -> Finding {
    let resets = exchange::resets(e, &place, Exchange::TurnedAway);
    let confidence = if open(e, &place).is_some() { numbers::OTHERS_STAY } else { numbers::ALL_LEAVE };
    let harm = severity::lately(e, CONNECTION_LIMIT.id, place.harm(e));
    let summary = format!(
        "{} turned away {} right after accept in {}: nothing was read",
        place.who(e),
        harm.counted("connection"),
        words::seconds(e.window())
    );
    let sockets = || resets.iter().filter_map(|reset| reset.ended.as_deref());
    let finding = wording::doubted(
        &place,
        wording::active(e, severity::to_clients(e, &harm), confidence, place.count, UNIT, summary),
    )
    .subjects(place.subjects(e))
    .evidence(closed_unread(sockets().map(|socket| socket.bytes_received.unwrap_or(0))))
    .evidence_if(greeting(&resets))
    .harm(harm);
    with_remedies(e, finding, &place)
}

fn by_sockets(e: &Evidence<'_>, by_port: BTreeMap<u16, Vec<&Ended<'_>>>) -> Vec<Finding> {
    let unread =
        |ended: &[&Ended<'_>]| closed_unread(ended.iter().map(|ended| ended.socket.bytes_received.unwrap_or(0)));
    of_sockets(e, by_port, numbers::BY_SOCKETS, ": nothing was read", unread)
}

/// `how`: the end of the sentence that says what became of them.
fn of_sockets(
    e: &Evidence<'_>,
    by_port: BTreeMap<u16, Vec<&Ended<'_>>>,
    confidence: Confidence,
    how: &str,
    evidence: impl Fn(&[&Ended<'_>]) -> EvidenceItem,
) -> Vec<Finding> {
    let finding = |(port, ended): (u16, Vec<&Ended<'_>>)| {
        let count = ended.len() as u64;
        let harm = severity::lately(e, CONNECTION_LIMIT.id, e.harm(Target::Port(port), count, None));
        let place = of_port(port, count);
        let summary = format!(
            "{} turned away {} right after accept in {}{how}",
            place.who(e),
            harm.counted("connection"),
            words::seconds(e.window())
        );
        let severity = severity::to_clients(e, &harm);
        let finding = wording::active(e, severity, confidence, count, UNIT, summary)
            .subjects(place.service(e).map(|service| Subject::listener(service).counted(count)))
            .evidence(evidence(&ended))
            .harm(harm);
        with_remedies(e, finding, &place)
    };
    by_port.into_iter().map(finding).collect()
}

/// Those that were told why and closed without a RST, at ports where none was reset.
fn dismissed(e: &Evidence<'_>, told: &BTreeSet<u16>) -> Vec<Finding> {
    let mut by_port: BTreeMap<u16, Vec<&Ended<'_>>> = BTreeMap::new();
    for ended in e.ended().unwrap_or_default().iter().filter(|ended| ended.dismissed()) {
        by_port.entry(ended.socket.local.port()).or_default().push(ended);
    }
    by_port.retain(|port, _| !told.contains(port) && may_be_limit(e, &of_port(*port, 0)));
    let greeted = |ended: &[&Ended<'_>]| {
        let sent = ended.iter().filter_map(|ended| ended.socket.bytes_sent).max().unwrap_or_default();
        let text = format!("closed after {} bytes to each, before the client said anything", words::thousands(sent));
        EvidenceItem::value("destroyed_sockets", "bytes_sent", sent as f64, text)
    };
    of_sockets(e, by_port, numbers::DISMISSED, ", with a few words and no RST", greeted)
}

fn of_port<'a>(port: u16, count: u64) -> Place<'a> {
    Place { groups: Vec::new(), count, port: Some(port), called: None }
}

/// What ended a connection before it was served, where the program has no limit as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Without {
    /// The close, with what the client had sent unread.
    Unread,
    /// What the client sent after a close in order.
    LateData,
}

/// Places at which connections ended so, right after accept.
pub fn without_limit<'e>(e: &'e Evidence<'_>, how: Without) -> Vec<Place<'e>> {
    let groups = e.resets_of(CONNECTION_LIMIT.id, Direction::Sent).unwrap_or_default();
    let ended_so = |place: &Place<'_>| {
        let resets = exchange::resets(e, place, Exchange::TurnedAway);
        let late = resets.iter().filter(|reset| e.is_for_late_data(reset));
        (late.count() * 2 > resets.len()) == (how == Without::LateData)
    };
    place::places(e, &groups).into_iter().filter(|place| !may_be_limit(e, place) && ended_so(place)).collect()
}

/// A limit is reached by connections that stay: a program that keeps none, and is not known to have such a limit, closes what it
/// does not want to read for another reason (close-with-unread-data).
fn may_be_limit(e: &Evidence<'_>, place: &Place<'_>) -> bool {
    let known = exchange::server(e, place).is_some_and(|server| server.connections.is_some());
    // Those that are turned away are open for less than a second, too: one that was silent for longer stays.
    let stays = |group: &&Group| group.oldest_idle_ms.is_some_and(|idle| idle >= 1000);
    let established = e.groups(GroupKind::Established).unwrap_or_default();
    let mut here = established.into_iter().filter(|group| group.accepted && Some(group.port) == place.port);
    known || here.any(|group| stays(&group))
}

/// What was turned away at this port is told as a limit, where nothing but the sockets tells of it.
pub fn is_limit_of(e: &Evidence<'_>, port: u16) -> bool {
    may_be_limit(e, &of_port(port, 0))
}

/// How many connections the program has on this port; `None` if it has none, or nobody looked.
fn open(e: &Evidence<'_>, place: &Place<'_>) -> Option<u64> {
    place.service(e).and_then(|service| service.port_use?.by_state.get(&TcpState::Established)).copied()
}

fn closed_unread(bytes: impl Iterator<Item = u64>) -> EvidenceItem {
    let (mut count, mut total) = (0u64, 0u64);
    for one in bytes {
        count += 1;
        total = total.saturating_add(one);
    }
    let text = match (count, total) {
        (0, _) => "the kernel had no room to tell of the single connections".to_owned(),
        (_, 0) => "closed within a second of accept; the clients' first bytes came just after that".to_owned(),
        (_, total) => format!(
            "closed within a second of accept, all {} bytes that {} had sent unread",
            words::thousands(total),
            words::counted(count, "client")
        ),
    };
    EvidenceItem::value("destroyed_sockets", "unread", total as f64, text)
}

fn greeting(resets: &[&Reset]) -> Option<EvidenceItem> {
    let sent = resets.iter().filter_map(|reset| reset.ended.as_ref()?.bytes_sent).max().filter(|sent| *sent > 0)?;
    let text =
        format!("at most {} bytes were sent to each: a greeting, or the line that says why", words::thousands(sent));
    Some(EvidenceItem::value("destroyed_sockets", "bytes_sent", sent as f64, text))
}

fn with_remedies(e: &Evidence<'_>, finding: Finding, place: &Place<'_>) -> Finding {
    let verify = Verify::scan("shows no connection turned away");
    let finding = finding.evidence_if(open(e, place).zip(place.port).map(|(open, port)| {
        let text = format!("{} open on port {port} at the end of the window", words::counted(open, "connection"));
        EvidenceItem::value("sockets", "ESTABLISHED", open as f64, text)
    }));
    let finding = finding.against(EvidenceItem::fact(
        "destroyed_sockets",
        "unread",
        "a rule about who may connect (an allow list) closes alike",
    ));
    let server = exchange::server(e, place);
    let limit = server.and_then(|server| server.connections.as_ref());
    let name = server.map_or("the program", |server| server.name.as_str());
    let admission = server.and_then(|server| server.admission.as_deref());
    let finding = match (admission, place.port) {
        (Some(admission), Some(port)) => {
            let bound = place.service(e).map(|service| service.address).filter(|address| !address.is_unspecified());
            let address = bound.or(place.groups.first().map(|group| group.local));
            let text = format!(
                "Read the line with which {name} turns a client away, from the client's host: it names the limit, or the rule \
                 ({admission})"
            );
            let look = address.map(|address| ShellCommand::new("nc -w 3").arg(address).arg(port));
            finding.remedy(Remedy::new(text, verify.clone()).command_if(look))
        }
        _ => finding,
    };
    // Where none stays it is no limit.
    if admission.is_some() && open(e, place).is_none() {
        return finding;
    }
    let finding = match (limit, place.port) {
        (Some(_), Some(port)) => exchange::with_setting(
            finding,
            format!("Raise the limit of {name} on its connections"),
            limit,
            port,
            &verify,
        ),
        _ => finding.remedy(Remedy::new(
            format!("Look for the limit of {name} on its connections, and for its name in the log: raise it"),
            verify,
        )),
    };
    finding.remedy(
        Remedy::new(
            "See who holds the connections: sessions that never log in, clients without an idle limit, many pools",
            "no address has more of them than it needs",
        )
        .command(commands::most_frequent(
            commands::ss_of("ss -Htn state established", place.port)
                .pipe(ShellCommand::new("awk").arg("{sub(/:[0-9]+$/, \"\", $4); print $4}")),
        )),
    )
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::super::close_with_unread_data::CLOSE_WITH_UNREAD_DATA;
    use super::super::late_data_after_close::LATE_DATA_AFTER_CLOSE;
    use super::*;
    use crate::observation::testing::{Case, group, process, task};
    use crate::source::socket_dump::{PortUse, SocketDump};

    const ENDS: [&str; 2] = ["10.0.0.9:22", "10.0.3.7:0"];
    const AT_REDIS: [&str; 2] = ["10.0.0.9:6379", "10.0.3.7:0"];

    fn turned_away(name: &str, read: u64, age_ms: u32) -> Case {
        let case = Case::new()
            .counter("Tcp.OutRsts", 0, 20)
            .counter("Tcp.PassiveOpens", 0, 20)
            .counter("TcpExt.TCPAbortOnClose", 0, 20)
            .listener("0.0.0.0:22", 128, 0, 0, &process(977, name))
            .sent(20, "TCP_ABORT_ON_CLOSE", Some(TcpState::Close), ENDS, Some(task(977, name)));
        case.destroyed_sockets(20, ENDS, 0, 0).each_destroyed(|socket| {
            (socket.data_sent_ms, socket.data_received_ms) = (age_ms, age_ms);
            (socket.unread, socket.unacknowledged) = (41, 0);
            (socket.bytes_received, socket.bytes_sent) = (Some(41 + read), Some(22));
        })
    }

    /// MySQL says "Too many connections" in 27 bytes and closes; the client's FIN, one byte, stays unread.
    #[test]
    fn who_is_told_so_and_closed_without_a_reset_is_turned_away_too() {
        let of = |name: &str, unread: u32| {
            let case = Case::new()
                .tracepoints()
                .counter("Tcp.OutRsts", 0, 0)
                .counter("Tcp.PassiveOpens", 0, 40)
                .listener("0.0.0.0:22", 128, 0, 0, &process(977, name))
                .destroyed_sockets(40, ENDS, 0, 0);
            case.each_destroyed(move |socket| {
                (socket.data_sent_ms, socket.data_received_ms) = (4, 4);
                (socket.unread, socket.unacknowledged) = (unread, 0);
                (socket.bytes_received, socket.bytes_sent) = (Some(1), Some(27));
            })
        };
        let finding = of("mariadbd", 1).finding(&CONNECTION_LIMIT);
        assert!(
            finding.summary.starts_with("mariadbd (pid 977) on port 22 turned away all 40 connections"),
            "{finding:?}"
        );
        assert_eq!(finding.severity, Severity::Critical);
        assert!(
            of("mariadbd", 0).is_ruled_out(&CONNECTION_LIMIT),
            "it saw the client leave: a check that takes the greeting"
        );
        assert!(of("own-program", 1).is_ruled_out(&CONNECTION_LIMIT), "nothing says that it has such a limit");
    }

    #[test]
    fn a_program_at_its_limit_is_told_with_its_setting() {
        let case = turned_away("sshd", 0, 3);
        let finding = case.finding(&CONNECTION_LIMIT);
        assert!(finding.summary.starts_with("sshd (pid 977) on port 22 turned away all 20 connections"), "{finding:?}");
        assert_eq!(finding.remedies[0].line().as_deref(), Some("MaxStartups 100:30:300"));
        assert!(finding.severity <= Severity::Warning && (0.7..0.9).contains(&finding.confidence));
        assert!(case.is_ruled_out(&CLOSE_WITH_UNREAD_DATA), "and not told twice");
    }

    #[test]
    fn where_others_stay_it_is_a_limit_and_no_rule_and_an_unknown_program_gets_no_invented_setting() {
        let used = PortUse { by_state: [(TcpState::Established, 5)].into(), ..PortUse::default() };
        let of_silence = |idle_ms| {
            let groups = vec![group(GroupKind::Established, 22, 5, 1, idle_ms)];
            let after = SocketDump { ports: [(22, used.clone())].into(), groups, ..SocketDump::default() };
            turned_away("own-server", 0, 3).socket_dump(SocketDump::default(), after)
        };
        // Those that are just being turned away are open for a moment as well.
        assert!(of_silence(10).is_ruled_out(&CONNECTION_LIMIT));
        assert_eq!(of_silence(10).finding(&CLOSE_WITH_UNREAD_DATA).impact.events, 20);
        let finding = of_silence(4_000).finding(&CONNECTION_LIMIT);
        assert!(finding.confidence >= 0.9 && finding.remedies[0].line().is_none(), "{finding:?}");
    }

    /// Redis in protected mode: 56 requests came before the close, 24 after it.
    #[test]
    fn who_may_not_connect_is_told_once_and_led_to_the_line_that_says_why() {
        let of = |sent: u64| {
            let case = Case::new()
                .counter("Tcp.OutRsts", 0, 80)
                .counter("Tcp.PassiveOpens", 0, 80)
                .counter("TcpExt.TCPAbortOnClose", 0, 56)
                .listener("0.0.0.0:6379", 128, 0, 0, &process(977, "redis-server"))
                .sent(56, "TCP_ABORT_ON_CLOSE", Some(TcpState::Close), AT_REDIS, Some(task(977, "redis-server")))
                .sent(80, "TCP_TIMEWAIT_SOCKET", Some(TcpState::TimeWait), AT_REDIS, None);
            let mut case = case.destroyed_sockets(80, AT_REDIS, 0, 0).each_destroyed(move |socket| {
                (socket.data_sent_ms, socket.data_received_ms) = (2, 2);
                (socket.unread, socket.unacknowledged) = (0, 0);
                (socket.bytes_received, socket.bytes_sent) = (Some(0), Some(sent));
            });
            // Of the second reason only those whose connections did not end by the first.
            if let crate::value::Observed::Full(events) = &mut case.events {
                events.drain(56..112);
            }
            case
        };
        let case = of(1_067);
        let finding = case.finding(&CONNECTION_LIMIT);
        assert!(finding.summary.contains("turned away all 80 connections"), "{}", finding.summary);
        let first = &finding.remedies[0];
        assert!(first.text.contains("protected-mode") && first.line().is_some_and(|line| line.starts_with("nc ")));
        assert!(finding.remedies.iter().all(|remedy| !remedy.text.contains("Raise")), "none stays: {finding:?}");
        assert!(case.is_ruled_out(&CLOSE_WITH_UNREAD_DATA) && case.is_ruled_out(&LATE_DATA_AFTER_CLOSE), "told once");
        assert!(of(9_000).is_ruled_out(&CONNECTION_LIMIT), "an answer is no line that says why");
    }

    /// A restart closes an idle connection of a pool in order, and its next request comes too late.
    #[test]
    fn what_came_after_a_close_in_order_was_not_left_unread() {
        let case = Case::new()
            .tracepoints()
            .counter("Tcp.OutRsts", 0, 3)
            .counter("Tcp.PassiveOpens", 0, 60)
            .counter("TcpExt.TCPAbortOnClose", 0, 0)
            .listener("0.0.0.0:22", 128, 0, 0, &process(977, "own-server"))
            .sent(3, "TCP_TIMEWAIT_SOCKET", Some(TcpState::TimeWait), ENDS, None)
            .destroyed_sockets(3, ENDS, 0, 0)
            .each_destroyed(|socket| {
                (socket.data_sent_ms, socket.data_received_ms, socket.unacknowledged) = (700, 700, 0);
                (socket.bytes_received, socket.bytes_sent) = (Some(0), Some(0));
            });
        assert_eq!(case.finding(&LATE_DATA_AFTER_CLOSE).impact.events, 3);
        assert!(case.is_ruled_out(&CLOSE_WITH_UNREAD_DATA) && case.is_ruled_out(&CONNECTION_LIMIT));
    }

    #[test]
    fn who_read_something_or_waited_did_not_turn_away() {
        for case in [turned_away("sshd", 9, 3), turned_away("sshd", 0, 4_000)] {
            assert!(case.is_ruled_out(&CONNECTION_LIMIT));
            assert_eq!(case.finding(&CLOSE_WITH_UNREAD_DATA).impact.events, 20);
        }
    }
}
