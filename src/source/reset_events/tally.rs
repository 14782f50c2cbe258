//! Resets in groups, so that any number of them is counted exactly in bounded memory.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Caller, Direction, ResetEvent, Task};
use crate::value::{EphemeralPorts, NetnsId, TcpState};

/// Above this many groups new ones are kept without their peer, and above twice as many without addresses and process.
const MAX_GROUPS: usize = 4096;

/// A group of resets that are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetTally {
    pub direction: Direction,
    /// See [`ResetEvent::reason`].
    pub reason: Option<String>,
    pub state: Option<TcpState>,
    pub old_state: Option<TcpState>,
    pub active: bool,
    pub softirq: bool,
    pub caller: Option<Caller>,
    pub exiting: bool,
    /// See [`ResetEvent::netns`].
    pub netns: Option<NetnsId>,
    pub task: Option<Task>,
    /// `None` in a group of many (see `folded`).
    pub local_addr: Option<IpAddr>,
    /// The port on this side, when this side is the server: it is not ephemeral, or the peer's is, or the reset answered
    /// a segment without a connection.
    pub local_port: Option<u16>,
    /// The peer's port, when this side is the client.
    pub peer_port: Option<u16>,
    pub peer_addr: Option<IpAddr>,
    /// The first peer seen.
    pub peer_sample: Option<SocketAddr>,
    /// There were too many groups: this one holds several peers, or several of everything.
    pub folded: bool,
    pub count: u64,
    /// CLOCK_BOOTTIME of the first and the last.
    pub first: Duration,
    pub last: Duration,
}

impl ResetTally {
    /// The group that one event makes.
    pub fn of(event: &ResetEvent, ephemeral: EphemeralPorts) -> Self {
        let group = Group { count: 1, first: event.at, last: event.at, peer_sample: event.peer };
        Self::from((Key::of(event, ephemeral), group))
    }

    /// The kernel's reason, where it gave one. Linux 6.10 and 6.11 have the field, but for a RST by the socket itself nothing to
    /// write into it.
    pub fn stated(&self) -> Option<&str> {
        self.reason.as_deref().filter(|reason| *reason != "NOT_SPECIFIED")
    }

    /// See [`ResetEvent::state_before`].
    pub fn state_before(&self) -> Option<TcpState> {
        self.old_state.or(self.state.filter(|state| *state != TcpState::Close))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    direction: Direction,
    reason: Option<String>,
    state: Option<TcpState>,
    old_state: Option<TcpState>,
    active: bool,
    softirq: bool,
    caller: Option<Caller>,
    exiting: bool,
    netns: Option<NetnsId>,
    task: Option<Task>,
    local_addr: Option<IpAddr>,
    local_port: Option<u16>,
    peer_port: Option<u16>,
    peer_addr: Option<IpAddr>,
    folded: bool,
}

#[derive(Debug)]
struct Group {
    count: u64,
    first: Duration,
    last: Duration,
    peer_sample: Option<SocketAddr>,
}

impl Key {
    fn of(event: &ResetEvent, ephemeral: EphemeralPorts) -> Self {
        let peer_port = event.peer.map(|peer| peer.port());
        // A reset of LISTEN, of TIME_WAIT or of no socket at all answers a client, whatever the numbers are.
        let answers = event.direction == Direction::Sent
            && !event.active
            && matches!(event.state, None | Some(TcpState::Listen | TcpState::NewSynRecv | TcpState::TimeWait));
        let client = !answers && peer_port.is_some_and(|port| ephemeral.is_caller(event.local.port(), port));
        Self {
            direction: event.direction,
            reason: event.reason.clone(),
            state: event.state,
            old_state: event.old_state,
            active: event.active,
            softirq: event.softirq,
            caller: event.caller,
            exiting: event.exiting,
            netns: event.netns,
            task: event.task.clone(),
            local_addr: Some(event.local.ip()),
            local_port: (!client).then_some(event.local.port()),
            peer_port: if client { peer_port } else { None },
            peer_addr: event.peer.map(|peer| peer.ip()),
            folded: false,
        }
    }
}

impl From<(Key, Group)> for ResetTally {
    fn from((key, group): (Key, Group)) -> Self {
        Self {
            direction: key.direction,
            reason: key.reason,
            state: key.state,
            old_state: key.old_state,
            active: key.active,
            softirq: key.softirq,
            caller: key.caller,
            exiting: key.exiting,
            netns: key.netns,
            task: key.task,
            local_addr: key.local_addr,
            local_port: key.local_port,
            peer_port: key.peer_port,
            peer_addr: key.peer_addr,
            peer_sample: group.peer_sample,
            folded: key.folded,
            count: group.count,
            first: group.first,
            last: group.last,
        }
    }
}

#[derive(Debug, Default)]
pub struct Tallies {
    groups: HashMap<Key, Group>,
}

impl Tallies {
    pub fn count(&mut self, event: &ResetEvent, ephemeral: EphemeralPorts) {
        let mut key = Key::of(event, ephemeral);
        if self.groups.len() >= MAX_GROUPS && !self.groups.contains_key(&key) {
            (key.peer_addr, key.folded) = (None, true);
            if self.groups.len() >= 2 * MAX_GROUPS && !self.groups.contains_key(&key) {
                (key.local_addr, key.local_port, key.peer_port, key.task) = (None, None, None, None);
            }
        }
        let new = Group { count: 0, first: event.at, last: event.at, peer_sample: event.peer };
        let group = self.groups.entry(key).or_insert(new);
        group.count += 1;
        group.first = group.first.min(event.at);
        group.last = group.last.max(event.at);
    }

