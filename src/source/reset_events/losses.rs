//! How many records of resets were lost; by direction where that is known.

use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct Losses {
    /// Perf event id to whether it is of sent resets, and its running total.
    totals: BTreeMap<u64, (bool, u64)>,
    /// By PERF_RECORD_LOST, which counts every event of the ring: used while there is no total, before Linux 6.0.
    records: u64,
    /// Of former streams of the same recording: all, sent.
    former: (u64, u64),
    taken: (u64, u64),
}

impl Losses {
    pub fn total(&mut self, id: u64, sent: bool, lost: u64) {
        // Never less than before: nothing that is lost comes back.
        let total = self.totals.entry(id).or_insert((sent, 0));
        total.1 = total.1.max(lost);
    }

    pub fn record(&mut self, lost: u64) {
        self.records = self.records.saturating_add(lost);
    }

    /// The stream has ended; another one of the same recording begins, with event ids of its own.
    pub fn closed(self) -> Self {
        Self { former: self.all(), taken: self.taken, ..Self::default() }
    }

    /// All and sent since the previous call.
    pub fn take(&mut self) -> (u64, u64) {
        let (all, taken) = (self.all(), self.taken);
        // With a first total the records no longer count, which said more.
        self.taken = (all.0.max(taken.0), all.1.max(taken.1));
        (all.0.saturating_sub(taken.0), all.1.saturating_sub(taken.1))
    }

    fn all(&self) -> (u64, u64) {
        let sum = |sent_only: bool| {
            self.totals
                .values()
                .filter(|(sent, _)| *sent || !sent_only)
                .fold(0u64, |sum, (_, n)| sum.saturating_add(*n))
        };
        let all = if self.totals.is_empty() { self.records } else { sum(false) };
        (self.former.0.saturating_add(all), self.former.1.saturating_add(sum(true)))
    }
}
