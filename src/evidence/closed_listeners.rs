//! Listeners that came and went within the window, and the processes that ended with them.

use std::time::Duration;

use crate::evidence::Evidence;
use crate::source::reset_events::{ListenerClosed, Task};

impl<'a> Evidence<'a> {
    /// Listeners of this port that were closed in the window, in order of time.
    pub fn closed_listeners(&self, port: u16) -> impl Iterator<Item = &'a ListenerClosed> + use<'a> {
        let here = self.after().netns;
        let closed = self.view.host.reset_events.value().map_or(&[][..], |account| &account.listeners_closed);
        closed
            .iter()
            .filter(move |closed| closed.local.port() == port && closed.netns.is_none_or(|netns| netns == here))
    }

    /// Processes that ended in the window and closed a listener of this port by that, each once, in order of time.
    pub fn ended_listeners(&self, port: u16) -> Vec<(&'a Task, Duration)> {
        let Some(account) = self.view.host.reset_events.value() else { return Vec::new() };
        let mut ended: Vec<(&Task, Duration)> = Vec::new();
        for closed in self.closed_listeners(port) {
            let Some(task) = closed.task.as_ref().filter(|task| account.ended.contains(&task.pid)) else { continue };
            if ended.iter().all(|(known, _)| known.pid != task.pid) {
                ended.push((task, closed.at));
            }
        }
        ended
    }

    /// In the window a listener of this port appeared and one went away: nobody can say that nothing listens there.
    pub fn comes_and_goes(&self, port: u16) -> bool {
        let traces = || self.view.netns.listener_traces.values().filter(|trace| trace.last.port == port);
        let closed = self.closed_listeners(port).count();
        let (came, went) = (traces().any(|trace| !trace.in_before), traces().any(|trace| !trace.in_after));
        came && (went || closed > 0) || closed > 1 && self.ended_listeners(port).len() > 1
    }
}
