//! What else changed between two windows: clocks, settings, listeners, processes. Each is told as what it is, so that nobody
//! takes a restarted server for a recovered one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::observation::{HostSnapshot, Observation, Snapshot, View};
use crate::source::counters::Counters;
use crate::source::listeners::Listener;
use crate::source::node::Location;
use crate::source::owners::Process;
use crate::source::{netstat, snmp};
use crate::value::{Moment, Observed, words};

/// A clock that differs by less is the reading of two clocks one after the other.
const CLOCK: Duration = Duration::from_millis(500);
const ASLEEP: Duration = Duration::from_secs(1);
/// Changes of one kind that are told one by one.
const MOST: usize = 8;

/// Something changed. Text from outside in it must be escaped before it is printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub at: Moment,
    pub kind: ChangeKind,
    /// One plain clause.
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeKind {
    /// The tick came late: the host is busy, or this program was stopped.
    Late,
    ClockSet,
    Suspended,
    CountersReset,
    SysctlChanged,
    ListenerAppeared,
    ListenerGone,
    /// Another socket listens at the same place: a restart or a reload.
    ListenerReplaced,
    ListenerMoved,
    BacklogChanged,
    /// Another program in the same process.
    ProcessReplaced,
    NamespaceGone,
    /// A network namespace came, which is in the windows from now on.
    NamespaceAppeared,
}

/// What changed in each namespace of a window; of the others that is where it was.
pub fn of_all(observation: &Observation, swept: bool, late: Option<Duration>) -> Vec<Change> {
    let own = observation.view().map(|view| view.after().netns);
    let mut told = Vec::new();
    for view in observation.views() {
        let id = view.after().netns;
        if Some(id) == own {
            told.splice(0..0, changes(view, swept, late));
            continue;
        }
        let place = view
            .host
            .node
            .value()
            .map_or_else(|| Location { netns: id, ..Location::default() }, |node| node.location(id));
        let of_host = [ChangeKind::Late, ChangeKind::ClockSet, ChangeKind::Suspended];
        let more = changes(view, swept, None).into_iter().filter(|change| !of_host.contains(&change.kind));
        told.extend(more.map(|change| Change { text: format!("{place}: {}", change.text), ..change }));
        if view.netns.came {
            let text = format!("{place} appeared");
            told.push(Change { at: view.before().at, kind: ChangeKind::NamespaceAppeared, text });
        }
        if view.netns.gone {
            let text = format!("{place} is gone");
            told.push(Change { at: view.after().at, kind: ChangeKind::NamespaceGone, text });
        }
    }
    told
}

/// What changed in a window. `swept`: its sockets and owners were looked at, so they can be compared.
pub fn changes(view: View<'_>, swept: bool, late: Option<Duration>) -> Vec<Change> {
    let before = Side { netns: view.before(), host: &view.host.before };
    let after = Side { netns: view.after(), host: &view.host.after };
    let mut told = Told { at: after.netns.at, changes: Vec::new() };
    clocks(&mut told, before.netns.at, after.netns.at, late);
    counters(&mut told, before.netns, after.netns);
    listeners(&mut told, before, after);
    sysctls(&mut told, before, after);
    if swept {
        processes(&mut told, before, after);
    }
    told.changes
}

/// One end of the window.
#[derive(Clone, Copy)]
struct Side<'a> {
    netns: &'a Snapshot,
    host: &'a HostSnapshot,
}

struct Told {
    at: Moment,
    changes: Vec<Change>,
}

impl Told {
    fn add(&mut self, kind: ChangeKind, text: impl Into<String>) {
        self.changes.push(Change { at: self.at, kind, text: text.into() });
    }

    /// The first few one by one, the rest as a number.
    fn add_all(&mut self, kind: ChangeKind, texts: Vec<String>, singular: &str) {
        let rest = texts.len().saturating_sub(MOST) as u64;
        texts.into_iter().take(MOST).for_each(|text| self.add(kind, text));
        if rest > 0 {
            self.add(kind, format!("and {} more", words::counted(rest, singular)));
        }
    }
}

fn clocks(told: &mut Told, before: Moment, after: Moment, late: Option<Duration>) {
    let asleep = after.asleep.saturating_sub(before.asleep);
    if asleep > ASLEEP {
        told.add(ChangeKind::Suspended, format!("the machine was suspended for {}", words::seconds(asleep)));
    }
    let passed = after.mono.saturating_sub(before.mono);
    let expected = before.wall + passed;
    let (text, by) = match after.wall.checked_sub(expected) {
        Some(forward) => ("forward", forward),
        None => ("back", expected - after.wall),
    };
    if by > CLOCK {
        told.add(ChangeKind::ClockSet, format!("the clock was set {text} by {}", words::seconds(by)));
    }
    if let Some(late) = late.filter(|late| *late > asleep + ASLEEP || asleep < ASLEEP) {
        let text = "this tick came {} late: the host is busy, or rstdoctor was stopped";
        told.add(ChangeKind::Late, text.replace("{}", &words::seconds(late)));
    }
}

