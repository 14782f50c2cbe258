//! sock_diag dumps over netlink, see sock_diag(7).

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::time::Duration;

use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::ask::DiagQuery;
use crate::source::sock_diag;
use crate::value::{Failure, FailureKind};

/// The largest message seen is 32 KiB; larger buffers gain nothing.
const BUFFER: usize = 64 << 10;
/// The kernel fills a datagram in well under a millisecond; this only bounds the wait for one that never comes.
const TIMEOUT: Duration = Duration::from_secs(5);

// include/uapi/linux/netlink.h and sock_diag.h
const NLMSG_HEADER: usize = 16;
/// Where the header holds the sequence number, by which an answer is told from that to an earlier request.
const SEQUENCE: std::ops::Range<usize> = 8..12;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
#[cfg(test)]
const SOCK_DIAG_BY_FAMILY: u16 = 20;

thread_local! {
    /// One for all sockets of a thread: hundreds of network namespaces have one each, and are asked one after the other.
    static ROOM: RefCell<Vec<u8>> = RefCell::default();
}

/// A netlink socket that is opened when first needed and then kept.
#[derive(Default)]
pub struct DiagSocket {
    socket: Option<Socket>,
    /// [`ROOM`], while it works.
    buffer: Vec<u8>,
    sequence: u32,
    by_family: bool,
}

/// Which sockets one dump walks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Both families at once: only the old message type takes AF_UNSPEC, and it saves one walk of the hash table.
    Both,
    Family(libc::c_int),
}

/// The outcome of one request.
enum Dumped {
    /// Ended by `NLMSG_DONE`, or by an error that the sink has seen.
    Ended,
    /// Answered with an error at once; nothing reached the sink. Holds the errno and the message.
    Refused(i32, Vec<u8>),
}

impl DiagSocket {
    /// It stays in the network namespace in which it was opened.
    pub fn is_open(&self) -> bool {
        self.socket.is_some()
    }

    /// Streams the answer to `query` into the sink, one datagram of whole netlink messages per call.
    ///
    /// `NLMSG_DONE` and `NLMSG_ERROR` reach the sink too and their codes are judged by the parser. Where the kernel
    /// refuses a dump of both families at once, two dumps follow one another, each with its own `NLMSG_DONE`.
    pub fn dump(&mut self, query: &DiagQuery, sink: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        self.buffer = ROOM.take();
        self.buffer.resize(BUFFER, 0);
        let result = self.passes(query, sink);
        ROOM.set(std::mem::take(&mut self.buffer));
        if result.is_err() {
            // What is left of a broken dump must not be taken for the answer to the next one.
            self.socket = None;
        }
        result.map_err(|error| failure(query.name, &error))
    }

    fn passes(&mut self, query: &DiagQuery, sink: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        if !self.by_family {
            match self.pass(query, Pass::Both, sink)? {
                Dumped::Ended => return Ok(()),
                Dumped::Refused(..) => self.by_family = true,
            }
        }
        if let Dumped::Refused(_, message) = self.pass(query, Pass::Family(libc::AF_INET), sink)? {
            sink(&message);
            return Ok(());
        }
        match self.pass(query, Pass::Family(libc::AF_INET6), sink)? {
            Dumped::Ended => {}
            // A kernel without IPv6 has no handler for the family, so it has no such sockets either.
            Dumped::Refused(libc::ENOENT, _) => {}
            Dumped::Refused(_, message) => sink(&message),
        }
        Ok(())
    }

    /// One request; asked again on a fresh socket if the kernel still works on an earlier dump of this one.
    fn pass(&mut self, query: &DiagQuery, pass: Pass, sink: &mut dyn FnMut(&[u8])) -> io::Result<Dumped> {
        match self.request(query, pass, sink)? {
            Dumped::Refused(libc::EBUSY, _) => {
                self.socket = None;
                self.request(query, pass, sink)
            }
            other => Ok(other),
        }
    }

    fn request(&mut self, query: &DiagQuery, pass: Pass, sink: &mut dyn FnMut(&[u8])) -> io::Result<Dumped> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => open()?,
        };
        let socket = self.socket.insert(socket);
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = request_bytes(query, pass);
        if let Some(sequence) = request.get_mut(SEQUENCE) {
            sequence.copy_from_slice(&self.sequence.to_ne_bytes());
        }
        uninterrupted(|| socket.send(&request, 0))?;
        let mut first = true;
        loop {
            // With MSG_TRUNC the true length is returned even if it did not fit.
            let len = uninterrupted(|| socket.recv(&mut self.buffer.as_mut_slice(), libc::MSG_TRUNC))?;
            let datagram = self.buffer.get(..len).ok_or_else(|| {
                io::Error::new(ErrorKind::InvalidData, format!("a message of {len} bytes is larger than the buffer"))
            })?;
            match ending(datagram, self.sequence) {
                Ending::NotOurs => continue,
                Ending::More => sink(datagram),
                Ending::Error(errno) if first => return Ok(Dumped::Refused(errno, datagram.to_vec())),
                Ending::Done | Ending::Error(_) => {
                    sink(datagram);
                    return Ok(Dumped::Ended);
                }
            }
            first = false;
        }
    }
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(TIMEOUT))?;
    Ok(socket)
}

fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// The netlink request of one dump. The caller sets the sequence number.
fn request_bytes(query: &DiagQuery, pass: Pass) -> Vec<u8> {
    let Pass::Family(family) = pass else { return sock_diag::request_both_families(query) };
    let [v4, v6] = sock_diag::requests_by_family(query);
    if family == libc::AF_INET6 { v6 } else { v4 }
}

