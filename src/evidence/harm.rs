//! How many connections a place had in the window, and how sure the share of them is that failed.
//!
//! A place is what users have in mind: a service, by its port, or a destination that this host calls. How many connections it
//! had is known from those that were destroyed in the window and from those that are open at its end; nothing in the kernel
//! counts it. Of few connections the share says little, so it is taken with its interval and not by itself.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::attribution::{Attribution, Ended};
use crate::evidence::Evidence;
use crate::evidence::readings::Readings;
use crate::evidence::share::{interval, lowest_in_a_row};
use crate::observation::Endings;
use crate::reset::Kind;
use crate::source::socket_dump::{Destination, PortUse, SocketDump};
use crate::value::{TcpState, words};

/// Where connections come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// A served port of this host.
    Port(u16),
    /// Whom this host calls.
    Called(SocketAddr),
}

/// Connections that failed, of those that there were.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Harm {
    /// Where; `None` for many places together.
    pub target: Option<Target>,
    /// Connections that failed in the window.
    pub failures: u64,
    /// They failed before they were connections: they are not among those that ended.
    pub unopened: bool,
    /// All connections of the place in the window, the failed ones included; `None` where nothing tells.
    pub attempts: Option<u64>,
    /// All connections of the place that failed, for whatever reason: a service that fails in two ways fails altogether.
    pub in_all: u64,
    /// Failures and attempts in the part of the window in which all the failures came, where that is much shorter.
    pub burst: Option<(u64, u64)>,
    /// With the windows before, where this one alone tells too little.
    pub lately: Option<Lately>,
    /// The window is one of a row of them, which are judged one after the other.
    pub in_a_row: bool,
}

/// Failures of the windows before and of this one together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lately {
    pub failures: u64,
    /// From the first failure on, where all failed since; else as far back as is remembered.
    pub attempts: u64,
    /// How long all these attempts took.
    pub over: Duration,
    /// When the first window with a failure began, CLOCK_BOOTTIME.
    pub since: Duration,
}

/// Less than this share of the connections is no sample of them.
const SEEN: f64 = 0.2;

/// So many may be missing at the end of any window: the kernel tells of the last ones late, from a work queue, where it has other
/// work (net/core/sock_diag.c sock_diag_broadcast_destroy).
const LATE: u64 = 4;

/// Failures that come within so much of a window are judged by that part of it: a longer look must not make them fewer.
const BURST: Duration = Duration::from_secs(3);

impl Harm {
    /// Nothing is known but the failures.
    pub fn of_unknown(failures: u64) -> Self {
        Self {
            target: None,
            failures,
            unopened: false,
            attempts: None,
            in_all: failures,
            burst: None,
            lately: None,
            in_a_row: false,
        }
    }

    /// Share of the attempts that failed, 0 to 1.
    pub fn share(&self) -> Option<f64> {
        self.attempts.filter(|attempts| *attempts > 0).map(|attempts| self.failures as f64 / attempts as f64)
    }

    /// See [`interval`].
    pub fn interval(&self) -> Option<[f64; 2]> {
        interval(self.failures, self.attempts?)
    }

    /// Failures, with those of the windows before where they count.
    pub fn failed_lately(&self) -> u64 {
        self.lately.map_or(self.failures, |lately| lately.failures)
    }

    /// The least that the share of failures can be, with 95 % certainty: of the window, or of the part in which they came; with
    /// the windows before, of all of these.
    pub fn surely(&self) -> Option<f64> {
        let lowest = |(failures, attempts)| {
            // That all fail is no chance.
            let in_a_row = self.in_a_row && failures < attempts;
            if in_a_row {
                lowest_in_a_row(failures, attempts)
            } else {
                interval(failures, attempts).map(|[low, _]| low)
            }
        };
        if let Some(lately) = self.lately {
            return lowest((lately.failures, lately.attempts));
        }
        // What is a small part of the failures is not as bad as all of them.
        let failures = if self.failures >= self.in_all / 4 { self.failures.max(self.in_all) } else { self.failures };
        let whole = lowest((failures, self.attempts?.max(failures)))?;
        Some(self.burst.and_then(lowest).map_or(whole, |burst| burst.max(whole)))
    }

    /// Every connection of the place failed, as far as is known, this way or another.
    pub fn is_total(&self) -> bool {
        self.attempts.is_some_and(|attempts| attempts > 0 && self.failures.max(self.in_all) >= attempts)
    }

