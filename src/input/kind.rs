//! What a kind of file is that people hold.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Given, Opened, Unusable};

/// One of [`super::KINDS`].
pub struct Kind {
    /// In words that follow "is": `a recording`.
    pub name: &'static str,
    /// Whether a file that begins so is one. The first kind that says so has it.
    pub begins: fn(&[u8]) -> bool,
    /// The files are all of this kind, and at least one.
    pub open: fn(Vec<Held>, &Given) -> anyhow::Result<Opened>,
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// A file that was looked at, with all of it still to be read.
pub struct Held {
    /// As messages name it.
    pub name: String,
    pub input: Box<dyn Read + Send>,
    /// Where it lies, unless it is standard input.
    pub path: Option<PathBuf>,
    /// How it was packed.
    pub packed: Vec<&'static str>,
}

impl Held {
    /// The file that can be read at any place, and not only in one go.
    pub fn as_it_lies(&self) -> Option<&Path> {
        self.path.as_deref().filter(|_| self.packed.is_empty())
    }

    /// When it was last written.
    pub fn written(&self) -> Option<SystemTime> {
        self.path.as_ref()?.metadata().and_then(|file| file.modified()).ok()
    }
}

/// The only file, of a kind that is read by itself.
///
/// # Errors
/// There are more.
pub fn sole(mut files: Vec<Held>) -> anyhow::Result<Held> {
    match (files.pop(), files.first()) {
        (Some(one), None) => Ok(one),
        (further, _) => {
            let name = further.map_or_else(|| "--from".to_owned(), |further| further.name);
            Err(Unusable::new(&name, "is one too many: only texts, or two captures of both ends, are read together")
                .into())
        }
    }
}
