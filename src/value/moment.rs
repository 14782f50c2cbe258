//! Points in time, as the kernel room reads them.

use std::time::Duration;

/// A point in time, read once per frame and never by a pure module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moment {
    /// CLOCK_BOOTTIME, since boot: differences are true durations even across suspend and clock steps.
    pub mono: Duration,
    /// CLOCK_REALTIME, since the Unix epoch.
    pub wall: Duration,
    /// Time in suspend since boot: CLOCK_BOOTTIME less CLOCK_MONOTONIC. Always zero in recordings of versions before 0.2.
    pub asleep: Duration,
}

impl Moment {
    /// Time since then without suspend, in which nothing happened.
    pub fn awake_since(self, then: Self) -> Duration {
        /// Two clocks that are read one after the other.
        const NOISE: Duration = Duration::from_millis(1);
        let asleep = self.asleep.saturating_sub(then.asleep);
        let asleep = if asleep < NOISE { Duration::ZERO } else { asleep };
        self.mono.saturating_sub(then.mono).saturating_sub(asleep)
    }
}
