//! Streams of blocks: reset packets and last words here, reset events in [`super::events`]. A block of a kind that is not known
//! is left out.

use super::names::Pseudonyms;
use crate::source::{destroyed_sockets, reset_packets};
use crate::stream::{Blocks, Kind, append};
use crate::value::ParseError;

/// Redacts one block.
pub type Each<'a> = dyn FnMut(Kind, &[u8]) -> Option<Vec<u8>> + 'a;

/// One stream; goes on from answer to answer.
pub struct Stream(Blocks);

impl Default for Stream {
    fn default() -> Self {
        Self(Blocks::new("redaction"))
    }
}

impl Stream {
    /// The redacted blocks that these bytes complete, in any cut. False if something was not understood: it and all behind it
    /// is missing.
    pub fn feed(&mut self, bytes: &[u8], each: &mut Each<'_>) -> (Vec<u8>, bool) {
        let mut out = Vec::new();
        let result = self.0.feed(bytes, &mut |kind, cpu, payload| {
            let redacted = each(kind, payload)
                .ok_or_else(|| ParseError::new("redaction", None, format!("{kind:?} block not understood")))?;
            append(&mut out, kind, cpu, &redacted);
            Ok(())
        });
        (out, result.is_ok())
    }

    pub fn is_within_a_block(&self) -> bool {
        self.0.unfinished() > 0
    }
}

/// Numbers and small words.
pub fn plain(text: &[u8]) -> Option<Vec<u8>> {
    let harmless = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b' ' | b'-' | b'\n');
    text.iter().all(harmless).then(|| text.to_vec())
}

/// What is missing and why, in our own words.
pub fn note(text: &[u8]) -> Option<Vec<u8>> {
    std::str::from_utf8(text).ok().map(|text| text.as_bytes().to_vec())
}

/// `address A` lines, and lines of a word and numbers.
pub fn scope(names: &mut Pseudonyms, text: &[u8]) -> Option<Vec<u8>> {
    let mut out = String::new();
    for line in std::str::from_utf8(text).ok()?.lines() {
        match line.strip_prefix("address ") {
            Some(address) => out.push_str(&format!("address {}\n", names.ip(address.parse().ok()?))),
            None => {
                plain(line.as_bytes())?;
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    Some(out.into_bytes())
}

/// A block of reset packets.
pub fn packets(names: &mut Pseudonyms, kind: Kind, payload: &[u8]) -> Option<Vec<u8>> {
    match kind {
        Kind::Start => (payload == reset_packets::MAGIC.as_bytes()).then(|| payload.to_vec()),
        Kind::Scope => scope(names, payload),
        Kind::Clock | Kind::Counts | Kind::Note => plain(payload),
        Kind::Records => {
            let (mut rest, mut out) = (payload, Vec::with_capacity(payload.len()));
            while !rest.is_empty() {
                let (head, behind) = rest.split_first_chunk::<{ reset_packets::RECORD_HEAD }>()?;
                let (rest_of_head, length) = head.split_last_chunk::<4>()?;
                let (packet, behind) = behind.split_at_checked(u32::from_le_bytes(*length) as usize)?;
                rest = behind;
                // What is no TCP is not stored.
                let Some(packet) = packet_headers(names, packet) else { continue };
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
fn packet_headers(names: &mut Pseudonyms, packet: &[u8]) -> Option<Vec<u8>> {
    const TCP: u8 = 6;
    const TCP_HEADER: usize = 20;
    let first = *packet.first()?;
    let (length, protocol, clear, addresses): (usize, usize, &[usize], [(usize, usize); 2]) = match first >> 4 {
        // Type of service, checksum.
        4 => (usize::from(first & 0xf) * 4, 9, &[1, 10, 11], [(12, 4), (16, 4)]),
        // Traffic class and flow label.
        6 => (40, 6, &[1, 2, 3], [(8, 16), (24, 16)]),
        _ => return None,
    };
    let tcp = packet.get(length..length.checked_add(TCP_HEADER)?)?;
    if length < TCP_HEADER || *packet.get(protocol)? != TCP {
        return None;
    }
    let mut out = packet.get(..length)?.to_vec();
    // IPv4 options.
    out.get_mut(if first >> 4 == 4 { 20 } else { 40 }..)?.fill(0);
    for at in clear {
        *out.get_mut(*at)? = 0;
    }
    for (at, size) in addresses {
        names.octets(out.get_mut(at..at + size)?)?;
    }
    out.extend_from_slice(tcp);
    // Checksum and urgent pointer.
    out.get_mut(length + 16..)?.fill(0);
    Some(out)
}

/// A block of last words.
pub fn destroyed_sockets(names: &mut Pseudonyms, kind: Kind, payload: &[u8]) -> Option<Vec<u8>> {
    match kind {
        Kind::Start => (payload == destroyed_sockets::MAGIC.as_bytes()).then(|| payload.to_vec()),
        Kind::Clock | Kind::Counts => plain(payload),
        Kind::Note => note(payload),
        Kind::Records => {
            let mut messages = payload.to_vec();
            names.messages(&mut messages).then_some(messages)
        }
        _ => None,
    }
}
