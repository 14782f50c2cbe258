//! The resets of a window by kind. The ledger counts by it, and every cause asks it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::observation::View;
use crate::reset::{Alone, Kind, Mark, Reset, Surroundings, Told};
use crate::source::process::Process;
use crate::source::reset_events::{Direction, EventAccount, ResetTally, Tallies, Task};
use crate::source::reset_packets::PeerTtls;
use crate::source::sysctl;
use crate::value::{Missing, NetnsId, Observed, TcpState};

mod alone;
mod context;
mod endings;
mod gone;
mod lost;
pub mod wire;

pub use context::surroundings;
pub use endings::{Ended, ended};
pub use gone::{GoneListener, GoneProcesses, gone_listeners};
pub use lost::{Ends, LostRecords};

use context::moved as moved_of;

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
    pub told: Told,
    pub count: u64,
    /// CLOCK_BOOTTIME of the first and the last.
    pub first: Duration,
    pub last: Duration,
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
    /// Why the sent ones cannot be told apart, if they cannot, and the received ones.
    pub sent: Result<(), Missing>,
    pub received: Result<(), Missing>,
    /// RSTs that this namespace sent and whose records were lost, at most, where they are more than a tenth of all: what no event
    /// shows may be among them.
    pub hidden: u64,
    pub lost: LostRecords,
}

impl Attribution {
    pub fn count(&self, kind: Kind) -> u64 {
        self.groups.iter().filter(|group| group.kind == kind).map(|group| group.count).sum()
    }
}

/// Distinct closed ports from which on one source counts as a scanner: no misconfigured client tries that many.
const SCAN_PORTS: usize = 10;
/// How often a scanner asks for each of them. Who asks more often calls a service that is not there, and may be a scanner as well.
const SCAN_TRIES: u64 = 3;

/// Whether no record and no packet is missing, so that events and packets can be told from each other one by one.
fn is_whole(view: View<'_>) -> bool {
    let packets = matches!(&view.netns.reset_packets, Observed::Full(account) if account.lost == 0);
    packets && view.netns.resets.packets_dropped == 0
}

/// Whether every reset stands singly with its packet: none of another namespace is among those that were seen here.
fn by_packets(view: View<'_>) -> bool {
    is_whole(view) && view.netns.resets.grouped.is_empty()
}

/// The resets of a window that have an event, or that TCP sent without one, in groups with what their packets tell.
pub struct Grouped {
    /// They belong to this namespace.
    pub here: Vec<(Mark, ResetTally)>,
    /// Every packet was seen, so that `here` holds no reset of another namespace.
    pub by_packets: bool,
    /// Whose the answers without an event are, and how many are netfilter's; see [`alone::whose`].
    pub alone: Option<(Alone, u64)>,
}

/// Groups the resets of a window.
pub fn grouped(view: View<'_>) -> Grouped {
    let netns = view.after().netns;
    let none = PeerTtls::default();
    let ttls = view.netns.reset_packets.value().map_or(&none, |account| &account.ttls);
    let ephemeral = sysctl::ephemeral_ports(&view.after().sysctls);
    let mut by_mark: BTreeMap<Mark, Tallies> = BTreeMap::new();
    for reset in &view.netns.resets.single {
        let Some(event) = reset.located_event() else { continue };
        let mark = Mark::of(reset, ttls);
        by_mark.entry(mark).or_default().count(&event, ephemeral);
    }
    let all: Vec<(Mark, ResetTally)> = flat(by_mark).chain(view.netns.resets.grouped.iter().cloned()).collect();
    let by_packets = by_packets(view);
    let mut here = belonging(view, netns, all, by_packets);
    let known = here.iter().filter(|(_, tally)| tally.direction == Direction::Sent).map(|(_, tally)| tally.count).sum();
    let alone = alone::whose(view, known);
    if let Some((alone, _)) = alone {
        let (listening, traced) = (context::listening(view), context::traced(view));
        let around = Surroundings { listening, traced, alone, ..Surroundings::default() };
        let mut by_mark: BTreeMap<Mark, Tallies> = BTreeMap::new();
        let of_tcp = |reset: &&Reset| alone::is_of_tcp(reset, alone, &around);
        for reset in view.netns.resets.single.iter().filter(of_tcp) {
            if let Some(event) = reset.packet_as_event() {
                by_mark.entry(Mark::of(reset, ttls)).or_default().count(&event, ephemeral);
            }
        }
        here.extend(flat(by_mark));
    }
    Grouped { here, by_packets, alone }
}

