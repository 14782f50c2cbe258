//! `rstdoctor trace` on real resets, in a network namespace of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::{is_ignored, isolated, linger_0, skipped, tracefs};
use rustix::process::Signal;
use serde_json::Value;

/// Starts a trace and waits until it looks.
fn trace(arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rstdoctor"));
    let here = if arguments.contains(&"--from") { None } else { Some("--this-netns") };
    let child = command
        .arg("trace")
        .args(here)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = child.spawn().unwrap();
    // Nothing on a pipe says that it began; the stream that it opens last does, the one of destroyed sockets: a socket of
    // NETLINK_SOCK_DIAG (4) that is a member of a group.
    let opened = |text: String| {
        text.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.get(1) == Some(&"4") && fields.get(3).is_some_and(|groups| groups.bytes().any(|digit| digit != b'0'))
        })
    };
    let start = Instant::now();
    while !std::fs::read_to_string("/proc/net/netlink").is_ok_and(opened) {
        assert!(start.elapsed() < Duration::from_secs(20), "it does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    // It reads the counters then, and what comes before that is not part of the trace.
    std::thread::sleep(Duration::from_millis(500));
    child
}

fn interrupt(child: &Child) {
    // SAFETY: kill(2) takes no pointers; the child was not waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
}

fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// One closed port, one close with unread data, one abort: each is sent by one end and received by the other.
fn three_faults() {
    assert!(TcpStream::connect("127.0.0.1:81").is_err());
    let listener = TcpListener::bind("127.0.0.1:9000").unwrap();
    let (mut client, server) = pair(&listener);
    client.write_all(&[1; 1204]).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    drop(server);
    std::thread::sleep(Duration::from_millis(50));
    let (aborted, server) = pair(&listener);
    linger_0(&server);
    drop(server);
    std::thread::sleep(Duration::from_millis(300));
    drop((client, aborted));
}

#[test]
fn each_reset_is_a_line_and_an_interrupt_ends_with_the_summary() {
    isolated(|| {
        let child = trace(&[]);
        three_faults();
        interrupt(&child);
        let output = child.wait_with_output().unwrap();
        let (lines, summary) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!(output.status.code(), Some(0), "an interrupt is how a trace ends: {summary}");
        let one = |parts: &[&str]| {
            let found = lines.lines().filter(|line| parts.iter().all(|part| line.contains(part))).count();
            assert_eq!(found, 1, "{parts:?} in:\n{lines}");
        };
        let me = std::process::id().to_string();
        one(&["sent", "127.0.0.1:81 >", "nothing listens on 81"]);
        one(&["received", "< 127.0.0.1:81", "connect refused"]);
        one(&[
            "sent",
            "127.0.0.1:9000 >",
            "turned away right after accept",
            &me,
            "ESTABLISHED, idle 0",
            "1,204 bytes in, 0 out, 1,204 unread",
        ]);
        one(&["sent", "127.0.0.1:9000 >", "aborted by the application", &me]);
        assert_eq!(lines.lines().filter(|line| line.contains("received")).count(), 3, "{lines}");
        assert_eq!(lines.lines().count(), 6, "{lines}");
        assert!(summary.contains("6 resets in ") && summary.contains("3 sent, 3 received"), "{summary}");
        for part in [
            "1 sent: turned away right after accept",
            "2 received: sent by this host, both ends here",
            "9000:",
            "127.0.0.1:",
        ] {
            assert!(summary.replace('\u{a0}', " ").contains(part), "{part} in {summary}");
        }
        assert!(!summary.contains("lost"), "{summary}");
    });
}

#[test]
fn json_lines_follow_the_schema_and_the_filters() {
    isolated(|| {
        let child = trace(&["--json", "--sent", "--port", "9000", "-d", "3s"]);
        three_faults();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let schema: Value = serde_json::from_str(&rstdoctor::render::json::trace_schema()).unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines.iter().all(|line| validator.is_valid(line)), "{text}");
        let reasons: Vec<_> = lines.iter().filter(|l| l["type"] == "reset").map(|l| l["reason"].clone()).collect();
        assert_eq!(reasons, ["turned-away", "aborted"], "{text}");
        let first = &lines[0];
        assert_eq!(
            (&first["traced"], &first["packet"]["form"]),
            (&Value::from(true), &Value::from("active")),
            "{text}"
        );
        assert_eq!(first["process"]["pid"], std::process::id());
        assert_eq!(first["state_before"], "ESTABLISHED");
        assert_eq!((&first["unread"], &first["bytes_in"], &first["unsent"]), (&1204.into(), &1204.into(), &0.into()));
        let idle = first["idle_s"].as_f64().unwrap();
        assert!((0.04..0.5).contains(&idle), "written 0.05 s before: {text}");
        assert!(lines[1].get("idle_s").is_none(), "disconnect() has reset what the socket knew: {text}");
        let last = lines.last().unwrap();
        assert_eq!((&last["type"], &last["total"], &last["lost"]), (&"summary".into(), &2.into(), &0.into()), "{text}");
    });
}

