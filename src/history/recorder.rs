//! From ticks to entries.

use std::collections::HashMap;
use std::time::Duration;

use super::{Account, Entry, Event, Place};
use crate::diagnosis::Status;
use crate::timeline::Tick;

/// An account is made of so much time.
const MINUTE: u64 = 60_000;

/// Makes the entries of a row of ticks.
#[derive(Debug, Default)]
pub struct Recorder {
    minute: Account,
    late: Late,
}

/// Connections that failed in a tick, and that the kernel has not told to have ended: it will in the next, of which they are no
/// attempts. By place and address.
#[derive(Debug, Default)]
struct Late(HashMap<(Place, String), u64>);

impl Late {
    /// Ticks add up afterwards.
    fn settle(&mut self, account: &mut Account) {
        let earlier = std::mem::take(&mut self.0);
        for service in &mut account.services {
            let (Some(all), failures) = (service.ended, service.failures.unwrap_or(0)) else { continue };
            let key = (Place { process: None, unit: None, ..service.place.clone() }, service.address.clone());
            let ended = all.saturating_sub(earlier.get(&key).copied().unwrap_or(0));
            service.attempts = Some(ended.max(failures).max(service.connects));
            // What was rejected never was a connection that could end.
            let late = failures.saturating_sub(service.rejected).saturating_sub(ended);
            if late > 0 {
                self.0.insert(key, late);
            }
        }
    }
}

impl Recorder {
    /// What this tick counted, with all services. Each is to be asked for once, in their order.
    pub fn account(&mut self, tick: &Tick) -> Account {
        let mut account = Account::of(tick);
        self.late.settle(&mut account);
        account
    }

    /// The entries that a tick makes: what happened, the tick itself if something is wrong, and the minute that is full.
    pub fn tick(&mut self, tick: &Tick, account: &Account) -> Vec<Entry> {
        let mut entries: Vec<Entry> = tick.events.iter().filter_map(|e| Event::of(e, tick)).map(Entry::Event).collect();
        let change = |change: &crate::timeline::Change| Entry::Change {
            at: super::entry::millis(change.at.wall),
            text: change.text.clone(),
        };
        entries.extend(tick.changes.iter().map(change));
        // A minute holds ticks of one minute of the clock, and of one row: a clock that was set back begins another.
        let later = account.until / MINUTE != self.minute.until / MINUTE || account.until <= self.minute.until;
        if self.minute.ticks > 0 && later {
            entries.push(self.minute());
        }
        self.minute.add(account);
        if !matches!(tick.status, Status::Ok) || !tick.events.is_empty() {
            entries.push(Entry::Tick(account.clone().bounded()));
        }
        entries
    }

    /// What was not told yet, when it ends.
    pub fn rest(&mut self) -> Option<Entry> {
        (self.minute.ticks > 0).then(|| self.minute())
    }

    fn minute(&mut self) -> Entry {
        Entry::Minute(std::mem::take(&mut self.minute).bounded())
    }

    /// How long the account that is open is.
    pub fn open(&self) -> Duration {
        Duration::from_millis(self.minute.until.saturating_sub(self.minute.from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Past, Service, Wanted};
    use crate::timeline::testing::Row;

    /// 20 connections a tick, all reset; the last one of each tick is told to have ended in the next.
    #[test]
    fn a_connection_that_fails_at_the_end_of_a_tick_is_one_attempt() {
        let (mut late, mut all) = (Late::default(), Account::default());
        for (ended, failures) in [(19, 20), (20, 20), (20, 20), (1, 0), (0, 0), (30, 10)] {
            let service = Service {
                place: Place { at: "port 80".into(), port: Some(80), ..Place::default() },
                address: "0.0.0.0".into(),
                attempts: Some(ended.max(failures)),
                failures: Some(failures),
                ended: Some(ended),
                ..Service::default()
            };
            let mut tick = Account { ticks: 1, services: vec![service], ..Account::default() };
            late.settle(&mut tick);
            all.add(&tick);
        }
        assert_eq!((all.services[0].attempts, all.services[0].failures), (Some(60 + 30), Some(60 + 10)));
    }

    /// 20 s of a minute, and then 50 s from 40 s before on: what failed in the part that the clock shows twice failed once.
    #[test]
    fn a_clock_that_is_set_back_within_a_minute_counts_nothing_twice() {
        const START: u64 = 1_000 * MINUTE;
        let (mut recorder, mut past) = (
            Recorder::default(),
            Past::new(Wanted { since: START, until: START + 2 * MINUTE, ..Wanted::default() }, 10),
        );
        let mut tick = Row::new().whole(&[]);
        tick.status = Status::Critical;
        let seconds = (32..=50).step_by(2).chain((12..=62).step_by(2));
        for second in seconds.clone() {
            tick.at.wall = Duration::from_secs(START / 1_000 + second);
            let place = Place { at: "port 80".into(), port: Some(80), ..Place::default() };
            let service = Service { place, attempts: Some(3), failures: Some(1), ..Service::default() };
            let account = Account { services: vec![service], ..Account::of(&tick) };
            recorder.tick(&tick, &account).into_iter().for_each(|entry| past.push(entry));
        }
        recorder.rest().into_iter().for_each(|entry| past.push(entry));
        let (past, all) = (past.finish(None), seconds.count() as u64);
        assert_eq!((past.services[0].failures(), past.account.ticks), (all, all as u32));
    }
}
