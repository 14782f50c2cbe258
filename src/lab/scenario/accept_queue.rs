//! More connections complete than the application accepts, or it accepts nothing at all.

use std::net::IpAddr;

use rustix::process::Signal;

use super::Scenario;
use super::common::{PORT, serve};
use crate::lab::arena::Namespace;
use crate::lab::counters::{moved, still};
use crate::lab::net;
use crate::lab::program::{Accept, Server, Then};
use crate::lab::stage::{Actor, SERVER, SERVER6, Stage, Stop, at};

pub static SCENARIOS: &[Scenario] = &[
    Scenario::fault(
        "accept-queue-overflow",
        "accept-queue-overflow",
        "a server accepts more slowly than clients connect, its own backlog binds",
        "a server with listen(fd, 16) that accepts ten connections a second
         clients on another host: ab -n 10000 -c 32 http://10.77.0.1:8080/",
        |stage| slow(stage, SERVER, 16),
    )
    .port(PORT)
    .process("slow-server")
    .never(&["syn-flood", "accept-loop-stalled", "fd-exhaustion"])
    .shows(&[moved("ListenOverflows")]),
    Scenario::fault(
        "accept-queue-overflow-ipv6",
        "accept-queue-overflow",
        "the same over IPv6",
        "as accept-queue-overflow, to http://[fd77::1]:8080/",
        |stage| slow(stage, SERVER6, 16),
    )
    .port(PORT)
    .process("slow-server")
    .never(&["syn-flood", "accept-loop-stalled"])
    .shows(&[moved("ListenOverflows")]),
    Scenario::fault(
        "accept-queue-overflow-somaxconn",
        "accept-queue-overflow",
        "the application asks for 511, net.core.somaxconn=8 binds",
        "sysctl net.core.somaxconn=8
         a slow server with listen(fd, 511); clients as in accept-queue-overflow",
        |stage| {
            somaxconn(stage, 8)?;
            slow(stage, SERVER, 511)
        },
    )
    .port(PORT)
    .process("slow-server")
    .never(&["syn-flood", "accept-loop-stalled"])
    .shows(&[moved("ListenOverflows")]),
    Scenario::fault(
        "accept-queue-overflow-stale",
        "accept-queue-overflow",
        "somaxconn was raised, but the listener is older and keeps its small queue",
        "sysctl net.core.somaxconn=8; start a slow server with listen(fd, 511)
         sysctl net.core.somaxconn=4096, without a restart of the server",
        |stage| {
            let client = stage.client.clone();
            somaxconn(stage, 8)?;
            server(stage, SERVER, 511, Accept::Every(100))?;
            somaxconn(stage, 4096)?;
            storm(stage, &client, SERVER);
            stage.observe(2.5)
        },
    )
    .port(PORT)
    .process("slow-server")
    .never(&["syn-flood", "accept-loop-stalled"])
    .shows(&[moved("ListenOverflows")]),
    Scenario::fault(
        "accept-queue-overflow-abort",
        "accept-queue-overflow",
        "tcp_abort_on_overflow=1 turns the lost connections into resets",
        "sysctl net.ipv4.tcp_abort_on_overflow=1; then as accept-queue-overflow",
        |stage| {
            stage.here.sysctl("net.ipv4.tcp_abort_on_overflow", 1)?;
            slow(stage, SERVER, 16)
        },
    )
    .port(PORT)
    .process("slow-server")
    .never(&["syn-flood", "accept-loop-stalled", "handshake-reset"])
    .shows(&[moved("ListenOverflows")]),
    Scenario::fault(
        "accept-loop-stalled-stopped",
        "accept-loop-stalled",
        "the server is stopped (SIGSTOP) and clients go on connecting",
        "kill -STOP $(pidof stopped-server); clients connect",
        |stage| {
            let client = stage.client.clone();
            let actor = named_server(stage, "stopped-server", SERVER, Accept::AtOnce)?;
            storm(stage, &client, SERVER);
            stage.fault(&stage.here.clone(), move |window, _| {
                window.sleep(200);
                let _ = actor.signal(Signal::STOP);
            });
            stage.observe(3.0)
        },
    )
    .port(PORT)
    .process("stopped-server")
    .never(&["syn-flood"])
    .shows(&[moved("ListenOverflows")]),
    Scenario::fault(
        "accept-loop-stalled-blocked",
        "accept-loop-stalled",
        "the thread that should accept waits for something else for ever",
        "a server whose only thread calls listen() and then blocks; clients connect",
        |stage| {
            let client = stage.client.clone();
            named_server(stage, "blocked-server", SERVER, Accept::Never)?;
            storm(stage, &client, SERVER);
            stage.observe(3.0)
        },
    )
    .port(PORT)
    .process("blocked-server")
    .never(&["syn-flood"])
    .shows(&[moved("ListenOverflows"), still("TCPAbortOnClose")]),
    Scenario::fault(
        "accept-loop-stalled-long-queue",
        "accept-loop-stalled",
        "the same with a long queue and few clients: each waits in vain, and no counter moves",
        "a server with listen(fd, 4096) whose only thread then blocks; three clients a second",
        |stage| {
            let server = Server { backlog: 4096, accept: Accept::Never, ..Server::default() };
            serve(stage, "blocked-server", server)?;
            stage.fault(&stage.client.clone(), |window, tally| {
                let mut kept = Vec::new();
                window.every(300, || kept.push(tally.note("connect", net::connect(at(SERVER, PORT)))));
            });
            stage.observe(4.0)
        },
    )
    .port(PORT)
    .process("blocked-server")
    .never(&["syn-flood", "accept-queue-overflow"])
    .shows(&[still("ListenOverflows"), still("OutRsts")]),
    Scenario::fault(
        "fd-exhaustion",
        "fd-exhaustion",
        "the server reaches its open-files limit, accept() fails and the queue fills",
        "ulimit -n 40 for the server; clients keep 60 connections open",
        |stage| {
            let client = stage.client.clone();
            let server = Server { backlog: 8, then: Then::Hold, open_files: Some(40), ..Server::default() };
            serve(stage, "fd-server", server)?;
            storm(stage, &client, SERVER);
            stage.observe(3.0)
        },
    )
    .port(PORT)
    .process("fd-server")
    .never(&["syn-flood"])
    .shows(&[moved("ListenOverflows")]),
    Scenario::fault(
        "fd-exhaustion-early",
        "fd-exhaustion",
        "the same with a long queue: connections wait unanswered, the overflow counters are still flat",
        "ulimit -n 40 for a server with listen(fd, 511); clients keep 60 connections open",
        |stage| {
            let server = Server { then: Then::Hold, open_files: Some(40), ..Server::default() };
            serve(stage, "fd-server", server)?;
            storm(stage, &stage.client.clone(), SERVER);
            stage.observe(2.5)
        },
    )
    .port(PORT)
    .process("fd-server")
    .never(&["syn-flood", "accept-queue-overflow"])
    .shows(&[still("ListenOverflows")]),
];

