use proptest::prelude::*;
use pulldown_cmark::{Event, Options as Extensions, Parser, Tag};

use super::*;
use crate::history::{Account, Entry, Place, Service, Span, Totals, Wanted};
use crate::render::samples;

/// Text of the page outside of tags and of the style sheet.
fn tags(page: &str) -> Vec<&str> {
    let mut tags: Vec<&str> =
        page.split('<').skip(1).map(|rest| rest.split(['>', ' ', '\n']).next().unwrap_or("")).collect();
    tags.sort_unstable();
    tags.dedup();
    tags
}

const KNOWN: [&str; 45] = [
    "!doctype", "/body", "/code", "/div", "/h1", "/h2", "/h3", "/head", "/html", "/li", "/line", "/p", "/pre", "/rect",
    "/span", "/style", "/svg", "/table", "/tbody", "/td", "/th", "/thead", "/title", "/tr", "/ul", "body", "code",
    "div", "h1", "h2", "h3", "head", "html", "li", "line", "meta", "p", "pre", "rect", "span", "style", "svg", "table",
    "tbody", "td",
];
const FURTHER: [&str; 5] = ["th", "thead", "title", "tr", "ul"];

fn is_sound(page: &str) {
    for tag in tags(page) {
        assert!(KNOWN.contains(&tag) || FURTHER.contains(&tag), "<{tag}");
    }
    assert!(page.chars().all(|letter| letter == '\n' || !crate::value::escape::is_hidden(letter)));
    assert!(page.contains("default-src 'none'"));
}

fn past_of(name: &str) -> Past {
    let mut past = Past::new(Wanted { since: 0, until: 600_000, ..Wanted::default() }, 10);
    let place = Place {
        at: "port 80".into(),
        port: Some(80),
        process: Some(name.into()),
        unit: Some(name.into()),
        netns: Some(name.into()),
    };
    let service = Service {
        place,
        address: name.into(),
        attempts: Some(9),
        failures: Some(3),
        queue: 3,
        backlog: 5,
        ..Service::default()
    };
    past.push(Entry::Minute(Account { until: 60_000, ticks: 30, services: vec![service], ..Account::default() }));
    past.finish(Some(600_000))
}

fn calendar() -> Calendar<'static> {
    Calendar {
        time: &|at| format!("2026-11-26 00:{:02}:00", at / 60_000),
        zone: "UTC".into(),
        scan_options: " --utc".into(),
    }
}

