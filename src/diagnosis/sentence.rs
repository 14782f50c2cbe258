//! The verdict as one plain sentence or two.

use std::collections::BTreeSet;
use std::time::Duration;

use super::verdict::blind;
use super::{ListenerRow, Status, weighs};
use crate::cause::Severity;
use crate::diagnosis::filter::{Filter, is_host_wide};
use crate::diagnosis::rank::Ranked;
use crate::evidence::Evidence;
use crate::evidence::ledger::{Account, Ledger, Line};
use crate::value::words;

/// Nothing is wrong with what was asked for, which does not mean that nothing is wrong.
pub(super) fn narrow(
    evidence: &Evidence<'_>,
    filter: &Filter,
    listeners: &[ListenerRow],
    elsewhere: &[&str],
) -> String {
    let mut text = format!("Nothing wrong was seen with {filter} in {}", words::seconds(evidence.window()));
    if listeners.is_empty() {
        text.push_str("; no listener of it is visible");
    }
    text.push('.');
    if !elsewhere.is_empty() {
        text.push_str(&on_this_host(elsewhere));
    }
    text
}

fn on_this_host(elsewhere: &[&str]) -> String {
    format!(" Elsewhere on this host: {} (scan without the filter).", elsewhere.join(", "))
}

/// Of a process that shows nowhere nobody can say that it is well.
pub(super) fn unseen(evidence: &Evidence<'_>, filter: &Filter, causes: &[Ranked]) -> String {
    let window = words::seconds(evidence.window());
    let none = match (&filter.process, filter.pid) {
        (Some(name), Some(pid)) => format!("No TCP socket of a process {name} with pid {pid} was seen in {window}"),
        (Some(name), None) => format!("No process {name} with a TCP socket was seen in {window}"),
        (None, pid) => format!("No TCP socket of pid {} was seen in {window}", pid.unwrap_or_default()),
    };
    let mut text = format!("{none}: no listener, and none of the connections that were looked at.");
    match (evidence.owners().is_err(), evidence.hidden_processes()) {
        (true, _) => text.push_str(" Whose the sockets are could not be read."),
        (false, 0) => {}
        (false, hidden) => text
            .push_str(&format!(" The sockets of {} are not visible to this user.", words::counted(hidden, "process"))),
    }
    let near: Vec<_> = filter.near_names(evidence).into_iter().take(3).collect();
    if !near.is_empty() {
        text.push_str(&format!(" Seen with a similar name: {}.", near.join(", ")));
    }
    if let Some(first) = causes.iter().find(|cause| weighs(&cause.finding)) {
        text.push_str(&format!(" Host-wide: {}.", first.finding.summary));
    }
    text
}

/// How many more causes are to be dealt with: what follows from the first is none.
fn others(causes: &[Ranked]) -> usize {
    let root = |mut place: usize| {
        // No chain is longer than the list.
        for _ in causes {
            let Some(deeper) = causes.get(place).and_then(|cause| cause.because_of) else { break };
            place = deeper.place;
        }
        place
    };
    let alarms = causes
        .iter()
        .enumerate()
        .filter(|(_, cause)| cause.finding.state.is_now() && cause.finding.severity <= Severity::Warning);
    alarms.map(|(place, _)| root(place)).filter(|root| *root != 0).collect::<BTreeSet<_>>().len()
}

/// What was found, or that nothing was.
pub(super) fn whole(
    evidence: &Evidence<'_>,
    filter: &Filter,
    status: Status,
    causes: &[Ranked],
    elsewhere: &[&str],
) -> String {
    match status {
        Status::Critical | Status::Warning => {
            let host_wide = causes.first().is_some_and(|first| is_host_wide(&first.finding)) && !filter.is_empty();
            worst(causes, host_wide.then_some(filter), false)
        }
        Status::Ok | Status::Unknown if evidence.totals_only() => {
            "Only totals since boot were read: they cannot say whether anything is wrong now.".to_owned()
        }
        Status::Unknown if !blind(evidence) => {
            let unplaced = || evidence.unplaced().map(|unplaced| unplaced.text());
            let lost = || {
                let lost = words::counted(evidence.lost_unexplained()?, "connection attempt");
                Some(format!("{lost} lost, and no counter says why"))
            };
            let unassigned = || {
                let sent = words::counted(evidence.unassigned()?, "RST");
                Some(format!("{sent} sent by this host, and without reset events nothing says whether by {filter}"))
            };
            let text = evidence.unbalanced().map(|unbalanced| unbalanced.text());
            let text = text.or_else(unplaced).or_else(lost).or_else(unassigned).unwrap_or_default();
            let other = if elsewhere.is_empty() { String::new() } else { on_this_host(elsewhere) };
            format!("{text}: a fault may be among them.{other}")
        }
        Status::Unknown => "Too little could be read from this kernel to say whether connections are lost.".to_owned(),
        Status::Ok => {
            let moved = |name: &str| evidence.counter(name).ok().map(|reading| reading.delta);
            healthy(evidence.ledger(), causes, evidence.window(), &moved)
        }
    }
}

