//! The network namespaces of this node and the containers in them: of all processes that may be read, below /run/netns, bound to a
//! path in a mount namespace, or held by an open file.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{Mode, OFlags, RawDir, open, readlinkat_raw};

use super::at_once;
use super::containers::{Runtimes, below_conmon, chosen_ids, roots};
use super::namespace::{self, Handle, NAMED};
use super::trace_context::{is_kernel_thread, processes};
use crate::source::node::container::of_cgroup;
use crate::source::node::{Hidden, Line, Netns, Node};
use crate::source::process;
use crate::value::NetnsId;

/// PROC_PID_INIT_INO, include/linux/proc_ns.h, since Linux 3.8.
pub const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";
/// What entering another network namespace takes: setns(2), and ptrace(2) access to the process that is in it.
pub const NEEDS: &str = "CAP_SYS_ADMIN, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH";
/// Open files that are looked at for namespaces that nothing else holds: 2 us each.
const MOST_FILES: usize = 20_000;
/// Of one process. What holds namespaces open has few.
const FILES: usize = 64;

/// Looks for namespaces, again and again.
#[derive(Default)]
pub struct Search {
    runtimes: Runtimes,
    /// Mount namespaces whose mounts were looked at since all was read anew.
    mounts: HashSet<u64>,
    /// What only mounts and open files showed, which are looked at once.
    held: BTreeMap<NetnsId, PathBuf>,
    /// What was read of processes that are still in the same namespace.
    members: HashMap<u32, Member>,
    looks: u32,
}

/// What is known of a process.
struct Member {
    netns: NetnsId,
    container: Option<(String, Option<&'static str>)>,
    /// Of the first process of a namespace.
    names: Option<Names>,
}

/// What a process is called.
#[derive(Clone)]
struct Names {
    comm: Option<String>,
    unit: Option<String>,
    slice: Option<String>,
}

/// Each so many looks, what is known of processes is read anew: a process id may have been given again, and a process moved to
/// another control group.
const ANEW: u32 = 12;

/// What was found.
pub struct Namespaces {
    pub own: NetnsId,
    pub netns: BTreeMap<NetnsId, Spot>,
    pub hidden: Hidden,
    containers: Vec<Line>,
}

/// A namespace, and the way to it.
#[derive(Default)]
pub struct Spot {
    pub told: Netns,
    /// Where it is, if no process is in it that may be read.
    path: Option<PathBuf>,
}

impl Spot {
    /// Opens it. `None` if it is gone, another one stands there, or it may not be opened.
    pub fn open(&self) -> Option<Handle> {
        let id = NetnsId(self.told.inode);
        let of_process = self.told.pid.and_then(|pid| Handle::of_process(pid).ok());
        let named = || Some(Path::new(NAMED).join(self.told.name.as_ref()?));
        let ways = || named().into_iter().chain(self.path.clone()).filter_map(|path| Handle::of_path(&path).ok());
        of_process.into_iter().chain(ways()).find(|handle| handle.id() == id)
    }
}

impl Namespaces {
    /// The lines of [`What::Node`](crate::ask::What::Node). `observed`: those that are looked into.
    pub fn lines(&self, observed: &dyn Fn(NetnsId) -> bool) -> Vec<Line> {
        let mut lines = vec![Line::Own(self.own.0)];
        lines.extend(
            self.netns.iter().map(|(id, spot)| Line::Netns(Netns { observed: observed(*id), ..spot.told.clone() })),
        );
        lines.extend(self.containers.iter().cloned());
        lines.push(Line::Hidden(self.hidden.clone()));
        lines
    }

