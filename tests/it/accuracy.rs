//! How often the diagnosis is right: all scenarios of the lab, several times, on the running kernel.
//!
//! ```text
//! sudo -E cargo test --release --test it accuracy::accuracy -- --ignored --nocapture
//! ```
//!
//! Prints the report and keeps it in `fixtures/ACCURACY.md`. `RSTDOCTOR_RUNS` is how often (3), `RSTDOCTOR_JOBS` how many
//! scenarios at once (1: they share the CPUs). The figures are pure functions of the lab's reports; their tests run always.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

mod evidence;
mod healthy;
mod kernels;

use rstdoctor::lab::findings::{Finding, Findings};
use rstdoctor::lab::report::{Report, Status};

const HEALTHY: &str = "(healthy)";
const NOTHING: &str = "(nothing)";
const FILE: &str = "fixtures/ACCURACY.md";

/// Puts a section into the file, in the place of the one that it had, or before those that follow. Each of these takes its part of
/// the file.
fn renew(text: &str, own: fn(&str) -> &str, following: &[fn(&str) -> &str]) {
    let file = std::fs::read_to_string(FILE).expect(FILE);
    let after: String = following.iter().map(|section| section(&file)).collect();
    let before = file.get(..file.len() - after.len() - own(&file).len()).expect("a part of it");
    std::fs::write(FILE, format!("{before}{text}{after}")).expect(FILE);
}

/// A finding that tells somebody to act: of this window or about to happen, and worth a warning.
fn alarms(finding: &Finding) -> bool {
    matches!(finding.state.as_str(), "active" | "risk") && finding.severity != "info"
}

/// What is said first. On a healthy host only an alarm counts: benign and minor findings explain the numbers.
fn said<'a>(findings: Option<&'a Findings>, expected: Option<&str>) -> &'a str {
    first(findings, expected).map_or(if expected.is_some() { NOTHING } else { HEALTHY }, |finding| &finding.id)
}

fn first<'a>(findings: Option<&'a Findings>, expected: Option<&str>) -> Option<&'a Finding> {
    let causes = findings.map_or(&[][..], |findings| &findings.causes);
    match expected {
        Some(_) => causes.first(),
        None => causes.iter().find(|finding| alarms(finding)),
    }
}

fn answer(report: &Report) -> &str {
    said(report.findings.as_ref(), report.expected.as_deref())
}

fn expected(report: &Report) -> &str {
    report.expected.as_deref().unwrap_or(HEALTHY)
}

fn share(part: usize, whole: usize) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{part}/{whole} ({:.1} %)", 100.0 * part as f64 / whole as f64) }
}

/// The figures, as Markdown.
fn figures(reports: &[Report]) -> String {
    let ran: Vec<&Report> = reports.iter().filter(|report| report.findings.is_some()).collect();
    let (healthy, faults): (Vec<&Report>, Vec<&Report>) = ran.iter().partition(|report| report.expected.is_none());
    let count = |reports: &[&Report], fits: &dyn Fn(&Report) -> bool| reports.iter().filter(|r| fits(r)).count();
    let among = |report: &Report, places: usize| {
        let causes = report.findings.as_ref().map_or(&[][..], |findings| &findings.causes);
        causes.iter().take(places).any(|finding| Some(&finding.id) == report.expected.as_ref())
    };
    let false_alarms = |report: &Report| answer(report) != HEALTHY;
    let passed = |report: &Report| report.status == Status::Pass;
    let mixtures: Vec<&Report> = faults.iter().copied().filter(|report| !report.also.is_empty()).collect();
    let mut times: Vec<f64> = ran.iter().map(|report| report.took_s).collect();
    times.sort_by(f64::total_cmp);
    let time = |at: usize| times.get(at).map_or("-".to_owned(), |seconds| format!("{seconds:.1} s"));
    let mut text = String::from("| | |\n|---|---|\n");
    for (what, figure) in [
        ("faults, the right cause first", share(count(&faults, &|r| among(r, 1)), faults.len())),
        ("faults, the right cause among the first three", share(count(&faults, &|r| among(r, 3)), faults.len())),
        ("false alarms among healthy hosts", share(count(&healthy, &false_alarms), healthy.len())),
        ("mixtures of faults: all found, and none invented", share(count(&mixtures, &passed), mixtures.len())),
        (
            "wrong at a confidence of 0.8 and more",
            share(count(&ran, &|r| wrong_and_sure(r.findings.as_ref(), r)), ran.len()),
        ),
        (
            "calibration error: confidence against what was right, mean over the bins by their runs",
            calibration_error(&ran),
        ),
        ("all that the scenario states (subject, forbidden causes)", share(count(&ran, &passed), ran.len())),
        ("time to verdict, preparation and window included: median", time(times.len() / 2)),
        ("the longest", time(times.len().saturating_sub(1))),
        ("runs that could not take place here", (reports.len() - ran.len()).to_string()),
    ] {
        let _ = writeln!(text, "| {what} | {figure} |");
    }
    text + &by_evidence(&ran) + &calibration(&ran) + &confusion(&ran) + &flaws(reports)
}

