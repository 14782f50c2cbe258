//! Which reset gave a program which error.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Ends, Reset};
use crate::source::reset_events::SocketError;

/// The kernel puts the error on the socket in the call in which it takes or sends the RST: microseconds later, unless the CPU is
/// taken away.
const AT_ONCE: Duration = Duration::from_millis(10);
/// Resets that are remembered for errors that are read after them.
const REMEMBERED: usize = 4_096;
/// Errors of other connections that are passed over on the way to the one of a reset.
const PASSED_OVER: usize = 1_000;

/// An error of a socket, and whether it came of a reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedError {
    pub error: SocketError,
    /// A reset that was received, or sent, ended the connection. The others are failures without one: no answer, or an ICMP
    /// message.
    pub of_reset: bool,
}

/// Errors that wait for their resets.
#[derive(Debug, Default)]
pub(super) struct Errors {
    waiting: Vec<JoinedError>,
    /// Resets that were handed out without one: by which ends, when.
    without: VecDeque<(Ends, Duration)>,
}

impl Errors {
    pub fn read(&mut self, errors: Vec<SocketError>) {
        self.waiting.extend(errors.into_iter().map(|error| JoinedError { error, of_reset: false }));
    }

    /// Gives each reset its error. Hands out the errors from before `until`.
    pub fn join(&mut self, resets: &mut [Reset], until: Duration) -> Vec<JoinedError> {
        if self.waiting.is_empty() && resets.is_empty() {
            return Vec::new();
        }
        let old = until.saturating_sub(AT_ONCE);
        self.waiting.sort_by_key(|joined| joined.error.at);
        let mut errors = InOrder { errors: &mut self.waiting, place: 0 };
        self.without.retain(|(ends, at)| errors.take(*ends, *at).is_none());
        for reset in resets {
            let (Some(ends), Some(event)) = (reset.connection(), &reset.event) else { continue };
            match errors.take(ends, event.at) {
                Some(joined) => {
                    reset.errno = Some(joined.error.errno);
                    joined.error.netns = joined.error.netns.or(reset.netns());
                }
                None if event.at < old => {}
                None => {
                    if self.without.len() >= REMEMBERED {
                        self.without.pop_front();
                    }
                    self.without.push_back((ends, event.at));
                }
            }
        }
        while self.without.front().is_some_and(|(_, at)| *at < old) {
            self.without.pop_front();
        }
        let due = self.waiting.partition_point(|joined| joined.error.at < until);
        let wait = self.waiting.split_off(due);
        std::mem::replace(&mut self.waiting, wait)
    }
}

/// Errors in order of time. Resets are too, nearly: the error of one is a few places behind that of the one before, which costs
/// less than a table of all of them by their ends.
struct InOrder<'a> {
    errors: &'a mut [JoinedError],
    /// Of the first that is not older than the latest reset.
    place: usize,
}

