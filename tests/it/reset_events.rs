//! Real resets in a network namespace of its own, seen through the tracepoints.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{self, linger_0, out_rsts, pairs, skipped};
use rstdoctor::kernel::namespace::Handle;
use rstdoctor::kernel::tracepoint::{Counts, Details, Tracepoints};
use rstdoctor::source::reset_events::{Caller, Direction, ResetEvents, ResetParser};
use rstdoctor::value::{Errno, NetnsId, TcpState};

fn isolated<T: FnOnce(Tracepoints)>(test: T) {
    common::isolated_as::<T>(|| test(Tracepoints::open(vec![Handle::current()], Details::All).unwrap()));
}

fn drain(tracepoints: &mut Tracepoints, parser: &mut ResetParser) {
    tracepoints.drain(Counts::Seldom, &mut |bytes| parser.feed(bytes)).unwrap();
}

fn finish(tracepoints: Tracepoints) -> ResetEvents {
    last(tracepoints, ResetParser::new())
}

/// Ends the observation: from here on the account is exact.
fn last(mut tracepoints: Tracepoints, mut parser: ResetParser) -> ResetEvents {
    tracepoints.drain(Counts::Final, &mut |bytes| parser.feed(bytes)).unwrap();
    let (events, error) = parser.finish();
    assert_eq!(error, None);
    let account = &events.account;
    let told = events.events.len() as u64 + events.dropped + account.elsewhere + account.bogus_received;
    assert_eq!(account.read, told, "every record that was read is in the account");
    assert_eq!(events.dropped, events.tallies.iter().map(|tally| tally.count).sum::<u64>());
    events
}

fn of<'a>(
    events: &'a ResetEvents,
    direction: Direction,
    reason: &'a str,
) -> impl Iterator<Item = &'a rstdoctor::source::reset_events::ResetEvent> {
    events
        .events
        .iter()
        .filter(move |e| e.direction == direction && (reason.is_empty() || e.reason.as_deref() == Some(reason)))
}

/// The namespace of this thread.
fn here() -> Option<NetnsId> {
    NetnsId::from_link(std::fs::read_link("/proc/thread-self/ns/net").unwrap().to_str().unwrap())
}

/// So many of one direction and local port that this namespace has, single or grouped.
fn count(events: &ResetEvents, direction: Direction, port: u16) -> u64 {
    let single =
        events.events.iter().filter(|e| e.direction == direction && e.local.port() == port && e.netns == here());
    let grouped =
        events.tallies.iter().filter(|t| t.direction == direction && t.local_port == Some(port) && t.netns == here());
    single.count() as u64 + grouped.map(|tally| tally.count).sum::<u64>()
}

fn own_name() -> String {
    std::fs::read_to_string("/proc/self/comm").unwrap().trim_end().to_owned()
}

/// Kernels before 6.12 give no reason for all of these; there the tests would compare nothing.
fn reasons_known(events: &ResetEvents) -> bool {
    let known = events.events.iter().any(|e| e.active && e.reason.as_deref().is_some_and(|r| r != "NOT_SPECIFIED"));
    if !known {
        skipped("this kernel gives no reason for active resets");
    }
    known
}

#[test]
fn connects_to_a_closed_port() {
    isolated(|tracepoints| {
        let closed: SocketAddr = "127.0.0.1:81".parse().unwrap();
        for _ in 0..20 {
            assert!(TcpStream::connect(closed).is_err());
        }
        let mapped: SocketAddr = "[::ffff:127.0.0.1]:82".parse().unwrap();
        assert!(TcpStream::connect(mapped).is_err());
        assert!(TcpStream::connect("[::1]:83").is_err());
        let events = finish(tracepoints);
        let sent: Vec<_> = of(&events, Direction::Sent, "NO_SOCKET").collect();
        assert_eq!(sent.len(), 22, "{events:#?}");
        for event in &sent {
            assert!(event.softirq && event.task.is_none() && !event.active && event.netns == here(), "{event:?}");
        }
        assert!(sent.iter().any(|e| e.local.to_string() == "127.0.0.1:82"));
        assert!(sent.iter().any(|e| e.local.to_string() == "[::1]:83"));
        let received: Vec<_> = of(&events, Direction::Received, "").collect();
        assert_eq!(received.len(), 22);
        for event in received {
            assert_eq!(event.state, Some(TcpState::SynSent));
            assert!(event.cookie.is_some_and(|cookie| cookie != 0));
        }
        assert_eq!(count(&events, Direction::Sent, 81), 20);
        assert_eq!((events.account.lost, events.dropped), (0, 0));
    });
}