    /// Hands over the groups, most frequent first, ties by time.
    pub fn take(&mut self) -> Vec<ResetTally> {
        let mut all: Vec<ResetTally> = self.groups.drain().map(ResetTally::from).collect();
        // Total, so that a replay gives the same order.
        all.sort_by(|a, b| {
            (b.count, a.first, a.last, a.direction, &a.reason, a.local_addr, a.local_port, a.peer_sample, &a.task).cmp(
                &(a.count, b.first, b.last, b.direction, &b.reason, b.local_addr, b.local_port, b.peer_sample, &b.task),
            )
        });
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(local: &str, peer: &str, active: bool) -> ResetEvent {
        ResetEvent {
            at: Duration::from_secs(1),
            direction: Direction::Sent,
            local: local.parse().unwrap(),
            peer: peer.parse().ok(),
            state: if active { Some(TcpState::Close) } else { None },
            old_state: None,
            reason: None,
            task: None,
            softirq: !active,
            active,
            caller: None,
            exiting: false,
            netns: None,
            cookie: None,
        }
    }

    #[test]
    fn clients_are_grouped_by_the_port_they_called() {
        let mut tallies = Tallies::default();
        for port in 40_000..40_010 {
            tallies.count(&event(&format!("10.0.0.1:{port}"), "10.0.0.2:443", true), EphemeralPorts::default());
            tallies.count(&event("10.0.0.1:80", &format!("10.0.0.3:{port}"), true), EphemeralPorts::default());
        }
        let groups = tallies.take();
        let ports: Vec<_> = groups.iter().map(|g| (g.count, g.local_port, g.peer_port)).collect();
        assert!(ports.contains(&(10, None, Some(443))) && ports.contains(&(10, Some(80), None)), "{ports:?}");
        assert_eq!(groups.len(), 2);
    }

    #[test]
    fn a_refused_connect_to_a_high_port_is_grouped_by_that_port() {
        let mut tallies = Tallies::default();
        tallies.count(&event("10.0.0.1:45000", "10.0.0.2:1024", false), EphemeralPorts::default());
        assert_eq!(tallies.take()[0].local_port, Some(45_000));
    }

    #[test]
    fn counts_stay_exact_and_memory_bounded_when_everything_differs() {
        let mut tallies = Tallies::default();
        for i in 0..100_000u32 {
            let peer = format!("10.{}.{}.{}:5000", i >> 16, i >> 8 & 255, i & 255);
            tallies.count(&event(&format!("10.0.0.1:{}", i % 30_000), &peer, false), EphemeralPorts::default());
        }
        let groups = tallies.take();
        assert_eq!(groups.iter().map(|g| g.count).sum::<u64>(), 100_000);
        assert!(groups.len() <= 2 * MAX_GROUPS + 100, "{}", groups.len());
        assert!(groups[0].folded && groups[0].peer_sample.is_some() && groups[0].local_port.is_none());
    }
}
