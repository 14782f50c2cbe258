//! What a recording may hold of the files of a process: not its name, unit, container and command line.

use crate::ask::What;
use crate::source::pseudonyms::Pseudonyms;
use crate::source::redaction::Rule;

pub const STAT: Rule = Rule::text("process", |what| is_file(what, "stat"), |names, text| stat(names, &text));
pub const LIMITS: Rule = Rule::harmless("process limits", |what| is_file(what, "limits"));
pub const SCHEDSTAT: Rule = Rule::harmless("process run delay", |what| is_file(what, "schedstat"));
pub const CGROUP: Rule =
    Rule::text("process control groups", |what| is_file(what, "cgroup"), |names, text| cgroup(names, &text));
/// Empty for a kernel thread, which stays recognisable.
pub const COMMAND_LINE: Rule = Rule::text(
    "process command line",
    |what| is_file(what, "cmdline"),
    |_, text| Some(if text.is_empty() { text } else { b"redacted\0".to_vec() }),
);

/// /proc/PID/NAME
fn is_file(what: &What, name: &str) -> bool {
    let What::File(path) = what else { return false };
    let place = path.strip_prefix("/proc/").and_then(|path| path.split_once('/'));
    place.is_some_and(|(pid, file)| file == name && !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The name may itself hold parentheses: it ends at the last one, proc_pid_stat(5).
fn stat(names: &mut Pseudonyms, text: &[u8]) -> Option<Vec<u8>> {
    let open = text.iter().position(|byte| *byte == b'(')?;
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let name = names.process(text.get(open + 1..close)?);
    Some([text.get(..=open)?, &name, text.get(close..)?].concat())
}

/// `ID:CONTROLLERS:PATH` lines, cgroups(7).
fn cgroup(names: &mut Pseudonyms, text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let segments: Vec<String> = path.split('/').map(|segment| cgroup_segment(names, segment)).collect();
        let named = controllers.starts_with("name=") && controllers != "name=systemd";
        let controllers = if named { "name=redacted" } else { controllers };
        out.push_str(&format!("{id}:{controllers}:{}\n", segments.join("/")));
    }
    Some(out.into_bytes())
}

pub(in crate::source) fn cgroup_segment(names: &mut Pseudonyms, segment: &str) -> String {
    /// Names that systemd and container runtimes give on every machine.
    const COMMON: &[&str] = &[
        "",
        "..",
        "(deleted)",
        "init.scope",
        "system.slice",
        "user.slice",
        "machine.slice",
        "session.slice",
        "app.slice",
        "background.slice",
        "docker",
        "kubepods",
        "kubepods.slice",
        "burstable",
        "besteffort",
        "lxc",
        "libpod",
        "kubepods-burstable.slice",
        "kubepods-besteffort.slice",
    ];
    const RUNTIMES: &[&str] = &["docker-", "cri-containerd-", "crio-", "libpod-", ""];
    if COMMON.contains(&segment) {
        return segment.to_owned();
    }
    let (stem, suffix) = match segment.rsplit_once('.') {
        Some((stem, "service" | "scope" | "slice" | "socket" | "mount" | "swap")) => {
            (stem, segment.get(stem.len()..).unwrap_or_default())
        }
        _ => (segment, ""),
    };
    for runtime in RUNTIMES {
        if let Some(id) = stem.strip_prefix(runtime)
            && id.len() >= 32
            && id.bytes().all(|byte| byte.is_ascii_hexdigit())
        {
            return format!("{runtime}{}{suffix}", names.container(id));
        }
    }
    if suffix.is_empty() {
        format!("group-{}", names.groups.number(segment.as_bytes()))
    } else {
        format!("unit-{}{suffix}", names.units.number(segment.as_bytes()))
    }
}