/// Older kernels show no `net.core` in the namespaces of a user namespace (net/core/sysctl_net_core.c sysctl_core_net_init(): 5.10
/// and 6.1 do so, 6.12 does not).
fn somaxconn(stage: &Stage, value: u32) -> Result<(), Stop> {
    const NAME: &str = "net.core.somaxconn";
    if !stage.here.has_sysctl(NAME) {
        return Err(Stop::Skip(format!("this kernel hides {NAME} in a user namespace")));
    }
    Ok(stage.here.sysctl(NAME, value)?)
}

fn slow(stage: &mut Stage, address: IpAddr, backlog: i32) -> Result<(), Stop> {
    let client = stage.client.clone();
    server(stage, address, backlog, Accept::Every(100))?;
    storm(stage, &client, address);
    stage.observe(2.5)
}

fn server(stage: &mut Stage, address: IpAddr, backlog: i32, accept: Accept) -> Result<Actor, Stop> {
    serve(stage, "slow-server", Server { listen: vec![at(address, PORT)], backlog, accept, ..Server::default() })
}

fn named_server(stage: &mut Stage, name: &str, address: IpAddr, accept: Accept) -> Result<Actor, Stop> {
    serve(stage, name, Server { listen: vec![at(address, PORT)], backlog: 16, accept, ..Server::default() })
}

/// 32 clients that each connect, ask, and wait for the answer, again and again.
pub(super) fn storm(stage: &mut Stage, client: &Namespace, address: IpAddr) {
    for _ in 0..32 {
        stage.fault(client, move |window, tally| {
            let mut kept = Vec::new();
            window.every(20, || {
                let Some(mut stream) = tally.note("connect", net::connect(at(address, PORT))) else { return };
                if tally.note("request", net::exchange(&mut stream, b"hello")).is_none() {
                    kept.push(stream);
                }
            });
        });
    }
}
