//! Network namespaces: opened by name, process or path, entered for good or for a moment. See setns(2) and ip-netns(8).

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, fstat, fstatfs};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::sys;
use crate::value::{Failure, FailureKind, NetnsId};

/// Where `ip netns` keeps those with names.
pub const NAMED: &str = "/run/netns";
/// Of the calling thread. `/proc/self` is that of the main thread, which may be in another one.
const OWN: &str = "/proc/thread-self/ns/net";
/// statfs(2) magic of nsfs, include/uapi/linux/magic.h.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Why a network namespace could not be opened or entered.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    #[error("no network namespace {spec:?}: {} does not exist; `ip netns list` shows the names, or give a pid or a path", path.display())]
    Absent { spec: String, path: PathBuf },
    #[error("no process {pid}: its network namespace cannot be entered")]
    NoProcess { pid: u32 },
    #[error("{} is not a network namespace", path.display())]
    NotANamespace { path: PathBuf },
    #[error("permission denied for the network namespace {}: needs {}", path.display(), super::needs::capability(.needs))]
    Denied { path: PathBuf, needs: &'static str },
    #[error("cannot enter the network namespace {}", path.display())]
    Broken { path: PathBuf, source: io::Error },
    /// Its user namespace owns the other one, but not the one that the thread comes from.
    #[error("the network namespace {inode} is not entered: there would be no way back to the own one")]
    NoWayBack { inode: u64, source: io::Error },
    /// The thread is still in another namespace: nothing may be asked on it any more.
    #[error("this thread could not come back from another network namespace")]
    Stranded,
}

impl From<NamespaceError> for Failure {
    fn from(error: NamespaceError) -> Self {
        match error {
            NamespaceError::Denied { needs, .. } => {
                Self::new(FailureKind::Denied, error.to_string()).needs(super::needs::capability(needs))
            }
            _ => Self::new(FailureKind::Broken, error.to_string()),
        }
    }
}

/// An open network namespace. It lives at least as long as this value.
#[derive(Debug, Clone)]
pub struct Handle {
    /// `None` for that of the thread which made it, where there is nothing to open; see [`Handle::current`].
    fd: Option<Arc<OwnedFd>>,
    inode: u64,
}

impl PartialEq for Handle {
    fn eq(&self, other: &Self) -> bool {
        // All are on the one nsfs of the kernel; an open one keeps its number.
        self.inode == other.inode
    }
}

impl Eq for Handle {}

impl Handle {
    /// The namespace of the calling thread. Before Linux 3.19, or without /proc, it cannot be opened: other namespaces are not
    /// entered from there, and without /proc it has the number 0, which no namespace has.
    pub fn current() -> Self {
        Self::at(Path::new(OWN), None, OWN).unwrap_or_else(|_| {
            // /proc/thread-self is there since Linux 3.17.
            let links = [OWN, "/proc/self/ns/net"].map(std::fs::read_link);
            let inode = links.into_iter().flatten().find_map(|link| NetnsId::from_link(&link.to_string_lossy()));
            Self { fd: None, inode: inode.unwrap_or_default().0 }
        })
    }

    /// The namespace of this process's main thread.
    ///
    /// # Errors
    /// See [`NamespaceError`]. Another user's process needs CAP_SYS_PTRACE.
    pub fn of_process(pid: u32) -> Result<Self, NamespaceError> {
        Self::at(&of_process(pid), Some(pid), OWN)
    }

    /// The namespace that a path leads to.
    ///
    /// # Errors
    /// See [`NamespaceError`].
    pub fn of_path(path: &Path) -> Result<Self, NamespaceError> {
        Self::at(path, None, &path.to_string_lossy())
    }

    /// That of the host, or of the container in whose pid namespace this process is: of its init or, where that may not be read, of
    /// kthreadd, which is process 2 of the first pid namespace and in the first network namespace.
    ///
    /// # Errors
    /// As [`Self::of_process`].
    pub fn of_init() -> Result<Self, NamespaceError> {
        Self::of_process(1).or_else(|error| match std::fs::read_to_string("/proc/2/comm") {
            Ok(name) if name.trim_end() == "kthreadd" => Self::of_process(2),
            _ => Err(error),
        })
    }

