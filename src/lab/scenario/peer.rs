//! Resets and bad segments that come from the other end, or pretend to.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::Duration;

use super::Scenario;
use super::common::{PORT, SERVICE, call, connections, echo_server, good_traffic, serve, serve_in};
use crate::lab::counters::{at_least, moved, still};
use crate::lab::net;
use crate::lab::program::{Ending, Server, Talk, Then};
use crate::lab::raw::{ACK, Flow, PSH, RST, SYN, Segment, Wire};
use crate::lab::stage::{CLIENT, CLIENT6, Stage, Stop, at};
use crate::lab::tally::Tally;

const TARGET: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 77, 0, 1), PORT);
const OURS: &[&str] = &["abortive-close", "close-with-unread-data", "late-data-after-close", "process-exit"];

pub static SCENARIOS: &[Scenario] = &[
    Scenario::fault(
        "peer-reset",
        "peer-reset",
        "clients reset while the server works on their request",
        "a server that takes 100 ms to answer; clients that abort (SO_LINGER 0) after 50 ms",
        |stage| {
            slow_answers(stage)?;
            for _ in 0..4 {
                stage.fault(&stage.client.clone(), |window, tally| window.every(20, || cancel(tally)));
            }
            stage.observe(2.0)
        },
    )
    .port(PORT)
    .never(OURS)
    .shows(&[moved("EstabResets"), still("OutRsts")]),
    Scenario::fault(
        "peer-reset-upstream",
        "peer-reset",
        "a service on another host resets the connections of a program of this host",
        "a remote server that aborts (SO_LINGER 0) after the request; a local client",
        |stage| upstream(stage, CLIENT),
    )
    // Which program it was is not known in softirq, unless it happens to be connected in one of the two sweeps.
    .port(PORT)
    .never(OURS)
    .shows(&[moved("EstabResets"), still("OutRsts")]),
    Scenario::fault(
        "peer-reset-upstream-ipv6",
        "peer-reset",
        "the same over IPv6",
        "as peer-reset-upstream, over IPv6",
        |stage| upstream(stage, CLIENT6),
    )
    .port(PORT)
    .never(OURS)
    .shows(&[moved("EstabResets"), still("OutRsts")]),
    Scenario::fault(
        "handshake-reset",
        "handshake-reset",
        "many sources answer the SYN-ACK with RST: a scan with half-open probes",
        "nmap -sS -p 8080 from many hosts (here: 50 probes a second from 200 addresses)",
        |stage| half_open_probes(stage, 20, 200),
    )
    .never(&["syn-flood", "syn-queue-overflow", "port-without-listener", "peer-reset"])
    .shows(&[at_least("EmbryonicRsts", 50), moved("AttemptFails"), still("OutRsts")]),
    Scenario::fault(
        "timestamp-rejected",
        "timestamp-rejected",
        "segments with timestamps of the past are dropped (PAWS): several clients behind one NAT address",
        "clients whose TCP timestamps go backwards",
        old_timestamps,
    )
    .never(&["peer-reset", "out-of-window-reset"])
    .shows(&[at_least("PAWSEstab", 10), still("OutRsts")]),
    Scenario::fault(
        "out-of-window-reset",
        "out-of-window-reset",
        "RSTs inside the window but not at its edge: somebody guesses (a blind reset attack)",
        "scapy: RST with seq = rcv_nxt + 1000 on established connections",
        |stage| forged(stage, Forgery { off_by: 1_000, ttl: 64, id: 0 }),
    )
    .never(&["peer-reset", "middlebox-reset"])
    .shows(&[at_least("TCPChallengeACK", 10), still("EstabResets")]),
    Scenario::fault(
        "out-of-window-reset-syn",
        "out-of-window-reset",
        "SYNs on established connections: clients that rebooted or reuse their ports",
        "a client that connects again from the same port after a crash",
        syn_on_established,
    )
    .never(&["middlebox-reset"])
    .shows(&[at_least("TCPSYNChallenge", 10), at_least("TCPChallengeACK", 10)]),
    Scenario::fault(
        "middlebox-reset",
        "middlebox-reset",
        "a device on the path resets connections in the client's name: another TTL gives it away",
        "scapy: RST with the exact sequence number and ttl=40 on established connections",
        |stage| forged(stage, Forgery { off_by: 0, ttl: 40, id: 0 }),
    )
    .never(OURS)
    .shows(&[at_least("EstabResets", 10), still("OutRsts")]),
    Scenario::fault(
        "middlebox-reset-ip-id",
        "middlebox-reset",
        "a device next to the client resets connections in its name: the TTL is the client's, the IP id is not",
        "scapy: RST with the exact sequence number, ttl=64 and random ids on established connections",
        |stage| forged(stage, Forgery { off_by: 0, ttl: 64, id: 20_011 }),
    )
    .port(PORT)
    .never(OURS)
    .shows(&[at_least("EstabResets", 10), still("OutRsts")]),
    Scenario::fault(
        "peer-reset-forgotten",
        "peer-reset",
        "clients that forgot their connections answer with RST: id 0, window 0, and yet it is the peer's",
        "a client that closes in TCP_REPAIR mode, silently; the server then sends",
        forgotten,
    )
    .port(PORT)
    .never(&["middlebox-reset", "process-exit", "abortive-close", "close-with-unread-data"])
    .shows(&[at_least("EstabResets", 10), still("OutRsts")]),
];

