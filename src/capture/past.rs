//! What is kept of a connection that is no longer followed: enough to know its later packets again, and no more.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem;
use std::net::SocketAddr;

use super::flow::{Flow, Side};
use super::link::{ACK, SYN, Segment};

/// Connections of one generation, about 2 MB; there are two.
const GENERATION: usize = 57_344;

/// One connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Past {
    /// The first number of the initiator and the acceptor.
    bases: [u32; 2],
    number: u32,
    has_base: [bool; 2],
    /// The initiator is the lower one of the two ends.
    initiator_is_low: bool,
}

impl Past {
    fn of(flow: &Flow) -> Self {
        let bases = [Side::Initiator, Side::Acceptor].map(|side| flow.end(side).base);
        Self {
            bases: bases.map(Option::unwrap_or_default),
            number: u32::try_from(flow.number).unwrap_or(u32::MAX),
            has_base: bases.map(|base| base.is_some()),
            initiator_is_low: flow.initiator <= flow.acceptor,
        }
    }

    /// The connection goes on with this segment; `None` where that begins the next one between the same ends.
    pub fn resumed(self, segment: &Segment<'_>) -> Option<Flow> {
        let mut flow = Flow::new(self.number.into(), segment);
        if (flow.initiator <= flow.acceptor) != self.initiator_is_low {
            mem::swap(&mut flow.initiator, &mut flow.acceptor);
        }
        for (end, (base, has)) in flow.ends.iter_mut().zip(self.bases.into_iter().zip(self.has_base)) {
            end.base = has.then_some(base);
        }
        (flow.resumed, flow.odd) = (true, false);
        let begins = segment.has(SYN) && !segment.has(ACK) && flow.is_over_for(segment);
        (!begins).then_some(flow)
    }
}

/// Connections that ended or were let go: the latest by their ends, in bounded memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Pasts {
    young: HashMap<u64, Past>,
    old: HashMap<u64, Past>,
    /// Those of which nothing is kept any more: a later packet of one of them counts as a connection of its own.
    pub forgotten: u64,
}

/// The same for the same ends in every run.
fn hash(key: &(SocketAddr, SocketAddr)) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

impl Pasts {
    pub fn remember(&mut self, key: &(SocketAddr, SocketAddr), flow: &Flow) {
        if self.young.len() >= GENERATION {
            self.forgotten += self.old.len() as u64;
            mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(hash(key), Past::of(flow));
    }

    pub fn take(&mut self, key: &(SocketAddr, SocketAddr)) -> Option<Past> {
        if self.young.is_empty() && self.old.is_empty() {
            return None;
        }
        let hash = hash(key);
        self.young.remove(&hash).or_else(|| self.old.remove(&hash))
    }
}
