//! What is on the other side of standard output and standard error.

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};
use rustix::event::{PollFd, PollFlags, Timespec};

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

/// The time of day here, with the name of its zone: `16:02:11 CEST`; `None` where that is UTC. Without a zone it is that of TZ or
/// /etc/localtime.
pub fn local_time(wall: Duration, zone: Option<TimeZone>) -> Option<String> {
    let at = Timestamp::try_from(std::time::SystemTime::UNIX_EPOCH.checked_add(wall)?).ok()?;
    let local = at.to_zoned_datetime(zone.or_else(|| TimeZone::try_system().ok())?);
    (local.offset() != Offset::UTC).then(|| local.strftime("%H:%M:%S %Z").to_string())
}

/// Columns and rows of the terminal at standard output, ioctl_tty(2). A terminal that does not know says 0.
pub fn size() -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// The other end of a pipe at standard output is closed: `| head -1` ends a live command although nothing more comes.
pub fn reader_is_gone() -> bool {
    poll(&std::io::stdout(), PollFlags::empty(), Duration::ZERO).contains(PollFlags::ERR)
}

/// What poll(2) says of a descriptor; nothing if nothing comes in time.
pub fn poll(fd: &impl AsFd, events: PollFlags, wait: Duration) -> PollFlags {
    let mut asked = [PollFd::new(fd, events)];
    let wait = Timespec::try_from(wait).ok();
    match rustix::event::poll(&mut asked, wait.as_ref()) {
        Ok(1..) => asked[0].revents(),
        _ => PollFlags::empty(),
    }
}
