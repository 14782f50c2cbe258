//! What a person asked to look at: a port, a process. Findings and listeners about something else are left out; findings
//! about the whole host stay, because they concern every port and process on it.

use std::collections::BTreeSet;
use std::fmt;

use crate::cause::{Finding, Subject};
use crate::evidence::Evidence;
use crate::evidence::service::Service;
use crate::value::outside::is_comm_of;

/// Conditions that must all hold; empty lets everything through.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// One of these; none for any.
    pub ports: BTreeSet<u16>,
    pub pid: Option<u32>,
    /// Process name (comm), exactly.
    pub process: Option<String>,
}

/// `port 8080, process nginx`, with the name as it was given.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports: Vec<_> = self.ports.iter().map(ToString::to_string).collect();
        let port = match &ports[..] {
            [] => None,
            [port] => Some(format!("port {port}")),
            [ports @ .., last] => Some(format!("ports {} and {last}", ports.join(", "))),
        };
        let pid = self.pid.map(|pid| format!("pid {pid}"));
        let process = self.process.as_ref().map(|name| format!("process {name}"));
        f.write_str(&[port, pid, process].into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

impl Filter {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the service is one that was asked for.
    pub fn keeps_service(&self, service: &Service<'_>) -> bool {
        (self.ports.is_empty() || self.ports.contains(&service.port))
            && (self.is_any_process() || service.owners.iter().any(|owner| self.names(owner.pid, &owner.name)))
    }

    /// Resolves the filter against what listens, so that a finding about a process is kept when its port was asked for,
    /// and the other way round.
    pub fn resolve(&self, services: &[Service<'_>]) -> Scope<'_> {
        let kept = || services.iter().filter(|service| self.keeps_service(service));
        Scope {
            filter: self,
            ports: kept().map(|service| service.port).collect(),
            pids: kept().flat_map(|service| &service.owners).map(|owner| owner.pid).collect(),
        }
    }

    /// Whether the process that was asked for shows anywhere: it listens, one of its connections is among the samples of
    /// the sweep, or it sent a reset. True when no process was asked for.
    pub fn sees_process(&self, evidence: &Evidence<'_>) -> bool {
        self.is_any_process() || processes(evidence).any(|(pid, name)| self.names(pid, name))
    }

    /// Names of processes that were seen and that a person may have meant: one of the names holds the other.
    pub fn near_names<'e>(&self, evidence: &'e Evidence<'_>) -> BTreeSet<&'e str> {
        let Some(wanted) = self.process.as_ref().map(|name| name.to_lowercase()) else { return BTreeSet::new() };
        let near = |name: &str| {
            let name = name.to_lowercase();
            !name.is_empty() && (name.contains(&wanted) || wanted.contains(&name))
        };
        processes(evidence).map(|(_, name)| name).filter(|name| near(name)).collect()
    }

    fn is_any_process(&self) -> bool {
        self.pid.is_none() && self.process.is_none()
    }

    fn names(&self, pid: u32, name: &str) -> bool {
        self.pid.is_none_or(|wanted| wanted == pid)
            && self.process.as_deref().is_none_or(|wanted| is_comm_of(wanted, name))
    }
}

/// Every process that the evidence knows by number and name.
fn processes<'e>(evidence: &'e Evidence<'_>) -> impl Iterator<Item = (u32, &'e str)> {
    let owners = [evidence.owners(), evidence.owners_before()].into_iter().flatten();
    let holders = owners.flat_map(|owners| owners.processes.values()).map(|process| (process.pid, &*process.name));
    let resets = evidence.attribution().into_iter().flat_map(|resets| &resets.groups);
    holders.chain(resets.filter_map(|group| group.task.as_ref()).map(|task| (task.pid, &*task.name)))
}

/// A filter together with the ports and processes of the services that it keeps.
pub struct Scope<'a> {
    filter: &'a Filter,
    ports: BTreeSet<u16>,
    pids: BTreeSet<u32>,
}

impl Scope<'_> {
    pub fn keeps(&self, finding: &Finding) -> bool {
        self.filter.is_empty()
            || is_host_wide(finding)
            || finding.subjects.iter().any(|subject| self.keeps_subject(subject))
    }

    fn keeps_subject(&self, subject: &Subject) -> bool {
        let port = match subject.port {
            _ if self.filter.ports.is_empty() => true,
            Some(port) => self.filter.ports.contains(&port),
            None => subject.pid.is_some_and(|pid| self.pids.contains(&pid)),
        };
        let process = match subject.pid {
            _ if self.filter.is_any_process() => true,
            Some(pid) => self.filter.names(pid, subject.process.as_deref().unwrap_or_default()),
            None => subject.port.is_some_and(|port| self.ports.contains(&port)),
        };
        port && process
    }
}

