//! Observations built by hand, for the unit tests of causes. What is not set is unavailable, as on a host that shows
//! nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::observation::delta::source_of;
use crate::observation::{
    Covers, HostSnapshot, HostWindow, ListenerTrace, NetnsWindow, Observation, Resets, Snapshot, View,
};
use crate::reset::testing::NETNS;
use crate::reset::{Drained, Joiner};
use crate::source::conntrack::Conntrack;
use crate::source::counters::{CounterFile, CounterSet, Per};
use crate::source::destroyed_sockets::DestroyedSocket;
use crate::source::host_facts::HostFacts;
use crate::source::listeners::Listener;
use crate::source::owners::{Owners, Process};
use crate::source::reset_events::{Direction, EventAccount, ResetEvent, SignalDeath, Task};
use crate::source::reset_packets::{ResetPacket, Track};
use crate::source::socket_dump::SocketDump;
use crate::source::{file_nr, sockstat};
use crate::value::{Failure, FailureKind, Moment, Observed, TcpState};

mod parts;

pub use parts::{address, crashed, group, half_open, process, task, tracked};

/// A window of 3 s under construction. The resets are joined when it is looked at.
#[derive(Clone)]
pub struct Case {
    pub host: HostWindow,
    pub netns: NetnsWindow,
    pub events: Observed<Vec<ResetEvent>>,
    pub packets: Observed<Vec<ResetPacket>>,
    pub destroyed: Observed<Vec<DestroyedSocket>>,
}

fn unavailable<T>() -> Observed<T> {
    Observed::Unavailable(Failure::new(FailureKind::NotCollected, "not set in this test"))
}

fn at(mono: u64) -> Moment {
    let (mono, wall) = (Duration::from_secs(mono), Duration::from_secs(1_790_000_000 + mono));
    Moment { mono, wall, ..Moment::default() }
}

fn empty_snapshot(mono: u64) -> Snapshot {
    Snapshot {
        netns: NETNS,
        at: at(mono),
        dumped: at(mono),
        counters: CounterSet::default(),
        sysctls: BTreeMap::new(),
        conntrack: unavailable(),
        listeners: unavailable(),
        socket_dump: unavailable(),
        sources: Vec::new(),
    }
}

fn empty_host(mono: u64) -> HostSnapshot {
    HostSnapshot {
        at: at(mono),
        counters: CounterSet::default(),
        sysctls: BTreeMap::new(),
        owners: unavailable(),
        facts: HostFacts::default(),
        sources: Vec::new(),
    }
}

fn set(counters: &mut CounterSet, file: &CounterFile, name: &str, value: u64) {
    let mut inner = counters.value(file).cloned().unwrap_or_default();
    inner.set(name, value);
    counters.insert(file, Observed::Full(inner));
}

/// The value, made anew where there was none.
fn full<T: Default>(observed: &mut Observed<T>) -> &mut T {
    if observed.value().is_none() {
        *observed = Observed::Full(T::default());
    }
    match observed {
        Observed::Full(value) | Observed::Partial(value, _) => value,
        Observed::Unavailable(_) => panic!("it was just made"),
    }
}

impl Case {
    pub fn new() -> Self {
        let host = HostWindow {
            before: empty_host(1000),
            after: empty_host(1003),
            reset_events: unavailable(),
            node: Observed::not_asked(),
            between: None,
            totals_only: false,
        };
        let netns = NetnsWindow {
            name: None,
            gone: false,
            came: false,
            before: empty_snapshot(1000),
            after: empty_snapshot(1003),
            listener_traces: BTreeMap::new(),
            resets: Resets::default(),
            reset_packets: unavailable(),
            endings: unavailable(),
            errors: unavailable(),
        };
        Self { host, netns, events: unavailable(), packets: unavailable(), destroyed: unavailable() }
    }

