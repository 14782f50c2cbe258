//! A recording of another time or host.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;

use super::kind::sole;
use super::{Given, Held, Kind, Namespace, Opened, Unusable, plan};
use crate::capture;
use crate::observation::{Covers, Input, SourceStatus};
use crate::recording::{ReplayHost, is_recording};

/// Of a recording that is not a file of its own, and has to be held in memory.
const PIPED: u64 = 64 << 20;

pub const KIND: Kind = Kind { name: "a recording", begins: is_recording, open: held };

fn held(recordings: Vec<Held>, _: &Given) -> anyhow::Result<Opened> {
    let one = sole(recordings)?;
    match one.as_it_lies() {
        Some(path) => open(path),
        None => read(&one.name, one.input),
    }
}

pub fn open(path: &Path) -> anyhow::Result<Opened> {
    replay(&path.display().to_string(), ReplayHost::open(path)?)
}

/// The same of one that was packed, or comes by standard input.
fn read(name: &str, input: Box<dyn Read + Send>) -> anyhow::Result<Opened> {
    let mut bytes = Vec::new();
    input.take(PIPED + 1).read_to_end(&mut bytes).with_context(|| format!("{name}: cannot be read"))?;
    anyhow::ensure!(bytes.len() as u64 <= PIPED, "{name}: a recording of more than {PIPED} bytes has to be a file");
    replay(name, ReplayHost::read(&bytes).with_context(|| name.to_owned())?)
}

fn replay(name: &str, recording: ReplayHost) -> anyhow::Result<Opened> {
    let status = recording.status();
    of(recording, status).with_context(|| format!("{name}: no window was recorded"))
}

/// A recording of a host, and a capture of the other end of its connections, in either order; of anything else the files.
///
/// # Errors
/// They are others.
pub fn and_capture(files: Vec<(&'static Kind, Held)>) -> Result<(Held, Held), Vec<(&'static Kind, Held)>> {
    let [(a, first), (b, second)] = <[_; 2]>::try_from(files)?;
    match () {
        () if *a == KIND && *b == super::capture::KIND => Ok((first, second)),
        () if *a == super::capture::KIND && *b == KIND => Ok((second, first)),
        () => Err(vec![(a, first), (b, second)]),
    }
}

/// What both show.
pub fn with_other_end(recording: Held, there: Held, given: &Given) -> anyhow::Result<Opened> {
    let flows =
        capture::read_all(there.input, &[]).map_err(|problem| Unusable::new(&there.name, problem.to_string()))?;
    let mut opened = held(vec![recording], given)?;
    opened.plan.covers.other_end = Some(Arc::new(flows));
    Ok(opened)
}

/// The first window of a recording; `None` if there is none.
pub fn of(recording: ReplayHost, status: Option<SourceStatus>) -> Option<Opened> {
    let window = *recording.windows().first()?;
    Some(Opened {
        host: Box::new(recording),
        // The recorded frames decide what follows; only that there is an end matters.
        plan: plan(window.planned, true, Covers { input: Input::Recording, status, ..Covers::default() }),
        namespace: Namespace::default(),
        recorded: Some(window),
    })
}