    /// The inode, as /proc/PID/ns/net and `lsns` show it.
    pub fn id(&self) -> NetnsId {
        NetnsId(self.inode)
    }

    /// Moves the calling thread there.
    fn enter(&self) -> io::Result<()> {
        let fd = self.fd.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        Ok(move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    /// What `path` leads to, which `spec` stands for.
    fn at(path: &Path, pid: Option<u32>, spec: &str) -> Result<Self, NamespaceError> {
        let path = path.to_owned();
        let opened = open(&path).map_err(|error| match (error.raw_os_error(), pid) {
            (Some(libc::ENOENT | libc::ESRCH), Some(pid)) => NamespaceError::NoProcess { pid },
            (Some(libc::ENOENT | libc::ENOTDIR), None) => {
                NamespaceError::Absent { spec: spec.to_owned(), path: path.clone() }
            }
            (Some(libc::EACCES | libc::EPERM), Some(_)) => {
                NamespaceError::Denied { path: path.clone(), needs: "CAP_SYS_PTRACE and CAP_SYS_ADMIN" }
            }
            (Some(libc::EACCES | libc::EPERM), None) => {
                NamespaceError::Denied { path: path.clone(), needs: "read access and CAP_SYS_ADMIN" }
            }
            _ => NamespaceError::Broken { path: path.clone(), source: error },
        })?;
        let (fd, inode) = opened.ok_or(NamespaceError::NotANamespace { path })?;
        Ok(Self { fd: Some(Arc::new(fd)), inode })
    }
}

/// The namespace behind a path and its inode; `None` for anything else, of which nothing is opened: to open a device or a pipe
/// may do something.
fn open(path: &Path) -> io::Result<Option<(OwnedFd, u64)>> {
    // Only its place: no driver is asked, no writer of a pipe is woken.
    let place = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if fstatfs(&place)?.f_type as u64 != NSFS_MAGIC {
        return Ok(None);
    }
    let again = format!("/proc/thread-self/fd/{}", place.as_raw_fd());
    let fd = rustix::fs::open(again, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    match sys::namespace_type(&fd) {
        Ok(libc::CLONE_NEWNET) => {}
        // Before Linux 4.11 only setns(2) tells.
        Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => {}
        Ok(_) => return Ok(None),
        Err(error) => return Err(error),
    }
    let inode = fstat(&fd)?.st_ino;
    Ok(Some((fd, inode)))
}

/// Whether a namespace is mounted there; it is not opened for that.
pub fn is_nsfs(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|place| place.f_type as u64 == NSFS_MAGIC)
}

fn of_process(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/net"))
}

thread_local! {
    /// The calling thread is in a namespace that it only meant to visit.
    static STRANDED: Cell<bool> = const { Cell::new(false) };
    /// Where the calling thread lives, once it was seen that it may come back there: to open and to try it anew takes three times
    /// as long as a visit.
    static HOME: RefCell<Option<Handle>> = const { RefCell::new(None) };
}

/// The namespace of the calling thread, which it may leave and come back to. Nothing but [`NamedNetns::reach`] moves a thread that
/// has visited one.
fn home(there: &Handle) -> Result<Handle, NamespaceError> {
    if let Some(home) = HOME.with_borrow(Clone::clone) {
        return Ok(home);
    }
    let home = Handle::current();
    if home == *there {
        return Ok(home);
    }
    // Where the thread may go to although it is there, it may come back to.
    home.enter().map_err(|source| match source.raw_os_error() {
        Some(libc::EPERM) => denied(there),
        _ => NamespaceError::NoWayBack { inode: there.inode, source },
    })?;
    HOME.set(Some(home.clone()));
    Ok(home)
}

/// Runs `work` in the namespace `there`, on the calling thread, and comes back however it ends. Sockets that it opens stay there;
/// /proc/thread-self/net shows it meanwhile.
///
/// # Errors
/// Entering needs CAP_SYS_ADMIN over both namespaces: it is refused before `work` where there is no way back. After
/// [`NamespaceError::Stranded`] nothing may be asked on this thread any more.
pub fn with_namespace<T>(there: &Handle, work: impl FnOnce() -> T) -> Result<T, NamespaceError> {
    must_be_home()?;
    let home = home(there)?;
    if home == *there {
        return Ok(work());
    }
    there.enter().map_err(|source| match source.raw_os_error() {
        Some(libc::EPERM) => denied(there),
        _ => NamespaceError::Broken { path: label(there), source },
    })?;
    let back = Back(&home);
    let result = work();
    drop(back);
    must_be_home()?;
    Ok(result)
}

/// An error if the calling thread could not come back from a namespace that it visited: whatever it asked would be of that one.
///
/// # Errors
/// [`NamespaceError::Stranded`]
pub fn must_be_home() -> Result<(), NamespaceError> {
    if STRANDED.get() { Err(NamespaceError::Stranded) } else { Ok(()) }
}

struct Back<'a>(&'a Handle);

impl Drop for Back<'_> {
    fn drop(&mut self) {
        // The way was tried before; only memory may be short.
        if (0..3).all(|_| self.0.enter().is_err()) {
            STRANDED.set(true);
        }
    }
}

