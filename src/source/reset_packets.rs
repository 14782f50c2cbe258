//! RST packets as they passed an interface of the namespace under observation, with what a packet gives away.
//!
//! Netfilter's RSTs appear only here: TCP neither counts nor traces them. A packet also tells the peer that the tracepoint
//! does not know for a reset sent from LISTEN, and proves the namespace.
//!
//! # The stream
//! Blocks as in [`stream`]: start (text: [`MAGIC`]), scope (text: `address A` and `local PREFIX/LENGTH` of a local route...), clock (text:
//! `REALTIME BOOTTIME`, ns), counts (text: `LOST`, packets that found no room since the start), and records: per packet,
//! little-endian, `u64` CLOCK_REALTIME ns, `u32` interface index, `u16` ARPHRD type, `u8` PACKET_* type, `u8` 0, `u32` bytes
//! captured, then those bytes from the IP header on. Beside all RSTs it holds ICMP errors about TCP, and samples of what else was
//! received, for the TTL and the IP id; a note (text: [`FEWER`]) says that from here on they are fewer.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::local_addresses::LocalAddresses;
use super::reset_events::Direction;
use crate::stream::{self, Content, Kind, Parser};
use crate::value::{NetnsId, ParseError};

mod ip;
mod ip_id;
pub mod redaction;
mod stated;
mod ttl;
mod unreachable;

use ip::Ip;
pub use ip_id::Track;
pub use stated::{Stated, read as stated};
pub use ttl::PeerTtls;
pub use unreachable::{Code, Quoted, Unreachable, Unreachables, quoted};

const SOURCE: &str = "reset packets";
pub const MAGIC: &str = "rstdoctor-reset-packets 1";
pub const FEWER: &str = "fewer-samples";
/// Bytes before each packet in a records block.
pub const RECORD_HEAD: usize = 20;

const MAX_PACKETS: usize = 50_000;
/// A packet crosses a VLAN, bridge or bond and the device below it within this time.
const TWICE: Duration = Duration::from_millis(10);
const REMEMBERED: usize = 256;

/// What Linux and others send with (net.ipv4.ip_default_ttl). A smaller one was routed through this host: a container's.
pub const INITIAL_TTLS: [u8; 3] = [64, 128, 255];

const PACKET_OUTGOING: u8 = 4;
const ARPHRD_LOOPBACK: u16 = 772;
const FLAG_RST: u8 = 0x04;
const FLAG_ACK: u8 = 0x10;
/// In the seventh byte of an IPv4 header (RFC 791).
const DONT_FRAGMENT: u8 = 0x40;

/// What the packet socket delivered between two takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResetPackets {
    /// In order of arrival, capped; `dropped` counts those over the cap.
    pub packets: Vec<ResetPacket>,
    pub dropped: u64,
    pub account: PacketAccount,
}

/// What passed, was lost and left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PacketAccount {
    /// The kernel had no room for them.
    pub lost: u64,
    /// Every packet with a local address of this namespace, by direction; those over the cap included.
    pub sent: u64,
    pub received: u64,
    /// Only passing through this host: neither end is here.
    pub forwarded: u64,
    /// The same packet on a second interface (VLAN, bridge, bond), discarded.
    pub duplicates: u64,
    /// ICMP errors about connects.
    pub unreachable: Unreachables,
    /// With which TTL the peers' other packets arrive, all since the start of the stream.
    pub ttls: Arc<PeerTtls>,
    /// What the namespace takes for its own.
    pub addresses: Arc<LocalAddresses>,
}

impl PacketAccount {
    /// No packet was counted.
    pub fn is_empty(&self) -> bool {
        let none = Self { ttls: self.ttls.clone(), addresses: self.addresses.clone(), ..Self::default() };
        *self == none
    }

    /// Adds what came after it.
    pub fn add(&mut self, later: Self) {
        self.lost += later.lost;
        self.sent += later.sent;
        self.received += later.received;
        self.forwarded += later.forwarded;
        self.duplicates += later.duplicates;
        self.unreachable.add(later.unreachable);
        self.ttls = later.ttls;
        self.addresses = later.addresses;
    }
}

