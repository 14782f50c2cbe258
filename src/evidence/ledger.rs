//! The reset ledger: resets are counted like money. What the kernel says was sent or received in total is set against
//! what can be attributed; the remainder is shown, never hidden.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::attribution::wire::Wire;
use crate::attribution::{Attribution, LostRecords};
use crate::evidence::estimate::Estimate;
use crate::evidence::readings::Readings;
use crate::reset::{Kind, Told};
use crate::source::reset_events::Direction;
use crate::value::Missing;
use crate::value::words::thousands;

/// What has no event because its record was lost: nothing says what it was.
pub const RECORD_LOST: &str = "record-lost";
/// Reasons that are no kind of reset, in words.
const OTHERS: [(&str, &str); 6] = [
    (RECORD_LOST, "unexplained (record lost)"),
    ("aborted-on-data", "aborted (linger 0), or data after close"),
    ("refused-local-connect", "nothing listens, asked by a program of this host"),
    ("rejected", "rejected by netfilter"),
    ("syn-queue-full", "SYN queue full"),
    ("no-route", "no route for the answer"),
];

/// How a line of the ledger is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// The kernel reported each event with its reason, or counts exactly this.
    Measured,
    /// From the kernel's call chain, or from the form of the packet, of each single one.
    Deduced,
    /// Concluded from counters that also move for other reasons.
    Inferred,
}

/// One reason and how many resets it accounts for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Stable name for programs: `closed-with-unread-data`.
    pub reason: &'static str,
    /// A few plain words for people: `closed with unread data`.
    pub label: String,
    pub count: u64,
    /// The cause that this reason belongs to, when there is only one.
    pub cause: Option<&'static str>,
    pub basis: Basis,
    /// Counter, kernel reason or other origin, for people: `TCPAbortOnClose`.
    pub known_from: String,
}

impl Line {
    /// The cause that explains it is another one.
    pub fn retell(&mut self, cause: &'static str) {
        self.cause = Some(cause);
        self.label = words(self.reason, self.cause);
    }
}

/// What people read for a reason that a cause explains; of one of a later version its name.
pub fn words(reason: &str, cause: Option<&str>) -> String {
    let other = || OTHERS.iter().find(|(name, _)| *name == reason).map(|(_, words)| *words);
    let words = Kind::of_name(reason).map(|kind| kind.words_under(cause)).or_else(other);
    words.map_or_else(|| reason.replace('-', " "), str::to_owned)
}

/// A total and the lines that account for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    /// What the kernel counted; why not, if it did not.
    pub total: Result<u64, Missing>,
    pub basis: Basis,
    pub lines: Vec<Line>,
}

impl Account {
    fn unknown(why: Missing) -> Self {
        Self { total: Err(why), basis: Basis::Inferred, lines: Vec::new() }
    }

    /// Sum of the lines.
    pub fn explained(&self) -> u64 {
        self.lines.iter().map(|line| line.count).sum()
    }

    /// What no line accounts for; `None` without a total.
    pub fn unexplained(&self) -> Option<u64> {
        self.total.as_ref().ok().map(|total| total.saturating_sub(self.explained()))
    }

    /// By how much the lines exceed the total, if they do: events and counters are not read in the same instant, so on a
    /// busy host a few are in the one and not in the other.
    pub fn excess(&self) -> Option<u64> {
        self.total.as_ref().ok().and_then(|total| self.explained().checked_sub(*total)).filter(|excess| *excess > 0)
    }

    pub fn count_of(&self, reason: &str) -> u64 {
        self.lines.iter().filter(|line| line.reason == reason).map(|line| line.count).sum()
    }

    /// Adds a line unless it is empty. What is only inferred cannot be more than is left of the total.
    fn add(&mut self, mut line: Line) {
        if let (Basis::Inferred, Some(rest)) = (line.basis, self.unexplained()) {
            line.count = line.count.min(rest);
        }
        if line.count > 0 {
            self.lines.push(line);
        }
    }
}

impl Default for Account {
    fn default() -> Self {
        Self::unknown(Missing::new("snmp", "not accounted"))
    }
}

/// All accounts of a window.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ledger {
    /// RSTs that this host's TCP sent.
    pub sent: Account,
    /// RSTs that ended connections of this host.
    pub received: Account,
    /// RSTs on the wire that TCP did not count: netfilter sent them.
    pub firewall: Account,
    /// Connection attempts that were lost without a RST.
    pub dropped: Account,
}

