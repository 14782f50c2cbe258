//! Services and resets over the time, in equal parts of it.

use std::time::Duration;

use super::{Account, MOST, Past, Service, Span, Wanted, plus};

/// One service over the time that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub service: Service,
    /// Connections that failed or were lost in each part of the time; `None` where nothing was recorded.
    pub failed: Vec<Option<u64>>,
    /// Longest accept queue of each part, of 1,000 for a full one.
    pub fill: Vec<u16>,
}

impl Row {
    /// All that failed or were lost.
    pub fn failures(&self) -> u64 {
        total(self.failed.iter().flatten())
    }
}

/// Their sum, as far as a number goes: a store may be damaged.
pub fn total<'a>(counts: impl IntoIterator<Item = &'a u64>) -> u64 {
    counts.into_iter().fold(0, |sum, count| sum.saturating_add(*count))
}

impl Past {
    /// Counts services and resets.
    pub(super) fn count(&mut self, account: &Account) {
        let Some(within) = self.wanted.clip(Span { from: account.from, until: account.until }) else { return };
        if !account.services.is_empty() || account.resets.iter().any(|line| line.count > 0) {
            let counted = self.counted.get_or_insert(Span { from: self.wanted.since, until: self.wanted.until });
            (counted.from, counted.until) = (counted.from.min(account.from), counted.until.max(account.until));
        }
        for place in account.services.iter().map(|own| &own.place).chain(account.causes.iter().map(|own| &own.place)) {
            self.named(place, within);
        }
        self.fit(account);
        let shares = self.shares(within);
        for service in account.services.iter().filter(|service| service.place.port.is_some()) {
            if self.wanted.service(service) {
                self.count_service(service, &shares);
            }
        }
        for line in &account.resets {
            let full = self.by_reason.len() >= MOST;
            let key = (line.direction, line.words());
            if full && !self.by_reason.contains_key(&key) {
                continue;
            }
            let counts = self.by_reason.entry(key).or_insert_with(|| vec![0; self.buckets]);
            for (bucket, part) in shares.parts(line.count) {
                if let Some(count) = counts.get_mut(bucket) {
                    *count = count.saturating_add(part);
                }
            }
        }
        self.account.add(&Account { services: Vec::new(), other: None, ..account.clone() });
    }

    fn count_service(&mut self, service: &Service, shares: &Shares) {
        let index = match self.services.iter().position(|row| row.service.is_same(service)) {
            Some(index) => index,
            None if self.services.len() < MOST => {
                let service = Service { attempts: None, failures: None, drops: None, ..service.clone() };
                let (failed, fill) = (vec![None; self.buckets], vec![0; self.buckets]);
                self.services.push(Row { service, failed, fill });
                self.services.len() - 1
            }
            None => return,
        };
        let Some(row) = self.services.get_mut(index) else { return };
        row.service.add(service);
        let full = u64::from(service.queue) * 1000 / (u64::from(service.backlog) + 1);
        let full = u16::try_from(full.min(1000)).unwrap_or(1000);
        let failures = plus(service.failures, service.drops);
        for (bucket, part) in shares.parts(failures.unwrap_or(0)) {
            if let Some(fill) = row.fill.get_mut(bucket) {
                *fill = (*fill).max(full);
            }
            if let Some(failed) = row.failed.get_mut(bucket) {
                *failed = plus(*failed, failures.map(|_| part));
            }
        }
    }

    pub(super) fn bucket(&self, at: u64) -> usize {
        let Wanted { since, until, .. } = self.wanted;
        let length = until.saturating_sub(since).max(1);
        let part = at.saturating_sub(since).saturating_mul(self.buckets as u64) / length;
        usize::try_from(part).unwrap_or(usize::MAX).min(self.buckets - 1)
    }

