//! What can be done about a finding, typed: what is pasted into a shell holds no configuration and no comment, and cannot be
//! made of text ([`ShellCommand`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Restart, Setting, SettingKind, commands};
use crate::value::shell::{Name, Part, ShellCommand};

/// Something to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remedy {
    /// In plain words, imperative.
    pub text: String,
    pub change: Change,
    pub restart: Restart,
    /// How to see that it worked.
    pub verify: Verify,
}

/// What a remedy changes, or looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Only the text says it.
    Advice,
    /// To be pasted into a shell as it is.
    Shell {
        command: ShellCommand,
        /// Makes it survive a reboot, where `command` does not.
        persist: Option<ShellCommand>,
    },
    /// A line of a program's configuration, or of its source.
    Setting(Setting),
}

/// How to see that a remedy worked: what to type, and what that shows; or only what there is to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verify {
    pub command: Option<ShellCommand>,
    /// Reads on behind the command: `shows no overflow`.
    pub text: String,
}

impl Verify {
    pub fn by(command: ShellCommand, text: impl Into<String>) -> Self {
        Self { command: Some(command), text: text.into() }
    }

    /// By `rstdoctor scan`.
    pub fn scan(text: impl Into<String>) -> Self {
        Self::by(ShellCommand::new("rstdoctor scan"), text)
    }

    /// By a counter, with nstat's name of it, that no longer grows.
    pub fn flat(counter: &'static str) -> Self {
        Self::by(ShellCommand::new("nstat -az").arg(counter), "stays flat")
    }
}

/// What became of a process that was observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Runs,
    Ended,
    Unknown,
}

impl From<&str> for Verify {
    fn from(text: &str) -> Self {
        Self { command: None, text: text.to_owned() }
    }
}

