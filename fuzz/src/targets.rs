//! The list of targets. A new reader of outside bytes is one line in [`TARGETS`].

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use rstdoctor::diagnosis::{Diagnosis, diagnose};
use rstdoctor::history::{Past, Wanted};
use rstdoctor::knowledge::log;
use rstdoctor::recording::ReplayHost;
use rstdoctor::render;
use rstdoctor::session::{Plan, observe};
use rstdoctor::source::destroyed_sockets::Sockets;
use rstdoctor::source::node;
use rstdoctor::source::reset_events::Events;
use rstdoctor::source::reset_events::format::Format;
use rstdoctor::source::reset_packets::Packets;
use rstdoctor::source::{
    COUNTER_FILES, connections, conntrack, host_facts, listeners, namespaces, owners, process, socket_dump, sysctl,
};
use rstdoctor::stream::{Content, Parser};
use rstdoctor::value::NetnsId;

use crate::frames;
use crate::hosts::{Always, Between};
use crate::mutate::{self, Random};

pub struct Target {
    pub name: &'static str,
    pub seeds: Seeds,
    /// Damages a seed, in which parts of another may be put.
    pub damage: fn(&mut Vec<u8>, &[u8], &mut Random),
    /// Reads the bytes. What it gives, if anything, is what must not change without being said: see [`recording`].
    pub run: fn(&[u8]) -> Option<String>,
}

/// Where the sound inputs come from that are then damaged. `corpus/NAME/` is added to each.
pub enum Seeds {
    /// The answers of the recordings to the questions whose key contains this.
    Answers(&'static str),
    /// The recordings themselves.
    Recordings,
    /// Answers of recordings, and which recording and answer they replace, see [`answers`].
    Replaced,
    /// Captures, unpacked, and texts of the fixtures.
    Captures,
    Texts,
    /// Only what is in the corpus.
    Corpus,
}

/// A target that reads answers of this key and whose result is nobody's concern.
macro_rules! answers {
    ($name:literal, $key:literal, $read:expr) => {
        Target {
            name: $name,
            seeds: Seeds::Answers($key),
            damage: mutate::damage,
            run: |bytes| {
                let read: fn(&[u8]) = $read;
                read(bytes);
                None
            },
        }
    };
}

pub static TARGETS: &[Target] = &[
    answers!("counter_files", "file/proc/", |b| COUNTER_FILES.iter().for_each(|file| drop((file.parse)(b)))),
    answers!("conntrack", "nf_conntrack", |b| drop((conntrack::parse(b), conntrack::collect(&mut Always(b), NETNS)))),
    answers!("sysctl", "file/proc/sys/net", |b| drop(sysctl::collect(&mut Always(b), NETNS))),
    answers!("namespaces", "namespaces", |b| drop(namespaces::parse(b))),
    answers!("node", "/node", |b| {
        if let Ok(node) = node::parse(b) {
            node.netns.keys().for_each(|id| drop(node.location(*id).to_string()));
        }
    }),
    Target { name: "container", seeds: Seeds::Corpus, damage: mutate::damage, run: container },
    answers!("host", "file/proc/", |b| drop(host_facts::collect(&mut Always(b)))),
    answers!("owners", "socket_owners", |b| drop(owners::parse(b))),
    answers!("process", "file/proc/", |b| {
        let text = (process::parse_command_line(b), process::parse_cgroup(b));
        drop((process::parse_stat(b), process::parse_open_files_limit(b), text));
    }),
    answers!("listeners", "sock_diag/listeners", |b| drop(listeners::parse(b))),
    answers!("connections", "sock_diag/", |b| drop(connections::collect(&mut Always(b), NETNS))),
    answers!("socket_dump", "sock_diag/sockets", |b| drop(socket_dump::parse(b, &[]))),
    answers!("tracepoint_format", "reset_events", |b| drop(Format::parse(&String::from_utf8_lossy(b)))),
    answers!("reset_events", "reset_events", stream::<Events>),
    answers!("reset_packets", "reset_packets", stream::<Packets>),
    answers!("destroyed_sockets", "destroyed_sockets", stream::<Sockets>),
    Target { name: "history", seeds: Seeds::Corpus, damage: mutate::damage, run: past },
    Target { name: "log", seeds: Seeds::Corpus, damage: mutate::damage, run: log },
    Target { name: "capture", seeds: Seeds::Captures, damage: mutate::damage, run: capture },
    Target { name: "text", seeds: Seeds::Texts, damage: mutate::damage, run: text },
    Target { name: "bundle", seeds: Seeds::Corpus, damage: mutate::damage, run: bundle },
    Target { name: "answers", seeds: Seeds::Replaced, damage: mutate::damage, run: answers },
    Target { name: "frames", seeds: Seeds::Recordings, damage: frames::damage, run: frames },
    Target { name: "recording", seeds: Seeds::Recordings, damage: mutate::damage, run: recording },
];

const NETNS: NetnsId = NetnsId(4_026_531_840);

/// A stream must give the same however it is cut.
fn stream<C: Content>(bytes: &[u8])
where
    C::Parsed: std::fmt::Debug,
{
    let read = |parts: &mut dyn Iterator<Item = &[u8]>| {
        let mut parser = Parser::<C>::new();
        parts.for_each(|part| parser.feed(part));
        let (parsed, error) = parser.finish();
        format!("{parsed:?} {error:?}")
    };
    let cut = bytes.len().checked_div(3).unwrap_or_default().max(1);
    assert_eq!(read(&mut std::iter::once(bytes)), read(&mut bytes.chunks(cut)), "cut after every {cut} bytes");
}

/// State files of container runtimes, and names that stand where anybody may have put them.
fn container(bytes: &[u8]) -> Option<String> {
    use node::container::{conmon, docker, kubelet_log, oci, of_cgroup, storage};
    const ID: &str = "0123456789ab0123456789ab0123456789ab0123456789ab0123456789abcdef";
    drop((docker(ID, bytes), oci(ID, "containerd", bytes), storage(bytes), conmon(bytes)));
    let text = String::from_utf8_lossy(bytes);
    drop((kubelet_log(&text), of_cgroup(&text)));
    None
}

fn log(bytes: &[u8]) -> Option<String> {
    if let Ok(digest) = log::digest(&mut &*bytes) {
        drop(log::rank(&digest));
    }
    None
}

/// The entries of a store, a line each, and what is told of them.
fn past(bytes: &[u8]) -> Option<String> {
    // The time of the kept entries.
    const FROM: u64 = 1_795_748_000_000;
    let mut past = Past::new(Wanted { since: FROM, until: FROM + 3_600_000, ..Wanted::default() }, 48);
    bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).for_each(|e| past.push(e));
    let past = past.finish(Some(FROM + 3_600_000));
    let calendar =
        render::history::Calendar { time: &|at| at.to_string(), zone: "UTC".to_owned(), scan_options: String::new() };
    let options = render::history::Options { width: 80, colour: false, unicode: true, all: true };
    drop(render::history::table(&past, &calendar, &options));
    render::document::history_markdown(&past, &calendar, true).expect("a ticket can always be written");
    render::document::history_html(&past, &calendar, true).expect("a page can always be written");
    render::json::history_text(&past).expect("a history can always be written");
    None
}

