//! A program of this host ends connections in a way that makes the kernel send a RST.

use std::io::Write;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use super::Need;
use super::Scenario;
use super::common::{PORT, SERVICE, answer_server, serve};
use crate::lab::counters::{moved, still};
use crate::lab::net;
use crate::lab::program::{Ending, Server, Then};
use crate::lab::stage::{SERVER6, Stage, Stop, at};
use crate::lab::tally::Tally;

pub static SCENARIOS: &[Scenario] = &[
    Scenario::fault(
        "close-with-unread-data",
        "close-with-unread-data",
        "the server answers and closes before it has read the whole request",
        "a server that reads 10 bytes, answers and closes; clients send 5,000 bytes",
        |stage| {
            answer_server(stage, "hasty-server", 10, 100, Ending::Close)?;
            clients(stage, SERVICE, |tally, to| one_request(tally, to, 5_000))
        },
    )
    .port(PORT)
    .process("hasty-server")
    .never(&["abortive-close", "late-data-after-close", "process-exit"])
    .shows(&[moved("TCPAbortOnClose"), still("TCPAbortOnData")]),
    Scenario::fault(
        "close-with-unread-data-ipv6",
        "close-with-unread-data",
        "the same over IPv6",
        "as close-with-unread-data, to [fd77::1]:8080",
        |stage| {
            let then = Then::Answer { read: 10, pause_ms: 5, write: 100, ending: Ending::Close };
            let server = Server { listen: vec![at(SERVER6, PORT)], then, ..Server::default() };
            serve(stage, "hasty-server", server)?;
            clients(stage, at(SERVER6, PORT), |tally, to| one_request(tally, to, 5_000))
        },
    )
    .port(PORT)
    .process("hasty-server")
    .never(&["abortive-close", "late-data-after-close"])
    .shows(&[moved("TCPAbortOnClose")]),
    Scenario::fault(
        "abortive-close",
        "abortive-close",
        "the server sets SO_LINGER to 0 and closes: RST instead of FIN",
        "setsockopt(SO_LINGER, {1, 0}); close()",
        |stage| {
            answer_server(stage, "abort-server", 4096, 100, Ending::Abort)?;
            clients(stage, SERVICE, |tally, to| one_request(tally, to, 100))
        },
    )
    .port(PORT)
    .process("abort-server")
    .never(&["close-with-unread-data", "late-data-after-close"])
    .shows(&[moved("TCPAbortOnData"), still("TCPAbortOnClose")]),
    Scenario::fault(
        "late-data-after-close",
        "late-data-after-close",
        "the server closed after its answer, the client sends again (the usual case: a FIN_WAIT2 mini-socket)",
        "a server that answers once and closes; clients that send a second request on the same connection",
        |stage| {
            answer_server(stage, "early-server", 4096, 100, Ending::Close)?;
            clients(stage, SERVICE, |tally, to| second_request(tally, to, 80))
        },
    )
    .port(PORT)
    .never(&["close-with-unread-data", "abortive-close", "peer-reset"])
    .shows(&[moved("OutRsts"), still("TCPAbortOnData"), still("TCPAbortOnClose")])
    .needs(&[Need::ResetEvents]),
    Scenario::fault(
        "late-data-after-close-ipv6",
        "late-data-after-close",
        "the same over IPv6",
        "as late-data-after-close, to [fd77::1]:8080",
        |stage| {
            let then = Then::Answer { read: 4096, pause_ms: 5, write: 100, ending: Ending::Close };
            let server = Server { listen: vec![at(SERVER6, PORT)], then, ..Server::default() };
            serve(stage, "early-server", server)?;
            clients(stage, at(SERVER6, PORT), |tally, to| second_request(tally, to, 80))
        },
    )
    .port(PORT)
    .never(&["close-with-unread-data", "abortive-close", "peer-reset"])
    .shows(&[moved("OutRsts"), still("TCPAbortOnData")])
    .needs(&[Need::ResetEvents]),
    Scenario::fault(
        "late-data-after-close-shutdown",
        "late-data-after-close",
        "the server only called shutdown(SHUT_RDWR): a full socket in FIN_WAIT2 meets the late data",
        "a server that answers, calls shutdown(fd, SHUT_RDWR) and keeps fd; clients send a second request",
        |stage| {
            answer_server(stage, "half-server", 4096, 100, Ending::ShutdownBoth)?;
            clients(stage, SERVICE, |tally, to| second_request(tally, to, 80))
        },
    )
    .port(PORT)
    .never(&["close-with-unread-data", "peer-reset"])
    .shows(&[moved("TCPAbortOnData"), still("TCPAbortOnClose")])
    .needs(&[Need::ResetEvents]),
    Scenario::fault(
        "late-data-after-close-fin-wait1",
        "late-data-after-close",
        "the second request comes before the client's kernel acknowledged the FIN (FIN_WAIT1)",
        "as late-data-after-close, with the second request 10 ms after the answer",
        |stage| {
            answer_server(stage, "early-server", 4096, 100, Ending::Close)?;
            // A delayed ACK (40 ms, net/ipv4/tcp_timer.c) keeps the server's socket in FIN_WAIT1 so long.
            clients(stage, SERVICE, |tally, to| second_request(tally, to, 10))
        },
    )
    .port(PORT)
    .never(&["close-with-unread-data", "peer-reset"])
    .shows(&[moved("TCPAbortOnData"), still("TCPAbortOnClose")])
    .needs(&[Need::ResetEvents]),
    Scenario::fault(
        "late-data-after-close-keepalive-race",
        "late-data-after-close",
        "the server's keep-alive limit (200 ms) is shorter than the client's: requests meet a closing connection",
        "a server with keepalive_timeout 200ms; a client whose pool keeps connections longer",
        |stage| {
            let then = Then::Echo { idle_ms: Some(200) };
            serve(stage, "pooled-server", Server { then, ..Server::default() })?;
            clients(stage, SERVICE, |tally, to| {
                let Some(mut stream) = tally.note("connect", net::connect(to)) else { return };
                tally.note("first request", net::exchange(&mut stream, b"hello"));
                thread::sleep(Duration::from_millis(100));
                tally.note("request in time", net::exchange(&mut stream, b"hello"));
                thread::sleep(Duration::from_millis(215));
                // A pool that does not look for the FIN first, as many do.
                tally.note("request after idle", net::exchange(&mut stream, b"hello"));
            })
        },
    )
    .port(PORT)
    .never(&["close-with-unread-data", "abortive-close", "peer-reset"])
    .shows(&[moved("OutRsts")])
    .needs(&[Need::ResetEvents]),
    Scenario::fault(
        "close-wait-leak",
        "close-wait-leak",
        "clients close, the server never does: sockets pile up in CLOSE_WAIT",
        "a server that reads to the end and forgets close(); clients come and go",
        |stage| {
            serve(stage, "leaky-server", Server { then: Then::Leak, ..Server::default() })?;
            clients(stage, SERVICE, |tally, to| {
                if let Some(mut stream) = tally.note("connect", net::connect(to)) {
                    tally.note("request", stream.write_all(b"hello"));
                }
            })
        },
    )
    .port(PORT)
    .process("leaky-server")
    .shows(&[still("OutRsts")]),
];