/// The counters that the ledger is drawn up from, where events are not known.
pub const COUNTERS: [&str; 18] = [
    "Tcp.OutRsts",
    "Tcp.EstabResets",
    "Tcp.AttemptFails",
    "Tcp.PassiveOpens",
    "Tcp.ActiveOpens",
    "TcpExt.TCPAbortOnClose",
    "TcpExt.TCPAbortOnData",
    "TcpExt.TCPAbortOnMemory",
    "TcpExt.TCPAbortOnLinger",
    "TcpExt.TCPAbortOnTimeout",
    "TcpExt.TCPKeepAlive",
    "TcpExt.TCPTimeouts",
    "TcpExt.EmbryonicRsts",
    "TcpExt.ListenOverflows",
    "TcpExt.ListenDrops",
    "TcpExt.TCPReqQFullDrop",
    "TcpExt.SyncookiesFailed",
    "Ip.OutNoRoutes",
];

/// Draws up the ledger.
pub fn account(
    readings: &Readings<'_>,
    estimate: Result<&Estimate, &Missing>,
    attribution: Result<&Attribution, &Missing>,
    wire: Result<&Wire, &Missing>,
) -> Ledger {
    if readings.totals_only() {
        // Nothing was counted in no time, which is not the same as none.
        let unknown = || Account::unknown(Missing::new("window", "only totals since boot were read"));
        return Ledger { sent: unknown(), received: unknown(), firewall: unknown(), dropped: unknown() };
    }
    Ledger {
        sent: sent(readings, estimate, attribution),
        received: received(readings, estimate, attribution),
        firewall: firewall(wire),
        dropped: dropped(readings),
    }
}

fn inferred(reason: &'static str, count: u64, cause: Option<&'static str>, from: &str) -> Line {
    Line { reason, label: words(reason, cause), count, cause, basis: Basis::Inferred, known_from: from.to_owned() }
}

/// Sent RSTs by the kernel's reason for each where that is known, else by the counters on the same paths.
fn sent(
    e: &Readings<'_>,
    estimate: Result<&Estimate, &Missing>,
    attribution: Result<&Attribution, &Missing>,
) -> Account {
    let total = match e.counter("Tcp.OutRsts") {
        Ok(reading) => reading.delta,
        Err(missing) => return Account::unknown(missing),
    };
    let mut account = Account { total: Ok(total), basis: Basis::Measured, lines: Vec::new() };
    match attribution {
        Ok(events) if events.sent.is_ok() => {
            by_kind(events, Direction::Sent, "kernel reason").into_iter().for_each(|line| account.add(line));
            account.add(lost(events.lost.sent, &events.lost));
        }
        _ => sent_by_counters(estimate).into_iter().for_each(|line| account.add(line)),
    }
    account
}

fn by_kind(events: &Attribution, direction: Direction, known_from: &str) -> Vec<Line> {
    let basis = |told| match told {
        Told::Stated => (Basis::Measured, known_from),
        Told::Chain => (Basis::Deduced, "call chain and state of the socket"),
        Told::Packet => (Basis::Deduced, "form of the packet"),
        Told::Socket => (Basis::Deduced, "packet and unread data"),
        Told::Counters => (Basis::Inferred, "packets and counters"),
    };
    // One lost record leaves what is measured of the others as it is.
    let mut counts: BTreeMap<(Kind, Basis), (u64, Told)> = BTreeMap::new();
    for group in events.groups.iter().filter(|group| group.direction == direction) {
        let (count, told) = counts.entry((group.kind, basis(group.told).0)).or_default();
        (*count, *told) = (*count + group.count, (*told).max(group.told));
    }
    let mut lines: Vec<Line> = counts
        .into_iter()
        .map(|((kind, _), (count, told))| {
            let (reason, label, cause) = (kind.name(), kind.words(), kind.cause());
            let (basis, known_from) = basis(told);
            Line { reason, label: label.to_owned(), count, cause, basis, known_from: known_from.to_owned() }
        })
        .collect();
    lines.sort_by_key(|line| std::cmp::Reverse(line.count));
    lines
}

/// What the counters of this namespace leave without an event, where records were lost, of whichever namespace.
fn lost(count: u64, lost: &LostRecords) -> Line {
    let from = format!("{} of {} records of the host were lost", thousands(lost.host), thousands(lost.of));
    inferred(RECORD_LOST, count, None, &from)
}

