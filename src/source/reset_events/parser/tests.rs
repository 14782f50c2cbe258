use proptest::prelude::*;

use super::super::Caller;
use super::super::format::tests::{RECEIVE_6_18, SEND_4_16, SEND_5_15, SEND_6_18, STATE_6_18};
use super::super::record::CONTEXT_MARKS;
use super::*;
use crate::stream::head;
use std::net::{IpAddr, SocketAddr};

const SEND: u64 = 101;
const SEND_CHAIN: u64 = 102;
const RECEIVE_ID: u64 = 103;
const STATE_ID: u64 = 104;
const SOFTIRQ: u64 = 0x10;
const SECOND: u64 = 1_000_000_000;

/// Writes streams as the host does, the fields found by name in the format text.
struct Stream {
    bytes: Vec<u8>,
    send: Format,
    receive: Format,
    state: Format,
}

impl Stream {
    fn new(send: &str) -> Self {
        let parse = |text: &str| Format::parse(text).unwrap();
        let mut stream =
            Self { bytes: Vec::new(), send: parse(send), receive: parse(RECEIVE_6_18), state: parse(STATE_6_18) };
        let start = format!(
            "{MAGIC}\nendian little\nevent {SEND} 0 0x10406 tcp/tcp_send_reset\n\
             event {SEND_CHAIN} 0 0x10426 tcp/tcp_send_reset\nevent {RECEIVE_ID} 0 0x10406 tcp/tcp_receive_reset\n\
             event {STATE_ID} 0 0x10406 sock/inet_sock_set_state\n"
        );
        stream.text(Kind::Start, &start);
        for text in [send, RECEIVE_6_18, STATE_6_18] {
            stream.text(Kind::Format, text);
        }
        stream.text(Kind::Scope, "netns 5\nnamespace 6\naddress 10.0.0.1\n");
        stream.text(Kind::Tasks, "100 5 user server\n200 6 user other\n");
        stream.text(Kind::Clock, &format!("{} {}", 10 * SECOND, 12 * SECOND));
        stream
    }

    fn text(&mut self, kind: Kind, text: &str) {
        self.bytes.extend_from_slice(&head(kind, 0, text.len() as u32));
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn record(&mut self, cpu: u16, kind: u32, body: &[u8]) {
        let body_size = body.len().next_multiple_of(8);
        self.bytes.extend_from_slice(&head(Kind::Records, cpu, body_size as u32 + 8));
        self.bytes.extend_from_slice(&kind.to_le_bytes());
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&(body_size as u16 + 8).to_le_bytes());
        self.bytes.extend_from_slice(body);
        self.bytes.resize(self.bytes.len() + body_size - body.len(), 0);
    }

    fn sample(&mut self, id: u64, pid: u32, time: u64, chain: Option<&[u64]>, raw: &[u8]) {
        let mut body = id.to_le_bytes().to_vec();
        body.extend_from_slice(&pid.to_le_bytes());
        body.extend_from_slice(&pid.to_le_bytes());
        body.extend_from_slice(&time.to_le_bytes());
        if let Some(chain) = chain {
            body.extend_from_slice(&(chain.len() as u64).to_le_bytes());
            chain.iter().for_each(|address| body.extend_from_slice(&address.to_le_bytes()));
        }
        body.extend_from_slice(&(raw.len() as u32).to_le_bytes());
        body.extend_from_slice(raw);
        self.record(0, 9, &body);
    }

    fn send(
        &mut self,
        time: u64,
        flags: u64,
        (skb, sk): (u64, u64),
        (state, reason): (u64, u64),
        chain: Option<&[u64]>,
    ) {
        self.send_ends(time, flags, (skb, sk), (state, reason), chain, "10.0.0.1:80", "10.0.0.9:40000");
    }

