//! Faults between programs: firewalls on the way, hosts that do not answer, proxies whose backend is down, programs that end.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::common::{PORT, SERVICE, call, serve, serve_in};
use super::refused::LOOPBACK;
use super::{NFT, Need, Scenario};
use crate::lab::arena::Namespace;
use crate::lab::counters::{at_least, moved, still};
use crate::lab::net;
use crate::lab::program::{Client, Program, Server, Talk, Then};
use crate::lab::stage::{CLIENT, SERVER, Stage, Stop, at};

/// The port of a service on another host that this one calls.
const UPSTREAM: u16 = 5432;
/// A host beyond the observed one.
const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 79, 0, 2));

pub static SCENARIOS: &[Scenario] = &[
    Scenario::fault(
        "connect-unanswered",
        "connect-unanswered",
        "a firewall of another host drops what a program of this host sends to it",
        "there: nft add rule inet filter input tcp dport 5432 drop; here: curl --max-time 2 http://10.77.0.2:5432/",
        |stage| {
            rule(stage, &stage.client.clone(), "input", "tcp dport 5432 drop")?;
            calling(stage, 8, 4.0)
        },
    )
    .port(UPSTREAM)
    .process("api-client")
    .never(&["upstream-refused", "firewall-reject", "peer-reset"])
    .needs(&[NFT])
    .shows(&[at_least("TCPSynRetrans", 10), still("OutRsts")]),
    Scenario::fault(
        "packets-discarded",
        "packets-discarded",
        "this host drops what clients send: by its routes they are reached by another interface (rp_filter)",
        "sysctl net.ipv4.conf.all.rp_filter=1; ip route add 10.77.0.2/32 via 10.79.0.2 (another interface); clients connect",
        |stage| {
            stage.neighbour("eth1", 79)?;
            serve(stage, "web-server", Server::default())?;
            // The kernel answers no ARP request that rp_filter would drop, so the client has to know the address already.
            drop(stage.client.run(|| net::connect(SERVICE))?);
            stage.here.sysctl("net.ipv4.conf.all.rp_filter", 1)?;
            stage.here.route_to(CLIENT, 32, OUTSIDE)?;
            unreached(stage)
        },
    )
    .never(&["connect-unanswered", "firewall-reject", "accept-queue-overflow"])
    .shows(&[at_least("IPReversePathFilter", 5), still("PassiveOpens"), still("OutRsts")]),
    Scenario::fault(
        "packets-discarded-no-route",
        "packets-discarded",
        "clients connect, and this host has no route for its answers",
        "ip route add unreachable 10.77.0.2/32; clients connect",
        |stage| {
            serve(stage, "web-server", Server::default())?;
            stage.here.blackhole(CLIENT, 32)?;
            unreached(stage)
        },
    )
    .never(&["accept-queue-overflow", "syn-queue-overflow", "firewall-reject"])
    .shows(&[at_least("ListenDrops", 5), still("ListenOverflows"), still("PassiveOpens")]),
    Scenario::fault(
        "firewall-reject-icmp",
        "firewall-reject",
        "a rule refuses by ICMP, as it does when nothing else is said",
        "nft add rule inet filter input tcp dport 8080 reject; clients connect",
        |stage| {
            serve(stage, "web-server", Server::default())?;
            stage.here.sysctl("net.ipv4.icmp_ratelimit", 0)?;
            rule(stage, &stage.here.clone(), "input", "tcp dport 8080 reject")?;
            for _ in 0..4 {
                stage.fault(&stage.client.clone(), |window, tally| {
                    window.every(40, || drop(tally.note("connect", net::connect(SERVICE))));
                });
            }
            stage.observe(2.0)
        },
    )
    .port(PORT)
    .process("web-server")
    .never(&["port-without-listener", "handshake-reset"])
    .needs(&[NFT])
    .shows(&[still("OutRsts"), still("ListenDrops")]),
    Scenario::fault(
        "firewall-reject-icmp-caller",
        "firewall-reject",
        "the firewall of another host refuses this one's connects by ICMP",
        "there: iptables -A INPUT -p tcp --dport 5432 -j REJECT --reject-with icmp-host-prohibited; here: curl http://10.77.0.2:5432/",
        |stage| {
            stage.client.sysctl("net.ipv4.icmp_ratelimit", 0)?;
            let prohibited = "meta l4proto tcp tcp dport 5432 reject with icmp type host-prohibited";
            rule(stage, &stage.client.clone(), "input", prohibited)?;
            calling(stage, 2, 2.0)
        },
    )
    .port(UPSTREAM)
    .never(&["upstream-refused", "connect-unanswered", "peer-reset"])
    .needs(&[NFT])
    .shows(&[still("OutRsts"), moved("ActiveOpens")]),
    Scenario::fault(
        "firewall-reject-forward",
        "firewall-reject",
        "a router's forward rule resets connects of one host to another",
        "nft add rule inet filter forward tcp dport 8080 reject with tcp reset; a client beyond one interface connects to a server beyond the other",
        |stage| {
            let outside = stage.neighbour("eth1", 79)?;
            stage.here.sysctl("net.ipv4.ip_forward", 1)?;
            stage.client.route_to(OUTSIDE, 32, SERVER)?;
            outside.route_to(CLIENT, 32, Ipv4Addr::new(10, 79, 0, 1).into())?;
            serve_in(stage, &outside, OUTSIDE, Server::default())?;
            rule(stage, &stage.here.clone(), "forward", "tcp dport 8080 reject with tcp reset")?;
            for _ in 0..4 {
                stage.fault(&stage.client.clone(), |window, tally| {
                    window.every(40, || drop(tally.note("connect", net::connect(at(OUTSIDE, PORT)))));
                });
            }
            stage.observe(2.0)
        },
    )
    .port(PORT)
    .never(&["port-without-listener", "middlebox-reset"])
    .needs(&[NFT])
    .shows(&[still("OutRsts"), still("AttemptFails")]),
    Scenario::fault(
        "upstream-refused-proxied",
        "upstream-refused",
        "a proxy closes its clients' connections, requests unread, because its backend refuses it",
        "docker run -p 8080:5432 IMAGE whose program listens on 127.0.0.1 only; curl http://10.77.0.1:8080/",
        |stage| {
            let then = Then::Proxy { to: at(CLIENT, UPSTREAM) };
            serve(stage, "proxy", Server { then, ..Server::default() })?;
            stage.fault(&stage.client.clone(), |window, tally| {
                window.every(40, || {
                    if let Some(mut stream) = tally.note("connect", net::connect(SERVICE)) {
                        tally.note("request", net::exchange(&mut stream, b"hello"));
                    }
                });
            });
            stage.observe(2.5)
        },
    )
    .port(PORT)
    .process("proxy")
    .never(&["close-with-unread-data", "peer-reset", "connection-limit"])
    .needs(&[Need::ResetEvents])
    .shows(&[at_least("AttemptFails", 5), at_least("TCPAbortOnClose", 5)]),
    Scenario::fault(
        "ephemeral-ports-exhausted-bound",
        "ephemeral-ports-exhausted",
        "a client binds its address before it connects, so that all destinations share one range of ports",
        "sysctl net.ipv4.ip_local_port_range='40000 40063'; curl --interface 10.77.0.1 to several servers, kept open",
        |stage| {
            stage.here.sysctl("net.ipv4.ip_local_port_range", "40000 40063")?;
            let ports = [8081, 8082, 8083, 8084];
            let listen = ports.map(|port| at(CLIENT, port)).to_vec();
            let server = Program::Server(Server { listen, ..Server::default() });
            stage.spawn_in(&stage.client.clone(), "remote-server", &server)?;
            for port in ports {
                let talk = Talk::Connect { every_ms: 10, hold: true };
                let client = Client { to: vec![at(CLIENT, port)], from: Some(SERVER), talk };
                let actor = stage.spawn("api-client", &Program::Client(client))?;
                stage.fault(&stage.here.clone(), move |window, _| {
                    let _ = actor.tell("go");
                    window.sleep(60_000);
                    let _ = actor.tell("stop");
                });
            }
            stage.observe(3.0)
        },
    )
    .process("api-client")
    .never(&["upstream-refused", "peer-reset"])
    .shows(&[still("OutRsts"), moved("ActiveOpens")]),
    Scenario::fault(
        "wrong-bind-address-localhost",
        "wrong-bind-address",
        "a client tries only ::1 for localhost, and the server listens on 127.0.0.1",
        "a server on 127.0.0.1:9201; curl http://[::1]:9201/ on the same host",
        |stage| {
            let [v4, v6] = LOOPBACK;
            serve(stage, "local-server", Server { listen: vec![at(v4, 9201)], ..Server::default() })?;
            call(stage, "api-client", vec![at(v6, 9201)], Talk::Connect { every_ms: 20, hold: false })?;
            stage.observe(2.0)
        },
    )
    .port(9201)
    .process("local-server")
    .never(&["listener-closed", "stale-connection", "port-without-listener"])
    .needs(&[Need::ResetEvents])
    .shows(&[moved("OutRsts"), moved("AttemptFails")]),
    Scenario::fault(
        "peer-restarted",
        "peer-restarted",
        "the program on another host that this one is connected to ends: open connections are reset, then connects are refused",
        "kill -9 the server on the other host while clients of this one talk to it and connect anew",
        |stage| {
            let server = serve_in(stage, &stage.client.clone(), CLIENT, Server::default())?;
            let talk = Talk::Keep { count: 20, keepalive: false, user_timeout_ms: None, write_every_ms: Some(30) };
            call(stage, "api-client", vec![at(CLIENT, PORT)], talk)?;
            call(stage, "api-client", vec![at(CLIENT, PORT)], Talk::Connect { every_ms: 40, hold: false })?;
            stage.fault(&stage.client.clone(), move |window, tally| {
                window.sleep(900);
                tally.note("the server ends", server.tell("exit"));
            });
            stage.observe(3.0)
        },
    )
    .port(PORT)
    .process("api-client")
    .never(&["peer-reset", "upstream-refused", "idle-timeout"])
    .needs(&[Need::ResetEvents])
    .shows(&[at_least("AttemptFails", 5), moved("EstabResets")]),
    Scenario::fault(
        "retransmission-timeout-large-packets",
        "retransmission-timeout",
        "large packets vanish on the way: connects succeed, each request hangs, and the programs give up before the kernel does",
        "on the server: nft add rule inet filter input meta length > 1000 drop; clients of this host send 16 kB and wait",
        |stage| {
            let server = stage.client.clone();
            serve_in(stage, &server, CLIENT, Server::default())?;
            rule(stage, &server, "input", "meta length > 1000 drop")?;
            for _ in 0..4 {
                stage.fault(&stage.here.clone(), |window, tally| {
                    window.every(200, || {
                        let Some(mut stream) = tally.note("connect", net::connect(at(CLIENT, PORT))) else { return };
                        tally.note("request", net::exchange(&mut stream, &[b'x'; 16_384]));
                    });
                });
            }
            stage.observe(4.0)
        },
    )
    .never(&["connect-unanswered", "peer-reset", "keepalive-timeout"])
    .needs(&[NFT])
    .shows(&[still("OutRsts"), still("TCPAbortOnTimeout"), moved("TCPTimeouts")]),
];

fn rule(stage: &Stage, place: &Namespace, hook: &str, rule: &str) -> Result<(), Stop> {
    let family = if rule.contains("icmp type") { "ip" } else { "inet" };
    stage.firewall(
        place,
        &format!("table {family} lab {{ chain c {{ type filter hook {hook} priority 0\n {rule}\n }}\n}}\n"),
    )
}

/// So many programs of this host that connect to [`UPSTREAM`] again and again.
/// Clients whose connects come to nothing.
fn unreached(stage: &mut Stage) -> Result<(), Stop> {
    for _ in 0..8 {
        stage.fault(&stage.client.clone(), |window, tally| {
            window.every(100, || drop(tally.note("connect", net::connect(SERVICE))));
        });
    }
    stage.observe(4.0)
}

fn calling(stage: &mut Stage, programs: usize, seconds: f64) -> Result<(), Stop> {
    let to: SocketAddr = at(CLIENT, UPSTREAM);
    for _ in 0..programs {
        call(stage, "api-client", vec![to], Talk::Connect { every_ms: 20, hold: false })?;
        // Not all in step.
        std::thread::sleep(Duration::from_millis(10));
    }
    stage.observe(seconds)
}
