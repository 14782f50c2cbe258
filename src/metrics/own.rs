//! What the program itself costs.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::bounded::{Labels, Series};

/// What the program itself costs; absent where it cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Own {
    pub cpu_s: Option<f64>,
    pub resident_bytes: Option<u64>,
    pub open_fds: Option<u64>,
    pub store_bytes: Option<u64>,
    /// Files that were deleted because the store was full.
    pub store_deleted: u64,
    /// The index or recordings cannot be written.
    pub store_failing: bool,
}

/// The families of it. Without a value they have no series: of one diagnosis nobody tells them.
#[derive(Default)]
pub struct OwnMetrics {
    pub cpu: Series<Counter<f64, AtomicU64>>,
    pub resident: Series<Gauge>,
    pub fds: Series<Gauge>,
    pub store: Series<Gauge>,
    pub deleted: Series<Counter>,
    pub failing: Series<Gauge>,
}

impl OwnMetrics {
    pub fn set(&self, own: Own) {
        let none = Labels::new();
        if let Some(cpu) = own.cpu_s {
            let counter = self.cpu.get_or_create(&none);
            counter.inc_by((cpu - counter.get()).max(0.0));
        }
        let gauges = [
            (&self.resident, own.resident_bytes),
            (&self.fds, own.open_fds),
            (&self.store, own.store_bytes),
            (&self.failing, Some(u64::from(own.store_failing))),
        ];
        for (gauge, value) in gauges {
            if let Some(value) = value.and_then(|value| i64::try_from(value).ok()) {
                gauge.get_or_create(&none).set(value);
            }
        }
        let deleted = self.deleted.get_or_create(&none);
        deleted.inc_by(own.store_deleted.saturating_sub(deleted.get()));
    }
}
