//! perf_event_open(2) by hand: the attribute structure, one event, one ring.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

pub const TYPE_SOFTWARE: u32 = 1;
pub const TYPE_TRACEPOINT: u32 = 2;
/// An event that never fires; it only carries side-band records.
pub const SW_DUMMY: u64 = 9;

pub const SAMPLE_TID: u64 = 1 << 1;
pub const SAMPLE_TIME: u64 = 1 << 2;
pub const SAMPLE_CALLCHAIN: u64 = 1 << 5;
pub const SAMPLE_RAW: u64 = 1 << 10;
pub const SAMPLE_IDENTIFIER: u64 = 1 << 16;

/// read(2) gives the event's lost samples after its count; Linux 6.0.
pub const FORMAT_LOST: u64 = 1 << 4;

/// Bit numbers of the flags word.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum Flag {
    Disabled = 0,
    Comm = 9,
    Task = 13,
    SampleIdAll = 18,
    ExcludeCallchainUser = 22,
    UseClockid = 25,
    Namespaces = 28,
}

/// struct perf_event_attr, PERF_ATTR_SIZE_VER5 (Linux 4.1): what every kernel with these tracepoints accepts.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Attr {
    pub kind: u32,
    size: u32,
    pub config: u64,
    pub sample_period: u64,
    pub sample_type: u64,
    pub read_format: u64,
    flags: u64,
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

impl Attr {
    pub fn new(kind: u32, config: u64) -> Self {
        Self { kind, config, size: size_of::<Self>() as u32, ..Self::default() }
    }

    /// A C bit field: it starts at the other end on big-endian machines.
    pub fn with(mut self, flags: &[Flag]) -> Self {
        for flag in flags {
            let bit = *flag as u32;
            self.flags |= 1 << if cfg!(target_endian = "big") { 63 - bit } else { bit };
        }
        self
    }
}

/// One event on one CPU. It ends when the descriptor is closed, which the kernel does for a killed process too.
#[derive(Debug)]
pub struct Event {
    fd: OwnedFd,
}

const IOC_ENABLE: libc::Ioctl = libc::_IO(b'$' as u32, 0);
const IOC_DISABLE: libc::Ioctl = libc::_IO(b'$' as u32, 1);
const IOC_SET_OUTPUT: libc::Ioctl = libc::_IO(b'$' as u32, 5);
const IOC_SET_FILTER: libc::Ioctl = libc::_IOW::<*const libc::c_char>(b'$' as u32, 6);
const IOC_ID: libc::Ioctl = libc::_IOR::<*mut u64>(b'$' as u32, 7);

