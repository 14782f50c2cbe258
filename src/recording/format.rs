//! What the writer and the reader of a recording share.
//!
//! A recording is one gzip member that holds one tar archive of plain files, in this order:
//! - `manifest.json`: a [`Manifest`];
//! - `frames/00003-poll/KEY`: the raw answer to the question with that [`crate::ask::Ask::key`] in frame 3. A large
//!   answer is cut into `KEY.000`, `KEY.001`, ..., between two messages or lines. A question asked again in the same
//!   frame is `KEY~1`, `KEY~2`, ...;
//! - `end.json`: an [`End`], the index. It comes last, so its absence tells of a recording that was cut off.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ask::Frame;
use crate::value::{Failure, FailureKind, Moment};

pub(super) const FORMAT_PREFIX: &str = "rstdoctor/recording/v";
pub(super) const FORMAT_VERSION: u32 = 1;
pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const END: &str = "end.json";
/// A part of an answer is closed once it has this many bytes.
pub(super) const PART: usize = 1 << 20;

/// What a recording says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// `rstdoctor/recording/v1`.
    pub format: String,
    pub tool: Tool,
    /// Addresses and names were replaced before anything was stored.
    pub redacted: bool,
    /// RFC 3339, UTC.
    pub started_at: String,
}

/// The program that made a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    pub name: String,
    pub version: String,
}

/// The index of a recording.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct End {
    pub frames: Vec<FrameRecord>,
    /// Number of entries in the archive, manifest and index included.
    pub entries: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FrameRecord {
    pub kind: FrameKind,
    /// When it was due and when the window was to end, since the start of the window.
    pub due_ns: u64,
    pub end_ns: u64,
    pub mono_ns: u64,
    pub wall_ns: u64,
    #[serde(default)]
    pub asleep_ns: u64,
    pub asks: Vec<AskRecord>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FrameKind {
    #[serde(rename = "survey")]
    Dump,
    Before,
    Poll,
    Tick,
    After,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AskRecord {
    pub key: String,
    /// How many entries hold the answer; 0 if it was empty.
    pub parts: u32,
    pub bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureRecord>,
}

/// The stored form of a [`Failure`], frozen apart from the type that the program works with.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FailureRecord {
    kind: KindRecord,
    reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    needs: Option<String>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KindRecord {
    Absent,
    Denied,
    Broken,
    NotCollected,
}

impl FrameKind {
    pub fn of(frame: Frame) -> Self {
        match frame {
            Frame::Dump => Self::Dump,
            Frame::Before => Self::Before,
            Frame::Poll { .. } => Self::Poll,
            Frame::Tick { .. } => Self::Tick,
            Frame::After { .. } => Self::After,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Dump => "survey",
            Self::Before => "before",
            Self::Poll => "poll",
            Self::Tick => "tick",
            Self::After => "after",
        }
    }
}

impl FrameRecord {
    pub fn new(frame: Frame, at: Moment) -> Self {
        let (due, end) = match frame {
            Frame::Dump | Frame::Before => (Duration::ZERO, Duration::ZERO),
            Frame::Poll { due, end } | Frame::Tick { due, end } => (due, end),
            Frame::After { end } => (end, end),
        };
        Self {
            kind: FrameKind::of(frame),
            due_ns: nanoseconds(due),
            end_ns: nanoseconds(end),
            mono_ns: nanoseconds(at.mono),
            wall_ns: nanoseconds(at.wall),
            asleep_ns: nanoseconds(at.asleep),
            asks: Vec::new(),
        }
    }

    pub fn moment(&self) -> Moment {
        Moment {
            mono: Duration::from_nanos(self.mono_ns),
            wall: Duration::from_nanos(self.wall_ns),
            asleep: Duration::from_nanos(self.asleep_ns),
        }
    }

    /// The entry of an answer in one piece; `repeat` counts earlier questions with that key in this frame.
    pub fn entry(&self, index: usize, key: &str, repeat: usize) -> String {
        let repeat = if repeat == 0 { String::new() } else { format!("~{repeat}") };
        format!("frames/{index:05}-{}/{key}{repeat}", self.kind.name())
    }
}

/// The entry of one piece of a large answer.
pub(super) fn part(entry: &str, part: u32) -> String {
    format!("{entry}.{part:03}")
}

/// 584 years fit.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl From<&Failure> for FailureRecord {
    fn from(failure: &Failure) -> Self {
        let kind = match failure.kind {
            FailureKind::Absent => KindRecord::Absent,
            FailureKind::Denied => KindRecord::Denied,
            FailureKind::Broken => KindRecord::Broken,
            FailureKind::NotCollected => KindRecord::NotCollected,
        };
        Self { kind, reason: failure.reason.clone(), needs: failure.needs.clone() }
    }
}

impl From<FailureRecord> for Failure {
    fn from(record: FailureRecord) -> Self {
        let kind = match record.kind {
            KindRecord::Absent => FailureKind::Absent,
            KindRecord::Denied => FailureKind::Denied,
            KindRecord::Broken => FailureKind::Broken,
            KindRecord::NotCollected => FailureKind::NotCollected,
        };
        Self { kind, reason: record.reason, needs: record.needs }
    }
}
