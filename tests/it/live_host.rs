//! The host against the running kernel, in a network namespace of its own.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::forge::contents;
use crate::common::skipped;
use rstdoctor::ask::{self, Ask, Clock, DiagQuery, Frame, Probe, What};
use rstdoctor::kernel::LiveHost;
use rstdoctor::kernel::namespace::{Handle, NamedNetns, with_namespace};
use rstdoctor::observation::Snapshot;
use rstdoctor::recording::{RecordingHost, ReplayHost};
use rstdoctor::session::{Plan, Session};
use rstdoctor::source::reset_events::Direction;
use rstdoctor::source::snmp;
use rstdoctor::value::{FailureKind, NetnsId};

const SWEEP: DiagQuery = DiagQuery { name: "sockets", states: 0x1fff, extensions: 0xff };
const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 3, 9);
const HOST6: &str = "fd77:aabb:ccdd::99";

/// Runs `body` on a thread in a new network namespace with two addresses on its loopback device; false where that is not
/// permitted. The namespace ends with the thread.
fn in_own_namespace(body: impl FnOnce() + Send + 'static) -> bool {
    let thread = std::thread::spawn(|| {
        // SAFETY: changes the network namespace of this thread only.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return false;
        }
        for arguments in
            ["link set lo up", "addr add 10.77.3.9/32 dev lo", "-6 addr add fd77:aabb:ccdd::99/128 dev lo nodad"]
        {
            match Command::new("ip").args(arguments.split(' ')).status() {
                Ok(status) if status.success() => {}
                _ => return false,
            }
        }
        body();
        true
    });
    thread.join().expect("the body passed")
}

fn live() -> LiveHost {
    LiveHost::new(Arc::new(AtomicBool::new(false)))
}

fn file(path: String) -> Ask {
    Ask::host(What::File(path))
}

fn text(host: &mut dyn Probe, path: String) -> String {
    String::from_utf8(ask::read(host, &file(path)).0.expect("read")).expect("text")
}

