//! The files of one process below /proc/PID, read with procfs' types where those take outside text without panicking.

pub mod redaction;

use std::time::Duration;

use procfs::process::Stat;
use procfs::{FromRead, ProcessCGroups};

use super::node::container::{of_cgroup, short};
use crate::ask::{self, Ask, Probe, What};
use crate::value::outside::{self, Manager, UnitName};
use crate::value::{FailureKind, ParseError, words};

/// One process, from /proc/PID/{stat,limits,cgroup,cmdline}; see proc_pid_stat(5).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Process {
    pub pid: u32,
    /// comm: at most 15 bytes, as the process set it; escape it before printing.
    pub name: String,
    /// Arguments, joined by spaces, capped at 4 KiB; empty for a kernel thread.
    pub command_line: String,
    /// Scheduler state letter: R, S, D, T (stopped), t (traced), Z.
    pub state: char,
    /// Clock ticks since boot at which it started: pid and start identify a process for ever.
    pub start_ticks: u64,
    /// User and system time of all threads, clock ticks.
    pub cpu_ticks: u64,
    /// Time for which the main thread was ready to run and had no CPU, ns; `None` without CONFIG_SCHED_INFO.
    pub run_delay_ns: Option<u64>,
    /// systemd unit from the cgroup path ("nginx.service").
    pub unit: Option<UnitName>,
    /// Container id (12 hex digits) from the cgroup path.
    pub container: Option<String>,
    pub open_files: Option<u64>,
    /// Soft RLIMIT_NOFILE; `None` when unlimited or not readable.
    pub open_files_limit: Option<u64>,
}

impl Process {
    /// When it began, as CLOCK_BOOTTIME; rounded down to USER_HZ.
    pub fn started(&self) -> Duration {
        Duration::from_millis(self.start_ticks.saturating_mul(1_000 / TICKS_PER_SECOND))
    }

    /// `nginx (pid 4121)`. The name is as the kernel gave it; renderers escape it.
    pub fn label(&self) -> String {
        words::process(&self.name, self.pid)
    }
}

/// Clock ticks per second in /proc/PID/stat: USER_HZ, 100 on every Linux that Rust supports.
pub const TICKS_PER_SECOND: u64 = 100;

/// More than /proc/PID/stat ever holds, bytes: 52 numbers of at most 20 digits, and a name of at most 64 bytes
/// (fs/proc/array.c).
const MAX_STAT: usize = 2048;

/// Longest command line that is kept, bytes.
const MAX_COMMAND_LINE: usize = 4096;

/// Whether there is such a process now. False also for one that is hidden from this user (`hidepid`, proc(5)).
pub fn exists(probe: &mut dyn Probe, pid: u32) -> bool {
    let (stat, _) = ask::read(probe, &Ask::host(What::File(format!("/proc/{pid}/stat"))));
    !stat.is_err_and(|failure| failure.kind == FailureKind::Absent)
}

/// Everything of [`Process`] that /proc/PID/stat holds, proc_pid_stat(5).
///
/// # Errors
/// Text that is cut or of another form.
pub fn parse_stat(bytes: &[u8]) -> Result<Process, ParseError> {
    const SOURCE: &str = "/proc/PID/stat";
    let wrong = |problem: &str| ParseError::new(SOURCE, Some(1), problem);
    // The name may hold any byte, parentheses and newlines too. procfs slices around them unchecked, so the frame is
    // checked here.
    if bytes.len() > MAX_STAT {
        return Err(wrong("is longer than the kernel writes"));
    }
    let text = String::from_utf8_lossy(bytes);
    let body = text.strip_suffix('\n').ok_or_else(|| wrong("the line is cut: it has no newline"))?;
    let (pid, rest) = body.split_once(" (").ok_or_else(|| wrong("has no `PID (name)`"))?;
    let (name, fields) = rest.rsplit_once(") ").ok_or_else(|| wrong("has no end of the name"))?;
    // procfs trims the line and then slices behind the name.
    if fields.trim().is_empty() {
        return Err(wrong("has nothing behind the name"));
    }
    if pid.is_empty() || !pid.bytes().all(|byte| byte.is_ascii_digit()) || fields.contains(')') {
        return Err(wrong("does not begin with a process id"));
    }
    // As long as the buffer of proc_task_name() (fs/proc/array.c): workers of the kernel have longer names than 15 bytes.
    const NAME: usize = 64;
    if name.len() > NAME {
        return Err(wrong("the name is longer than any"));
    }
    let stat = Stat::from_read(body.as_bytes()).map_err(|error| wrong(&error.to_string()))?;
    Ok(Process {
        pid: u32::try_from(stat.pid).map_err(|_| wrong("the process id is negative"))?,
        name: outside::bounded(&stat.comm, outside::COMM),
        state: stat.state,
        start_ticks: stat.starttime,
        cpu_ticks: stat.utime.saturating_add(stat.stime),
        ..Process::default()
    })
}

