//! Where resets of one cause happened: by served port, or by the destination that this host called.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::{numbers, severity};
use crate::attribution::{Ended, Group};
use crate::cause::{EvidenceItem, Finding, Judgement, Severity, Subject, Verdict};
use crate::evidence::Evidence;
use crate::evidence::harm::{Harm, Target};
use crate::evidence::service::Service;
use crate::reset::{End, Kind, Told};
use crate::source::owners::Process;
use crate::source::reset_events::{Direction, Task};
use crate::value::escape::visible;
use crate::value::words;

/// All of one cause at one place: a served port, or the destination that this host called.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    pub groups: Vec<&'a Group>,
    pub count: u64,
    /// Our port; `None` for a client's, and for the many small places together.
    pub port: Option<u16>,
    /// Whom this host called.
    pub called: Option<SocketAddr>,
}

/// Places that are reported one by one although they are not harmed much; the rest of those are put together.
const MAX_PLACES: usize = 5;
/// Places beyond those that are reported one by one because they are harmed: what is asked of each looks at all resets.
const MAX_HARMED: usize = 64;

/// Sorts groups into places, the busiest first.
pub fn places<'a>(e: &Evidence<'_>, groups: &[&'a Group]) -> Vec<Place<'a>> {
    type Key = (Option<u16>, Option<SocketAddr>);
    let mut by_place: BTreeMap<Key, Vec<&Group>> = BTreeMap::new();
    for group in groups {
        let called = group.peer.zip(group.peer_port).map(|(address, port)| SocketAddr::new(address, port));
        by_place.entry((group.port, called)).or_default().push(group);
    }
    let total = |groups: &[&Group]| groups.iter().map(|group| group.count).sum::<u64>();
    let mut places: Vec<_> = by_place
        .into_iter()
        .map(|((port, called), groups)| Place { count: total(&groups), groups, port, called })
        .collect();
    places.sort_by_key(|place| std::cmp::Reverse(place.count));
    if places.len() > MAX_PLACES {
        // A small service of which all fails stays by itself beside large ones of which a little does.
        let rest = places.split_off(MAX_PLACES - 1);
        let harmed = |place: &Place<'_>| severity::to_clients(e, &place.harm(e)) < Severity::Info;
        let (mut harmed, mut rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(harmed);
        rest.extend(harmed.split_off(harmed.len().min(MAX_HARMED)));
        places.extend(harmed);
        let groups: Vec<_> = rest.into_iter().flat_map(|place| place.groups).collect();
        if !groups.is_empty() {
            places.push(Place { count: total(&groups), groups, port: None, called: None });
        }
    }
    places
}

impl<'a> Place<'a> {
    pub fn as_client(&self) -> bool {
        self.groups.iter().all(|group| group.as_client())
    }

    pub fn service<'e>(&self, e: &'e Evidence<'_>) -> Option<&'e Service<'e>> {
        e.services().ok().and_then(|_| e.service_of_port(self.port?))
    }

    /// Whose connections they are; `None` for many small places together.
    pub fn target(&self) -> Option<Target> {
        self.port.map(Target::Port).or(self.called.map(Target::Called))
    }

    /// How many of the connections that were open here failed.
    pub fn harm(&self, e: &Evidence<'_>) -> Harm {
        let first = self.groups.iter().map(|group| group.first).min();
        let last = self.groups.iter().map(|group| group.last).max();
        match self.target() {
            Some(target) => e.harm(target, self.count, first.zip(last).map(|(first, last)| [first, last])),
            None => Harm::of_unknown(self.count),
        }
    }

    /// Every process that sent some of it.
    pub fn tasks(&self) -> impl Iterator<Item = &'a Task> {
        self.groups.iter().filter_map(|group| group.task.as_ref())
    }

    /// The process with the most of it.
    pub fn task(&self) -> Option<&'a Task> {
        largest(self.groups.iter().filter_map(|group| Some((group.task.as_ref()?, group.count)))).map(|(task, _)| task)
    }

    /// `3 gunicorn processes`, where more than one of that name did it.
    fn several(&self, task: &Task) -> Option<String> {
        let pids: BTreeSet<u32> = self.tasks().filter(|other| other.name == task.name).map(|other| other.pid).collect();
        (pids.len() > 1).then(|| words::counted(pids.len() as u64, &format!("{} process", visible(&task.name))))
    }

    /// Remote addresses, the most frequent first.
    pub fn peers(&self) -> Vec<(IpAddr, u64)> {
        sums(self.groups.iter().filter_map(|group| Some((group.peer?, group.count))))
    }

    /// `api-server (pid 977) on port 9000`, as much of it as is known.
    pub fn who(&self, e: &Evidence<'_>) -> String {
        let owner = self.service(e).and_then(|service| service.owners.first());
        let process = match (self.task(), owner) {
            (Some(task), _) => Some(self.several(task).unwrap_or_else(|| task.label())),
            (None, Some(process)) => Some(process.label()),
            (None, None) => None,
        };
        match (process, self.port, self.called) {
            (Some(process), Some(port), _) => format!("{process} on port {port}"),
            (Some(process), None, Some(called)) => format!("{process}, connected to {called},"),
            (Some(process), None, None) => process,
            (None, Some(port), _) => format!("port {port}"),
            (None, None, Some(called)) => format!("a program connected to {called}"),
            (None, None, None) => "this host".to_owned(),
        }
    }

    /// Listener, processes and the three most frequent peers.
    pub fn subjects(&self, e: &Evidence<'_>) -> Vec<Subject> {
        let mut subjects = Vec::new();
        match (self.service(e), self.port, self.groups.first()) {
            (Some(service), ..) => subjects.push(Subject::listener(service).counted(self.count)),
            (None, Some(port), Some(group)) => subjects.push(Subject {
                address: Some(group.local),
                port: Some(port),
                ..Subject::host().counted(self.count)
            }),
            _ => {}
        }
        let tasks = sums(self.groups.iter().filter_map(|group| Some((group.task.as_ref()?, group.count))));
        subjects.extend(tasks.into_iter().take(3).map(|(task, count)| {
            // A tracepoint knows no unit.
            let seen = [e.owners(), e.owners_before()].into_iter().flatten();
            let known = seen.filter_map(|owners| owners.processes.get(&task.pid)).find(|known| known.name == task.name);
            known.map_or_else(|| Subject::task(task), Subject::process).counted(count)
        }));
        if let Some(called) = self.called {
            subjects.push(Subject::peer(called.ip(), Some(called.port())).counted(self.count));
            subjects.extend(callers(e, called));
        } else {
            subjects.extend(self.peers().into_iter().take(3).map(|(peer, n)| Subject::peer(peer, None).counted(n)));
        }
        if subjects.is_empty() {
            subjects.push(Subject::host());
        }
        subjects
    }

    /// In how many of these connections a request was under way, for those that were seen to be destroyed.
    pub fn under_way(&self, e: &Evidence<'_>) -> Option<EvidenceItem> {
        let here = |death: &Ended<'_>| match self.called {
            Some(_) => death.called == self.called,
            None => death.called.is_none() && self.port.is_none_or(|port| death.socket.local.port() == port),
        };
        let reset: Vec<_> = e.ended().ok()?.iter().filter(|death| death.end == End::Reset && here(death)).collect();
        let under_way = reset.iter().filter(|death| death.under_way()).count() as u64;
        let text = match (under_way, reset.len() as u64) {
            (_, 0) => return None,
            (0, _) => match reset.iter().map(|death| u64::from(death.socket.unacknowledged)).sum::<u64>() {
                0 => "no request was waiting for its answer when the RST came".to_owned(),
                bytes => format!(
                    "{} bytes that were sent had not been acknowledged when the RST came",
                    words::thousands(bytes)
                ),
            },
            (some, all) => format!(
                "a request was waiting for its answer in {} of {}",
                words::thousands(some),
                words::counted(all, "connection")
            ),
        };
        Some(EvidenceItem::value("destroyed_sockets", "under_way", under_way as f64, text))
    }

    /// What the RSTs say of their own reason; of the most frequent.
    pub fn stated(&self, e: &Evidence<'_>) -> Option<EvidenceItem> {
        let statement = e.statements(self.called, self.port).into_iter().next()?;
        let text = format!(
            "{} of the RSTs say of themselves: {}",
            words::thousands(statement.resets),
            visible(&statement.words)
        );
        Some(EvidenceItem::value("reset_packets", "stated", statement.resets as f64, text))
    }

    /// What the kernel said, once for all of the place.
    pub fn item(&self, reason: &str, meaning: &str) -> EvidenceItem {
        let peers = match self.peers().as_slice() {
            [] => String::new(),
            [(peer, _)] => format!(", all with {peer}"),
            [(peer, n), rest @ ..] => {
                format!(", {} of them with {peer}, {} more peers", words::thousands(*n), rest.len())
            }
        };
        let (source, by) = match self.told() {
            Told::Stated => ("reset_events", "the kernel gave"),
            Told::Chain => ("reset_events", "call chain and socket show"),
            Told::Packet => ("reset_packets", "packets and listeners show"),
            Told::Socket => ("reset_packets", "packets, sockets and counters show"),
            Told::Counters => ("reset_packets", "packets and counters show"),
        };
        let told = self.told();
        let known: u64 = self.groups.iter().filter(|group| group.told <= told).map(|group| group.count).sum();
        let of = match known == self.count {
            true => words::counted(self.count, "RST"),
            false => format!("{} of {}", words::thousands(known), words::counted(self.count, "RST")),
        };
        let text = format!("{by} {meaning} as the reason of {of}{peers}");
        EvidenceItem::value(source, reason, self.count as f64, text)
    }

    /// How the kind of these resets is known: of those of which it is known least well, a few apart whose records were lost.
    pub fn told(&self) -> Told {
        let mut by: Vec<_> = self.groups.iter().map(|group| (group.told, group.count)).collect();
        by.sort_unstable_by_key(|(told, _)| std::cmp::Reverse(*told));
        let few = (self.count as f64 * numbers::exchange::FEW_RECORDS) as u64;
        let mut weaker = 0;
        let least = by.into_iter().find(|(_, count)| {
            weaker += count;
            weaker > few
        });
        least.map(|(told, _)| told).unwrap_or_default()
    }

    /// What may be otherwise, where the kernel reported less than it does elsewhere.
    pub fn doubt(&self) -> Option<String> {
        let stale = || self.groups.iter().any(|group| group.kind == Kind::Stale);
        let nameless: u64 = self.groups.iter().filter(|group| group.task.is_none()).map(|group| group.count).sum();
        let doubt = match self.told() {
            Told::Stated | Told::Chain => return None,
            Told::Packet if stale() => {
                "a connection that was closed here before the window looks the same (late-data-after-close)".to_owned()
            }
            Told::Packet => return None,
            Told::Socket | Told::Counters if nameless == 0 => {
                "kernel symbols are hidden: the counters give the reason, not the call chain".to_owned()
            }
            Told::Socket | Told::Counters => {
                let of = match nameless == self.count {
                    true => String::new(),
                    false => format!(" of {} of them", words::thousands(nameless)),
                };
                format!("no event names the process{of}: the reason is concluded from packets and counters")
            }
        };
        Some(doubt)
    }
}

