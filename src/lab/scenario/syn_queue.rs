//! More half-open connections than the SYN queue holds: honest clients far away, or a flood.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use super::Scenario;
use super::common::{PORT, good_traffic, serve};
use crate::lab::counters::{moved, still};
use crate::lab::program::{Server, Then};
use crate::lab::raw::{ACK, SYN, Segment, Wire};
use crate::lab::stage::{CLIENT, SERVER, Stage, Stop, Window, at};
use crate::lab::tally::Tally;

/// Sources that nobody owns; the observed host routes them to the client's host, which drops them.
const SPOOFED: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 0));
const TARGET: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 77, 0, 1), PORT);

pub static SCENARIOS: &[Scenario] = &[
    Scenario::fault(
        "syn-queue-overflow-cookies",
        "syn-queue-overflow",
        "honest clients 300 ms away fill a SYN queue of 16; SYN cookies save them",
        "a server with listen(fd, 16); clients with a round trip of 300 ms open 250 connections a second",
        |stage| distant_clients(stage, 1),
    )
    .port(PORT)
    .process("small-server")
    .never(&["syn-flood", "accept-queue-overflow"])
    .shows(&[moved("TCPReqQFullDoCookies"), moved("SyncookiesRecv"), still("ListenOverflows")]),
    Scenario::fault(
        "syn-queue-overflow-no-cookies",
        "syn-queue-overflow",
        "the same without SYN cookies: connections are lost",
        "sysctl net.ipv4.tcp_syncookies=0; then as syn-queue-overflow-cookies",
        |stage| distant_clients(stage, 0),
    )
    .port(PORT)
    .process("small-server")
    .never(&["syn-flood", "accept-queue-overflow"])
    .shows(&[moved("TCPReqQFullDrop"), still("ListenOverflows")]),
    Scenario::fault(
        "syn-queue-overflow-max-syn-backlog",
        "syn-queue-overflow",
        "without SYN cookies tcp_max_syn_backlog binds before the listener's backlog does",
        "sysctl net.ipv4.tcp_syncookies=0 net.ipv4.tcp_max_syn_backlog=12; then as syn-queue-overflow-cookies",
        |stage| {
            stage.here.sysctl("net.ipv4.tcp_max_syn_backlog", 12)?;
            distant_clients(stage, 0)
        },
    )
    .port(PORT)
    .process("small-server")
    .never(&["syn-flood", "accept-queue-overflow"])
    // Three quarters of tcp_max_syn_backlog are open to clients unknown so far (net/ipv4/tcp_input.c
    // tcp_conn_request); what is lost there counts as ListenDrops only, seen on 6.18.
    .shows(&[moved("ListenDrops"), still("TCPReqQFullDrop"), still("ListenOverflows")]),
    Scenario::fault(
        "syn-flood-cookies",
        "syn-flood",
        "SYNs from random sources, no handshake completes; SYN cookies answer",
        "hping3 --flood --rand-source -S -p 8080 10.77.0.1 (here: in a closed network)",
        |stage| flood(stage, 1),
    )
    .port(PORT)
    .never(&["syn-queue-overflow", "accept-queue-overflow"])
    .shows(&[moved("TCPReqQFullDoCookies"), moved("SyncookiesSent")]),
    Scenario::fault(
        "syn-flood-no-cookies",
        "syn-flood",
        "the same without SYN cookies: honest clients are shut out",
        "sysctl net.ipv4.tcp_syncookies=0; then as syn-flood-cookies",
        |stage| flood(stage, 0),
    )
    .port(PORT)
    .never(&["syn-queue-overflow", "accept-queue-overflow"])
    .shows(&[moved("TCPReqQFullDrop")]),
];

fn setup(stage: &mut Stage, cookies: u8) -> Result<(), Stop> {
    stage.here.sysctl("net.ipv4.tcp_syncookies", cookies)?;
    stage.here.route_to(SPOOFED, 16, CLIENT)?;
    Ok(())
}

/// One host plays many clients: each completes its handshake 300 ms after the SYN-ACK came.
fn distant_clients(stage: &mut Stage, cookies: u8) -> Result<(), Stop> {
    setup(stage, cookies)?;
    let client = stage.client.clone();
    // The accept queue must not be the limit: it holds as many as the SYN queue, so accept at once.
    serve(stage, "small-server", Server { backlog: 16, then: Then::Hold, ..Server::default() })?;
    stage.fault(&client, |window, tally| match Wire::open() {
        Ok(wire) => distant(&wire, window, tally),
        Err(error) => tally.add(format!("no raw socket: {error}"), 1),
    });
    stage.observe(3.0)
}

fn distant(wire: &Wire, window: &Window, tally: &Tally) {
    let mut pending: VecDeque<(Instant, Segment)> = VecDeque::new();
    let mut number = 0_u16;
    let mut next = Instant::now();
    while window.is_open() {
        if Instant::now() >= next {
            next += Duration::from_millis(4);
            number = number.wrapping_add(1);
            let [high, low] = (number % 2000).to_be_bytes();
            let source = (Ipv4Addr::new(10, 99, high, low), 20_000 + number);
            if wire.send(&Segment::syn(source, TARGET, 1_000)).is_ok() {
                tally.add("SYN sent by a distant client", 1);
            }
        }
        let due = pending.front().is_some_and(|(due, _)| *due <= Instant::now());
        if due && let Some((_, ack)) = pending.pop_front() {
            let _ = wire.send(&ack);
            tally.add("handshake completed 300 ms later", 1);
        }
        let answer = wire.receive(Duration::from_millis(1), |segment| {
            segment.flags & (SYN | ACK) == SYN | ACK && segment.source_port == PORT
        });
        if let Some(answer) = answer {
            let ack = Segment {
                flags: ACK,
                seq: answer.ack,
                ack: answer.next_seq(),
                ..Segment::syn((answer.destination, answer.destination_port), TARGET, 0)
            };
            pending.push_back((Instant::now() + Duration::from_millis(300), ack));
        }
    }
}

fn flood(stage: &mut Stage, cookies: u8) -> Result<(), Stop> {
    setup(stage, cookies)?;
    // A host of little memory has 128, three quarters of which would bind before the queue of the listener does, and count nothing.
    stage.here.sysctl("net.ipv4.tcp_max_syn_backlog", 1_024)?;
    let client = stage.client.clone();
    serve(stage, "web-server", Server { backlog: 128, ..Server::default() })?;
    good_traffic(stage, &client, at(SERVER, PORT), 50);
    stage.fault(&client, |window, tally| {
        let Some(wire) = tally.note("raw socket", Wire::open()) else { return };
        let mut number = 0_u32;
        window.every(1, || {
            for _ in 0..5 {
                // A multiplicative generator: spread over the /16 and reproducible.
                number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let [high, low, port_high, port_low] = number.to_be_bytes();
                let port = u16::from_be_bytes([port_high, port_low]) | 1024;
                let source = (Ipv4Addr::new(10, 99, high, low), port);
                if wire.send(&Segment::syn(source, TARGET, number)).is_ok() {
                    tally.add("SYN sent from a forged source", 1);
                }
            }
        });
    });
    stage.observe(2.5)
}
