//! Limits of the host: orphans, memory, TIME_WAIT sockets, local ports.

use super::Scenario;
use super::common::{PORT, SERVICE, answer_server, call, serve_in};
use crate::lab::counters::{moved, still};
use crate::lab::net;
use crate::lab::program::{Ending, Server, Talk};
use crate::lab::stage::{CLIENT, CLIENT6, Stage, Stop, at};

pub static SCENARIOS: &[Scenario] = &[
    Scenario::fault(
        "orphan-limit",
        "orphan-limit",
        "more closed sockets with unsent data than tcp_max_orphans allows",
        "sysctl net.ipv4.tcp_max_orphans=10; a server that closes with much data unsent to slow readers",
        |stage| host_wide(stage, "net.ipv4.tcp_max_orphans"),
    ),
    Scenario::fault(
        "tcp-memory-exhausted",
        "tcp-memory-exhausted",
        "TCP buffers exceed tcp_mem",
        "sysctl net.ipv4.tcp_mem='10 20 30'; programs that do not read what they are sent",
        |stage| host_wide(stage, "net.ipv4.tcp_mem"),
    ),
    Scenario::fault(
        "time-wait-table-full",
        "time-wait-table-full",
        "more connections end than tcp_max_tw_buckets=5 can remember",
        "sysctl net.ipv4.tcp_max_tw_buckets=5; a server that closes first",
        |stage| {
            stage.here.sysctl("net.ipv4.tcp_max_tw_buckets", 5)?;
            answer_server(stage, "busy-server", 4096, 100, Ending::Close)?;
            for _ in 0..4 {
                stage.fault(&stage.client.clone(), |window, tally| {
                    window.every(20, || {
                        let Some(mut stream) = tally.note("connect", net::connect(SERVICE)) else { return };
                        tally.note("request", net::exchange(&mut stream, b"hello"));
                        tally.note("end", net::drain(&mut stream));
                    });
                });
            }
            stage.observe(2.0)
        },
    )
    .never(&["stale-connection", "late-data-after-close"])
    .shows(&[moved("TCPTimeWaitOverflow")]),
    Scenario::fault(
        "ephemeral-ports-exhausted",
        "ephemeral-ports-exhausted",
        "a client opens a connection per request until TIME_WAIT occupies every local port",
        "sysctl net.ipv4.ip_local_port_range='40000 40063'; ab -n 1000 http://10.77.0.2:8080/",
        |stage| ports(stage, false, false),
    )
    // No process is expected: a socket in TIME_WAIT has no owner.
    .never(&["upstream-refused", "peer-reset"])
    .shows(&[still("OutRsts"), moved("ActiveOpens")]),
    Scenario::fault(
        "ephemeral-ports-exhausted-ipv6",
        "ephemeral-ports-exhausted",
        "the same over IPv6",
        "as ephemeral-ports-exhausted, to [fd77::2]:8080",
        |stage| ports(stage, false, true),
    )
    .never(&["upstream-refused", "peer-reset"])
    .shows(&[still("OutRsts"), moved("ActiveOpens")]),
    Scenario::fault(
        "ephemeral-ports-exhausted-open",
        "ephemeral-ports-exhausted",
        "a client keeps its connections open until no local port is left",
        "sysctl net.ipv4.ip_local_port_range='40000 40063'; a program that leaks connections",
        |stage| ports(stage, true, false),
    )
    .process("api-client")
    .never(&["upstream-refused", "peer-reset"])
    .shows(&[still("OutRsts"), moved("ActiveOpens")]),
];

/// These two limits are one for the whole host up to Linux 6.18 (net/ipv4/sysctl_net_ipv4.c ipv4_table): the lab never
/// changes the host.
fn host_wide(stage: &mut Stage, sysctl: &str) -> Result<(), Stop> {
    let reason = if stage.here.has_sysctl(sysctl) {
        format!("{sysctl} exists per namespace on this kernel, which the lab does not know yet")
    } else {
        format!("{sysctl} is one limit for the whole host, which the lab never changes")
    };
    Err(Stop::Skip(reason))
}

fn ports(stage: &mut Stage, hold: bool, v6: bool) -> Result<(), Stop> {
    stage.here.sysctl("net.ipv4.ip_local_port_range", "40000 40063")?;
    let address = if v6 { CLIENT6 } else { CLIENT };
    serve_in(stage, &stage.client.clone(), address, Server::default())?;
    let talk = if hold {
        Talk::Connect { every_ms: 10, hold }
    } else {
        Talk::Request { bytes: 10, every_ms: 10, ending: Ending::Close }
    };
    call(stage, "api-client", vec![at(address, PORT)], talk)?;
    stage.observe(3.0)
}
