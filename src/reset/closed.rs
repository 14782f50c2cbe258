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
    by_ends: HashMap<Ends, DestroyedSocket>,
    in_order: VecDeque<(Ends, Duration)>,
    /// How many of those that wait are remembered already.
    pub taken: usize,
}

impl Closed {
    pub fn remember(&mut self, socket: &DestroyedSocket) {
        while let Some((ends, then)) = self.in_order.front().copied() {
            if then + TIME_WAIT >= socket.at && self.in_order.len() < REMEMBERED {
                break;
            }
            self.in_order.pop_front();
            if self.by_ends.get(&ends).is_some_and(|socket| socket.at == then) {
                self.by_ends.remove(&ends);
            }
        }
        let ends = (socket.local, socket.peer);
        self.by_ends.insert(ends, socket.clone());
        self.in_order.push_back((ends, socket.at));
    }

    /// The connection between these ends, if it was destroyed before `at` (CLOCK_BOOTTIME) and within the time of TIME_WAIT.
    pub fn before(&self, ends: Ends, at: Duration) -> Option<&DestroyedSocket> {
        let socket = self.by_ends.get(&ends)?;
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
