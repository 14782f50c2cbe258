//! What is on the other side of standard output and standard error.

use std::io::IsTerminal;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use crate::command::config::Terminal;

/// Asks the terminal and the environment, once.
pub fn terminal() -> Terminal {
    Terminal {
        width: std::io::stdout().is_terminal().then(|| size().map_or(80, |(columns, _)| columns)),
        keys: std::io::stdin().is_terminal(),
        dumb: variable("TERM").is_none_or(|term| term == "dumb"),
        // The font of the Linux console has few of the block characters.
        unicode: is_utf8() && variable("TERM").is_none_or(|term| term != "linux"),
        progress: std::io::stderr().is_terminal(),
        no_color: std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()),
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The character set of the locale, from the variables in the order of locale(7).
fn is_utf8() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(variable).unwrap_or_default().to_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// Columns and rows of the terminal at standard output, ioctl_tty(2). A terminal that does not know says 0.
pub fn size() -> Option<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize, which lives until after the call.
    let result = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &mut size) };
    (result == 0 && size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// Stops all processes of this job as the terminal does at Ctrl-Z, a script that started this one too, until somebody lets it go
/// on. False if nobody could: the kernel does not stop a job whose parents are all of other sessions (`ssh -t`, `docker exec`).
pub fn stop_job() -> bool {
    /// A signal to the process may reach another thread first.
    const DELIVERED: Duration = Duration::from_millis(20);
    let start = Instant::now();
    // SAFETY: sigaction is plain data, valid as zeros (SIG_DFL, no flags); both live across the calls.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        let mut ours: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGTSTP, &default, &mut ours) != 0 {
            return false;
        }
        libc::kill(0, libc::SIGTSTP);
        std::thread::sleep(DELIVERED);
        libc::sigaction(libc::SIGTSTP, &ours, std::ptr::null_mut());
    }
    start.elapsed() > 2 * DELIVERED
}

/// The other end of a pipe at standard output is closed: `| head -1` ends a live command although nothing more comes.
pub fn reader_is_gone() -> bool {
    poll(libc::STDOUT_FILENO, 0, Duration::ZERO) & libc::POLLERR != 0
}

/// What poll(2) says of a descriptor; 0 if nothing comes in time.
pub fn poll(fd: RawFd, events: libc::c_short, wait: Duration) -> libc::c_short {
    let mut asked = libc::pollfd { fd, events, revents: 0 };
    let wait = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one pollfd, which lives until after the call.
    let ready = unsafe { libc::poll(&raw mut asked, 1, wait) };
    if ready > 0 { asked.revents } else { 0 }
}