/// Nothing but a timer sends this RST: whichever task it interrupts, in whichever namespace, has no part in it.
#[test]
fn a_keepalive_that_gives_up_is_seen_on_loopback_and_names_the_holder_of_the_connection() {
    isolated(|| {
        let listener = TcpListener::bind("127.0.0.1:9000").unwrap();
        let (client, server) = pair(&listener);
        for (option, value) in [(libc::TCP_KEEPIDLE, 1i32), (libc::TCP_KEEPINTVL, 1), (libc::TCP_KEEPCNT, 2)] {
            set(&client, libc::IPPROTO_TCP, option, value);
        }
        set(&client, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1);
        let port = client.local_addr().unwrap().port();
        let rules = format!(
            "table ip t {{\nchain o {{\ntype filter hook output priority 0;\ntcp sport 9000 tcp dport {port} drop\n}}\n}}\n"
        );
        let Ok(status) = Command::new("nft").arg(rules).status() else { return skipped("needs nft") };
        assert!(status.success(), "nft: {status}");
        // Some virtual machines lose the records of what a timer does on an idle CPU, whoever reads them.
        let busy = Arc::new(AtomicBool::new(true));
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            let busy = Arc::clone(&busy);
            std::thread::spawn(move || while busy.load(Ordering::Relaxed) {});
        }
        let child = trace(&["--json", "-d", "6s"]);
        let output = child.wait_with_output().unwrap();
        busy.store(false, Ordering::Relaxed);
        drop((client, server));
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let sent: Vec<_> = lines.iter().filter(|line| line["direction"] == "sent").collect();
        assert_eq!(sent.len(), 1, "{text}");
        assert_eq!((&sent[0]["reason"], &sent[0]["traced"]), (&"keepalive-timeout".into(), &true.into()), "{text}");
        let process = &sent[0]["process"];
        assert_eq!((&process["pid"], &process["basis"]), (&std::process::id().into(), &"connection".into()), "{text}");
    });
}

/// A network namespace beyond an interface of this one, as long as its process lives.
struct Beyond(Child);

impl Beyond {
    /// Behind the interface `name`, which has the address 10.231.SUBNET.1, with the address 10.231.SUBNET.2.
    fn new(name: &str, subnet: u8) -> Option<Self> {
        let there = Self(Command::new("unshare").args(["-n", "sleep", "60"]).spawn().ok()?);
        let netns = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let (start, pid) = (Instant::now(), there.0.id().to_string());
        while netns(&pid) == netns("self") {
            assert!(start.elapsed() < Duration::from_secs(20), "unshare makes no namespace");
            std::thread::sleep(Duration::from_millis(10));
        }
        let made = sh(&format!(
            "ip link add name {name} type veth peer name eth0 netns {pid} && ip link set {name} up && \
             ip address add 10.231.{subnet}.1/24 dev {name} && nsenter -t {pid} -n sh -c 'ip link set lo up; \
             ip link set eth0 up; ip address add 10.231.{subnet}.2/24 dev eth0; ip route add default via 10.231.{subnet}.1'"
        ));
        made.then_some(there)
    }

    fn connects_to(&self, address: &str, port: u16) {
        sh(&format!("nsenter -t {} -n bash -c 'exec 3<>/dev/tcp/{address}/{port}' 2>/dev/null", self.0.id()));
    }
}

