//! Replaces addresses and names in raw answers before they are stored in a recording.
//!
//! The same address or name always becomes the same pseudonym, so that a listener still joins its sockets, a unit its
//! processes. Loopback and unspecified addresses, address families, ports, ids and all counters stay. What is not
//! known to be harmless is left out.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::source::{Ask, Failure, FailureKind};

/// No text that is redacted is longer, see `source::ask::read`.
const MAX_TEXT: usize = 4 << 20;

/// Remembers the pseudonyms of one recording. Memory grows with the number of distinct addresses and names.
#[derive(Default)]
pub(super) struct Redactor {
    v4: HashMap<Ipv4Addr, u32>,
    v6: HashMap<Ipv6Addr, u32>,
    hosts: Names,
    processes: Names,
    units: Names,
    groups: Names,
    containers: Names,
}

#[derive(Default)]
struct Names(HashMap<Vec<u8>, usize>);

impl Names {
    /// Counts from 1 in the order of appearance.
    fn number(&mut self, name: &[u8]) -> usize {
        let next = self.0.len() + 1;
        *self.0.entry(name.to_vec()).or_insert(next)
    }
}

/// The redaction of one answer.
pub(super) struct Session<'a> {
    redactor: &'a mut Redactor,
    mode: Mode,
    failure: Option<Failure>,
}

enum Mode {
    /// Whole messages, redacted as they arrive.
    Messages,
    /// Numbers only, see [`Ask::SocketOwners`].
    Numbers,
    /// Redacted once it is whole.
    Text {
        path: String,
        link: bool,
        text: Vec<u8>,
    },
    LeftOut,
}

impl Redactor {
    pub fn begin(&mut self, ask: &Ask) -> Session<'_> {
        let mode = match ask {
            Ask::SockDiag(_) => Mode::Messages,
            Ask::SocketOwners { .. } => Mode::Numbers,
            Ask::File(path) => Mode::Text { path: path.clone(), link: false, text: Vec::new() },
            Ask::Link(path) => Mode::Text { path: path.clone(), link: true, text: Vec::new() },
            Ask::ResetEvents | Ask::ResetPackets | Ask::LastWords => Mode::LeftOut,
        };
        let failure = matches!(mode, Mode::LeftOut).then(left_out);
        Session { redactor: self, mode, failure }
    }
}

fn left_out() -> Failure {
    Failure::new(FailureKind::NotCollected, "left out by --redact")
}

impl Session<'_> {
    /// What may be stored now of the bytes that one call of the sink got.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.failure.is_some() {
            return Vec::new();
        }
        match &mut self.mode {
            Mode::Messages => {
                let mut messages = bytes.to_vec();
                if !self.redactor.messages(&mut messages) {
                    self.failure = Some(Failure::new(
                        FailureKind::Broken,
                        "left out by --redact: messages that are not understood cannot be redacted",
                    ));
                }
                messages
            }
            Mode::Numbers => {
                if bytes.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b' ' | b'\n')) {
                    return bytes.to_vec();
                }
                self.failure = Some(left_out());
                Vec::new()
            }
            Mode::Text { text, .. } => {
                if text.len() + bytes.len() > MAX_TEXT {
                    self.failure = Some(left_out());
                } else {
                    text.extend_from_slice(bytes);
                }
                Vec::new()
            }
            Mode::LeftOut => Vec::new(),
        }
    }

    /// What may be stored at the end, or why the answer is not (wholly) stored. A text that broke off is dropped.
    pub fn end(self, complete: bool) -> Result<Vec<u8>, Failure> {
        match (self.failure, self.mode) {
            (Some(failure), _) => Err(failure),
            (None, Mode::Text { path, link, text }) if complete => {
                let redacted =
                    if link { namespace_link(&text).then_some(text) } else { self.redactor.text(&path, text) };
                redacted.ok_or_else(left_out)
            }
            (None, _) => Ok(Vec::new()),
        }
    }
}

/// `net:[4026531840]` and its like name no one.
fn namespace_link(target: &[u8]) -> bool {
    target.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'_' | b':' | b'[' | b']' | b'0'..=b'9'))
}