    /// `41 of 58 connections (71 %)`, `all 3 connections`, `41 connections` where the others are not known.
    pub fn counted(&self, noun: &str) -> String {
        match (self.attempts, self.share()) {
            (Some(attempts), Some(_)) if self.failures >= attempts && attempts > 1 => {
                format!("all {}", words::counted(attempts, noun))
            }
            (Some(attempts), Some(share)) if self.failures < attempts => {
                let attempts = words::counted(attempts, noun);
                format!("{} of {attempts} ({})", words::thousands(self.failures), words::percent(share))
            }
            _ => words::counted(self.failures, noun),
        }
    }
}

/// The connections of the window by place.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// When each was destroyed, ascending, CLOCK_BOOTTIME.
    ended: HashMap<Target, Vec<Duration>>,
    /// How many of them were connects that failed.
    never_open: HashMap<Target, usize>,
    seen: Seen,
    /// The kernel told of all that ended.
    whole: bool,
}

/// Which share of the connections that ended was seen, 0 to 1: the kernel may have had no room, or too many of them ended, or a
/// program keeps a connection that was reset, which is neither open then nor destroyed. Of each side by itself: where both ends
/// are on this host, the client may keep what the server has ended.
#[derive(Debug, Default)]
struct Seen {
    accepted: Share,
    called: Share,
}

#[derive(Debug, Default, Clone, Copy)]
struct Share {
    seen: f64,
    /// Of those that were not seen, where that may be because they are told of late.
    late: u64,
}

impl Share {
    fn is_sample(self) -> bool {
        self.seen >= SEEN || self.late > 0
    }
}

impl Seen {
    fn of(&self, target: Target) -> Share {
        match target {
            Target::Port(_) => self.accepted,
            Target::Called(_) => self.called,
        }
    }
}

