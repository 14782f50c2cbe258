//! The questions that causes may ask about an observation. Every answer says where it comes from; an answer that cannot
//! be given is a [`Missing`], never a zero.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::attribution::wire::Wire;
use crate::attribution::{self, Attribution, Ended, GoneListener, GoneProcesses, Group as ResetGroup};
use crate::capture::Flows;
use crate::evidence::across::Across;
use crate::evidence::estimate::Estimate;
use crate::evidence::harm::Connections;
use crate::evidence::ledger::Ledger;
use crate::evidence::readings::Readings;
pub use crate::evidence::readings::Total;
use crate::evidence::recent::Recent;
use crate::evidence::service::Service;
use crate::observation::delta::Reading;
use crate::observation::{Endings, Hint, HostSnapshot, Snapshot, View};
use crate::reset::{JoinedError, Kind, Reset, Surroundings};
use crate::source::conntrack::Conntrack;
use crate::source::counters::CounterFile;
use crate::source::owners::{Owners, Process, TICKS_PER_SECOND};
use crate::source::reset_events::{Direction, EventAccount, SignalDeath};
use crate::source::socket_dump::{Destination, Group, GroupKind, SocketDump};
use crate::source::{file_nr, sockstat};
use crate::value::{EphemeralPorts, Errno, Missing, Observed};

pub mod across;
mod at_exit;
pub mod backlog;
pub mod balance;
mod closed_listeners;
pub mod estimate;
pub mod harm;
pub mod ledger;
pub mod needs;
pub mod proxied;
mod readings;
pub mod recent;
pub mod repeated;
pub mod requests;
pub mod service;
pub mod share;
pub mod stated;
pub mod strays;

fn shared<'a, T>(source: &'static str, observed: &'a Observed<Arc<T>>) -> Result<&'a T, Missing> {
    observed.required(source).map(Arc::as_ref)
}

/// Errors that a program got on its connections between two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorGroup {
    pub local: SocketAddr,
    pub peer: SocketAddr,
    pub errno: Errno,
    /// A reset, received or sent, ended them. The others are failures without one: no answer, or an ICMP message.
    pub of_reset: bool,
    pub count: u64,
}

/// The evidence of one observation. Whatever more than one cause asks for is worked out once, when it is made.
pub struct Evidence<'a> {
    view: View<'a>,
    readings: Readings<'a>,
    services: Vec<Service<'a>>,
    /// Places in `services`.
    by_endpoint: HashMap<(IpAddr, u16), usize>,
    by_port: HashMap<u16, usize>,
    surroundings: Surroundings,
    attribution: Result<Attribution, Missing>,
    wire: Result<Wire, Missing>,
    estimate: Result<Estimate, Missing>,
    ledger: Ledger,
    across: Option<Across>,
    gone_listeners: Vec<GoneListener<'a>>,
    gone_processes: GoneProcesses,
    ended: Result<Vec<Ended<'a>>, Missing>,
    /// `None` where the connections that ended are not known.
    connections: Option<Connections>,
    /// Connections of clients that failed, by served port.
    failures: HashMap<u16, u64>,
    /// Of these, those that never were connections.
    unopened: HashMap<u16, u64>,
    recent: Recent,
}

impl<'a> Evidence<'a> {
    pub fn new(view: View<'a>) -> Self {
        Self::with(view, Recent::default())
    }

