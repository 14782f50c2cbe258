//! Files and links below /proc.

use super::names::Pseudonyms;

impl Pseudonyms {
    /// `None` for a file that is not known to be harmless, or that does not have the form expected of it.
    pub fn text(&mut self, path: &str, text: Vec<u8>) -> Option<Vec<u8>> {
        let parts: Vec<&str> = path.strip_prefix("/proc/")?.split('/').collect();
        match parts.as_slice() {
            ["uptime" | "stat" | "vmstat" | "loadavg" | "meminfo"]
            | ["net", "netstat" | "snmp" | "snmp6" | "sockstat" | "sockstat6"]
            | ["net", "stat", "nf_conntrack"]
            | ["sys", "fs", "file-nr" | "file-max" | "nr_open"]
            | ["sys", "kernel", "osrelease" | "ostype" | "pid_max" | "threads-max"] => Some(text),
            ["sys", "kernel", "hostname"] => {
                Some(format!("host-{}\n", self.hosts.number(text.trim_ascii_end())).into_bytes())
            }
            // TCP Fast Open keys and the secret of stable IPv6 addresses are the only private values there.
            ["sys", "net", .., last] if !last.ends_with("_key") && !last.ends_with("secret") => Some(text),
            [pid, file] if is_process(pid) => self.process_file(file, text),
            [pid, "task", tid, file] if is_process(pid) && is_process(tid) => self.process_file(file, text),
            [pid, "net", ..] if is_process(pid) => self.text(&format!("/proc/{}", parts.get(1..)?.join("/")), text),
            _ => None,
        }
    }

    fn process_file(&mut self, file: &str, text: Vec<u8>) -> Option<Vec<u8>> {
        match file {
            "limits" => Some(text),
            "comm" => Some([self.process(text.trim_ascii_end()), b"\n".to_vec()].concat()),
            "cmdline" if text.is_empty() => Some(text),
            "cmdline" => Some(b"redacted\0".to_vec()),
            "stat" => {
                // The name may itself hold parentheses: it ends at the last one, proc_pid_stat(5).
                let open = text.iter().position(|byte| *byte == b'(')?;
                let close = text.iter().rposition(|byte| *byte == b')')?;
                let name = self.process(text.get(open + 1..close)?);
                Some([text.get(..=open)?, &name, text.get(close..)?].concat())
            }
            "status" => {
                let rest = text.strip_prefix(b"Name:\t")?;
                let end = rest.iter().position(|byte| *byte == b'\n')?;
                let name = self.process(&unescape(rest.get(..end)?));
                Some([b"Name:\t", &*name, rest.get(end..)?].concat())
            }
            "cgroup" => self.cgroup(&text),
            _ => None,
        }
    }

    /// `ID:CONTROLLERS:PATH` lines, cgroups(7).
    fn cgroup(&mut self, text: &[u8]) -> Option<Vec<u8>> {
        let text = std::str::from_utf8(text).ok()?;
        let mut out = String::with_capacity(text.len());
        for line in text.lines() {
            let mut fields = line.splitn(3, ':');
            let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let segments: Vec<String> = path.split('/').map(|segment| self.cgroup_segment(segment)).collect();
            let named = controllers.starts_with("name=") && controllers != "name=systemd";
            let controllers = if named { "name=redacted" } else { controllers };
            out.push_str(&format!("{id}:{controllers}:{}\n", segments.join("/")));
        }
        Some(out.into_bytes())
    }

    fn cgroup_segment(&mut self, segment: &str) -> String {
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
                // Readers of the path show the first 12 digits, so the number has to stand there.
                let number = format!("{:012x}", self.containers.number(id.as_bytes()));
                return format!("{runtime}{number:0<width$}{suffix}", width = id.len());
            }
        }
        if suffix.is_empty() {
            format!("group-{}", self.groups.number(segment.as_bytes()))
        } else {
            format!("unit-{}{suffix}", self.units.number(segment.as_bytes()))
        }
    }
}

/// `net:[4026531840]` and its like name no one.
pub fn namespace_link(target: &[u8]) -> bool {
    target.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'_' | b':' | b'[' | b']' | b'0'..=b'9'))
}

fn is_process(part: &str) -> bool {
    matches!(part, "self" | "thread-self") || (!part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// /proc/PID/status escapes newline and backslash in the name (fs/proc/array.c task_name), /proc/PID/stat does not.
pub fn unescape(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut bytes = name.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => match bytes.next() {
                Some(b'n') => out.push(b'\n'),
                Some(other) => out.push(other),
                None => out.push(b'\\'),
            },
            _ => out.push(byte),
        }
    }
    out
}
