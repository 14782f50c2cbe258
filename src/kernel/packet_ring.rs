//! The ring of a packet socket: packet_mmap, TPACKET_V2 (linux/if_packet.h, Documentation/networking/packet_mmap.rst).
//!
//! No call and no socket buffer per packet, and the kernel does not have to stamp every packet of the host with the time,
//! which SO_TIMESTAMPNS asks for.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::packet::CAPTURE;
use crate::source::reset_packets::RECORD_HEAD;

/// Header, address and the captured bytes.
const FRAME: usize = 256;
/// A power of two of pages, so that frames lie one after the other without gaps.
const BLOCK: usize = 1 << 16;
/// 32,768 packets: what arrives in a third of a second at 100,000 a second.
const RING: usize = 8 << 20;
const FRAMES: usize = RING / FRAME;
/// What one record block may hold.
const BATCH: usize = 256 << 10;
/// TPACKET_ALIGN(sizeof(struct tpacket2_hdr)): where the struct sockaddr_ll stands.
const ADDRESS: usize = 32;

#[derive(Debug)]
pub struct PacketRing {
    base: NonNull<u8>,
    /// The frame that the kernel fills next, or has filled first.
    next: usize,
}

// SAFETY: the mapping belongs to this value alone and may be read from any thread.
unsafe impl Send for PacketRing {}

impl PacketRing {
    pub fn map(fd: &OwnedFd) -> io::Result<Self> {
        let version = libc::tpacket_versions::TPACKET_V2 as libc::c_int;
        set(fd, libc::PACKET_VERSION, &version)?;
        let request = libc::tpacket_req {
            tp_block_size: BLOCK as u32,
            tp_block_nr: (RING / BLOCK) as u32,
            tp_frame_size: FRAME as u32,
            tp_frame_nr: FRAMES as u32,
        };
        set(fd, libc::PACKET_RX_RING, &request)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh shared mapping of the socket's ring at an address of the kernel's choice.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), RING, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| io::Error::other("mmap gave address 0"))?;
        Ok(Self { base, next: 0 })
    }

    /// Nothing has arrived.
    pub fn is_empty(&self) -> bool {
        self.next_frame().0.load(Ordering::Acquire) & libc::TP_STATUS_USER == 0
    }

    /// The frame that the kernel fills next, and its status.
    fn next_frame(&self) -> (&AtomicU32, NonNull<u8>) {
        // SAFETY: next < FRAMES, so the frame lies in the mapping; it is 16-byte aligned.
        unsafe {
            let frame = self.base.add(self.next * FRAME);
            (frame.cast::<AtomicU32>().as_ref(), frame)
        }
    }

    /// Packets that have arrived, once around the ring at most, as the records of `source::reset_packets`. How many.
    pub fn drain(&mut self, mut each: impl FnMut(&[u8])) -> usize {
        let mut batch = Vec::new();
        let mut packets = 0;
        while packets < FRAMES {
            let (status, frame) = self.next_frame();
            if status.load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
                break;
            }
            // SAFETY: the kernel leaves a frame of status USER alone; header and address lie in its first bytes.
            let (header, from, bytes) = unsafe {
                let header = frame.cast::<libc::tpacket2_hdr>().read();
                let from = frame.add(ADDRESS).cast::<libc::sockaddr_ll>().read();
                let start = usize::from(header.tp_net).min(FRAME);
                let length = (header.tp_snaplen as usize).min(CAPTURE).min(FRAME - start);
                (header, from, std::slice::from_raw_parts(frame.add(start).as_ptr(), length))
            };
            let time = u64::from(header.tp_sec) * 1_000_000_000 + u64::from(header.tp_nsec);
            batch.reserve(RECORD_HEAD + bytes.len());
            batch.extend_from_slice(&time.to_le_bytes());
            batch.extend_from_slice(&(from.sll_ifindex as u32).to_le_bytes());
            batch.extend_from_slice(&from.sll_hatype.to_le_bytes());
            batch.extend_from_slice(&[from.sll_pkttype, 0]);
            batch.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            batch.extend_from_slice(bytes);
            status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
            self.next = (self.next + 1) % FRAMES;
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
}

impl Drop for PacketRing {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in map(); no slice of it outlives drain().
        unsafe { libc::munmap(self.base.as_ptr().cast(), RING) };
    }
}

fn set<T>(fd: &OwnedFd, option: libc::c_int, value: &T) -> io::Result<()> {
    let size = size_of::<T>() as libc::socklen_t;
    // SAFETY: value points at `size` readable bytes.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_PACKET, option, std::ptr::from_ref(value).cast(), size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
