//! The running kernel as a [`Host`](crate::ask::Host).

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::at_once;
use super::clock::{now, used};
use super::destroyed_sockets::{DestroyedMulticast, Rounds};
use super::namespace::{self, Handle, NamespaceError};
use super::netlink::DiagSocket;
use super::owners::Owners;
use super::packet::PacketSocket;
use super::proc_file;
use super::reach::Reach;
use super::sys::{FRAME_RING, block};
use super::trace_context;
use super::tracepoint::{Counts, Details, Tracepoints};
use crate::ask::{Answer, Ask, Clock, Frame, Probe, Scope, What};
use crate::source::{snmp, sysctl};
use crate::value::{Failure, FailureKind, Moment, NetnsId};

/// How late an interrupt may be noticed while waiting for a frame.
const SLICE: Duration = Duration::from_millis(200);
/// The counters that are asked for in each window, of idle namespaces these alone. The file stays open: to enter a namespace and
/// to find it there takes several times as long as to read it.
const KEPT: &str = snmp::PATH;

/// Asks the kernel that runs this process, each network namespace by sockets and files of its own. The calling thread enters it
/// for as long as that takes; keep the host on one thread.
pub struct LiveHost {
    stop: Arc<AtomicBool>,
    window: Option<Duration>,
    /// What the next question for reset events has to know of the kernel's counts: at the end of a window more, and nothing
    /// comes after the last one.
    counts: Counts,
    /// The reset events of this frame were the last.
    ended: bool,
    observed: BTreeMap<NetnsId, Inside>,
    /// Bytes for the packets of all together, where they are not few.
    room: usize,
    rounds: Rounds,
    /// Settings of one namespace that were read ahead in this frame, by path.
    ahead: Option<(NetnsId, BTreeMap<String, ReadAhead>)>,
    node: Reach,
    owners: Owners,
    details: Details,
    /// Opened by the first question, so that a scan that does not ask pays nothing.
    tracepoints: Option<Result<Tracepoints, Failure>>,
    /// Those of the window before are being closed.
    closing: Option<thread::JoinHandle<()>>,
}

/// Bytes for the packets of one of so many network namespaces: all together they take no more than the one would alone, and each
/// has room for 64.
fn room(all: usize, namespaces: usize) -> usize {
    (all / namespaces.max(1) / block() * block()).max(block())
}

type ReadAhead = Result<Vec<u8>, Failure>;

/// All settings, which are asked for in a row: to enter the namespace for each of them takes longer than to read it.
fn settings_ahead() -> BTreeMap<String, ReadAhead> {
    let read = |name: &&str| {
        let (path, mut bytes) = (sysctl::path(name), Vec::new());
        let result = proc_file::read(&path, &mut |part| bytes.extend_from_slice(part));
        (path, result.map(|()| bytes))
    };
    sysctl::NAMES.iter().map(read).collect()
}

/// What is open in one network namespace. A socket stays in the namespace in which it was opened.
struct Inside {
    there: Handle,
    name: Option<String>,
    diag: DiagSocket,
    packets: Option<Result<PacketSocket, Failure>>,
    destroyed_sockets: Option<Result<DestroyedMulticast, Failure>>,
    /// [`KEPT`], open.
    counters: Option<File>,
    /// Bytes for packets.
    room: usize,
    /// Nothing leads to it any more: it ends with this frame.
    gone: bool,
}

impl Inside {
    fn new(there: Handle, name: Option<String>, room: usize) -> Self {
        let diag = DiagSocket::default();
        Self { there, name, diag, packets: None, destroyed_sockets: None, counters: None, room, gone: false }
    }

    /// What answers is open already, and stays in the namespace wherever the thread is.
    fn is_open(&self, what: &What) -> bool {
        match what {
            What::SockDiag(_) => self.diag.is_open(),
            What::ResetPackets => self.packets.is_some(),
            What::DestroyedSockets => self.destroyed_sockets.is_some(),
            What::File(path) => path == KEPT && self.counters.is_some(),
            _ => false,
        }
    }

