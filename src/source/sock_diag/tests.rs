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
