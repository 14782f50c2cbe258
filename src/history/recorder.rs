//! From ticks to entries.

use std::time::Duration;

use super::{Account, Entry, Event};
use crate::diagnosis::Status;
use crate::timeline::Tick;

/// An account is made of so much time.
const MINUTE: u64 = 60_000;

/// Makes the entries of a row of ticks.
#[derive(Debug, Default)]
pub struct Recorder {
    minute: Account,
}

impl Recorder {
    /// The entries that this tick makes: what happened, the tick itself if something is wrong, and the minute that is full.
    pub fn tick(&mut self, tick: &Tick) -> Vec<Entry> {
        let account = Account::of(tick);
        let mut entries: Vec<Entry> = tick.events.iter().filter_map(|e| Event::of(e, tick)).map(Entry::Event).collect();
        let change = |change: &crate::timeline::Change| Entry::Change {
            at: super::entry::millis(change.at.wall),
            text: change.text.clone(),
        };
        entries.extend(tick.changes.iter().map(change));
        // A minute holds ticks of one minute of the clock, and of one row: a clock that was set begins another.
        let later = account.until / MINUTE != self.minute.until / MINUTE || account.from + MINUTE < self.minute.until;
        if self.minute.ticks > 0 && later {
            entries.push(Entry::Minute(std::mem::take(&mut self.minute)));
        }
        self.minute.add(&account);
        if !matches!(tick.status, Status::Ok) || !tick.events.is_empty() {
            entries.push(Entry::Tick(account));
        }
        entries
    }

    /// What was not told yet, when it ends.
    pub fn rest(&mut self) -> Option<Entry> {
        (self.minute.ticks > 0).then(|| Entry::Minute(std::mem::take(&mut self.minute)))
    }

    /// How long the account that is open is.
    pub fn open(&self) -> Duration {
        Duration::from_millis(self.minute.until.saturating_sub(self.minute.from))
    }
}
