//! Several faults at once, and rare faults in heavy healthy traffic: each is found, with its own share, and no further one.

use std::io::Write;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use super::common::{PORT, SERVICE, answer_server, call, echo_server, good_traffic, serve};
use super::{Need, Scenario};
use crate::lab::counters::moved;
use crate::lab::net;
use crate::lab::program::{Ending, Server, Talk, Then};
use crate::lab::stage::{CLIENT, SERVER, Stage, Stop, at};
use crate::lab::tally::Tally;

const HASTY: SocketAddr = SocketAddr::new(SERVER, 9300);
const CLOSED: SocketAddr = SocketAddr::new(SERVER, 9200);

pub static SCENARIOS: &[Scenario] = &[
    Scenario::fault(
        "abortive-close-and-refused-port",
        "abortive-close",
        "one server aborts its connections, and clients call a port on which nothing listens",
        "as abortive-close and port-without-listener at the same time",
        |stage| {
            answer_server(stage, "abort-server", 4096, 100, Ending::Abort)?;
            often(stage, SERVICE, 25, |tally, to| ask(tally, to, 100));
            often(stage, CLOSED, 100, knock);
            stage.observe(2.5)
        },
    )
    .port(PORT)
    .process("abort-server")
    .and(&["port-without-listener"])
    .shows(&[moved("TCPAbortOnData"), moved("OutRsts")])
    .needs(&[Need::ResetEvents]),
    Scenario::fault(
        "abortive-close-and-unread-data-and-dead-backend",
        "abortive-close",
        "three programs, three faults: one aborts, one closes with unread data, one calls a dead backend",
        "as abortive-close, close-with-unread-data and upstream-refused at the same time",
        |stage| {
            answer_server(stage, "abort-server", 4096, 100, Ending::Abort)?;
            hasty_server(stage)?;
            call(stage, "api-client", vec![at(CLIENT, 5432)], Talk::Connect { every_ms: 100, hold: false })?;
            often(stage, SERVICE, 15, |tally, to| ask(tally, to, 100));
            often(stage, HASTY, 60, |tally, to| ask(tally, to, 5_000));
            stage.observe(2.5)
        },
    )
    .port(PORT)
    .process("abort-server")
    .and(&["close-with-unread-data", "upstream-refused"])
    .shows(&[moved("TCPAbortOnData"), moved("TCPAbortOnClose"), moved("AttemptFails")])
    .needs(&[Need::ResetEvents]),
    Scenario::fault(
        "close-with-unread-data-small-service",
        "close-with-unread-data",
        "a small service loses every request, beside a busy one that is well",
        "a request a second to a server that closes too early; hundreds a second to another one",
        |stage| {
            echo_server(stage, "busy-server")?;
            hasty_server(stage)?;
            busy(stage);
            often(stage, HASTY, 700, |tally, to| ask(tally, to, 5_000));
            stage.observe(3.0)
        },
    )
    .port(HASTY.port())
    .process("hasty-server")
    .shows(&[moved("TCPAbortOnClose")])
    .needs(&[Need::ResetEvents]),
    Scenario::healthy(
        "healthy-one-in-a-thousand",
        "of a busy service a handful of requests is reset",
        "a few of thousands of requests to one server carry more than it reads",
        |stage| {
            // Reads what is asked, answers, closes: only those that send more than that are reset.
            let then = Then::Answer { read: 4096, pause_ms: 0, write: 100, ending: Ending::Close };
            serve(stage, "busy-server", Server { then, ..Server::default() })?;
            for _ in 0..4 {
                often(stage, SERVICE, 2, |tally, to| ask(tally, to, 100));
            }
            often(stage, SERVICE, 1_200, |tally, to| ask(tally, to, 20_000));
            stage.observe(3.0)
        },
    )
    .shows(&[moved("TCPAbortOnClose")]),
];

fn hasty_server(stage: &mut Stage) -> Result<(), Stop> {
    let then = Then::Answer { read: 10, pause_ms: 5, write: 100, ending: Ending::Close };
    serve(stage, "hasty-server", Server { listen: vec![HASTY], then, ..Server::default() }).map(drop)
}

/// Four clients with hundreds of good requests a second.
fn busy(stage: &mut Stage) {
    let client = stage.client.clone();
    (0..4).for_each(|_| good_traffic(stage, &client, SERVICE, 5));
}

/// A client on the other host repeats `work` with a pause between.
fn often(stage: &mut Stage, to: SocketAddr, pause_ms: u64, work: fn(&Tally, SocketAddr)) {
    let client = stage.client.clone();
    stage.fault(&client, move |window, tally| window.every(pause_ms, || work(tally, to)));
}

fn knock(tally: &Tally, to: SocketAddr) {
    drop(tally.note("connect", net::connect(to)));
}

fn ask(tally: &Tally, to: SocketAddr, bytes: usize) {
    let Some(mut stream) = tally.note("connect", net::connect(to)) else { return };
    if tally.note("request", stream.write_all(&vec![b'?'; bytes])).is_some() {
        // The reset follows the answer closely and may overtake it.
        thread::sleep(Duration::from_millis(if bytes > 1_000 { 20 } else { 0 }));
        tally.note("answer", net::drain(&mut stream));
    }
}
