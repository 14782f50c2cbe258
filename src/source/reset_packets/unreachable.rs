//! ICMP "destination unreachable" about segments of TCP: how a firewall refuses without a RST, and how a router tells that a
//! host is down. Each quotes the segment that it is about (RFC 792, RFC 1812 4.3.2.3, RFC 4443 3.1).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::ip::{ICMP, ICMPV6, Ip, TCP};
use crate::source::reset_events::Direction;

/// Different ones that are told apart; more are only counted.
const MOST: usize = 1024;

/// What an ICMP error says about the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// No TCP says so, which answers with RST: a packet filter does (the default of iptables' REJECT).
    Port,
    /// "Administratively prohibited", in one of its forms: a packet filter.
    Prohibited,
    /// No route, or the host does not answer on its network. A packet filter may say it, too.
    Host,
}

/// An ICMP error about one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unreachable {
    /// Of the error.
    pub direction: Direction,
    pub code: Code,
    /// Who sent the error.
    pub reporter: IpAddr,
    /// Who had sent the segment: the caller, or the service where the segment was its answer to a SYN.
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// The segment was a service's answer to a SYN.
    pub answer: bool,
    /// They are addresses of this namespace.
    pub reporter_here: bool,
    pub source_here: bool,
    pub destination_here: bool,
}

/// Errors of a window by kind. The caller's port is 0: each connect has another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unreachables {
    pub counts: BTreeMap<Unreachable, u64>,
    /// Those that found no room.
    pub others: u64,
}

impl Unreachables {
    pub fn count(&mut self, error: Unreachable) {
        self.add_times(error, 1);
    }

    /// Adds what came after it.
    pub fn add(&mut self, later: Self) {
        later.counts.into_iter().for_each(|(error, count)| self.add_times(error, count));
        self.others += later.others;
    }

    fn add_times(&mut self, error: Unreachable, count: u64) {
        if self.counts.len() < MOST || self.counts.contains_key(&error) {
            *self.counts.entry(error).or_default() += count;
        } else {
            self.others += count;
        }
    }
}

/// An ICMP error and the segment that it quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quoted {
    pub code: Code,
    /// Who sent the error, and to whom.
    pub reporter: IpAddr,
    pub to: IpAddr,
    /// Ends of the segment.
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// SYN and ACK of the segment, as they stand in a TCP header.
    pub flags: u8,
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Reads it from the IP header on. `None` for anything but "unreachable" about TCP.
pub fn quoted(packet: &[u8]) -> Option<Quoted> {
    let outer = Ip::parse(packet)?;
    let (kind, number) = (*outer.payload.first()?, *outer.payload.get(1)?);
    // linux/icmp.h, linux/icmpv6.h.
    let code = match (outer.protocol, kind, number) {
        (ICMP, 3, 3) | (ICMPV6, 1, 4) => Code::Port,
        (ICMP, 3, 9 | 10 | 13) | (ICMPV6, 1, 1 | 5 | 6) => Code::Prohibited,
        (ICMP, 3, 0 | 1 | 6 | 7) | (ICMPV6, 1, 0 | 3) => Code::Host,
        _ => return None,
    };
    let inner = Ip::parse(outer.payload.get(8..)?)?;
    if inner.protocol != TCP {
        return None;
    }
    let port = |at: usize| Some(u16::from_be_bytes(*inner.payload.get(at..)?.first_chunk()?));
    Some(Quoted {
        code,
        reporter: outer.source,
        to: outer.destination,
        source: SocketAddr::new(inner.source, port(0)?),
        destination: SocketAddr::new(inner.destination, port(2)?),
        // Old routers quote 8 bytes, and not the flags: nearly all that is refused is a SYN.
        flags: inner.payload.get(13).map_or(SYN, |flags| flags & (SYN | ACK)),
    })
}

/// The error in a packet. `None` for anything else, and for errors about segments of open connections, which TCP takes no
/// notice of (RFC 1122, 4.2.3.9; net/ipv4/tcp_ipv4.c tcp_v4_err).
pub(super) fn parse(packet: &[u8], outgoing: bool, is_local: impl Fn(IpAddr) -> bool) -> Option<Unreachable> {
    let Quoted { code, reporter, mut source, mut destination, flags, .. } = quoted(packet)?;
    let answer = flags == SYN | ACK;
    match flags {
        SYN => source.set_port(0),
        _ if answer => destination.set_port(0),
        _ => return None,
    }
    Some(Unreachable {
        direction: if outgoing { Direction::Sent } else { Direction::Received },
        code,
        reporter,
        source,
        destination,
        answer,
        reporter_here: is_local(reporter),
        source_here: is_local(source.ip()),
        destination_here: is_local(destination.ip()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ICMP of 10.0.0.1 to 10.0.0.9 about a segment of 10.0.0.9:40000 to 10.0.0.1:8080.
    fn error(code: u8, flags: u8) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 68, 0, 1, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 9, 3, code];
        packet.extend_from_slice(&[0; 6]);
        packet.extend_from_slice(&[0x45, 0, 0, 60, 0, 2, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 9, 10, 0, 0, 1]);
        packet.extend_from_slice(&[0x9c, 0x40, 0x1f, 0x90, 0, 0, 0, 7, 0, 0, 0, 0, 0xa0, flags, 0xfa, 0xf0]);
        packet
    }

    fn read(bytes: &[u8], outgoing: bool) -> Option<Unreachable> {
        super::parse(bytes, outgoing, |address| address.to_string() == "10.0.0.1")
    }

    #[test]
    fn a_refused_syn_names_the_service_and_not_the_callers_port() {
        let of = |bytes: &[u8]| read(bytes, true);
        let refused = of(&error(3, 2)).expect("an error about a SYN");
        assert_eq!((refused.direction, refused.code, refused.answer), (Direction::Sent, Code::Port, false));
        assert_eq!(refused.destination, "10.0.0.1:8080".parse().unwrap());
        assert_eq!(refused.source, "10.0.0.9:0".parse().unwrap());
        assert!(refused.reporter_here && refused.destination_here && !refused.source_here);
        assert_eq!(of(&error(10, 2)).map(|error| error.code), Some(Code::Prohibited));
        assert_eq!(of(&error(1, 2)).map(|error| error.code), Some(Code::Host));
        assert_eq!(of(&error(3, 2)[..56]), of(&error(3, 2)), "a router that quotes 8 bytes");
    }

    #[test]
    fn errors_about_open_connections_and_other_protocols_are_nothing() {
        assert_eq!(read(&error(3, 0x18), true), None);
        assert_eq!(read(&error(4, 2), true), None, "fragmentation needed");
        let mut udp = error(3, 2);
        udp[37] = 17;
        assert_eq!(read(&udp, true), None);
        for cut in 0..error(3, 2).len() {
            let _ = read(&error(3, 2)[..cut], false);
        }
    }

    #[test]
    fn an_answer_to_a_syn_keeps_the_services_port() {
        let refused = read(&error(3, 0x12), false).expect("an error about a SYN-ACK");
        assert!(refused.answer && refused.source.port() == 40_000 && refused.destination.port() == 0);
    }

    #[test]
    fn memory_is_bounded_and_nothing_is_uncounted() {
        let first = read(&error(3, 2), true).expect("an error");
        let mut all = Unreachables::default();
        for port in 0..2000 {
            all.count(Unreachable { destination: SocketAddr::new(first.destination.ip(), port), ..first });
        }
        assert_eq!((all.counts.len(), all.others), (MOST, 2000 - MOST as u64));
    }
}
