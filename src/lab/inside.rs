//! The process in which one scenario runs, in namespaces of its own.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::ptr;
use std::time::Instant;

use super::How;
use super::arena;
use super::diagnose::Diagnosed;
use super::judge::{judge, judge_ticks};
use super::report::{Report, Status};
use super::scenario::{self, Need, Scenario};
use super::stage::{Stage, Stop, search_path};

/// Where temporary files of a scenario live: a tmpfs that only its mount namespace sees.
pub const DIRECTORY: &str = "/mnt";
/// The host name inside.
const HOSTNAME: &str = "lab";
const TRACEFS: &str = "/sys/kernel/tracing";

/// `first`: still outside; make the namespaces and start the process that becomes their init.
pub fn main(name: &str, how: &How, first: bool) -> ExitCode {
    let Some(scenario) = scenario::find(name) else {
        eprintln!("rstdoctor lab: no scenario {name}");
        return ExitCode::from(2);
    };
    let report = if first {
        match leave_host().and_then(|()| start_second(name, how)) {
            Ok(code) => return code,
            Err(error) => Report::without_run(
                name,
                Status::Skipped,
                format!("no namespaces of its own: {error} (needs root, or unprivileged user namespaces)"),
            ),
        }
    } else {
        perform(scenario, how)
    };
    match serde_json::to_string(&report) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("rstdoctor lab: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Makes the calling process, and the children that follow, strangers to the host: new network (without any interface
/// up), mount and pid namespace, in a new user namespace unless it may do without. Must run on a single thread
/// (unshare(2): CLONE_NEWUSER).
fn leave_host() -> io::Result<()> {
    let spaces = libc::CLONE_NEWNET | libc::CLONE_NEWNS | libc::CLONE_NEWPID;
    // SAFETY: unshare(2), geteuid(2) and getegid(2) take no pointers.
    let (user, group, mut result) = unsafe { (libc::geteuid(), libc::getegid(), libc::unshare(spaces)) };
    if result != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EPERM) {
        // SAFETY: as above.
        result = unsafe { libc::unshare(spaces | libc::CLONE_NEWUSER) };
        if result == 0 {
            // user_namespaces(7): without CAP_SETGID outside, gid_map is only accepted after setgroups is denied.
            fs::write("/proc/self/setgroups", "deny")?;
            fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
            fs::write("/proc/self/gid_map", format!("0 {group} 1"))?;
        }
    }
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // A recording of the lab should tell nothing of the machine that it ran on: no host name, no control groups.
    // SAFETY: unshare(2) takes no pointers; sethostname(2) reads that many bytes.
    unsafe {
        if libc::unshare(libc::CLONE_NEWUTS) == 0 {
            libc::sethostname(HOSTNAME.as_ptr().cast(), HOSTNAME.len());
        }
        // Since 4.6.
        libc::unshare(libc::CLONE_NEWCGROUP);
    }
    Ok(())
}

/// The child is process 1 of the new pid namespace: with it, all processes of the scenario end.
fn start_second(name: &str, how: &How) -> io::Result<ExitCode> {
    let mut command = Command::new("/proc/self/exe");
    command.args(["lab", "inside", name]);
    how.arguments(&mut command);
    die_with_parent(&mut command);
    let status = command.status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The child gets SIGKILL when the thread that starts it ends (PR_SET_PDEATHSIG(2const)).
pub fn die_with_parent(command: &mut Command) {
    // SAFETY: prctl(2) with these arguments is async-signal-safe.
    unsafe {
        command.pre_exec(|| super::net::check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL)));
    }
}

fn perform(scenario: &'static Scenario, how: &How) -> Report {
    let start = Instant::now();
    let mut report = Report::without_run(scenario.name, Status::Fail, "");
    let stage = prepare(scenario, how.record.is_some()).and_then(|()| Ok(Stage::new(how)?));
    let (status, reason) = match stage {
        Err(stop) => stop.outcome(),
        Ok(mut stage) => {
            let result = (scenario.run)(&mut stage);
            report.experienced = stage.experienced();
            report.counters = stage.movement().clone();
            if let Some(Ok(diagnosed)) = stage.diagnosed() {
                report.findings = Some(diagnosed.findings.clone());
                report.ticks.clone_from(&diagnosed.ticks);
            }
            match result {
                Err(stop) => stop.outcome(),
                Ok(()) => verdict(scenario, &report, stage.diagnosed()),
            }
        }
    };
    Report { status, reason, took_s: start.elapsed().as_secs_f64(), ..report }
}

fn verdict(scenario: &Scenario, report: &Report, diagnosed: Option<&Result<Diagnosed, String>>) -> (Status, String) {
    if let Some(problem) = scenario.premises.iter().find_map(|premise| report.counters.contradicts(premise)) {
        return (Status::Fail, problem);
    }
    match diagnosed {
        Some(Ok(diagnosed)) if diagnosed.ticks.is_empty() => judge(&scenario.expect, &diagnosed.findings),
        Some(Ok(diagnosed)) => judge_ticks(&scenario.expect, &diagnosed.ticks),
        Some(Err(problem)) => (Status::Fail, problem.clone()),
        None => (Status::Fail, "the scenario ended without a diagnosis".to_owned()),
    }
}

fn prepare(scenario: &Scenario, recording: bool) -> Result<(), Stop> {
    arena::loopback_up()?;
    mount(None, "/", libc::MS_REC | libc::MS_PRIVATE)?;
    // The processes of the scenario and no others, under the pids that perf events name here (both are relative to the pid
    // namespace). The kernel refuses it to a user namespace where something is mounted over a part of the outer /proc.
    let _ = mount(Some("proc"), "/proc", libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC);
    // Only this mount namespace sees it. Where it is refused (an ordinary user), the diagnosis goes without reset events.
    let _ = mount(Some("tracefs"), TRACEFS, 0);
    for need in scenario.needs {
        match need {
            Need::Program(program) if !installed(program) => {
                return Err(Stop::Skip(format!("{program} is not installed")));
            }
            Need::Program(_) => {}
            // A recording is wanted for what it shows without them.
            Need::ResetEvents if !recording && fs::metadata(format!("{TRACEFS}/events/tcp")).is_err() => {
                return Err(Stop::Skip("counters alone cannot tell it: needs the reset tracepoints (root)".to_owned()));
            }
            Need::ResetEvents => {}
            Need::Files => mount_tmpfs()?,
        }
    }
    Ok(())
}

fn installed(program: &str) -> bool {
    std::env::split_paths(&search_path()).any(|directory| directory.join(program).is_file())
}

fn mount_tmpfs() -> io::Result<()> {
    mount(Some("tmpfs"), DIRECTORY, libc::MS_NOSUID | libc::MS_NODEV)
}

fn mount(kind: Option<&str>, target: &str, flags: libc::c_ulong) -> io::Result<()> {
    let kind = kind.map(CString::new).transpose()?;
    let target = CString::new(target)?;
    let kind = kind.as_ref().map_or(ptr::null(), |kind| kind.as_ptr());
    // SAFETY: the strings are NUL-terminated and read during the call only; no data is passed.
    super::net::check(unsafe { libc::mount(kind, target.as_ptr(), kind, flags, ptr::null()) })
}
