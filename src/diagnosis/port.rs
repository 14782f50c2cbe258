//! Everything about one local port: who listens, what else occupies it, and whether a new program could bind it.
//!
//! The rules are those of inet_csk_get_port and inet_csk_bind_conflict (net/ipv4/inet_connection_sock.c), confirmed on
//! Linux 6.18: a listener refuses an overlapping bind whatever SO_REUSEADDR says; TIME_WAIT and accepted connections
//! refuse it unless the old listener and the new program both set SO_REUSEADDR; an outgoing connection that took the port
//! refuses it always.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::evidence::Evidence;
use crate::evidence::service::Service;
use crate::source::node::Location;
use crate::source::owners::Process;
use crate::value::{Missing, TcpState};

/// What is known about one port.
#[derive(Debug, Clone, PartialEq)]
pub struct PortReport {
    pub port: u16,
    /// Who listens, on which addresses; why not, if that could not be seen.
    pub holders: Result<Vec<Holder>, Missing>,
    /// Other sockets with this local port by state; `Err` without a sweep.
    pub sockets: Result<Vec<(TcpState, u64)>, Missing>,
    /// Connections to this port of other hosts, and attempts; `Err` without a sweep.
    pub connections: Result<u64, Missing>,
    /// Whether a bind would succeed, on all IPv4 addresses and on all IPv6 addresses.
    pub binds: Vec<BindCheck>,
    /// The port is below net.ipv4.ip_unprivileged_port_start, so that bind() needs CAP_NET_BIND_SERVICE (else EACCES).
    pub privileged: Result<bool, Missing>,
    /// The port lies in net.ipv4.ip_local_port_range, so that an outgoing connection can take it.
    pub ephemeral: Result<bool, Missing>,
    /// Where it is, if not in the namespace of the one who looks.
    pub location: Option<Arc<Location>>,
}

impl PortReport {
    /// It is certain that nobody listens there, and that no connection has it, here or at the other end.
    pub fn is_unused(&self) -> bool {
        self.holders.as_ref().is_ok_and(Vec::is_empty) && self.connections == Ok(0)
    }
}

