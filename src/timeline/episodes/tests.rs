use super::*;
use crate::cause::{Subject, SubjectKind};
use crate::timeline::testing::{Row, WINDOW, ranked};

fn warning(per_s: f64) -> Ranked {
    ranked("abortive-close", Severity::Warning, per_s)
}

/// The first window holds only a part of a fault's beginning; that there is more of it in the next is no news.
#[test]
fn the_first_whole_window_worsens_nothing() {
    let mut row = Row::new();
    assert_eq!(row.tick(&[warning(1.5)]), [What::Appeared]);
    assert_eq!(row.tick(&[warning(9.0)]), []);
    assert_eq!(row.tick(&[warning(10.0)]), []);
    assert_eq!(row.tick(&[warning(30.0)]), [What::Worsened], "three times of what it was");
    let mut row = Row::new();
    assert_eq!(row.tick(&[warning(1.5)]), [What::Appeared]);
    assert_eq!(row.tick(&[ranked("abortive-close", Severity::Critical, 9.0)]), [What::Worsened], "it is worse");
}

/// Five connects a second wait for ten seconds each and end: so many ended and wait as there were.
#[test]
fn what_waits_and_ends_later_is_counted_once() {
    let mut row = Row::new();
    let waits = |standing: u64, ended: u64| {
        let mut ranked = warning(5.0);
        ranked.finding.impact.events = standing + ended;
        ranked.finding.standing = standing;
        ranked
    };
    row.tick(&[]);
    for standing in [10, 20, 30, 40, 50] {
        row.tick(&[waits(standing, 0)]);
    }
    (0..5).for_each(|_| drop(row.tick(&[waits(50, 10)])));
    row.tick(&[waits(0, 50)]);
    assert_eq!(row.timeline.episodes()[0].events, 100);
}

#[test]
fn a_cause_appears_with_its_first_window_and_ends_with_the_first_quiet_one() {
    let mut row = Row::new();
    assert_eq!(row.tick(&[]), []);
    assert_eq!(row.tick(&[warning(10.0)]), [What::Appeared]);
    assert_eq!(row.tick(&[warning(11.0)]), []);
    assert_eq!(row.timeline.status(), Some(Status::Warning));
    let ended = row.events(&[]).remove(0);
    assert_eq!((ended.what, ended.lasted, ended.events), (What::Ended, 2 * WINDOW, 42));
    assert_eq!(ended.at.mono, row.at.mono - WINDOW, "it ended with the last window in which it was found");
    assert_eq!(row.timeline.status(), None);
}

#[test]
fn what_comes_and_goes_is_soon_one_thing_that_goes_on() {
    let mut row = Row::new();
    let mut told = Vec::new();
    for _ in 0..60 {
        told.extend(row.tick(&[warning(3.0)]));
        told.extend(row.tick(&[]));
    }
    assert_eq!(told, [What::Appeared, What::Ended, What::Again], "not 120 times");
    assert_eq!(row.timeline.episodes()[0].times, 2);
    assert_eq!(row.timeline.status(), Some(Status::Warning));
}

#[test]
fn half_a_minute_of_quiet_ends_anything() {
    let mut row = Row::new();
    for _ in 0..20 {
        row.tick(&[warning(3.0)]);
        while !row.tick(&[]).contains(&What::Ended) {}
    }
    row.tick(&[warning(3.0)]);
    let quiet = (1..100).find(|_| row.tick(&[]).contains(&What::Ended));
    assert_eq!(quiet, Some(15), "15 ticks of 2 s");
}

#[test]
fn worse_is_believed_at_once_and_better_after_three_ticks() {
    let mut row = Row::new();
    row.tick(&[warning(3.0)]);
    assert_eq!(row.tick(&[ranked("abortive-close", Severity::Critical, 4.0)]), [What::Worsened]);
    assert_eq!(row.tick(&[warning(3.0)]), []);
    assert_eq!(row.tick(&[warning(3.0)]), []);
    assert_eq!(row.timeline.status(), Some(Status::Critical));
    assert_eq!(row.tick(&[warning(3.0)]), [What::Eased]);
    assert_eq!(row.timeline.status(), Some(Status::Warning));
}

