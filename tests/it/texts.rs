//! Texts as people paste them: what each says, as `scan --from` reads it.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::cli::rstdoctor;

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/texts").join(file)
}

fn scan(files: &[&str], options: &[&str]) -> Output {
    let mut command = rstdoctor(&["scan", "--from"]);
    command.args(files.iter().map(|file| path(file))).args(options).output().expect("runs")
}

fn report(files: &[&str]) -> Value {
    let output = scan(files, &["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn causes(report: &Value) -> Vec<(&str, &str, f64)> {
    let causes = report["causes"].as_array().expect("causes").iter();
    let text = |cause: &'_ Value, key: &str| cause[key].as_str().expect("text").to_owned();
    let all: Vec<(String, String, f64)> = causes
        .map(|cause| (text(cause, "id"), text(cause, "state"), cause["confidence"].as_f64().expect("a number")))
        .collect();
    all.into_iter().map(|(id, state, sure)| (&*id.leak(), &*state.leak(), sure)).collect()
}

#[test]
fn a_full_queue_is_seen_in_pasted_sockets_and_counters() {
    for file in ["netstat-st-ss-nltp-k8s-node.txt", "nstat-az-ss-accept-queue.txt"] {
        let report = report(&[file]);
        assert_eq!((&report["verdict"]["status"], &report["coverage"]["kind"]), (&"warning".into(), &"text".into()));
        let causes = causes(&report);
        let first: Vec<_> = causes.iter().take(2).map(|(id, ..)| *id).collect();
        assert!(first.contains(&"accept-queue-overflow"), "{file}: {causes:?}");
        assert_eq!(report["window"]["duration_s"], 0.0, "totals since boot");
    }
}

#[test]
fn totals_since_boot_are_past_and_never_sure() {
    let report = report(&["proc-net-snmp-netstat-sockstat.txt"]);
    assert_eq!(report["verdict"]["status"], "unknown");
    let causes = causes(&report);
    assert!(!causes.is_empty() && causes.iter().all(|(_, state, _)| *state == "past"), "{causes:?}");
    let hinted = causes.iter().filter(|(id, ..)| *id != "time-wait-table-full" && *id != "accept-queue-overflow");
    assert!(hinted.clone().all(|(_, _, sure)| *sure <= 0.6), "{causes:?}");
    assert_eq!(report["counters"]["Tcp.OutRsts"]["total"], 1003);
}

#[test]
fn two_texts_are_a_window() {
    let report = report(&["netstat-s-before.txt", "netstat-s-after.txt"]);
    let overflow = report["causes"].as_array().expect("causes").iter().find(|it| it["id"] == "accept-queue-overflow");
    let overflow = overflow.expect("the queue overflowed between the two");
    assert_eq!((&overflow["state"], &overflow["impact"]["events"]), (&"active".into(), &300.into()));
}

#[test]
fn packets_as_text_are_a_capture() {
    let report = report(&["tcpdump-refused-v.txt"]);
    let capture = &report["capture"];
    assert_eq!(
        [&capture["packets"], &capture["connections"], &capture["resets"]],
        [&Value::from(2), &1.into(), &1.into()]
    );
    let flow = &capture["flows"][0];
    assert_eq!((&flow["phase"], &flow["reset_by"]), (&"refused".into(), &"acceptor".into()));
    assert_eq!(flow["rst"][0]["ttl"], 61);
}

#[test]
fn another_language_is_refused_with_the_way_out() {
    let output = scan(&["netstat-s-de.txt"], &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(3), true), "{said}");
    assert!(said.contains("LC_ALL=C netstat -s"), "{said}");
}

#[test]
fn what_was_not_understood_is_named_with_its_line() {
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("paste.txt");
    std::fs::write(&file, "TcpExtListenOverflows 72 0.0\nfrobnicate 7\n").expect("write");
    let output = rstdoctor(&["scan", "--from"]).arg(&file).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("line 2: frobnicate 7"), "{said}");
    std::fs::write(&file, "all is well\nERROR flux capacitor misaligned\n").expect("write");
    let output = rstdoctor(&["scan", "--from"]).arg(&file).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("line 2") && said.contains("flux capacitor"), "{said}");
}

