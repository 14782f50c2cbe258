//! The table of other kernels: what `tests/kernels/run` brought back from its guests.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::{HEALTHY, alarms, answer, renew, share};
use rstdoctor::lab::report::{Report, Status};

const HEADING: &str = "\n## Other kernels\n";

/// The section of the file, which the other figures leave alone.
pub fn section(file: &str) -> &str {
    file.find(HEADING).map_or("", |at| &file[at..])
}

/// What a guest brought back: its kernel, who ran the lab, the reports.
struct Guest {
    kernel: String,
    who: String,
    reports: Vec<Report>,
}

impl Guest {
    /// `None` where the directory holds no results.
    fn read(directory: &Path) -> Option<Self> {
        let lab = fs::read_to_string(directory.join("lab.json")).ok()?;
        let kernel = fs::read_to_string(directory.join("kernel")).ok()?.trim().to_owned();
        let who = directory.file_name()?.to_str()?.rsplit_once('-')?.1.to_owned();
        let reports = lab.lines().map(|line| serde_json::from_str(line).expect("a report of the lab")).collect();
        Some(Self { kernel, who, reports })
    }

    fn row(&self) -> String {
        let ran: Vec<&Report> = self.reports.iter().filter(|report| report.findings.is_some()).collect();
        let (healthy, faults): (Vec<&Report>, Vec<&Report>) = ran.iter().partition(|r| r.expected.is_none());
        let right = |report: &&&Report| Some(answer(report)) == report.expected.as_deref();
        let wrong_alarm = |report: &&&Report| answer(report) != HEALTHY;
        let sent = || ran.iter().filter_map(|report| report.findings.as_ref()?.sent.as_ref());
        let (total, unexplained) = sent().fold((0, 0), |sum, sent| (sum.0 + sent.total, sum.1 + sent.unexplained));
        let by_process = || sent().flat_map(|sent| &sent.groups).filter(|group| group.by_process);
        let named = by_process().filter(|group| group.process.is_some()).map(|group| group.count).sum::<u64>();
        let all = by_process().map(|group| group.count).sum::<u64>();
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
            self.kernel,
            self.who,
            ran.len(),
            share(faults.iter().filter(right).count(), faults.len()),
            share(healthy.iter().filter(wrong_alarm).count(), healthy.len()),
            share(ran.iter().filter(|report| report.status == Status::Pass).count(), ran.len()),
            share(named as usize, all as usize),
            share(unexplained as usize, total as usize),
            calibration(&ran),
            self.reports.len() - ran.len(),
        )
    }
}

/// What was promised on average, and kept, by first findings.
fn calibration(ran: &[&Report]) -> String {
    let first = |report: &&Report| {
        let first = report.findings.as_ref()?.causes.first()?;
        match &report.expected {
            Some(expected) => Some((first.confidence, first.id == *expected)),
            None => alarms(first).then_some((first.confidence, false)),
        }
    };
    let all: Vec<(f64, bool)> = ran.iter().filter_map(first).collect();
    if all.is_empty() {
        return "-".to_owned();
    }
    let count = all.len() as f64;
    let promised = all.iter().map(|(confidence, _)| confidence).sum::<f64>() / count;
    let kept = all.iter().filter(|(_, right)| *right).count() as f64 / count;
    format!("{promised:.2}, {kept:.2}")
}

fn table(guests: &[Guest]) -> String {
    let mut text = format!(
        "{HEADING}\nOf the {} scenarios of the lab, those that ran in emulated guests of each kernel, repeated where one failed: programs \
         start slowly there.\nThe figures are of those that ran. Made by `tests/kernels/run`. Process named: RSTs by a call of a process that name it. \
         Unexplained: sent RSTs without an explanation.\n\n\
         | kernel | as | ran | right cause first | false alarms | all that is stated | process named | unexplained | confidence: said, kept | not run |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
        rstdoctor::lab::scenario::all().count(),
    );
    guests.iter().for_each(|guest| text += &guest.row());
    let failed = guests.iter().flat_map(|guest| guest.reports.iter().map(move |report| (guest, report)));
    let mut failed = failed.filter(|(_, report)| report.status == Status::Fail).peekable();
    if failed.peek().is_some() {
        text += "\n| kernel | as | scenario | what failed |\n|---|---|---|---|\n";
        for (guest, report) in failed {
            let reason = report.reason.replace('|', "/");
            let _ = writeln!(text, "| {} | {} | {} | {reason} |", guest.kernel, guest.who, report.name);
        }
    }
    text
}

#[test]
#[ignore = "writes what tests/kernels/run brought back"]
fn kernels() {
    let directory = std::env::var_os("RSTDOCTOR_KERNEL_RESULTS").map(PathBuf::from).expect("RSTDOCTOR_KERNEL_RESULTS");
    let entries = fs::read_dir(&directory).expect("results").flatten();
    let mut guests: Vec<Guest> = entries.filter_map(|entry| Guest::read(&entry.path())).collect();
    let version = |guest: &Guest| -> Vec<u32> {
        guest.kernel.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
    };
    guests.sort_by_key(|guest| (version(guest), guest.who.clone()));
    assert!(!guests.is_empty(), "no results in {}", directory.display());
    let table = table(&guests);
    println!("{table}");
    renew(&table, section, &[]);
}

#[test]
fn a_guest_is_a_row_and_its_failures_are_named() {
    let run = super::run;
    let guest = Guest {
        kernel: "5.10.0-32-amd64".into(),
        who: "root".into(),
        reports: vec![
            run(Some("peer-reset"), Status::Pass, &[("peer-reset", "warning", 0.9)]),
            run(Some("peer-reset"), Status::Fail, &[("syn-flood", "warning", 0.7)]),
            run(None, Status::Pass, &[]),
            Report::without_run("orphan-limit", Some("orphan-limit"), Status::Skipped, "not here"),
        ],
    };
    let text = table(&[guest]);
    let row = "| 5.10.0-32-amd64 | root | 3 | 1/2 (50.0 %) | 0/1 (0.0 %) | 2/3 (66.7 %) | - | - | 0.80, 0.50 | 1 |";
    assert!(text.contains(row), "{text}");
    assert!(text.contains("| 5.10.0-32-amd64 | root | some-scenario |"), "{text}");
    assert_eq!(section(&format!("# Before\n{text}")), text);
}
