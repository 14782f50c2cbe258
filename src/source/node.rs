//! The node: every network namespace on it that is known of, observed or not, and the containers in them
//! (network_namespaces(7), cgroups(7)).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::redaction::Rule;
use crate::ask::{self, Ask, Probe, What};
use crate::value::escape::visible;
use crate::value::outside::{self, UnitName};
use crate::value::{NetnsId, Observed, ParseError};

pub mod container;
mod redaction;

pub use container::Container;

const SOURCE: &str = "node";

/// More than any host has; a bound for what a recording can make us hold.
const MOST: usize = 65_536;

pub const REDACTION: Rule = Rule::text(SOURCE, |what| *what == What::Node, redaction::redact);

/// One line of the answer to [`What::Node`], in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// The namespace of the one who looks, by its inode.
    Own(u64),
    Netns(Netns),
    Container(Container),
    Hidden(Hidden),
}

/// One network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Netns {
    pub inode: u64,
    /// It is looked into.
    pub observed: bool,
    /// As `ip netns` names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it is mounted, if not below /run/netns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The lowest process id in it: of a container mostly its init.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// comm of that process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    /// systemd unit of that process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// systemd slice of that process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slice: Option<String>,
    /// Processes in it that may be read.
    pub processes: u32,
    /// Ids of the containers with processes in it, that of `pid` first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<String>,
}

/// What may be there and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hidden {
    /// Processes whose namespace may not be read.
    pub processes: u64,
    /// Containers that have such processes and none whose namespace may be read.
    pub containers: u64,
    /// The processes of the host are not visible from here: this is a pid namespace of its own.
    pub guest: bool,
    /// What would let one look into the others; absent if nothing kept one out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needs: Option<String>,
}

/// Everything that is known of the node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    pub own: Option<NetnsId>,
    pub netns: BTreeMap<NetnsId, Netns>,
    /// By the first 12 digits of the id, as a process has it.
    pub containers: BTreeMap<String, Arc<Container>>,
    pub hidden: Hidden,
}

/// Where something is: a network namespace, as a person knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Location {
    pub netns: NetnsId,
    /// It is that of the one who looks.
    pub own: bool,
    /// As `ip netns` names it.
    pub name: Option<String>,
    pub path: Option<String>,
    pub pid: Option<u32>,
    pub process: Option<String>,
    pub unit: Option<UnitName>,
    /// The containers in it. Those of a pod share one.
    pub containers: Vec<Arc<Container>>,
    /// What its container or pod is called leads to other network namespaces, too: one was made inside, or two bear the name.
    pub ambiguous: bool,
}

pub fn collect(probe: &mut dyn Probe) -> (Observed<Node>, Duration) {
    let (bytes, took) = ask::read(probe, &Ask::host(What::Node));
    let observed = match bytes.and_then(|bytes| Ok(parse(&bytes)?)) {
        Ok(node) => Observed::Full(node),
        Err(failure) => Observed::Unavailable(failure),
    };
    (observed, took)
}

/// The lines of [`What::Node`].
///
/// # Errors
/// A line of another form, or too many lines.
pub fn parse(bytes: &[u8]) -> Result<Node, ParseError> {
    let mut node = Node::default();
    for (number, line) in lines(bytes)?.into_iter().enumerate() {
        if number >= MOST {
            return Err(ParseError::new(SOURCE, Some(number + 1), "there are too many lines"));
        }
        match line {
            Line::Own(inode) => node.own = Some(NetnsId(inode)),
            Line::Netns(netns) => drop(node.netns.insert(NetnsId(netns.inode), netns.bounded())),
            Line::Container(container) => {
                let container = container.bounded();
                node.containers.insert(container::short(&container.id).to_owned(), Arc::new(container));
            }
            Line::Hidden(hidden) => node.hidden = hidden,
        }
    }
    Ok(node)
}

fn lines(bytes: &[u8]) -> Result<Vec<Line>, ParseError> {
    let text = super::text::lines(SOURCE, bytes)?;
    text.map(|(number, line)| {
        serde_json::from_str(line).map_err(|_| ParseError::new(SOURCE, Some(number), "it is not understood"))
    })
    .collect()
}

