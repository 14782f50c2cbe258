//! A recording of another time or host.

use std::path::Path;

use anyhow::Context;

use super::{Namespace, Opened, plan};
use crate::observation::{Covers, Input};
use crate::recording::ReplayHost;

pub fn open(path: &Path) -> anyhow::Result<Opened> {
    let recording = ReplayHost::open(path)?;
    let window = *recording.windows().first().with_context(|| format!("{}: no window was recorded", path.display()))?;
    let status = recording.status();
    Ok(Opened {
        host: Box::new(recording),
        // The recorded frames decide what follows; only that there is an end matters.
        plan: plan(window.planned, true, Covers { input: Input::Recording, status }),
        namespace: Namespace::default(),
        recorded: Some(window),
    })
}
