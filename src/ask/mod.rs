//! What the tool asks the kernel, and the trait through which it asks.
//!
//! The trait has two methods, so that a recording or a test can stand in for the kernel: [`Host::frame`] says which
//! moment of the observation follows, [`Host::ask`] hands over raw bytes of one source within that moment.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::value::{Failure, FailureKind, Moment};

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

/// One question to the kernel. [`Ask::key`] names it in recordings, so the meaning of a key is stable for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// The whole of a file below `/proc`, given by absolute path. `/proc/net/...` means the network namespace under
    /// observation.
    File(String),
    /// The target of a symbolic link below `/proc`.
    Link(String),
    /// A sock_diag dump of TCP sockets (sock_diag(7)). The sink receives whole netlink messages, `NLMSG_DONE` included.
    SockDiag(DiagQuery),
    /// Which processes hold these socket inodes. The sink receives text lines, a line never split between two calls:
    /// `fd PID FD INODE` for each match, `files PID COUNT` for each process with a match or named in `also`,
    /// `denied COUNT` once, the number of processes whose descriptors could not be read.
    SocketOwners {
        inodes: BTreeSet<u64>,
        /// Processes whose open files are counted even if they hold none of the inodes.
        also: BTreeSet<u32>,
    },
    /// Reset events that arrived since the previous [`Frame`]: raw perf records of the tracepoints, see
    /// `source::reset_events`. Asked in every frame; the first call opens the tracepoints.
    ResetEvents,
    /// RST packets on the wire since the previous [`Frame`], see `source::reset_packets`. Asked in every frame; the first
    /// call opens the packet socket.
    ResetPackets,
    /// Connections destroyed since the previous [`Frame`], see `source::destroyed_sockets`. Asked in every frame; the first call
    /// joins the multicast groups.
    DestroyedSockets,
}

/// A sock_diag dump: which sockets and which extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiagQuery {
    /// Short stable name used in recordings: `listeners`, `sweep`.
    pub name: &'static str,
    /// Bit mask of `1 << TCP_state` (include/net/tcp_states.h); bit 12 is `TCP_NEW_SYN_RECV`.
    pub states: u32,
    /// Bit mask of `1 << (INET_DIAG_x - 1)` (include/uapi/linux/inet_diag.h).
    pub extensions: u8,
}

impl Ask {
    /// Whether an answer holds what came since the one before, rather than how things are.
    pub fn is_stream(&self) -> bool {
        matches!(self, Ask::ResetEvents | Ask::ResetPackets | Ask::DestroyedSockets)
    }

    /// The stable name of this question inside a frame: lower-case path segments, safe as a tar entry name.
    pub fn key(&self) -> String {
        match self {
            Ask::File(path) => format!("file{path}"),
            Ask::Link(path) => format!("link{path}"),
            Ask::SockDiag(query) => format!("sock_diag/{}", query.name),
            Ask::SocketOwners { .. } => "socket_owners".to_owned(),
            Ask::ResetEvents => "reset_events".to_owned(),
            Ask::ResetPackets => "reset_packets".to_owned(),
            Ask::DestroyedSockets => "last_words".to_owned(),
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

/// The kernel, or something that stands in for it.
pub trait Host {
    /// Waits until the frame is due and opens it. `None` says that no such frame follows: the window is over, the user
    /// interrupted it, or the recording holds no more of that kind.
    fn frame(&mut self, frame: Frame) -> Option<Moment>;

    /// When the frame that was opened last was due, counted from the window's [`Frame::Before`]: as asked, unless the host is a
    /// recording, whose frames come whatever is asked for.
    fn due(&self, asked: Duration) -> Duration {
        asked
    }

    /// Streams the raw bytes that answer `ask`. Bytes may have reached the sink before an error is returned; the
    /// receiver must treat them as a prefix.
    fn ask(&mut self, ask: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer;
}

/// Reads a whole file through the host. Refuses more than `MAX_FILE` bytes: no /proc text that we read is that large.
pub fn read(host: &mut dyn Host, ask: &Ask) -> (Result<Vec<u8>, Failure>, Duration) {
    const MAX_FILE: usize = 4 << 20;
    let mut bytes = Vec::new();
    let mut overflow = false;
    let answer = host.ask(ask, &mut |chunk| {
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
