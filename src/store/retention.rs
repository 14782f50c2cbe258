//! Which recordings are worth keeping: those around a fault, and one of each hour, or of more where much happens all the time.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use super::Limits;
use crate::value::Moment;

/// A baseline is kept that often at most.
const BASELINE: Duration = Duration::from_secs(3600);
/// All baselines that are there take no more than this part of the store, a third of what recordings have: two minutes of 100
/// resets a second are 5 MB, and one of each hour would push out what was recorded of faults.
const BASELINES: u64 = 10;

/// Decides about recordings that ended, in their order.
#[derive(Debug)]
pub struct Retention {
    limits: Limits,
    /// The latest of them, the newest last.
    ended: VecDeque<Ended>,
    /// Something was wrong while the one that is open was written.
    trouble: bool,
    /// When the latest baseline began, CLOCK_BOOTTIME.
    baseline: Option<Duration>,
}

#[derive(Debug)]
struct Ended {
    path: PathBuf,
    from: Moment,
    bytes: u64,
    trouble: bool,
}

impl Retention {
    pub fn new(limits: Limits) -> Self {
        Self { limits, ended: VecDeque::new(), trouble: false, baseline: None }
    }

    /// Something is wrong now.
    pub fn trouble(&mut self) {
        self.trouble = true;
    }

    /// A recording of so many bytes ended, and which one is not worth keeping, now that it is known what came after it.
    pub fn ended(&mut self, path: PathBuf, from: Moment, bytes: u64) -> Option<PathBuf> {
        let trouble = std::mem::take(&mut self.trouble);
        self.ended.push_back(Ended { path, from, bytes, trouble });
        if self.ended.len() > 3 {
            self.ended.pop_front();
        }
        // The one before the newest; what led to a fault is as good as the fault.
        let judged = self.ended.len().checked_sub(2).and_then(|index| self.ended.get(index))?;
        if self.ended.iter().any(|ended| ended.trouble) {
            return None;
        }
        let every = self.every(judged.bytes);
        if self.baseline.is_none_or(|latest| judged.from.mono.saturating_sub(latest) >= every) {
            self.baseline = Some(judged.from.mono);
            return None;
        }
        Some(judged.path.clone())
    }

    /// Between two baselines of that size.
    fn every(&self, bytes: u64) -> Duration {
        let share = bytes as f64 * BASELINES as f64 / self.limits.size.max(1) as f64;
        self.limits.keep.mul_f64(share.min(1.0)).max(BASELINE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { keep: Duration::from_secs(7 * 86_400), size: 500 << 20 };

    /// Bytes of the baselines that a week holds, where each minute is so many.
    fn baselines(bytes: u64) -> u64 {
        let mut retention = Retention::new(LIMITS);
        let week = 7 * 24 * 60;
        let from = |minute: u64| Moment { mono: Duration::from_secs(minute * 60), ..Moment::default() };
        let deleted =
            (0..week).filter(|minute| retention.ended(PathBuf::new(), from(*minute), bytes).is_some()).count();
        (week - 1 - deleted as u64) * bytes
    }

    /// A week of a busy host is no more than a tenth of the store, and a quiet one has its hours.
    #[test]
    fn baselines_leave_room_for_faults_however_much_happens() {
        assert_eq!(baselines(100 << 10), 7 * 24 * (100 << 10));
        for minute in [3 << 20, 30 << 20, 300 << 20] {
            let all = baselines(minute);
            assert!((minute..=(50 << 20) + minute).contains(&all), "{} MiB of {} each", all >> 20, minute >> 20);
        }
    }

    #[test]
    fn what_surrounds_a_fault_is_kept_and_one_of_each_hour() {
        let mut retention = Retention::new(LIMITS);
        let mut deleted = Vec::new();
        for minute in 0..130_u64 {
            if minute == 30 {
                retention.trouble();
            }
            let from = Moment { mono: Duration::from_secs(minute * 60), ..Moment::default() };
            deleted.extend(retention.ended(PathBuf::from(minute.to_string()), from, 100 << 10));
        }
        let kept: Vec<u64> = (0..129).filter(|minute| !deleted.contains(&PathBuf::from(minute.to_string()))).collect();
        assert_eq!(kept, [0, 29, 30, 31, 60, 120]);
    }
}