/// The second number of /proc/PID/schedstat, ns: run_delay (fs/proc/base.c proc_pid_schedstat). `None` in another form.
pub fn parse_run_delay(bytes: &[u8]) -> Option<u64> {
    match std::str::from_utf8(bytes).ok()?.split_whitespace().collect::<Vec<_>>().as_slice() {
        [_on_cpu, run_delay, _slices] => run_delay.parse().ok(),
        _ => None,
    }
}

/// The soft limit of "Max open files" in /proc/PID/limits; `None` if it is unlimited or not there. Read by hand, because
/// procfs computes column numbers from the end of the line and underflows on a short one.
pub fn parse_open_files_limit(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    // Soft, hard, unit: all three, or the line is cut, perhaps within the number.
    match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        [soft, _, _] => soft.parse().ok(),
        _ => None,
    }
}

/// Arguments joined by spaces, capped at 4 KiB; what is not UTF-8 is replaced.
pub fn parse_command_line(bytes: &[u8]) -> String {
    let kept = bytes.get(..MAX_COMMAND_LINE).unwrap_or(bytes);
    let arguments = kept.strip_suffix(&[0]).unwrap_or(kept);
    String::from_utf8_lossy(arguments).replace('\0', " ")
}

/// systemd unit and container id from /proc/PID/cgroup, cgroups(7): of the cgroup v2 path if the controllers are there,
/// else of the named v1 hierarchy of systemd, else of any.
pub fn parse_cgroup(bytes: &[u8]) -> (Option<UnitName>, Option<String>) {
    let paths = cgroup_paths(bytes);
    (paths.iter().find_map(|path| unit(path)), paths.iter().find_map(|path| container(path)))
}

/// The paths of /proc/PID/cgroup, that of cgroup v2 first, then that of systemd; none of a text of another form.
pub fn cgroup_paths(bytes: &[u8]) -> Vec<String> {
    let Ok(groups) = ProcessCGroups::from_read(String::from_utf8_lossy(bytes).as_bytes()) else {
        return Vec::new();
    };
    let rank = |controllers: &[String]| match controllers {
        [] => 0,
        [only] if only == "name=systemd" => 1,
        _ => 2,
    };
    let mut groups = groups.0;
    groups.sort_by_key(|group| rank(&group.controllers));
    groups.into_iter().map(|group| group.pathname).collect()
}

/// The innermost service or scope of the path, as systemd spells it, except `user@1000.service`, which is all that a user runs, and `init.scope`,
/// which is systemd itself.
///
/// Those of the host's systemd lie in slices only (systemd.slice(5)). Whoever was given a cgroup, a user or a container, names what
/// is in it.
pub fn unit(path: &str) -> Option<UnitName> {
    let is_user = |segment: &str| segment.starts_with("user@");
    let is_unit = |segment: &str| segment.ends_with(".service") || segment.ends_with(".scope");
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let is_one = |segment: &&str| is_unit(segment) && !is_user(segment) && *segment != "init.scope";
    let at = segments.iter().rposition(is_one)?;
    let (above, own) = segments.split_at(at);
    let name = UnitName::parse(own.first()?)?;
    let mut others = above.iter().filter(|segment| !segment.ends_with(".slice"));
    let Some(outermost) = others.next() else { return Some(name) };
    let uid = outermost.strip_prefix("user@").and_then(|rest| rest.strip_suffix(".service")?.parse().ok());
    // A container of a user has a systemd of its own.
    let manager = uid.filter(|_| !others.any(|segment| is_unit(segment))).map_or(Manager::Other, Manager::User);
    Some(name.of(manager))
}

/// The innermost slice of the path, systemd.slice(5).
pub fn slice(path: &str) -> Option<UnitName> {
    path.split('/').rev().filter(|segment| segment.ends_with(".slice")).find_map(UnitName::parse)
}

