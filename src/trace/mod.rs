//! Single resets as they are shown: with their kind, the process behind them, a filter, and a summary. Pure: [`Tracer`] takes
//! what a session joined.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::reset::{self, Kind};
use crate::source::destroyed_sockets::DestroyedSocket;
use crate::source::node::Location;
use crate::source::reset_events::Direction;
use crate::source::reset_packets::ResetPacket;
use crate::value::outside::is_comm_of;
use crate::value::words::{counted, seconds};
use crate::value::{Moment, TcpState};

mod holders;
mod summary;
mod tracer;

pub use holders::Holders;
use holders::Which;
pub use summary::{PortSide, Summary};
pub use tracer::{Batch, Tracer};

/// One RST, seen by the kernel's event, on the wire, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reset {
    /// CLOCK_REALTIME, since the Unix epoch.
    pub wall: Duration,
    pub what: Kind,
    pub joined: reset::Reset,
    pub end: Option<End>,
    pub process: Option<Process>,
    /// Where it was, if not in the network namespace of the one who looks.
    pub location: Option<Arc<Location>>,
}

/// What the connection looked like when it was reset; where the kernel told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Without data in either direction, or since it was made; too long by up to the time between two readings.
    pub idle: Duration,
    /// Before its last use, to which nothing came in answer; from a second on.
    pub pause: Option<Duration>,
    pub bytes_in: Option<u64>,
    pub bytes_out: Option<u64>,
    /// Received, and never read by the process.
    pub unread: u32,
    /// Written by the process, and never acknowledged by the peer.
    pub unacknowledged: u32,
    /// Those of them that were never sent.
    pub unsent: Option<u32>,
}

/// A shorter pause is nothing that a connection dies of.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

impl End {
    fn of(socket: &DestroyedSocket, reset: Duration, state: Option<TcpState>) -> Self {
        // A FIN takes a place in the sequence, and so counts as a byte: the last that came, or the last that was written.
        let fin_in = matches!(state, Some(TcpState::CloseWait | TcpState::LastAck | TcpState::Closing));
        let fin_out = matches!(state, Some(TcpState::FinWait1 | TcpState::LastAck | TcpState::Closing));
        Self {
            // Before the handshake nothing had come or gone since the kernel started (tcp_sock is zeroed, and so are its times).
            idle: if state == Some(TcpState::SynSent) { Duration::ZERO } else { socket.idle(reset) },
            pause: socket
                .pause()
                .filter(|pause| *pause >= SHORTEST_PAUSE && socket.asked_last() && socket.unacknowledged > 0),
            bytes_in: socket.bytes_received.map(|bytes| bytes.saturating_sub(fin_in.into())),
            bytes_out: socket.bytes_sent,
            unread: socket.unread.saturating_sub(fin_in.into()),
            unacknowledged: socket.unacknowledged.saturating_sub(fin_out.into()),
            unsent: socket.unsent.map(|unsent| unsent.min(socket.unacknowledged.saturating_sub(fin_out.into()))),
        }
    }
}

/// A process behind a reset.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process {
    pub pid: u32,
    /// comm; escape it before printing. Empty when it was not seen.
    pub name: String,
    pub basis: Basis,
}

/// How a process was found. None of them is the task that a softirq interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Basis {
    /// The kernel named it: it caused the reset.
    Event,
    /// It held the connection when that was looked up.
    Connection,
    /// It listens on the local port; whether it had a part in the reset is not known.
    Listener,
}

/// The kernel's event of a received reset names its socket, and so does what is said of a destroyed one.
fn which(joined: &reset::Reset) -> Which {
    let of_event = joined.event.as_ref().and_then(|event| event.cookie).filter(|cookie| *cookie != 0);
    match (of_event.or(joined.ended.as_ref().map(|socket| socket.cookie)), &joined.event) {
        (Some(cookie), _) => Which::Socket(cookie),
        // A socket whose timer gave it up was there for long, and its process may keep it.
        (None, Some(event)) if !event.active => Which::Unknown,
        // Where there are no events nothing better is known.
        (None, _) => joined.local().zip(joined.peer()).map_or(Which::Unknown, |(local, peer)| Which::Ends(local, peer)),
    }
}

/// An ignored RST ended nothing, and before a connection is made tcp_info has no ages.
fn ended_a_connection(what: Kind) -> bool {
    !matches!(what, Kind::Ignored | Kind::FirewallReject | Kind::NotByTcp | Kind::UpstreamRefused)
}

/// A RST in the name of another without an event: TCP's has one.
fn is_by_forward_rule(joined: &reset::Reset) -> bool {
    joined.event.is_none() && joined.packet.as_ref().is_some_and(ResetPacket::is_in_anothers_name)
}

