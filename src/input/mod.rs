//! Where an observation comes from: a running kernel, or a recording that stands in for it. One file per kind of input.

use std::path::PathBuf;
use std::time::Duration;

use crate::ask::Host;
use crate::capture::Flows;
use crate::observation::Covers;
use crate::recording::Window;
use crate::session::Plan;
use crate::value::Stop;

mod capture;
mod given;
mod held;
mod kind;
mod live;
mod recording;
mod sosreport;
mod store;
mod text;
mod unpack;

pub use given::{Given, Unusable};
use kind::{Held, Kind};
pub use live::Namespace;
pub use sosreport::is_report;
pub use store::{Part, Stored, Unread, missing, partial, parts, written_until};
pub use unpack::is_no_text;

/// Files that people hold, told by how they begin. Whatever else can be read is text.
static KINDS: [Kind; 4] = [recording::KIND, capture::KIND, sosreport::KIND, text::KIND];

/// Where an observation comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Live(Live),
    Recording(PathBuf),
    /// Whatever was kept elsewhere.
    Given(Given),
    /// Of a store, what it has of some time.
    Stored(Stored),
}

/// A running kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Live {
    /// Length of the window; zero reads totals since boot only, [`Duration::MAX`] never ends.
    pub duration: Duration,
    pub netns: Netns,
    /// Use the reset tracepoints where possible.
    pub events: bool,
    /// It runs for months beside what the machine is for: half the memory for packets, and what a storm of 40,000 a second
    /// brings beyond that is counted as lost.
    pub unattended: bool,
}

/// Which network namespaces are looked into.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Netns {
    /// All of this node that may be entered, containers and pods too; from one that was itself entered, that one.
    #[default]
    All,
    /// That of the one who looks.
    Own,
    /// One, by its name, a process id, a path, or the container or pod in it.
    Named(String),
}

/// An origin that can be asked.
pub struct Opened {
    pub host: Box<dyn Host>,
    /// What of it is to be observed, as one window.
    pub plan: Plan,
    /// The namespace that was asked for.
    pub namespace: Namespace,
    /// The window that a recording holds.
    pub recorded: Option<Window>,
}

/// Opens an origin: enters the namespace, or reads the recording. `stop` ends a live window early once it is true.
///
/// # Errors
/// The namespace cannot be entered, or the recording is not sound or holds no window.
pub fn open(origin: &Origin, stop: &Stop) -> anyhow::Result<Opened> {
    match origin {
        Origin::Live(live) => live::open(live, stop),
        Origin::Recording(path) => recording::open(path),
        Origin::Given(given) => given::open(given),
        Origin::Stored(stored) => store::open(stored),
    }
}

/// An opened capture whose connections are known already.
#[doc(hidden)]
pub fn of_flows(flows: Flows) -> Opened {
    capture::of_flows(flows)
}

/// An opened text.
///
/// # Errors
/// It holds nothing that is known.
#[doc(hidden)]
pub fn of_text(name: &str, input: Box<dyn std::io::Read + Send>) -> anyhow::Result<Opened> {
    text::open(vec![(name.to_owned(), input)], None)
}

/// Whatever the bytes hold, packed or not.
///
/// # Errors
/// It is nothing that is known.
#[doc(hidden)]
pub fn of_bytes(name: &str, input: Box<dyn std::io::Read + Send>) -> anyhow::Result<Opened> {
    let (kind, held) = unpack::looked_at(name, input, None)?;
    (kind.open)(vec![held], &Given::default())
}

fn plan(length: Duration, events: bool, covers: Covers) -> Plan {
    Plan { events, covers, ..Plan::scan(length) }
}
