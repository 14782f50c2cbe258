//! What the tool asks the kernel, and the traits through which it asks.
//!
//! A recording or a test can stand in for the kernel: a [`Clock`] says which moment of the observation follows, a [`Probe`]
//! hands over raw bytes of one source within that moment.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::value::{Failure, FailureKind, Moment, NetnsId};

/// The moments of one observation, in the order in which they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// The slow look at all sockets and their owners that precedes a window, so that it does not eat into it.
    Dump,
    /// The counters that open the window: it begins here.
    Before,
    /// A cheap look at the listeners inside the window.
    Poll {
        /// When it is due, counted from the [`Frame::Before`] of this window.
        due: Duration,
        /// When the window ends; no poll happens at or after it.
        end: Duration,
    },
    /// A look at counters and listeners inside the window, and sometimes at everything, so that a live view or a long
    /// recording shows when something moved.
    Tick {
        /// When it is due, counted from the [`Frame::Before`] of this window.
        due: Duration,
        /// When the window ends; no tick happens at or after it.
        end: Duration,
    },
    /// The full snapshot that closes the window, its counters first; due at `end` counted from [`Frame::Before`].
    After { end: Duration },
}

/// What a question is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The whole host: asked once, however many namespaces are looked at.
    Host,
    /// One network namespace.
    Netns(NetnsId),
}

/// One question to the kernel. [`Ask::key`] names it in recordings, so the meaning of a key is stable for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    pub scope: Scope,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The whole of a file below `/proc`, given by absolute path. `/proc/net/...` and `/proc/sys/net/...` mean the namespace
    /// of the scope.
    File(String),
    /// The network namespaces under observation, host scope: a line `INODE [NAME]` each, NAME as `ip netns` has it.
    Namespaces,
    /// Every network namespace that is known of, observed or not, and the containers of the host, host scope: lines of JSON, see
    /// `source::node`.
    Node,
    /// A sock_diag dump of TCP sockets (sock_diag(7)). The sink receives whole netlink messages, `NLMSG_DONE` included.
    SockDiag(DiagQuery),
    /// Which processes hold these socket inodes, host scope. The sink receives text lines, a line never split between two
    /// calls: `fd PID FD INODE` for each match; behind those of a process `files PID COUNT START` if it has a match or is named
    /// in `also`, or `ended PID` if it has ended meanwhile; `denied COUNT` once, the number of processes whose descriptors
    /// could not be read. START, clock ticks since boot, tells it from a later process of that number.
    ///
    /// An inode without a line has no holder among the processes that could be read. Of one with a line, a further holder
    /// may be missing that has more than 512 descriptors and holds it under a higher and another number than the first, or that is
    /// in another network namespace than all known holders, on a host where many descriptors were read by then.
    /// `files` comes as well for a process that has reached its limit of open files.
    SocketOwners {
        inodes: BTreeSet<u64>,
        /// Processes whose open files are counted even if they hold none of the inodes.
        also: BTreeSet<u32>,
    },
    /// The processes of the host, host scope: lines `PID NETNS|- user|kernel NAME`, backslash and newline of the name escaped.
    Tasks,
    /// Reset events of the whole host that arrived since the previous [`Frame`]: raw perf records of the tracepoints, see
    /// `source::reset_events`. Asked in every frame; the first call opens the tracepoints.
    ResetEvents,
    /// RST packets on the wire since the previous [`Frame`], see `source::reset_packets`. Asked in every frame; the first
    /// call opens the packet socket.
    ResetPackets,
    /// Sockets destroyed since the previous [`Frame`], see `source::destroyed_sockets`. Asked in every frame; the first call
    /// joins the multicast groups.
    DestroyedSockets,
}

/// A sock_diag dump: which sockets and which extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiagQuery {
    /// Short stable name used in recordings: `listeners`, `sockets`.
    pub name: &'static str,
    /// Bit mask of `1 << TCP_state` (include/net/tcp_states.h); bit 12 is `TCP_NEW_SYN_RECV`.
    pub states: u32,
    /// Bit mask of `1 << (INET_DIAG_x - 1)` (include/uapi/linux/inet_diag.h).
    pub extensions: u8,
}

impl Ask {
    pub fn host(what: What) -> Self {
        Self { scope: Scope::Host, what }
    }

