//! Puts findings in the order in which a person should read them: roots before their symptoms, now before then, more harm
//! before less.

use crate::cause::numbers::ranking as numbers;
use crate::cause::{Cause, Finding, Severity, State, Subject};

/// A finding with its place in the report.
#[derive(Debug, Clone)]
pub struct Ranked {
    pub id: &'static str,
    pub title: &'static str,
    pub finding: Finding,
    /// The deeper cause that explains this one.
    pub because_of: Option<BecauseOf>,
}

/// A cause that explains another one of the same report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BecauseOf {
    pub id: &'static str,
    /// Its place in the report, from 0: the same cause may be found at several places.
    pub place: usize,
}

/// Orders the findings. A finding that a deeper one explains comes directly after it, whatever its own harm. `known`: the root
/// of a finding where it was found out already.
pub fn rank(findings: Vec<(&'static Cause, Finding)>, known: &[Option<usize>]) -> Vec<Ranked> {
    let root_of: Vec<Option<usize>> = (0..findings.len())
        .map(|symptom| known.get(symptom).copied().flatten().or_else(|| root(&findings, symptom)))
        .collect();
    let ranked = findings.into_iter().map(|(cause, finding)| Ranked {
        id: cause.id,
        title: cause.title,
        finding,
        because_of: None,
    });
    order(ranked.collect(), &root_of)
}

/// As [`rank`], where the root of each finding is known, as its place in the list.
pub fn order(findings: Vec<Ranked>, root_of: &[Option<usize>]) -> Vec<Ranked> {
    // A root is as harmful as the worst that follows from it.
    let harm: Vec<f64> = (0..findings.len())
        .map(|index| {
            (0..findings.len())
                .filter(|other| chain(root_of, *other).any(|link| link == index))
                .map(|other| weight(&findings[other].finding))
                .fold(weight(&findings[index].finding), f64::max)
        })
        .collect();
    let severity: Vec<Severity> = (0..findings.len())
        .map(|index| {
            let follows = |other: &usize| chain(root_of, *other).any(|link| link == index);
            let now = |other: &usize| findings[*other].finding.state.is_now();
            let severities =
                (0..findings.len()).filter(follows).filter(now).map(|other| findings[other].finding.severity);
            severities.fold(findings[index].finding.severity, Severity::min)
        })
        .collect();
    let harm = Harm { severity, weight: harm };
    let mut tops: Vec<usize> = (0..findings.len()).filter(|index| root_of[*index].is_none()).collect();
    sort(&mut tops, &findings, &harm);
    let mut order = Vec::with_capacity(findings.len());
    for top in tops {
        push_with_symptoms(top, root_of, &findings, &harm, &mut order);
    }
    let mut place_of = vec![0; findings.len()];
    order.iter().enumerate().for_each(|(place, index)| place_of[*index] = place);
    let because_of: Vec<Option<BecauseOf>> = root_of
        .iter()
        .map(|root| root.map(|index| BecauseOf { id: findings[index].id, place: place_of[index] }))
        .collect();
    let mut slots: Vec<Option<Ranked>> = findings.into_iter().map(Some).collect();
    order
        .into_iter()
        .filter_map(|index| Some(Ranked { because_of: because_of[index], ..slots[index].take()? }))
        .collect()
}

/// Of each finding with all that follows from it.
struct Harm {
    severity: Vec<Severity>,
    weight: Vec<f64>,
}

fn sort(indices: &mut [usize], findings: &[Ranked], harm: &Harm) {
    indices.sort_by(|a, b| {
        let key = |index: usize| (findings[index].finding.state, harm.severity[index]);
        let surer = findings[*b].finding.confidence.total_cmp(&findings[*a].finding.confidence);
        key(*a).cmp(&key(*b)).then(harm.weight[*b].total_cmp(&harm.weight[*a])).then(surer).then(a.cmp(b))
    });
}

fn push_with_symptoms(
    index: usize,
    root_of: &[Option<usize>],
    findings: &[Ranked],
    harm: &Harm,
    order: &mut Vec<usize>,
) {
    if order.contains(&index) {
        return;
    }
    order.push(index);
    let mut symptoms: Vec<usize> = (0..root_of.len()).filter(|other| root_of[*other] == Some(index)).collect();
    sort(&mut symptoms, findings, harm);
    for symptom in symptoms {
        push_with_symptoms(symptom, root_of, findings, harm, order);
    }
}

/// The nearest finding that explains this one: one that itself is explained by another candidate comes later in the chain,
/// so the candidate that is explained by most others is the nearest.
fn root(findings: &[(&'static Cause, Finding)], symptom: usize) -> Option<usize> {
    let (cause, finding) = &findings[symptom];
    let candidates: Vec<usize> = (0..findings.len())
        .filter(|index| {
            let (deeper, other) = &findings[*index];
            *index != symptom
                && deeper.explains.contains(&cause.id)
                && other.has_symptoms
                && other.state <= finding.state
                // What a text only hints at explains nothing that is surer.
                && (other.state != State::Past || other.confidence * numbers::HINTED >= finding.confidence)
                && same_subject(&other.subjects, &finding.subjects)
        })
        .collect();
    candidates.iter().copied().max_by_key(|index| {
        let deeper = candidates.iter().filter(|other| findings[**other].0.explains.contains(&findings[*index].0.id));
        // One at this very place before one that may concern it because it concerns the whole host.
        (deeper.count(), shares_place(&findings[*index].1.subjects, &finding.subjects))
    })
}

fn chain(root_of: &[Option<usize>], start: usize) -> impl Iterator<Item = usize> + '_ {
    // No chain is longer than the list: a cycle ends there.
    std::iter::successors(Some(start), |index| root_of[*index]).take(root_of.len())
}

/// Two findings concern the same thing if they share a port or a process, or if one of them is about the whole host.
fn same_subject(a: &[Subject], b: &[Subject]) -> bool {
    let whole_host = |subjects: &[Subject]| subjects.iter().all(|s| s.port.is_none() && s.pid.is_none());
    whole_host(a) || whole_host(b) || shares_place(a, b)
}

fn shares_place(a: &[Subject], b: &[Subject]) -> bool {
    let same = |x: &Subject, y: &Subject| (x.port.is_some() && x.port == y.port) || (x.pid.is_some() && x.pid == y.pid);
    a.iter().any(|x| b.iter().any(|y| same(x, y)))
}

/// Harm times confidence. The logarithm keeps a cause with many cheap events from burying one with few dear ones.
fn weight(finding: &Finding) -> f64 {
    let severity = match finding.severity {
        Severity::Critical => 3.0,
        Severity::Warning => 2.0,
        Severity::Info => 1.0,
    };
    let state = if finding.state == State::Active { 2.0 } else { 1.0 };
    (1.0 + finding.impact.per_s.max(finding.impact.events as f64 / 60.0)).ln_1p()
        * finding.confidence
        * severity
        * state
}
