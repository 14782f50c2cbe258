//! Commands that several causes give.

use crate::value::outside::UnitName;
use crate::value::shell::{Name, Part, ShellCommand};

/// `sysctl -w name=value`
pub fn set_sysctl(name: &'static str, value: impl Part) -> ShellCommand {
    ShellCommand::new("sysctl -w").arg((name, "=", value))
}

/// Writes the setting into a file of sysctl.d(5).
pub fn keep_sysctl(name: &'static str, value: impl Part) -> ShellCommand {
    let file = name.rsplit('.').next().unwrap_or(name);
    ShellCommand::new("echo").arg((name, " = ", value)).into_file(("/etc/sysctl.d/90-", file, ".conf"))
}

/// `ss` with its filter for one local port, where it is known.
pub fn ss_of(command: &'static str, port: Option<u16>) -> ShellCommand {
    ShellCommand::new(command).args(port.map(|port| ("sport = :", port)))
}

/// Who listens, and which services have failed.
pub fn listening_or_failed(port: Option<u16>) -> ShellCommand {
    ss_of("ss -lntp", port).then(ShellCommand::new("systemctl --failed"))
}

/// The most frequent of the lines that a command prints.
pub fn most_frequent(lines: ShellCommand) -> ShellCommand {
    ["sort", "uniq -c", "sort -rn", "head"].into_iter().fold(lines, |lines, next| lines.pipe(ShellCommand::new(next)))
}

/// What was logged in the last ten minutes, by this unit where it is known.
pub fn journal(unit: Option<&UnitName>) -> ShellCommand {
    let journal = ShellCommand::new("journalctl --since -10min");
    match unit.and_then(Name::unit) {
        Some(unit) => journal.arg("-u").arg(unit),
        None => journal,
    }
}
