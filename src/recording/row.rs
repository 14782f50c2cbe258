//! Parts of a row of recordings that follow each other, as recordings of their own: what was recorded of some time is judged as
//! if it had been recorded for that.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::PathBuf;
use std::time::Duration;

use super::format::{Content, FrameKind};
use super::frame::Stored;
use super::kept::{Kept, KeptFrame, Past};
use super::problem::RecordingProblem;
use super::reader::{Hole, Piece, pieces};
use super::segments::Writing;
use super::write::RecordError;
use crate::ask::{Answer, Frame};
use crate::value::{Failure, Moment};

/// Bytes of one part, packed, as of a recording that has to be held in memory.
const MOST: usize = 64 << 20;

/// A part of a row, as a recording.
pub struct Excerpt {
    pub from: Moment,
    /// The latest tick at or before what was asked for, where there is one: what is before it is there for its sweep.
    pub begins: Moment,
    pub until: Moment,
    pub recording: Vec<u8>,
    /// It was to go on: it holds as much as fits into memory.
    pub cut: bool,
}

/// A recording that may hold something of the time.
pub struct Raw {
    pub path: PathBuf,
    /// From its beginning to its latest write, CLOCK_REALTIME.
    pub from: Duration,
    pub until: Duration,
}

/// What cannot be read of a recording.
pub struct Lost {
    pub path: PathBuf,
    /// Why, in words.
    pub why: String,
    /// The time that it was about, CLOCK_REALTIME.
    pub from: Duration,
    pub until: Duration,
}

/// What the recordings, in the order of time, hold of the time from `since` to `until` (CLOCK_REALTIME). One part for each row
/// without a gap, from the last tick before `since` that looked at all sockets to the first tick at or after `until`, or as far as it
/// goes. And what cannot be read of them, which is a gap: what is sound is used.
pub fn excerpts(files: &[Raw], since: Duration, until: Duration) -> (Vec<Excerpt>, Vec<Lost>) {
    let mut cutting = Cutting { since, until, row: None, done: Vec::new(), lost: Vec::new() };
    files.iter().for_each(|file| cutting.file(file));
    cutting.end();
    (cutting.done, cutting.lost)
}

struct Cutting {
    since: Duration,
    until: Duration,
    row: Option<Row>,
    done: Vec<Excerpt>,
    lost: Vec<Lost>,
}

/// Frames that follow each other, over one or more files.
struct Row {
    past: Past,
    /// At the beginning of this file: its streams count from there.
    base: Past,
    /// When the latest tick was.
    latest: Moment,
    /// See [`Excerpt::begins`].
    begins: Moment,
    part: Part,
}

enum Part {
    /// From the latest tick with a sweep, with what is true at it.
    Before(Box<Past>, Vec<KeptFrame>),
    Within(Box<Writing<Vec<u8>>>),
    Over,
}

impl Cutting {
    fn file(&mut self, file: &Raw) {
        let (mut first, mut joined) = (true, false);
        // What is left out here, since then.
        let mut hole: Option<(Hole, Duration)> = None;
        let mut latest = file.from;
        let lost = |why: String, from, until| Lost { path: file.path.clone(), why, from, until };
        let read = File::open(&file.path).map_err(RecordingProblem::Read).and_then(|input| {
            pieces(Content::Observed, BufReader::new(input), &mut |piece| {
                let (kind, times, answers, bytes) = match piece {
                    Piece::Frame { kind, times, answers, bytes } => (kind, times, answers, bytes),
                    Piece::Hole(next) => {
                        // Nobody saw what was counted in it.
                        self.end();
                        self.lost.extend(
                            hole.replace((next, latest)).map(|(hole, from)| lost(hole.to_string(), from, latest)),
                        );
                        return Ok(());
                    }
                };
                let at = times.at;
                latest = at.wall;
                let frame = KeptFrame { answers: kept(answers, bytes), ..KeptFrame::new(played(kind), at) };
                if let Some((unread, from)) = hole.take_if(|_| kind == FrameKind::Opening) {
                    self.lost.push(lost(unread.to_string(), from, at.wall));
                    self.begin(at);
                    self.row.iter_mut().for_each(|row| row.past.absorb(&frame));
                    (first, joined) = (false, false);
                    return Ok(());
                }
                // Without what was said before it is not understood, or wrongly.
                if hole.is_some() || kind == FrameKind::Opening {
                    return Ok(());
                }
                if std::mem::take(&mut first) {
                    joined = self.row.as_ref().is_some_and(|row| row.latest == at);
                    match &mut self.row {
                        Some(row) if joined => row.base = row.past.clone(),
                        _ => self.begin(at),
                    }
                }
                match kind {
                    // It is the end of the file before.
                    FrameKind::Dump | FrameKind::Before if joined => Ok(()),
                    FrameKind::Dump => {
                        self.row.iter_mut().for_each(|row| row.past.absorb(&frame));
                        Ok(())
                    }
                    _ => self.frame(frame).map_err(failed),
                }
            })
        });
        let until = file.until.max(latest);
        // Where nothing more is understood, nothing more was read.
        let length = fs::metadata(&file.path).ok().filter(|_| read.is_ok()).map(|own| own.len());
        let end = |hole: Hole| Hole { until: length.unwrap_or(hole.until), ..hole };
        self.lost.extend(hole.map(|(hole, from)| lost(end(hole).to_string(), from, until)));
        self.lost.extend(read.err().map(|problem| lost(problem.plain(), latest, until)));
    }

