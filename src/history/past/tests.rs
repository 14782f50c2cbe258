mod gaps;

use super::*;
use crate::diagnosis::Status;
use crate::history::{Started, Stopped};

const MINUTE: u64 = 60_000;
const START: u64 = 1_000 * MINUTE;

fn wanted(minutes: u64) -> Wanted {
    Wanted { since: START, until: START + minutes * MINUTE, ..Wanted::default() }
}

fn started(at: u64) -> Entry {
    Entry::Started(Started {
        at,
        version: "1".into(),
        interval_s: 2.0,
        hostname: None,
        kernel: None,
        redacted: false,
        tells_roots: true,
    })
}

fn minute(from: u64) -> Account {
    Account { from, until: from + MINUTE, ticks: 30, status: Some(Status::Ok), ..Account::default() }
}

fn event(what: What, at: u64, since: u64, events: u64) -> Entry {
    Entry::Event(Event {
        what,
        at,
        since,
        from_start: false,
        id: "accept-queue-overflow".into(),
        title: "Accept queue overflow".into(),
        place: Place { at: "port 80".into(), port: Some(80), process: Some("api".into()), ..Place::default() },
        severity: Severity::Critical,
        state: State::Active,
        harmless: false,
        summary: "it overflows".into(),
        per_s: 10.0,
        unit: "connection attempts".into(),
        events,
        times: 1,
        attempts: None,
        failures: None,
        because_of: None,
        evidence: Vec::new(),
        remedies: Vec::new(),
    })
}

fn spans(past: &Past) -> Vec<Span> {
    past.missing.iter().map(|gap| gap.span).collect()
}

fn past(minutes: u64, entries: impl IntoIterator<Item = Entry>, written: bool) -> Past {
    let mut past = Past::new(wanted(minutes), 10);
    entries.into_iter().for_each(|entry| past.push(entry));
    past.finish(written.then_some(START + minutes * MINUTE))
}

#[test]
fn an_episode_has_its_own_events_however_often_it_came_before() {
    let past = past(
        10,
        [
            started(START),
            event(What::Appeared, START + 2_000, START, 5),
            event(What::Ended, START + 8_000, START, 30),
            event(What::Again, START + 20_000, START + 18_000, 34),
            event(What::Ended, START + 24_000, START + 18_000, 40),
        ],
        true,
    );
    let told: Vec<_> = past.episodes.iter().map(|e| (e.span.from - START, e.span.until - START, e.events)).collect();
    assert_eq!(told, [(0, 8_000, 30), (18_000, 24_000, 10)]);
    assert!(past.episodes.iter().all(|episode| episode.ending == Ending::Ended && episode.is_fault()));
}

/// One failure every five seconds, which is told of as a fault with the third, and as one since the first.
#[test]
fn notes_that_together_are_a_fault_are_a_part_of_it() {
    let long_ago = [event(What::Appeared, START + 2_000, START, 1), event(What::Ended, START + 2_000, START, 1)];
    let minute = START + MINUTE;
    let entries = [
        event(What::Again, minute + 2_000, minute, 2),
        event(What::Ended, minute + 2_000, minute, 2),
        event(What::Again, minute + 8_000, minute + 6_000, 3),
        event(What::Ended, minute + 8_000, minute + 6_000, 3),
        event(What::Worsened, minute + 14_000, minute, 4),
        event(What::Ended, minute + 20_000, minute, 6),
    ];
    let of = |entries: Vec<Entry>| -> Vec<_> {
        let past = past(10, [started(START)].into_iter().chain(entries), true);
        past.episodes.iter().map(|e| (e.span.from - START, e.span.until - START, e.events)).collect()
    };
    let told = [(0, 2_000, 1), (MINUTE, MINUTE + 20_000, 5)];
    assert_eq!(of(long_ago.iter().chain(&entries).cloned().collect()), told);
    // The second note was held, and had not ended.
    let held = entries.iter().enumerate().filter(|(index, _)| *index != 3).map(|(_, entry)| entry);
    assert_eq!(of(long_ago.iter().chain(held).cloned().collect()), told);
}

