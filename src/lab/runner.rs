//! Runs scenarios, each in a process of its own that is killed when it takes too long, and prints.

use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use comfy_table::{Table, presets};
use rustix::process::{Pid, Signal, kill_process_group};

use super::report::{Report, Status};
use super::scenario::{self, Scenario};
use super::{How, Options, sys};
use crate::output::{Output, print, say};
use crate::runtime;
use crate::runtime::signals::{INTERRUPTED, stop_on_signals};

/// No scenario may take longer on an ordinary machine.
const LIMIT: Duration = Duration::from_secs(15);

pub fn list() -> ExitCode {
    let mut text = String::new();
    for scenario in scenario::all() {
        let expect = scenario.expect.cause.unwrap_or("(healthy)");
        text += &format!("{:<44} {:<24} {}\n", scenario.name, expect, scenario.title);
    }
    match print(&text) {
        Ok(()) => ExitCode::SUCCESS,
        // A closed pipe is no fault of the lab.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("rstdoctor lab: {error}"));
            ExitCode::from(3)
        }
    }
}

pub fn run(names: &[String], options: &Options) -> ExitCode {
    if names.is_empty() {
        say("rstdoctor lab: name at least one scenario; `rstdoctor lab list` shows them");
        return ExitCode::from(2);
    }
    let mut chosen = Vec::new();
    for name in names {
        match scenario::find(name) {
            Some(scenario) => chosen.push(scenario),
            None => {
                say(format_args!("rstdoctor lab: no scenario {name}; `rstdoctor lab list` shows them"));
                return ExitCode::from(2);
            }
        }
    }
    if options.how.record.is_some() && chosen.len() != 1 {
        say("rstdoctor lab: --record takes exactly one scenario");
        return ExitCode::from(2);
    }
    let table = chosen.len() > 1;
    perform(chosen.into_iter(), options, table)
}

pub fn all(options: &Options) -> ExitCode {
    if options.how.record.is_some() {
        say("rstdoctor lab: --record takes exactly one scenario");
        return ExitCode::from(2);
    }
    perform(scenario::all(), options, true)
}

