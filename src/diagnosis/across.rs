//! Stories that begin in one network namespace and end in another of the same node: who called is in the one, who refused or reset
//! it in the other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::node::Judged;
use super::rank::Ranked;
use crate::cause::{EvidenceItem, SubjectKind};
use crate::source::reset_events::Direction;
use crate::value::NetnsId;

/// Causes that blame the remote end.
const BLAMES: [&str; 5] = ["upstream-refused", "peer-reset", "peer-restarted", "peer-idle-limit", "connect-unanswered"];
/// Causes for which an end sends a reset, the deepest first.
const SENDS: [&str; 13] = [
    "wrong-bind-address",
    "process-exit",
    "listener-closed",
    "firewall-reject",
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

/// Ties findings that blame a remote end to what is found at that end, where this node has both: what was sent from there in the
/// window proves whose address it is. What follows from what, by places in the row of the findings of all namespaces.
pub(super) fn link(judged: &mut [Judged<'_>]) -> BTreeMap<usize, usize> {
    let senders: Vec<BTreeSet<SocketAddr>> = judged.iter().map(senders).collect();
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
            let Some(called) = called(symptom) else { continue };
            let others = (0..judged.len()).filter(|other| *other != caller && senders[*other].contains(&called));
            let found = others.filter_map(|other| Some((other, root(&judged[other].diagnosis.causes, called.port())?)));
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

/// The ends from which this namespace sent resets.
fn senders(one: &Judged<'_>) -> BTreeSet<SocketAddr> {
    let here: Option<NetnsId> = Some(one.view.after().netns);
    let sent = one
        .view
        .netns
        .resets
        .single
        .iter()
        .filter(|reset| reset.direction() == Direction::Sent && reset.netns() == here);
    sent.filter_map(|reset| reset.local()).map(|end| SocketAddr::new(end.ip().to_canonical(), end.port())).collect()
}

/// The remote end that a finding blames.
fn called(symptom: &Ranked) -> Option<SocketAddr> {
    let remote = [SubjectKind::Peer, SubjectKind::Path];
    let subjects = symptom.finding.subjects.iter().filter(|subject| remote.contains(&subject.kind));
    subjects.filter_map(|subject| Some(SocketAddr::new(subject.address?.to_canonical(), subject.port?))).next()
}

fn rank(cause: &Ranked) -> usize {
    SENDS.iter().position(|id| *id == cause.id).unwrap_or(SENDS.len())
}

/// The finding about that port of the end that was called.
fn root(causes: &[Ranked], port: u16) -> Option<usize> {
    let about = |cause: &Ranked| {
        let of_port = cause.finding.subjects.iter().any(|subject| {
            subject.port == Some(port) && matches!(subject.kind, SubjectKind::Listener | SubjectKind::Host)
        });
        of_port && SENDS.contains(&cause.id) && cause.finding.state.is_now()
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
