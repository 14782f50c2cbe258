//! How often the diagnosis is right from what people hold: the lab's faults judged by a capture, by counters, by a log.
//!
//! ```text
//! sudo -E cargo test --release --test it accuracy::evidence::by_what_people_hold -- --ignored --nocapture
//! ```
//!
//! Makes the data set with `rstdoctor lab all --evidence DIRECTORY`, judges it with `scan --from`, and renews its section of
//! `fixtures/ACCURACY.md`. `RSTDOCTOR_EVIDENCE` is the directory, which is kept; where it holds a data set, that one is judged.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rstdoctor::lab::evidence::{AFTER, BEFORE, HERE, LOG, RECORDING, TRUTH};
use rstdoctor::lab::report::{Report, Status};
use serde_json::Value;

use super::{day, kernel, kernels, number, renew, share};

const HEADING: &str = "\n## By what people hold\n";
/// From here on a finding is believed.
const SURE: f64 = 0.8;

/// The section of the file, which the other figures leave alone.
pub fn section(file: &str) -> &str {
    let from = file.find(HEADING).unwrap_or(file.len());
    let to = file.len() - kernels::section(file).len();
    file.get(from..to).unwrap_or("")
}

/// What is held.
const LEVELS: [&str; 6] =
    ["recording", "capture at the host", "capture at the other end", "both captures", "netstat -s twice", "log"];

/// What came of judging one scenario by one kind of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    /// The cause that was made comes first; of a healthy host, no alarm.
    Right,
    /// It is named as one that this evidence does not tell from the first.
    Candidate,
    /// Nothing else is claimed, and it is among those that could not be checked.
    Open,
    /// Something else comes first, or it is missing.
    Wrong,
    /// The same, by a finding that is believed, or it was ruled out.
    Confident,
}

fn made(truth: &Report, id: &str) -> bool {
    truth.expected.as_deref() == Some(id) || truth.also.iter().any(|also| also == id)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("")
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// What a report says of what was made, and in words what it said instead.
fn judge(truth: &Report, report: &Value) -> (Answer, String) {
    let causes = list(report, "causes");
    let alarm = |cause: &&Value| matches!(text(cause, "state"), "active" | "risk") && text(cause, "severity") != "info";
    let Some(expected) = truth.expected.as_deref() else {
        return match causes.iter().find(alarm) {
            None => (Answer::Right, String::new()),
            Some(cause) => (believed(cause, Answer::Wrong), said(cause)),
        };
    };
    let ruled_out = list(report, "ruled_out").iter().any(|cause| text(cause, "id") == expected);
    let open = list(report, "not_checked").iter().any(|cause| text(cause, "id") == expected);
    let Some(first) = causes.iter().find(|cause| text(cause, "state") != "benign") else {
        let nothing = |why: &str| format!("{}{why}", text(&report["verdict"], "status"));
        return match (ruled_out, open) {
            (true, _) => (Answer::Confident, nothing(", ruled out")),
            (_, true) => (Answer::Open, nothing(", not checked")),
            _ => (Answer::Wrong, nothing(", only as harmless")),
        };
    };
    if made(truth, text(first, "id")) {
        return (Answer::Right, String::new());
    }
    let alternatives = |cause: &Value| {
        let mut counter = list(cause, "counter_evidence").iter().map(|item| item.to_string());
        counter.any(|item| item.contains(expected))
    };
    if alternatives(first) {
        return (Answer::Candidate, said(first));
    }
    if ruled_out {
        return (Answer::Confident, format!("{}, ruled out", said(first)));
    }
    let named = causes.iter().any(|cause| made(truth, text(cause, "id")) || alternatives(cause));
    (believed(first, if named { Answer::Candidate } else { Answer::Wrong }), said(first))
}

fn believed(cause: &Value, otherwise: Answer) -> Answer {
    if cause["confidence"].as_f64().unwrap_or(0.0) >= SURE { Answer::Confident } else { otherwise }
}

fn said(cause: &Value) -> String {
    format!("{} {}", text(cause, "id"), cause["confidence"])
}

/// The arguments with which a scenario's directory is judged by that evidence; `None`: there is none.
fn arguments(level: &str, directory: &Path) -> Option<Vec<PathBuf>> {
    let held = |name: &str| Some(directory.join(name)).filter(|file| file.metadata().is_ok_and(|file| file.len() > 0));
    Some(match level {
        "recording" => vec![held(RECORDING)?],
        "capture at the host" => vec![held(HERE)?],
        "capture at the other end" => vec![other_end(directory)?],
        "both captures" => vec![held(HERE)?, other_end(directory)?],
        "netstat -s twice" => vec![held(BEFORE)?, held(AFTER)?],
        _ => vec![held(LOG)?],
    })
}

/// Of the other hosts' captures that with the most in it.
fn other_end(directory: &Path) -> Option<PathBuf> {
    /// What tcpdump writes before the first packet.
    const HEAD: u64 = 24;
    let files = fs::read_dir(directory).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let captures = files.filter(|file| file.extension().is_some_and(|kind| kind == "pcap") && !file.ends_with(HERE));
    let sized = captures.filter_map(|file| Some((file.metadata().ok()?.len(), file)));
    sized.filter(|(size, _)| *size > HEAD).max().map(|(_, file)| file)
}

fn scan(files: &[PathBuf]) -> Option<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rstdoctor"));
    command.args(["scan", "--json"]).stdin(Stdio::null());
    command.args(files.iter().flat_map(|file| ["--from".as_ref(), file.as_os_str()]));
    let output = command.output().expect("the program runs");
    match output.status.code() {
        Some(0) => Some(serde_json::from_slice(&output.stdout).expect("JSON")),
        _ => {
            println!("{}", String::from_utf8_lossy(&output.stderr).trim());
            None
        }
    }
}