fn flat(by_mark: BTreeMap<Mark, Tallies>) -> impl Iterator<Item = (Mark, ResetTally)> {
    let of = |(mark, mut tallies): (Mark, Tallies)| tallies.take().into_iter().map(move |tally| (mark, tally));
    by_mark.into_iter().flat_map(of)
}

/// Those that belong to this namespace. A packet that was seen here proves it; of the others the event may tell; and where
/// neither does, the counters of the namespace account for so many and no more.
fn belonging(
    view: View<'_>,
    netns: NetnsId,
    all: Vec<(Mark, ResetTally)>,
    by_packets: bool,
) -> Vec<(Mark, ResetTally)> {
    let sent = moved_of(view, "Tcp.OutRsts");
    let count = |tallies: &[&(Mark, ResetTally)]| tallies.iter().map(|(_, tally)| tally.count).sum::<u64>();
    let (proven, mut rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|(mark, _)| mark.on_wire);
    rest.retain(|(_, tally)| !is_of_another(view, tally));
    let mut here: Vec<(Mark, ResetTally)> = Vec::new();
    let mut unclear_fits = true;
    for direction in [Direction::Sent, Direction::Received] {
        let of = |tally: &ResetTally| tally.direction == direction;
        let matched = count(&proven.iter().filter(|(_, tally)| of(tally)).collect::<Vec<_>>());
        let mut room = match direction {
            Direction::Sent => sent.map(|sent| sent.saturating_sub(matched)),
            // Those that arrive are all seen or, where they come another way, none.
            Direction::Received if by_packets => received_room(view, matched),
            Direction::Received => Some(0).filter(|_| !unclear_fits),
        };
        // Where the process and its namespace are known, or the event tells the namespace, the guess was better.
        let classes: [&dyn Fn(&ResetTally) -> bool; 3] = [
            &|tally| tally.netns == Some(netns) && !tally.softirq,
            &|tally| tally.netns == Some(netns) && tally.softirq,
            &|tally| tally.netns.is_none(),
        ];
        for (index, belongs) in classes.into_iter().enumerate() {
            let class: Vec<_> = rest.iter().filter(|(_, tally)| of(tally) && belongs(tally)).collect();
            let count = count(&class);
            // Without packets to compare with, what the event tells is taken, unless this namespace sent none at all.
            let fits = match (by_packets, index) {
                (true, 2) => false,
                (false, 0 | 1) => !(direction == Direction::Sent && sent == Some(0)),
                _ => room.is_none_or(|room| count <= room + room / 10),
            };
            if fits {
                here.extend(class.into_iter().cloned());
                room = room.map(|room| room.saturating_sub(count));
            } else if index == 2 {
                unclear_fits = false;
            }
        }
    }
    // Where packets are missing too, those of another namespace with the same address cannot be told by what is left.
    let none_sent = !by_packets && sent == Some(0);
    here.extend(proven.into_iter().filter(|(_, tally)| !(none_sent && tally.direction == Direction::Sent)));
    here
}

/// A received RST that ends a connection is counted where it does (tcp_set_state() and tcp_done() in net/ipv4/tcp.c); of a
/// namespace with the same addresses an event cannot be told otherwise. Of one with other addresses the address tells.
fn is_of_another(view: View<'_>, tally: &ResetTally) -> bool {
    let addresses = view.netns.reset_packets.value().map(|account| &account.addresses);
    let not_ours = |address: IpAddr| {
        let known = addresses.filter(|addresses| !addresses.is_empty());
        !address.is_unspecified() && !address.is_loopback() && known.is_some_and(|known| !known.contains(address))
    };
    if tally.direction == Direction::Received && tally.local_addr.is_some_and(|it| not_ours(it.to_canonical())) {
        return true;
    }
    let counter = match tally.state_before() {
        Some(TcpState::Established | TcpState::CloseWait) => "Tcp.EstabResets",
        Some(TcpState::SynSent) => "Tcp.AttemptFails",
        _ => return false,
    };
    tally.direction == Direction::Received && moved_of(view, counter) == Some(0)
}

/// RSTs were sent, and none of them was seen.
fn unseen(view: View<'_>) -> Missing {
    let all_have_events = context::traced(view).sent;
    let packets = view.netns.reset_packets.failure().filter(|_| !all_have_events);
    Missing {
        source: if packets.is_some() { "reset_packets" } else { "reset_events" },
        reason: "RSTs were sent, and neither an event nor a packet showed any of them".to_owned(),
        needs: packets.and_then(|failure| failure.needs.clone()),
    }
}