/// The answer made of these lines.
pub fn text(lines: &[Line]) -> String {
    let mut text = String::new();
    for line in lines.iter().filter_map(|line| serde_json::to_string(line).ok()) {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

impl Netns {
    fn bounded(self) -> Self {
        let short = |text: Option<String>| text.map(|text| outside::bounded(&text, outside::NAME));
        let Self { name, path, process, .. } = self;
        let process = process.map(|name| outside::bounded(&name, outside::COMM));
        Self { name: short(name), path: path.filter(|path| path.len() <= 4096), process, ..self }
    }
}

impl Node {
    /// Where that namespace is.
    pub fn location(&self, id: NetnsId) -> Location {
        let Some(netns) = self.netns.get(&id) else {
            return Location { netns: id, own: self.own == Some(id), ..Location::default() };
        };
        let named = |id: &String| {
            let known = self.containers.get(container::short(id)).cloned();
            known.unwrap_or_else(|| Arc::new(Container { id: id.clone(), ..Container::default() }))
        };
        let location = Location {
            netns: id,
            own: self.own == Some(id),
            name: netns.name.clone(),
            path: netns.path.clone(),
            pid: netns.pid,
            process: netns.process.clone(),
            unit: netns.unit.as_deref().and_then(UnitName::parse),
            // That of init is the host's, and of no container that shares it (--network=host).
            containers: match netns.pid == Some(1) {
                true => Vec::new(),
                false => netns.containers.iter().map(named).collect(),
            },
            ambiguous: false,
        };
        let called = match (location.pod(), location.container()) {
            (Some((namespace, pod)), _) => Some(format!("{namespace}/{pod}")),
            (None, container) => container.map(|container| container.label().to_owned()),
        };
        Location { ambiguous: called.is_some_and(|called| self.find(&called).len() > 1), ..location }
    }

    /// How many were looked into, and of how many that are known.
    pub fn looked(&self) -> (u64, u64) {
        let observed = self.netns.values().filter(|netns| netns.observed).count() as u64;
        (observed, self.known())
    }

    /// How many there are at least. What Podman (containers/common pkg/netns, `netns-UUID`) and CNI (`cni-UUID`) named is that of
    /// a container, which is counted once.
    pub fn known(&self) -> u64 {
        let of_runtime = |name: &String| name.starts_with("netns-") || name.starts_with("cni-");
        let of_hidden = |netns: &&Netns| netns.pid.is_none() && netns.name.as_ref().is_some_and(of_runtime);
        let named = self.netns.values().filter(of_hidden).count() as u64;
        self.netns.len() as u64 + self.hidden.containers.saturating_sub(named)
    }

    /// There may be more than are known.
    pub fn may_have_more(&self) -> bool {
        self.hidden.guest || self.hidden.processes > 0
    }

    /// The namespace that somebody calls so: by the name, id or pod of a container in it.
    pub fn find(&self, spec: &str) -> Vec<NetnsId> {
        let called = |id: &String| {
            let known = self.containers.get(container::short(id));
            (spec.len() >= 12 && id.starts_with(spec)) || known.is_some_and(|container| container.is_called(spec))
        };
        let found = self.netns.iter().filter(|(_, netns)| netns.containers.iter().any(called));
        found.map(|(id, _)| *id).collect()
    }
}

/// What leads into a network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way<'a> {
    /// Of ip-netns(8).
    Name(&'a str),
    Pid(u32),
    Path(&'a str),
}

/// Whether ip-netns(8) can hold the name: it is a file in /run/netns (iproute2 6.1, ip/ipnetns.c, netns_add). Whatever else a
/// recording calls so would be another word in a command: an option, a path.
pub fn is_netns_name(name: &str) -> bool {
    let is_file = (1..=255).contains(&name.len()) && !name.contains(['/', '\0']) && name != "." && name != "..";
    is_file && !name.starts_with('-') && visible(name) == name
}

impl Location {
    /// What `nsenter` or `ip netns` take. The names that runtimes give are long and tell nobody
    /// anything: into a container leads its process.
    pub fn entry(&self) -> Option<Way<'_>> {
        let pid = self.pid.map(Way::Pid);
        let of_container = pid.filter(|_| !self.containers.is_empty());
        let name = self.name.as_deref().filter(|name| is_netns_name(name)).map(Way::Name);
        let path = self.path.as_deref().filter(|path| path.starts_with('/')).map(Way::Path);
        of_container.or(name).or(pid).or(path)
    }

    /// The container whose network this is; of a pod one that is more than its pause.
    pub fn container(&self) -> Option<&Container> {
        let named = self.containers.iter().find(|container| container.name.is_some() && !container.is_pause());
        named.or(self.containers.first()).map(|container| &**container)
    }

    /// The pod whose network this is, with the namespace of Kubernetes.
    pub fn pod(&self) -> Option<(&str, &str)> {
        self.containers
            .iter()
            .find_map(|container| Some((&**container.pod_namespace.as_ref()?, &**container.pod.as_ref()?)))
    }
}

/// As a person knows it: `pod default/web`, `container web`, `netns blue`. Escape it before printing.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.own {
            return f.write_str("this network namespace");
        }
        if let Some((namespace, pod)) = self.pod() {
            return write!(f, "pod {namespace}/{pod}");
        }
        if let Some(container) = self.container() {
            return write!(f, "container {}", container.label());
        }
        match (&self.name, &self.unit, &self.process, self.pid) {
            (Some(name), ..) => write!(f, "netns {name}"),
            (None, Some(unit), ..) if unit.is_service() => write!(f, "the network namespace of {unit}"),
            (None, _, Some(process), Some(pid)) => write!(f, "the network namespace of {process} (pid {pid})"),
            _ => write!(f, "network namespace {}", self.netns),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0123456789ab0123456789ab0123456789ab0123456789ab0123456789abcdef";

    fn node() -> Node {
        let web = Container {
            id: ID.into(),
            name: Some("web".into()),
            image: Some("nginx:1.25".into()),
            runtime: Some("podman".into()),
            ..Container::default()
        };
        let lines = [
            Line::Own(1),
            Line::Netns(Netns { inode: 1, observed: true, pid: Some(1), processes: 9, ..Netns::default() }),
            Line::Netns(Netns { inode: 2, pid: Some(40), containers: vec![ID.into()], ..Netns::default() }),
            Line::Netns(Netns { inode: 3, name: Some("blue".into()), ..Netns::default() }),
            Line::Container(web),
            Line::Hidden(Hidden { processes: 2, containers: 1, ..Hidden::default() }),
        ];
        parse(text(&lines).as_bytes()).unwrap()
    }

    #[test]
    fn a_namespace_is_called_as_people_know_it() {
        let node = node();
        let called = |inode| node.location(NetnsId(inode)).to_string();
        assert_eq!(called(1), "this network namespace");
        assert_eq!(called(2), "container web");
        assert_eq!(called(3), "netns blue");
        assert_eq!(called(4), "network namespace 4");
        assert_eq!(node.location(NetnsId(2)).entry(), Some(Way::Pid(40)));
        assert_eq!(node.looked(), (1, 4));
        assert!(node.may_have_more());
    }

    #[test]
    fn a_hidden_container_whose_namespace_has_a_name_is_counted_once() {
        let mut node = node();
        node.netns.get_mut(&NetnsId(3)).unwrap().name = Some("netns-5f2b0e4c".into());
        assert_eq!(node.looked(), (1, 3));
    }

    #[test]
    fn a_name_that_leads_to_several_namespaces_is_ambiguous() {
        let mut node = node();
        assert!(!node.location(NetnsId(2)).ambiguous);
        let nested = Netns { inode: 9, pid: Some(41), containers: vec![ID.into()], ..Netns::default() };
        node.netns.insert(NetnsId(9), nested);
        assert!(node.location(NetnsId(2)).ambiguous && node.location(NetnsId(9)).ambiguous);
        assert!(!node.location(NetnsId(1)).ambiguous && !node.location(NetnsId(3)).ambiguous);
    }

    #[test]
    fn the_hosts_namespace_is_not_that_of_a_container_which_shares_it() {
        let mut node = node();
        node.own = Some(NetnsId(2));
        let host = node.netns.get_mut(&NetnsId(1)).unwrap();
        (host.process, host.containers) = (Some("systemd".into()), vec!["f".repeat(64)]);
        assert_eq!(node.location(NetnsId(1)).to_string(), "the network namespace of systemd (pid 1)");
        assert_eq!(node.find(&"f".repeat(12)), [NetnsId(1)], "and yet found by it");
    }

    #[test]
    fn a_container_is_found_by_its_name_and_by_the_start_of_its_id() {
        let node = node();
        assert_eq!(node.find("web"), [NetnsId(2)]);
        assert_eq!(node.find("0123456789ab"), [NetnsId(2)]);
        assert_eq!(node.find("0"), [], "a digit is no id");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = parse(&bytes);
        }
    }
}
