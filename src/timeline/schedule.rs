//! When to look at all sockets again. A tick costs about 1 ms, a sweep of 200,000 sockets and their owners half a second: it
//! is taken when something asks for it, and never for more than a small share of the time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::cause::{Severity, State};
use crate::diagnosis::Diagnosis;
use crate::diagnosis::rank::Ranked;
use crate::observation::{Observation, Snapshot, SourceStatus, View};
use crate::session::AT_ONCE;
use crate::source::sockstat;
use crate::value::{Moment, NetnsId};

/// A sweep may take this part of the time: 2.5 % of one CPU.
const SHARE: u32 = 40;
/// Where others want the CPUs, a sweep lasts longer than what it uses of them. So much of that time counts as used, so that windows
/// do not come late for the most part.
const WAITING: f64 = 0.1;
/// What passes without a sweep on a quiet host, and the part of the time that a sweep may take which nothing asks for.
const QUIET: Duration = Duration::from_secs(30);
const QUIET_SHARE: u32 = 400;
/// The part that it may take of an alarm's time where nobody looks on.
const UNATTENDED_SHARE: u32 = 600;
/// With findings that are no alarm, or that only a sweep shows.
const SOME: Duration = Duration::from_secs(10);
/// The number of sockets moved much: by a tenth, and by more than this.
const MOVED: u64 = 100;

/// Why a sweep was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    First,
    /// A cause was found, and wants to name who.
    Cause,
    /// Something listens that was not there at the last sweep, or no longer does.
    Listeners,
    /// The socket counts of sockstat moved much.
    Sockets,
    /// The last one is old.
    Age,
    /// Somebody wants to save what was seen.
    Asked,
    /// It closes a recording.
    Last,
}

#[derive(Debug, Clone, Default)]
pub struct Schedule {
    last: BTreeMap<NetnsId, Sweep>,
    asked: bool,
    /// Nobody looks on: what goes on is looked at as seldom as what is quiet.
    pub unattended: bool,
    /// When the owners of the sockets of all namespaces were looked up last, and how long that took.
    walked: Option<(Moment, Duration)>,
    /// When namespaces were looked at in which nothing happens, of many, and how long all of that took.
    quiet: Option<(Moment, Duration)>,
}

#[derive(Debug, Clone)]
struct Sweep {
    at: Moment,
    cost: Duration,
    sockets: Option<u64>,
    listeners: BTreeSet<u64>,
    /// There was an alarm: whether it goes on is to be seen.
    alarm: bool,
}

impl Schedule {
    /// The next window is to have a sweep, whatever it costs.
    pub fn ask(&mut self) {
        self.asked = true;
    }

