//! Processes that a signal ended while they served: which of them matter, and what their signals mean.

use std::collections::{BTreeMap, BTreeSet};

use super::{EvidenceItem, Remedy};
use crate::evidence::Evidence;
use crate::source::owners::Process;
use crate::source::reset_events::SignalDeath;
use crate::value::outside::UnitName;
use crate::value::shell::ShellCommand;
use crate::value::words;

/// Those that held a listener, or that bear the name of one that holds it: workers that were started since the last look. Of
/// others only those that are one of several crash as workers do. One that was asked to end did so on purpose.
pub fn ended_workers<'a>(e: &Evidence<'a>) -> Vec<&'a SignalDeath> {
    let services = e.services().unwrap_or_default();
    let serves = |death: &SignalDeath| {
        let mut owners = services.iter().flat_map(|service| &service.owners);
        owners.any(|owner| owner.pid == death.process.pid || owner.name == death.process.name)
    };
    let of_interest = |death: &&SignalDeath| {
        let harmful = death.is_crash() || death.by_its_like() || out_of_memory(e, death);
        harmful && (serves(death) || death.is_crash() && death.has_siblings)
    };
    e.signal_deaths().into_iter().filter(of_interest).collect()
}

/// The kernel killed it, and killed something for lack of memory in this window.
pub fn out_of_memory(e: &Evidence<'_>, death: &SignalDeath) -> bool {
    death.signal == 9 && death.sender.is_none() && e.moved("oom_kill") > 0
}

/// All of one name together.
pub fn by_name<'a>(deaths: &[&'a SignalDeath]) -> Vec<Vec<&'a SignalDeath>> {
    let mut by_name: BTreeMap<&str, Vec<&SignalDeath>> = BTreeMap::new();
    for death in deaths {
        by_name.entry(death.process.name.as_str()).or_default().push(death);
    }
    by_name.into_values().collect()
}

pub fn name(deaths: &[&SignalDeath]) -> String {
    deaths.first().map_or_else(String::new, |death| death.process.name.clone())
}

/// What ended most of them: `killed by SIGSEGV (signal 11)`.
pub fn how(e: &Evidence<'_>, deaths: &[&SignalDeath]) -> String {
    let Some(death) = most_frequent(deaths) else { return String::new() };
    match death {
        death if out_of_memory(e, death) => "killed for lack of memory".to_owned(),
        death if death.by_its_like() => {
            format!("ended by their parent with {}, as hung workers are", death.signal_name())
        }
        death if death.is_crash() => format!("crashed with {}", death.signal_name()),
        death => match &death.sender {
            Some(sender) if sender.pid == death.process.pid => format!("killed by itself with {}", death.signal_name()),
            Some(sender) => format!("killed with {} by {}", death.signal_name(), sender.label()),
            None => format!("killed with {} by the kernel", death.signal_name()),
        },
    }
}

/// Who sent the signal that ended most of them, and its name, where that was another process that is no parent of workers.
pub fn sender(deaths: &[&SignalDeath]) -> Option<(String, String)> {
    let death = most_frequent(deaths).filter(|death| !death.by_its_like())?;
    let sender = death.sender.as_ref().filter(|sender| sender.pid != death.process.pid)?;
    Some((sender.label(), death.signal_name().to_string()))
}

fn most_frequent<'a>(deaths: &[&'a SignalDeath]) -> Option<&'a SignalDeath> {
    let alike = |death: &SignalDeath| deaths.iter().filter(|other| other.signal == death.signal).count();
    deaths.iter().copied().max_by_key(|death| alike(death))
}

/// One item for each signal, with its number of processes.
pub fn evidence(deaths: &[&SignalDeath]) -> Vec<EvidenceItem> {
    let mut by_signal: BTreeMap<u8, Vec<&SignalDeath>> = BTreeMap::new();
    for death in deaths {
        by_signal.entry(death.signal).or_default().push(death);
    }
    let line = |deaths: Vec<&SignalDeath>| {
        let count = deaths.len() as u64;
        let first = deaths.first()?;
        let by = match &first.sender {
            Some(sender) if sender.pid != first.process.pid => {
                format!(", sent by {}", sender.label())
            }
            _ => String::new(),
        };
        let pids: Vec<String> = deaths.iter().take(5).map(|death| death.process.pid.to_string()).collect();
        let text = format!(
            "the kernel ended {} with {}{by}: pid {}",
            words::counted(count, "process"),
            first.signal_name(),
            pids.join(", ")
        );
        Some(EvidenceItem::value("signals", "signal", count as f64, text))
    };
    by_signal.into_values().filter_map(line).collect()
}