#[derive(Debug, PartialEq, Eq)]
enum Ending {
    More,
    Done,
    Error(i32),
    NotOurs,
}

/// NLMSG_DONE as the kernel ends a dump: a header and an int (net/netlink/af_netlink.c netlink_dump_done; more only with
/// NETLINK_EXT_ACK, which is not set).
const DONE_LENGTH: usize = NLMSG_HEADER + 4;

/// Whether this datagram ends the dump. The end may share it with the last sockets, and is then its last message. Every
/// datagram comes through here, so only its two ends are looked at; what looks like the end is confirmed by a walk, because
/// the last bytes of a socket's attributes could look like it too.
fn ending(datagram: &[u8], sequence: u32) -> Ending {
    let Some(first) = Message::at(datagram) else { return Ending::NotOurs };
    if first.sequence != sequence {
        return Ending::NotOurs;
    }
    match first.kind {
        NLMSG_DONE => Ending::Done,
        NLMSG_ERROR => Ending::Error(first.code.saturating_neg()),
        _ => {
            let last = datagram.len().saturating_sub(DONE_LENGTH);
            let looks_done = Message::at(datagram.get(last..).unwrap_or_default())
                .is_some_and(|last| last.length == DONE_LENGTH && last.kind == NLMSG_DONE && last.sequence == sequence);
            if looks_done && is_message_start(datagram, last) { Ending::Done } else { Ending::More }
        }
    }
}

struct Message {
    length: usize,
    kind: u16,
    sequence: u32,
    /// The first int of the payload, 0 without one.
    code: i32,
}

impl Message {
    fn at(bytes: &[u8]) -> Option<Self> {
        let [l0, l1, l2, l3, k0, k1, _, _, s0, s1, s2, s3, ..] = *bytes.first_chunk::<NLMSG_HEADER>()?;
        let code = bytes.get(NLMSG_HEADER..).and_then(<[u8]>::first_chunk).copied().map_or(0, i32::from_ne_bytes);
        Some(Self {
            length: u32::from_ne_bytes([l0, l1, l2, l3]) as usize,
            kind: u16::from_ne_bytes([k0, k1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            code,
        })
    }
}

fn is_message_start(datagram: &[u8], wanted: usize) -> bool {
    let mut at = 0;
    while at < wanted {
        let Some(message) = Message::at(datagram.get(at..).unwrap_or_default()) else { return false };
        // NLMSG_ALIGN; a length below the header would never end the walk.
        at += message.length.max(NLMSG_HEADER).next_multiple_of(4);
    }
    at == wanted
}

fn failure(name: &str, error: &io::Error) -> Failure {
    let reason = format!("sock_diag dump of {name}: {error}");
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => Failure::new(FailureKind::Denied, reason)
            .needs("netlink sockets of family NETLINK_SOCK_DIAG, which a sandbox forbids"),
        Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => {
            Failure::new(FailureKind::Absent, reason).needs("a kernel with CONFIG_INET_DIAG")
        }
        Some(libc::EAGAIN) => Failure::new(
            FailureKind::Broken,
            format!("sock_diag dump of {name}: no answer from the kernel within {} s", TIMEOUT.as_secs()),
        ),
        _ => Failure::new(FailureKind::Broken, reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::net::TcpListener;

    const LISTENERS: DiagQuery = DiagQuery { name: "listeners", states: 1 << 10, extensions: 0 };

    /// (family, port) of each socket in the datagrams, by the offsets of `struct inet_diag_msg`.
    fn sockets(socket: &mut DiagSocket) -> BTreeSet<(u8, u16)> {
        let mut found = BTreeSet::new();
        let mut done = 0;
        socket
            .dump(&LISTENERS, &mut |datagram| {
                let mut rest = datagram;
                while rest.len() >= NLMSG_HEADER {
                    let len = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
                    match u16::from_ne_bytes([rest[4], rest[5]]) {
                        NLMSG_DONE => done += 1,
                        NLMSG_ERROR => panic!("refused"),
                        _ => drop(found.insert((rest[16], u16::from_be_bytes([rest[20], rest[21]])))),
                    }
                    rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
                }
            })
            .expect("sock_diag works here");
        assert!(done > 0);
        found
    }

    #[test]
    fn both_ways_of_asking_find_listeners_of_both_families() {
        let four = TcpListener::bind("127.0.0.1:0").unwrap();
        let six = TcpListener::bind("[::1]:0").unwrap();
        let mut socket = DiagSocket::default();
        for by_family in [false, true, false] {
            socket.by_family = by_family;
            let found = sockets(&mut socket);
            assert!(
                found.contains(&(libc::AF_INET as u8, four.local_addr().unwrap().port())),
                "by_family {by_family}: {found:?}"
            );
            assert!(
                found.contains(&(libc::AF_INET6 as u8, six.local_addr().unwrap().port())),
                "by_family {by_family}: {found:?}"
            );
        }
    }

    fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((NLMSG_HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn the_end_is_found_behind_the_last_sockets_and_strangers_are_ignored() {
        let mut datagram = message(SOCK_DIAG_BY_FAMILY, 7, &[0; 72]);
        assert_eq!(ending(&datagram, 7), Ending::More);
        datagram.extend(message(NLMSG_DONE, 7, &[0; 4]));
        assert_eq!(ending(&datagram, 7), Ending::Done);
        assert_eq!(ending(&datagram, 8), Ending::NotOurs);
        assert_eq!(ending(&message(NLMSG_ERROR, 7, &(-16i32).to_ne_bytes()), 7), Ending::Error(16));
        assert_eq!(ending(&[0; 64], 7), Ending::NotOurs);
        assert_eq!(ending(&[], 7), Ending::NotOurs);
    }
}
