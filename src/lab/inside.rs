//! The process in which one scenario runs, in namespaces of its own.

use std::fs;
use std::io;
use std::process::ExitCode;
use std::time::Instant;

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{Pid, Signal, WaitOptions, getegid, geteuid, set_parent_process_death_signal, waitpid};
use rustix::system::sethostname;
use rustix::thread::{CapabilitySet, UnshareFlags};

use super::How;
use super::arena;
use super::evidence;
use super::findings::Diagnosed;
use super::installed::is_installed;
use super::judge::{judge, judge_ticks};
use super::report::{Report, Status};
use super::scenario::{self, Need, Scenario};
use super::stage::Stage;
use super::stop::Stop;
use super::sys::{self, Forked};
use super::temporary::{self, mount_new};
use crate::output::{print, say};
use crate::runtime::{self, privilege};

/// The host name inside.
const HOSTNAME: &[u8] = b"lab";
const TRACEFS: &str = "/sys/kernel/tracing";

/// Makes the namespaces, and runs the scenario in a process that is their init. Nothing is done in the namespaces of the caller.
pub fn main(name: &str, how: &How) -> ExitCode {
    let Some(scenario) = scenario::find(name) else {
        say(format_args!("rstdoctor lab: no scenario {name}"));
        return ExitCode::from(2);
    };
    let report = match leave_host().and_then(|()| sys::fork()) {
        Ok(Forked::Parent(init)) => return wait_for(init),
        Ok(Forked::Child) => match live_as_long_as_the_runner().and_then(|()| privilege::keep_only(NEEDED)) {
            Ok(()) => perform(scenario, how),
            Err(error) => {
                Report::without_run(name, scenario.expect.cause, Status::Fail, format!("cannot be kept apart: {error}"))
            }
        },
        Err(error) => Report::without_run(
            name,
            scenario.expect.cause,
            Status::Skipped,
            format!("no namespaces of its own: {error} (needs root, or unprivileged user namespaces)"),
        ),
    };
    match serde_json::to_string(&report).map_err(io::Error::from).and_then(|line| print(format!("{line}\n"))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("rstdoctor lab: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// What the scenarios and the servers that they start need, within the namespaces and of root on the host: no modules, devices,
/// clocks, raw memory or reboot. Rules of nft load their modules by themselves.
const NEEDED: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::SYSLOG)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::SYS_RESOURCE)
    .union(CapabilitySet::IPC_LOCK)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID);

/// Makes the calling process, and the children that follow, strangers to the host: new network (without any interface
/// up), mount and pid namespace, in a new user namespace unless it may do without. Must run on a single thread
/// (unshare(2): CLONE_NEWUSER).
fn leave_host() -> io::Result<()> {
    let spaces = UnshareFlags::NEWNET | UnshareFlags::NEWNS | UnshareFlags::NEWPID;
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    match sys::unshare(spaces) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            sys::unshare(spaces | UnshareFlags::NEWUSER)?;
            // user_namespaces(7): without CAP_SETGID outside, gid_map is only accepted after setgroups is denied.
            fs::write("/proc/self/setgroups", "deny")?;
            fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
            fs::write("/proc/self/gid_map", format!("0 {group} 1"))?;
        }
        other => other?,
    }
    // A recording of the lab should tell nothing of the machine that it ran on: no host name, no control groups.
    if sys::unshare(UnshareFlags::NEWUTS).is_ok() {
        let _ = sethostname(HOSTNAME);
    }
    // Since 4.6.
    let _ = sys::unshare(UnshareFlags::NEWCGROUP);
    Ok(())
}

/// With the init of their pid namespace all processes of the scenario end.
fn wait_for(init: Pid) -> ExitCode {
    if let Err(error) = privilege::keep_only(CapabilitySet::empty()) {
        say(format_args!("rstdoctor lab: {error}"));
    }
    loop {
        match waitpid(Some(init), WaitOptions::empty()) {
            Err(Errno::INTR) => {}
            Ok(Some((_, status))) if status.exit_status() == Some(0) => return ExitCode::SUCCESS,
            _ => return ExitCode::FAILURE,
        }
    }
}

/// The runner holds the other end of standard input. Its end closes that however it ends, also where the kernel has forgotten
/// whose death this process waits for, as it does when the program has file capabilities (PR_SET_PDEATHSIG(2const)).
fn live_as_long_as_the_runner() -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    runtime::thread::start("runner", || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        std::process::exit(1);
    })
    .map(|_| ())
}

fn perform(scenario: &'static Scenario, how: &How) -> Report {
    let start = Instant::now();
    let mut report = Report::without_run(scenario.name, scenario.expect.cause, Status::Fail, "");
    let how = &match directory_of(scenario, how) {
        Ok(how) => how,
        Err(error) => return Report { reason: format!("--evidence: {error}"), ..report },
    };
    report.also = scenario.expect.also.iter().map(|id| (*id).to_owned()).collect();
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
                report.levels.clone_from(&diagnosed.levels);
            }
            match result {
                Err(stop) => stop.outcome(),
                Ok(()) => verdict(scenario, &report, stage.diagnosed()),
            }
        }
    };
    let mut report = Report { status, reason, took_s: start.elapsed().as_secs_f64(), ..report };
    if let Some(directory) = &how.evidence {
        let own = scenario.needs.contains(&Need::Files);
        if let Err(error) = evidence::finish(directory, own, &report) {
            (report.status, report.reason) = (Status::Fail, format!("--evidence: {error}"));
        }
    }
    report
}

/// The same, where what is kept of the scenario has its own directory.
fn directory_of(scenario: &Scenario, how: &How) -> io::Result<How> {
    let Some(directory) = &how.evidence else { return Ok(how.clone()) };
    let directory = directory.join(scenario.name);
    fs::create_dir_all(&directory)?;
    Ok(How { record: Some(directory.join(evidence::RECORDING)), evidence: Some(directory), ..how.clone() })
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
    arena::prepare()?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).map_err(io::Error::from)?;
    forget_namespaces();
    // The processes of the scenario and no others, under the pids that perf events name here (both are relative to the pid
    // namespace). The kernel refuses it to a user namespace where something is mounted over a part of the outer /proc.
    let _ = mount_new("proc", "/proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC);
    // Only this mount namespace sees it. Where it is refused (an ordinary user), the diagnosis goes without reset events.
    let _ = mount_new("tracefs", TRACEFS, MountFlags::empty());
    for need in scenario.needs {
        match need {
            Need::Program(program) if !is_installed(program) => {
                return Err(Stop::Skip(format!("{program} is not installed")));
            }
            Need::Program(_) => {}
            // A recording is wanted for what it shows without them.
            Need::ResetEvents if !recording && fs::metadata(format!("{TRACEFS}/events/tcp")).is_err() => {
                return Err(Stop::Skip("counters alone cannot tell it: needs the reset tracepoints (root)".to_owned()));
            }
            Need::ResetEvents => {}
            Need::Files => temporary::mount_tmpfs(temporary::DIRECTORY)?,
        }
    }
    Ok(())
}

/// Unmounts, in this mount namespace only, what leads to network namespaces of the machine: they are none of the scenario's.
fn forget_namespaces() {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter(|line| line.contains(" - nsfs ")).filter_map(|line| line.split(' ').nth(4));
    for point in points {
        // Refused in a user namespace, which may not enter them either.
        let _ = unmount(point, UnmountFlags::DETACH);
    }
}