/// A scenario, judged by each kind of evidence that there is of it.
type Judged = (Report, BTreeMap<&'static str, (Answer, String)>);

fn figures(all: &[Judged]) -> String {
    let mut text = "| held | faults | right first | cannot be told, the right one named | cannot be told, said so | wrong | wrong, and sure \
                    | false alarms on healthy hosts | sure ones |\n|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for level in LEVELS {
        let of = |healthy: bool| {
            let all = all.iter().filter(move |(truth, _)| truth.expected.is_none() == healthy);
            all.filter_map(|(_, answers)| Some(answers.get(level)?.0)).collect::<Vec<_>>()
        };
        let (faults, healthy) = (of(false), of(true));
        let count = |answers: &[Answer], wanted: Answer| answers.iter().filter(|answer| **answer == wanted).count();
        let part = |wanted| share(count(&faults, wanted), faults.len());
        let false_alarms = healthy.iter().filter(|answer| **answer != Answer::Right).count();
        let _ = writeln!(
            text,
            "| {level} | {} | {} | {} | {} | {} | {} | {} | {} |",
            faults.len(),
            part(Answer::Right),
            part(Answer::Candidate),
            part(Answer::Open),
            part(Answer::Wrong),
            part(Answer::Confident),
            share(false_alarms, healthy.len()),
            count(&healthy, Answer::Confident),
        );
    }
    text += "\n| scenario | held | said first | |\n|---|---|---|---|\n";
    for (truth, answers) in all {
        for (level, (answer, said)) in answers.iter().filter(|(_, (answer, _))| *answer >= Answer::Wrong) {
            let how = if *answer == Answer::Confident { "wrong, and sure" } else { "wrong" };
            let _ = writeln!(text, "| {} | {level} | {} | {how} |", truth.name, said.replace('|', "/"));
        }
    }
    text
}

/// What was made in that directory, if it came about.
fn truth(directory: &Path) -> Option<Report> {
    let report: Report = serde_json::from_slice(&fs::read(directory.join(TRUTH)).ok()?).expect("a report of the lab");
    let unmade = ["the fault did not happen", "not the intended fault", "the scenario itself failed"];
    let made = report.findings.is_some() && !unmade.iter().any(|why| report.reason.starts_with(why));
    (report.status != Status::Skipped && made).then_some(report)
}