fn sent_by_counters(estimate: Result<&Estimate, &Missing>) -> Vec<Line> {
    let Ok(counted) = estimate else { return Vec::new() };
    let of = |kind: Kind, count, from: &str| inferred(kind.name(), count, kind.cause(), from);
    vec![
        of(Kind::UnreadData, counted.unread, "TCPAbortOnClose"),
        of(Kind::Memory, counted.memory, "TCPAbortOnMemory"),
        of(Kind::LingerTimeout, counted.linger_timeout, "TCPAbortOnLinger"),
        inferred("aborted-on-data", counted.on_data, None, "TCPAbortOnData"),
        of(Kind::Keepalive, counted.keepalive, "TCPAbortOnTimeout, TCPKeepAlive"),
        of(Kind::AcceptQueueFull, counted.accept_queue, "EmbryonicRsts, ListenOverflows"),
        inferred(
            "refused-local-connect",
            counted.refused_here,
            Some("port-without-listener"),
            "OutRsts and AttemptFails together",
        ),
        of(Kind::ListenerClosed, counted.listener_closed, "a listener gone with a queue"),
    ]
}

/// Received RSTs: each event where they are known, else EstabResets less what this host caused itself.
fn received(
    e: &Readings<'_>,
    estimate: Result<&Estimate, &Missing>,
    attribution: Result<&Attribution, &Missing>,
) -> Account {
    if let Ok(events) = attribution.and_then(|events| events.received.as_ref().map(|()| events)) {
        let mut lines = by_kind(events, Direction::Received, "kernel event");
        // Without the counters nothing tells how many of them are this namespace's.
        let lost = lost(events.lost.received, &events.lost);
        let lost = Some(lost).filter(|lost| lost.count > 0 && estimate.is_ok_and(|counted| counted.ends(e).is_some()));
        let basis = if lost.is_some() { Basis::Inferred } else { Basis::Measured };
        lines.extend(lost);
        return Account { total: Ok(lines.iter().map(|line| line.count).sum()), basis, lines };
    }
    let counted = e.counter("Tcp.EstabResets").and_then(|_| estimate.cloned().map_err(Clone::clone));
    let estimate = match counted {
        Ok(counted) => counted.received,
        Err(missing) => return Account::unknown(missing),
    };
    let mut account = Account { total: Ok(estimate), basis: Basis::Inferred, lines: Vec::new() };
    let cause = Some("peer-reset");
    account.add(inferred("established", estimate, cause, "EstabResets less own aborts"));
    account
}

/// RSTs that left this host, or came back to it, and that its TCP did not send.
fn firewall(wire: Result<&Wire, &Missing>) -> Account {
    let wire = match wire {
        Ok(wire) => wire,
        Err(missing) => return Account::unknown(missing.clone()),
    };
    let total = wire.rejected_total();
    let mut account = Account { total: Ok(total), basis: Basis::Measured, lines: Vec::new() };
    let line = inferred("rejected", total, Some("firewall-reject"), "packets without a TCP RST");
    account.add(Line { basis: Basis::Deduced, ..line });
    account
}