#[test]
fn a_usual_rate_that_touches_a_threshold_is_no_alarm() {
    let mut row = Row::new();
    let seen = |per_s| ranked("abortive-close", Severity::Info, per_s);
    for tick in 0..40 {
        row.tick(&[seen(2.0 + f64::from(tick % 3))]);
    }
    row.learned = true;
    row.tick(&[seen(3.0)]);
    assert_eq!(row.tick(&[warning(4.0)]), [], "4 per s is nothing new here");
    assert_eq!(row.timeline.status(), None);
    row.tick(&[seen(3.0)]);
    assert_eq!(row.tick(&[warning(40.0)]), [What::Worsened], "40 per s is");
    assert_eq!(row.timeline.status(), Some(Status::Warning));
}

#[test]
fn a_rate_that_triples_is_told_once() {
    let mut row = Row::new();
    row.tick(&[warning(10.0)]);
    row.tick(&[warning(10.0)]);
    assert_eq!(row.tick(&[warning(29.0)]), []);
    assert_eq!(row.tick(&[warning(30.0)]), [What::Worsened]);
    assert_eq!(row.tick(&[warning(31.0)]), []);
}

#[test]
fn rows_keep_their_places_while_rates_wobble() {
    let mut row = Row::new();
    let (a, b) = (warning(10.0), ranked("peer-reset", Severity::Warning, 9.0));
    row.tick(&[a.clone(), b.clone()]);
    row.tick(&[b.clone(), a.clone()]);
    assert_eq!(row.ids(), ["abortive-close", "peer-reset"]);
    let root = ranked("process-exit", Severity::Critical, 9.0);
    row.tick(&[root.clone(), b.clone(), a.clone()]);
    assert_eq!(row.ids(), ["process-exit", "abortive-close", "peer-reset"]);
    row.tick(&[b, a]);
    assert_eq!(row.ids(), ["abortive-close", "peer-reset", "process-exit"], "what ended goes last");
}

#[test]
fn what_appears_while_the_first_one_ends_ranks_where_it_belongs() {
    let mut row = Row::new();
    let first = ranked("accept-loop-stalled", Severity::Critical, 9.0);
    let second = ranked("accept-queue-overflow", Severity::Critical, 9.0);
    row.tick(&[first, second.clone()]);
    row.tick(&[second, warning(3.0)]);
    assert_eq!(row.ids(), ["accept-queue-overflow", "abortive-close", "accept-loop-stalled"]);
}

#[test]
fn a_restarted_server_is_the_same_place_and_another_port_is_not() {
    let mut row = Row::new();
    let on = |port, pid| {
        let mut ranked = warning(5.0);
        let listener = Subject { port: Some(port), pid: Some(pid), ..Subject::new(SubjectKind::Listener) };
        ranked.finding.subjects.push(listener);
        ranked
    };
    assert_eq!(row.tick(&[on(80, 1)]), [What::Appeared]);
    assert_eq!(row.tick(&[on(80, 2)]), []);
    assert_eq!(row.tick(&[on(80, 2), on(81, 2)]), [What::Appeared]);
    assert_eq!(row.timeline.episodes()[1].key.place.to_string(), "port 81");
}

#[test]
fn hints_and_the_past_are_not_followed() {
    let mut row = Row::new();
    let (mut hint, mut past) = (warning(5.0), warning(5.0));
    hint.finding.confidence = 0.4;
    past.finding.state = State::Past;
    assert_eq!(row.tick(&[hint, past]), []);
}

#[test]
fn what_is_long_over_is_forgotten() {
    let mut row = Row::new();
    row.tick(&[warning(5.0)]);
    (0..299).for_each(|_| drop(row.tick(&[])));
    assert_eq!(row.ids().len(), 1);
    (0..3).for_each(|_| drop(row.tick(&[])));
    assert_eq!(row.ids().len(), 0);
}

#[test]
fn what_could_not_be_looked_at_has_not_ended() {
    let mut row = Row::new();
    row.tick(&[warning(3.0)]);
    row.quiet.status = Status::Unknown;
    assert!(row.quiet.not_checked.iter().any(|cause| cause.id == "abortive-close"));
    let blind = (1..100).find(|_| row.tick(&[]).contains(&What::Ended));
    assert_eq!(blind, Some(16), "more than half a minute of it is too old to go on");
    let mut row = Row::new();
    row.tick(&[warning(3.0)]);
    row.quiet.status = Status::Unknown;
    assert_eq!(row.tick(&[]), []);
    assert_eq!((row.timeline.episodes()[0].phase, row.timeline.status()), (Phase::Quiet, Some(Status::Warning)));
    assert_eq!(row.tick(&[warning(3.0)]), [], "it goes on");
    row.quiet.status = Status::Ok;
    assert_eq!(row.tick(&[]), [What::Ended]);
}

