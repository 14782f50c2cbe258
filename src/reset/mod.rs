//! Which cause a single reset belongs to: the one place where a kernel reason, a socket state and what is known of the
//! socket's surroundings become a kind of reset. The ledger counts by it, and every cause asks it.
//!
//! The reasons are those of `enum sk_rst_reason` (include/net/rstreason.h, 6.10; active resets 6.12), each provoked and
//! seen on Linux 6.18.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use crate::observation::Observation;
use crate::source::reset_events::{Direction, Place, ResetTally, Task};
use crate::value::Missing;

mod context;
pub mod deaths;
mod gone;
pub mod pairing;
pub mod wire;

use context::Context;
pub use gone::{GoneListener, GoneProcesses, gone_listeners};
use wire::{Mark, Wire};

/// What one reset was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    UnreadData,
    Exited,
    ListenerClosed,
    Destroyed,
    Aborted,
    LingerTimeout,
    LateData,
    Memory,
    Keepalive,
    /// Nothing listens on the port.
    Refused,
    /// Something listens on the port, but not on this address or family.
    RefusedAddress,
    /// A source that tried many closed ports.
    Scanned,
    /// A segment for a connection that this host no longer knows.
    Stale,
    AcceptQueueFull,
    /// A client's handshake expired while its connection waited for a full accept queue.
    AcceptQueueExpired,
    Cookie,
    HandshakeRestarted,
    Timestamp,
    Mptcp,
    /// A reason that has no kind of its own, or none at all.
    Other,
    /// Received while the connection was open in this direction.
    PeerReset,
    /// The same by a peer that does it at regular intervals: a prober.
    HealthCheck,
    /// Received in CLOSE_WAIT: the peer had closed already, and did not want what this side still sent.
    ClientGone,
    /// The other end of a connection within this host: counted where it was sent.
    OtherEnd,
    /// Received in SYN_SENT: refused.
    UpstreamRefused,
    /// Received after this side had closed: nothing was lost.
    AfterClose,
    /// Received, in the peer's name, from something on the path.
    Forged,
    /// Received from this host's own netfilter.
    FirewallReject,
}

impl Kind {
    /// Stable name for programs, plain words for people, and the cause that it belongs to.
    pub fn describe(self) -> (&'static str, &'static str, Option<&'static str>) {
        match self {
            Self::UnreadData => ("closed-with-unread-data", "closed with unread data", Some("close-with-unread-data")),
            Self::Exited => ("process-exit", "the process exited", Some("process-exit")),
            Self::ListenerClosed => ("listener-closed", "listener closed", Some("listener-closed")),
            Self::Destroyed => ("socket-destroyed", "destroyed by an administrator", Some("socket-destroyed")),
            Self::Aborted => ("aborted", "aborted by the application", Some("abortive-close")),
            Self::LingerTimeout => ("aborted-on-linger", "closed early by TCP_LINGER2", Some("abortive-close")),
            Self::LateData => ("late-data", "data after close", Some("late-data-after-close")),
            Self::Memory => ("aborted-on-memory", "orphan or memory limit", None),
            Self::Keepalive => ("keepalive-timeout", "keepalive gave up", Some("keepalive-timeout")),
            Self::Refused => ("no-listener", "nothing listens", Some("port-without-listener")),
            Self::RefusedAddress => ("no-listener-here", "listens on another address", Some("wrong-bind-address")),
            Self::Scanned => ("port-scan", "port scan", Some("port-scan")),
            Self::Stale => ("stale-connection", "no such connection", Some("stale-connection")),
            Self::AcceptQueueFull => ("accept-queue-full", "accept queue full", Some("accept-queue-overflow")),
            Self::AcceptQueueExpired => {
                ("accept-queue-expired", "handshake expired at a full accept queue", Some("accept-queue-overflow"))
            }
            Self::Cookie => ("bad-cookie", "SYN cookie not valid", None),
            Self::HandshakeRestarted => ("handshake-restarted", "SYN inside a handshake", None),
            Self::Timestamp => ("timestamp-rejected", "timestamp rejected", Some("timestamp-rejected")),
            Self::Mptcp => ("mptcp", "Multipath TCP", None),
            Self::Other => ("other", "another kernel reason", None),
            Self::PeerReset => ("established", "in an open connection", Some("peer-reset")),
            Self::HealthCheck => ("health-check", "health checks", Some("health-check-resets")),
            Self::ClientGone => ("after-peer-close", "the peer had closed already", Some("peer-reset")),
            Self::OtherEnd => ("other-end", "sent by this host, both ends here", None),
            Self::UpstreamRefused => ("refused", "connect refused", Some("upstream-refused")),
            Self::AfterClose => ("after-close", "after our close, harmless", None),
            Self::Forged => ("forged", "by a device on the path", Some("middlebox-reset")),
            Self::FirewallReject => ("firewall", "by this host's own firewall", Some("firewall-reject")),
        }
    }

