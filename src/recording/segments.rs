//! A [`Host`] that writes what another one answers into one recording after the other, each of which stands for itself and
//! begins where the one before ended.
//!
//! A recording grows tick by tick: what is written are the frames up to the latest tick but one, so that the latest can close
//! it whenever it has to end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flate2::Compression;

use super::encoder::Encoder;
use super::kept::{Kept, KeptFrame, Past, Renewal, ask_and_keep};
use super::write::{Output, RecordError, manifest};
use crate::ask::{Answer, Ask, Clock, Frame, Host, Probe};
use crate::value::Moment;

/// A recording ends at a tick that looked at all sockets, once it is so long; whatever the tick looked at, once it is so long.
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(300);
/// So much of it is lost with one damaged byte: each segment can be read without those before.
const PERIOD: Duration = Duration::from_secs(30);
/// After a failed write it is tried again, but not at once.
const RETRY: Duration = Duration::from_secs(30);
/// Frames that wait for the next tick, bytes.
const WAITING: usize = 8 << 20;

/// Opens where the recording goes that begins at this moment.
pub type Open<W> = dyn FnMut(Moment) -> Result<W, RecordError> + Send;

/// Passes questions on and writes the answers.
pub struct SegmentingHost<H: Host, W: Output> {
    inner: H,
    open: Box<Open<W>>,
    redacted: bool,
    segments: Segments<W>,
    /// Up to the latest frame that is whole.
    past: Past,
    current: Option<KeptFrame>,
    writing: Option<Writing<W>>,
    not_before: Duration,
}

/// What became of the recordings, for the one who drives the host; clones share it.
pub struct Segments<W>(Arc<Mutex<Told<W>>>);

struct Told<W> {
    rotate: bool,
    largest: u64,
    closed: Vec<Closed<W>>,
    failed: Option<RecordError>,
}

/// A recording that ended.
pub struct Closed<W> {
    pub from: Moment,
    pub until: Moment,
    pub out: W,
}

impl<W> Clone for Segments<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<W> Segments<W> {
    fn lock(&self) -> MutexGuard<'_, Told<W>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The recording ends at the next tick, and another one begins.
    pub fn rotate(&self) {
        self.lock().rotate = true;
    }

    /// Those that ended since the last time.
    pub fn closed(&self) -> Vec<Closed<W>> {
        std::mem::take(&mut self.lock().closed)
    }

    /// What failed since the last time: the recording that was open ends there.
    pub fn failed(&self) -> Option<RecordError> {
        self.lock().failed.take()
    }
}

/// A recording that grows.
pub(super) struct Writing<W: Output> {
    encoder: Encoder<W>,
    renewal: Renewal,
    pub from: Moment,
    /// The latest tick and what came after it.
    waiting: Vec<KeptFrame>,
    bytes: usize,
    stored: u64,
    redacted: bool,
}

impl<W: Output> Writing<W> {
    /// Begins with a tick; `past` has absorbed it.
    pub fn new(out: W, past: Past, first: KeptFrame, redacted: bool) -> Self {
        let (from, bytes) = (first.at, first.bytes());
        let (encoder, renewal) = (Encoder::new(out, Compression::fast()), Renewal::new(past));
        Self { encoder, renewal, from, waiting: vec![first], bytes, stored: 0, redacted }
    }

    /// The frame is whole. What is before a tick is written.
    pub fn push(&mut self, frame: KeptFrame) -> Result<(), RecordError> {
        if frame.is_tick() || self.bytes > WAITING {
            self.store(false)?;
        }
        self.bytes += frame.bytes();
        self.waiting.push(frame);
        Ok(())
    }

    /// What is known before this frame, if a segment begins with it. What is before a tick is written.
    fn opening(&mut self, frame: &KeptFrame, past: &Past) -> Result<Option<Vec<Kept>>, RecordError> {
        if !frame.is_tick() {
            return Ok(None);
        }
        self.store(false)?;
        Ok(self.encoder.is_full(frame.at).then(|| past.opening()))
    }

    /// How long it goes on when this frame comes.
    fn age(&self, frame: &KeptFrame) -> Duration {
        frame.at.mono.saturating_sub(self.from.mono)
    }

    /// What was written so far.
    pub fn out(&self) -> &W {
        self.encoder.out()
    }

    /// Ends with the latest tick; what came after it is left out. When that was.
    pub fn finish(mut self) -> Result<(W, Moment), RecordError> {
        self.waiting.truncate(1);
        let until = self.waiting.first().map_or(self.from, |frame| frame.at);
        self.store(true)?;
        Ok((self.encoder.finish()?, until))
    }

