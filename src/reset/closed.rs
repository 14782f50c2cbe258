//! Connections that were destroyed lately, for what their peers still send.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::Ends;
use super::join::REMEMBERED;
use crate::source::destroyed_sockets::DestroyedSocket;

/// What is left of a connection that this side closed answers for it so long (TCP_TIMEWAIT_LEN in include/net/tcp.h).
const TIME_WAIT: Duration = Duration::from_secs(60);

/// Connections that were destroyed lately: what is left of one that this side closed is a TIME_WAIT entry, which knows nothing
/// of its exchange.
#[derive(Debug, Default)]
pub(super) struct Closed {
    /// The latest between these ends, by its number.
    by_ends: HashMap<Ends, u64>,
    in_order: VecDeque<DestroyedSocket>,
    /// Number of the first in order.
    first: u64,
    /// How many of those that wait are remembered already.
    pub taken: usize,
}

impl Closed {
    pub fn remember(&mut self, socket: &DestroyedSocket) {
        while let Some(old) = self.in_order.front() {
            if old.at + TIME_WAIT >= socket.at && self.in_order.len() < REMEMBERED {
                break;
            }
            let ends = (old.local, old.peer);
            if self.by_ends.get(&ends) == Some(&self.first) {
                self.by_ends.remove(&ends);
            }
            self.in_order.pop_front();
            self.first += 1;
        }
        self.by_ends.insert((socket.local, socket.peer), self.first + self.in_order.len() as u64);
        self.in_order.push_back(socket.clone());
    }

    /// The connection between these ends, if it was destroyed before `at` (CLOCK_BOOTTIME) and within the time of TIME_WAIT.
    pub fn before(&self, ends: Ends, at: Duration) -> Option<&DestroyedSocket> {
        let number = self.by_ends.get(&ends)?.checked_sub(self.first)?;
        let socket = self.in_order.get(usize::try_from(number).ok()?)?;
        (socket.after..=socket.at + TIME_WAIT).contains(&at).then_some(socket)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::destroyed;
    use super::*;

    #[test]
    fn a_connection_is_known_after_its_end_and_for_as_long_as_time_wait_lasts() {
        let mut closed = Closed::default();
        let socket = destroyed("10.0.0.1:80", "10.0.0.2:40000");
        let ends = (socket.local, socket.peer);
        closed.remember(&socket);
        let known = |at| closed.before(ends, at).is_some();
        assert!(known(socket.after) && !known(socket.after - Duration::from_secs(1)));
        assert!(known(socket.at + Duration::from_secs(59)) && !known(socket.at + Duration::from_secs(61)));
        assert!(closed.before((socket.peer, socket.local), socket.at).is_none());
    }
}
