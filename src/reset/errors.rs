//! Which reset gave a program which error.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::{Ends, Reset};
use crate::source::reset_events::SocketError;

/// The kernel puts the error on the socket in the call in which it takes or sends the RST: microseconds later, unless the CPU is
/// taken away.
const AT_ONCE: Duration = Duration::from_millis(10);
/// Resets that are remembered for errors that are read after them.
const REMEMBERED: usize = 4_096;

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
        let mut by_ends = ByEnds::new();
        for joined in &mut self.waiting {
            by_ends.entry((joined.error.local, joined.error.peer)).or_default().push_back(joined);
        }
        self.without.retain(|(ends, at)| take(&mut by_ends, *ends, *at).is_none());
        for reset in resets {
            let (Some(ends), Some(event)) = (reset.connection(), &reset.event) else { continue };
            match take(&mut by_ends, ends, event.at) {
                Some(joined) => {
                    reset.errno = Some(joined.error.errno);
                    joined.error.netns = joined.error.netns.or(reset.netns());
                }
                None => {
                    if self.without.len() >= REMEMBERED {
                        self.without.pop_front();
                    }
                    self.without.push_back((ends, event.at));
                }
            }
        }
        let old = until.saturating_sub(AT_ONCE);
        while self.without.front().is_some_and(|(_, at)| *at < old) {
            self.without.pop_front();
        }
        let (due, wait) = std::mem::take(&mut self.waiting).into_iter().partition(|joined| joined.error.at < until);
        self.waiting = wait;
        due
    }
}

type ByEnds<'a> = HashMap<Ends, VecDeque<&'a mut JoinedError>>;

/// The error of a reset at this time.
fn take<'a>(by_ends: &mut ByEnds<'a>, ends: Ends, at: Duration) -> Option<&'a mut JoinedError> {
    let waiting = by_ends.get_mut(&ends)?;
    let near = |joined: &&mut JoinedError| (at..=at.saturating_add(AT_ONCE)).contains(&joined.error.at);
    let joined = waiting.iter().position(near).and_then(|place| waiting.remove(place))?;
    joined.of_reset = true;
    Some(joined)
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
}
