//! Entries that could not be written, or cannot be read.

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

/// The disk was full for two of five minutes.
#[test]
fn what_could_not_be_written_is_no_time_without_a_recorder() {
    let why = "No space left on device".to_owned();
    let lost = Entry::Lost { from: START + 90_000, until: START + 3 * MINUTE + 10_000, why: why.clone() };
    let entries = [
        started(START),
        Entry::Minute(minute(START)),
        lost,
        // The minute in which it could be written again, and the sum of which was kept.
        Entry::Minute(minute(START + 3 * MINUTE)),
        Entry::Minute(minute(START + 4 * MINUTE)),
        Entry::Stopped(Stopped { at: START + 5 * MINUTE }),
    ];
    let past = read(&entries, wanted(6), 10);
    let gaps: Vec<_> =
        past.missing.iter().map(|gap| (gap.span.from - START, gap.span.until - START, gap.why.clone())).collect();
    let because = Some(Why::NotWritten(why));
    let expected = [(MINUTE, 90_000, None), (90_000, 3 * MINUTE + 10_000, because), (5 * MINUTE, 6 * MINUTE, None)];
    assert_eq!(gaps, expected);
}

/// The index tells all of it; what is not there is what a judgement could be repeated with.
#[test]
fn where_raw_evidence_could_not_be_written_the_time_is_known() {
    let lost = |from: u64, until: u64, why: &str| Entry::RawLost {
        from: START + from * MINUTE,
        until: START + until * MINUTE,
        why: why.to_owned(),
    };
    let entries = [
        started(START),
        Entry::Minute(minute(START)),
        Entry::Minute(minute(START + MINUTE)),
        // Tried again and again, then with another reason; the first of them is before the time that is asked for.
        lost(0, 1, "the disk is full"),
        lost(1, 2, "the disk is full"),
        Entry::Minute(minute(START + 2 * MINUTE)),
        lost(2, 3, "the disk is broken"),
        Entry::Stopped(Stopped { at: START + 3 * MINUTE }),
    ];
    let asked = Wanted { since: START + MINUTE / 2, ..wanted(3) };
    let past = read(&entries, asked, 10);
    let times = past.raw_missing.iter().map(|gap| (gap.span.from - START, gap.span.until - START));
    assert_eq!(times.collect::<Vec<_>>(), [(MINUTE / 2, 2 * MINUTE), (2 * MINUTE, 3 * MINUTE)]);
    assert_eq!(past.missing, []);
    assert_eq!(past.not_written().len(), 2);
}

#[test]
fn what_cannot_be_read_was_recorded() {
    let mut past = Past::new(wanted(5), 10);
    [started(START), Entry::Minute(minute(START))].into_iter().for_each(|entry| past.push(entry));
    past.damaged("it is damaged".into(), Some(("1.idx", Span { from: START + MINUTE, until: START + 4 * MINUTE })));
    past.cut_off(START + 4 * MINUTE);
    let past = past.finish(None);
    let of = |from, until, why| Gap { span: Span { from: START + from * MINUTE, until: START + until * MINUTE }, why };
    assert_eq!(past.missing, [of(1, 4, Some(Why::Unreadable("1.idx".into()))), of(4, 5, Some(Why::CutOff))]);
}
