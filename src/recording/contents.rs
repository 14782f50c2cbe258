//! The first reading of a recording: all of it is checked, and the windows are found.

use std::io::Read;
use std::time::Duration;

use super::format::{FrameKind, Manifest};
use super::frame::{Stored, Times, decode, what};
use super::problem::{Place, RecordingProblem};
use super::reader::{Cut, Reader};
use crate::value::Moment;

/// One window of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// When its first snapshot was taken.
    pub started: Moment,
    /// From the first to the last snapshot as they were taken.
    pub length: Duration,
    /// The length that was asked for; more than `length` if the user interrupted it.
    pub planned: Duration,
    pub polls: u32,
}

/// What the first reading found.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub windows: Vec<Window>,
    /// Frames that can be judged: all, or those up to the closing one of a recording that was cut off.
    pub frames: u64,
    pub cut: Option<Cut>,
    /// The answer to [`crate::ask::What::Namespaces`], which is asked before the first frame and stands in it.
    pub namespaces: Option<Vec<u8>>,
    open: Option<Open>,
    latest: Option<Times>,
}

/// A window without its closing snapshot so far.
#[derive(Debug)]
struct Open {
    started: Moment,
    polls: u32,
    /// The last tick that could close it, and the number of frames up to it.
    closing: Option<(Window, u64)>,
}

impl Contents {
    /// Reads everything.
    ///
    /// # Errors
    /// The recording is not sound, or cut off before anything could be judged.
    pub fn of(input: impl Read) -> Result<(Manifest, Self), RecordingProblem> {
        let (mut reader, manifest) = Reader::open(input)?;
        let (mut contents, mut bytes) = (Self::default(), Vec::new());
        while let Some(kind) = reader.head()? {
            let place = reader.place();
            if !reader.body(&mut bytes)? {
                break;
            }
            let (times, answers) = decode(&bytes).map_err(|why| RecordingProblem::unsafe_at(place, why))?;
            contents.frames += 1;
            contents.frame(kind, times, &answers, place)?;
            if contents.namespaces.is_none()
                && let Some((_, answer)) = answers.iter().find(|(key, _)| what(key) == Some("namespaces"))
            {
                contents.namespaces = Some(answer.parts(&bytes).collect::<Vec<_>>().concat());
            }
        }
        contents.cut = reader.is_cut();
        contents.close()?;
        Ok((manifest, contents))
    }

    /// The recording was cut off, and this is the number of frames with the last that can be judged.
    pub fn closes(&self, frames: u64) -> bool {
        self.cut.is_some() && frames == self.frames
    }

    fn frame(
        &mut self,
        kind: FrameKind,
        times: Times,
        answers: &[(&str, Stored)],
        place: Place,
    ) -> Result<(), RecordingProblem> {
        let odd = |why: &str| Err(RecordingProblem::unsafe_at(place, why));
        if let Some(why) = absurd(&times).or_else(|| backwards(&self.latest?, &times)) {
            return odd(why);
        }
        self.latest = Some(times);
        let frames = self.frames;
        match (kind, &mut self.open) {
            (FrameKind::Dump, None) => {}
            (FrameKind::Opening, Some(_)) if place.segment > 0 && place.frame == Some(0) => {}
            (FrameKind::Before, None) => self.open = Some(Open { started: times.at, polls: 0, closing: None }),
            (FrameKind::Poll, Some(open)) => open.polls = open.polls.saturating_add(1),
            (FrameKind::Tick, Some(open)) => {
                if has_counters(answers) {
                    open.closing = Some((open.window(&times), frames));
                }
            }
            (FrameKind::After, Some(open)) => {
                if times.end.is_zero() {
                    return odd("holds a window of no length");
                }
                self.windows.push(open.window(&times));
                self.open = None;
            }
            _ => return odd("holds frames in an order in which none are made"),
        }
        Ok(())
    }

    /// Decides what of a recording that was cut off can be judged.
    fn close(&mut self) -> Result<(), RecordingProblem> {
        if self.cut.is_none() {
            return Ok(());
        }
        if let Some((window, frames)) = self.open.take().and_then(|open| open.closing) {
            self.windows.push(window);
            self.frames = frames;
        }
        match (self.windows.is_empty(), self.frames) {
            (false, _) => Ok(()),
            (true, 0) => Err(RecordingProblem::Truncated("before its first frame ends".to_owned())),
            (true, frames) => {
                let what = "counters were read again, so there is no window to judge";
                Err(RecordingProblem::Truncated(format!("after {frames} whole frames, before the {what}")))
            }
        }
    }
}

impl Open {
    fn window(&self, closing: &Times) -> Window {
        Window {
            started: self.started,
            length: closing.at.mono.saturating_sub(self.started.mono),
            planned: closing.end,
            polls: self.polls,
        }
    }
}

/// Whether a frame can close a window: the counters of TCP were asked for, whatever the answer was.
fn has_counters(answers: &[(&str, Stored)]) -> bool {
    answers.iter().any(|(key, _)| key.ends_with("file/proc/net/snmp"))
}

/// Frames follow each other in time, and so do the hours that the machine was awake.
fn backwards(earlier: &Times, later: &Times) -> Option<&'static str> {
    const NOISE: Duration = Duration::from_millis(10);
    let awake = |times: &Times| times.at.mono.saturating_sub(times.at.asleep);
    let back = later.at.mono < earlier.at.mono || awake(later) + NOISE < awake(earlier);
    back.then_some("holds a frame from before the frame before it")
}

/// Times that no host has.
fn absurd(times: &Times) -> Option<&'static str> {
    /// No machine is up for longer.
    const UPTIME: Duration = Duration::from_secs(100 * 365 * 86_400);
    let Moment { mono, asleep, .. } = times.at;
    if mono > UPTIME || asleep > mono {
        return Some("holds a frame at a time at which no machine has been up");
    }
    None
}
