//! How often a healthy host is called sick: the lab's loud and healthy hosts, again and again, for hours of host time.
//!
//! ```text
//! sudo -E cargo test --release --test it accuracy::healthy::for_long -- --ignored --nocapture
//! ```
//!
//! Renews its section of `fixtures/ACCURACY.md`. `RSTDOCTOR_SOAK_MINUTES` is the host time (120), `RSTDOCTOR_JOBS` how many hosts
//! at once (3). Every second pass is judged in ticks, as `watch` does.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::{Command, Stdio};

use rstdoctor::lab::report::Report;

use super::{alarms, day, evidence, kernel, kernels, number, renew, share};

const HEADING: &str = "\n## Healthy hosts, for long\n";

/// The section of the file, which the other figures leave alone.
pub fn section(file: &str) -> &str {
    let from = file.find(HEADING).unwrap_or(file.len());
    let to = file.len() - kernels::section(file).len() - evidence::section(file).len();
    file.get(from..to).unwrap_or("")
}

/// The causes that told somebody to act, in the whole window or in a tick of it.
fn alarming(report: &Report) -> Vec<&str> {
    let all = report.findings.iter().chain(&report.ticks).flat_map(|findings| &findings.causes);
    let mut ids: Vec<&str> = all.filter(|finding| alarms(finding)).map(|finding| finding.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn figures(stays: &[Report]) -> String {
    let seconds: f64 = stays.iter().map(|stay| stay.took_s).sum();
    let mut alarmed = BTreeMap::<(&str, String), usize>::new();
    for stay in stays.iter().filter(|stay| !alarming(stay).is_empty()) {
        *alarmed.entry((&stay.name, alarming(stay).join(", "))).or_default() += 1;
    }
    let count: usize = alarmed.values().sum();
    let ticks: usize = stays.iter().map(|stay| stay.ticks.len()).sum();
    let mut text = String::from("| | |\n|---|---|\n");
    for (what, figure) in [
        ("host time, preparation included", format!("{:.1} min", seconds / 60.0)),
        ("windows judged as a whole", stays.len().to_string()),
        ("ticks of 1 s judged besides", ticks.to_string()),
        ("stays with a warning or worse", share(count, stays.len())),
        ("the same in a day of one host", format!("{:.1}", count as f64 * 86_400.0 / seconds.max(1.0))),
    ] {
        let _ = writeln!(text, "| {what} | {figure} |");
    }
    if !alarmed.is_empty() {
        text += "\n| healthy host | said | times |\n|---|---|---|\n";
    }
    for ((name, said), times) in alarmed {
        let _ = writeln!(text, "| {name} | {said} | {times} |");
    }
    text
}

/// The names of the scenarios in which nothing is wrong.
fn names() -> Vec<String> {
    let output =
        Command::new(env!("CARGO_BIN_EXE_rstdoctor")).args(["lab", "list"]).output().expect("the program runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let names =
        text.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| name.starts_with("healthy-"));
    names.map(str::to_owned).collect()
}

#[test]
#[ignore = "stays on healthy hosts for two hours of host time: root, 40 minutes"]
fn for_long() {
    let (minutes, jobs) = (number("RSTDOCTOR_SOAK_MINUTES", 120), number("RSTDOCTOR_JOBS", 3));
    let names = names();
    assert!(!names.is_empty(), "the lab has healthy hosts");
    let mut stays: Vec<Report> = Vec::new();
    let mut pass = 0;
    while stays.iter().map(|stay| stay.took_s).sum::<f64>() < minutes as f64 * 60.0 {
        let output = Command::new(env!("CARGO_BIN_EXE_rstdoctor"))
            .args(["lab", "run", "--json", "--jobs", &jobs.to_string()])
            // As long as ticks are judged together.
            .args(if pass % 2 == 1 { &["--interval", "1s", "--patience", "12"][..] } else { &[] })
            .args(&names)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .expect("the program runs");
        let reports = String::from_utf8_lossy(&output.stdout).into_owned();
        let reports = reports.lines().map(|line| serde_json::from_str::<Report>(line).expect("a report of the lab"));
        let ran: Vec<Report> = reports.filter(|report| report.findings.is_some()).collect();
        assert!(!ran.is_empty(), "no scenario can run here");
        for stay in ran.iter().filter(|stay| !alarming(stay).is_empty()) {
            println!("{}: {} ({})", stay.name, alarming(stay).join(", "), stay.reason);
        }
        stays.extend(ran);
        pass += 1;
        println!("pass {pass}: {} stays", stays.len());
    }
    let text = format!(
        "{HEADING}\nThe {} healthy and mostly loud hosts of the lab, {pass} times, {jobs} at once, every second time for half a minute in ticks of 1 s as \
         `watch`\ndoes; Linux {}, {}. Made by\n`cargo test --release --test it accuracy::healthy::for_long -- --ignored --nocapture`.\n\n{}",
        names.len(),
        kernel(),
        day(),
        figures(&stays),
    );
    println!("{text}");
    renew(&text, section, &[evidence::section, kernels::section]);
}

#[test]
fn an_alarm_in_a_single_tick_is_one() {
    use rstdoctor::lab::report::Status;
    let stay = |causes: &[(&str, &str, f64)], ticks: &[&[(&str, &str, f64)]]| {
        let mut report = super::run(None, Status::Pass, causes);
        report.ticks = ticks.iter().filter_map(|causes| super::run(None, Status::Pass, causes).findings).collect();
        report
    };
    let calm = stay(&[("peer-reset", "info", 0.9)], &[&[("peer-reset", "info", 0.9)], &[]]);
    let flapped = stay(&[], &[&[], &[("syn-flood", "warning", 0.6)]]);
    let text = figures(&[calm, flapped]);
    for line in [
        "| windows judged as a whole | 2 |",
        "| ticks of 1 s judged besides | 4 |",
        "| stays with a warning or worse | 1/2 (50.0 %) |",
        // One in 2 + 2 s.
        "| the same in a day of one host | 21600.0 |",
        "| some-scenario | syn-flood | 1 |",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn its_section_stands_before_the_other_two() {
    let later = "\n## By what people hold\n\n2\n\n## Other kernels\n\n3\n";
    let file = format!("# Head\n\n1\n{HEADING}\nx\n{later}");
    assert_eq!(section(&file), format!("{HEADING}\nx\n"));
    assert_eq!(section(&format!("# Head\n{later}")), "");
}
