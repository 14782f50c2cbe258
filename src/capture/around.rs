//! What surrounds a connection in a capture: who scans, what else the same client tried, and who serves.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::flow::{Flow, Side};
use super::flows::{Attempt, Service};
use super::here::Here;

/// Ports of one host that nobody tries by mistake, one after the other.
const SCAN_PORTS: usize = 5;
/// How often a scanner tries each; who tries more often calls a service that is not there, and may be a scanner as well.
const SCAN_TRIES: u8 = 3;
/// Ports of which the tries of a source are counted.
const PORTS: usize = 16;
/// Packets with flags that begin no connection.
const ODD: u8 = 2;
/// What a client tries at the same time, or right afterwards.
const BESIDE: Duration = Duration::from_secs(2);

/// Sources of connections that are weighed.
const SOURCES: usize = 14_336;
/// Connects that are looked at beside one that failed, on either side of it.
const NEAR: usize = 512;

/// What each source tried that nobody serves.
#[derive(Debug, Clone, Default)]
pub(super) struct Tries(HashMap<IpAddr, Tried>);

#[derive(Debug, Clone, Copy, Default)]
struct Tried {
    /// A port, and how often it was tried.
    ports: [(u16, u8); PORTS],
    known: u8,
    odd: u8,
}

impl Tried {
    fn known(&self) -> &[(u16, u8)] {
        self.ports.get(..usize::from(self.known)).unwrap_or_default()
    }
}

impl Tries {
    /// Takes a connection that has something to tell.
    pub fn take(&mut self, flow: &Flow) {
        let served = flow.end(Side::Initiator).bytes + flow.end(Side::Acceptor).bytes > 0;
        let failed = !served && flow.reset_count() > 0;
        let source = flow.initiator.ip();
        if !failed && !flow.odd || self.0.len() >= SOURCES && !self.0.contains_key(&source) {
            return;
        }
        let tried = self.0.entry(source).or_default();
        tried.odd = tried.odd.saturating_add(u8::from(flow.odd));
        let port = flow.acceptor.port();
        let known = usize::from(tried.known);
        let own = tried.known().iter().position(|(other, _)| *other == port).unwrap_or(known);
        if let Some(slot) = tried.ports.get_mut(own).filter(|_| failed) {
            *slot = (port, slot.1.saturating_add(1));
            tried.known = tried.known.max(u8::try_from(own + 1).unwrap_or(u8::MAX));
        }
    }

    fn is_scan(&self, source: IpAddr, port: u16) -> bool {
        self.0.get(&source).is_some_and(|tried| {
            let few = |(_, tries): &&(u16, u8)| *tries <= SCAN_TRIES;
            let scans = tried.known().iter().filter(few).count() >= SCAN_PORTS || tried.odd >= ODD;
            scans && tried.known().iter().filter(|(own, _)| *own == port).all(|own| few(&own))
        })
    }
}

/// The rest of a capture.
pub struct Around<'a> {
    pub(super) attempts: &'a VecDeque<Attempt>,
    pub(super) services: &'a HashMap<SocketAddr, Service>,
    pub(super) here: &'a Here,
    pub(super) tries: &'a Tries,
    /// When the capture ends.
    pub until: Duration,
}

impl Around<'_> {
    /// It is one of the ports that its initiator tries in turn.
    pub fn is_scan(&self, flow: &Flow) -> bool {
        self.tries.is_scan(flow.initiator.ip(), flow.acceptor.port())
    }

    /// Where the same client was served instead: at another address by the same port, or another port of that host.
    pub fn used_instead(&self, flow: &Flow) -> Option<SocketAddr> {
        let same = |attempt: &&Attempt| {
            let near = attempt.at.abs_diff(flow.started) < BESIDE;
            let client = attempt.client == flow.initiator.ip()
                || attempt.client.is_loopback() && flow.initiator.ip().is_loopback();
            let port = attempt.service.port() == flow.acceptor.port() && attempt.service.ip() != flow.acceptor.ip();
            let host = attempt.service.ip() == flow.acceptor.ip() && attempt.service.port() != flow.acceptor.port();
            near && client && (port || host)
        };
        // In the order in which they were accepted.
        let middle = self.attempts.partition_point(|attempt| attempt.at < flow.started);
        let near = middle.saturating_sub(NEAR)..middle.saturating_add(NEAR).min(self.attempts.len());
        self.attempts.range(near).find(same).map(|attempt| attempt.service)
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
