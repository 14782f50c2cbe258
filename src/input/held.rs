//! A host that is not there: it answers what was kept of it, and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ask::{Answer, Ask, Clock, Frame, Probe};
use crate::value::{Failure, FailureKind, Moment};

/// What was kept, by [`Ask::key`] without its scope.
pub type Answers = BTreeMap<String, Vec<u8>>;

/// Stands in for the kernel with what was kept of it.
#[derive(Debug, Default)]
pub struct HeldHost {
    pub before: Answers,
    pub after: Answers,
    pub begin: Moment,
    pub end: Moment,
    /// What everything else is not in: `a capture`.
    pub lacks: &'static str,
    /// The window is over.
    pub closed: bool,
}

impl Clock for HeldHost {
    fn frame(&mut self, frame: Frame) -> Option<Moment> {
        match frame {
            Frame::Dump | Frame::Before => Some(self.begin),
            Frame::Poll { .. } | Frame::Tick { .. } => None,
            Frame::After { .. } => {
                self.closed = true;
                Some(self.end)
            }
        }
    }
}

impl Probe for HeldHost {
    fn ask(&mut self, ask: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer {
        let key = ask.what.key();
        let answers = if self.closed { &self.after } else { &self.before };
        let result = match answers.get(&key) {
            Some(bytes) => {
                sink(bytes);
                Ok(())
            }
            None => Err(Failure::new(FailureKind::NotCollected, format!("{} does not hold {key}", self.lacks))),
        };
        Answer { result, took: Duration::ZERO }
    }
}
