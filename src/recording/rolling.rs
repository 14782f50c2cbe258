//! A [`Host`] that remembers the last minutes of what another one answered, so that they can be written as a recording after
//! the fault was seen.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flate2::Compression;

use super::encoder::Encoder;
use super::file::RecordingFile;
use super::kept::{Kept, KeptFrame, Past, Renewal, ask_and_keep};
use super::write::{RecordError, manifest};
use crate::ask::{Answer, Ask, Clock, Frame, Host, Probe};
use crate::value::Moment;

/// Nothing older is written.
const MINUTES: Duration = Duration::from_secs(600);
/// Bytes that are remembered at most.
const MOST: usize = 32 << 20;

/// Passes questions on and remembers the answers.
pub struct RollingHost<H: Host> {
    inner: H,
    history: History,
}

/// What is remembered; clones share it.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<Remembered>>);

#[derive(Default)]
struct Remembered {
    frames: VecDeque<KeptFrame>,
    bytes: usize,
    /// Up to the first frame.
    past: Past,
}

impl<H: Host> RollingHost<H> {
    pub fn new(inner: H) -> Self {
        Self { inner, history: History::default() }
    }

    /// What can be saved at any time.
    pub fn history(&self) -> History {
        self.history.clone()
    }
}

impl<H: Host> Clock for RollingHost<H> {
    fn frame(&mut self, frame: Frame) -> Option<Moment> {
        let at = self.inner.frame(frame)?;
        self.history.lock().begin(frame, at);
        Some(at)
    }

    fn due(&self, asked: Duration) -> Duration {
        self.inner.due(asked)
    }

    fn used(&self) -> Option<Duration> {
        self.inner.used()
    }
}

impl<H: Host> Probe for RollingHost<H> {
    fn ask(&mut self, ask: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer {
        let (answer, kept, tasks) = ask_and_keep(&mut self.inner, ask, true, sink);
        self.history.lock().keep(kept, tasks);
        answer
    }
}

impl History {
    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what is remembered, up to the latest tick. How long a time it covers.
    ///
    /// # Errors
    /// The file exists or cannot be written, or fewer than two ticks are remembered.
    pub fn save(&self, path: &Path) -> Result<Duration, RecordError> {
        let (past, frames) = self.lock().cut();
        let (Some(first), Some(last)) = (frames.first(), frames.last()) else { return Err(RecordError::Empty) };
        let covered = last.at.mono.saturating_sub(first.at.mono);
        let (count, started) = (frames.len(), first.at);
        let mut encoder = Encoder::new(RecordingFile::create(path)?, Compression::fast());
        let mut renewal = Renewal::new(past);
        for (index, frame) in frames.into_iter().enumerate() {
            for frame in renewal.frame(frame, index + 1 == count) {
                frame.store(&mut encoder, || manifest(false, started))?;
            }
        }
        encoder.finish().and_then(RecordingFile::persist)?;
        Ok(covered)
    }
}

impl Remembered {
    fn begin(&mut self, frame: Frame, at: Moment) {
        self.frames.push_back(KeptFrame::new(frame, at));
        let old = |frame: &KeptFrame| at.mono.saturating_sub(frame.at.mono) > MINUTES;
        while self.frames.len() > 1 && (self.bytes > MOST || self.frames.front().is_some_and(old)) {
            let Some(frame) = self.frames.pop_front() else { return };
            self.bytes -= frame.bytes();
            self.past.absorb(&frame);
        }
    }

    fn keep(&mut self, kept: Option<Kept>, tasks: Option<Vec<u8>>) {
        let Some(frame) = self.frames.back_mut() else {
            // Asked before the first frame.
            kept.into_iter().for_each(|kept| self.past.early(kept));
            return;
        };
        frame.tasks = tasks.or_else(|| frame.tasks.take());
        if let Some(kept) = kept {
            self.bytes += kept.bytes();
            frame.answers.push(kept);
        }
    }

    /// The frames of the recording: from a tick that looked at all sockets, if there is one but the last, to the latest
    /// tick. And what was before its end of the first.
    fn cut(&self) -> (Past, Vec<KeptFrame>) {
        let Some(last) = self.frames.iter().rposition(KeptFrame::is_tick) else { return Default::default() };
        let before = |wanted: &dyn Fn(&KeptFrame) -> bool| self.frames.iter().take(last).position(wanted);
        let Some(first) = before(&|frame| frame.is_tick() && frame.is_swept()).or_else(|| before(&KeptFrame::is_tick))
        else {
            return Default::default();
        };
        let mut past = self.past.clone();
        self.frames.range(..=first).for_each(|frame| past.absorb(frame));
        (past, self.frames.range(first..=last).cloned().collect())
    }
}
