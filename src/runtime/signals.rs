//! Which signals a command takes, and what they do. See signal(7).
//!
//! INT, TERM, HUP and QUIT ask it to end: what it has is judged, written and closed first. A second INT, TERM or QUIT ends it at
//! once. HUP never is a second one: a terminal that goes brings several. XFSZ is no end either: the write that was too much fails,
//! and is told as any other. PIPE is ignored from the start (by std), so that a reader that goes is an error of writing.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGXFSZ};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};

use super::sys;
use crate::value::Stop;

/// Exit status of a command that was ended before it had a result.
pub const INTERRUPTED: u8 = 130;

/// Those that ask to end, again and again.
const IMPATIENT: [i32; 3] = [SIGINT, SIGTERM, SIGQUIT];
const ALL: [i32; 5] = [SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGXFSZ];

/// For a service: a flag that is set by INT, TERM and QUIT, and one that HUP sets, which asks a service to begin new files. TERM
/// never is a second one: timeout(1) sends two at once.
///
/// # Errors
/// The kernel refused a handler.
pub fn service() -> io::Result<(Stop, Arc<AtomicBool>)> {
    let (stop, hangup) = (Stop::default(), Arc::new(AtomicBool::new(false)));
    taken(|| {
        impatient(&stop, &[SIGINT, SIGQUIT])?;
        flag::register(SIGTERM, Arc::clone(&stop))?;
        flag::register(SIGHUP, Arc::clone(&hangup))?;
        too_large_a_file_is_an_error()
    })?;
    Ok((stop, hangup))
}

/// The first one sets the flag, the second ends the program.
fn impatient(stop: &Stop, signals: &[i32]) -> io::Result<()> {
    let asked = Arc::new(AtomicBool::new(false));
    for &signal in signals {
        flag::register_conditional_shutdown(signal, INTERRUPTED.into(), Arc::clone(&asked))?;
        flag::register(signal, Arc::clone(&asked))?;
        flag::register(signal, Arc::clone(stop))?;
    }
    Ok(())
}

/// A flag that is set by the first signal that asks to end; a second one ends the program at once.
///
/// # Errors
/// The kernel refused a handler.
pub fn stop_on_signals() -> io::Result<Stop> {
    let stop = Stop::default();
    taken(|| {
        impatient(&stop, &IMPATIENT)?;
        if !hangup_is_ignored() {
            flag::register(SIGHUP, Arc::clone(&stop))?;
        }
        too_large_a_file_is_an_error()
    })?;
    Ok(stop)
}

/// The first signal that asks to end ends the program at once: where there is nothing to finish, and opening a pipe may take for
/// ever.
///
/// # Errors
/// The kernel refused a handler.
pub fn end_on_signals() -> io::Result<Stop> {
    let armed = Arc::new(AtomicBool::new(true));
    taken(|| {
        for signal in IMPATIENT {
            flag::register_conditional_shutdown(signal, INTERRUPTED.into(), Arc::clone(&armed))?;
        }
        too_large_a_file_is_an_error()
    })?;
    Ok(Stop::default())
}

/// All that ask to end, and these, one after the other, for a thread that decides what they do.
///
/// # Errors
/// The kernel refused a handler.
pub fn listen(others: &[i32]) -> io::Result<Signals> {
    let hangup = (!hangup_is_ignored()).then_some(SIGHUP);
    taken(|| {
        too_large_a_file_is_an_error()?;
        Signals::new(IMPATIENT.iter().chain(others).copied().chain(hangup))
    })
}

/// Installs handlers. A signal that comes between the installation and the entry that says what it does would be lost: it waits.
fn taken<T>(install: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    sys::with_blocked(&ALL, install)?
}

/// With a handler of any kind a write beyond RLIMIT_FSIZE fails with EFBIG (setrlimit(2)).
fn too_large_a_file_is_an_error() -> io::Result<()> {
    flag::register(SIGXFSZ, Arc::default()).map(|_| ())
}

/// As nohup(1) starts it: whoever did that wants it to go on. The line of /proc/self/status is a mask of the ignored signals,
/// proc_pid_status(5).
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (SIGHUP - 1)) != 0
}

/// Stops all processes of this job as the terminal does at Ctrl-Z, a script that started this one too, until somebody lets it go
/// on. False if nobody could: the kernel does not stop a job whose parents are all of other sessions (`ssh -t`, `docker exec`).
pub fn stop_job() -> bool {
    /// A signal to the process may reach another thread first.
    const DELIVERED: Duration = Duration::from_millis(20);
    let start = Instant::now();
    let stopped = sys::with_default_action(SIGTSTP, || {
        let sent = rustix::process::kill_current_process_group(rustix::process::Signal::TSTP);
        std::thread::sleep(DELIVERED);
        sent
    });
    matches!(stopped, Ok(Ok(()))) && start.elapsed() > 2 * DELIVERED
}

/// Ends at once, from any thread, without waiting for another one.
pub fn end_now() -> ! {
    low_level::exit(INTERRUPTED.into())
}