/// Whether what is said first, with a confidence of 0.8 or more, is not what was made.
fn wrong_and_sure(findings: Option<&Findings>, report: &Report) -> bool {
    let first = first(findings, report.expected.as_deref());
    first.is_some_and(|first| first.confidence >= 0.8 && Some(&first.id) != report.expected.as_ref())
}

/// The same windows judged with less evidence.
fn by_evidence(ran: &[&Report]) -> String {
    let mut levels = BTreeMap::<&str, Vec<(&Report, &Findings)>>::new();
    for report in ran {
        for (level, findings) in &report.levels {
            levels.entry(level).or_default().push((report, findings));
        }
    }
    if levels.is_empty() {
        return String::new();
    }
    let root: Vec<(&Report, &Findings)> =
        ran.iter().filter_map(|report| Some((*report, report.findings.as_ref()?))).collect();
    let mut text = "\n## By evidence\n\nThe same windows, judged with less: by an ordinary user (no events, no packets, no \
                    owners of sockets), with `--no-events`, and by the counters alone.\n\n\
                    | evidence | right first | right among three | false alarms | wrong at 0.8 and more |\n|---|---|---|---|---|\n"
        .to_owned();
    for (level, runs) in [("root", root)].into_iter().chain(levels) {
        let (faults, healthy): (Vec<_>, Vec<_>) = runs.iter().partition(|(report, _)| report.expected.is_some());
        let among = |places: usize| {
            let found = |(report, findings): &&&(&Report, &Findings)| {
                findings.causes.iter().take(places).any(|finding| Some(&finding.id) == report.expected.as_ref())
            };
            share(faults.iter().filter(found).count(), faults.len())
        };
        let alarms = healthy.iter().filter(|(_, findings)| said(Some(findings), None) != HEALTHY).count();
        let wrong = runs.iter().filter(|(report, findings)| wrong_and_sure(Some(findings), report)).count();
        let _ = writeln!(
            text,
            "| {level} | {} | {} | {} | {} |",
            among(1),
            among(3),
            share(alarms, healthy.len()),
            share(wrong, runs.len())
        );
    }
    text
}

/// First findings at a confidence: how many, how many were right, the sum of what was promised.
#[derive(Default)]
struct Bin {
    all: usize,
    right: usize,
    promised: f64,
}

const BINS: [f64; 6] = [0.0, 0.5, 0.6, 0.7, 0.8, 0.9];

/// Benign first findings are statements too; those of a healthy host that raise no alarm are not counted.
fn bins(ran: &[&Report]) -> BTreeMap<usize, Bin> {
    let mut bins = BTreeMap::<usize, Bin>::new();
    for report in ran {
        let Some(first) = report.findings.as_ref().and_then(|findings| findings.causes.first()) else { continue };
        let right = match &report.expected {
            Some(expected) => first.id == *expected,
            None if !alarms(first) => continue,
            None => false,
        };
        let bin = BINS.iter().rposition(|low| first.confidence >= *low).unwrap_or(0);
        let bin = bins.entry(bin).or_default();
        (bin.all, bin.right, bin.promised) =
            (bin.all + 1, bin.right + usize::from(right), bin.promised + first.confidence);
    }
    bins
}

/// Expected calibration error (Guo and others, 2017).
fn calibration_error(ran: &[&Report]) -> String {
    let bins = bins(ran);
    let all: usize = bins.values().map(|bin| bin.all).sum();
    let off: f64 = bins.values().map(|bin| (bin.promised - bin.right as f64).abs()).sum();
    if all == 0 { "-".to_owned() } else { format!("{:.3}", off / all as f64) }
}

