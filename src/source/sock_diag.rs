//! sock_diag dumps of TCP sockets (sock_diag(7), net/ipv4/inet_diag.c): the request bytes, and a walk over the answer that
//! keeps nothing.
//!
//! The walk reads the messages by hand. netlink-packet-sock-diag allocates 5 to 9 times per socket in `InetResponse`, drops
//! the whole socket over one attribute of an unexpected length, and its `InetResponseHeader` loses the count of unanswered
//! keepalive and zero-window probes, which is what tells a dead peer. Requests are built with it.
//!
//! A dump is not atomic: while it runs sockets move, so that one may be missed or come twice (the kernel never sets
//! `NLM_F_DUMP_INTR` here). Who needs each socket once compares cookies.

pub mod encode;
pub mod redaction;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, AF_UNSPEC, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};

use crate::ask::{Ask, DiagQuery, Probe, What};
use crate::value::{Failure, FailureKind, NetnsId, Observed};

// Plain numbers, so that the parser needs nothing of the machine it runs on (include/uapi/asm-generic/errno*.h).
const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const EBUSY: i32 = 16;
const EOPNOTSUPP: i32 = 95;

/// Bits for [`DiagQuery::extensions`]: `1 << (INET_DIAG_x - 1)`.
pub const WITH_TCP_INFO: u8 = 1 << 1;
pub const WITH_SK_MEMINFO: u8 = 1 << 6;

const INET_DIAG_INFO: u16 = 2;
const INET_DIAG_SKMEMINFO: u16 = 7;
const INET_DIAG_SKV6ONLY: u16 = 11;
const SK_MEMINFO_DROPS: usize = 8;

/// struct nlmsghdr: u32 length, u16 type, u16 flags, u32 sequence, u32 port.
const NLMSG_HEADER: usize = 16;
const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
/// `TCPDIAG_GETSOCK`: the message type of before 3.3, still answered by every kernel to 6.18.
const TCPDIAG_GETSOCK: u16 = 18;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// struct inet_diag_msg.
const DIAG_MESSAGE: usize = 72;

/// The request that dumps both address families in one pass over the kernel's tables: `TCPDIAG_GETSOCK`, which the kernel
/// turns into AF_UNSPEC (net/ipv4/inet_diag.c inet_diag_dump_start_compat). If the kernel answers with an error, send
/// [`requests_by_family`] instead.
pub fn request_both_families(query: &DiagQuery) -> Vec<u8> {
    // struct inet_diag_req: u8 family, u8 src_len, u8 dst_len, u8 ext; struct inet_diag_sockid (48 bytes); u32 states,
    // u32 dbs. The crate has no type for it.
    const LENGTH: usize = NLMSG_HEADER + 4 + 48 + 4 + 4;
    let mut bytes = Vec::with_capacity(LENGTH);
    bytes.extend_from_slice(&(LENGTH as u32).to_ne_bytes());
    bytes.extend_from_slice(&TCPDIAG_GETSOCK.to_ne_bytes());
    bytes.extend_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes.extend_from_slice(&1u32.to_ne_bytes());
    bytes.extend_from_slice(&0u32.to_ne_bytes());
    bytes.extend_from_slice(&[AF_UNSPEC, 0, 0, query.extensions]);
    bytes.extend_from_slice(&[0; 48]);
    bytes.extend_from_slice(&query.states.to_ne_bytes());
    bytes.extend_from_slice(&0u32.to_ne_bytes());
    bytes
}

/// The two requests, IPv4 then IPv6, that give the same as [`request_both_families`]. A dump must end before the next
/// begins, else the kernel answers EBUSY.
pub fn requests_by_family(query: &DiagQuery) -> [Vec<u8>; 2] {
    [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())].map(|(family, socket_id)| {
        let request = InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::from_bits_retain(query.extensions),
            // Retained, because the crate knows no name for bit 12, TCP_NEW_SYN_RECV.
            states: StateFlags::from_bits_retain(query.states),
            socket_id,
        };
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        header.sequence_number = 1;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(SockDiagMessage::InetRequest(request)));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    })
}

/// The error with which the kernel answered instead of a dump, as a negative errno: the sign to send
/// [`requests_by_family`] after [`request_both_families`]. `chunk` is the first that came.
pub fn refusal(chunk: &[u8]) -> Option<i32> {
    let kind = chunk.get(4..6)?;
    let code = word(chunk, NLMSG_HEADER)?.cast_signed();
    (u16::from_ne_bytes([kind[0], kind[1]]) == NLMSG_ERROR && code != 0).then_some(code)
}