impl InOrder<'_> {
    /// The error of a reset at this time.
    fn take(&mut self, ends: Ends, at: Duration) -> Option<&mut JoinedError> {
        let time = |joined: &JoinedError| joined.error.at;
        while self.place > 0 && self.errors.get(self.place - 1).is_some_and(|before| time(before) >= at) {
            self.place -= 1;
        }
        while self.errors.get(self.place).is_some_and(|joined| time(joined) < at) {
            self.place += 1;
        }
        let last = at.saturating_add(AT_ONCE);
        let after = self.errors.get_mut(self.place..)?.iter_mut();
        let mut near = after.take_while(|joined| time(joined) <= last).take(PASSED_OVER);
        let joined = near.find(|joined| !joined.of_reset && (joined.error.local, joined.error.peer) == ends)?;
        joined.of_reset = true;
        Some(joined)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NETNS, event};
    use super::super::{Drained, Joiner};
    use super::*;
    use crate::source::reset_events::{Direction, ResetEvent};
    use crate::value::Errno;

    const ENDS: (&str, &str) = ("10.0.0.1:40000", "10.0.0.2:80");
    const END: Duration = Duration::from_secs(1_000);

    fn received() -> ResetEvent {
        event(Direction::Received, ENDS.0, ENDS.1)
    }

    fn error(errno: Errno, micros: u64) -> SocketError {
        let at = received().at + Duration::from_micros(micros);
        SocketError { at, local: received().local, peer: received().peer.expect("peer"), errno, netns: None }
    }

    #[test]
    fn a_reset_knows_what_its_program_is_told() {
        let read = Drained { events: vec![received()], errors: vec![error(Errno::RESET, 3)], ..Drained::default() };
        let joined = Joiner::default().step(read, END);
        assert_eq!(joined.resets[0].errno, Some(Errno::RESET));
        assert_eq!((joined.errors[0].of_reset, joined.errors[0].error.netns), (true, Some(NETNS)));
    }

    #[test]
    fn what_comes_without_a_reset_is_a_failure_of_another_kind() {
        let errors = vec![error(Errno::TIMED_OUT, 700_000)];
        let read = Drained { events: vec![received()], errors, ..Drained::default() };
        let joined = Joiner::default().step(read, END);
        assert_eq!((joined.resets[0].errno, joined.errors[0].of_reset), (None, false));
    }

    #[test]
    fn an_error_that_is_read_after_its_reset_was_handed_out_is_still_one_of_a_reset() {
        let mut joiner = Joiner::default();
        let first = Drained { events: vec![received()], ..Drained::default() };
        let until = received().at + Duration::from_micros(1);
        assert_eq!(joiner.step(first, until).resets.len(), 1);
        let then = joiner.step(Drained { errors: vec![error(Errno::RESET, 3)], ..Drained::default() }, END);
        assert!(then.errors[0].of_reset);
    }

    #[test]
    fn two_resets_between_the_same_ends_take_an_error_each() {
        let later = ResetEvent { at: received().at + Duration::from_micros(50), ..received() };
        let errors = vec![error(Errno::REFUSED, 2), error(Errno::REFUSED, 52)];
        let read = Drained { events: vec![received(), later], errors, ..Drained::default() };
        let joined = Joiner::default().step(read, END);
        assert!(joined.resets.iter().all(|reset| reset.errno == Some(Errno::REFUSED)));
        assert!(joined.errors.iter().all(|joined| joined.of_reset));
    }

    #[test]
    fn an_error_stands_among_those_of_other_connections_and_is_given_once() {
        let of = |port: u16, micros: u64| {
            let mut error = error(Errno::RESET, micros);
            error.peer.set_port(port);
            let at = received().at + Duration::from_micros(micros);
            (ResetEvent { at, peer: Some(error.peer), ..received() }, error)
        };
        // Two CPUs: of the first reset the error comes last.
        let [(first, mut late), (second, early), (third, between)] = [of(1, 0), of(2, 1), of(3, 2)];
        late.at += Duration::from_micros(8);
        let mut joiner = Joiner::default();
        let events = vec![first.clone(), second, third];
        let joined = joiner.step(Drained { events, errors: vec![early, between, late], ..Drained::default() }, END);
        assert!(joined.resets.iter().all(|reset| reset.errno == Some(Errno::RESET)));
        // The next reset between the same ends has an error of its own, or none.
        let mut joiner = Joiner::default();
        let (again, _) = of(1, 4);
        let error = SocketError { at: first.at + Duration::from_micros(5), ..of(1, 0).1 };
        let until = first.at + Duration::from_micros(3);
        let read = Drained { events: vec![first, again], errors: vec![error], ..Drained::default() };
        assert_eq!(joiner.step(read, until).resets[0].errno, Some(Errno::RESET));
        assert_eq!(joiner.step(Drained::default(), END).resets[0].errno, None);
    }

    #[test]
    fn what_a_program_was_told_before_the_reset_is_not_of_it() {
        let mut earlier = error(Errno::TIMED_OUT, 0);
        earlier.at -= Duration::from_micros(1);
        let read = Drained { events: vec![received()], errors: vec![earlier], ..Drained::default() };
        let joined = Joiner::default().step(read, END);
        assert_eq!((joined.resets[0].errno, joined.errors[0].of_reset), (None, false));
    }
}
