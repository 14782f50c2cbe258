//! A [`Host`](crate::ask::Host) backed by a recording.
//!
//! It is read twice: once to check all of it, so that nothing of an unsound recording is ever judged, and once to replay it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use super::contents::{Contents, Window};
use super::format::{FrameKind, Manifest};
use super::frame::{Stored, Times, decode, what};
use super::problem::{RecordingError, RecordingProblem};
use super::reader::{Cut, Reader};
use crate::ask::{Answer, Ask, Clock, Frame, Probe, What};
use crate::observation::SourceStatus;
use crate::value::{Failure, FailureKind, Moment, words};

type Result<T, E = RecordingProblem> = std::result::Result<T, E>;

/// Of a recording that comes through a pipe and has to be held in memory.
const PIPED: u64 = 64 << 20;

trait Input: Read + Seek + Send {}
impl<T: Read + Seek + Send> Input for T {}

/// Replays a recording. The recorded frames decide what follows, not the times that the caller asks for.
///
/// One that is cut off is replayed as far as it can be judged: the last tick with counters closes the window.
pub struct ReplayHost {
    manifest: Manifest,
    contents: Contents,
    reader: Reader<Box<dyn Input>>,
    /// Frames that were replayed.
    replayed: u64,
    current: Current,
    /// The latest text of files that are not read in every tick, for the tick that closes a recording that was cut off.
    settings: HashMap<String, Setting>,
}

struct Setting {
    parts: Vec<Vec<u8>>,
    failure: Option<Failure>,
}

/// The frame that is open.
#[derive(Default)]
struct Current {
    bytes: Vec<u8>,
    due: Option<Duration>,
    answers: HashMap<String, Vec<Stored>>,
    /// How often each key was asked for.
    asked: HashMap<String, usize>,
}

impl ReplayHost {
    /// Reads the whole recording and checks it.
    ///
    /// # Errors
    /// See [`RecordingProblem`]; nothing of a recording that is not sound is used.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let open = || {
            let file = File::open(path)?;
            match file.metadata()?.is_file() {
                true => Self::load(Box::new(BufReader::new(file))),
                false => {
                    let mut bytes = Vec::new();
                    file.take(PIPED + 1).read_to_end(&mut bytes)?;
                    match bytes.len() as u64 > PIPED {
                        true => Err(RecordingProblem::TooLarge { limit: format!("{PIPED} bytes and is no file") }),
                        false => Self::load(Box::new(Cursor::new(bytes))),
                    }
                }
            }
        };
        open().map_err(|problem| RecordingError { path: Some(path.to_owned()), problem })
    }

    /// As [`ReplayHost::open`], of bytes in memory.
    ///
    /// # Errors
    /// As there.
    pub fn read(bytes: &[u8]) -> Result<Self, RecordingError> {
        Self::load(Box::new(Cursor::new(bytes.to_vec()))).map_err(|problem| RecordingError { path: None, problem })
    }

    fn load(mut input: Box<dyn Input>) -> Result<Self> {
        let (_, contents) = Contents::of(&mut input)?;
        input.seek(SeekFrom::Start(0))?;
        let (reader, manifest) = Reader::open(input)?;
        Ok(Self { manifest, contents, reader, replayed: 0, current: Current::default(), settings: HashMap::new() })
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The windows that can be judged, in order.
    pub fn windows(&self) -> &[Window] {
        &self.contents.windows
    }

    /// What is missing, of a recording that was cut off.
    pub fn cut(&self) -> Option<Cut> {
        self.contents.cut
    }

    /// The same as the state of a source, for the diagnosis of the first window.
    pub fn status(&self) -> Option<SourceStatus> {
        let (cut, window) = (self.cut()?, self.windows().first()?);
        let judged = words::seconds(window.length);
        let reason = format!("the recording is cut off {cut}; what is judged are its first {judged}");
        let failure = Failure::new(FailureKind::Broken, reason).needs("the whole file");
        Some(SourceStatus {
            name: "recording",
            failure: Some(failure),
            partial: true,
            note: None,
            took: Duration::ZERO,
        })
    }

    /// As what the next frame is replayed.
    fn upcoming(&mut self) -> Result<Option<FrameKind>> {
        let kind = loop {
            if self.replayed >= self.contents.frames {
                return Ok(None);
            }
            match self.reader.head()? {
                // It says nothing new to one who has read all before.
                Some(FrameKind::Opening) => {
                    self.reader.body(&mut Vec::new())?;
                    self.replayed += 1;
                }
                Some(kind) => break kind,
                None => return Ok(None),
            }
        };
        let closes = kind == FrameKind::Tick && self.contents.closes(self.replayed + 1);
        Ok(Some(if closes { FrameKind::After } else { kind }))
    }

    /// What is known of another frame.
    fn elsewhere(&self, ask: &Ask, key: &str) -> Option<(Vec<Vec<u8>>, Option<Failure>)> {
        if ask.what == What::Namespaces {
            return Some((vec![self.contents.namespaces.clone()?], None));
        }
        let setting = self.settings.get(key).filter(|_| self.contents.closes(self.replayed))?;
        Some((setting.parts.clone(), setting.failure.clone()))
    }

    fn remember(&mut self, key: &str, stored: &Stored, frame: &[u8]) {
        /// Many times what is ever asked for.
        const MOST: usize = 256;
        const LONGEST: usize = 64 << 10;
        let length: usize = stored.parts(frame).map(<[u8]>::len).sum();
        let known = self.settings.len() < MOST || self.settings.contains_key(key);
        if self.contents.cut.is_some() && is_setting(key) && known && length <= LONGEST {
            let parts = stored.parts(frame).map(<[u8]>::to_vec).collect();
            self.settings.insert(key.to_owned(), Setting { parts, failure: stored.failure.clone() });
        }
    }

    /// `None` as well if the file is no longer what was checked.
    fn advance(&mut self) -> Option<Times> {
        let mut bytes = std::mem::take(&mut self.current.bytes);
        self.current = Current::default();
        let whole = self.reader.body(&mut bytes).is_ok_and(|whole| whole);
        let (times, stored) = decode(&bytes).ok().filter(|_| whole)?;
        for (key, stored) in stored {
            self.remember(key, &stored, &bytes);
            self.current.answers.entry(key.to_owned()).or_default().push(stored);
        }
        self.replayed += 1;
        self.current.due = Some(times.due);
        self.current.bytes = bytes;
        Some(times)
    }
}