/// A capture is read up to where it is damaged; all that is read is told.
fn capture(bytes: &[u8]) -> Option<String> {
    let flows = rstdoctor::capture::read(Box::new(bytes), &[]).ok()?;
    assert!(flows.told.len() as u64 + flows.told_dropped <= flows.connections);
    assert_eq!(flows.resets_by.iter().sum::<u64>(), flows.resets);
    drop(report(&mut rstdoctor::input::of_flows(flows)));
    None
}

fn text(bytes: &[u8]) -> Option<String> {
    let opened = rstdoctor::input::of_text("fuzz", Box::new(std::io::Cursor::new(bytes.to_vec())));
    drop(report(&mut opened.ok()?));
    None
}

/// A sosreport, and how it is packed.
fn bundle(bytes: &[u8]) -> Option<String> {
    let opened = rstdoctor::input::of_bytes("fuzz", Box::new(std::io::Cursor::new(bytes.to_vec())));
    drop(report(&mut opened.ok()?));
    None
}

fn report(opened: &mut rstdoctor::Opened) -> Option<String> {
    let observation = observe(&mut *opened.host, &opened.plan).ok()?;
    written(&diagnose(observation.view()?))
}

fn written(diagnosis: &Diagnosis) -> Option<String> {
    let text = render::json::text(&render::json::report(diagnosis)).expect("a report can always be written");
    let options = render::table::Options { all: true, ..render::table::Options::default() };
    drop(render::table::table(diagnosis, &options));
    drop(render::table::table(diagnosis, &render::table::Options::default()));
    Some(text)
}

/// The report of the first window of a host that may hold anything.
fn replayed(host: &mut Between<'_>) -> Option<String> {
    let window = host.recording.windows().first()?.planned;
    let observation = observe(host, &Plan::scan(window)).ok()?;
    written(&diagnose(observation.view()?))
}