/// One RST packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetPacket {
    /// CLOCK_BOOTTIME, as `Moment::mono`.
    pub at: Duration,
    /// Where it was seen.
    pub netns: NetnsId,
    /// On loopback each RST is here twice, as sent and as received: both ends live in this namespace.
    pub direction: Direction,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    /// `local`, or `peer`, is an address of this namespace. That of a packet that is only forwarded is not `local_here`, although
    /// NAT puts an address of this namespace in the place of the sender's, or took it out of the place of the receiver's.
    pub local_here: bool,
    pub peer_here: bool,
    /// It came in just before.
    pub forwarded: bool,
    pub interface: u32,
    pub loopback: bool,
    /// RST, ACK, ... as in the TCP header.
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    /// Not scaled.
    pub window: u16,
    /// IPv4 TTL or IPv6 hop limit, as seen here: for a received packet the sender's minus the hops.
    pub ttl: u8,
    /// IPv4 only.
    pub ip_id: Option<u16>,
    /// What the connection's packets before it say about that; only for received ones.
    pub track: Option<Track>,
    /// TCP options are present.
    pub options: bool,
    /// What it says of its own reason.
    pub stated: Option<Stated>,
}

/// Which code of the kernel built a RST; see [`ResetPacket::signature`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signature {
    /// tcp_send_active_reset(): a socket gave up its own connection.
    Active,
    /// tcp_v4_send_reset(), tcp_v6_send_reset(), or netfilter's REJECT: an answer to a segment.
    Answer,
    /// Not a form that Linux builds.
    Foreign,
}

impl ResetPacket {
    /// From another host.
    pub fn came_from_a_peer(&self) -> bool {
        self.direction == Direction::Received && self.local_here && !self.peer_here && !self.loopback
    }

    /// Netfilter made it to answer what this host sent: it carries the peer's address, on the loopback interface.
    pub fn came_back(&self) -> bool {
        self.direction == Direction::Received && self.local_here && !self.peer_here && self.loopback
    }

    /// It was made here with the address of another: by a forward rule, or by TCP for a transparent proxy. What is forwarded
    /// came in before, and was routed, so that its TTL is no initial one.
    pub fn is_in_anothers_name(&self) -> bool {
        let foreign = !self.local_here && !self.peer_here && !self.forwarded;
        let sent = self.direction == Direction::Sent && self.signature() == Signature::Answer;
        foreign && sent && INITIAL_TTLS.contains(&self.ttl)
    }

    /// It is `came` after that was forwarded: a router takes one from the TTL, a bridge none, and NAT changes the ends.
    fn is_forwarded(&self, came: &Self) -> bool {
        let hops = if (self.local, self.peer) == (came.peer, came.local) { 0..=1 } else { 1..=1 };
        self.direction == Direction::Sent
            && came.direction == Direction::Received
            && (self.seq, self.ack, self.flags, self.window) == (came.seq, came.ack, came.flags, came.window)
            && (self.ip_id, self.options) == (came.ip_id, came.options)
            && came.ttl.checked_sub(self.ttl).is_some_and(|taken| hops.contains(&taken))
    }

    pub fn has_ack(&self) -> bool {
        self.flags & FLAG_ACK != 0
    }

    /// From window, flags, sequence numbers and options (net/ipv4/tcp_output.c, tcp_ipv4.c; measured on Linux 6.18). Other
    /// systems build other forms: `Foreign` on a received RST does not by itself mean a middlebox.
    pub fn signature(&self) -> Signature {
        let bare = self.window == 0 && !self.options && self.ip_id.is_none_or(|id| id == 0);
        Signature::of(self.has_ack(), bare, self.seq, self.ack)
    }
}

impl Signature {
    /// `bare`: window and IP id are 0, and there are no options.
    pub fn of(has_ack: bool, bare: bool, seq: u32, ack: u32) -> Self {
        // An answer has either an ACK or a sequence number of its own, never both.
        if bare && (has_ack && seq == 0 || !has_ack && ack == 0) {
            Self::Answer
        } else if has_ack {
            Self::Active
        } else {
            Self::Foreign
        }
    }
}

/// Collects the answers to `Ask::ResetPackets`.
pub type PacketParser = Parser<Packets>;

/// What the blocks say.
#[derive(Default)]
pub struct Packets {
    started: bool,
    /// CLOCK_REALTIME minus CLOCK_BOOTTIME, ns.
    since_boot: u64,
    addresses: Arc<LocalAddresses>,
    recent: VecDeque<ResetPacket>,
    /// So many of `recent`, at most, lie behind one from another interface than the last.
    others: usize,
    /// So many of `recent`, at most, lie behind the latest one that came in from outside.
    arrived: usize,
    lost: (u64, u64),
    /// Shared with what was handed over last, so that a live view does not copy it in each tick.
    ttls: Arc<PeerTtls>,
    tracks: ip_id::Tracks,
    out: ResetPackets,
}