impl fmt::Display for Verify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.command {
            Some(command) => write!(f, "{command} {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

impl Remedy {
    /// Advice, until it is told what to type or to write.
    pub fn new(text: impl Into<String>, verify: impl Into<Verify>) -> Self {
        Self { text: text.into(), change: Change::Advice, restart: Restart::None, verify: verify.into() }
    }

    pub fn command(self, command: ShellCommand) -> Self {
        Self { change: Change::Shell { command, persist: None }, ..self }
    }

    pub fn command_if(self, command: Option<ShellCommand>) -> Self {
        match command {
            Some(command) => self.command(command),
            None => self,
        }
    }

    /// Makes the command survive a reboot.
    pub fn persist(mut self, command: ShellCommand) -> Self {
        if let Change::Shell { persist, .. } = &mut self.change {
            *persist = Some(command);
        }
        self
    }

    /// A setting of a program, with what has to be restarted for it.
    pub fn setting(self, setting: Setting) -> Self {
        let text = match &setting.note {
            Some(note) => format!("{} ({note})", self.text),
            None => self.text,
        };
        Self { text, restart: setting.restart, change: Change::Setting(setting), ..self }
    }

    /// As one who is not on the host that was observed, or later, can use it: its commands say `PID`, and the text what that was.
    pub fn elsewhere(mut self) -> Self {
        let mut names: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
        let mut told = |command: &mut ShellCommand| {
            for (stand_in, name) in command.names() {
                let known = names.entry(stand_in).or_default();
                if known.iter().all(|known| known != name) {
                    known.push(name.to_owned());
                }
            }
            *command = command.elsewhere();
        };
        if let Change::Shell { command, persist } = &mut self.change {
            told(command);
            persist.iter_mut().for_each(&mut told);
        }
        self.verify.command.iter_mut().for_each(told);
        let was = |(stand_in, names): (&'static str, Vec<String>)| format!("{stand_in} was {}", names.join(", "));
        let was: Vec<_> = names.into_iter().map(was).collect();
        if !was.is_empty() {
            self.text = format!("{} (there and then {})", self.text, was.join(", "));
        }
        self
    }

    /// As one can use it later on the same host: a command for a process that has ended is none, and says so.
    pub fn later(mut self, fate: &mut dyn FnMut(u32) -> Fate) -> Self {
        let pids = |command: &ShellCommand| -> Vec<u32> {
            let names = command.names();
            names.into_iter().filter(|(what, _)| *what == Name::PID).filter_map(|(_, pid)| pid.parse().ok()).collect()
        };
        let (mut of_command, mut of_verify) = (Vec::new(), Vec::new());
        if let Change::Shell { command, persist } = &self.change {
            of_command.extend(std::iter::once(command).chain(persist).flat_map(pids));
        }
        of_verify.extend(self.verify.command.iter().flat_map(pids));
        let all: BTreeSet<u32> = of_command.iter().chain(&of_verify).copied().collect();
        let fates: Vec<Fate> = all.iter().map(|pid| fate(*pid)).collect();
        if fates.iter().all(|fate| *fate == Fate::Runs) {
            return self;
        }
        if fates.iter().any(|fate| *fate != Fate::Ended) {
            return self.elsewhere();
        }
        let ended: Vec<String> = all.iter().map(u32::to_string).collect();
        let have = if ended.len() == 1 { "has" } else { "have" };
        self.text = format!("{} (pid {} {have} ended since)", self.text, ended.join(", "));
        if !of_command.is_empty() {
            self.change = Change::Advice;
        }
        if !of_verify.is_empty() {
            self.verify.command = self.verify.command.map(|command| command.elsewhere());
        }
        self
    }

    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// Sets a sysctl now and after a reboot. Several numbers are one value, separated by spaces.
    pub fn sysctl(
        text: impl Into<String>,
        name: &'static str,
        value: impl Part + Copy,
        verify: impl Into<Verify>,
    ) -> Self {
        Self::new(text, verify).command(commands::set_sysctl(name, value)).persist(commands::keep_sysctl(name, value))
    }

    /// What is to be pasted or written, on one line; `None` for advice.
    #[cfg(test)]
    pub fn line(&self) -> Option<String> {
        match &self.change {
            Change::Advice => None,
            Change::Shell { command, .. } => Some(command.to_string()),
            Change::Setting(setting) => Some(setting.line.clone()),
        }
    }

    /// Where the line of a setting goes, in words for a sentence: `in nginx.conf, server block`.
    pub fn place(&self) -> Option<String> {
        let Change::Setting(setting) = &self.change else { return None };
        let file = setting.file.as_ref().map(|file| format!("in {file}"));
        let parts: Vec<_> = [file, setting.place.clone()].into_iter().flatten().collect();
        Some(parts.join(", ")).filter(|place| !place.is_empty())
    }

    /// What makes the command survive a reboot. sysctl.d(5) sets those of the first namespace, so there is nothing for one
    /// `elsewhere`.
    pub fn persist_in(&self, elsewhere: bool) -> Option<&ShellCommand> {
        match &self.change {
            Change::Shell { persist, .. } if !elsewhere || !self.is_per_netns() => persist.as_ref(),
            _ => None,
        }
    }

    /// The command asks or changes a network namespace: run elsewhere it is about other sockets and settings.
    pub fn is_per_netns(&self) -> bool {
        matches!(&self.change, Change::Shell { command, .. } if command.simple_commands().any(per_netns))
    }
}

/// Sysctls below net. that every namespace shares, or that only the first one has: tcp_mem and tcp_max_orphans
/// (net/ipv4/sysctl_net_ipv4.c, ipv4_table), nf_conntrack_max (net/netfilter/nf_conntrack_standalone.c, since 5.13 read-only
/// in other namespaces).
const OF_THE_HOST: [&str; 3] = ["net.ipv4.tcp_mem", "net.ipv4.tcp_max_orphans", "net.netfilter.nf_conntrack_max"];

pub(super) fn per_netns((program, arguments): (&'static str, Vec<&str>)) -> bool {
    const ALWAYS: [&str; 11] = [
        "ss",
        "nstat",
        "ip",
        "nft",
        "iptables",
        "iptables-save",
        "ip6tables-save",
        "tcpdump",
        "conntrack",
        "rstdoctor",
        "nc",
    ];
    let name = |argument: &&&str| !argument.starts_with('-');
    let setting = arguments.iter().find(name).and_then(|argument| argument.split('=').next());
    match program {
        "sysctl" => setting.is_some_and(|name| name.starts_with("net.") && !OF_THE_HOST.contains(&name)),
        _ => ALWAYS.contains(&program),
    }
}

impl Setting {
    /// A line of configuration that takes effect with `restart`.
    pub fn config(line: &str, file: &str, place: Option<&str>, restart: Restart) -> Self {
        let (file, place) = (Some(file.to_owned()), place.map(str::to_owned));
        Self { kind: SettingKind::Config, line: line.to_owned(), file, place, note: None, restart }
    }

    /// Of the service on this port, where it has one of its own.
    pub fn of_port(&self, port: u16) -> Self {
        let place = self.place.as_deref().map(|place| place.replace("{port}", &port.to_string()));
        Self { place, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::outside::UnitName;

    #[test]
    fn a_namespace_has_its_own_sockets_and_most_of_its_settings() {
        let remedy = |name: &'static str| Remedy::sysctl("", name, 1, "").is_per_netns();
        assert!(remedy("net.core.somaxconn") && !remedy("net.ipv4.tcp_mem") && !remedy("fs.file-max"));
        let command = |command: ShellCommand| Remedy::new("", "").command(command).is_per_netns();
        assert!(command(ShellCommand::new("true").pipe(ShellCommand::new("ss -t"))));
        assert!(!command(ShellCommand::new("kill -CONT 7")));
    }

    #[test]
    fn later_a_command_is_told_for_a_process_that_runs_and_not_for_one_that_ended() {
        let remedy = || Remedy::new("Continue", "moves").command(ShellCommand::new("kill -CONT").arg(Name::pid(4121)));
        let later = |fate| remedy().later(&mut |_| fate);
        assert_eq!(later(Fate::Runs), remedy());
        let ended = later(Fate::Ended);
        assert_eq!((ended.line(), ended.text.as_str()), (None, "Continue (pid 4121 has ended since)"));
        assert_eq!(later(Fate::Unknown), remedy().elsewhere());
        let plain = Remedy::new("Look", "").command(ShellCommand::new("ss -lnt"));
        assert_eq!(plain.clone().later(&mut |_| Fate::Ended), plain, "it names no process");
    }

    #[test]
    fn for_another_host_a_command_says_what_kind_of_thing_it_names_and_the_text_which() {
        let pids = [4121, 4122].map(Name::pid);
        let unit = UnitName::parse("web.service").expect("a unit");
        let stacks = ShellCommand::new("cat").args(pids.clone().map(|pid| ("/proc/", pid, "/stack")));
        let remedy = Remedy::new("Continue", Verify::by(stacks, "moves"))
            .command(ShellCommand::new("kill -CONT").args(pids))
            .persist(ShellCommand::new("systemctl restart").arg(Name::unit(&unit).expect("of the host")))
            .elsewhere();
        assert_eq!(remedy.line().as_deref(), Some("kill -CONT PID"));
        assert_eq!(remedy.persist_in(false).map(ToString::to_string).as_deref(), Some("systemctl restart UNIT"));
        assert_eq!(remedy.verify.to_string(), "cat /proc/PID/stack moves");
        assert_eq!(remedy.text, "Continue (there and then PID was 4121, 4122, UNIT was web.service)");
        let plain = Remedy::new("Look", "").command(ShellCommand::new("ss -lnt"));
        assert_eq!(plain.clone().elsewhere(), plain);
    }
}