impl Connections {
    /// `still_open`: connections that this host accepted and made, and that are open at the end of the window, where all sockets were
    /// looked at then. `None` if too little was seen to tell a share by it.
    pub fn new(
        ended: &[Ended<'_>],
        endings: &Endings,
        readings: &Readings<'_>,
        still_open: Option<[u64; 2]>,
    ) -> Option<Self> {
        let mut by_target: HashMap<Target, Vec<Duration>> = HashMap::new();
        let mut never_open: HashMap<Target, usize> = HashMap::new();
        for connection in ended {
            let target = connection.called.map_or(Target::Port(connection.socket.local.port()), Target::Called);
            by_target.entry(target).or_default().push(connection.socket.at);
            if connection.never_open() {
                *never_open.entry(target).or_default() += 1;
            }
        }
        by_target.values_mut().for_each(|times| times.sort_unstable());
        // How many the host accepted and made, where that was counted: they ended, or they are open.
        let whole = endings.dropped == 0 && endings.gaps == 0 && endings.ended_early.is_none();
        let called = ended.iter().filter(|connection| connection.called.is_some()).count();
        let [accepted_open, called_open] = still_open.unwrap_or_default();
        let seen = |counter: &str, ended: usize, open: u64| match readings.counter(counter).map(|opened| opened.delta) {
            Ok(opened) if opened > 0 && (!whole || still_open.is_some()) => {
                let told = (ended as u64).saturating_add(open);
                let unseen = opened.saturating_sub(told);
                let late = if whole && unseen <= LATE { unseen } else { 0 };
                Share { seen: (told as f64 / opened as f64).min(1.0), late }
            }
            _ => Share { seen: 1.0, late: 0 },
        };
        let seen = Seen {
            accepted: seen("Tcp.PassiveOpens", ended.len() - called, accepted_open),
            called: seen("Tcp.ActiveOpens", called, called_open),
        };
        (seen.accepted.is_sample() || seen.called.is_sample()).then_some(Self {
            ended: by_target,
            never_open,
            seen,
            whole,
        })
    }

    /// Connects that fail are in no count of this host's own connections that ended.
    fn tell_of(&self, target: Target) -> bool {
        matches!(target, Target::Called(_)) || self.seen.accepted.is_sample()
    }

    fn ended(&self, target: Target) -> u64 {
        self.scaled(target, self.ended.get(&target).map_or(0, Vec::len))
    }

    /// Of a row of windows, that add up: those that the kernel is still to tell of are of the next.
    fn told_of(&self, target: Target) -> u64 {
        match self.whole {
            true => self.ended.get(&target).map_or(0, |times| times.len() as u64),
            false => self.ended(target),
        }
    }

    /// Those that ended after they had been open.
    fn were_open(&self, target: Target) -> u64 {
        let ended = self.ended.get(&target).map_or(0, Vec::len);
        self.scaled(target, ended.saturating_sub(self.never_open.get(&target).copied().unwrap_or(0)))
    }

    fn ended_between(&self, target: Target, [from, to]: [Duration; 2]) -> u64 {
        let times = self.ended.get(&target).map_or(&[][..], Vec::as_slice);
        let before = |limit: Duration| times.partition_point(|at| *at < limit);
        self.scaled(target, before(to).saturating_sub(before(from)))
    }

    fn scaled(&self, target: Target, count: usize) -> u64 {
        match self.seen.of(target) {
            // None was told of, and each that is to come may be of this place.
            Share { seen: ..=0.0, late } => (count as u64).saturating_add(late),
            Share { seen, .. } => (count as f64 / seen).round() as u64,
        }
    }
}

/// Connections of clients that failed by this host's doing, by served port: those of these kinds.
pub(super) fn failures(attribution: &Attribution, which: impl Fn(Kind) -> bool) -> HashMap<u16, u64> {
    let mut failures: HashMap<u16, u64> = HashMap::new();
    for group in &attribution.groups {
        if let (Some(port), true) = (group.port, group.kind.fails_clients() && which(group.kind)) {
            *failures.entry(port).or_default() += group.count;
        }
    }
    failures
}

/// Connections that are open, accepted and made; a listener, a request and what is left of a connection are none.
pub(super) fn all_open(dump: &SocketDump) -> [u64; 2] {
    let none = [TcpState::Listen, TcpState::SynRecv, TcpState::TimeWait];
    let all: u64 = dump.by_state.iter().filter(|(state, _)| !none.contains(state)).map(|(_, count)| count).sum();
    let made = dump.destinations.iter().map(|to| to.ports_used.saturating_sub(to.time_wait)).sum();
    [all.saturating_sub(made), made]
}

/// Connections that are open at one end of the window.
fn open(dump: &SocketDump, target: Target) -> u64 {
    // What this side has closed is over, whatever the peer does.
    let called = |to: &Destination| to.ports_used.saturating_sub(to.time_wait + to.fin_wait2);
    sockets(dump, target, [TcpState::Established, TcpState::CloseWait], called)
}

fn closed_first(dump: &SocketDump, target: Target) -> u64 {
    sockets(dump, target, [TcpState::TimeWait, TcpState::FinWait2], |to| to.time_wait + to.fin_wait2)
}

/// Those of a service in these states, or what `called` counts of those to a destination.
fn sockets(dump: &SocketDump, target: Target, states: [TcpState; 2], called: impl Fn(&Destination) -> u64) -> u64 {
    match target {
        Target::Port(port) => {
            let count = |used: &PortUse| states.iter().filter_map(|state| used.by_state.get(state)).sum();
            dump.ports.get(&port).map_or(0, count)
        }
        Target::Called(address) => {
            let to = dump.destinations.iter().filter(|to| to.address == address.ip() && to.port == address.port());
            to.map(called).sum()
        }
    }
}

impl Evidence<'_> {
    /// Open connections that failed at a place, between the first and the last moment of `span` (CLOCK_BOOTTIME), of all that
    /// it had: those that ended in the window and those still open.
    pub fn harm(&self, target: Target, failures: u64, span: Option<[Duration; 2]>) -> Harm {
        let Some(connections) = self.connections.as_ref().filter(|connections| connections.tell_of(target)) else {
            return Harm::of_unknown(failures);
        };
        let open = self.socket_dump().map_or(0, |dump| open(dump, target));
        let all = |ended: u64| ended.saturating_add(open).max(failures);
        let burst = span.and_then(|span| self.burst(span));
        let burst = burst.map(|span| (failures, all(connections.ended_between(target, span))));
        let in_all = match target {
            Target::Port(port) => self.failures.get(&port).copied().unwrap_or(0).max(failures),
            Target::Called(_) => failures,
        };
        let attempts = Some(all(connections.ended(target)));
        Harm {
            target: Some(target),
            attempts,
            in_all,
            burst,
            in_a_row: self.recent.in_a_row,
            ..Harm::of_unknown(failures)
        }
    }

