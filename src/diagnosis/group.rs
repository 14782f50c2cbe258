//! Bounds what one cause may say: many findings are put together by the process that they are about, and the processes
//! beyond a limit are counted.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::cause::{EvidenceItem, Finding, Severity, State, SubjectKind};
use crate::value::words;

/// Findings of one cause that are reported one by one.
const MOST: usize = 8;
/// Listeners of one process from which on they are one finding.
const SEVERAL: usize = 3;
/// Subjects that a finding names, and pieces of evidence that it shows.
const MOST_SUBJECTS: usize = 12;
const MOST_EVIDENCE: usize = 16;

/// The findings of one cause: as they are if they are few, else one for each process, the worst first. Several listeners of one
/// process are always one finding: its cause is in the process.
pub(super) fn bounded(findings: Vec<Finding>) -> Vec<Finding> {
    let mut of_process: HashMap<Key, usize> = HashMap::new();
    for finding in &findings {
        *of_process.entry(Key::of(finding)).or_default() += 1;
    }
    let is_one = |finding: &Finding| {
        let key = Key::of(finding);
        let listens = key.pid.is_some() && key.kind == Some(SubjectKind::Listener);
        listens && of_process.get(&key).is_some_and(|count| *count >= SEVERAL)
    };
    let (together, mut findings): (Vec<_>, Vec<_>) = findings.into_iter().partition(is_one);
    findings.splice(0..0, by_process(together));
    let mut groups = if findings.len() <= MOST { findings } else { by_process(findings) };
    let left_out = groups.split_off(groups.len().min(MOST));
    groups.iter_mut().for_each(bound_parts);
    if let Some(last) = groups.last_mut().filter(|_| !left_out.is_empty()) {
        let text = format!("and {} like these", words::counted(left_out.len() as u64, "further finding"));
        last.evidence.push(EvidenceItem::value("report", "left_out", left_out.len() as f64, text));
    }
    groups
}

/// What findings have in common that are put together.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    state: State,
    severity: Severity,
    kind: Option<SubjectKind>,
    pid: Option<u32>,
}

impl Key {
    fn of(finding: &Finding) -> Self {
        let (state, severity) = (finding.state, finding.severity);
        let kind = finding.subjects.first().map(|subject| subject.kind);
        Self { state, severity, kind, pid: finding.subjects.iter().find_map(|subject| subject.pid) }
    }
}

/// Findings that are put together.
struct Group {
    /// The one with the greatest harm, with the impact of all.
    finding: Finding,
    /// Events of that one alone.
    greatest: u64,
    others: u64,
}

impl Group {
    fn new(finding: Finding) -> Self {
        Self { greatest: finding.impact.events, finding, others: 0 }
    }

    fn add(&mut self, mut other: Finding) {
        let events = other.impact.events;
        other.impact.events = events.saturating_add(self.finding.impact.events);
        other.impact.per_s += self.finding.impact.per_s;
        other.standing = other.standing.saturating_add(self.finding.standing);
        if events > self.greatest {
            self.greatest = events;
            std::mem::swap(&mut self.finding, &mut other);
        } else {
            self.finding.standing = other.standing;
            self.finding.impact = other.impact;
        }
        let room = MOST_SUBJECTS.saturating_sub(self.finding.subjects.len());
        self.finding.subjects.extend(other.subjects.into_iter().take(room));
        self.others += 1;
    }

    fn told(self) -> Finding {
        let Self { mut finding, others, .. } = self;
        if others > 0 {
            let first = finding.subjects.first();
            let what = match first.map(|subject| subject.kind) {
                Some(SubjectKind::Listener) => "more listener",
                Some(SubjectKind::Process) => "more process",
                _ => "more place",
            };
            let whose = if first.is_some_and(|subject| subject.pid.is_some()) { " of the same process" } else { "" };
            finding.summary = format!("{}, and {}{whose}", finding.summary, words::counted(others, what));
        }
        finding
    }
}

fn by_process(findings: Vec<Finding>) -> Vec<Finding> {
    let mut places: HashMap<Key, usize> = HashMap::new();
    let mut groups: Vec<Group> = Vec::new();
    for finding in findings {
        let place = *places.entry(Key::of(&finding)).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.add(finding),
            None => groups.push(Group::new(finding)),
        }
    }
    let mut findings: Vec<Finding> = groups.into_iter().map(Group::told).collect();
    findings.sort_by_key(|finding| (finding.state, finding.severity, Reverse(finding.impact.events)));
    findings
}

fn bound_parts(finding: &mut Finding) {
    finding.subjects.truncate(MOST_SUBJECTS);
    for items in [&mut finding.evidence, &mut finding.counter_evidence] {
        if items.len() > MOST_EVIDENCE {
            let left_out = items.split_off(MOST_EVIDENCE - 1);
            let text = format!("and {} like these", words::counted(left_out.len() as u64, "more observation"));
            items.push(EvidenceItem::value("report", "left_out", left_out.len() as f64, text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::{Confidence, Impact, Subject};

    fn finding(pid: u32, port: u16, events: u64) -> Finding {
        let impact = Impact { events, per_s: events as f64, unit: "resets" };
        let listener = Subject { port: Some(port), pid: Some(pid), ..Subject::new(SubjectKind::Listener) };
        Finding::new(State::Active, Severity::Warning, Confidence::of_test(0.9), impact, format!("port {port} is full"))
            .subject(listener)
    }

    #[test]
    fn a_few_findings_stay_as_they_are() {
        let findings: Vec<_> = (1..=8).map(|pid| finding(pid, 80, 1)).collect();
        assert_eq!(bounded(findings.clone()), findings);
        let two = vec![finding(7, 80, 1), finding(7, 443, 1)];
        assert_eq!(bounded(two.clone()), two);
    }

    #[test]
    fn several_listeners_of_one_process_are_one_finding_beside_others() {
        let mut findings: Vec<_> = (1..=5).map(|port| finding(7, port, 1)).collect();
        findings.push(finding(8, 80, 1));
        let grouped = bounded(findings);
        assert_eq!(grouped.len(), 2);
        assert_eq!(grouped[0].summary, "port 1 is full, and 4 more listeners of the same process");
    }

    #[test]
    fn many_listeners_of_one_process_are_one_finding_with_their_number_and_the_worst_speaks() {
        let mut findings: Vec<_> = (1..=16_000).map(|port| finding(7, port, 1)).collect();
        findings.push(finding(7, 16_001, 5));
        let grouped = bounded(findings);
        assert_eq!(grouped.len(), 1);
        assert_eq!(grouped[0].summary, "port 16001 is full, and 16,000 more listeners of the same process");
        assert_eq!(grouped[0].impact.events, 16_005);
        assert!(grouped[0].subjects.len() <= 12);
    }

    #[test]
    fn many_processes_are_counted_and_the_worst_are_kept() {
        let mut findings: Vec<_> = (1..=5000).map(|pid| finding(pid, 80, 1)).collect();
        findings.push(Finding { severity: Severity::Critical, ..finding(6000, 81, 1) });
        let grouped = bounded(findings);
        assert_eq!((grouped.len(), grouped[0].severity), (8, Severity::Critical));
        assert_eq!(
            grouped[7].evidence.last().map(|item| item.text.as_str()),
            Some("and 4,993 further findings like these")
        );
    }
}
