//! The reader of logs and pasted text: ordinary lines mean nothing, no bytes do it harm, and `explain -` prints what it found.

use std::io::Write;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use rstdoctor::knowledge::error_texts;
use rstdoctor::knowledge::log::{Digest, digest, rank};

/// Lines that programs write all day: numbers that are also errno values and Windows errors, words that also occur in errors.
fn ordinary(n: u64) -> String {
    let (port, bytes, ms) = (n % 65_536, n.wrapping_mul(7) % 131_072, n % 1_000);
    let (a, b, c) = (n % 256, n / 256 % 256, n % 97);
    let (hour, minute, second) = (n / 3600 % 24, n / 60 % 60, n % 60);
    let clock = format!("{hour:02}:{minute:02}:{second:02}");
    let status =
        [200, 201, 204, 206, 301, 302, 304, 400, 401, 403, 404, 405, 410, 422, 429, 500][(n / 29) as usize % 16];
    match n % 29 {
        0 => format!(
            r#"10.0.{a}.{b} - - [20/Nov/2026:{clock} +0000] "GET /a.js?v={n} HTTP/1.1" {status} {bytes} "-" "curl/8.5.0""#
        ),
        1 => format!(
            r#"10.0.{a}.{b} - u{c} [20/Nov/2026:{clock} +0000] "POST /api/{port} HTTP/2.0" {status} {port} "https://x/" "Mozilla/5.0" 0.{ms:03}"#
        ),
        2 => format!(
            "Nov 20 {clock} web-3 sshd[{port}]: Accepted publickey for deploy from 10.0.{a}.{b} port {port} ssh2: ED25519 SHA256:abc"
        ),
        3 => format!(
            "Nov 20 {clock} web-3 sshd[{port}]: Received disconnect from 10.0.{a}.{b} port {port}:11: disconnected by user"
        ),
        4 => format!("Nov 20 {clock} web-3 systemd[1]: Started Session {n} of User root."),
        5 => format!("Nov 20 {clock} web-3 CRON[{port}]: (root) CMD (cd / && run-parts --report /etc/cron.hourly)"),
        6 => format!(
            "2026-11-20T{clock}.{ms:03}Z INFO  request id={n} method=GET path=/v1/items/{port} status={status} bytes={bytes} took={ms}ms"
        ),
        7 => format!(
            r#"{{"level":"info","ts":{},"msg":"served","port":{port},"bytes":{bytes},"status":{status}}}"#,
            1_795_000_000 + n
        ),
        8 => format!(
            "haproxy[71]: 10.0.{a}.{b}:{port} [20/Nov/2026:{clock}.{ms:03}] fe be/s{c} 0/0/1/{ms}/{ms} 200 {bytes} - - ---- 1/1/0/0/0 0/0 \"GET / HTTP/1.1\""
        ),
        9 => format!(
            r#"[2026-11-20T{clock}.{ms:03}Z] "GET /x HTTP/1.1" 200 - 0 {bytes} {ms} - "-" "curl/8" "id-{n}" "api" "10.0.{a}.{b}:{port}""#
        ),
        10 => format!(
            "2026-11-20 {clock}.{ms:03} UTC [{port}] LOG:  checkpoint complete: wrote {bytes} buffers ({c}.0%); 0 WAL file(s) added"
        ),
        11 => format!("2026-11-20 {clock}.{ms:03} UTC [{port}] LOG:  duration: {ms}.{c} ms  statement: SELECT {n}"),
        12 => format!("{port}:M 20 Nov 2026 {clock}.{ms:03} * {c} changes in 300 seconds. Saving..."),
        13 => format!("[{n}.{:06}] IPv6: ADDRCONF(NETDEV_CHANGE): veth{port}: link becomes ready", n % 1_000_000),
        14 => format!(
            "[{n}.{:06}] audit: type=1400 audit({n}.104:32): apparmor=\"STATUS\" operation=\"profile_load\" pid={port}",
            n % 1_000_000
        ),
        15 => format!(
            "I1120 {clock}.{ms:03}111       1 proxier.go:{c}] \"Syncing iptables rules\" ipFamily=IPv4 rules={port}"
        ),
        16 => format!("2026/11/20 {clock} [notice] {port}#{port}: signal process started, {bytes} bytes"),
        17 => format!(
            "2026-11-20 {clock},{ms:03} DEBUG c.e.Pool - pool stats (total={c}, active={a}, idle={b}, waiting=0) connect timeout = {port}, read timeout: {bytes}"
        ),
        18 => format!("forwarding 127.0.0.1:{port} -> 10.0.{a}.{b}:{port}, {bytes} bytes queued"),
        19 => format!("worker {port} finished job {n} in {ms} ms: {bytes} rows, {c} skipped, 0 failed"),
        20 => format!("connection reset counter to 0 after {n} requests; statistics reset, {c} connections open"),
        21 => format!("10.0.{a}.{b}:{port} connected, {c} clients, backlog 511, maxclients 10000"),
        22 => format!(
            "Nov 20 {clock} mail postfix/smtpd[{port}]: disconnect from host{c}.example[10.0.{a}.{b}] ehlo=1 mail=1 rcpt=1 data=1 quit=1 commands=5"
        ),
        23 => {
            format!("kafka: [Consumer clientId=c{c}, groupId=g] Resetting offset for partition t-{c} to position {n}.")
        }
        24 => format!("GET /errors/{port} 200 {bytes} - {ms} ms; cache HIT {c}/104, shard 111, 32 keys, 110 hits"),
        25 => format!("[mysqld] {clock} Event Scheduler: loaded {c} events, port: {port}, pid {n}"),
        26 => format!("uploaded part {c} of {port} ({bytes} bytes) to s3://bucket/{n}, etag \"104e{n:x}\""),
        27 => format!("Nov 20 {clock} web-3 dhclient[{port}]: DHCPACK of 10.0.{a}.{b} from 10.0.0.1 (xid=0x{n:x})"),
        _ => format!(
            "time=\"2026-11-20T{clock}Z\" level=info msg=\"pod eof-{c} refused-{c} reset-{c} is Running\" retries={c} timeout={port}"
        ),
    }
}