    /// Connects that failed before there was a connection: of those that were opened at the place in the window, and these. A
    /// connect that fails while its program waits loses its destination (net/ipv4/af_inet.c __inet_stream_connect, sock_error) and
    /// is seen to end nowhere; one that fails in the background keeps it, and must not count twice.
    pub fn harm_of_connects(&self, target: Target, failures: u64) -> Harm {
        let Some(connections) = &self.connections else { return Harm::of_unknown(failures) };
        let open = |dump: Result<&SocketDump, _>| dump.map_or(0, |dump| open(dump, target));
        let at_end = open(self.socket_dump());
        let at_start = if self.sweep_before_is_fresh() { open(self.socket_dump_before()) } else { at_end };
        let opened = connections.were_open(target).saturating_add(at_end).saturating_sub(at_start);
        let attempts = Some(opened.saturating_add(failures));
        let in_a_row = self.recent.in_a_row;
        Harm { target: Some(target), unopened: true, attempts, in_a_row, ..Harm::of_unknown(failures) }
    }

    /// Connections to a served port that failed by this host's doing, for whatever reason.
    pub fn harm_of_service(&self, port: u16) -> Harm {
        let failures = self.failures.get(&port).copied().unwrap_or(0);
        let unopened = self.unopened.get(&port).copied().unwrap_or(0).min(failures);
        let harm = self.harm(Target::Port(port), failures - unopened, None);
        // What never was a connection is in no count of those that ended.
        Harm { failures, attempts: harm.attempts.map(|opened| opened.saturating_add(unopened)), ..harm }
    }

    /// Connections of the place that are open at the end of the window.
    pub fn open_at_end(&self, target: Target) -> u64 {
        self.socket_dump().map_or(0, |dump| open(dump, target))
    }

    /// Connections of the place that this side closed first, as far as their sockets are there at the end of the window: in
    /// FIN_WAIT2 until the peer closes, then in TIME_WAIT.
    pub fn closed_first_at_end(&self, target: Target) -> u64 {
        self.socket_dump().map_or(0, |dump| closed_first(dump, target))
    }

    /// Connections to a served port that ended in the window; `None` where that was not heard. Those that the kernel is still to tell
    /// of are of the next: a row of windows adds up.
    pub fn ended_of_service(&self, port: u16) -> Option<u64> {
        self.connections.as_ref().map(|connections| connections.told_of(Target::Port(port)))
    }

    /// The same with the connects that were refused, which never were connections.
    pub fn over_at_service(&self, port: u16) -> Option<u64> {
        let unopened = self.unopened.get(&port).copied().unwrap_or(0);
        self.ended_of_service(port).map(|ended| ended.saturating_add(unopened))
    }

    /// Connections that ended in the window, by place.
    pub(super) fn ended_at(&self, which: impl Fn(&Target) -> bool) -> impl Iterator<Item = (Target, u64)> {
        let connections = self.connections.iter();
        let all =
            connections.flat_map(|connections| connections.ended.keys().map(move |target| (connections, *target)));
        all.filter(move |(_, target)| which(target)).map(|(connections, target)| match target {
            Target::Port(_) => (target, connections.told_of(target)),
            // Connects that failed are counted where they are found.
            Target::Called(_) => (target, connections.were_open(target)),
        })
    }

