//! Perf events: their flags, one event on one CPU, the samples among its records. See perf_event_open(2).

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;

use super::sys::{self, PerfEventAttr, PerfRequest, PerfRing};

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

impl PerfEventAttr {
    /// With these flags set, too.
    pub fn with(mut self, flags: &[Flag]) -> Self {
        for flag in flags {
            let bit = *flag as u32;
            // A C bit field: it starts at the other end on big-endian machines.
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

impl Event {
    /// All processes on one CPU. ENODEV: the CPU is offline.
    pub fn open(attr: &PerfEventAttr, cpu: u32) -> io::Result<Self> {
        Ok(Self { fd: sys::perf_event_open(attr, cpu)? })
    }

    pub fn id(&self) -> io::Result<u64> {
        sys::perf_event_id(&self.fd)
    }

    /// Only records that match; evaluated in the kernel before anything is written.
    pub fn filter(&self, expression: &str) -> io::Result<()> {
        sys::perf_event_ioctl(&self.fd, PerfRequest::SetFilter(&CString::new(expression)?))
    }

    /// Writes into the ring of another event of the same CPU.
    pub fn output_to(&self, other: &Self) -> io::Result<()> {
        sys::perf_event_ioctl(&self.fd, PerfRequest::SetOutput(&other.fd))
    }

    pub fn enable(&self) -> io::Result<()> {
        sys::perf_event_ioctl(&self.fd, PerfRequest::Enable)
    }

    /// Neither counts nor records any more.
    pub fn disable(&self) -> io::Result<()> {
        sys::perf_event_ioctl(&self.fd, PerfRequest::Disable)
    }

    /// A ring of `data` bytes for the records of this event, and of those that are sent to it.
    ///
    /// # Errors
    /// EPERM: over the limit of locked memory.
    pub fn map(&self, data: usize) -> io::Result<PerfRing> {
        PerfRing::map(&self.fd, data)
    }

    /// The count of matching records and, with FORMAT_LOST, how many of them found no room.
    pub fn counts(&self) -> io::Result<(u64, Option<u64>)> {
        let mut values = [0; 16];
        let read = rustix::io::read(&self.fd, &mut values)?;
        let value = |at: usize| values.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes);
        match (value(0), value(8)) {
            (Some(count), lost) if read >= 8 => Ok((count, lost.filter(|_| read >= 16))),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
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