/// Four clients on another host repeat `work` for two seconds.
fn clients(stage: &mut Stage, to: SocketAddr, work: fn(&Tally, SocketAddr)) -> Result<(), Stop> {
    let client = stage.client.clone();
    for _ in 0..4 {
        stage.fault(&client, move |window, tally| window.every(30, || work(tally, to)));
    }
    stage.observe(2.0)
}

fn one_request(tally: &Tally, to: SocketAddr, bytes: usize) {
    let Some(mut stream) = tally.note("connect", net::connect(to)) else { return };
    if tally.note("request", stream.write_all(&vec![b'?'; bytes])).is_some() {
        // The reset follows the answer closely and may overtake it.
        thread::sleep(Duration::from_millis(20));
        tally.note("answer", net::drain(&mut stream));
    }
}

fn second_request(tally: &Tally, to: SocketAddr, pause_ms: u64) {
    let Some(mut stream) = tally.note("connect", net::connect(to)) else { return };
    tally.note("request", net::exchange(&mut stream, b"hello"));
    thread::sleep(Duration::from_millis(pause_ms));
    tally.note("second request", stream.write_all(b"hello again"));
    thread::sleep(Duration::from_millis(10));
    tally.note("read after it", net::receive(&mut stream));
    tally.note("third request", stream.write_all(b"hello again"));
}