/// A recording must be refused when it is damaged, or say so, or give the diagnosis that it gave before.
fn recording(bytes: &[u8]) -> Option<String> {
    let recording = ReplayHost::read(bytes).ok()?;
    let whole = recording.cut().is_none();
    replayed(&mut Between { recording, answers: Vec::new(), instead: None }).filter(|_| whole)
}

/// Sound as a file, whatever it holds: another recording, which may say something else.
fn frames(bytes: &[u8]) -> Option<String> {
    drop(recording(bytes));
    None
}

/// The first two bytes say in which recording, the next two which answer is replaced by the rest: what is behind the
/// checksum of a recording is reached.
fn answers(bytes: &[u8]) -> Option<String> {
    let (head, instead) = bytes.split_first_chunk::<4>()?;
    let index = |at: usize| usize::from(u16::from_le_bytes([head[at], head[at + 1]]));
    let recording = RECORDINGS.get(index(0) % RECORDINGS.len().max(1))?;
    let recording = ReplayHost::read(&recording.1).expect("sound");
    drop(replayed(&mut Between { recording, answers: Vec::new(), instead: Some((index(2), instead)) }));
    None
}

/// The recordings of the fixtures, by path.
static RECORDINGS: LazyLock<Vec<(PathBuf, Vec<u8>)>> = LazyLock::new(|| {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    let causes = std::fs::read_dir(fixtures).expect("fixtures/").map(|entry| entry.expect("an entry").path());
    let files = causes.filter(|path| path.is_dir()).flat_map(|cause| std::fs::read_dir(cause).expect("a directory"));
    let mut paths: Vec<_> = files.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "rst"));
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("a recording"))).collect()
});

/// The files of a directory of the fixtures.
fn files(of: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(of);
    let mut paths: Vec<_> =
        std::fs::read_dir(directory).expect("fixtures").map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension != "md" && extension != "toml"));
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(path).expect("a file")).collect()
}

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let mut unpacked = Vec::new();
    match std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes), &mut unpacked) {
        Ok(_) => unpacked,
        Err(_) => bytes.to_vec(),
    }
}

/// Every question that a scan asks of a recording, and its answer.
type Asked = Vec<Vec<(String, Vec<u8>)>>;

static ASKED: LazyLock<Asked> = LazyLock::new(|| {
    let asked = |(path, bytes): &(PathBuf, Vec<u8>)| {
        let recording = ReplayHost::read(bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut host = Between { recording, answers: Vec::new(), instead: None };
        replayed(&mut host).unwrap_or_else(|| panic!("{} holds no window", path.display()));
        host.answers
    };
    RECORDINGS.iter().map(asked).collect()
});

impl Target {
    pub fn corpus(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(self.name)
    }

    /// Sound inputs, and the kept ones; each once.
    pub fn seeds(&self) -> Vec<Vec<u8>> {
        // Streams are asked often and mostly answer with nothing new.
        const MOST: usize = 400;
        let mut seeds: Vec<Vec<u8>> = match self.seeds {
            Seeds::Answers(key) => {
                let all = ASKED.iter().flatten().filter(|(of, bytes)| of.contains(key) && !bytes.is_empty());
                all.map(|(_, bytes)| bytes.clone()).collect()
            }
            Seeds::Recordings => RECORDINGS.iter().map(|(_, bytes)| bytes.clone()).collect(),
            Seeds::Replaced => {
                let of = |(recording, answers): (usize, &Vec<(String, Vec<u8>)>)| -> Vec<Vec<u8>> {
                    let number = |at: usize| (at as u16).to_le_bytes();
                    let seed = |(at, (_, bytes)): (usize, &(String, Vec<u8>))| {
                        [&number(recording)[..], &number(at)[..], bytes].concat()
                    };
                    // The first answer of each key: most of the others are the same source a moment later.
                    let mut keys = std::collections::BTreeSet::new();
                    answers.iter().enumerate().filter(|(_, (key, _))| keys.insert(key)).map(seed).collect()
                };
                ASKED.iter().enumerate().flat_map(of).collect()
            }
            Seeds::Captures => files("captures").into_iter().map(|bytes| unpacked(&bytes)).collect(),
            Seeds::Texts => files("texts"),
            Seeds::Corpus => Vec::new(),
        };
        seeds.sort();
        seeds.dedup();
        let step = seeds.len().div_ceil(MOST).max(1);
        let mut seeds: Vec<_> = seeds.into_iter().step_by(step).collect();
        seeds.extend(self.kept().into_iter().map(|(_, bytes)| bytes));
        seeds
    }

    /// What `corpus/NAME/` holds: inputs that once did harm, and sound ones that no recording has.
    pub fn kept(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let Ok(entries) = std::fs::read_dir(self.corpus()) else { return Vec::new() };
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        paths.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("a file"))).collect()
    }
}