    /// Whether this window, judged without a sweep of its own, asks for one, and in which namespaces.
    pub fn wants(&mut self, observation: &Observation, diagnosis: &Diagnosis) -> Option<(Why, BTreeSet<NetnsId>)> {
        self.last.retain(|id, _| observation.netns.contains_key(id));
        if std::mem::take(&mut self.asked) {
            return Some((Why::Asked, observation.netns.keys().copied().collect()));
        }
        let view = observation.view()?;
        // Whichever namespace asks, the processes of all are looked at.
        let walked = self.walked.filter(|_| observation.netns.len() > 1);
        if walked.is_some_and(|(at, took)| view.after().at.mono.saturating_sub(at.mono) < took * SHARE) {
            return None;
        }
        let own = Some(view.after().netns);
        // Of many, those in which nothing happens are looked at for a small share of the time in all.
        let quiet_due = self
            .quiet
            .is_none_or(|(at, took)| view.after().at.mono.saturating_sub(at.mono) >= QUIET.max(took * QUIET_SHARE));
        let many = observation.netns.len() > AT_ONCE;
        let waits = |view: View<'_>, why| {
            let nothing_asks = matches!(why, Why::First | Why::Age);
            many && !quiet_due && nothing_asks && own != Some(view.after().netns) && view.netns.is_idle()
        };
        let wanting: Vec<(Why, NetnsId)> = observation
            .views()
            .filter_map(|view| {
                let id = view.after().netns;
                let here = |cause: &&Ranked| cause.finding.location.as_ref().map(|at| at.netns).or(own) == Some(id);
                let why = self.wants_of(view, diagnosis.causes.iter().filter(here))?;
                (!waits(view, why)).then_some((why, id))
            })
            .collect();
        let (why, _) = wanting.first()?;
        Some((*why, wanting.iter().map(|(_, id)| *id).collect()))
    }

    fn wants_of<'a>(&mut self, view: View<'_>, causes: impl Iterator<Item = &'a Ranked> + Clone) -> Option<Why> {
        let after = view.after();
        let Some(last) = self.last.get_mut(&after.netns) else { return Some(Why::First) };
        let passed = after.at.mono.saturating_sub(last.at.mono);
        let alarm =
            causes.clone().any(|cause| cause.finding.state == State::Active && cause.finding.severity < Severity::Info);
        let begins = alarm && !last.alarm;
        let (share, often) = match self.unattended && !begins {
            true => (UNATTENDED_SHARE, QUIET),
            false => (SHARE, SOME),
        };
        if passed < last.cost * share {
            return None;
        }
        let ended = std::mem::replace(&mut last.alarm, alarm) && !alarm;
        let some = causes.into_iter().any(|cause| cause.finding.state.is_now());
        let moved = match (last.sockets, sockets(after)) {
            (Some(then), Some(now)) => then.abs_diff(now) > MOVED.max(then / 10),
            _ => false,
        };
        if alarm || ended {
            Some(Why::Cause)
        } else if listeners(after) != last.listeners {
            Some(Why::Listeners)
        } else if moved {
            Some(Why::Sockets)
        } else if some && passed >= often {
            Some(Why::Cause)
        } else if passed >= QUIET.max(last.cost * QUIET_SHARE) {
            Some(Why::Age)
        } else {
            None
        }
    }

    /// Notes the sweeps that were taken for this window, in these namespaces. `used`: their CPU time, where it is known.
    pub fn swept(&mut self, observation: &Observation, which: &BTreeSet<NetnsId>, used: Option<Duration>) {
        let fresh: Vec<View<'_>> = which.iter().filter_map(|id| observation.view_of(*id)).collect();
        let count = u32::try_from(fresh.len()).unwrap_or(u32::MAX).max(1);
        let quiet = fresh.iter().any(|view| view.netns.is_idle());
        let took = |sources: &[SourceStatus], name: &str| {
            sources.iter().filter(|source| source.name == name).map(|source| source.took).sum::<Duration>()
        };
        // The owners of all are looked up at once.
        let owners = fresh.first().map_or(Duration::ZERO, |view| took(&view.host.after.sources, "owners"));
        let lasted = owners + fresh.iter().map(|view| took(&view.after().sources, "sockets")).sum::<Duration>();
        let share = match used {
            Some(used) if !lasted.is_zero() => (used.as_secs_f64() / lasted.as_secs_f64()).clamp(WAITING, 1.0),
            _ => 1.0,
        };
        let mut all = Duration::ZERO;
        for view in fresh {
            let after = view.after();
            self.walked = Some((after.at, owners.mul_f64(share)));
            let cost = (took(&after.sources, "sockets") + owners / count).mul_f64(share);
            all += cost;
            if quiet {
                self.quiet = Some((after.at, all));
            }
            let alarm = self.last.get(&after.netns).is_some_and(|last| last.alarm);
            let (sockets, listeners) = (sockets(after), listeners(after));
            self.last.insert(after.netns, Sweep { at: after.at, cost, sockets, listeners, alarm });
        }
    }
}

fn listeners(snapshot: &Snapshot) -> BTreeSet<u64> {
    snapshot.listeners.value().into_iter().flatten().map(|listener| listener.cookie).collect()
}