impl Drop for Beyond {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sh(script: &str) -> bool {
    Command::new("sh").args(["-c", script]).status().is_ok_and(|status| status.success())
}

/// A published port, as container runtimes have it: the RST of the server leaves this host with an address of this host.
#[test]
fn of_what_passes_only_what_a_rule_of_this_host_sends_is_shown() {
    isolated(|| {
        let rules = "table ip n {\n chain p {\n type nat hook prerouting priority -100\n tcp dport 18081 dnat to 10.231.2.2:8080\n }\n \
             chain q {\n type nat hook postrouting priority 100\n }\n}\ntable ip f {\n chain f {\n \
             type filter hook forward priority 0\n tcp dport 8091 reject with tcp reset\n }\n}\n";
        let (caller, called) = (Beyond::new("left", 1), Beyond::new("right", 2));
        let (Some(caller), Some(_called)) = (caller, called) else { return skipped("needs ip, unshare and nsenter") };
        if !sh("echo 1 > /proc/sys/net/ipv4/ip_forward") || !sh(&format!("nft '{rules}'")) {
            return skipped("needs nft with NAT");
        }
        let child = trace(&[]);
        caller.connects_to("10.231.1.1", 18081);
        caller.connects_to("10.231.2.2", 8081);
        caller.connects_to("10.231.2.2", 8091);
        std::thread::sleep(Duration::from_millis(300));
        interrupt(&child);
        let output = child.wait_with_output().unwrap();
        let (lines, summary) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!(lines.lines().count(), 1, "{lines}{summary}");
        assert!(lines.contains("sent      10.231.2.2:8091 > 10.231.1.2:"), "{lines}");
        assert!(lines.contains("firewall reject (forward rule)"), "{lines}");
        assert!(summary.contains("1 reset in ") && summary.contains("2 RST packets that were forwarded"), "{summary}");
    });
}

/// Its name goes in the middle, as a container's that ends.
#[test]
fn a_namespace_that_is_gone_is_told() {
    isolated(|| {
        let name = format!("rst-gone-{}", std::process::id());
        if !sh(&format!("ip netns add {name}")) {
            return skipped("needs ip netns");
        }
        let run = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_rstdoctor"));
            command.args(arguments).args(["--netns", &name, "-d", "3s"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let file = std::env::temp_dir().join(format!("{name}.rst"));
        let children = [run(&["trace"]), run(&["scan"]), run(&["record", "-o", file.to_str().unwrap()])];
        std::thread::sleep(Duration::from_millis(1500));
        assert!(sh(&format!("ip netns del {name}")));
        for child in children {
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(said.matches("the network namespace is gone").count(), 1, "{said}");
        }
        let _ = std::fs::remove_file(file);
    });
}

fn set(stream: &TcpStream, level: i32, option: i32, value: i32) {
    // SAFETY: the value is an int of the stated size.
    let result = unsafe {
        libc::setsockopt(stream.as_raw_fd(), level, option, (&raw const value).cast(), size_of::<i32>() as u32)
    };
    assert_eq!(result, 0);
}

#[test]
fn a_count_ends_it_and_a_closed_pipe_too() {
    isolated(|| {
        let child = trace(&["-n", "1"]);
        three_faults();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert!(String::from_utf8_lossy(&output.stderr).contains("1 reset in "));

        // As `| head -1` does: no further reset comes, and yet it ends.
        let mut child = trace(&[]);
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        three_faults();
        stdout.read_line(&mut String::new()).unwrap();
        drop(stdout);
        let start = Instant::now();
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None if start.elapsed() > Duration::from_secs(10) => {
                    child.kill().unwrap();
                    panic!("it does not notice that its reader is gone");
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    });
}

#[test]
fn a_reader_that_hangs_costs_lines_which_are_counted() {
    isolated(|| {
        let child = trace(&["--json", "--sent"]);
        // More than the buffers hold: nobody reads until the end.
        const CONNECTS: u64 = 40_000;
        for connect in 0..CONNECTS {
            assert!(TcpStream::connect("127.0.0.1:81").is_err());
            // Slowly enough that a debug build looks at each.
            if connect % 500 == 0 {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        std::thread::sleep(Duration::from_millis(300));
        interrupt(&child);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let text = String::from_utf8(output.stdout).unwrap();
        let shown = text.lines().filter(|line| line.contains("\"type\":\"reset\"")).count() as u64;
        let summary: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        let number = |key: &str| summary[key].as_u64().unwrap();
        // On a busy machine it may not even come to looking at them.
        assert!(number("not_shown") + number("not_examined") > 0, "the buffers are bounded: {summary}");
        assert_eq!(shown + number("not_shown"), number("total"), "{summary}");
        // The kernel's count is of the whole host and both directions; here it comes apart into what became of each.
        let parts = ["passed_over", "not_examined", "lost"].map(number).iter().sum::<u64>();
        assert_eq!(number("counted"), number("total") - number("packet_only") + parts, "{summary}");
        assert!(number("counted") >= 2 * CONNECTS, "{summary}");
        // Where events are lost, a packet may stand alone whose event was shown before; it is said to.
        let alone = if number("lost") > 0 { number("packet_only") } else { 0 };
        assert!(number("total") - alone <= CONNECTS, "{summary}");
    });
}

#[test]
fn killed_at_any_moment_of_a_storm_it_leaves_nothing_in_tracefs() {
    isolated(|| {
        const PATIENCE: Duration = Duration::from_secs(20);
        let before = tracefs();
        assert!(before.len() > 5, "tracefs is read: {before:?}");
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let storm = std::sync::Arc::clone(&stop);
        let storm = std::thread::spawn(move || {
            while !storm.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = TcpStream::connect("127.0.0.1:81");
            }
        });
        // One that comes before the program has begun is lost where it is ignored.
        let mut signals = vec![Signal::INT, Signal::TERM, Signal::KILL];
        signals.retain(|signal| !is_ignored(*signal));
        if signals.len() < 3 {
            skipped("signals that the shell lets this process ignore");
        }
        let mut random = u64::from(std::process::id());
        for turn in 0..12 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let moment = Duration::from_millis(random >> 33 & 0x1ff);
            let signal = signals[turn % signals.len()].as_raw();
            let mut command = Command::new(env!("CARGO_BIN_EXE_rstdoctor"));
            let mut child =
                command.args(["trace", "--this-netns"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(moment);
            // SAFETY: kill(2) takes no pointers; the child was not waited for.
            assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
            let start = Instant::now();
            while child.try_wait().unwrap().is_none() {
                if start.elapsed() > PATIENCE {
                    child.kill().unwrap();
                    panic!("signal {signal} after {moment:?} does not end it");
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(tracefs(), before, "signal {signal} after {moment:?}");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        storm.join().unwrap();
    });
}

/// What an ordinary user without any capability gets.
#[test]
fn without_any_permission_it_says_what_is_needed() {
    isolated(|| {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-all", "--inh-caps=-all", "--reuid=65534", "--clear-groups"]);
        let Ok(output) = command.args([env!("CARGO_BIN_EXE_rstdoctor"), "trace", "--this-netns", "-d", "1s"]).output()
        else {
            skipped("needs setpriv");
            return;
        };
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if text.contains("failed to execute") {
            skipped(format!("another user cannot run the binary: {text}"));
            return;
        }
        assert_eq!(output.status.code(), Some(3), "{text}");
        assert!(text.contains("CAP_DAC_READ_SEARCH") && text.contains("CAP_NET_RAW"), "{text}");
    });
}

/// Recorded beside 1,400 refused connects a second: some came between the last look at the events and the beginning.
#[test]
fn what_comes_while_it_opens_is_in_its_account() {
    let recording = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/trace/opening.rst");
    let output = Command::new(env!("CARGO_BIN_EXE_rstdoctor"))
        .args(["trace", "--json", "--from", recording])
        .output()
        .expect("the program runs");
    let text = String::from_utf8(output.stdout).unwrap();
    let summary: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let number = |key: &str| summary[key].as_u64().unwrap();
    let parts = ["passed_over", "not_examined", "lost"].map(number).iter().sum::<u64>();
    assert_eq!(number("counted"), number("total") - number("packet_only") + parts, "{summary}");
    // A refused connect is a RST sent and one received.
    assert_eq!(number("sent"), number("received"));
}
