//! The files of procfs, as [`What::File`](crate::ask::What::File) asks for them.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::needs;
use crate::value::{Failure, FailureKind};

/// No file that we ask for comes near this; it ends the read of a file without an end.
const MAX_FILE: usize = 64 << 20;
/// statfs(2) magic of procfs, include/uapi/linux/magic.h.
const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// The path to open for an asked path. `/proc/net` is a link to `self/net`, which shows the namespace of the main
/// thread even to a thread that entered another one; `thread-self` (Linux 3.17) shows the thread's own.
fn resolve(path: &str, fallback: bool) -> Result<String, Failure> {
    let refused = || Failure::new(FailureKind::Broken, format!("{path:?} is not a plain path below /proc"));
    let below = path.strip_prefix("/proc/").ok_or_else(refused)?;
    if below.contains('\0') || below.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(refused());
    }
    let own = if fallback { "/proc/self/net" } else { "/proc/thread-self/net" };
    Ok(match below.strip_prefix("net").filter(|rest| rest.is_empty() || rest.starts_with('/')) {
        Some(rest) => format!("{own}{rest}"),
        None => path.to_owned(),
    })
}

/// Calls `open` for the path, and again for the fallback where the kernel has no `thread-self`.
fn with_fallback<T>(path: &str, open: impl Fn(&str) -> io::Result<T>) -> Result<T, Failure> {
    let first = resolve(path, false)?;
    let mut result = open(&first);
    if first.starts_with("/proc/thread-self/")
        && result.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound)
        && !Path::new("/proc/thread-self").exists()
    {
        result = open(&resolve(path, true)?);
    }
    result.map_err(|error| failure(path, &error))
}

/// Opens the file of an asked path.
pub fn open(path: &str) -> Result<File, Failure> {
    with_fallback(path, open_resolved)
}

/// Reads the file of an asked path.
pub fn read(path: &str, sink: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
    let mut file = open(path)?;
    all(path, |buffer, _| file.read(buffer), sink)
}

/// Reads an open file from its beginning, however often it was read before.
pub fn read_again(path: &str, file: &File, sink: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
    all(path, |buffer, at| file.read_at(buffer, at), sink)
}

fn all(
    path: &str,
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
    sink: &mut dyn FnMut(&[u8]),
) -> Result<(), Failure> {
    let mut buffer = [0; 16 << 10];
    let mut total = 0;
    loop {
        match read(&mut buffer, total as u64) {
            Ok(0) => return Ok(()),
            Ok(len) => {
                total += len;
                if total > MAX_FILE {
                    return Err(Failure::new(FailureKind::Broken, format!("{path} is larger than {MAX_FILE} bytes")));
                }
                sink(buffer.get(..len).unwrap_or_default());
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(failure(path, &error)),
        }
    }
}

/// Opens a procfs file. Links such as /proc/PID/root lead out of procfs, so the file system is checked after the open;
/// O_NONBLOCK keeps the open itself from waiting on a pipe found that way.
fn open_resolved(path: &str) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK).open(path)?;
    if rustix::fs::fstatfs(&file)?.f_type as u64 != PROC_SUPER_MAGIC {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it leads out of procfs"));
    }
    Ok(file)
}

/// What an error on this path means for the one who asked.
fn failure(path: &str, error: &io::Error) -> Failure {
    match error.raw_os_error() {
        // ESRCH is what an open file below /proc/PID answers once the process is gone.
        Some(libc::ENOENT | libc::ENOTDIR) => Failure::new(FailureKind::Absent, format!("{path} does not exist")),
        Some(libc::ESRCH) => Failure::new(FailureKind::Absent, format!("{path}: the process is gone")),
        Some(libc::EACCES | libc::EPERM) => Failure::new(FailureKind::Denied, format!("{path}: permission denied"))
            .needs(needs::capability(capability(path))),
        _ => Failure::new(FailureKind::Broken, format!("{path}: {error}")),
    }
}

/// What opens a path: another user's process is guarded by ptrace(2) access, conntrack by CAP_NET_ADMIN over the
/// namespace (net/netfilter/nf_conntrack_standalone.c), anything else by the file's owner, which is root.
fn capability(path: &str) -> &'static str {
    let first = path.trim_start_matches("/proc/").split('/').next().unwrap_or_default();
    if first.bytes().all(|byte| byte.is_ascii_digit()) {
        crate::source::owners::NEEDS
    } else if path.contains("conntrack") {
        "CAP_NET_ADMIN"
    } else {
        "CAP_DAC_READ_SEARCH"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        read(path, &mut |part| bytes.extend_from_slice(part)).map(|()| bytes)
    }

    #[test]
    fn a_proc_file_arrives_whole() {
        let text = file("/proc/net/netstat").expect("readable by anyone");
        assert!(text.starts_with(b"TcpExt: "));
        assert!(text.ends_with(b"\n"));
    }

    #[test]
    fn a_missing_file_is_absent_and_names_the_path() {
        let failure = file("/proc/net/there_is_no_such_file").expect_err("missing");
        assert_eq!(failure.kind, FailureKind::Absent);
        assert!(failure.reason.contains("/proc/net/there_is_no_such_file"));
    }

    #[test]
    fn nothing_outside_proc_is_served() {
        for path in
            ["/etc/passwd", "/proc/../etc/passwd", "/proc//net", "proc/net", "/proc/self/root/etc/passwd", "/proc/\0"]
        {
            let failure = file(path).expect_err(path);
            assert_eq!(failure.kind, FailureKind::Broken, "{path}: {failure}");
        }
    }

    #[test]
    fn denied_says_what_would_help() {
        let denied = io::Error::from_raw_os_error(libc::EACCES);
        let wanted = |path| failure(path, &denied).needs;
        assert_eq!(wanted("/proc/17/cgroup"), Some(needs::capability("CAP_SYS_PTRACE with CAP_DAC_READ_SEARCH")));
        assert_eq!(wanted("/proc/net/nf_conntrack"), Some(needs::capability("CAP_NET_ADMIN")));
        assert_eq!(failure("/proc/sys/net/core/bpf_jit_enable", &denied).kind, FailureKind::Denied);
    }

    #[test]
    fn a_file_that_stays_open_tells_what_is_so_now() {
        let file = open("/proc/net/snmp").expect("readable by anyone");
        let again = || {
            let mut bytes = Vec::new();
            read_again("/proc/net/snmp", &file, &mut |part| bytes.extend_from_slice(part)).expect("it stays readable");
            crate::source::snmp::parse(&bytes).expect("it is whole").get("Tcp.ActiveOpens").expect("a counter")
        };
        let before = again();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listener");
        let connection = std::net::TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        assert!(again() > before);
        drop(connection);
    }
}