    fn ask(&mut self, what: &What, rounds: &mut Rounds, sink: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        match what {
            What::File(path) if path == KEPT => {
                let file = match self.counters.take() {
                    Some(file) => file,
                    None => proc_file::open(path)?,
                };
                proc_file::read_again(path, self.counters.insert(file), sink)
            }
            What::File(path) => proc_file::read(path, sink),
            What::SockDiag(query) => self.diag.dump(query, sink),
            What::ResetPackets => {
                match self.packets.get_or_insert_with(|| PacketSocket::with_room(&self.there, self.room)) {
                    Ok(packets) => packets.drain(sink),
                    Err(failure) => Err(failure.clone()),
                }
            }
            What::DestroyedSockets => {
                let came = rounds.came(self.there.id().0);
                match &mut self.destroyed_sockets {
                    Some(Ok(sockets)) => came.map_or(Ok(()), |empty| sockets.drain(empty, sink)),
                    Some(Err(failure)) => Err(failure.clone()),
                    none => match none.insert(DestroyedMulticast::open()) {
                        Ok(sockets) => {
                            sockets.join(rounds, self.there.id().0);
                            sockets.drain(0, sink)
                        }
                        Err(failure) => Err(failure.clone()),
                    },
                }
            }
            What::Namespaces | What::Node | What::SocketOwners { .. } | What::Tasks | What::ResetEvents => {
                Err(Failure::new(FailureKind::Broken, format!("{} is a question to the host", what.key())))
            }
        }
    }
}

impl LiveHost {
    /// Observes the network namespace of the calling thread. `stop` ends the window early once it is true; signal handlers
    /// set it.
    pub fn new(stop: Arc<AtomicBool>) -> Self {
        Self::observing(stop, [(Handle::current(), None)])
    }

    /// Observes these network namespaces, with the names by which they were found.
    pub fn observing(stop: Arc<AtomicBool>, namespaces: impl IntoIterator<Item = (Handle, Option<String>)>) -> Self {
        let inside = |(there, name): (Handle, _)| (there.id(), Inside::new(there, name, FRAME_RING));
        Self {
            stop,
            window: None,
            counts: Counts::Seldom,
            ended: false,
            observed: namespaces.into_iter().map(inside).collect(),
            room: FRAME_RING,
            rounds: Rounds::default(),
            ahead: None,
            node: Reach::default(),
            owners: Owners::default(),
            details: Details::All,
            tracepoints: None,
            closing: None,
        }
    }

    /// Observes every network namespace of this node that may be entered, those included that appear meanwhile.
    pub fn of_node(stop: Arc<AtomicBool>) -> Self {
        let mut host = Self::new(stop);
        host.node = Reach::whole();
        host.renew();
        host
    }

    /// Half the memory for packets. Of what is not open yet: called before the first question.
    pub fn spare_memory(&mut self) {
        self.room = FRAME_RING / 2;
        for inside in self.observed.values_mut() {
            inside.room = inside.room.min(self.room);
        }
    }

    /// Of resets without call chains and errors; called before the first question.
    pub fn spare_details(&mut self) {
        self.details = Details::Few;
    }

    /// Opens what is new, and marks what is gone.
    fn renew(&mut self) {
        let found = self.node.look();
        let own = found.own;
        let all = found.netns.len();
        for (id, inside) in &mut self.observed {
            inside.gone = *id != own && !found.netns.contains_key(id);
        }
        let known = self.observed.len();
        for (id, spot) in &found.netns {
            if self.observed.contains_key(id) || self.observed.len() >= self.node.most() {
                continue;
            }
            let Some(there) = spot.open() else { continue };
            if !self.node.may_enter(&there) {
                break;
            }
            self.observed.insert(*id, Inside::new(there, spot.told.name.clone(), room(self.room, all)));
        }
        self.node.keep(found);
        if self.observed.len() != known {
            self.follow();
        }
    }

    /// The reset events of those that are under observation now.
    fn follow(&mut self) {
        if let Some(Ok(tracepoints)) = &mut self.tracepoints {
            tracepoints.observe(self.observed.values().map(|inside| inside.there.clone()).collect());
        }
    }

