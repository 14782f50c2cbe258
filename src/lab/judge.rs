//! Whether a diagnosis says what a scenario stated beforehand. Pure.

use std::collections::BTreeSet;

use super::findings::{Finding, Findings, Sent, Totals};
use super::report::Status;
use super::scenario::Expect;
use crate::reset::Kind;

/// The status and its reason.
pub fn judge(expect: &Expect, findings: &Findings) -> (Status, String) {
    match problem(expect, findings) {
        None => (Status::Pass, String::new()),
        Some(problem) => (Status::Fail, problem),
    }
}

/// As [`judge`], for an observation in ticks: whenever there is an alarm, it is the right one, or something that follows from
/// it (its symptom is seen before it, what it leads to goes on after it); and the right one is first at least once, if only
/// seen where a single tick holds too little for an alarm.
pub fn judge_ticks(expect: &Expect, ticks: &[Findings]) -> (Status, String) {
    let fail = |problem: String| (Status::Fail, problem);
    let follows = expect.cause.map(follows_from).unwrap_or_default();
    let symptom = |tick: &Findings| tick.causes.first().is_some_and(|first| follows.contains(first.id.as_str()));
    let numbered = || ticks.iter().enumerate().map(|(index, tick)| (index + 1, tick));
    for (number, tick) in numbered() {
        let alarm = tick.verdict == "warning" || tick.verdict == "critical";
        let found = match (alarm, symptom(tick)) {
            (true, false) => problem(expect, tick),
            (true, true) => None,
            (false, _) => false_accusation(expect, tick),
        };
        if let Some(problem) = found {
            return fail(format!("tick {number} of {}: {problem}", ticks.len()));
        }
    }
    let Some(cause) = expect.cause else {
        return match numbered().find(|(_, tick)| tick.verdict != "ok") {
            None => (Status::Pass, String::new()),
            Some((number, tick)) => fail(format!("tick {number}: {} {}", tick.verdict, tick.summary)),
        };
    };
    let first = |tick: &Findings| tick.causes.first().is_some_and(|finding| finding.id == cause);
    match ticks.iter().filter(|tick| first(tick)).count() {
        0 => fail(format!("no tick of {} has {cause} first", ticks.len())),
        _ => (Status::Pass, String::new()),
    }
}

/// All causes that this one explains, at any distance.
fn follows_from(cause: &str) -> BTreeSet<&'static str> {
    let mut all: BTreeSet<&'static str> = BTreeSet::new();
    let mut next: Vec<&'static crate::cause::Cause> = crate::cause::by_id(cause).into_iter().collect();
    while let Some(cause) = next.pop() {
        let new = cause.explains.iter().copied().filter(|id| all.insert(id));
        next.extend(new.filter_map(crate::cause::by_id));
    }
    all
}

fn problem(expect: &Expect, findings: &Findings) -> Option<String> {
    if let Some(accusation) = false_accusation(expect, findings) {
        return Some(accusation);
    }
    if let Some(gap) = findings.sent.as_ref().and_then(|sent| unaccounted(expect, sent)) {
        return Some(gap);
    }
    if let Some(wrong) = expect.sent.and_then(|kinds| wrong_kind(kinds, findings.sent.as_ref())) {
        return Some(wrong);
    }
    if let Some(wrong) = wrong_neighbour(expect, findings) {
        return Some(wrong);
    }
    let Some(cause) = expect.cause else {
        return (findings.verdict != "ok").then(|| format!("a false alarm: {} {}", findings.verdict, findings.summary));
    };
    let Some(top) = findings.causes.first() else {
        return Some(format!("no cause was found, {cause} was expected"));
    };
    if top.id != cause {
        let rank = findings.causes.iter().position(|finding| finding.id == cause);
        let place = rank.map_or("is not among the causes".to_owned(), |rank| format!("is only number {}", rank + 1));
        return Some(format!("{} came first, {cause} {place}", top.id));
    }
    if let Some(problem) = mixture(expect, findings) {
        return Some(problem);
    }
    // Counters know no ports: then a finding about the whole host is all that can be asked for.
    let blurred = !findings.reset_events && top.subjects.iter().all(|subject| subject.port.is_none());
    if blurred { None } else { wrong_subject(expect, top) }
}

