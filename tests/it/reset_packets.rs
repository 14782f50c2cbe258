//! Real RST packets in a network namespace of its own, seen on the wire.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::common::{isolated, linger_0, out_rsts, pairs, skipped};
use rstdoctor::kernel::namespace::Handle;
use rstdoctor::kernel::packet::PacketSocket;
use rstdoctor::source::reset_events::Direction;
use rstdoctor::source::reset_packets::{PacketParser, ResetPackets, Signature};

fn finish(mut socket: PacketSocket) -> ResetPackets {
    let mut parser = PacketParser::new();
    socket.drain(&mut |bytes| parser.feed(bytes)).unwrap();
    let (packets, error) = parser.finish();
    assert_eq!((error, packets.account.lost), (None, 0));
    packets
}

fn sh(script: &str) -> bool {
    Command::new("sh").args(["-c", script]).status().is_ok_and(|status| status.success())
}

#[test]
fn refused_connects_are_answers_and_linger_0_is_active() {
    isolated(|| {
        let socket = PacketSocket::open(&Handle::current()).unwrap();
        let before = out_rsts();
        for _ in 0..20 {
            assert!(TcpStream::connect("127.0.0.1:81").is_err());
            assert!(TcpStream::connect("[::1]:81").is_err());
        }
        for (client, server) in pairs(20) {
            linger_0(&server);
            drop(server);
            drop(client);
        }
        for (mut client, server) in pairs(5) {
            client.write_all(b"x").unwrap();
            drop(server);
        }
        let counted = out_rsts() - before;
        let all = finish(socket);
        assert_eq!(
            (all.account.sent, all.account.received, counted),
            (65, 65, 65),
            "on loopback each is sent and received"
        );
        assert_eq!((all.account.duplicates, all.account.forwarded), (0, 0));
        for packet in &all.packets {
            let refused = packet.local.port() == 81 || packet.peer.port() == 81;
            let expected = if refused { Signature::Answer } else { Signature::Active };
            assert_eq!(packet.signature(), expected, "{packet:?}");
            assert!(packet.loopback && packet.ttl == 64, "{packet:?}");
        }
        let now = boot_time();
        assert!(all.packets.iter().all(|p| p.at < now && now - p.at < Duration::from_secs(10)), "{now:?}");
    });
}

#[test]
fn a_firewall_reject_is_on_the_wire_although_tcp_counted_nothing() {
    isolated(|| {
        const PEER: &str =
            "ip link add v0 type veth peer name v1 && ip addr add 10.98.0.1/24 dev v0 && ip link set v0 up";
        const RULE: &str = "nft 'table inet t { chain i { type filter hook input priority 0; tcp dport 81 reject with tcp reset; }; }'";
        if !sh(PEER) || !sh(RULE) {
            skipped("needs veth and nft");
            return;
        }
        // The peer lives in a namespace of its own that ends with its process.
        let mut peer = Command::new("unshare").args(["-n", "sleep", "20"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let id = peer.id();
        let inside = format!("nsenter -n -t {id}");
        assert!(sh(&format!(
            "ip link set v1 netns {id} && {inside} ip addr add 10.98.0.2/24 dev v1 && {inside} ip link set v1 up"
        )));
        let socket = PacketSocket::open(&Handle::current()).unwrap();
        let before = out_rsts();
        let script = "import socket\nfor _ in range(20):\n  try: socket.create_connection(('10.98.0.1', 81), 2)\n  except OSError: pass";
        let connected = Command::new("nsenter")
            .args(["-n", "-t", &id.to_string(), "python3", "-c", script])
            .status()
            .is_ok_and(|status| status.success());
        let counted = out_rsts() - before;
        let all = finish(socket);
        peer.kill().unwrap();
        peer.wait().unwrap();
        assert!(connected);
        assert_eq!((all.account.sent, all.account.received, counted), (20, 0, 0), "{all:#?}");
        let local: SocketAddr = "10.98.0.1:81".parse().unwrap();
        for packet in &all.packets {
            assert_eq!((packet.direction, packet.local, packet.loopback), (Direction::Sent, local, false));
            assert_eq!(packet.peer.ip().to_string(), "10.98.0.2");
        }
    });
}

fn boot_time() -> Duration {
    let text = std::fs::read_to_string("/proc/uptime").unwrap();
    // Rounded down to 10 ms.
    Duration::from_secs_f64(text.split(' ').next().unwrap().parse().unwrap()) + Duration::from_millis(10)
}
