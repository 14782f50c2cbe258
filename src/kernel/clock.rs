//! The clocks of this host, clock_gettime(2).

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::value::Moment;

/// Reads all clocks, see [`Moment`].
pub fn now() -> Moment {
    // CLOCK_MONOTONIC first: a suspend between the two would otherwise go unnoticed this time, and only this time.
    let awake = read(ClockId::Monotonic);
    let mono = read(ClockId::Boottime);
    Moment { mono, wall: read(ClockId::Realtime), asleep: mono.saturating_sub(awake) }
}

/// CLOCK_MONOTONIC and CLOCK_BOOTTIME, ns.
pub fn monotonic_and_boottime() -> (u64, u64) {
    (nanoseconds(ClockId::Monotonic), nanoseconds(ClockId::Boottime))
}

/// CPU time of this process, all of its threads.
pub fn used() -> Duration {
    read(ClockId::ProcessCPUTime)
}

/// CLOCK_REALTIME, ns since the epoch.
pub fn realtime() -> u64 {
    nanoseconds(ClockId::Realtime)
}

fn nanoseconds(id: ClockId) -> u64 {
    u64::try_from(read(id).as_nanos()).unwrap_or(u64::MAX)
}

/// 0 for a clock that was set to before the epoch.
fn read(id: ClockId) -> Duration {
    Duration::try_from(clock_gettime(id)).unwrap_or_default()
}
