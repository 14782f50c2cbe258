//! Entering another network namespace, see setns(2) and ip-netns(8).

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::syscall::retry;

const NAMED: &str = "/run/netns";

/// Why a network namespace could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    #[error("no network namespace {spec:?}: {} does not exist; `ip netns list` shows the names, or give a pid or a path", path.display())]
    Absent { spec: String, path: PathBuf },
    #[error("no process {pid}: its network namespace cannot be entered")]
    NoProcess { pid: u32 },
    #[error("{} is not a network namespace", path.display())]
    NotANamespace { path: PathBuf },
    #[error("permission denied for the network namespace {}: needs root, or {needs}", path.display())]
    Denied { path: PathBuf, needs: &'static str },
    #[error("cannot enter the network namespace {}", path.display())]
    Broken { path: PathBuf, source: io::Error },
}

/// The namespace that the calling thread is in now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entered {
    /// As `ip netns` names it, if it was entered by name.
    pub name: Option<String>,
    /// Inode of the namespace, as shown by /proc/PID/ns/net.
    pub inode: u64,
    path: PathBuf,
}

impl Entered {
    /// The name, process or path still leads to this namespace. If not, it lives on only because this thread is in it.
    pub fn is_reachable(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode)
    }
}

/// Moves the calling thread, and only it, into a network namespace given by name (`ip netns`), process id or path.
///
/// A number is a process id unless a namespace has that name. Threads started afterwards by this thread inherit it.
///
/// # Errors
/// See [`NamespaceError`]. Entering needs CAP_SYS_ADMIN.
pub fn enter(spec: &str) -> Result<Entered, NamespaceError> {
    let (path, name, pid) = locate(spec, Path::new(NAMED));
    let broken = |source| NamespaceError::Broken { path: path.clone(), source };
    let file = open(&path).map_err(|error| match (error.raw_os_error(), pid) {
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
        _ => broken(error),
    })?;
    let inode = file.metadata().map_err(broken)?.ino();
    // SAFETY: the descriptor is open; setns changes only the calling thread.
    retry(|| unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) }).map_err(|error| {
        match error.raw_os_error() {
            Some(libc::EPERM) => NamespaceError::Denied { path: path.clone(), needs: "CAP_SYS_ADMIN" },
            Some(libc::EINVAL) => NamespaceError::NotANamespace { path: path.clone() },
            _ => broken(error),
        }
    })?;
    Ok(Entered { name, inode, path })
}

/// Path, name and process id that a specification stands for.
fn locate(spec: &str, named: &Path) -> (PathBuf, Option<String>, Option<u32>) {
    if spec.contains('/') {
        return (PathBuf::from(spec), None, None);
    }
    let by_name = named.join(spec);
    match spec.parse() {
        Ok(pid) if !by_name.exists() => (PathBuf::from(format!("/proc/{pid}/ns/net")), None, Some(pid)),
        _ => (by_name, Some(spec.to_owned()), None),
    }
}

/// O_NONBLOCK: a path from outside may be a pipe, which must not make the open wait.
fn open(path: &Path) -> io::Result<File> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `name` is NUL-terminated and outlives the call.
    let fd = retry(|| unsafe { libc::open(name.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK) })?;
    // SAFETY: the descriptor was just opened and has no other owner.
    Ok(unsafe { File::from_raw_fd(fd) })
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
        let absent = enter("there-is-no-such-namespace").unwrap_err();
        assert!(matches!(absent, NamespaceError::Absent { .. }), "{absent}");
        assert!(absent.to_string().contains("ip netns list"));
        assert!(matches!(enter("4294967294"), Err(NamespaceError::NoProcess { pid: 4294967294 })));
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = enter(file.path().to_str().unwrap()).unwrap_err();
        assert!(matches!(error, NamespaceError::NotANamespace { .. } | NamespaceError::Denied { .. }), "{error}");
        assert!(matches!(enter("nul\0"), Err(NamespaceError::Broken { .. })));
    }
}