#[test]
fn every_cause_of_a_text_can_be_explained() {
    for text in error_texts::all() {
        for cause in &text.causes {
            let known = rstdoctor::cause::by_id(&cause.id).is_some();
            assert!(known, "{}: {}", text.name, cause.id);
        }
    }
}

fn read(log: &[u8]) -> Digest {
    digest(&mut &*log).expect("a slice can be read")
}

#[test]
fn a_hundred_thousand_ordinary_lines_mean_nothing() {
    let log: String = (0..100_000).map(|n| ordinary(n) + "\n").collect();
    let digest = read(log.as_bytes());
    let lines: Vec<&str> = log.lines().collect();
    let found: Vec<_> =
        digest.found.iter().map(|found| format!("{}: {}", found.text.name, lines[found.first as usize - 1])).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert_eq!((digest.lines, digest.paste.lines()), (100_000, 0));
    assert!(rank(&digest).causes.is_empty());
}

#[test]
fn one_error_among_them_is_found() {
    let mut log: Vec<String> = (0..1_000).map(ordinary).collect();
    log.insert(500, "read tcp 10.0.0.1:41232->10.0.7.1:5432: read: connection reset by peer".to_owned());
    let digest = read(log.join("\n").as_bytes());
    assert_eq!((digest.found.len(), digest.found[0].first), (1, 501));
}

/// Pieces of real lines, so that random logs reach what is behind the first look.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "recv() failed (104: Connection reset by peer)",
        "connection refused",
        "14:02:11.031246 IP a.1 > b.2: Flags [R.], length 0",
        "TcpExt: A ListenOverflows",
        "TcpExt: 1 18446744073709551615",
        "LISTEN 129 128 :::80 :::*",
        "[1.000000] ",
        "2026-11-20 14:02:11 ",
        "{\"MESSAGE\":[",
        "{\"a\":{\"b\":\"EPIPE\"}}",
        "TCP: 1 (estab 1, closed 99999999999, timewait 0)",
        "    7 connections reset due to unexpected data",
        "net_ratelimit: 99999999999999999999 callbacks suppressed",
        "upstream: \"http://10.0.0.7:80/\"",
        "idle for 1e999 s",
        "1795183331031000",
        "systemd[1]: Stopping x",
        "worker process 1 exited on signal 11",
        "\r",
        "\n",
        " ",
        "\u{1b}[2J",
        "Nov 31 99:99:99 ",
    ]);
    prop_oneof![known.prop_map(|text| text.as_bytes().to_vec()), prop::collection::vec(any::<u8>(), 0..40)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_do_harm(pieces in prop::collection::vec(piece(), 0..60)) {
        let log = pieces.concat();
        let digest = read(&log);
        let lines = log.split(|byte| *byte == b'\n').count() as u64 - u64::from(log.is_empty() || log.ends_with(b"\n"));
        prop_assert_eq!(digest.lines, lines);
        let errors: u64 = digest.found.iter().map(|found| found.lines).sum();
        prop_assert!(errors + digest.paste.lines() <= digest.lines);
        prop_assert!(digest.found.iter().all(|found| found.first <= found.last && found.last <= digest.lines));
        let shown = rank(&digest);
        prop_assert!(shown.causes.iter().all(|cause| !cause.reason.is_empty()));
    }

    /// Ordinary lines around an error change neither what is found nor the order of its causes.
    #[test]
    fn ordinary_lines_change_nothing(n in any::<u32>(), pieces in prop::collection::vec(piece(), 1..6)) {
        let line = pieces.concat().into_iter().filter(|byte| *byte != b'\n').collect::<Vec<_>>();
        let alone = read(&line);
        let around = [ordinary(18).as_bytes(), b"\n", &line, b"\n", ordinary(18 + 29 * u64::from(n)).as_bytes()].concat();
        let among = read(&around);
        let names = |digest: &Digest| digest.found.iter().map(|found| found.text.name.clone()).collect::<Vec<_>>();
        prop_assert_eq!(names(&alone), names(&among));
        let ids = |digest: &Digest| rank(digest).causes.iter().map(|cause| cause.id).collect::<Vec<_>>();
        prop_assert_eq!(ids(&alone), ids(&among));
    }
}

