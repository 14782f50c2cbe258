//! Two RSTs of one connection within microseconds: a program's abort, and the kernel's answer to what the peer had sent before it
//! knew. No rule of a firewall and no closed port takes part.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::common::{PORT, serve};
use super::{Need, Scenario};
use crate::lab::counters::{at_least, still};
use crate::lab::program::{Client, Ending, Program, Server, Talk, Then};
use crate::lab::stage::{Stage, Stop, at};
use crate::reset::Kind;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LISTENER: SocketAddr = SocketAddr::new(HERE, PORT);
/// What a swapped event and packet would be called.
const NOBODY_DID: &[&str] =
    &["firewall-reject", "port-without-listener", "port-scan", "process-exit", "listener-closed"];
/// Processes that abort at the same time.
const PROCESSES: usize = 6;

pub static SCENARIOS: &[Scenario] = &[
    Scenario::healthy(
        "healthy-two-resets",
        "both ends of a connection end it at the same moment, by close and by abort: two RSTs of one connection",
        "a server that accepts and closes; 6 clients that connect and close with SO_LINGER 0 hundreds of times a second each",
        |stage| {
            serve(stage, "closer", Server { listen: vec![LISTENER], then: Then::Close, ..Server::default() })?;
            abort(stage, 0)
        },
    )
    .never(NOBODY_DID)
    .sends(&[Kind::Aborted, Kind::Repeated, Kind::Stale])
    .shows(&[at_least("OutRsts", 500), still("TCPAbortOnClose")])
    .needs(&[Need::ResetEvents]),
    Scenario::fault(
        "close-with-unread-data-on-the-way",
        "close-with-unread-data",
        "clients abort while their answers are on the way: the RST of the close, then one for what came meanwhile",
        "a server that answers 500,000 bytes; 6 clients that read a little and close with SO_LINGER 0",
        |stage| {
            let then = Then::Answer { read: 4096, pause_ms: 0, write: 500_000, ending: Ending::Close };
            serve(stage, "big-server", Server { listen: vec![LISTENER], then, ..Server::default() })?;
            abort(stage, 100)
        },
    )
    .process("aborter")
    .never(NOBODY_DID)
    .sends(&[Kind::UnreadData, Kind::Aborted, Kind::Repeated, Kind::Stale])
    .shows(&[at_least("OutRsts", 200), at_least("TCPAbortOnClose", 100)])
    .needs(&[Need::ResetEvents]),
];

/// Programs of the observed host that do nothing but abort, for two seconds.
fn abort(stage: &mut Stage, bytes: usize) -> Result<(), Stop> {
    let client = Client { to: vec![at(HERE, PORT)], from: None, talk: Talk::Abort { bytes, within_us: 100 } };
    let program = Program::Client(client);
    let aborters = (0..PROCESSES).map(|_| stage.spawn("aborter", &program)).collect::<Result<Vec<_>, _>>()?;
    stage.fault(&stage.here.clone(), move |window, _| {
        for aborter in &aborters {
            let _ = aborter.tell("go");
        }
        window.sleep(60_000);
        for aborter in &aborters {
            let _ = aborter.tell("stop");
        }
    });
    stage.observe(2.0)
}