/// Of a whole node: the fault is in one of its namespaces, those that only feel it aside the others are clean, and what they
/// counted adds up.
fn wrong_neighbour(expect: &Expect, findings: &Findings) -> Option<String> {
    let all = &findings.namespaces;
    if let Some(count) = expect.namespaces.filter(|count| all.len() < *count) {
        return Some(format!("{} network namespaces were looked at, {count} were made", all.len()));
    }
    if all.is_empty() {
        return None;
    }
    let faulty = all.iter().filter(|one| one.verdict != "ok").count();
    let expected = usize::from(expect.cause.is_some());
    if !(expected..=expected + expect.felt).contains(&faulty) {
        return Some(format!("{faulty} network namespaces are not well, {expected} were made so"));
    }
    let gone = all.iter().filter(|one| one.gone).count();
    if gone != expect.gone {
        return Some(format!("{gone} network namespaces are told of as gone, {} went", expect.gone));
    }
    let sum = |of: fn(&Totals) -> Option<u64>| all.iter().map(|one| of(&one.totals)).sum::<Option<u64>>();
    let sums = Totals { sent: sum(|totals| totals.sent), dropped: sum(|totals| totals.dropped) };
    (sums != findings.totals).then(|| format!("the totals {:?} are not the sums {sums:?}", findings.totals))
}

/// Of several faults each is found as one of its own, and there is no further one.
fn mixture(expect: &Expect, findings: &Findings) -> Option<String> {
    if expect.also.is_empty() {
        return None;
    }
    let roots = || findings.causes.iter().filter(|finding| finding.because_of.is_none() && finding.state == "active");
    if let Some(missing) = expect.also.iter().find(|id| !roots().any(|finding| finding.id == **id)) {
        return Some(format!("{missing} was not found as a fault of its own"));
    }
    let made = |id: &str| expect.cause == Some(id) || expect.also.contains(&id);
    let invented = roots().find(|finding| finding.severity != "info" && !made(&finding.id))?;
    Some(format!("{} was claimed, which nobody made", invented.id))
}

/// One subject must carry all that is expected, so that the right port is blamed on the right process.
fn wrong_subject(expect: &Expect, top: &Finding) -> Option<String> {
    let fits = |subject: &super::findings::Subject| {
        expect.port.is_none_or(|port| subject.port == Some(port))
            && expect.process.is_none_or(|process| subject.process.as_deref() == Some(process))
    };
    if (expect.port.is_none() && expect.process.is_none()) || top.subjects.iter().any(fits) {
        return None;
    }
    let port = expect.port.map(|port| format!("port {port} ")).unwrap_or_default();
    let process = expect.process.unwrap_or_default();
    Some(format!("the cause is right but its subject is not {port}{process}"))
}

/// Where single resets were seen, each that was sent is accounted for, and where a process did it that process is named. The
/// one exception: what the kernel counted, but had no record of to give.
fn unaccounted(expect: &Expect, sent: &Sent) -> Option<String> {
    if sent.unexplained > sent.not_delivered {
        return Some(format!("{} of {} sent RSTs are unexplained in the ledger", sent.unexplained, sent.total));
    }
    sent.groups.iter().filter(|group| group.by_process).find_map(|group| {
        let Some(process) = &group.process else {
            return Some(format!("{} x {}: by which process is not known", group.count, group.reason));
        };
        // Who destroys a socket is not who holds it.
        let expected = expect.process.filter(|_| group.cause.as_deref() == expect.cause && expect.cause.is_some())?;
        (process != expected).then(|| format!("{} is attributed to {process}, not to {expected}", group.reason))
    })
}

/// RSTs that are called what the scenario did not send.
fn wrong_kind(kinds: &[Kind], sent: Option<&Sent>) -> Option<String> {
    let Some(sent) = sent else { return Some("what the sent RSTs were was not found out".to_owned()) };
    let wrong = sent.groups.iter().find(|group| kinds.iter().all(|kind| kind.name() != group.reason))?;
    Some(format!("{} of {} sent RSTs are called {}, which did not happen", wrong.count, sent.total, wrong.reason))
}

