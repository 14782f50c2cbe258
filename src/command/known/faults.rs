//! Which times of what was asked for are judged: those of its faults. One window over a minute in which a fault began and ended
//! shows a mixture that was there at no time: a queue that never got shorter did, once it was over.

use std::time::Duration;

use crate::cause::by_id;

/// Times that are judged at most, and faults from which they are chosen.
const MOST: usize = 12;
const MOST_FAULTS: usize = 200;
/// A longer time is judged for no fault: something else comes into it.
const LONGEST: Duration = Duration::from_secs(60);
/// With its first and its last look a fault is half there. One that is shorter than `WHOLE` has no others.
const EDGE: Duration = Duration::from_secs(2);
const WHOLE: Duration = Duration::from_secs(8);
/// Its first two looks, or its last two.
const SHORT: Duration = Duration::from_secs(4);

/// From when to when, CLOCK_REALTIME.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub from: Duration,
    pub until: Duration,
}

/// A fault that the index tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What of it lies in the time that was asked for, and all of it.
    pub span: Span,
    pub whole: Span,
    pub critical: bool,
    /// Its cause, and the listener at which it is: its port, and its network namespace in words.
    pub id: String,
    pub listener: Option<(u16, Option<String>)>,
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

    fn and(self, other: Self) -> Self {
        Self { from: self.from.min(other.from), until: self.until.max(other.until) }
    }

    pub fn length(self) -> Duration {
        self.until.saturating_sub(self.from)
    }

    /// With less than a look between them.
    fn adjoins(self, other: Self) -> bool {
        self.from <= other.until.saturating_add(EDGE) && other.from <= self.until.saturating_add(EDGE)
    }

    fn without_edges(self) -> Self {
        if self.length() < WHOLE {
            return self;
        }
        Self { from: self.from.saturating_add(EDGE), until: self.until.saturating_sub(EDGE) }
    }

    /// Without the looks in which another fault, which is judged at its own time, ends or begins.
    fn clear_of(self, others: &[Self]) -> Self {
        // A look begins after the time of the one before it, of which the index cuts off what is less than this.
        const AFTER: Duration = Duration::from_millis(1);
        // What is left of a look is judged as the whole of it.
        const LEFT: Duration = Duration::from_millis(500);
        others.iter().fold(self, |own, other| {
            let Some(both) = other.within(own) else { return own };
            let clear = match (both.from == own.from, both.until == own.until) {
                (true, false) => Self { from: both.until.saturating_add(AFTER), ..own },
                (false, true) => Self { until: both.from, ..own },
                _ => return own,
            };
            if both.length() <= SHORT && clear.length() >= LEFT { clear } else { own }
        })
    }

    /// Its middle, where it is too long.
    fn shortened(self) -> Self {
        let over = self.length().saturating_sub(LONGEST) / 2;
        Self { from: self.from.saturating_add(over), until: self.until.saturating_sub(over) }
    }
}

/// One fault of one listener is one, although its owner ended meanwhile and its place is called otherwise; and a look at its end at
/// which only its consequence was seen is a part of it.
pub fn joined(faults: &[Fault]) -> Vec<Fault> {
    let mut sorted: Vec<&Fault> = faults.iter().collect();
    sorted.sort_by_key(|fault| (std::cmp::Reverse(fault.whole.length()), fault.whole.from));
    let mut joined: Vec<Fault> = Vec::new();
    for fault in sorted {
        let beside = |longer: &&mut Fault| {
            let at_one = longer.listener.is_some() && longer.listener == fault.listener;
            at_one && longer.whole.adjoins(fault.whole)
        };
        let is_shorter = fault.whole.length() < SHORT;
        let explains = |longer: &Fault| {
            is_shorter && by_id(&longer.id).is_some_and(|cause| cause.explains.contains(&fault.id.as_str()))
        };
        let kin = joined.iter_mut().filter(beside).filter(|longer| longer.id == fault.id || explains(longer));
        // Its own kind before what explains it.
        let own = kin.min_by_key(|longer| longer.id != fault.id);
        match own {
            Some(longer) => {
                longer.critical |= fault.critical;
                longer.span = longer.span.and(fault.span);
                longer.whole = longer.whole.and(fault.whole);
            }
            None => joined.push(fault.clone()),
        }
    }
    joined
}