/// Of a capture in which nothing is wrong, or nothing is.
pub(super) fn capture(evidence: &Evidence<'_>, status: Status, causes: &[Ranked]) -> String {
    let Some(flows) = evidence.flows() else { return String::new() };
    if status == Status::Unknown {
        return match flows.packets {
            0 => "The capture holds no packets.".to_owned(),
            packets if !flows.unread.is_empty() => format!(
                "The capture holds {}, and none that can be read: its link layer is not known here.",
                words::counted(packets, "packet")
            ),
            packets => format!("The capture holds {}, and none of TCP.", words::counted(packets, "packet")),
        };
    }
    let all = words::counted(flows.connections, "connection");
    let harmless = match flows.resets {
        0 => "none of them reset or refused".to_owned(),
        resets => format!("{}, all harmless", words::counted(resets, "RST")),
    };
    let known = causes.iter().any(|cause| cause.finding.severity < Severity::Info);
    let noted = causes.iter().find(|cause| cause.finding.state.is_now()).filter(|_| !known);
    match noted {
        Some(noted) => format!("{all}, and no fault that stands out; noted: {}.", noted.finding.summary),
        None if flows.told.iter().any(|told| told.readings.is_empty() && told.flow.reset_count() > 0) => {
            format!("{all}; {}, and no fault shows in them.", words::counted(flows.resets, "RST"))
        }
        None => format!("{all}; {harmless}."),
    }
}

/// The first cause, and how many more there are. `asked`: it is about the whole host, and only this was asked for. `located`: say
/// where it is.
pub(super) fn worst(causes: &[Ranked], asked: Option<&Filter>, located: bool) -> String {
    let Some(first) = causes.first() else { return String::new() };
    let finding = &first.finding;
    // A shared limit or a counter without an address: it may hit what was asked for, and is not its doing.
    let found = match (asked, &finding.location) {
        (Some(filter), _) => format!("Host-wide, so {filter} may be affected too: {}", finding.summary),
        (None, Some(location)) if located && !finding.tells_place => format!("In {location}: {}", finding.summary),
        (None, _) => finding.sentence(),
    };
    match others(causes) {
        0 => format!("{found}."),
        n => format!("{found}. {} below.", words::counted(n as u64, "further cause")),
    }
}

/// Nothing was found. `moved`: by how much a counter moved.
pub(super) fn healthy(
    ledger: &Ledger,
    causes: &[Ranked],
    window: Duration,
    moved: &dyn Fn(&str) -> Option<u64>,
) -> String {
    format!("{}{} Packets dropped on the way are not visible here.", account(ledger, causes, window), activity(moved))
}

/// Of a text that tells of nothing that happens now.
pub(super) fn text(evidence: &Evidence<'_>, causes: &[Ranked]) -> String {
    let first = causes.iter().find(|cause| weighs(&cause.finding)).or(causes.first());
    match first {
        Some(first) if evidence.hints().iter().any(|hint| hint.id == first.id) => {
            format!("By the text: {}. Whether it still happens it does not say.", first.finding.summary)
        }
        Some(first) => format!("{}. Whether it still happens the text does not say.", first.finding.sentence()),
        None => "Nothing in the text tells of refused, lost or reset connections.".to_owned(),
    }
}

