//! A whole node: a fault in one of several network namespaces, each with a program of its own, is found there and nowhere else.

use std::net::{IpAddr, Ipv4Addr};

use super::Scenario;
use super::accept_queue::storm;
use super::common::{PORT, SERVICE, echo_server, good_traffic, serve_in};
use crate::lab::arena::Namespace;
use crate::lab::program::{Accept, Server};
use crate::lab::stage::{Stage, Stop, at};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const NEXT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 79, 0, 2));

pub static SCENARIOS: &[Scenario] = &[
    Scenario::fault(
        "accept-queue-overflow-next-door",
        "accept-queue-overflow",
        "the slow server and its clients are in another network namespace than the one who looks",
        "a server as in accept-queue-overflow in a container, and its clients; good traffic to a server of the host",
        |stage| {
            let next = stage.neighbour("eth1", 79)?;
            serve_in(stage, &next, NEXT, slow())?;
            echo_server(stage, "web-server")?;
            good_traffic(stage, &stage.client.clone(), SERVICE, 20);
            storm(stage, &next, NEXT);
            stage.observe_node(2.5)
        },
    )
    .port(PORT)
    .process("remote-server")
    .never(&["syn-flood", "accept-loop-stalled", "fd-exhaustion"])
    .namespaces(2),
    Scenario::fault(
        "accept-queue-overflow-among-twenty",
        "accept-queue-overflow",
        "one of twenty network namespaces has a slow server, the others have the same service and are well",
        "twenty containers with a server each, one of them as in accept-queue-overflow",
        |stage| {
            let all = twenty(stage, 7)?;
            for (number, place) in all.iter().enumerate() {
                match number {
                    7 => storm(stage, place, LOCAL),
                    _ => good_traffic(stage, place, at(LOCAL, PORT), 100),
                }
            }
            stage.observe_node(2.5)
        },
    )
    .port(PORT)
    .process("remote-server")
    .never(&["syn-flood", "accept-loop-stalled", "fd-exhaustion"])
    .namespaces(21),
    Scenario::healthy(
        "healthy-twenty-namespaces",
        "twenty network namespaces with a server and a client each: nothing is wrong in any",
        "twenty containers with a server each, asked over 127.0.0.1",
        |stage| {
            let all = twenty(stage, usize::MAX)?;
            for place in &all {
                good_traffic(stage, place, at(LOCAL, PORT), 50);
            }
            stage.observe_node(2.0)
        },
    )
    .namespaces(21),
];

/// Ten connections a second.
fn slow() -> Server {
    Server { backlog: 16, accept: Accept::Every(100), ..Server::default() }
}

/// Namespaces with a server on 127.0.0.1 each, which all have the same port. One of them is slow.
fn twenty(stage: &mut Stage, slow_one: usize) -> Result<Vec<Namespace>, Stop> {
    let mut all = Vec::new();
    for number in 0..20 {
        let place = Namespace::create()?;
        let server = if number == slow_one { slow() } else { Server::default() };
        serve_in(stage, &place, LOCAL, server)?;
        all.push(place);
    }
    Ok(all)
}
