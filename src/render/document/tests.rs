use proptest::prelude::*;
use pulldown_cmark::{Event, Options, Parser, Tag};

use super::*;
use crate::history::{Account, Entry, Place, Service, Wanted};
use crate::render::json;
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
    for event in Parser::new_ext(ticket, Options::all() - Options::ENABLE_SMART_PUNCTUATION) {
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
        let text = read(&scan_markdown(&json::report(&samples::overflow_by(&name))).unwrap());
        prop_assert!(text.contains(shown.trim()), "{name:?} in {text}");
        let text = read(&history_markdown(&past_of(&name), &calendar(), true).unwrap());
        prop_assert!(text.contains(shown.trim()), "{name:?} in {text}");
    }

    #[test]
    fn a_name_is_text_whatever_it_holds(name in "[<>&\"'/=a-z \\x00-\\x1f\u{202e}\u{e0041}]{0,24}|<script>alert\\(1\\)</script>|\"><img src=x onerror=1>") {
        is_sound(&scan_html(&json::report(&samples::overflow_by(&name))).unwrap());
        is_sound(&history_html(&past_of(&name), &calendar(), true).unwrap());
    }
}

#[test]
fn a_report_says_what_is_wrong_what_to_do_and_what_was_not_seen() {
    let page = scan_html(&json::report(&samples::overflow())).unwrap();
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
    assert!(scan_html(&json::report(&samples::blind())).unwrap().contains(">?<"), "what nobody counted is not 0");
}

#[test]
fn a_ticket_says_the_same() {
    let ticket = scan_markdown(&json::report(&samples::overflow())).unwrap();
    let text = read(&ticket);
    for part in ["CRITICAL", "worker_processes auto;", "Not checked", "unexplained", "Ruled out"] {
        assert!(text.contains(part), "{part}: {ticket}");
    }
    assert!(ticket.contains("```\n") && !ticket.contains("\n\n\n"), "{ticket}");
    assert!(
        read(&scan_markdown(&json::report(&samples::blind())).unwrap()).contains('?'),
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
