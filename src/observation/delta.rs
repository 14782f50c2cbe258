//! What moved between two snapshots. A counter that is missing or went backwards has no delta.

use std::time::Duration;

use crate::observation::View;
use crate::source::counters::{CounterFile, Counters, Per};
use crate::source::{COUNTER_FILES, snmp};
use crate::value::Observed;

/// The file that holds a counter by its stable name: `TcpExt.ListenOverflows`, `Tcp.OutRsts`; `oom_kill` of /proc/vmstat. A name
/// of no known table is looked for in /proc/net/snmp, where the kernel would have it.
pub fn source_of(metric: &str) -> &'static CounterFile {
    COUNTER_FILES.iter().copied().find(|file| (file.holds)(metric)).unwrap_or(&snmp::FILE)
}

/// One counter of a window.
///
/// # Errors
/// When it was not read at both ends, or went backwards.
pub fn counter(view: View<'_>, metric: &str) -> Result<Reading, NoDelta> {
    let file = source_of(metric);
    let [before, after] = match file.per {
        Per::Host => [&view.host.before.counters, &view.host.after.counters],
        Per::Netns => [&view.before().counters, &view.after().counters],
    };
    reading(file.name, metric, before.of(file), after.of(file), view.duration())
}

/// Why two readings of a counter give no delta.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoDelta {
    /// The whole source could not be read, in plain words.
    Unavailable { reason: String, needs: Option<String> },
    /// This kernel does not have the counter.
    Absent,
    /// It was smaller afterwards: the counters were reset or belong to another namespace.
    WentBackwards { before: u64, after: u64 },
}

/// One counter at both ends of a window.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Source as the report names it: `netstat`, `snmp`, ...
    pub source: &'static str,
    /// Counter name, `TcpExt.ListenOverflows`.
    pub metric: String,
    pub before: u64,
    pub after: u64,
    pub delta: u64,
    /// Events per second over the window; 0 for an empty window.
    pub per_s: f64,
}

/// Reads one counter from both ends of a window of length `window`.
fn reading(
    source: &'static str,
    metric: &str,
    before: &Observed<Counters>,
    after: &Observed<Counters>,
    window: Duration,
) -> Result<Reading, NoDelta> {
    let at = |observed: &Observed<Counters>| match observed.get() {
        Ok(counters) => counters.get(metric).ok_or(NoDelta::Absent),
        Err(failure) => Err(NoDelta::Unavailable { reason: failure.reason.clone(), needs: failure.needs.clone() }),
    };
    let (before, after) = (at(before)?, at(after)?);
    let delta = after.checked_sub(before).ok_or(NoDelta::WentBackwards { before, after })?;
    Ok(Reading { source, metric: metric.to_owned(), before, after, delta, per_s: per_second(delta, window) })
}

/// Events per second; 0 for an empty window, never infinite.
pub fn per_second(events: u64, window: Duration) -> f64 {
    let seconds = window.as_secs_f64();
    if seconds > 0.0 { events as f64 / seconds } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(value: u64) -> Observed<Counters> {
        let mut counters = Counters::default();
        counters.set("TcpExt.ListenOverflows", value);
        Observed::Full(counters)
    }

    fn delta(before: u64, after: u64) -> Result<u64, NoDelta> {
        let window = Duration::from_secs(2);
        reading("netstat", "TcpExt.ListenOverflows", &counters(before), &counters(after), window).map(|r| r.delta)
    }

    #[test]
    fn the_same_reading_twice_did_not_move() {
        assert_eq!(delta(7, 7), Ok(0));
    }

    #[test]
    fn a_counter_that_went_backwards_has_no_delta() {
        assert_eq!(delta(7, 6), Err(NoDelta::WentBackwards { before: 7, after: 6 }));
    }

    #[test]
    fn a_missing_counter_is_not_zero() {
        let window = Duration::from_secs(1);
        let absent = reading("netstat", "TcpExt.Nonesuch", &counters(1), &counters(1), window);
        assert_eq!(absent, Err(NoDelta::Absent));
    }

    #[test]
    fn a_rate_over_an_empty_window_is_zero() {
        assert_eq!(per_second(5, Duration::ZERO), 0.0);
        assert_eq!(per_second(5, Duration::from_secs(2)), 2.5);
    }
}
