//! perf records: perf_event_open(2), include/uapi/linux/perf_event.h.

use super::format::Order;

/// PERF_SAMPLE_* bits that may precede the raw data. The order of the parts in a sample is fixed by the ABI.
const SAMPLE_TID: u64 = 1 << 1;
const SAMPLE_TIME: u64 = 1 << 2;
const SAMPLE_CALLCHAIN: u64 = 1 << 5;
const SAMPLE_RAW: u64 = 1 << 10;
const SAMPLE_IDENTIFIER: u64 = 1 << 16;
const KNOWN: u64 = SAMPLE_TID | SAMPLE_TIME | SAMPLE_CALLCHAIN | SAMPLE_RAW | SAMPLE_IDENTIFIER;

/// A context marker in a call chain (PERF_CONTEXT_KERNEL, ...), not an address.
pub const CONTEXT_MARKS: u64 = -4095_i64 as u64;

/// PERF_RECORD_NAMESPACES: index of the network namespace (NET_NS_INDEX).
const NET_NS_INDEX: usize = 0;

#[derive(Debug, PartialEq, Eq)]
pub enum Record<'a> {
    Sample { id: u64, body: &'a [u8] },
    Lost { lost: u64 },
    Task { time: u64, change: Change },
    Other,
}

/// What a side-band record says about processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Comm { pid: u32, tid: u32, name: Vec<u8> },
    Fork { pid: u32, parent: u32 },
    Exit { tid: u32 },
    Namespaces { pid: u32, tid: u32, net: u64 },
}

/// A sample, cut into its parts.
#[derive(Debug, PartialEq, Eq)]
pub struct Sample<'a> {
    pub pid: u32,
    pub tid: u32,
    /// Of the clock that the event was opened with, ns.
    pub time: u64,
    /// Kernel addresses, 8 bytes each, innermost first; may contain context marks.
    pub chain: &'a [u8],
    pub raw: &'a [u8],
}

struct Reader<'a> {
    bytes: &'a [u8],
    order: Order,
}

impl<'a> Reader<'a> {
    fn take(&mut self, size: usize) -> Option<&'a [u8]> {
        let (now, rest) = self.bytes.split_at_checked(size)?;
        self.bytes = rest;
        Some(now)
    }
    fn u16(&mut self) -> Option<u16> {
        self.order.number(self.take(2)?).map(|n| n as u16)
    }
    fn u32(&mut self) -> Option<u32> {
        self.order.number(self.take(4)?).map(|n| n as u32)
    }
    fn u64(&mut self) -> Option<u64> {
        self.order.number(self.take(8)?)
    }
}

/// Takes the first record off `bytes`. `None` when they are used up, `Err` when what is there cannot be a record.
pub fn next<'a>(bytes: &mut &'a [u8], order: Order) -> Option<Result<Record<'a>, String>> {
    if bytes.is_empty() {
        return None;
    }
    Some(take(bytes, order).ok_or_else(|| format!("a perf record of {} bytes is cut short or malformed", bytes.len())))
}

fn take<'a>(bytes: &mut &'a [u8], order: Order) -> Option<Record<'a>> {
    let mut head = Reader { bytes, order };
    let (kind, _misc, size) = (head.u32()?, head.u16()?, usize::from(head.u16()?));
    let (record, rest) = bytes.split_at_checked(size)?;
    let mut r = Reader { bytes: record.get(8..)?, order };
    // Of a side-band record: sample_id_all with PERF_SAMPLE_TIME.
    let time = order.number(record.last_chunk::<8>()?)?;
    let parsed = match kind {
        2 => {
            let _id = r.u64()?;
            Record::Lost { lost: r.u64()? }
        }
        3 => {
            let (pid, tid) = (r.u32()?, r.u32()?);
            Record::Task { time, change: Change::Comm { pid, tid, name: r.bytes.split(|b| *b == 0).next()?.to_vec() } }
        }
        4 | 7 => {
            let (pid, parent, tid, _ptid) = (r.u32()?, r.u32()?, r.u32()?, r.u32()?);
            let change = if kind == 4 { Change::Exit { tid } } else { Change::Fork { pid, parent } };
            Record::Task { time, change }
        }
        9 => Record::Sample { id: r.u64()?, body: r.bytes },
        13 => Record::Lost { lost: r.u64()? },
        16 => {
            let (pid, tid, count) = (r.u32()?, r.u32()?, r.u64()?);
            let mut net = None;
            for index in 0..usize::try_from(count).ok()? {
                let (_device, inode) = (r.u64()?, r.u64()?);
                if index == NET_NS_INDEX {
                    net = Some(inode);
                    break;
                }
            }
            net.map_or(Record::Other, |net| Record::Task { time, change: Change::Namespaces { pid, tid, net } })
        }
        _ => Record::Other,
    };
    *bytes = rest;
    Some(parsed)
}

/// Cuts a sample whose event was opened with `sample_type`; its identifier is already taken off.
pub fn sample(body: &[u8], sample_type: u64, order: Order) -> Option<Sample<'_>> {
    if sample_type & !KNOWN != 0 || sample_type & SAMPLE_IDENTIFIER == 0 {
        return None;
    }
    let mut r = Reader { bytes: body, order };
    let mut sample = Sample { pid: 0, tid: 0, time: 0, chain: &[], raw: &[] };
    if sample_type & SAMPLE_TID != 0 {
        sample.pid = r.u32()?;
        sample.tid = r.u32()?;
    }
    if sample_type & SAMPLE_TIME != 0 {
        sample.time = r.u64()?;
    }
    if sample_type & SAMPLE_CALLCHAIN != 0 {
        let count = usize::try_from(r.u64()?).ok()?;
        sample.chain = r.take(count.checked_mul(8)?)?;
    }
    if sample_type & SAMPLE_RAW != 0 {
        let size = r.u32()?;
        sample.raw = r.take(size as usize)?;
    }
    Some(sample)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn never_panics_and_always_ends(bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0u32..20) {
            let mut bytes = bytes;
            if let Some(head) = bytes.first_chunk_mut::<8>() {
                head[..4].copy_from_slice(&kind.to_le_bytes());
                head[7] = 0;
            }
            let (mut rest, mut turns) = (&bytes[..], 0);
            while let Some(Ok(record)) = next(&mut rest, Order::Little) {
                if let Record::Sample { body, .. } = record {
                    let _ = sample(body, KNOWN, Order::Little);
                }
                turns += 1;
                prop_assert!(turns <= bytes.len());
            }
        }
    }

    #[test]
    fn a_record_of_size_zero_is_an_error_not_a_loop() {
        assert!(next(&mut &[9u8, 0, 0, 0, 0, 0, 0, 0][..], Order::Little).unwrap().is_err());
    }

    #[test]
    fn an_unknown_sample_type_is_refused() {
        assert_eq!(sample(&[0; 64], KNOWN | 1, Order::Little), None);
    }
}
