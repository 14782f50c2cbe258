//! Connection tracking: the table is full, or a packet is INVALID and passes NAT untranslated.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use netlink_sys::{Socket, SocketAddr as NetlinkAddress, protocols::NETLINK_NETFILTER};

use super::common::{PORT, SERVICE, call, echo_server, serve_in};
use super::{NFT, Need, Scenario};
use crate::lab::arena::Namespace;
use crate::lab::counters::{moved, still};
use crate::lab::net;
use crate::lab::program::{Server, Talk};
use crate::lab::raw::{ACK, PSH, Segment, Wire};
use crate::lab::stage::{FAR_CLIENT, SERVER, Stage, Stop, Window, at};
use crate::lab::tally::Tally;

/// A host beyond the observed one, which masquerades its clients as 10.79.0.1 on the way there.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 2);

/// Filling a larger table would take too long and too much memory.
const LARGEST: u64 = 300_000;

pub static SCENARIOS: &[Scenario] = &[
    Scenario::fault(
        "conntrack-table-full",
        "conntrack-table-full",
        "the connection-tracking table is full: packets of new connections are dropped",
        "conntrack -I ... until nf_conntrack_count reaches nf_conntrack_max; clients connect",
        table_full,
    )
    .needs(&[NFT])
    .never(&["accept-queue-overflow", "syn-flood", "syn-queue-overflow"])
    .shows(&[still("OutRsts")]),
    Scenario::fault(
        "conntrack-invalid",
        "conntrack-invalid",
        "an INVALID answer passes NAT untranslated; this host does not know it and resets the remote server",
        "a NAT gateway; segments outside the window arrive from the server (a middle device, or much loss)
         the gateway's own TCP answers them with RST, which kills the client's good connection",
        invalid,
    )
    .needs(&[NFT])
    .never(&["port-without-listener", "stale-connection"])
    .shows(&[moved("OutRsts")]),
    Scenario::fault(
        "conntrack-invalid-caller",
        "conntrack-invalid",
        "answers to this host's connections pass a router's NAT untranslated; this host resets the server behind it",
        "a client of a Kubernetes service; segments outside the window arrive at the node from the pod",
        invalid_at_the_caller,
    )
    .port(80)
    .process("api-client")
    .needs(&[NFT, Need::ResetEvents])
    .never(&["port-without-listener", "stale-connection", "peer-reset"])
    .shows(&[moved("OutRsts")]),
    Scenario::fault(
        "conntrack-invalid-server",
        "conntrack-invalid",
        "this host's answers pass a router's NAT untranslated; its clients' TCP resets what they go on to use",
        "a pod of a Kubernetes service; segments outside the window leave it towards the node",
        invalid_at_the_server,
    )
    .port(PORT)
    .process("web-server")
    .needs(&[NFT, Need::ResetEvents])
    .never(&["stale-connection", "peer-reset"])
    .shows(&[moved("EstabResets")]),
];

fn table_full(stage: &mut Stage) -> Result<(), Stop> {
    let text = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max")
        .map_err(|_| Stop::Skip("nf_conntrack is not loaded".to_owned()))?;
    let max: u64 = text.trim().parse().map_err(io::Error::other)?;
    if max > LARGEST {
        return Err(Stop::Skip(format!("nf_conntrack_max is {max}, host-wide: too many entries to fill")));
    }
    echo_server(stage, "web-server")?;
    stage.firewall(
        &stage.here,
        "table inet lab { chain c { type filter hook input priority 0\n ct state invalid drop\n }\n}\n",
    )?;
    fill(max)?;
    for _ in 0..4 {
        stage.fault(&stage.client.clone(), |window, tally| {
            window.every(30, || drop(tally.note("connect", net::connect(SERVICE))));
        });
    }
    stage.observe(2.5)
}

/// Inserts `count` entries that look like long-lived connections (ctnetlink, include/uapi/linux/netfilter/
/// nfnetlink_conntrack.h): assured, so that the kernel does not evict them early.
fn fill(count: u64) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    // No acknowledgement is asked for; errors of single entries do not matter as the counter is checked by the result.
    let mut batch = Vec::with_capacity(64 * 1024);
    for number in 0..count as u32 {
        batch.extend(entry(number));
        if batch.len() > 30_000 {
            socket.send_to(&batch, &NetlinkAddress::new(0, 0), 0)?;
            batch.clear();
        }
    }
    socket.send_to(&batch, &NetlinkAddress::new(0, 0), 0)?;
    Ok(())
}

