//! sock_diag dumps of TCP sockets (sock_diag(7), net/ipv4/inet_diag.c): the request bytes, and a walk over the answer that
//! keeps nothing.
//!
//! The walk reads the messages by hand. netlink-packet-sock-diag allocates 5 to 9 times per socket in `InetResponse`, drops
//! the whole socket over one attribute of an unexpected length, and its `InetResponseHeader` loses the count of unanswered
//! keepalive and zero-window probes, which is what tells a dead peer. Requests are built with it.
//!
//! A dump is not atomic: while it runs sockets move, so that one may be missed or come twice (the kernel never sets
//! `NLM_F_DUMP_INTR` here). Who needs each socket once compares cookies.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, AF_UNSPEC, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};

use super::ask::{Ask, DiagQuery, Failure, FailureKind, Host};

/// Bits for [`DiagQuery::extensions`]: `1 << (INET_DIAG_x - 1)`.
pub const WITH_TCP_INFO: u8 = 1 << 1;
pub const WITH_SK_MEMINFO: u8 = 1 << 6;

const INET_DIAG_INFO: u16 = 2;
const INET_DIAG_SKMEMINFO: u16 = 7;
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
        while let Some([length_low, length_high, kind_low, kind_high]) = rest.first_chunk() {
            let length = usize::from(u16::from_ne_bytes([*length_low, *length_high]));
            let value = rest.get(4..length)?;
            // The upper two bits are NLA_F_NESTED and NLA_F_NET_BYTEORDER.
            if u16::from_ne_bytes([*kind_low, *kind_high]) & 0x3fff == wanted {
                return Some(value);
            }
            rest = rest.get(length.next_multiple_of(4)..)?;
        }
        None
    }
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
            Some(libc::ENOENT | libc::EOPNOTSUPP) => {
                Failure::new(FailureKind::Absent, "the kernel has no handler for sock_diag of TCP")
                    .needs("the inet_diag and tcp_diag kernel modules")
            }
            Some(libc::EPERM | libc::EACCES) => Failure::new(FailureKind::Denied, "sock_diag was refused"),
            Some(libc::EBUSY) => Failure::new(FailureKind::Broken, "another sock_diag dump is running on this socket"),
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

