//! Observations built by hand, for the unit tests of causes. What is not set is unavailable, as on a host that shows
//! nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::cause::{Finding, Verdict};
use crate::evidence::Evidence;
use crate::observation::delta::source_of;
use crate::observation::{ListenerTrace, Observation, Snapshot};
use crate::source::conntrack::Conntrack;
use crate::source::counters::Counters;
use crate::source::destroyed_sockets::DestroyedSocket;
use crate::source::host_facts::HostFacts;
use crate::source::listeners::Listener;
use crate::source::owners::{Owners, Process};
use crate::source::reset_events::{Direction, Place, ResetEvent, ResetEvents, Task, regroup};
use crate::source::reset_packets::{ResetPacket, Track};
use crate::source::socket_dump::SocketDump;
use crate::value::{Failure, FailureKind, Missing, Moment, NetnsId, Observed, TcpState};

mod parts;

pub use parts::{address, group, half_open, process, task, tracked};

/// A window of 3 s under construction.
pub struct Case(pub Observation);

fn unavailable<T>() -> Observed<T> {
    Observed::Unavailable(Failure::new(FailureKind::NotCollected, "not set in this test"))
}

fn empty_snapshot(mono: u64) -> Snapshot {
    let (mono, wall) = (Duration::from_secs(mono), Duration::from_secs(1_790_000_000 + mono));
    let at = Moment { mono, wall, ..Moment::default() };
    Snapshot {
        netns: NetnsId(4_026_531_840),
        at,
        dumped: at,
        netstat: unavailable(),
        snmp: unavailable(),
        snmp6: unavailable(),
        sockstat: unavailable(),
        sockstat6: unavailable(),
        vmstat: unavailable(),
        file_nr: unavailable(),
        sysctls: BTreeMap::new(),
        conntrack: unavailable(),
        listeners: unavailable(),
        socket_dump: unavailable(),
        owners: unavailable(),
        host: HostFacts::default(),
        sources: Vec::new(),
    }
}

fn set(counters: &mut Observed<Counters>, name: &str, value: u64) {
    let mut inner = counters.value().cloned().unwrap_or_default();
    inner.set(name, value);
    *counters = Observed::Full(inner);
}

impl Case {
    pub fn new() -> Self {
        Self(Observation {
            before: empty_snapshot(1000),
            after: empty_snapshot(1003),
            listener_traces: BTreeMap::new(),
            polls: 60,
            reset_events: unavailable(),
            earlier_resets: Vec::new(),
            reset_packets: unavailable(),
            destroyed_sockets: unavailable(),
            totals_only: false,
        })
    }

    /// A counter that stood at `before` and moved by `delta`.
    pub fn counter(mut self, name: &str, before: u64, delta: u64) -> Self {
        for (snapshot, value) in [(&mut self.0.before, before), (&mut self.0.after, before + delta)] {
            let counters = match source_of(name).name {
                _ if name.starts_with("TCP.") || name.starts_with("TCP6.") => &mut snapshot.sockstat,
                "netstat" => &mut snapshot.netstat,
                "snmp6" => &mut snapshot.snmp6,
                "vmstat" => &mut snapshot.vmstat,
                _ => &mut snapshot.snmp,
            };
            set(counters, name, value);
        }
        self
    }

    /// A gauge of /proc/net/sockstat.
    pub fn sockstat(self, name: &str, value: u64) -> Self {
        self.counter(name, value, 0)
    }