#[test]
fn what_goes_on_and_what_was_not_seen_to_end_differ() {
    let mut on = minute(START);
    let cause = super::super::ActiveCause {
        id: "accept-queue-overflow".into(),
        place: Place { at: "port 80".into(), ..Place::default() },
        severity: Severity::Critical,
        state: State::Active,
        events: 5,
        standing: 0,
        per_s: None,
        because_of: None,
    };
    on.causes.push(cause);
    let begun = [started(START), event(What::Appeared, START + 2_000, START, 5), Entry::Minute(on)];
    assert_eq!(past(2, begun.clone(), true).episodes[0].ending, Ending::GoesOn);
    // Killed, and started again ten minutes later, when it was over.
    let later = [started(START + 10 * MINUTE), Entry::Minute(minute(START + 10 * MINUTE))];
    let past = past(11, begun.into_iter().chain(later), true);
    assert_eq!(past.episodes[0].ending, Ending::NotSeen);
    assert_eq!(spans(&past), [Span { from: START + MINUTE, until: START + 10 * MINUTE }]);
}

fn with_cause(mut account: Account, events: u64) -> Entry {
    account.causes.push(super::super::ActiveCause {
        id: "accept-queue-overflow".into(),
        place: Place { at: "port 80".into(), ..Place::default() },
        severity: Severity::Critical,
        state: State::Active,
        events,
        standing: 0,
        per_s: None,
        because_of: None,
    });
    Entry::Minute(account)
}

/// Of what goes on there is no news: how much of it there was is told by the minutes.
#[test]
fn what_goes_on_is_counted_by_minutes() {
    let minutes = (0..3).map(|number| with_cause(minute(START + number * MINUTE), 500));
    let begun = [started(START), event(What::Appeared, START + 2_000, START, 5)];
    let past = past(3, begun.into_iter().chain(minutes), true);
    assert_eq!((past.episodes.len(), past.episodes[0].events), (1, 1_500));
}

/// The machine slept for an hour: CLOCK_BOOTTIME and the clock went on, nobody looked.
#[test]
fn a_suspend_is_a_time_that_was_not_recorded() {
    let before = (0..3).map(|number| with_cause(minute(START + number * MINUTE), 10));
    let slept = Entry::Change { at: START + 63 * MINUTE, text: "the machine was suspended for 60 min".into() };
    let after = (63..65).map(|number| with_cause(minute(START + number * MINUTE), 10));
    let begun = [started(START), event(What::Appeared, START + 2_000, START, 5)];
    let past = past(65, begun.into_iter().chain(before).chain([slept]).chain(after), true);
    assert_eq!(spans(&past), [Span { from: START + 3 * MINUTE, until: START + 63 * MINUTE }]);
    assert_eq!((past.changes.len(), past.episodes.len(), past.account.ticks), (1, 1, 5 * 30));
}

#[test]
fn what_was_not_recorded_is_said() {
    let recorded = (2..5).map(|number| Entry::Minute(minute(START + number * MINUTE)));
    let stopped = [Entry::Stopped(Stopped { at: START + 5 * MINUTE })];
    let past = past(10, [started(START + 2 * MINUTE)].into_iter().chain(recorded).chain(stopped), false);
    let gaps: Vec<_> =
        past.missing.iter().map(|gap| ((gap.span.from - START) / MINUTE, (gap.span.until - START) / MINUTE)).collect();
    assert_eq!(gaps, [(0, 2), (5, 10)]);
    let parts: Vec<usize> =
        past.recorded().iter().enumerate().filter(|(_, known)| **known).map(|(index, _)| index).collect();
    assert_eq!(parts, [2, 3, 4]);
    assert!(super::Past::new(wanted(1), 4).finish(Some(START + MINUTE)).is_empty());
}

/// An hour that the clock shows twice: both accounts count, and nothing is missing that was recorded.
#[test]
fn a_clock_that_was_set_back_loses_nothing() {
    let first = (0..5).map(|number| Entry::Minute(minute(START + number * MINUTE)));
    let again = (2..8).map(|number| Entry::Minute(minute(START + number * MINUTE)));
    let past = past(8, [started(START)].into_iter().chain(first).chain(again), true);
    assert_eq!((past.account.ticks, past.missing.len()), (11 * 30, 0));
}