    fn ask_netns(&mut self, netns: NetnsId, what: &What, sink: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        let without = |inside: &Inside| inside.packets.is_none();
        if *what == What::ResetPackets && self.observed.len() > 1 && self.observed.get(&netns).is_some_and(without) {
            self.open_packets()?;
        }
        let inside = self.observed.get_mut(&netns).ok_or_else(|| {
            Failure::new(FailureKind::Absent, format!("the network namespace {netns} is not under observation"))
        })?;
        if inside.is_open(what) {
            namespace::must_be_home()?;
            return inside.ask(what, &mut self.rounds, sink);
        }
        let (there, rounds) = (inside.there.clone(), &mut self.rounds);
        if let What::File(path) = what
            && *path == sysctl::path(sysctl::NAMES[0])
        {
            self.ahead = Some((netns, namespace::with_namespace(&there, settings_ahead)?));
        }
        if let (What::File(path), Some((id, ahead))) = (what, &mut self.ahead)
            && *id == netns
            && let Some(read) = ahead.remove(path)
        {
            return read.map(|bytes| sink(&bytes));
        }
        namespace::with_namespace(&there, || inside.ask(what, rounds, sink))?
    }

    /// The packet sockets of all that have none yet.
    fn open_packets(&mut self) -> Result<(), Failure> {
        namespace::must_be_home()?;
        let without = self.observed.iter().filter(|(_, inside)| inside.packets.is_none());
        let without = without.map(|(id, inside)| (*id, inside.there.clone(), inside.room)).collect();
        let open = |there: &Handle, room| -> Result<PacketSocket, Failure> {
            namespace::with_namespace(there, || PacketSocket::with_room(there, room))?
        };
        for (id, opened) in at_once::each(without, |(id, there, room)| (id, open(&there, room))) {
            if let Some(inside) = self.observed.get_mut(&id) {
                inside.packets = Some(opened);
            }
        }
        Ok(())
    }

    /// Leaves those of which nothing is to be asked any more.
    fn leave(&mut self, gone: impl Fn(&Inside) -> bool) {
        let packets =
            self.observed.values_mut().filter(|inside| gone(inside)).filter_map(|inside| inside.packets.take());
        at_once::each(packets.collect(), drop);
        self.observed.retain(|_, inside| !gone(inside));
    }

    fn ask_host(&mut self, what: &What, sink: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        namespace::must_be_home()?;
        match what {
            What::File(path) => {
                let read = proc_file::read(path, sink);
                let absent = matches!(&read, Err(failure) if failure.kind == FailureKind::Absent);
                // Limits of the whole host that only the first network namespace shows.
                let elsewhere = absent && path.starts_with("/proc/sys/net/");
                let first = elsewhere.then(|| {
                    let first = Handle::of_init()?;
                    namespace::with_namespace(&first, || proc_file::read(path, sink))
                });
                match first {
                    Some(Ok(there)) => there,
                    Some(Err(denied @ NamespaceError::Denied { .. })) if sysctl::is_of_host(path) => {
                        let text = format!("{path} is only there in the first network namespace");
                        let needs = Failure::from(denied).needs.unwrap_or_default();
                        Err(Failure::new(FailureKind::Denied, text).needs(needs))
                    }
                    _ => read,
                }
            }
            What::Namespaces => {
                if self.node.is_due() {
                    self.renew();
                }
                for (netns, inside) in self.observed.iter().filter(|(_, inside)| !inside.gone) {
                    let name = inside.name.as_ref().map_or(String::new(), |name| format!(" {name}"));
                    sink(format!("{netns}{name}\n").as_bytes());
                }
                Ok(())
            }
            What::Node => {
                let observed = |id: NetnsId| self.observed.contains_key(&id);
                sink(self.node.text(&observed).as_bytes());
                Ok(())
            }
            What::SocketOwners { inodes, also } => self.owners.look(inodes, also, sink),
            What::Tasks => {
                sink(trace_context::tasks().as_bytes());
                Ok(())
            }
            What::ResetEvents => self.reset_events(sink),
            What::SockDiag(_) | What::ResetPackets | What::DestroyedSockets => {
                Err(Failure::new(FailureKind::Broken, format!("{} is a question to a network namespace", what.key())))
            }
        }
    }