#[test]
#[ignore = "runs the whole lab once, with tcpdump beside it: root, ten minutes"]
fn by_what_people_hold() {
    let temporary = tempfile::tempdir().expect("a directory");
    let directory = std::env::var_os("RSTDOCTOR_EVIDENCE").map_or(temporary.path().to_owned(), PathBuf::from);
    let of_scenarios = || {
        let entries = fs::read_dir(&directory).into_iter().flatten();
        let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        paths
    };
    if of_scenarios().is_empty() {
        let jobs = number("RSTDOCTOR_JOBS", 1).to_string();
        let status = Command::new(env!("CARGO_BIN_EXE_rstdoctor"))
            .args(["lab", "all", "--jobs", &jobs, "--evidence"])
            .arg(&directory)
            .stdin(Stdio::null())
            .status();
        println!("the lab ended with {}", status.expect("the program runs"));
    }
    let paths = of_scenarios();
    let judged: Vec<Judged> = paths
        .iter()
        .filter_map(|path| {
            let truth = truth(path)?;
            let answers = LEVELS.into_iter().filter_map(|level| {
                let report = scan(&arguments(level, path)?)?;
                Some((level, judge(&truth, &report)))
            });
            let answers: BTreeMap<_, _> = answers.collect();
            for (level, (answer, said)) in &answers {
                println!("{answer:?}\t{level}\t{}\t{said}", truth.name);
            }
            Some((truth, answers))
        })
        .collect();
    assert!(!judged.is_empty(), "no scenario can run here");
    let text = format!(
        "{HEADING}\n{} of {} scenarios once, each with what people would hold of it: made by `rstdoctor lab all --evidence`, judged by\n\
         `scan --from`; Linux {}, {}. The captures begin and end with the window and keep 256 bytes of a packet; the log has what the\n\
         programs and their clients wrote. A cause that comes first with {SURE} or more and is not what was made is wrong and sure, and \
         so is one that was\nmade and ruled out. Made by\n`cargo test --release --test it accuracy::evidence::by_what_people_hold -- --ignored \
         --nocapture`.\n\n{}",
        judged.len(),
        paths.len(),
        kernel(),
        day(),
        figures(&judged),
    );
    println!("{text}");
    renew(&text, section, &[kernels::section]);
}

fn report(causes: &[(&str, f64, &str)], ruled_out: &[&str], not_checked: &[&str]) -> Value {
    let causes: Vec<Value> = causes
        .iter()
        .map(|(id, confidence, but)| {
            serde_json::json!({
                "id": id, "state": "active", "severity": "warning", "confidence": confidence,
                "counter_evidence": [{ "text": but }],
            })
        })
        .collect();
    let ids = |ids: &[&str]| ids.iter().map(|id| serde_json::json!({ "id": id })).collect::<Vec<_>>();
    serde_json::json!({
        "causes": causes, "ruled_out": ids(ruled_out), "not_checked": ids(not_checked), "verdict": { "status": "ok" },
    })
}

#[test]
fn an_answer_is_wrong_and_sure_only_where_it_claims_something_else() {
    let fault = super::run(Some("peer-reset"), Status::Pass, &[]);
    let healthy = super::run(None, Status::Pass, &[]);
    for (truth, report, wanted) in [
        (&fault, report(&[("peer-reset", 0.5, "")], &[], &[]), Answer::Right),
        (&fault, report(&[("syn-flood", 0.9, "it may also be peer-reset")], &[], &[]), Answer::Candidate),
        (&fault, report(&[("syn-flood", 0.6, ""), ("peer-reset", 0.4, "")], &[], &[]), Answer::Candidate),
        (&fault, report(&[("syn-flood", 0.9, ""), ("peer-reset", 0.4, "")], &[], &[]), Answer::Confident),
        (&fault, report(&[("syn-flood", 0.6, "")], &[], &["peer-reset"]), Answer::Wrong),
        (&fault, report(&[("syn-flood", 0.6, "")], &["peer-reset"], &[]), Answer::Confident),
        (&fault, report(&[], &[], &["peer-reset"]), Answer::Open),
        (&fault, report(&[], &["peer-reset"], &[]), Answer::Confident),
        (&healthy, report(&[], &["peer-reset"], &[]), Answer::Right),
        (&healthy, report(&[("peer-reset", 0.6, "")], &[], &[]), Answer::Wrong),
        (&healthy, report(&[("peer-reset", 0.9, "")], &[], &[]), Answer::Confident),
    ] {
        assert_eq!(judge(truth, &report).0, wanted, "{report}");
    }
}

#[test]
fn the_sections_of_the_file_are_renewed_apart() {
    let file = format!("# Head\n\n## Confidence\n\n1\n{HEADING}\n2\n\n## Other kernels\n\n3\n");
    assert_eq!((section(&file), kernels::section(&file)), (&*format!("{HEADING}\n2\n"), "\n## Other kernels\n\n3\n"));
    assert_eq!(section("# Head\n\n## Other kernels\n\n3\n"), "");
    assert_eq!(section("# Head\n"), "");
}
