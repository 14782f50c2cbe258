//! Requests that got an answer, and requests that got none: of connections that ended in order.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::attribution::Ended;
use crate::evidence::Evidence;
use crate::evidence::harm::Target;
use crate::reset::End;
use crate::value::Missing;

/// PostgreSQL's CancelRequest, which the server answers by closing (protocol, 55.2.9 "Canceling Requests in Progress").
pub const CANCEL_REQUEST: u64 = 16;
/// The FIN of a peer counts as a byte that was received (net/ipv4/tcp_input.c tcp_fin).
pub const FIN: u64 = 1;

/// The connections of one place that asked something.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    pub in_vain: Vec<InVain>,
    pub answered: u64,
}

/// A connection that got nothing but its end.
#[derive(Debug, Clone, Copy)]
pub struct InVain {
    /// When it ended, CLOCK_BOOTTIME.
    pub at: Duration,
    /// How long ago the request came, or went, when it ended.
    pub silent_ms: u32,
    /// Of the request.
    pub bytes: u64,
}

/// What was asked at each place, in a window.
pub type Requests = BTreeMap<Target, Asked>;

/// Those without an answer that are remembered of a window, of so many places.
const MOST: usize = 16;
const MOST_PLACES: usize = 256;

impl Asked {
    /// With those of another window.
    fn extend(&mut self, other: &Self) {
        self.in_vain.extend(&other.in_vain);
        self.answered = self.answered.saturating_add(other.answered);
    }
}

impl Evidence<'_> {
    /// What was asked in the window.
    ///
    /// # Errors
    /// The connections that ended are not known.
    pub fn requests(&self) -> Result<Requests, Missing> {
        let ended = self.ended()?;
        let mut requests = Requests::new();
        for connection in ended {
            let target = connection.called.map_or(Target::Port(connection.socket.local.port()), Target::Called);
            match answered(connection) {
                Some(true) => requests.entry(target).or_default().answered += 1,
                Some(false) => requests.entry(target).or_default().in_vain.push(in_vain(connection)),
                None => {}
            }
        }
        // What a service of this host does is told by its port.
        let here =
            |called: &SocketAddr| ended.iter().any(|other| other.called.is_none() && other.socket.local == *called);
        let own: Vec<_> = requests
            .iter()
            .filter(|(_, asked)| !asked.in_vain.is_empty())
            .filter_map(|(target, _)| match target {
                Target::Called(called) if here(called) => Some(*target),
                _ => None,
            })
            .collect();
        own.iter().for_each(|target| drop(requests.remove(target)));
        Ok(requests)
    }

    /// The same with the windows before, and when the first of these began in which one got no answer, CLOCK_BOOTTIME.
    pub fn asked_lately(&self, target: Target, now: &Asked) -> Option<(Asked, Duration)> {
        let mut all: Option<(Asked, Duration)> = None;
        for (from, requests) in self.requests_before() {
            let Some(asked) = requests.get(&target) else { continue };
            match &mut all {
                None if asked.in_vain.is_empty() => {}
                None => all = Some((asked.clone(), from)),
                Some((all, _)) => all.extend(asked),
            }
        }
        let (mut all, since) = all?;
        all.extend(now);
        Some((all, since))
    }

    /// What the next windows are to know: of places where requests got no answer, in this one or before.
    pub(super) fn requests_now(&self) -> Requests {
        let before = |target: &Target| self.requests_before().any(|(_, requests)| requests.contains_key(target));
        let wanted = |(target, asked): &(Target, Asked)| !asked.in_vain.is_empty() || before(target);
        let some = self.requests().unwrap_or_default().into_iter().filter(wanted).take(MOST_PLACES);
        some.map(|(target, mut asked)| {
            asked.in_vain.truncate(MOST);
            (target, asked)
        })
        .collect()
    }
}

/// Whether a connection on which something was asked got a byte of an answer; `None` if nothing was asked, or it ended otherwise
/// than by a close in order.
fn answered(connection: &Ended<'_>) -> Option<bool> {
    let socket = connection.socket;
    let (received, sent) = (socket.bytes_received?, socket.bytes_sent?);
    let in_order = connection.end == End::Other && u64::from(socket.unread) <= FIN && socket.unacknowledged == 0;
    match connection.called {
        None if sent > 0 => Some(true),
        None => {
            let cancels = (CANCEL_REQUEST..=CANCEL_REQUEST + FIN).contains(&received);
            (in_order && received > FIN && !cancels).then_some(false)
        }
        Some(_) if received > FIN => Some(true),
        // Nothing but the end of the connection came.
        Some(_) => (in_order && sent > 0 && sent != CANCEL_REQUEST && received == FIN).then_some(false),
    }
}

fn in_vain(connection: &Ended<'_>) -> InVain {
    let socket = connection.socket;
    let (silent_ms, bytes) = match connection.called {
        None => (socket.data_received_ms, socket.bytes_received),
        Some(_) => (socket.data_sent_ms, socket.bytes_sent),
    };
    InVain { at: socket.at, silent_ms, bytes: bytes.unwrap_or_default() }
}
