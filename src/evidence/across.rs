//! RSTs that this host sent and received, set against a capture of the other end of their connections: what left one end and arrived
//! at the other, and what did not. Joined by addresses or, through address translation, by the numbers that a RST carries, which
//! translation leaves alone.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use crate::capture::{Flow, Flows, Side};
use crate::observation::View;
use crate::reset::Reset;
use crate::source::reset_events::Direction;
use crate::source::reset_packets::ResetPacket;
use crate::value::words::{counted, short, thousands};

/// A capture that just began, or is about to end, may miss what is there.
const MARGIN: Duration = Duration::from_millis(50);

/// What a capture of the other end adds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Across {
    /// RSTs that left one end and arrived at the other.
    pub arrived: u64,
    /// RSTs that arrived here and that the other end never sent.
    pub never_sent: u64,
    /// RSTs that left this end and never arrived.
    pub never_arrived: u64,
    /// RSTs whose connection, or whose time, that capture does not have.
    pub unknown: u64,
    /// Those whose connection has other addresses at the other end.
    pub translated: u64,
    /// Connections that ended by a RST that no end sent: local and peer.
    pub forged: BTreeSet<(SocketAddr, SocketAddr)>,
    /// The clock of that capture less this host's, ns; from the RSTs that both have. Without any the clocks are taken as equal.
    pub offset_ns: Option<i64>,
    /// That capture lacks other packets, too: what is missing in it may have been there.
    pub lossy: bool,
}

impl Across {
    /// Nothing else can be: that end's capture has the connection and its time, and lost nothing.
    pub fn is_proof(&self) -> bool {
        self.offset_ns.is_some() && !self.lossy
    }

    /// In a sentence for people.
    pub fn words(&self) -> String {
        let clocks = match self.offset_ns {
            Some(offset) => {
                let by = short(Duration::from_nanos(offset.unsigned_abs()));
                format!(", its clock {} by {by}", if offset < 0 { "behind" } else { "ahead" })
            }
            None => ", its clock taken as the same".to_owned(),
        };
        let translated = match self.translated {
            0 => String::new(),
            some => format!(", {} through address translation", thousands(some)),
        };
        let unknown = match self.unknown {
            0 => String::new(),
            some => format!(", {} not in that capture", thousands(some)),
        };
        let lossy = if self.lossy { " That capture lacks other packets, too." } else { "" };
        format!(
            "{} sent and received{translated}, {} received here and never sent there, {} sent here and never received there{unknown}{clocks}.{lossy}",
            counted(self.arrived, "RST"),
            thousands(self.never_sent),
            thousands(self.never_arrived),
        )
    }
}

/// A RST as it passed here.
struct Passed<'a> {
    packet: &'a ResetPacket,
    /// Since the Unix epoch, by this host's clock.
    at: Duration,
}

impl Passed<'_> {
    fn ends(&self) -> (SocketAddr, SocketAddr) {
        match self.packet.direction {
            Direction::Sent => (self.packet.local, self.packet.peer),
            Direction::Received => (self.packet.peer, self.packet.local),
        }
    }
}

/// The capture's connections, to be found by addresses or numbers.
struct Index<'a> {
    flows: Vec<&'a Flow>,
    by_ends: HashMap<(SocketAddr, SocketAddr), Vec<usize>>,
    /// Numbers that a RST of that side would carry; `None`: several connections have it.
    by_number: HashMap<u32, Option<(usize, Side)>>,
}

impl<'a> Index<'a> {
    fn new(flows: &'a Flows) -> Self {
        let flows: Vec<&Flow> = flows.told.iter().map(|told| &told.flow).collect();
        let (mut by_ends, mut by_number) = (HashMap::<_, Vec<usize>>::new(), HashMap::new());
        for (index, flow) in flows.iter().enumerate() {
            by_ends.entry((flow.initiator, flow.acceptor)).or_default().push(index);
            for side in [Side::Initiator, Side::Acceptor] {
                let numbers = [flow.end(side).next, flow.end(side.other()).acked];
                for number in numbers.into_iter().flatten().filter(|number| *number != 0) {
                    let known = by_number.entry(number).or_insert(Some((index, side)));
                    *known = known.filter(|known| *known == (index, side));
                }
            }
        }
        Self { flows, by_ends, by_number }
    }