    fn store(&mut self, last: bool) -> Result<(), RecordError> {
        let (from, redacted) = (self.from, self.redacted);
        self.bytes = 0;
        for frame in std::mem::take(&mut self.waiting) {
            self.stored += frame.bytes() as u64;
            for frame in self.renewal.frame(frame, last) {
                frame.store(&mut self.encoder, || manifest(redacted, from))?;
            }
        }
        Ok(())
    }
}

impl<H: Host, W: Output> SegmentingHost<H, W> {
    /// `largest`: a recording ends early once its answers are so many bytes, unpacked. `redacted`: the inner host has replaced
    /// addresses and names.
    pub fn new(inner: H, open: Box<Open<W>>, largest: u64, redacted: bool) -> Self {
        let told = Told { rotate: false, largest, closed: Vec::new(), failed: None };
        Self {
            inner,
            open,
            redacted,
            segments: Segments(Arc::new(Mutex::new(told))),
            past: Past::default(),
            current: None,
            writing: None,
            not_before: Duration::ZERO,
        }
    }

    pub fn segments(&self) -> Segments<W> {
        self.segments.clone()
    }

    /// Ends the recording that is open, with the latest tick.
    ///
    /// # Errors
    /// What the output says.
    pub fn finish(mut self) -> Result<Option<Closed<W>>, RecordError> {
        self.whole()?;
        self.writing.take().map(close).transpose()
    }

    /// The current frame is whole.
    fn whole(&mut self) -> Result<(), RecordError> {
        let Some(mut frame) = self.current.take() else { return Ok(()) };
        let opening = self.writing.as_mut().map_or(Ok(None), |writing| writing.opening(&frame, &self.past));
        self.past.absorb(&frame);
        frame.opening = opening?;
        let Some(writing) = &mut self.writing else {
            return if frame.is_tick() && frame.at.mono >= self.not_before { self.begin(frame) } else { Ok(()) };
        };
        let age = writing.age(&frame);
        let (asked, largest) = {
            let mut told = self.segments.lock();
            (frame.is_tick() && std::mem::take(&mut told.rotate), told.largest)
        };
        let full = writing.stored >= largest;
        let old = age >= LONGEST || age >= SHORTEST && frame.is_swept();
        let ends = frame.is_tick() && !age.is_zero() && (asked || full || old);
        if !ends {
            return writing.push(frame);
        }
        writing.push(KeptFrame { opening: None, ..frame.clone() })?;
        if let Some(writing) = self.writing.take() {
            let closed = close(writing)?;
            self.segments.lock().closed.push(closed);
        }
        self.begin(frame)
    }

    fn begin(&mut self, mut frame: KeptFrame) -> Result<(), RecordError> {
        frame.opening = None;
        let out = (self.open)(frame.at)?;
        let writing = Writing::new(out, self.past.clone(), frame, self.redacted);
        self.writing = Some(Writing { encoder: writing.encoder.divided(PERIOD), ..writing });
        Ok(())
    }
}

fn close<W: Output>(writing: Writing<W>) -> Result<Closed<W>, RecordError> {
    let from = writing.from;
    writing.finish().map(|(out, until)| Closed { from, until, out })
}

impl<H: Host, W: Output> Clock for SegmentingHost<H, W> {
    /// As the inner host: what cannot be written does not end the observation.
    fn frame(&mut self, frame: Frame) -> Option<Moment> {
        // The look that precedes a row is a part of the snapshot that opens it.
        let dump = self.current.take_if(|current| (current.frame, frame) == (Frame::Dump, Frame::Before));
        let now = self.current.as_ref().map(|current| current.at.mono);
        if let Err(error) = self.whole() {
            self.writing = None;
            self.not_before = now.unwrap_or_default().saturating_add(RETRY);
            self.segments.lock().failed = Some(error);
        }
        let at = self.inner.frame(frame)?;
        let (answers, tasks) = dump.map(|dump| (dump.answers, dump.tasks)).unwrap_or_default();
        self.current = Some(KeptFrame { answers, tasks, ..KeptFrame::new(frame, at) });
        Some(at)
    }

    fn due(&self, asked: Duration) -> Duration {
        self.inner.due(asked)
    }

    fn used(&self) -> Option<Duration> {
        self.inner.used()
    }
}

impl<H: Host, W: Output> Probe for SegmentingHost<H, W> {
    fn ask(&mut self, ask: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer {
        let begun = self.writing.as_ref().zip(self.current.as_ref());
        let begins = begun.is_none_or(|(writing, frame)| writing.age(frame) >= SHORTEST);
        let (answer, kept, tasks) = ask_and_keep(&mut self.inner, ask, begins, sink);
        let Some(current) = &mut self.current else {
            kept.into_iter().for_each(|kept| self.past.early(kept));
            return answer;
        };
        current.tasks = tasks.or_else(|| current.tasks.take());
        current.answers.extend(kept);
        answer
    }
}