    #[allow(clippy::too_many_arguments, reason = "one tracepoint record in one line of a test")]
    fn send_ends(
        &mut self,
        time: u64,
        flags: u64,
        (skb, sk): (u64, u64),
        (state, reason): (u64, u64),
        chain: Option<&[u64]>,
        local: &str,
        peer: &str,
    ) {
        let mut raw = vec![0u8; 96];
        for (name, value) in
            [("common_flags", flags), ("skbaddr", skb), ("skaddr", sk), ("state", state), ("reason", reason)]
        {
            set(&self.send, &mut raw, name, value);
        }
        ends(&self.send, &mut raw, local, peer);
        let id = if chain.is_some() { SEND_CHAIN } else { SEND };
        self.sample(id, 100, time, chain, &raw);
    }

    fn receive(&mut self, time: u64, sk: u64) {
        let mut raw = vec![0u8; 80];
        for (name, value) in [("common_flags", SOFTIRQ), ("skaddr", sk), ("sock_cookie", 77)] {
            set(&self.receive, &mut raw, name, value);
        }
        ends(&self.receive, &mut raw, "10.0.0.1:80", "10.0.0.9:40000");
        self.sample(RECEIVE_ID, 100, time, None, &raw);
    }

    fn closes(&mut self, time: u64, sk: u64, old: TcpState) {
        let mut raw = vec![0u8; 80];
        for (name, value) in [("skaddr", sk), ("oldstate", old as u64), ("newstate", 7), ("protocol", 6)] {
            set(&self.state, &mut raw, name, value);
        }
        ends(&self.state, &mut raw, "10.0.0.1:80", "10.0.0.9:40000");
        self.sample(STATE_ID, 100, time, None, &raw);
    }

    fn parse(&self) -> ResetEvents {
        let (events, error) = parse(&self.bytes);
        assert_eq!(error, None);
        events
    }
}

fn parse(bytes: &[u8]) -> (ResetEvents, Option<ParseError>) {
    let mut parser = ResetParser::new();
    parser.feed(bytes);
    parser.finish()
}

fn set(format: &Format, raw: &mut [u8], name: &str, value: u64) {
    if let Some(field) = format.field(name) {
        raw[field.offset..field.offset + field.size].copy_from_slice(&value.to_le_bytes()[..field.size]);
    }
}

fn ends(format: &Format, raw: &mut [u8], local: &str, peer: &str) {
    for (text, address, v6, port) in [(local, "saddr", "saddr_v6", "sport"), (peer, "daddr", "daddr_v6", "dport")] {
        let end: SocketAddr = text.parse().unwrap();
        let field = format.field(address).unwrap();
        let mapped = match end.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        if field.size == 28 {
            let bytes = &mut raw[field.offset..field.offset + 28];
            bytes[2..4].copy_from_slice(&end.port().to_be_bytes());
            match end.ip() {
                IpAddr::V4(v4) => {
                    bytes[0] = 2;
                    bytes[4..8].copy_from_slice(&v4.octets());
                }
                IpAddr::V6(v6) => {
                    bytes[0] = 10;
                    bytes[8..24].copy_from_slice(&v6.octets());
                }
            }
        } else {
            if let IpAddr::V4(v4) = end.ip() {
                raw[field.offset..field.offset + 4].copy_from_slice(&v4.octets());
            }
            let field = format.field(v6).unwrap();
            raw[field.offset..field.offset + 16].copy_from_slice(&mapped.octets());
            set(format, raw, port, u64::from(end.port()));
        }
    }
}