    fn reset_events(&mut self, sink: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        if self.ended {
            return Ok(());
        }
        let observed = self.observed.values().map(|inside| inside.there.clone());
        let open = || Tracepoints::open(observed.collect(), self.details);
        match self.tracepoints.get_or_insert_with(open) {
            Ok(tracepoints) => {
                let result = tracepoints.drain(self.counts, sink);
                match self.counts {
                    // They are stopped for good; a further window opens its own.
                    Counts::Final => {
                        self.ended = true;
                        self.end_tracepoints();
                    }
                    Counts::Now | Counts::Seldom => self.counts = Counts::Seldom,
                }
                result
            }
            Err(failure) => Err(failure.clone()),
        }
    }

    /// Closes them while other things are asked for: the last event of each tracepoint waits for grace periods of RCU
    /// (kernel/trace/trace_event_perf.c perf_trace_event_unreg()), 0.2 s in all.
    fn end_tracepoints(&mut self) {
        let ended = self.tracepoints.take();
        // Where no thread may start they are closed here.
        self.closing = thread::Builder::new().spawn(move || drop(ended)).ok();
    }

    /// Sleeps until `due` after the window began. False when the stop flag came first.
    fn wait(&self, due: Duration) -> bool {
        let start = self.window.unwrap_or_else(|| now().mono);
        let due = start.saturating_add(due);
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return false;
            }
            match due.checked_sub(now().mono) {
                None | Some(Duration::ZERO) => return true,
                Some(left) => thread::sleep(left.min(SLICE)),
            }
        }
    }
}

impl Drop for LiveHost {
    fn drop(&mut self) {
        self.leave(|_| true);
        if let Some(closing) = self.closing.take() {
            let _ = closing.join();
        }
    }
}

impl Clock for LiveHost {
    fn frame(&mut self, frame: Frame) -> Option<Moment> {
        self.ended = false;
        self.ahead = None;
        let known = self.observed.len();
        self.leave(|inside| inside.gone);
        if self.observed.len() != known {
            self.follow();
        }
        self.node.frame(frame);
        self.counts = match frame {
            Frame::After { .. } => Counts::Final,
            Frame::Tick { .. } => Counts::Now,
            Frame::Dump | Frame::Before | Frame::Poll { .. } => Counts::Seldom,
        };
        match frame {
            Frame::Dump => {}
            Frame::Before => {
                let moment = now();
                self.window = Some(moment.mono);
                return Some(moment);
            }
            Frame::Poll { due, end } | Frame::Tick { due, end } => {
                if due >= end || !self.wait(due) {
                    return None;
                }
            }
            // An interrupted window is closed at once, so that what was seen so far can still be judged.
            Frame::After { end } => {
                self.wait(end);
            }
        }
        Some(now())
    }

    fn used(&self) -> Option<Duration> {
        Some(used())
    }
}

impl Probe for LiveHost {
    fn ask(&mut self, ask: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer {
        let start = Instant::now();
        let result = match ask.scope {
            Scope::Host => self.ask_host(&ask.what, sink),
            Scope::Netns(netns) => self.ask_netns(netns, &ask.what, sink),
        };
        Answer { result, took: start.elapsed() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> (LiveHost, Arc<AtomicBool>) {
        let stop = Arc::new(AtomicBool::new(false));
        (LiveHost::new(stop.clone()), stop)
    }

    #[test]
    fn frames_come_when_due_and_polls_stop_at_the_end() {
        let (mut host, _) = host();
        let end = Duration::from_millis(60);
        let before = host.frame(Frame::Before).expect("at once");
        let poll = host.frame(Frame::Poll { due: Duration::from_millis(20), end }).expect("due before the end");
        assert!(poll.mono - before.mono >= Duration::from_millis(20));
        assert_eq!(host.frame(Frame::Poll { due: end, end }), None);
        let after = host.frame(Frame::After { end }).expect("always");
        assert!(after.mono - before.mono >= end);
    }

    #[test]
    fn an_interrupt_closes_the_window_early() {
        let (mut host, stop) = host();
        let end = Duration::from_secs(30);
        host.frame(Frame::Before);
        let start = Instant::now();
        let setter = thread::spawn(move || {
            thread::sleep(Duration::from_millis(30));
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(host.frame(Frame::Poll { due: Duration::from_secs(20), end }), None);
        assert!(host.frame(Frame::After { end }).is_some());
        assert!(start.elapsed() < Duration::from_secs(5));
        setter.join().expect("setter");
    }
}
