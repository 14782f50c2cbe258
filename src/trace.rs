//! Single resets as they happen: the kernel's event and the packet of the same RST joined into one [`Reset`], with its reason,
//! a filter, and a summary. Pure: [`Session`] takes bytes and times and gives resets.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use crate::source::reset_events::{Direction, ResetEvent};
use crate::source::reset_packets::ResetPacket;
use crate::source::tcp_state::TcpState;

mod holders;
mod join;
mod reason;
mod session;
mod summary;

pub use holders::Holders;
pub use reason::What;
pub use session::{Batch, Session};
pub use summary::{PortSide, Summary};

/// One RST, seen by the kernel's event, on the wire, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reset {
    /// CLOCK_REALTIME, since the Unix epoch.
    pub wall: Duration,
    pub what: What,
    pub event: Option<ResetEvent>,
    pub packet: Option<ResetPacket>,
    pub process: Option<Process>,
}

/// A process behind a reset.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process {
    pub pid: u32,
    /// comm; escape it before printing. Empty when it was not seen.
    pub name: String,
    /// It listens on the local port; whether it had a part in the reset is not known. Otherwise the kernel named it.
    pub listens: bool,
}

impl Reset {
    pub fn direction(&self) -> Direction {
        match (&self.event, &self.packet) {
            (Some(event), _) => event.direction,
            (None, Some(packet)) => packet.direction,
            (None, None) => Direction::Sent,
        }
    }

    pub fn local(&self) -> Option<SocketAddr> {
        self.event.as_ref().map(|event| event.local).or(self.packet.as_ref().map(|packet| packet.local))
    }

    /// `None` where only an event of a LISTEN socket was seen.
    pub fn peer(&self) -> Option<SocketAddr> {
        let of_event = self.event.as_ref().and_then(|event| event.peer);
        of_event.or(self.packet.as_ref().map(|packet| packet.peer))
    }

    /// State of the connection before this reset ended it.
    pub fn state_before(&self) -> Option<TcpState> {
        self.event.as_ref().and_then(ResetEvent::state_before)
    }

    /// The process was in exit(2) or being killed.
    pub fn exiting(&self) -> bool {
        self.event.as_ref().is_some_and(|event| event.exiting)
    }

    /// The reason in plain words, with the port where that is the point.
    pub fn words(&self) -> Cow<'static, str> {
        let (id, words, _) = self.what.describe();
        match (id, self.local()) {
            ("no-listener", Some(local)) => Cow::Owned(format!("nothing listens on {}", local.port())),
            _ => Cow::Borrowed(words),
        }
    }
}

/// Conditions that must all hold; empty lets everything through.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    pub direction: Option<Direction>,
    /// Local or remote.
    pub port: Option<u16>,
    /// Process name (comm). The kernel keeps 15 bytes of a name, so no more are compared.
    pub process: Option<String>,
}

/// TASK_COMM_LEN less the terminating zero, include/linux/sched.h.
const MAX_COMM: usize = 15;

impl Filter {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub fn keeps(&self, reset: &Reset) -> bool {
        let port = |wanted| [reset.local(), reset.peer()].into_iter().flatten().any(|end| end.port() == wanted);
        let named = |wanted: &str| {
            let wanted = wanted.as_bytes().get(..MAX_COMM).unwrap_or(wanted.as_bytes());
            reset.process.as_ref().is_some_and(|process| process.name.as_bytes() == wanted)
        };
        self.direction.is_none_or(|direction| direction == reset.direction())
            && self.port.is_none_or(port)
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
        reset.process = Some(Process { pid: 7, name: "a-very-long-nam".into(), listens: false });
        let keeps = |direction, port, process: Option<&str>| {
            Filter { direction, port, process: process.map(str::to_owned) }.keeps(&reset)
        };
        assert!(keeps(None, None, None));
        assert!(keeps(Some(Direction::Sent), Some(9000), Some("a-very-long-name-indeed")));
        assert!(keeps(None, Some(52144), None), "either end");
        assert!(!keeps(Some(Direction::Received), None, None));
        assert!(!keeps(None, Some(9001), None));
        assert!(!keeps(None, None, Some("a-very-long")));
    }

    #[test]
    fn a_refusal_names_the_port() {
        let mut refused = event(Direction::Sent, "10.0.0.9:9200", "10.0.3.8:40112");
        refused.reason = Some("NO_SOCKET".to_owned());
        assert_eq!(joined(Some(refused), None).words(), "nothing listens on 9200");
    }
}