/// A report as sos 4 lays it out, from what was pasted elsewhere: (path, text).
fn report_files() -> Vec<(&'static str, Vec<u8>)> {
    let counters = std::fs::read(path("netstat-s-before.txt")).expect("read");
    let log = "Nov 20 14:02:11 web sshd[7]: error: Exceeded MaxStartups\n";
    vec![
        ("sos_commands/networking/netstat_-s", counters),
        ("sos_commands/networking/ss_-peaonmi", b"Netid State Recv-Q Send-Q Local Address:Port Peer Address:Port Process\nu_str ESTAB 0 0 * 21789632 * 21789633 users:((\"a\",pid=1,fd=3))\ntcp LISTEN 9 8 0.0.0.0:8080 0.0.0.0:* users:((\"app\",pid=7,fd=3)) ino:1065 sk:1 <->\n\t skmem:(r0,rb131072,t0,tb16384,f0,w0,o0,bl0,d0) cubic cwnd:10\n".to_vec()),
        ("sos_commands/networking/namespaces/blue/ss_-peaonmi", b"LISTEN 99 8 0.0.0.0:99 0.0.0.0:*\n".to_vec()),
        ("sos_commands/kernel/uname_-a", b"Linux web 6.1.0-9-amd64 #1 SMP x86_64 GNU/Linux\n".to_vec()),
        ("sos_commands/host/hostname", b"web\n".to_vec()),
        ("sos_commands/host/uptime", b" 02:36:13 up 5 days,  3:02,  1 user,  load average: 5.14, 2.64, 2.11\n".to_vec()),
        ("var/log/messages", log.as_bytes().to_vec()),
        ("etc/ssh/ssh_host_key", b"not read".to_vec()),
    ]
}

#[test]
fn a_sosreport_is_an_observation_of_its_host_packed_or_not() {
    let directory = tempfile::tempdir().expect("directory");
    let inside = directory.path().join("sosreport-web");
    for (path, text) in report_files() {
        let file = inside.join(path);
        std::fs::create_dir_all(file.parent().expect("parent")).expect("directory");
        std::fs::write(file, text).expect("write");
    }
    let pack = |name: &str, option: &str| {
        let archive = directory.path().join(name);
        let mut tar = std::process::Command::new("tar");
        let tar = tar.arg("-C").arg(directory.path()).args([option, "-cf"]).arg(&archive).arg("sosreport-web");
        assert!(tar.status().expect("tar runs").success());
        archive
    };
    let forms = [inside.clone(), pack("a.tar", "--format=gnu"), pack("a.tar.gz", "-z"), pack("a.tar.xz", "-J")];
    for form in &forms {
        let output = rstdoctor(&["scan", "--json", "--from"]).arg(form).output().expect("runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let report: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}: {said}", form.display()));
        assert_eq!((&report["host"]["hostname"], &report["host"]["kernel"]), (&"web".into(), &"6.1.0-9-amd64".into()));
        assert_eq!(report["listeners"].as_array().expect("listeners").len(), 1, "not those of another namespace");
        let ids: Vec<_> = causes(&report).into_iter().map(|(id, ..)| id).collect();
        assert!(ids.contains(&"accept-queue-overflow"), "{ids:?}");
        assert!(said.contains("not blue"), "{said}");
    }
}

#[test]
fn an_archive_of_something_else_is_refused() {
    let directory = tempfile::tempdir().expect("directory");
    std::fs::write(directory.path().join("a"), "b\n").expect("write");
    let archive = directory.path().join("a.tar");
    let mut tar = std::process::Command::new("tar");
    assert!(tar.arg("-C").arg(directory.path()).arg("-cf").arg(&archive).arg("a").status().expect("tar").success());
    let output = rstdoctor(&["scan", "--from"]).arg(&archive).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(3) && said.contains("no sosreport"), "{said}");
}

#[test]
fn rates_and_events_are_read_by_both_doors() {
    use std::io::Write;
    let text = "Linux 6.18.44 (vm) \t11/27/26 \t_x86_64_\t(2 CPU)\n\n03:00:37     atmptf/s  estres/s retrans/s isegerr/s   orsts/s\n\
        03:00:38         0.00      0.00      0.00      0.00      0.00\n03:00:39         0.00     98.00      0.00      0.00      0.00\n\
        nginx-4122  [001] ..s1.  4.5: tcp_send_reset: skbaddr=0 skaddr=0 src=10.0.0.1:80 dest=10.0.0.2:4 state=TCP_ESTABLISHED reason=TCP_ABORT_ON_CLOSE\n";
    for arguments in [&["explain", "-"][..], &["scan", "--all", "--from", "-"]] {
        let mut command = rstdoctor(arguments);
        let command = command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.stderr(std::process::Stdio::piped()).spawn().expect("runs");
        child.stdin.take().expect("input").write_all(text.as_bytes()).expect("write");
        let output = child.wait_with_output().expect("ends");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said: String = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains("1 RST sent from port 80 by nginx, TCP_ABORT_ON_CLOSE"), "{said}");
        assert!(said.contains("98.0/s at 03:00:39"), "{said}");
    }
}
