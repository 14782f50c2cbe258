//! Which times of what was asked for are judged: those of its faults. One window over a minute in which a fault began and ended
//! shows a mixture that was there at no time: a queue that never got shorter did, once it was over.

use std::time::Duration;

/// Times that are judged at most, and faults from which they are chosen.
const MOST: usize = 12;
const MOST_FAULTS: usize = 200;
/// A longer time is judged for no fault: something else comes into it.
const LONGEST: Duration = Duration::from_secs(60);
/// With its first and its last look a fault is half there. One that is shorter than `WHOLE` has no others.
const EDGE: Duration = Duration::from_secs(2);
const WHOLE: Duration = Duration::from_secs(8);

/// From when to when, CLOCK_REALTIME.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub from: Duration,
    pub until: Duration,
}

/// A fault that the index tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub span: Span,
    pub critical: bool,
    /// Cause and place, in words.
    pub what: String,
}

impl Span {
    /// What of it lies in the other; `None` if nothing does.
    pub fn within(self, other: Self) -> Option<Self> {
        let (from, until) = (self.from.max(other.from), self.until.min(other.until));
        (from < until).then_some(Self { from, until })
    }

    /// So much of it lies in others, which do not overlap, that they show it: half, or more than a look.
    pub fn is_shown_by(self, others: &[Self]) -> bool {
        const MUCH: Duration = Duration::from_secs(10);
        let shown: Duration = others.iter().filter_map(|other| Some(self.within(*other)?.length())).sum();
        shown >= MUCH.min(self.length() / 2) && !shown.is_zero()
    }

    pub fn length(self) -> Duration {
        self.until.saturating_sub(self.from)
    }

    fn without_edges(self) -> Self {
        if self.length() < WHOLE {
            return self;
        }
        Self { from: self.from.saturating_add(EDGE), until: self.until.saturating_sub(EDGE) }
    }

    /// Its middle, where it is too long.
    fn shortened(self) -> Self {
        let over = self.length().saturating_sub(LONGEST) / 2;
        Self { from: self.from.saturating_add(over), until: self.until.saturating_sub(over) }
    }
}

/// The times to judge so that each fault is in one of them, the one with the most and worst of them first: causes that go on
/// together explain each other.
pub fn times(faults: &[Fault]) -> Vec<Span> {
    let mut left: Vec<(Span, bool)> = faults.iter().map(|fault| (fault.span.without_edges(), fault.critical)).collect();
    left.sort_by_key(|(span, critical)| (!critical, std::cmp::Reverse(span.length())));
    left.truncate(MOST_FAULTS);
    let mut times = Vec::new();
    while times.len() < MOST
        && let Some(best) = densest(&left)
    {
        left.retain(|(span, _)| span.within(best).is_none());
        times.push(best.shortened());
    }
    times
}

/// Between two beginnings or ends, the time in which the most go on, the critical ones first; of several the longest.
fn densest(faults: &[(Span, bool)]) -> Option<Span> {
    let mut edges: Vec<Duration> = faults.iter().flat_map(|(span, _)| [span.from, span.until]).collect();
    edges.sort_unstable();
    edges.dedup();
    let between = edges.windows(2).filter_map(|pair| Some(Span { from: *pair.first()?, until: *pair.last()? }));
    let weight = |time: &Span| {
        let own = || faults.iter().filter(|(span, _)| span.within(*time).is_some());
        (own().filter(|(_, critical)| *critical).count(), own().count(), time.length(), std::cmp::Reverse(time.from))
    };
    between.max_by_key(weight).filter(|time| weight(time).1 > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: u64, until: u64) -> Span {
        Span { from: Duration::from_secs(from), until: Duration::from_secs(until) }
    }

    fn fault(from: u64, until: u64, critical: bool) -> Fault {
        Fault { span: span(from, until), critical, what: String::new() }
    }

    #[test]
    fn causes_that_go_on_together_are_judged_together_while_all_of_them_do() {
        // The queue overflows, then the one who does not accept is known, and for a look more after he is gone.
        let stopped = [fault(7, 33, true), fault(9, 31, true), fault(7, 33, true)];
        assert_eq!(times(&stopped), [span(11, 29)]);
    }

    #[test]
    fn one_fault_after_the_other_is_judged_by_itself_although_a_third_goes_on() {
        let background = [fault(0, 600, false), fault(100, 120, true), fault(300, 310, true)];
        assert_eq!(times(&background), [span(102, 118), span(302, 308)]);
        assert_eq!(times(&background[..1]), [span(270, 330)], "of a long one its middle");
        let short = [fault(28, 30, true)];
        assert_eq!(times(&short), [span(28, 30)]);
        assert_eq!(times(&[]), []);
    }

    #[test]
    fn the_last_look_at_a_fault_does_not_show_it() {
        let fault = span(100, 140);
        assert!(!fault.is_shown_by(&[span(0, 50), span(138, 200)]));
        assert!(fault.is_shown_by(&[span(95, 104), span(130, 137)]), "17 s of it");
        assert!(span(100, 102).is_shown_by(&[span(100, 101)]));
        assert!(!fault.is_shown_by(&[]));
    }

    #[test]
    fn what_is_critical_comes_first_however_many_are_not() {
        let many = [fault(0, 20, false), fault(0, 20, false), fault(0, 20, false), fault(40, 60, true)];
        assert_eq!(times(&many), [span(42, 58), span(2, 18)]);
    }

    #[test]
    fn any_number_of_faults_is_judged_in_bounded_time() {
        let many: Vec<Fault> = (0..5_000).map(|n| fault(n * 20, n * 20 + 10, n % 2 == 0)).collect();
        assert_eq!(times(&many).len(), MOST);
    }
}