/// The first 12 of the 64 hex digits of a container's id.
fn container(path: &str) -> Option<String> {
    of_cgroup(path).map(|(id, _)| short(&id).to_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::super::text;
    use super::*;

    pub(in crate::source) const STAT: &[u8] =
        b"10 (ngi) nx (1)) S 1 10 10 0 -1 4194560 120 0 0 0 7 5 0 0 20 0 3 0 4711 8192000 500 \
        18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n";
    const ID: &str = "0123456789ab0123456789ab0123456789ab0123456789ab0123456789abcdef";

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let process = parse_stat(STAT).unwrap();
        assert_eq!((process.pid, process.name.as_str(), process.state), (10, "ngi) nx (1)", 'S'));
        assert_eq!((process.start_ticks, process.cpu_ticks), (4711, 12));
        text::tests::assert_cuts_are_errors(STAT, parse_stat, |_| false);
    }

    #[test]
    fn the_limit_of_open_files() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max cpu time              unlimited            unlimited            seconds   \n\
             Max open files            1024                 524288               files     \n";
        assert_eq!(parse_open_files_limit(limits.as_bytes()), Some(1024));
        assert_eq!(parse_open_files_limit(limits.replace("1024", "unlimited").as_bytes()), None);
        assert_eq!(parse_open_files_limit(b"Max open files            10"), None, "a cut number is no number");
    }

    #[test]
    fn units_and_containers() {
        let docker = format!("0::/system.slice/docker-{ID}.scope\n");
        let kubernetes = format!("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope\n");
        let inner = format!("0::/system.slice/docker-{ID}.scope/system.slice/nginx.service\n");
        let by_cgroupfs = format!("0::/docker/{ID}/system.slice/nginx.service\n");
        let v1 = format!("12:memory:/docker/{ID}\n1:name=systemd:/system.slice/my\\x2dapp.service\n0::/\n");
        let id = Some("0123456789ab".to_owned());
        for (text, unit, container) in [
            ("0::/system.slice/nginx.service\n", Some("nginx.service".to_owned()), None),
            ("0::/system.slice/system-a.slice/a@1.service\n", Some("a@1.service".to_owned()), None),
            (
                "0::/user.slice/user-1.slice/user@1.service/app.slice/app.service\n",
                Some("app.service of user 1".to_owned()),
                None,
            ),
            (
                "0::/user.slice/user-1.slice/user@1.service/a.slice/x.scope/system.slice/sshd.service\n",
                Some("sshd.service of another systemd".to_owned()),
                None,
            ),
            (&inner, Some("nginx.service of another systemd".to_owned()), id.clone()),
            (&by_cgroupfs, Some("nginx.service of another systemd".to_owned()), id.clone()),
            ("0::/user.slice/user-1.slice/user@1.service\n", None, None),
            ("0::/\n", None, None),
            ("0::/system.slice/x-$(touch x).service\n", None, None),
            ("not a cgroup file", None, None),
            (docker.as_str(), Some(format!("docker-{ID}.scope")), id.clone()),
            (kubernetes.as_str(), Some(format!("cri-containerd-{ID}.scope")), id.clone()),
            (v1.as_str(), Some("my\\x2dapp.service".to_owned()), id.clone()),
        ] {
            let (told, of) = parse_cgroup(text.as_bytes());
            assert_eq!((told.map(|unit| unit.to_string()), of), (unit, container), "{text}");
        }
    }

    #[test]
    fn a_command_line_is_joined_and_capped() {
        assert_eq!(parse_command_line(b"nginx\0-g\0daemon off;\0"), "nginx -g daemon off;");
        assert_eq!(parse_command_line(&[b'x'; 5000]).len(), 4096);
        assert_eq!(parse_command_line(b""), "");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = (parse_stat(&bytes), parse_open_files_limit(&bytes), parse_cgroup(&bytes), parse_command_line(&bytes));
        }

        #[test]
        fn arbitrary_stat_lines_never_panic(text in "[0-9]{0,3} ?\\(?[a-zé)( ]{0,6}\\)? ?[SRé]?( [0-9-]{1,4}){0,50}\n?") {
            let _ = parse_stat(text.as_bytes());
        }

        #[test]
        fn arbitrary_paths_never_panic(path in "(/[a-zé@:\\\\x2d.-]{0,12}(.scope|.service)?){0,4}") {
            let _ = parse_cgroup(format!("0::{path}\n").as_bytes());
        }
    }
}
