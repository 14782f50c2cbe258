//! Resets that were received lately, for the connections they ended.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::Reset;
use super::join::{End, REMEMBERED};
use super::room::{Room, take_oldest};
use crate::source::destroyed_sockets::DestroyedSocket;
use crate::value::TcpState;

/// A socket is destroyed when its process closes it, seconds after it was reset.
const REMEMBERED_FOR: Duration = Duration::from_secs(30);

/// What a received reset met.
#[derive(Debug, Clone, Copy)]
struct Met {
    state: Option<TcpState>,
    /// Only its packet was seen.
    alone: bool,
}

/// The resets that were received lately, by what they can have ended.
#[derive(Debug, Default)]
pub(super) struct Received {
    by_cookie: HashMap<u64, Met>,
    /// By the hash of both ends, an eighth of their size.
    by_ends: HashMap<u64, Met>,
    hasher: RandomState,
    in_order: VecDeque<(Duration, Option<u64>, Option<u64>)>,
}

impl Received {
    pub fn remember(&mut self, reset: &Reset) {
        let at = reset.at();
        self.drop_old(at, REMEMBERED - 1);
        let ends = reset.local().zip(reset.peer()).map(|ends| self.hasher.hash_one(ends));
        let cookie = reset.event.as_ref().and_then(|event| event.cookie);
        let met = Met { state: reset.state_before(), alone: reset.event.is_none() };
        if let Some(cookie) = cookie {
            self.by_cookie.insert(cookie, met);
        }
        if let Some(ends) = ends {
            self.by_ends.insert(ends, met);
        }
        self.in_order.push_back((at, cookie, ends));
    }

    /// Lets go what is old at `at` (CLOCK_BOOTTIME). A program may close late: where there is room, that is known for some minutes.
    pub fn forget(&mut self, at: Duration) {
        const CLOSED_LATE: Duration = Duration::from_secs(300);
        self.drop_old(at.saturating_sub(CLOSED_LATE), usize::MAX);
        self.by_cookie.give_back();
        self.by_ends.give_back();
        self.in_order.give_back();
    }

    /// Those that are too old at `at`, or more than `most`.
    fn drop_old(&mut self, at: Duration, most: usize) {
        let is_old = |(then, ..): &(Duration, Option<u64>, Option<u64>)| *then + REMEMBERED_FOR < at;
        while let Some((_, cookie, ends)) = take_oldest(&mut self.in_order, most, is_old) {
            cookie.map(|cookie| self.by_cookie.remove(&cookie));
            ends.map(|ends| self.by_ends.remove(&ends));
        }
    }

    pub fn end_of(&self, socket: &DestroyedSocket) -> End {
        let ends = self.hasher.hash_one((socket.local, socket.peer));
        match self.by_cookie.get(&socket.cookie).or_else(|| self.by_ends.get(&ends)) {
            // A packet alone: what was received last is then not known to be no FIN.
            Some(met) if met.alone && socket.gave_up() => End::GaveUp,
            Some(met) => match met.state {
                Some(TcpState::CloseWait) => End::ResetAfterFin,
                Some(TcpState::Established) | None => End::Reset,
                Some(_) => End::Other,
            },
            None if socket.gave_up() => End::GaveUp,
            None => End::Other,
        }
    }
}