    /// `recent`: of the windows before.
    pub fn with(view: View<'a>, recent: Recent) -> Self {
        let readings = Readings::new(view);
        let services = service::services(view);
        let (mut by_endpoint, mut by_port) = (HashMap::new(), HashMap::new());
        for (index, service) in services.iter().enumerate() {
            by_endpoint.insert((service.address, service.port), index);
            by_port.entry(service.port).or_insert(index);
        }
        let grouped = attribution::grouped(view);
        let (gone_listeners, gone_processes) = (attribution::gone_listeners(view), GoneProcesses::new(view));
        let around = attribution::surroundings(view, &grouped, &gone_listeners, &gone_processes);
        let wire = Wire::new(view, &grouped, &around);
        let estimate = estimate::estimate(&readings, &gone_listeners);
        let ends = estimate.as_ref().ok().and_then(|estimate| estimate.ends(&readings));
        let attribution = attribution::attribute(view, &grouped, &around, ends);
        let failed = |which: fn(Kind) -> bool| {
            attribution.as_ref().map(|attribution| harm::failures(attribution, which)).unwrap_or_default()
        };
        let (failures, unopened) = (failed(|_| true), failed(Kind::is_unopened));
        let ledger = ledger::account(&readings, estimate.as_ref(), attribution.as_ref(), wire.as_ref());
        let endings = view.netns.endings.required("destroyed_sockets");
        let ended = endings.clone().map(|endings| attribution::ended(view, endings));
        let connections = endings.ok().zip(ended.as_ref().ok());
        let fresh = view.after().dumped == view.after().at;
        let still_open = view.after().socket_dump.value().filter(|_| fresh).map(|dump| harm::all_open(dump));
        let connections =
            connections.and_then(|(endings, ended)| Connections::new(ended, endings, &readings, still_open));
        Self {
            view,
            readings,
            services,
            by_endpoint,
            by_port,
            surroundings: around,
            attribution,
            wire,
            estimate,
            ledger,
            across: across::across(view),
            gone_listeners,
            gone_processes,
            ended,
            connections,
            failures,
            unopened,
            recent,
        }
    }