fn counters(told: &mut Told, before: &Snapshot, after: &Snapshot) {
    let both = [&netstat::FILE, &snmp::FILE].map(|file| before.counters.value(file).zip(after.counters.value(file)));
    let backwards: Vec<_> = both.into_iter().flatten().flat_map(|(before, after)| backwards(before, after)).collect();
    if let Some(first) = backwards.first() {
        let text = match backwards.len() {
            1 => format!("{first} went backwards: no rate of it is known for this tick"),
            n => {
                format!("{first} and {} more counters went backwards: no rates of them are known for this tick", n - 1)
            }
        };
        told.add(ChangeKind::CountersReset, text);
    }
}

/// Gauges among the counters, which may fall: include/uapi/linux/snmp.h.
const GAUGES: [&str; 1] = ["Tcp.CurrEstab"];
/// MaxConn is -1 by definition, RtoMin and others are settings (RFC 4022).
fn backwards(before: &Counters, after: &Counters) -> Vec<String> {
    let fell = |(name, was): (&str, u64)| {
        let now = after.get(name)?;
        (now < was && !GAUGES.contains(&name) && name.starts_with("Tcp")).then(|| name.to_owned())
    };
    before.iter().filter_map(fell).collect()
}

type End = (IpAddr, u16);

fn listeners(told: &mut Told, before: Side<'_>, after: Side<'_>) {
    // What a list lacks that was read in part may well be there.
    let (Observed::Full(was), Observed::Full(is)) = (&before.netns.listeners, &after.netns.listeners) else { return };
    let (was, is) = (by_end(was), by_end(is));
    let name = |side: Side<'_>, listeners: &[&Listener]| holder(side, listeners).map(|process| process.name.clone());
    let mut gone: Vec<(End, Option<String>)> = Vec::new();
    let (mut replaced, mut backlog) = (Vec::new(), Vec::new());
    for (end, then) in &was {
        let Some(now) = is.get(end) else {
            gone.push((*end, name(before, then)));
            continue;
        };
        let cookies = |listeners: &[&Listener]| listeners.iter().map(|l| l.cookie).collect::<BTreeSet<_>>();
        if cookies(then).is_disjoint(&cookies(now)) {
            replaced.push(restarted(before, after, *end, then, now));
        } else if let (Some(a), Some(b)) = (then.first(), now.first())
            && a.cookie == b.cookie
            && a.backlog != b.backlog
        {
            backlog.push(format!("the backlog of {} went from {} to {}", end_text(*end), a.backlog, b.backlog));
        }
    }
    let (mut moved, mut appeared) = (Vec::new(), Vec::new());
    for (end, now) in is.iter().filter(|(end, _)| !was.contains_key(*end)) {
        let owner = name(after, now);
        let from = owner.as_ref().and_then(|owner| gone.iter().position(|(_, name)| name.as_ref() == Some(owner)));
        match (from, owner) {
            (Some(from), Some(owner)) => {
                let (old, _) = gone.swap_remove(from);
                moved.push(format!("{owner} moved from {} to {}", end_text(old), end_text(*end)));
            }
            (_, Some(owner)) => appeared.push(format!("{owner} listens on {}", end_text(*end))),
            (_, None) => appeared.push(format!("something listens on {}", end_text(*end))),
        }
    }
    let gone = gone.into_iter().map(|(end, owner)| match owner {
        Some(owner) => format!("nothing listens on {} any more (it was {owner})", end_text(end)),
        None => format!("nothing listens on {} any more", end_text(end)),
    });
    told.add_all(ChangeKind::ListenerReplaced, replaced, "listener");
    told.add_all(ChangeKind::BacklogChanged, backlog, "listener");
    told.add_all(ChangeKind::ListenerMoved, moved, "listener");
    told.add_all(ChangeKind::ListenerGone, gone.collect(), "listener");
    told.add_all(ChangeKind::ListenerAppeared, appeared, "listener");
}

fn by_end(listeners: &[Listener]) -> BTreeMap<End, Vec<&Listener>> {
    let mut by_end: BTreeMap<End, Vec<&Listener>> = BTreeMap::new();
    for listener in listeners {
        by_end.entry((listener.address, listener.port)).or_default().push(listener);
    }
    by_end
}