/// What `rstdoctor explain -` does with these bytes: status, standard output, standard error.
fn explained(log: &[u8]) -> (Option<i32>, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rstdoctor"))
        .args(["explain", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    // What refuses a capture does not read it to its end.
    let _ = child.stdin.take().expect("piped").write_all(log);
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_log_is_counted_whatever_it_contains() {
    let mut log = b"ok\n\xff\xfe\x1b[2Jrecv() failed (104: Connection reset by peer)\n".to_vec();
    log.extend(std::iter::repeat_n(b'x', 200_000));
    log.extend_from_slice(b"\nOSError: [Errno 24] Too many open files");
    let (status, text, _) = explained(&log);
    assert_eq!(status, Some(0));
    assert!(text.starts_with("4 lines read, 2 with a known error text."), "{text}");
    assert!(text.contains("1 line longer than 16 KiB"), "{text}");
    assert!(text.contains("(line 2)") && text.contains("(line 4)"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
    assert_eq!(explained(b"").1, "0 lines read, 0 with a known error text.\n");
}

#[test]
fn a_crash_beside_the_resets_comes_first_and_the_page_fits_a_screen() {
    let reset = "2026/11/20 14:02:11 [error] 31#31: *5 recv() failed (104: Connection reset by peer) while reading response header from upstream, client: 10.0.0.1, request: \"GET /api HTTP/1.1\", upstream: \"http://10.0.0.7:8000/\"\n";
    let crash =
        "Nov 20 14:02:11 web-3 kernel: python3[4122]: segfault at 0 ip 00005581 sp 00007ffd error 4 in libx.so\n";
    let (_, text, _) = explained(format!("{reset}{crash}{reset}").as_bytes());
    let first = text
        .lines()
        .skip_while(|line| !line.starts_with("Causes, as this text supports them"))
        .nth(1)
        .unwrap_or_default();
    assert!(first.starts_with("  process-exit") && first.contains("2 of 2 errors"), "{text}");
    assert!(text.contains("server 10.0.0.7:8000, client 10.0.0.1, path /api"), "{text}");
    assert!(text.lines().count() <= 26 && text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn pasted_counters_sockets_and_packets_are_understood() {
    let paste = "$ nstat -az\n#kernel\nTcpExtListenOverflows           72                 0.0\nTcpExtSyncookiesSent 0 0.0\n$ ss -lnt\nState  Recv-Q Send-Q Local Address:Port\nLISTEN 6      5            0.0.0.0:8080      0.0.0.0:*\nfrobnicate 7\n";
    let (status, text, _) = explained(paste.as_bytes());
    assert_eq!(status, Some(0));
    for wanted in [
        "5 of netstat, ss, sar, tcpdump or a trace",
        "72  ListenOverflows",
        "0.0.0.0:8080, 6 of 5",
        "accept-queue-overflow",
        "line 8: frobnicate 7",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

#[test]
fn a_capture_is_called_one() {
    let (status, text, error) = explained(b"\xd4\xc3\xb2\xa1\x02\0\x04\0");
    assert_eq!((status, text.as_str()), (Some(3), ""));
    assert!(error.contains("its head is cut off"), "{error}");
    let capture = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/captures/get-to-ssh-server.pcap");
    let (status, text, _) = explained(&std::fs::read(capture).expect("capture"));
    assert!(status == Some(0) && text.contains("the wrong protocol for this port"), "{text}");
}