/// The text that a reader of the ticket sees; nothing in it is a link, a picture or HTML.
fn read(ticket: &str) -> String {
    let mut text = String::new();
    for event in Parser::new_ext(ticket, Extensions::all() - Extensions::ENABLE_SMART_PUNCTUATION) {
        match event {
            Event::Text(part) | Event::Code(part) => text.push_str(&part),
            Event::SoftBreak | Event::HardBreak => text.push('\n'),
            Event::End(_) => text.push(' '),
            Event::Start(tag) => {
                let plain = matches!(
                    tag,
                    Tag::Paragraph
                        | Tag::Heading { .. }
                        | Tag::CodeBlock(_)
                        | Tag::List(None)
                        | Tag::Item
                        | Tag::Strong
                        | Tag::Table(_)
                        | Tag::TableHead
                        | Tag::TableRow
                        | Tag::TableCell
                );
                assert!(plain, "{tag:?} in {ticket}");
            }
            other => panic!("{other:?} in {ticket}"),
        }
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_name_in_a_ticket_is_that_name(name in "[<>&\"'/=a-z1-9 .)|`*_~#@!$\\[\\](\\\\+:^{}-]{0,24}|<b>&amp;|[ ]{4}x|- [x] y|1[.)] x|https?://a.b/|@[a-z]{3}|[!#][1-9]{3}|\\$\\$x\\$\\$|:-: \\| x|\\[\\^1\\]: x") {
        let shown = visible(&name);
        let text = read(&scan_markdown(&samples::overflow_by(&name), &Options::default()).unwrap());
        prop_assert!(text.contains(shown.trim()), "{name:?} in {text}");
        let text = read(&history_markdown(&past_of(&name), &calendar(), true).unwrap());
        prop_assert!(text.contains(shown.trim()), "{name:?} in {text}");
    }

    #[test]
    fn a_name_is_text_whatever_it_holds(name in "[<>&\"'/=a-z \\x00-\\x1f\u{202e}\u{e0041}]{0,24}|<script>alert\\(1\\)</script>|\"><img src=x onerror=1>") {
        is_sound(&scan_html(&samples::overflow_by(&name), &Options::default()).unwrap());
        is_sound(&history_html(&past_of(&name), &calendar(), true).unwrap());
    }
}

#[test]
fn a_report_says_what_is_wrong_what_to_do_and_what_was_not_seen() {
    let page = scan_html(&samples::overflow(), &Options::default()).unwrap();
    for text in [
        "CRITICAL",
        "worker_processes auto;",
        "rstdoctor explain accept-queue-overflow",
        "Not checked",
        "Ruled out",
        "unexplained",
    ] {
        assert!(page.to_uppercase().contains(&text.to_uppercase()), "{text}");
    }
    is_sound(&page);
    assert!(scan_html(&samples::blind(), &Options::default()).unwrap().contains(">?<"), "what nobody counted is not 0");
}

#[test]
fn a_ticket_says_the_same() {
    let ticket = scan_markdown(&samples::overflow(), &Options::default()).unwrap();
    let text = read(&ticket);
    for part in ["CRITICAL", "worker_processes auto;", "Not checked", "unexplained", "Ruled out"] {
        assert!(text.contains(part), "{part}: {ticket}");
    }
    assert!(ticket.contains("```\n") && !ticket.contains("\n\n\n"), "{ticket}");
    assert!(
        read(&scan_markdown(&samples::blind(), &Options::default()).unwrap()).contains('?'),
        "what nobody counted is not 0"
    );
    let ticket = history_markdown(&past_of("api"), &calendar(), true).unwrap();
    assert!(read(&ticket).contains("3 of 9 connections failed (33 %)") && ticket.contains("`█"), "{ticket}");
}

#[test]
fn nobody_is_called_by_a_ticket() {
    let ticket = history_markdown(&past_of("getty@tty1 fixes #12"), &calendar(), true).unwrap();
    assert!(ticket.contains("`getty@tty1`") && ticket.contains("`#12`"), "{ticket}");
}

#[test]
fn a_history_draws_what_failed_and_what_was_not_recorded() {
    let page = history_html(&past_of("api"), &calendar(), true).unwrap();
    assert!(
        page.contains("class=\"bar\"") && page.contains("class=\"gap\"") && page.contains("class=\"fill\""),
        "{page}"
    );
    assert!(page.contains("3 of 9 connections failed (33 %)"), "{page}");
}

/// What the terminal says of who looked, and how far, the documents say too.
#[test]
fn a_document_says_who_looked_at_what_and_where_it_comes_from() {
    let mut diagnosis = samples::overflow();
    diagnosis.coverage = Some(crate::diagnosis::node::Coverage {
        looked: 1,
        known: 5,
        more: false,
        guest: false,
        needs: Some("root or CAP_SYS_ADMIN".into()),
        narrowed: false,
    });
    let stored = Options { origin: Some("the store in /var/lib/rstdoctor".into()), ..Options::default() };
    let both = |options: &Options| {
        let page = scan_html(&diagnosis, options).unwrap();
        [page, read(&scan_markdown(&diagnosis, options).unwrap())]
    };
    for text in both(&Options::default()) {
        for part in ["as root", "1 of 5 network namespaces", "root or CAP_SYS_ADMIN", "of this host as it ran"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    for text in both(&stored) {
        assert!(text.contains("from the store in /var/lib/rstdoctor") && !text.contains("as it ran"), "{text}");
    }
}

#[test]
fn what_harm_was_done_and_what_to_do_have_words_of_their_own() {
    let diagnosis = samples::overflow();
    let harm = diagnosis.causes.iter().find_map(|cause| crate::render::block::harm(&cause.finding));
    let page = scan_html(&diagnosis, &Options::default()).unwrap();
    assert_eq!(harm.is_some(), page.contains("<p>Harm: "), "{harm:?}");
    let (evidence, remedies) = page.split_once("What to do:").expect("a heading before the remedies");
    assert!(evidence.contains("Because:") && remedies.contains("worker_processes auto;"), "{page}");
}

/// One privilege is asked for once, however many causes need it.
#[test]
fn what_is_missing_is_told_once() {
    let blind = samples::blind();
    let alike = |reason: &String| blind.not_checked.iter().filter(|one| one.reason() == *reason).count();
    let reasons = blind.not_checked.iter().map(|one| one.reason());
    let (reason, alike) = reasons.map(|it| (it.clone(), alike(&it))).max_by_key(|(_, alike)| *alike).expect("blind");
    assert!(alike > 1, "nothing to be grouped");
    let page = scan_html(&blind, &Options::default()).unwrap();
    let told = page.matches(reason.as_str()).count();
    assert!(told < alike, "{told} times for {alike} causes: {page}");
}

#[test]
fn a_ticket_can_be_pasted_from_before_it_is_rendered() {
    let ticket = scan_markdown(&samples::overflow(), &Options::default()).unwrap();
    for plain in ["ListenOverflows +312", "0.0.0.0:8080", "127.0.0.1:6379", "`ss -lnt 'sport = :8080'`"] {
        assert!(ticket.contains(plain), "{plain}: {ticket}");
    }
    assert!(!ticket.contains("\\+") && !ticket.contains("\\.") && !ticket.contains("\\="), "{ticket}");
}

#[test]
fn a_document_ends_with_one_newline() {
    let (options, past, calendar) = (Options::default(), past_of("api"), calendar());
    let all = [
        scan_html(&samples::overflow(), &options).unwrap(),
        scan_markdown(&samples::overflow(), &options).unwrap(),
        history_html(&past, &calendar, true).unwrap(),
        history_markdown(&past, &calendar, true).unwrap(),
    ];
    for text in all {
        assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{text}");
    }
}

/// The same cause at the same place at these minutes, and how bad it was.
fn times_of(severities: &[(u64, crate::cause::Severity)]) -> Past {
    use crate::timeline::What;
    let mut past = Past::new(Wanted { since: 0, until: 3_600_000, ..Wanted::default() }, 12);
    for (minute, severity) in severities {
        let (from, until) = (minute * 60_000, minute * 60_000 + 20_000);
        for (what, at) in [(What::Appeared, from), (What::Ended, until)] {
            // As an index has it, of this version or an earlier one.
            let entry = serde_json::json!({
                "entry": "event", "what": what, "at": at, "since": from, "id": "close-with-unread-data",
                "title": "Closed with unread data", "place": { "at": "port 80", "port": 80 }, "severity": severity,
                "state": crate::cause::State::Active, "summary": format!("what happened at minute {minute}"), "per_s": 1.0,
                "unit": "resets", "events": 20, "times": 1, "remedies": ["Read to the end"],
            });
            past.push(serde_json::from_value(entry).unwrap());
        }
    }
    past.finish(Some(3_600_000))
}

#[test]
fn what_happens_again_has_one_card_of_its_worst_time_and_tells_each() {
    use crate::cause::Severity;
    let past = times_of(&[(2, Severity::Warning), (20, Severity::Critical), (40, Severity::Warning)]);
    let page = history_html(&past, &calendar(), true).unwrap();
    assert_eq!(page.matches("Read to the end").count(), 1, "{page}");
    assert!(page.contains("what happened at minute 20"), "{page}");
    for minute in ["00:02:00", "00:20:00", "00:40:00"] {
        assert!(page.contains(&format!("2026-11-26 {minute} to")), "{minute}: {page}");
    }
    let ticket = history_markdown(&past, &calendar(), true).unwrap();
    assert_eq!(ticket.matches("Read to the end").count(), 1, "{ticket}");
    assert_eq!(read(&ticket).matches("2026-11-26 00:40:00").count(), 2, "in the table, and where it is told: {ticket}");
}

#[test]
fn a_command_of_a_history_means_the_same_in_every_zone() {
    let past = times_of(&[(2, crate::cause::Severity::Warning)]);
    for zone in ["UTC", "EST"] {
        let calendar = Calendar {
            time: &|at| format!("2026-11-25 19:{:02}:00", at / 60_000),
            zone: zone.into(),
            scan_options: if zone == "UTC" { " --utc --store /srv/store" } else { " --store /srv/store" }.into(),
        };
        let command = "rstdoctor scan --at 1970-01-01T00:02:00Z --store /srv/store";
        for text in [history_html(&past, &calendar, true).unwrap(), history_markdown(&past, &calendar, true).unwrap()] {
            assert!(text.contains(command), "{text}");
        }
    }
}

/// A tick begins at any part of a second, and the one before it is none of the episode: all may have been well in it.
#[test]
fn an_episode_is_judged_again_from_its_first_whole_second() {
    let mut past = times_of(&[(2, crate::cause::Severity::Critical)]);
    let mut told = |from, until| {
        past.episodes[0].span = Span { from, until };
        let options = crate::render::history::Options { width: 100, colour: false, unicode: true, all: false };
        let calendar = Calendar { time: &|at| format!("1970-01-01 00:00:{}", at / 1000), ..calendar() };
        let table = crate::render::history::table(&past, &calendar, &options).replace('\u{a0}', " ");
        let command = |text: String| text.split_once("scan --at ").expect("a command").1[..22].to_owned();
        (command(table), command(history_markdown(&past, &calendar, true).unwrap())[..20].to_owned())
    };
    let both = |second| (format!("'1970-01-01 00:00:{second}' "), format!("1970-01-01T00:00:{second}Z"));
    assert_eq!(told(31_885, 47_885), both(32));
    assert_eq!(told(32_000, 34_000), both(32));
    assert_eq!(told(31_885, 31_985), both(31), "no whole second lies in it");
}

/// Who reads on a phone wants to see when before what.
#[test]
fn the_times_are_drawn_before_they_are_told() {
    let page = history_html(&times_of(&[(2, crate::cause::Severity::Warning)]), &calendar(), true).unwrap();
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text}: {page}"));
    assert!(at("Over the time") < at("What happened"));
}

#[test]
fn few_failures_are_not_drawn_as_high_as_many() {
    let mut past = Past::new(Wanted { since: 0, until: 600_000, ..Wanted::default() }, 10);
    let service = |port: u16, attempts, failures| Service {
        place: Place { at: format!("port {port}"), port: Some(port), ..Place::default() },
        address: "0.0.0.0".into(),
        attempts: Some(attempts),
        failures: Some(failures),
        ..Service::default()
    };
    let services = vec![service(80, 4_802, 4_802), service(9469, 804, 2), service(443, 7_001, 0)];
    past.push(Entry::Minute(Account { until: 60_000, ticks: 30, services, ..Account::default() }));
    let page = history_html(&past.finish(Some(600_000)), &calendar(), true).unwrap();
    let heights: Vec<f64> = page
        .split("class=\"bar\"")
        .skip(1)
        .filter_map(|bar| bar.split_once("height=\"")?.1.split_once('"')?.0.parse().ok())
        .collect();
    assert!(
        heights.len() >= 2 && heights[0] > 30.0 && heights.iter().skip(1).all(|height| *height < 4.0),
        "{heights:?}"
    );
    assert_eq!(page.matches("full height: 5,000 in 60 s").count(), 2, "{page}");
    assert!(page.contains("<li>port 443: none of 7,001 connections failed</li>"), "{page}");
}

#[test]
fn that_no_connection_failed_is_said_only_where_resets_are_told() {
    let told = |unexplained| {
        let mut past = Past::new(Wanted { since: 0, until: 600_000, ..Wanted::default() }, 10);
        let place = Place { at: "port 8080".into(), port: Some(8080), ..Place::default() };
        let service = Service { place, attempts: Some(30), failures: Some(0), ..Service::default() };
        let totals = Totals { sent: Some(30), sent_unexplained: Some(unexplained), ..Totals::default() };
        let minute = Account { until: 60_000, ticks: 30, services: vec![service], totals, ..Account::default() };
        past.push(Entry::Minute(minute));
        history_markdown(&past.finish(Some(600_000)), &calendar(), true).unwrap()
    };
    assert!(told(0).contains("none of 30 connections failed"), "{}", told(0));
    let blind = told(30);
    assert!(
        !blind.contains("connections failed") && blind.contains("30 resets of this host were is not known"),
        "{blind}"
    );
}

#[test]
fn what_has_no_raw_evidence_left_is_not_sent_to_be_judged_again() {
    let mut past = times_of(&[(2, crate::cause::Severity::Critical)]);
    let told = |past: &Past| {
        let options = crate::render::history::Options { width: 100, colour: false, unicode: true, all: false };
        let table = crate::render::history::table(past, &calendar(), &options).replace('\u{a0}', " ");
        [table, history_html(past, &calendar(), true).unwrap(), history_markdown(past, &calendar(), true).unwrap()]
            .map(|text| (text.contains("scan --at"), text.contains("explain close-with-unread-data")))
    };
    past.settle_raw(|span| span.from == 120_000);
    assert!(told(&past).iter().all(|(scan, _)| *scan), "{:?}", told(&past));
    past.settle_raw(|_| false);
    assert_eq!(told(&past), [(false, true); 3]);
}

/// A program that was killed resets nobody who had nothing under way: "0 resets" would say that nothing happened.
#[test]
fn harm_that_is_not_counted_is_told_in_words() {
    let mut past = times_of(&[(2, crate::cause::Severity::Critical)]);
    let mut told = |events| {
        past.episodes.iter_mut().for_each(|episode| episode.events = events);
        past.episodes.iter().map(crate::render::history::impact).collect::<String>()
    };
    assert!(told(0).starts_with("no resets: what happened at minute 2"), "{}", told(0));
    assert!(told(20).starts_with("20 resets"), "{}", told(20));
}

#[test]
fn attempts_that_were_lost_are_called_no_resets() {
    use crate::evidence::ledger::Basis;
    use crate::history::{Direction, Line};
    let line = |direction, reason: &str| Line {
        direction,
        reason: reason.to_owned(),
        cause: None,
        basis: Basis::Measured,
        count: 7,
    };
    let mut past = Past::new(Wanted { since: 0, until: 600_000, ..Wanted::default() }, 10);
    let resets = vec![line(Direction::Dropped, "accept-queue-full"), line(Direction::Sent, "no-listener")];
    past.push(Entry::Minute(Account { until: 60_000, ticks: 30, resets, ..Account::default() }));
    let page = history_html(&past.finish(Some(600_000)), &calendar(), true).unwrap();
    assert!(page.contains("Lost attempts, accept queue full") && page.contains("7 attempts"), "{page}");
    assert!(page.contains("Resets, sent nothing listens") && page.matches("7 resets").count() == 2, "{page}");
}

/// A port that nobody listens on has no row, and who is refused there is not served either.
#[test]
fn refused_connects_without_a_service_are_in_the_first_sentence() {
    let mut past = times_of(&[(2, crate::cause::Severity::Critical)]);
    let told = |past: &Past| crate::render::history::sentence(past);
    past.episodes.iter_mut().for_each(|episode| {
        (episode.events, episode.unit) = (40, "refused connects".to_owned());
        episode.place.port = None;
    });
    assert!(!told(&past).contains("40"), "of no port: {}", told(&past));
    past.episodes.iter_mut().for_each(|episode| episode.place.port = Some(7002));
    assert!(told(&past).contains("; 40 refused connects where no service of this host listens."), "{}", told(&past));
}