/// What was sent and lost, as far as it was counted.
fn account(ledger: &Ledger, causes: &[Ranked], window: Duration) -> String {
    let window = words::seconds(window);
    let sent = match ledger.sent.total.as_ref().ok().copied() {
        None => "No fault was found".to_owned(),
        Some(0) => match received_and_noted(ledger, causes) {
            Some(n) => {
                let (received, were) = (words::counted(n, "RST"), words::were(n));
                format!("{received} {were} received, worth a note and no more; none was sent")
            }
            None => "No RST was sent".to_owned(),
        },
        Some(n) if is_noted(&ledger.sent, causes) => {
            format!("{} {} sent, worth a note and no more", words::counted(n, "RST"), words::were(n))
        }
        Some(1) => "1 RST was sent, and no known fault is behind it".to_owned(),
        Some(n) => format!("{} were sent, and no known fault is behind them", words::counted(n, "RST")),
    };
    match ledger.dropped.total.as_ref().ok().copied() {
        None => format!("{sent}, in {window}."),
        Some(0) if ledger.sent.total == Ok(0) => format!("{sent} and no connection attempt lost in {window}."),
        Some(0) => format!("{sent}; no connection attempt was lost, in {window}."),
        Some(n) => format!("{sent}; {} lost, in {window}.", words::counted(n, "connection attempt")),
    }
}

/// RSTs from peers of which the report lists a cause, where there are any.
fn received_and_noted(ledger: &Ledger, causes: &[Ranked]) -> Option<u64> {
    let listed = |line: &&Line| causes.iter().any(|cause| Some(cause.id) == line.cause && cause.finding.state.is_now());
    let noted: u64 = ledger.received.lines.iter().filter(listed).map(|line| line.count).sum();
    (noted > 0).then_some(noted)
}

/// All that was sent has a cause, and some of it one that the report lists.
fn is_noted(sent: &Account, causes: &[Ranked]) -> bool {
    let listed = |line: &Line| causes.iter().any(|cause| Some(cause.id) == line.cause);
    sent.unexplained() == Some(0) && sent.lines.iter().any(listed)
}

/// What was accepted and tried. Tcp.ActiveOpens counts attempts (RFC 4022, tcpActiveOpens), whatever becomes of them.
fn activity(moved: &dyn Fn(&str) -> Option<u64>) -> String {
    let (Some(passive), Some(active)) = (moved("Tcp.PassiveOpens"), moved("Tcp.ActiveOpens")) else {
        return String::new();
    };
    // A connect that a route of this host refuses ends before a SYN, in no counter (prohibit, blackhole) or as a packet without a
    // route (net/ipv4/tcp_ipv4.c tcp_v4_connect).
    let no_route = match moved("Ip.OutNoRoutes") {
        None | Some(0) => String::new(),
        Some(count) => {
            // No route at all, or one of type unreachable (net/ipv4/fib_semantics.c fib_props).
            let told = "\"Network is unreachable\" or \"No route to host\"";
            format!(" {} of this host found no route ({told}).", words::counted(count, "packet"))
        }
    };
    if passive == 0 && active == 0 {
        return format!(
            " It was quiet: no connection was accepted, and no connect here got as far as a SYN.{no_route}"
        );
    }
    let accepted = words::counted(passive, "connection");
    let tried = words::counted(active, "connect");
    // Requests that end before they become a connection move AttemptFails, too, and EmbryonicRsts with it.
    let all = |name: &str| moved(name).unwrap_or(0);
    let failed = all("Tcp.AttemptFails").saturating_sub(all("TcpExt.EmbryonicRsts"));
    let outcome = match (active, failed) {
        (0, _) | (_, 0) => String::new(),
        (tried, failed) if failed >= tried => ", none succeeded".to_owned(),
        (_, failed) => format!(", {} failed", words::thousands(failed)),
    };
    format!(" {accepted} accepted, {tried} tried{outcome}.{no_route}")
}

#[cfg(test)]
mod tests {
    use crate::diagnosis::filter::Filter;
    use crate::diagnosis::{Diagnosis, Status, diagnose_for};
    use crate::observation::testing::{Case, process};
    use crate::value::Observed;