#[test]
fn programs_are_told_errors_and_so_are_we() {
    isolated(|tracepoints| {
        let closed: SocketAddr = "127.0.0.1:81".parse().unwrap();
        assert!(TcpStream::connect(closed).is_err());
        for (mut client, server) in pairs(3) {
            client.write_all(b"x").unwrap();
            drop(server);
            assert_eq!(client.read(&mut [0]).unwrap_err().raw_os_error(), Some(libc::ECONNRESET));
        }
        let events = finish(tracepoints);
        if !events.account.reports_errors {
            return skipped("this kernel does not report the errors of sockets");
        }
        let told = |errno: Errno| events.errors.iter().filter(|error| error.errno == errno).collect::<Vec<_>>();
        let (refused, reset) = (told(Errno::REFUSED), told(Errno::RESET));
        assert_eq!((refused.len(), reset.len(), events.errors.len()), (1, 3, 4), "{:#?}", events.errors);
        assert_eq!((refused[0].peer, refused[0].netns), (closed, here()));
    });
}

#[test]
fn closes_with_unread_data_and_linger_0_name_the_process() {
    isolated(|tracepoints| {
        for (mut client, server) in pairs(20) {
            client.write_all(b"x").unwrap();
            drop(server);
        }
        for (client, server) in pairs(20) {
            linger_0(&server);
            drop(server);
            drop(client);
        }
        let events = finish(tracepoints);
        if !reasons_known(&events) {
            return;
        }
        for (reason, caller) in [("TCP_ABORT_ON_CLOSE", Caller::Close), ("TCP_STATE", Caller::Linger)] {
            let sent: Vec<_> = of(&events, Direction::Sent, reason).collect();
            assert_eq!(sent.len(), 20, "{reason} in {events:#?}");
            for event in sent {
                let task = event.task.as_ref().unwrap();
                assert_eq!((task.pid, &task.name), (std::process::id(), &own_name()));
                assert_eq!((event.caller, event.exiting), (Some(caller), false), "{event:?}");
                assert_eq!((event.state_before(), event.netns), (Some(TcpState::Established), here()));
                assert!(event.active && !event.softirq && event.peer.is_some());
            }
        }
        let received: Vec<_> = of(&events, Direction::Received, "").collect();
        assert_eq!(received.len(), 40);
        assert!(received.iter().all(|e| e.state == Some(TcpState::Established)), "{received:#?}");
    });
}

#[test]
fn a_closed_listener_resets_what_it_had_queued() {
    isolated(|tracepoints| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let clients: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
        drop(listener);
        let events = finish(tracepoints);
        let sent: Vec<_> = of(&events, Direction::Sent, "").collect();
        assert_eq!(sent.len(), 20, "{events:#?}");
        for event in sent {
            assert_eq!((event.caller, event.local), (Some(Caller::ListenerStop), address));
            assert_eq!(event.task.as_ref().map(|t| t.pid), Some(std::process::id()));
        }
        assert_eq!(events.account.listeners_closed.len(), 1);
        assert_eq!(events.account.listeners_closed[0].local, address);
        drop(clients);
    });
}

#[test]
fn data_after_close_is_no_received_reset() {
    isolated(|tracepoints| {
        let mut streams = Vec::new();
        for (mut client, server) in pairs(20) {
            // Without close the socket stays whole in FIN_WAIT2: the variant with a bogus receive event.
            server.shutdown(std::net::Shutdown::Both).unwrap();
            client.write_all(b"x").unwrap();
            streams.push((client, server));
        }
        let events = finish(tracepoints);
        let sent: Vec<_> = of(&events, Direction::Sent, "TCP_ABORT_ON_DATA").collect();
        assert_eq!(sent.len(), 20, "{events:#?}");
        assert_eq!(events.account.bogus_received, 20);
        // The clients' side is real.
        let received: Vec<_> = of(&events, Direction::Received, "").collect();
        assert_eq!(received.len(), 20);
        assert!(received.iter().all(|e| e.state == Some(TcpState::CloseWait)), "{received:#?}");
    });
}

