//! What several documents say alike.

use std::net::{IpAddr, SocketAddr};

use crate::cause::{self, Finding, SubjectKind};
use crate::diagnosis::{Diagnosis, Status};
use crate::render::json::wire::shared::*;
use crate::source::node::{self, Location};
use crate::source::owners;
use crate::timeline;
use crate::value::TcpState;

/// Microseconds are enough; more digits are noise of the conversion.
pub fn rounded(number: f64) -> f64 {
    if number.is_finite() { (number * 1e6).round() / 1e6 } else { 0.0 }
}

pub fn status(status: Status) -> VerdictStatus {
    match status {
        Status::Ok => VerdictStatus::Ok,
        Status::Warning => VerdictStatus::Warning,
        Status::Critical => VerdictStatus::Critical,
        Status::Unknown => VerdictStatus::Unknown,
    }
}

pub fn state(state: cause::State) -> State {
    match state {
        cause::State::Active => State::Active,
        cause::State::Past => State::Past,
        cause::State::Risk => State::Risk,
        cause::State::Benign => State::Benign,
    }
}

pub fn severity(severity: cause::Severity) -> Severity {
    match severity {
        cause::Severity::Critical => Severity::Critical,
        cause::Severity::Warning => Severity::Warning,
        cause::Severity::Info => Severity::Info,
    }
}

pub fn process(process: &owners::Process) -> Process {
    Process { pid: process.pid, name: process.name.clone(), unit: process.unit.as_ref().map(ToString::to_string) }
}

/// Addresses are plain; a port stands beside them.
pub fn plain(address: IpAddr) -> String {
    address.to_string()
}

pub fn end(end: SocketAddr) -> End {
    End { address: plain(end.ip()), port: end.port() }
}

/// The namespace of a diagnosis.
pub fn netns(diagnosis: &Diagnosis) -> Netns {
    Netns { inode: Some(diagnosis.netns.0).filter(|inode| *inode != 0), name: diagnosis.netns_name.clone() }
}

/// A namespace by where it is.
pub fn located(location: &Location) -> Netns {
    Netns { inode: Some(location.netns.0).filter(|inode| *inode != 0), name: location.name.clone() }
}

pub fn container(container: &node::Container) -> Container {
    Container {
        id: container.id.clone(),
        name: container.name.clone(),
        image: container.image.clone(),
        runtime: container.runtime.clone(),
        pod: container.pod.clone(),
        pod_namespace: container.pod_namespace.clone(),
        compose_project: container.project.clone(),
        compose_service: container.service.clone(),
    }
}

/// Where a cause happens, with what its latest finding knows of it.
pub fn place(place: &timeline::Place, finding: Option<&Finding>, diagnosis: &Diagnosis) -> Place {
    let (kind, port, peer, name) = match place {
        timeline::Place::Port(port) => (PlaceKind::Port, Some(*port), None, None),
        timeline::Place::Remote(remote) => (PlaceKind::Peer, None, Some(end(*remote)), None),
        timeline::Place::Process(name) => (PlaceKind::Process, None, None, Some(name.clone())),
        timeline::Place::Host => (PlaceKind::Host, None, None, None),
    };
    let subjects = finding.map_or(&[][..], |finding| &finding.subjects);
    let listener = subjects.iter().find(|subject| subject.kind == SubjectKind::Listener && subject.port == port);
    let service = listener.and_then(|subject| Some(End { address: plain(subject.address?), port: subject.port? }));
    let named = |subject: &&cause::Subject| subject.pid.is_some() && (name.is_none() || subject.process == name);
    let held = listener.filter(named).or_else(|| subjects.iter().find(named)).map(|subject| PlaceProcess {
        pid: subject.pid,
        name: subject.process.clone(),
        unit: subject.unit.as_ref().map(ToString::to_string),
    });
    let process = held.or_else(|| name.clone().map(|name| PlaceProcess { pid: None, name: Some(name), unit: None }));
    let location = finding.and_then(|finding| finding.location.as_deref());
    let netns = location.map_or_else(|| netns(diagnosis), located);
    let netns = Some(netns).filter(|netns| netns.inode.is_some() || netns.name.is_some());
    let held = subjects.iter().find_map(|subject| subject.container.as_deref());
    let container = held.or(location.and_then(Location::container)).map(container);
    Place { kind, port, service, peer, process, netns, container }
}

pub fn socket_state(state: TcpState) -> SocketState {
    match state {
        TcpState::Established => SocketState::Established,
        TcpState::SynSent => SocketState::SynSent,
        TcpState::SynRecv => SocketState::SynRecv,
        TcpState::FinWait1 => SocketState::FinWait1,
        TcpState::FinWait2 => SocketState::FinWait2,
        TcpState::TimeWait => SocketState::TimeWait,
        TcpState::Close => SocketState::Close,
        TcpState::CloseWait => SocketState::CloseWait,
        TcpState::LastAck => SocketState::LastAck,
        TcpState::Listen => SocketState::Listen,
        TcpState::Closing => SocketState::Closing,
        TcpState::NewSynRecv => SocketState::NewSynRecv,
    }
}