/// Files that say how a host is, rather than what happened: all but counters and those of a process.
fn is_setting(key: &str) -> bool {
    let below = what(key).and_then(|what| what.strip_prefix("file/proc/"));
    below.is_some_and(|path| !path.starts_with("net/") && !path.starts_with(|first: char| first.is_ascii_digit()))
}

impl Clock for ReplayHost {
    fn frame(&mut self, frame: Frame) -> Option<Moment> {
        let kind = self.upcoming().ok()??;
        if kind != FrameKind::of(frame) {
            return None;
        }
        self.advance().map(|times| times.at)
    }

    fn due(&self, asked: Duration) -> Duration {
        self.current.due.unwrap_or(asked)
    }
}

impl Probe for ReplayHost {
    fn ask(&mut self, ask: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer {
        let key = ask.key();
        let Current { bytes, answers, asked, .. } = &self.current;
        let repeat = asked.get(&key).copied().unwrap_or(0);
        let stored = answers.get(&key).map(Vec::as_slice).unwrap_or_default();
        // A later version may ask twice what was asked once when this was recorded. Of a stream nothing more came then.
        let nothing_more = ask.is_stream() && repeat >= stored.len();
        let result = match stored.get(repeat).or(stored.last()) {
            Some(stored) => {
                if !nothing_more {
                    stored.parts(bytes).for_each(&mut *sink);
                }
                stored.failure.clone().map_or(Ok(()), Err)
            }
            None => match self.elsewhere(ask, &key) {
                Some((parts, failure)) => {
                    parts.iter().for_each(|part| sink(part));
                    failure.map_or(Ok(()), Err)
                }
                None => Err(Failure::new(FailureKind::NotCollected, format!("{key} is not in this recording"))),
            },
        };
        *self.current.asked.entry(key).or_default() += 1;
        Answer { result, took: Duration::ZERO }
    }
}
