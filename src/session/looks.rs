//! What accumulates over the looks at the listeners between two snapshots.

use std::collections::BTreeMap;

use crate::observation::ListenerTrace;
use crate::source::listeners::Listener;

/// Listeners of one window that are followed, twice as many as a look can see: a bound for what a recording can make us hold.
const FOLLOWED: usize = 131_072;

/// The listeners of one window, by cookie.
#[derive(Default)]
pub(super) struct Looks {
    traces: BTreeMap<u64, ListenerTrace>,
    looks: u32,
}

impl Looks {
    /// Begins a window with the listeners as they were seen last.
    pub fn from(listeners: Option<&Vec<Listener>>) -> Self {
        let mut looks = Self::default();
        if let Some(listeners) = listeners {
            looks.look(listeners);
        }
        looks
    }

    pub fn look(&mut self, listeners: &[Listener]) {
        let look = self.looks;
        self.looks += 1;
        for listener in listeners {
            if self.traces.len() >= FOLLOWED && !self.traces.contains_key(&listener.cookie) {
                continue;
            }
            let full = u32::from(listener.is_full());
            self.traces
                .entry(listener.cookie)
                .and_modify(|trace| {
                    trace.samples += 1;
                    trace.full_samples += full;
                    trace.max_recv_q = trace.max_recv_q.max(listener.recv_q);
                    trace.drained += u32::from(listener.recv_q < trace.last.recv_q);
                    trace.last_sample = look;
                    trace.last = listener.clone();
                })
                .or_insert_with(|| ListenerTrace {
                    last: listener.clone(),
                    first: listener.clone(),
                    samples: 1,
                    full_samples: full,
                    max_recv_q: listener.recv_q,
                    drained: 0,
                    in_before: look == 0,
                    in_after: false,
                    last_sample: look,
                });
        }
    }

    /// All listeners were there in each look, and nothing waited in any.
    pub fn is_still(&self) -> bool {
        let all = |trace: &ListenerTrace| trace.in_before && trace.max_recv_q == 0 && trace.samples == self.looks;
        self.traces.values().all(all)
    }

    /// Every listener that was seen.
    pub fn seen(&self) -> impl Iterator<Item = &Listener> {
        self.traces.values().map(|trace| &trace.last)
    }

    /// The traces.
    pub fn close(mut self) -> BTreeMap<u64, ListenerTrace> {
        for trace in self.traces.values_mut() {
            trace.in_after = trace.last_sample + 1 == self.looks;
        }
        self.traces
    }
}