    pub fn netns(netns: NetnsId, what: What) -> Self {
        Self { scope: Scope::Netns(netns), what }
    }

    /// The stable name of this question inside a frame: path segments, `host/file/proc/vmstat`,
    /// `ns/4026531840/sock_diag/listeners`.
    pub fn key(&self) -> String {
        let what = self.what.key();
        match self.scope {
            Scope::Host => format!("host/{what}"),
            Scope::Netns(netns) => format!("ns/{netns}/{what}"),
        }
    }

    /// See [`What::is_stream`].
    pub fn is_stream(&self) -> bool {
        self.what.is_stream()
    }
}

impl What {
    /// Whether an answer holds what came since the one before, rather than how things are.
    pub fn is_stream(&self) -> bool {
        matches!(self, Self::ResetEvents | Self::ResetPackets | Self::DestroyedSockets)
    }

    /// Whether this is the file with that path.
    pub fn is_file(&self, path: &str) -> bool {
        matches!(self, Self::File(own) if own == path)
    }

    /// The part of [`Ask::key`] behind the scope.
    pub fn key(&self) -> String {
        match self {
            Self::File(path) => format!("file{path}"),
            Self::Namespaces => "namespaces".to_owned(),
            Self::Node => "node".to_owned(),
            Self::SockDiag(query) => format!("sock_diag/{}", query.name),
            Self::SocketOwners { .. } => "socket_owners".to_owned(),
            Self::Tasks => "tasks".to_owned(),
            Self::ResetEvents => "reset_events".to_owned(),
            Self::ResetPackets => "reset_packets".to_owned(),
            Self::DestroyedSockets => "destroyed_sockets".to_owned(),
        }
    }
}

/// How one question went. The bytes went to the sink while it ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub result: Result<(), Failure>,
    /// Wall time spent in the kernel; zero when replayed.
    pub took: Duration,
}

/// Which moment of an observation follows.
pub trait Clock {
    /// Waits until the frame is due and opens it. `None` says that no such frame follows: the window is over, the user
    /// interrupted it, or the recording holds no more of that kind.
    fn frame(&mut self, frame: Frame) -> Option<Moment>;

    /// When the frame that was opened last was due, counted from the window's [`Frame::Before`]: as asked, unless it is a
    /// recording, whose frames come whatever is asked for.
    fn due(&self, asked: Duration) -> Duration {
        asked
    }

    /// CPU time that this process has used so far; `None` of a recording, which does not know.
    fn used(&self) -> Option<Duration> {
        None
    }
}

/// The kernel, or something that stands in for it.
pub trait Probe {
    /// Streams the raw bytes that answer `ask`. Bytes may have reached the sink before an error is returned; the
    /// receiver must treat them as a prefix.
    fn ask(&mut self, ask: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer;
}

/// What an observation needs.
pub trait Host: Clock + Probe {}

impl<T: Clock + Probe> Host for T {}

impl Clock for Box<dyn Host> {
    fn frame(&mut self, frame: Frame) -> Option<Moment> {
        (**self).frame(frame)
    }

    fn due(&self, asked: Duration) -> Duration {
        (**self).due(asked)
    }

    fn used(&self) -> Option<Duration> {
        (**self).used()
    }
}

impl Probe for Box<dyn Host> {
    fn ask(&mut self, ask: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer {
        (**self).ask(ask, sink)
    }
}

/// Reads a whole answer. Refuses more than `MAX_FILE` bytes: no /proc text that we read is that large.
pub fn read(probe: &mut dyn Probe, ask: &Ask) -> (Result<Vec<u8>, Failure>, Duration) {
    const MAX_FILE: usize = 4 << 20;
    let mut bytes = Vec::new();
    let mut overflow = false;
    let answer = probe.ask(ask, &mut |chunk| {
        if bytes.len() + chunk.len() > MAX_FILE {
            overflow = true;
        } else {
            bytes.extend_from_slice(chunk);
        }
    });
    let result = match answer.result {
        Ok(()) if overflow => {
            Err(Failure::new(FailureKind::Broken, format!("{} is larger than {MAX_FILE} bytes", ask.key())))
        }
        Ok(()) => Ok(bytes),
        Err(failure) => Err(failure),
    };
    (result, answer.took)
}