fn perform(scenarios: impl Iterator<Item = &'static Scenario>, options: &Options, table: bool) -> ExitCode {
    let (interrupted, output) =
        match stop_on_signals().and_then(|stop| Ok((Arc::clone(&stop), Output::start(0, &stop)?))) {
            Ok(both) => both,
            Err(error) => {
                say(format_args!("rstdoctor lab: {error}"));
                return ExitCode::from(3);
            }
        };
    let scenarios: Vec<&Scenario> = scenarios.collect();
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(vec![None; scenarios.len()]);
    // Scenarios share nothing but the CPUs, so several may run at once. The threads outlive the processes they start,
    // which die with the thread that started them.
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(scenario) = scenarios.get(index).filter(|_| !interrupted.load(Ordering::Relaxed)) else { return };
            let alone = options.jobs <= 1;
            if !options.json && alone {
                let _ = output.print(&introduction(scenario));
            }
            let report = one(scenario, &options.how, &interrupted);
            if interrupted.load(Ordering::Relaxed) {
                return;
            }
            let introduction = if alone { String::new() } else { introduction(scenario) };
            let _ =
                output.print(&if options.json { as_json(&report) } else { introduction + &outcome(&report, options) });
            if let Some(slot) = reports.lock().unwrap_or_else(PoisonError::into_inner).get_mut(index) {
                *slot = Some(report);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..options.jobs {
            // With fewer threads it takes longer.
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    let reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
    let reports: Vec<Report> = reports.into_iter().flatten().collect();
    if table && !options.json {
        let _ = output.print(&summary(&reports));
    }
    if interrupted.load(Ordering::Relaxed) {
        return ExitCode::from(INTERRUPTED);
    }
    ExitCode::from(u8::from(reports.iter().any(|report| report.status == Status::Fail)))
}

/// Runs one scenario to its end, to the limit, or to the interruption.
fn one(scenario: &Scenario, how: &How, interrupted: &AtomicBool) -> Report {
    let (start, limit) = (Instant::now(), how.patient(LIMIT));
    let mut command = Command::new("/proc/self/exe");
    command.args(["lab", "inside", scenario.name]);
    how.arguments(&mut command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    sys::die_with_parent(&mut command);
    let fail = |reason: String| Report {
        took_s: start.elapsed().as_secs_f64(),
        ..Report::without_run(scenario.name, scenario.expect.cause, Status::Fail, reason)
    };
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return fail(format!("cannot start it: {error}")),
    };
    let (sender, receiver) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        let started = runtime::thread::start("report", move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        if let Err(error) = started {
            end(&mut child);
            return fail(error.to_string());
        }
    }
    while start.elapsed() < limit && !interrupted.load(Ordering::Relaxed) {
        match child.try_wait() {
            Ok(None) => thread::sleep(Duration::from_millis(10)),
            _ => break,
        }
    }
    let in_time = start.elapsed() < limit;
    end(&mut child);
    let line = receiver.recv_timeout(Duration::from_secs(1));
    match line.map(|line| serde_json::from_str::<Report>(&line)) {
        Ok(Ok(report)) => report,
        Ok(Err(error)) => fail(format!("its report is not understood: {error}")),
        Err(_) if !in_time => fail(format!("took longer than {} s and was killed", limit.as_secs())),
        Err(_) => fail("ended without a report".to_owned()),
    }
}

/// Kills what is left of a scenario: its process group, and with the init of its pid namespace everything else.
fn end(child: &mut Child) {
    let group = Pid::from_child(child);
    if !matches!(child.try_wait(), Ok(Some(_))) {
        // Its leader was not waited for yet, so the number is still its own.
        let _ = kill_process_group(group, Signal::KILL);
        let _ = child.wait();
    }
}

fn introduction(scenario: &Scenario) -> String {
    let mut text = format!("\n== {} · {}\n", scenario.name, scenario.title);
    for (index, line) in scenario.by_hand.lines().enumerate() {
        text += &format!("   {:<10} {}\n", if index == 0 { "by hand" } else { "" }, line.trim_start());
    }
    text
}

fn outcome(report: &Report, options: &Options) -> String {
    let mut text = String::new();
    for (index, (what, count)) in report.experienced.iter().enumerate() {
        text += &format!("   {:<10} {count:>6} x {what}\n", if index == 0 { "client" } else { "" });
    }
    if options.counters {
        for (name, delta) in &report.counters.0 {
            text += &format!("   {:<10} {name} +{delta}\n", "counter");
        }
    }
    if let Some(findings) = &report.findings {
        text += &format!("   {:<10} {} {}\n", "diagnosis", findings.verdict, findings.summary);
        for (index, finding) in findings.causes.iter().take(3).enumerate() {
            let subject = finding.subjects.first();
            let port = subject.and_then(|subject| subject.port).map(|port| format!(" port {port}")).unwrap_or_default();
            let process = subject.and_then(|subject| subject.process.as_deref()).unwrap_or_default();
            text += &format!(
                "   {:<10} {} {} {} {:.0} % sure{port} {}\n",
                "",
                index + 1,
                finding.id,
                finding.state,
                finding.confidence * 100.0,
                process.escape_debug(),
            );
        }
    }
    let reason = if report.reason.is_empty() { String::new() } else { format!(": {}", report.reason) };
    text + &format!("   {:<10} {}{reason} ({:.1} s)\n", "result", report.status.word(), report.took_s)
}

fn as_json(report: &Report) -> String {
    serde_json::to_string(report).map(|line| line + "\n").unwrap_or_default()
}

fn summary(reports: &[Report]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["scenario", "result", "first cause", "time", "reason"]);
    for report in reports {
        let first = report.findings.as_ref().and_then(|findings| findings.causes.first());
        table.add_row([
            report.name.clone(),
            report.status.word().to_owned(),
            first.map(|finding| finding.id.clone()).unwrap_or_default(),
            format!("{:.1} s", report.took_s),
            report.reason.clone(),
        ]);
    }
    let count = |status| reports.iter().filter(|report| report.status == status).count();
    format!(
        "\n{table}\n\n{} passed, {} failed, {} skipped\n",
        count(Status::Pass),
        count(Status::Fail),
        count(Status::Skipped),
    )
}
