//! Hosts that stand between a recording and the code that observes it.

use std::time::Duration;

use rstdoctor::ask::{Answer, Ask, Clock, Frame, Probe};
use rstdoctor::recording::ReplayHost;
use rstdoctor::value::Moment;

/// Answers every question with the same bytes.
pub struct Always<'a>(pub &'a [u8]);

impl Probe for Always<'_> {
    fn ask(&mut self, _: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer {
        sink(self.0);
        Answer { result: Ok(()), took: Duration::ZERO }
    }
}

/// Notes what the recording answers, and answers one question with other bytes.
pub struct Between<'a> {
    pub recording: ReplayHost,
    /// The key of each question and its answer, in the order in which they were asked.
    pub answers: Vec<(String, Vec<u8>)>,
    /// Which of the answers is another, and what it is.
    pub instead: Option<(usize, &'a [u8])>,
}

impl Clock for Between<'_> {
    fn frame(&mut self, frame: Frame) -> Option<Moment> {
        self.recording.frame(frame)
    }

    fn due(&self, asked: Duration) -> Duration {
        self.recording.due(asked)
    }
}

impl Probe for Between<'_> {
    fn ask(&mut self, ask: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer {
        let number = self.answers.len();
        let mut bytes = Vec::new();
        let answer = self.recording.ask(ask, &mut |part| bytes.extend_from_slice(part));
        let bytes = match self.instead {
            Some((which, instead)) if which == number => instead.to_vec(),
            _ => bytes,
        };
        sink(&bytes);
        self.answers.push((ask.what.key(), bytes));
        answer
    }
}
