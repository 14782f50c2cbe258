//! What people hold: a file, or standard input, told by its content.

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::unpack::{Content, Source};
use super::{Opened, capture, recording, sosreport, text};

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
    let [path, further @ ..] = &given.what[..] else { return Err(Unusable::new("--from", "names nothing").into()) };
    let name = name_of(path);
    if path.is_dir() {
        return directory(&name, path, further);
    }
    let source = Source::open(&name, input(path)?)?;
    match source.content {
        Content::Text => texts(&name, source, path, further),
        Content::Capture if further.len() == 1 => {
            let [second] = further else { return Err(Unusable::new(&name, "is one of two").into()) };
            let other_name = name_of(second);
            let other = Source::open(&other_name, input(second)?)?;
            match other.content {
                Content::Capture => capture::both([&name, &other_name], [source.input, other.input], &given.local),
                _ => Err(Unusable::new(&other_name, "is no capture: the other end is read from one").into()),
            }
        }
        _ if !further.is_empty() => {
            let why = "only texts of one host, or two captures of both ends, are read together";
            Err(Unusable::new(&name, why).into())
        }
        Content::Capture => capture::open(&name, source.input, &given.local),
        Content::Archive => sosreport::archive(&name, source.input),
        Content::Recording if source.packed.is_empty() && path != Path::new("-") => recording::open(path),
        Content::Recording => recording::read(&name, source.input),
        Content::Nothing => Err(Unusable::new(&name, "is empty").into()),
        Content::Other(what) => Err(Unusable::new(&name, what).into()),
    }
}

/// A sosreport that was unpacked. A store is read with the time that is wanted of it, [`super::Stored`].
fn directory(name: &str, path: &Path, further: &[PathBuf]) -> anyhow::Result<Opened> {
    match sosreport::is_report(path) {
        true if further.is_empty() => sosreport::directory(path),
        true => Err(Unusable::new(name, "is a sosreport, and read by itself only").into()),
        false => Err(Unusable::new(name, "is a directory, and no sosreport").into()),
    }
}

/// Texts one after the other: counters that stand in two of them tell what happened between.
fn texts(name: &str, first: Source, path: &Path, further: &[PathBuf]) -> anyhow::Result<Opened> {
    let mut texts = vec![(name.to_owned(), first.input)];
    for path in further {
        let name = name_of(path);
        let next = Source::open(&name, self::input(path)?)?;
        if next.content != Content::Text {
            return Err(Unusable::new(&name, "is no text, and only texts are read together").into());
        }
        texts.push((name, next.input));
    }
    let written = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
    let between = match further {
        [last] => written(last).zip(written(path)).and_then(|(last, first)| last.duration_since(first).ok()),
        _ => None,
    };
    text::open(texts, between)
}

/// As messages name it.
fn name_of(path: &Path) -> String {
    if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() }
}

fn input(path: &Path) -> anyhow::Result<Box<dyn Read + Send>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin()));
    }
    let cannot = || format!("{}: cannot be read", path.display());
    Ok(Box::new(File::open(path).with_context(cannot)?))
}