/// The path leads to this namespace.
fn is_at(path: impl AsRef<Path>, handle: &Handle) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.ino() == handle.inode)
}

fn denied(there: &Handle) -> NamespaceError {
    NamespaceError::Denied { path: label(there), needs: "CAP_SYS_ADMIN" }
}

/// As lsns(8) and links show one without a path.
fn label(there: &Handle) -> PathBuf {
    PathBuf::from(format!("net:[{}]", there.inode))
}

/// A namespace as somebody calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedNetns {
    /// As `ip netns` names it, if it was found by name.
    pub name: Option<String>,
    pub handle: Handle,
    path: PathBuf,
}

impl NamedNetns {
    /// By name (`ip netns`), process id or path. A number is a process id unless a namespace has that name.
    ///
    /// # Errors
    /// See [`NamespaceError`].
    pub fn of(spec: &str) -> Result<Self, NamespaceError> {
        let (path, name, pid) = locate(spec, Path::new(NAMED));
        Ok(Self { name, handle: Handle::at(&path, pid, spec)?, path })
    }

    /// That of a container, by a process in it.
    pub fn of_container(handle: Handle, pid: u32) -> Self {
        Self { name: None, handle, path: of_process(pid) }
    }

    /// The name, process or path still leads to this namespace. If not, it lives on only because of this value and what is
    /// open in it.
    pub fn is_reachable(&self) -> bool {
        is_at(&self.path, &self.handle)
    }

    /// That it can be visited, or else moves the calling thread there for good: with capabilities over it but none over the own
    /// namespace, as in the user namespace of a container, there is no way back. Threads started afterwards inherit it.
    ///
    /// # Errors
    /// See [`NamespaceError`]. Entering needs CAP_SYS_ADMIN.
    pub fn reach(&self) -> Result<(), NamespaceError> {
        if with_namespace(&self.handle, || ()).is_ok() {
            return Ok(());
        }
        must_be_home()?;
        HOME.set(None);
        self.handle.enter().map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM) => NamespaceError::Denied { path: self.path.clone(), needs: "CAP_SYS_ADMIN" },
            Some(libc::EINVAL) => NamespaceError::NotANamespace { path: self.path.clone() },
            _ => NamespaceError::Broken { path: self.path.clone(), source: error },
        })
    }
}

