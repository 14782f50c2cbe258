//! A support bundle of sos(1), packed or unpacked: what its commands printed and which files of /proc it copied, of the host's own
//! network namespace. What it does not have is not checked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use super::held::Answers;
use super::kind::sole;
use super::{Kind, Opened, Unusable, text};
use crate::knowledge::log::{Digest, Reading};
use crate::observation::SourceStatus;
use crate::value::{Failure, FailureKind};

/// Of a log its end is kept, of everything else its beginning.
const MOST: usize = 32 << 20;
/// Of all that is kept.
const TOTAL: usize = 96 << 20;
/// Members of an archive that are looked at.
const MEMBERS: usize = 1 << 20;
/// Of a name that stands before its member, and of what pax says beside it: the path of a file has at most 4,096 bytes
/// (PATH_MAX), and whoever packs an archive can write gigabytes there.
const LONGEST_NAME: u64 = 64 << 10;
/// Network namespaces that are named.
const NAMESPACES: usize = 1_000;

/// Of POSIX and GNU tar, and where it stands (tar(5)).
const TAR: (usize, &[u8]) = (257, b"ustar");

pub const KIND: Kind = Kind {
    name: "an archive",
    begins: |head| head.get(TAR.0..).is_some_and(|rest| rest.starts_with(TAR.1)),
    open: |archives, _| {
        let one = sole(archives)?;
        archive(&one.name, one.input)
    },
};