    pub fn cause(self) -> Option<&'static str> {
        self.describe().2
    }

    /// A system call sends it: the current task is the one that did it. What a process leaves behind when it exits is also
    /// answered later, in softirq.
    pub fn is_by_process(self) -> bool {
        matches!(self, Self::UnreadData | Self::ListenerClosed | Self::Destroyed | Self::Aborted)
    }
}

/// Resets that are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub kind: Kind,
    pub direction: Direction,
    pub local: IpAddr,
    /// Our port, where this side is the server or the port is not in use.
    pub port: Option<u16>,
    pub peer: Option<IpAddr>,
    /// The peer's port, where this side is the client.
    pub peer_port: Option<u16>,
    /// Who caused it; `None` where that is not known, as in every softirq.
    pub task: Option<Task>,
    pub count: u64,
}

impl Group {
    /// This side opened the connection.
    pub fn as_client(&self) -> bool {
        self.peer_port.is_some()
    }

    /// Both ends are on this host.
    pub fn on_loopback(&self) -> bool {
        self.peer.map_or(self.local, |peer| peer).is_loopback()
    }
}

/// Every reset of a window by kind, most frequent first.
#[derive(Debug, Clone, PartialEq)]
pub struct Attribution {
    pub groups: Vec<Group>,
    /// Kinds of which the kernel named no reason for at least one: told by its call chain, or by the form of the packet.
    pub deduced: BTreeSet<(Kind, Direction)>,
    /// Why the sent ones cannot be told apart, if they cannot.
    pub sent: Result<(), Missing>,
    /// RSTs that this namespace sent and whose records were lost, at most, where they are more than a tenth of all: what no event
    /// shows may be among them.
    pub hidden: u64,
    pub lost: LostRecords,
}

/// Resets that the kernel counted but whose records were lost. On the whole host: whose they were is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LostRecords {
    pub sent: u64,
    pub received: u64,
    /// Everything that the kernel counted.
    pub of: u64,
}

impl Attribution {
    pub fn count(&self, kind: Kind) -> u64 {
        self.groups.iter().filter(|group| group.kind == kind).map(|group| group.count).sum()
    }
}

/// Distinct closed ports from which on one source counts as a scanner: no misconfigured client tries that many.
const SCAN_PORTS: usize = 10;

