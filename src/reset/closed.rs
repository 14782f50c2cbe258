//! Connections that were destroyed lately, for what their peers still send.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::join::REMEMBERED;
use super::{Ends, Reset};
use crate::source::destroyed_sockets::DestroyedSocket;

/// Most of what a peer still sends to a closed connection comes within this time.
const CLOSED_FOR: Duration = Duration::from_secs(5);

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
            if then + CLOSED_FOR >= socket.at && self.in_order.len() < REMEMBERED {
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

    /// The connection between the ends of this reset, if it was destroyed before.
    pub fn before(&self, reset: &Reset) -> Option<DestroyedSocket> {
        let socket = self.by_ends.get(&(reset.local()?, reset.peer()?))?;
        (socket.after <= reset.at()).then(|| socket.clone())
    }
}