    /// The parts of the time that a tick or a minute lies in.
    fn shares(&self, within: Span) -> Shares {
        let Wanted { since, until, .. } = self.wanted;
        let first = self.bucket(within.from);
        let last = self.bucket(within.until.saturating_sub(1).max(within.from));
        let length = u128::from(until.saturating_sub(since).max(1));
        // Where each of these parts ends, of the tick.
        let end = |bucket: usize| {
            let end = u128::from(since) + length * (bucket as u128 + 1) / self.buckets as u128;
            u64::try_from(end).unwrap_or(u64::MAX).clamp(within.from, within.until) - within.from
        };
        let length = within.until.saturating_sub(within.from).max(1);
        let mut ends: Vec<u64> = (first..=last).map(end).collect();
        ends.last_mut().into_iter().for_each(|last| *last = length);
        Shares { first, ends, length }
    }

    pub(super) fn settle_rows(&mut self) {
        self.widen();
        if self.wanted.cause.is_some() {
            let there = |row: &Row| self.episodes.iter().any(|episode| episode.place.is_same(&row.service.place));
            let kept: Vec<bool> = self.services.iter().map(there).collect();
            let mut kept = kept.into_iter();
            self.services.retain(|_| kept.next().unwrap_or(true));
        }
        let weight = |row: &Row| (row.failures(), row.service.attempts);
        self.services.sort_by_key(|row| std::cmp::Reverse(weight(row)));
    }

    /// How long each part is.
    pub fn part(&self) -> Duration {
        let length = self.wanted.until.saturating_sub(self.wanted.since);
        Duration::from_millis(length / self.buckets.max(1) as u64)
    }

    /// The most that failed or was lost in one part, at any service.
    pub fn highest(&self) -> u64 {
        self.services.iter().flat_map(|row| row.failed.iter().flatten()).copied().max().unwrap_or(0)
    }

    /// So many parts may there be: none is shorter than the time between two ticks, within which nobody knows when it was.
    fn most_parts(&self) -> usize {
        let length = self.wanted.until.saturating_sub(self.wanted.since);
        let most = length.checked_div(self.longest_interval).unwrap_or(u64::MAX).max(1);
        usize::try_from(most).unwrap_or(usize::MAX)
    }

    /// Before anything is counted.
    fn fit(&mut self, account: &Account) {
        // That the recorder began may be told in a part of the index that is gone.
        if self.longest_interval == 0 {
            let length = account.until.saturating_sub(account.from);
            self.longest_interval = length.checked_div(u64::from(account.ticks)).unwrap_or(0);
        }
        if self.services.is_empty() && self.by_reason.is_empty() {
            self.buckets = self.buckets.min(self.most_parts());
        }
    }

    /// For a recorder that began later, with a longer time between ticks.
    fn widen(&mut self) {
        let (old, new) = (self.buckets, self.most_parts());
        if new >= old {
            return;
        }
        let of = |index: usize| index * new / old;
        for row in &mut self.services {
            let (mut failed, mut fill) = (vec![None; new], vec![0; new]);
            for (index, (count, full)) in row.failed.iter().zip(&row.fill).enumerate() {
                failed[of(index)] = plus(failed[of(index)], *count);
                fill[of(index)] = (*full).max(fill[of(index)]);
            }
            (row.failed, row.fill) = (failed, fill);
        }
        for counts in self.by_reason.values_mut() {
            let mut wide = vec![0_u64; new];
            for (index, count) in counts.iter().enumerate() {
                wide[of(index)] = wide[of(index)].saturating_add(*count);
            }
            *counts = wide;
        }
        self.buckets = new;
    }
}

/// The parts of the time that a tick lies in, and how much of it.
struct Shares {
    first: usize,
    /// Where each ends, from the beginning of the tick.
    ends: Vec<u64>,
    length: u64,
}

impl Shares {
    /// What was counted is spread over the tick: what happened in it went on in all of it, as far as anybody knows.
    fn parts(&self, count: u64) -> impl Iterator<Item = (usize, u64)> {
        let mut before = 0;
        self.ends.iter().enumerate().map(move |(index, end)| {
            // Rounded, so that a single one is in the middle.
            let until = (u128::from(count) * u128::from(*end) + u128::from(self.length / 2)) / u128::from(self.length);
            let until = u64::try_from(until).unwrap_or(u64::MAX);
            let part = until.saturating_sub(before);
            before = until;
            (self.first + index, part)
        })
    }
}
