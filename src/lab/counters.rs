//! How the TCP counters of the observed namespace moved: the lab's proof that the fault really happened.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

use crate::source::{netstat, snmp};

/// A counter's name as nstat(8) spells it without prefix, and what it must have done in the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Premise {
    pub counter: &'static str,
    pub at_least: u64,
    pub at_most: u64,
}

/// It moved.
pub const fn moved(counter: &'static str) -> Premise {
    at_least(counter, 1)
}

pub const fn at_least(counter: &'static str, at_least: u64) -> Premise {
    Premise { counter, at_least, at_most: u64::MAX }
}

/// It did not move.
pub const fn still(counter: &'static str) -> Premise {
    Premise { counter, at_least: 0, at_most: 0 }
}

/// It moved no more than this.
pub const fn at_most(counter: &'static str, at_most: u64) -> Premise {
    Premise { counter, at_least: 0, at_most }
}

/// Counters that moved, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Movement(pub BTreeMap<String, u64>);

impl Movement {
    pub fn get(&self, counter: &str) -> u64 {
        self.0.get(counter).copied().unwrap_or(0)
    }

    /// What contradicts the premise, in words.
    pub fn contradicts(&self, premise: &Premise) -> Option<String> {
        let Premise { counter, at_least, at_most } = premise;
        let seen = self.get(counter);
        if seen < *at_least {
            Some(format!("the fault did not happen: {counter} moved by {seen}, not by {at_least} or more"))
        } else if seen > *at_most {
            Some(format!("not the intended fault: {counter} moved by {seen}, not by {at_most} or less"))
        } else {
            None
        }
    }
}

/// Reads the TCP counters of this process's namespace. Gauges are left out.
pub fn read() -> io::Result<BTreeMap<String, u64>> {
    let snmp = snmp::parse(&fs::read("/proc/net/snmp")?).map_err(io::Error::other)?;
    let netstat = netstat::parse(&fs::read("/proc/net/netstat")?).map_err(io::Error::other)?;
    let named = snmp.iter().chain(netstat.iter()).filter_map(|(name, value)| {
        // Tcp and TcpExt share no name, so nstat's short ones are unambiguous.
        let short = name.strip_prefix("Tcp.").or_else(|| name.strip_prefix("TcpExt."))?;
        (short != "CurrEstab").then(|| (short.to_owned(), value))
    });
    Ok(named.collect())
}

pub fn movement(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> Movement {
    let moved = after.iter().filter_map(|(name, value)| {
        let delta = value.saturating_sub(*before.get(name)?);
        (delta > 0).then(|| (name.clone(), delta))
    });
    Movement(moved.collect())
}
