//! More network namespaces than are looked at one by one each time: what is idle costs little, and nothing of a fault is missed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rstdoctor::diagnosis::Diagnosis;
use rstdoctor::diagnosis::filter::Filter;
use rstdoctor::diagnosis::idle::Known;
use rstdoctor::diagnosis::node::{diagnose_all, diagnose_each};
use rstdoctor::kernel::LiveHost;
use rstdoctor::kernel::namespace::{Handle, with_namespace};
use rstdoctor::observation::{NetnsWindow, Observation};
use rstdoctor::session::{Plan, Session, Step};
use rstdoctor::source::{COUNTER_FILES, sysctl};
use rstdoctor::value::NetnsId;
use serde_json::Value;

use crate::common::{one_at_a_time, skipped};

/// Network namespaces whose loopback device is up; `None` where they may not be made. Each ends with its handle.
fn namespaces(count: usize) -> Option<Vec<Handle>> {
    let one = || {
        // SAFETY: changes the network namespace of this thread only.
        let made = unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0;
        let up = made && Command::new("ip").args(["link", "set", "lo", "up"]).status().is_ok_and(|it| it.success());
        up.then(Handle::current)
    };
    (0..count).map(|_| std::thread::spawn(one).join().expect("no panic")).collect()
}

/// A program in that namespace connects to a port where nothing listens: each time it is answered by a RST.
fn refused(there: &Handle, times: u64) {
    let script = format!(
        "import socket\nfor _ in range({times}):\n  try: socket.create_connection((\"127.0.0.1\", 81))\n  except ConnectionRefusedError: pass"
    );
    let run = || Command::new("python3").args(["-c", &script]).status().expect("python3 is there");
    assert!(with_namespace(there, run).expect("it can be entered").success());
}

/// RSTs that were sent, of the node and of each namespace in which there were any.
fn sent(diagnosis: &Diagnosis) -> (u64, BTreeMap<NetnsId, u64>) {
    let each =
        diagnosis.namespaces.iter().map(|one| (one.location.netns, one.ledger.sent.total.clone().expect("read")));
    (diagnosis.ledger.sent.total.clone().expect("read"), each.filter(|(_, sent)| *sent > 0).collect())
}

/// What a person reads.
fn told(diagnosis: &Diagnosis) -> impl PartialEq + std::fmt::Debug {
    let causes: Vec<_> = diagnosis.causes.iter().map(|cause| (cause.id, cause.finding.summary.clone())).collect();
    let ruled_out: Vec<_> = diagnosis.ruled_out.iter().map(|entry| entry.id).collect();
    let missing: Vec<_> = diagnosis.not_checked.iter().map(|entry| (entry.id, entry.reason())).collect();
    let each: Vec<_> = diagnosis.namespaces.iter().map(|one| (one.location.netns, one.status)).collect();
    (diagnosis.status, diagnosis.summary.clone(), causes, ruled_out, missing, each)
}

struct Row {
    host: LiveHost,
    session: Session,
    known: Known,
}

impl Row {
    /// The next window, judged as a live view does: what is idle keeps its diagnosis. And anew, which must say the same.
    fn window(&mut self) -> (Observation, Diagnosis) {
        loop {
            let Step::Window(window) = self.session.step(&mut self.host) else { continue };
            let observation = window.observation;
            let judged = diagnose_each(&observation, &Filter::default(), &|| false, &mut self.known);
            let diagnosis = judged.expect("there are some").0;
            let anew = diagnose_all(&observation, &Filter::default(), &|| false).expect("there are some");
            assert_eq!(told(&diagnosis), told(&anew));
            self.session.remember(observation.clone());
            return (observation, diagnosis);
        }
    }

    /// Windows until so many RSTs were sent in all: how many in each namespace. In each window the total is the sum.
    fn until(&mut self, all: u64) -> BTreeMap<NetnsId, u64> {
        let mut total: BTreeMap<NetnsId, u64> = BTreeMap::new();
        while total.values().sum::<u64>() < all {
            let (observation, diagnosis) = self.window();
            let (node, each) = sent(&diagnosis);
            assert_eq!(node, each.values().sum::<u64>());
            for (id, sent) in each {
                *total.entry(id).or_default() += sent;
                let window = &observation.netns[&id];
                assert_eq!(window.after.sysctls.len(), sysctl::NAMES.len(), "its settings are known");
                // What else this machine does, in namespaces that nobody looks at, is none of it.
                let own = || window.resets.single.iter().filter(|reset| reset.netns() == Some(id));
                assert_eq!(own().filter(|reset| reset.is_counted()).count() as u64, sent);
                assert!(own().all(|reset| reset.packet.is_some() && reset.event.is_some()), "{:#?}", window.resets);
            }
        }
        total
    }
}

