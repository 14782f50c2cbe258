//! RST packets of this network namespace, streamed as `source::reset_packets` describes.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::clock;
use super::namespace::Handle;
use super::needs;
use super::packet_ring::{self, CAPTURE};
use super::scope::Scope;
use super::sys::{self, FRAME_RING, FrameRing};
use crate::source::reset_packets::{FEWER, MAGIC};
use crate::stream::{Kind, append, send};
use crate::value::{Failure, FailureKind};

/// Bytes of a packet that is only there for its TTL and IP id: IPv6 header and a TCP header without options.
const SAMPLE: usize = 60;
/// With more packets than this in one drain fewer are sampled: the room is for RSTs.
const BUSY: usize = 5_000;

/// Which received packets other than RSTs are taken, for TTL and IP id of their senders: one in so many, a power of two.
#[derive(Debug, Clone, Copy)]
struct Sampling {
    syn: u32,
    rest: u32,
}

/// From the finest to none.
const SAMPLINGS: [Option<Sampling>; 3] =
    [Some(Sampling { syn: 1, rest: 16 }), Some(Sampling { syn: 64, rest: 1024 }), None];

/// The open packet socket. It ends with its descriptor; nothing stays behind.
pub struct PacketSocket {
    fd: OwnedFd,
    ring: FrameRing,
    scope: Scope,
    /// The start of the stream was sent.
    started: bool,
    lost: u64,
    /// Index in [`SAMPLINGS`].
    sampling: usize,
}

impl PacketSocket {
    /// ETH_P_ALL, because a socket bound to one protocol does not see outgoing packets (dev_queue_xmit_nit).
    ///
    /// Called in the network namespace under observation, which is `here`.
    pub fn open(here: &Handle) -> Result<Self, Failure> {
        Self::with_room(here, FRAME_RING)
    }

    /// As [`open`](Self::open), with so many bytes for packets.
    pub fn with_room(here: &Handle, room: usize) -> Result<Self, Failure> {
        // No protocol first: nothing may arrive before the filter is in place.
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, None)
            .map_err(|error| refused("socket(AF_PACKET)", &error.into()))?;
        attach(&fd, SAMPLINGS[0]).map_err(|error| refused("SO_ATTACH_FILTER", &error))?;
        let ring = FrameRing::map(&fd, room).map_err(|error| refused("PACKET_RX_RING", &error))?;
        sys::bind_packet(&fd, libc::ETH_P_ALL as u16).map_err(|error| refused("bind(AF_PACKET)", &error))?;
        Ok(Self { fd, ring, scope: Scope::of_addresses(here.clone()), started: false, lost: 0, sampling: 0 })
    }

    /// Everything that arrived since the previous call.
    pub fn drain(&mut self, sink: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        if !self.started {
            self.started = true;
            let mut head = Vec::new();
            append(&mut head, Kind::Start, 0, MAGIC.as_bytes());
            self.scope.append(&mut head);
            sink(&head);
        }
        // The kernel drops where the ring is full, so an empty one has nothing to count either. What became local meanwhile is told
        // before the next packet: to ask costs a call, and hundreds of namespaces are idle.
        if self.ring.is_empty() {
            return Ok(());
        }
        let (_, boot) = clock::monotonic_and_boottime();
        send(sink, Kind::Clock, 0, format!("{} {boot}", clock::realtime()).as_bytes());
        let packets = packet_ring::drain(&mut self.ring, |batch| {
            self.scope.update(sink);
            send(sink, Kind::Records, 0, batch);
        });
        let lost = u64::from(sys::packets_dropped(&self.fd).unwrap_or(0));
        self.lost = self.lost.saturating_add(lost);
        if (packets > BUSY || lost > 0)
            && let Some(coarser) = SAMPLINGS.get(self.sampling + 1)
            && attach(&self.fd, *coarser).is_ok()
        {
            self.sampling += 1;
            send(sink, Kind::Note, 0, FEWER.as_bytes());
        }
        send(sink, Kind::Counts, 0, self.lost.to_string().as_bytes());
        Ok(())
    }
}

/// Replaces the filter at once, without a gap.
fn attach(fd: &OwnedFd, sampling: Option<Sampling>) -> io::Result<()> {
    sys::attach_filter(fd, &mut filter(sampling))
}