fn holder<'a>(side: Side<'a>, listeners: &[&Listener]) -> Option<&'a Process> {
    let owners = side.host.owners.value()?;
    let pid = listeners.iter().find_map(|listener| owners.by_inode.get(&listener.inode)?.first())?;
    owners.processes.get(pid)
}

fn restarted(before: Side<'_>, after: Side<'_>, end: End, then: &[&Listener], now: &[&Listener]) -> String {
    let place = end_text(end);
    match (holder(before, then), holder(after, now)) {
        (Some(old), Some(new)) if (old.pid, old.start_ticks) == (new.pid, new.start_ticks) => {
            format!("{} opened {place} anew", new.label())
        }
        (Some(old), Some(new)) => {
            format!("{place} was restarted: {} was {}", new.label(), old.label())
        }
        (None, Some(new)) => format!("{place} was opened anew by {}", new.label()),
        _ => format!("{place} was opened anew"),
    }
}

fn end_text((address, port): End) -> String {
    SocketAddr::new(address, port).to_string()
}

fn sysctls(told: &mut Told, before: Side<'_>, after: Side<'_>) {
    let was = |name: &str| before.netns.sysctls.get(name).or_else(|| before.host.sysctls.get(name))?.value();
    let changed = after.netns.sysctls.iter().chain(&after.host.sysctls).filter_map(|(name, now)| {
        let (was, now) = (was(name)?, now.value()?);
        (was != now).then(|| format!("{name} was changed from {was:?} to {now:?}"))
    });
    told.add_all(ChangeKind::SysctlChanged, changed.collect(), "setting");
}