/// Asks for a dump and calls `each` for every socket.
pub fn dump(host: &mut dyn Host, query: DiagQuery, mut each: impl FnMut(&Socket<'_>)) -> Dumped {
    let mut walker = Walker::default();
    let answer = host.ask(&Ask::SockDiag(query), &mut |chunk| walker.feed(chunk, &mut each));
    let sockets = walker.sockets();
    // The host's own failure explains a missing end better than the missing end does.
    Dumped { sockets, result: answer.result.and(walker.finish()), took: answer.took }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A message as the kernel writes it, for tests of what reads dumps.
    #[derive(Clone)]
    pub(in crate::source) struct Message {
        pub state: u8,
        pub timer: u8,
        pub retransmits: u8,
        pub local: SocketAddr,
        pub peer: SocketAddr,
        pub cookie: u64,
        pub rqueue: u32,
        pub wqueue: u32,
        pub inode: u32,
        pub attributes: Vec<(u16, Vec<u8>)>,
    }

    impl Message {
        pub(in crate::source) fn new(state: u8, local: &str, peer: &str) -> Self {
            Self {
                state,
                timer: 0,
                retransmits: 0,
                local: local.parse().unwrap(),
                peer: peer.parse().unwrap(),
                cookie: 0x1_0000_0002,
                rqueue: 0,
                wqueue: 0,
                inode: 77,
                attributes: Vec::new(),
            }
        }

        pub(in crate::source) fn idle(mut self, sent_ms: u32, received_ms: u32) -> Self {
            let mut info = vec![0; 104];
            info[44..48].copy_from_slice(&sent_ms.to_ne_bytes());
            info[52..56].copy_from_slice(&received_ms.to_ne_bytes());
            self.attributes.push((INET_DIAG_INFO, info));
            self
        }

        pub(in crate::source) fn bytes(&self) -> Vec<u8> {
            let octets = |address: IpAddr| match address {
                IpAddr::V4(v4) => [&v4.octets()[..], &[0; 12]].concat(),
                IpAddr::V6(v6) => v6.octets().to_vec(),
            };
            let family = if self.local.is_ipv4() { AF_INET } else { AF_INET6 };
            let mut body = vec![family, self.state, self.timer, self.retransmits];
            body.extend(self.local.port().to_be_bytes());
            body.extend(self.peer.port().to_be_bytes());
            body.extend(octets(self.local.ip()));
            body.extend(octets(self.peer.ip()));
            body.extend([0; 4]);
            body.extend(self.cookie.to_le_bytes());
            for word in [5000, self.rqueue, self.wqueue, 33, self.inode] {
                body.extend(word.to_ne_bytes());
            }
            for (kind, value) in &self.attributes {
                body.extend((value.len() as u16 + 4).to_ne_bytes());
                body.extend(kind.to_ne_bytes());
                body.extend(value);
                body.resize(body.len().next_multiple_of(4), 0);
            }
            message(SOCK_DIAG_BY_FAMILY, &body)
        }
    }

    pub(in crate::source) fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((NLMSG_HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    pub(in crate::source) fn done(code: i32) -> Vec<u8> {
        message(NLMSG_DONE, &code.to_ne_bytes())
    }

    fn walk(bytes: &[u8]) -> (Vec<(SocketAddr, SocketAddr)>, Result<(), Failure>) {
        let mut walker = Walker::default();
        let mut seen = Vec::new();
        walker.feed(bytes, |socket| seen.push((socket.local(), socket.peer())));
        (seen, walker.finish())
    }

    fn kind(bytes: &[u8]) -> Option<FailureKind> {
        walk(bytes).1.err().map(|failure| failure.kind)
    }

    #[test]
    fn every_field_is_read_from_its_place() {
        let mut meminfo = vec![0; 36];
        meminfo[32..].copy_from_slice(&9u32.to_ne_bytes());
        let mut sample = Message::new(1, "10.0.0.1:80", "10.0.0.2:50000").idle(400, 300);
        sample.attributes.insert(0, (INET_DIAG_SKMEMINFO, meminfo));
        (sample.timer, sample.retransmits, sample.rqueue, sample.wqueue) = (2, 3, 11, 12);
        let mut walker = Walker::default();
        walker.feed(&[sample.bytes(), done(0)].concat(), |socket| {
            assert_eq!((socket.family(), socket.state(), socket.timer(), socket.retransmits()), (2, 1, 2, 3));
            assert_eq!(socket.local().to_string(), "10.0.0.1:80");
            assert_eq!(socket.peer().to_string(), "10.0.0.2:50000");
            assert_eq!((socket.cookie(), socket.expires_ms()), (0x1_0000_0002, 5000));
            assert_eq!((socket.rqueue(), socket.wqueue(), socket.uid(), socket.inode()), (11, 12, 33, 77));
            assert_eq!(socket.drops(), Some(9));
            assert_eq!(socket.tcp_info().and_then(|info| info.idle_ms()), Some(300));
        });
        assert_eq!((walker.sockets(), walker.finish()), (1, Ok(())));
    }

    #[test]
    fn a_v4_connection_on_a_v6_socket_shows_its_v4_addresses() {
        let bytes = [Message::new(1, "[::ffff:10.0.0.1]:80", "[::ffff:10.0.0.2]:5").bytes(), done(0)].concat();
        assert_eq!(walk(&bytes).0[0].0.to_string(), "10.0.0.1:80");
    }

    #[test]
    fn a_short_or_broken_attribute_costs_the_attribute_and_not_the_socket() {
        let mut sample = Message::new(1, "[::1]:80", "[::1]:5");
        sample.attributes = vec![(INET_DIAG_SKMEMINFO, vec![0; 32]), (INET_DIAG_INFO, vec![0; 48])];
        let mut bytes = sample.bytes();
        let check = |bytes: &[u8]| {
            let mut walker = Walker::default();
            walker.feed(bytes, |socket| {
                assert_eq!(socket.drops(), None, "a kernel before 4.7 sends eight words");
                assert_eq!(socket.tcp_info().and_then(|info| info.last_data_recv_ms()), None);
            });
            assert_eq!(walker.sockets(), 1);
        };
        check(&bytes);
        let first_attribute = NLMSG_HEADER + DIAG_MESSAGE;
        bytes[first_attribute..first_attribute + 2].copy_from_slice(&u16::MAX.to_ne_bytes());
        check(&bytes);
    }

    #[test]
    fn a_missing_handler_is_not_an_empty_host() {
        let failure = walk(&done(-libc::ENOENT)).1.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Absent);
        assert!(failure.needs.unwrap().contains("tcp_diag"));
    }

    #[test]
    fn kernel_errors_keep_their_kind() {
        let error = |code: i32| message(NLMSG_ERROR, &code.to_ne_bytes());
        assert_eq!(kind(&error(-libc::EBUSY)), Some(FailureKind::Broken));
        assert_eq!(kind(&error(-libc::EPERM)), Some(FailureKind::Denied));
        assert_eq!(kind(&error(i32::MIN)), Some(FailureKind::Broken));
        assert_eq!(kind(&[error(0), done(0)].concat()), None, "error 0 is an acknowledgement");
        assert_eq!(refusal(&error(-libc::EOPNOTSUPP)), Some(-libc::EOPNOTSUPP));
        assert_eq!(refusal(&done(0)), None);
    }

    #[test]
    fn a_cut_at_any_byte_is_never_a_whole_dump() {
        let sample = Message::new(1, "10.0.0.1:80", "10.0.0.2:50000").idle(1, 1).bytes();
        let bytes = [sample.clone(), sample.clone(), done(0), sample, done(0)].concat();
        for cut in 0..bytes.len() {
            let (seen, result) = walk(&bytes[..cut]);
            assert!(seen.len() <= 3);
            // The end of the first family's dump is an end; that the second never came, its sender has to say.
            assert_eq!(result.is_ok(), bytes[..cut].ends_with(&done(0)), "cut at {cut}");
        }
        assert_eq!(walk(&bytes).1, Ok(()));
    }

    #[test]
    fn requests_carry_the_states_that_the_crate_does_not_know() {
        let query = DiagQuery { name: "x", states: 1 << 12 | 1 << 3, extensions: WITH_TCP_INFO };
        for (request, family) in requests_by_family(&query).iter().zip([AF_INET, AF_INET6]) {
            assert_eq!(request.len(), 72);
            assert_eq!(&request[..8], &[72, 0, 0, 0, 20, 0, 1, 3]);
            assert_eq!(&request[16..20], &[family, 6, WITH_TCP_INFO, 0]);
            assert_eq!(&request[20..24], &query.states.to_ne_bytes());
        }
        let request = request_both_families(&query);
        assert_eq!(&request[..8], &[76, 0, 0, 0, 18, 0, 1, 3]);
        assert_eq!(&request[68..72], &query.states.to_ne_bytes());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = walk(&bytes);
        }

        #[test]
        fn arbitrary_damage_never_panics(at in 0usize..400, byte in any::<u8>()) {
            let sample = Message::new(1, "10.0.0.1:80", "10.0.0.2:50000").idle(1, 1).bytes();
            let mut bytes = [sample.clone(), sample, done(0)].concat();
            let at = at % bytes.len();
            bytes[at] = byte;
            let mut walker = Walker::default();
            walker.feed(&bytes, |socket| {
                let _ = (socket.local(), socket.drops(), socket.tcp_info().and_then(|info| info.total_retrans()));
            });
        }

        /// Attributes that are new to us, in any order, do not hide those that we know.
        #[test]
        fn order_and_unknown_attributes_do_not_matter(
            attributes in Just(vec![(INET_DIAG_INFO, vec![7; 248]), (99, vec![1, 2, 3]), (8, vec![0]), (200, vec![])]).prop_shuffle(),
        ) {
            let mut sample = Message::new(1, "10.0.0.1:80", "10.0.0.2:5");
            sample.attributes = attributes;
            let mut walker = Walker::default();
            let mut probes = None;
            walker.feed(&sample.bytes(), |socket| probes = socket.tcp_info().and_then(|info| info.probes()));
            prop_assert_eq!(probes, Some(7));
        }
    }
}
