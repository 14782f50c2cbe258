//! Connections that are refused: nothing listens, or not there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Need;
use super::Scenario;
use super::common::{PORT, call, echo_server, good_traffic, serve};
use crate::lab::counters::{moved, still};
use crate::lab::net;
use crate::lab::program::{Server, Talk};
use crate::lab::stage::{CLIENT, CLIENT6, SERVER, SERVER6, Stage, Stop, at};

const CLOSED: u16 = 9200;
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

pub static SCENARIOS: &[Scenario] = &[
    Scenario::fault(
        "port-without-listener",
        "port-without-listener",
        "clients connect to a port that nothing listens on",
        "curl http://10.77.0.1:9200/ with no server there",
        |stage| nothing_there(stage, SERVER),
    )
    .port(CLOSED)
    .never(&["listener-closed", "stale-connection", "port-scan"])
    .shows(&[moved("OutRsts"), still("ListenDrops")]),
    Scenario::fault(
        "port-without-listener-ipv6",
        "port-without-listener",
        "the same over IPv6",
        "curl http://[fd77::1]:9200/ with no server there",
        |stage| nothing_there(stage, SERVER6),
    )
    .port(CLOSED)
    .never(&["listener-closed", "stale-connection", "port-scan"])
    .shows(&[moved("OutRsts")]),
    Scenario::fault(
        "wrong-bind-address",
        "wrong-bind-address",
        "the server listens on 127.0.0.1 only, clients come from another host",
        "a server bound to 127.0.0.1:9201; curl http://10.77.0.1:9201/ from another host",
        |stage| wrong_bind(stage, at(LOCAL, 9201), at(SERVER, 9201)),
    )
    .port(9201)
    .process("local-server")
    .never(&["listener-closed", "stale-connection"])
    .shows(&[moved("OutRsts")])
    .needs(&[Need::ResetEvents]),
    Scenario::fault(
        "wrong-bind-address-family",
        "wrong-bind-address",
        "the server listens on 0.0.0.0 only, clients come over IPv6",
        "a server bound to 0.0.0.0:9201; curl http://[fd77::1]:9201/ from another host",
        |stage| wrong_bind(stage, at(ANY, 9201), at(SERVER6, 9201)),
    )
    .port(9201)
    .process("local-server")
    .never(&["listener-closed", "stale-connection"])
    .shows(&[moved("OutRsts")])
    .needs(&[Need::ResetEvents]),
    Scenario::fault(
        "upstream-refused",
        "upstream-refused",
        "a program of this host calls a service on another host that is down",
        "curl http://10.77.0.2:5432/ where nothing listens",
        |stage| upstream(stage, CLIENT),
    )
    // A refused connect is over before anyone can look at its socket: the program is not known.
    .port(5432)
    .never(&["port-without-listener", "peer-reset"])
    .shows(&[moved("AttemptFails"), still("OutRsts"), still("EmbryonicRsts")]),
    Scenario::fault(
        "upstream-refused-ipv6",
        "upstream-refused",
        "the same over IPv6",
        "curl http://[fd77::2]:5432/ where nothing listens",
        |stage| upstream(stage, CLIENT6),
    )
    .port(5432)
    .never(&["port-without-listener", "peer-reset"])
    .shows(&[moved("AttemptFails"), still("OutRsts")]),
];

fn knock(stage: &mut Stage, to: SocketAddr) -> Result<(), Stop> {
    let client = stage.client.clone();
    for _ in 0..4 {
        stage.fault(&client, move |window, tally| {
            window.every(40, || drop(tally.note("connect", net::connect(to))));
        });
    }
    good_traffic(stage, &client, at(SERVER, PORT), 100);
    stage.observe(2.0)
}

fn nothing_there(stage: &mut Stage, address: IpAddr) -> Result<(), Stop> {
    echo_server(stage, "other-server")?;
    knock(stage, at(address, CLOSED))
}

fn wrong_bind(stage: &mut Stage, bound: SocketAddr, to: SocketAddr) -> Result<(), Stop> {
    echo_server(stage, "other-server")?;
    serve(stage, "local-server", Server { listen: vec![bound], ..Server::default() })?;
    knock(stage, to)
}

fn upstream(stage: &mut Stage, address: IpAddr) -> Result<(), Stop> {
    call(stage, "api-client", vec![at(address, 5432)], Talk::Connect { every_ms: 20, hold: false })?;
    stage.observe(2.0)
}

/// Loopback addresses, for scenarios in which caller and service share the host.
pub const LOOPBACK: [IpAddr; 2] = [LOCAL, IpAddr::V6(Ipv6Addr::LOCALHOST)];