/// Sorts the reset events of an observation, by what the packets say where they are known.
pub fn attribute(observation: &Observation, wire: Option<&Wire>) -> Result<Attribution, Missing> {
    let events = observation.reset_events.get().map_err(|failure| Missing {
        source: "reset_events",
        reason: failure.reason.clone(),
        needs: failure.needs.clone(),
    })?;
    let context = Context::new(observation, events);
    let moved = context.moved("Tcp.OutRsts");
    // What may belong to another namespace counts here only as far as this namespace sent that many.
    let unclear_fits = moved.is_none_or(|sent| events.count(Direction::Sent, true) <= sent);
    let belongs = |place| place == Place::Here || place == Place::Unclear && unclear_fits;
    type Key = (Kind, Direction, IpAddr, Option<u16>, Option<IpAddr>, Option<u16>, Option<Task>);
    let mut groups: BTreeMap<Key, u64> = BTreeMap::new();
    let mut deduced = BTreeSet::new();
    // Another namespace may have our addresses.
    let none_sent = moved == Some(0);
    let ours = |tally: &&ResetTally| belongs(tally.place) && !(none_sent && tally.direction == Direction::Sent);
    let by_place = || events.tallies.iter().filter(ours).map(|tally| (Mark::default(), tally));
    let joined: Vec<(Mark, &ResetTally)> = match wire.and_then(|wire| wire.groups.as_ref()) {
        Some(groups) => groups.iter().map(|(mark, tally)| (*mark, tally)).collect(),
        None => by_place().collect(),
    };
    for (mark, tally) in joined {
        let peer = tally.peer_addr.or(tally.peer_sample.map(|peer| peer.ip()));
        let kind = context.kind(tally, mark);
        // Of a received one the event itself is the proof, except where it is about who sent it.
        if kind == Kind::Forged || tally.direction == Direction::Sent && tally.reason.is_none() {
            deduced.insert((kind, tally.direction));
        }
        // The tallies take an answer for a server's, even where it is the rest of a connection of ours.
        let (port, peer_port) = match kind {
            Kind::Stale if context.is_rest_of_own(tally) => (None, tally.peer_sample.map(|peer| peer.port())),
            _ => (tally.local_port, tally.peer_port),
        };
        let key = (
            kind,
            tally.direction,
            tally.local_addr.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.to_canonical()),
            port,
            peer.map(|peer| peer.to_canonical()),
            peer_port,
            tally.task.clone(),
        );
        *groups.entry(key).or_default() += tally.count;
    }
    let mut groups: Vec<Group> = groups
        .into_iter()
        .map(|((kind, direction, local, port, peer, peer_port, task), count)| Group {
            kind,
            direction,
            local,
            port,
            peer,
            peer_port,
            task,
            count,
        })
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    let reasons = events.tallies.iter().any(|t| t.direction == Direction::Sent && t.reason.is_some());
    let sent = match moved {
        Some(1..) if !reasons => Err(Missing {
            source: "reset_events",
            reason: "RSTs were sent, and no tracepoint gave a reason for any of them".to_owned(),
            needs: Some("Linux 6.12 or later for the reasons".to_owned()),
        }),
        _ => Ok(()),
    };
    let received = events.lost.saturating_sub(events.lost_sent);
    let lost = LostRecords { sent: events.lost_sent, received, of: events.read + events.lost };
    let known: u64 = groups.iter().filter(|group| group.direction == Direction::Sent).map(|group| group.count).sum();
    let hidden = moved.map_or(0, |moved| moved.saturating_sub(known).min(events.lost_sent));
    let hidden = if hidden * 10 > moved.unwrap_or(0) { hidden } else { 0 };
    Ok(Attribution { groups, deduced, sent, lost, hidden })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        use Kind::*;
        let kinds = [
            UnreadData,
            Exited,
            ListenerClosed,
            Destroyed,
            Aborted,
            LingerTimeout,
            LateData,
            Memory,
            Keepalive,
            Refused,
            RefusedAddress,
            Scanned,
            Stale,
            AcceptQueueFull,
            AcceptQueueExpired,
            Cookie,
            HandshakeRestarted,
            Timestamp,
            Mptcp,
            Other,
            PeerReset,
            ClientGone,
            OtherEnd,
            HealthCheck,
            UpstreamRefused,
            AfterClose,
            Forged,
            FirewallReject,
        ];
        let names: BTreeSet<_> = kinds.iter().map(|kind| kind.describe().0).collect();
        assert_eq!(names.len(), kinds.len());
    }
}
