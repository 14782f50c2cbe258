//! How what a finding advises is done from where the person stands: commands that go into a network namespace, and what ends,
//! starts or keeps something in a container or a pod.

use std::borrow::Cow;

use super::engine::{Engine, PODMAN};
use super::remedy::per_netns;
use super::{Change, Remedy, Restart, SettingKind, Verify};
use crate::source::node::{Container, Location, Way, is_netns_name};
use crate::value::escape::visible;
use crate::value::shell::{Name, ShellCommand};

/// The way into the network namespace that a finding is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What `--netns` takes.
    netns: Cow<'a, str>,
    /// What people call it; empty for the network of the one who looks.
    called: String,
    /// `None` where no command leads there.
    way: Option<Way<'a>>,
    owner: Owner<'a>,
    /// It was looked at at another time, and perhaps on another host: no name of it is a word of a command.
    elsewhere: bool,
}

/// Whose network it is: what is set in that of a container or a pod is kept outside of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner<'a> {
    Host,
    Container(&'a Container),
    Pod { namespace: &'a str, pod: &'a str },
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
    /// By what `--netns` takes, as the one who reads gave it: a name, a process id or a path.
    pub fn of(netns: &'a str) -> Self {
        let way = match netns.parse() {
            _ if netns.contains('/') => Way::Path(netns),
            Ok(pid) => Way::Pid(pid),
            Err(_) => Way::Name(netns),
        };
        let called = format!("netns {netns}");
        Self { netns: netns.into(), called, way: Some(way), owner: Owner::Host, elsewhere: false }
    }

    /// By what `ip netns` called it where it was looked at; `elsewhere`: see [`super::Finding::elsewhere`].
    pub fn named(netns: &'a str, elsewhere: bool) -> Self {
        let is_name = is_netns_name(netns) && netns.parse::<u32>().is_err() && !elsewhere;
        Self { way: is_name.then_some(Way::Name(netns)), elsewhere, ..Self::of(netns) }
    }

    /// `None` where that is the network namespace of the one who reads. `elsewhere`: see [`super::Finding::elsewhere`].
    pub fn to(location: &'a Location, elsewhere: bool) -> Option<Self> {
        let way = location.entry().filter(|_| !elsewhere);
        if way.is_none() && location.own {
            return None;
        }
        let of_host = || match way {
            Some(Way::Name(text) | Way::Path(text)) => text.to_owned(),
            Some(Way::Pid(pid)) => pid.to_string(),
            None => location.to_string(),
        };
        let (netns, owner) = match (location.pod(), location.container()) {
            (Some((namespace, pod)), _) if is_word(namespace) && is_word(pod) => {
                (format!("{namespace}/{pod}"), Owner::Pod { namespace, pod })
            }
            (None, Some(container)) if is_word(container.label()) => {
                (container.label().to_owned(), Owner::Container(container))
            }
            _ => (of_host(), Owner::Host),
        };
        let netns = if location.ambiguous && way.is_some() { of_host() } else { netns };
        Some(Self { netns: netns.into(), called: location.to_string(), way, owner, elsewhere })
    }

    /// What a remedy says. Where no command leads to the namespace, that it has to be run there.
    pub fn text<'r>(&self, remedy: &'r Remedy) -> Cow<'r, str> {
        match &self.way {
            None if remedy.is_per_netns() && !self.called.is_empty() => {
                format!("{}; run it in {}", remedy.text, visible(&self.called)).into()
            }
            _ => remedy.text.as_str().into(),
        }
    }

    /// To a container that shares the network of the one who looks: only what ends or starts it is different there.
    pub fn of_container(container: &'a Container, elsewhere: bool) -> Self {
        let owner = match (&container.pod_namespace, &container.pod) {
            (Some(namespace), Some(pod)) => Owner::Pod { namespace, pod },
            _ => Owner::Container(container),
        };
        Self { netns: "".into(), called: String::new(), way: None, owner, elsewhere }
    }

    /// The command as it can be run from outside. rstdoctor goes in itself: ip-netns(8) mounts a /sys without tracefs.
    pub fn within(&self, command: &ShellCommand) -> ShellCommand {
        self.run(command, &|| self.enter())
    }

    /// How to see that a remedy worked. The process that leads there may be another one by then.
    pub fn verify(&self, remedy: &Remedy) -> Verify {
        let Verify { command, text } = &remedy.verify;
        let Some(command) = command else { return remedy.verify.clone() };
        let anew = remedy.restart == Restart::Service;
        let command = match self.owner {
            // What changes its configuration makes a new one.
            Owner::Pod { .. } if anew || remedy.restart == Restart::Reload => return self.in_new_pod(command, text),
            // By its name, where that leads to this namespace and to no other.
            Owner::Container(container) if anew && self.way.is_some() && self.netns == container.label() => {
                self.run(command, &|| match Engine::of(container) {
                    Some(engine) => ShellCommand::new("nsenter -n -t")
                        .arg_of(ShellCommand::new(engine.pid).arg(Name::container(container.label()))),
                    None => self.enter(),
                })
            }
            _ => self.within(command),
        };
        let there = command.simple_commands().any(per_netns) && self.way.is_none() && !self.called.is_empty();
        let text = if there { format!("{text}, run in {}", visible(&self.called)) } else { text.clone() };
        Verify { command: Some(command), text }
    }

    /// A pod that took the place of another has another name, too.
    fn in_new_pod(&self, command: &ShellCommand, text: &str) -> Verify {
        if command.simple_commands().all(|(program, _)| program == "rstdoctor") {
            return Verify { command: Some(command.clone()), text: text.to_owned() };
        }
        Verify { command: None, text: format!("in the network namespace of the new pod, {command} {text}") }
    }

    /// As it can be run where it is read.
    fn told(&self, command: ShellCommand) -> ShellCommand {
        if self.elsewhere { command.elsewhere() } else { command }
    }

    fn run(&self, command: &ShellCommand, enter: &dyn Fn() -> ShellCommand) -> ShellCommand {
        self.told(command.each(|simple| {
            let Some((program, arguments)) = simple.simple_commands().next() else { return simple };
            let instead = match (program, &arguments[..]) {
                ("journalctl", _) => self.logs(),
                ("systemctl", ["--failed"]) => self.list(),
                _ => None,
            };
            match (instead, program, per_netns((program, arguments))) {
                (Some(instead), ..) => instead,
                (None, "rstdoctor", true) if self.leads_there() => simple.arg("--netns").arg(Name::netns(&self.netns)),
                (None, _, true) if self.way.is_some() => enter().running(simple),
                (None, ..) => simple,
            }
        }))
    }

    /// What the programs in there said. A container's do not write to the host's journal.
    fn logs(&self) -> Option<ShellCommand> {
        match self.owner {
            Owner::Host => None,
            Owner::Container(container) => {
                Some(ShellCommand::new(Engine::of(container)?.logs).arg(Name::container(container.label())))
            }
            Owner::Pod { namespace, pod } => Some(
                ShellCommand::new("kubectl -n")
                    .arg(Name::pod_namespace(namespace))
                    .args(["logs", "--all-containers", "--since=10m"])
                    .arg(Name::pod(pod)),
            ),
        }
    }

    /// What runs, and what has ended.
    fn list(&self) -> Option<ShellCommand> {
        match self.owner {
            Owner::Host => None,
            Owner::Container(container) => Some(ShellCommand::new(Engine::of(container)?.list)),
            Owner::Pod { namespace, .. } => {
                Some(ShellCommand::new("kubectl -n").arg(Name::pod_namespace(namespace)).args(["get", "pods"]))
            }
        }
    }

    /// Where a file of configuration is that a program in there reads: what is written into a container ends with it.
    pub fn file_of(&self, remedy: &Remedy) -> Option<&'static str> {
        let Change::Setting(setting) = &remedy.change else { return None };
        let config = setting.kind == SettingKind::Config && setting.file.is_some();
        match self.owner {
            Owner::Container(_) if config => Some("of the image or of the volume that holds it"),
            Owner::Pod { .. } if config => Some("of the image or of the ConfigMap that holds it"),
            _ => None,
        }
    }

    /// When a change takes effect that needs `owner`, a program, to be restarted or reloaded; `None` if it needs nothing that a
    /// container or a pod would have.
    pub fn takes_effect(&self, restart: Restart, owner: &str) -> Option<String> {
        let done = match restart {
            Restart::Reload => "reloaded",
            Restart::Service => "restarted",
            Restart::None | Restart::Host => return None,
        };
        match self.owner {
            Owner::Host => None,
            Owner::Container(container) => {
                let restarted = |engine: &Engine| {
                    self.told(ShellCommand::new(engine.restart).arg(Name::container(container.label())))
                };
                let how = match (Engine::of(container), container.user) {
                    (Some(engine), _) => restarted(engine).to_string(),
                    (None, Some(user)) => format!("{}, as user {user}", restarted(&PODMAN)),
                    (None, None) => return None,
                };
                Some(match restart {
                    Restart::Reload => format!("takes effect when {owner} is reloaded, or with {how}"),
                    _ => format!("takes effect when {owner} is restarted: {how}"),
                })
            }
            Owner::Pod { namespace, .. } => {
                let rollout =
                    ShellCommand::new("kubectl -n").arg(Name::pod_namespace(namespace)).args(["rollout", "restart"]);
                let rollout = self.told(rollout);
                Some(format!(
                    "takes effect when {owner} is {done}: {rollout} of the Deployment, StatefulSet or DaemonSet of this pod"
                ))
            }
        }
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
            Owner::Container(container) if container.service.is_some() => {
                Some(format!("in the compose file, at the service: sysctls: {{{name}: \"{value}\"}}"))
            }
            Owner::Container(_) => Some(format!("start the container with --sysctl {name}=\"{value}\"")),
            Owner::Pod { .. } => Some(format!(
                "in the manifest, spec.securityContext.sysctls: [{{name: {name}, value: \"{value}\"}}]{unsafe_}"
            )),
        }
    }

    /// `--netns` finds a container or a pod by what it is called as well.
    fn leads_there(&self) -> bool {
        !self.elsewhere && (self.way.is_some() || (self.owner != Owner::Host && !self.netns.is_empty()))
    }

    fn enter(&self) -> ShellCommand {
        match self.way {
            Some(Way::Path(path)) => ShellCommand::new("nsenter").arg(("--net=", Name::netns(path))),
            Some(Way::Pid(pid)) => ShellCommand::new("nsenter -n -t").arg(Name::pid(pid)),
            Some(Way::Name(name)) => ShellCommand::new("ip netns exec").arg(Name::netns(name)),
            // Is never asked for.
            None => ShellCommand::new("nsenter"),
        }
    }
}