impl Redactor {
    /// `None` for a file that is not known to be harmless, or that does not have the form expected of it.
    fn text(&mut self, path: &str, text: Vec<u8>) -> Option<Vec<u8>> {
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

    fn process(&mut self, name: &[u8]) -> Vec<u8> {
        format!("process-{}", self.processes.number(name)).into_bytes()
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

    fn v4(&mut self, address: Ipv4Addr) -> Ipv4Addr {
        if address.is_loopback() || address.is_unspecified() {
            return address;
        }
        let next = self.v4.len() as u32 + 1;
        let number = *self.v4.entry(address).or_insert(next);
        // 240.0.0.0/4 is reserved and in use nowhere (RFC 1112), so a pseudonym is recognised as one.
        Ipv4Addr::from_bits(0xf000_0000 | (number & 0x0fff_ffff))
    }

    fn v6(&mut self, address: Ipv6Addr) -> Ipv6Addr {
        if address.is_loopback() || address.is_unspecified() {
            return address;
        }
        // The peer of a dual-stack socket is the same host as on an IPv4 socket.
        if let Some(v4) = address.to_ipv4_mapped() {
            return self.v4(v4).to_ipv6_mapped();
        }
        let next = self.v6.len() as u32 + 1;
        let number = *self.v6.entry(address).or_insert(next);
        // The prefix for documentation, RFC 3849.
        Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(number))
    }

    /// Redacts whole netlink messages in place. False if something was not understood; it and all behind it is cut off.
    fn messages(&mut self, bytes: &mut Vec<u8>) -> bool {
        const HEADER: usize = 16;
        let mut at = 0;
        while let Some(header) = bytes.get(at..).and_then(<[u8]>::first_chunk::<HEADER>) {
            let [l0, l1, l2, l3, k0, k1, ..] = *header;
            let len = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
            let understood = len >= HEADER
                && match (
                    u16::from_ne_bytes([k0, k1]),
                    at.checked_add(len).and_then(|end| bytes.get_mut(at + HEADER..end)),
                ) {
                    // NOOP, ERROR (an errno and our own request), DONE.
                    (1..=3, Some(_)) => true,
                    // TCPDIAG_GETSOCK, SOCK_DIAG_BY_FAMILY.
                    (18 | 20, Some(body)) => self.socket(body).is_some(),
                    _ => false,
                };
            if !understood {
                bytes.truncate(at);
                return false;
            }
            at = (at + len).next_multiple_of(4);
        }
        let rest = bytes.len() > at;
        bytes.truncate(at);
        !rest
    }

    /// `struct inet_diag_msg` and its attributes, include/uapi/linux/inet_diag.h.
    fn socket(&mut self, body: &mut [u8]) -> Option<()> {
        const MESSAGE: usize = 72;
        const ADDRESSES: [usize; 2] = [8, 24];
        let family = i32::from(*body.first()?);
        let (message, attributes) = body.split_at_mut_checked(MESSAGE)?;
        for at in ADDRESSES {
            let field = message.get_mut(at..)?.first_chunk_mut::<16>()?;
            *field = match family {
                libc::AF_INET => {
                    let [a, b, c, d, ..] = *field;
                    let mut new = [0; 16];
                    new.first_chunk_mut::<4>()?.copy_from_slice(&self.v4(Ipv4Addr::new(a, b, c, d)).octets());
                    new
                }
                libc::AF_INET6 => self.v6(Ipv6Addr::from(*field)).octets(),
                _ => return None,
            };
        }
        blank_attributes(attributes);
        Some(())
    }
}

/// Overwrites with zeros the payload of every attribute that may hold an address or a key (LOCALS, PEERS, MD5SIG, ULP
/// information, BPF storage) or that is not known.
fn blank_attributes(mut rest: &mut [u8]) {
    while let Some([l0, l1, k0, k1]) = rest.first_chunk().copied() {
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let kind = u16::from_ne_bytes([k0, k1]) & 0x3fff;
        if len < 4 || len > rest.len() {
            break;
        }
        if !matches!(kind, 1..=11 | 15..=17 | 21 | 22)
            && let Some(payload) = rest.get_mut(4..len)
        {
            payload.fill(0);
        }
        let next = len.next_multiple_of(4).min(rest.len());
        rest = rest.split_at_mut(next).1;
    }
    rest.fill(0);
}

fn is_process(part: &str) -> bool {
    matches!(part, "self" | "thread-self") || (!part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// /proc/PID/status escapes newline and backslash in the name (fs/proc/array.c task_name), /proc/PID/stat does not.
fn unescape(name: &[u8]) -> Vec<u8> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn redact(redactor: &mut Redactor, path: &str, text: &str) -> Result<String, Failure> {
        let mut session = redactor.begin(&Ask::File(path.to_owned()));
        assert!(session.push(text.as_bytes()).is_empty());
        session.end(true).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn a_process_has_one_pseudonym_in_all_its_files() {
        let mut redactor = Redactor::default();
        let stat = redact(&mut redactor, "/proc/7/stat", "7 (my (odd\\) app) S 1 7 7 0 -1 4194560\n").unwrap();
        assert_eq!(stat, "7 (process-1) S 1 7 7 0 -1 4194560\n");
        let status = redact(&mut redactor, "/proc/7/status", "Name:\tmy (odd\\\\) app\nUmask:\t0022\n").unwrap();
        assert_eq!(status, "Name:\tprocess-1\nUmask:\t0022\n");
        assert_eq!(redact(&mut redactor, "/proc/8/comm", "other\n").unwrap(), "process-2\n");
        assert_eq!(redact(&mut redactor, "/proc/7/cmdline", "/srv/app\0--key=x\0").unwrap(), "redacted\0");
        assert_eq!(redact(&mut redactor, "/proc/2/cmdline", "").unwrap(), "");
    }

    #[test]
    fn a_unit_and_a_container_stay_recognisable_as_such() {
        let mut redactor = Redactor::default();
        let id = "3f4e8a".repeat(10) + "beef";
        let text = format!(
            "0::/system.slice/acme-shop.service/worker\n1:name=systemd:/system.slice/docker-{id}.scope\n2:cpu:/docker/{id}\n"
        );
        let out = redact(&mut redactor, "/proc/7/cgroup", &text).unwrap();
        let pseudonym = "000000000001".to_owned() + &"0".repeat(52);
        assert_eq!(
            out,
            format!(
                "0::/system.slice/unit-1.service/group-1\n1:name=systemd:/system.slice/docker-{pseudonym}.scope\n\
                 2:cpu:/docker/{pseudonym}\n"
            )
        );
    }

    #[test]
    fn only_harmless_files_are_kept() {
        let mut redactor = Redactor::default();
        assert_eq!(redact(&mut redactor, "/proc/sys/kernel/hostname", "db1.acme\n").unwrap(), "host-1\n");
        for path in ["/proc/net/netstat", "/proc/7/net/snmp", "/proc/7/limits", "/proc/sys/net/core/somaxconn"] {
            assert_eq!(redact(&mut redactor, path, "kept 1\n").unwrap(), "kept 1\n", "{path}");
        }
        for path in [
            "/proc/net/tcp",
            "/proc/7/environ",
            "/proc/7/maps",
            "/proc/net/nf_conntrack",
            "/proc/cmdline",
            "/proc/7/net/tcp",
            "/proc/sys/net/ipv4/tcp_fastopen_key",
            "/proc/7/stat",
            "/proc/7/status",
            "/etc/passwd",
        ] {
            let failure = redact(&mut redactor, path, "secret").expect_err(path);
            assert_eq!((failure.kind, failure.reason.as_str()), (FailureKind::NotCollected, "left out by --redact"));
        }
    }

    fn socket(family: i32, source: &[u8], attributes: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 88];
        bytes[..4].copy_from_slice(&(88 + attributes.len() as u32).to_ne_bytes());
        bytes[4..6].copy_from_slice(&20u16.to_ne_bytes());
        bytes[16] = family as u8;
        bytes[24..24 + source.len()].copy_from_slice(source);
        bytes.extend(attributes);
        bytes
    }

    #[test]
    fn addresses_join_across_families_and_private_attributes_are_blanked() {
        let mut redactor = Redactor::default();
        let mapped = Ipv4Addr::new(192, 0, 2, 9).to_ipv6_mapped().octets();
        // Attribute 18 is MD5SIG, 7 is SKMEMINFO.
        let md5 =
            [&8u16.to_ne_bytes()[..], &18u16.to_ne_bytes(), b"KEYS", &8u16.to_ne_bytes(), &7u16.to_ne_bytes(), b"MEMO"]
                .concat();
        let mut bytes = [
            socket(libc::AF_INET, &[192, 0, 2, 9], &md5),
            socket(libc::AF_INET6, &mapped, &[]),
            socket(libc::AF_INET, &[127, 0, 0, 53], &[]),
            socket(libc::AF_INET6, &Ipv6Addr::LOCALHOST.octets(), &[]),
            socket(libc::AF_INET6, &[0xfe; 16], &[]),
        ]
        .concat();
        assert!(redactor.messages(&mut bytes));
        assert_eq!(bytes[24..28], [240, 0, 0, 1]);
        assert_eq!(bytes[40..44], [0; 4]);
        assert_eq!(bytes[88..104], [&md5[..4], &[0; 4], &md5[8..]].concat());
        assert_eq!(bytes[104 + 24..104 + 40], Ipv4Addr::new(240, 0, 0, 1).to_ipv6_mapped().octets());
        assert_eq!(bytes[192 + 24..192 + 28], [127, 0, 0, 53]);
        assert_eq!(bytes[280 + 24..280 + 40], Ipv6Addr::LOCALHOST.octets());
        assert_eq!(bytes[368 + 24..368 + 40], "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
    }

    #[test]
    fn what_is_not_understood_is_cut_off() {
        let good = socket(libc::AF_INET, &[192, 0, 2, 9], &[]);
        for bad in [vec![0xff; 40], socket(libc::AF_UNIX, &[], &[]), good[..60].to_vec(), vec![1; 3]] {
            let mut bytes = [good.clone(), bad].concat();
            assert!(!Redactor::default().messages(&mut bytes));
            assert_eq!(bytes.len(), good.len());
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(mut bytes: Vec<u8>, text: String) {
            let mut redactor = Redactor::default();
            redactor.messages(&mut bytes);
            for path in ["/proc/1/stat", "/proc/1/status", "/proc/1/cgroup"] {
                let _ = redact(&mut redactor, path, &text);
            }
        }
    }
}
