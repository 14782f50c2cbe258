//! Something that connections depended on went away: the listener, the process, the connection's own state.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr as NetlinkAddress, protocols::NETLINK_SOCK_DIAG};

use super::Need;
use super::Scenario;
use super::common::{PORT, SERVICE, connections, good_traffic, serve};
use crate::lab::counters::{at_least, still};
use crate::lab::net;
use crate::lab::program::{Accept, Server, Then};
use crate::lab::stage::{Actor, CLIENT, Stage, Stop};
use crate::lab::tally::Tally;
use rustix::process::Signal;

const LISTENERS_END: &[&str] = &["abortive-close", "close-with-unread-data", "socket-destroyed"];
const DEATHS: &[&str] = &["abortive-close", "late-data-after-close", "listener-closed", "stale-connection"];

pub static SCENARIOS: &[Scenario] = &[
    Scenario::fault(
        "stale-connection",
        "stale-connection",
        "the server crashed and came back while the path was cut: clients use connections that it no longer knows",
        "pull the cable, kill -9 the server, start it again, plug the cable in; clients send on their old connections",
        |stage| stale(stage, true),
    )
    .never(&["port-without-listener", "late-data-after-close", "abortive-close"])
    .shows(&[at_least("OutRsts", 15), still("TCPAbortOnClose"), still("TCPAbortOnData")])
    .needs(&[Need::ResetEvents]),
    Scenario::fault(
        "stale-connection-no-listener",
        "stale-connection",
        "the same, and the server did not come back",
        "pull the cable, kill -9 the server, plug the cable in; clients send on their old connections",
        |stage| stale(stage, false),
    )
    .never(&["late-data-after-close", "abortive-close"])
    .shows(&[at_least("OutRsts", 15), still("TCPAbortOnClose")])
    .needs(&[Need::ResetEvents]),
    Scenario::fault(
        "listener-closed",
        "listener-closed",
        "the server closes its listening socket with 20 connections still in the queue",
        "a server that stops accepting, then close(listen_fd): as a careless restart does",
        |stage| {
            let server = Server { accept: Accept::Never, backlog: 64, ..Server::default() };
            let actor = serve(stage, "closing-server", server)?;
            queue_and_close(stage, actor)
        },
    )
    .port(PORT)
    .never(LISTENERS_END)
    .shows(&[at_least("OutRsts", 15), still("TCPAbortOnClose"), still("TCPAbortOnData")]),
    Scenario::fault(
        "listener-closed-reuseport",
        "listener-closed",
        "a reload with SO_REUSEPORT: the new listener is up, the old one is closed with connections queued",
        "two processes listen on 8080 with SO_REUSEPORT; the old one closes its listener",
        |stage| {
            let old = Server { accept: Accept::Never, backlog: 64, reuse_port: true, ..Server::default() };
            let new = Server { reuse_port: true, ..Server::default() };
            let old = serve(stage, "old-server", old)?;
            serve(stage, "new-server", new)?;
            queue_and_close(stage, old)
        },
    )
    .port(PORT)
    .never(LISTENERS_END)
    .shows(&[at_least("OutRsts", 3), still("TCPAbortOnClose"), still("TCPAbortOnData")]),
    Scenario::fault(
        "process-exit-killed-unread",
        "process-exit",
        "the server is killed (kill -9) with unread requests on its connections",
        "kill -9 $(pidof doomed-server) under load",
        |stage| die(stage, true, false, |actor| actor.signal(Signal::KILL)),
    )
    .process("doomed-server")
    .never(DEATHS)
    .shows(&[at_least("TCPAbortOnClose", 20)]),
    Scenario::fault(
        "process-exit-killed",
        "process-exit",
        "the server is killed (kill -9) while clients keep sending on their connections",
        "kill -9 $(pidof doomed-server) under load",
        |stage| die(stage, false, false, |actor| actor.signal(Signal::KILL)),
    )
    .process("doomed-server")
    .never(DEATHS)
    .shows(&[at_least("OutRsts", 15), still("TCPAbortOnClose")]),
    Scenario::fault(
        "process-exit-crash",
        "process-exit",
        "the server crashes (abort) while new clients go on connecting",
        "a server that calls abort() under load",
        |stage| die(stage, true, true, |actor| actor.tell("abort")),
    )
    .process("doomed-server")
    .never(DEATHS)
    .shows(&[at_least("TCPAbortOnClose", 20)]),
    Scenario::fault(
        "process-exit-exit",
        "process-exit",
        "the server ends with exit(0) and does not close its connections first",
        "a server that calls exit(0) under load",
        |stage| die(stage, true, false, |actor| actor.tell("exit")),
    )
    .process("doomed-server")
    .never(DEATHS)
    .shows(&[at_least("TCPAbortOnClose", 20)]),
    Scenario::fault(
        "socket-destroyed",
        "socket-destroyed",
        "an administrator destroys the connections of a server",
        "ss -K sport = :8080",
        destroyed,
    )
    .never(&["abortive-close", "listener-closed", "process-exit", "peer-reset"])
    .shows(&[at_least("OutRsts", 20), still("TCPAbortOnData"), still("TCPAbortOnClose")])
    .needs(&[Need::ResetEvents]),
];

