//! All `unsafe` of this room: perf events, packet sockets and the rings that the kernel shares with us, for which neither std
//! nor rustix has calls. Everything here is safe to call.

#![allow(unsafe_code, reason = "the one file of this room that has any")]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// struct perf_event_attr, PERF_ATTR_SIZE_VER5 (Linux 4.1): what every kernel with these tracepoints accepts.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct PerfEventAttr {
    pub kind: u32,
    /// Set by [`perf_event_open`].
    size: u32,
    pub config: u64,
    pub sample_period: u64,
    pub sample_type: u64,
    pub read_format: u64,
    pub flags: u64,
    wakeup: u32,
    bp_type: u32,
    config1: u64,
    config2: u64,
    branch_sample_type: u64,
    sample_regs_user: u64,
    sample_stack_user: u32,
    pub clockid: i32,
    sample_regs_intr: u64,
    aux_watermark: u32,
    pub sample_max_stack: u16,
    reserved: u16,
}

impl PerfEventAttr {
    pub fn new(kind: u32, config: u64) -> Self {
        Self { kind, config, ..Self::default() }
    }
}

/// unshare(2) of the calling thread's view of mounts. For a thread that ends soon: nothing else may expect to share its root and
/// working directory, which are its own from then on.
pub fn unshare_mounts() -> io::Result<()> {
    // SAFETY: only a table of file descriptors of its own could break what other threads rely on.
    Ok(unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }?)
}

/// perf_event_open(2) for all processes on one CPU, in the group of `leader` or as the first of one.
///
/// # Errors
/// ENODEV: the CPU is offline. EACCES or EPERM: no CAP_PERFMON.
pub fn perf_event_open(attr: &PerfEventAttr, cpu: u32, leader: Option<&OwnedFd>) -> io::Result<OwnedFd> {
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
    let attr = PerfEventAttr { size: size_of::<PerfEventAttr>() as u32, ..*attr };
    let cpu = libc::c_int::try_from(cpu).map_err(io::Error::other)?;
    let group = leader.map_or(-1, AsRawFd::as_raw_fd);
    // SAFETY: attr is a perf_event_attr of the size it states; the call keeps no pointer.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attr, -1, cpu, group, PERF_FLAG_FD_CLOEXEC) };
    let fd = libc::c_int::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What an ioctl of a perf event does, perf_event_open(2).
#[derive(Debug, Clone, Copy)]
pub enum PerfRequest<'a> {
    /// Counts and records.
    Enable,
    /// Neither counts nor records any more.
    Disable,
    /// Writes into the ring of another event of the same CPU.
    SetOutput(&'a OwnedFd),
    /// Only records that match; evaluated before anything is written.
    SetFilter(&'a CStr),
}

pub fn perf_event_ioctl(event: &OwnedFd, request: PerfRequest<'_>) -> io::Result<()> {
    const ENABLE: libc::Ioctl = libc::_IO(b'$' as u32, 0);
    const DISABLE: libc::Ioctl = libc::_IO(b'$' as u32, 1);
    const SET_OUTPUT: libc::Ioctl = libc::_IO(b'$' as u32, 5);
    const SET_FILTER: libc::Ioctl = libc::_IOW::<*const libc::c_char>(b'$' as u32, 6);
    let fd = event.as_raw_fd();
    // SAFETY: each request takes a number or a descriptor by value, or a NUL-terminated string that is copied during the call.
    check(unsafe {
        match request {
            PerfRequest::Enable => libc::ioctl(fd, ENABLE, 0),
            PerfRequest::Disable => libc::ioctl(fd, DISABLE, 0),
            PerfRequest::SetOutput(other) => libc::ioctl(fd, SET_OUTPUT, other.as_raw_fd()),
            PerfRequest::SetFilter(text) => libc::ioctl(fd, SET_FILTER, text.as_ptr()),
        }
    })
}

/// The number by which records name their event.
pub fn perf_event_id(event: &OwnedFd) -> io::Result<u64> {
    const ID: libc::Ioctl = libc::_IOR::<*mut u64>(b'$' as u32, 7);
    let mut id = 0u64;
    // SAFETY: PERF_EVENT_IOC_ID writes one u64.
    check(unsafe { libc::ioctl(event.as_raw_fd(), ID, &raw mut id) })?;
    Ok(id)
}

/// CLONE_NEWNET, CLONE_NEWPID, ...: the type of a namespace (ioctl_nsfs(2), Linux 4.11).
pub fn namespace_type(namespace: &OwnedFd) -> io::Result<libc::c_int> {
    const NS_GET_NSTYPE: libc::Ioctl = libc::_IO(0xb7, 0x3);
    // SAFETY: takes no argument.
    let kind = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE) };
    check(kind)?;
    Ok(kind)
}