#[test]
fn an_entry_of_a_later_version_is_counted_and_no_more() {
    let later: Entry = serde_json::from_str(r#"{"entry":"weather","at":1}"#).unwrap();
    let more: Entry = serde_json::from_str(r#"{"entry":"stopped","at":7,"later":[1]}"#).unwrap();
    assert_eq!(more, Entry::Stopped(Stopped { at: 7 }));
    let past = past(1, [started(START), later], true);
    assert_eq!(past.unknown, 1);
}

/// A tick of two seconds in which the cause was active and so many of ten connections failed.
fn tick(at: u64, failed: u64) -> Account {
    let place = Place { at: "port 80".into(), port: Some(80), ..Place::default() };
    let service = Service { place, attempts: Some(10), failures: Some(failed), ..Service::default() };
    let Entry::Minute(account) = with_cause(minute(at), failed) else { panic!("a minute") };
    Account { until: at + 2_000, ticks: 1, status: Some(Status::Critical), services: vec![service], ..account }
}

/// A minute that is the sum of these ticks and of others in which nothing was wrong.
fn sum(from: u64, ticks: &[Account]) -> Entry {
    let mut sum = Account::default();
    ticks.iter().for_each(|tick| sum.add(tick));
    Entry::Minute(Account { from, until: from + MINUTE, ticks: 30, ..sum })
}

#[test]
fn what_lies_outside_of_the_time_is_no_part_of_it() {
    let inside = [tick(START + 10_000, 3), tick(START + 12_000, 4)];
    let outside = [tick(START + 70_000, 9)];
    let begun = [started(START), event(What::Appeared, START + 12_000, START + 10_000, 3)];
    let over = [event(What::Ended, START + 14_000, START + 10_000, 7)];
    let again = [event(What::Again, START + 72_000, START + 70_000, 16)];
    let entries = begun.into_iter().chain(inside.clone().map(Entry::Tick)).chain(over);
    let entries = entries.chain([sum(START, &inside)]).chain(again).chain(outside.clone().map(Entry::Tick));
    let entries = entries.chain([sum(START + MINUTE, &outside), Entry::Minute(minute(START + 5 * MINUTE))]);
    let told = |since: u64, until: u64| {
        let mut past = Past::new(Wanted { since: START + since, until: START + until, ..Wanted::default() }, 10);
        entries.clone().for_each(|entry| past.push(entry));
        past.finish(Some(START + 6 * MINUTE))
    };
    let failed = |past: &Past| past.services.iter().flat_map(|row| row.failed.iter().flatten()).sum::<u64>();
    let whole = told(5_000, 50_000);
    assert_eq!((failed(&whole), whole.episodes.len(), &spans(&whole)[..]), (7, 1, &[][..]));
    // A look is counted whole, and it is said.
    let second = told(13_000, 13_500);
    assert_eq!(failed(&second), 4);
    assert_eq!(second.counted, Some(Span { from: START + 12_000, until: START + 14_000 }));
    let quiet = told(20_000, 60_000);
    assert_eq!((failed(&quiet), quiet.episodes.len(), quiet.account.status), (0, 0, Some(Status::Ok)));
    let gap = told(100_000, 150_000);
    assert_eq!(spans(&gap), [Span { from: START + 2 * MINUTE, until: START + 150_000 }]);
}

/// Killed while it goes on, and started again seconds later: what the ticks tell is one episode, with a time in which nobody looked.
#[test]
fn a_recorder_that_was_killed_splits_no_episode() {
    let first = (0..4).map(|number| Entry::Tick(tick(START + number * 2_000, 10)));
    // All of four, which are few, is no worse than all of ten.
    let few = Event { attempts: Some(4), failures: Some(4), ..of(event(What::Appeared, START + 2_000, START, 10)) };
    let begun = [started(START), Entry::Event(few)].into_iter().chain(first);
    let killed = past(2, begun.clone(), false);
    let episode = &killed.episodes[0];
    assert_eq!((episode.ending, episode.span.until, episode.events), (Ending::NotSeen, START + 8_000, 40));
    assert_eq!((episode.failures, episode.attempts, episode.peak_per_s), (Some(10), Some(10), 10.0));
    let next = START + 12_000;
    let again = Event { from_start: true, ..of(event(What::Appeared, next + 2_000, next, 9)) };
    let entries = begun.clone().chain([started(next), Entry::Event(again), Entry::Tick(tick(next, 9))]);
    let on = past(1, entries, true);
    assert_eq!((on.episodes.len(), on.episodes[0].events, on.episodes[0].ending), (1, 49, Ending::GoesOn));
    assert_eq!(spans(&on), [Span { from: START + 8_000, until: next }]);
    // It was gone: the one who tells of the end knows of one tick only, and nobody saw when the rest ended.
    let entries = begun.chain([started(next), event(What::Ended, START + 2_000, START, 10)]);
    let gone = &past(1, entries, true).episodes[0];
    assert_eq!((gone.ending, gone.span.until, gone.events), (Ending::NotSeen, START + 8_000, 40));
}

fn of(entry: Entry) -> Event {
    let Entry::Event(event) = entry else { panic!("an event") };
    event
}

/// 25 connections that nobody closes are 25 after an hour, too.
#[test]
fn what_stays_is_told_as_the_most_at_once() {
    let standing = |from: u64, count: u64| {
        let mut account =
            Account { from, until: from + 2_000, ticks: 1, status: Some(Status::Warning), ..Account::default() };
        account.causes.push(super::super::ActiveCause {
            id: "accept-queue-overflow".into(),
            place: Place { at: "port 80".into(), ..Place::default() },
            severity: Severity::Warning,
            state: State::Risk,
            events: count,
            standing: count,
            per_s: None,
            because_of: None,
        });
        account
    };
    let ticks: Vec<Account> = (0..60).map(|tick| standing(START + tick * 2_000, 10 + tick.min(15))).collect();
    let mut minutes = [Account::default(), Account::default()];
    ticks.iter().enumerate().for_each(|(index, tick)| minutes[index / 30].add(tick));
    let [first, second] = minutes.clone();
    assert_eq!((first.causes[0].events, second.causes[0].events), (25, 25));
    let begun = [started(START), event(What::Appeared, START + 2_000, START, 10)];
    let told = |entries: Vec<Entry>| past(2, begun.clone().into_iter().chain(entries), true).episodes[0].events;
    assert_eq!(told(minutes.map(Entry::Minute).to_vec()), 25);
    let stored = |range: std::ops::Range<usize>, minute: Account| {
        ticks[range].iter().cloned().map(Entry::Tick).chain([Entry::Minute(minute)]).collect::<Vec<_>>()
    };
    assert_eq!(told([stored(0..30, first), stored(30..60, second)].concat()), 25);
}

#[test]
fn a_process_that_was_never_seen_is_no_process_without_faults() {
    let mut served = minute(START);
    served.services.push(Service {
        place: Place { at: "port 80".into(), port: Some(80), process: Some("web".into()), ..Place::default() },
        address: "0.0.0.0".into(),
        attempts: Some(7),
        ..Service::default()
    });
    let of = |process: &str| {
        let mut past = Past::new(Wanted { process: Some(process.into()), ..wanted(1) }, 10);
        [started(START), Entry::Minute(served.clone())].into_iter().for_each(|entry| past.push(entry));
        past.finish(None)
    };
    assert_eq!((of("web").unknown_process(), of("wbe").unknown_process()), (None, Some("wbe")));
    let nothing = Past::new(Wanted { process: Some("web".into()), ..wanted(1) }, 10).finish(None);
    assert_eq!(nothing.unknown_process(), None, "nothing was recorded, which is said instead");
}

fn read(entries: &[Entry], wanted: Wanted, buckets: usize) -> Past {
    let mut past = Past::new(wanted, buckets);
    entries.iter().for_each(|entry| past.push(entry.clone()));
    past.finish(None)
}

/// Every tick of 40 s has failures: none of its columns says that nothing failed, however short they would be.
#[test]
fn an_outage_has_no_gaps_where_columns_would_be_shorter_than_ticks() {
    let ticks = (0..20).map(|number| Entry::Tick(tick(START + number * 2_000, 7)));
    let entries: Vec<Entry> = [started(START)].into_iter().chain(ticks).collect();
    let times = [(0, 40_000), (500, 39_000), (3_000, 34_100), (1_000, 3_000), (2_100, 2_900)];
    // When the recorder began may be told by a part of the index that is deleted.
    for ((from, until), known) in times.into_iter().flat_map(|time| [(time, 0), (time, 1)]) {
        let wanted = Wanted { since: START + from, until: START + until, ..Wanted::default() };
        let past = read(&entries[known..], wanted, 48);
        let row = &past.services[0].failed;
        assert!(row.iter().all(|failed| failed.is_some_and(|failed| failed > 0)), "{from} to {until}: {row:?}");
        assert_eq!(row.len(), past.recorded().len());
        assert!((until - from) / row.len() as u64 >= 2_000.min(until - from), "{from} to {until}: {}", row.len());
        assert_eq!(past.services[0].failures(), past.services[0].service.failures.unwrap(), "none is lost");
    }
}

/// A fault that is over leaves the columns behind it empty.
#[test]
fn what_failed_in_one_tick_failed_in_no_other() {
    let ticks = (0..20).map(|number| Entry::Tick(tick(START + number * 2_000, if number == 4 { 9 } else { 0 })));
    let entries: Vec<Entry> = [started(START)].into_iter().chain(ticks).collect();
    let past = read(&entries, Wanted { since: START, until: START + 40_000, ..Wanted::default() }, 48);
    let row = &past.services[0].failed;
    assert_eq!((row.len(), row.iter().filter(|failed| **failed == Some(0)).count(), row[4]), (20, 19, Some(9)));
}

fn caused(what: What, id: &str, root: Option<&str>) -> Entry {
    let place = of(event(what, START, START, 1)).place;
    let because_of = root.map(|id| Root { id: id.into(), place: Place { process: None, ..place } });
    Entry::Event(Event { id: id.into(), because_of, ..of(event(what, START + 2_000, START, 5)) })
}

#[test]
fn what_follows_from_another_episode_is_tied_to_it() {
    let story = |entries: &[Entry]| -> Vec<Option<String>> {
        let past = read(entries, wanted(1), 10);
        past.episodes.iter().map(|episode| Some(past.episodes[episode.root?].id.clone())).collect()
    };
    let (overflow, stalled) = ("accept-queue-overflow", "accept-loop-stalled");
    let entries =
        [started(START), caused(What::Appeared, overflow, Some(stalled)), caused(What::Appeared, stalled, None)];
    assert_eq!(story(&entries), [Some(stalled.to_owned()), None]);
    // Its cause ended an hour before, or was never seen.
    assert_eq!(story(&entries[..2]), [None]);
    // Each was said to follow from the other, as one and the other grew: there is one root.
    let entries = [
        started(START),
        caused(What::Appeared, overflow, Some(stalled)),
        caused(What::Appeared, stalled, Some(overflow)),
    ];
    assert_eq!(story(&entries).iter().filter(|root| root.is_none()).count(), 1);
}

/// That one explains the other may show only when both have grown: ticks tell it as well.
#[test]
fn a_tick_may_be_the_first_that_knows_the_root() {
    let mut tick = tick(START + 2_000, 5);
    let place = tick.causes[0].place.clone();
    tick.causes[0].because_of = Some(Root { id: "accept-loop-stalled".into(), place });
    let entries = [
        started(START),
        caused(What::Appeared, "accept-queue-overflow", None),
        caused(What::Appeared, "accept-loop-stalled", None),
        Entry::Tick(tick),
    ];
    let past = read(&entries, wanted(1), 10);
    assert_eq!(past.episodes.iter().map(|episode| episode.root).collect::<Vec<_>>(), [Some(1), None]);
}

/// Who asks for a port wants to know of those that call it, too, and of no other.
#[test]
fn a_port_is_that_of_a_service_and_that_which_is_called() {
    let called = |at: &str| {
        let place = Place { at: at.into(), process: Some("web".into()), ..Place::default() };
        Entry::Event(Event { place, ..of(event(What::Appeared, START + 2_000, START, 5)) })
    };
    let entries = [started(START), called("127.0.0.1:8080"), called("[::1]:8081"), called("process web")];
    let places = |port: u16| -> Vec<String> {
        let past = read(&entries, Wanted { ports: [port].into(), ..wanted(1) }, 10);
        past.episodes.iter().map(|episode| episode.place.at.clone()).collect()
    };
    assert_eq!((places(8080), places(8081)), (vec!["127.0.0.1:8080".to_owned()], vec!["[::1]:8081".to_owned()]));
    assert!(places(9999).is_empty());
}

#[test]
fn what_was_not_asked_for_makes_no_verdict() {
    let entries = [started(START), event(What::Appeared, START + 2_000, START, 5), Entry::Tick(tick(START, 5))];
    let status = |wanted: Wanted| read(&entries, wanted, 10).status();
    assert_eq!(status(wanted(1)), Some(Status::Critical));
    assert_eq!(status(Wanted { ports: [80].into(), ..wanted(1) }), Some(Status::Critical));
    assert_eq!(status(Wanted { ports: [9999].into(), ..wanted(1) }), Some(Status::Ok));
    assert_eq!(status(Wanted { cause: Some("syn-flood".into()), ..wanted(1) }), Some(Status::Ok));
    assert_eq!(status(Wanted { netns: Some("blue".into()), ..wanted(1) }), Some(Status::Ok));
}

/// An index of the version before knows nothing of roots.
#[test]
fn what_an_earlier_version_wrote_is_read() {
    let text = r#"{"entry":"event","what":"appeared","at":60002000,"since":60000000,"id":"abortive-close","title":"t",
        "place":{"at":"port 80","port":80},"severity":"critical","state":"active","summary":"s","per_s":1.0,"unit":"resets",
        "events":3,"times":1}"#;
    let tick = r#"{"entry":"tick","from":60000000,"until":60002000,"ticks":1,"status":"critical","causes":[{"id":"abortive-close",
        "place":{"at":"port 80","port":80},"severity":"critical","state":"active","events":3}]}"#;
    let entries: Vec<Entry> = [text, tick].iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    let past = read(&[vec![started(START)], entries].concat(), wanted(1), 10);
    assert_eq!((past.episodes.len(), past.episodes[0].events, past.episodes[0].root), (1, 3, None));
}