    /// The part of the window in which failures came, where that is less than half of it; a little longer, because a socket is
    /// destroyed some time after its reset.
    fn burst(&self, [first, last]: [Duration; 2]) -> Option<[Duration; 2]> {
        let length = (last.saturating_sub(first)).max(BURST);
        // What was before the window is not known: a burst at its beginning is judged by its first seconds.
        let from = last.saturating_sub(length).max(self.before().at.mono);
        let to = last.max(from.saturating_add(length)).saturating_add(BURST / 3);
        (length * 2 < self.window()).then_some([from, to])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::Case;

    #[test]
    fn a_share_is_told_with_its_number() {
        let harm = |failures, attempts| Harm { attempts, ..Harm::of_unknown(failures) };
        assert_eq!(harm(41, Some(58)).counted("connection"), "41 of 58 connections (71 %)");
        assert_eq!(harm(3, Some(3000)).counted("connection"), "3 of 3,000 connections (0.1 %)");
        assert_eq!(harm(3, Some(3)).counted("connection"), "all 3 connections");
        assert_eq!(harm(1, Some(1)).counted("connection"), "1 connection");
        assert_eq!(harm(41, None).counted("connection"), "41 connections");
    }

    #[test]
    fn what_ended_and_what_is_open_are_the_attempts() {
        let case = Case::new().destroyed_sockets(57, ["10.0.0.9:80", "10.0.3.7:40000"], 0, 0);
        let view = case.view();
        let evidence = Evidence::new(view);
        assert_eq!(evidence.harm(Target::Port(80), 3, None).attempts, Some(57));
        assert_eq!(evidence.harm(Target::Port(81), 3, None).attempts, Some(3), "those that failed were there");
        assert_eq!(evidence.harm_of_connects(Target::Port(80), 3).attempts, Some(60));
        assert_eq!(Evidence::new(Case::new().view()).harm(Target::Port(80), 3, None).attempts, None);
    }

    /// The kernel tells of those that ended in the last moment with the next window.
    #[test]
    fn the_last_ones_may_be_of_any_place_and_more_of_them_were_not_seen() {
        let attempts = |opened: u64, ended: u16| {
            let case = Case::new()
                .counter("Tcp.PassiveOpens", 0, opened)
                .destroyed_sockets(ended, ["10.0.0.9:80", "10.0.3.7:40000"], 0, 0)
                .socket_dump(SocketDump::default(), SocketDump::default());
            Evidence::new(case.view()).harm(Target::Port(80), 1, None).attempts
        };
        assert_eq!(attempts(1, 0), Some(1), "the one that failed");
        assert_eq!(attempts(3, 0), Some(3), "one of three, and not of one");
        assert_eq!(attempts(3, 3), Some(3));
        assert_eq!(attempts(40, 20), Some(40), "as many again");
        assert_eq!(attempts(40, 0), None);
    }

    /// A program that connects in the background (Node, asyncio, a timeout) leaves sockets that still name their destination.
    #[test]
    fn connects_that_failed_do_not_count_twice() {
        let called = Target::Called("10.0.7.1:8080".parse().unwrap());
        let case = Case::new().destroyed_sockets(57, ["10.0.0.9:40000", "10.0.7.1:8080"], 0, 0);
        let attempts = |case: &Case| Evidence::new(case.view()).harm_of_connects(called, 57).attempts;
        assert_eq!(attempts(&case), Some(114), "57 others that were open");
        assert_eq!(attempts(&case.each_destroyed(|socket| socket.unacknowledged_altogether = true)), Some(57));
    }

    #[test]
    fn a_service_that_fails_in_two_ways_fails_altogether() {
        let half = Harm { attempts: Some(10), ..Harm::of_unknown(5) };
        let both = Harm { in_all: 10, ..half };
        assert!(both.is_total() && both.surely() > Some(0.7) && !half.is_total() && half.surely() < Some(0.3));
        let little = Harm { failures: 1, in_all: 10, ..half };
        assert!(little.surely() < Some(0.1), "one of ten is not as bad as the other nine");
    }

    /// Three failures in the first half second of ten, with ten connections a second.
    #[test]
    fn a_burst_at_the_beginning_is_judged_by_as_long_a_time_as_any() {
        let mut case = Case::new().destroyed_sockets(100, ["10.0.0.9:80", "10.0.3.7:40000"], 0, 0);
        case.netns.after.at.mono += Duration::from_secs(7);
        let start = case.netns.before.at.mono;
        let mut number = 0;
        let case = case.each_destroyed(|socket| {
            number += 1;
            socket.at = start + Duration::from_millis(100 * number);
        });
        let span = [start, start + Duration::from_millis(500)];
        let harm = Evidence::new(case.view()).harm(Target::Port(80), 3, Some(span));
        assert_eq!(harm.burst, Some((3, 39)), "those of the first four seconds");
    }

    /// 20 failures of one second among 1,000 connections of a minute are those of that second.
    #[test]
    fn a_longer_window_does_not_make_a_burst_less() {
        let (minute, second) = (Harm { attempts: Some(2000), ..Harm::of_unknown(20) }, Some((20, 40)));
        let with_burst = Harm { burst: second, ..minute };
        assert!(minute.surely() < Some(0.01) && with_burst.surely() > Some(0.3), "{with_burst:?}");
    }
}