/// Path, name and process id that a specification stands for.
fn locate(spec: &str, named: &Path) -> (PathBuf, Option<String>, Option<u32>) {
    if spec.contains('/') {
        return (PathBuf::from(spec), None, None);
    }
    let by_name = named.join(spec);
    match spec.parse() {
        Ok(pid) if !by_name.exists() => (of_process(pid), None, Some(pid)),
        _ => (by_name, Some(spec.to_owned()), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_a_process_unless_a_namespace_has_that_name() {
        let named = tempfile::tempdir().unwrap();
        std::fs::write(named.path().join("42"), "").unwrap();
        assert_eq!(locate("42", named.path()), (named.path().join("42"), Some("42".into()), None));
        assert_eq!(locate("43", named.path()), ("/proc/43/ns/net".into(), None, Some(43)));
        assert_eq!(locate("blue", named.path()), (named.path().join("blue"), Some("blue".into()), None));
        assert_eq!(locate("./blue", named.path()), ("./blue".into(), None, None));
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let absent = NamedNetns::of("there-is-no-such-namespace").unwrap_err();
        assert!(matches!(absent, NamespaceError::Absent { .. }), "{absent}");
        assert!(absent.to_string().contains("ip netns list"));
        assert!(matches!(NamedNetns::of("4294967294"), Err(NamespaceError::NoProcess { pid: 4294967294 })));
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = NamedNetns::of(file.path().to_str().unwrap()).unwrap_err();
        assert!(matches!(error, NamespaceError::NotANamespace { .. } | NamespaceError::Denied { .. }), "{error}");
        assert!(matches!(NamedNetns::of("nul\0"), Err(NamespaceError::Broken { .. })));
    }

    #[test]
    fn nothing_but_a_network_namespace_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
        // It waits until somebody opens the pipe to read.
        let mut writer = std::process::Command::new("sh").args(["-c", "echo > \"$0\""]).arg(&pipe).spawn().unwrap();
        for path in [pipe.as_path(), Path::new("/dev/tty"), Path::new("/proc/self/ns/pid"), directory.path()] {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let error = Handle::at(path, None, "x").unwrap_err();
            assert!(matches!(error, NamespaceError::NotANamespace { .. }), "{}: {error}", path.display());
        }
        assert_eq!(writer.try_wait().unwrap(), None, "the pipe was opened");
        writer.kill().unwrap();
        writer.wait().unwrap();
        let own = Handle::current();
        assert_eq!(own, Handle::at(Path::new("/proc/self/ns/net"), None, "x").unwrap());
        assert_eq!(label(&own), std::fs::read_link(OWN).unwrap());
    }

    /// A process in a network namespace of its own; `None`, and said so, where that is not permitted.
    fn neighbour() -> Option<(std::process::Child, Handle)> {
        let mut child = std::process::Command::new("unshare")
            .args(["-n", "sleep", "60"])
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("unshare(1) is there");
        let own = Handle::current();
        while child.try_wait().unwrap().is_none() {
            match Handle::of_process(child.id()) {
                Ok(handle) if handle != own => return Some((child, handle)),
                _ => std::thread::sleep(std::time::Duration::from_millis(5)),
            }
        }
        // Not by eprintln!, whose output cargo hides.
        io::Write::write_all(&mut io::stderr(), b"skipped: a network namespace of its own needs root\n").unwrap();
        None
    }

    #[test]
    fn a_socket_opened_in_another_namespace_stays_there_and_the_thread_does_not() {
        let Some((mut child, there)) = neighbour() else { return };
        let home = Handle::current();
        let interfaces = || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap().lines().count();
        let (socket, seen, inside) = with_namespace(&there, || {
            let socket = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
            (socket, interfaces(), Handle::current())
        })
        .unwrap();
        assert_eq!((inside, seen), (there.clone(), 3), "two lines of heading and lo");
        assert_eq!(Handle::current(), home);
        let inode = fstat(&socket).unwrap().st_ino.to_string();
        let listed =
            || std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap().split(' ').any(|word| word == inode);
        assert!(with_namespace(&there, listed).unwrap(), "it stays there");
        assert!(!listed(), "and is not here");
        // By a panic, too.
        let panicked = std::panic::catch_unwind(|| with_namespace(&there, || panic!("in another namespace")));
        assert!(panicked.is_err());
        assert_eq!(Handle::current(), home);
        child.kill().unwrap();
        child.wait().unwrap();
        // The handle keeps it alive, and other threads are where they were.
        assert_eq!(with_namespace(&there, Handle::current).unwrap(), there);
    }

    #[test]
    fn a_stranded_thread_asks_nothing_more() {
        let own = Handle::current();
        std::thread::spawn(move || {
            STRANDED.set(true);
            assert!(matches!(with_namespace(&own, || ()), Err(NamespaceError::Stranded)));
        })
        .join()
        .unwrap();
    }
}