/// Two episodes of it may be one fault: nobody is told that they are two without that.
#[test]
fn an_earlier_version_did_not_tell_what_follows_from_what() {
    let told = |tells_roots: bool, ids: &[&str]| {
        let Entry::Started(begun) = started(START) else { panic!("another entry") };
        let of = |id: &&str| {
            let Entry::Event(event) = event(What::Appeared, START + 2_000, START, 5) else { panic!("another entry") };
            Entry::Event(Event { id: (*id).to_owned(), ..event })
        };
        let entries = std::iter::once(Entry::Started(Started { tells_roots, ..begun })).chain(ids.iter().map(of));
        past(1, entries, true).problems.concat().contains("may be one fault")
    };
    let both = ["accept-queue-overflow", "connect-unanswered"];
    assert!(told(false, &both));
    assert!(!told(true, &both), "this one tells");
    assert!(!told(false, &both[..1]), "one is one");
}

/// Each tick has four connections, all of which fail; a window that counts those that are open, too, told of a smaller share.
#[test]
fn the_share_of_a_whole_episode_is_no_less_than_that_of_its_ticks() {
    let few = |number: u64, failed: u64| {
        let mut tick = tick(START + number * 2_000, failed);
        tick.services[0].attempts = Some(4);
        Entry::Tick(tick)
    };
    let first = Event { attempts: Some(12), failures: Some(8), ..of(event(What::Appeared, START + 2_000, START, 8)) };
    let share = |failed: u64| {
        let ticks = (0..10).map(|number| few(number, failed));
        let entries: Vec<Entry> = [started(START), Entry::Event(first.clone())].into_iter().chain(ticks).collect();
        let past = read(&entries, wanted(1), 10);
        (past.episodes[0].failures, past.episodes[0].attempts)
    };
    assert_eq!(share(4), (Some(40), Some(40)));
    assert_eq!(share(1), (Some(8), Some(12)), "the worst window stays the worst");
}

/// What `watch` told live is what the index tells later: a rate leaves out what only stood there.
#[test]
fn the_highest_rate_is_the_one_that_was_told_live() {
    let tick = |per_s| {
        let Entry::Minute(mut account) = with_cause(minute(START), 46) else { panic!("another entry") };
        account.until = START + 2_000;
        account.causes.iter_mut().for_each(|cause| cause.per_s = per_s);
        Entry::Tick(account)
    };
    let peak = |per_s| {
        let entries = [started(START), event(What::Appeared, START + 1_000, START, 5), tick(per_s)];
        past(1, entries, true).episodes[0].peak_per_s
    };
    assert!((peak(Some(12.0)) - 12.0).abs() < 0.01, "{}", peak(Some(12.0)));
    assert!((peak(None) - 23.0).abs() < 0.01, "an earlier version told none: {}", peak(None));
}
