//! Families of metrics with a bound of their label sets.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// Label sets of one family.
pub const MOST: usize = 200;
/// What stands for those beyond it.
pub const OTHER: &str = "other";

pub type Labels = Vec<(&'static str, String)>;
pub type Count = Bounded<Counter>;
pub type Level = Bounded<Gauge>;
/// Bounded by who fills it.
pub type Series<M> = Family<Labels, M>;
pub type Measure = Series<Gauge<f64, AtomicU64>>;

/// A family that knows how many label sets it has.
#[derive(Default)]
pub struct Bounded<M> {
    pub family: Series<M>,
    count: AtomicUsize,
}

impl<M: Clone + Default> Bounded<M> {
    /// The metric of these labels, or that of the rest once the family is full.
    pub fn at(&self, labels: Labels) -> M {
        if self.family.get(&labels).is_some() {
            return self.family.get_or_create_owned(&labels);
        }
        if self.count.load(Ordering::Relaxed) < MOST {
            self.count.fetch_add(1, Ordering::Relaxed);
            return self.family.get_or_create_owned(&labels);
        }
        self.family.get_or_create_owned(&rest(&labels))
    }

    pub fn clear(&self) {
        self.family.clear();
        self.count.store(0, Ordering::Relaxed);
    }
}

/// The labels of those that are not named.
pub fn rest(labels: &Labels) -> Labels {
    labels.iter().map(|(name, _)| (*name, OTHER.to_owned())).collect()
}

/// What nobody counted is no 0, and has no series.
pub fn add(family: &Count, labels: Labels, count: Option<u64>) {
    if let Some(count) = count {
        family.at(labels).inc_by(count);
    }
}

/// Of those beyond the bound the highest is told.
pub fn set(family: &Level, labels: Labels, value: i64) {
    let gauge = family.at(labels);
    gauge.set(gauge.get().max(value));
}