/// The same process (its number and its start) that runs another program: execve(2).
fn processes(told: &mut Told, before: Side<'_>, after: Side<'_>) {
    let (Some(was), Some(is)) = (before.host.owners.value(), after.host.owners.value()) else { return };
    let replaced = is.processes.values().filter_map(|now| {
        let then = was.processes.get(&now.pid)?;
        let same = then.start_ticks == now.start_ticks;
        // Servers write their state into the command line (setproctitle), so only the name tells.
        (same && then.name != now.name).then(|| format!("pid {} is {} now, it was {}", now.pid, now.name, then.name))
    });
    told.add_all(ChangeKind::ProcessReplaced, replaced.collect(), "process");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::Case;
    use crate::source::owners::Owners;

    /// The kinds and texts of a window that `change` was done to.
    fn told(change: impl FnOnce(&mut Case)) -> Vec<(ChangeKind, String)> {
        let mut case = Case::new().sysctl("net.core.somaxconn", "4096").counter("Tcp.OutRsts", 7, 0);
        case.netns.before.listeners = Observed::Full(vec![listener(80, 1)]);
        case.netns.after.listeners = Observed::Full(vec![listener(80, 1)]);
        change(&mut case);
        changes(case.view(), true, None).into_iter().map(|change| (change.kind, change.text)).collect()
    }

    fn listener(port: u16, inode: u32) -> Listener {
        Listener {
            address: "0.0.0.0".parse().unwrap(),
            port,
            recv_q: 0,
            backlog: 128,
            drops: None,
            inode,
            uid: 0,
            device: 0,
            v6_only: false,
            cookie: u64::from(inode),
        }
    }

    fn owned(snapshot: &mut HostSnapshot, inode: u32, pid: u32, name: &str) {
        let mut owners = Owners::default();
        owners.by_inode.insert(inode, vec![pid]);
        owners.processes.insert(pid, Process { pid, name: name.to_owned(), start_ticks: 9, ..Process::default() });
        snapshot.owners = Observed::Full(owners.into());
    }

    #[test]
    fn nothing_changed() {
        assert_eq!(told(|_| ()), []);
    }

    #[test]
    fn a_clock_that_was_set_is_no_suspend_and_a_suspend_sets_no_clock() {
        let second = Duration::from_secs(1);
        let forward = told(|o| o.netns.after.at.wall += 3600 * second);
        assert_eq!(forward, [(ChangeKind::ClockSet, "the clock was set forward by 60 min".to_owned())]);
        let back = told(|o| o.netns.after.at.wall -= 10 * second);
        assert_eq!(back, [(ChangeKind::ClockSet, "the clock was set back by 10 s".to_owned())]);
        let asleep = told(|o| {
            o.netns.after.at.wall += 300 * second;
            o.netns.after.at.mono += 300 * second;
            o.netns.after.at.asleep += 300 * second;
        });
        assert_eq!(asleep, [(ChangeKind::Suspended, "the machine was suspended for 5 min".to_owned())]);
    }

    #[test]
    fn a_late_tick_says_so_unless_a_suspend_explains_it() {
        let kinds = |asleep: Duration, late: Duration| {
            let mut case = Case::new();
            case.netns.after.at.asleep += asleep;
            changes(case.view(), false, Some(late)).into_iter().map(|change| change.kind).collect::<Vec<_>>()
        };
        let minute = Duration::from_secs(60);
        assert_eq!(kinds(Duration::ZERO, minute), [ChangeKind::Late]);
        assert_eq!(kinds(minute, minute), [ChangeKind::Suspended]);
        let noise = Duration::from_nanos(80);
        assert_eq!(kinds(noise, Duration::from_millis(600)), [ChangeKind::Late], "two clocks are never read at once");
    }

    #[test]
    fn counters_that_went_backwards_are_named() {
        let told = told(|o| {
            let mut counters = o.netns.after.counters.value(&snmp::FILE).cloned().expect("read");
            counters.set("Tcp.OutRsts", 3);
            o.netns.after.counters.insert(&snmp::FILE, Observed::Full(counters));
        });
        assert_eq!(told.len(), 1);
        assert!(told[0].0 == ChangeKind::CountersReset && told[0].1.starts_with("Tcp.OutRsts went"), "{told:?}");
    }

    #[test]
    fn a_setting_is_told_with_both_values() {
        let told = told(|o| drop(o.netns.after.sysctls.insert("net.core.somaxconn", Observed::Full("128".to_owned()))));
        let text = "net.core.somaxconn was changed from \"4096\" to \"128\"".to_owned();
        assert_eq!(told, [(ChangeKind::SysctlChanged, text)]);
    }

    #[test]
    fn a_restart_a_move_and_an_end_are_told_apart() {
        let restart = told(|o| {
            o.netns.after.listeners = Observed::Full(vec![listener(80, 2)]);
            owned(&mut o.host.before, 1, 10, "nginx");
            owned(&mut o.host.after, 2, 20, "nginx");
        });
        assert_eq!(restart[0].0, ChangeKind::ListenerReplaced);
        assert!(restart[0].1.contains("pid 20") && restart[0].1.contains("pid 10"), "{restart:?}");
        let moved = told(|o| {
            o.netns.after.listeners = Observed::Full(vec![listener(81, 2)]);
            owned(&mut o.host.before, 1, 10, "nginx");
            owned(&mut o.host.after, 2, 10, "nginx");
        });
        assert_eq!(moved, [(ChangeKind::ListenerMoved, "nginx moved from 0.0.0.0:80 to 0.0.0.0:81".to_owned())]);
        let gone = told(|o| o.netns.after.listeners = Observed::Full(Vec::new()));
        assert_eq!(gone, [(ChangeKind::ListenerGone, "nothing listens on 0.0.0.0:80 any more".to_owned())]);
        let more = told(|o| o.netns.after.listeners = Observed::Full(vec![listener(80, 1), listener(81, 2)]));
        assert_eq!(more, [(ChangeKind::ListenerAppeared, "something listens on 0.0.0.0:81".to_owned())]);
        let backlog =
            told(|o| o.netns.after.listeners = Observed::Full(vec![Listener { backlog: 511, ..listener(80, 1) }]));
        assert_eq!(backlog[0].0, ChangeKind::BacklogChanged);
    }

    #[test]
    fn listeners_that_could_not_be_read_are_not_gone() {
        let failure = crate::value::Failure::new(crate::value::FailureKind::Denied, "no");
        assert_eq!(told(|o| o.netns.after.listeners = Observed::Unavailable(failure.clone())), []);
        let part = |o: &mut Case| {
            o.netns.before.listeners = Observed::Full(vec![listener(80, 1), listener(81, 2)]);
            o.netns.after.listeners = Observed::Partial(vec![listener(80, 1)], failure.clone());
        };
        assert_eq!(told(part), []);
    }

    #[test]
    fn another_program_in_the_same_process_is_told() {
        let told = told(|o| {
            owned(&mut o.host.before, 1, 10, "sh");
            owned(&mut o.host.after, 1, 10, "nginx");
        });
        assert_eq!(told, [(ChangeKind::ProcessReplaced, "pid 10 is nginx now, it was sh".to_owned())]);
    }

    #[test]
    fn many_changes_of_a_kind_are_counted() {
        let told =
            told(|o| o.netns.after.listeners = Observed::Full((80..180).map(|p| listener(p, p.into())).collect()));
        assert!(told.len() <= MOST + 2, "{}", told.len());
        assert!(told.last().unwrap().1.contains("91 listeners more"), "{told:?}");
    }
}