/// One address on which somebody listens.
#[derive(Debug, Clone, PartialEq)]
pub struct Holder {
    pub address: IpAddr,
    /// Listening sockets that share it by SO_REUSEPORT.
    pub sockets: usize,
    /// Empty when the owner is not visible.
    pub processes: Vec<Process>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindCheck {
    pub address: IpAddr,
    pub outcome: BindOutcome,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindOutcome {
    Succeeds,
    /// Only if the old listener and the new program set SO_REUSEADDR; else EADDRINUSE.
    NeedsReuseAddr {
        time_wait: u64,
        /// Connections in other states.
        others: u64,
    },
    /// EADDRINUSE.
    InUse {
        /// Addresses of the listeners in the way.
        by: Vec<IpAddr>,
        /// Those listeners share the port with each other, so they set SO_REUSEPORT: a new program of the same user that
        /// sets it too would succeed.
        reuseport: bool,
        /// The only thing in the way is a listener on `::`, which would not be if it was for IPv6 only (IPV6_V6ONLY).
        unless_v6_only: bool,
    },
    Unknown(Missing),
}

/// Reports on one port from one observation.
pub fn report(evidence: &Evidence<'_>, port: u16) -> PortReport {
    let services = evidence.services().map(|services| here(services, port));
    let sockets = sockets(evidence, port);
    let binds = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
        .into_iter()
        .map(|address| BindCheck { address, outcome: bind(&services, &sockets, address) })
        .collect();
    PortReport {
        port,
        holders: services.map(|services| services.into_iter().map(holder).collect()),
        sockets,
        connections: connections(evidence, port),
        binds,
        privileged: evidence.sysctl_number("net.ipv4.ip_unprivileged_port_start").map(|start| u64::from(port) < start),
        ephemeral: evidence.is_ephemeral(port),
        location: None,
    }
}

/// None found is none only where the sweep kept all destinations apart.
fn connections(evidence: &Evidence<'_>, port: u16) -> Result<u64, Missing> {
    let towards = evidence.destinations()?.iter().filter(|destination| destination.port == port);
    match towards.map(|destination| destination.ports_used).sum() {
        0 if evidence.socket_dump()?.ports_capped => {
            Err(Missing::new("sockets", "more connections are open than the sweep keeps apart"))
        }
        connections => Ok(connections),
    }
}

fn here<'e, 'a>(services: &'e [Service<'a>], port: u16) -> Vec<&'e Service<'a>> {
    let mut here: Vec<_> = services.iter().filter(|service| service.port == port && service.listens_now()).collect();
    here.sort_by_key(|service| service.address);
    here
}

fn holder(service: &Service<'_>) -> Holder {
    Holder {
        address: service.address,
        sockets: service.sockets.iter().filter(|socket| socket.in_after).count(),
        processes: service.owners.iter().copied().cloned().collect(),
    }
}

fn sockets(evidence: &Evidence<'_>, port: u16) -> Result<Vec<(TcpState, u64)>, Missing> {
    let socket_dump = evidence.socket_dump()?;
    match socket_dump.ports.get(&port) {
        Some(used) => Ok(used
            .by_state
            .iter()
            .filter(|(state, _)| **state != TcpState::Listen)
            .map(|(state, count)| (*state, *count))
            .collect()),
        None if !socket_dump.ports_capped => Ok(Vec::new()),
        // The port may be one of those that the cap left out.
        None => Err(Missing::new("sockets", "more ports are in use than the sweep keeps apart")),
    }
}

fn bind(
    services: &Result<Vec<&Service<'_>>, Missing>,
    sockets: &Result<Vec<(TcpState, u64)>, Missing>,
    address: IpAddr,
) -> BindOutcome {
    let services = match services {
        Ok(services) => services,
        Err(missing) => return BindOutcome::Unknown(missing.clone()),
    };
    let any6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    // Two listeners, one on 0.0.0.0 and one on ::, can only coexist if the second is for IPv6 only.
    let dual_stack_possible = !services.iter().any(|service| service.address.is_ipv4());
    let in_the_way: Vec<_> =
        services.iter().filter(|service| overlap(service.address, address, dual_stack_possible)).collect();
    if !in_the_way.is_empty() {
        return BindOutcome::InUse {
            by: in_the_way.iter().map(|service| service.address).collect(),
            reuseport: in_the_way.iter().all(|service| service.sockets.len() > 1),
            unless_v6_only: address.is_ipv4() && in_the_way.iter().all(|service| service.address == any6),
        };
    }
    match sockets {
        Err(missing) => BindOutcome::Unknown(missing.clone()),
        Ok(sockets) => {
            let all: u64 = sockets.iter().map(|(_, count)| count).sum();
            let time_wait = sockets.iter().filter(|(state, _)| *state == TcpState::TimeWait).map(|(_, n)| n).sum();
            match all {
                0 => BindOutcome::Succeeds,
                _ => BindOutcome::NeedsReuseAddr { time_wait, others: all - time_wait },
            }
        }
    }
}

/// Whether a listener on `held` keeps a socket from binding `wanted`, same port. `::` wanted means dual stack, which is
/// what programs get unless they set IPV6_V6ONLY (net.ipv6.bindv6only is 0 by default).
fn overlap(held: IpAddr, wanted: IpAddr, dual_stack_possible: bool) -> bool {
    match (held, wanted) {
        (IpAddr::V4(held), IpAddr::V4(wanted)) => held == wanted || held.is_unspecified() || wanted.is_unspecified(),
        (IpAddr::V6(held), IpAddr::V6(wanted)) => held == wanted || held.is_unspecified() || wanted.is_unspecified(),
        (IpAddr::V4(_), IpAddr::V6(wanted)) => wanted.is_unspecified(),
        (IpAddr::V6(held), IpAddr::V4(wanted)) => match held.to_ipv4_mapped() {
            Some(mapped) => overlap(IpAddr::V4(mapped), IpAddr::V4(wanted), dual_stack_possible),
            None => held.is_unspecified() && dual_stack_possible,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::{Case, process};
    use crate::source::socket_dump::{PortUse, SocketDump};

    fn with_sockets(case: Case, port: u16, states: &[(TcpState, u64)]) -> Case {
        let used = PortUse { by_state: states.iter().copied().collect(), ..PortUse::default() };
        let socket_dump = SocketDump { ports: [(port, used)].into(), ..SocketDump::default() };
        case.socket_dump(socket_dump.clone(), socket_dump)
    }

    fn outcomes(case: &Case, port: u16) -> (BindOutcome, BindOutcome) {
        let report = report(&Evidence::new(case.view()), port);
        let [v4, v6] = &report.binds[..] else { panic!("two binds") };
        (v4.outcome.clone(), v6.outcome.clone())
    }

    fn listening(endpoints: &[&str]) -> Case {
        let case = endpoints
            .iter()
            .fold(Case::new(), |case, endpoint| case.listener(endpoint, 511, 0, 0, &process(10, "nginx")));
        with_sockets(case, 1, &[])
    }

    fn in_use(by: &[&str], unless_v6_only: bool) -> BindOutcome {
        let by = by.iter().map(|address| address.parse().unwrap()).collect();
        BindOutcome::InUse { by, reuseport: false, unless_v6_only }
    }

    #[test]
    fn a_free_port_can_be_bound() {
        assert_eq!(outcomes(&listening(&["0.0.0.0:81"]), 8080), (BindOutcome::Succeeds, BindOutcome::Succeeds));
    }

    // The kernel's answers to these were looked up with a program that binds, on Linux 6.18.
    #[test]
    fn listeners_are_in_the_way_where_addresses_overlap() {
        let loopback = outcomes(&listening(&["127.0.0.1:80"]), 80);
        assert_eq!(loopback, (in_use(&["127.0.0.1"], false), in_use(&["127.0.0.1"], false)));
        assert_eq!(outcomes(&listening(&["[::1]:80"]), 80), (BindOutcome::Succeeds, in_use(&["::1"], false)));
        assert_eq!(outcomes(&listening(&["[::]:80"]), 80), (in_use(&["::"], true), in_use(&["::"], false)));
    }

    #[test]
    fn time_wait_needs_so_reuseaddr() {
        let case = with_sockets(
            Case::new().listener("0.0.0.0:1", 5, 0, 0, &process(1, "x")),
            8080,
            &[(TcpState::TimeWait, 41), (TcpState::Established, 2)],
        );
        assert_eq!(outcomes(&case, 8080).0, BindOutcome::NeedsReuseAddr { time_wait: 41, others: 2 });
    }

    #[test]
    fn what_was_not_seen_is_not_free() {
        assert!(matches!(outcomes(&Case::new(), 8080).0, BindOutcome::Unknown(_)));
        let no_sweep = Case::new().listener("0.0.0.0:1", 5, 0, 0, &process(1, "x"));
        assert!(matches!(outcomes(&no_sweep, 8080).0, BindOutcome::Unknown(_)));
    }

    #[test]
    fn privileged_and_ephemeral_come_from_the_sysctls() {
        let case = Case::new()
            .sysctl("net.ipv4.ip_unprivileged_port_start", "1024")
            .sysctl("net.ipv4.ip_local_port_range", "32768\t60999");
        let evidence = Evidence::new(case.view());
        assert_eq!(report(&evidence, 80).privileged, Ok(true));
        assert_eq!(report(&evidence, 1024).privileged, Ok(false));
        assert_eq!(report(&evidence, 60999).ephemeral, Ok(true));
        assert_eq!(report(&evidence, 8080).ephemeral, Ok(false));
    }
}
