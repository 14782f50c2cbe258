//! Counters, gauges and settings of an observation by name. What could not be read is a [`Missing`], never a zero.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::observation::delta::{self, NoDelta, Reading};
use crate::observation::{Observation, Snapshot};
use crate::source::counters::Counters;
use crate::source::sysctl;
use crate::value::{Missing, Observed};

/// A counter that was read: its total and its change, `None` when it has no delta.
pub type Used = (u64, Option<u64>);

/// What an observation read. It remembers which counters were asked for.
pub struct Readings<'a> {
    observation: &'a Observation,
    used: RefCell<BTreeMap<String, Used>>,
}

impl<'a> Readings<'a> {
    pub fn new(observation: &'a Observation) -> Self {
        Self { observation, used: RefCell::default() }
    }

    pub fn before(&self) -> &'a Snapshot {
        &self.observation.before
    }

    pub fn after(&self) -> &'a Snapshot {
        &self.observation.after
    }

    pub fn observation(&self) -> &'a Observation {
        self.observation
    }

    /// Length of the window.
    pub fn window(&self) -> Duration {
        self.observation.duration()
    }

    /// Only totals since boot are known: nothing can be said about now.
    pub fn totals_only(&self) -> bool {
        self.observation.totals_only
    }

    /// Events per second of this window.
    pub fn rate(&self, events: u64) -> f64 {
        delta::per_second(events, self.window())
    }

    /// A counter of /proc/net/{netstat,snmp} by its stable name: `TcpExt.ListenOverflows`, `Tcp.OutRsts`; `oom_kill` of
    /// /proc/vmstat.
    pub fn counter(&self, metric: &str) -> Result<Reading, Missing> {
        type Pick = fn(&Snapshot) -> &Observed<Counters>;
        let (source, pick): (&'static str, Pick) = match metric.split_once('.') {
            Some(("TcpExt" | "IpExt" | "MPTcpExt", _)) => ("netstat", |s| &s.netstat),
            Some(("Ip6" | "Icmp6", _)) => ("snmp6", |s| &s.snmp6),
            Some(_) => ("snmp", |s| &s.snmp),
            None => ("vmstat", |s| &s.vmstat),
        };
        let (before, after) = (pick(self.before()), pick(self.after()));
        let reading = delta::reading(source, metric, before, after, self.window());
        match &reading {
            Ok(reading) => self.note(metric, reading.after, Some(reading.delta)),
            Err(NoDelta::WentBackwards { after, .. }) => self.note(metric, *after, None),
            Err(_) => {}
        }
        reading.map_err(|why| match why {
            NoDelta::Unavailable { reason, needs } => Missing { source, reason, needs },
            NoDelta::Absent => Missing::new(source, format!("this kernel has no counter {metric}")),
            NoDelta::WentBackwards { before, after } => {
                Missing::new(source, format!("{metric} went backwards, from {before} to {after}"))
            }
        })
    }

    /// The change of a counter where a missing one may count as "did not move": only for counter-evidence and for
    /// counters that older kernels lack because they lack the mechanism.
    pub fn moved(&self, metric: &str) -> u64 {
        self.counter(metric).map_or(0, |reading| reading.delta)
    }

    /// A gauge of /proc/net/sockstat: `TCP.orphan`, `TCP.tw`, `TCP.mem` (pages), ... as of the end of the window.
    pub fn sockstat(&self, name: &str) -> Result<u64, Missing> {
        let counters = self.after().sockstat.get().map_err(|failure| Missing::from_failure("sockstat", failure))?;
        counters.get(name).ok_or_else(|| Missing::new("sockstat", format!("/proc/net/sockstat has no {name}")))
    }

    /// A sysctl's text, by the name that sysctl(8) uses.
    pub fn sysctl(&self, name: &str) -> Result<&'a str, Missing> {
        match self.after().sysctls.get(name) {
            Some(observed) => {
                observed.get().map(String::as_str).map_err(|failure| Missing::from_failure("sysctl", failure))
            }
            None => Err(Missing::new("sysctl", format!("{name} was not collected"))),
        }
    }

    /// A sysctl that holds one number.
    pub fn sysctl_number(&self, name: &str) -> Result<u64, Missing> {
        let text = self.sysctl(name)?;
        text.trim().parse().map_err(|_| Missing::new("sysctl", format!("{name} is not a number: {text:?}")))
    }

    /// An outgoing connection, or bind() to port 0, may take this port: it lies in net.ipv4.ip_local_port_range. A range that
    /// cannot be read is missing, not "outside".
    pub fn is_ephemeral(&self, port: u16) -> Result<bool, Missing> {
        let text = self.sysctl("net.ipv4.ip_local_port_range")?;
        match sysctl::parse_port_range(text) {
            Some(range) => Ok(range.contains(&port)),
            None => Err(Missing::new("sysctl", format!("net.ipv4.ip_local_port_range is not two numbers: {text:?}"))),
        }
    }

    /// The sysctl has another value at the end of the window than at its start.
    pub fn sysctl_changed(&self, name: &str) -> bool {
        let text = |snapshot: &'a Snapshot| snapshot.sysctls.get(name).and_then(|observed| observed.value());
        matches!((text(self.before()), text(self.after())), (Some(a), Some(b)) if a != b)
    }

    /// The counters that were asked for so far.
    pub fn used_counters(&self) -> BTreeMap<String, Used> {
        self.used.borrow().clone()
    }

    fn note(&self, metric: &str, total: u64, delta: Option<u64>) {
        self.used.borrow_mut().insert(metric.to_owned(), (total, delta));
    }
}
