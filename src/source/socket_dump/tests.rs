use std::net::IpAddr;

use proptest::prelude::*;

use super::super::sock_diag::tests::{Message, done};
use super::*;

const TIME_WAIT: u8 = TcpState::TimeWait as u8;
const FIN_WAIT2: u8 = TcpState::FinWait2 as u8;

fn listener(address: &str, port: u16) -> Listener {
    let address: IpAddr = address.parse().unwrap();
    Listener {
        address,
        port,
        recv_q: 0,
        backlog: 1,
        drops: None,
        inode: 1,
        uid: 0,
        device: 0,
        v6_only: false,
        cookie: 1,
    }
}

fn socket_dump(messages: &[Message], listeners: &[Listener]) -> SocketDump {
    let mut bytes: Vec<u8> = messages.iter().flat_map(Message::bytes).collect();
    bytes.extend(done(0));
    match parse(&bytes, listeners) {
        Observed::Full(socket_dump) => socket_dump,
        other => panic!("{other:?}"),
    }
}

fn established(local: &str, peer: &str) -> Message {
    Message::new(TcpState::Established as u8, local, peer)
}

fn group(socket_dump: &SocketDump, kind: GroupKind) -> Option<&Group> {
    socket_dump.groups.iter().find(|group| group.kind == kind)
}

#[test]
fn accepted_and_own_connections_are_told_apart_by_the_listener_and_its_address() {
    let messages = [
        established("10.0.0.1:80", "10.0.0.9:50000"),
        established("10.0.0.2:80", "10.0.0.9:443"),
        established("10.0.0.1:8080", "10.0.0.9:50001"),
        established("[2001:db8::1]:8080", "[2001:db8::9]:443"),
    ];
    let socket_dump = socket_dump(&messages, &[listener("10.0.0.1", 80), listener("0.0.0.0", 8080)]);
    let mut services: Vec<_> =
        socket_dump.groups.iter().map(|group| (group.port, group.accepted, group.sockets)).collect();
    services.sort();
    assert_eq!(services, [(80, true, 1), (443, false, 2), (8080, true, 1)]);
    let destinations: Vec<_> = socket_dump.destinations.iter().map(|to| (to.source.to_string(), to.port)).collect();
    assert_eq!(destinations, [("10.0.0.2".to_owned(), 443), ("2001:db8::1".to_owned(), 443)]);
}

#[test]
fn a_destination_counts_the_ports_it_holds_and_which_are_in_time_wait() {
    let mut messages: Vec<_> =
        (0..5).map(|n| Message::new(TIME_WAIT, &format!("10.0.0.1:{}", 40000 + n), "10.0.0.2:5432")).collect();
    messages.iter_mut().for_each(|message| message.inode = 0);
    messages.push(established("10.0.0.1:50000", "10.0.0.2:5432"));
    messages.push(Message::new(FIN_WAIT2, "10.0.0.1:50001", "10.0.0.2:5432"));
    let socket_dump = socket_dump(&messages, &[]);
    let [to] = socket_dump.destinations.as_slice() else { panic!("{:?}", socket_dump.destinations) };
    assert_eq!((to.ports_used, to.time_wait, to.fin_wait2), (7, 5, 1));
    assert_eq!(to.inodes.as_slice(), [77].as_slice());
    assert_eq!(socket_dump.by_state.get(&TcpState::TimeWait), Some(&5));
    assert_eq!(socket_dump.peers.first().map(|peer| peer.sockets), Some(7));
}

#[test]
fn half_open_requests_are_counted_with_their_retransmissions_and_peers() {
    let mut messages = Vec::new();
    for n in 0..10 {
        let mut message = Message::new(3, "10.0.0.1:80", &format!("10.0.1.{}:1000", n % 4));
        (message.retransmits, message.inode) = (u8::from(n < 3), 0);
        messages.push(message);
    }
    let socket_dump = socket_dump(&messages, &[listener("0.0.0.0", 80)]);
    let port = &socket_dump.ports[&80];
    assert_eq!(port.by_state.get(&TcpState::SynRecv), Some(&10));
    assert_eq!((port.syn_recv_retransmitted, port.syn_recv_peers), (3, 4));
    assert!(socket_dump.destinations.is_empty() && socket_dump.groups.is_empty());
}