#[test]
fn a_fault_in_one_of_many_idle_namespaces_is_told_in_full_and_totals_are_sums() {
    const COUNT: usize = 24;
    let _turn = one_at_a_time();
    let Some(handles) = namespaces(COUNT) else { return skipped("network namespaces need root and ip(8)") };
    let ids: BTreeSet<NetnsId> = handles.iter().map(Handle::id).collect();
    let observed = handles.iter().map(|handle| (handle.clone(), None));
    let mut host = LiveHost::observing(Arc::new(AtomicBool::new(false)), observed);
    let plan = Plan { interval: Some(Duration::from_millis(300)), ..Plan::scan(Duration::MAX) };
    let session = Session::open(&mut host, &plan).expect("a running kernel");
    let mut row = Row { host, session, known: Known::default() };
    // What makes them may still go on in the first of these.
    let mut idle = 0;
    for number in 0.. {
        let (observation, diagnosis) = row.window();
        assert_eq!(observation.netns.keys().copied().collect::<BTreeSet<_>>(), ids);
        assert_eq!(sent(&diagnosis), (0, BTreeMap::new()));
        let busy = || observation.netns.values().filter(|window| !window.is_idle());
        idle = if busy().next().is_none() { idle + 1 } else { 0 };
        if idle == 3 {
            break;
        }
        let moved = |window: &NetnsWindow| {
            let files =
                COUNTER_FILES.iter().map(|file| (file.name, &window.before.counters, &window.after.counters, file));
            let other = files.filter(|(_, before, after, file)| before.of(file) != after.of(file));
            (window.after.netns, other.map(|(name, ..)| name).collect::<Vec<_>>(), window.resets.single.len())
        };
        assert!(number < 30, "they do not become idle: {:?}", busy().map(moved).collect::<Vec<_>>());
    }
    refused(&handles[5], 7);
    refused(&handles[13], 11);
    assert_eq!(row.until(18), [(handles[5].id(), 7), (handles[13].id(), 11)].into());
    let (_, quiet) = row.window();
    assert_eq!(sent(&quiet).0, 0);
    (1..).zip(&handles).for_each(|(times, handle)| refused(handle, times));
    let all = row.until((1..=COUNT as u64).sum());
    assert_eq!(all, (1..).zip(&handles).map(|(times, handle)| (handle.id(), times)).collect());
}

/// A watch of the whole node, and what it costs.
struct Watch {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Watch {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_rstdoctor"))
            .args(["watch", "--json", "--interval", "1s"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, lines }
    }

    /// Ticks until it looks at as many of these as is `wanted`.
    fn until(&mut self, ids: &BTreeSet<NetnsId>, wanted: usize) {
        loop {
            let line = self.lines.next().expect("it goes on").expect("text");
            let tick: Value = serde_json::from_str(&line).expect("JSON");
            let there = tick["namespaces"].as_array().into_iter().flatten().filter(|one| one["gone"] == false);
            let there = there.filter_map(|one| one["netns"]["inode"].as_u64());
            if there.filter(|inode| ids.contains(&NetnsId(*inode))).count() == wanted {
                return;
            }
        }
    }

    /// The network namespaces that it holds open, and how many sockets.
    fn holds(&self) -> (BTreeSet<NetnsId>, usize) {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("it runs");
        let links: Vec<_> = files.flatten().filter_map(|file| std::fs::read_link(file.path()).ok()).collect();
        let links = || links.iter().filter_map(|link| link.to_str());
        (links().filter_map(NetnsId::from_link).collect(), links().filter(|link| link.starts_with("socket:")).count())
    }
}

/// A process in a network namespace of its own, until it is dropped.
struct Container(Child);

impl Container {
    /// Several, and their namespaces; `None` where they may not be made.
    fn start(count: usize) -> Option<(Vec<Self>, BTreeSet<NetnsId>)> {
        let start = || {
            let mut command = Command::new("unshare");
            command.args(["-n", "sleep", "600"]).stdin(Stdio::null()).stderr(Stdio::null());
            Self(command.spawn().expect("unshare(1) is there"))
        };
        let mut all: Vec<Self> = (0..count).map(|_| start()).collect();
        let own = Handle::current();
        let ids = all.iter_mut().map(|one| {
            while one.0.try_wait().expect("a child").is_none() {
                match Handle::of_process(one.0.id()) {
                    Ok(there) if there != own => return Some(there.id()),
                    _ => std::thread::sleep(Duration::from_millis(2)),
                }
            }
            None
        });
        let ids = ids.collect::<Option<_>>()?;
        Some((all, ids))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Containers come and go, a hundred in all: what is held for one that is gone is given back.
#[test]
fn namespaces_that_come_and_go_leave_nothing_behind() {
    /// sock_diag, packets, destroyed sockets, and twice the changes of addresses.
    const SOCKETS: usize = 5;
    let _turn = one_at_a_time();
    if Container::start(1).is_none() || Handle::of_init().is_ok_and(|first| first != Handle::current()) {
        return skipped("the network namespaces of all need root, in the first of them, and unshare(1)");
    }
    let mut watch = Watch::start();
    for _ in 0..4 {
        let (come, ids) = Container::start(25).expect("as before");
        watch.until(&ids, ids.len());
        assert!(watch.holds().0.is_superset(&ids));
        drop(come);
        watch.until(&ids, 0);
        // What a window of theirs was judged with goes with the next one.
        watch.until(&ids, 0);
        let (netns, sockets) = watch.holds();
        assert!(netns.is_disjoint(&ids), "still open: {netns:?} of {ids:?}");
        assert!(sockets <= SOCKETS * netns.len() + SOCKETS, "{sockets} sockets for {} namespaces", netns.len());
    }
}
