//! A [`Host`](crate::ask::Host) backed by a recording, see `format`.
//!
//! A recording comes from someone else's machine and is not trusted: it is decompressed into memory under caps, nothing
//! is written to disk, and anything but a complete, well-formed recording is refused as a whole.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::ask::{Answer, Ask, Clock, Frame, Probe, What};
use crate::recording::format::{END, End, FORMAT_PREFIX, FORMAT_VERSION, FrameKind, MANIFEST, Manifest, part};
use crate::value::{Failure, FailureKind, Moment, NetnsId};

mod archive;

use archive::{Archive, Limits};

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
    Read(io::Error),
    #[error("is not a recording (no gzip data); `rstdoctor record -o FILE` makes one")]
    NotGzip,
    #[error("is not a recording (gzip data, but no tar archive inside); `rstdoctor record -o FILE` makes one")]
    NotTar,
    #[error("is not a recording: {0}; `rstdoctor record -o FILE` makes one")]
    Foreign(String),
    #[error("has format {format}, this version reads up to {FORMAT_PREFIX}{FORMAT_VERSION}; use a newer rstdoctor")]
    NewerFormat { format: String },
    #[error("is cut off {0}; copy it again, or record again")]
    Truncated(String),
    #[error("is damaged: {0}; copy it again, or record again")]
    Damaged(String),
    #[error("entry {entry:?} is refused: {why}; a recording never holds this, so do not trust the file")]
    Unsafe { entry: String, why: &'static str },
    #[error("entry {entry:?} is there twice; a recording never holds this, so do not trust the file")]
    Duplicate { entry: String },
    #[error("holds more than {limit}; no recording is that large, so do not trust the file")]
    TooLarge { limit: String },
    #[error("goes on after its end; copy it again, or record again")]
    TrailingGarbage,
}

const LIMITS: Limits = Limits { total: 1 << 30, entries: 200_000, entry: 64 << 20 };

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

/// Replays a recording. The recorded frames decide what follows, not the times that the caller asks for.
#[derive(Debug)]
pub struct ReplayHost {
    manifest: Manifest,
    windows: Vec<Window>,
    frames: Vec<Replay>,
    /// Index of the frame after the current one.
    next: usize,
    /// How often each key was asked for in the current frame.
    asked: HashMap<String, usize>,
}

#[derive(Debug)]
struct Replay {
    kind: FrameKind,
    at: Moment,
    due: Duration,
    answers: HashMap<String, Vec<Stored>>,
}

#[derive(Debug)]
struct Stored {
    parts: Vec<Vec<u8>>,
    failure: Option<Failure>,
}

impl ReplayHost {
    /// Reads the whole recording and checks it.
    ///
    /// # Errors
    /// See [`RecordingProblem`]; nothing of a recording that is not sound is used.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let located = |problem| RecordingError { path: Some(path.to_owned()), problem };
        let file = File::open(path).map_err(|error| located(RecordingProblem::Read(error)))?;
        load(BufReader::new(file), LIMITS).map_err(located)
    }

    /// As [`ReplayHost::open`], from any source of bytes.
    pub fn read(reader: impl BufRead) -> Result<Self, RecordingError> {
        load(reader, LIMITS).map_err(|problem| RecordingError { path: None, problem })
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The complete windows, in order. Empty if the recording holds no closing snapshot.
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    fn namespaces(&self, sink: &mut dyn FnMut(&[u8])) -> Answer {
        let link = self.frames.iter().find_map(|frame| frame.answers.get("link/proc/thread-self/ns/net"));
        let link = link.and_then(|stored| Some(String::from_utf8_lossy(stored.first()?.parts.first()?).into_owned()));
        let netns = link.and_then(|link| NetnsId::from_link(&link)).unwrap_or_default();
        sink(format!("{netns}\n").as_bytes());
        Answer { result: Ok(()), took: Duration::ZERO }
    }

    fn current(&self) -> Option<&Replay> {
        self.frames.get(self.next.checked_sub(1)?)
    }
}

impl Clock for ReplayHost {
    fn frame(&mut self, frame: Frame) -> Option<Moment> {
        let next = self.frames.get(self.next)?;
        if next.kind != FrameKind::of(frame) {
            return None;
        }
        let at = next.at;
        self.next += 1;
        self.asked.clear();
        Some(at)
    }

