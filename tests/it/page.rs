//! The default report of `scan`, made of the recorded fault of every cause: it fits a terminal of 80 columns and 24 rows, and says
//! what a tired person needs. `cargo test --test it page::show -- --ignored --nocapture` prints them all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rstdoctor::diagnosis::filter::Filter;
use rstdoctor::diagnosis::{Diagnosis, Status, diagnose, diagnose_for};
use rstdoctor::input::{Origin, open};
use rstdoctor::render::{self, Options};
use rstdoctor::session::observe;
use unicode_width::UnicodeWidthStr;

/// With the prompt below it.
const ROWS: usize = 23;
const COLUMNS: usize = 80;

pub fn recordings() -> Vec<PathBuf> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let directories = std::fs::read_dir(fixtures).expect("fixtures").flatten();
    let mut files: Vec<_> = directories.map(|entry| entry.path().join("positive.rst")).filter(|f| f.exists()).collect();
    files.sort();
    assert!(files.len() > 30, "{files:?}");
    files
}

pub fn diagnosed(file: &Path) -> Diagnosis {
    let mut opened = open(&Origin::Recording(file.to_owned()), &Arc::default()).expect("a recording");
    let observation = observe(&mut *opened.host, &opened.plan).expect("an observation");
    diagnose(observation.view().expect("a namespace"))
}

fn page(diagnosis: &Diagnosis) -> String {
    render::table(diagnosis, &Options::default())
}

#[test]
fn every_fault_fits_a_terminal() {
    for file in recordings() {
        let text = page(&diagnosed(&file));
        let rows = text.lines().count();
        assert!(rows <= ROWS, "{}: {rows} rows\n{text}", file.display());
        let wide: Vec<_> = text.lines().filter(|line| line.width() > COLUMNS).collect();
        assert!(wide.is_empty(), "{}: {wide:?}", file.display());
    }
}

/// The section about a port is in full where there is room, and a line where there is not.
#[test]
fn a_fault_of_the_port_that_was_asked_for_fits_a_terminal() {
    for file in recordings() {
        for port in [8080, 9200] {
            let mut opened = open(&Origin::Recording(file.clone()), &Arc::default()).expect("a recording");
            let observation = observe(&mut *opened.host, &opened.plan).expect("an observation");
            let filter = Filter { ports: [port].into(), ..Filter::default() };
            let text = page(&diagnose_for(observation.view().expect("a namespace"), &filter));
            assert!(text.lines().count() <= ROWS, "{}\n{text}", file.display());
            assert!(
                text.contains("\nPort  ") || text.contains(&format!("\nPort {port}")),
                "{}\n{text}",
                file.display()
            );
        }
    }
}

/// The parts of a page, by how their lines begin.
#[test]
fn an_alarm_says_who_what_to_do_how_to_see_it_and_why() {
    for file in recordings() {
        let diagnosis = diagnosed(&file);
        let text = page(&diagnosis);
        let lines: Vec<_> = text.lines().collect();
        let verdict = lines.get(2).copied().unwrap_or_default();
        assert!(["OK", "WARNING", "CRITICAL", "UNKNOWN"].iter().any(|word| verdict.starts_with(word)), "{text}");
        if matches!(diagnosis.status, Status::Warning | Status::Critical) {
            for label in ["  who      ", "  fix      ", "  verify   ", "  because  ", "  why      "] {
                assert!(text.contains(&format!("\n{label}")), "{}: no {label}\n{text}", file.display());
            }
        }
        for label in ["\nResets    ", "\nLooked    "] {
            assert!(text.contains(label), "{}: no {label}\n{text}", file.display());
        }
    }
}

/// An instruction stands for itself: the first one refers to none before it, and so does the verdict.
#[test]
fn no_first_line_begins_with_then() {
    for file in recordings() {
        let diagnosis = diagnosed(&file);
        let first = diagnosis.causes.iter().filter_map(|cause| cause.finding.remedies.first()).map(|first| &first.text);
        for text in first.chain([&diagnosis.summary]) {
            let word = text.split(' ').next().unwrap_or_default();
            assert!(!["Then", "then", "And", "Or"].contains(&word), "{}: {text}", file.display());
        }
    }
}

#[test]
#[ignore = "prints all pages, for people"]
fn show() {
    for file in recordings() {
        println!("=== {}\n{}", file.display(), page(&diagnosed(&file)));
    }
}
