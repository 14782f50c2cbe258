//! What a frame holds once it is unpacked: when it was, and the answers. [`super`] describes the layout.

use std::ops::Range;
use std::time::Duration;

use super::format::ANSWERS_MOST;
use crate::ask::Frame;
use crate::value::{Failure, FailureKind, Moment};

/// When a frame was, and when it was to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    /// When it was due and when the window was to end, since the start of the window.
    pub due: Duration,
    pub end: Duration,
    pub at: Moment,
}

const TIMES: usize = 40;

impl Times {
    pub fn new(frame: Frame, at: Moment) -> Self {
        let (due, end) = match frame {
            Frame::Dump | Frame::Before => (Duration::ZERO, Duration::ZERO),
            Frame::Poll { due, end } | Frame::Tick { due, end } => (due, end),
            Frame::After { end } => (end, end),
        };
        Self { due, end, at }
    }

    pub fn encode(&self) -> [u8; TIMES] {
        let mut out = [0; TIMES];
        let times = [self.due, self.end, self.at.mono, self.at.wall, self.at.asleep];
        for (to, time) in out.chunks_exact_mut(8).zip(times) {
            // 584 years fit.
            to.copy_from_slice(&u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).to_le_bytes());
        }
        out
    }

    fn decode(bytes: &[u8; TIMES]) -> Self {
        let mut times = bytes.chunks_exact(8).map(|time| time.try_into().map_or(0, u64::from_le_bytes));
        let mut next = || Duration::from_nanos(times.next().unwrap_or(0));
        let (due, end) = (next(), next());
        Self { due, end, at: Moment { mono: next(), wall: next(), asleep: next() } }
    }
}

/// One answer within the bytes of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    /// Where the parts lie, each behind its length.
    parts: Range<usize>,
    pub failure: Option<Failure>,
}

impl Stored {
    pub fn parts<'a>(&self, frame: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = Bytes(frame.get(self.parts.clone()).unwrap_or_default());
        std::iter::from_fn(move || rest.block().filter(|part| !part.is_empty()))
    }
}

/// The questions of a frame by key, each with its answer.
pub(super) type Answers<'a> = Vec<(&'a str, Stored)>;

/// Takes a frame apart: its times, and each answer with its key, in the order asked.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn decode(frame: &[u8]) -> Result<(Times, Answers<'_>), &'static str> {
    let (times, rest) = frame.split_first_chunk().ok_or("a frame without times")?;
    let (mut rest, mut answers) = (Bytes(rest), Vec::new());
    while !rest.0.is_empty() {
        if answers.len() == ANSWERS_MOST {
            return Err("more answers than any host gives");
        }
        answers.push(rest.answer(frame.len())?);
    }
    Ok((Times::decode(times), answers))
}

const CUT: &str = "an answer that ends before its length says";

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// Bytes behind their length, u32.
    fn block(&mut self) -> Option<&'a [u8]> {
        let length = u32::from_le_bytes(self.take(4)?.try_into().ok()?);
        self.take(usize::try_from(length).ok()?)
    }

    /// Text behind its length, u16.
    fn text(&mut self) -> Result<&'a str, &'static str> {
        let length = self.take(2).and_then(|length| length.try_into().ok()).ok_or(CUT)?;
        let text = self.take(usize::from(u16::from_le_bytes(length))).ok_or(CUT)?;
        std::str::from_utf8(text).map_err(|_| "text that is not UTF-8")
    }

    fn answer(&mut self, whole: usize) -> Result<(&'a str, Stored), &'static str> {
        let key = self.text()?;
        if !is_key(key) {
            return Err("an answer to a question that is never asked");
        }
        let start = whole - self.0.len();
        while !self.block().ok_or(CUT)?.is_empty() {}
        let parts = start..whole - self.0.len();
        let kind = match self.take(1).ok_or(CUT)? {
            [0] => return Ok((key, Stored { parts, failure: None })),
            [1] => FailureKind::Absent,
            [2] => FailureKind::Denied,
            [3] => FailureKind::Broken,
            [4] => FailureKind::NotCollected,
            _ => return Err("a failure of an unknown kind"),
        };
        let (reason, needs) = (self.text()?.to_owned(), self.text()?);
        let needs = Some(needs).filter(|needs| !needs.is_empty()).map(str::to_owned);
        Ok((key, Stored { parts, failure: Some(Failure { kind, reason, needs }) }))
    }
}

/// The part of a key behind its scope.
pub(super) fn what(key: &str) -> Option<&str> {
    if let Some(what) = key.strip_prefix("host/") {
        return Some(what);
    }
    let (inode, what) = key.strip_prefix("ns/")?.split_once('/')?;
    inode.parse::<u64>().ok().filter(|number| number.to_string() == inode).map(|_| what)
}

/// What [`crate::ask::Ask::key`] may give: segments of a path, none of which leads upwards or hides.
pub(super) fn is_key(key: &str) -> bool {
    const LONGEST: usize = 255;
    const NAMES: [&str; 10] = [
        "reset_events",
        "reset_packets",
        "destroyed_sockets",
        "sock_diag/listeners",
        "sock_diag/sockets",
        "namespaces",
        "node",
        "socket_owners",
        "tasks",
        "entry",
    ];
    const FILES: &str = "file/proc/";
    let Some(what) = what(key).filter(|_| key.len() <= LONGEST) else { return false };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b':' | b'@' | b'+');
    let segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(plain);
    NAMES.contains(&what) || what.starts_with(FILES) && what.split('/').all(segment)
}

/// A text behind its length; cut where 64 KiB are full.
pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out.extend_from_slice(&(end as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes().get(..end).unwrap_or_default());
}

/// What stands behind the parts of an answer.
pub(super) fn outcome(failure: Option<&Failure>) -> Vec<u8> {
    // A part without bytes ends them.
    let mut out = vec![0; 4];
    let Some(failure) = failure else {
        out.push(0);
        return out;
    };
    out.push(match failure.kind {
        FailureKind::Absent => 1,
        FailureKind::Denied => 2,
        FailureKind::Broken => 3,
        FailureKind::NotCollected => 4,
    });
    text(&mut out, &failure.reason);
    text(&mut out, failure.needs.as_deref().unwrap_or_default());
    out
}
