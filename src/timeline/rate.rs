//! What rate of something is usual here, learned from this run.

use std::collections::VecDeque;
use std::time::Duration;

/// Ticks that are remembered.
const REMEMBERED: usize = 240;
/// The latest ticks are what is judged, so they are no part of what it is judged by.
const JUDGED: usize = 2;

/// Events per second of the latest ticks, zero where nothing was found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rates {
    per_s: VecDeque<f64>,
    time: VecDeque<Duration>,
}

/// The usual rate: its mean, and what chance alone seldom exceeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usual {
    pub mean: f64,
    pub high: f64,
}

impl Rates {
    pub fn push(&mut self, per_s: f64, window: Duration) {
        if self.per_s.len() == REMEMBERED {
            self.per_s.pop_front();
            self.time.pop_front();
        }
        self.per_s.push_back(if per_s.is_finite() { per_s } else { 0.0 });
        self.time.push_back(window);
    }

    /// Oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = f64> + ExactSizeIterator + '_ {
        self.per_s.iter().copied()
    }

    pub fn len(&self) -> usize {
        self.per_s.len()
    }

    /// `None` until [`LEARNING`](super::LEARNING) has passed with at least ten ticks.
    ///
    /// The bound is the mean and three standard deviations, where the deviation is at least that of a Poisson process of
    /// this mean: few events scatter widely by chance.
    pub fn usual(&self) -> Option<Usual> {
        let known = self.per_s.len().checked_sub(JUDGED).filter(|known| *known >= 10)?;
        let time: Duration = self.time.iter().take(known).sum();
        if time < super::LEARNING {
            return None;
        }
        let count = known as f64;
        let mean = self.per_s.iter().take(known).sum::<f64>() / count;
        let variance = self.per_s.iter().take(known).map(|rate| (rate - mean).powi(2)).sum::<f64>() / count;
        let window = time.as_secs_f64() / count;
        let deviation = variance.max(mean / window).sqrt();
        Some(Usual { mean, high: mean + 3.0 * deviation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(2);

    fn rates(all: impl IntoIterator<Item = f64>) -> Rates {
        let mut rates = Rates::default();
        all.into_iter().for_each(|rate| rates.push(rate, WINDOW));
        rates
    }

    #[test]
    fn nothing_is_usual_in_the_first_minute() {
        assert_eq!(rates([1.0; 31]).usual(), None);
        assert!(rates([1.0; 32]).usual().is_some());
    }

    #[test]
    fn a_steady_rate_has_room_for_chance() {
        let usual = rates([2.0; 60]).usual().expect("learned");
        assert_eq!(usual.mean, 2.0);
        assert!((4.9..5.1).contains(&usual.high), "2/s in 2 s is 4 +- 2 events: {usual:?}");
    }

    #[test]
    fn the_latest_ticks_are_not_judged_by_themselves() {
        let usual = rates([0.0; 40].into_iter().chain([50.0, 50.0])).usual().expect("learned");
        assert_eq!(usual, Usual { mean: 0.0, high: 0.0 });
    }

    #[test]
    fn memory_is_bounded() {
        assert_eq!(rates((0..10_000).map(f64::from)).len(), REMEMBERED);
    }
}
