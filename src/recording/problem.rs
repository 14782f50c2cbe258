//! What can be wrong with a recording.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::format::VERSION;

/// A recording that cannot be used: which one and why.
#[derive(Debug, thiserror::Error)]
#[error("{}{problem}", path.as_ref().map(|path| format!("{}: ", path.display())).unwrap_or_default())]
pub struct RecordingError {
    pub path: Option<PathBuf>,
    pub problem: RecordingProblem,
}

/// What is wrong with a recording.
#[derive(Debug, thiserror::Error)]
pub enum RecordingProblem {
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("is not a recording; `rstdoctor record -o FILE` makes one")]
    Foreign,
    #[error("is the index of a store, not a recording; `rstdoctor history --store DIRECTORY` reads it")]
    Index,
    #[error("has format {version} of a recording, this rstdoctor reads up to {VERSION}; use a newer one")]
    NewerFormat { version: u16 },
    #[error("is cut off {0}; copy it again, or record again")]
    Truncated(String),
    #[error("is damaged at {place}: {what}; copy it again, or record again")]
    Damaged { place: Place, what: String },
    #[error("{why} at {place}; a recording never holds this, so do not trust the file")]
    Unsafe { place: Place, why: String },
    #[error("holds more than {limit}; no recording is that large, so do not trust the file")]
    TooLarge { limit: String },
    #[error("goes on after its end, at byte {byte}; copy it again, or record again")]
    TrailingGarbage { byte: u64 },
}

impl RecordingProblem {
    /// What is wrong, without the advice for a recording, which can be made or copied again: of a file of a store.
    pub fn plain(&self) -> String {
        match self {
            Self::Foreign => "is no part of a store".to_owned(),
            Self::Truncated(place) => format!("is cut off {place}"),
            Self::Damaged { place, what } => format!("is damaged at {place}: {what}"),
            Self::TrailingGarbage { byte } => format!("goes on after its end, at byte {byte}"),
            Self::NewerFormat { version } => format!("is of a newer rstdoctor (format {version}), which reads it"),
            other => other.to_string(),
        }
    }

    pub(super) fn damaged(place: Place, what: impl Into<String>) -> Self {
        Self::Damaged { place, what: what.into() }
    }

    pub(super) fn unsafe_at(place: Place, why: impl Into<String>) -> Self {
        Self::Unsafe { place, why: why.into() }
    }
}

/// Where in a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Both count from 0; `None` for the head of the segment.
    pub segment: u32,
    pub frame: Option<u32>,
    /// Where in the file it begins.
    pub byte: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {}", self.segment)?;
        if let Some(frame) = self.frame {
            write!(f, ", frame {frame}")?;
        }
        write!(f, " (byte {})", self.byte)
    }
}