/// One socket of a dump, read where it lies.
#[derive(Clone, Copy)]
pub struct Socket<'a> {
    message: &'a [u8; DIAG_MESSAGE],
    attributes: &'a [u8],
}

/// Addresses as 128 bits, IPv4 as `::ffff:a.b.c.d`: the form in which a socket of either family compares equal.
pub type Address = u128;

/// The address of an [`Address`].
pub fn to_ip(address: Address) -> IpAddr {
    Ipv6Addr::from_bits(address).to_canonical()
}

/// The [`Address`] of an address.
pub fn from_ip(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl Socket<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        // Every caller's offset is a constant inside the 72 bytes; zero keeps the function free of a panic.
        self.message.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.bytes(at))
    }

    fn address(&self, at: usize) -> Address {
        if u16::from(self.message[0]) == u16::from(AF_INET) {
            0xffff_0000_0000 | Address::from(u32::from_be_bytes(self.bytes(at)))
        } else {
            Address::from_be_bytes(self.bytes(at))
        }
    }

    /// AF_INET (2) or AF_INET6 (10).
    pub fn family(&self) -> u8 {
        self.message[0]
    }

    /// Number of the TCP state as the kernel reports it; half-open requests come as SYN_RECV (3).
    pub fn state(&self) -> u8 {
        self.message[1]
    }

    /// 0 none, 1 retransmission, 2 keepalive, 3 TIME_WAIT, 4 zero-window probe.
    pub fn timer(&self) -> u8 {
        self.message[2]
    }

    /// How often the running [`Self::timer`] fired without an answer.
    pub fn retransmits(&self) -> u8 {
        self.message[3]
    }

    pub fn local_port(&self) -> u16 {
        u16::from_be_bytes(self.bytes(4))
    }

    pub fn peer_port(&self) -> u16 {
        u16::from_be_bytes(self.bytes(6))
    }

    pub fn local_address(&self) -> Address {
        self.address(8)
    }

    pub fn peer_address(&self) -> Address {
        self.address(24)
    }

    /// Local address and port. An IPv4 connection on an IPv6 socket gives the IPv4 address.
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(to_ip(self.local_address()), self.local_port())
    }

    pub fn peer(&self) -> SocketAddr {
        SocketAddr::new(to_ip(self.peer_address()), self.peer_port())
    }

    /// Index of the device that the socket is bound to (SO_BINDTODEVICE), 0 for none (net/ipv4/inet_diag.c inet_diag_msg_common_fill).
    pub fn device(&self) -> u32 {
        self.u32(40)
    }

    /// IPV6_V6ONLY of a listener on an IPv6 address; `None` where the kernel does not tell (net/ipv4/inet_diag.c
    /// inet_diag_msg_attrs_fill, Linux 4.2 and later).
    pub fn v6_only(&self) -> Option<bool> {
        self.attribute(INET_DIAG_SKV6ONLY)?.first().map(|flag| *flag != 0)
    }

    /// Identifies the socket for its whole life (include/net/sock.h sock_gen_cookie).
    pub fn cookie(&self) -> u64 {
        u64::from(self.u32(44)) | u64::from(self.u32(48)) << 32
    }

    /// Milliseconds until [`Self::timer`] fires.
    pub fn expires_ms(&self) -> u32 {
        self.u32(52)
    }

    /// LISTEN: length of the accept queue, connections. Else: unread bytes.
    pub fn rqueue(&self) -> u32 {
        self.u32(56)
    }

    /// LISTEN: limit of the accept queue, connections. Else: bytes written and not acknowledged.
    pub fn wqueue(&self) -> u32 {
        self.u32(60)
    }

    pub fn uid(&self) -> u32 {
        self.u32(64)
    }

    /// 0 for a socket that no file refers to: TIME_WAIT, orphan, half-open or not yet accepted.
    pub fn inode(&self) -> u32 {
        self.u32(68)
    }

    /// SK_MEMINFO_DROPS; `None` if it was not asked for or the kernel is older than 4.7.
    pub fn drops(&self) -> Option<u32> {
        word(self.attribute(INET_DIAG_SKMEMINFO)?, SK_MEMINFO_DROPS * 4)
    }

    /// `None` if it was not asked for, or for TIME_WAIT and half-open requests, which have none.
    pub fn tcp_info(&self) -> Option<TcpInfo<'_>> {
        self.attribute(INET_DIAG_INFO).map(TcpInfo)
    }

    /// The first attribute of this kind. Attributes that overrun the message end the search: the socket is still a socket.
    fn attribute(&self, wanted: u16) -> Option<&[u8]> {
        let mut rest = self.attributes;
        while let Some(header) = rest.first_chunk::<4>() {
            // struct nlattr: u16 length, u16 kind. The upper two bits of the kind are NLA_F_NESTED and NLA_F_NET_BYTEORDER.
            let [length, kind] = halves_of(*header);
            let length = usize::from(length);
            let value = rest.get(4..length)?;
            if kind & 0x3fff == wanted {
                return Some(value);
            }
            rest = rest.get(length.next_multiple_of(4)..)?;
        }
        None
    }
}

