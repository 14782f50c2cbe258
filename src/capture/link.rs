//! From a frame to its TCP segments: the link layer, tags, tunnels, IP with its extension headers.
//!
//! Counted as tshark counts: the inner packet of a tunnel is the packet, a header quoted in an ICMP error is none.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use etherparse::{LaxIpSlice, TcpOptionElement, TcpOptionsIterator};

use super::file::Frame;
use crate::source::reset_packets::{Quoted, Stated, quoted, stated};

/// Tunnels within tunnels that are followed.
const DEEPEST: usize = 4;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

/// One TCP segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Since the Unix epoch.
    pub at: Duration,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub flags: u8,
    /// A bit that no TCP sets (RFC 9293, 3.1: reserved).
    pub reserved: bool,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    /// Bytes of data as it was sent, however few of them were captured.
    pub length: u32,
    /// As many of them as were captured.
    pub data: &'a [u8],
    /// IPv4 TTL or IPv6 hop limit; `None` where a text does not tell it, as of the next.
    pub ttl: Option<u8>,
    pub ip_id: Option<u16>,
    pub options: Options,
    pub stated: Option<Stated>,
    /// The host that captured sent it, where the link layer tells.
    pub sent_here: Option<bool>,
}

/// TCP options of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    pub any: bool,
    pub scale: Option<u8>,
    pub timestamps: Option<(u32, u32)>,
    /// They were cut off, or a text does not show them.
    pub unknown: bool,
}

impl Segment<'_> {
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The sequence number behind it (RFC 9293, 3.4: SYN and FIN take one each).
    pub fn end(&self) -> u32 {
        let control = u32::from(self.has(SYN)) + u32::from(self.has(FIN));
        self.seq.wrapping_add(self.length).wrapping_add(control)
    }
}

/// What a frame holds.
#[derive(Debug)]
pub enum Held<'a> {
    Segment(Segment<'a>),
    /// An ICMP error about a TCP segment.
    Error(Quoted),
    /// Neither.
    Other,
    /// A link layer that is not read.
    Unread,
}

/// Link types by their number (www.tcpdump.org/linktypes.html).
const NULL: u32 = 0;
const ETHERNET: u32 = 1;
const RAW: [u32; 5] = [12, 14, 101, 228, 229];
const LOOP: u32 = 108;
const SLL: u32 = 113;
const SLL2: u32 = 276;
const PPP: [u32; 2] = [9, 50];
const NFLOG: u32 = 239;

const VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TRANSPARENT_ETHERNET: u16 = 0x6558;
/// Of a Linux cooked header: PACKET_OUTGOING.
const OUTGOING: u16 = 4;

/// Reads a frame; `at` is its time.
pub fn read<'a>(frame: &Frame<'a>, at: Duration) -> Held<'a> {
    let of = Of { at, cut: frame.cut, sent_here: None };
    let data = frame.data;
    match frame.link {
        // The address family in the byte order of the host; the version stands in the packet.
        NULL | LOOP => data.get(4..).map_or(Held::Other, |packet| ip(packet, of, 0)),
        ETHERNET => ethernet(data, of, 0),
        SLL => match (half(data, 0), half(data, 14), data.get(16..)) {
            (Some(kind), Some(protocol), Some(rest)) => tagged(protocol, rest, of.sent(kind == OUTGOING), 0),
            _ => Held::Other,
        },
        SLL2 => match (half(data, 0), data.get(10), data.get(20..)) {
            (Some(protocol), Some(kind), Some(rest)) => {
                tagged(protocol, rest, of.sent(u16::from(*kind) == OUTGOING), 0)
            }
            _ => Held::Other,
        },
        link if RAW.contains(&link) => ip(data, of, 0),
        // RFC 1662, 3.1: address and control may be left out.
        link if PPP.contains(&link) => match data {
            [0xff, 0x03, rest @ ..] => ppp(rest, of),
            _ => ppp(data, of),
        },
        NFLOG => nflog(data, of),
        _ => Held::Unread,
    }
}

/// What the frame says of all that is in it.
#[derive(Clone, Copy)]
struct Of {
    at: Duration,
    cut: u32,
    sent_here: Option<bool>,
}

