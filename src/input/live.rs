//! The running kernel, in this or another network namespace.

use std::sync::Arc;

use anyhow::Context;

use super::{Live, Netns, Opened, plan};
use crate::kernel::LiveHost;
use crate::kernel::namespace::{NamedNetns, NamespaceError};
use crate::kernel::{needs, node};
use crate::observation::Covers;
use crate::value::Stop;

/// The namespace under observation, where it was asked for.
#[derive(Debug, Clone, Default)]
pub struct Namespace {
    found: Option<NamedNetns>,
}

impl Namespace {
    /// The name, process or path that was given still leads to it. If not, what is still seen of it lives as long as something
    /// is in it. True for our own.
    pub fn is_reachable(&self) -> bool {
        self.found.as_ref().is_none_or(NamedNetns::is_reachable)
    }

    /// What is to be said once nothing leads to it.
    pub const GONE: &str =
        "the network namespace is gone: what is still seen of it lives as long as something is in it";
}

pub fn open(live: &Live, stop: &Stop) -> anyhow::Result<Opened> {
    let (mut host, found) = match &live.netns {
        Netns::All => (LiveHost::of_node(Arc::clone(stop)), None),
        Netns::Own => (LiveHost::new(Arc::clone(stop)), None),
        Netns::Named(spec) => {
            let found = named(spec)?;
            found.reach()?;
            (LiveHost::observing(Arc::clone(stop), [(found.handle.clone(), found.name.clone())]), Some(found))
        }
    };
    if live.unattended {
        host.spare_memory();
    }
    Ok(Opened {
        host: Box::new(host),
        plan: plan(live.duration, live.events, Covers::default()),
        namespace: Namespace { found },
        recorded: None,
    })
}

/// By what [`NamedNetns::of`] takes or, where nothing is called so, by the container or pod in it.
fn named(spec: &str) -> anyhow::Result<NamedNetns> {
    let absent = match NamedNetns::of(spec) {
        Err(absent @ NamespaceError::Absent { .. }) if !spec.starts_with(['/', '.']) => absent,
        found => return Ok(found?),
    };
    let around = node::Search::default().look();
    let known = around.node();
    let found = known.find(spec);
    match &found[..] {
        [] => {
            let hidden = known.hidden.processes > 0;
            let needs =
                if hidden { ", and those of containers that this user may not look into are not known" } else { "" };
            anyhow::bail!("{absent}; no container or pod is called so either{needs}")
        }
        [id] => {
            let spot = around.netns.get(id).and_then(|spot| Some((spot.open()?, spot.told.pid?)));
            let (handle, pid) = spot.with_context(|| {
                format!("the network namespace of {spec:?} cannot be opened: needs {}", needs::capability(node::NEEDS))
            })?;
            Ok(NamedNetns::of_container(handle, pid))
        }
        several => {
            let places: Vec<String> = several
                .iter()
                .filter_map(|id| Some(format!("{} (pid {})", known.location(*id), around.netns.get(id)?.told.pid?)))
                .collect();
            anyhow::bail!("--netns: {spec:?} is the name of several: {}; give the pid", places.join(", "))
        }
    }
}