#[test]
fn an_active_reset_gets_state_caller_process_and_true_time() {
    let mut stream = Stream::new(SEND_6_18);
    stream.text(Kind::Symbols, "1000 1100 __tcp_close\n2000 2100 tcp_disconnect.part.0\n3000 3100 do_exit\n");
    stream.closes(11 * SECOND, 0xabc, TcpState::CloseWait);
    stream.send(11 * SECOND + 10, 0, (0, 0xabc), (7, 14), Some(&[CONTEXT_MARKS + 1, 0x2010, 0x1010, 0x3100]));
    let events = stream.parse();
    let event = &events.events[0];
    assert_eq!(event.at, Duration::from_nanos(13 * SECOND + 10), "CLOCK_BOOTTIME is 2 s ahead here");
    assert_eq!((event.state, event.old_state), (Some(TcpState::Close), Some(TcpState::CloseWait)));
    // 0x3100 returns into do_exit: the call is its last instruction.
    assert_eq!((event.caller, event.exiting, event.active), (Some(Caller::Linger), true, true));
    assert_eq!(event.reason.as_deref(), Some("TCP_STATE"));
    assert_eq!(event.task, Some(Task { pid: 100, name: "server".to_owned() }));
    assert_eq!(event.netns, Some(NetnsId(5)));
}

#[test]
fn data_after_close_discards_the_receive_event_and_only_that() {
    let mut stream = Stream::new(SEND_6_18);
    stream.receive(11 * SECOND, 0xabc);
    stream.closes(11 * SECOND + 1, 0xabc, TcpState::FinWait1);
    stream.receive(11 * SECOND + 2, 0xdef);
    stream.closes(11 * SECOND + 3, 0xdef, TcpState::Established);
    stream.send(11 * SECOND + 4, SOFTIRQ, (1, 0xabc), (7, 8), None);
    let events = stream.parse();
    assert_eq!(events.account.bogus_received, 1);
    let received: Vec<_> = events.events.iter().filter(|e| e.direction == Direction::Received).collect();
    assert_eq!(received.len(), 1);
    assert_eq!((received[0].state, received[0].cookie), (Some(TcpState::Established), Some(77)));
    let sent = events.events.iter().find(|e| e.direction == Direction::Sent).unwrap();
    assert_eq!((sent.old_state, sent.task.as_ref()), (Some(TcpState::FinWait1), None));
}

#[test]
fn an_old_state_of_another_time_is_not_taken() {
    let mut stream = Stream::new(SEND_6_18);
    stream.closes(11 * SECOND, 0xabc, TcpState::CloseWait);
    // The slab gave the address to another socket since.
    stream.send(12 * SECOND, 0, (0, 0xabc), (7, 14), Some(&[]));
    assert_eq!(stream.parse().events[0].old_state, None);
}

#[test]
fn a_listener_has_no_peer_and_mapped_addresses_are_ipv4() {
    let mut stream = Stream::new(SEND_6_18);
    stream.send_ends(11 * SECOND, SOFTIRQ, (1, 2), (10, 6), None, "[::ffff:10.0.0.1]:80", "0.0.0.0:0");
    stream.send_ends(11 * SECOND, SOFTIRQ, (1, 2), (10, 6), None, "[::ffff:10.0.0.1]:80", "[::]:0");
    for event in stream.parse().events {
        assert_eq!((event.local, event.peer), ("10.0.0.1:80".parse().unwrap(), None));
        assert_eq!((event.state, event.netns), (Some(TcpState::Listen), Some(NetnsId(5))));
    }
}

#[test]
fn an_event_elsewhere_is_counted_but_not_listed() {
    let mut stream = Stream::new(SEND_6_18);
    stream.text(Kind::Tasks, "100 6 user other\n");
    stream.send_ends(11 * SECOND, 0, (0, 7), (7, 14), None, "10.9.9.9:80", "10.0.0.2:4000");
    let events = stream.parse();
    assert!(events.events.is_empty());
    assert_eq!((events.account.elsewhere, events.account.read), (1, 1));
}

#[test]
fn an_address_that_nobody_has_is_not_known_and_not_elsewhere() {
    let mut stream = Stream::new(SEND_6_18);
    stream.send_ends(11 * SECOND, SOFTIRQ, (1, 0), (0, 1), None, "10.9.9.9:80", "10.0.0.2:4000");
    let events = stream.parse();
    assert_eq!(events.events.iter().map(|event| event.netns).collect::<Vec<_>>(), [None]);
}

