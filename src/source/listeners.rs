//! Listening sockets with their accept queues, by sock_diag.

use std::net::IpAddr;

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
    /// Identifies the socket for its whole life (include/net/sock.h sock_gen_cookie).
    pub cookie: u64,
}

impl Listener {
    /// No further connection fits: the next one is lost.
    pub fn is_full(&self) -> bool {
        self.recv_q > self.backlog
    }
}
