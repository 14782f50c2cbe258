//! Entries that cannot be read.

use super::*;

/// What is wrong behind entries that cannot be read is told, whatever they told of its beginning; and what is there only once it
/// was well again began then.
#[test]
fn what_goes_on_behind_a_gap_is_an_episode() {
    let tick = |from: u64, fault: bool| {
        let account =
            Account { from, until: from + 2_000, ticks: 1, status: Some(Status::Critical), ..Account::default() };
        let Entry::Minute(mut told) = with_cause(account, 5) else { panic!("an account") };
        if !fault {
            told.causes.clear();
        }
        Entry::Tick(told)
    };
    let told = |entries: &[Option<Entry>]| {
        let mut past = Past::new(wanted(10), 10);
        past.push(started(START));
        for entry in entries.iter().cloned() {
            match entry {
                Some(entry) => past.push(entry),
                None => past.unread(),
            }
        }
        past.finish(Some(START + 10 * MINUTE)).episodes
    };
    let gap = START + 3 * MINUTE;
    let on = [None, Some(tick(gap, true)), Some(tick(gap + 2_000, true))];
    let episodes = told(&on);
    let spans: Vec<_> =
        episodes.iter().map(|own| (own.span.from, own.span.until, own.events, own.is_fault())).collect();
    assert_eq!(spans, [(gap, gap + 4_000, 10, true)]);
    assert!(episodes[0].from_start && episodes[0].title == "Accept queue overflow", "{episodes:?}");
    // Its end tells when it began.
    let ended = Some(event(What::Ended, gap + 6_000, gap - 20_000, 300));
    let episodes = told(&[&on[..], &[ended]].concat());
    let spans: Vec<_> = episodes.iter().map(|own| (own.span.from, own.span.until, own.events)).collect();
    assert_eq!(spans, [(gap - 20_000, gap + 6_000, 300)]);
    assert_eq!((episodes[0].ending, &*episodes[0].unit), (Ending::Ended, "connection attempts"));
    // Well in between, and what is listed without an event is no episode, as it is none without a gap.
    let well = Some(Entry::Minute(minute(gap)));
    assert_eq!(told(&[None, well, Some(tick(gap + MINUTE, true))]), []);
    assert_eq!(told(&[None, Some(tick(gap, false)), Some(tick(gap + 2_000, true))]), []);
}

/// The end that was told in them is not counted from.
#[test]
fn an_episode_after_a_gap_has_its_own_events() {
    let mut past = Past::new(wanted(10), 10);
    past.push(started(START));
    past.push(event(What::Appeared, START + 2_000, START, 5));
    past.push(event(What::Ended, START + 8_000, START, 30));
    past.unread();
    // Another 400 are of an episode that nobody can read of: 10 in each of four seconds are its own.
    past.push(event(What::Again, START + 304_000, START + 300_000, 470));
    past.push(event(What::Ended, START + 308_000, START + 300_000, 500));
    let episodes = past.finish(None).episodes;
    assert_eq!(episodes.iter().map(|own| own.events).collect::<Vec<_>>(), [30, 70]);
}