#[test]
fn a_killed_process_is_named_after_it_is_gone() {
    isolated(|mut tracepoints| {
        let mut parser = ResetParser::new();
        drain(&mut tracepoints, &mut parser);
        const SERVER: &str = "
import socket, sys, ctypes
ctypes.CDLL(None).prctl(15, b'the-victim', 0, 0, 0)
s = socket.create_server(('127.0.0.1', 0))
print(s.getsockname()[1], flush=True)
c = [s.accept()[0] for _ in range(10)]
print('accepted', flush=True)
sys.stdin.read()";
        let mut child = Command::new("python3")
            .args(["-c", SERVER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut line = String::new();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        let port: u16 = line.trim().parse().unwrap();
        let mut clients: Vec<_> = (0..10).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
        clients.iter_mut().for_each(|c| c.write_all(b"unread").unwrap());
        line.clear();
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        for client in &mut clients {
            client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            assert!(client.read(&mut [0; 1]).is_err());
        }
        drain(&mut tracepoints, &mut parser);
        let events = parser.finish().0;
        let sent: Vec<_> = of(&events, Direction::Sent, "").collect();
        assert_eq!(sent.len(), 10, "{events:#?}");
        for event in sent {
            let task = event.task.as_ref().unwrap();
            assert_eq!((task.pid, task.name.as_str()), (child.id(), "the-victim"));
            assert!(event.exiting && event.netns == here(), "{event:?}");
        }
    });
}

#[test]
fn ss_kill_is_a_destroyed_socket_and_sent_from_a_listener_has_no_peer() {
    isolated(|tracepoints| {
        let pairs = pairs(3);
        let killed = Command::new("ss").args(["-K", "-t", "state", "established"]).output();
        if !killed.is_ok_and(|out| out.status.success()) {
            skipped("ss -K does not run here");
            return;
        }
        let events = finish(tracepoints);
        let sent: Vec<_> = of(&events, Direction::Sent, "").filter(|e| e.active).collect();
        if sent.is_empty() {
            skipped("kernel without CONFIG_INET_DIAG_DESTROY");
            return;
        }
        for event in &sent {
            assert_eq!((event.caller, event.state), (Some(Caller::Destroy), Some(TcpState::Established)), "{event:?}");
            assert_eq!(event.task.as_ref().map(|t| t.name.as_str()), Some("ss"));
        }
        drop(pairs);
    });
}

#[test]
fn resets_of_another_namespace_are_not_counted_here() {
    isolated(|tracepoints| {
        let script = "import socket\nfor _ in range(20):\n  try: socket.create_connection(('127.0.0.1', 81))\n  except OSError: pass";
        let enter = "ip link set lo up && exec python3 -c \"$0\"";
        assert!(Command::new("unshare").args(["-n", "sh", "-c", enter, script]).status().is_ok_and(|s| s.success()));
        // Several, because the kernel (6.18) can count an event and write no record of it, seen after a CPU was idle.
        for _ in 0..20 {
            assert!(TcpStream::connect("127.0.0.1:82").is_err());
            std::thread::sleep(Duration::from_millis(5));
        }
        let events = finish(tracepoints);
        let ports: Vec<_> = of(&events, Direction::Sent, "").map(|e| e.local.port()).collect();
        assert!(!ports.contains(&81), "{ports:?}");
        assert!(ports.contains(&82), "{ports:?}");
        assert!(events.account.elsewhere >= 20, "{}", events.account.elsewhere);
    });
}

#[test]
fn a_flood_is_counted_exactly() {
    isolated(|mut tracepoints| {
        const SLOTS: u32 = 20;
        const PER_SLOT: u32 = 5_000;
        let before = out_rsts();
        let mut parser = ResetParser::new();
        let raw = common::RawSender::open();
        let start = Instant::now();
        for slot in 0..SLOTS {
            (0..PER_SLOT).for_each(|i| raw.syn(81, 1024 + (i % 60_000) as u16));
            drain(&mut tracepoints, &mut parser);
            let due = start + Duration::from_millis(50) * (slot + 1);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let took = start.elapsed();
        let all = last(tracepoints, parser);
        let expected = u64::from(SLOTS * PER_SLOT);
        assert_eq!(out_rsts() - before, expected);
        let counted = count(&all, Direction::Sent, 81);
        // The rings serve the whole host: what is lost may be another namespace's, when other tests flood too.
        assert!(
            counted <= expected && counted + all.account.lost >= expected,
            "{counted} + {} of {expected}",
            all.account.lost
        );
        eprintln!("{expected} resets in {took:?}, lost {}", all.account.lost);
    });
}

#[test]
fn losses_are_exact_when_nobody_reads() {
    isolated(|mut tracepoints| {
        let mut parser = ResetParser::new();
        drain(&mut tracepoints, &mut parser);
        // Three records each, of more than 100 bytes: refused, received, and SYN_SENT to CLOSE.
        let connects = tracepoints.ring_bytes() as u64 / 200;
        for _ in 0..connects {
            assert!(TcpStream::connect("127.0.0.1:81").is_err());
        }
        let all = last(tracepoints, parser);
        let seen = all.events.len() as u64 + all.dropped;
        assert!(all.account.lost > 0, "the rings were larger than thought");
        let elsewhere = all.account.read - seen;
        assert!(seen + all.account.lost >= 2 * connects, "{seen} + {} of {}", all.account.lost, 2 * connects);
        // Exact unless another namespace of this host resets something meanwhile.
        if elsewhere == 0 && all.account.read + all.account.lost == 2 * connects {
            assert_eq!(all.account.lost_sent, connects - count(&all, Direction::Sent, 81));
        }
        eprintln!("{seen} seen, {} lost, {elsewhere} elsewhere", all.account.lost);
    });
}