/// (family, state, source, destination) of each socket in a dump, by the offsets of `struct inet_diag_msg`.
fn sockets(dump: &[u8]) -> Vec<(u8, u8, [u8; 16], [u8; 16])> {
    let mut found = Vec::new();
    let mut rest = dump;
    while rest.len() >= 16 {
        let len = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
        if u16::from_ne_bytes([rest[4], rest[5]]) >= 16 {
            found.push((rest[16], rest[17], rest[24..40].try_into().unwrap(), rest[40..56].try_into().unwrap()));
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// The route of an IPv6 address that was just added may take a moment longer than the address.
fn reach(address: (Ipv6Addr, u16)) -> TcpStream {
    for _ in 0..100 {
        match TcpStream::connect(address) {
            Err(error) if error.kind() == std::io::ErrorKind::NetworkUnreachable => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            result => return result.expect("a connection"),
        }
    }
    panic!("no route to {} after 2 s", address.0);
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_redacted_recording_of_real_sockets_names_no_one_and_still_joins() {
    let ran = in_own_namespace(|| {
        let listener = TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let four = TcpListener::bind((HOST, 0)).unwrap();
        let four_port = four.local_addr().unwrap().port();
        let connections = [
            TcpStream::connect((HOST, port)).unwrap(),
            reach((HOST6.parse::<Ipv6Addr>().unwrap(), port)),
            TcpStream::connect((HOST, four_port)).unwrap(),
            TcpStream::connect(("127.0.0.1", port)).unwrap(),
        ];
        let pid = std::process::id();
        let asks =
            ["stat", "status", "cmdline", "cgroup", "comm", "limits"].map(|name| file(format!("/proc/{pid}/{name}")));
        let mut host = RecordingHost::new(live(), Vec::new(), true);
        host.frame(Frame::Before).unwrap();
        let mut real = Vec::new();
        assert_eq!(
            host.ask(&Ask::netns(Handle::current().id(), What::SockDiag(SWEEP)), &mut |bytes| real
                .extend_from_slice(bytes))
                .result,
            Ok(())
        );
        let name = text(&mut host, format!("/proc/{pid}/comm"));
        let hostname = text(&mut host, "/proc/sys/kernel/hostname".to_owned());
        asks.iter().for_each(|ask| assert_eq!(host.ask(ask, &mut |_| {}).result, Ok(())));
        host.frame(Frame::After { end: Duration::from_secs(1) }).unwrap();
        let bytes = host.finish().unwrap();
        drop(connections);

        let six = HOST6.parse::<Ipv6Addr>().unwrap().octets();
        assert!(contains(&real, &HOST.octets()) && contains(&real, &six), "the caller still sees the real addresses");
        let stored = contents(&bytes);
        assert!(!contains(&stored, &HOST.octets()) && !contains(&stored, &six));
        assert!(!contains(&stored, name.trim_end().as_bytes()), "process name {name}");
        let program = std::env::current_exe().unwrap();
        assert!(!contains(&stored, program.file_name().unwrap().as_encoded_bytes()), "command line");

        let mut recording = ReplayHost::read(&bytes[..]).unwrap();
        recording.frame(Frame::Before).unwrap();
        let mut dump = Vec::new();
        assert_eq!(
            recording
                .ask(&Ask::netns(Handle::current().id(), What::SockDiag(SWEEP)), &mut |bytes| dump
                    .extend_from_slice(bytes))
                .result,
            Ok(())
        );
        let (real, redacted) = (sockets(&real), sockets(&dump));
        assert_eq!(real.len(), redacted.len());
        assert!(real.len() >= 10, "2 listeners, 4 connections with two ends: {real:?}");
        // Two ends had the same address before exactly if they have after: the pseudonyms join.
        for (a, b) in real.iter().zip(&redacted) {
            assert_eq!((a.0, a.1), (b.0, b.1), "family and state stay");
            for (c, d) in real.iter().zip(&redacted) {
                assert_eq!((a.0 == c.0 && a.2 == c.3), (b.0 == d.0 && b.2 == d.3));
            }
        }
        assert!(
            redacted
                .iter()
                .any(|socket| socket.0 == 10 && socket.2 == Ipv4Addr::new(240, 0, 0, 1).to_ipv6_mapped().octets())
        );
        assert!(redacted.iter().any(|socket| socket.3[..4] == [127, 0, 0, 1]), "loopback stays");
        assert!(redacted.iter().any(|socket| socket.1 == 10 && socket.2 == [0; 16]), "unspecified stays");
        assert!(text(&mut recording, format!("/proc/{pid}/stat")).starts_with(&format!("{pid} (process-1) ")));
        let unknown = ask::read(&mut recording, &file(format!("/proc/{pid}/status"))).0.unwrap_err();
        assert_eq!(unknown.kind, FailureKind::NotCollected, "no source asks for it: {unknown}");
        assert_eq!(text(&mut recording, "/proc/sys/kernel/hostname".to_owned()), "host-1\n");
        assert!(!hostname.starts_with("host-1\n"));
    });
    if !ran {
        skipped("a network namespace of its own needs root and ip(8)");
    }
}

#[test]
fn files_and_sockets_are_those_of_the_threads_namespace() {
    let ran = in_own_namespace(|| {
        let listener = TcpListener::bind((HOST, 0)).unwrap();
        let mut host = live();
        host.frame(Frame::Before);
        assert!(text(&mut host, "/proc/net/fib_trie".to_owned()).contains("10.77.3.9"));
        let mut dump = Vec::new();
        assert_eq!(
            host.ask(&Ask::netns(Handle::current().id(), What::SockDiag(SWEEP)), &mut |bytes| dump
                .extend_from_slice(bytes))
                .result,
            Ok(())
        );
        assert_eq!(sockets(&dump).len(), 1, "only the listener of this namespace");
        let outside = Ask::netns(NetnsId(1), What::SockDiag(SWEEP));
        assert_eq!(host.ask(&outside, &mut |_| {}).result.unwrap_err().kind, FailureKind::Absent);
        drop(listener);
    });
    if !ran {
        skipped("a network namespace of its own needs root and ip(8)");
    }
}

fn ip(arguments: &str) -> bool {
    Command::new("ip").args(arguments.split(' ')).status().is_ok_and(|status| status.success())
}

#[test]
fn two_namespaces_are_observed_from_a_third() {
    const NAMES: [&str; 2] = ["rstdoctor-it-one", "rstdoctor-it-two"];
    /// Ends them however the test ends.
    struct Named;
    impl Drop for Named {
        fn drop(&mut self) {
            NAMES.iter().for_each(|name| {
                ip(&format!("netns del {name}"));
            });
        }
    }
    if !ip(&format!("netns add {}", NAMES[0])) {
        return skipped("network namespaces need root and ip(8)");
    }
    let _named = Named;
    assert!(ip(&format!("netns add {}", NAMES[1])));
    for line in [
        "link add rsd-one netns {0} type veth peer name rsd-two netns {1}",
        "-n {0} link set lo up",
        "-n {1} link set lo up",
        "-n {0} link set rsd-one up",
        "-n {1} link set rsd-two up",
        "-n {0} addr add 10.98.7.1/24 dev rsd-one",
        "-n {1} addr add 10.98.7.2/24 dev rsd-two",
        "-n {0} route add local 192.0.2.0/24 dev lo",
        "-n {1} route add 192.0.2.0/24 via 10.98.7.1",
    ] {
        assert!(ip(&line.replace("{0}", NAMES[0]).replace("{1}", NAMES[1])), "{line}");
    }
    let home = Handle::current();
    let [one, two] = NAMES.map(|name| NamedNetns::of(name).unwrap());
    let ids = [one.handle.id(), two.handle.id()];
    let listener = with_namespace(&one.handle, || TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    let observed = [&one, &two].map(|found| (found.handle.clone(), found.name.clone()));
    let stop = Arc::new(AtomicBool::new(false));
    let mut host = LiveHost::observing(Arc::clone(&stop), observed);
    let named = ask::read(&mut host, &Ask::host(What::Namespaces)).0.unwrap();
    for (id, name) in ids.iter().zip(NAMES) {
        assert!(String::from_utf8_lossy(&named).contains(&format!("{id} {name}\n")), "{id} {name}");
    }
    // Two is refused at an address that one has only since a moment, and at some of a local route.
    let script = format!(
        "ip -n {0} addr add 10.98.7.9/24 dev rsd-one
exec nsenter --net=/run/netns/{1} python3 -c 'import socket
for address in [\"10.98.7.9\"] * 20 + [\"192.0.2.55\"] * 10:
  try: socket.create_connection((address, 81), 2)
  except ConnectionRefusedError: pass'",
        NAMES[0], NAMES[1]
    );
    // The window is open, and is closed when all has happened.
    let mut session = Session::open(&mut host, &Plan::scan(Duration::MAX)).unwrap();
    let mut peer = Command::new("sh").args(["-c", &script]).spawn().unwrap();
    while peer.try_wait().unwrap().is_none() {
        session.step(&mut host);
    }
    assert!(peer.wait().unwrap().success());
    stop.store(true, Ordering::Relaxed);
    let observation = session.close(&mut host).unwrap().observation;
    assert_eq!(Handle::current(), home);
    assert_eq!(observation.netns.keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from(ids));
    for (id, sent, listeners) in [(ids[0], 30, 1), (ids[1], 0, 0)] {
        let window = &observation.netns[&id];
        let counter = |snapshot: &Snapshot| snapshot.counters.value(&snmp::FILE).unwrap().get("Tcp.OutRsts").unwrap();
        assert_eq!(counter(&window.after) - counter(&window.before), sent, "{id}");
        assert_eq!(window.after.listeners.value().unwrap().len(), listeners, "{id}");
        // Each side has its own of each.
        // What other tests do meanwhile may, in part, be of any namespace as far as is known, and stands in each.
        let resets: Vec<_> = window.resets.single.iter().filter(|reset| reset.netns().is_some()).collect();
        let of = |direction| resets.iter().filter(|reset| reset.direction() == direction).count() as u64;
        assert_eq!((of(Direction::Sent), of(Direction::Received)), (sent, 30 - sent), "{id}: {resets:#?}");
        for reset in resets {
            assert_eq!(reset.event.as_ref().and_then(|event| event.netns), Some(id), "{reset:?}");
            let packet = reset.packet.as_ref().map(|packet| (packet.netns, packet.local_here));
            assert_eq!(packet, Some((id, true)), "{reset:?}");
        }
    }
    drop(listener);
}

/// `cargo test --release --test it live_host:: -- --ignored --nocapture` shows the cost on this machine.
#[test]
#[ignore = "measures; takes all descriptors of this process"]
fn a_walk_of_many_descriptors_is_fast() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: reads and raises the soft limit of this test process only.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max.min(200_100);
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let copies: Vec<TcpListener> = (100..limit.rlim_cur).map_while(|_| listener.try_clone().ok()).collect();
    let mut lines = 0;
    let ask = Ask::host(What::SocketOwners { inodes: BTreeSet::from([1]), also: BTreeSet::new() });
    let answer = live().ask(&ask, &mut |text| lines += text.iter().filter(|byte| **byte == b'\n').count());
    eprintln!("{} own descriptors and those of others: {:?}, {lines} lines", copies.len(), answer.took);
    assert!(answer.took < Duration::from_secs(1), "{:?}", answer.took);
}
