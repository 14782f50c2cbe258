//! TCP segments made by hand, for what no well-behaved client sends: floods, probes, forged resets. IPv4 only: the
//! kernel treats both families alike from here on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, eth, ipproto, recv, sendto, socket_with,
};

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;

const IP_HEADER: usize = 20;
const TCP_HEADER: usize = 20;

/// One TCP segment with its IPv4 header (RFC 791, RFC 9293). Numbers are in host order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub source_port: u16,
    pub destination_port: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub ttl: u8,
    /// IP id; with 0 the kernel chooses (raw(7), IP_HDRINCL): 0 again, because DF is set.
    pub id: u16,
    /// TSval and TSecr of the timestamp option (RFC 7323).
    pub timestamps: Option<(u32, u32)>,
    pub payload: Vec<u8>,
}

impl Segment {
    pub fn syn(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16), seq: u32) -> Self {
        Self {
            source: source.0,
            destination: destination.0,
            source_port: source.1,
            destination_port: destination.1,
            seq,
            ack: 0,
            flags: SYN,
            window: 64_000,
            ttl: 64,
            id: 0,
            timestamps: None,
            payload: Vec::new(),
        }
    }

    /// The IP packet.
    pub fn encode(&self) -> Vec<u8> {
        let mut options = Vec::new();
        if self.flags & SYN != 0 {
            // Maximum segment size 1460: without it the peer assumes 536 (RFC 9293 3.7.1).
            options.extend([2, 4, 0x05, 0xb4]);
        }
        if let Some((value, echo)) = self.timestamps {
            options.extend([1, 1, 8, 10]);
            options.extend(value.to_be_bytes());
            options.extend(echo.to_be_bytes());
        }
        let mut tcp = Vec::with_capacity(TCP_HEADER + options.len() + self.payload.len());
        tcp.extend(self.source_port.to_be_bytes());
        tcp.extend(self.destination_port.to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        tcp.push((((TCP_HEADER + options.len()) / 4) << 4) as u8);
        tcp.push(self.flags);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(options);
        tcp.extend(&self.payload);
        let sum = self.checksum(&tcp);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());

        let mut packet = Vec::with_capacity(IP_HEADER + tcp.len());
        packet.extend([0x45, 0]);
        packet.extend(((IP_HEADER + tcp.len()) as u16).to_be_bytes());
        packet.extend(self.id.to_be_bytes());
        // The kernel fills in the checksum.
        packet.extend([0x40, 0, self.ttl, libc::IPPROTO_TCP as u8, 0, 0]);
        packet.extend(self.source.octets());
        packet.extend(self.destination.octets());
        packet.extend(tcp);
        packet
    }

    /// `None` for anything that is not a whole IPv4 TCP segment.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let first = *packet.first()?;
        if first >> 4 != 4 || *packet.get(9)? != libc::IPPROTO_TCP as u8 {
            return None;
        }
        let total = usize::from(u16_at(packet, 2)?);
        let tcp = packet.get(usize::from(first & 0xf) * 4..total)?;
        let header = usize::from(*tcp.get(12)? >> 4) * 4;
        Some(Self {
            source: Ipv4Addr::from(u32_at(packet, 12)?),
            destination: Ipv4Addr::from(u32_at(packet, 16)?),
            source_port: u16_at(tcp, 0)?,
            destination_port: u16_at(tcp, 2)?,
            seq: u32_at(tcp, 4)?,
            ack: u32_at(tcp, 8)?,
            flags: *tcp.get(13)?,
            window: u16_at(tcp, 14)?,
            ttl: *packet.get(8)?,
            id: u16_at(packet, 4)?,
            timestamps: timestamps(tcp.get(TCP_HEADER..header)?),
            payload: tcp.get(header..)?.to_vec(),
        })
    }

    /// The sequence number that follows this segment.
    pub fn next_seq(&self) -> u32 {
        let flags = u32::from(self.flags & SYN != 0) + u32::from(self.flags & FIN != 0);
        self.seq.wrapping_add(self.payload.len() as u32).wrapping_add(flags)
    }

    fn checksum(&self, tcp: &[u8]) -> u16 {
        let mut pseudo = Vec::with_capacity(12 + tcp.len());
        pseudo.extend(self.source.octets());
        pseudo.extend(self.destination.octets());
        pseudo.extend([0, libc::IPPROTO_TCP as u8]);
        pseudo.extend((tcp.len() as u16).to_be_bytes());
        pseudo.extend(tcp);
        let words = pseudo.chunks(2).map(|pair| {
            u32::from(pair.first().copied().unwrap_or(0)) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))
        });
        let mut sum: u32 = words.sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }
}