impl Of {
    fn sent(self, sent: bool) -> Self {
        Self { sent_here: Some(sent), ..self }
    }
}

fn half(data: &[u8], at: usize) -> Option<u16> {
    data.get(at..).and_then(|data| data.first_chunk()).map(|bytes| u16::from_be_bytes(*bytes))
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..).and_then(|data| data.first_chunk()).map(|bytes| u32::from_be_bytes(*bytes))
}

/// The protocol of PPP in one or two bytes (RFC 1661, 2), and what follows.
fn ppp<'a>(data: &'a [u8], of: Of) -> Held<'a> {
    match data {
        [0x21 | 0x57, rest @ ..] | [0x00, 0x21 | 0x57, rest @ ..] => ip(rest, of, 0),
        _ => Held::Other,
    }
}

/// Attributes of netfilter's log, in the byte order of the host (www.tcpdump.org/linktypes/LINKTYPE_NFLOG.html).
fn nflog<'a>(data: &'a [u8], of: Of) -> Held<'a> {
    const PAYLOAD: u16 = 9;
    let mut rest = data.get(4..).unwrap_or_default();
    while let (Some(length), Some(kind)) = (rest.first_chunk().copied(), rest.get(2..).and_then(|it| it.first_chunk()))
    {
        let length = usize::from(u16::from_le_bytes(length));
        let Some(value) = rest.get(4..length) else { return Held::Other };
        if u16::from_le_bytes(*kind) & 0x7fff == PAYLOAD {
            return ip(value, of, 0);
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Held::Other
}

fn ethernet<'a>(data: &'a [u8], of: Of, depth: usize) -> Held<'a> {
    // IEEE 802.3: what is no EtherType is a length, and LLC with SNAP follows (RFC 1042).
    const LONGEST: u16 = 1_500;
    if half(data, 12).is_some_and(|length| length <= LONGEST) {
        return match (data.get(14..20), half(data, 20), data.get(22..)) {
            (Some([0xaa, 0xaa, 0x03, 0, 0, 0]), Some(protocol), Some(rest)) => tagged(protocol, rest, of, depth),
            _ => Held::Other,
        };
    }
    match (half(data, 12), data.get(14..)) {
        (Some(protocol), Some(rest)) => tagged(protocol, rest, of, depth),
        _ => Held::Other,
    }
}

/// Behind an EtherType: tags, labels and PPPoE up to IP.
fn tagged<'a>(mut protocol: u16, mut data: &'a [u8], of: Of, depth: usize) -> Held<'a> {
    const MPLS: [u16; 2] = [0x8847, 0x8848];
    const PPPOE_SESSION: u16 = 0x8864;
    loop {
        match protocol {
            IPV4 | IPV6 => return ip(data, of, depth),
            TRANSPARENT_ETHERNET if depth < DEEPEST => return ethernet(data, of, depth + 1),
            tag if VLAN.contains(&tag) => {
                let (Some(next), Some(rest)) = (half(data, 2), data.get(4..)) else { return Held::Other };
                (protocol, data) = (next, rest);
            }
            label if MPLS.contains(&label) => {
                let (Some(label), Some(rest)) = (word(data, 0), data.get(4..)) else { return Held::Other };
                data = rest;
                // RFC 3032, 2.1: the last label of the stack; what follows is IP in nearly all networks.
                if label & 0x100 != 0 {
                    return ip(data, of, depth);
                }
            }
            PPPOE_SESSION => {
                // RFC 2516, 4, and the numbers of PPP for IPv4 and IPv6.
                let (Some(ppp), Some(rest)) = (half(data, 6), data.get(8..)) else { return Held::Other };
                return if [0x0021, 0x0057].contains(&ppp) { ip(rest, of, depth) } else { Held::Other };
            }
            _ => return Held::Other,
        }
    }
}

