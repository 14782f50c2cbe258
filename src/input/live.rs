//! The running kernel, in this or another network namespace.

use std::sync::Arc;

use super::{Live, Opened, plan};
use crate::kernel::LiveHost;
use crate::kernel::namespace::{self, Entered};
use crate::observation::Covers;
use crate::value::Stop;

/// The namespace under observation, where it was asked for.
#[derive(Debug, Clone, Default)]
pub struct Namespace {
    entered: Option<Entered>,
}

impl Namespace {
    /// The name, process or path that was given still leads to it. If not, what is still seen of it lives as long as something
    /// is in it. True for our own.
    pub fn is_reachable(&self) -> bool {
        self.entered.as_ref().is_none_or(Entered::is_reachable)
    }
}

pub fn open(live: &Live, stop: &Stop) -> anyhow::Result<Opened> {
    let entered = live.netns.as_deref().map(namespace::enter).transpose()?;
    let name = entered.as_ref().and_then(|entered| entered.name.clone());
    Ok(Opened {
        host: Box::new(LiveHost::new(Arc::clone(stop)).named(name)),
        plan: plan(live.duration, live.events, Covers::default()),
        namespace: Namespace { entered },
        recorded: None,
    })
}