    /// The connections of a capture; `None` where the evidence is none.
    pub fn flows(&self) -> Option<&'a Flows> {
        self.view.covers.flows.as_deref()
    }

    /// What a capture of the other end adds; `None` where there is none.
    pub fn across(&self) -> Option<&Across> {
        self.across.as_ref()
    }

    /// What a text says of causes, the likeliest first.
    pub fn hints(&self) -> &'a [Hint] {
        &self.view.covers.hints
    }

    /// What decides the kind of each reset, for one who shows them singly.
    pub fn into_surroundings(self) -> Surroundings {
        self.surroundings
    }

    fn before(&self) -> &'a Snapshot {
        self.view.before()
    }

    fn after(&self) -> &'a Snapshot {
        self.view.after()
    }

    fn host_before(&self) -> &'a HostSnapshot {
        &self.view.host.before
    }

    fn host_after(&self) -> &'a HostSnapshot {
        &self.view.host.after
    }

    /// Length of the window.
    pub fn window(&self) -> Duration {
        self.readings.window()
    }

    /// Only totals since boot are known: nothing can be said about now.
    pub fn totals_only(&self) -> bool {
        self.readings.totals_only()
    }

    /// Why a source of counters was not read at the end of the window.
    fn unread(&self, file: &CounterFile) -> Option<Missing> {
        self.after().counters.required(file).err()
    }

    /// Events per second of this window.
    pub fn rate(&self, events: u64) -> f64 {
        self.readings.rate(events)
    }

    /// See [`Readings::counter`].
    pub fn counter(&self, metric: &str) -> Result<Reading, Missing> {
        self.readings.counter(metric)
    }

    /// See [`Readings::total`].
    pub fn total(&self, metric: &str) -> Option<Total> {
        self.readings.total(metric)
    }

    /// See [`Readings::moved`].
    pub fn moved(&self, metric: &str) -> u64 {
        self.readings.moved(metric)
    }

    /// A gauge of /proc/net/sockstat: `TCP.orphan`, `TCP.tw`, `TCP.mem` (pages), ... as of the end of the window.
    pub fn sockstat(&self, name: &str) -> Result<u64, Missing> {
        let counters = self.after().counters.required(&sockstat::FILE)?;
        counters.get(name).ok_or_else(|| Missing::new("sockstat", format!("/proc/net/sockstat has no {name}")))
    }

    /// See [`Readings::sysctl`].
    pub fn sysctl(&self, name: &str) -> Result<&'a str, Missing> {
        self.readings.sysctl(name)
    }

    /// See [`Readings::sysctl_number`].
    pub fn sysctl_number(&self, name: &str) -> Result<u64, Missing> {
        self.readings.sysctl_number(name)
    }

    /// An outgoing connection, or bind() to port 0, may take this port: it lies in net.ipv4.ip_local_port_range. A range that
    /// cannot be read is missing, not "outside".
    pub fn is_ephemeral(&self, port: u16) -> Result<bool, Missing> {
        let text = self.sysctl("net.ipv4.ip_local_port_range")?;
        match EphemeralPorts::parse(text) {
            Some(ports) => Ok(ports.contains(port)),
            None => Err(Missing::new("sysctl", format!("net.ipv4.ip_local_port_range is not two numbers: {text:?}"))),
        }
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Everything that listens, grouped by address and port, worst first.
    pub fn services(&self) -> Result<&[Service<'a>], Missing> {
        match self.after().listeners.get().or_else(|_| self.before().listeners.get()) {
            Ok(_) => Ok(&self.services),
            Err(failure) => Err(Missing::from_failure("listeners", failure)),
        }
    }

    /// Who listens on exactly this address and port.
    pub fn service_on(&self, address: IpAddr, port: u16) -> Option<&Service<'a>> {
        self.by_endpoint.get(&(address, port)).map(|index| &self.services[*index])
    }

    /// Who listens on this port, whatever the address: the one with the fullest queue.
    pub fn service_of_port(&self, port: u16) -> Option<&Service<'a>> {
        self.by_port.get(&port).map(|index| &self.services[*index])
    }

    /// Listeners that went away in the window.
    pub fn gone_listeners(&self) -> &[GoneListener<'a>] {
        &self.gone_listeners
    }

    /// Processes that held a listener when the window opened, and hold none at its end, ascending by pid; with the ports on
    /// which they listened.
    pub fn gone_processes(&self) -> impl Iterator<Item = (&'a Process, &[u16])> {
        let before = self.host_before().owners.value();
        self.gone_processes.iter().filter_map(move |(pid, ports)| Some((before?.processes.get(&pid)?, ports)))
    }

    /// Processes of this namespace that a signal ended in the window; empty where the tracepoints of signals were not there.
    pub fn signal_deaths(&self) -> Vec<&'a SignalDeath> {
        let Some(account) = self.view.host.reset_events.value() else { return Vec::new() };
        let here = self.after().netns;
        account.deaths.iter().filter(|death| death.netns.is_none_or(|netns| netns == here)).collect()
    }

    /// What the counters say about resets where single events are not known.
    pub fn estimate(&self) -> Result<Estimate, Missing> {
        self.estimate.clone()
    }

    /// How the connections that were destroyed in the window ended.
    pub fn ended(&self) -> Result<&[Ended<'a>], Missing> {
        self.ended.as_deref().map_err(Clone::clone)
    }

    /// When the window closed, CLOCK_BOOTTIME.
    pub fn ends_at(&self) -> Duration {
        self.after().at.mono
    }

    /// When the latest look at all sockets before the window was, CLOCK_BOOTTIME.
    pub fn looked_before_at(&self) -> Duration {
        self.before().dumped.mono
    }

    /// When the latest one was, CLOCK_BOOTTIME.
    pub fn looked_at(&self) -> Duration {
        self.after().dumped.mono
    }

    /// Processes that hold a connection, or an attempt, to this destination in one of the two looks at all sockets; of one
    /// number the later.
    pub fn callers(&self, called: SocketAddr) -> Vec<&'a Process> {
        let mut found: BTreeMap<u32, &Process> = BTreeMap::new();
        for (snapshot, host) in [(self.before(), self.host_before()), (self.after(), self.host_after())] {
            let (Some(dump), Some(owners)) = (snapshot.socket_dump.value(), host.owners.value()) else { continue };
            let samples = dump.groups.iter().flat_map(|group| &group.samples);
            let inodes = samples.filter(|sample| sample.peer == called && sample.inode != 0).map(|sample| sample.inode);
            found.extend(service::holders(owners, inodes).into_iter().map(|process| (process.pid, process)));
        }
        found.into_values().collect()
    }

    /// The latest sweep of all sockets: at the end of the window, or in a live view some ticks before.
    pub fn socket_dump(&self) -> Result<&'a SocketDump, Missing> {
        shared("sockets", &self.after().socket_dump)
    }

    pub fn socket_dump_before(&self) -> Result<&'a SocketDump, Missing> {
        shared("sockets", &self.before().socket_dump)
    }

    /// The sweep before is from about when the window began. A live view's may be from long before: what was so then says little
    /// about the moment before a reset, and what grew since then did not grow in the window.
    pub fn sweep_before_is_fresh(&self) -> bool {
        self.before().at.mono.saturating_sub(self.before().dumped.mono) <= self.window()
    }

    /// Groups of sockets of one kind, largest first.
    pub fn groups(&self, kind: GroupKind) -> Result<Vec<&'a Group>, Missing> {
        let mut groups: Vec<_> = self.socket_dump()?.groups.iter().filter(|group| group.kind == kind).collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.sockets));
        Ok(groups)
    }

    /// Local ports in use per (source, destination, destination port), largest first.
    pub fn destinations(&self) -> Result<&'a [Destination], Missing> {
        Ok(&self.socket_dump()?.destinations)
    }

    pub fn conntrack(&self) -> Result<&'a Conntrack, Missing> {
        self.after().conntrack.required("conntrack")
    }

    /// The change of one column of /proc/net/stat/nf_conntrack, summed over the CPUs.
    pub fn conntrack_moved(&self, column: &str) -> Result<u64, Missing> {
        let at =
            |snapshot: &'a Snapshot| {
                let conntrack = snapshot.conntrack.required("conntrack")?;
                conntrack.stat.as_ref().and_then(|stat| stat.get(column)).ok_or_else(|| {
                    Missing::new("conntrack", format!("no column {column} in /proc/net/stat/nf_conntrack"))
                })
            };
        let (before, after) = (at(self.before())?, at(self.after())?);
        after
            .checked_sub(before)
            .ok_or_else(|| Missing::new("conntrack", format!("{column} went backwards, from {before} to {after}")))
    }

    /// Socket owners at the end of the window.
    pub fn owners(&self) -> Result<&'a Owners, Missing> {
        shared("owners", &self.host_after().owners)
    }

    pub fn owners_before(&self) -> Result<&'a Owners, Missing> {
        shared("owners", &self.host_before().owners)
    }

    /// Processes that hold any of these sockets at the end of the window, each once.
    pub fn holders(&self, inodes: impl IntoIterator<Item = u32>) -> Vec<&'a Process> {
        let Some(owners) = self.host_after().owners.value() else { return Vec::new() };
        service::holders(owners, inodes)
    }

    /// Processes that could not be looked into, so that an owner may be invisible.
    pub fn hidden_processes(&self) -> u64 {
        self.host_after().owners.value().map_or(0, |owners| owners.denied)
    }

    /// A process at the two looks at the owners, and the time between them; `None` if it was not there at both.
    fn at_both_looks(&self, pid: u32) -> Option<(&'a Process, &'a Process, Duration)> {
        let process = |host: &'a HostSnapshot| host.owners.value()?.processes.get(&pid);
        let (before, after) = (process(self.host_before())?, process(self.host_after())?);
        let between = self.after().dumped.mono.saturating_sub(self.before().dumped.mono);
        (before.start_ticks == after.start_ticks && !between.is_zero()).then_some((before, after, between))
    }

    /// Share of one CPU that the process used between the two looks at the owners, 1.0 = one CPU fully.
    pub fn cpu_share(&self, pid: u32) -> Option<f64> {
        let (before, after, between) = self.at_both_looks(pid)?;
        let ticks = after.cpu_ticks.checked_sub(before.cpu_ticks)?;
        Some(ticks as f64 / TICKS_PER_SECOND as f64 / between.as_secs_f64())
    }

    /// Share of the time between the two looks at the owners in which the main thread of a process was ready to run and had no
    /// CPU.
    pub fn cpu_wait_share(&self, pid: u32) -> Option<f64> {
        let (before, after, between) = self.at_both_looks(pid)?;
        let waited = after.run_delay_ns?.checked_sub(before.run_delay_ns?)?;
        Some(Duration::from_nanos(waited).as_secs_f64() / between.as_secs_f64())
    }

    /// What the tracepoints gave, on the whole host.
    pub fn reset_events(&self) -> Result<&'a EventAccount, Missing> {
        self.view.host.reset_events.required("reset_events")
    }

    /// Single resets of the window, as many as were kept.
    pub fn resets(&self) -> &'a [Reset] {
        &self.view.netns.resets.single
    }

    /// Every reset event of the window by kind.
    pub fn attribution(&self) -> Result<&Attribution, Missing> {
        self.attribution.as_ref().map_err(Clone::clone)
    }

    /// What the RST packets on the interfaces say.
    pub fn wire(&self) -> Result<&Wire, Missing> {
        self.wire.as_ref().map_err(Clone::clone)
    }

    /// Connections that were destroyed in the window.
    pub fn endings(&self) -> Result<&'a Endings, Missing> {
        self.view.netns.endings.required("destroyed_sockets")
    }

    /// Errors that programs got on their connections, those of one connection and errno together, in the order of their ends.
    pub fn socket_errors(&self) -> Result<Vec<ErrorGroup>, Missing> {
        let errors = self.view.netns.errors.required("reset_events")?;
        let mut groups: BTreeMap<(SocketAddr, SocketAddr, Errno, bool), u64> = BTreeMap::new();
        for JoinedError { error, of_reset } in &errors.errors {
            *groups.entry((error.local, error.peer, error.errno, *of_reset)).or_default() += 1;
        }
        let group = |((local, peer, errno, of_reset), count)| ErrorGroup { local, peer, errno, of_reset, count };
        Ok(groups.into_iter().map(group).collect())
    }

    /// The resets that belong to a cause, by single events; most frequent first. A cause of sent resets also needs the
    /// kernel's reasons, which a cause of received ones does not.
    pub fn resets_of(&self, cause: &str, direction: Direction) -> Result<Vec<&ResetGroup>, Missing> {
        let attribution = self.attribution()?;
        match direction {
            Direction::Sent => attribution.sent.clone()?,
            Direction::Received => attribution.received.clone()?,
        }
        let belongs = |group: &&ResetGroup| group.direction == direction && group.kind.cause() == Some(cause);
        let found: Vec<_> = attribution.groups.iter().filter(belongs).collect();
        if found.is_empty() {
            match direction {
                Direction::Sent => self.balanced()?,
                Direction::Received => self.received_whole(attribution)?,
            }
        }
        Ok(found)
    }

    /// # Errors
    /// Events were seen, and do not account for the RSTs that this host sent. Counters cannot tell more than events: what is left
    /// of them must not be taken for one cause or another.
    pub fn events_balance(&self) -> Result<(), Missing> {
        match &self.attribution {
            Ok(attribution) if attribution.sent.is_ok() => self.balanced(),
            _ => Ok(()),
        }
    }

    /// Records of received RSTs that were lost on the whole host may be of this namespace, as far as its counters moved.
    fn received_whole(&self, attribution: &Attribution) -> Result<(), Missing> {
        let ours = attribution.lost.received;
        let moved = self.moved("Tcp.EstabResets").saturating_add(self.moved("Tcp.AttemptFails"));
        if ours >= balance::CHANCE && ours.saturating_mul(balance::ONE_IN) > moved {
            let lost = crate::value::words::counted(ours, "received RST");
            return Err(Missing::new("reset_events", format!("the records of up to {lost} were lost")));
        }
        Ok(())
    }

    /// Open files of the whole host at the end of the window: (allocated, the most that fs.file-max allows).
    pub fn file_nr(&self) -> Result<(u64, u64), Missing> {
        let counters = self.host_after().counters.required(&file_nr::FILE)?;
        match (counters.get("allocated"), counters.get("max")) {
            (Some(allocated), Some(max)) => Ok((allocated, max)),
            _ => Err(Missing::new("file_nr", "/proc/sys/fs/file-nr has another form")),
        }
    }
}
