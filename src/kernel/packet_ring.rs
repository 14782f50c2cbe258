//! Captured packets as the records of `source::reset_packets`.
//!
//! From a ring: no call and no socket buffer per packet, and the kernel does not have to stamp every packet of the host with
//! the time, which SO_TIMESTAMPNS asks for.

use super::sys::{FRAME, FrameRing};
use crate::source::reset_packets::RECORD_HEAD;

/// Bytes kept of a packet with RST: IPv6 header, a TCP header with all options, and 64 bytes of data.
pub(super) const CAPTURE: usize = 164;
/// What one record block may hold.
const BATCH: usize = 256 << 10;

// struct tpacket2_hdr, and struct sockaddr_ll at TPACKET_ALIGN(sizeof(struct tpacket2_hdr)).
const SNAPLEN: usize = 8;
const NET: usize = 14;
const SECONDS: usize = 16;
const NANOSECONDS: usize = 20;
const INTERFACE: usize = 32 + 4;
const HARDWARE: usize = 32 + 8;
const KIND: usize = 32 + 10;

/// Packets that have arrived, once around the ring at most. How many.
pub fn drain(ring: &mut FrameRing, mut each: impl FnMut(&[u8])) -> usize {
    let mut batch = Vec::new();
    let mut packets = 0;
    while packets < ring.frames() && ring.take(|frame| append(&mut batch, frame)) {
        packets += 1;
        if batch.len() >= BATCH {
            each(&batch);
            batch.clear();
        }
    }
    if !batch.is_empty() {
        each(&batch);
    }
    packets
}

fn append(batch: &mut Vec<u8>, frame: &[u8; FRAME]) {
    let word = |at: usize| u32::from_ne_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
    let half = |at: usize| u16::from_ne_bytes([frame[at], frame[at + 1]]);
    let start = usize::from(half(NET)).min(FRAME);
    let length = (word(SNAPLEN) as usize).min(CAPTURE).min(FRAME - start);
    let bytes = frame.get(start..start + length).unwrap_or_default();
    let time = u64::from(word(SECONDS)) * 1_000_000_000 + u64::from(word(NANOSECONDS));
    batch.reserve(RECORD_HEAD + bytes.len());
    batch.extend_from_slice(&time.to_le_bytes());
    batch.extend_from_slice(&word(INTERFACE).to_le_bytes());
    batch.extend_from_slice(&half(HARDWARE).to_le_bytes());
    batch.extend_from_slice(&[frame[KIND], 0]);
    batch.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    batch.extend_from_slice(bytes);
}
