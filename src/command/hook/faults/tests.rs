use super::*;
use crate::cause::Severity::{self, Critical, Info, Warning};
use crate::cause::State;
use crate::diagnosis::rank::Ranked;
use crate::timeline::testing::{Row, follows, ranked};

/// The row of what was told in each tick: what, of which cause, because of which, and how many events.
#[derive(Default)]
struct Hook {
    faults: Faults,
    row: Option<Row>,
}

type Line = (&'static str, String, Option<String>, u64);

impl Hook {
    fn tick(&mut self, causes: &[Ranked]) -> Vec<Line> {
        let tick = self.row.get_or_insert_with(Row::new).whole(causes);
        self.faults.take(&tick).into_iter().map(line).collect()
    }
}

fn line(Told { what, event }: Told) -> Line {
    (what, event.id, event.because_of.map(|root| root.id), event.events)
}

/// How often somebody was called: something began or grew, and followed from nothing that was told.
fn pages(told: &[Line]) -> usize {
    told.iter().filter(|(what, _, root, _)| !["ended", "explained"].contains(what) && root.is_none()).count()
}

fn full(severity: Severity) -> Ranked {
    ranked("accept-queue-overflow", severity, 10.0)
}

fn stalled(severity: Severity) -> Ranked {
    ranked("accept-loop-stalled", severity, 10.0)
}

#[test]
fn what_follows_from_a_root_that_is_seen_a_tick_later_is_no_page_of_its_own() {
    let mut hook = Hook::default();
    assert_eq!(hook.tick(&[]), []);
    assert_eq!(hook.tick(&[full(Critical)]), [], "held back");
    let told = hook.tick(&follows(stalled(Critical), full(Critical)));
    let expected = [
        ("appeared", "accept-loop-stalled".to_owned(), None, 20),
        ("appeared", "accept-queue-overflow".to_owned(), Some("accept-loop-stalled".to_owned()), 20),
    ];
    // The root itself may follow from open files that ran out: it is told within two ticks, too.
    let told = [told, hook.tick(&follows(stalled(Critical), full(Critical)))].concat();
    assert_eq!(pages(&told), 1, "{told:?}");
    let mut sorted = told.clone();
    sorted.sort_by_key(|line| line.2.is_some());
    assert_eq!(sorted, expected);
    let ended = hook.tick(&[]);
    let roots: Vec<_> = ended.iter().map(|(what, _, root, _)| (*what, root.as_deref())).collect();
    assert_eq!(roots, [("ended", None), ("ended", Some("accept-loop-stalled"))]);
}

#[test]
fn what_follows_from_nothing_is_told_with_the_second_tick_at_the_latest() {
    let mut hook = Hook::default();
    hook.tick(&[]);
    let told = [hook.tick(&[full(Critical)]), hook.tick(&[full(Critical)])].concat();
    assert_eq!((told.len(), pages(&told)), (1, 1), "{told:?}");
    // One that is over by then is told as well.
    let mut hook = Hook::default();
    hook.tick(&[]);
    let told = [hook.tick(&[full(Critical)]), hook.tick(&[])].concat();
    let whats: Vec<_> = told.iter().map(|line| line.0).collect();
    assert_eq!(whats, ["appeared", "ended"]);
    // So is one behind which nothing comes, because the program ends.
    let mut hook = Hook::default();
    assert_eq!(hook.tick(&[full(Critical)]), []);
    let rest: Vec<_> = hook.faults.rest().into_iter().map(line).collect();
    assert_eq!((rest.len(), rest[0].0), (1, "appeared"));
}

#[test]
fn a_root_that_is_found_late_is_told_to_those_who_were_called_already() {
    let mut hook = Hook::default();
    (0..3).for_each(|_| drop(hook.tick(&[full(Critical)])));
    let told = hook.tick(&follows(stalled(Critical), full(Critical)));
    let explained = ("explained", "accept-queue-overflow", Some("accept-loop-stalled"));
    assert!(told.iter().any(|(what, id, root, _)| (*what, id.as_str(), root.as_deref()) == explained), "{told:?}");
    let again = hook.tick(&follows(stalled(Critical), full(Critical)));
    assert!(again.iter().all(|line| line.0 != "explained"), "once: {again:?}");
}

/// Who is called for critical roots only would hear of it from nobody.
#[test]
fn a_root_that_is_milder_takes_no_page_away() {
    for (severity, expected) in [(Warning, 2), (Critical, 1)] {
        let mut hook = Hook::default();
        let told: Vec<Line> = (0..3).flat_map(|_| hook.tick(&follows(stalled(severity), full(Critical)))).collect();
        assert_eq!(pages(&told), expected, "{severity:?}: {told:?}");
    }
}

#[test]
fn what_outlives_its_root_becomes_a_page() {
    let mut hook = Hook::default();
    let mut told = Vec::new();
    (0..3).for_each(|_| told.extend(hook.tick(&follows(stalled(Critical), full(Critical)))));
    assert_eq!(pages(&told), 1);
    told.clear();
    (0..2).for_each(|_| told.extend(hook.tick(&[full(Critical)])));
    assert_eq!(pages(&told), 0, "what follows may end a little later: {told:?}");
    (0..5).for_each(|_| told.extend(hook.tick(&[full(Critical)])));
    assert_eq!(pages(&told), 1, "{told:?}");
}

#[test]
fn each_time_is_told_with_its_own_events_and_what_nobody_heard_of_appears() {
    let harmless = || {
        let mut ranked = ranked("abortive-close", Info, 100.0);
        ranked.finding.state = State::Benign;
        ranked
    };
    let fault = || ranked("abortive-close", Critical, 1.0);
    let mut hook = Hook::default();
    let mut told: Vec<Line> = Vec::new();
    (0..3).for_each(|_| told.extend(hook.tick(&[harmless()])));
    (0..4).for_each(|_| told.extend(hook.tick(&[])));
    assert_eq!(told, []);
    (0..2).for_each(|_| told.extend(hook.tick(&[fault()])));
    (0..6).for_each(|_| told.extend(hook.tick(&[])));
    let whats: Vec<_> = told.iter().map(|line| (line.0, line.3)).collect();
    assert_eq!(whats.last(), Some(&("ended", 4)), "without the 600 of which nobody was told: {whats:?}");
    assert_eq!(whats[0].0, "appeared");
    told.clear();
    (0..2).for_each(|_| told.extend(hook.tick(&[fault()])));
    assert_eq!(told[0].0, "again");
    assert!(told[0].3 <= 4, "{told:?}");
}

/// A page that was opened is closed, however mild the fault was in the end.
#[test]
fn the_end_of_what_was_told_is_told_where_it_eased_before() {
    let mut hook = Hook::default();
    (0..3).for_each(|_| drop(hook.tick(&[full(Critical)])));
    let mut told: Vec<Line> = (0..6).flat_map(|_| hook.tick(&[full(Info)])).collect();
    told.extend((0..4).flat_map(|_| hook.tick(&[])));
    assert_eq!(told.iter().filter(|line| line.0 == "ended").count(), 1, "{told:?}");
}
