//! What failed in the windows just before. In a row of short windows each holds one or two failures of a service that fails
//! altogether, and one or two are anybody's chance: only together they tell.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::evidence::Evidence;
use crate::evidence::harm::{Harm, Lately, Target};
use crate::evidence::repeated::Refused;
use crate::evidence::requests::Requests;

/// How far back, of the end of the window: three windows of ten seconds, which end a little late.
const REACH: Duration = Duration::from_millis(30_500);
/// Places of a window that are remembered.
const MOST: usize = 1024;

/// The windows before one, of a network namespace.
#[derive(Debug, Clone, Default)]
pub struct Recent {
    windows: VecDeque<Arc<Past>>,
    /// There are others, before or after.
    pub(super) in_a_row: bool,
}

/// What is remembered of a window.
#[derive(Debug, Clone, Default)]
pub struct Past {
    /// Its ends, CLOCK_BOOTTIME.
    from: Duration,
    until: Duration,
    /// Connections that failed, by cause.
    failed: BTreeMap<(&'static str, Target), u64>,
    /// Connections that ended at places where something failed lately, and at all served ports.
    ended: BTreeMap<Target, u64>,
    refused: Refused,
    requests: Requests,
}

impl Recent {
    /// `in_a_row`: windows are judged one after the other.
    pub fn new(in_a_row: bool) -> Self {
        Self { in_a_row, ..Self::default() }
    }

    /// Adds a window. One that was judged before, with less evidence, is replaced.
    pub fn push(&mut self, past: Past) {
        self.windows.retain(|window| window.until <= past.from);
        let is_empty = past.failed.is_empty() && past.refused.is_empty() && past.requests.is_empty();
        if !is_empty || !past.ended.is_empty() {
            self.windows.push_back(Arc::new(past));
        }
    }

    /// Forgets what is too long ago at that time, CLOCK_BOOTTIME. Whether anything is left.
    pub fn keep_since(&mut self, now: Duration) -> bool {
        self.windows.retain(|window| window.from >= now.saturating_sub(REACH));
        !self.windows.is_empty()
    }

    /// Those before a window that ends and begins then.
    fn before(&self, [from, until]: [Duration; 2]) -> impl Iterator<Item = &Past> {
        let reach = until.saturating_sub(REACH);
        self.windows.iter().map(Arc::as_ref).filter(move |window| window.from >= reach && window.until <= from)
    }

    fn failed_lately(&self, target: Target) -> bool {
        self.windows.iter().any(|window| window.failed.keys().any(|(_, failed)| *failed == target))
    }
}

impl Evidence<'_> {
    /// The window is one of a row of them.
    pub fn is_in_a_row(&self) -> bool {
        self.recent.in_a_row
    }

    /// From then, CLOCK_BOOTTIME, to the end of the window.
    pub fn since(&self, then: Duration) -> Duration {
        self.ends_at().saturating_sub(then)
    }

    fn ends(&self) -> [Duration; 2] {
        [self.before().at.mono, self.ends_at()]
    }

    /// What the next windows are to know of this one. `harms`: what was found, by its cause, and how many of the failures are there
    /// still, and will be found again.
    pub fn to_remember<'h>(&self, harms: impl Iterator<Item = (&'static str, &'h Harm, u64)>) -> Past {
        let [from, until] = self.ends();
        let (refused, requests) = (self.refused_now(), self.requests_now());
        let mut past = Past { from, until, refused, requests, ..Past::default() };
        for (cause, harm, standing) in harms {
            let failed = harm.failures.saturating_sub(standing);
            if let Some(target) = harm.target.filter(|_| failed > 0) {
                let failures = past.failed.entry((cause, target)).or_default();
                *failures = failures.saturating_add(failed);
            }
        }
        let of_interest = |target: &Target| match target {
            Target::Port(_) => true,
            Target::Called(_) => self.recent.failed_lately(*target),
        };
        past.ended = self.ended_at(of_interest).take(MOST).collect();
        past
    }

    /// The same harm with that of the windows before; `None` where nothing failed there by this cause.
    pub fn lately(&self, cause: &'static str, harm: &Harm) -> Option<Lately> {
        let (target, attempts) = harm.target.zip(harm.attempts)?;
        let now = self.ends_at();
        // One that failed may be told of as ended only in the next window: so all of them are counted together.
        let (mut failures, mut ended, mut ended_before) = (0u64, 0u64, 0u64);
        let (mut since, mut earliest) = (None, now);
        for window in self.recent.before(self.ends()) {
            let failed = window.failed.get(&(cause, target)).copied().unwrap_or(0);
            let all = window.ended.get(&target).copied().unwrap_or(0);
            earliest = earliest.min(window.from);
            if failed > 0 {
                since.get_or_insert(window.from);
            }
            let of = if since.is_some() { &mut ended } else { &mut ended_before };
            *of = of.saturating_add(all);
            failures = failures.saturating_add(failed);
        }
        let since = since?;
        failures = failures.saturating_add(harm.failures);
        let all = |before: u64| match harm.unopened {
            true => before.saturating_add(attempts.saturating_sub(harm.failures)).saturating_add(failures),
            false => before.saturating_add(attempts).max(failures),
        };
        let (attempts, from) = match all(ended) {
            since_first if failures >= since_first => (since_first, since),
            _ => (all(ended.saturating_add(ended_before)), earliest),
        };
        Some(Lately { failures, attempts, over: now.saturating_sub(from), since })
    }

    /// What was asked in the windows before, at places where some got no answer.
    pub(super) fn requests_before(&self) -> impl Iterator<Item = (Duration, &Requests)> {
        self.recent.before(self.ends()).map(|window| (window.from, &window.requests))
    }

    /// The connects that were refused in the windows before.
    pub(super) fn refused_before(&self) -> impl Iterator<Item = (Duration, &Refused)> {
        self.recent.before(self.ends()).map(|window| (window.from, &window.refused))
    }
}
