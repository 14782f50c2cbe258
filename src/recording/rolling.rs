//! A [`Host`] that remembers the last minutes of what another one answered, so that they can be written as a recording after
//! the fault was seen.
//!
//! The remembered frames begin in the middle of a row. To be a recording of its own, the first of them becomes dump and
//! opening snapshot, the last the closing one; and the streams begin anew: what they said once and for all is kept when the
//! frame that heard it is forgotten (`Past`), and their running totals count from the beginning of the recording.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::file::RecordingFile;
use super::write::{RecordError, RecordingHost};
use crate::ask::{self, Answer, Ask, Clock, Frame, Host, Probe, What};
use crate::stream::Kind;
use crate::stream::rebase::StreamStart;
use crate::value::{Failure, FailureKind, Moment};

/// Nothing older is written.
const MINUTES: Duration = Duration::from_secs(600);
/// Bytes that are remembered at most.
const MOST: usize = 32 << 20;
/// Files of which the latest text is kept.
const FILES: usize = 256;
/// An answer that is larger, a sweep of very many sockets, is not remembered: it would push out all others.
const LARGE: usize = 4 << 20;

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

#[derive(Clone)]
struct KeptFrame {
    frame: Frame,
    at: Moment,
    answers: Vec<Kept>,
    /// The processes of this moment, as the stream of reset events lists them at its beginning.
    tasks: Option<Vec<u8>>,
}

#[derive(Clone)]
struct Kept {
    ask: Ask,
    /// As the sink got them: a message or line is never cut.
    parts: Vec<Vec<u8>>,
    answer: Answer,
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
}

impl<H: Host> Probe for RollingHost<H> {
    fn ask(&mut self, ask: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer {
        let (mut parts, mut bytes) = (Vec::new(), 0);
        let mut answer = self.inner.ask(ask, &mut |part| {
            bytes += part.len();
            if bytes <= LARGE {
                parts.push(part.to_vec());
            }
            sink(part);
        });
        // A recording begins with a sweep, if it can: who started since the first tick is not in its events. It is a part of
        // what a sweep costs, by which the next one is scheduled.
        let tasks = matches!(ask.what, What::SocketOwners { .. }).then(|| {
            let (tasks, took) = ask::read(&mut self.inner, &Ask::host(What::Tasks));
            answer.took += took;
            tasks.ok()
        });
        let mut remembered = self.history.lock();
        if bytes <= LARGE {
            remembered.keep(Kept { ask: ask.clone(), parts, answer: answer.clone() });
        }
        if let (Some(_), Some(frame)) = (&tasks, remembered.frames.back_mut()) {
            frame.tasks = tasks.flatten();
        }
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
        let file = RecordingFile::create(path)?;
        let mut recording = RecordingHost::new(Player { frames: renewed(past, frames), next: 0 }, file, false);
        let mut next = 0;
        while let Some((frame, asks)) = recording.inner().upcoming(next) {
            next += 1;
            recording.frame(frame);
            for ask in asks {
                recording.ask(&ask, &mut |_| {});
            }
        }
        recording.finish().and_then(RecordingFile::persist)?;
        Ok(covered)
    }
}

impl Remembered {
    fn begin(&mut self, frame: Frame, at: Moment) {
        self.frames.push_back(KeptFrame { frame, at, answers: Vec::new(), tasks: None });
        let old = |frame: &KeptFrame| at.mono.saturating_sub(frame.at.mono) > MINUTES;
        while self.frames.len() > 1 && (self.bytes > MOST || self.frames.front().is_some_and(old)) {
            let Some(frame) = self.frames.pop_front() else { return };
            self.bytes -= frame.answers.iter().map(Kept::len).sum::<usize>();
            self.past.absorb(&frame);
        }
    }

    fn keep(&mut self, kept: Kept) {
        if let Some(frame) = self.frames.back_mut() {
            self.bytes += kept.len();
            frame.answers.push(kept);
        } else if kept.ask.what == What::Namespaces {
            // Asked before the first frame.
            self.past.files.insert(kept.ask.key(), kept);
        }
    }

