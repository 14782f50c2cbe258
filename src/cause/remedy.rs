//! What can be done about a finding, typed: what is pasted into a shell holds no configuration and no comment, and cannot be
//! made of text ([`ShellCommand`]).

use std::borrow::Cow;
use std::fmt;

use super::{Restart, Setting, SettingKind, commands};
use crate::source::node::Location;
use crate::value::shell::ShellCommand;

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

    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// Sets a sysctl now and after a reboot. Several numbers are one value, separated by spaces.
    pub fn sysctl(
        text: impl Into<String>,
        name: &'static str,
        value: impl fmt::Display,
        verify: impl Into<Verify>,
    ) -> Self {
        Self::new(text, verify).command(commands::set_sysctl(name, &value)).persist(commands::keep_sysctl(name, &value))
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

fn per_netns((program, arguments): (&'static str, Vec<&str>)) -> bool {
    const ALWAYS: [&str; 8] = ["ss", "nstat", "nft", "iptables-save", "tcpdump", "conntrack", "rstdoctor", "nc"];
    let name = |argument: &&&str| !argument.starts_with('-');
    let setting = arguments.iter().find(name).and_then(|argument| argument.split('=').next());
    match program {
        "sysctl" => setting.is_some_and(|name| name.starts_with("net.") && !OF_THE_HOST.contains(&name)),
        _ => ALWAYS.contains(&program),
    }
}

/// How a command gets into the network namespace that a finding is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What `--netns` takes.
    netns: Cow<'a, str>,
    /// What nsenter(1) or ip-netns(8) take: a name, a process id or a path.
    way: Cow<'a, str>,
    /// The network belongs to a container, or to a pod: what is set there is set from its outside.
    owner: Owner,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Host,
    Container,
    /// A container that a compose file describes.
    Service,
    Pod,
}

/// Sysctls that kubelet lets a pod set without being told to (kubernetes.io, "Using sysctls in a Kubernetes Cluster").
const SAFE: [&str; 8] = [
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
];

impl<'a> Entry<'a> {
    /// By what `--netns` takes: a name, a process id or a path.
    pub fn of(netns: &'a str) -> Self {
        Self { netns: netns.into(), way: netns.into(), owner: Owner::Host }
    }

    /// `None` where nothing leads there.
    pub fn to(location: &'a Location) -> Option<Self> {
        let way = location.entry()?;
        let container = location.container();
        let (netns, owner) = match (location.pod(), container) {
            (Some((namespace, pod)), _) => (format!("{namespace}/{pod}"), Owner::Pod),
            (None, Some(container)) => {
                let owner = if container.service.is_some() { Owner::Service } else { Owner::Container };
                (container.label().to_owned(), owner)
            }
            (None, None) => (way.clone(), Owner::Host),
        };
        Some(Self { netns: netns.into(), way: way.into(), owner })
    }

    /// What `--netns` takes.
    pub fn text(&self) -> &str {
        &self.netns
    }

    /// The command with what asks or changes a namespace run in this one. rstdoctor goes there itself: ip-netns(8) mounts a
    /// /sys without tracefs.
    pub fn within(&self, command: &ShellCommand) -> ShellCommand {
        command.each(|simple| {
            let program =
                simple.simple_commands().next().map(|(program, arguments)| (program, per_netns((program, arguments))));
            match program {
                Some(("rstdoctor", true)) => simple.arg("--netns").arg(&self.netns),
                Some((_, true)) => self.enter().running(simple),
                _ => simple,
            }
        })
    }

    /// How a sysctl that `command` sets is kept when the container or pod is made anew, in words that end a sentence.
    pub fn keeps(&self, command: &ShellCommand) -> Option<String> {
        let set = command.simple_commands().filter(|simple| per_netns(simple.clone()));
        let setting = set.filter(|(program, _)| *program == "sysctl").find_map(|(_, arguments)| {
            let setting = arguments.into_iter().find(|argument| argument.contains('='))?;
            setting.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
        });
        let (name, value) = setting?;
        let unsafe_ =
            if SAFE.contains(&name.as_str()) { "" } else { "; kubelet has to allow it: --allowed-unsafe-sysctls" };
        match self.owner {
            Owner::Host => None,
            Owner::Container => Some(format!("start the container with --sysctl {name}=\"{value}\"")),
            Owner::Service => Some(format!("in the compose file, at the service: sysctls: {{{name}: \"{value}\"}}")),
            Owner::Pod => Some(format!(
                "in the manifest, spec.securityContext.sysctls: [{{name: {name}, value: \"{value}\"}}]{unsafe_}"
            )),
        }
    }

    fn enter(&self) -> ShellCommand {
        match &*self.way {
            path if path.contains('/') => ShellCommand::new("nsenter").arg(format_args!("--net={path}")),
            pid if pid.parse::<u32>().is_ok() => ShellCommand::new("nsenter -n -t").arg(pid),
            name => ShellCommand::new("ip netns exec").arg(name),
        }
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

    #[test]
    fn a_namespace_has_its_own_sockets_and_most_of_its_settings() {
        let remedy = |name: &'static str| Remedy::sysctl("", name, 1, "").is_per_netns();
        assert!(remedy("net.core.somaxconn") && !remedy("net.ipv4.tcp_mem") && !remedy("fs.file-max"));
        let command = |command: ShellCommand| Remedy::new("", "").command(command).is_per_netns();
        assert!(command(ShellCommand::new("true").pipe(ShellCommand::new("ss -t"))));
        assert!(!command(ShellCommand::new("kill -CONT 7")));
    }

    #[test]
    fn a_command_is_run_in_the_namespace_that_was_looked_at() {
        let list = ShellCommand::new("ss -tnp").arg("sport = :80").pipe(ShellCommand::new("awk").arg("$2 > 0"));
        let within = |netns: &str, command: &ShellCommand| Entry::of(netns).within(command).to_string();
        assert_eq!(within("we'b", &list), r"ip netns exec 'we'\''b' ss -tnp 'sport = :80' | awk '$2 > 0'");
        assert_eq!(within("4121", &ShellCommand::new("nstat -az")), "nsenter -n -t 4121 nstat -az");
        assert_eq!(within("/run/x", &ShellCommand::new("nstat -az")), "nsenter --net=/run/x nstat -az");
        let both = ShellCommand::new("kill -CONT 7").then(ShellCommand::new("rstdoctor scan"));
        assert_eq!(within("blue", &both), "kill -CONT 7; rstdoctor scan --netns blue");
    }
}
