//! Listening sockets with their accept queues, by sock_diag.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::sock_diag::{self, Socket, Walker};
use crate::ask::{DiagQuery, Probe};
use crate::value::{Failure, FailureKind, NetnsId, Observed, TcpState};

/// One listening socket. With SO_REUSEPORT several share an address and port; the cookie tells them apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub address: IpAddr,
    pub port: u16,
    /// Connections that wait for accept(): `sk_ack_backlog`, shown by ss(8) as Recv-Q.
    pub recv_q: u32,
    /// The limit of the accept queue: min(listen() argument, somaxconn at that time), shown by ss(8) as Send-Q. The
    /// kernel compares with `>`, so one more connection than this fits (include/net/sock.h sk_acceptq_is_full).
    pub backlog: u32,
    /// SK_MEMINFO_DROPS, an upper bound of lost connections; `None` when the kernel does not report it.
    pub drops: Option<u32>,
    pub inode: u32,
    pub uid: u32,
    /// Index of the device, or VRF, from which alone it takes connections (SO_BINDTODEVICE); 0 for any.
    pub device: u32,
    /// It takes no IPv4 connections, although it is bound to all addresses of IPv6 (IPV6_V6ONLY).
    pub v6_only: bool,
    /// Identifies the socket for its whole life (include/net/sock.h sock_gen_cookie).
    pub cookie: u64,
}

impl Listener {
    pub fn bound(&self) -> Bound {
        Bound { address: self.address, v6_only: self.v6_only }
    }

    /// No further connection fits: the next one is lost.
    pub fn is_full(&self) -> bool {
        self.recv_q > self.backlog
    }
}

/// Which connections a listener takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    pub address: IpAddr,
    pub v6_only: bool,
}

/// As sockets are unless they ask for something else.
impl From<IpAddr> for Bound {
    fn from(address: IpAddr) -> Self {
        Self { address, v6_only: false }
    }
}

impl Bound {
    /// It takes connections to `asked`. A listener on `::` takes IPv4 as well unless IPV6_V6ONLY is set.
    pub fn covers(self, asked: IpAddr) -> bool {
        let asked = asked.to_canonical();
        match self.address.to_canonical() {
            IpAddr::V4(bound) if bound.is_unspecified() => asked.is_ipv4(),
            IpAddr::V6(bound) if bound.is_unspecified() => asked.is_ipv6() || !self.v6_only,
            bound => bound == asked,
        }
    }
}

/// What to ask for.
pub const QUERY: DiagQuery =
    DiagQuery { name: "listeners", states: TcpState::Listen.bit(), extensions: sock_diag::WITH_SK_MEMINFO };

/// More listening sockets than any host has use for; a bound for what a recording can make us hold.
const MAX_LISTENERS: usize = 65_536;

/// Every listener once, by address, port and cookie.
pub fn collect(probe: &mut dyn Probe, netns: NetnsId) -> (Observed<Vec<Listener>>, Duration) {
    let mut found = Collected::default();
    let dumped = sock_diag::dump(probe, netns, QUERY, |socket| found.add(socket));
    let sockets = dumped.sockets;
    (found.finish(sockets, dumped.result), dumped.took)
}

/// The listeners of one dump: `Partial` if the dump is a prefix, `Unavailable` if it broke off before any socket.
pub fn parse(bytes: &[u8]) -> Observed<Vec<Listener>> {
    let mut found = Collected::default();
    let mut walker = Walker::default();
    walker.feed(bytes, |socket| found.add(socket));
    let sockets = walker.sockets();
    found.finish(sockets, walker.finish())
}

/// By cookie, because a dump is not atomic and may show a socket twice.
#[derive(Default)]
struct Collected {
    by_cookie: BTreeMap<u64, Listener>,
    capped: bool,
}