/// How many of the received resets whose packet was not seen this namespace can have had.
fn received_room(view: View<'_>, matched: u64) -> Option<u64> {
    let packets = view.netns.reset_packets.value().map_or(0, |account| account.received);
    if matched + packets > 0 {
        return Some(0);
    }
    let own = ["Tcp.OutRsts", "TcpExt.TCPAbortOnTimeout", "TcpExt.EmbryonicRsts"];
    let own: u64 = own.iter().map(|name| moved_of(view, name).unwrap_or(0)).sum();
    let ended = moved_of(view, "Tcp.EstabResets")?.checked_add(moved_of(view, "Tcp.AttemptFails")?)?;
    Some(ended.saturating_sub(own))
}

/// A task under the name that its process has where it was looked at: the name that came with the event is that of the last exec
/// that was seen, and where a recording is read from its middle that may be the shell's.
fn as_owner(view: View<'_>, task: &Task, at: Duration) -> Task {
    let owners = [&view.host.after.owners, &view.host.before.owners];
    // Not a later process of the same number.
    let is_it = |owner: &&Process| owner.started() <= at;
    let owner = owners.into_iter().find_map(|owners| owners.value()?.processes.get(&task.pid).filter(is_it));
    Task { pid: task.pid, name: owner.map_or_else(|| task.name.clone(), |owner| owner.name.clone()) }
}

/// Sorts the resets of a window by kind: those that have an event, and those that TCP sent without one.
///
/// # Errors
/// There are neither reset events nor all packets.
pub fn attribute(
    view: View<'_>,
    grouped: &Grouped,
    around: &Surroundings,
    ends: Option<Ends>,
) -> Result<Attribution, Missing> {
    let nothing = EventAccount::default();
    let (events, received) = match view.host.reset_events.required("reset_events") {
        Ok(events) => (events, Ok(())),
        // A received packet does not tell what it met.
        Err(missing) if grouped.alone.is_some() => (&nothing, Err(missing)),
        Err(missing) => return Err(missing),
    };
    type Key = (Kind, Direction, IpAddr, Option<u16>, Option<IpAddr>, Option<u16>, Option<Task>, Told);
    let mut groups: BTreeMap<Key, (u64, Duration, Duration)> = BTreeMap::new();
    for (mark, tally) in &grouped.here {
        let peer = tally.peer_addr.or(tally.peer_sample.map(|peer| peer.ip()));
        let kind = around.kind_of_event(tally, *mark);
        let told = around.told(tally, *mark, kind);
        // The tallies take an answer for a server's, even where it is the rest of a connection of ours.
        let (port, peer_port) = match kind {
            Kind::Stale | Kind::LateData | Kind::GaveUpHere if around.is_rest_of_own(tally) => {
                (None, tally.peer_sample.map(|peer| peer.port()))
            }
            _ => (tally.local_port, tally.peer_port),
        };
        let key = (
            kind,
            tally.direction,
            tally.local_addr.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.to_canonical()),
            port,
            peer.map(|peer| peer.to_canonical()),
            peer_port,
            tally.task.as_ref().map(|task| as_owner(view, task, tally.first)),
            told,
        );
        let group = groups.entry(key).or_insert((0, tally.first, tally.last));
        *group = (group.0 + tally.count, group.1.min(tally.first), group.2.max(tally.last));
    }
    let mut groups: Vec<Group> = groups
        .into_iter()
        .map(|((kind, direction, local, port, peer, peer_port, task, told), (count, first, last))| Group {
            kind,
            direction,
            local,
            port,
            peer,
            peer_port,
            task,
            told,
            count,
            first,
            last,
        })
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    let moved = moved_of(view, "Tcp.OutRsts");
    let is_sent = |group: &&Group| group.direction == Direction::Sent;
    let known: u64 = groups.iter().filter(is_sent).map(|group| group.count).sum();
    let sent = match moved {
        Some(1..) if known == 0 => Err(unseen(view)),
        _ => Ok(()),
    };
    let lost = LostRecords::of(events, moved.map(|moved| moved.saturating_sub(known)), &grouped.here, ends);
    let hidden = moved.map_or(0, |moved| if lost.sent * 10 > moved { lost.sent } else { 0 });
    Ok(Attribution { groups, sent, received, lost, hidden })
}