#[test]
fn a_timer_on_loopback_says_nothing_about_the_task_that_it_interrupted() {
    let mut stream = Stream::new(SEND_6_18);
    let ends = ["127.0.0.1:40000", "127.0.0.1:80"];
    stream.text(Kind::Tasks, "100 6 user other\n");
    stream.send_ends(10 * SECOND, SOFTIRQ, (0, 7), (1, 18), None, ends[0], ends[1]);
    stream.send_ends(10 * SECOND, SOFTIRQ, (9, 7), (1, 18), None, ends[0], ends[1]);
    let events = stream.parse();
    assert_eq!(events.events.iter().map(|event| (event.active, event.netns)).collect::<Vec<_>>(), [(true, None)]);
    assert!(events.events.iter().all(|event| event.task.is_none()));
}

#[test]
fn older_kernels_give_what_they_have() {
    for format in [SEND_4_16, SEND_5_15] {
        let mut stream = Stream::new(format);
        stream.send(11 * SECOND, 0, (0, 0xabc), (7, 0), None);
        stream.send_ends(11 * SECOND, 0, (0, 0xabc), (1, 0), None, "[fd00::1]:80", "[fd00::2]:40000");
        let events = stream.parse();
        let event = &events.events[0];
        assert_eq!((event.local, event.peer), ("10.0.0.1:80".parse().unwrap(), "10.0.0.9:40000".parse().ok()));
        assert_eq!((event.reason.as_deref(), event.active, event.caller), (None, true, None));
        assert_eq!(events.events[1].local, "[fd00::1]:80".parse().unwrap());
    }
}