fn stale(stage: &mut Stage, comes_back: bool) -> Result<(), Stop> {
    let server = || Server { then: Then::Hold, ..Server::default() };
    let first = serve(stage, "first-server", server())?;
    let mut streams = connections(&stage.client, SERVICE, 20)?;
    // Unread data makes the kernel forget a killed process's connection at once: the RST is sent into the blackhole.
    write_all(&mut streams, b"hello")?;
    stage.here.blackhole(CLIENT, 32)?;
    first.signal(Signal::KILL)?;
    thread::sleep(Duration::from_millis(100));
    if comes_back {
        serve(stage, "second-server", server())?;
    }
    stage.here.forget_blackhole(CLIENT, 32)?;
    stage.fault(&stage.client.clone(), move |window, tally| {
        for mut stream in streams {
            tally.note("write", stream.write_all(b"are you there"));
            window.sleep(80);
            tally.note("read", net::receive(&mut stream));
        }
    });
    stage.observe(2.2)
}

fn queue_and_close(stage: &mut Stage, actor: Actor) -> Result<(), Stop> {
    stage.fault(&stage.client.clone(), move |window, tally| {
        let streams: Vec<TcpStream> = (0..20).filter_map(|_| tally.note("connect", net::connect(SERVICE))).collect();
        window.sleep(800);
        let _ = actor.tell("close-listener");
        window.sleep(200);
        for mut stream in streams {
            let _ = stream.set_read_timeout(Some(Duration::from_millis(20)));
            tally.note("read", net::receive(&mut stream));
        }
    });
    stage.observe(2.0)
}

/// Twenty connections, then the server's process ends. `go_on`: new clients keep coming and are refused.
fn die(stage: &mut Stage, unread: bool, go_on: bool, how: fn(&Actor) -> io::Result<()>) -> Result<(), Stop> {
    let then = if unread { Then::Hold } else { Then::Echo { idle_ms: None } };
    let actor = serve(stage, "doomed-server", Server { then, ..Server::default() })?;
    let mut streams = connections(&stage.client, SERVICE, 20)?;
    write_all(&mut streams, b"hello")?;
    if go_on && !unread {
        good_traffic(stage, &stage.client.clone(), SERVICE, 50);
    }
    if go_on {
        stage.fault(&stage.client.clone(), |window, tally| {
            window.sleep(900);
            window.every(50, || drop(tally.note("connect", net::connect(SERVICE))));
        });
    }
    stage.fault(&stage.client.clone(), move |window, tally| {
        window.sleep(700);
        let _ = how(&actor);
        window.sleep(100);
        for stream in &mut streams {
            notice(tally, stream);
        }
    });
    stage.observe(2.0)
}

/// What a client does that does not know yet: it sends, reads, sends again.
fn notice(tally: &Tally, stream: &mut TcpStream) {
    tally.note("write after its death", stream.write_all(b"hello"));
    thread::sleep(Duration::from_millis(5));
    tally.note("read after its death", net::receive(stream));
    tally.note("second write", stream.write_all(b"hello"));
}

fn destroyed(stage: &mut Stage) -> Result<(), Stop> {
    serve(stage, "web-server", Server::default())?;
    let streams = connections(&stage.client, SERVICE, 20)?;
    let ports: Vec<u16> = streams.iter().filter_map(|stream| stream.local_addr().ok()).map(|at| at.port()).collect();
    let first = ports.first().copied().unwrap_or(0);
    if let Err(error) = destroy(SERVICE, SocketAddr::new(CLIENT, first)) {
        return match error.raw_os_error() {
            // net/core/sock_diag.c: without CONFIG_INET_DIAG_DESTROY.
            Some(libc::EOPNOTSUPP) => Err(Stop::Skip("this kernel has no CONFIG_INET_DIAG_DESTROY".to_owned())),
            _ => Err(error.into()),
        };
    }
    let more = connections(&stage.client, SERVICE, 20)?;
    stage.fault(&stage.here.clone(), move |window, tally| {
        let ports: Vec<u16> = more.iter().filter_map(|stream| stream.local_addr().ok()).map(|at| at.port()).collect();
        for port in ports {
            tally.note("SOCK_DESTROY", destroy(SERVICE, SocketAddr::new(CLIENT, port)));
            window.sleep(40);
        }
        for mut stream in more {
            tally.note("read", net::receive(&mut stream));
        }
        drop(streams);
    });
    stage.observe(2.0)
}

/// SOCK_DESTROY of one IPv4 connection (sock_diag(7), include/uapi/linux/sock_diag.h: message type 21).
fn destroy(local: SocketAddr, peer: SocketAddr) -> io::Result<()> {
    const SOCK_DESTROY: u16 = 21;
    const REQUEST_AND_ACK: u16 = 1 | 4;
    const LENGTH: u32 = 16 + 56;
    let mut message = Vec::with_capacity(LENGTH as usize);
    message.extend(LENGTH.to_ne_bytes());
    message.extend(SOCK_DESTROY.to_ne_bytes());
    message.extend(REQUEST_AND_ACK.to_ne_bytes());
    message.extend([0; 8]);
    // struct inet_diag_req_v2: family, protocol, extensions, padding, states, then struct inet_diag_sockid.
    message.extend([libc::AF_INET as u8, libc::IPPROTO_TCP as u8, 0, 0]);
    message.extend(u32::MAX.to_ne_bytes());
    message.extend(local.port().to_be_bytes());
    message.extend(peer.port().to_be_bytes());
    for address in [local.ip(), peer.ip()] {
        let IpAddr::V4(address) = address else { return Err(io::ErrorKind::InvalidInput.into()) };
        message.extend(address.octets());
        message.extend([0; 12]);
    }
    message.extend([0; 4]);
    // INET_DIAG_NOCOOKIE, twice 32 bits.
    message.extend([0xff; 8]);
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.send_to(&message, &NetlinkAddress::new(0, 0), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    match answer.get(16..20).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::Error::other("a short answer from sock_diag")),
    }
}

fn write_all(streams: &mut [TcpStream], bytes: &[u8]) -> io::Result<()> {
    streams.iter_mut().try_for_each(|stream| stream.write_all(bytes))
}
