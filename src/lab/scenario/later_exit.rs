//! A program ends its connections itself, and itself ends later in the window with none open: its exit sent no RST.

use super::common::{PORT, serve_in};
use super::{Need, Scenario};
use crate::lab::counters::moved;
use crate::lab::program::{Client, Ending, Program, Server, Talk};
use crate::lab::stage::{CLIENT, Stage, Stop, at};
use crate::reset::Kind;

const EXITS: &[&str] = &["process-exit", "listener-closed"];

pub static SCENARIOS: &[Scenario] = &[
    Scenario::fault(
        "close-with-unread-data-exits-later",
        "close-with-unread-data",
        "a program closes with unread answers, one connection after the other, and exits later with none open",
        "a job that reads half of each answer and closes; it ends after its last one, before the window does",
        |stage| job(stage, 9_000, Ending::Retire(20)),
    )
    .process("batch-job")
    .never(EXITS)
    .sends(&[Kind::UnreadData])
    .shows(&[moved("TCPAbortOnClose")])
    .needs(&[Need::ResetEvents]),
    Scenario::fault(
        "abortive-close-exits-later",
        "abortive-close",
        "a program aborts each of its connections (SO_LINGER 0) and exits later with none open",
        "a job that sends, gets its answer, closes with SO_LINGER 0, and ends before the window does",
        |stage| job(stage, 100, Ending::Abort),
    )
    .process("batch-job")
    .never(EXITS)
    .sends(&[Kind::Aborted])
    .shows(&[moved("TCPAbortOnData")])
    .needs(&[Need::ResetEvents]),
];

/// A client program that works for a second and a half and exits half a second later.
fn job(stage: &mut Stage, bytes: usize, ending: Ending) -> Result<(), Stop> {
    serve_in(stage, &stage.client.clone(), CLIENT, Server::default())?;
    let talk = Talk::Request { bytes, every_ms: 20, ending };
    let program = Program::Client(Client { to: vec![at(CLIENT, PORT)], from: None, talk });
    let job = stage.spawn("batch-job", &program)?;
    stage.fault(&stage.here.clone(), move |window, _| {
        let _ = job.tell("go");
        window.sleep(1500);
        let _ = job.tell("stop");
        window.sleep(500);
        let _ = job.tell("exit");
    });
    stage.observe(2.6)
}