/// The findings of a cause whose resets are sent from here as well as received: by place, in the order of `directions`; ruled out
/// for the given reason where there are none.
///
/// # Errors
/// Nothing was found, and in one direction it could not be looked for.
pub fn in_both_directions(
    e: &Evidence<'_>,
    cause: &str,
    directions: [Direction; 2],
    finding: impl Fn(Place<'_>, Direction) -> Finding,
    otherwise: &str,
) -> Judgement {
    let mut findings = Vec::new();
    let mut missing = None;
    for direction in directions {
        match e.resets_of(cause, direction) {
            Ok(groups) => findings.extend(places(e, &groups).into_iter().map(|place| finding(place, direction))),
            Err(why) => missing = missing.or(Some(why)),
        }
    }
    match missing {
        Some(missing) if findings.is_empty() => Err(missing),
        _ => Ok(Verdict::from_findings(findings, otherwise)),
    }
}

/// Processes that hold a connection, or an attempt, to this destination in one of the two sweeps.
pub fn callers(e: &Evidence<'_>, called: SocketAddr) -> Vec<Subject> {
    let subject = |process: &Process| Subject {
        address: Some(called.ip()),
        port: Some(called.port()),
        ..Subject::process(process)
    };
    e.callers(called).into_iter().take(3).map(subject).collect()
}

/// Programs of this host that asked for this port of it and were refused, the most frequent first.
pub fn askers(e: &Evidence<'_>, port: u16) -> Vec<Subject> {
    let Ok(attribution) = e.attribution() else { return Vec::new() };
    let refused = |group: &&Group| group.kind == Kind::UpstreamRefused && group.peer_port == Some(port);
    let asked = attribution.groups.iter().filter(refused).filter(|group| group.on_loopback());
    let tasks = sums(asked.filter_map(|group| Some((group.task.as_ref()?, group.count))));
    tasks.into_iter().take(3).map(|(task, count)| Subject::task(task).counted(count)).collect()
}

/// `asked by haproxy (pid 7)`, as evidence.
pub fn asked_by(askers: &[Subject]) -> Option<EvidenceItem> {
    let names: Vec<_> = askers.iter().filter_map(Subject::label).collect();
    let text = format!("asked by {}, of this host", names.join(" and "));
    (!names.is_empty()).then(|| EvidenceItem::fact("reset_events", "SYN_SENT", text))
}

fn sums<K: Ord>(items: impl Iterator<Item = (K, u64)>) -> Vec<(K, u64)> {
    let mut sums: BTreeMap<K, u64> = BTreeMap::new();
    for (key, count) in items {
        *sums.entry(key).or_default() += count;
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    sums
}

fn largest<K: Ord>(items: impl Iterator<Item = (K, u64)>) -> Option<(K, u64)> {
    sums(items).into_iter().next()
}

/// Resets of this kind at these ports.
pub fn resets_at(e: &Evidence<'_>, kind: Kind, ports: &[u16]) -> u64 {
    let groups = e.attribution().map(|attribution| attribution.groups.as_slice()).unwrap_or_default();
    let here = groups.iter().filter(|group| group.kind == kind);
    here.filter(|group| group.port.is_some_and(|port| ports.contains(&port))).map(|group| group.count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::Case;
    use crate::value::TcpState;

    #[test]
    fn a_small_destination_that_fails_stands_by_itself_and_thousands_of_them_do_not() {
        let places = |count: u16| {
            let mut case = Case::new();
            for number in 0..count {
                let ends = ["10.0.0.9:0".to_owned(), format!("10.0.7.1:{}", 1000 + number)];
                let ends = [ends[0].as_str(), ends[1].as_str()];
                case = case.received(3, TcpState::Established, ends).destroyed_sockets(
                    3,
                    ["10.0.0.9:40000", ends[1]],
                    0,
                    0,
                );
            }
            let view = case.view();
            let evidence = Evidence::new(view);
            let groups =
                evidence.resets_of("peer-reset", crate::source::reset_events::Direction::Received).expect("events");
            let places = places(&evidence, &groups);
            let named = places.iter().filter(|place| place.called.is_some()).count();
            (named, places.iter().map(|place| place.count).sum::<u64>())
        };
        assert_eq!(places(20), (20, 60));
        assert_eq!(places(200), (MAX_PLACES - 1 + MAX_HARMED, 600), "and none is lost");
    }

    #[test]
    fn one_lost_record_takes_nothing_from_what_the_kernel_said_of_the_others() {
        let case = Case::new().tracepoints().sent(90, "TCP_ABORT_ON_CLOSE", None, ["10.0.0.1:80", "10.0.0.2:0"], None);
        let evidence = Evidence::new(case.view());
        let measured = evidence.attribution().expect("events").groups[0].clone();
        let told = |deduced: u64| {
            let others = Group { told: Told::Socket, count: deduced, task: None, ..measured.clone() };
            let groups = vec![&measured, &others];
            let place = Place { count: 90 + deduced, groups, port: Some(80), called: None };
            (place.told(), place.doubt().is_some(), place.item("x", "a close").text)
        };
        let (by, doubted, text) = told(1);
        assert_eq!((by, doubted), (Told::Stated, false));
        assert!(text.starts_with("the kernel gave a close as the reason of 90 of 91 RSTs"), "{text}");
        let (by, doubted, text) = told(60);
        assert_eq!((by, doubted), (Told::Socket, true));
        assert!(text.contains("as the reason of 150 RSTs"), "{text}");
    }
}
