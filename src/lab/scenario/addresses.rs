//! Addresses that the host has without an interface having had them when the observation began.

use std::net::{IpAddr, Ipv4Addr};

use super::common::{PORT, echo_server, good_traffic};
use super::{Need, Scenario};
use crate::lab::counters::{at_least, still};
use crate::lab::net;
use crate::lab::stage::{SERVER, Stage, Stop, at};
use crate::reset::Kind;

const CLOSED: u16 = 9200;
/// Comes up in the window.
const VIRTUAL: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 100));
/// One of a network that is local as a whole (TEST-NET-1, RFC 5737).
const ANY_OF_MANY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 55));
const MANY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 0));

pub static SCENARIOS: &[Scenario] = &[
    Scenario::fault(
        "port-without-listener-new-address",
        "port-without-listener",
        "a virtual address comes up during the window; nothing listens on the port that its clients call",
        "ip addr add 10.77.0.100/24 dev eth0, as a failover does; curl http://10.77.0.100:9200/",
        |stage| {
            let here = stage.here.clone();
            stage.fault(&stage.client.clone(), move |window, tally| {
                window.sleep(700);
                tally.note("address comes up", here.add_address("eth0", VIRTUAL));
                window.every(5, || drop(tally.note("connect", net::connect(at(VIRTUAL, CLOSED)))));
            });
            beside_good_traffic(stage)
        },
    )
    .port(CLOSED)
    .never(&["firewall-reject", "stale-connection", "port-scan", "listener-closed"])
    .sends(&[Kind::Refused])
    .shows(&[at_least("OutRsts", 50), still("ListenDrops")])
    .needs(&[Need::ResetEvents]),
    Scenario::fault(
        "port-without-listener-local-route",
        "port-without-listener",
        "a whole network is local by a route (AnyIP); nothing listens on the port that its clients call",
        "ip route add local 192.0.2.0/24 dev lo; curl http://192.0.2.55:9200/",
        |stage| {
            stage.here.local_route("lo", MANY, 24)?;
            stage.client.route_to(MANY, 24, SERVER)?;
            stage.fault(&stage.client.clone(), move |window, tally| {
                window.every(5, || drop(tally.note("connect", net::connect(at(ANY_OF_MANY, CLOSED)))));
            });
            beside_good_traffic(stage)
        },
    )
    .port(CLOSED)
    .never(&["firewall-reject", "stale-connection", "port-scan", "listener-closed"])
    .sends(&[Kind::Refused])
    .shows(&[at_least("OutRsts", 50), still("ListenDrops")])
    .needs(&[Need::ResetEvents]),
];

fn beside_good_traffic(stage: &mut Stage) -> Result<(), Stop> {
    echo_server(stage, "web-server")?;
    good_traffic(stage, &stage.client.clone(), at(SERVER, PORT), 50);
    stage.observe(2.4)
}
