//! What happens in other network namespaces of the same kernel, whose tracepoints report them all: it is not this host's.

use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use super::common::{PORT, SERVICE, echo_server, good_traffic, serve, serve_in};
use super::{Need, Scenario};
use crate::lab::arena::Namespace;
use crate::lab::counters::{at_least, moved, still};
use crate::lab::program::Server;
use crate::lab::raw::{ACK, Segment, Wire};
use crate::lab::stage::{CLIENT, LOST_RECORDS, SERVER, Stage, Stop, at};
use crate::reset::Kind;

const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const CLOSED: u16 = 9200;
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub static SCENARIOS: &[Scenario] = &[
    Scenario::fault(
        "stale-connection-wildcard",
        "stale-connection",
        "segments of forgotten connections meet a listener on 0.0.0.0, while another namespace is busy",
        "a server on 0.0.0.0:8080; ACKs for connections that it does not know; busy programs in another namespace",
        |stage| {
            serve(stage, "any-server", Server { listen: vec![at(ANY, PORT)], ..Server::default() })?;
            strays(stage, &stage.client.clone(), CLIENT, SERVER);
            let busy = Namespace::create()?;
            serve_in(stage, &busy, LOCAL, Server::default())?;
            for _ in 0..2 {
                good_traffic(stage, &busy, at(LOCAL, PORT), 1);
            }
            good_traffic(stage, &stage.client.clone(), SERVICE, 20);
            stage.observe(2.0)
        },
    )
    .port(PORT)
    .process("any-server")
    .never(&["firewall-reject", "port-without-listener", "listener-closed"])
    .sends(&[Kind::Stale])
    .shows(&[at_least("OutRsts", 15), still("TCPAbortOnClose")])
    .needs(&[Need::ResetEvents]),
    Scenario::healthy(
        "healthy-neighbour-of-stale",
        "the same in another namespace, beside a busy server here: that host's resets are not this one's",
        "ACKs for unknown connections at a server on 0.0.0.0 in another namespace; good traffic in the observed one",
        |stage| {
            let server = stage.neighbour("eth1", 79)?;
            let here = Ipv4Addr::new(10, 79, 0, 1).into();
            serve_in(stage, &server, ANY, Server::default())?;
            strays(stage, &stage.here.clone(), here, Ipv4Addr::new(10, 79, 0, 2).into());
            echo_server(stage, "web-server")?;
            for _ in 0..2 {
                good_traffic(stage, &stage.client.clone(), SERVICE, 1);
            }
            stage.observe(2.0)
        },
    )
    .sends(&[])
    .shows(&[still("OutRsts"), moved("PassiveOpens")])
    .needs(&[Need::ResetEvents]),
    Scenario::healthy(
        "healthy-neighbour-of-storm",
        "a storm in another namespace, of which the kernel loses records: none of them are this host's",
        "thousands of refused connects a second in another namespace, while the observer gets no CPU; quiet here",
        |stage| {
            let storm = Namespace::create()?;
            for _ in 0..4 {
                stage.fault(&storm, |_, tally| {
                    let mut connects = 0;
                    let end = Instant::now() + Duration::from_secs(3);
                    while Instant::now() < end {
                        let _ = TcpStream::connect(at(LOCAL, CLOSED));
                        connects += 1;
                    }
                    tally.add("connect of the storm", connects);
                });
            }
            echo_server(stage, "web-server")?;
            good_traffic(stage, &stage.client.clone(), SERVICE, 100);
            stage.observe_stalled(3.5, 3.2)?;
            match stage.movement().get(LOST_RECORDS) {
                0 => Err(Stop::Skip("this machine is too slow for the kernel to lose records".to_owned())),
                _ => Ok(()),
            }
        },
    )
    .sends(&[])
    .shows(&[still("OutRsts")])
    .needs(&[Need::ResetEvents]),
];

/// Twenty times a second an ACK of a connection that the server does not know, from a namespace that owns the source address.
fn strays(stage: &mut Stage, place: &Namespace, from: IpAddr, to: IpAddr) {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else { return };
    stage.fault(place, move |window, tally| {
        let Some(wire) = tally.note("open a raw socket", Wire::open()) else { return };
        let mut port = 20_000;
        window.every(50, || {
            port += 1;
            let stray = Segment { flags: ACK, ack: 2000, ..Segment::syn((from, port), (to, PORT), 1000) };
            tally.note("stray segment", wire.send(&stray));
        });
    });
}