fn ip<'a>(data: &'a [u8], of: Of, depth: usize) -> Held<'a> {
    const ICMP: u8 = 1;
    const IP_IN_IP: [u8; 2] = [4, 41];
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    const GRE: u8 = 47;
    const ICMPV6: u8 = 58;
    let Ok((packet, _)) = LaxIpSlice::from_slice(data) else { return Held::Other };
    let (source, destination, ttl, ip_id, claimed, first) = match &packet {
        LaxIpSlice::Ipv4(packet) => {
            let header = packet.header();
            (
                IpAddr::V4(header.source_addr()),
                IpAddr::V4(header.destination_addr()),
                header.ttl(),
                Some(header.identification()),
                usize::from(header.total_len()),
                header.fragments_offset().value() == 0,
            )
        }
        LaxIpSlice::Ipv6(packet) => {
            let header = packet.header();
            // A jumbogram, and a segment that the interface will split, say 0.
            let claimed = match usize::from(header.payload_length()) {
                0 => 0,
                length => length + 40,
            };
            let first = !packet.is_payload_fragmented() || data.get(42).is_none_or(|_| is_first_fragment(data));
            let ends = (IpAddr::V6(header.source_addr()), IpAddr::V6(header.destination_addr()));
            (ends.0, ends.1, header.hop_limit(), None, claimed, first)
        }
    };
    let payload = packet.payload();
    // Only the first fragment has a header of TCP.
    if !first {
        return Held::Other;
    }
    let before = data.len().saturating_sub(rest_from(data, payload.payload));
    let claimed = match claimed {
        0 => payload.payload.len() + of.cut as usize,
        claimed => claimed.saturating_sub(before),
    };
    match payload.ip_number.0 {
        TCP => segment(payload.payload, claimed, (source, destination), (ttl, ip_id), of),
        ICMP | ICMPV6 => quoted(data).map_or(Held::Other, Held::Error),
        UDP if depth < DEEPEST => tunnel(payload.payload, of, depth),
        GRE if depth < DEEPEST => gre(payload.payload, of, depth),
        inner if IP_IN_IP.contains(&inner) && depth < DEEPEST => ip(payload.payload, of, depth + 1),
        _ => Held::Other,
    }
}

/// How many bytes of `data` are from the beginning of `part` on.
fn rest_from(data: &[u8], part: &[u8]) -> usize {
    let offset = (part.as_ptr() as usize).saturating_sub(data.as_ptr() as usize);
    data.len().saturating_sub(offset)
}

/// Offset 0 in the fragment header, wherever that stands: etherparse has walked to it.
fn is_first_fragment(data: &[u8]) -> bool {
    const FRAGMENT: u8 = 44;
    let (mut next, mut at) = (data.get(6).copied(), 40);
    for _ in 0..8 {
        match next {
            Some(FRAGMENT) => return half(data, at + 2).is_some_and(|offset| offset & 0xfff8 == 0),
            Some(_) => {
                let (Some(header), Some(length)) = (data.get(at), data.get(at + 1)) else { return false };
                next = Some(*header);
                at += (usize::from(*length) + 1) * 8;
            }
            None => return false,
        }
    }
    false
}

/// VXLAN (RFC 7348, 4789) and Geneve (RFC 8926, 6081); Linux used 8472 for VXLAN before the port was assigned.
fn tunnel<'a>(udp: &'a [u8], of: Of, depth: usize) -> Held<'a> {
    let (Some(port), Some(inner)) = (half(udp, 2), udp.get(8..)) else { return Held::Other };
    match port {
        4789 | 8472 => match (inner.first(), inner.get(8..)) {
            (Some(flags), Some(rest)) if flags & 0x08 != 0 => ethernet(rest, of, depth + 1),
            _ => Held::Other,
        },
        // GTP-U (3GPP TS 29.281, 5.1): extension headers, sequence number and N-PDU number come in four bytes if any of them does.
        2152 => match (inner.first(), inner.get(1), inner.get(8..)) {
            (Some(flags), Some(255), Some(rest)) if flags >> 5 == 1 && flags & 0x07 == 0 => ip(rest, of, depth + 1),
            (Some(flags), Some(255), Some(rest)) if flags >> 5 == 1 => gtp_extended(rest, of, depth + 1),
            _ => Held::Other,
        },
        6081 => {
            let (Some(first), Some(protocol)) = (inner.first(), half(inner, 2)) else { return Held::Other };
            let options = usize::from(first & 0x3f) * 4;
            inner.get(8 + options..).map_or(Held::Other, |rest| tagged(protocol, rest, of, depth + 1))
        }
        _ => Held::Other,
    }
}