impl Event {
    /// All processes on one CPU. ENODEV: the CPU is offline.
    pub fn open(attr: &Attr, cpu: u32) -> io::Result<Self> {
        const FD_CLOEXEC: libc::c_ulong = 1 << 3;
        // SAFETY: attr is a valid perf_event_attr of the size it states; the call keeps no pointer.
        let fd = unsafe {
            libc::syscall(libc::SYS_perf_event_open, attr as *const Attr, -1, cpu as libc::c_int, -1, FD_CLOEXEC)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor, nobody else owns it.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd as i32) } })
    }

    pub fn id(&self) -> io::Result<u64> {
        let mut id = 0u64;
        // SAFETY: PERF_EVENT_IOC_ID writes one u64.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), IOC_ID, &mut id as *mut u64) })?;
        Ok(id)
    }

    /// Only records that match; evaluated in the kernel before anything is written.
    pub fn filter(&self, expression: &str) -> io::Result<()> {
        let text = CString::new(expression)?;
        // SAFETY: the kernel copies the NUL-terminated string during the call.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), IOC_SET_FILTER, text.as_ptr()) })
    }

    /// Writes into the ring of another event of the same CPU.
    pub fn output_to(&self, other: &Event) -> io::Result<()> {
        // SAFETY: takes a descriptor by value.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), IOC_SET_OUTPUT, other.fd.as_raw_fd()) })
    }

    pub fn enable(&self) -> io::Result<()> {
        // SAFETY: takes no argument.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), IOC_ENABLE, 0) })
    }

    /// Neither counts nor records any more.
    pub fn disable(&self) -> io::Result<()> {
        // SAFETY: takes no argument.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), IOC_DISABLE, 0) })
    }

    /// The count of matching records and, with FORMAT_LOST, how many of them found no room.
    pub fn counts(&self) -> io::Result<(u64, Option<u64>)> {
        let mut values = [0u64; 2];
        // SAFETY: the buffer has the length that is passed.
        let read = unsafe { libc::read(self.fd.as_raw_fd(), values.as_mut_ptr().cast(), size_of_val(&values)) };
        match read {
            16.. => Ok((values[0], Some(values[1]))),
            8.. => Ok((values[0], None)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The ring that the kernel fills and we empty: struct perf_event_mmap_page, then a power of two of data bytes.
#[derive(Debug)]
pub struct Ring {
    base: NonNull<u8>,
    page: usize,
    data: usize,
}

// SAFETY: the mapping belongs to this value alone and may be read from any thread.
unsafe impl Send for Ring {}

impl Ring {
    /// EPERM: over kernel.perf_event_mlock_kb without CAP_IPC_LOCK.
    pub fn map(event: &Event, data: usize) -> io::Result<Self> {
        // SAFETY: sysconf has no memory effects.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        let data = data.next_power_of_two().max(page);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh shared mapping of the event's buffer at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), page + data, protection, libc::MAP_SHARED, event.fd.as_raw_fd(), 0)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| io::Error::other("mmap gave address 0"))?;
        Ok(Self { base, page, data })
    }

    /// Bytes of the data area.
    pub fn size(&self) -> usize {
        self.data
    }

    /// data_head and data_tail of the control page, at the offsets that the ABI fixes.
    fn cursor(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: within the first page, 8-byte aligned, shared with the kernel, which reads and writes it atomically.
        unsafe { self.base.add(offset).cast::<AtomicU64>().as_ref() }
    }

    /// Everything written has been read.
    pub fn is_empty(&self) -> bool {
        self.head() == self.cursor(1032).load(Ordering::Relaxed)
    }

    /// How far the kernel has written.
    pub fn head(&self) -> u64 {
        self.cursor(1024).load(Ordering::Acquire)
    }

    /// Whole records written up to `head` go to `each` in one or two pieces, then their room is given back.
    pub fn drain(&self, head: u64, mut each: impl FnMut(usize, &[u8], &[u8])) {
        let tail = self.cursor(1032).load(Ordering::Relaxed);
        let length = usize::try_from(head.wrapping_sub(tail)).unwrap_or(self.data).min(self.data);
        if length == 0 {
            return;
        }
        let start = (tail as usize) & (self.data - 1);
        let first = length.min(self.data - start);
        // SAFETY: both ranges lie in the data area; the kernel does not write between tail and head until we move tail.
        let (a, b) = unsafe {
            let data = self.base.add(self.page);
            (
                std::slice::from_raw_parts(data.add(start).as_ptr(), first),
                std::slice::from_raw_parts(data.as_ptr(), length - first),
            )
        };
        each(length, a, b);
        self.cursor(1032).store(head, Ordering::Release);
    }
}

/// How many of these whole records, which may go on from one piece to the other, are of type PERF_RECORD_SAMPLE.
pub fn samples(first: &[u8], second: &[u8]) -> u64 {
    const SAMPLE: u32 = 9;
    let (mut at, mut samples) = (0, 0);
    // The ring's size and all records are multiples of 8, so a head of u32 type, u16 misc, u16 size is in one piece.
    while let Some(&[a, b, c, d, _, _, e, f]) = first
        .get(at..)
        .filter(|rest| !rest.is_empty())
        .or_else(|| second.get(at - first.len()..))
        .and_then(<[u8]>::first_chunk)
    {
        samples += u64::from(u32::from_ne_bytes([a, b, c, d]) == SAMPLE);
        at += usize::from(u16::from_ne_bytes([e, f])).max(8);
    }
    samples
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in map(); no slice of it outlives drain().
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.page + self.data) };
    }
}

#[cfg(test)]
mod tests {
    use super::samples;

    #[test]
    fn samples_are_counted_where_the_ring_wraps_too() {
        let record = |kind: u32, size: u16| {
            let mut bytes = vec![0xff; usize::from(size)];
            bytes[..4].copy_from_slice(&kind.to_ne_bytes());
            bytes[6..8].copy_from_slice(&size.to_ne_bytes());
            bytes
        };
        let all = [record(9, 48), record(3, 16), record(9, 8), record(2, 24), record(9, 40)].concat();
        for cut in (0..=all.len()).step_by(8) {
            let (first, second) = all.split_at(cut);
            assert_eq!(samples(first, second), 3, "cut at {cut}");
        }
        assert_eq!(samples(&[], &[]), 0);
    }
}