/// That the kernel ran out of memory.
pub fn memory(e: &Evidence<'_>, deaths: &[&SignalDeath]) -> Option<EvidenceItem> {
    let reading = e.counter("oom_kill").ok()?;
    let killed = deaths.iter().any(|death| out_of_memory(e, death));
    killed.then(|| super::wording::moved(&reading, "the kernel killed a process for lack of memory"))
}

/// What to change first, where the signal tells it.
pub fn remedy(e: &Evidence<'_>, deaths: &[&SignalDeath]) -> Option<Remedy> {
    let death = most_frequent(deaths)?;
    let verify = "rstdoctor scan shows no process that died";
    if out_of_memory(e, death) {
        return None;
    }
    if death.by_its_like() {
        let text = match death.process.name.as_str() {
            name if name.starts_with("gunicorn") => {
                "Find out what the requests wait for, or raise gunicorn's --timeout above what they need".to_owned()
            }
            name => format!("Find out what the workers of {name} wait for, or raise the time after which it ends them"),
        };
        return Some(Remedy::new(text, verify));
    }
    death.is_crash().then(|| {
        Remedy::new(
            format!(
                "Find the crash of {} in its core dump or log: a bug in it, or in an extension",
                death.process.name
            ),
            verify,
        )
        .command(
            ShellCommand::new("coredumpctl list").then(
                ShellCommand::new("dmesg -T")
                    .pipe(ShellCommand::new("grep -E").arg("segfault|traps:").pipe(ShellCommand::new("tail"))),
            ),
        )
    })
}

fn holders<'e, 'a>(e: &'e Evidence<'a>, deaths: &'e [&SignalDeath]) -> impl Iterator<Item = (u16, &'a Process)> + 'e {
    let services = e.services().unwrap_or_default();
    let owned = services.iter().flat_map(|service| service.owners.iter().map(|owner| (service.port, *owner)));
    owned.filter(|(_, owner)| {
        let is = |death: &&SignalDeath| death.process.pid == owner.pid || death.process.name == owner.name;
        deaths.iter().any(is)
    })
}

/// The ports that they served.
pub fn ports(e: &Evidence<'_>, deaths: &[&SignalDeath]) -> BTreeSet<u16> {
    holders(e, deaths).map(|(port, _)| port).collect()
}

pub fn unit(e: &Evidence<'_>, deaths: &[&SignalDeath]) -> Option<UnitName> {
    holders(e, deaths).find_map(|(_, process)| process.unit.clone())
}

/// Processes that held a listener and ended, or let go of it, with no signal seen, while others of their name serve it.
pub struct Replaced {
    pub name: String,
    /// How many left, and how many came.
    pub left: u64,
    pub came: u64,
    /// One of that name was there all along and no signal ended any: what is reloaded looks so, and what crashes does not.
    pub in_order: bool,
}

pub fn replaced(e: &Evidence<'_>, port: u16) -> Option<Replaced> {
    let before = e.owners_before().ok()?;
    let service = e.service_of_port(port).filter(|service| service.listens_now())?;
    let left: Vec<&Process> =
        e.gone_processes().filter(|(_, ports)| ports.contains(&port)).map(|(process, _)| process).collect();
    let name = left.first()?.name.clone();
    let now = service.owners.iter().copied().filter(|owner| owner.name == name);
    let (stayed, came): (Vec<&Process>, Vec<&Process>) =
        now.partition(|owner| before.processes.contains_key(&owner.pid));
    let died = |process: &&Process| e.signal_deaths().iter().any(|death| death.process.pid == process.pid);
    let ended_by_signal = left.iter().any(died) || e.moved("oom_kill") > 0;
    let (left, came) = (left.len() as u64, came.len() as u64);
    let in_order = e.reset_events().is_ok() && !stayed.is_empty();
    (came > 0 && !ended_by_signal).then_some(Replaced { name, left, came, in_order })
}

/// Nobody listens on this port any more.
pub fn is_dead(e: &Evidence<'_>, port: u16) -> bool {
    let gone = e.gone_listeners().iter().filter(|gone| gone.trace.last.port == port);
    gone.clone().count() > 0 && gone.clone().all(|gone| !gone.replaced)
}
