//! The reset ledger: resets are counted like money. What the kernel says was sent or received in total is set against
//! what can be attributed; the remainder is shown, never hidden.

use crate::evidence::{Evidence, Missing};

/// How a line of the ledger is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The kernel reported each event with its reason, or counts exactly this.
    Measured,
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

    /// What no line accounts for; `None` without a total. The sources are read one after the other, so on a busy host
    /// the lines can exceed the total by a few: that is no negative remainder.
    pub fn unexplained(&self) -> Option<u64> {
        self.total.as_ref().ok().map(|total| total.saturating_sub(self.explained()))
    }

    pub fn count_of(&self, reason: &str) -> u64 {
        self.lines.iter().filter(|line| line.reason == reason).map(|line| line.count).sum()
    }

    /// Adds a line unless it is empty, and never beyond the total.
    fn add(&mut self, mut line: Line) {
        if let Some(rest) = self.unexplained() {
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

/// Draws up the ledger.
pub fn account(evidence: &Evidence<'_>) -> Ledger {
    Ledger {
        sent: sent_by_counters(evidence),
        received: received_by_counters(evidence),
        firewall: Account::unknown(Missing {
            source: "reset_packets",
            reason: "RSTs of the firewall pass TCP's counters by".to_owned(),
            needs: Some("a look at the packets themselves, which this version does not take".to_owned()),
        }),
        dropped: dropped(evidence),
    }
}

fn inferred(reason: &'static str, label: &str, count: u64, cause: Option<&'static str>, from: &str) -> Line {
    Line { reason, label: label.to_owned(), count, cause, basis: Basis::Inferred, known_from: from.to_owned() }
}

/// Sent RSTs from the counters that the kernel increments on the same paths (net/ipv4/tcp.c, tcp_timer.c, tcp_input.c).
fn sent_by_counters(e: &Evidence<'_>) -> Account {
    let total = match e.counter("Tcp.OutRsts") {
        Ok(reading) => reading.delta,
        Err(missing) => return Account::unknown(missing),
    };
    let mut account = Account { total: Ok(total), basis: Basis::Measured, lines: Vec::new() };
    let unread = e.moved("TcpExt.TCPAbortOnClose");
    account.add(inferred(
        "closed-with-unread-data",
        "closed with unread data",
        unread,
        Some("close-with-unread-data"),
        "TCPAbortOnClose",
    ));
    account.add(inferred(
        "aborted-on-memory",
        "orphan or memory limit",
        e.moved("TcpExt.TCPAbortOnMemory"),
        None,
        "TCPAbortOnMemory",
    ));
    account.add(inferred(
        "aborted-on-linger",
        "closed early by TCP_LINGER2",
        e.moved("TcpExt.TCPAbortOnLinger"),
        None,
        "TCPAbortOnLinger",
    ));
    // Linger 0, and data that meets a full socket in FIN_WAIT1 or FIN_WAIT2, share one counter.
    account.add(inferred(
        "aborted-on-data",
        "aborted (linger 0), or data after close",
        e.moved("TcpExt.TCPAbortOnData"),
        None,
        "TCPAbortOnData",
    ));
    // Only tcp_keepalive_timer sends a RST when it gives up, and only it counts TCPKeepAlive.
    if e.moved("TcpExt.TCPKeepAlive") > 0 {
        account.add(inferred(
            "keepalive-timeout",
            "keepalive gave up",
            e.moved("TcpExt.TCPAbortOnTimeout"),
            Some("keepalive-timeout"),
            "TCPAbortOnTimeout, TCPKeepAlive",
        ));
    }
    if e.sysctl_number("net.ipv4.tcp_abort_on_overflow") == Ok(1) {
        let refused = e.moved("TcpExt.EmbryonicRsts").min(e.moved("TcpExt.ListenOverflows"));
        account.add(inferred(
            "accept-queue-full",
            "accept queue full, answered by RST",
            refused,
            Some("accept-queue-overflow"),
            "EmbryonicRsts, ListenOverflows",
        ));
    }
    // A program on this host that connects to a closed port of this host moves both sides by one (loopback).
    let refused_here = e.moved("Tcp.AttemptFails").saturating_sub(e.moved("TcpExt.EmbryonicRsts"));
    account.add(inferred(
        "refused-local-connect",
        "nothing listens, asked by a program of this host",
        refused_here,
        Some("port-without-listener"),
        "OutRsts and AttemptFails together",
    ));
    account
}

/// Received RSTs: EstabResets less those that this host caused itself. EstabResets has no direction
/// (net/ipv4/tcp.c tcp_set_state), so this is an estimate.
fn received_by_counters(e: &Evidence<'_>) -> Account {
    let resets = match e.counter("Tcp.EstabResets") {
        Ok(reading) => reading.delta,
        Err(missing) => return Account::unknown(missing),
    };
    let own: u64 = ["TCPAbortOnClose", "TCPAbortOnData", "TCPAbortOnMemory", "TCPAbortOnTimeout"]
        .into_iter()
        .map(|name| e.moved(&format!("TcpExt.{name}")))
        .sum();
    let estimate = resets.saturating_sub(own);
    let mut account = Account { total: Ok(estimate), basis: Basis::Inferred, lines: Vec::new() };
    account.add(inferred("established", "in an established connection", estimate, None, "EstabResets less own aborts"));
    account
}

/// Connection attempts lost without a RST; the counters count packets, so one client's retries count again.
fn dropped(e: &Evidence<'_>) -> Account {
    let drops = match e.counter("TcpExt.ListenDrops") {
        Ok(reading) => reading.delta,
        Err(missing) => return Account::unknown(missing),
    };
    let measured = |reason, label: &str, count, cause, from: &str| Line {
        basis: Basis::Measured,
        ..inferred(reason, label, count, cause, from)
    };
    let mut account = Account { total: Ok(drops), basis: Basis::Measured, lines: Vec::new() };
    account.add(measured(
        "accept-queue-full",
        "accept queue full",
        e.moved("TcpExt.ListenOverflows"),
        Some("accept-queue-overflow"),
        "ListenOverflows",
    ));
    account.add(measured(
        "syn-queue-full",
        "SYN queue full",
        e.moved("TcpExt.TCPReqQFullDrop"),
        Some("syn-queue-overflow"),
        "TCPReqQFullDrop",
    ));
    account
}