/// Two numbers with one load.
fn halves_of(bytes: [u8; 4]) -> [u16; 2] {
    let word = u32::from_ne_bytes(bytes);
    let [low, high] = [word as u16, (word >> 16) as u16];
    if cfg!(target_endian = "little") { [low, high] } else { [high, low] }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

/// struct tcp_info (include/uapi/linux/tcp.h) as far as this kernel fills it: it only ever grew at the end.
#[derive(Clone, Copy)]
pub struct TcpInfo<'a>(&'a [u8]);

impl TcpInfo<'_> {
    /// Unanswered keepalive or zero-window probes.
    pub fn probes(&self) -> Option<u8> {
        self.0.get(3).copied()
    }

    /// How often the segment that was sent last was retransmitted.
    pub fn retransmits(&self) -> Option<u8> {
        self.0.get(2).copied()
    }

    /// Retransmission timeout, microseconds, the backoff included.
    pub fn rto_us(&self) -> Option<u32> {
        word(self.0, 8)
    }

    /// Sequence numbers that the peer acknowledged, those of a SYN and a FIN of this side included; Linux 4.1 and later.
    pub fn bytes_acked(&self) -> Option<u64> {
        self.0.get(120..)?.first_chunk().copied().map(u64::from_ne_bytes)
    }

    /// Payload bytes received; Linux 4.1 and later.
    pub fn bytes_received(&self) -> Option<u64> {
        self.0.get(128..)?.first_chunk().copied().map(u64::from_ne_bytes)
    }

    /// Payload bytes sent, each once; Linux 4.19 and later.
    pub fn bytes_sent(&self) -> Option<u64> {
        let long = |at: usize| self.0.get(at..)?.first_chunk().copied().map(u64::from_ne_bytes);
        Some(long(200)?.saturating_sub(long(208)?))
    }

    /// Bytes written and not yet sent; Linux 4.6 and later.
    pub fn unsent_bytes(&self) -> Option<u32> {
        word(self.0, 144)
    }

    /// Segments received; Linux 4.2 and later.
    pub fn segments_received(&self) -> Option<u32> {
        word(self.0, 140)
    }

    /// Microseconds in which the peer's receive window was all that held back sending; Linux 4.10 and later.
    pub fn window_limited_us(&self) -> Option<u64> {
        self.0.get(176..)?.first_chunk().copied().map(u64::from_ne_bytes)
    }

    /// Milliseconds since data was sent last, or since the connection was made.
    pub fn last_data_sent_ms(&self) -> Option<u32> {
        word(self.0, 44)
    }

    /// Milliseconds since data was received last, or since the connection was made.
    pub fn last_data_recv_ms(&self) -> Option<u32> {
        word(self.0, 52)
    }

    /// Milliseconds since an ACK was received last: keepalive probes that are answered move it.
    pub fn last_ack_recv_ms(&self) -> Option<u32> {
        word(self.0, 56)
    }

    /// Retransmitted segments over the whole life of the connection.
    pub fn total_retrans(&self) -> Option<u32> {
        word(self.0, 100)
    }

    /// Milliseconds without data in either direction.
    pub fn idle_ms(&self) -> Option<u32> {
        Some(self.last_data_sent_ms()?.min(self.last_data_recv_ms()?))
    }
}

/// Walks the messages of one dump, chunk by chunk.
#[derive(Debug, Default)]
pub struct Walker {
    sockets: u64,
    done: bool,
    failure: Option<Failure>,
}

