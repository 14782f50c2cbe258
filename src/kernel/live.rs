//! The running kernel as a [`Host`](crate::ask::Host).

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::at_once;
use super::clock::now;
use super::destroyed_sockets::DestroyedMulticast;
use super::namespace::{self, Handle};
use super::needs;
use super::netlink::DiagSocket;
use super::owners;
use super::packet::PacketSocket;
use super::surroundings::Surroundings;
use super::sys::{BLOCK, FRAME_RING};
use super::trace_context;
use super::tracepoint::{Counts, Tracepoints};
use crate::ask::{Answer, Ask, Clock, Frame, Probe, Scope, What};
use crate::value::{Failure, FailureKind, Moment, NetnsId};

/// How late an interrupt may be noticed while waiting for a frame.
const SLICE: Duration = Duration::from_millis(200);
/// No file that we ask for comes near this; it ends the read of a file without an end.
const MAX_FILE: usize = 64 << 20;
/// statfs(2) magic of procfs, include/uapi/linux/magic.h.
const PROC_SUPER_MAGIC: u64 = 0x9fa0;

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
    node: Surroundings,
    /// Opened by the first question, so that a scan that does not ask pays nothing.
    tracepoints: Option<Result<Tracepoints, Failure>>,
}

/// Bytes for the packets of one of so many network namespaces: all together they take no more than the one would alone, and each
/// has room for 256.
fn room(namespaces: usize) -> usize {
    (FRAME_RING / namespaces.max(1) / BLOCK * BLOCK).max(BLOCK)
}

/// What is open in one network namespace. A socket stays in the namespace in which it was opened.
struct Inside {
    there: Handle,
    name: Option<String>,
    diag: DiagSocket,
    packets: Option<Result<PacketSocket, Failure>>,
    destroyed_sockets: Option<Result<DestroyedMulticast, Failure>>,
    /// Bytes for packets.
    room: usize,
    /// Nothing leads to it any more: it ends with this frame.
    gone: bool,
}

impl Inside {
    fn new(there: Handle, name: Option<String>, room: usize) -> Self {
        let diag = DiagSocket::default();
        Self { there, name, diag, packets: None, destroyed_sockets: None, room, gone: false }
    }

    /// What answers is open already, and stays in the namespace wherever the thread is.
    fn is_open(&self, what: &What) -> bool {
        match what {
            What::SockDiag(_) => self.diag.is_open(),
            What::ResetPackets => self.packets.is_some(),
            What::DestroyedSockets => self.destroyed_sockets.is_some(),
            _ => false,
        }
    }

    fn ask(&mut self, what: &What, sink: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        match what {
            What::File(path) => read_file(path, sink),
            What::SockDiag(query) => self.diag.dump(query, sink),
            What::ResetPackets => {
                match self.packets.get_or_insert_with(|| PacketSocket::with_room(&self.there, self.room)) {
                    Ok(packets) => packets.drain(sink),
                    Err(failure) => Err(failure.clone()),
                }
            }
            What::DestroyedSockets => match self.destroyed_sockets.get_or_insert_with(DestroyedMulticast::open) {
                Ok(sockets) => sockets.drain(sink),
                Err(failure) => Err(failure.clone()),
            },
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
            node: Surroundings::default(),
            tracepoints: None,
        }
    }

    /// Observes every network namespace of this node that may be entered, those included that appear meanwhile.
    pub fn of_node(stop: Arc<AtomicBool>) -> Self {
        let mut host = Self::new(stop);
        host.node = Surroundings::whole();
        host.renew();
        host
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
            self.observed.insert(*id, Inside::new(there, spot.told.name.clone(), room(all)));
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
            return inside.ask(what, sink);
        }
        let there = inside.there.clone();
        namespace::with_namespace(&there, || inside.ask(what, sink))?
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
                let read = read_file(path, sink);
                let absent = matches!(&read, Err(failure) if failure.kind == FailureKind::Absent);
                // Limits of the whole host that only the first network namespace shows.
                let first = (absent && path.starts_with("/proc/sys/net/")).then(Handle::of_init);
                match first {
                    Some(Ok(first)) => namespace::with_namespace(&first, || read_file(path, sink)).unwrap_or(read),
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
            What::SocketOwners { inodes, also } => owners::socket_owners(inodes, also, sink),
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
        let observed = &self.observed;
        let open = || Tracepoints::open(observed.values().map(|inside| inside.there.clone()).collect());
        match self.tracepoints.get_or_insert_with(open) {
            Ok(tracepoints) => {
                let result = tracepoints.drain(self.counts, sink);
                match self.counts {
                    // They are stopped for good; a further window opens its own.
                    Counts::Final => (self.tracepoints, self.ended) = (None, true),
                    Counts::Now | Counts::Seldom => self.counts = Counts::Seldom,
                }
                result
            }
            Err(failure) => Err(failure.clone()),
        }
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
    }
}

