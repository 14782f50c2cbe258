//! What a process left behind by ending, told apart from what it closed while it lived: where no event names who closed, the time
//! tells, because a process that ends closes all that it has in one moment.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::attribution::Ended;
use crate::evidence::Evidence;
use crate::reset::End;
use crate::source::destroyed_sockets::DestroyedSocket;

/// An exit closes thousands of connections in less, and the kernel tells of each from a work queue (sock_diag_broadcast_destroy).
const MOMENT: Duration = Duration::from_millis(100);

/// What the connections of a program that ended tell of its end.
#[derive(Debug, Clone)]
pub struct AtExit {
    /// Connections that its end closed with unread data, at most.
    pub unread: u64,
    /// When it ended, CLOCK_BOOTTIME, if it left any; late by up to the time between two drains.
    moment: Option<RangeInclusive<Duration>>,
}

impl AtExit {
    /// Its end closed this connection, in all likelihood.
    pub fn closed(&self, ended: &Ended<'_>) -> bool {
        self.moment.as_ref().is_some_and(|moment| moment.contains(&ended.socket.at))
    }
}

impl<'a> Evidence<'a> {
    /// What a program that listened on these ports left unread by ending. `None` where not every connection that was destroyed is
    /// known: then it may be anything.
    pub fn at_exit(&self, ports: &[u16]) -> Option<AtExit> {
        let told = self.view.netns.endings.value()?;
        if told.dropped > 0 || told.gaps > 0 || told.ended_early.is_some() {
            return None;
        }
        let here = |socket: &DestroyedSocket| ports.contains(&socket.local.port());
        let left = |ended: &&Ended<'a>| {
            // The FIN of a peer counts as a byte (net/ipv4/tcp_input.c tcp_fin), and is nothing to be read.
            ended.called.is_none() && ended.end == End::Other && ended.socket.unread > 1 && here(ended.socket)
        };
        let mut left: Vec<Duration> =
            self.ended.as_ref().ok()?.iter().filter(left).map(|ended| ended.socket.at).collect();
        left.sort_unstable();
        // Its listener was destroyed by the same end; that of a worker lives on in the others.
        let sockets = || told.endings.iter().map(|ending| &ending.socket).filter(|socket| here(socket));
        let mut of_listeners = sockets().filter(|socket| socket.peer.ip().is_unspecified());
        let around = |socket: &DestroyedSocket| socket.after.saturating_sub(MOMENT)..=socket.at + MOMENT;
        let moments: Vec<_> = match of_listeners.next_back() {
            Some(listener) => vec![around(listener)],
            None => left.iter().map(|at| *at..=*at + 2 * MOMENT).collect(),
        };
        let count = |from: Duration, until: Duration| {
            left.partition_point(|at| *at <= until) - left.partition_point(|at| *at < from)
        };
        let in_moment = |moment: &RangeInclusive<Duration>| count(*moment.start(), *moment.end());
        let Some(moment) = moments.into_iter().max_by_key(in_moment) else {
            return Some(AtExit { unread: 0, moment: None });
        };
        // What it did in a moment like that while it lived, it may have done in this one.
        let length = *moment.end() - *moment.start();
        let usual = |from: &Duration| match from {
            from if from < moment.start() => count(*from, (*from + length).min(*moment.start())),
            from => count(*from, *from + length),
        };
        let usual = left.iter().filter(|at| !moment.contains(at)).map(usual).max().unwrap_or(0);
        let unread = in_moment(&moment).saturating_sub(usual) as u64;
        Some(AtExit { unread, moment: (unread > 0).then_some(moment) })
    }
}
