//! Metrics of services and their listeners: who of them is named, what was counted of each, and its queue of a time that no scrape
//! misses.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::bounded::{Labels, MOST, Series, rest};
use super::place;
use crate::history::Service;

/// The longest queue of so much time is told, so that each window is seen by who asks once in it. Milliseconds.
const REMEMBERED: u64 = 60_000;
/// Who had nothing for so long gives way to who has something. Prometheus forgets a series that is away for 5 minutes.
const IDLE: u64 = 600_000;
/// For a limit of which it is not known who set it.
const UNKNOWN: &str = "unknown";

/// The families of services, each bounded by who is named.
#[derive(Default)]
pub struct Services {
    pub attempts: Series<Counter>,
    pub failures: Series<Counter>,
    pub drops: Series<Counter>,
    pub queue: Series<Gauge>,
    pub backlog: Series<Gauge>,
    pub limit: Series<Gauge>,
    pub left_out: Series<Gauge>,
    named: HashMap<Labels, Named>,
    /// Of all windows together, milliseconds.
    now: u64,
}

/// A service that is told of by name.
#[derive(Default)]
struct Named {
    /// When it last had connections or a queue.
    busy: u64,
    /// Queues and when they were, each longer than all that came later.
    queues: VecDeque<(u64, u32)>,
}

impl Named {
    /// The longest queue of the latest time, with this one.
    fn longest(&mut self, now: u64, queue: u32) -> u32 {
        while self.queues.back().is_some_and(|(_, earlier)| *earlier <= queue) {
            self.queues.pop_back();
        }
        self.queues.push_back((now, queue));
        while self.queues.front().is_some_and(|(at, _)| at.saturating_add(REMEMBERED) <= now) {
            self.queues.pop_front();
        }
        self.queues.front().map_or(queue, |(_, longest)| *longest)
    }
}

impl Services {
    /// Takes the services of a window of so many milliseconds, and how many the diagnosis left out. `resets`: those of this host are
    /// told one by one.
    pub fn window(&mut self, services: &[Service], length: u64, left_out: u64, resets: bool) {
        self.now = self.now.saturating_add(length);
        for level in [&self.queue, &self.backlog, &self.limit] {
            level.clear();
        }
        let mut unnamed = left_out;
        let mut services: Vec<&Service> = services.iter().collect();
        // Where not all can be named, those in trouble are.
        services.sort_by_key(|service| Reverse((service.failures, service.drops, service.attempts, service.queue)));
        for service in services {
            let labels = labels(service);
            let (attempts, failures) = tried_and_failed(service, resets);
            let queue = self.queue_of(service, &labels);
            let told = if queue.is_some() { labels } else { rest(&labels) };
            for (family, count) in
                [(&self.attempts, attempts), (&self.failures, failures), (&self.drops, service.drops)]
            {
                if let Some(count) = count {
                    family.get_or_create_owned(&told).inc_by(count);
                }
            }
            let Some(queue) = queue else {
                unnamed = unnamed.saturating_add(1);
                continue;
            };
            // Several of the same name, in namespaces without one: the worst.
            for (family, value) in [(&self.queue, queue), (&self.backlog, service.backlog)] {
                let gauge = family.get_or_create_owned(&told);
                gauge.set(gauge.get().max(i64::from(value)));
            }
            let limit = service.limit.as_deref().unwrap_or(UNKNOWN).to_owned();
            self.limit.get_or_create_owned(&told.into_iter().chain([("limit", limit)]).collect()).set(1);
        }
        self.left_out.get_or_create_owned(&Labels::new()).set(i64::try_from(unnamed).unwrap_or(i64::MAX));
    }

    /// The longest queue of a service that is named; `None` of one that is not.
    fn queue_of(&mut self, service: &Service, labels: &Labels) -> Option<u32> {
        let (now, busy) = (self.now, service.is_worth_it());
        if !self.named.contains_key(labels) {
            self.make_room(busy)?;
            self.named.insert(labels.clone(), Named { busy: now, ..Named::default() });
        }
        let named = self.named.get_mut(labels)?;
        if busy {
            named.busy = now;
        }
        Some(named.longest(now, service.queue))
    }

    /// `None` if there is none, for one that has something or has not.
    fn make_room(&mut self, busy: bool) -> Option<()> {
        if self.named.len() < MOST {
            return Some(());
        }
        let idlest = self.named.iter().filter(|_| busy).min_by_key(|(_, named)| named.busy);
        let (labels, _) = idlest.filter(|(_, named)| named.busy.saturating_add(IDLE) <= self.now)?;
        let labels = labels.clone();
        self.named.remove(&labels);
        for family in [&self.attempts, &self.failures, &self.drops] {
            family.remove(&labels);
        }
        Some(())
    }
}

fn labels(service: &Service) -> Labels {
    place(&service.place).into_iter().chain([("address", service.address.clone())]).collect()
}

/// Connections, and those of them that failed, with the attempts that were lost at the listener: those never were connections that
/// could end. Where resets are not told, that none failed is not known; what was lost has failed in any case.
fn tried_and_failed(service: &Service, resets: bool) -> (Option<u64>, Option<u64>) {
    let lost = service.drops.unwrap_or(0);
    let reset = service.failures.filter(|failures| resets || *failures > 0);
    let plus = |count: Option<u64>| count.map(|count| count.saturating_add(lost));
    (plus(service.attempts), plus(reset.or((lost > 0).then_some(0))))
}