impl Walker {
    /// Feeds whole messages and calls `each` for every socket in them. After the first failure everything is ignored:
    /// what came before is a prefix.
    pub fn feed(&mut self, chunk: &[u8], mut each: impl FnMut(&Socket<'_>)) {
        let mut rest = chunk;
        while !rest.is_empty() && self.failure.is_none() {
            let Some(length) = word(rest, 0).map(|length| length as usize) else {
                self.fail_cut(rest.len());
                return;
            };
            let (Some(kind), Some(body)) = (rest.get(4..6), rest.get(NLMSG_HEADER..length)) else {
                self.fail_cut(rest.len());
                return;
            };
            self.message(u16::from_ne_bytes([kind[0], kind[1]]), body, &mut each);
            // The last message of a datagram need not be padded.
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }

    fn message(&mut self, kind: u16, body: &[u8], each: &mut impl FnMut(&Socket<'_>)) {
        match kind {
            SOCK_DIAG_BY_FAMILY | TCPDIAG_GETSOCK => {
                self.done = false;
                let Some((message, attributes)) = body.split_first_chunk::<DIAG_MESSAGE>() else {
                    self.fail(FailureKind::Broken, format!("a sock_diag message has {} bytes", body.len()));
                    return;
                };
                if message[0] == AF_INET || message[0] == AF_INET6 {
                    self.sockets += 1;
                    each(&Socket { message, attributes });
                }
            }
            NLMSG_NOOP => {}
            NLMSG_OVERRUN => self.fail(FailureKind::Broken, "sock_diag lost data (NLMSG_OVERRUN)"),
            NLMSG_DONE => match word(body, 0).map(u32::cast_signed) {
                Some(0..) => self.done = true,
                Some(code) => self.fail_code(code),
                None => self.fail(FailureKind::Broken, "the end of the sock_diag dump (NLMSG_DONE) is cut"),
            },
            NLMSG_ERROR => match word(body, 0).map(u32::cast_signed) {
                Some(0) => {}
                Some(code) => self.fail_code(code),
                None => self.fail(FailureKind::Broken, "a sock_diag error message is cut"),
            },
            other => self.fail(FailureKind::Broken, format!("sock_diag sent an unknown message of type {other}")),
        }
    }

    fn fail(&mut self, kind: FailureKind, reason: impl Into<String>) {
        self.failure.get_or_insert_with(|| Failure::new(kind, reason));
    }

    fn fail_cut(&mut self, left: usize) {
        self.fail(FailureKind::Broken, format!("a sock_diag message is cut: {left} bytes are left"));
    }

    fn fail_code(&mut self, code: i32) {
        let failure = match code.checked_neg() {
            // A dump for which no handler is loaded ends with this in NLMSG_DONE and looks like a host without sockets.
            Some(ENOENT | EOPNOTSUPP) => {
                Failure::new(FailureKind::Absent, "the kernel has no handler for sock_diag of TCP")
                    .needs("the inet_diag and tcp_diag kernel modules")
            }
            Some(EPERM | EACCES) => Failure::new(FailureKind::Denied, "sock_diag was refused"),
            Some(EBUSY) => Failure::new(FailureKind::Broken, "another sock_diag dump is running on this socket"),
            _ => Failure::new(FailureKind::Broken, format!("sock_diag failed with error {code}")),
        };
        self.failure.get_or_insert(failure);
    }

    /// Number of sockets that `each` was called for.
    pub fn sockets(&self) -> u64 {
        self.sockets
    }

    /// Whether the dump was whole.
    ///
    /// # Errors
    /// What broke it off. Without `NLMSG_DONE` at its end the dump is a prefix, even if every message is intact.
    pub fn finish(self) -> Result<(), Failure> {
        match self.failure {
            Some(failure) => Err(failure),
            None if self.done => Ok(()),
            None => Err(Failure::new(FailureKind::Broken, "the sock_diag dump has no end (NLMSG_DONE)")),
        }
    }
}

/// How a dump went.
pub struct Dumped {
    /// Number of sockets that were seen.
    pub sockets: u64,
    pub result: Result<(), Failure>,
    pub took: Duration,
}

/// What a dump of so many sockets showed: `Partial` if it is a prefix, `Unavailable` if it broke off before any socket.
pub fn observed<T>(value: impl FnOnce() -> T, sockets: u64, result: Result<(), Failure>) -> Observed<T> {
    match result {
        Ok(()) => Observed::Full(value()),
        Err(failure) if sockets == 0 => Observed::Unavailable(failure),
        Err(failure) => Observed::Partial(value(), failure),
    }
}

/// Asks for a dump and calls `each` for every socket.
pub fn dump(probe: &mut dyn Probe, netns: NetnsId, query: DiagQuery, mut each: impl FnMut(&Socket<'_>)) -> Dumped {
    let mut walker = Walker::default();
    let answer = probe.ask(&Ask::netns(netns, What::SockDiag(query)), &mut |chunk| walker.feed(chunk, &mut each));
    let sockets = walker.sockets();
    // The probe's own failure explains a missing end better than the missing end does.
    Dumped { sockets, result: answer.result.and(walker.finish()), took: answer.took }
}

#[cfg(test)]
pub(super) mod tests;