fn timestamps(mut options: &[u8]) -> Option<(u32, u32)> {
    loop {
        match *options.first()? {
            0 => return None,
            1 => options = options.get(1..)?,
            8 => return Some((u32_at(options, 2)?, u32_at(options, 6)?)),
            _ => options = options.get(usize::from(*options.get(1)?).max(2)..)?,
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Raw access to the wire of the calling thread's namespace: sends any segment, sees all that pass, both ways.
pub struct Wire {
    raw: OwnedFd,
    packet: OwnedFd,
}

impl Wire {
    pub fn open() -> io::Result<Self> {
        let cloexec = SocketFlags::CLOEXEC;
        let raw = socket_with(AddressFamily::INET, SocketType::RAW, cloexec, Some(ipproto::RAW))?;
        let flags = cloexec | SocketFlags::NONBLOCK;
        let packet = socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, Some(eth::ALL))?;
        Ok(Self { raw, packet })
    }

    pub fn send(&self, segment: &Segment) -> io::Result<()> {
        let packet = segment.encode();
        sendto(&self.raw, &packet, SendFlags::NOSIGNAL, &SocketAddr::new(IpAddr::V4(segment.destination), 0))?;
        Ok(())
    }

    /// The next TCP segment that passes and that `wanted` accepts, waiting at most `patience`.
    pub fn receive(&self, patience: Duration, wanted: impl Fn(&Segment) -> bool) -> Option<Segment> {
        let until = Instant::now() + patience;
        let mut buffer = vec![0; 70_000];
        loop {
            if let Ok((length, _)) = recv(&self.packet, buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
                match buffer.get(..length).and_then(Segment::parse) {
                    Some(segment) if wanted(&segment) => return Some(segment),
                    _ => continue,
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let left = Timespec::try_from(left.max(Duration::from_millis(1))).ok();
            poll(&mut [PollFd::new(&self.packet, PollFlags::IN)], left.as_ref()).ok()?;
        }
    }

    /// Skips what has passed so far, so that the next segment received is a fresh one.
    pub fn skip(&self) {
        while self.receive(Duration::ZERO, |_| true).is_some() {}
    }

    /// A handshake by hand. The source must be an address that this namespace does not own, or its kernel answers the
    /// SYN-ACK with a RST.
    pub fn connect(
        &self,
        source: (Ipv4Addr, u16),
        destination: (Ipv4Addr, u16),
        timestamp: Option<u32>,
    ) -> io::Result<Flow> {
        let syn =
            Segment { timestamps: timestamp.map(|value| (value, 0)), ..Segment::syn(source, destination, 1_000_000) };
        self.send(&syn)?;
        let answer = self
            .receive(Duration::from_secs(1), |segment| {
                segment.source_port == destination.1 && segment.destination_port == source.1 && segment.flags & SYN != 0
            })
            .ok_or_else(|| io::Error::other("no SYN-ACK came"))?;
        let flow = Flow { template: Segment { flags: ACK, seq: syn.next_seq(), ack: answer.next_seq(), ..syn } };
        self.send(&flow.template)?;
        Ok(flow)
    }
}

/// A connection whose client end exists only here.
pub struct Flow {
    /// The next segment to send, without payload.
    pub template: Segment,
}

impl Flow {
    pub fn segment(&self, flags: u8, payload: &[u8]) -> Segment {
        Segment { flags, payload: payload.to_vec(), ..self.template.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Segment {
        Segment {
            timestamps: Some((7, 9)),
            id: 77,
            payload: b"odd".to_vec(),
            ..Segment::syn((Ipv4Addr::new(10, 0, 0, 1), 40000), (Ipv4Addr::new(10, 0, 0, 2), 80), u32::MAX)
        }
    }

    #[test]
    fn a_segment_survives_the_wire_format() {
        assert_eq!(Segment::parse(&sample().encode()), Some(sample()));
    }

    #[test]
    fn the_checksum_of_a_checksummed_segment_is_zero() {
        let packet = sample().encode();
        assert_eq!(sample().checksum(&packet[IP_HEADER..]), 0);
    }

    #[test]
    fn sequence_numbers_wrap_and_count_syn_and_payload() {
        assert_eq!(sample().next_seq(), 3);
    }

    #[test]
    fn a_cut_packet_is_no_segment() {
        let packet = sample().encode();
        for length in 0..packet.len() {
            assert_eq!(Segment::parse(&packet[..length]), None, "{length} bytes");
        }
    }
}
