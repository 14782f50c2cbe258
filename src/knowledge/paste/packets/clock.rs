//! Times of packets as they are printed: of day, with or without a date, since the epoch, since the first packet, or since the one
//! before.

use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

/// A time as it stands in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct When {
    pub at: Duration,
    /// Without a date: midnight may lie between two of them.
    pub of_day: bool,
}

/// Brings the times of one text into one row.
#[derive(Debug, Default)]
pub struct Clock {
    before: Option<Duration>,
    now: Duration,
    /// What is added: midnights, and captures that stand before this one in the text.
    base: Duration,
    /// The first time was 0: nothing is printed of day then, but since a packet.
    from_zero: bool,
    /// Each is since the line before (tcpdump -ttt).
    since_before: bool,
}

impl Clock {
    /// The time of a line, in the row; `None` where it has none.
    pub fn read(&mut self, when: Option<When>) -> Option<Duration> {
        let When { at, of_day } = when?;
        let before = self.before.replace(at);
        match before {
            None => self.from_zero = at.is_zero(),
            // A further capture begins.
            Some(before) if at.is_zero() && before > at && !self.since_before => self.base = self.now,
            Some(before) if at < before && self.from_zero && of_day => self.since_before = true,
            Some(before) if of_day && before.saturating_sub(at) > DAY / 2 => self.base = self.base.saturating_add(DAY),
            Some(_) => {}
        }
        let from = if self.since_before { self.now } else { self.base };
        self.now = from.saturating_add(at);
        Some(self.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(times: &[f64], of_day: bool) -> Vec<f64> {
        let mut clock = Clock::default();
        let when = |at: &f64| When { at: Duration::from_secs_f64(*at), of_day };
        times.iter().filter_map(|at| clock.read(Some(when(at)))).map(|at| at.as_secs_f64()).collect()
    }

    #[test]
    fn each_form_is_one_row() {
        assert_eq!(row(&[86_399.0, 86_399.5, 1.0], true), [86_399.0, 86_399.5, 86_401.0], "midnight");
        assert_eq!(row(&[0.0, 0.5, 0.25, 2.0], true), [0.0, 0.5, 0.75, 2.75], "since the line before");
        assert_eq!(row(&[0.0, 0.5, 0.0, 0.25], false), [0.0, 0.5, 0.5, 0.75], "two captures");
        assert_eq!(row(&[10.0, 12.0, 11.0], true), [10.0, 12.0, 11.0], "out of order");
        assert_eq!(Clock::default().read(None), None);
    }
}
