//! What surrounds a connection in a capture: who scans, what else the same client tried, and who serves.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::flow::{Flow, Side};
use super::flows::{Attempt, Service};
use super::here::Here;

/// Ports of one host that nobody tries by mistake, one after the other.
const SCAN_PORTS: usize = 5;
/// Packets with flags that begin no connection.
const ODD: usize = 2;
/// What a client tries at the same time, or right afterwards.
const BESIDE: Duration = Duration::from_secs(2);

/// The rest of a capture.
pub struct Around<'a> {
    attempts: &'a VecDeque<Attempt>,
    services: &'a HashMap<SocketAddr, Service>,
    here: &'a Here,
    scanners: BTreeSet<IpAddr>,
    /// When the capture ends.
    pub until: Duration,
}

impl<'a> Around<'a> {
    pub fn new(
        told: &[Flow],
        attempts: &'a VecDeque<Attempt>,
        services: &'a HashMap<SocketAddr, Service>,
        here: &'a Here,
        until: Duration,
    ) -> Self {
        let mut ports: BTreeMap<IpAddr, BTreeSet<u16>> = BTreeMap::new();
        let mut odd: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for flow in told {
            let initiator = flow.initiator.ip();
            let served = flow.end(Side::Initiator).bytes + flow.end(Side::Acceptor).bytes > 0;
            if !served && flow.reset_count() > 0 {
                ports.entry(initiator).or_default().insert(flow.acceptor.port());
            }
            *odd.entry(initiator).or_default() += usize::from(flow.odd);
        }
        let by_ports = ports.into_iter().filter(|(_, ports)| ports.len() >= SCAN_PORTS).map(|(source, _)| source);
        let by_flags = odd.into_iter().filter(|(_, count)| *count >= ODD).map(|(source, _)| source);
        Self { attempts, services, here, scanners: by_ports.chain(by_flags).collect(), until }
    }

    pub fn is_scanner(&self, source: IpAddr) -> bool {
        self.scanners.contains(&source)
    }

    /// Where the same client was served instead: at another address by the same port, or another port of that host.
    pub fn used_instead(&self, flow: &Flow) -> Option<SocketAddr> {
        let same = |attempt: &&Attempt| {
            let near = attempt.at.abs_diff(flow.started) < BESIDE;
            let client = attempt.client == flow.initiator.ip()
                || attempt.client.is_loopback() && flow.initiator.ip().is_loopback();
            let port = attempt.service.port() == flow.acceptor.port() && attempt.service.ip() != flow.acceptor.ip();
            let host = attempt.service.ip() == flow.acceptor.ip() && attempt.service.port() != flow.acceptor.port();
            attempt.accepted && near && client && (port || host)
        };
        self.attempts.iter().find(same).map(|attempt| attempt.service)
    }

    /// Many connects to the service, and none of them accepted: that is not one of several that are tried in turn.
    pub fn is_never_served(&self, service: SocketAddr) -> bool {
        const MANY: u64 = 5;
        self.services.get(&service).is_some_and(|service| service.tried >= MANY && service.accepted == 0)
    }

    /// A connect to this service was accepted.
    pub fn is_served(&self, service: SocketAddr) -> bool {
        self.services.get(&service).is_some_and(|service| service.accepted > 0)
    }

    pub fn here(&self, flow: &Flow) -> Option<Side> {
        self.here.of(flow.initiator.ip(), flow.acceptor.ip())
    }
}
