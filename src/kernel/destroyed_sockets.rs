//! sock_diag's multicast of destroyed sockets, streamed as `source::destroyed_sockets` describes.

use std::io;
use std::time::{Duration, Instant};

use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};

use super::clock;
use super::ready::Ready;
use crate::source::destroyed_sockets::MAGIC;
use crate::stream::{Kind, send};
use crate::value::{Failure, FailureKind};

/// SKNLGRP_INET_TCP_DESTROY, SKNLGRP_INET6_TCP_DESTROY (include/uapi/linux/sock_diag.h).
const GROUPS: [u32; 2] = [1, 3];
/// A message is about 400 bytes and takes 1 KiB of this: room for 50 ms at 80,000 a second.
const BUFFER: usize = 4 << 20;
const MESSAGE: usize = 16 << 10;
const BATCH: usize = 256 << 10;
/// Each message costs the kernel 2 to 4 us: at this rate 4 to 8 % of a CPU.
const MAX_PER_SECOND: f64 = 20_000.0;
/// More time than this between two readings gives no more to read at once.
const LONG: Duration = Duration::from_secs(1);
/// A burst that is over before anyone could react is no reason to leave.
const BURST: f64 = 5_000.0;

/// Those of all network namespaces that are asked, one after the other, again and again: where nothing came, nothing is read.
#[derive(Default)]
pub struct Rounds {
    ready: Ready,
    latest: Option<u64>,
    /// CLOCK_BOOTTIME of the latest look and of the one before, ns.
    looked: u64,
    before: u64,
}

impl Rounds {
    /// Whether something came in the one of this number and, if so, when there was nothing yet (CLOCK_BOOTTIME, ns). They are
    /// asked in the order of their numbers: one that does not follow begins the next round.
    pub fn came(&mut self, number: u64) -> Option<u64> {
        if self.latest.is_none_or(|latest| number <= latest) {
            self.before = std::mem::replace(&mut self.looked, clock::monotonic_and_boottime().1);
            self.ready.look();
        }
        self.latest = Some(number);
        self.ready.is(number).then_some(self.before)
    }
}

/// The open socket. It ends with its descriptor; nothing stays behind.
pub struct DestroyedMulticast {
    /// `None` once left.
    socket: Option<Socket>,
    started: bool,
    drained: Instant,
    /// CLOCK_BOOTTIME of the latest clock block, ns.
    told: u64,
    gaps: u64,
}

impl DestroyedMulticast {
    /// Joins the groups of the calling thread's network namespace.
    pub fn open() -> Result<Self, Failure> {
        let joined = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
            // An unbound socket joins and receives nothing (Linux 6.18).
            socket.bind(&SocketAddr::new(0, 0))?;
            socket.set_non_blocking(true)?;
            // Up to net.core.rmem_max; what finds no room is told.
            let _ = socket.set_rx_buf_sz(BUFFER as i32);
            // Without IPv6 there is no handler for the second group, and no such sockets.
            GROUPS
                .iter()
                .map(|group| socket.add_membership(*group))
                .fold(Err(io::ErrorKind::NotFound.into()), Result::or)?;
            Ok(socket)
        };
        let socket = joined().map_err(|error| refused(&error))?;
        Ok(Self { socket: Some(socket), started: false, drained: Instant::now(), told: 0, gaps: 0 })
    }

    /// From now on the rounds tell when there is something to read.
    pub fn join(&self, rounds: &mut Rounds, number: u64) {
        if let Some(socket) = &self.socket {
            rounds.ready.watch(socket, number);
        }
    }

    /// Everything that arrived since the previous call. `empty`: CLOCK_BOOTTIME, ns, when there was nothing yet.
    pub fn drain(&mut self, empty: u64, sink: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        if !self.started {
            self.started = true;
            send(sink, Kind::Start, 0, MAGIC.as_bytes());
        }
        let Some(socket) = &self.socket else { return Ok(()) };
        let now = clock::monotonic_and_boottime().1;
        for clock in [empty, now] {
            if clock > self.told {
                self.told = clock;
                send(sink, Kind::Clock, 0, clock.to_string().as_bytes());
            }
        }
        let mut buffer = [0; MESSAGE];
        let gaps = self.gaps;
        let (mut batch, mut messages) = (Vec::new(), 0.0);
        let most = BURST + MAX_PER_SECOND * self.drained.elapsed().min(LONG).as_secs_f64();
        self.drained = Instant::now();
        while messages <= most {
            match socket.recv(&mut buffer.as_mut_slice(), 0) {
                Ok(length) => {
                    messages += 1.0;
                    batch.extend_from_slice(buffer.get(..length).unwrap_or_default());
                    batch.resize(batch.len().next_multiple_of(4), 0);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => self.gaps += 1,
                Err(error) => return Err(refused(&error)),
            }
            if batch.len() >= BATCH {
                send(sink, Kind::Records, 0, &batch);
                batch.clear();
            }
        }
        if !batch.is_empty() {
            send(sink, Kind::Records, 0, &batch);
        }
        if self.gaps > gaps {
            send(sink, Kind::Counts, 0, self.gaps.to_string().as_bytes());
        }
        if messages > most {
            self.socket = None;
            let why = format!("more than {MAX_PER_SECOND:.0} sockets a second were destroyed");
            send(sink, Kind::Note, 0, why.as_bytes());
        }
        Ok(())
    }
}

fn refused(error: &io::Error) -> Failure {
    let text = format!("sock_diag multicast of destroyed sockets: {error}");
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => Failure::new(FailureKind::Denied, text)
            .needs("netlink sockets of family NETLINK_SOCK_DIAG, which a sandbox forbids"),
        Some(libc::ENOENT | libc::EPROTONOSUPPORT | libc::EINVAL) => {
            Failure::new(FailureKind::Absent, text).needs("Linux 4.2 or later with CONFIG_INET_DIAG")
        }
        _ => Failure::new(FailureKind::Broken, text),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::source::destroyed_sockets::DestroyedParser;

    #[test]
    fn a_connection_that_ends_says_what_it_had_done() {
        let mut socket = DestroyedMulticast::open().expect("any user may listen");
        let mut parser = DestroyedParser::default();
        socket.drain(0, &mut |bytes| parser.feed(bytes)).expect("drain");
        let listener = TcpListener::bind("127.0.0.1:0").expect("listener");
        let mut client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let (server, _) = listener.accept().expect("accept");
        client.write_all(b"never read").expect("write");
        // Ages are whole milliseconds.
        std::thread::sleep(Duration::from_millis(20));
        client.write_all(b"once more").expect("write");
        let ends = (server.local_addr().expect("address"), client.local_addr().expect("address"));
        drop(server);
        drop(client);
        // Destroyed from a work queue (sock_diag_broadcast_destroy).
        std::thread::sleep(Duration::from_millis(300));
        socket.drain(0, &mut |bytes| parser.feed(bytes)).expect("drain");
        let (all, error) = parser.finish();
        let client = all.sockets.iter().find(|word| (word.peer, word.local) == ends);
        assert_eq!((error, client.map(|word| word.asked_last())), (None, Some(true)), "{all:?}");
    }
}
