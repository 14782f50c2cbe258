//! The page for people who were not there, as a real browser draws it: nothing stands out of it, all of it can be read, and the
//! browser has nothing to complain of. `RSTDOCTOR_PICTURES=DIRECTORY` keeps what was drawn.

use std::fs;
use std::path::Path;

use rstdoctor::history::{Account, Entry, Past, Place, Service, Wanted};
use rstdoctor::render::history::Calendar;
use rstdoctor::render::{Options, document};

use crate::common::skipped;
use crate::page::{diagnosed, recordings};

mod devtools;

use devtools::Browser;

const LOOK: &str = include_str!("browser/page.js");
/// A phone, a tablet, a screen.
const WIDTHS: [u32; 3] = [360, 768, 1280];
const LOOKS: [(&str, &str, &[u32]); 3] =
    [("light", "screen", &WIDTHS), ("dark", "screen", &[768]), ("light", "print", &[768])];
/// Of the recorded faults.
const PAGES: usize = 10;

/// A store that tells of services with names that are long and hostile.
fn past() -> Past {
    let long = "a-container-with-a-name-that-is-as-long-as-it-may-be-0123456789abcdef0123456789abcdef";
    let names = ["api", long, "<script>alert(1)</script>", "\u{202e}gnorw"];
    let mut past = Past::new(Wanted { since: 0, until: 3_600_000, ..Wanted::default() }, 48);
    for minute in 0..40 {
        let service = |(index, name): (usize, &&str)| Service {
            place: Place {
                at: format!("port {}", 8000 + index),
                port: Some(8000 + index as u16),
                process: Some((*name).to_owned()),
                netns: Some(format!("pod default/{name}")),
                ..Place::default()
            },
            address: "0.0.0.0".into(),
            attempts: Some(1_000),
            failures: Some(minute * index as u64),
            queue: minute as u32,
            backlog: 40,
            ..Service::default()
        };
        let services = names.iter().enumerate().map(service).collect();
        let (from, until) = (minute * 60_000, (minute + 1) * 60_000);
        past.push(Entry::Minute(Account { from, until, ticks: 30, services, ..Account::default() }));
    }
    past.finish(None)
}

fn pages(directory: &Path) -> Vec<std::path::PathBuf> {
    let calendar = Calendar {
        time: &|at| format!("2026-11-26 00:{:02}:00", at / 60_000),
        zone: "UTC".into(),
        scan_options: " --utc".into(),
    };
    let mut pages = vec![("history".to_owned(), document::history_html(&past(), &calendar, true).unwrap())];
    let recordings = recordings();
    for file in recordings.iter().step_by(recordings.len().div_ceil(PAGES)) {
        let name = file.parent().and_then(Path::file_name).unwrap().to_string_lossy().into_owned();
        pages.push((name, document::scan_html(&diagnosed(file), &Options::default()).unwrap()));
    }
    let write = |(name, page): (String, String)| {
        let path = directory.join(format!("{name}.html"));
        fs::write(&path, page).unwrap();
        path
    };
    pages.into_iter().map(write).collect()
}

#[test]
fn a_browser_draws_every_page_whole_and_readable() {
    let Some(mut browser) = Browser::start() else { return skipped("needs chromium") };
    let directory = tempfile::tempdir().unwrap();
    let pictures = std::env::var_os("RSTDOCTOR_PICTURES").map(std::path::PathBuf::from);
    for page in pages(directory.path()) {
        browser.open(&page);
        let mut papers = Vec::new();
        for (scheme, medium, widths) in LOOKS {
            for width in widths {
                browser.shown_on(*width, scheme, medium);
                let seen = browser.look(LOOK);
                let what = format!("{} {width} {scheme} {medium}: {seen}", page.display());
                assert_eq!(seen["wrong"].as_array().unwrap().len(), 0, "{what}");
                assert!(seen["texts"].as_u64().unwrap() > 20, "{what}");
                assert!(medium == "print" || seen["styled"] != "none", "the style sheet is not used: {what}");
                papers.push(seen["paper"].clone());
                if let Some(pictures) = &pictures {
                    let name = format!("{}-{width}-{scheme}-{medium}.png", page.file_stem().unwrap().to_string_lossy());
                    fs::write(pictures.join(name), browser.picture()).unwrap();
                }
            }
        }
        assert_ne!(papers[0], papers[3], "dark is not light");
        assert_eq!(browser.complaints, Vec::<String>::new(), "{}", page.display());
    }
}

/// What the test looks for is seen where it is.
#[test]
fn what_is_wrong_with_a_page_is_seen() {
    let Some(mut browser) = Browser::start() else { return skipped("needs chromium") };
    let directory = tempfile::tempdir().unwrap();
    let page = document::scan_html(&diagnosed(&recordings()[0]), &Options::default()).unwrap();
    let look = |browser: &mut Browser, name: &str, page: String| {
        let path = directory.path().join(name);
        fs::write(&path, page).unwrap();
        browser.shown_on(360, "light", "screen");
        browser.open(&path);
        browser.look(LOOK)
    };
    let refused = look(&mut browser, "refused.html", page.replace("</style>", ".soft { color: #eee; }</style>"));
    assert_eq!(refused["styled"], "none", "a style sheet that the policy does not name: {refused}");
    assert!(browser.complaints.iter().any(|text| text.contains("Content Security Policy")), "{:?}", browser.complaints);
    let free = page.replace("style-src 'sha256", "style-src 'unsafe-inline' 'no-sha256");
    let pale = look(&mut browser, "pale.html", free.replace("--soft: #57606a", "--soft: #c0c0c0"));
    assert!(pale["wrong"].to_string().contains("contrast"), "{pale}");
    let wide = look(&mut browser, "wide.html", free.replace("</style>", "h1 { width: 500px; }</style>"));
    assert!(wide["wrong"].to_string().contains("reaches from"), "{wide}");
}