fn entry(number: u32) -> Vec<u8> {
    const NESTED: u16 = 0x8000;
    let [_, middle, high, low] = (number >> 12).to_be_bytes();
    let port = (20_000 + (number & 0xfff) as u16).to_be_bytes();
    let here = [10, 200, 0, 1];
    let there = [10, 201 + middle, high, low];
    let tuple = |kind: u16, source: [u8; 4], destination: [u8; 4], from: [u8; 2], to: [u8; 2]| {
        let addresses = [attribute(1, &source), attribute(2, &destination)].concat();
        let ports = [attribute(1, &[libc::IPPROTO_TCP as u8]), attribute(2, &from), attribute(3, &to)].concat();
        attribute(kind | NESTED, &[attribute(1 | NESTED, &addresses), attribute(2 | NESTED, &ports)].concat())
    };
    let web = 80_u16.to_be_bytes();
    // CTA_PROTOINFO { CTA_PROTOINFO_TCP { state ESTABLISHED = 3 } }.
    let state = attribute(4 | NESTED, &attribute(1 | NESTED, &attribute(1, &[3])));
    let body = [
        tuple(1, there, here, port, web),
        tuple(2, here, there, web, port),
        // IPS_SEEN_REPLY, IPS_ASSURED, IPS_CONFIRMED.
        attribute(3, &(2_u32 | 4 | 8).to_be_bytes()),
        attribute(7, &600_u32.to_be_bytes()),
        state,
    ]
    .concat();
    let mut message = Vec::with_capacity(20 + body.len());
    message.extend((20 + body.len() as u32).to_ne_bytes());
    // NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW; NLM_F_REQUEST | NLM_F_CREATE.
    message.extend(0x0100_u16.to_ne_bytes());
    message.extend(0x0401_u16.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([libc::AF_INET as u8, 0, 0, 0]);
    message.extend(body);
    message
}

/// A netlink attribute, padded to four bytes (netlink(7)).
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend((length as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

fn invalid(stage: &mut Stage) -> Result<(), Stop> {
    let outside = stage.neighbour("eth1", 79)?;
    stage.here.sysctl("net.ipv4.ip_forward", 1)?;
    stage.client.route_to(OUTSIDE.into(), 32, SERVER)?;
    stage.firewall(
        &stage.here,
        "table ip lab { chain c { type nat hook postrouting priority 100\n oifname eth1 masquerade\n }\n}\n",
    )?;
    serve_in(stage, &outside, IpAddr::V4(OUTSIDE), Server::default())?;
    for _ in 0..4 {
        stage.fault(&stage.client.clone(), |window, tally| {
            window.every(50, || {
                let to: SocketAddr = at(IpAddr::V4(OUTSIDE), PORT);
                let Some(mut stream) = tally.note("connect", net::connect(to)) else { return };
                for _ in 0..20 {
                    if tally.note("request", net::exchange(&mut stream, b"hello")).is_none() {
                        break;
                    }
                    window.sleep(20);
                }
            });
        });
    }
    stage.fault(&outside, |window, tally| strays(window, tally, PORT));
    stage.observe(2.5)
}

/// Answers each request seen on `port` by a segment outside the window too.
fn strays(window: &Window, tally: &Tally, port: u16) {
    let Some(wire) = tally.note("raw socket", Wire::open()) else { return };
    window.every(60, || {
        wire.skip();
        let request = wire.receive(std::time::Duration::from_millis(200), |segment| {
            segment.destination_port == port && !segment.payload.is_empty()
        });
        let Some(request) = request else { return };
        let stray = Segment {
            source: request.destination,
            destination: request.source,
            source_port: request.destination_port,
            destination_port: request.source_port,
            // Far outside the client's window, which makes it INVALID (nf_conntrack_proto_tcp.c tcp_in_window).
            seq: request.ack.wrapping_add(0x1000_0000),
            ack: request.next_seq(),
            flags: ACK | PSH,
            ..request
        };
        tally.note("segment outside the window sent", wire.send(&stray));
    });
}

/// The virtual address of a service, and where it is.
const VIRTUAL: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1));
const ROUTER_NEAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 79, 0, 254));
const ROUTER_FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 78, 0, 254));
/// The observed host's address on the router's side.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 79, 0, 1));

/// This host calls a virtual address that a router translates to a server beyond it.
fn invalid_at_the_caller(stage: &mut Stage) -> Result<(), Stop> {
    let (router, far) = stage.client_behind_router()?;
    stage.here.route_to(VIRTUAL, 32, ROUTER_NEAR)?;
    far.route_to(HERE, 32, ROUTER_FAR)?;
    translate(stage, &router, FAR_CLIENT)?;
    serve_in(stage, &far, FAR_CLIENT, Server::default())?;
    let talk = Talk::Keep { count: 30, keepalive: false, user_timeout_ms: None, write_every_ms: Some(40) };
    call(stage, "api-client", vec![at(VIRTUAL, 80)], talk)?;
    stage.fault(&far, |window, tally| strays(window, tally, PORT));
    stage.observe(2.5)
}

/// Clients call a virtual address that a router translates to this host.
fn invalid_at_the_server(stage: &mut Stage) -> Result<(), Stop> {
    let (router, far) = stage.client_behind_router()?;
    far.route_to(VIRTUAL, 32, ROUTER_FAR)?;
    translate(stage, &router, SERVER)?;
    echo_server(stage, "web-server")?;
    for _ in 0..4 {
        stage.fault(&far, |window, tally| {
            window.every(30, || {
                let Some(mut stream) = tally.note("connect", net::connect(at(VIRTUAL, 80))) else { return };
                for _ in 0..20 {
                    if tally.note("request", net::exchange(&mut stream, b"hello")).is_none() {
                        break;
                    }
                    window.sleep(40);
                }
            });
        });
    }
    stage.fault(&stage.here.clone(), |window, tally| strays(window, tally, PORT));
    stage.observe(2.5)
}

fn translate(stage: &Stage, router: &Namespace, to: IpAddr) -> Result<(), Stop> {
    let rule = format!("ip daddr {VIRTUAL} tcp dport 80 dnat to {to}:{PORT}");
    stage.firewall(
        router,
        &format!("table ip lab {{ chain c {{ type nat hook prerouting priority -100\n {rule}\n }}\n}}\n"),
    )
}