/// TCP with RST, ICMP "destination unreachable" about TCP, and samples of received TCP without RST; from the network header on
/// (SOCK_DGRAM). IPv6 extension headers before TCP are not followed.
fn filter(sampling: Option<Sampling>) -> [libc::sock_filter; 38] {
    // linux/bpf_common.h, linux/filter.h.
    const LD_W_ABS: u16 = 0x20;
    const LD_H_ABS: u16 = 0x28;
    const LD_B_ABS: u16 = 0x30;
    const LD_B_IND: u16 = 0x50;
    const LDX_B_MSH: u16 = 0xb1;
    const AND: u16 = 0x54;
    const JA: u16 = 0x05;
    const JEQ: u16 = 0x15;
    const JSET: u16 = 0x45;
    const TAX: u16 = 0x07;
    const TXA: u16 = 0x87;
    const RET: u16 = 0x06;
    const SKF_AD_PROTOCOL: u32 = -0x1000_i32 as u32;
    const SKF_AD_PKTTYPE: u32 = SKF_AD_PROTOCOL + 4;
    const SKF_AD_RANDOM: u32 = SKF_AD_PROTOCOL + 56;
    const SYN: u32 = 0x02;
    const RST: u32 = 0x04;
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let (syn, rest) = sampling.map_or((1, 1), |sampling| (sampling.syn, sampling.rest));
    [
        /* 0 */ op(LD_H_ABS, 0, 0, SKF_AD_PROTOCOL),
        /* 1 */ op(JEQ, 0, 12, 0x0800),
        // IPv4, not a later fragment.
        /* 2 */ op(LD_H_ABS, 0, 0, 6),
        /* 3 */ op(JSET, 33, 0, 0x1fff),
        /* 4 */ op(LDX_B_MSH, 0, 0, 0),
        /* 5 */ op(LD_B_ABS, 0, 0, 9),
        /* 6 */ op(JEQ, 0, 2, 6),
        /* 7 */ op(LD_B_IND, 0, 0, 13),
        /* 8 */ op(JA, 0, 0, 14),
        // ICMP type 3 that quotes TCP.
        /* 9 */ op(JEQ, 0, 27, 1),
        /* 10 */ op(LD_B_IND, 0, 0, 0),
        /* 11 */ op(JEQ, 0, 25, 3),
        /* 12 */ op(LD_B_IND, 0, 0, 8 + 9),
        /* 13 */ op(JEQ, 10, 23, 6),
        // IPv6.
        /* 14 */ op(JEQ, 0, 22, 0x86dd),
        /* 15 */ op(LD_B_ABS, 0, 0, 6),
        /* 16 */ op(JEQ, 5, 0, 6),
        // ICMPv6 type 1 that quotes TCP.
        /* 17 */ op(JEQ, 0, 19, 58),
        /* 18 */ op(LD_B_ABS, 0, 0, 40),
        /* 19 */ op(JEQ, 0, 17, 1),
        /* 20 */ op(LD_B_ABS, 0, 0, 40 + 8 + 6),
        /* 21 */ op(JEQ, 2, 15, 6),
        /* 22 */ op(LD_B_ABS, 0, 0, 40 + 13),
        // The flags.
        /* 23 */ op(JSET, 0, 1, RST),
        /* 24 */ op(RET, 0, 0, CAPTURE as u32),
        /* 25 */ op(TAX, 0, 0, 0),
        /* 26 */ op(LD_B_ABS, 0, 0, SKF_AD_PKTTYPE),
        /* 27 */ op(JEQ, 9, if sampling.is_none() { 9 } else { 0 }, u32::from(libc::PACKET_OUTGOING)),
        /* 28 */ op(TXA, 0, 0, 0),
        /* 29 */ op(JSET, 0, 3, SYN),
        /* 30 */ op(LD_W_ABS, 0, 0, SKF_AD_RANDOM),
        /* 31 */ op(AND, 0, 0, syn - 1),
        /* 32 */ op(JEQ, 3, 4, 0),
        /* 33 */ op(LD_W_ABS, 0, 0, SKF_AD_RANDOM),
        /* 34 */ op(AND, 0, 0, rest - 1),
        /* 35 */ op(JEQ, 0, 1, 0),
        /* 36 */ op(RET, 0, 0, SAMPLE as u32),
        /* 37 */ op(RET, 0, 0, 0),
    ]
}

fn refused(what: &str, error: &io::Error) -> Failure {
    let text = format!("{what}: {error}");
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            Failure::new(FailureKind::Denied, text).needs(needs::capability_of_netns("CAP_NET_RAW"))
        }
        Some(libc::EAFNOSUPPORT) => Failure::new(FailureKind::Absent, text).needs("a kernel with CONFIG_PACKET"),
        _ => Failure::new(FailureKind::Broken, text),
    }
}
