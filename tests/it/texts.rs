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

fn scanned(name: &str, bytes: &[u8], options: &[&str]) -> Output {
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join(name);
    std::fs::write(&file, bytes).expect("write");
    rstdoctor(&["scan", "--from"]).arg(&file).args(options).output().expect("runs")
}

/// A request with its data as -A prints it, and a reset.
const WITH_DATA: &str =
    "12:00:00.100000 IP 10.0.0.1.40000 > 10.0.0.2.80: Flags [S], seq 100, win 64240, options [mss 1460], length 0
E..<..@.@.&..........@.P...d........................
12:00:00.100500 IP 10.0.0.2.80 > 10.0.0.1.40000: Flags [S.], seq 500, ack 101, win 65160, length 0
E..(..@.@.&..........P.@....
12:00:00.100700 IP 10.0.0.1.40000 > 10.0.0.2.80: Flags [.], ack 1, win 502, length 0
E..(..@.@.&..........@.P....
12:00:00.101000 IP 10.0.0.1.40000 > 10.0.0.2.80: Flags [P.], seq 1:80, ack 1, win 502, length 79: HTTP: GET / HTTP/1.1
E..w..@.@.&..........@.P....GET / HTTP/1.1
Host: 10.0.0.2
User-Agent: curl/7.68.0


12:00:00.102000 IP 10.0.0.2.80 > 10.0.0.1.40000: Flags [R.], seq 1, ack 80, win 502, length 0
E..(..@.@.&..........P.@....
";

#[test]
fn data_between_packets_and_the_encodings_of_windows_are_read_as_the_same_text() {
    let utf16 = |big: bool| -> Vec<u8> {
        let unit = |unit: u16| if big { unit.to_be_bytes() } else { unit.to_le_bytes() };
        std::iter::once(0xfeff).chain(WITH_DATA.encode_utf16()).flat_map(unit).collect()
    };
    let marked = format!("\u{feff}{}", WITH_DATA.replace('\n', "\r\n"));
    for bytes in [WITH_DATA.as_bytes().to_vec(), marked.into_bytes(), utf16(false), utf16(true)] {
        let output = scanned("paste.txt", &bytes, &["--json"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !said.contains("not understood"), "{said}");
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let capture = &report["capture"];
        assert_eq!((&capture["packets"], &capture["resets"]), (&5.into(), &1.into()));
        assert_eq!(capture["flows"][0]["rst"][0]["phase"], "waiting-for-answer");
    }
}

#[test]
fn packets_without_flags_are_told_as_what_they_lack() {
    let text = "12:00:00.100000 IP 10.0.0.1.40000 > 10.0.0.2.80: tcp 0\n12:00:00.100500 IP 10.0.0.2.80 > 10.0.0.1.40000: tcp 517\n";
    let output = scanned("quiet.txt", text.as_bytes(), &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("2 packets as tcpdump -q prints them") && said.contains("without -q"), "{said}");
}

#[test]
fn what_a_kernel_log_says_is_not_outvoted_by_counters_that_are_zero() {
    let log =
        "Nov 20 14:02:11 web kernel: TCP: request_sock_TCP: Possible SYN flooding on port 8080. Sending cookies.\n";
    let text = format!(
        "{log}TcpExt: SyncookiesSent SyncookiesRecv ListenOverflows ListenDrops TCPReqQFullDoCookies TCPReqQFullDrop\nTcpExt: 0 0 0 0 0 0\n"
    );
    let output = scanned("both.txt", text.as_bytes(), &["--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let first = &report["causes"][0];
    assert_eq!((&first["id"], &first["state"]), (&"syn-queue-overflow".into(), &"past".into()));
    let all = first.to_string();
    assert!(all.contains("11-20 14:02:11"), "the time of the line: {all}");
    assert!(all.contains("before this boot"), "what the counters say: {all}");
}

#[test]
fn a_symptom_of_many_causes_names_them_and_is_not_sure() {
    let output = scanned("log.txt", b"read: connection reset by peer\n", &["--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let first = &report["causes"][0];
    assert!(first["confidence"].as_f64().is_some_and(|sure| sure < 0.5), "{first}");
    let but = first["counter_evidence"].to_string();
    assert!(but.contains("listener-closed") && but.contains("process-exit"), "{but}");
}

#[test]
fn an_address_that_no_packet_has_is_no_side() {
    let capture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/captures/stale-after-restart.pcap");
    let output = rstdoctor(&["scan", "--local", "192.0.2.77", "--from"]).arg(&capture).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(3) && said.contains("no TCP packet of 192.0.2.77"), "{said}");
    let recording = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/peer-reset/positive.rst");
    let mut command = rstdoctor(&["scan", "--local", "10.0.0.1", "--from"]);
    let output = command.arg(&recording).arg("--from").arg(&capture).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(3) && said.contains("leave --local out"), "{said}");
}
