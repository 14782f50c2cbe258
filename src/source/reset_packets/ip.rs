//! The IP header before a segment or an ICMP error. IPv6 extension headers are not followed.

use std::net::IpAddr;

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const ICMPV6: u8 = 58;

/// What a header says, and what follows it.
pub struct Ip<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// IPv4 TTL or IPv6 hop limit.
    pub ttl: u8,
    /// IPv4 only.
    pub id: Option<u16>,
    pub protocol: u8,
    /// As much of it as was captured, without what pads a short frame.
    pub payload: &'a [u8],
}

impl<'a> Ip<'a> {
    /// `None` when the header is cut short.
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        let half = |at: usize| Some(usize::from(u16::from_be_bytes(*packet.get(at..)?.first_chunk()?)));
        let version = packet.first()? >> 4;
        // A segment that the interface will split says 0.
        let length =
            if version == 4 { half(2)? } else { half(4)?.checked_add(40).filter(|length| *length > 40).unwrap_or(0) };
        let packet = packet.get(..length).filter(|_| length > 0).unwrap_or(packet);
        let byte = |at: usize| packet.get(at).copied();
        match version {
            4 => Some(Self {
                source: (*packet.get(12..)?.first_chunk::<4>()?).into(),
                destination: (*packet.get(16..)?.first_chunk::<4>()?).into(),
                ttl: byte(8)?,
                id: Some(u16::from_be_bytes(*packet.get(4..)?.first_chunk()?)),
                protocol: byte(9)?,
                payload: packet.get(usize::from(byte(0)? & 0xf) * 4..)?,
            }),
            6 => Some(Self {
                source: (*packet.get(8..)?.first_chunk::<16>()?).into(),
                destination: (*packet.get(24..)?.first_chunk::<16>()?).into(),
                ttl: byte(7)?,
                id: None,
                protocol: byte(6)?,
                payload: packet.get(40..)?,
            }),
            _ => None,
        }
    }
}
