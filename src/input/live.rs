//! The running kernel, in this or another network namespace.

use std::sync::Arc;

use super::{Live, Opened, plan};
use crate::kernel::LiveHost;
use crate::kernel::namespace::{Found, Handle};
use crate::observation::Covers;
use crate::value::Stop;

/// The namespace under observation, where it was asked for.
#[derive(Debug, Clone, Default)]
pub struct Namespace {
    found: Option<Found>,
}

impl Namespace {
    /// The name, process or path that was given still leads to it. If not, what is still seen of it lives as long as something
    /// is in it. True for our own.
    pub fn is_reachable(&self) -> bool {
        self.found.as_ref().is_none_or(Found::is_reachable)
    }
}

pub fn open(live: &Live, stop: &Stop) -> anyhow::Result<Opened> {
    let found = live.netns.as_deref().map(Found::of).transpose()?;
    let observed = match &found {
        Some(found) => {
            found.reach()?;
            (found.handle.clone(), found.name.clone())
        }
        None => (Handle::current(), None),
    };
    Ok(Opened {
        host: Box::new(LiveHost::observing(Arc::clone(stop), [observed])),
        plan: plan(live.duration, live.events, Covers::default()),
        namespace: Namespace { found },
        recorded: None,
    })
}