/// A full SYN queue answers by cookie in one window and loses SYNs in the next.
#[test]
fn what_is_harmless_now_and_then_is_one_fault() {
    let harmless = || {
        let mut ranked = warning(30.0);
        (ranked.finding.state, ranked.finding.severity) = (State::Benign, Severity::Info);
        ranked.finding.summary = "none lost".to_owned();
        ranked
    };
    let mut row = Row::new();
    row.tick(&[warning(3.0)]);
    for _ in 0..5 {
        assert_eq!(row.tick(&[harmless()]), []);
        assert_eq!(row.timeline.status(), Some(Status::Warning));
        assert_eq!(row.timeline.episodes()[0].latest.finding.summary, "something happened", "beside a warning");
        assert_eq!(row.tick(&[warning(3.0)]), []);
    }
    row.tick(&[harmless()]);
    let ended = row.events(&[]).remove(0);
    assert!(ended.what == What::Ended && !ended.harmless, "what was told of has an end that is told, too");
    let again = row.events(&[harmless()]).remove(0);
    assert!(again.what == What::Again && again.harmless, "this time it is no fault");
    assert!(row.timeline.episodes()[0].faulted, "but it was");
    let mut row = Row::new();
    assert!(row.events(&[harmless()]).remove(0).harmless);
    assert!(row.events(&[]).remove(0).harmless && !row.timeline.episodes()[0].faulted);
}

/// What is still there is counted in each window, and is no more for that.
#[test]
fn what_stays_counts_once_and_what_comes_counts_each_time() {
    let mut row = Row::new();
    let left = |standing: u64, passed: u64| {
        let mut ranked = warning(0.0);
        ranked.finding.impact.events = standing + passed;
        ranked.finding.standing = standing;
        ranked
    };
    row.tick(&[left(20, 0)]);
    (0..60).for_each(|_| drop(row.tick(&[left(25, 1)])));
    let ended = row.events(&[]).remove(0);
    assert_eq!(ended.events, 25 + 60);
}

/// In the window in which a fault ends, its root may be over already while its nearer cause is not: what was known stays.
#[test]
fn what_explains_something_is_told_as_deep_as_it_was_seen_while_that_goes_on() {
    let one = |id| ranked(id, Severity::Critical, 10.0);
    let because = |mut of: Ranked, place: usize, id| {
        of.because_of = Some(crate::diagnosis::rank::BecauseOf { id, place });
        of
    };
    let (stalled, full, silent) = ("accept-loop-stalled", "accept-queue-overflow", "connect-unanswered");
    let whole = [one(stalled), because(one(full), 0, stalled), because(one(silent), 0, stalled)];
    let nearer = [one(full), because(one(silent), 0, full)];
    let root = |row: &Row| {
        let episode = row.timeline.episodes().iter().find(|episode| episode.key.id == silent).expect("it goes on");
        episode.root.as_ref().map(|root| root.key.id)
    };
    let mut row = Row::new();
    row.tick(&nearer);
    assert_eq!(root(&row), Some(full));
    row.tick(&whole);
    row.tick(&whole);
    assert_eq!(root(&row), Some(stalled));
    row.tick(&nearer);
    assert_eq!(root(&row), Some(stalled), "it ended with this window");
    row.tick(&nearer);
    assert_eq!(root(&row), Some(full), "it is over");
}

/// Two windows that tell of two faults in turn that each follows from the other: one of them must be somebody's page.
#[test]
fn nothing_follows_from_itself() {
    let one = |id| ranked(id, Severity::Critical, 10.0);
    let (a, b) = ("accept-queue-overflow", "connect-unanswered");
    let mut row = Row::new();
    for (root, symptom) in [(a, b), (b, a), (a, b)] {
        row.tick(&crate::timeline::testing::follows(one(root), one(symptom)));
        let roots: Vec<_> = row.timeline.episodes().iter().filter_map(|episode| episode.root.as_ref()).collect();
        assert_eq!((roots.len(), roots[0].key.id), (1, root));
    }
}