impl PacketParser {
    /// Packets that the next [`Self::take`] hands over.
    pub fn waiting(&self) -> usize {
        self.content.out.packets.len()
    }

    /// Whether the namespace under observation has this address.
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.content.is_local(address)
    }
}

impl Content for Packets {
    type Parsed = ResetPackets;
    const SOURCE: &'static str = SOURCE;

    fn block(&mut self, kind: Kind, _: u16, payload: &[u8]) -> Result<(), ParseError> {
        let broken = |problem: &str| ParseError::new(SOURCE, None, problem);
        if kind == Kind::Records {
            let mut rest = payload;
            while !rest.is_empty() {
                rest = self.record(rest).ok_or_else(|| broken("a packet record is cut short"))?;
            }
            return Ok(());
        }
        let text = stream::text(SOURCE, kind, payload)?;
        match kind {
            Kind::Start if text.lines().next() == Some(MAGIC) => self.started = true,
            Kind::Start => return Err(broken("the stream is of another kind or version")),
            _ if !self.started => return Err(broken("the stream does not begin with a start block")),
            Kind::Scope => {
                let mut addresses = LocalAddresses::default();
                text.lines().for_each(|line| addresses.line(line));
                self.addresses = Arc::new(addresses);
            }
            Kind::Clock => {
                let mut numbers = text.split(' ').map(str::parse::<u64>);
                let (Some(Ok(real)), Some(Ok(boot))) = (numbers.next(), numbers.next()) else {
                    return Err(broken("a clock block has no two numbers"));
                };
                self.since_boot = real.saturating_sub(boot);
            }
            Kind::Counts => {
                self.lost.1 = text.trim().parse().map_err(|_| broken("a count is not a number"))?;
                if self.lost.1 > 0 {
                    self.tracks.stop();
                }
            }
            Kind::Note if text == FEWER => self.tracks.stop(),
            _ => {}
        }
        Ok(())
    }

    fn take(&mut self) -> ResetPackets {
        let (taken, total) = &mut self.lost;
        let lost = total.saturating_sub(*taken);
        *taken = *total;
        // In a storm as many come again: not grown anew each time.
        let packets = Vec::with_capacity(self.out.packets.len());
        let mut out = std::mem::replace(&mut self.out, ResetPackets { packets, ..ResetPackets::default() });
        (out.account.lost, out.account.ttls) = (lost, Arc::clone(&self.ttls));
        out.account.addresses = Arc::clone(&self.addresses);
        out
    }
}

