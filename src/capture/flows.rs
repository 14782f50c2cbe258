//! What a capture holds: its connections as far as they have something to tell, and the number of the others.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::flow::{Flow, Side};
use super::here::Here;
use super::story::{Alike, Reading};

/// Connections to one address and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Service {
    pub connections: u64,
    /// The SYN was seen, and the SYN-ACK.
    pub tried: u64,
    pub accepted: u64,
    /// What became of them was not seen: more were open than can be followed.
    pub let_go: u64,
}

/// A connection that has something to tell, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub flow: Flow,
    /// The most telling first; empty where nothing is wrong with it.
    pub readings: Vec<Reading>,
}

/// A connect that was accepted, for what the same client did beside another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    pub at: Duration,
    pub client: IpAddr,
    pub service: SocketAddr,
}

/// What two captures show together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ends {
    /// Connections that are in both.
    pub joined: u64,
    /// Those of them that have other addresses at the other end.
    pub translated: u64,
    /// Connections that only one of them holds.
    pub only: [u64; 2],
    /// The clock of the second less that of the first, ns; from the handshakes that both hold.
    pub offset_ns: Option<i64>,
    /// RSTs that left one end and arrived at the other.
    pub arrived: u64,
    /// RSTs that arrived at one end and never left the other.
    pub never_sent: u64,
    /// RSTs that left one end and never arrived.
    pub never_arrived: u64,
    /// RSTs that arrived otherwise than they left.
    pub changed: u64,
    /// Packets, connections and RSTs of the second.
    pub second: [u64; 3],
}

/// What a capture holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Flows {
    /// Packets of all kinds.
    pub packets: u64,
    pub segments: u64,
    /// As tshark counts them: streams, and packets with RST.
    pub connections: u64,
    pub resets: u64,
    pub resets_by: [u64; 2],
    /// ICMP errors about TCP.
    pub errors: u64,
    /// Packets behind a link layer that is not read, by its number.
    pub unread: BTreeMap<u32, u64>,
    /// TCP packets that were cut by the snapshot length.
    pub cut: u64,
    /// The same packet again at a second place.
    pub duplicates: u64,
    /// First and last time, of those that are times.
    pub span: Option<(Duration, Duration)>,
    /// Packets without a time, or with one that no clock shows.
    pub untimed: u64,
    /// Connections with a reset or an error, or that were not answered, in the order in which they began; capped.
    pub told: Vec<Told>,
    pub told_dropped: u64,
    /// Of those that were dropped, what they tell, as far as that is alike.
    pub further: BTreeMap<Alike, u64>,
    /// Established connections that were open at the end, and silent for a second or more.
    pub silent: u64,
    /// Connections that were let go before they ended: more were open than can be followed.
    pub let_go: u64,
    /// Connections that ended, or were let go, and of which nothing is kept: a later packet of one counts as one more.
    pub forgotten: u64,
    pub services: HashMap<SocketAddr, Service>,
    pub attempts: VecDeque<Attempt>,
    pub here: Here,
    /// What a text calls hosts whose address it does not show.
    pub names: HashMap<IpAddr, String>,
    /// What a second capture at the other end adds.
    pub ends: Option<Ends>,
    pub format: &'static str,
    /// Why the file was not read to its end.
    pub broken: Option<String>,
}

impl Flows {
    /// The end as the evidence calls it; text from outside, not escaped.
    pub fn name(&self, end: SocketAddr) -> String {
        match self.names.get(&end.ip()) {
            Some(name) => format!("{name}:{}", end.port()),
            None => end.to_string(),
        }
    }

    /// Of which side the capture was made, as far as it shows.
    pub fn here(&self, flow: &Flow) -> Option<Side> {
        self.here.of(flow.initiator.ip(), flow.acceptor.ip())
    }

    pub fn window(&self) -> Duration {
        self.span.map_or(Duration::ZERO, |(first, last)| last.saturating_sub(first))
    }
}
