//! A [`Host`] that remembers the last minutes of what another one answered, so that they can be written as a recording after
//! the fault was seen.
//!
//! The remembered frames begin in the middle of a row. To be a recording of its own, the first of them becomes survey and
//! opening snapshot, the last the closing one; and the streams begin anew: their opening blocks are kept from the very first
//! answer, and their running totals count from the beginning of the recording.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::recording::{RecordError, RecordingFile, RecordingHost};
use crate::source::stream::{Blocks, Kind, send};
use crate::source::{Answer, Ask, Failure, FailureKind, Frame, Host, Moment};

/// Nothing older is written.
const MINUTES: Duration = Duration::from_secs(600);
/// Bytes that are remembered at most.
const MOST: usize = 32 << 20;
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
    /// The opening blocks of each stream, by key.
    openings: BTreeMap<String, Vec<u8>>,
}

struct KeptFrame {
    frame: Frame,
    at: Moment,
    answers: Vec<Kept>,
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

impl<H: Host> Host for RollingHost<H> {
    fn frame(&mut self, frame: Frame) -> Option<Moment> {
        let at = self.inner.frame(frame)?;
        self.history.lock().begin(frame, at);
        Some(at)
    }

    fn ask(&mut self, ask: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer {
        let (mut parts, mut bytes) = (Vec::new(), 0);
        let answer = self.inner.ask(ask, &mut |part| {
            bytes += part.len();
            if bytes <= LARGE {
                parts.push(part.to_vec());
            }
            sink(part);
        });
        if bytes <= LARGE {
            self.history.lock().keep(Kept { ask: ask.clone(), parts, answer: answer.clone() });
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
        let (frames, openings) = {
            let remembered = self.lock();
            (remembered.cut(), remembered.openings.clone())
        };
        let (Some(first), Some(last)) = (frames.first(), frames.last()) else { return Err(RecordError::Empty) };
        let covered = last.at.mono.saturating_sub(first.at.mono);
        let file = RecordingFile::create(path, false)?;
        let mut recording = RecordingHost::new(Player { frames: renewed(frames, openings), next: 0 }, file, false);
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
        self.frames.push_back(KeptFrame { frame, at, answers: Vec::new() });
        let old = |frame: &KeptFrame| at.mono.saturating_sub(frame.at.mono) > MINUTES;
        while self.frames.len() > 1 && (self.bytes > MOST || self.frames.front().is_some_and(old)) {
            self.bytes -= self.frames.pop_front().map_or(0, |frame| frame.answers.iter().map(Kept::len).sum());
        }
    }

    fn keep(&mut self, kept: Kept) {
        if kept.ask.is_stream() && kept.answer.result.is_ok() {
            self.openings.entry(kept.ask.key()).or_insert_with(|| opening(&kept.parts));
        }
        if let Some(frame) = self.frames.back_mut() {
            self.bytes += kept.len();
            frame.answers.push(kept);
        }
    }

    /// The frames of the recording: from a tick that looked at all sockets, if there is one but the last, to the latest
    /// tick.
    fn cut(&self) -> Vec<KeptFrame> {
        let whole = |frame: &KeptFrame| matches!(frame.frame, Frame::Tick { .. } | Frame::Before);
        let swept = |frame: &KeptFrame| frame.answers.iter().any(|kept| matches!(kept.ask, Ask::SocketOwners { .. }));
        let Some(last) = self.frames.iter().rposition(whole) else { return Vec::new() };
        let before = |wanted: &dyn Fn(&KeptFrame) -> bool| self.frames.iter().take(last).position(wanted);
        let Some(first) = before(&|frame| whole(frame) && swept(frame)).or_else(|| before(&whole)) else {
            return Vec::new();
        };
        let copy = |frame: &KeptFrame| KeptFrame { frame: frame.frame, at: frame.at, answers: frame.answers.clone() };
        self.frames.range(first..=last).map(copy).collect()
    }
}

impl Kept {
    fn len(&self) -> usize {
        self.parts.iter().map(Vec::len).sum()
    }
}

/// The frames as a recording has them.
fn renewed(frames: Vec<KeptFrame>, mut openings: BTreeMap<String, Vec<u8>>) -> Vec<KeptFrame> {
    let Some(start) = frames.first().map(|frame| frame.at.mono) else { return frames };
    let count = frames.len();
    let mut totals: BTreeMap<String, Totals> = BTreeMap::new();
    let mut out = Vec::with_capacity(count + 1);
    for (index, mut kept) in frames.into_iter().enumerate() {
        let due = kept.at.mono.saturating_sub(start);
        for answer in kept.answers.iter_mut().filter(|kept| kept.ask.is_stream()) {
            let key = answer.ask.key();
            let totals = totals.entry(key.clone()).or_default();
            let parts: Vec<u8> = answer.parts.concat();
            answer.parts = match index {
                // What it brought happened before.
                0 => {
                    totals.begin(&parts);
                    openings.remove(&key).into_iter().collect()
                }
                _ => vec![totals.rebased(&parts)],
            };
        }
        kept.frame = match (kept.frame, index) {
            (_, 0) => Frame::Before,
            (_, index) if index + 1 == count => Frame::After { end: due },
            (Frame::Tick { .. }, _) => Frame::Tick { due, end: Duration::MAX },
            _ => Frame::Poll { due, end: Duration::MAX },
        };
        if index == 0 {
            let answers = kept.answers.iter().filter(|kept| !kept.ask.is_stream()).cloned().collect();
            out.push(KeptFrame { frame: Frame::Survey, at: kept.at, answers });
        }
        out.push(kept);
    }
    out
}

/// The blocks that a stream begins with and that stay true: all but records, counts and times.
fn opening(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    blocks(&parts.concat(), &mut |kind, cpu, payload| {
        if !matches!(kind, Kind::Records | Kind::Counts | Kind::Clock) {
            push(&mut out, kind, cpu, payload);
        }
    });
    out
}

/// What the running totals of a stream were when the recording began. In reset events the first number of a line is the
/// event that it is about; otherwise a line is one number.
#[derive(Default)]
struct Totals(BTreeMap<String, Vec<u64>>);

impl Totals {
    fn begin(&mut self, stream: &[u8]) {
        blocks(stream, &mut |kind, _, payload| {
            if kind == Kind::Counts {
                for line in String::from_utf8_lossy(payload).lines() {
                    let (name, numbers) = numbers(line);
                    self.0.insert(name, numbers);
                }
            }
        });
    }

    fn rebased(&self, stream: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(stream.len());
        blocks(stream, &mut |kind, cpu, payload| {
            if kind != Kind::Counts {
                return push(&mut out, kind, cpu, payload);
            }
            let text = String::from_utf8_lossy(payload);
            let rebased: String = text.split_inclusive('\n').map(|line| self.line(line)).collect();
            push(&mut out, kind, cpu, rebased.as_bytes());
        });
        out
    }

    fn line(&self, whole: &str) -> String {
        let line = whole.trim_end_matches('\n');
        let (name, numbers) = numbers(line);
        // A line of words says something else than a total.
        if numbers.is_empty() {
            return whole.to_owned();
        }
        let before = self.0.get(&name);
        let since = numbers.iter().enumerate().map(|(index, number)| {
            let before = before.and_then(|before| before.get(index)).copied().unwrap_or(0);
            number.saturating_sub(before).to_string()
        });
        let name = Some(name).filter(|name| !name.is_empty());
        name.into_iter().chain(since).collect::<Vec<_>>().join(" ") + &whole[line.len()..]
    }
}

/// What a line is about, and its totals.
fn numbers(line: &str) -> (String, Vec<u64>) {
    let words: Vec<&str> = line.split(' ').collect();
    let (name, rest) = if words.len() > 1 { (words[0], &words[1..]) } else { ("", &words[..]) };
    (name.to_owned(), rest.iter().map_while(|word| word.parse().ok()).collect())
}

/// The stream is ours, written a moment ago: it holds whole blocks.
fn blocks(stream: &[u8], each: &mut dyn FnMut(Kind, u16, &[u8])) {
    let _ = Blocks::new("the last minutes").feed(stream, &mut |kind, cpu, payload| {
        each(kind, cpu, payload);
        Ok(())
    });
}

fn push(out: &mut Vec<u8>, kind: Kind, cpu: u16, payload: &[u8]) {
    send(&mut |bytes| out.extend_from_slice(bytes), kind, cpu, payload);
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

impl Host for Player {
    fn frame(&mut self, _: Frame) -> Option<Moment> {
        let frame = self.frames.get(self.next)?;
        self.next += 1;
        Some(frame.at)
    }

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
