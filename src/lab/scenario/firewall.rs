//! The host's own packet filter answers instead of TCP, or swallows.

use std::net::IpAddr;

use super::common::{PORT, serve};
use super::{NFT, Scenario};
use crate::lab::counters::{moved, still};
use crate::lab::net;
use crate::lab::program::Server;
use crate::lab::stage::{SERVER, SERVER6, Stage, Stop, at};

pub static SCENARIOS: &[Scenario] = &[
    Scenario::fault(
        "firewall-reject-input",
        "firewall-reject",
        "a rule in the input chain answers with RST",
        "nft add rule inet filter input tcp dport 8080 reject with tcp reset; clients connect",
        |stage| rejecting(stage, SERVER, "input", "tcp dport 8080 reject with tcp reset"),
    )
    .port(PORT)
    .never(&["port-without-listener"])
    .needs(&[NFT])
    .shows(&[still("OutRsts"), still("ListenDrops")]),
    Scenario::fault(
        "firewall-reject-input-ipv6",
        "firewall-reject",
        "the same over IPv6",
        "nft add rule inet filter input tcp dport 8080 reject with tcp reset; clients connect to [fd77::1]:8080",
        |stage| rejecting(stage, SERVER6, "input", "tcp dport 8080 reject with tcp reset"),
    )
    .port(PORT)
    .never(&["port-without-listener"])
    .needs(&[NFT])
    .shows(&[still("OutRsts")]),
    Scenario::fault(
        "firewall-reject-output",
        "firewall-reject",
        "a rule in the output chain resets the SYN-ACK: the RST comes back to this host, the client times out",
        "nft add rule inet filter output tcp sport 8080 reject with tcp reset; clients connect",
        |stage| rejecting(stage, SERVER, "output", "tcp sport 8080 reject with tcp reset"),
    )
    .port(PORT)
    .never(&["port-without-listener", "handshake-reset"])
    .needs(&[NFT])
    .shows(&[still("OutRsts"), moved("EmbryonicRsts"), moved("AttemptFails")]),
    Scenario::healthy(
        "healthy-firewall-drop",
        "a rule drops SYNs silently: clients time out, no reset happens and none may be invented",
        "nft add rule inet filter input tcp dport 8080 drop; clients connect",
        |stage| rejecting(stage, SERVER, "input", "tcp dport 8080 drop"),
    )
    .needs(&[NFT])
    .shows(&[still("OutRsts"), still("ListenDrops")]),
];

fn rejecting(stage: &mut Stage, address: IpAddr, hook: &str, rule: &str) -> Result<(), Stop> {
    let client = stage.client.clone();
    serve(stage, "web-server", Server { listen: vec![at(address, PORT)], ..Server::default() })?;
    let rules = format!("table inet lab {{ chain c {{ type filter hook {hook} priority 0\n {rule}\n }}\n}}\n");
    stage.firewall(&stage.here, &rules)?;
    for _ in 0..4 {
        stage.fault(&client, move |window, tally| {
            window.every(40, || drop(tally.note("connect", net::connect(at(address, PORT)))));
        });
    }
    stage.observe(2.0)
}
