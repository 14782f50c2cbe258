//! Where a cause happens: what makes two findings in two windows the same.

use std::fmt;
use std::net::SocketAddr;

use crate::cause::{Subject, SubjectKind};
use crate::diagnosis::rank::Ranked;
use crate::value::NetnsId;

/// What makes two findings in two windows the same: the cause, and where it happens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub id: &'static str,
    pub place: Place,
    /// The network namespace, where it is not that of the one who looks.
    pub netns: Option<NetnsId>,
}

/// Where a cause happens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A served port.
    Port(u16),
    /// A remote end that this host calls.
    Remote(SocketAddr),
    /// Process name, where it is about no port.
    Process(String),
    Host,
}

/// `port 8080`, `10.0.0.1:5432`, `process api`, or nothing for the whole host. Escape it before printing.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "port {port}"),
            Self::Remote(remote) => write!(f, "{remote}"),
            Self::Process(name) => write!(f, "process {name}"),
            Self::Host => Ok(()),
        }
    }
}

impl Key {
    /// Where a finding happens, told by its subjects.
    pub fn of(ranked: &Ranked) -> Self {
        let subjects = &ranked.finding.subjects;
        let first = |kind: SubjectKind| subjects.iter().find(|subject| subject.kind == kind);
        let remote = |subject: &Subject| Some(SocketAddr::new(subject.address?.to_canonical(), subject.port?));
        let port = first(SubjectKind::Listener).or(first(SubjectKind::Host)).and_then(|subject| subject.port);
        let peer = first(SubjectKind::Peer).or(first(SubjectKind::Path)).and_then(remote);
        let process = first(SubjectKind::Process).and_then(|subject| subject.process.clone());
        let place = match (port, peer, process) {
            (Some(port), ..) => Place::Port(port),
            (None, Some(remote), _) => Place::Remote(remote),
            (None, None, Some(name)) => Place::Process(name),
            (None, None, None) => Place::Host,
        };
        Self { id: ranked.id, place, netns: ranked.finding.location.as_ref().map(|location| location.netns) }
    }
}