fn calibration(ran: &[&Report]) -> String {
    let mut text =
        "\n## Confidence\n\nOf the first findings at that confidence, how many were right. An alarm on a healthy host is \
                    wrong; a finding there that raises none is not counted.\n\n\
                    | reported | mean | right |\n|---|---|---|\n"
            .to_owned();
    for (bin, Bin { all, right, promised }) in bins(ran) {
        let high = BINS.get(bin + 1).copied().unwrap_or(1.0);
        let low = BINS.get(bin).copied().unwrap_or_default();
        let _ = writeln!(text, "| {low:.1} to {high:.1} | {:.2} | {} |", promised / all as f64, share(right, all));
    }
    text
}

/// Expected against first, only where they differ; and how often they agree.
fn confusion(ran: &[&Report]) -> String {
    let mut table = BTreeMap::<&str, BTreeMap<&str, usize>>::new();
    for report in ran {
        *table.entry(expected(report)).or_default().entry(answer(report)).or_default() += 1;
    }
    let mut text =
        "\n## Expected against first\n\n| expected | runs | right | instead |\n|---|---|---|---|\n".to_owned();
    for (expected, answers) in table {
        let runs: usize = answers.values().sum();
        let right = answers.get(expected).copied().unwrap_or(0);
        let instead: Vec<String> = answers
            .iter()
            .filter(|(answer, _)| **answer != expected)
            .map(|(answer, count)| format!("{answer} {count}"))
            .collect();
        let _ = writeln!(text, "| {expected} | {runs} | {right} | {} |", instead.join(", "));
    }
    text
}