/// The user namespace that owns a namespace (ioctl_nsfs(2), Linux 4.9); refused where it is none of the own one or below it.
pub fn owner_of(namespace: &File) -> io::Result<File> {
    const NS_GET_USERNS: libc::Ioctl = libc::_IO(0xb7, 0x1);
    // SAFETY: takes no argument.
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS) };
    check(fd)?;
    // SAFETY: the kernel has just opened it for this process, and nothing else has it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Binds a packet socket to a protocol (`ETH_P_*`) on all interfaces, packet(7). Only from then on packets arrive.
pub fn bind_packet(socket: &OwnedFd, protocol: u16) -> io::Result<()> {
    // SAFETY: an all-zero sockaddr_ll is valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    // SAFETY: address and size describe one sockaddr_ll.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as _) })
}

/// Replaces the filter of a socket at once, without a gap (SO_ATTACH_FILTER, socket(7)).
pub fn attach_filter(socket: &impl AsRawFd, code: &mut [libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(code.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: code.as_mut_ptr() };
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// Packets that found no room since the last call (PACKET_STATISTICS, packet(7)).
pub fn packets_dropped(socket: &OwnedFd) -> io::Result<u32> {
    // struct tpacket_stats: packets, drops.
    let mut stats = [0u32; 2];
    let mut size = size_of_val(&stats) as libc::socklen_t;
    let (level, option) = (libc::SOL_PACKET, libc::PACKET_STATISTICS);
    // SAFETY: the buffer has the stated size.
    check(unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, stats.as_mut_ptr().cast(), &raw mut size) })?;
    Ok(stats[1])
}

/// setsockopt(2) of a C structure that the kernel copies during the call.
fn set<T>(socket: &impl AsRawFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: value points at as many readable bytes as are stated.
    check(unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const *value).cast(), size_of::<T>() as _)
    })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Memory that the kernel shares with us, read and write. Unmapped when it goes.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to this value alone and may be read from any thread.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(fd: &OwnedFd, length: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh shared mapping at an address of the kernel's choice.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap gave address 0"))?;
        Ok(Self { base, length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in new(); whoever hands out its memory borrows this value.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.length) };
    }
}

/// The ring of perf events that the kernel fills and we empty: struct perf_event_mmap_page, then a power of two of data bytes.
#[derive(Debug)]
pub struct PerfRing {
    mapping: Mapping,
    page: usize,
    data: usize,
}

/// Offsets of data_head and data_tail in the control page, include/uapi/linux/perf_event.h.
const DATA_HEAD: usize = 1024;
const DATA_TAIL: usize = 1032;

