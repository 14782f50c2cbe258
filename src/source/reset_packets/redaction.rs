//! What a recording may hold of a packet: its fixed headers, without the addresses.

use super::{MAGIC, RECORD_HEAD, SOURCE, ip};
use crate::ask::What;
use crate::source::pseudonyms::Pseudonyms;
use crate::source::redaction::{BlockRedaction, Redaction, Rule, plain, scope};
use crate::stream::Kind;

pub const REDACTION: Rule = Rule {
    source: SOURCE,
    asks: |what| *what == What::ResetPackets,
    redaction: Redaction::Stream(|| Box::new(Packets)),
};

struct Packets;

impl BlockRedaction for Packets {
    fn block(&mut self, names: &mut Pseudonyms, kind: Kind, payload: &[u8]) -> Option<Vec<u8>> {
        block(names, kind, payload)
    }
}

fn block(names: &mut Pseudonyms, kind: Kind, payload: &[u8]) -> Option<Vec<u8>> {
    match kind {
        Kind::Start => (payload == MAGIC.as_bytes()).then(|| payload.to_vec()),
        Kind::Scope => scope(names, payload),
        Kind::Clock | Kind::Counts | Kind::Note => plain(payload),
        Kind::Records => {
            let (mut rest, mut out) = (payload, Vec::with_capacity(payload.len()));
            while !rest.is_empty() {
                let (head, behind) = rest.split_first_chunk::<{ RECORD_HEAD }>()?;
                let (rest_of_head, length) = head.split_last_chunk::<4>()?;
                let (packet, behind) = behind.split_at_checked(u32::from_le_bytes(*length) as usize)?;
                rest = behind;
                // What is neither TCP nor an ICMP error about it is not stored.
                let headers = segment(names, packet).or_else(|| icmp_error(names, packet));
                let Some(packet) = headers else { continue };
                out.extend_from_slice(rest_of_head);
                out.extend_from_slice(&(packet.len() as u32).to_le_bytes());
                out.extend_from_slice(&packet);
            }
            Some(out)
        }
        _ => None,
    }
}

/// The fixed headers alone: options hold clocks, keys and routes, checksums give the addresses away, and payload is nobody's
/// business.
fn segment(names: &mut Pseudonyms, packet: &[u8]) -> Option<Vec<u8>> {
    const TCP_HEADER: usize = 20;
    let (mut out, protocol) = ip_header(names, packet)?;
    let length = out.len();
    let tcp = packet.get(length..length.checked_add(TCP_HEADER)?)?;
    if protocol != ip::TCP {
        return None;
    }
    out.extend_from_slice(tcp);
    // Checksum and urgent pointer.
    out.get_mut(length + 16..)?.fill(0);
    Some(out)
}

/// Type and code of the error, and of the segment that it quotes its IP header, ports, and flags where they are there.
fn icmp_error(names: &mut Pseudonyms, packet: &[u8]) -> Option<Vec<u8>> {
    const ICMP_HEADER: usize = 8;
    let (mut out, protocol) = ip_header(names, packet)?;
    let icmp = packet.get(out.len()..)?;
    if !matches!(protocol, ip::ICMP | ip::ICMPV6) {
        return None;
    }
    out.extend_from_slice(icmp.get(..2)?);
    out.extend_from_slice(&[0; ICMP_HEADER - 2]);
    let quoted = icmp.get(ICMP_HEADER..)?;
    let (header, protocol) = ip_header(names, quoted)?;
    let tcp = quoted.get(header.len()..)?;
    if protocol != ip::TCP {
        return None;
    }
    out.extend(header);
    out.extend_from_slice(tcp.get(..4)?);
    if let Some(flags) = tcp.get(13) {
        out.extend_from_slice(&[0; 9]);
        out.push(*flags);
    } else {
        out.extend_from_slice(&[0; 4]);
    }
    Some(out)
}

/// An IP header with other addresses, and the protocol of what follows it.
fn ip_header(names: &mut Pseudonyms, packet: &[u8]) -> Option<(Vec<u8>, u8)> {
    const SHORTEST: usize = 20;
    let first = *packet.first()?;
    let (length, protocol, clear, addresses): (usize, usize, &[usize], [(usize, usize); 2]) = match first >> 4 {
        // Type of service, checksum.
        4 => (usize::from(first & 0xf) * 4, 9, &[1, 10, 11], [(12, 4), (16, 4)]),
        // Traffic class and flow label.
        6 => (40, 6, &[1, 2, 3], [(8, 16), (24, 16)]),
        _ => return None,
    };
    let mut out = packet.get(..length).filter(|_| length >= SHORTEST)?.to_vec();
    // IPv4 options.
    out.get_mut(if first >> 4 == 4 { SHORTEST } else { 40 }..)?.fill(0);
    for at in clear {
        *out.get_mut(*at)? = 0;
    }
    for (at, size) in addresses {
        names.octets(out.get_mut(at..at + size)?)?;
    }
    Some((out, *packet.get(protocol)?))
}