impl Clock for LiveHost {
    fn frame(&mut self, frame: Frame) -> Option<Moment> {
        self.ended = false;
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

/// The path to open for an asked path. `/proc/net` is a link to `self/net`, which shows the namespace of the main
/// thread even to a thread that entered another one; `thread-self` (Linux 3.17) shows the thread's own.
fn resolve(path: &str, fallback: bool) -> Result<String, Failure> {
    let refused = || Failure::new(FailureKind::Broken, format!("{path:?} is not a plain path below /proc"));
    let below = path.strip_prefix("/proc/").ok_or_else(refused)?;
    if below.contains('\0') || below.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(refused());
    }
    let own = if fallback { "/proc/self/net" } else { "/proc/thread-self/net" };
    Ok(match below.strip_prefix("net").filter(|rest| rest.is_empty() || rest.starts_with('/')) {
        Some(rest) => format!("{own}{rest}"),
        None => path.to_owned(),
    })
}

/// Calls `open` for the path, and again for the fallback where the kernel has no `thread-self`.
fn with_fallback<T>(path: &str, open: impl Fn(&str) -> io::Result<T>) -> Result<T, Failure> {
    let first = resolve(path, false)?;
    let mut result = open(&first);
    if first.starts_with("/proc/thread-self/")
        && result.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound)
        && !Path::new("/proc/thread-self").exists()
    {
        result = open(&resolve(path, true)?);
    }
    result.map_err(|error| failure(path, &error))
}

fn read_file(path: &str, sink: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
    let mut file = with_fallback(path, open)?;
    let mut buffer = [0; 16 << 10];
    let mut total = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => {
                total += len;
                if total > MAX_FILE {
                    return Err(Failure::new(FailureKind::Broken, format!("{path} is larger than {MAX_FILE} bytes")));
                }
                sink(buffer.get(..len).unwrap_or_default());
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(failure(path, &error)),
        }
    }
}

/// Opens a procfs file. Links such as /proc/PID/root lead out of procfs, so the file system is checked after the open;
/// O_NONBLOCK keeps the open itself from waiting on a pipe found that way.
fn open(path: &str) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK).open(path)?;
    if rustix::fs::fstatfs(&file)?.f_type as u64 != PROC_SUPER_MAGIC {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it leads out of procfs"));
    }
    Ok(file)
}

/// What an error on this path means for the one who asked.
fn failure(path: &str, error: &io::Error) -> Failure {
    match error.raw_os_error() {
        // ESRCH is what an open file below /proc/PID answers once the process is gone.
        Some(libc::ENOENT | libc::ENOTDIR) => Failure::new(FailureKind::Absent, format!("{path} does not exist")),
        Some(libc::ESRCH) => Failure::new(FailureKind::Absent, format!("{path}: the process is gone")),
        Some(libc::EACCES | libc::EPERM) => Failure::new(FailureKind::Denied, format!("{path}: permission denied"))
            .needs(needs::capability(capability(path))),
        _ => Failure::new(FailureKind::Broken, format!("{path}: {error}")),
    }
}

/// What opens a path: another user's process is guarded by ptrace(2) access, conntrack by CAP_NET_ADMIN over the
/// namespace (net/netfilter/nf_conntrack_standalone.c), anything else by the file's owner, which is root.
fn capability(path: &str) -> &'static str {
    let first = path.trim_start_matches("/proc/").split('/').next().unwrap_or_default();
    if first.bytes().all(|byte| byte.is_ascii_digit()) {
        crate::source::owners::NEEDS
    } else if path.contains("conntrack") {
        "CAP_NET_ADMIN"
    } else {
        "CAP_DAC_READ_SEARCH"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> (LiveHost, Arc<AtomicBool>) {
        let stop = Arc::new(AtomicBool::new(false));
        (LiveHost::new(stop.clone()), stop)
    }

    fn file(path: &str) -> Result<Vec<u8>, Failure> {
        crate::ask::read(&mut host().0, &Ask::host(What::File(path.to_owned()))).0
    }

    #[test]
    fn a_proc_file_arrives_whole() {
        let text = file("/proc/net/netstat").expect("readable by anyone");
        assert!(text.starts_with(b"TcpExt: "));
        assert!(text.ends_with(b"\n"));
    }

    #[test]
    fn a_missing_file_is_absent_and_names_the_path() {
        let failure = file("/proc/net/there_is_no_such_file").expect_err("missing");
        assert_eq!(failure.kind, FailureKind::Absent);
        assert!(failure.reason.contains("/proc/net/there_is_no_such_file"));
    }

    #[test]
    fn nothing_outside_proc_is_served() {
        for path in
            ["/etc/passwd", "/proc/../etc/passwd", "/proc//net", "proc/net", "/proc/self/root/etc/passwd", "/proc/\0"]
        {
            let failure = file(path).expect_err(path);
            assert_eq!(failure.kind, FailureKind::Broken, "{path}: {failure}");
        }
    }

    #[test]
    fn denied_says_what_would_help() {
        let denied = io::Error::from_raw_os_error(libc::EACCES);
        assert_eq!(
            failure("/proc/17/cgroup", &denied).needs.as_deref(),
            Some("root or CAP_SYS_PTRACE with CAP_DAC_READ_SEARCH")
        );
        assert_eq!(failure("/proc/net/nf_conntrack", &denied).needs.as_deref(), Some("root or CAP_NET_ADMIN"));
        assert_eq!(failure("/proc/sys/net/core/bpf_jit_enable", &denied).kind, FailureKind::Denied);
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