#[test]
fn only_old_connections_without_a_timer_to_another_host_are_idle_without_keepalive() {
    let old = IDLE_AFTER * 1000;
    let mut keepalive = established("10.0.0.1:1003", "10.0.0.2:443").idle(old, old);
    keepalive.timer = 2;
    let messages = [
        established("10.0.0.1:1001", "10.0.0.2:443").idle(old, old + 7),
        established("10.0.0.1:1002", "10.0.0.2:443").idle(5, old),
        keepalive,
        established("127.0.0.1:1004", "127.0.0.1:443").idle(old, old),
        established("[::1]:1005", "[::1]:443").idle(old, old),
        established("10.0.0.1:1006", "10.0.0.1:443").idle(old, old),
        established("10.0.0.1:1007", "10.0.0.2:443"),
    ];
    let socket_dump = socket_dump(&messages, &[]);
    let idle = group(&socket_dump, GroupKind::IdleWithoutKeepalive).unwrap();
    assert_eq!((idle.sockets, idle.oldest_idle_ms), (1, Some(old + 7)));
    assert_eq!(idle.samples[0].idle_ms, Some(old), "a sample shows the time without data in either direction");
    assert_eq!(group(&socket_dump, GroupKind::Established).map(|group| group.sockets), Some(7));
}

#[test]
fn the_unread_end_of_a_stream_is_not_unread_data() {
    let close_wait = |port: u16, rqueue| {
        let mut message = Message::new(8, &format!("10.0.0.1:{port}"), "10.0.0.2:443");
        message.rqueue = rqueue;
        message
    };
    let socket_dump = socket_dump(&[close_wait(1, 0), close_wait(2, 1), close_wait(3, 101)], &[]);
    assert_eq!(group(&socket_dump, GroupKind::CloseWait).map(|group| group.sockets), Some(3));
    let unread = group(&socket_dump, GroupKind::Unread).unwrap();
    assert_eq!((unread.sockets, unread.unread_bytes), (1, 100));
}

#[test]
fn timers_tell_dead_peers() {
    let with = |state, timer, retransmits| {
        let mut message = Message::new(state, "10.0.0.1:1", "10.0.0.2:443");
        (message.timer, message.retransmits) = (timer, retransmits);
        message
    };
    let messages = [with(1, 1, 2), with(1, 4, 5), with(1, 1, 1), with(1, 2, 1), with(1, 2, 0), with(2, 1, 3)];
    let socket_dump = socket_dump(&messages, &[]);
    assert_eq!(group(&socket_dump, GroupKind::Retransmitting).map(|group| group.sockets), Some(2));
    assert_eq!(group(&socket_dump, GroupKind::KeepaliveProbing).map(|group| group.sockets), Some(1));
    assert_eq!(group(&socket_dump, GroupKind::Connecting).map(|group| group.sockets), Some(1));
}

#[test]
fn caps_hold_and_keep_the_heavy_ones() {
    let mut fold = Fold::new(&[]);
    let mut walker = Walker::default();
    let mut add = |message: Message| walker.feed(&message.bytes(), |socket| fold.add(socket));
    for n in 0..30_000u32 {
        let peer = format!("10.{}.{}.{}:{}", 1 + (n >> 16), n >> 8 & 255, n & 255, 1024 + n);
        add(established(&format!("10.0.0.1:{}", 1024 + n), &peer));
        if n % 20 == 0 {
            add(established(&format!("10.0.0.1:{}", 1024 + n), "192.0.2.1:5432"));
        }
    }
    let socket_dump = fold.finish();
    assert_eq!((socket_dump.destinations[0].port, socket_dump.destinations[0].ports_used), (5432, 1500));
    assert_eq!(socket_dump.groups[0].port, 5432);
    assert_eq!(
        (socket_dump.peers[0].address.to_string(), socket_dump.peers[0].sockets),
        ("192.0.2.1".to_owned(), 1500)
    );
    assert!(socket_dump.peers.len() <= 1024 && socket_dump.ports.len() <= 4096 && socket_dump.groups.len() <= 4096);
    assert!(socket_dump.ports_capped);
    let samples: usize = socket_dump.groups.iter().map(|group| group.samples.len()).sum();
    assert!(samples <= 4096);
    assert_eq!(socket_dump.groups[0].samples.len(), 64, "the heavy group has its samples");
}

#[test]
fn a_cut_sweep_is_marked() {
    let bytes = [established("10.0.0.1:1", "10.0.0.2:2").bytes(), done(0)].concat();
    for cut in 0..bytes.len() {
        assert!(!matches!(parse(&bytes[..cut], &[]), Observed::Full(_)), "cut at {cut}");
    }
}

proptest! {
    #[test]
    fn arbitrary_sockets_never_panic(bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 71..140), 0..20)) {
        let mut bytes = Vec::new();
        for mut body in bodies {
            body[0] = if body[1] & 1 == 0 { 2 } else { 10 };
            body[1] %= 16;
            bytes.extend(super::super::sock_diag::tests::message(20, &body));
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes.extend(done(0));
        let _ = parse(&bytes, &[listener("::", 80)]);
    }
}
