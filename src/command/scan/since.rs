//! What became since of the processes that stored evidence names: what is told to be typed is typed now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::ask::{self, Ask, What};
use crate::cause::{Fate, Remedy};
use crate::diagnosis::Diagnosis;
use crate::kernel::{LiveHost, clock};
use crate::observation::Observation;
use crate::source::host_facts::HOSTNAME;
use crate::source::process::{self, parse_stat};
use crate::value::Moment;

/// By so much the clock is set without a reboot.
const SET: Duration = Duration::from_secs(2);

/// Changes the remedies of a diagnosis of what was there at `then`.
pub fn adapt(diagnosis: &mut Diagnosis, observation: &Observation, then: Moment) {
    let mut live = LiveHost::new(Arc::default());
    let (name, _) = ask::read(&mut live, &Ask::host(What::File(HOSTNAME.to_owned())));
    let here = name.ok().map(|name| String::from_utf8_lossy(&name).trim().to_owned());
    let is_here = here.is_some() && here == diagnosis.host.hostname;
    let booted = |at: Moment| at.wall.saturating_sub(at.mono);
    let same = is_here && booted(then).abs_diff(booted(clock::now())) <= SET;
    let owners = [&observation.host.before.owners, &observation.host.after.owners];
    let known = owners.into_iter().filter_map(|owners| owners.value()).flat_map(|owners| &owners.processes);
    let started: BTreeMap<u32, u64> = known.map(|(pid, process)| (*pid, process.start_ticks)).collect();
    let mut fate = |pid: u32| {
        if !process::exists(&mut live, pid) {
            return Fate::Ended;
        }
        let (stat, _) = ask::read(&mut live, &Ask::host(What::File(format!("/proc/{pid}/stat"))));
        let now = stat.ok().and_then(|stat| parse_stat(&stat).ok()).map(|process| process.start_ticks);
        match (now, started.get(&pid)) {
            (Some(now), Some(then)) if now == *then => Fate::Runs,
            (Some(_), Some(_)) => Fate::Ended,
            _ => Fate::Unknown,
        }
    };
    for cause in &mut diagnosis.causes {
        cause.finding.elsewhere = true;
        let remedies = std::mem::take(&mut cause.finding.remedies).into_iter();
        cause.finding.remedies = match same {
            true => remedies.map(|remedy| remedy.later(&mut fate)).collect(),
            false => remedies.map(Remedy::elsewhere).collect(),
        };
    }
}
