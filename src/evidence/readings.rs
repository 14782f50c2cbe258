//! Counters, gauges and settings of an observation by name. What could not be read is a [`Missing`], never a zero.

use std::time::Duration;

use crate::observation::View;
use crate::observation::delta::{self, NoDelta, Reading};
use crate::value::{Missing, Observed};

/// A counter that was read: its total and its change, `None` when it has no delta.
pub type Total = (u64, Option<u64>);

/// What an observation read.
#[derive(Clone, Copy)]
pub struct Readings<'a> {
    view: View<'a>,
}

impl<'a> Readings<'a> {
    pub fn new(view: View<'a>) -> Self {
        Self { view }
    }

    /// Length of the window.
    pub fn window(&self) -> Duration {
        self.view.duration()
    }

    /// Only totals since boot are known: nothing can be said about now.
    pub fn totals_only(&self) -> bool {
        self.view.host.totals_only
    }

    /// Events per second of this window.
    pub fn rate(&self, events: u64) -> f64 {
        delta::per_second(events, self.window())
    }

    /// A counter of /proc/net/{netstat,snmp} by its stable name: `TcpExt.ListenOverflows`, `Tcp.OutRsts`; `oom_kill` of
    /// /proc/vmstat.
    ///
    /// # Errors
    /// When it was not read at both ends of the window, or went backwards.
    pub fn counter(&self, metric: &str) -> Result<Reading, Missing> {
        delta::counter(self.view, metric).map_err(|why| {
            let source = delta::source_of(metric).name;
            match why {
                NoDelta::Unavailable { reason, needs } => Missing { source, reason, needs },
                NoDelta::Absent => Missing::new(source, format!("this kernel has no counter {metric}")),
                NoDelta::WentBackwards { before, after } => {
                    Missing::new(source, format!("{metric} went backwards, from {before} to {after}"))
                }
            }
        })
    }

    /// A counter's total and its change, for the report; `None` when it was not read.
    pub fn total(&self, metric: &str) -> Option<Total> {
        match delta::counter(self.view, metric) {
            Ok(reading) => Some((reading.after, Some(reading.delta))),
            Err(NoDelta::WentBackwards { after, .. }) => Some((after, None)),
            Err(_) => None,
        }
    }

    /// The change of a counter where a missing one may count as "did not move": only for counter-evidence and for
    /// counters that older kernels lack because they lack the mechanism.
    pub fn moved(&self, metric: &str) -> u64 {
        self.counter(metric).map_or(0, |reading| reading.delta)
    }

    /// A sysctl's text, by the name that sysctl(8) uses.
    pub fn sysctl(&self, name: &str) -> Result<&'a str, Missing> {
        let of_host = self.view.host.after.sysctls.get(name);
        let of_netns = self.view.after().sysctls.get(name);
        let read = |observed: &&Observed<String>| observed.value().is_some();
        match of_netns.filter(read).or(of_host.filter(read)).or(of_netns).or(of_host) {
            Some(observed) => observed.required("sysctl").map(String::as_str),
            None => Err(Missing::new("sysctl", format!("{name} was not collected"))),
        }
    }

    /// A sysctl that holds one number.
    pub fn sysctl_number(&self, name: &str) -> Result<u64, Missing> {
        let text = self.sysctl(name)?;
        text.trim().parse().map_err(|_| Missing::new("sysctl", format!("{name} is not a number: {text:?}")))
    }
}