    fn begin(&mut self, at: Moment) {
        self.end();
        let part = Part::Before(Box::default(), Vec::new());
        self.row = Some(Row { past: Past::default(), base: Past::default(), latest: at, begins: at, part });
    }

    fn frame(&mut self, mut frame: KeptFrame) -> Result<(), RecordError> {
        let Some(row) = &mut self.row else { return Ok(()) };
        for kept in frame.answers.iter_mut().filter(|kept| kept.is_stream()) {
            if let Some(base) = row.base.streams.get(&kept.key) {
                kept.parts = vec![base.continued(&kept.parts.concat())];
            }
        }
        row.past.absorb(&frame);
        let (at, tick) = (frame.at, frame.is_tick());
        if tick {
            row.latest = at;
            if let Part::Before(_, frames) = &row.part
                && (frames.is_empty() || at.wall <= self.since)
            {
                row.begins = at;
            }
        }
        row.part = match std::mem::replace(&mut row.part, Part::Over) {
            Part::Before(past, mut frames) => {
                if tick && (frames.is_empty() || frame.is_swept() && at.wall <= self.since) {
                    Part::Before(Box::new(row.past.clone()), vec![frame])
                } else {
                    frames.push(frame);
                    if at.wall <= self.since { Part::Before(past, frames) } else { begun(*past, frames, self.until)? }
                }
            }
            Part::Within(mut writing) => {
                writing.push(frame)?;
                Part::Within(writing)
            }
            Part::Over => Part::Over,
        };
        let enough = at.wall >= self.until && tick;
        let full = matches!(&row.part, Part::Within(writing) if writing.out().len() >= MOST);
        if let Part::Within(_) = &row.part
            && (enough || full)
            && let Part::Within(writing) = std::mem::replace(&mut row.part, Part::Over)
        {
            self.done.extend(excerpt(*writing, row.begins, full && !enough)?);
        }
        Ok(())
    }

    /// The row goes no further.
    fn end(&mut self) {
        let Some(row) = self.row.take() else { return };
        let writing = match row.part {
            Part::Within(writing) => Some(*writing),
            // It ended before `since`, or its last tick is all that there is.
            Part::Before(..) | Part::Over => None,
        };
        // To memory.
        self.done.extend(writing.and_then(|writing| excerpt(writing, row.begins, false).ok()).flatten());
    }
}

/// Frames from the first on. Over at once if the first is behind the end.
fn begun(past: Past, frames: Vec<KeptFrame>, until: Duration) -> Result<Part, RecordError> {
    let mut frames = frames.into_iter();
    let Some(first) = frames.next().filter(|first| first.at.wall <= until) else { return Ok(Part::Over) };
    let mut writing = Writing::new(Vec::new(), past, first, false);
    frames.try_for_each(|frame| writing.push(frame))?;
    Ok(Part::Within(Box::new(writing)))
}

/// `None` if it is no window: a single tick.
fn excerpt(writing: Writing<Vec<u8>>, begins: Moment, cut: bool) -> Result<Option<Excerpt>, RecordError> {
    let from = writing.from;
    let (recording, until) = writing.finish()?;
    Ok((until.mono > begins.mono).then_some(Excerpt { from, begins, until, recording, cut }))
}

/// Memory that holds a part cannot fail; what else could is no sound recording.
fn failed(error: RecordError) -> RecordingProblem {
    RecordingProblem::Read(std::io::Error::other(error.to_string()))
}

fn played(kind: FrameKind) -> Frame {
    let (due, end) = (Duration::ZERO, Duration::MAX);
    match kind {
        FrameKind::Dump => Frame::Dump,
        FrameKind::Before => Frame::Before,
        FrameKind::Poll | FrameKind::Entry | FrameKind::Opening => Frame::Poll { due, end },
        FrameKind::Tick | FrameKind::After => Frame::Tick { due, end },
    }
}

fn kept(answers: &[(&str, Stored)], frame: &[u8]) -> Vec<Kept> {
    let kept = |(key, stored): &(&str, Stored)| Kept {
        key: (*key).to_owned(),
        parts: stored.parts(frame).map(<[u8]>::to_vec).collect(),
        answer: answer(stored.failure.clone()),
    };
    answers.iter().map(kept).collect()
}

fn answer(failure: Option<Failure>) -> Answer {
    Answer { result: failure.map_or(Ok(()), Err), took: Duration::ZERO }
}

#[cfg(test)]
mod tests;
