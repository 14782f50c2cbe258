//! What the side-band said of processes that live: who reads the events from the middle of the stream on needs their names.

use std::collections::VecDeque;

use super::format::Order;
use super::record::{self, Change, Record};
use crate::stream::{Blocks, Kind, append};

/// Records that are kept, the latest; each is some 50 to 120 bytes.
const MOST: usize = 2_048;

/// The records of processes that began, or changed their name or network namespace, since the list of all, but for those that ended
/// since.
#[derive(Debug, Clone, Default)]
pub struct SideBand {
    big_endian: bool,
    /// With the pid that each is about.
    records: VecDeque<(u32, Vec<u8>)>,
}

impl SideBand {
    /// Takes what the stream of reset events said next; it holds whole blocks.
    pub fn absorb(&mut self, stream: &[u8]) {
        // What is broken is told by the parser.
        let _ = Blocks::new("reset events").feed(stream, &mut |kind, _, payload| {
            match kind {
                Kind::Start => self.big_endian = payload.windows(10).any(|words| words == b"endian big"),
                Kind::Tasks => self.records.clear(),
                Kind::Records => self.records(payload),
                _ => {}
            }
            Ok(())
        });
    }

    fn records(&mut self, mut bytes: &[u8]) {
        let order = if self.big_endian { Order::Big } else { Order::Little };
        loop {
            let before = bytes;
            let Some(Ok(record)) = record::next(&mut bytes, order) else { return };
            let Record::Task { change, .. } = record else { continue };
            match change {
                Change::Exit { tid } => self.records.retain(|(pid, _)| *pid != tid),
                Change::Fork { pid, parent } if pid == parent => {}
                Change::Comm { pid, tid, .. } | Change::Namespaces { pid, tid, .. } if pid != tid => {}
                Change::Comm { pid, .. } | Change::Fork { pid, .. } | Change::Namespaces { pid, .. } => {
                    if self.records.len() >= MOST {
                        self.records.pop_front();
                    }
                    let record = before.get(..before.len() - bytes.len()).unwrap_or_default();
                    self.records.push_back((pid, record.to_vec()));
                }
            }
        }
    }

    /// There is a new list of all processes.
    pub fn clear(&mut self) {
        self.records.clear();
    }

    /// The block that says the same once more; nothing where there is nothing to say.
    pub fn block(&self) -> Option<Vec<u8>> {
        let records: Vec<u8> = self.records.iter().flat_map(|(_, record)| record).copied().collect();
        (!records.is_empty()).then(|| {
            let mut block = Vec::new();
            append(&mut block, Kind::Records, 0, &records);
            block
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u32, fields: &[u32], name: &[u8]) -> Vec<u8> {
        let mut body: Vec<u8> = fields.iter().flat_map(|field| field.to_le_bytes()).collect();
        body.extend_from_slice(name);
        body.resize(body.len().next_multiple_of(8), 0);
        body.extend_from_slice(&7_u64.to_le_bytes());
        let size = u16::try_from(body.len() + 8).expect("small");
        [&kind.to_le_bytes()[..], &[0, 0], &size.to_le_bytes(), &body].concat()
    }

    fn fork(pid: u32) -> Vec<u8> {
        let time = [0, 0];
        record(7, &[pid, 1, pid, 1, time[0], time[1]], b"")
    }

    fn comm(pid: u32, tid: u32, name: &[u8]) -> Vec<u8> {
        record(3, &[pid, tid], name)
    }

    fn exit(tid: u32) -> Vec<u8> {
        record(4, &[tid, 1, tid, 1, 0, 0], b"")
    }

    fn stream(kind: Kind, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        append(&mut out, kind, 1, payload);
        out
    }

    fn kept(side_band: &SideBand) -> Vec<u8> {
        side_band.block().map(|block| block[8..].to_vec()).unwrap_or_default()
    }

    #[test]
    fn who_began_is_told_again_and_who_ended_is_not() {
        let mut side_band = SideBand::default();
        side_band.absorb(&stream(Kind::Start, b"rstdoctor-reset-events 1\nendian little\n"));
        let sample = record(9, &[5, 0, 6, 7], b"");
        let said = [fork(40), sample, comm(40, 40, b"curl\0"), fork(41), comm(40, 43, b"thread\0"), exit(41)].concat();
        side_band.absorb(&stream(Kind::Records, &said));
        assert_eq!(kept(&side_band), [fork(40), comm(40, 40, b"curl\0")].concat());
        side_band.absorb(&stream(Kind::Tasks, b"40 - user curl\n"));
        assert_eq!(side_band.block(), None, "the list has it");
    }

    #[test]
    fn a_storm_of_processes_is_bounded() {
        let mut side_band = SideBand::default();
        let many: Vec<u8> = (1..=5_000).flat_map(fork).collect();
        side_band.absorb(&stream(Kind::Records, &many));
        assert_eq!(side_band.records.len(), MOST);
        assert_eq!(side_band.records.back().map(|(pid, _)| *pid), Some(5_000));
    }
}
