//! Stories that begin in one network namespace and end in another of the same node: who called is in the one, who refused or reset
//! or left it unanswered in the other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::node::Judged;
use super::rank::Ranked;
use crate::cause::{EvidenceItem, SubjectKind};
use crate::reset::Reset;
use crate::source::reset_events::Direction;
use crate::source::socket_dump::GroupKind;
use crate::value::NetnsId;

/// Causes that blame the remote end.
pub(super) const BLAMES: [&str; 7] = [
    "upstream-refused",
    "peer-reset",
    "peer-restarted",
    "peer-idle-limit",
    "connect-unanswered",
    "closed-without-answer",
    FIREWALL,
];
/// A rule, at the end that was called or on the way to it; or, for the caller, one of a host that is not this node.
const FIREWALL: &str = "firewall-reject";
/// Causes for which an end sends a reset, the deepest first.
const SENDS: [&str; 13] = [
    "wrong-bind-address",
    "process-exit",
    "listener-closed",
    FIREWALL,
    "accept-queue-overflow",
    "connection-limit",
    "port-without-listener",
    "close-with-unread-data",
    "abortive-close",
    "late-data-after-close",
    "slow-reader",
    "client-gave-up",
    "stale-connection",
];

/// Causes for which an end does not answer, the deepest first.
const SILENT: [&str; 3] = ["accept-loop-stalled", "accept-queue-overflow", "syn-queue-overflow"];
/// Of which no RST tells, and what they are at the other end.
const WITHOUT_RESET: [(&str, &[&str]); 2] =
    [("connect-unanswered", &SILENT), ("closed-without-answer", &["closed-without-answer"])];

/// Ties findings that blame a remote end to what is found at that end, where this node has both: what was sent from there in the
/// window proves whose address it is. What follows from what, by places in the row of the findings of all namespaces.
pub(super) fn link(judged: &mut [Judged<'_>]) -> BTreeMap<usize, usize> {
    let senders: Vec<Senders> = judged.iter().map(Senders::of).collect();
    let offsets: Vec<usize> = judged
        .iter()
        .scan(0, |next, one| {
            let offset = *next;
            *next += one.diagnosis.causes.len();
            Some(offset)
        })
        .collect();
    let mut links = BTreeMap::new();
    for caller in 0..judged.len() {
        for place in 0..judged[caller].diagnosis.causes.len() {
            let symptom = &judged[caller].diagnosis.causes[place];
            if !BLAMES.contains(&symptom.id) || symptom.because_of.is_some() {
                continue;
            }
            let Some(called) = called(symptom).filter(|_| symptom.id != FIREWALL || calls(symptom)) else { continue };
            let without_reset = WITHOUT_RESET.iter().find(|(id, _)| *id == symptom.id).map(|(_, roots)| *roots);
            let answers = answers(&judged[caller], called);
            let port = |other: usize| match senders[other].port(called, &answers) {
                None if without_reset.is_some() => silent_port(&judged[caller], &judged[other], called),
                port => port,
            };
            let others = (0..judged.len()).filter(|other| *other != caller);
            let found = others.filter_map(|other| {
                let found = &judged[other].diagnosis.causes;
                let causes = without_reset.unwrap_or(&SENDS);
                let root = forwarded(found, called).or_else(|| root(found, port(other)?, causes))?;
                Some((other, root))
            });
            let Some((other, root)) = found.min_by_key(|(other, root)| rank(&judged[*other].diagnosis.causes[*root]))
            else {
                continue;
            };
            let symptom = symptom.clone();
            let from = judged[caller].location.to_string();
            let there = judged[other].location.clone();
            tell(&mut judged[other].diagnosis.causes[root], &symptom, &from, &there);
            links.insert(offsets[caller] + place, offsets[other] + root);
        }
    }
    links
}

/// The ends from which a namespace sent resets, and to whom.
struct Senders {
    ends: BTreeSet<SocketAddr>,
    /// By the end that they went to: address translation on the way to a published port changes only the other one.
    by_peer: BTreeMap<SocketAddr, (SocketAddr, Option<Numbers>)>,
    /// By what no translation changes.
    by_numbers: BTreeMap<Numbers, SocketAddr>,
}

/// Sequence and acknowledgement number of a packet.
type Numbers = (u32, u32);

impl Senders {
    fn of(one: &Judged<'_>) -> Self {
        let mut all = Self { ends: BTreeSet::new(), by_peer: BTreeMap::new(), by_numbers: BTreeMap::new() };
        for reset in resets(one, Direction::Sent) {
            let Some(local) = reset.local().map(canonical) else { continue };
            all.ends.insert(local);
            if let Some(peer) = reset.peer() {
                all.by_peer.insert(canonical(peer), (local, numbers(reset)));
            }
            if let Some(numbers) = numbers(reset) {
                all.by_numbers.insert(numbers, local);
            }
        }
        all
    }

    /// The port from which they sent what a caller got from `called`.
    fn port(&self, called: SocketAddr, answers: &[(SocketAddr, Option<Numbers>)]) -> Option<u16> {
        if self.ends.contains(&called) {
            return Some(called.port());
        }
        let same = |(to, got): &(SocketAddr, Option<Numbers>)| {
            let by_peer = self.by_peer.get(to).filter(|(_, sent)| sent.is_none() || got.is_none() || sent == got);
            by_peer.map(|(local, _)| *local).or_else(|| self.by_numbers.get(&(*got)?).copied())
        };
        answers.iter().find_map(same).map(|local| local.port())
    }
}

fn canonical(end: SocketAddr) -> SocketAddr {
    SocketAddr::new(end.ip().to_canonical(), end.port())
}

fn resets<'a>(one: &Judged<'a>, direction: Direction) -> impl Iterator<Item = &'a Reset> {
    let here: Option<NetnsId> = Some(one.view.after().netns);
    let all = one.view.netns.resets.single.iter();
    all.filter(move |reset| reset.direction() == direction && reset.netns() == here)
}