/// A forbidden cause that is claimed as a fault of its own, of now. What the diagnosis itself explains by the expected
/// cause is a consequence of it and no accusation.
fn false_accusation(expect: &Expect, findings: &Findings) -> Option<String> {
    findings
        .causes
        .iter()
        .find(|finding| {
            expect.forbidden.contains(&finding.id.as_str())
                && finding.state == "active"
                && finding.severity != "info"
                && (finding.because_of.is_none() || finding.because_of.as_deref() != expect.cause)
        })
        .map(|finding| format!("{} was claimed, which did not happen", finding.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::findings::{SentGroup, Subject};

    const EXPECT: Expect = Expect {
        cause: Some("close-wait-leak"),
        port: Some(80),
        process: Some("web"),
        also: &[],
        forbidden: &["syn-flood"],
        sent: None,
        namespaces: None,
        felt: 0,
        gone: 0,
    };

    fn finding(id: &str, port: u16, process: &str) -> Finding {
        Finding {
            id: id.to_owned(),
            state: "active".to_owned(),
            severity: "warning".to_owned(),
            confidence: 0.9,
            because_of: None,
            subjects: vec![Subject { port: Some(port), pid: None, process: Some(process.to_owned()) }],
        }
    }

    fn findings(causes: Vec<Finding>) -> Findings {
        let verdict = if causes.is_empty() { "ok" } else { "warning" };
        Findings {
            verdict: verdict.to_owned(),
            summary: String::new(),
            reset_events: true,
            causes,
            ..Findings::default()
        }
    }

    fn status(expect: &Expect, causes: Vec<Finding>) -> Status {
        judge(expect, &findings(causes)).0
    }

    #[test]
    fn of_a_node_only_the_faulty_namespace_may_be_unwell_and_totals_add_up() {
        let of = |verdict: &str, sent| super::super::findings::Neighbour {
            gone: false,
            verdict: verdict.to_owned(),
            totals: Totals { sent: Some(sent), dropped: Some(0) },
        };
        let wrong = |namespaces: Vec<_>, sent| {
            let totals = Totals { sent: Some(sent), dropped: Some(0) };
            wrong_neighbour(&EXPECT, &Findings { namespaces, totals, ..Findings::default() })
        };
        assert_eq!(wrong(vec![of("ok", 1), of("critical", 4)], 5), None);
        assert!(wrong(vec![of("ok", 1), of("critical", 4)], 6).is_some_and(|text| text.contains("are not the sums")));
        assert!(wrong(vec![of("warning", 0), of("critical", 0)], 0).is_some_and(|text| text.contains("2 network")));
        let felt = Findings { namespaces: vec![of("warning", 0), of("critical", 0)], ..Findings::default() };
        let felt = Findings { totals: Totals { sent: Some(0), dropped: Some(0) }, ..felt };
        assert_eq!(wrong_neighbour(&Expect { felt: 1, ..EXPECT }, &felt), None);
        let ends = wrong_neighbour(&Expect { felt: 1, gone: 1, ..EXPECT }, &felt);
        assert!(ends.is_some_and(|text| text.contains("0 network namespaces are told of as gone, 1 went")));
        let expect = Expect { namespaces: Some(3), ..EXPECT };
        assert!(wrong_neighbour(&expect, &Findings::default()).is_some_and(|text| text.contains("3 were made")));
    }

    #[test]
    fn the_expected_cause_must_come_first_with_its_subject() {
        assert_eq!(status(&EXPECT, vec![finding("close-wait-leak", 80, "web")]), Status::Pass);
        assert_eq!(status(&EXPECT, vec![finding("close-wait-leak", 80, "db")]), Status::Fail);
        assert_eq!(status(&EXPECT, vec![finding("close-wait-leak", 81, "web")]), Status::Fail);
        let second = vec![finding("peer-reset", 80, "web"), finding("close-wait-leak", 80, "web")];
        assert_eq!(status(&EXPECT, second), Status::Fail);
        assert_eq!(status(&EXPECT, Vec::new()), Status::Fail);
    }

    #[test]
    fn without_reset_events_no_port_is_asked_of_a_finding_about_the_whole_host() {
        let mut host = finding("close-wait-leak", 80, "web");
        host.subjects = vec![Subject::default()];
        let seen = findings(vec![host]);
        assert_eq!(judge(&EXPECT, &seen).0, Status::Fail);
        assert_eq!(judge(&EXPECT, &Findings { reset_events: false, ..seen }).0, Status::Pass);
        let wrong = findings(vec![finding("close-wait-leak", 81, "web")]);
        assert_eq!(judge(&EXPECT, &Findings { reset_events: false, ..wrong }).0, Status::Fail);
    }

    #[test]
    fn every_reset_that_was_sent_is_accounted_for_with_its_process() {
        let group = |process: Option<&str>| SentGroup {
            reason: "closed-with-unread-data".into(),
            cause: Some("close-wait-leak".into()),
            by_process: true,
            process: process.map(str::to_owned),
            count: 3,
        };
        let status = |unexplained, not_delivered, process| {
            let sent = Sent { total: 5, unexplained, not_delivered, groups: vec![group(process)] };
            let seen = findings(vec![finding("close-wait-leak", 80, "web")]);
            judge(&EXPECT, &Findings { sent: Some(sent), ..seen }).0
        };
        assert_eq!(status(0, 0, Some("web")), Status::Pass);
        assert_eq!(status(2, 0, Some("web")), Status::Fail);
        assert_eq!(status(2, 2, Some("web")), Status::Pass, "the kernel delivered no record of them");
        assert_eq!(status(0, 0, Some("db")), Status::Fail);
        assert_eq!(status(0, 0, None), Status::Fail);
    }

    #[test]
    fn a_reset_that_was_not_sent_must_not_be_in_the_ledger() {
        let group = |reason: &str| SentGroup { reason: reason.into(), count: 1, ..SentGroup::default() };
        let status = |reasons: &[&str]| {
            let groups = reasons.iter().map(|reason| group(reason)).collect();
            let sent = Sent { total: reasons.len() as u64, unexplained: 0, not_delivered: 0, groups };
            let expect = Expect { sent: Some(&[Kind::Aborted, Kind::Stale]), ..Expect::NOTHING };
            judge(&expect, &Findings { sent: Some(sent), ..findings(Vec::new()) }).0
        };
        assert_eq!(status(&["aborted", "stale-connection"]), Status::Pass);
        assert_eq!(status(&["aborted", "firewall-reject"]), Status::Fail);
    }

    #[test]
    fn a_forbidden_cause_fails_even_behind_the_right_one() {
        let causes = vec![finding("close-wait-leak", 80, "web"), finding("syn-flood", 80, "web")];
        assert_eq!(status(&EXPECT, causes), Status::Fail);
    }

    #[test]
    fn of_several_faults_each_is_found_and_none_is_invented() {
        let expect = Expect { also: &["peer-reset"], ..EXPECT };
        let causes = |ids: &[&str]| ids.iter().map(|id| finding(id, 80, "web")).collect::<Vec<_>>();
        assert_eq!(status(&expect, causes(&["close-wait-leak", "peer-reset"])), Status::Pass);
        assert_eq!(status(&expect, causes(&["close-wait-leak"])), Status::Fail);
        assert_eq!(status(&expect, causes(&["close-wait-leak", "peer-reset", "port-scan"])), Status::Fail);
        let mut as_symptom = causes(&["close-wait-leak", "peer-reset"]);
        as_symptom[1].because_of = Some("close-wait-leak".to_owned());
        assert_eq!(status(&expect, as_symptom), Status::Fail);
        let mut with_note = causes(&["close-wait-leak", "peer-reset", "port-scan"]);
        with_note[2].severity = "info".to_owned();
        assert_eq!(status(&expect, with_note), Status::Pass);
    }

    #[test]
    fn a_consequence_of_the_expected_cause_is_no_accusation() {
        let consequence =
            |because_of: &str| Finding { because_of: Some(because_of.into()), ..finding("syn-flood", 80, "web") };
        let causes = |because_of| vec![finding("close-wait-leak", 80, "web"), consequence(because_of)];
        assert_eq!(status(&EXPECT, causes("close-wait-leak")), Status::Pass);
        assert_eq!(status(&EXPECT, causes("peer-reset")), Status::Fail);
    }

    #[test]
    fn in_ticks_only_a_symptom_may_come_before_the_cause() {
        let expect = Expect { cause: Some("fd-exhaustion"), ..EXPECT };
        let tick = |id: &str| findings(vec![finding(id, 80, "web")]);
        let status = |ids: &[&str]| judge_ticks(&expect, &ids.iter().map(|id| tick(id)).collect::<Vec<_>>()).0;
        assert_eq!(status(&["fd-exhaustion", "fd-exhaustion"]), Status::Pass);
        assert_eq!(status(&["accept-queue-overflow", "fd-exhaustion"]), Status::Pass);
        assert_eq!(status(&["accept-queue-overflow"]), Status::Fail);
        assert_eq!(status(&["fd-exhaustion", "firewall-reject"]), Status::Fail);
        let quiet = findings(Vec::new());
        assert_eq!(judge_ticks(&expect, &[quiet.clone(), tick("fd-exhaustion")]).0, Status::Pass);
        let healthy = Expect { cause: None, ..EXPECT };
        assert_eq!(judge_ticks(&healthy, &[quiet.clone(), quiet.clone()]).0, Status::Pass);
        assert_eq!(judge_ticks(&healthy, &[quiet, tick("peer-reset")]).0, Status::Fail);
    }

    #[test]
    fn healthy_means_the_verdict_is_ok() {
        let healthy = Expect { cause: None, ..Expect::NOTHING };
        assert_eq!(status(&healthy, Vec::new()), Status::Pass);
        assert_eq!(status(&healthy, vec![finding("peer-reset", 80, "web")]), Status::Fail);
    }
}