    fn due(&self, asked: Duration) -> Duration {
        self.current().map_or(asked, |frame| frame.due)
    }
}

impl Probe for ReplayHost {
    fn ask(&mut self, ask: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer {
        // The first recordings hold one namespace, and name it by the link that was read for it.
        if ask.what == What::Namespaces && !self.current().is_some_and(|frame| frame.answers.contains_key("namespaces"))
        {
            return self.namespaces(sink);
        }
        let key = ask.what.key();
        let repeat = self.asked.get(&key).copied().unwrap_or(0);
        let stored = self.current().and_then(|frame| frame.answers.get(&key)).map(Vec::as_slice).unwrap_or_default();
        // A later version may ask twice what was asked once when this was recorded. Of a stream nothing more came then.
        let nothing_more = ask.is_stream() && repeat >= stored.len();
        let result = match stored.get(repeat).or(stored.last()) {
            Some(stored) => {
                if !nothing_more {
                    stored.parts.iter().for_each(|part| sink(part));
                }
                stored.failure.clone().map_or(Ok(()), Err)
            }
            None => Err(Failure::new(FailureKind::NotCollected, format!("{key} is not in this recording"))),
        };
        self.asked.insert(key, repeat + 1);
        Answer { result, took: Duration::ZERO }
    }
}

type Result<T, E = RecordingProblem> = std::result::Result<T, E>;

fn load(reader: impl BufRead, limits: Limits) -> Result<ReplayHost> {
    let mut input = Archive::open(reader, limits)?;
    let mut entries = BTreeMap::new();
    let mut manifest = None;
    while let Some((name, size)) = input.header(entries.is_empty() && manifest.is_none())? {
        if manifest.is_some() && entries.contains_key(END) {
            return Err(RecordingProblem::Damaged(format!("entry {name:?} follows the index")));
        }
        if entries.len() >= limits.entries {
            return Err(RecordingProblem::TooLarge { limit: format!("{} entries", limits.entries) });
        }
        if manifest.is_none() {
            if name != MANIFEST {
                return Err(RecordingProblem::Foreign(format!("it starts with {name:?} and not with {MANIFEST}")));
            }
            manifest = Some(check_manifest(&input.body(&name, size)?)?);
        } else if name == MANIFEST || entries.contains_key(&name) {
            return Err(RecordingProblem::Duplicate { entry: name });
        } else {
            let body = input.body(&name, size)?;
            entries.insert(name, body);
        }
    }
    input.finish()?;
    let manifest = manifest.ok_or_else(|| RecordingProblem::Foreign(format!("it holds no {MANIFEST}")))?;
    assemble(manifest, entries)
}

fn check_manifest(bytes: &[u8]) -> Result<Manifest> {
    /// All that every version has in common.
    #[derive(serde::Deserialize)]
    struct Format {
        format: String,
    }
    let foreign = |what: String| RecordingProblem::Foreign(format!("{MANIFEST} {what}"));
    let Format { format } = serde_json::from_slice(bytes).map_err(|error| foreign(format!("is not ours: {error}")))?;
    match format.strip_prefix(FORMAT_PREFIX).and_then(|version| version.parse::<u32>().ok()) {
        Some(FORMAT_VERSION) => {}
        Some(version) if version > FORMAT_VERSION => return Err(RecordingProblem::NewerFormat { format }),
        _ => return Err(foreign(format!("has the format {format:?}"))),
    }
    serde_json::from_slice(bytes).map_err(|error| RecordingProblem::Damaged(format!("{MANIFEST}: {error}")))
}

/// Puts the entries where the index says. Each must be listed, and each listed one be there.
fn assemble(manifest: Manifest, mut entries: BTreeMap<String, Vec<u8>>) -> Result<ReplayHost> {
    let index = entries.remove(END).ok_or_else(|| RecordingProblem::Truncated(format!("before its {END}")))?;
    let index: End =
        serde_json::from_slice(&index).map_err(|error| RecordingProblem::Damaged(format!("{END}: {error}")))?;
    let found = entries.len() as u64 + 2;
    if found != index.entries {
        let listed = index.entries;
        return Err(RecordingProblem::Damaged(format!("{END} counts {listed} entries, but there are {found}")));
    }
    let windows = windows(&index);
    let mut frames = Vec::new();
    for (number, mut record) in index.frames.into_iter().enumerate() {
        let asks = std::mem::take(&mut record.asks);
        let mut answers: HashMap<String, Vec<Stored>> = HashMap::new();
        for ask in asks {
            let whole = record.entry(number, &ask.key, answers.get(&ask.key).map_or(0, Vec::len));
            let mut take = |name: String| {
                entries.remove(&name).ok_or_else(|| RecordingProblem::Damaged(format!("entry {name:?} is missing")))
            };
            let parts = match ask.parts {
                0 => Vec::new(),
                1 => vec![take(whole.clone())?],
                parts => (0..parts).map(|number| take(part(&whole, number))).collect::<Result<_>>()?,
            };
            let bytes = parts.iter().map(|part| part.len() as u64).sum::<u64>();
            if bytes != ask.bytes {
                return Err(RecordingProblem::Damaged(format!("{whole:?} has {bytes} bytes instead of {}", ask.bytes)));
            }
            let failure = ask.failure.map(Failure::from);
            answers.entry(ask.key).or_default().push(Stored { parts, failure });
        }
        let due = Duration::from_nanos(record.due_ns);
        frames.push(Replay { kind: record.kind, at: record.moment(), due, answers });
    }
    match entries.keys().next() {
        Some(name) => Err(RecordingProblem::Damaged(format!("entry {name:?} is not listed in {END}"))),
        None => Ok(ReplayHost { manifest, windows, frames, next: 0, asked: HashMap::new() }),
    }
}

fn windows(index: &End) -> Vec<Window> {
    let mut windows = Vec::new();
    let mut open: Option<(Moment, u32)> = None;
    for frame in &index.frames {
        match (frame.kind, &mut open) {
            (FrameKind::Before, _) => open = Some((frame.moment(), 0)),
            (FrameKind::Poll, Some((_, polls))) => *polls += 1,
            (FrameKind::After, Some((started, polls))) => {
                windows.push(Window {
                    started: *started,
                    length: frame.moment().mono.saturating_sub(started.mono),
                    planned: Duration::from_nanos(frame.end_ns),
                    polls: *polls,
                });
                open = None;
            }
            _ => {}
        }
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn packed(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (name, body) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_path(name).unwrap();
            header.set_size(body.len() as u64);
            header.set_cksum();
            tar.append(&header, *body).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap()
    }

    const OURS: &[u8] =
        br#"{"format":"rstdoctor/recording/v1","tool":{"name":"rstdoctor","version":"0"},"redacted":false,
        "started_at":"2026-01-01T00:00:00Z"}"#;

    fn small(bytes: &[u8]) -> RecordingProblem {
        load(bytes, Limits { total: 64 << 10, entries: 8, entry: 16 << 10 }).unwrap_err()
    }

    #[test]
    fn caps_hold_while_streaming() {
        let big = vec![0; 17 << 10];
        assert!(matches!(small(&packed(&[(MANIFEST, OURS), ("a", &big)])), RecordingProblem::TooLarge { .. }));
        let half = vec![0; 15 << 10];
        let many = [(MANIFEST, OURS), ("a", &half), ("b", &half), ("c", &half), ("d", &half), ("e", &half)];
        assert!(matches!(small(&packed(&many)), RecordingProblem::TooLarge { .. }));
        let names: Vec<String> = (0..20).map(|number| number.to_string()).collect();
        let mut entries: Vec<(&str, &[u8])> = vec![(MANIFEST, OURS)];
        entries.extend(names.iter().map(|name| (name.as_str(), &b""[..])));
        assert!(matches!(small(&packed(&entries)), RecordingProblem::TooLarge { .. }));
    }

    #[test]
    fn a_claimed_size_is_not_believed() {
        let mut header = tar::Header::new_ustar();
        header.set_path(MANIFEST).unwrap();
        header.set_size(60 << 20);
        header.set_cksum();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(header.as_bytes()).unwrap();
        let bytes = gzip.finish().unwrap();
        assert!(matches!(load(&bytes[..], LIMITS), Err(RecordingProblem::Truncated(_))));
    }
}