impl Fault {
    /// What lies in this part of the time; `Err` where that is so little of it that it does not show what it was.
    pub fn within(&self, part: Span) -> Option<Result<Self, Self>> {
        let span = self.span.within(part)?;
        let fault = Self { span, ..self.clone() };
        let is_rest = span.length() < SHORT && self.whole.length() >= WHOLE;
        Some(if is_rest { Err(fault) } else { Ok(fault) })
    }
}

/// The times to judge so that each fault is in one of them, the one with the most and worst of them first: causes that go on
/// together explain each other.
pub fn times(faults: &[Fault]) -> Vec<Span> {
    let mut sorted: Vec<&Fault> = faults.iter().collect();
    sorted.sort_by_key(|fault| (!fault.critical, std::cmp::Reverse(fault.span.without_edges().length())));
    sorted.truncate(MOST_FAULTS);
    let mut left: Vec<(Span, bool)> = sorted.iter().map(|fault| (fault.span.without_edges(), fault.critical)).collect();
    let (mut times, mut shown): (Vec<Span>, Vec<Span>) = Default::default();
    while times.len() < MOST
        && let Some(best) = densest(&left)
    {
        times.push(best.clear_of(&shown).shortened());
        left.retain(|(span, _)| span.within(best).is_none());
        shown.extend(sorted.iter().filter(|fault| fault.span.without_edges().within(best).is_some()).map(|it| it.span));
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
        let span = span(from, until);
        Fault { span, whole: span, critical, id: "peer-reset".into(), listener: None, what: String::new() }
    }

    fn at_port(id: &str, port: u16, from: u64, until: u64) -> Fault {
        Fault { id: id.into(), listener: Some((port, None)), ..fault(from, until, true) }
    }

    #[test]
    fn one_fault_of_one_listener_is_one_although_its_owner_ended_before_it() {
        let stalled = at_port("accept-loop-stalled", 8080, 10, 40);
        let overflow = at_port("accept-queue-overflow", 8080, 10, 40);
        // Without the owner its place has another name, and nothing says that it was stopped.
        let tail = at_port("accept-queue-overflow", 8080, 40, 42);
        let spans = |faults: &[Fault]| joined(faults).iter().map(|fault| fault.span).collect::<Vec<_>>();
        assert_eq!(spans(&[stalled.clone(), overflow, tail.clone()]), [span(10, 40), span(10, 42)]);
        assert_eq!(spans(&[stalled.clone(), tail.clone()]), [span(10, 42)]);
        // What the stop does not explain, what is at another port, what lasts, and what comes later is another fault.
        let other = |id, port, from, until| spans(&[stalled.clone(), at_port(id, port, from, until)]).len();
        assert_eq!(other("port-without-listener", 8080, 40, 42), 2);
        assert_eq!(other("accept-queue-overflow", 8081, 40, 42), 2);
        assert_eq!(other("accept-queue-overflow", 8080, 40, 52), 2);
        assert_eq!(other("accept-queue-overflow", 8080, 50, 52), 2);
    }

    #[test]
    fn the_end_of_a_fault_at_the_edge_of_a_part_is_no_fault_of_its_own() {
        let long = fault(100, 140, true);
        assert!(long.within(span(90, 138)).is_some_and(|part| part.is_ok_and(|part| part.span == span(100, 138))));
        assert!(long.within(span(138, 200)).is_some_and(|part| part.is_err_and(|part| part.span == span(138, 140))));
        assert_eq!(long.within(span(141, 200)), None);
        let short = fault(138, 140, true);
        assert!(short.within(span(130, 200)).is_some_and(|part| part.is_ok()), "it was no longer");
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
    fn what_begins_as_another_fault_ends_is_judged_after_that() {
        // Its owner is killed: for a look the queue is still full, and the port already refuses.
        let killed = [fault(10, 40, true), fault(38, 44, true)];
        let after = Span { from: Duration::from_millis(40_001), until: Duration::from_secs(44) };
        assert_eq!(times(&killed), [span(12, 38), after]);
        let both = [fault(10, 40, true), fault(38, 40, true)];
        assert_eq!(times(&both), [span(12, 38), span(38, 40)], "nothing of it would be left");
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