impl Reset {
    /// `now` relates the two clocks.
    pub fn new(joined: reset::Reset, what: Kind, holders: &Holders, now: Moment) -> Self {
        let at = joined.at();
        let ended = joined.ended.as_ref().filter(|_| ended_a_connection(what));
        let end = ended.map(|socket| End::of(socket, at, joined.state_before()));
        let process = joined.event.as_ref().and_then(|event| event.task.as_ref()).map(|task| Process {
            pid: task.pid,
            name: task.name.clone(),
            basis: Basis::Event,
        });
        let wall = now.wall.saturating_sub(now.mono.saturating_sub(at));
        // Who listens on that port here has no part in what a forward rule answers.
        let local = joined.local().filter(|_| !is_by_forward_rule(&joined));
        let holder = || local.and_then(|local| holders.of(local, which(&joined))).cloned();
        Self { wall, what, process: process.or_else(holder), joined, end, location: None }
    }

    /// No packet and no field of the event tells in which network namespace it was.
    pub fn namespace_unclear(&self) -> bool {
        self.joined.event.is_some() && self.joined.netns().is_none()
    }

    /// The process was in exit(2) or being killed.
    pub fn exiting(&self) -> bool {
        self.joined.event.as_ref().is_some_and(|event| event.exiting)
    }

    /// The reason in plain words, with the port, the bytes or the age where that is the point.
    pub fn words(&self) -> Cow<'static, str> {
        match (self.what, self.joined.local(), self.end) {
            (Kind::Refused, Some(local), _) => Cow::Owned(format!("nothing listens on {}", local.port())),
            (Kind::UnreadData, _, Some(End { unread: 1.., .. })) => {
                let unread = self.end.map_or(0, |end| end.unread);
                Cow::Owned(format!("closed with {}", counted(unread.into(), "unread byte")))
            }
            (Kind::FirewallReject, ..) if is_by_forward_rule(&self.joined) => {
                Cow::Borrowed("firewall reject (forward rule)")
            }
            (Kind::PeerReset, _, Some(End { pause: Some(pause), .. })) => {
                Cow::Owned(format!("reset after {} idle", age(pause)))
            }
            _ => Cow::Borrowed(self.what.words()),
        }
    }
}

/// An idle limit is looked up in seconds.
fn age(pause: Duration) -> String {
    match pause.as_secs() {
        long @ 120..7_200 => format!("{long} s"),
        _ => seconds(pause),
    }
}

/// Conditions that must all hold; empty lets everything through.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    pub direction: Option<Direction>,
    /// Local or remote.
    pub ports: BTreeSet<u16>,
    /// Process name (comm). The kernel keeps 15 bytes of a name, so no more are compared.
    pub process: Option<String>,
}

impl Filter {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub fn keeps(&self, reset: &Reset) -> bool {
        let mut ends = [reset.joined.local(), reset.joined.peer()].into_iter().flatten();
        let port = self.ports.is_empty() || ends.any(|end| self.ports.contains(&end.port()));
        let named = |wanted: &str| reset.process.as_ref().is_some_and(|process| is_comm_of(wanted, &process.name));
        self.direction.is_none_or(|direction| direction == reset.joined.direction())
            && port
            && self.process.as_deref().is_none_or(named)
    }
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use super::testing::{event, joined};
    use super::*;

    #[test]
    fn a_filter_keeps_what_meets_all_of_it() {
        let mut reset = joined(Some(event(Direction::Sent, "10.0.0.9:9000", "10.0.3.7:52144")), None);
        reset.process = Some(Process { pid: 7, name: "a-very-long-nam".into(), basis: Basis::Event });
        let keeps = |direction, port, process: Option<&str>| {
            Filter { direction, ports: Option::into_iter(port).collect(), process: process.map(str::to_owned) }
                .keeps(&reset)
        };
        assert!(keeps(None, None, None));
        assert!(keeps(Some(Direction::Sent), Some(9000), Some("a-very-long-name-indeed")));
        assert!(keeps(None, Some(52144), None), "either end");
        assert!(!keeps(Some(Direction::Received), None, None));
        assert!(!keeps(None, Some(9001), None));
        assert!(!keeps(None, None, Some("a-very-long")));
    }

    #[test]
    fn a_fin_is_no_byte_that_was_lost() {
        let socket =
            DestroyedSocket { unread: 1, unacknowledged: 1, ..testing::destroyed("10.0.0.9:9000", "10.0.3.7:52144") };
        let end = |state| End::of(&socket, socket.after, state);
        let open = end(Some(TcpState::Established));
        assert_eq!((open.unread, open.unacknowledged, open.bytes_in), (1, 1, Some(1_204)));
        let closed_by_both = end(Some(TcpState::LastAck));
        let left = (closed_by_both.unread, closed_by_both.unacknowledged, closed_by_both.bytes_in);
        assert_eq!(left, (0, 0, Some(1_203)));
    }

    #[test]
    fn a_refusal_names_the_port() {
        let mut refused = event(Direction::Sent, "10.0.0.9:9200", "10.0.3.8:40112");
        refused.reason = Some("NO_SOCKET".to_owned());
        assert_eq!(joined(Some(refused), None).words(), "nothing listens on 9200");
    }
}
