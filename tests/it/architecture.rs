//! The rules of the architecture, checked against the source text: one direction, a pure core, one file per cause.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rstdoctor::cause::{HEADINGS, REGISTRY};

/// Rooms that may touch files, sockets, clocks, environment and processes.
const IMPURE: [&str; 8] = ["kernel", "recording", "store", "input", "runtime", "output", "lab", "command"];

/// What a pure module must not name. Types that only describe an address or a time are allowed.
const FORBIDDEN: [&str; 18] = [
    "std::fs",
    "std::process",
    "std::env",
    "fs::File",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "UnixDatagram",
    "ToSocketAddrs",
    "SystemTime::now",
    "Instant::now",
    "libc::",
    "netlink_sys",
    "crossterm",
    "crate::kernel",
    "crate::command",
];

/// The rooms in the order of the flow, as `src/lib.rs` states it.
fn flow() -> Vec<String> {
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let text = fs::read_to_string(lib).expect("readable source");
    let rooms = text.lines().filter_map(|line| line.split_once("mod ")?.1.strip_suffix(';').map(str::to_owned));
    rooms.collect()
}

/// A source file without comments, string literals and its unit tests.
struct Source {
    path: PathBuf,
    /// First path segment below src, without `.rs`.
    room: String,
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 20, "the sources were found");
    files
        .into_iter()
        .map(|path| {
            let relative = path.strip_prefix(&root).expect("below src").to_owned();
            let room = relative.iter().next().expect("a file").to_string_lossy().replace(".rs", "");
            let text = fs::read_to_string(&path).expect("readable source");
            Source { path: relative, room, code: code_of(&text) }
        })
        .collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("readable directory") {
        let path = entry.expect("entry").path();
        let name = path.file_name().expect("name").to_string_lossy().into_owned();
        // Modules that exist only for tests.
        let test_only = ["testing.rs", "tests.rs", "samples.rs"].contains(&name.as_str());
        if path.is_dir() {
            collect(&path, files);
        } else if name.ends_with(".rs") && !test_only {
            files.push(path);
        }
    }
}

fn code_of(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = text.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code));
    lines.map(without_strings).collect::<Vec<_>>().join("\n")
}

/// Cuts what stands between double quotes on one line.
fn without_strings(line: &str) -> String {
    line.split('"').step_by(2).collect()
}

#[test]
fn pure_modules_touch_nothing_outside() {
    let mut offences = Vec::new();
    for source in sources() {
        if IMPURE.contains(&source.room.as_str()) || source.room == "main" {
            continue;
        }
        for word in FORBIDDEN.iter().filter(|word| source.code.contains(**word)) {
            offences.push(format!("{}: {word}", source.path.display()));
        }
    }
    assert!(offences.is_empty(), "only {IMPURE:?} may do this:\n{}", offences.join("\n"));
}

#[test]
fn the_rule_itself_sees_an_offence() {
    let code = code_of(
        "use std::fs; // std::env\nlet a = \"std::process\";\n#[cfg(test)]\nmod tests { use std::net::TcpStream; }",
    );
    let seen: Vec<_> = FORBIDDEN.iter().filter(|word| code.contains(**word)).collect();
    assert_eq!(seen, [&"std::fs"]);
}

/// A confidence, or a share that decides, stands in the table with its reason.
#[test]
fn causes_have_their_numbers_from_the_table() {
    let bare = |line: &&str| {
        let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_');
        words.filter(|word| word.starts_with("0.") && *word != "0.0").any(|word| word.trim_end_matches('0') != "0.")
    };
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| source.room == "cause" && !source.path.ends_with("numbers.rs")) {
        offences.extend(source.code.lines().filter(bare).map(|line| format!("{}: {line}", source.path.display())));
    }
    assert!(offences.is_empty(), "src/cause/numbers.rs is the place of these:\n{}", offences.join("\n"));
    assert!(bare(&"let confidence = if sure { 0.9 } else { x };") && !bare(&"per_s: 0.0, ports 10.0"));
}

/// The lint denies it elsewhere.
#[test]
fn unsafe_code_is_allowed_in_one_file_of_a_room() {
    let allowed = sources().into_iter().filter(|source| source.code.contains("allow(unsafe_code"));
    let elsewhere: Vec<_> =
        allowed.filter(|it| it.path != Path::new(&it.room).join("sys.rs")).map(|it| it.path).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}: only ROOM/sys.rs may allow it");
}

/// These panic where the limit of processes is reached.
#[test]
fn every_thread_may_fail_to_start() {
    let panics = |source: &Source| ["thread::spawn(", "scope.spawn("].iter().any(|call| source.code.contains(call));
    let offences: Vec<_> = sources().into_iter().filter(panics).map(|source| source.path).collect();
    assert!(
        offences.is_empty(),
        "{offences:?}: std::thread::Builder says why it fails; runtime::thread names the limits"
    );
}

