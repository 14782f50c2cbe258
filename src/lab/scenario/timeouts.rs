//! The other end stopped answering.

use std::net::IpAddr;

use super::common::{PORT, serve_in};
use super::{NFT, Scenario};
use crate::lab::counters::{moved, still};
use crate::lab::program::{Client, Program, Server, Talk};
use crate::lab::stage::{CLIENT, CLIENT6, FAR_CLIENT, SERVER, SERVER6, Stage, Stop, at};

pub static SCENARIOS: &[Scenario] = &[
    Scenario::fault(
        "keepalive-timeout",
        "keepalive-timeout",
        "the peer vanishes, keepalive probes find out",
        "a client with SO_KEEPALIVE (idle 1 s, interval 1 s, one probe); cut the path",
        |stage| cut(stage, CLIENT, SERVER, true, None, None),
    )
    .process("api-client")
    .never(&["retransmission-timeout", "abortive-close"])
    .shows(&[moved("TCPAbortOnTimeout"), moved("OutRsts"), moved("TCPKeepAlive")]),
    Scenario::fault(
        "keepalive-timeout-ipv6",
        "keepalive-timeout",
        "the same over IPv6",
        "as keepalive-timeout, over IPv6",
        |stage| cut(stage, CLIENT6, SERVER6, true, None, None),
    )
    .process("api-client")
    .never(&["retransmission-timeout", "abortive-close"])
    .shows(&[moved("TCPAbortOnTimeout"), moved("OutRsts"), moved("TCPKeepAlive")]),
    Scenario::fault(
        "retransmission-timeout",
        "retransmission-timeout",
        "the peer vanishes while data is sent; retransmission gives up",
        "sysctl net.ipv4.tcp_retries2=2; a client that keeps writing; cut the path",
        |stage| {
            stage.here.sysctl("net.ipv4.tcp_retries2", 2)?;
            cut(stage, CLIENT, SERVER, false, None, Some(50))
        },
    )
    .never(&["keepalive-timeout", "peer-reset"])
    .shows(&[moved("TCPAbortOnTimeout"), still("OutRsts"), moved("TCPTimeouts")]),
    Scenario::fault(
        "retransmission-timeout-user",
        "retransmission-timeout",
        "the same, with TCP_USER_TIMEOUT set by the application",
        "setsockopt(TCP_USER_TIMEOUT, 700 ms); a client that keeps writing; cut the path",
        |stage| cut(stage, CLIENT, SERVER, false, Some(700), Some(50)),
    )
    .never(&["keepalive-timeout", "peer-reset"])
    .shows(&[moved("TCPAbortOnTimeout"), still("OutRsts")]),
    Scenario::fault(
        "idle-timeout",
        "idle-timeout",
        "a firewall between forgets connections that were idle for 1 s and resets their next use",
        "on a router: nf_conntrack_tcp_timeout_established=1, nf_conntrack_tcp_loose=0, ct state invalid reject
         a client on this host uses its connections every 1.4 s",
        |stage| middlebox(stage, "meta l4proto tcp ct state invalid reject with tcp reset"),
    )
    .needs(&[NFT])
    .never(&["abortive-close", "late-data-after-close"])
    .shows(&[moved("EstabResets"), still("OutRsts")]),
    Scenario::fault(
        "idle-timeout-drop",
        "idle-timeout",
        "the same firewall drops instead: the next use gets no answer",
        "as idle-timeout, with drop instead of reject; the client has TCP_USER_TIMEOUT 700 ms",
        |stage| middlebox(stage, "ct state invalid drop"),
    )
    .needs(&[NFT])
    .never(&["abortive-close", "late-data-after-close"])
    .shows(&[moved("TCPAbortOnTimeout"), still("OutRsts")]),
    Scenario::fault(
        "idle-without-keepalive",
        "idle-without-keepalive",
        "connections idle for more than 240 s without a keepalive timer",
        "connect, and wait for five minutes",
        |_| Err(Stop::Skip("needs connections idle for 240 s; a recording covers it".to_owned())),
    ),
];

/// Ten connections of a client on this host to another; when the window opens, the other host's answers get lost.
fn cut(
    stage: &mut Stage,
    peer: IpAddr,
    here: IpAddr,
    keepalive: bool,
    user_timeout_ms: Option<u32>,
    write_every_ms: Option<u64>,
) -> Result<(), Stop> {
    serve_in(stage, &stage.client.clone(), peer, Server::default())?;
    let talk = Talk::Keep { count: 10, keepalive, user_timeout_ms, write_every_ms };
    let actor = stage.spawn("api-client", &Program::Client(Client { to: vec![at(peer, PORT)], from: None, talk }))?;
    let client = stage.client.clone();
    stage.fault(&stage.here.clone(), move |window, tally| {
        let _ = actor.tell("go");
        window.sleep(300);
        let prefix = if here.is_ipv4() { 32 } else { 128 };
        tally.note("path cut", client.blackhole(here, prefix));
        window.sleep(60_000);
    });
    stage.observe(3.5)
}

fn middlebox(stage: &mut Stage, rule: &str) -> Result<(), Stop> {
    let (router, far) = stage.client_behind_router()?;
    let rules = format!(
        "table ip lab {{ chain c {{ type filter hook forward priority 0\n ct state established,new accept\n {rule}\n }}\n}}\n"
    );
    stage.firewall(&router, &rules)?;
    router.sysctl("net.netfilter.nf_conntrack_tcp_timeout_established", 1)?;
    router.sysctl("net.netfilter.nf_conntrack_tcp_loose", 0)?;
    serve_in(stage, &far, FAR_CLIENT, Server::default())?;
    let talk = Talk::Keep { count: 10, keepalive: false, user_timeout_ms: Some(700), write_every_ms: Some(1400) };
    let client = Client { to: vec![at(FAR_CLIENT, PORT)], from: Some(SERVER), talk };
    let actor = stage.spawn("api-client", &Program::Client(client))?;
    stage.fault(&stage.here.clone(), move |window, _| {
        let _ = actor.tell("go");
        window.sleep(60_000);
    });
    stage.observe(3.5)
}
