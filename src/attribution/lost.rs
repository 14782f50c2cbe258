//! Resets without a record. Records are lost on the whole host, and nothing tells of which namespace they were: no more of them are
//! this one's than its own counters leave without an explanation.

use crate::reset::Mark;
use crate::source::reset_events::{Direction, EventAccount, ResetTally};
use crate::value::TcpState;

/// Resets that the kernel counted but whose records were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LostRecords {
    /// Of this namespace, at most.
    pub sent: u64,
    pub received: u64,
    /// On the whole host: those that were lost, of all that the kernel counted.
    pub host: u64,
    pub of: u64,
}

/// Connections of a namespace that ended with a RST, by its counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Tcp.EstabResets, which has no direction.
    pub resets: u64,
    /// Of these, ended by this host itself: each within it is counted at both of its ends.
    pub own: u64,
    /// Connects that were refused.
    pub refused: u64,
}

impl LostRecords {
    /// `unsent` are sent ones that have no event; each `None` where nothing counted.
    pub(super) fn of(
        events: &EventAccount,
        unsent: Option<u64>,
        here: &[(Mark, ResetTally)],
        ends: Option<Ends>,
    ) -> Self {
        let (host, of) = (events.lost, events.read.saturating_add(events.lost));
        let sent = events.lost_sent.saturating_add(events.lost_either);
        let received = host.saturating_sub(events.lost_sent);
        let room = ends.map(|ends| ends.room(here));
        let at_most = |lost: u64, room: Option<u64>| room.map_or(lost, |room| lost.min(room));
        Self { sent: at_most(sent, unsent), received: at_most(received, room), host, of }
    }
}

impl Ends {
    /// Those that were received and have no event.
    fn room(self, here: &[(Mark, ResetTally)]) -> u64 {
        let of = |direction: Direction, is_counted: &dyn Fn(&ResetTally) -> bool| -> u64 {
            let tallies = here.iter().map(|(_, tally)| tally);
            tallies.filter(|tally| tally.direction == direction && is_counted(tally)).map(|tally| tally.count).sum()
        };
        let is_open = |tally: &ResetTally| {
            tally.state_before().is_none_or(|state| matches!(state, TcpState::Established | TcpState::CloseWait))
        };
        let is_refused = |tally: &ResetTally| tally.state_before() == Some(TcpState::SynSent);
        // What an administrator destroys and what a program disconnects is in no counter of aborts.
        let own = self.own.max(of(Direction::Sent, &|tally| tally.active && is_open(tally)));
        let open = self.resets.saturating_sub(own).saturating_sub(of(Direction::Received, &is_open));
        open.saturating_add(self.refused.saturating_sub(of(Direction::Received, &is_refused)))
    }
}
