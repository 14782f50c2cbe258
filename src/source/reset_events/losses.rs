//! How many records of resets were lost; by direction where that is known.

use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct Losses {
    /// Perf event id to its running total.
    totals: BTreeMap<u64, u64>,
    /// Their sums: all, sent.
    sums: (u64, u64),
    /// By PERF_RECORD_LOST, which counts every event of the ring: used while there is no total, before Linux 6.0.
    records: u64,
    /// Of former streams of the same recording: all, sent.
    former: (u64, u64),
    taken: (u64, u64),
}

impl Losses {
    pub fn total(&mut self, id: u64, sent: bool, lost: u64) {
        // Never less than before: nothing that is lost comes back.
        let total = self.totals.entry(id).or_insert(0);
        let more = lost.saturating_sub(*total);
        *total = (*total).max(lost);
        self.sums.0 = self.sums.0.saturating_add(more);
        if sent {
            self.sums.1 = self.sums.1.saturating_add(more);
        }
    }

    pub fn record(&mut self, lost: u64) {
        self.records = self.records.saturating_add(lost);
    }

    /// The stream has ended; another one of the same recording begins, with event ids of its own.
    pub fn closed(self) -> Self {
        Self { former: self.all(), taken: self.taken, ..Self::default() }
    }

    /// Since the previous call: all, sent, and of either direction.
    pub fn take(&mut self) -> (u64, u64, u64) {
        let (all, taken) = (self.all(), self.taken);
        // With a first total the records no longer count, which said more.
        self.taken = (all.0.max(taken.0), all.1.max(taken.1));
        let (all, sent) = (all.0.saturating_sub(taken.0), all.1.saturating_sub(taken.1));
        (all, sent, if self.totals.is_empty() { all } else { 0 })
    }

    fn all(&self) -> (u64, u64) {
        let all = if self.totals.is_empty() { self.records } else { self.sums.0 };
        (self.former.0.saturating_add(all), self.former.1.saturating_add(self.sums.1))
    }
}