    /// The same as one who reads the lines has it.
    pub fn node(&self) -> Node {
        let text = crate::source::node::text(&self.lines(&|_| false));
        crate::source::node::parse(text.as_bytes()).unwrap_or_default()
    }
}

impl Search {
    /// Looks at all processes, names and, the first time or where something is new, mounts and open files.
    pub fn look(&mut self) -> Namespaces {
        let own = Handle::current().id();
        let mut found = Namespaces { own, netns: BTreeMap::new(), hidden: Hidden::default(), containers: Vec::new() };
        found.spot(own);
        let mut containers: BTreeMap<String, (Option<&'static str>, u32)> = BTreeMap::new();
        let mut unseen: BTreeSet<String> = BTreeSet::new();
        let mut pids: Vec<u32> = processes().collect();
        pids.sort_unstable();
        let first = self.looks == 0;
        if self.looks.is_multiple_of(ANEW) {
            self.members.clear();
            self.mounts.clear();
        }
        self.looks = self.looks.wrapping_add(1);
        let (known, chosen_ids, files) = (std::mem::take(&mut self.members), chosen_ids(), AtomicUsize::new(0));
        let of = |pid| Facts::of(pid, known.get(&pid), &chosen_ids, first.then_some(&files));
        let mut processes: Vec<(u32, Facts)> = at_once::share(pids, |pid| (pid, of(pid)));
        processes.sort_unstable_by_key(|(pid, _)| *pid);
        for (pid, facts) in processes {
            let container = facts.container;
            match facts.netns {
                Ok(netns) => {
                    let id = container.as_ref().map(|(container, _)| container);
                    let names = found.process(netns, pid, id, facts.names);
                    self.members.insert(pid, Member { netns, container: container.clone(), names });
                }
                Err(Gone::Hidden) => {
                    found.hidden.processes += 1;
                    unseen.extend(container.as_ref().map(|(id, _)| id.clone()));
                }
                Err(Gone::Ended) => continue,
            }
            if let Some((id, runtime)) = container {
                containers.entry(id).or_insert((runtime, pid));
            }
            if let Some(mounts) = facts.mounts {
                self.mounts_of(pid, mounts);
            }
            for (id, path) in facts.held {
                self.held.entry(id).or_insert(path);
            }
        }
        let nameless = |spot: &&mut Spot| spot.told.containers.is_empty();
        for told in found.netns.values_mut().filter(nameless).map(|spot| &mut spot.told) {
            if let Some((id, pid)) = told.pid.and_then(|pid| Some((below_conmon(pid)?, pid))) {
                told.containers.push(id.clone());
                containers.entry(id).or_insert((None, pid));
            }
        }
        found.named();
        found.held(&mut self.held);
        let seen: BTreeSet<&String> = found.netns.values().flat_map(|spot| &spot.told.containers).collect();
        found.hidden.containers = unseen.iter().filter(|id| !seen.contains(id)).count() as u64;
        let pids = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        found.hidden.guest = pids.to_str().is_some_and(|pids| pids != FIRST_PID_NAMESPACE);
        found.containers = self.runtimes.names(&containers).into_iter().map(Line::Container).collect();
        found
    }

    /// The namespaces that are mounted somewhere where this process sees them, once per mount namespace.
    fn mounts_of(&mut self, pid: u32, mount_namespace: u64) {
        if !self.mounts.insert(mount_namespace) {
            return;
        }
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        for line in mounts.lines().filter(|line| line.contains(" - nsfs ")) {
            // proc_pid_mountinfo(5): the root of an nsfs mount is its inode, then comes the mount point.
            let mut fields = line.split(' ').skip(3);
            let (Some(root), Some(point)) = (fields.next(), fields.next()) else { continue };
            if let Some(id) = NetnsId::from_link(root) {
                let path = PathBuf::from(format!("/proc/{pid}/root{}", unescaped(point)));
                self.held.entry(id).or_insert(path);
            }
        }
    }
}

/// What is read of a process.
struct Facts {
    netns: Result<NetnsId, Gone>,
    container: Option<(String, Option<&'static str>)>,
    /// As they were read before.
    names: Option<Names>,
    /// Its mount namespace, where it was not looked at before.
    mounts: Option<u64>,
    /// The network namespaces that it holds open.
    held: Vec<(NetnsId, PathBuf)>,
}

/// Why nothing is known of a process.
enum Gone {
    Ended,
    /// It may not be read.
    Hidden,
}

impl Facts {
    /// `files`: open files that were looked at so far, if they are to be.
    fn of(pid: u32, known: Option<&Member>, chosen_ids: &HashSet<String>, files: Option<&AtomicUsize>) -> Self {
        let netns = match fs::read_link(format!("/proc/{pid}/ns/net")) {
            Ok(link) => link.to_str().and_then(NetnsId::from_link).ok_or(Gone::Ended),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied && !is_kernel_thread_of(pid) => {
                Err(Gone::Hidden)
            }
            Err(_) => Err(Gone::Ended),
        };
        let mut facts = Self { netns, container: None, names: None, mounts: None, held: Vec::new() };
        if matches!(facts.netns, Err(Gone::Ended)) {
            return facts;
        }
        match known.filter(|known| facts.netns.as_ref().is_ok_and(|netns| *netns == known.netns)) {
            Some(known) => (facts.container, facts.names) = (known.container.clone(), known.names.clone()),
            None => {
                facts.container = container_of(pid, chosen_ids);
                facts.mounts = fs::metadata(format!("/proc/{pid}/ns/mnt")).ok().map(|place| place.ino());
            }
        }
        if let Some(files) = files.filter(|_| pid != std::process::id()) {
            facts.held = held_by(pid, files);
        }
        facts
    }
}

/// The namespaces that this process holds open. `read`: files that were looked at.
fn held_by(pid: u32, read: &AtomicUsize) -> Vec<(NetnsId, PathBuf)> {
    let mut held = Vec::new();
    let directory = PathBuf::from(format!("/proc/{pid}/fd"));
    let Ok(files) = open(&directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) else {
        return held;
    };
    // Room for no more entries than are looked at: each that is listed costs as much as its link does.
    let mut room = [MaybeUninit::uninit(); FILES * size_of::<[u64; 3]>()];
    let mut entries = RawDir::new(&files, &mut room);
    for _ in 0..FILES {
        let Some(Ok(entry)) = entries.next() else { break };
        if read.fetch_add(1, Ordering::Relaxed) >= MOST_FILES {
            break;
        }
        let mut target = [MaybeUninit::uninit(); 32];
        let Ok((target, _)) = readlinkat_raw(&files, entry.file_name(), &mut target) else { continue };
        if let Some(id) = str::from_utf8(target).ok().and_then(NetnsId::from_link) {
            held.push((id, directory.join(entry.file_name().to_string_lossy().as_ref())));
        }
    }
    held
}

impl Namespaces {
    fn spot(&mut self, id: NetnsId) -> &mut Spot {
        let told = Netns { inode: id.0, ..Netns::default() };
        self.netns.entry(id).or_insert(Spot { told, path: None })
    }

