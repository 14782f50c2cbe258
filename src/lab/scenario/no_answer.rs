//! A server reads what it is asked and closes in order, without a word: no RST is sent.

use std::io::Write;
use std::net::SocketAddr;

use super::Scenario;
use super::common::{PORT, SERVICE, echo_server, good_traffic, serve, serve_in};
use crate::lab::counters::{at_least, moved, still};
use crate::lab::net;
use crate::lab::program::{Ending, Server, Then};
use crate::lab::stage::{CLIENT, SERVER, at};
use crate::lab::tally::Tally;

const SMALL: SocketAddr = SocketAddr::new(SERVER, 9000);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n";
const OTHERS: &[&str] = &["client-gave-up", "connection-limit", "process-exit", "close-with-unread-data"];

pub static SCENARIOS: &[Scenario] = &[
    Scenario::fault(
        "closed-without-answer",
        "closed-without-answer",
        "a small service ends every request with a bare close, beside a busy one that is well",
        "nginx with `return 444` on port 9000; curl http://10.77.0.1:9000/ every 500 ms; many requests to another service",
        |stage| {
            echo_server(stage, "busy-server")?;
            serve(stage, "mute-server", Server { listen: vec![SMALL], then: mute(5), ..Server::default() })?;
            let client = stage.client.clone();
            good_traffic(stage, &client, SERVICE, 5);
            stage.fault(&client, |window, tally| window.every(500, || in_vain(tally, SMALL)));
            stage.observe(3.0)
        },
    )
    .port(SMALL.port())
    .process("mute-server")
    .never(OTHERS)
    .shows(&[still("OutRsts"), at_least("PassiveOpens", 50)]),
    Scenario::fault(
        "closed-without-answer-caller",
        "closed-without-answer",
        "a service on another host ends every request of this one with a bare close",
        "nginx with `return 444` on 10.77.0.2:8080; curl http://10.77.0.2:8080/ every 300 ms",
        |stage| {
            serve_in(stage, &stage.client.clone(), CLIENT, Server { then: mute(5), ..Server::default() })?;
            stage.fault(&stage.here.clone(), |window, tally| window.every(300, || in_vain(tally, at(CLIENT, PORT))));
            stage.observe(3.0)
        },
    )
    .port(PORT)
    .never(OTHERS)
    .shows(&[still("OutRsts"), moved("ActiveOpens")]),
    Scenario::healthy(
        "healthy-log-collector",
        "programs of another host send lines to a collector here and close; it never says anything",
        "nc -N 10.77.0.1 8080 < lines, again and again; the collector closes a moment later",
        |stage| {
            serve(stage, "collector", Server { then: mute(30), ..Server::default() })?;
            stage.fault(&stage.client.clone(), |window, tally| {
                window.every(50, || {
                    if let Some(mut stream) = tally.note("connect", net::connect(SERVICE)) {
                        tally.note("lines", stream.write_all(b"one line\nand another\n"));
                    }
                });
            });
            stage.observe(3.0)
        },
    )
    .shows(&[moved("PassiveOpens"), still("OutRsts")]),
];

/// It reads, and closes after a pause.
fn mute(pause_ms: u64) -> Then {
    Then::Answer { read: 4096, pause_ms, write: 0, ending: Ending::Close }
}

fn in_vain(tally: &Tally, to: SocketAddr) {
    let Some(mut stream) = tally.note("connect", net::connect(to)) else { return };
    tally.note("request", stream.write_all(REQUEST));
    tally.note("answer or end", net::drain(&mut stream));
}