impl PerfRing {
    /// `data` bytes, rounded up to a power of two and a page, and one page of control.
    ///
    /// # Errors
    /// EPERM: over kernel.perf_event_mlock_kb and RLIMIT_MEMLOCK without CAP_IPC_LOCK.
    pub fn map(event: &OwnedFd, data: usize) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let data = data.next_power_of_two().max(page);
        Ok(Self { mapping: Mapping::new(event, page + data)?, page, data })
    }

    /// Bytes of memory that it takes.
    pub fn size(&self) -> usize {
        self.page + self.data
    }

    fn cursor(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: within the first page, 8-byte aligned, shared with the kernel, which reads and writes it atomically.
        unsafe { self.mapping.base.add(offset).cast::<AtomicU64>().as_ref() }
    }

    /// Everything written has been read.
    pub fn is_empty(&self) -> bool {
        self.head() == self.cursor(DATA_TAIL).load(Ordering::Relaxed)
    }

    /// How far the kernel has written.
    pub fn head(&self) -> u64 {
        self.cursor(DATA_HEAD).load(Ordering::Acquire)
    }

    /// Whole records written up to `head`, as [`PerfRing::head`] gave it, go to `each` in one or two pieces; then their room is
    /// given back.
    pub fn drain(&mut self, head: u64, each: impl FnOnce(&[u8], &[u8])) {
        let tail = self.cursor(DATA_TAIL).load(Ordering::Relaxed);
        // Beyond what is written the kernel still writes, and what lies before the tail is its own again.
        let written = self.head().wrapping_sub(tail);
        let wanted = head.wrapping_sub(tail);
        let length = usize::try_from(wanted.min(written)).unwrap_or(self.data).min(self.data);
        if length == 0 || wanted > u64::MAX / 2 {
            return;
        }
        let start = (tail as usize) & (self.data - 1);
        let first = length.min(self.data - start);
        // SAFETY: both ranges lie in the data area; the kernel does not write between tail and head until we move tail.
        let (a, b) = unsafe {
            let data = self.mapping.base.add(self.page);
            (
                std::slice::from_raw_parts(data.add(start).as_ptr(), first),
                std::slice::from_raw_parts(data.as_ptr(), length - first),
            )
        };
        each(a, b);
        self.cursor(DATA_TAIL).store(tail.wrapping_add(length as u64), Ordering::Release);
    }
}

/// Bytes of one frame of a [`FrameRing`].
pub const FRAME: usize = 256;
/// A [`FrameRing`] is a multiple of so many bytes: 16 KiB, or a page where that is larger. Frames lie one after the other in it
/// without gaps.
pub fn block() -> usize {
    rustix::param::page_size().max(16 << 10)
}
/// 32,768 packets: what arrives in a third of a second at 100,000 a second.
pub const FRAME_RING: usize = 8 << 20;

/// The ring of a packet socket: TPACKET_V2, linux/if_packet.h, Documentation/networking/packet_mmap.rst.
#[derive(Debug)]
pub struct FrameRing {
    mapping: Mapping,
    frames: usize,
    /// The frame that the kernel fills next, or has filled first.
    next: usize,
}

impl FrameRing {
    /// Of so many bytes, which are a multiple of [`block`].
    pub fn map(socket: &OwnedFd, bytes: usize) -> io::Result<Self> {
        let version = libc::tpacket_versions::TPACKET_V2 as libc::c_int;
        set(socket, libc::SOL_PACKET, libc::PACKET_VERSION, &version)?;
        let request = libc::tpacket_req {
            tp_block_size: block() as u32,
            tp_block_nr: (bytes / block()) as u32,
            tp_frame_size: FRAME as u32,
            tp_frame_nr: (bytes / FRAME) as u32,
        };
        set(socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &request)?;
        Ok(Self { mapping: Mapping::new(socket, bytes)?, frames: bytes / FRAME, next: 0 })
    }

    /// How many packets it has room for.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Nothing has arrived.
    pub fn is_empty(&self) -> bool {
        self.status().load(Ordering::Acquire) & libc::TP_STATUS_USER == 0
    }

    fn status(&self) -> &AtomicU32 {
        // SAFETY: next < frames, so the frame lies in the mapping; tp_status is its first word, 16-byte aligned.
        unsafe { self.mapping.base.add(self.next * FRAME).cast::<AtomicU32>().as_ref() }
    }

    /// The next packet that has arrived goes to `each`: struct tpacket2_hdr, struct sockaddr_ll, then what was captured. False
    /// if none has.
    pub fn take(&mut self, each: impl FnOnce(&[u8; FRAME])) -> bool {
        if self.is_empty() {
            return false;
        }
        // SAFETY: the frame lies in the mapping, and the kernel leaves one of status USER alone.
        each(unsafe { self.mapping.base.add(self.next * FRAME).cast::<[u8; FRAME]>().as_ref() });
        self.status().store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next = (self.next + 1) % self.frames;
        true
    }
}