    pub fn sysctl(mut self, name: &'static str, text: &str) -> Self {
        for snapshot in [&mut self.0.before, &mut self.0.after] {
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
        let number = self.0.listener_traces.len() as u32 + 1;
        let listener = Listener {
            address: endpoint.ip(),
            port: endpoint.port(),
            recv_q: max_recv_q,
            backlog,
            drops: Some(0),
            inode: number,
            uid: 0,
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
            first_sample: 0,
            last_sample: 59,
        };
        self.0.listener_traces.insert(listener.cookie, trace);
        for snapshot in [&mut self.0.before, &mut self.0.after] {
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
        change(self.0.listener_traces.values_mut().next_back().expect("a listener"));
        self
    }

    /// fs.file-nr.
    pub fn file_nr(mut self, allocated: u64, max: u64) -> Self {
        set(&mut self.0.after.file_nr, "allocated", allocated);
        set(&mut self.0.after.file_nr, "max", max);
        self
    }

    /// `process` holds the socket with this inode, before and after.
    pub fn holder(mut self, inode: u32, process: &Process) -> Self {
        for snapshot in [&mut self.0.before, &mut self.0.after] {
            let mut owners = snapshot.owners.value().map(|owners| Owners::clone(owners)).unwrap_or_default();
            owners.by_inode.entry(inode).or_default().push(process.pid);
            owners.processes.insert(process.pid, process.clone());
            snapshot.owners = Observed::Full(owners.into());
        }
        self
    }

    pub fn socket_dump(mut self, before: SocketDump, after: SocketDump) -> Self {
        self.0.before.socket_dump = Observed::Full(before.into());
        self.0.after.socket_dump = Observed::Full(after.into());
        self
    }

    pub fn conntrack(mut self, before: Conntrack, after: Conntrack) -> Self {
        self.0.before.conntrack = Observed::Full(before);
        self.0.after.conntrack = Observed::Full(after);
        self
    }

    /// The process is not there any more at the end of the window.
    pub fn died(mut self, pid: u32) -> Self {
        if let Observed::Full(owners) = &mut self.0.after.owners {
            let owners = std::sync::Arc::make_mut(owners);
            owners.processes.remove(&pid);
            owners.by_inode.values_mut().for_each(|holders| holders.retain(|holder| *holder != pid));
        }
        self
    }

    /// Nobody listens on this port any more at the end of the window.
    pub fn stopped_listening(mut self, port: u16) -> Self {
        for trace in self.0.listener_traces.values_mut().filter(|trace| trace.last.port == port) {
            (trace.in_after, trace.last_sample) = (false, 30);
        }
        if let Observed::Full(listeners) = &mut self.0.after.listeners {
            listeners.retain(|listener| listener.port != port);
        }
        self
    }

    /// The tracepoints worked; `resets` adds what they saw.
    pub fn tracepoints(mut self) -> Self {
        self.0.reset_events = Observed::Full(ResetEvents::default());
        self
    }

    /// `count` RSTs sent for `reason`, from distinct ports of the peer if that is one of a client (port 0).
    pub fn sent(self, count: u16, reason: &str, state: Option<TcpState>, ends: [&str; 2], task: Option<Task>) -> Self {
        self.resets(count, Direction::Sent, Some(reason), state, ends, task)
    }

    pub fn received(self, count: u16, state: TcpState, ends: [&str; 2]) -> Self {
        self.resets(count, Direction::Received, None, Some(state), ends, None)
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
        let mut seen = self.0.reset_events.value().cloned().unwrap_or_default();
        let [local, peer]: [std::net::SocketAddr; 2] = ends.map(|end| end.parse().expect("endpoint"));
        for number in 0..count {
            let clients = |mut end: std::net::SocketAddr| {
                if end.port() == 0 {
                    end.set_port(40_000 + number);
                }
                end
            };
            let event = ResetEvent {
                at: Duration::from_secs(1001) + Duration::from_millis(u64::from(number) * 50),
                direction,
                local: clients(local),
                peer: Some(clients(peer)),
                state,
                reason: reason.map(str::to_owned),
                softirq: task.is_none(),
                task: task.clone(),
                cookie: Some(u64::from(number) + 1000),
                old_state: None,
                active: task.is_some(),
                caller: None,
                exiting: false,
                place: Place::Here,
                netns: None,
            };
            seen.tallies.extend(regroup(std::slice::from_ref(&event), |port| (32_768..61_000).contains(&port)));
            seen.events.push(event);
        }
        self.0.reset_events = Observed::Full(seen);
        self
    }

    /// `count` RST packets with these TCP flags and TTL; the far end's address is not of this host.
    pub fn packets(mut self, count: u16, direction: Direction, flags: u8, ttl: u8, ends: [&str; 2]) -> Self {
        let mut seen = self.0.reset_packets.value().cloned().unwrap_or_default();
        let [local, peer]: [SocketAddr; 2] = ends.map(|end| end.parse().expect("endpoint"));
        for number in 0..count {
            let clients =
                |end: SocketAddr| SocketAddr::new(end.ip(), if end.port() == 0 { 40_000 + number } else { end.port() });
            seen.packets.push(ResetPacket {
                at: Duration::from_secs(1001) + Duration::from_millis(u64::from(number) * 50),
                direction,
                local: clients(local),
                peer: clients(peer),
                local_here: true,
                peer_here: false,
                interface: 2,
                loopback: false,
                flags,
                seq: 7,
                ack: 0,
                window: 0,
                ttl,
                ip_id: Some(0),
                track: None,
                options: false,
            });
        }
        self.0.reset_packets = Observed::Full(seen);
        self
    }

    /// The received packets have this IP id, and those of their connections before ended at `last`.
    pub fn ip_ids(mut self, id: u16, last: u16, fits: bool) -> Self {
        if let Observed::Full(seen) = &mut self.0.reset_packets {
            for packet in seen.packets.iter_mut().filter(|packet| packet.direction == Direction::Received) {
                (packet.ip_id, packet.track) = (Some(id), Some(Track { last, fits }));
            }
        }
        self
    }

    /// Other packets of this peer arrived with this TTL.
    pub fn seen_ttl(mut self, peer: &str, ttl: u8) -> Self {
        let mut seen = self.0.reset_packets.value().cloned().unwrap_or_default();
        (1..=3)
            .for_each(|port| std::sync::Arc::make_mut(&mut seen.ttls).add(SocketAddr::new(address(peer), port), ttl));
        self.0.reset_packets = Observed::Full(seen);
        self
    }

    /// `count` connections between these ends were destroyed, after a pause before their last use and `retransmits`.
    pub fn destroyed_sockets(mut self, count: u16, ends: [&str; 2], pause_ms: u32, retransmits: u8) -> Self {
        let mut seen = self.0.destroyed_sockets.value().cloned().unwrap_or_default();
        let [local, peer]: [SocketAddr; 2] = ends.map(|end| end.parse().expect("endpoint"));
        for number in 0..count {
            let clients =
                |end: SocketAddr| SocketAddr::new(end.ip(), if end.port() == 0 { 40_000 + number } else { end.port() });
            let at = Duration::from_secs(1001) + Duration::from_millis(u64::from(number) * 50 + 20);
            seen.words.push(DestroyedSocket {
                at,
                after: at - Duration::from_millis(50),
                local: clients(local),
                peer: clients(peer),
                cookie: u64::from(number) + 1000,
                data_sent_ms: 5,
                data_received_ms: pause_ms + 5,
                ack_received_ms: pause_ms + 5,
                unacknowledged: 5,
                unread: 0,
                retransmits,
                timeout: Duration::ZERO,
                bytes_received: Some(100),
                bytes_sent: Some(80),
                unsent: Some(0),
            });
        }
        self.0.destroyed_sockets = Observed::Full(seen);
        self
    }

    pub fn judge(&self, cause: &crate::cause::Cause) -> Result<Verdict, Missing> {
        (cause.judge)(&Evidence::new(&self.0))
    }

    pub fn is_ruled_out(&self, cause: &crate::cause::Cause) -> bool {
        matches!(self.judge(cause), Ok(Verdict::RuledOut(_)))
    }

    /// The source that it lacks, if it lacks one.
    pub fn missing(&self, cause: &crate::cause::Cause) -> Option<&'static str> {
        self.judge(cause).err().map(|missing| missing.source)
    }

    /// The only finding; a failed test shows what came instead.
    pub fn finding(&self, cause: &crate::cause::Cause) -> Finding {
        match self.judge(cause) {
            Ok(Verdict::Found(mut findings)) if findings.len() == 1 => findings.remove(0),
            other => panic!("{} gave {other:?}", cause.id),
        }
    }
}
