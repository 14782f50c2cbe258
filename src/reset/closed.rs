//! Connections that were destroyed lately, for what their peers still send.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Ends;
use super::join::REMEMBERED;
use super::room::{Room, take_oldest};
use crate::source::destroyed_sockets::DestroyedSocket;

/// What is left of a connection that this side closed answers for it so long (TCP_TIMEWAIT_LEN in include/net/tcp.h).
const TIME_WAIT: Duration = Duration::from_secs(60);

/// Connections that were destroyed lately: what is left of one that this side closed is a TIME_WAIT entry, which knows nothing
/// of its exchange.
#[derive(Debug, Default)]
pub(super) struct Closed {
    /// Number of the latest between these ends, by their hash.
    by_ends: HashMap<u64, u64>,
    hasher: RandomState,
    in_order: VecDeque<Packed>,
    /// Number of the first in order.
    first: u64,
    /// How many of those that wait are remembered already.
    pub taken: usize,
}

impl Closed {
    pub fn remember(&mut self, socket: &DestroyedSocket) {
        self.drop_old(socket.at, REMEMBERED - 1);
        let ends = self.hasher.hash_one((socket.local, socket.peer));
        self.by_ends.insert(ends, self.first + self.in_order.len() as u64);
        self.in_order.push_back(Packed::new(socket));
    }

    /// Lets go what is of no use from `at` (CLOCK_BOOTTIME) on.
    pub fn forget(&mut self, at: Duration) {
        self.drop_old(at, usize::MAX);
        self.by_ends.give_back();
        self.in_order.give_back();
    }

    /// Those that are too old at `at`, or more than `most`.
    fn drop_old(&mut self, at: Duration, most: usize) {
        while let Some(old) = take_oldest(&mut self.in_order, most, |old| old.at() + TIME_WAIT < at) {
            let ends = self.hasher.hash_one(old.ends());
            if self.by_ends.get(&ends) == Some(&self.first) {
                self.by_ends.remove(&ends);
            }
            self.first += 1;
        }
    }

    /// The connection between these ends, if it was destroyed before `at` (CLOCK_BOOTTIME) and within the time of TIME_WAIT.
    pub fn before(&self, ends: Ends, at: Duration) -> Option<DestroyedSocket> {
        let number = self.by_ends.get(&self.hasher.hash_one(ends))?.checked_sub(self.first)?;
        let packed = self.in_order.get(usize::try_from(number).ok()?).filter(|packed| packed.ends() == ends)?;
        (packed.after()..=packed.at() + TIME_WAIT).contains(&at).then(|| packed.socket())
    }
}

/// A destroyed connection in two thirds of its size: with hundreds a second these are most of what an agent holds. Times in ns.
#[derive(Debug, Clone)]
struct Packed {
    at: u64,
    after: u64,
    cookie: u64,
    timeout: u64,
    held_back: u64,
    bytes_received: u64,
    bytes_sent: u64,
    local: (IpAddr, u16),
    peer: (IpAddr, u16),
    data_sent_ms: u32,
    data_received_ms: u32,
    ack_received_ms: u32,
    unacknowledged: u32,
    unsent: u32,
    unread: u32,
    retransmits: u8,
    unanswered: bool,
    unacknowledged_altogether: bool,
}

/// What the kernel did not tell.
const NONE: u64 = u64::MAX;
const NONE_32: u32 = u32::MAX;

impl Packed {
    fn new(socket: &DestroyedSocket) -> Self {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(NONE - 1);
        Self {
            at: nanos(socket.at),
            after: nanos(socket.after),
            cookie: socket.cookie,
            timeout: nanos(socket.timeout),
            held_back: socket.held_back.map_or(NONE, nanos),
            bytes_received: socket.bytes_received.unwrap_or(NONE),
            bytes_sent: socket.bytes_sent.unwrap_or(NONE),
            local: (socket.local.ip(), socket.local.port()),
            peer: (socket.peer.ip(), socket.peer.port()),
            data_sent_ms: socket.data_sent_ms,
            data_received_ms: socket.data_received_ms,
            ack_received_ms: socket.ack_received_ms,
            unacknowledged: socket.unacknowledged,
            unsent: socket.unsent.unwrap_or(NONE_32),
            unread: socket.unread,
            retransmits: socket.retransmits,
            unanswered: socket.unanswered,
            unacknowledged_altogether: socket.unacknowledged_altogether,
        }
    }

    fn socket(&self) -> DestroyedSocket {
        let told = |number: u64| (number != NONE).then_some(number);
        let (local, peer) = self.ends();
        DestroyedSocket {
            at: self.at(),
            after: self.after(),
            local,
            peer,
            cookie: self.cookie,
            data_sent_ms: self.data_sent_ms,
            data_received_ms: self.data_received_ms,
            ack_received_ms: self.ack_received_ms,
            unacknowledged: self.unacknowledged,
            unsent: (self.unsent != NONE_32).then_some(self.unsent),
            unread: self.unread,
            retransmits: self.retransmits,
            timeout: Duration::from_nanos(self.timeout),
            held_back: told(self.held_back).map(Duration::from_nanos),
            bytes_received: told(self.bytes_received),
            bytes_sent: told(self.bytes_sent),
            unanswered: self.unanswered,
            unacknowledged_altogether: self.unacknowledged_altogether,
        }
    }

    fn at(&self) -> Duration {
        Duration::from_nanos(self.at)
    }

    fn after(&self) -> Duration {
        Duration::from_nanos(self.after)
    }

    fn ends(&self) -> Ends {
        (SocketAddr::from(self.local), SocketAddr::from(self.peer))
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

    #[test]
    fn what_is_remembered_is_what_was_destroyed() {
        let whole = DestroyedSocket {
            unsent: Some(3),
            held_back: Some(Duration::from_micros(7)),
            bytes_received: Some(0),
            bytes_sent: Some(5),
            unanswered: true,
            ..destroyed("[2001:db8::1]:80", "10.0.0.2:40000")
        };
        let old_kernel =
            DestroyedSocket { unsent: None, held_back: None, bytes_received: None, bytes_sent: None, ..whole.clone() };
        for socket in [whole, old_kernel] {
            assert_eq!(Packed::new(&socket).socket(), socket);
        }
        assert!(size_of::<Packed>() * 3 <= size_of::<DestroyedSocket>() * 2, "{}", size_of::<Packed>());
    }
}