#[test]
fn imports_go_one_way() {
    let flow = flow();
    let stage = |room: &str| flow.iter().position(|stage| stage == room);
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| !["lib", "main"].contains(&source.room.as_str())) {
        let Some(own) = stage(&source.room) else {
            offences.push(format!("{} is in no room of src/lib.rs", source.path.display()));
            continue;
        };
        for import in imports(&source.code) {
            if stage(&import).is_some_and(|other| other > own) {
                offences.push(format!("{} imports crate::{import}", source.path.display()));
            }
        }
    }
    assert!(offences.is_empty(), "against the flow {flow:?}:\n{}", offences.join("\n"));
}

/// Rooms named after `crate::`, also in `use crate::{a, b::c}`.
fn imports(code: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    let name = |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    for (_, rest) in code.match_indices("crate::").map(|(at, word)| (at, &code[at + word.len()..])) {
        match rest.strip_prefix('{').and_then(|list| list.split_once(';')) {
            Some((list, _)) => rooms.extend(list.split([',', '{', '}']).map(name)),
            None => {
                rooms.insert(name(rest));
            }
        }
    }
    rooms
}

#[test]
fn no_file_is_too_long_to_hold_in_the_head() {
    const LINES: usize = 500;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    // The one table of numbers grows by a section with each cause.
    for source in sources().iter().filter(|source| !source.path.ends_with("cause/numbers.rs")) {
        let lines = fs::read_to_string(root.join(&source.path)).expect("readable").lines().count();
        assert!(lines <= LINES, "{} has {lines} lines", source.path.display());
    }
}

/// The ids of the contract, stable for ever, in its order.
const CONTRACT: [&str; 41] = [
    "accept-queue-overflow",
    "accept-loop-stalled",
    "fd-exhaustion",
    "syn-queue-overflow",
    "syn-flood",
    "port-without-listener",
    "wrong-bind-address",
    "firewall-reject",
    "close-with-unread-data",
    "abortive-close",
    "late-data-after-close",
    "stale-connection",
    "listener-closed",
    "process-exit",
    "socket-destroyed",
    "orphan-limit",
    "tcp-memory-exhausted",
    "time-wait-table-full",
    "ephemeral-ports-exhausted",
    "conntrack-table-full",
    "conntrack-invalid",
    "keepalive-timeout",
    "retransmission-timeout",
    "idle-timeout",
    "idle-without-keepalive",
    "close-wait-leak",
    "peer-reset",
    "upstream-refused",
    "handshake-reset",
    "middlebox-reset",
    "timestamp-rejected",
    "out-of-window-reset",
    "health-check-resets",
    "connect-unanswered",
    "peer-restarted",
    "connection-limit",
    "peer-idle-limit",
    "slow-reader",
    "client-gave-up",
    "packets-discarded",
    "closed-without-answer",
];

#[test]
fn every_id_of_the_contract_is_judged_or_known_to_be_missing() {
    let registered: BTreeSet<_> = REGISTRY.iter().map(|cause| cause.id).collect();
    for id in CONTRACT {
        assert!(registered.contains(id), "{id} of the contract is not registered");
    }
    for id in registered {
        assert!(CONTRACT.contains(&id) || id == "port-scan", "{id} is not in the contract");
    }
}

#[test]
fn causes_are_well_formed() {
    let mut ids = BTreeSet::new();
    for cause in REGISTRY {
        assert!(ids.insert(cause.id), "{} is there twice", cause.id);
        let kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(cause.id.chars().all(kebab), "{} is not kebab-case", cause.id);
        assert!(cause.title.chars().next().is_some_and(char::is_uppercase), "{}: {:?}", cause.id, cause.title);
        assert!(!cause.title.ends_with('.'), "{}: {:?}", cause.id, cause.title);
        for symptom in cause.explains {
            assert!(CONTRACT.contains(symptom), "{} explains {symptom}, which does not exist", cause.id);
            assert_ne!(*symptom, cause.id, "{} explains itself", cause.id);
        }
    }
}

#[test]
fn every_cause_is_documented_under_the_same_headings() {
    for cause in REGISTRY {
        let found: Vec<_> = cause.doc.lines().filter_map(|line| line.trim().strip_prefix("## ")).collect();
        assert_eq!(found, HEADINGS, "headings of {}", cause.id);
        let sections = cause.doc.split("## ").skip(1);
        for section in sections {
            assert!(section.lines().skip(1).any(|line| !line.trim().is_empty()), "{}: empty: {section}", cause.id);
        }
    }
}

#[test]
fn every_cause_has_a_file_of_its_name() {
    for cause in REGISTRY {
        let file = format!("src/cause/{}.rs", cause.id.replace('-', "_"));
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(&file).is_file(), "{file} is missing");
    }
}