#[test]
fn losses_are_running_totals_and_state_changes_do_not_count() {
    let mut stream = Stream::new(SEND_6_18);
    stream.text(Kind::Counts, &format!("{SEND} 7 7\n{STATE_ID} 100 50\n"));
    let mut parser = ResetParser::new();
    parser.feed(&stream.bytes);
    assert_eq!(parser.take().account.lost, 7);
    stream.bytes.clear();
    stream.text(Kind::Counts, &format!("{SEND} 9 9\n"));
    parser.feed(&stream.bytes);
    assert_eq!(parser.take().account.lost, 2);
    // A kernel without totals: the records count.
    let mut stream = Stream::new(SEND_6_18);
    stream.record(0, 2, &[0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
    let account = stream.parse().account;
    assert_eq!((account.lost, account.lost_sent, account.lost_either), (5, 0, 5), "of a direction that nobody knows");
}

#[test]
fn what_the_kernel_counted_and_no_record_tells_is_lost() {
    let mut stream = Stream::new(SEND_6_18);
    stream.text(Kind::Counts, &format!("{SEND} 2 0\n{RECEIVE_ID} 0 0\n"));
    stream.send(11 * SECOND, SOFTIRQ, (1, 0), (0, 1), None);
    stream.receive(11 * SECOND, 0xabc);
    // Nothing lost in the kernel's own words; one sent and two received are missing all the same.
    stream.text(Kind::Counts, &format!("{SEND} 2 0\n{RECEIVE_ID} 3 0\n{STATE_ID} 9 0\nfinal\n"));
    let events = stream.parse();
    assert_eq!((events.account.read, events.account.lost, events.account.lost_sent), (2, 3, 1));
    // Known before the end too, once the record of what was counted must have come.
    let mut parser = ResetParser::new();
    let mut live = Stream::new(SEND_6_18);
    live.text(Kind::Counts, &format!("{SEND} 2 0\n"));
    live.text(Kind::Clock, &format!("{} {}", 10 * SECOND + 50_000_000, 12 * SECOND + 50_000_000));
    live.send(10 * SECOND, SOFTIRQ, (1, 0), (0, 1), None);
    live.text(Kind::Counts, &format!("{SEND} 5 0\n"));
    parser.feed(&live.bytes);
    assert_eq!(parser.take().account.lost, 1, "of the two counted first; the other three may still come");
    // Before the end a count may belong to a record that is still to be read.
    let mut open = Stream::new(SEND_6_18);
    open.text(Kind::Counts, &format!("{SEND} 2 0\n"));
    assert_eq!(open.parse().account.lost, 0);
    // A second observation in the same recording counts anew.
    open.bytes.extend_from_slice(&stream.bytes);
    assert_eq!(open.parse().account.lost, 3);
}

#[test]
fn more_than_the_cap_is_still_counted() {
    let mut stream = Stream::new(SEND_6_18);
    for i in 0..MAX_EVENTS as u64 + 1_000 {
        stream.send(11 * SECOND + i, SOFTIRQ, (1, 0), (0, 1), None);
    }
    let events = stream.parse();
    assert_eq!((events.events.len(), events.dropped), (MAX_EVENTS, 1_000));
    assert_eq!(events.tallies.iter().map(|tally| tally.count).collect::<Vec<_>>(), [1_000]);
}

#[test]
fn a_stream_cut_short_keeps_what_came_before_and_says_so() {
    let mut stream = Stream::new(SEND_6_18);
    stream.send(11 * SECOND, SOFTIRQ, (1, 0), (0, 1), None);
    stream.send(11 * SECOND, SOFTIRQ, (1, 0), (0, 1), None);
    let (events, error) = parse(&stream.bytes[..stream.bytes.len() - 5]);
    assert_eq!(events.events.len(), 1);
    assert!(error.unwrap().problem.contains("cut short"));
    assert!(parse(b"rubbish that is no stream").1.is_some());
}

#[test]
fn a_live_view_gets_each_event_once() {
    let mut stream = Stream::new(SEND_6_18);
    stream.receive(11 * SECOND, 0xabc);
    let mut parser = ResetParser::new();
    parser.feed(&stream.bytes);
    assert!(parser.take().events.is_empty(), "its state may still come");
    stream.bytes.clear();
    stream.closes(11 * SECOND + 1, 0xabc, TcpState::Established);
    for now in [12, 13, 14] {
        stream.text(Kind::Clock, &format!("{} {}", now * SECOND, (now + 2) * SECOND));
    }
    parser.feed(&stream.bytes);
    let events = parser.take().events;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].state, Some(TcpState::Established));
    assert!(parser.finish().0.events.is_empty());
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_events(cuts in proptest::collection::vec(1usize..200, 1..50)) {
        let mut stream = Stream::new(SEND_6_18);
        stream.receive(11 * SECOND, 1);
        stream.closes(11 * SECOND + 1, 1, TcpState::Established);
        stream.send(11 * SECOND + 2, 0, (0, 3), (7, 11), Some(&[1, 2, 3]));
        let mut parser = ResetParser::new();
        let (mut rest, mut i) = (&stream.bytes[..], 0);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(cuts[i % cuts.len()].min(rest.len()));
            parser.feed(now);
            (rest, i) = (later, i + 1);
        }
        prop_assert_eq!(parser.finish(), parse(&stream.bytes));
    }

    #[test]
    fn damage_never_panics(at in 0usize..20_000, value in any::<u8>(), cut in 0usize..20_000) {
        let mut stream = Stream::new(SEND_6_18);
        stream.receive(11 * SECOND, 1);
        stream.closes(11 * SECOND + 1, 1, TcpState::Established);
        stream.send(11 * SECOND + 2, 0, (0, 3), (7, 11), Some(&[1, 2, 3]));
        stream.record(0, 7, &[1; 24]);
        stream.record(0, 16, &[1; 48]);
        let length = stream.bytes.len();
        stream.bytes[at % length] = value;
        stream.bytes.truncate(length - cut % length);
        let _ = parse(&stream.bytes);
    }
}