/// Behind the optional four bytes of GTP-U, the last of which is the type of the next extension header; each says its length in units
/// of four bytes, and ends with the type of the next.
fn gtp_extended<'a>(data: &'a [u8], of: Of, depth: usize) -> Held<'a> {
    let (mut next, mut rest) = (data.get(3).copied(), data.get(4..).unwrap_or_default());
    for _ in 0..8 {
        if next == Some(0) {
            return ip(rest, of, depth);
        }
        let length = usize::from(rest.first().copied().unwrap_or(0)) * 4;
        let Some(last) = length.checked_sub(1) else { return Held::Other };
        next = rest.get(last).copied();
        rest = rest.get(length..).unwrap_or_default();
    }
    Held::Other
}

/// RFC 2784 and 2890: checksum, key and sequence number are there where their bits say so.
fn gre<'a>(data: &'a [u8], of: Of, depth: usize) -> Held<'a> {
    let (Some(flags), Some(protocol)) = (half(data, 0), half(data, 2)) else { return Held::Other };
    let parts = [0x8000, 0x2000, 0x1000].iter().filter(|bit| flags & **bit != 0).count();
    // Another version is that of PPTP.
    if flags & 7 != 0 {
        return Held::Other;
    }
    let Some(rest) = data.get(4 + parts * 4..) else { return Held::Other };
    match protocol {
        // ERSPAN (draft-foschiano-erspan): type I has no header of its own and GRE no sequence number, type II has eight bytes.
        0x88be if flags & 0x1000 == 0 => ethernet(rest, of, depth + 1),
        0x88be => rest.get(8..).map_or(Held::Other, |rest| ethernet(rest, of, depth + 1)),
        0x22eb => match (rest.get(11), rest.get(12..)) {
            (Some(flags), Some(inner)) => {
                let platform = if flags & 1 == 0 { 0 } else { 8 };
                inner.get(platform..).map_or(Held::Other, |rest| ethernet(rest, of, depth + 1))
            }
            _ => Held::Other,
        },
        protocol => tagged(protocol, rest, of, depth + 1),
    }
}

/// `claimed`: bytes of TCP as it was sent.
fn segment<'a>(
    tcp: &'a [u8],
    claimed: usize,
    (source, destination): (IpAddr, IpAddr),
    (ttl, ip_id): (u8, Option<u16>),
    of: Of,
) -> Held<'a> {
    const HEADER: usize = 20;
    let head = (half(tcp, 0), half(tcp, 2), word(tcp, 4), word(tcp, 8), tcp.get(12), tcp.get(13), half(tcp, 14));
    let (Some(from), Some(to), Some(seq), Some(ack), Some(offset), Some(flags), Some(window)) = head else {
        return Held::Other;
    };
    let header = usize::from(offset >> 4) * 4;
    if header < HEADER {
        return Held::Other;
    }
    let written = tcp.get(HEADER..header.min(tcp.len())).unwrap_or_default();
    let mut options = Options { any: header > HEADER, unknown: tcp.len() < header, ..Options::default() };
    for option in TcpOptionsIterator::from_slice(written) {
        match option {
            Ok(TcpOptionElement::WindowScale(scale)) => options.scale = Some(scale.min(14)),
            Ok(TcpOptionElement::Timestamp(value, echo)) => options.timestamps = Some((value, echo)),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    Held::Segment(Segment {
        at: of.at,
        from: SocketAddr::new(source, from),
        to: SocketAddr::new(destination, to),
        flags: *flags,
        reserved: offset & 0x0e != 0,
        seq,
        ack,
        window,
        length: u32::try_from(claimed.saturating_sub(header)).unwrap_or(u32::MAX).min(1 << 20),
        data: tcp.get(header..).map_or(&[], |data| data.get(..claimed.saturating_sub(header)).unwrap_or(data)),
        ttl: Some(ttl),
        ip_id,
        options,
        stated: if flags & RST != 0 { stated(tcp) } else { None },
        sent_here: of.sent_here,
    })
}
