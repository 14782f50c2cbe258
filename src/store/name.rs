//! Names of the files of a store.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Recording,
    Index,
}

impl Kind {
    pub fn extension(self) -> &'static str {
        match self {
            Self::Recording => "rst",
            Self::Index => "idx",
        }
    }
}

/// A file of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub path: PathBuf,
    pub kind: Kind,
    pub number: u64,
    /// CLOCK_REALTIME, to the second.
    pub start: Duration,
}

/// `00000042-20261126T031200Z.rst`.
pub(super) fn name(kind: Kind, number: u64, start: Duration) -> String {
    let at = i64::try_from(start.as_secs()).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    let at = at.unwrap_or_default().strftime("%Y%m%dT%H%M%SZ");
    format!("{number:08}-{at}.{}", kind.extension())
}

fn parse(path: &Path) -> Option<Named> {
    let kind = [Kind::Recording, Kind::Index]
        .into_iter()
        .find(|kind| path.extension().is_some_and(|own| own == kind.extension()))?;
    let (number, start) = path.file_stem()?.to_str()?.split_once('-')?;
    let start = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", start).ok()?;
    let start = jiff::tz::TimeZone::UTC.to_timestamp(start).ok()?.as_second();
    let start = Duration::from_secs(u64::try_from(start).ok()?);
    Some(Named { path: path.to_owned(), kind, number: number.parse().ok()?, start })
}

/// All files of a store in the order in which they were begun. What has another name is none of its, and neither is what is no
/// file: to open a pipe waits for one who writes.
pub(super) fn files(directory: &Path) -> io::Result<Vec<Named>> {
    let mut files: Vec<Named> = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        files.extend(parse(&entry.path()).filter(|_| entry.file_type().is_ok_and(|kind| kind.is_file())));
    }
    files.sort_by_key(|file| (file.number, file.kind == Kind::Index));
    Ok(files)
}

/// The time that a file may be about: from its beginning to its latest write. A clock that was set back meanwhile turns it.
pub(super) fn span(file: &Named) -> io::Result<(Duration, Duration)> {
    let written = fs::metadata(&file.path)?.modified()?;
    let written = written.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok((file.start.min(written), written.max(file.start).saturating_add(Duration::from_secs(1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_it_is_and_when_it_began() {
        let start = Duration::from_secs(1_795_662_720);
        let file = name(Kind::Recording, 42, start);
        assert_eq!(file, "00000042-20261126T031200Z.rst");
        let named = parse(Path::new("/store").join(&file).as_path()).unwrap();
        assert_eq!((named.kind, named.number, named.start), (Kind::Recording, 42, start));
        for other in ["lock", "x.rst", "00000042-2026.idx", "00000042-20261126T031200Z.txt", "-20261126T031200Z.rst"] {
            assert!(parse(Path::new(other)).is_none(), "{other}");
        }
    }

    /// Whoever opened a pipe would wait for one who writes.
    #[test]
    fn what_is_no_file_is_none_of_a_store() {
        let directory = tempfile::tempdir().unwrap();
        let path = |number| directory.path().join(name(Kind::Index, number, Duration::from_secs(1_795_662_720)));
        rustix::fs::mknodat(rustix::fs::CWD, path(1), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        fs::create_dir(path(2)).unwrap();
        fs::write(path(3), "").unwrap();
        let found: Vec<u64> = files(directory.path()).unwrap().iter().map(|file| file.number).collect();
        assert_eq!(found, [3]);
    }
}
