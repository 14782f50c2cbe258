//! A whole node: a fault in one of several network namespaces, each with a program of its own, is found there and nowhere else.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rustix::process::Signal;

use super::accept_queue::storm;
use super::common::{PORT, SERVICE, echo_server, good_traffic, serve_in};
use super::{NFT, Need, Scenario};
use crate::lab::arena::Namespace;
use crate::lab::net;
use crate::lab::program::{Accept, Server};
use crate::lab::stage::{CLIENT, SERVER, Stage, Stop, at};

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
    Scenario::fault(
        "wrong-bind-address-published",
        "wrong-bind-address",
        "a port of the host leads into a container by address translation, whose program listens on 127.0.0.1 there",
        "iptables -t nat -A PREROUTING -p tcp --dport 8080 -j DNAT --to CONTAINER; a server on 127.0.0.1:8080 in the container",
        |stage| {
            let container = stage.neighbour("eth1", 79)?;
            serve_in(stage, &container, LOCAL, Server::default())?;
            container.route_to(CLIENT, 32, HERE)?;
            // A namespace without a process is not looked at.
            serve_in(stage, &stage.client.clone(), LOCAL, Server::default())?;
            stage.here.sysctl("net.ipv4.ip_forward", 1)?;
            let rules = format!(
                "table ip lab {{ chain p {{ type nat hook prerouting priority -100\n tcp dport 80 dnat to {NEXT}:{PORT}\n }}\n}}\n"
            );
            stage.firewall(&stage.here, &rules)?;
            calls(stage, at(SERVER, 80));
            stage.observe_node(2.5)
        },
    )
    .port(PORT)
    .process("remote-server")
    .never(&["port-without-listener", "firewall-reject"])
    .namespaces(3)
    .felt(1)
    .needs(&[NFT, Need::ResetEvents]),
    Scenario::fault(
        "accept-queue-overflow-unanswered",
        "accept-queue-overflow",
        "connects from the host into a container get no answer: the accept queue there is full, and a full queue sends no reset",
        "a server as in accept-queue-overflow in a container, called from the host over the veth pair",
        |stage| {
            let container = stage.neighbour("eth1", 79)?;
            serve_in(stage, &container, NEXT, slow())?;
            storm(stage, &stage.here.clone(), NEXT);
            stage.observe_node(3.5)
        },
    )
    .port(PORT)
    .process("remote-server")
    .never(&["syn-flood", "accept-loop-stalled", "fd-exhaustion"])
    .namespaces(2)
    .felt(1),
    Scenario::healthy(
        "healthy-namespace-that-ends",
        "a container ends while one looks: that is said, and is no fault",
        "two containers with a server each, one of them is killed in the middle",
        |stage| {
            let (stays, ends) = (Namespace::create()?, Namespace::create()?);
            serve_in(stage, &stays, LOCAL, Server::default())?;
            good_traffic(stage, &stays, at(LOCAL, PORT), 50);
            let server = serve_in(stage, &ends, LOCAL, Server::default())?;
            stage.fault(&stage.here.clone(), move |window, _| {
                window.sleep(700);
                let _ = server.signal(Signal::KILL);
            });
            stage.observe_node(2.5)
        },
    )
    .namespaces(3)
    .gone(1),
];

/// The end of the veth pair at the host.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 79, 0, 1));

/// Connects from the client, all of which fail.
fn calls(stage: &mut Stage, to: SocketAddr) {
    let client = stage.client.clone();
    for _ in 0..2 {
        stage.fault(&client, move |window, tally| {
            window.every(40, || drop(tally.note("connect", net::connect(to))));
        });
    }
}

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