    /// nginx on port 80 and redis on 6379, nothing lost.
    fn host() -> Case {
        Case::new()
            .counter("Tcp.OutRsts", 10, 0)
            .counter("TcpExt.ListenOverflows", 0, 0)
            .listener("0.0.0.0:80", 511, 0, 0, &process(10, "nginx"))
            .listener("0.0.0.0:6379", 511, 0, 0, &process(20, "redis-server"))
    }

    fn out_of_memory(case: Case) -> Case {
        case.counter("TcpExt.TCPAbortOnMemory", 0, 9)
            .sockstat("TCP.mem", 30_100)
            .sysctl("net.ipv4.tcp_mem", "10000\t20000\t30000")
    }

    fn asked(case: &Case, port: Option<u16>, pid: Option<u32>, process: Option<&str>) -> Diagnosis {
        diagnose_for(
            case.view(),
            &Filter { ports: port.into_iter().collect(), pid, process: process.map(str::to_owned) },
        )
    }

    #[test]
    fn a_process_that_was_not_seen_is_not_called_healthy() {
        let diagnosis = asked(&host(), None, None, Some("redis"));
        assert_eq!(diagnosis.status, Status::Unknown);
        assert!(
            diagnosis.summary.starts_with("No process redis with a TCP socket was seen in 3 s"),
            "{}",
            diagnosis.summary
        );
        assert!(diagnosis.summary.ends_with("Seen with a similar name: redis-server."), "{}", diagnosis.summary);
        assert_eq!(asked(&host(), None, None, Some("redis-server")).status, Status::Ok);
        let diagnosis = asked(&host(), None, Some(4242), None);
        assert_eq!(diagnosis.status, Status::Unknown);
        assert!(diagnosis.summary.starts_with("No TCP socket of pid 4242 was seen"), "{}", diagnosis.summary);
        assert_eq!(asked(&host(), None, Some(10), None).status, Status::Ok);
        assert_eq!(asked(&host(), None, Some(10), Some("redis-server")).status, Status::Unknown, "both must hold");
    }

    #[test]
    fn an_ordinary_user_hears_that_the_process_may_be_invisible() {
        let mut case = host();
        if let Observed::Full(owners) = &mut case.host.after.owners {
            let owners = std::sync::Arc::make_mut(owners);
            owners.denied = 31;
        }
        let diagnosis = asked(&case, None, None, Some("postgres"));
        assert_eq!(diagnosis.status, Status::Unknown);
        let said = "The sockets of 31 processes are not visible to this user.";
        assert!(diagnosis.summary.contains(said), "{}", diagnosis.summary);
    }

    #[test]
    fn a_port_on_which_nothing_happens_is_answered_and_not_unknown() {
        let diagnosis = asked(&host(), Some(9999), None, None);
        assert_eq!(diagnosis.status, Status::Ok);
        assert!(diagnosis.summary.contains("no listener of it is visible"), "{}", diagnosis.summary);
    }

    #[test]
    fn a_shortage_of_the_whole_host_is_not_blamed_on_the_port() {
        let case = out_of_memory(host());
        let diagnosis = asked(&case, Some(6379), None, None);
        assert_eq!(diagnosis.status, Status::Critical, "the port suffers from it");
        let summary = &diagnosis.summary;
        assert!(summary.starts_with("Host-wide, so port 6379 may be affected too: TCP has used up"), "{summary}");
        let unfiltered = asked(&case, None, None, None).summary;
        assert!(unfiltered.starts_with("TCP has used up"), "{unfiltered}");
        let unseen = asked(&case, None, None, Some("postgres"));
        assert_eq!(unseen.status, Status::Unknown);
        assert!(unseen.summary.contains("Host-wide: TCP has used up"), "{}", unseen.summary);
    }

    /// A program that has no route tries and fails, and Tcp.ActiveOpens does not move.
    #[test]
    fn quiet_is_not_said_of_connects_that_found_no_route() {
        let quiet = |no_routes: u64| {
            let case = host().counter("Tcp.PassiveOpens", 9, 0).counter("Tcp.ActiveOpens", 9, 0);
            asked(&case.counter("Ip.OutNoRoutes", 2, no_routes), None, None, None).summary
        };
        assert!(quiet(0).contains("no connect here got as far as a SYN. Packets dropped"), "{}", quiet(0));
        assert!(quiet(7).contains("7 packets of this host found no route"), "{}", quiet(7));
    }
}