/// Sockets of both families that sockstat counts: in use (which TIME_WAIT is not) and in TIME_WAIT.
fn sockets(snapshot: &Snapshot) -> Option<u64> {
    let v4 = snapshot.counters.value(&sockstat::FILE)?;
    let v6 = snapshot.counters.value(&sockstat::FILE_6).and_then(|counters| counters.get("TCP6.inuse")).unwrap_or(0);
    Some(v4.get("TCP.inuse")? + v4.get("TCP.tw").unwrap_or(0) + v6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::diagnose;
    use crate::observation::SourceStatus;
    use crate::observation::testing::Case;

    /// A quiet window that ends `seconds` after the first.
    fn window(seconds: u64) -> Case {
        with_sockets(1_000, seconds)
    }

    fn with_sockets(sockets: u64, seconds: u64) -> Case {
        let mut case = Case::new().sockstat("TCP.inuse", sockets);
        case.netns.after.at.mono += Duration::from_secs(seconds);
        case
    }

    fn ask(schedule: &mut Schedule, case: &Case) -> Option<Why> {
        let observation = case.observation();
        let (why, which) = schedule.wants(&observation, &diagnose(case.view()))?;
        schedule.swept(&observation, &which, None);
        Some(why)
    }

    /// As long a look at all sockets takes there.
    fn costing(mut case: Case, took: Duration) -> Case {
        case.netns.after.sources =
            vec![SourceStatus { name: "sockets", failure: None, partial: false, note: None, took }];
        case
    }

    fn swept_once(cost: Duration) -> Schedule {
        let mut schedule = Schedule::default();
        let first = costing(window(0), cost);
        assert_eq!(ask(&mut schedule, &first), Some(Why::First));
        schedule
    }

    #[test]
    fn a_quiet_host_is_swept_every_half_minute() {
        let mut schedule = swept_once(Duration::from_millis(1));
        let swept: Vec<u64> = (1..=90).filter(|second| ask(&mut schedule, &window(*second)).is_some()).collect();
        assert_eq!(swept, [30, 60, 90]);
    }

    #[test]
    fn many_more_sockets_ask_for_a_sweep() {
        let mut schedule = swept_once(Duration::from_millis(1));
        assert_eq!(ask(&mut schedule, &with_sockets(1_090, 2)), None);
        assert_eq!(ask(&mut schedule, &with_sockets(1_101, 2)), Some(Why::Sockets));
    }

    #[test]
    fn a_dear_sweep_waits_until_it_is_a_small_share_of_the_time() {
        let mut schedule = swept_once(Duration::from_secs(1));
        let swept = (1..=120).find(|second| ask(&mut schedule, &with_sockets(2_000, *second)).is_some());
        assert_eq!(swept, Some(40));
    }

    #[test]
    fn on_a_busy_host_the_cpu_time_of_a_sweep_counts_and_a_tenth_of_its_length() {
        let next = |used_ms| {
            let (case, mut schedule) = (costing(window(0), Duration::from_secs(1)), Schedule::default());
            let observation = case.observation();
            let (_, which) = schedule.wants(&observation, &diagnose(case.view())).expect("the first");
            schedule.swept(&observation, &which, Some(Duration::from_millis(used_ms)));
            (1..=120).find(|second| ask(&mut schedule, &with_sockets(2_000, *second)).is_some())
        };
        assert_eq!((next(20), next(500), next(3_000)), (Some(4), Some(20), Some(40)));
    }

    #[test]
    fn what_nothing_asks_for_takes_a_smaller_share() {
        let mut schedule = swept_once(Duration::from_millis(250));
        let swept = (1..=129).find(|second| ask(&mut schedule, &window(*second)).is_some());
        assert_eq!(swept, Some(100));
    }

    #[test]
    fn an_alarm_asks_in_each_tick_and_once_more_when_it_is_over() {
        let mut schedule = swept_once(Duration::from_millis(1));
        let alarm = |second| {
            let process = crate::source::owners::Process { pid: 1, name: "api".into(), ..Default::default() };
            let mut case = Case::new()
                .counter("TcpExt.ListenOverflows", 0, 500)
                .counter("TcpExt.ListenDrops", 0, 500)
                .counter("Tcp.PassiveOpens", 0, 500)
                .sysctl("net.core.somaxconn", "4096")
                .listener("0.0.0.0:80", 5, 6, 60, &process);
            case.netns.after.at.mono += Duration::from_secs(second);
            case
        };
        // The listener of the alarm stays: only the alarm itself may ask.
        let quiet = |second| window(second);
        assert_eq!(ask(&mut schedule, &alarm(2)), Some(Why::Cause));
        assert_eq!(ask(&mut schedule, &alarm(4)), Some(Why::Cause));
        assert_eq!(ask(&mut schedule, &quiet(6)), Some(Why::Cause));
        assert_eq!(ask(&mut schedule, &quiet(8)), None);
        // Where nobody looks on, one that begins is looked at as soon, and for a sixth of a percent of the time while it goes on.
        let cost = Duration::from_millis(50);
        let mut unattended = Schedule { unattended: true, ..swept_once(cost) };
        let mut swept = |second: &u64| ask(&mut unattended, &costing(alarm(*second), cost)).is_some();
        assert_eq!((2..=60).step_by(2).filter(|second| swept(second)).collect::<Vec<_>>(), [2, 32]);
    }
}