    /// The frames of the recording: from a tick that looked at all sockets, if there is one but the last, to the latest
    /// tick. And what was before its end of the first.
    fn cut(&self) -> (Past, Vec<KeptFrame>) {
        let whole = |frame: &KeptFrame| matches!(frame.frame, Frame::Tick { .. } | Frame::Before);
        let swept =
            |frame: &KeptFrame| frame.answers.iter().any(|kept| matches!(kept.ask.what, What::SocketOwners { .. }));
        let Some(last) = self.frames.iter().rposition(whole) else { return Default::default() };
        let before = |wanted: &dyn Fn(&KeptFrame) -> bool| self.frames.iter().take(last).position(wanted);
        let Some(first) = before(&|frame| whole(frame) && swept(frame)).or_else(|| before(&whole)) else {
            return Default::default();
        };
        let mut past = self.past.clone();
        self.frames.range(..=first).for_each(|frame| past.absorb(frame));
        (past, self.frames.range(first..=last).cloned().collect())
    }
}

impl Kept {
    fn len(&self) -> usize {
        self.parts.iter().map(Vec::len).sum()
    }
}

/// What stays true of frames that are forgotten.
#[derive(Clone, Default)]
struct Past {
    streams: BTreeMap<String, StreamStart>,
    /// The latest text of each file and link, by key: settings are not looked at in every tick.
    files: BTreeMap<String, Kept>,
}

impl Past {
    fn absorb(&mut self, frame: &KeptFrame) {
        for kept in &frame.answers {
            let key = kept.ask.key();
            match &kept.ask.what {
                what if what.is_stream() && kept.answer.result.is_ok() => {
                    self.streams.entry(key).or_default().absorb(&kept.parts.concat());
                }
                What::File(_) | What::Namespaces if self.files.len() < FILES || self.files.contains_key(&key) => {
                    self.files.insert(key, kept.clone());
                }
                _ => {}
            }
        }
    }
}

/// The frames as a recording has them.
fn renewed(mut past: Past, frames: Vec<KeptFrame>) -> Vec<KeptFrame> {
    let Some(start) = frames.first().map(|frame| frame.at.mono) else { return frames };
    let count = frames.len();
    let mut out = Vec::with_capacity(count + 1);
    for (index, mut kept) in frames.into_iter().enumerate() {
        let due = kept.at.mono.saturating_sub(start);
        let events = past.streams.get_mut(&Ask::host(What::ResetEvents).key());
        if let (0, Some(tasks), Some(events)) = (index, &kept.tasks, events) {
            events.replace(Kind::Tasks, 0, tasks);
        }
        for answer in kept.answers.iter_mut().filter(|kept| kept.ask.is_stream()) {
            let stream = past.streams.entry(answer.ask.key()).or_default();
            answer.parts = match index {
                // What it brought happened before. A second answer in the same frame goes on.
                0 => stream.take(),
                _ => vec![stream.rebased(&answer.parts.concat())],
            };
        }
        kept.frame = match (kept.frame, index) {
            (_, 0) => Frame::Before,
            (_, index) if index + 1 == count => Frame::After { end: due },
            (Frame::Tick { .. }, _) => Frame::Tick { due, end: Duration::MAX },
            _ => Frame::Poll { due, end: Duration::MAX },
        };
        if index == 0 {
            let own = kept.answers.iter().filter(|kept| !kept.ask.is_stream());
            let mut answers: Vec<Kept> = own.cloned().collect();
            let known: BTreeSet<String> = answers.iter().map(|kept| kept.ask.key()).collect();
            answers.extend(past.files.iter().filter(|(key, _)| !known.contains(*key)).map(|(_, kept)| kept.clone()));
            out.push(KeptFrame { frame: Frame::Dump, at: kept.at, answers, tasks: None });
        }
        out.push(kept);
    }
    out
}

/// Plays the remembered frames to the one who writes them.
struct Player {
    frames: Vec<KeptFrame>,
    /// Index of the frame after the current one.
    next: usize,
}

impl Player {
    /// The frame with this number and what was asked in it.
    fn upcoming(&self, number: usize) -> Option<(Frame, Vec<Ask>)> {
        let frame = self.frames.get(number)?;
        Some((frame.frame, frame.answers.iter().map(|kept| kept.ask.clone()).collect()))
    }
}

impl Clock for Player {
    fn frame(&mut self, _: Frame) -> Option<Moment> {
        let frame = self.frames.get(self.next)?;
        self.next += 1;
        Some(frame.at)
    }
}

impl Probe for Player {
    /// Each question once, in the order in which they were asked.
    fn ask(&mut self, ask: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer {
        let frame = self.next.checked_sub(1).and_then(|current| self.frames.get_mut(current));
        let kept = frame.and_then(|frame| {
            let place = frame.answers.iter().position(|kept| kept.ask == *ask)?;
            Some(frame.answers.remove(place))
        });
        match kept {
            Some(kept) => {
                kept.parts.iter().for_each(|part| sink(part));
                kept.answer
            }
            None => {
                let failure = Failure::new(FailureKind::NotCollected, format!("{} was not remembered", ask.key()));
                Answer { result: Err(failure), took: Duration::ZERO }
            }
        }
    }
}