impl Packets {
    /// Takes one record; the rest, or `None` when it is cut short. What is neither TCP nor an ICMP error about it is passed over.
    fn record<'a>(&mut self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (head, rest) = bytes.split_first_chunk::<RECORD_HEAD>()?;
        let (time, head) = head.split_first_chunk::<8>()?;
        let (interface, head) = head.split_first_chunk::<4>()?;
        let (hardware, head) = head.split_first_chunk::<2>()?;
        let (&[kind, _], head) = head.split_first_chunk::<2>()?;
        let length = u32::from_le_bytes(*head.first_chunk::<4>()?) as usize;
        let (packet, rest) = rest.split_at_checked(length)?;
        let outgoing = kind == PACKET_OUTGOING;
        let unfragmented = packet.get(6).is_some_and(|flags| flags & DONT_FRAGMENT != 0);
        let Some(mut packet) = parse(packet, outgoing) else {
            if let Some(error) = unreachable::parse(packet, outgoing, |address| self.is_local(address)) {
                self.out.account.unreachable.count(error);
            }
            return Some(rest);
        };
        if packet.flags & FLAG_RST == 0 {
            if packet.direction == Direction::Received {
                Arc::make_mut(&mut self.ttls).add(packet.peer, packet.ttl);
                // Without DF an id is drawn from counters of many connections.
                if let Some(id) = packet.ip_id.filter(|_| unfragmented) {
                    self.tracks.add(packet.local, packet.peer, id);
                }
            }
            return Some(rest);
        }
        if let Some(id) = packet.ip_id.filter(|_| packet.direction == Direction::Received) {
            packet.track = self.tracks.judge(packet.local, packet.peer, id);
        }
        packet.at = Duration::from_nanos(u64::from_le_bytes(*time).saturating_sub(self.since_boot));
        packet.interface = u32::from_le_bytes(*interface);
        packet.loopback = u16::from_le_bytes(*hardware) == ARPHRD_LOOPBACK;
        (packet.local_here, packet.peer_here) = (self.is_local(packet.local.ip()), self.is_local(packet.peer.ip()));
        self.count(packet);
        Some(rest)
    }

    fn is_local(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.addresses.contains(address)
    }

    fn count(&mut self, mut packet: ResetPacket) {
        // A storm mostly has one interface: nothing to compare with.
        self.others = match self.recent.back() {
            Some(last) if last.interface != packet.interface => REMEMBERED,
            _ => self.others.saturating_sub(1),
        };
        let same = |seen: &ResetPacket| {
            seen.interface != packet.interface
                && seen.seq == packet.seq
                && ResetPacket { at: packet.at, interface: packet.interface, ..seen.clone() } == packet
        };
        let mut recent = self.recent.iter().rev().take_while(|seen| packet.at.abs_diff(seen.at) < TWICE);
        if self.others > 0 && recent.any(same) {
            self.out.account.duplicates += 1;
            return;
        }
        self.arrived = match packet.direction {
            Direction::Received if !packet.loopback => REMEMBERED,
            _ => self.arrived.saturating_sub(1),
        };
        if self.recent.len() >= REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(packet.clone());
        self.mark_forwarded(&mut packet);
        let account = &mut self.out.account;
        match (packet.local_here, packet.direction) {
            (false, _) if packet.forwarded || packet.is_in_anothers_name() => {}
            (false, _) => account.forwarded += 1,
            (true, Direction::Sent) => account.sent += 1,
            (true, Direction::Received) => account.received += 1,
        }
        if self.out.packets.len() < MAX_PACKETS {
            self.out.packets.push(packet);
        } else {
            self.out.dropped += 1;
        }
    }

    /// If it came in before, neither of the two is a packet of this namespace, whose address is there by translation only.
    fn mark_forwarded(&mut self, packet: &mut ResetPacket) {
        if self.arrived == 0 || packet.direction != Direction::Sent {
            return;
        }
        let mut recent = self.recent.iter().rev().take_while(|seen| packet.at.abs_diff(seen.at) < TWICE);
        let Some(came) = recent.find(|seen| packet.is_forwarded(seen)) else { return };
        (packet.forwarded, packet.local_here) = (true, false);
        let of_ours = self.out.packets.iter_mut().rev().take_while(|seen| packet.at.abs_diff(seen.at) < TWICE);
        if let Some(of_ours) = of_ours.filter(|seen| seen.local_here).find(|seen| *seen == came) {
            of_ours.local_here = false;
            self.out.account.received -= 1;
            self.out.account.forwarded += 1;
        }
    }
}

/// From the IP header on. `None` when it is no complete TCP header.
fn parse(packet: &[u8], outgoing: bool) -> Option<ResetPacket> {
    let Ip { source, destination, ttl, id: ip_id, payload: tcp, .. } =
        Ip::parse(packet).filter(|ip| ip.protocol == ip::TCP)?;
    let short = |at: usize| tcp.get(at..).and_then(|b| b.first_chunk::<2>()).copied().map(u16::from_be_bytes);
    let long = |at: usize| tcp.get(at..).and_then(|b| b.first_chunk::<4>()).copied().map(u32::from_be_bytes);
    let (from, to) = (SocketAddr::new(source, short(0)?), SocketAddr::new(destination, short(2)?));
    let flags = *tcp.get(13)?;
    let (direction, local, peer) = if outgoing { (Direction::Sent, from, to) } else { (Direction::Received, to, from) };
    Some(ResetPacket {
        at: Duration::ZERO,
        netns: NetnsId::default(),
        direction,
        local,
        peer,
        local_here: false,
        peer_here: false,
        forwarded: false,
        interface: 0,
        loopback: false,
        flags,
        seq: long(4)?,
        ack: long(8)?,
        window: short(14)?,
        ttl,
        ip_id,
        track: None,
        options: tcp.get(12)? >> 4 > 5,
        stated: if flags & FLAG_RST != 0 { stated::read(tcp) } else { None },
    })
}

#[cfg(test)]
mod tests;
