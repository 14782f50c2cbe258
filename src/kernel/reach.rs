//! What a live host knows of the node around it, and how much of it may be entered.

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::namespace::{self, Handle, NamespaceError};
use super::needs;
use super::node::{NEEDS, Namespaces, Search};
use crate::ask::Frame;
use crate::source::node;
use crate::value::NetnsId;

/// To look at all processes costs 10 us for each.
const EVERY: Duration = Duration::from_secs(5);
/// Files that are open in one network namespace: itself, counters, sock_diag, packets, destroyed sockets, and twice its addresses.
const FILES: u64 = 7;
/// Files that are open besides, with some for each CPU.
const OTHERS: u64 = 512;
/// A bound where files have none.
const MOST: u64 = 4_096;

/// How to look into all from a network namespace that was entered.
const AS_HOST: &str = "nsenter -t 1 -n rstdoctor scan";

#[derive(Default)]
pub struct Reach {
    search: Search,
    found: Option<(Namespaces, Instant)>,
    /// Every namespace is to be looked into.
    whole: bool,
    /// The own namespace was entered: it is what is meant.
    entered: bool,
    /// What kept this process out of another namespace.
    refused: Option<String>,
    /// How many may be open at a time.
    most: usize,
    /// A window ends: what is there now is to be known.
    closing: bool,
}

impl Reach {
    /// Of one who looks into all, from the host's own network namespace. Who entered another one (`ip netns exec`, `nsenter -n`)
    /// means that.
    pub fn whole() -> Self {
        let entered = Handle::of_init().is_ok_and(|first| first != Handle::current());
        Self { whole: !entered, entered, most: if entered { 1 } else { most() }, ..Self::default() }
    }

    /// Looks again. What was found is to be [kept](Self::keep).
    pub fn look(&mut self) -> Namespaces {
        self.closing = false;
        self.search.look()
    }

    pub fn keep(&mut self, found: Namespaces) {
        self.found = Some((found, Instant::now()));
    }

    /// How many namespaces may be under observation.
    pub fn most(&self) -> usize {
        self.most
    }

    pub fn frame(&mut self, frame: Frame) {
        self.closing = matches!(frame, Frame::After { .. });
    }

    /// It is time to look whether all are still there.
    pub fn is_due(&self) -> bool {
        self.whole && (self.closing || self.found.as_ref().is_none_or(|(_, at)| at.elapsed() >= EVERY))
    }

    /// Whether another namespace can be entered. If one cannot for want of a privilege, none can.
    pub fn may_enter(&mut self, there: &Handle) -> bool {
        if self.refused.is_some() {
            return false;
        }
        match namespace::with_namespace(there, || ()) {
            Err(NamespaceError::Denied { .. } | NamespaceError::NoWayBack { .. }) => {
                self.refused = Some(needs::capability(NEEDS));
                false
            }
            // Of the others the questions say what is wrong.
            _ => true,
        }
    }

    /// The answer to [`What::Node`](crate::ask::What::Node).
    pub fn text(&mut self, observed: &dyn Fn(NetnsId) -> bool) -> String {
        if self.found.is_none() {
            let found = self.look();
            self.keep(found);
        }
        let Some((found, _)) = &self.found else { return String::new() };
        let mut lines = found.lines(observed);
        for line in &mut lines {
            if let node::Line::Hidden(hidden) = line {
                // Where others were entered, a process that stays hidden has more rights than root; no privilege helps.
                let entered = found.netns.keys().any(|id| *id != found.own && observed(*id));
                let looked = found.netns.keys().filter(|id| observed(**id)).count();
                let left_out = looked < found.netns.len() || hidden.containers > 0;
                let kept_out = hidden.processes > 0 && (left_out || !entered) && !rustix::process::geteuid().is_root();
                hidden.needs = match &self.refused {
                    Some(needs) => Some(needs.clone()),
                    None if self.entered => Some(AS_HOST.to_owned()),
                    None if self.whole && kept_out => Some(needs::capability(NEEDS)),
                    None if self.whole && looked >= self.most => {
                        Some("a higher limit of open files (ulimit -n)".to_owned())
                    }
                    None => None,
                };
            }
        }
        node::text(&lines)
    }
}

/// As many namespaces as there is room for open files. The limit of this process is raised as far as it may raise it.
fn most() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(u64::MAX).min(MOST * FILES + OTHERS);
    let current = limit.current.unwrap_or(u64::MAX);
    if current < wanted {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from((files.saturating_sub(OTHERS) / FILES).clamp(1, MOST)).unwrap_or(1)
}