/// Whether a container or a pod can be called so (moby 27, daemon/names; RFC 1123): no option, no path.
fn is_word(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    name.len() <= 255 && name.bytes().all(plain) && name.starts_with(|first: char| first.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::source::node::Location;
    use crate::value::NetnsId;

    const ID: &str = "0123456789ab0123456789ab0123456789ab0123456789ab0123456789abcdef";

    fn inside(container: Container) -> Location {
        Location { pid: Some(4121), containers: vec![Arc::new(container)], ..Location::default() }
    }

    fn container(runtime: &str) -> Container {
        Container { runtime: Some(runtime.into()), name: Some("web".into()), ..Container::new(ID) }
    }

    fn pod() -> Container {
        Container { pod: Some("web-7d".into()), pod_namespace: Some("shop".into()), ..container("containerd") }
    }

    /// Its runtime knows the process of the first one only.
    #[test]
    fn into_one_of_several_namespaces_of_a_container_leads_a_process_and_not_its_name() {
        let location = Location { ambiguous: true, ..inside(container("podman")) };
        let entry = Entry::to(&location, false).unwrap();
        let remedy =
            Remedy::new("raise it", Verify::by(ShellCommand::new("ss -lnt"), "shows more")).restart(Restart::Service);
        assert_eq!(entry.verify(&remedy).command.unwrap().to_string(), "nsenter -n -t 4121 ss -lnt");
        assert_eq!(entry.within(&ShellCommand::new("rstdoctor scan")).to_string(), "rstdoctor scan --netns 4121");
    }

    #[test]
    fn a_command_is_run_in_the_namespace_that_was_looked_at() {
        let list = ShellCommand::new("ss -tnp").arg("sport = :80").pipe(ShellCommand::new("awk").arg("$2 > 0"));
        let within = |netns: &str, command: &ShellCommand| Entry::of(netns).within(command).to_string();
        assert_eq!(within("we'b", &list), r"ip netns exec 'we'\''b' ss -tnp 'sport = :80' | awk '$2 > 0'");
        assert_eq!(within("4121", &ShellCommand::new("nstat -az")), "nsenter -n -t 4121 nstat -az");
        assert_eq!(within("4121", &ShellCommand::new("ip neigh show")), "nsenter -n -t 4121 ip neigh show");
        assert_eq!(within("/run/x", &ShellCommand::new("nstat -az")), "nsenter --net=/run/x nstat -az");
        let both = ShellCommand::new("kill -CONT 7").then(ShellCommand::new("rstdoctor scan"));
        assert_eq!(within("blue", &both), "kill -CONT 7; rstdoctor scan --netns blue");
    }

    /// What a recording says is a name here, or nothing: never a path, an option or a process of this host.
    #[test]
    fn words_that_others_choose_lead_nowhere_else() {
        let look = ShellCommand::new("ss -tn").then(ShellCommand::new("rstdoctor scan"));
        let list = Remedy::new("Look", "").command(look.clone());
        let told = |entry: Entry<'_>| (entry.within(&look).to_string(), entry.text(&list).into_owned());
        let long = "x".repeat(256);
        for evil in ["/tmp/evil/ns", "../ns", "--help", "-n", ".", "..", "", "a\nb", &long] {
            let named = Location { name: Some(evil.into()), ..Location::default() };
            for entry in [Entry::named(evil, false), Entry::to(&named, false).unwrap()] {
                let (command, text) = told(entry);
                assert_eq!(command, "ss -tn; rstdoctor scan", "{evil:?}");
                assert!(text.starts_with("Look; run it in netns "), "{text}");
            }
            let leads = Location { pid: Some(7), ..named };
            assert!(told(Entry::to(&leads, false).unwrap()).0.starts_with("nsenter -n -t 7 ss"), "{evil:?}");
            let location = inside(Container { name: Some(evil.into()), ..container("docker") });
            let entry = Entry::to(&location, false).unwrap();
            assert_eq!(told(entry.clone()).0, "nsenter -n -t 4121 ss -tn; rstdoctor scan --netns 4121", "{evil:?}");
            assert_eq!(entry.takes_effect(Restart::Service, "nginx"), None, "{evil:?}");
        }
        assert_eq!(told(Entry::named("123", false)).0, "ss -tn; rstdoctor scan");
        assert_eq!(
            told(Entry::named("we'b", false)).0,
            r"ip netns exec 'we'\''b' ss -tn; rstdoctor scan --netns 'we'\''b'"
        );
        let path = Location { path: Some("/run/x".into()), ..Location::default() };
        assert_eq!(
            told(Entry::to(&path, false).unwrap()).0,
            "nsenter --net=/run/x ss -tn; rstdoctor scan --netns /run/x"
        );
    }

    /// Of another time or host no name, path or process id is a word of a command, and the words around it say where to run it.
    #[test]
    fn what_was_observed_elsewhere_is_named_in_words_only() {
        let look = ShellCommand::new("ss -lnt").then(ShellCommand::new("rstdoctor scan"));
        let said = ShellCommand::new("journalctl -n 9").then(ShellCommand::new("systemctl --failed"));
        let remedy = Remedy::new("Look", Verify::by(look.clone(), "is quiet")).restart(Restart::Service);
        let plain = |location: Location| Location { netns: NetnsId(7), ..location };
        for (location, told, logs, restart) in [
            (
                plain(Location { path: Some("/tmp/x".into()), ..Location::default() }),
                "network namespace 7",
                "journalctl -n 9; systemctl --failed",
                None,
            ),
            (
                plain(Location { name: Some("bl\nue".into()), pid: Some(4121), ..Location::default() }),
                r"netns bl\nue",
                "journalctl -n 9; systemctl --failed",
                None,
            ),
            (
                inside(container("docker")),
                "container web",
                "docker logs --since 10m CONTAINER; docker ps -a",
                Some("takes effect when nginx is restarted: docker restart CONTAINER"),
            ),
            (
                inside(pod()),
                "pod shop/web-7d",
                "kubectl -n NAMESPACE logs --all-containers --since=10m POD; kubectl -n NAMESPACE get pods",
                Some(
                    "takes effect when nginx is restarted: kubectl -n NAMESPACE rollout restart of the Deployment, StatefulSet \
                     or DaemonSet of this pod",
                ),
            ),
        ] {
            let entry = Entry::to(&location, true).unwrap();
            assert_eq!(entry.within(&look).to_string(), "ss -lnt; rstdoctor scan");
            let text = entry.text(&remedy.clone().command(look.clone())).into_owned();
            assert_eq!(text, format!("Look; run it in {told}"));
            assert_eq!(entry.within(&said).to_string(), logs);
            assert_eq!(entry.takes_effect(Restart::Service, "nginx").as_deref(), restart);
            let verify = entry.verify(&remedy).to_string();
            let in_new_pod = "in the network namespace of the new pod, ss -lnt; rstdoctor scan is quiet";
            let there = format!("ss -lnt; rstdoctor scan is quiet, run in {told}");
            assert!([in_new_pod, &there].contains(&verify.as_str()), "{verify}");
        }
        assert_eq!(Entry::named("blue", true).within(&look).to_string(), "ss -lnt; rstdoctor scan");
    }

    #[test]
    fn a_container_is_restarted_and_listed_by_its_own_runtime() {
        let look = ShellCommand::new("ss -lntp").then(ShellCommand::new("systemctl --failed"));
        let said = ShellCommand::new("journalctl --since -10min -u x.service").pipe(ShellCommand::new("tail"));
        for (container, list, logs, restart) in [
            (
                container("docker"),
                "docker ps -a",
                "docker logs --since 10m web | tail",
                Some("takes effect when nginx is restarted: docker restart web"),
            ),
            (
                container("podman"),
                "podman ps -a",
                "podman logs --since 10m web | tail",
                Some("takes effect when nginx is restarted: podman restart web"),
            ),
            (
                Container { user: Some(1000), ..container("podman") },
                "systemctl --failed",
                "journalctl --since -10min -u x.service | tail",
                Some("takes effect when nginx is restarted: podman restart web, as user 1000"),
            ),
            (container("containerd"), "systemctl --failed", "journalctl --since -10min -u x.service | tail", None),
            (
                pod(),
                "kubectl -n shop get pods",
                "kubectl -n shop logs --all-containers --since=10m web-7d | tail",
                Some(
                    "takes effect when nginx is restarted: kubectl -n shop rollout restart of the Deployment, StatefulSet or \
                     DaemonSet of this pod",
                ),
            ),
        ] {
            let location = inside(container);
            let entry = Entry::to(&location, false).unwrap();
            assert_eq!(entry.within(&look).to_string(), format!("nsenter -n -t 4121 ss -lntp; {list}"));
            assert_eq!(entry.within(&said).to_string(), logs);
            assert_eq!(entry.takes_effect(Restart::Service, "nginx").as_deref(), restart);
            assert_eq!(entry.takes_effect(Restart::None, "nginx"), None);
        }
        assert_eq!(Entry::of("blue").takes_effect(Restart::Service, "nginx"), None);
    }

    /// After a restart the process is another one, and of a pod even the name.
    #[test]
    fn what_shows_that_it_worked_can_be_run_after_the_restart() {
        let listed = Verify::by(ShellCommand::new("ss -lnt"), "shows Send-Q 4096");
        let remedy = Remedy::new("", listed).restart(Restart::Service);
        let location = inside(container("docker"));
        assert_eq!(
            Entry::to(&location, false).unwrap().verify(&remedy).to_string(),
            "nsenter -n -t $(docker inspect -f '{{.State.Pid}}' web) ss -lnt shows Send-Q 4096"
        );
        let reloaded = remedy.clone().restart(Restart::Reload);
        assert_eq!(
            Entry::to(&location, false).unwrap().verify(&reloaded).to_string(),
            "nsenter -n -t 4121 ss -lnt shows Send-Q 4096"
        );
        let location = inside(pod());
        let entry = Entry::to(&location, false).unwrap();
        let text = "in the network namespace of the new pod, ss -lnt shows Send-Q 4096";
        assert_eq!(entry.verify(&remedy).to_string(), text);
        let scan = Remedy::new("", Verify::scan("is quiet")).restart(Restart::Service);
        assert_eq!(entry.verify(&scan).to_string(), "rstdoctor scan is quiet");
    }

    #[test]
    fn what_is_set_in_a_container_is_kept_outside_of_it() {
        let keeps = |container: Container, name: &'static str| {
            let location = inside(container);
            Entry::to(&location, false).unwrap().keeps(&ShellCommand::new("sysctl -w").arg((name, "=9"))).unwrap()
        };
        assert_eq!(
            keeps(container("docker"), "net.core.somaxconn"),
            "start the container with --sysctl net.core.somaxconn=\"9\""
        );
        let service = Container { project: Some("shop".into()), service: Some("web".into()), ..container("docker") };
        assert!(keeps(service, "net.core.somaxconn").starts_with("in the compose file"));
        assert!(keeps(pod(), "net.core.somaxconn").ends_with("--allowed-unsafe-sysctls"));
        assert!(keeps(pod(), "net.ipv4.tcp_syncookies").ends_with("value: \"9\"}]"));
    }
}
