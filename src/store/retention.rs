//! Which recordings are worth keeping: those around a fault, and one of each hour.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use crate::value::Moment;

/// A baseline is kept that often.
const BASELINE: Duration = Duration::from_secs(3600);

/// Decides about recordings that ended, in their order.
#[derive(Debug, Default)]
pub struct Retention {
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
    trouble: bool,
}

impl Retention {
    /// Something is wrong now.
    pub fn trouble(&mut self) {
        self.trouble = true;
    }

    /// A recording ended, and which one is not worth keeping, now that it is known what came after it.
    pub fn ended(&mut self, path: PathBuf, from: Moment) -> Option<PathBuf> {
        let trouble = std::mem::take(&mut self.trouble);
        self.ended.push_back(Ended { path, from, trouble });
        if self.ended.len() > 3 {
            self.ended.pop_front();
        }
        // The one before the newest; what led to a fault is as good as the fault.
        let judged = self.ended.len().checked_sub(2).and_then(|index| self.ended.get(index))?;
        if self.ended.iter().any(|ended| ended.trouble) {
            return None;
        }
        if self.baseline.is_none_or(|latest| judged.from.mono.saturating_sub(latest) >= BASELINE) {
            self.baseline = Some(judged.from.mono);
            return None;
        }
        Some(judged.path.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_surrounds_a_fault_is_kept_and_one_of_each_hour() {
        let mut retention = Retention::default();
        let mut deleted = Vec::new();
        for minute in 0..130_u64 {
            if minute == 30 {
                retention.trouble();
            }
            let from = Moment { mono: Duration::from_secs(minute * 60), ..Moment::default() };
            deleted.extend(retention.ended(PathBuf::from(minute.to_string()), from));
        }
        let kept: Vec<u64> = (0..129).filter(|minute| !deleted.contains(&PathBuf::from(minute.to_string()))).collect();
        assert_eq!(kept, [0, 29, 30, 31, 60, 120]);
    }
}