/// The finding concerns the whole host, so every port and process on it, even if it names who is to blame too.
pub fn is_host_wide(finding: &Finding) -> bool {
    finding.subjects.is_empty() || finding.subjects.iter().any(is_whole_host)
}

/// The subject names no port, process or peer.
pub fn is_whole_host(subject: &Subject) -> bool {
    subject.port.is_none() && subject.pid.is_none() && subject.address.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::{Confidence, Impact, Severity, State};
    use crate::evidence::service::services;
    use crate::observation::testing::{Case, process};

    fn about(subject: Subject) -> Finding {
        let impact = Impact { events: 1, per_s: 1.0, unit: "resets" };
        Finding::new(State::Active, Severity::Warning, Confidence::of_test(0.9), impact, "x").subject(subject)
    }

    fn keeps(filter: &Filter, subject: Subject) -> bool {
        let (nginx, redis) = (process(10, "nginx"), process(20, "redis"));
        let case = Case::new().listener("0.0.0.0:80", 511, 0, 0, &nginx).listener("0.0.0.0:6379", 511, 0, 0, &redis);
        let services = services(case.view());
        filter.resolve(&services).keeps(&about(subject))
    }

    #[test]
    fn a_port_keeps_its_listener_its_owner_and_the_host() {
        let filter = Filter { ports: [80].into(), ..Filter::default() };
        let on = |port| Subject { port: Some(port), ..Subject::new(crate::cause::SubjectKind::Listener) };
        assert!(keeps(&filter, on(80)));
        assert!(!keeps(&filter, on(6379)));
        assert!(keeps(&filter, Subject::process(&process(10, "nginx"))));
        assert!(!keeps(&filter, Subject::process(&process(20, "redis"))));
        assert!(keeps(&filter, Subject::host()));
    }

    #[test]
    fn a_shortage_of_the_whole_host_is_kept_although_it_names_another_process() {
        let (nginx, redis) = (process(10, "nginx"), process(20, "redis"));
        let case = Case::new().listener("0.0.0.0:80", 511, 0, 0, &nginx).listener("0.0.0.0:6379", 511, 0, 0, &redis);
        let services = services(case.view());
        let filter = Filter { ports: [6379].into(), ..Filter::default() };
        let blames_nginx = about(Subject::host()).subject(Subject::process(&nginx));
        assert!(filter.resolve(&services).keeps(&blames_nginx));
    }

    #[test]
    fn a_name_may_be_longer_than_what_the_kernel_keeps() {
        assert!(is_comm_of("systemd-resolved", "systemd-resolve"));
        assert!(is_comm_of("nginx", "nginx"));
        assert!(!is_comm_of("nginx-debug", "nginx"));
    }

    #[test]
    fn a_process_keeps_what_it_listens_on_even_where_the_finding_does_not_know_the_owner() {
        let filter = Filter { process: Some("redis".into()), ..Filter::default() };
        let on = |port| Subject { port: Some(port), ..Subject::new(crate::cause::SubjectKind::Listener) };
        assert!(keeps(&filter, on(6379)));
        assert!(!keeps(&filter, on(80)));
    }

    #[test]
    fn one_of_several_ports_is_enough() {
        let filter = Filter { ports: [80, 443, 6379].into(), ..Filter::default() };
        let on = |port| Subject { port: Some(port), ..Subject::new(crate::cause::SubjectKind::Listener) };
        assert!(keeps(&filter, on(6379)) && keeps(&filter, on(443)) && !keeps(&filter, on(22)));
        assert_eq!(filter.to_string(), "ports 80, 443 and 6379");
    }

    #[test]
    fn conditions_add_up() {
        let filter = Filter { ports: [80].into(), pid: Some(20), ..Filter::default() };
        assert!(!keeps(&filter, Subject { port: Some(80), ..Subject::process(&process(10, "nginx")) }));
    }
}
