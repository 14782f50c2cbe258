//! Events and packets for the tests of this room and of the renderers.

use std::time::Duration;

use crate::source::destroyed_sockets::DestroyedSocket;
use crate::source::reset_events::{Direction, ResetEvent};
use crate::source::reset_packets::ResetPacket;
use crate::value::NetnsId;

pub const NETNS: NetnsId = NetnsId(4_026_531_840);

pub fn event(direction: Direction, local: &str, peer: &str) -> ResetEvent {
    ResetEvent {
        at: Duration::from_secs(100),
        direction,
        local: local.parse().expect("address"),
        peer: peer.parse().ok(),
        state: None,
        old_state: None,
        reason: None,
        task: None,
        softirq: true,
        active: false,
        caller: None,
        exiting: false,
        netns: Some(NETNS),
        cookie: None,
    }
}

/// An answer to a SYN.
pub fn packet(direction: Direction, local: &str, peer: &str) -> ResetPacket {
    ResetPacket {
        at: Duration::from_secs(100),
        netns: NETNS,
        direction,
        local: local.parse().expect("address"),
        peer: peer.parse().expect("address"),
        interface: 2,
        loopback: false,
        flags: 0x14,
        seq: 0,
        ack: 1,
        window: 0,
        ttl: 64,
        ip_id: Some(0),
        track: None,
        options: false,
        stated: None,
        local_here: true,
        peer_here: false,
        forwarded: false,
    }
}

/// A connection, idle for 0.1 s, with nothing left over.
pub fn destroyed(local: &str, peer: &str) -> DestroyedSocket {
    DestroyedSocket {
        at: Duration::from_millis(100_020),
        after: Duration::from_millis(99_970),
        local: local.parse().expect("address"),
        peer: peer.parse().expect("address"),
        cookie: 7,
        data_sent_ms: 2_000,
        data_received_ms: 100,
        ack_received_ms: 100,
        unacknowledged: 0,
        unsent: Some(0),
        unread: 0,
        retransmits: 0,
        timeout: Duration::from_millis(200),
        held_back: Some(Duration::ZERO),
        bytes_received: Some(1_204),
        bytes_sent: Some(88),
        unanswered: false,
        unacknowledged_altogether: false,
    }
}
