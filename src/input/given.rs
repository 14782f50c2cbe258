//! What people hold: a file, or standard input, told by its content.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::{Opened, capture, recording, sosreport, unpack};

/// Evidence from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Given {
    /// Files; `-` is standard input.
    pub what: Vec<PathBuf>,
    /// Addresses of the host on which a capture was made, where they are given.
    pub local: Vec<IpAddr>,
}

/// A file that tells nothing that is known here.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {why}")]
pub struct Unusable {
    pub name: String,
    pub why: String,
}

impl Unusable {
    pub fn new(name: &str, why: impl Into<String>) -> Self {
        Self { name: name.to_owned(), why: why.into() }
    }
}

pub fn open(given: &Given) -> anyhow::Result<Opened> {
    let local = |name: &str, kind: &str| {
        Err(Unusable::new(name, format!("is {kind}, and --local is about captures: leave it out")).into())
    };
    if let Some(path) = given.what.iter().find(|path| path.is_dir()) {
        if !given.local.is_empty() {
            return local(&path.display().to_string(), "a directory");
        }
        return directory(path, given.what.len() == 1);
    }
    let files: Vec<_> = given.what.iter().map(|path| unpack::held(path)).collect::<Result<_, _>>()?;
    let files = match recording::and_capture(files) {
        Ok((recording, _)) if !given.local.is_empty() => {
            let why = "is a recording, which knows its host, and the capture is the other end's: leave --local out";
            return Err(Unusable::new(&recording.name, why).into());
        }
        Ok((recording, capture)) => return recording::with_other_end(recording, capture, given),
        Err(files) => files,
    };
    let Some((kind, _)) = files.first() else { return Err(Unusable::new("--from", "names nothing").into()) };
    let other = files.iter().find(|(other, _)| other != kind);
    if let Some((other, held)) = other {
        let why = format!("is {}, and the first {}: only files of one kind are read together", other.name, kind.name);
        return Err(Unusable::new(&held.name, why).into());
    }
    if let Some((_, held)) = files.first().filter(|_| !given.local.is_empty() && **kind != capture::KIND) {
        return local(&held.name, kind.name);
    }
    (kind.open)(files.into_iter().map(|(_, held)| held).collect(), given)
}

/// A sosreport that was unpacked. A store is read with the time that is wanted of it, [`super::Stored`].
fn directory(path: &Path, alone: bool) -> anyhow::Result<Opened> {
    let name = path.display().to_string();
    match sosreport::is_report(path) {
        true if alone => sosreport::directory(path),
        true => Err(Unusable::new(&name, "is a sosreport, and read by itself only").into()),
        false => Err(Unusable::new(&name, "is a directory, and no sosreport").into()),
    }
}
