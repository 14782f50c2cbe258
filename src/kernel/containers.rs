//! Names of containers, from the files of their runtimes as far as they are there. Each id is looked up once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::source::node::container::{Container, conmon, docker, is_id, kubelet_log, oci, storage};

/// No state file of one container is larger; the list of all of a host may be.
const LONGEST: u64 = 16 << 20;
/// Containers whose names are kept. More are forgotten and looked up again.
const KEPT: usize = 16_384;
/// How often a container without a name is looked up.
const TRIES: u8 = 3;

/// What was looked up.
#[derive(Default)]
pub struct Runtimes {
    known: HashMap<String, (Container, u8)>,
}

/// The state of one look, read where it is first asked for.
#[derive(Default)]
struct Look {
    roots: Vec<PathBuf>,
    stored: Option<HashMap<String, Container>>,
    logs: Option<HashMap<String, Container>>,
}

impl Runtimes {
    /// The containers with these ids, each with the runtime that its control group tells and a process in it.
    pub fn names(&mut self, containers: &BTreeMap<String, (Option<&'static str>, u32)>) -> Vec<Container> {
        if self.known.len() > KEPT {
            self.known.retain(|id, _| containers.contains_key(id));
        }
        let mut look = Look { roots: roots(), ..Look::default() };
        let mut found = Vec::new();
        for (id, (runtime, pid)) in containers {
            let (known, tries) = self.known.entry(id.clone()).or_insert_with(|| (Container::new(id), 0));
            if *tries < TRIES && known.name.is_none() {
                *tries += 1;
                *known = look.named(id, *runtime, *pid);
            }
            found.push(known.clone());
        }
        found
    }
}

/// Where containerd keeps what runs, by namespace and id.
const TASKS: &str = "run/containerd/io.containerd.runtime.v2.task";

/// The containers of containerd whose ids somebody chose (`ctr run IMAGE ID`), each as its control group is called: `NAMESPACE/ID`.
pub fn chosen_ids() -> HashSet<String> {
    let namespaces = roots().into_iter().flat_map(|root| list(&root.join(TASKS)));
    let all = namespaces.flat_map(|namespace| list(&namespace));
    let chosen = all.filter_map(|path| {
        let (namespace, id) = (path.parent()?.file_name()?.to_str()?, path.file_name()?.to_str()?);
        (!is_id(id)).then(|| format!("{namespace}/{id}"))
    });
    chosen.collect()
}

/// Where the files of the host are: here or, in a container that shares the host's processes, below those of process 1. That one
/// may have rights that this one lacks; kthreadd is in the same mount namespace.
pub fn roots() -> Vec<PathBuf> {
    let mut roots = vec![PathBuf::from("/")];
    roots.extend([1, 2].into_iter().find_map(root_of));
    roots
}

/// The root of a process that is in another mount namespace than this one.
fn root_of(pid: u32) -> Option<PathBuf> {
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let there = fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()?;
    let same = fs::read_link("/proc/self/ns/mnt").is_ok_and(|here| here == there);
    (!same && root.join("proc").exists()).then_some(root)
}

impl Look {
    fn named(&mut self, id: &str, runtime: Option<&str>, pid: u32) -> Container {
        let told = Container { runtime: runtime.map(str::to_owned), ..Container::new(id) };
        let mut found: Vec<Container> = Vec::new();
        // What a runtime leaves beside a container is where the files of the runtime are. It may also be something in the container:
        // then that tells of itself what it likes, and of no other.
        let beside = parent_of(pid).filter(|_| self.roots.len() == 1).and_then(root_of);
        for root in self.roots.iter().chain(&beside) {
            found.extend(
                read(&root.join("var/lib/docker/containers").join(id).join("config.v2.json"))
                    .and_then(|b| docker(id, &b)),
            );
            for namespace in list(&root.join(TASKS)) {
                let spec = read(&namespace.join(id).join("config.json"));
                // Docker's containers are containerd's as well, and know less there.
                let name = if namespace.ends_with("moby") { "docker" } else { "containerd" };
                found.extend(spec.and_then(|bytes| oci(id, name, &bytes)));
            }
        }
        found.extend(self.stored().get(id).cloned());
        found.extend(self.logs().get(id).cloned());
        if let Some((container, bundle)) = parent_of(pid).and_then(monitored).filter(|(it, _)| it.id == id) {
            let spec = bundle.and_then(|bundle| read(&Path::new(&bundle).join("config.json")));
            let name = container.runtime.clone().unwrap_or_default();
            found.extend(spec.and_then(|bytes| oci(id, &name, &bytes)));
            found.push(container);
        }
        found.into_iter().fold(told, Container::complete)
    }

    /// What the storage of Podman and CRI-O lists.
    fn stored(&mut self) -> &HashMap<String, Container> {
        let roots = &self.roots;
        self.stored.get_or_insert_with(|| {
            let storages = roots.iter().map(|root| root.join("var/lib/containers/storage"));
            let directories = storages.flat_map(|storage| list(&storage));
            let directories = directories.filter(|path| path.to_string_lossy().ends_with("-containers"));
            let files = directories
                .flat_map(|path| ["containers.json", "volatile-containers.json"].map(|file| path.join(file)));
            let containers = files.filter_map(|file| read(&file)).flat_map(|bytes| storage(&bytes));
            containers.map(|container| (container.id.clone(), container)).collect()
        })
    }

    /// What kubelet's links to the logs say.
    fn logs(&mut self) -> &HashMap<String, Container> {
        let roots = &self.roots;
        self.logs.get_or_insert_with(|| {
            let links = roots.iter().flat_map(|root| list(&root.join("var/log/containers")));
            let containers = links.filter_map(|link| kubelet_log(link.file_name()?.to_str()?));
            containers.map(|container| (container.id.clone(), container)).collect()
        })
    }
}

fn list(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// A regular file. To open anything else may wait, or do something.
fn read(path: &Path) -> Option<Vec<u8>> {
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).ok()?;
    let mut bytes = Vec::new();
    file.metadata().ok().filter(fs::Metadata::is_file)?;
    file.take(LONGEST).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn arguments(pid: u32) -> Option<Vec<u8>> {
    fs::read(format!("/proc/{pid}/cmdline")).ok()
}

/// What is told to a conmon, and whose it is.
fn monitored(pid: u32) -> Option<(Container, Option<String>)> {
    let (container, bundle) = conmon(&arguments(pid)?)?;
    let user = fs::metadata(format!("/proc/{pid}")).ok().map(|of| of.uid()).filter(|user| *user != 0);
    Some((Container { user, ..container }, bundle))
}

/// The container whose conmon is above this process: `podman run --cgroups=disabled` gives it no control group that tells.
pub fn below_conmon(pid: u32) -> Option<String> {
    parent_of(pid).and_then(monitored).map(|(container, _)| container.id)
}

/// proc_pid_stat(5), field 4.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