    /// One more process of it. `names`: as they were read before; they are returned if they are the namespace's.
    fn process(&mut self, id: NetnsId, pid: u32, container: Option<&String>, names: Option<Names>) -> Option<Names> {
        let told = &mut self.spot(id).told;
        told.processes = told.processes.saturating_add(1);
        if let Some(container) = container.filter(|container| !told.containers.contains(container)) {
            told.containers.push(container.clone());
        }
        if told.pid.is_some() {
            return None;
        }
        let names = names.unwrap_or_else(|| names_of(pid));
        told.pid = Some(pid);
        told.process.clone_from(&names.comm);
        told.unit.clone_from(&names.unit);
        told.slice.clone_from(&names.slice);
        Some(names)
    }

    /// Those below /run/netns, here and where the host has it: anyone may ask for the inode that a name stands for.
    fn named(&mut self) {
        let directories = roots().into_iter().map(|root| root.join(NAMED.trim_start_matches('/')));
        for entry in directories.filter_map(|directory| fs::read_dir(directory).ok()).flatten().flatten() {
            let (Ok(name), Ok(place)) = (entry.file_name().into_string(), fs::metadata(entry.path())) else { continue };
            if namespace::is_nsfs(&entry.path()) {
                self.spot(NetnsId(place.ino())).told.name = Some(name);
            }
        }
    }

    /// Adds what only a mount or an open file shows, as long as it does.
    fn held(&mut self, held: &mut BTreeMap<NetnsId, PathBuf>) {
        held.retain(|id, path| fs::metadata(path).is_ok_and(|place| place.ino() == id.0));
        for (id, path) in held {
            let own = path.to_str().and_then(|path| path.strip_prefix("/proc/1/root")).map(str::to_owned);
            let spot = self.spot(*id);
            spot.path = Some(path.clone());
            if spot.told.name.is_none() && spot.told.pid.is_none() {
                spot.told.path = Some(own.unwrap_or_else(|| path.display().to_string()));
            }
        }
    }
}

fn names_of(pid: u32) -> Names {
    let comm = fs::read(format!("/proc/{pid}/comm")).ok();
    let paths = cgroup_of(pid);
    Names {
        comm: comm.map(|name| crate::value::outside::comm(name.trim_ascii_end())),
        unit: paths.iter().find_map(|path| process::unit(path)).map(|unit| unit.to_string()),
        slice: paths.iter().find_map(|path| process::slice(path)).map(|slice| slice.to_string()),
    }
}

/// The paths of its control groups.
fn cgroup_of(pid: u32) -> Vec<String> {
    process::cgroup_paths(&fs::read(format!("/proc/{pid}/cgroup")).unwrap_or_default())
}

fn container_of(pid: u32, chosen_ids: &HashSet<String>) -> Option<(String, Option<&'static str>)> {
    cgroup_of(pid).iter().find_map(|path| of_cgroup(path).or_else(|| chosen(path, chosen_ids)))
}

/// The container of containerd of this control group, whose id somebody chose: `/default/web`.
fn chosen(path: &str, ids: &HashSet<String>) -> Option<(String, Option<&'static str>)> {
    let found = ids.iter().find(|id| path.strip_suffix(id.as_str()).is_some_and(|rest| rest.ends_with('/')))?;
    Some((found.rsplit('/').next()?.to_owned(), Some("containerd")))
}

fn is_kernel_thread_of(pid: u32) -> bool {
    let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    String::from_utf8_lossy(&stat).rsplit_once(')').is_some_and(|(_, rest)| is_kernel_thread(rest))
}

/// A path of mountinfo, where space, tab, newline and backslash are octal: proc_pid_mountinfo(5).
fn unescaped(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(path.to_owned(), |path, (octal, character)| path.replace(octal, character))
}