/// Scenarios that did not pass each time, or could not run.
fn flaws(reports: &[Report]) -> String {
    let mut by_name = BTreeMap::<&str, BTreeMap<(&str, &str), usize>>::new();
    for report in reports.iter().filter(|report| report.status != Status::Pass) {
        *by_name.entry(&report.name).or_default().entry((report.status.word(), &report.reason)).or_default() += 1;
    }
    if by_name.is_empty() {
        return String::new();
    }
    let mut text = "\n## Not passed\n\n| scenario | result | times | reason |\n|---|---|---|---|\n".to_owned();
    for (name, results) in by_name {
        for ((status, reason), times) in results {
            let _ = writeln!(text, "| {name} | {status} | {times} | {} |", reason.replace('|', "/"));
        }
    }
    text
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// Of today, UTC.
fn day() -> String {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    now.get(..10).unwrap_or(&now).to_owned()
}

#[test]
#[ignore = "runs the whole lab several times: root, a quarter of an hour"]
fn accuracy() {
    let (runs, jobs) = (number("RSTDOCTOR_RUNS", 3), number("RSTDOCTOR_JOBS", 1));
    let mut reports = Vec::new();
    for run in 1..=runs {
        let output = Command::new(env!("CARGO_BIN_EXE_rstdoctor"))
            .args(["lab", "all", "--json", "--levels", "--jobs", &jobs.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .expect("the program runs");
        let before = reports.len();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            reports.push(serde_json::from_str::<Report>(line).expect("a report of the lab"));
        }
        println!("run {run} of {runs}: {} scenarios", reports.len() - before);
    }
    // SAFETY: geteuid(2) takes nothing.
    let who = if unsafe { libc::geteuid() } == 0 { "root" } else { "an ordinary user" };
    let text = format!(
        "# How often the diagnosis is right\n\nEvery scenario of `rstdoctor lab`, {runs} times, {jobs} at once, as {who}, on \
         Linux {}, {}. Made by\n`cargo test --release --test it accuracy::accuracy -- --ignored --nocapture`. The lab's faults are clear \
         and alone; real ones are not always.\n\n{}",
        kernel(),
        day(),
        figures(&reports),
    );
    println!("\n{text}");
    assert!(reports.iter().any(|report| report.status != Status::Skipped), "no scenario can run here");
    let before = std::fs::read_to_string(FILE).unwrap_or_default();
    let others = [healthy::section(&before), evidence::section(&before), kernels::section(&before)].concat();
    std::fs::write(FILE, text + &others).expect(FILE);
}

fn run(expected: Option<&str>, status: Status, causes: &[(&str, &str, f64)]) -> Report {
    let causes = causes.iter().map(|(id, severity, confidence)| Finding {
        because_of: None,
        id: (*id).to_owned(),
        state: "active".to_owned(),
        severity: (*severity).to_owned(),
        confidence: *confidence,
        subjects: Vec::new(),
    });
    let findings = Findings { causes: causes.collect(), ..Findings::default() };
    Report {
        expected: expected.map(str::to_owned),
        findings: Some(findings),
        took_s: Duration::from_secs(2).as_secs_f64(),
        ..Report::without_run("some-scenario", None, status, "")
    }
}

#[test]
fn ranks_alarms_and_runs_that_did_not_take_place_are_told_apart() {
    let text = figures(&[
        run(Some("peer-reset"), Status::Pass, &[("peer-reset", "warning", 0.95)]),
        run(Some("peer-reset"), Status::Fail, &[("syn-flood", "warning", 0.92), ("peer-reset", "warning", 0.7)]),
        run(Some("peer-reset"), Status::Fail, &[]),
        run(None, Status::Pass, &[("peer-reset", "info", 0.9)]),
        run(None, Status::Fail, &[("peer-reset", "info", 0.9), ("syn-flood", "critical", 0.6)]),
        Report::without_run("orphan-limit", Some("orphan-limit"), Status::Skipped, "not here"),
    ]);
    for line in [
        "| faults, the right cause first | 1/3 (33.3 %) |",
        "| faults, the right cause among the first three | 2/3 (66.7 %) |",
        "| false alarms among healthy hosts | 1/2 (50.0 %) |",
        "| runs that could not take place here | 1 |",
        "| peer-reset | 3 | 1 | (nothing) 1, syn-flood 1 |",
        "| (healthy) | 2 | 1 | syn-flood 1 |",
        "| orphan-limit | skipped | 1 | not here |",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn confidence_is_set_against_what_was_right() {
    let text = figures(&[
        run(Some("peer-reset"), Status::Pass, &[("peer-reset", "warning", 0.9)]),
        run(Some("peer-reset"), Status::Fail, &[("syn-flood", "warning", 1.0)]),
        run(None, Status::Fail, &[("syn-flood", "warning", 0.6)]),
        run(None, Status::Pass, &[("handshake-reset", "info", 0.8)]),
    ]);
    assert!(text.contains("| 0.9 to 1.0 | 0.95 | 1/2 (50.0 %) |"), "{text}");
    assert!(text.contains("| 0.6 to 0.7 | 0.60 | 0/1 (0.0 %) |"), "{text}");
    assert!(!text.contains("| 0.8 to 0.9"), "{text}");
    // 1.9 promised and 1 kept, 0.6 promised and none kept, of three.
    assert!(text.contains("by their runs | 0.500 |"), "{text}");
    assert!(text.contains("wrong at a confidence of 0.8 and more | 1/4 (25.0 %) |"), "{text}");
}

#[test]
fn mixtures_and_levels_of_evidence_have_figures_of_their_own() {
    let mut both =
        run(Some("peer-reset"), Status::Pass, &[("peer-reset", "warning", 0.9), ("syn-flood", "warning", 0.9)]);
    both.also.push("syn-flood".to_owned());
    let mut one = run(Some("peer-reset"), Status::Fail, &[("peer-reset", "warning", 0.9)]);
    one.also.push("syn-flood".to_owned());
    let as_user = run(None, Status::Pass, &[("syn-flood", "critical", 0.85)]).findings;
    let mut healthy = run(None, Status::Pass, &[]);
    healthy.levels = both.findings.clone().into_iter().chain(as_user).map(|f| ("user".to_owned(), f)).collect();
    let text = figures(&[both, one, healthy]);
    assert!(text.contains("| mixtures of faults: all found, and none invented | 1/2 (50.0 %) |"), "{text}");
    assert!(text.contains("| root | 2/2 (100.0 %) | 2/2 (100.0 %) | 0/1 (0.0 %) | 0/3 (0.0 %) |"), "{text}");
    assert!(text.contains("| user | - | - | 1/1 (100.0 %) | 1/1 (100.0 %) |"), "{text}");
}