fn numbers(reset: &Reset) -> Option<Numbers> {
    reset.packet.as_ref().map(|packet| (packet.seq, packet.ack))
}

/// What a caller got from there: at which end of its own, and which.
fn answers(caller: &Judged<'_>, called: SocketAddr) -> Vec<(SocketAddr, Option<Numbers>)> {
    let from_there = resets(caller, Direction::Received).filter(|reset| reset.peer().map(canonical) == Some(called));
    from_there.filter_map(|reset| Some((canonical(reset.local()?), numbers(reset)))).collect()
}

/// The port at which the connects arrived that got no answer: the address is one of that namespace, or connections of the same
/// caller to the same end are open there.
fn silent_port(caller: &Judged<'_>, other: &Judged<'_>, called: SocketAddr) -> Option<u16> {
    let addresses = other.view.netns.reset_packets.value().map(|account| &account.addresses);
    if !called.ip().is_loopback() && addresses.is_some_and(|own| own.contains(called.ip())) {
        return Some(called.port());
    }
    let open = |one: &Judged<'_>, accepted: bool| {
        let groups = one.evidence.as_ref().and_then(|evidence| evidence.groups(GroupKind::Established).ok());
        let groups = groups.unwrap_or_default();
        let groups = groups.into_iter().filter(move |group| group.accepted == accepted);
        groups.flat_map(|group| &group.samples).map(|it| (canonical(it.local), canonical(it.peer))).collect::<Vec<_>>()
    };
    let mine: BTreeSet<SocketAddr> =
        open(caller, false).into_iter().filter(|(_, peer)| *peer == called).map(|(local, _)| local).collect();
    open(other, true).into_iter().find(|(_, peer)| mine.contains(peer)).map(|(local, _)| local.port())
}

/// The remote end that a finding blames.
fn called(symptom: &Ranked) -> Option<SocketAddr> {
    let remote = [SubjectKind::Peer, SubjectKind::Path];
    let subjects = symptom.finding.subjects.iter().filter(|subject| remote.contains(&subject.kind));
    subjects.filter_map(|subject| Some(SocketAddr::new(subject.address?.to_canonical(), subject.port?))).next()
}

fn rank(cause: &Ranked) -> usize {
    let place = |causes: &[&str]| causes.iter().position(|id| *id == cause.id);
    place(&SENDS).or_else(|| place(&SILENT)).unwrap_or(SENDS.len())
}

/// A process of that namespace called.
fn calls(cause: &Ranked) -> bool {
    cause.finding.subjects.iter().any(|subject| subject.pid.is_some() && subject.kind == SubjectKind::Process)
}

/// The finding of a rule in the way to that end, which nobody there called.
fn forwarded(causes: &[Ranked], called: SocketAddr) -> Option<usize> {
    let to_it = |cause: &Ranked| cause.id == FIREWALL && !calls(cause) && self::called(cause) == Some(called);
    causes.iter().position(|cause| to_it(cause) && cause.finding.state.is_now())
}

/// The finding about that port of the end that was called.
fn root(causes: &[Ranked], port: u16, of: &[&str]) -> Option<usize> {
    let about = |cause: &Ranked| {
        let of_port = cause.finding.subjects.iter().any(|subject| {
            subject.port == Some(port) && matches!(subject.kind, SubjectKind::Listener | SubjectKind::Host)
        });
        of_port && of.contains(&cause.id) && cause.finding.state.is_now()
    };
    let places = (0..causes.len()).filter(|place| about(&causes[*place]));
    places.min_by_key(|place| rank(&causes[*place]))
}

/// The root tells the whole story, with the harm that it does.
fn tell(root: &mut Ranked, symptom: &Ranked, from: &str, there: &Arc<crate::source::node::Location>) {
    const PROXY: &str = " fails its clients on port ";
    let finding = &mut root.finding;
    if let Some((head, _)) = symptom.finding.summary.split_once(": ").filter(|(head, _)| head.contains(PROXY)) {
        finding.summary = format!("{head}: in {there}, {}", finding.summary);
        finding.tells_place = true;
    }
    let text = format!("seen from {from}: {}", symptom.finding.summary);
    finding.evidence.insert(0, EvidenceItem::fact("reset_events", "other_end", text));
    finding.severity = finding.severity.min(symptom.finding.severity);
    finding.harm = symptom.finding.harm.or(finding.harm);
    let caller = symptom.finding.subjects.iter().find(|subject| subject.pid.is_some()).cloned();
    let known = |pid: Option<u32>| finding.subjects.iter().any(|subject| subject.pid == pid);
    if let Some(caller) = caller.filter(|caller| !known(caller.pid)) {
        finding.subjects.push(caller);
    }
}
