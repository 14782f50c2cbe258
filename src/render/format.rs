//! What a format of a diagnosis is.

use std::fmt;

use super::Options;
use crate::diagnosis::Diagnosis;

/// One of [`super::FORMATS`], by which `scan --format` prints.
pub struct Format {
    pub name: &'static str,
    /// As the list of possible values says it.
    pub help: &'static str,
    /// Read by people in a terminal, which may not be able to show every character.
    pub for_people: bool,
    pub print: fn(&Diagnosis, &Options) -> anyhow::Result<String>,
    /// Its reader takes exit statuses of its own, and no message but on standard output.
    pub plugin: Option<Plugin>,
}

/// What a monitoring plugin is asked for beside its line.
pub struct Plugin {
    pub status: fn(&Diagnosis) -> u8,
    /// The line and the status when nothing could be looked at.
    pub failed: fn(&str) -> (String, u8),
}

impl PartialEq for Format {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Format {}

impl fmt::Debug for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