/// Connection attempts lost without a RST; the counters count packets, so one client's retries count again.
fn dropped(e: &Readings<'_>) -> Account {
    let drops = match e.counter("TcpExt.ListenDrops") {
        Ok(reading) => reading.delta,
        Err(missing) => return Account::unknown(missing),
    };
    let measured =
        |reason, count, cause, from: &str| Line { basis: Basis::Measured, ..inferred(reason, count, cause, from) };
    let mut account = Account { total: Ok(drops), basis: Basis::Measured, lines: Vec::new() };
    account.add(measured(
        "accept-queue-full",
        e.moved("TcpExt.ListenOverflows"),
        Some("accept-queue-overflow"),
        "ListenOverflows",
    ));
    account.add(measured(
        "syn-queue-full",
        e.moved("TcpExt.TCPReqQFullDrop"),
        Some("syn-queue-overflow"),
        "TCPReqQFullDrop",
    ));
    // A SYN that cannot be answered for want of a route counts as dropped by its listener (net/ipv4/tcp_input.c tcp_conn_request());
    // what programs here send to nowhere is counted in the same place.
    let no_route = e.moved("Ip.OutNoRoutes");
    account.add(inferred("no-route", no_route, Some("packets-discarded"), "IpOutNoRoutes"));
    account
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Evidence;
    use crate::observation::testing::Case;
    use crate::value::{Observed, TcpState};

    fn line(count: u64, basis: Basis) -> Line {
        Line { basis, ..inferred("reason", count, None, "origin") }
    }

    #[test]
    fn measured_lines_are_never_cut_and_the_excess_is_told() {
        let mut account = Account { total: Ok(10), basis: Basis::Measured, lines: Vec::new() };
        account.add(line(9, Basis::Measured));
        assert_eq!((account.unexplained(), account.excess()), (Some(1), None));
        account.add(line(4, Basis::Measured));
        assert_eq!((account.explained(), account.unexplained(), account.excess()), (13, Some(0), Some(3)));
    }

    #[test]
    fn a_line_under_another_cause_has_the_words_of_that_cause() {
        assert_eq!(words("turned-away", Some("connection-limit")), "turned away right after accept");
        assert_eq!(words("turned-away", Some("close-with-unread-data")), "closed with unread data");
        assert_eq!(words("turned-away", Some("late-data-after-close")), "data after close");
        // Who was refused was refused, even if the listener was only away.
        assert_eq!(words("no-listener", Some("process-exit")), "nothing listens");
        assert_eq!(words("closed-with-unread-data", None), "closed with unread data");
        assert_eq!(words("of-a-later-version", None), "of a later version");
    }

    #[test]
    fn an_inference_cannot_exceed_what_was_counted() {
        let mut account = Account { total: Ok(10), basis: Basis::Measured, lines: Vec::new() };
        account.add(line(8, Basis::Inferred));
        account.add(line(8, Basis::Inferred));
        assert_eq!((account.explained(), account.excess()), (10, None));
    }

    /// A server here closed `sent` connections of callers here and lost the records of `hidden` at either end, while a neighbour lost
    /// very many.
    fn beside_a_storm(sent: u16, hidden: u16) -> Case {
        let ends = ["127.0.0.1:9000", "127.0.0.1:40000"];
        let count = u64::from(sent);
        let case = Case::new().tracepoints().counter("Tcp.OutRsts", 0, count).counter("Tcp.AttemptFails", 0, 0);
        // Each end counts the connection.
        let case = case.counter("Tcp.EstabResets", 0, 2 * count).counter("TcpExt.TCPAbortOnClose", 0, count);
        let case = case.sent(sent - hidden, "TCP_ABORT_ON_CLOSE", Some(TcpState::Established), ends, None);
        let mut case = case.received(sent - hidden, TcpState::Established, [ends[1], ends[0]]);
        if let Observed::Full(events) = &mut case.host.reset_events {
            (events.read, events.lost, events.lost_sent) = (3_000, 1_000_000, 500_000);
        }
        case
    }

    #[test]
    fn of_a_neighbours_lost_records_no_more_are_ours_than_our_counters_leave_unexplained() {
        let evidence = Evidence::new(beside_a_storm(141, 62).view());
        let Ledger { sent, received, .. } = evidence.ledger();
        assert_eq!((sent.total.clone(), sent.count_of(RECORD_LOST), sent.unexplained()), (Ok(141), 62, Some(0)));
        assert_eq!(
            (received.total.clone(), received.count_of(RECORD_LOST)),
            (Ok(141), 62),
            "one for each that was sent"
        );
        assert_eq!(received.basis, Basis::Inferred);
        let line = sent.lines.iter().find(|line| line.reason == RECORD_LOST).expect("a line");
        assert_eq!((line.label.as_str(), line.basis), ("unexplained (record lost)", Basis::Inferred));
        assert_eq!(line.known_from, "1,000,000 of 1,003,000 records of the host were lost");
    }

    #[test]
    fn a_neighbours_storm_is_nothing_to_a_namespace_that_has_all_its_records() {
        let evidence = Evidence::new(beside_a_storm(80, 0).view());
        let Ledger { sent, received, .. } = evidence.ledger();
        assert_eq!((sent.count_of(RECORD_LOST), sent.unexplained()), (0, Some(0)));
        assert_eq!((received.total.clone(), received.basis, received.lines.len()), (Ok(80), Basis::Measured, 1));
    }

    #[test]
    fn peers_whose_resets_have_no_record_are_received_ones() {
        let case = Case::new().tracepoints().counter("Tcp.OutRsts", 0, 0).counter("Tcp.AttemptFails", 0, 30);
        let mut case = case.counter("Tcp.EstabResets", 0, 20);
        if let Observed::Full(events) = &mut case.host.reset_events {
            // An old kernel does not say of which direction they were.
            (events.lost, events.lost_either) = (1_000, 1_000);
        }
        let evidence = Evidence::new(case.view());
        let Ledger { sent, received, .. } = evidence.ledger();
        assert_eq!((sent.total.clone(), sent.lines.len()), (Ok(0), 0));
        assert_eq!((received.total.clone(), received.count_of(RECORD_LOST)), (Ok(50), 50));
    }

    #[test]
    fn without_a_total_no_lost_record_is_put_down_to_this_namespace() {
        let mut case = Case::new().tracepoints().counter("Tcp.OutRsts", 0, 0);
        if let Observed::Full(events) = &mut case.host.reset_events {
            (events.lost, events.lost_sent) = (1_000, 0);
        }
        assert_eq!(Evidence::new(case.view()).ledger().received.total, Ok(0));
    }
}
