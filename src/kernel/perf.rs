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

/// read(2) of a group's leader gives the counts of all, with their ids.
const FORMAT_GROUP: u64 = 1 << 3;
const FORMAT_ID: u64 = 1 << 2;
/// And lost samples after each; Linux 6.0.
const FORMAT_LOST: u64 = 1 << 4;

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

/// What one event of a group has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    pub id: u64,
    pub matching: u64,
    /// How many of them found no room in the ring; Linux 6.0.
    pub lost: Option<u64>,
}

impl Event {
    /// All processes on one CPU. ENODEV: the CPU is offline.
    pub fn open(attr: &PerfEventAttr, cpu: u32) -> io::Result<Self> {
        Ok(Self { fd: sys::perf_event_open(attr, cpu, None)? })
    }

    /// As [`Event::open`], in the group of `leader`, or as the leader of one. The leader's state decides for all.
    pub fn in_group(mut attr: PerfEventAttr, cpu: u32, leader: Option<&Self>) -> io::Result<Self> {
        let leader = leader.map(|leader| &leader.fd);
        let without_lost = FORMAT_GROUP | FORMAT_ID;
        attr.read_format = without_lost | FORMAT_LOST;
        let opened = sys::perf_event_open(&attr, cpu, leader).or_else(|error| match error.raw_os_error() {
            // Before 6.0.
            Some(libc::EINVAL) => {
                attr.read_format = without_lost;
                sys::perf_event_open(&attr, cpu, leader)
            }
            _ => Err(error),
        });
        Ok(Self { fd: opened? })
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

    /// The counts of a group by its leader, which interrupts the CPU once for all of them.
    pub fn counts(&self) -> io::Result<Vec<Count>> {
        let mut bytes = [0; 8 + GROUP_MOST * 24];
        let read = rustix::io::read(&self.fd, &mut bytes)?;
        counts(bytes.get(..read).unwrap_or_default()).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// Events of a group.
pub const GROUP_MOST: usize = 16;

/// How many there are, then of each its count, its id and perhaps what it lost: the struct read_format of perf_event_open(2).
fn counts(bytes: &[u8]) -> Option<Vec<Count>> {
    let mut values = bytes.chunks_exact(8).filter_map(|value| Some(u64::from_ne_bytes(value.try_into().ok()?)));
    let events = usize::try_from(values.next()?).ok()?;
    let values: Vec<u64> = values.collect();
    let of_each = values.len().checked_div(events).filter(|each| each * events == values.len())?;
    let count = |of: &[u64]| Some(Count { matching: *of.first()?, id: *of.get(1)?, lost: of.get(2).copied() });
    values.chunks_exact(of_each.max(1)).map(count).collect()
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
    use super::*;

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

    #[test]
    fn a_group_gives_counts_by_id_with_what_was_lost_or_without() {
        let bytes = |values: &[u64]| values.iter().flat_map(|value| value.to_ne_bytes()).collect::<Vec<u8>>();
        let count = |id, matching, lost| Count { id, matching, lost };
        let with_lost = [count(70, 5, Some(1)), count(71, 9, Some(0))];
        assert_eq!(counts(&bytes(&[2, 5, 70, 1, 9, 71, 0])).as_deref(), Some(with_lost.as_slice()));
        let before_6_0 = [count(70, 5, None), count(71, 9, None)];
        assert_eq!(counts(&bytes(&[2, 5, 70, 9, 71])).as_deref(), Some(before_6_0.as_slice()));
        for broken in [&[][..], &[0], &[2, 5, 70, 9], &[3, 1, 2, 3], &[u64::MAX, 1, 2]] {
            assert_eq!(counts(&bytes(broken)), None, "{broken:?}");
        }
    }
}