    /// As a diagnosis sees it, with the resets joined.
    pub fn view(&self) -> View<'static> {
        // A test ends before it would matter.
        let (host, netns) = (Box::leak(Box::new(self.host.clone())), Box::leak(Box::new(self.joined())));
        View { host, netns, covers: Box::leak(Box::default()) }
    }

    pub fn observation(&self) -> Observation {
        let netns = [(NETNS, self.joined())].into();
        Observation { host: self.host.clone(), netns, covers: Covers::default() }
    }

    /// Both ends, and what was seen between them, happen that much later.
    pub fn later(mut self, by: Duration) -> Self {
        let (host, netns) = (&mut self.host, &mut self.netns);
        for at in [&mut netns.before.at, &mut netns.after.at, &mut netns.before.dumped, &mut netns.after.dumped] {
            at.mono += by;
            at.wall += by;
        }
        (host.before.at, host.after.at) = (netns.before.at, netns.after.at);
        if let Observed::Full(events) = &mut self.events {
            events.iter_mut().for_each(|event| event.at += by);
        }
        if let Observed::Full(packets) = &mut self.packets {
            packets.iter_mut().for_each(|packet| packet.at += by);
        }
        if let Observed::Full(destroyed) = &mut self.destroyed {
            destroyed.iter_mut().for_each(|socket| (socket.at, socket.after) = (socket.at + by, socket.after + by));
        }
        self
    }

    fn joined(&self) -> NetnsWindow {
        let mut joiner = Joiner::default();
        joiner.packets_alone = self.host.reset_events.value().is_none();
        let of = |socket: DestroyedSocket| (NETNS, socket);
        let drained = Drained {
            events: self.events.value().cloned().unwrap_or_default(),
            packets: self.packets.value().cloned().unwrap_or_default(),
            destroyed: self.destroyed.value().cloned().unwrap_or_default().into_iter().map(of).collect(),
            errors: Vec::new(),
        };
        let joined = joiner.step(drained, Duration::MAX);
        let mut netns = self.netns.clone();
        netns.resets.single = joined.resets;
        if self.destroyed.value().is_some() {
            full(&mut netns.endings).endings = joined.endings.into_iter().map(|(_, ending)| ending).collect();
        }
        netns
    }

    /// A counter that stood at `before` and moved by `delta`.
    pub fn counter(mut self, name: &str, before: u64, delta: u64) -> Self {
        let sides = [
            (&mut self.netns.before, &mut self.host.before, before),
            (&mut self.netns.after, &mut self.host.after, before + delta),
        ];
        for (snapshot, host, value) in sides {
            let gauge = name.starts_with("TCP.") || name.starts_with("TCP6.");
            let file = if gauge { &sockstat::FILE } else { source_of(name) };
            let counters = match file.per {
                Per::Host => &mut host.counters,
                Per::Netns => &mut snapshot.counters,
            };
            set(counters, file, name, value);
        }
        self
    }

    /// A gauge of /proc/net/sockstat.
    pub fn sockstat(self, name: &str, value: u64) -> Self {
        self.counter(name, value, 0)
    }

    pub fn sysctl(mut self, name: &'static str, text: &str) -> Self {
        for snapshot in [&mut self.netns.before, &mut self.netns.after] {
            snapshot.sysctls.insert(name, Observed::Full(text.to_owned()));
        }
        self
    }

    /// A listener that was full in `full_samples` of 60 samples, held by `process`.
    pub fn listener(
        mut self,
        endpoint: &str,
        backlog: u32,
        max_recv_q: u32,
        full_samples: u32,
        process: &Process,
    ) -> Self {
        let endpoint: std::net::SocketAddr = endpoint.parse().expect("endpoint");
        let number = self.netns.listener_traces.len() as u32 + 1;
        let listener = Listener {
            address: endpoint.ip(),
            port: endpoint.port(),
            recv_q: max_recv_q,
            backlog,
            drops: Some(0),
            inode: number,
            uid: 0,
            device: 0,
            v6_only: false,
            cookie: u64::from(number),
        };
        let trace = ListenerTrace {
            last: listener.clone(),
            first: listener.clone(),
            samples: 60,
            full_samples,
            max_recv_q,
            drained: 0,
            in_before: true,
            in_after: true,
            last_sample: 59,
        };
        self.netns.listener_traces.insert(listener.cookie, trace);
        for snapshot in [&mut self.netns.before, &mut self.netns.after] {
            let mut listeners = snapshot.listeners.value().cloned().unwrap_or_default();
            listeners.push(listener.clone());
            snapshot.listeners = Observed::Full(listeners);
        }
        self.holder(number, process)
    }

    /// The listener that was added last lost up to `drops` connections in the window.
    pub fn listener_drops(self, drops: u32) -> Self {
        self.last_trace(|trace| trace.last.drops = Some(drops))
    }

    /// The queue of the listener that was added last went from `first` to `last`, and got shorter `drained` times.
    pub fn queue(self, first: u32, last: u32, drained: u32) -> Self {
        self.last_trace(|trace| {
            trace.first.recv_q = first;
            trace.last.recv_q = last;
            trace.drained = drained;
        })
    }

    fn last_trace(mut self, change: impl FnOnce(&mut ListenerTrace)) -> Self {
        change(self.netns.listener_traces.values_mut().next_back().expect("a listener"));
        self
    }

    /// fs.file-nr.
    pub fn file_nr(mut self, allocated: u64, max: u64) -> Self {
        set(&mut self.host.after.counters, &file_nr::FILE, "allocated", allocated);
        set(&mut self.host.after.counters, &file_nr::FILE, "max", max);
        self
    }

    /// `process` holds the socket with this inode, before and after.
    pub fn holder(mut self, inode: u32, process: &Process) -> Self {
        for host in [&mut self.host.before, &mut self.host.after] {
            let mut owners = host.owners.value().map(|owners| Owners::clone(owners)).unwrap_or_default();
            owners.by_inode.entry(inode).or_default().push(process.pid);
            owners.processes.insert(process.pid, process.clone());
            host.owners = Observed::Full(owners.into());
        }
        self
    }

    pub fn socket_dump(mut self, before: SocketDump, after: SocketDump) -> Self {
        self.netns.before.socket_dump = Observed::Full(before.into());
        self.netns.after.socket_dump = Observed::Full(after.into());
        self
    }

    pub fn conntrack(mut self, before: Conntrack, after: Conntrack) -> Self {
        self.netns.before.conntrack = Observed::Full(before);
        self.netns.after.conntrack = Observed::Full(after);
        self
    }

    pub fn signal_death(mut self, death: SignalDeath) -> Self {
        full(&mut self.host.reset_events).deaths.push(death);
        self
    }

    /// `process` began in the window, and holds the socket with this inode.
    pub fn started(self, inode: u32, process: &Process) -> Self {
        let before = self.host.before.owners.clone();
        let mut case = self.holder(inode, process);
        case.host.before.owners = before;
        case
    }

    /// The process is not there any more at the end of the window.
    pub fn died(mut self, pid: u32) -> Self {
        if let Observed::Full(owners) = &mut self.host.after.owners {
            let owners = std::sync::Arc::make_mut(owners);
            owners.processes.remove(&pid);
            owners.by_inode.values_mut().for_each(|holders| holders.retain(|holder| *holder != pid));
        }
        self
    }

    /// Nobody listens on this port any more at the end of the window.
    pub fn stopped_listening(mut self, port: u16) -> Self {
        for trace in self.netns.listener_traces.values_mut().filter(|trace| trace.last.port == port) {
            (trace.in_after, trace.last_sample) = (false, 30);
        }
        if let Observed::Full(listeners) = &mut self.netns.after.listeners {
            listeners.retain(|listener| listener.port != port);
        }
        self
    }

    /// The tracepoints worked; `resets` adds what they saw.
    pub fn tracepoints(mut self) -> Self {
        self.host.reset_events = Observed::Full(EventAccount::default());
        self.events = Observed::Full(Vec::new());
        self
    }

    /// `count` RSTs sent for `reason`, from distinct ports of the peer if that is one of a client (port 0).
    pub fn sent(self, count: u16, reason: &str, state: Option<TcpState>, ends: [&str; 2], task: Option<Task>) -> Self {
        self.resets(count, Direction::Sent, Some(reason), state, ends, task)
    }

    pub fn received(self, count: u16, state: TcpState, ends: [&str; 2]) -> Self {
        self.resets(count, Direction::Received, None, Some(state), ends, None)
    }

    /// Connects of this program that were refused.
    pub fn refused(self, count: u16, ends: [&str; 2], task: Task) -> Self {
        self.resets(count, Direction::Received, None, Some(TcpState::SynSent), ends, Some(task))
    }

    fn resets(
        mut self,
        count: u16,
        direction: Direction,
        reason: Option<&str>,
        state: Option<TcpState>,
        ends: [&str; 2],
        task: Option<Task>,
    ) -> Self {
        full(&mut self.host.reset_events);
        for number in 0..count {
            let [local, peer] = ends.map(|end| client(end, number));
            full(&mut self.events).push(ResetEvent {
                at: Duration::from_secs(1001) + Duration::from_millis(u64::from(number) * 50),
                direction,
                local,
                peer: Some(peer),
                state,
                reason: reason.map(str::to_owned),
                softirq: task.is_none(),
                task: task.clone(),
                cookie: Some(u64::from(number) + 1000),
                old_state: None,
                active: task.is_some(),
                caller: None,
                exiting: false,
                netns: Some(NETNS),
            });
        }
        self
    }

    /// `count` RST packets with these TCP flags and TTL; the far end's address is not of this host.
    pub fn packets(mut self, count: u16, direction: Direction, flags: u8, ttl: u8, ends: [&str; 2]) -> Self {
        full(&mut self.netns.reset_packets);
        let seen = full(&mut self.packets);
        for number in 0..count {
            let [local, peer] = ends.map(|end| client(end, number));
            seen.push(ResetPacket {
                at: Duration::from_secs(1001) + Duration::from_millis(u64::from(number) * 50),
                netns: NETNS,
                direction,
                local,
                peer,
                local_here: true,
                forwarded: false,
                peer_here: false,
                interface: 2,
                loopback: false,
                flags,
                // An answer has either an ACK or a sequence number of its own.
                seq: if flags & ACK == 0 { 7 } else { 0 },
                ack: if flags & ACK == 0 { 0 } else { 1 },
                window: 0,
                ttl,
                ip_id: Some(0),
                track: None,
                options: false,
                stated: None,
            });
        }
        self
    }

    /// This address, and those that were named so before, are all of this namespace.
    pub fn local_address(mut self, address: &str) -> Self {
        let addresses = std::sync::Arc::make_mut(&mut full(&mut self.netns.reset_packets).addresses);
        addresses.line(&format!("address {address}"));
        self
    }

    /// The received packets have this IP id, and those of their connections before ended at `last`.
    pub fn ip_ids(mut self, id: u16, last: u16, fits: bool) -> Self {
        for packet in full(&mut self.packets).iter_mut().filter(|packet| packet.direction == Direction::Received) {
            (packet.ip_id, packet.track) = (Some(id), Some(Track { last, fits }));
        }
        self
    }

    /// Other packets of this peer arrived with this TTL.
    pub fn seen_ttl(mut self, peer: &str, ttl: u8) -> Self {
        let ttls = std::sync::Arc::make_mut(&mut full(&mut self.netns.reset_packets).ttls);
        (1..=3).for_each(|port| ttls.add(SocketAddr::new(address(peer), port), ttl));
        self
    }

    /// `count` connections between these ends were destroyed, after a pause before their last use and `retransmits`.
    pub fn destroyed_sockets(mut self, count: u16, ends: [&str; 2], pause_ms: u32, retransmits: u8) -> Self {
        full(&mut self.netns.endings);
        for number in 0..count {
            let [local, peer] = ends.map(|end| client(end, number));
            let at = Duration::from_secs(1001) + Duration::from_millis(u64::from(number) * 50 + 20);
            full(&mut self.destroyed).push(DestroyedSocket {
                at,
                after: at - Duration::from_millis(50),
                local,
                peer,
                cookie: u64::from(number) + 1000,
                data_sent_ms: 5,
                data_received_ms: pause_ms + 5,
                ack_received_ms: pause_ms + 5,
                unacknowledged: 5,
                unread: 0,
                retransmits,
                timeout: Duration::ZERO,
                held_back: Some(Duration::ZERO),
                bytes_received: Some(100),
                bytes_sent: Some(80),
                unanswered: false,
                unacknowledged_altogether: false,
                unsent: Some(0),
            });
        }
        self
    }

    /// Changes the events.
    pub fn each_event(mut self, change: impl FnMut(&mut ResetEvent)) -> Self {
        full(&mut self.events).iter_mut().for_each(change);
        self
    }

    /// Changes the packets.
    pub fn each_packet(mut self, change: impl FnMut(&mut ResetPacket)) -> Self {
        full(&mut self.packets).iter_mut().for_each(change);
        self
    }

    /// Changes the destroyed connections.
    pub fn each_destroyed(mut self, change: impl FnMut(&mut DestroyedSocket)) -> Self {
        full(&mut self.destroyed).iter_mut().for_each(change);
        self
    }
}

const ACK: u8 = 0x10;

/// An endpoint; port 0 stands for the port of a client, another one each time.
fn client(end: &str, number: u16) -> SocketAddr {
    let end: SocketAddr = end.parse().expect("endpoint");
    SocketAddr::new(end.ip(), if end.port() == 0 { 40_000 + number } else { end.port() })
}