    /// The connections of that RST, the side that sent it, and whether they have other addresses there.
    fn find(&self, passed: &Passed<'_>) -> Option<(Vec<&'a Flow>, Side, bool)> {
        let (from, to) = passed.ends();
        for (ends, side) in [((from, to), Side::Initiator), ((to, from), Side::Acceptor)] {
            if let Some(indexes) = self.by_ends.get(&ends) {
                let flows = indexes.iter().filter_map(|index| self.flows.get(*index).copied()).collect();
                return Some((flows, side, false));
            }
        }
        let (index, side) = (*self.by_number.get(&passed.packet.seq)?)?;
        let flow = *self.flows.get(index)?;
        Some((vec![flow], side, true))
    }
}

fn same(flows: &[&Flow], side: Side, passed: &Passed<'_>) -> Option<Duration> {
    let rsts = flows.iter().flat_map(|flow| &flow.resets);
    let mut same =
        rsts.filter(|rst| rst.side == side && rst.seq == passed.packet.seq && rst.has_ack == passed.packet.has_ack());
    same.next().map(|rst| rst.at)
}

/// Sets the RSTs of the window against the capture; `None` without one.
pub fn across(view: View<'_>) -> Option<Across> {
    let flows = view.covers.other_end.as_deref()?;
    let begin = view.before().at;
    let passed = view.netns.resets.single.iter().filter_map(|reset: &Reset| {
        let packet = reset.packet.as_ref()?;
        // On loopback there is no other end.
        let between_hosts = !packet.loopback && packet.local_here && !packet.peer_here;
        let at = begin.wall.saturating_add(packet.at).checked_sub(begin.mono)?;
        between_hosts.then_some(Passed { packet, at })
    });
    let passed: Vec<Passed<'_>> = passed.collect();
    let index = Index::new(flows);
    let found: Vec<_> = passed.iter().map(|passed| index.find(passed)).collect();
    let mut offsets: Vec<i64> = passed
        .iter()
        .zip(&found)
        .filter_map(|(passed, found)| {
            let (flows, side, _) = found.as_ref()?;
            difference(same(flows, *side, passed)?, passed.at)
        })
        .collect();
    offsets.sort_unstable();
    let offset_ns = offsets.get(offsets.len() / 2).copied();
    let lossy = flows.told.iter().any(|told| told.flow.lacks_packets());
    let mut across = Across { offset_ns, lossy, ..Across::default() };
    for (passed, found) in passed.iter().zip(&found) {
        let there = shifted(passed.at, offset_ns.unwrap_or(0));
        let covered = flows.span.is_some_and(|(from, to)| from + MARGIN <= there && there + MARGIN <= to);
        let Some((of_it, side, translated)) = found else {
            across.unknown += 1;
            continue;
        };
        across.translated += u64::from(*translated);
        if same(of_it, *side, passed).is_some() {
            across.arrived += 1;
        } else if !covered || of_it.iter().all(|flow| flow.has_further_resets()) {
            across.unknown += 1;
        } else if passed.packet.direction == Direction::Sent {
            across.never_arrived += 1;
        } else {
            across.never_sent += 1;
            across.forged.insert((passed.packet.local, passed.packet.peer));
        }
    }
    Some(across)
}

fn difference(a: Duration, b: Duration) -> Option<i64> {
    let (a, b) = (i128::try_from(a.as_nanos()).ok()?, i128::try_from(b.as_nanos()).ok()?);
    i64::try_from(a - b).ok()
}

/// A time of this host's clock on the other one.
fn shifted(at: Duration, offset: i64) -> Duration {
    let by = Duration::from_nanos(offset.unsigned_abs());
    if offset < 0 { at.saturating_sub(by) } else { at.saturating_add(by) }
}