/// What a member holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// As the kernel prints it, by its path.
    Kept(&'static str),
    CounterFile(&'static str),
    Nstat,
    NetstatStatistics,
    Sockets,
    NetstatSockets,
    Settings,
    Tracking,
    KernelLog,
    /// The whole log; the smaller, the better.
    Log(u8),
    Uptime,
    Hostname,
    Uname,
    Sar,
}

/// Files of /proc that are taken as they are.
const KEPT: [&str; 6] = [
    "/proc/uptime",
    "/proc/vmstat",
    "/proc/sys/fs/file-nr",
    "/proc/net/sockstat",
    "/proc/net/sockstat6",
    "/proc/net/snmp6",
];
const COUNTERS: [&str; 2] = ["/proc/net/snmp", "/proc/net/netstat"];

/// Which part the member is, by its path below the report's own directory.
fn part(path: &str) -> Option<Part> {
    let of = |all: &[&'static str]| all.iter().find(|known| known.strip_prefix('/') == Some(path)).copied();
    if let Some(known) = of(&COUNTERS) {
        return Some(Part::CounterFile(known));
    }
    if let Some(known) = of(&KEPT) {
        return Some(Part::Kept(known));
    }
    if path == "proc/net/stat/nf_conntrack" {
        return Some(Part::Kept("/proc/net/stat/nf_conntrack"));
    }
    match path {
        "var/log/messages" | "var/log/syslog" => return Some(Part::Log(2)),
        "sos_strings/logs/var.log.messages.tailed" | "sos_strings/logs/var.log.syslog.tailed" => {
            return Some(Part::Log(3));
        }
        "uptime" => return Some(Part::Uptime),
        "hostname" => return Some(Part::Hostname),
        _ => {}
    }
    let (plugin, name) = path.strip_prefix("sos_commands/")?.split_once('/')?;
    let option = |option: &str| name.split('_').any(|word| word == option);
    Some(match plugin {
        "networking" if name.starts_with("nstat_") => Part::Nstat,
        "networking" if name.starts_with("netstat_") && option("-s") => Part::NetstatStatistics,
        "networking" if name.starts_with("netstat_") && name.ends_with("-neopa") => Part::NetstatSockets,
        "networking" if name.starts_with("ss_-") => Part::Sockets,
        "kernel" if name.starts_with("sysctl_-a") => Part::Settings,
        "kernel" | "logs" if name == "dmesg" || name.starts_with("dmesg_") => Part::KernelLog,
        "kernel" if name == "uname_-a" => Part::Uname,
        "host" if name == "uptime" => Part::Uptime,
        "host" if name == "hostname" => Part::Hostname,
        "logs" if name == "journalctl_--no-pager_--boot" => Part::Log(0),
        // Of the boots before with it.
        "logs" if name == "journalctl_--no-pager" => Part::Log(1),
        "sar" if name.starts_with("sar") && !name.ends_with(".xml") => Part::Sar,
        _ if name.starts_with("conntrack_-S") => Part::Tracking,
        _ => return None,
    })
}

/// The network namespace of which the member tells, where it is not the host's own.
fn namespace(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("sos_commands/networking/")?;
    let name = match rest.strip_prefix("namespaces/") {
        Some(inside) => inside.split('/').next()?,
        None => rest.strip_prefix("ip_netns_exec_")?.split("_").next()?,
    };
    (!name.is_empty()).then_some(name)
}

/// What was found of a report.
#[derive(Debug, Default)]
struct Parts {
    parts: BTreeMap<Part, (String, Vec<u8>)>,
    namespaces: BTreeSet<String>,
    /// It has the directory that every report has.
    commands: bool,
    /// Bytes of the parts.
    kept: usize,
    /// Why the rest was not read.
    broken: Option<String>,
}

impl Parts {
    fn member(&mut self, path: &str, input: &mut dyn Read) -> io::Result<()> {
        self.commands |= path.starts_with("sos_commands/");
        if self.namespaces.len() < NAMESPACES {
            self.namespaces.extend(namespace(path).map(str::to_owned));
        }
        let Some(part) = part(path) else { return Ok(()) };
        let whole = matches!(part, Part::Log(_) | Part::KernelLog | Part::Sar);
        let bytes = if whole { end_of(input)? } else { beginning_of(input)? };
        let kept = self.kept.saturating_add(bytes.len());
        if kept > TOTAL {
            let text = || format!("{path} was not read: there is more than {} MiB", TOTAL >> 20);
            self.broken.get_or_insert_with(text);
        } else if !bytes.is_empty() {
            // Of several days the last.
            let before = self.parts.insert(part, (path.to_owned(), bytes));
            self.kept = kept.saturating_sub(before.map_or(0, |(_, bytes)| bytes.len()));
        }
        Ok(())
    }
}

fn beginning_of(input: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(MOST as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn end_of(mut input: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while io::copy(&mut Read::take(&mut input, MOST as u64), &mut bytes)? == MOST as u64 {
        let surplus = bytes.len().saturating_sub(MOST);
        // The first line that is whole.
        let line = bytes.iter().skip(surplus).position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        bytes.drain(..if surplus > 0 { surplus + line } else { 0 });
    }
    Ok(bytes)
}

/// Whether the directory is an unpacked report.
pub fn is_report(directory: &Path) -> bool {
    directory.join("sos_commands").is_dir()
}

/// # Errors
/// The directory cannot be read, or has nothing of what is read here.
pub fn directory(directory: &Path) -> anyhow::Result<Opened> {
    let name = directory.display().to_string();
    let mut found = Parts { commands: true, ..Parts::default() };
    let fixed = KEPT.iter().chain(&COUNTERS).filter_map(|path| path.strip_prefix('/'));
    let fixed = fixed.chain([
        "proc/net/stat/nf_conntrack",
        "var/log/messages",
        "var/log/syslog",
        "sos_strings/logs/var.log.messages.tailed",
        "sos_strings/logs/var.log.syslog.tailed",
    ]);
    let mut paths: Vec<String> = fixed.map(str::to_owned).collect();
    let plugins = directory.join("sos_commands");
    for plugin in names(&plugins).with_context(|| format!("{name}: cannot be read"))? {
        let inside = names(&plugins.join(&plugin)).unwrap_or_default();
        paths.extend(inside.into_iter().map(|file| format!("sos_commands/{plugin}/{file}")));
    }
    for namespace in names(&plugins.join("networking/namespaces")).unwrap_or_default() {
        found.namespaces.insert(namespace);
    }
    paths.sort();
    for path in paths {
        let file = directory.join(&path);
        // A link may lead anywhere on the host of the one who reads.
        if !file.symlink_metadata().is_ok_and(|file| file.is_file()) {
            continue;
        }
        let read = File::open(&file).and_then(|mut file| found.member(&path, &mut file));
        if let Err(error) = read {
            found.broken.get_or_insert(format!("{path} cannot be read: {error}"));
        }
    }
    opened(&name, found)
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = directory.read_dir()?.take(MEMBERS);
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

/// # Errors
/// It is an archive of something else, or has nothing of what is read here.
fn archive(name: &str, input: Box<dyn Read + Send>) -> anyhow::Result<Opened> {
    let mut archive = tar::Archive::new(input);
    let mut found = Parts::default();
    let (mut members, mut longer) = (0_usize, None);
    match archive.entries() {
        Ok(entries) => {
            // Raw: else the longer names are read as long as they are.
            for entry in entries.raw(true).take(MEMBERS) {
                let read = entry.and_then(|mut entry| {
                    let kind = entry.header().entry_type();
                    if kind.is_gnu_longname() || kind.is_pax_local_extensions() {
                        longer = longer_name(&mut entry)?.or(longer.take());
                        return Ok(());
                    }
                    if kind.is_gnu_longlink() {
                        return Ok(());
                    }
                    let own = || String::from_utf8_lossy(&entry.path_bytes()).into_owned();
                    let path = longer.take().unwrap_or_else(own);
                    if !kind.is_file() {
                        return Ok(());
                    }
                    // Below a directory with the report's name.
                    let path = path.trim_start_matches("./");
                    let inside = path.split_once('/').map_or("", |(_, inside)| inside);
                    found.member(inside, &mut entry)
                });
                if let Err(error) = read {
                    found.broken = Some(format!("after member {members} it cannot be read: {error}"));
                    break;
                }
                members += 1;
            }
        }
        Err(error) => found.broken = Some(format!("it cannot be read: {error}")),
    }
    if !found.commands {
        let why = match &found.broken {
            Some(why) => format!("is an archive, {why}"),
            None => "is an archive, and no sosreport: give the files in it".to_owned(),
        };
        return Err(Unusable::new(name, why).into());
    }
    opened(name, found)
}

/// The name of the next member, where it does not fit into its head: of GNU tar, or of pax (pax(1)).
fn longer_name<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Option<String>> {
    if entry.size() > LONGEST_NAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a name of {} bytes", entry.size())));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes)?;
    if entry.header().entry_type().is_gnu_longname() {
        let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        return Ok(Some(String::from_utf8_lossy(name).into_owned()));
    }
    let path = tar::PaxExtensions::new(&bytes).flatten().find(|extension| extension.key_bytes() == b"path");
    Ok(path.map(|path| String::from_utf8_lossy(path.value_bytes()).into_owned()))
}

/// Judges what was found.
fn opened(name: &str, mut found: Parts) -> anyhow::Result<Opened> {
    let mut kept = Answers::new();
    let mut texts: Vec<(String, Vec<u8>)> = Vec::new();
    let mut take = |found: &mut Parts, part: Part| match found.parts.remove(&part) {
        Some(text) => {
            texts.push(text);
            true
        }
        None => false,
    };
    // The same counters twice would be two times of them.
    let files = COUNTERS.map(|path| take(&mut found, Part::CounterFile(path)));
    if !files.contains(&true) && !take(&mut found, Part::Nstat) {
        take(&mut found, Part::NetstatStatistics);
    }
    if !take(&mut found, Part::Sockets) {
        take(&mut found, Part::NetstatSockets);
    }
    for part in [Part::Settings, Part::Tracking, Part::Sar] {
        take(&mut found, part);
    }
    let log = (0..4).any(|rank| take(&mut found, Part::Log(rank)));
    if !log {
        take(&mut found, Part::KernelLog);
    }
    for (part, (_, bytes)) in &found.parts {
        let text = || String::from_utf8_lossy(bytes);
        let (path, answer) = match part {
            Part::Kept(path) => (*path, Some(bytes.clone())),
            Part::Hostname => {
                ("/proc/sys/kernel/hostname", text().lines().next().map(|line| format!("{line}\n").into()))
            }
            Part::Uname => {
                let release = text().split_whitespace().nth(2).map(|word| format!("{word}\n").into_bytes());
                ("/proc/sys/kernel/osrelease", release)
            }
            Part::Uptime => {
                let up = uptime(&text()).map(|up| format!("{}.00 0.00\n", up.as_secs()).into_bytes());
                ("/proc/uptime", up)
            }
            _ => continue,
        };
        if let Some(answer) = answer {
            kept.insert(format!("file{path}"), answer);
        }
    }
    let mut reading = Reading::default();
    for (path, text) in &texts {
        reading.read(Some(path), &mut BufReader::new(Cursor::new(text))).with_context(|| format!("{name}: {path}"))?;
    }
    let digest = reading.finish();
    if texts.is_empty() && kept.is_empty() {
        let why = found.broken.unwrap_or_else(|| "no counters, sockets, settings or logs in it".to_owned());
        return Err(Unusable::new(name, format!("is a sosreport of which nothing can be read: {why}")).into());
    }
    let status = status(&found, &digest);
    Ok(text::of_digest(&digest, None, kept, Some(status)))
}

/// What of the report is missing or was not read.
fn status(found: &Parts, digest: &Digest) -> SourceStatus {
    let others = (!found.namespaces.is_empty()).then(|| {
        let names: Vec<_> = found.namespaces.iter().take(4).map(String::as_str).collect();
        let more = if found.namespaces.len() > names.len() { " and more" } else { "" };
        format!("only the host's own network namespace is judged, not {}{more}", names.join(", "))
    });
    let reasons: Vec<String> =
        found.broken.clone().into_iter().chain(others).chain(text::not_understood(digest)).collect();
    let failure = (!reasons.is_empty()).then(|| Failure::new(FailureKind::Broken, reasons.join("; ")));
    SourceStatus { name: "sosreport", partial: failure.is_some(), failure, note: None, took: Duration::ZERO }
}

/// ` 02:36:13 up 5 days,  3:02,  1 user,  load average: 5.14, 2.64, 2.11` (uptime(1)), to the minute.
fn uptime(text: &str) -> Option<Duration> {
    let (_, up) = text.lines().next()?.split_once(" up ")?;
    let mut seconds = 0_u64;
    for part in up.split(',').map(str::trim) {
        let words: Vec<&str> = part.split_whitespace().collect();
        let add = match words[..] {
            [number, "day" | "days"] => number.parse::<u64>().ok()?.checked_mul(86_400)?,
            [number, "min" | "mins"] => number.parse::<u64>().ok()?.checked_mul(60)?,
            [clock] => {
                let (hours, minutes) = clock.split_once(':')?;
                let hours = hours.parse::<u64>().ok()?.checked_mul(3_600)?;
                hours.checked_add(minutes.parse::<u64>().ok()?.checked_mul(60)?)?
            }
            _ => break,
        };
        seconds = seconds.checked_add(add)?;
    }
    Some(Duration::from_secs(seconds)).filter(|up| !up.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_told_by_their_path() {
        for (path, wanted) in [
            ("proc/net/netstat", Some(Part::CounterFile("/proc/net/netstat"))),
            ("sos_commands/networking/nstat_-zas", Some(Part::Nstat)),
            ("sos_commands/networking/netstat_-s", Some(Part::NetstatStatistics)),
            ("sos_commands/networking/netstat_-W_-neopa", Some(Part::NetstatSockets)),
            ("sos_commands/networking/netstat_-W_-agn", None),
            ("sos_commands/networking/ss_-peaonmi", Some(Part::Sockets)),
            ("sos_commands/networking/ip_netns_exec_blue_ss_-peaonmi", None),
            ("sos_commands/conntrack/conntrack_-S", Some(Part::Tracking)),
            ("sos_commands/logs/journalctl_--no-pager_--boot_-1", None),
            ("sos_commands/sar/sar27", Some(Part::Sar)),
            ("sos_commands/sar/sar27.xml", None),
            ("etc/shadow", None),
        ] {
            assert_eq!(part(path), wanted, "{path}");
        }
        assert_eq!(namespace("sos_commands/networking/namespaces/blue/ss_-peaonmi"), Some("blue"));
        assert_eq!(namespace("sos_commands/networking/ip_netns_exec_blue_netstat_-s"), Some("blue"));
    }

    #[test]
    fn the_time_since_boot_is_read_in_all_its_forms() {
        for (text, seconds) in [
            (" 02:36:13 up 10:56,  0 user,  load average: 5.14, 2.64, 2.11", 39_360),
            (" 02:36:13 up 5 days,  3:02,  1 user,  load average: 5.14, 2.64, 2.11", 442_920),
            (" 02:36:13 up 1 day, 5 min,  2 users,  load average: 0.00", 86_700),
        ] {
            assert_eq!(uptime(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(uptime("up and running"), None);
    }

    /// One member, of which `before` stands in front.
    fn packed(before: &[(u8, &[u8])], path: &str, text: &[u8]) -> Vec<u8> {
        let mut archive = Vec::new();
        let mut member = |kind: u8, path: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::new(kind));
            header.set_path(path).expect("short");
            header.set_size(bytes.len() as u64);
            header.set_cksum();
            archive.extend_from_slice(header.as_bytes());
            archive.extend_from_slice(bytes);
            archive.resize(archive.len().next_multiple_of(512), 0);
        };
        before.iter().for_each(|(kind, bytes)| member(*kind, "longer", bytes));
        member(b'0', path, text);
        archive
    }

    fn found(archive: Vec<u8>) -> Result<(), String> {
        let opened = archive_of(archive);
        opened.map(drop).map_err(|error| error.to_string())
    }

    fn archive_of(bytes: Vec<u8>) -> anyhow::Result<Opened> {
        archive("r.tar", Box::new(Cursor::new(bytes)))
    }

    #[test]
    fn names_that_stand_before_their_member_are_read_and_bounded() {
        let long = "sosreport-a/sos_commands/kernel/sysctl_-a";
        let pax = format!("{} path={long}\n", 6 + long.len() + 3);
        let text = b"net.core.somaxconn = 4096\n";
        assert_eq!(found(packed(&[], long, text)), Ok(()));
        assert_eq!(found(packed(&[(b'L', format!("{long}\0").as_bytes()), (b'K', b"to")], "x", text)), Ok(()));
        assert_eq!(found(packed(&[(b'x', pax.as_bytes())], "x", text)), Ok(()));
        let bomb = vec![b'a'; LONGEST_NAME as usize + 1];
        for kind in [b'L', b'x'] {
            let refused = found(packed(&[(kind, &bomb)], long, text)).expect_err("a bomb");
            assert!(refused.contains("a name of 65537 bytes"), "{refused}");
        }
    }

    #[test]
    fn all_that_is_kept_has_a_bound() {
        let mut found = Parts::default();
        let line = b"0123456789abcde\n".repeat(MOST / 16);
        for path in ["sos_commands/sar/sar1", "sos_commands/sar/sar2", "proc/net/snmp", "proc/net/netstat"] {
            found.member(path, &mut Cursor::new(&line)).expect("reads");
        }
        assert_eq!((found.kept, found.broken.as_deref()), (TOTAL, None), "of two days one is kept");
        found.member("proc/vmstat", &mut Cursor::new(b"x 1\n")).expect("reads");
        assert_eq!(found.kept, TOTAL);
        assert!(found.broken.is_some_and(|why| why.contains("proc/vmstat was not read")));
    }

    #[test]
    fn of_a_long_log_the_end_is_kept() {
        let line = b"0123456789abcde\n";
        let long = line.repeat(MOST / line.len() * 2 + 3);
        let kept = end_of(&mut Cursor::new(&long)).expect("reads");
        assert!(kept.len() >= MOST && kept.len() <= 2 * MOST && long.ends_with(&kept) && kept.starts_with(b"0"));
    }
}