impl Collected {
    fn add(&mut self, socket: &Socket<'_>) {
        if socket.state() != TcpState::Listen as u8 {
            return;
        }
        if self.by_cookie.len() >= MAX_LISTENERS {
            self.capped = true;
            return;
        }
        let local = socket.local();
        self.by_cookie.insert(
            socket.cookie(),
            Listener {
                address: local.ip(),
                port: local.port(),
                recv_q: socket.rqueue(),
                backlog: socket.wqueue(),
                drops: socket.drops(),
                inode: socket.inode(),
                uid: socket.uid(),
                device: socket.device(),
                v6_only: socket.v6_only().unwrap_or(false),
                cookie: socket.cookie(),
            },
        );
    }

    fn finish(self, sockets: u64, result: Result<(), Failure>) -> Observed<Vec<Listener>> {
        let mut listeners: Vec<_> = self.by_cookie.into_values().collect();
        listeners.sort_by_key(|listener| (listener.address, listener.port, listener.cookie));
        if self.capped && result.is_ok() {
            let why = format!("more than {MAX_LISTENERS} listening sockets");
            return Observed::Partial(listeners, Failure::new(FailureKind::Broken, why));
        }
        sock_diag::observed(|| listeners, sockets, result)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sock_diag::tests::{Message, done};
    use super::*;

    fn listener(local: &str, cookie: u64, recv_q: u32, backlog: u32) -> Vec<u8> {
        let mut message =
            Message::new(TcpState::Listen as u8, local, if local.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" });
        (message.cookie, message.rqueue, message.wqueue) = (cookie, recv_q, backlog);
        message.bytes()
    }

    #[test]
    fn a_listener_covers_the_addresses_it_takes_connections_on() {
        let address = |text: &str| -> IpAddr { text.parse().expect("address") };
        let covers = |bound: &str, asked: &str| Bound::from(address(bound)).covers(address(asked));
        assert!(covers("0.0.0.0", "::ffff:10.0.0.1"));
        assert!(covers("::", "10.0.0.1"));
        assert!(covers("127.0.0.1", "127.0.0.1"));
        assert!(!covers("127.0.0.1", "10.0.0.1"));
        assert!(!covers("0.0.0.0", "::1"));
        let v6_only = Bound { address: address("::"), v6_only: true };
        assert!(v6_only.covers(address("fd77::1")) && !v6_only.covers(address("10.0.0.1")));
        assert!(!v6_only.covers(address("::ffff:10.0.0.1")));
    }

    #[test]
    fn a_listener_that_comes_twice_is_one_with_its_later_queue() {
        let bytes = [
            listener("0.0.0.0:80", 1, 3, 128),
            listener("[::]:443", 2, 0, 5),
            listener("0.0.0.0:80", 1, 4, 128),
            done(0),
        ];
        let Observed::Full(listeners) = parse(&bytes.concat()) else { panic!("not whole") };
        let shown: Vec<_> =
            listeners.iter().map(|listener| (listener.address.to_string(), listener.port, listener.recv_q)).collect();
        assert_eq!(shown, [("0.0.0.0".to_owned(), 80, 4), ("::".to_owned(), 443, 0)]);
    }

    #[test]
    fn reuseport_listeners_stay_apart() {
        let bytes = [listener("0.0.0.0:80", 2, 0, 128), listener("0.0.0.0:80", 1, 129, 128), done(0)].concat();
        let observed = parse(&bytes);
        let full: Vec<_> =
            observed.value().unwrap().iter().map(|listener| (listener.cookie, listener.is_full())).collect();
        assert_eq!(full, [(1, true), (2, false)]);
    }

    #[test]
    fn a_cut_dump_is_marked() {
        let bytes = [listener("0.0.0.0:80", 1, 0, 128), listener("0.0.0.0:81", 2, 0, 128), done(0)].concat();
        for cut in 0..bytes.len() {
            match parse(&bytes[..cut]) {
                Observed::Full(_) => panic!("cut at {cut} is presented as whole"),
                Observed::Partial(listeners, _) => assert!(!listeners.is_empty()),
                Observed::Unavailable(_) => assert!(cut < 88),
            }
        }
    }
}