/// How a RST in the client's name differs from the client's own.
#[derive(Clone, Copy)]
struct Forgery {
    /// Bytes behind the next expected one.
    off_by: u32,
    ttl: u8,
    /// IP id of the first; 0 for all, as in an answer of Linux, or another for each.
    id: u16,
}

fn slow_answers(stage: &mut Stage) -> Result<(), Stop> {
    let then = Then::Answer { read: 4096, pause_ms: 100, write: 100, ending: Ending::Close };
    serve(stage, "web-server", Server { then, ..Server::default() })?;
    Ok(())
}

fn cancel(tally: &Tally) {
    let Some(mut stream) = tally.note("connect", net::connect(SERVICE)) else { return };
    if tally.note("request", stream.write_all(b"hello")).is_some() {
        thread::sleep(Duration::from_millis(50));
        tally.note("cancelled by the client", net::abort(stream));
    }
}

fn upstream(stage: &mut Stage, address: IpAddr) -> Result<(), Stop> {
    let then = Then::Answer { read: 4096, pause_ms: 10, write: 0, ending: Ending::Abort };
    serve_in(stage, &stage.client.clone(), address, Server { then, ..Server::default() })?;
    let talk = Talk::Request { bytes: 100, every_ms: 20, ending: Ending::Close };
    call(stage, "api-client", vec![at(address, PORT)], talk)?;
    stage.observe(2.0)
}

/// SYN, SYN-ACK, RST every `pause_ms`, from `sources` addresses that nobody owns, beside good traffic.
pub fn half_open_probes(stage: &mut Stage, pause_ms: u64, sources: u8) -> Result<(), Stop> {
    echo_server(stage, "web-server")?;
    route_to_forged(stage)?;
    good_traffic(stage, &stage.client.clone(), SERVICE, 50);
    stage.fault(&stage.client.clone(), move |window, tally| {
        let Some(wire) = tally.note("raw socket", Wire::open()) else { return };
        let mut number = 0_u16;
        window.every(pause_ms, || {
            number = number.wrapping_add(1);
            let source = (Ipv4Addr::new(10, 99, 0, (number % u16::from(sources)) as u8 + 1), 30_000 + number);
            let syn = Segment::syn(source, TARGET, 5_000);
            if tally.note("probe SYN", wire.send(&syn)).is_none() {
                return;
            }
            let answer = wire.receive(Duration::from_millis(200), |segment| {
                segment.flags & SYN != 0 && segment.destination_port == source.1
            });
            if answer.is_some() {
                let reset = Segment { flags: RST, seq: syn.next_seq(), ..syn };
                tally.note("probe ends with RST", wire.send(&reset));
            }
        });
    });
    stage.observe(2.5)
}

fn route_to_forged(stage: &Stage) -> Result<(), Stop> {
    Ok(stage.here.route_to(Ipv4Addr::new(10, 99, 0, 0).into(), 16, CLIENT)?)
}

fn old_timestamps(stage: &mut Stage) -> Result<(), Stop> {
    serve(stage, "web-server", Server::default())?;
    route_to_forged(stage)?;
    stage.fault(&stage.client.clone(), |window, tally| {
        let Some(wire) = tally.note("raw socket", Wire::open()) else { return };
        let flows: Vec<Flow> = (0..10_u16)
            .filter_map(|number| {
                let source = (Ipv4Addr::new(10, 99, 0, 1), 30_000 + number);
                tally.note("connect", wire.connect(source, TARGET, Some(1_000_000)))
            })
            .collect();
        window.every(100, || {
            for flow in &flows {
                let request = Segment { timestamps: Some((500_000, 0)), ..flow.segment(ACK | PSH, b"hello") };
                tally.note("request with an old timestamp sent, never answered", wire.send(&request));
            }
        });
    });
    stage.observe(2.0)
}

