//! Names that others choose, bounded and checked where they are parsed: a process names itself, a container's cgroup can have
//! any name, and a recording can hold anything. What is shown is escaped besides ([`super::escape`]).

use std::fmt;
use std::ops::Deref;

/// Longest name of a process, bytes: TASK_COMM_LEN less its NUL (include/linux/sched.h).
pub const COMM: usize = 15;
/// Longest name of a file or directory, bytes: NAME_MAX (include/uapi/linux/limits.h), and of a unit (systemd.unit(5)).
pub const NAME: usize = 255;
/// Longest host name and kernel release, bytes: __NEW_UTS_LEN (include/uapi/linux/utsname.h).
pub const UTS: usize = 64;

/// The text as far as the kernel allows that many bytes. A byte that was no UTF-8 counts as the one byte it was.
pub fn bounded(text: &str, bytes: usize) -> String {
    let mut used = 0;
    let fits = |character: &char| {
        used += if *character == char::REPLACEMENT_CHARACTER { 1 } else { character.len_utf8() };
        used <= bytes
    };
    text.chars().take_while(fits).collect()
}

/// Name of a process as the kernel keeps it: at most [`COMM`] bytes; what is not UTF-8 is replaced.
pub fn comm(bytes: &[u8]) -> String {
    // A longer name is not read further than it can count: no name of 4 MB is decoded.
    bounded(&String::from_utf8_lossy(bytes.get(..COMM).unwrap_or(bytes)), COMM)
}

/// Whether a process of this comm was meant. The kernel keeps [`COMM`] bytes of a name, and people write it whole:
/// systemd-resolved is `systemd-resolve`.
pub fn is_comm_of(wanted: &str, comm: &str) -> bool {
    wanted == comm || (comm.len() == COMM && wanted.starts_with(comm))
}

/// Name of a systemd unit as systemd spells it, with bytes outside its own characters escaped (`my\x2dapp.service`), so that
/// `systemctl` takes it as it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitName {
    name: String,
    manager: Manager,
}

/// Whose unit it is. Every manager has names of its own: a user, and a container, may have a `postgresql.service` too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Manager {
    /// The first systemd, which `systemctl` talks to.
    Host,
    /// That of a user, `user@1000.service`.
    User(u32),
    /// Another one, in a container mostly.
    Other,
}

impl UnitName {
    /// One of the host; `None` for what is no name of a unit: other characters than systemd.unit(5) allows ("ASCII letters, digits, `:`, `-`,
    /// `_`, `.`, `\`, and `@`"), no suffix, or too long. A name that begins with `-` is refused as well, because any program
    /// would take it for an option.
    pub fn parse(text: &str) -> Option<Self> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        let sound = text.len() <= NAME && !text.starts_with(['-', '.']) && text.chars().all(allowed);
        let suffix = text.rsplit_once('.').is_some_and(|(name, suffix)| !name.is_empty() && !suffix.is_empty());
        (sound && suffix).then(|| Self { name: text.to_owned(), manager: Manager::Host })
    }

    pub fn of(self, manager: Manager) -> Self {
        Self { manager, ..self }
    }

    pub fn manager(&self) -> Manager {
        self.manager
    }

    /// It is a service: it can be restarted, and has settings of its own.
    pub fn is_service(&self) -> bool {
        self.name.ends_with(".service")
    }
}

impl Deref for UnitName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.manager {
            Manager::Host => f.write_str(&self.name),
            Manager::User(uid) => write!(f, "{} of user {uid}", self.name),
            Manager::Other => write!(f, "{} of another systemd", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_has_the_characters_that_systemd_allows() {
        for name in ["nginx.service", "my\\x2dapp.service", "getty@tty1.service", "docker-0a.scope"] {
            assert_eq!(UnitName::parse(name).as_deref(), Some(name));
        }
        let long = format!("{}.service", "a".repeat(NAME));
        let hostile =
            ["rl-$(touch x).service", "a;b.service", "a b.service", "-Hroot@far.service", "..", "é.service", &long];
        assert!(hostile.iter().all(|name| UnitName::parse(name).is_none()));
        assert!(UnitName::parse("nginx").is_none() && UnitName::parse(".service").is_none());
    }

    #[test]
    fn names_are_as_long_as_the_kernel_allows() {
        assert_eq!(comm(&[b'x'; 4_000_000]), "x".repeat(15));
        assert_eq!(comm("ääääääää".as_bytes()), "äääääää\u{fffd}");
        assert_eq!(bounded(&"\u{fffd}".repeat(20), COMM).chars().count(), 15, "each was one byte");
        assert_eq!(bounded("数据库数据库", 15), "数据库数据");
    }
}
