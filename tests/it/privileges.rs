//! What each privilege of the README's table shows, and tracefs where nobody has mounted it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::common::skipped;

const README: &str = include_str!("../../README.md");
const NOBODY: &str = "65534";

/// The program where any user may run it. Gone with the value.
struct Program(PathBuf);

impl Program {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("rstdoctor-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("its mode");
        fs::copy(env!("CARGO_BIN_EXE_rstdoctor"), directory.join("rstdoctor")).expect("a copy of the program");
        Self(directory)
    }

    fn path(&self) -> PathBuf {
        self.0.join("rstdoctor")
    }

    /// Its arguments run as an ordinary user with these capabilities and no others.
    fn user(capabilities: &[&str]) -> Command {
        let these: String = capabilities.iter().map(|name| format!(",+{}", &name.to_lowercase()[4..])).collect();
        let mut command = with_tracefs();
        command.args(["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
        for kind in ["--inh-caps", "--ambient-caps", "--bounding-set"] {
            command.arg(format!("{kind}=-all{these}"));
        }
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    /// As an ordinary user with these capabilities and no others.
    fn with(&self, capabilities: &[&str], arguments: &[&str]) -> Output {
        Self::user(capabilities).arg(self.path()).args(arguments).output().expect("setpriv")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The tests below change to other users and namespaces.
fn may_run() -> bool {
    // SAFETY: geteuid(2) takes nothing.
    let root = unsafe { libc::geteuid() } == 0;
    let here = |program: &str| ["/usr/bin", "/bin", "/usr/sbin"].iter().any(|at| Path::new(at).join(program).exists());
    let may = root && here("setpriv") && here("unshare");
    if !may {
        skipped("needs root, setpriv and unshare");
    }
    may
}

/// Runs its arguments where tracefs is mounted, as systemd does on every host: here only they see it.
fn with_tracefs() -> Command {
    let mount = "grep -q ' /sys/kernel/tracing ' /proc/self/mountinfo || mount -t tracefs tracefs /sys/kernel/tracing || exit 77; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", mount, "sh"]);
    command
}

/// The capabilities of the table's line whose second column begins so.
fn line(what: &str) -> Vec<&'static str> {
    let line = README.lines().find(|line| line.starts_with('|') && line.contains(&format!("| {what}")));
    let first = line.and_then(|line| line.split('|').nth(1)).unwrap_or_else(|| panic!("no line for {what:?}"));
    first.split('`').filter(|word| word.starts_with("CAP_")).collect()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn each_capability_of_the_table_shows_what_it_promises_and_none_of_them_is_too_many() {
    if !may_run() {
        return;
    }
    let program = Program::new("privileges");
    let owners = |capabilities: &[&str]| {
        let output = program.with(capabilities, &["scan", "--this-netns", "--json", "-d", "200ms", "--no-events"]);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a report");
        let sources = report["sources"].as_array().expect("sources").iter();
        sources.into_iter().any(|source| source["name"] == "owners" && source["status"] == "ok")
    };
    let trace = |capabilities: &[&str]| errors(&program.with(capabilities, &["trace", "--this-netns", "-d", "300ms"]));
    let events = |capabilities: &[&str]| {
        let said = trace(capabilities);
        !said.contains("not traced") && !said.contains("tracepoints")
    };
    let packets = |capabilities: &[&str]| !trace(capabilities).contains("RST packets");
    let (all, fewer) = (line("the owners of all sockets"), |mut all: Vec<&'static str>| {
        all.pop();
        all
    });
    assert!(owners(&all) && !owners(&fewer(all.clone())), "{all:?}");
    let all = line("each reset with its reason");
    assert!(events(&all), "{all:?}: {}", trace(&all));
    assert!(!events(&["CAP_PERFMON"]) && !events(&["CAP_DAC_READ_SEARCH"]));
    let all = line("RST packets");
    assert!(packets(&all) && !packets(&[]), "{all:?}: {}", trace(&all));
}

#[test]
fn what_is_refused_names_the_shortest_capability() {
    if !may_run() {
        return;
    }
    let program = Program::new("needs");
    let said = errors(&program.with(&[], &["trace", "--this-netns", "-d", "100ms"]));
    let events = "root or CAP_PERFMON with CAP_DAC_READ_SEARCH";
    assert!(said.contains(events) && said.contains("root or CAP_NET_RAW"), "{said}");
    let said = errors(&program.with(&["CAP_PERFMON"], &["trace", "--this-netns", "-d", "100ms"]));
    assert!(said.contains("root or CAP_DAC_READ_SEARCH"), "only what is missing: {said}");
    let mut inside = with_tracefs();
    inside.args(["unshare", "-Ur"]).arg(program.path()).args(["trace", "--this-netns", "-d", "100ms"]);
    let said = errors(&inside.current_dir("/").stdin(Stdio::null()).output().expect("unshare"));
    assert!(said.contains("on the host: this is a user namespace"), "{said}");
    for arguments in [&["scan", "--this-netns", "-d", "100ms"][..], &["scan", "--this-netns", "--all", "-d", "100ms"]] {
        let mut inside = with_tracefs();
        inside.args(["unshare", "-Ur"]).arg(program.path()).args(arguments);
        let output = inside.current_dir("/").stdin(Stdio::null()).output().expect("unshare");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("root of a user namespace"), "{said}");
    }
    let mut inside = with_tracefs();
    inside.args(["unshare", "-Ur"]).arg(program.path()).args(["scan", "--netns", "1", "-d", "100ms"]);
    let said = errors(&inside.current_dir("/").stdin(Stdio::null()).output().expect("unshare"));
    assert!(!said.contains("needs root") && said.contains("on the host: this is a user namespace"), "{said}");
}

/// What is asked once, when the recorder begins, is not asked again for each recording.
#[test]
fn what_an_ordinary_users_recorder_could_not_see_is_missing_for_the_reason_of_then() {
    if !may_run() {
        return;
    }
    let program = Program::new("recorder");
    let store = program.0.join("store");
    fs::create_dir(&store).expect("a store");
    fs::set_permissions(&store, fs::Permissions::from_mode(0o700)).expect("its mode");
    let nobody = NOBODY.parse().ok();
    std::os::unix::fs::chown(&store, nobody, nobody).expect("its owner");
    let missing = |arguments: &[&str]| -> BTreeSet<String> {
        let output = program.with(&[], &[&["scan", "--json"], arguments].concat());
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a report");
        let sources = report["sources"].as_array().expect("sources").iter();
        let streams = ["reset_events", "reset_packets", "destroyed_sockets"];
        let missing = sources.filter(|source| streams.iter().any(|stream| source["name"] == *stream));
        missing.map(ToString::to_string).collect()
    };
    let path = store.display().to_string();
    let agent = ["agent", "--this-netns", "--interval", "500ms", "--store", &path];
    let mut recorder = Program::user(&[]);
    recorder.args(["timeout", "--signal=TERM", "7"]).arg(program.path()).args(agent);
    assert!(recorder.output().expect("timeout").status.code() == Some(124), "it was asked to end");
    let live = missing(&["--this-netns", "-d", "300ms"]);
    assert!(live.iter().any(|text| text.contains("root or CAP_NET_RAW")), "{live:?}");
    let date = Command::new("date").args(["-u", "-d", "-3 seconds", "+%FT%TZ"]).output().expect("date");
    let at = String::from_utf8(date.stdout).expect("a time");
    assert_eq!(missing(&["--store", &path, "--at", at.trim()]), live);
}

/// A script in a mount and process namespace of its own, without tracefs. `$0` is the program.
fn without_tracefs(program: &Program, script: &str) -> Output {
    let unmounted = format!(
        "while grep -q ' - tracefs ' /proc/self/mountinfo; do \
             umount \"$(grep -m1 ' - tracefs ' /proc/self/mountinfo | cut -d ' ' -f 5)\" || exit 77; \
         done; before=$(cat /proc/self/mountinfo); {script}; \
         [ \"$before\" = \"$(cat /proc/self/mountinfo)\" ] || {{ echo 'mounts changed' >&2; exit 78; }}"
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", &unmounted]).arg(program.path());
    command.current_dir("/").stdin(Stdio::null()).output().expect("unshare")
}

/// Everything that is mounted here, and the instances of tracefs.
fn mounts_and_instances() -> (String, Vec<std::ffi::OsString>) {
    let instances = fs::read_dir("/sys/kernel/tracing/instances").into_iter().flatten().flatten();
    let mut instances: Vec<_> = instances.map(|instance| instance.file_name()).collect();
    instances.sort();
    (fs::read_to_string("/proc/self/mountinfo").expect("mounts"), instances)
}

#[test]
fn a_tracefs_that_nobody_mounted_is_mounted_where_nobody_sees_it() {
    if !may_run() {
        return;
    }
    let program = Program::new("tracefs");
    let before = mounts_and_instances();
    let output = without_tracefs(&program, "\"$0\" trace -d 300ms");
    let said = errors(&output);
    if output.status.code() == Some(77) {
        return skipped("tracefs cannot be unmounted here");
    }
    assert!(output.status.success(), "{said}");
    assert!(said.contains("mounted where only this program sees it"), "{said}");
    assert!(!said.contains("not traced"), "{said}");
    // A scan has its events as well: no cause lacks them.
    let output = without_tracefs(&program, "\"$0\" scan --this-netns --json -d 300ms || [ $? -lt 3 ] || exit 1");
    assert!(output.status.success(), "{}", errors(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a report");
    let lacks_events = |cause: &serde_json::Value| cause["missing"].to_string().contains("reset_events");
    let unchecked = report["not_checked"].as_array().expect("a list");
    assert!(!unchecked.iter().any(lacks_events), "{unchecked:?}");
    // Killed while it looks: it has opened its tracepoints, so its tracefs was there.
    for command in ["trace", "scan --this-netns"] {
        let killed = format!(
            "\"$0\" {command} -d 60s >/dev/null 2>&1 & child=$!; \
             until ls -l /proc/$child/fd | grep -q perf_event; do kill -0 $child || exit 79; sleep 0.05; done; \
             kill -KILL $child; wait $child 2>/dev/null"
        );
        let output = without_tracefs(&program, &killed);
        assert!(output.status.success(), "{command}: {}", errors(&output));
    }
    assert_eq!(mounts_and_instances(), before);
}