/// Twenty connections that ask every 50 ms, and somebody at the client's side who sends RSTs in their name.
fn forged(stage: &mut Stage, forgery: Forgery) -> Result<(), Stop> {
    echo_server(stage, "web-server")?;
    for stream in connections(&stage.client, SERVICE, 20)? {
        stage.fault(&stage.client.clone(), move |window, tally| {
            let mut stream = stream;
            while window.is_open() && tally.note("request", net::exchange(&mut stream, b"hello")).is_some() {
                window.sleep(50);
            }
        });
    }
    stage.fault(&stage.client.clone(), move |window, tally| {
        // With ids of its own it is told by what the connections did before.
        window.sleep(if forgery.id == 0 { 300 } else { 1_000 });
        let Some(wire) = tally.note("raw socket", Wire::open()) else { return };
        let mut id = forgery.id;
        window.every(40, || {
            wire.skip();
            let request = wire.receive(Duration::from_millis(100), |segment| {
                segment.destination_port == PORT && !segment.payload.is_empty()
            });
            let Some(request) = request else { return };
            let reset = Segment {
                flags: RST,
                seq: request.next_seq().wrapping_add(forgery.off_by),
                ttl: forgery.ttl,
                id,
                timestamps: None,
                payload: Vec::new(),
                ..request.clone()
            };
            if forgery.id != 0 {
                // Odd, so that it never becomes 0.
                id = id.wrapping_add(27_182);
            }
            if forgery.off_by == 0 {
                // A device in the middle resets both ends. The echo is as long as the request.
                let to_client = Segment {
                    source: request.destination,
                    destination: request.source,
                    source_port: request.destination_port,
                    destination_port: request.source_port,
                    seq: request.ack.wrapping_add(request.payload.len() as u32),
                    ..reset.clone()
                };
                window.sleep(5);
                tally.note("forged RST to the client", wire.send(&to_client));
            }
            tally.note("forged RST to the server", wire.send(&reset));
        });
    });
    stage.observe(if forgery.id == 0 { 2.0 } else { 3.0 })
}

/// Each client asks a few times, then forgets its connection; the answer to its last request meets nobody.
fn forgotten(stage: &mut Stage) -> Result<(), Stop> {
    let then = Then::Answer { read: 4096, pause_ms: 100, write: 100, ending: Ending::Close };
    serve(stage, "web-server", Server { then, ..Server::default() })?;
    for _ in 0..4 {
        stage.fault(&stage.client.clone(), |window, tally| {
            window.every(100, || {
                let Some(mut stream) = tally.note("connect", net::connect(SERVICE)) else { return };
                if tally.note("request", stream.write_all(b"hello")).is_some() {
                    thread::sleep(Duration::from_millis(20));
                    tally.note("forgotten by the client", net::forget(stream));
                }
            });
        });
    }
    stage.observe(2.0)
}

fn syn_on_established(stage: &mut Stage) -> Result<(), Stop> {
    echo_server(stage, "web-server")?;
    route_to_forged(stage)?;
    stage.fault(&stage.client.clone(), |window, tally| {
        let Some(wire) = tally.note("raw socket", Wire::open()) else { return };
        let mut number = 0_u16;
        window.every(40, || {
            number += 1;
            let source = (Ipv4Addr::new(10, 99, 0, 1), 30_000 + number);
            if tally.note("connect", wire.connect(source, TARGET, None)).is_none() {
                return;
            }
            // The rebooted client knows nothing of its old connection: SYN, and RST to the challenge ACK.
            let again = Segment::syn(source, TARGET, 77_000_000);
            let _ = wire.send(&again);
            let challenge = wire.receive(Duration::from_millis(200), |segment| {
                segment.destination_port == source.1 && segment.flags & SYN == 0
            });
            if let Some(challenge) = challenge {
                let reset = Segment { flags: RST, seq: challenge.ack, ..again };
                tally.note("challenge ACK answered with RST", wire.send(&reset));
            }
        });
    });
    stage.observe(2.0)
}
